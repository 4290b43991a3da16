//! The demo proves itself, and its proof can fail.

use crate::support::{namespace::in_namespace, program::portico};

fn check(extra: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = portico(folder.path())
        .args(["demo", "--check"])
        .args(extra)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn check_as_root_of_a_namespace_is_even() {
    in_namespace!(Root);
    let (code, text) = check(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        text.matches("  25  web-").count(),
        12,
        "three doors, four pods each: {text}"
    );
}

#[test]
fn check_without_any_privilege_is_even() {
    in_namespace!(Unprivileged);
    let (code, text) = check(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(":10053"), "port 53 needs a privilege: {text}");
}

#[test]
fn check_with_one_heavier_pod_fails() {
    in_namespace!(Root);
    let (code, text) = check(&["--heavier"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("UNEVEN") && text.contains("  40  web-"),
        "{text}"
    );
}
