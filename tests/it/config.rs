//! The examples in `config/`: they load as they stand, and say what the program does.

use std::path::{Path, PathBuf};

use crate::support::{
    namespace::in_namespace,
    program::{Program, portico},
};

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name)
}

#[test]
fn manifests_are_valid_in_the_strictest_reading() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["manifests", "demo"] {
        let output = portico(folder.path())
            .args(["validate", "--strict"])
            .arg(config(name))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}");
    }
}

#[test]
fn manifests_are_served() {
    in_namespace!(Root);
    let files: Vec<(String, String)> = std::fs::read_dir(config("manifests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                std::fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    let program = Program::up(&["--simulate"], &files);
    let status = program.wait_for("the simulated pods", |status| {
        !status.pods.is_empty() && status.pods.iter().all(|pod| pod.phase == "Running")
    });
    let problems: Vec<_> = status
        .listeners
        .iter()
        .filter(|report| report.state != "refusing")
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
    let types: std::collections::BTreeSet<&str> = status
        .services
        .iter()
        .map(|service| &*service.service_type)
        .collect();
    assert_eq!(
        types.into_iter().collect::<Vec<_>>(),
        ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
    );
}

#[test]
fn every_setting_is_known_and_no_flag_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(config("settings.yaml")).unwrap();
    let is_setting = |line: &&str| {
        line.starts_with('#') && line.as_bytes().get(1).is_some_and(u8::is_ascii_lowercase)
    };
    let set: String = text
        .lines()
        .filter(is_setting)
        .flat_map(|line| [&line[1..], "\n"])
        .collect();
    let file = folder.path().join("settings.yaml");
    std::fs::write(&file, &set).unwrap();
    // A path that is not there ends the program once all settings have been taken.
    let output = portico(folder.path())
        .args(["up", "--settings"])
        .arg(&file)
        .arg("/nowhere/at/all")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("/nowhere/at/all"), "{error}");
    let help = portico(folder.path())
        .args(["up", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let flags = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"));
    let elsewhere = [
        "map",
        "settings",
        "instance",
        "state-dir",
        "runtime-dir",
        "help",
        "simulate",
    ];
    for flag in flags.map(|flag| flag.trim_matches(|c: char| !c.is_ascii_lowercase())) {
        let known = set
            .lines()
            .any(|line| line.starts_with(&format!("{flag}:")));
        assert!(
            known || elsewhere.contains(&flag),
            "--{flag} is not in config/settings.yaml"
        );
    }
}
