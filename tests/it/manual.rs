//! Manual pages and settings as they are shown.

use std::process::Command;

use crate::support::program::portico;

#[test]
fn man_writes_a_page_for_each_command_that_mandoc_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("man1");
    let output = portico(folder.path())
        .arg("man")
        .arg("--dir")
        .arg(&dir)
        .output();
    assert!(output.unwrap().status.success());
    let pages: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|page| page.unwrap().path())
        .collect();
    assert!(pages.len() > 8, "{pages:?}");
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        for section in [
            "NAME",
            "SYNOPSIS",
            "EXAMPLES",
            "DESCRIPTION",
            "EXIT STATUS",
            "ENVIRONMENT",
            "FILES",
        ] {
            let heading = [
                format!("\n.SH {section}\n"),
                format!("\n.SH \"{section}\"\n"),
            ];
            assert!(
                heading.iter().any(|heading| text.contains(heading)),
                "{section}: {text}"
            );
        }
        // Without a date, on purpose: a page is the same whenever it is made.
        let read = Command::new("mandoc")
            .args(["-T", "lint", "-W", "error"])
            .arg(page)
            .output();
        match read {
            Ok(read) => assert!(
                read.status.success(),
                "{}",
                String::from_utf8_lossy(&read.stdout)
            ),
            Err(error) => eprintln!("skipped: mandoc: {error}"),
        }
    }
    let up = portico(folder.path()).args(["man", "up"]).output().unwrap();
    assert_eq!(up.stdout, std::fs::read(dir.join("portico-up.1")).unwrap());
    let none = portico(folder.path())
        .args(["man", "nothing"])
        .output()
        .unwrap();
    assert_eq!(none.status.code(), Some(1));
}

#[test]
fn settings_name_the_flag_the_variable_and_the_line_that_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.yaml");
    std::fs::write(
        &file,
        "# mine\nworkers: 3\nlog-levl: debug\nconnect-timeout: 9s\n",
    )
    .unwrap();
    let output = portico(folder.path())
        .args([
            "settings",
            "--connect-timeout",
            "2s",
            "-o",
            "json",
            "--settings",
        ])
        .arg(&file)
        .env("PORTICO_DRAIN_TIMEOUT", "4s")
        .env("PORTICO_DRAIN_TIMEUOT", "5s")
        .output()
        .unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let one = |name: &str| {
        let settings = said["settings"].as_array().unwrap();
        settings
            .iter()
            .find(|setting| setting["name"] == name)
            .unwrap()
            .clone()
    };
    let path = file.to_str().unwrap();
    let expected = serde_json::json!([
        {"name": "connect-timeout", "value": "2s", "origin": "flag"},
        {"name": "drain-timeout", "value": "4s", "origin": "environment", "variable": "PORTICO_DRAIN_TIMEOUT"},
        {"name": "workers", "value": "3", "origin": "file", "file": path, "line": 2},
        {"name": "log-level", "value": "info", "origin": "default"},
    ]);
    let names = ["connect-timeout", "drain-timeout", "workers", "log-level"];
    assert_eq!(serde_json::Value::from(names.map(one).to_vec()), expected);
    let warnings = said["warnings"].to_string();
    for said in [
        "PORTICO_DRAIN_TIMEUOT is not known, did you mean PORTICO_DRAIN_TIMEOUT?",
        ":3: unknown setting 'log-levl', did you mean 'log-level'?",
    ] {
        assert!(warnings.contains(said), "{warnings}");
    }
}

#[test]
fn colour_is_there_only_where_it_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.yaml");
    std::fs::write(&file, "kind: Service\n").unwrap();
    let is_coloured = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = portico(folder.path());
        command
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR_FORCE")
            .args(args)
            .arg("validate")
            .arg(&file);
        command.envs(variables.iter().copied());
        command.output().unwrap().stdout.contains(&0x1b)
    };
    assert!(!is_coloured(&[], &[]), "no terminal");
    assert!(is_coloured(&["--color", "always"], &[]));
    assert!(is_coloured(&["--color=always"], &[("NO_COLOR", "1")]));
    assert!(is_coloured(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!is_coloured(
        &[],
        &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]
    ));
    assert!(!is_coloured(
        &["--color", "never"],
        &[("CLICOLOR_FORCE", "1")]
    ));
}
