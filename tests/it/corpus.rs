//! Replays what fuzzing has found worth keeping (`fuzz/corpus`) through the same checks, so that it stays found where
//! there is no fuzzer.

use std::{fs, path::Path};

#[path = "../../fuzz/checks/all.rs"]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {}", folder.display());
    for file in files {
        // The harness shows it if the check fails.
        println!("{}", file.display());
        check(&fs::read(&file).unwrap());
    }
}

#[test]
fn corpus_of_manifests_finds_nothing() {
    replay("manifests", checks::manifests::check);
}

#[test]
fn corpus_of_worlds_finds_nothing() {
    replay("world", checks::world::check);
}

#[test]
fn corpus_of_packets_finds_nothing() {
    replay("dns", checks::dns::check);
}

#[test]
fn corpus_of_relayed_messages_finds_nothing() {
    replay("relayed", checks::relayed::check);
}

#[test]
fn corpus_of_flows_finds_nothing() {
    replay("flow", checks::flow::check);
}

#[test]
fn corpus_of_proxy_headers_finds_nothing() {
    replay("proxy_protocol", checks::proxy_protocol::check);
}
