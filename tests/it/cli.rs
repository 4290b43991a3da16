//! The command line: exit codes and words.

use crate::support::{namespace::in_namespace, program::portico};

fn run(args: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = portico(folder.path()).args(args).output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr),
    )
}

#[test]
fn help_begins_with_examples() {
    let (code, text) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("Examples:\n  portico demo"), "{text}");
    let (code, text) = run(&["--version"]);
    assert_eq!(
        (code, &*text),
        (
            Some(0),
            concat!("portico ", env!("CARGO_PKG_VERSION"), "\n")
        )
    );
}

#[test]
fn status_without_a_program_says_what_to_start() {
    let (code, text) = run(&["status"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("no portico runs as instance 'default'") && text.contains("portico up"),
        "{text}"
    );
}

#[test]
fn up_with_a_path_that_is_not_there_names_it() {
    in_namespace!(Unprivileged);
    let (code, text) = run(&["up", "/nowhere/at/all"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("/nowhere/at/all"), "{text}");
}

#[test]
fn settings_file_gives_what_flags_and_environment_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.yaml");
    std::fs::write(
        &file,
        "service-cidr: 127.80.0.0/16\nloadbalancer-cidr: 127.80.4.0/24\n",
    )
    .unwrap();
    let output = portico(folder.path())
        .args(["up", "--settings", file.to_str().unwrap(), "--map", "a=:1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("127.80.0.0/16") && text.contains("overlap"),
        "both came from the file: {text}"
    );
    std::fs::write(&file, "no-such-thing: 1\n").unwrap();
    let output = portico(folder.path())
        .args(["up", "--settings", file.to_str().unwrap(), "--map", "a=:1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("unknown setting 'no-such-thing'"), "{text}");
}

#[test]
fn map_prints_what_validate_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let mapped = portico(folder.path())
        .args(["map", "web:80=127.0.0.1:3000,127.0.0.1:3001"])
        .output()
        .unwrap();
    let file = folder.path().join("web.yaml");
    std::fs::write(&file, &mapped.stdout).unwrap();
    let output = portico(folder.path())
        .args(["validate", "--strict"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn output_nobody_reads_does_not_end_the_program() {
    use std::io::{BufRead as _, Read as _};
    in_namespace!(Root);
    let folder = tempfile::tempdir().unwrap();
    let mut child = portico(folder.path())
        .args(["up", "--map", "web:80=:9"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    drop(output);
    // The listener that is served now was bound after its reader had gone.
    let status = portico(folder.path()).arg("status").output().unwrap();
    assert_eq!(status.status.code(), Some(0));
    let killed = std::process::Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let code = child.wait().unwrap().code();
    let mut errors = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(code, Some(0), "{errors}");
}
