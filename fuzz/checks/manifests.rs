//! The text of one manifest file and its edits (versions apart by a byte 0xff, which no UTF-8 text has), as `up` takes
//! them: read, decoded, defaulted, validated, merged, compiled, and every finding printed.

use std::sync::Arc;

use portico::source::{
    manifest::{Loaded, ManifestSettings, Strictness, load},
    render::render,
};
use portico_core::world::{Shard, Simulation};

use super::bench::Bench;

/// Versions of the file; more teach nothing.
const MOST_EDITS: usize = 4;

pub(crate) fn check(bytes: &[u8]) {
    let file: Arc<str> = "web.yaml".into();
    let mut bench = Bench::new(Simulation::On);
    let mut last: Option<Shard> = None;
    for version in bytes.split(|byte| *byte == 0xff).take(MOST_EDITS) {
        let text = String::from_utf8_lossy(version);
        let read = |strictness, previous: Option<&Shard>| {
            let settings = ManifestSettings {
                namespace: "default".into(),
                strictness,
            };
            load(&file, &text, &settings, previous)
        };
        let loaded = read(Strictness::Lenient, last.as_ref());
        check_findings(&loaded, &text);
        assert_eq!(
            loaded,
            read(Strictness::Lenient, last.as_ref()),
            "twice the same"
        );
        let strict = read(Strictness::Strict, None);
        check_findings(&strict, &text);
        let again = read(Strictness::Lenient, Some(&loaded.shard));
        assert_eq!(again.shard.diagnostics, loaded.shard.diagnostics);
        for object in &again.shard.objects {
            let kept = &loaded.shard.objects;
            assert!(
                kept.iter().any(|of| of.key == object.key),
                "{} out of nothing",
                object.key
            );
        }
        bench.file("web.yaml", loaded.shard.clone());
        bench.round();
        last = Some(loaded.shard);
    }
}

/// Findings are sorted, point into the text, and can be printed.
fn check_findings(loaded: &Loaded, text: &str) {
    // A lone carriage return breaks a line, too (YAML 1.2.2, section 5.4).
    let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();
    let findings = &loaded.shard.diagnostics;
    assert!(findings.is_sorted_by_key(|finding| finding.position));
    for finding in findings {
        assert!(!finding.message.is_empty());
        let position = finding
            .position
            .expect("a finding about a text is somewhere in it");
        let line = usize::try_from(position.line).unwrap_or(usize::MAX);
        assert!(
            (1..=lines).contains(&line),
            "{finding} is at line {line} of {lines}"
        );
        let printed = render(finding, Some(text), false);
        assert!(
            printed.lines().count() <= 3 && !printed.chars().any(|c| c.is_control() && c != '\n'),
            "a terminal must not obey {printed:?}"
        );
    }
}
