//! The examples in `config/`: they load as they stand, and say what the program does.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

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
        .filter(|report| matches!(&*report.state, "fallback" | "failed"))
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

/// `PORTICO_BLESS=1` writes the table anew, to be read before it is committed.
#[test]
fn table_of_annotations_is_the_programs_own() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/annotations.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let head = text.find("| annotation |").unwrap_or(text.len());
    let expected = format!(
        "{}{}",
        &text[..head],
        portico_core::object::annotations::markdown()
    );
    if std::env::var_os("PORTICO_BLESS").is_some() {
        std::fs::write(&file, &expected).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap() == expected,
        "docs/annotations.md is not what the program does: run this test with PORTICO_BLESS=1"
    );
}

/// systemd reads the units without a complaint. One before 253 does not know `notify-reload` yet.
#[test]
fn systemd_units_are_read_by_systemd() {
    let Ok(version) = std::process::Command::new("systemd-analyze")
        .arg("--version")
        .output()
    else {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let number = version
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse::<u32>().ok());
    let folder = tempfile::tempdir().unwrap();
    for (unit, user) in [
        ("portico.service", false),
        ("portico.socket", false),
        ("user/portico.service", true),
    ] {
        let text = std::fs::read_to_string(config("systemd").join(unit)).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for line in &mut lines {
            if let Some(rest) = line.strip_prefix("ExecStart=") {
                let (_, arguments) = rest.split_once(' ').unwrap();
                *line = format!("ExecStart={} {arguments}", env!("CARGO_BIN_EXE_portico"));
            }
            if number.is_none_or(|number| number < 253) && line == "Type=notify-reload" {
                *line = "Type=notify".to_owned();
            }
            // The page is installed with the program.
            if line.starts_with("Documentation=") {
                line.clear();
            }
        }
        let file = folder.path().join(if user { "user.service" } else { unit });
        std::fs::write(&file, lines.join("\n")).unwrap();
        let mut command = std::process::Command::new("systemd-analyze");
        let folder = folder.path();
        command
            .arg(if user { "--user" } else { "--system" })
            .arg("verify")
            .arg(&file);
        command.env("XDG_RUNTIME_DIR", folder).env("HOME", folder);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let about: Vec<&str> = said
            .lines()
            .filter(|line| line.contains(file.to_str().unwrap()))
            .collect();
        assert!(
            output.status.success() && about.is_empty(),
            "{unit}: {said}"
        );
    }
}

#[test]
fn every_setting_is_known_and_no_flag_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    // One of the settings is another user, who has to get to the folders inside.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
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
    // A path that is not there ends the program once all settings have been taken, or that only root becomes a user.
    let output = portico(folder.path())
        .args(["up", "--settings"])
        .arg(&file)
        .arg("/nowhere/at/all")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let ends = ["/nowhere/at/all", "only root can become nobody"];
    assert!(ends.iter().any(|end| error.contains(end)), "{error}");
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
    for flag in flags.map(|flag| flag.trim_matches(|c: char| !c.is_ascii_alphanumeric())) {
        let known = set
            .lines()
            .any(|line| line.starts_with(&format!("{flag}:")));
        assert!(
            known || elsewhere.contains(&flag),
            "--{flag} is not in config/settings.yaml"
        );
    }
}
