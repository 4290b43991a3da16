//! Prepared mistakes, one a folder: the Service is `web` of namespace `default`, and `expect` has the first lines of
//! what is printed, up to the tables.

use std::path::{Path, PathBuf};

use super::*;
use crate::explain::State;

const MISTAKES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mistakes");

/// The manifests of a folder, on a node called `here`.
fn offline(folder: &Path) -> app::Offline {
    let nowhere = tempfile::tempdir().unwrap();
    let instance = InstanceOptions {
        instance: "default".into(),
        state_dir: Some(nowhere.path().join("state")),
        runtime_dir: Some(nowhere.path().join("run")),
    };
    let manifests = ManifestOptions {
        namespace: "default".into(),
        strict: false,
    };
    let cluster = ClusterOptions {
        node_name: Some("here".into()),
        ..ClusterOptions::default()
    };
    app::Offline::read(&[folder.to_owned()], &manifests, &cluster, &instance).unwrap()
}

/// What is printed about `web`, with files named within their folder.
fn explained(folder: &Path) -> String {
    let explanation = offline(folder).explain("default", "web").unwrap();
    let text = text(&explanation, Place::Manifests);
    text.replace(&format!("{}/", folder.display()), "")
}

fn mistakes() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(MISTAKES).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

#[test]
fn explain_of_each_mistake_names_its_cause_first() {
    let folders = mistakes();
    assert!(folders.len() >= 20, "{}", folders.len());
    for folder in folders {
        let text = explained(&folder);
        let head = text.split("\n\n").next().unwrap();
        let expected = std::fs::read_to_string(folder.join("expect")).unwrap();
        assert_eq!(head.trim_end(), expected.trim_end(), "{}", folder.display());
    }
}

#[test]
fn explain_of_each_mistake_survives_its_own_json() {
    for folder in mistakes() {
        let explanation = offline(&folder).explain("default", "web").unwrap();
        let json = serde_json::to_string(&explanation).unwrap();
        assert_eq!(
            serde_json::from_str::<Explanation>(&json).unwrap(),
            explanation
        );
        assert!(!explanation.problems.is_empty(), "{}", folder.display());
    }
}

#[test]
fn explain_of_each_mistake_corrected_has_no_problem() {
    let folder = tempfile::tempdir().unwrap();
    let mistake = Path::new(MISTAKES).join("01-port-name/web.yaml");
    let text = std::fs::read_to_string(mistake).unwrap();
    std::fs::write(folder.path().join("web.yaml"), text.replace("htpp", "http")).unwrap();
    let explanation = offline(folder.path()).explain("default", "web").unwrap();
    assert_eq!(explanation.problems, []);
    assert_eq!(explanation.state, State::Served);
    assert_eq!(
        explanation.headline,
        "web is served: 2 of 2 endpoints on 1 port"
    );
}

#[test]
fn not_found_names_near_names_and_other_namespaces() {
    let folder = Path::new(MISTAKES).join("12-node-port-taken");
    let offline = offline(&folder);
    let text = offline.explain("default", "frist").unwrap_err();
    assert_eq!(
        text,
        "Error from server (NotFound): services \"frist\" not found\nDid you mean \"first\"?"
    );
    let text = offline.explain("shop", "first").unwrap_err();
    assert!(
        text.ends_with("There is one in namespace default: add -n default"),
        "{text}"
    );
}

#[test]
fn service_name_takes_both_of_kubectls_forms() {
    let name = |what: &[&str]| {
        let what: Vec<String> = what.iter().map(ToString::to_string).collect();
        service_name(&what)
            .map(str::to_owned)
            .map_err(|error| error.to_string())
    };
    assert_eq!(name(&["service", "web"]), Ok("web".into()));
    assert_eq!(name(&["svc/web"]), Ok("web".into()));
    assert!(name(&["pod", "web"]).unwrap_err().contains("only Services"));
    assert!(name(&["service"]).unwrap_err().contains("which one?"));
    assert!(
        name(&["service", "../status"])
            .unwrap_err()
            .contains("NotFound")
    );
}
