//! The tree by itself: surveys and times are given, files are real.

use std::{fs, path::Path};

use super::*;
use crate::source::file::{
    survey::survey,
    tests::{content, expected, lines},
};
use portico_core::world::SourceReport;

struct Fixture {
    folder: tempfile::TempDir,
    tree: Tree,
    start: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            tree: Tree::new(lines()),
            start: Instant::now(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn apply(&mut self, after: Duration) -> bool {
        let found = survey(&[self.folder.path().to_owned()]);
        self.tree.apply(found, Trust::Identity, self.start + after)
    }

    fn shows(&self, files: &[(&str, &str)]) {
        let report = SourceReport::Synced(self.tree.view());
        assert_eq!(content(&report, self.folder.path()), expected(files));
    }
}

fn place(path: &Path) -> BTreeSet<PathBuf> {
    BTreeSet::from([path.canonicalize().unwrap()])
}

#[test]
fn apply_vanished_file_stays_for_its_grace() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("a.yaml"), "one").unwrap();
    assert!(fixture.apply(Duration::ZERO));
    fs::remove_file(fixture.path("a.yaml")).unwrap();

    assert!(!fixture.apply(Duration::ZERO));
    fixture.shows(&[("a.yaml", "one")]);
    assert_eq!(fixture.tree.grace_ends(), Some(fixture.start + GRACE));

    assert!(!fixture.tree.settle(fixture.start + GRACE / 2));
    assert!(fixture.tree.settle(fixture.start + GRACE));
    fixture.shows(&[]);
    assert_eq!(fixture.tree.grace_ends(), None);
}

#[test]
fn apply_file_back_within_its_grace_never_left() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("a.yaml"), "one").unwrap();
    fixture.apply(Duration::ZERO);
    let before = fixture.tree.view();
    fs::remove_file(fixture.path("a.yaml")).unwrap();
    fixture.apply(Duration::ZERO);
    fs::write(fixture.path("a.yaml"), "one").unwrap();

    assert!(!fixture.tree.settle(fixture.start + GRACE));

    let after = fixture.tree.view();
    let pairs = before.shards.values().zip(after.shards.values());
    assert_eq!(
        pairs
            .filter(|(before, after)| Arc::ptr_eq(before, after))
            .count(),
        1
    );
}

#[test]
fn apply_renamed_file_changes_its_name_at_once() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("a.yaml"), "one").unwrap();
    fixture.apply(Duration::ZERO);
    fs::rename(fixture.path("a.yaml"), fixture.path("b.yaml")).unwrap();
    assert!(fixture.apply(Duration::ZERO));
    fixture.shows(&[("b.yaml", "one")]);
}

#[test]
fn look_at_empty_file_just_created_waits_for_its_close() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("a.yaml"), "one").unwrap();
    fixture.apply(Duration::ZERO);
    fs::write(fixture.path("a.yaml"), "").unwrap();
    let places = place(&fixture.path("a.yaml"));
    let path = places.first().unwrap().clone();

    fixture.tree.note_writing(&path, true);
    assert!(!fixture.tree.look_at(&places, fixture.start));
    fixture.shows(&[("a.yaml", "one")]);
    assert!(fixture.tree.is_unsettled());

    fixture.tree.note_writing(&path, false);
    assert!(fixture.tree.settle(fixture.start));
    fixture.shows(&[("a.yaml", "")]);
    assert!(!fixture.tree.is_unsettled());
}

#[test]
fn look_at_new_file_with_a_manifest_name_only_is_loaded() {
    let mut fixture = Fixture::new();
    fixture.apply(Duration::ZERO);
    for name in ["a.yaml", "b.txt", ".c.yaml", "#d.yaml#"] {
        fs::write(fixture.path(name), "one").unwrap();
        let places = place(&fixture.path(name));
        fixture.tree.look_at(&places, fixture.start);
    }
    fixture.shows(&[("a.yaml", "one")]);
}

#[test]
fn apply_same_text_with_new_time_is_no_change() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("a.yaml"), "one").unwrap();
    fixture.apply(Duration::ZERO);
    fs::write(fixture.path("a.yaml"), "one").unwrap();
    assert!(!fixture.apply(Duration::ZERO));
}

#[test]
fn apply_text_of_the_same_size_within_one_clock_tick_is_seen() {
    let mut fixture = Fixture::new();
    fs::write(fixture.path("a.yaml"), "one").unwrap();
    fixture.apply(Duration::ZERO);
    fs::write(fixture.path("a.yaml"), "two").unwrap();
    assert!(fixture.apply(Duration::ZERO));
    fixture.shows(&[("a.yaml", "two")]);
}

#[test]
fn apply_folder_gone_fails_after_its_grace_and_keeps_the_view() {
    let mut fixture = Fixture::new();
    fs::create_dir(fixture.path("sub")).unwrap();
    fs::write(fixture.path("sub/a.yaml"), "one").unwrap();
    let roots = [fixture.path("sub")];
    fixture
        .tree
        .apply(survey(&roots), Trust::Identity, fixture.start);
    fs::remove_dir_all(fixture.path("sub")).unwrap();

    assert!(
        !fixture
            .tree
            .apply(survey(&roots), Trust::Identity, fixture.start)
    );
    assert_eq!(fixture.tree.failure(), None);
    assert!(fixture.tree.settle(fixture.start + GRACE));
    assert!(
        fixture
            .tree
            .failure()
            .is_some_and(|error| error.contains("sub"))
    );
    fixture.shows(&[("sub/a.yaml", "one")]);

    fs::create_dir(fixture.path("sub")).unwrap();
    assert!(
        fixture
            .tree
            .apply(survey(&roots), Trust::Identity, fixture.start + GRACE)
    );
    assert_eq!(fixture.tree.failure(), None);
}
