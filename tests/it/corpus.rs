//! Replays what fuzzing has found worth keeping (`fuzz/corpus`) through the same checks, so that it stays found where
//! there is no fuzzer.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[path = "../../fuzz/checks/all.rs"]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    for file in kept(target) {
        // The harness shows it if the check fails.
        println!("{}", file.display());
        check(&fs::read(&file).unwrap());
    }
}

fn kept(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {}", folder.display());
    files
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

/// Each as it is, and in some thousand broken forms. `PORTICO_HTTP_HEADS` says how many of each.
fn replay_broken(target: &str, check: fn(&[u8])) {
    let forms = std::env::var("PORTICO_HTTP_HEADS").map_or(2_000, |text| text.parse().unwrap());
    replay(target, check);
    for seed in kept(target) {
        let seed = fs::read(seed).unwrap();
        for number in 0..forms {
            let bytes = checks::http::mutated(&seed, number);
            let outcome = std::panic::catch_unwind(|| check(&bytes));
            assert!(outcome.is_ok(), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn corpus_of_http_heads_and_what_is_like_it_finds_nothing() {
    replay_broken("http", checks::http::check);
}

#[test]
fn corpus_of_http_requests_and_what_is_like_it_finds_nothing() {
    replay_broken("requests", checks::requests::check);
}
