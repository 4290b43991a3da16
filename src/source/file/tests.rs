//! The live file Source on real folders: every test waits for the report that shows what it expects.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use portico_core::{
    object::{
        Kind, Meta, Object, ObjectKey, Origin, Spec,
        diagnostic::{Diagnostic, Severity},
    },
    world::{Shard, SourceReport},
};

use super::{FileError, FileSource, FileWatch, Load, manifests, watches::Watches};
use crate::source::manifest::{Loaded, ManifestSettings, Strictness};

const DEADLINE: Duration = Duration::from_secs(20);

/// One object a line; a line `broken` cannot be decoded, a line `kind X` is inert.
pub(super) fn lines() -> Load {
    Box::new(|file, text, previous| {
        if text.lines().any(|line| line == "broken") {
            let objects = previous
                .map(|shard| shard.objects.clone())
                .unwrap_or_default();
            return Loaded {
                shard: Shard {
                    objects,
                    diagnostics: vec![finding(file)],
                },
                inert: BTreeMap::new(),
            };
        }
        let mut loaded = Loaded::default();
        for line in text.lines() {
            match line.strip_prefix("kind ") {
                Some(kind) => *loaded.inert.entry(kind.into()).or_default() += 1,
                None => loaded.shard.objects.push(Arc::new(object(file, line))),
            }
        }
        loaded
    })
}

fn object(file: &Arc<str>, name: &str) -> Object {
    Object {
        key: ObjectKey {
            kind: Kind::Namespace,
            namespace: "".into(),
            name: name.into(),
        },
        meta: Meta::default(),
        origin: Origin {
            file: Arc::clone(file),
            position: portico_core::object::Position::default(),
            marks: Arc::new([]),
        },
        manifest: "{}".into(),
        spec: Spec::Namespace,
    }
}

fn finding(file: &Arc<str>) -> Diagnostic {
    Diagnostic {
        file: Arc::clone(file),
        position: None,
        severity: Severity::Error,
        object: None,
        path: String::new(),
        message: "broken".to_owned(),
    }
}

/// Object names by file, relative to the folder.
pub(super) fn content(report: &SourceReport, root: &Path) -> BTreeMap<String, String> {
    let Some(view) = report.view() else {
        return BTreeMap::new();
    };
    let name = |file: &str| {
        Path::new(file)
            .strip_prefix(root)
            .map_or(file.to_owned(), |path| path.display().to_string())
    };
    let text = |shard: &Shard| {
        let names: Vec<_> = shard
            .objects
            .iter()
            .map(|object| &*object.key.name)
            .collect();
        names.join(" ")
    };
    view.shards
        .iter()
        .map(|(file, shard)| (name(file), text(shard)))
        .collect()
}

pub(super) fn expected(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files
        .iter()
        .map(|(file, text)| ((*file).to_owned(), (*text).to_owned()))
        .collect()
}

struct Live {
    root: PathBuf,
    watch: FileWatch,
    /// The content that was seen last.
    seen: BTreeMap<String, String>,
    _folder: tempfile::TempDir,
}

impl Live {
    /// A folder `config` with these files, followed, after its first report.
    async fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, lines(), |_| {}).await
    }

    async fn start_with(files: &[(&str, &str)], load: Load, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("config");
        if !files.is_empty() {
            fs::create_dir(&root).unwrap();
        }
        prepare(&root);
        for (name, text) in files {
            fs::write(root.join(name), text).unwrap();
        }
        let watch = FileSource::open(std::slice::from_ref(&root), load)
            .unwrap()
            .spawn()
            .unwrap();
        let mut live = Self {
            root,
            watch,
            seen: BTreeMap::new(),
            _folder: folder,
        };
        live.until(|report| !matches!(report, SourceReport::Pending))
            .await;
        live
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    async fn until(&mut self, is_wanted: impl FnMut(&SourceReport) -> bool) -> SourceReport {
        let waited = tokio::time::timeout(DEADLINE, self.watch.reports.wait_for(is_wanted)).await;
        let report = waited.map(|report| report.expect("the thread lives").clone());
        let report = report.unwrap_or_else(|_| panic!("last report: {:?}", self.report()));
        self.seen = content(&report, &self.root);
        report
    }

    async fn shows(&mut self, files: &[(&str, &str)]) -> SourceReport {
        let (wanted, root) = (expected(files), self.root.clone());
        self.until(|report| {
            matches!(report, SourceReport::Synced(_)) && content(report, &root) == wanted
        })
        .await
    }

    /// Checks that the first other content than the last seen is `files`.
    async fn shows_next(&mut self, files: &[(&str, &str)]) {
        let (wanted, root, before) = (expected(files), self.root.clone(), self.seen.clone());
        let report = self.until(|report| content(report, &root) != before).await;
        assert_eq!(content(&report, &self.root), wanted);
    }

    fn report(&self) -> SourceReport {
        self.watch.reports.borrow().clone()
    }
}

fn shard(report: &SourceReport, root: &Path, name: &str) -> Arc<Shard> {
    let name: Arc<str> = root.join(name).display().to_string().into();
    Arc::clone(&report.view().unwrap().shards[&name])
}

#[tokio::test]
async fn follow_edit_in_place_gives_new_shard_and_keeps_the_other() {
    let mut live = Live::start(&[("a.yaml", "one"), ("b.yml", "two"), ("note.txt", "no")]).await;
    let before = live.shows(&[("a.yaml", "one"), ("b.yml", "two")]).await;
    live.write("a.yaml", "three");
    let after = live.shows(&[("a.yaml", "three"), ("b.yml", "two")]).await;
    assert!(Arc::ptr_eq(
        &shard(&before, &live.root, "b.yml"),
        &shard(&after, &live.root, "b.yml")
    ));
}

#[tokio::test]
async fn follow_atomic_rename_over_a_file_is_taken() {
    let mut live = Live::start(&[("a.yaml", "one")]).await;
    live.write(".a.yaml.tmp", "two");
    fs::rename(live.path(".a.yaml.tmp"), live.path("a.yaml")).unwrap();
    live.shows_next(&[("a.yaml", "two")]).await;
}

#[tokio::test]
async fn follow_editor_that_moves_to_a_backup_first_never_shows_a_gap() {
    let mut live = Live::start(&[("a.yaml", "one")]).await;
    live.write("4913", "");
    fs::remove_file(live.path("4913")).unwrap();
    fs::rename(live.path("a.yaml"), live.path("a.yaml~")).unwrap();
    let mut file = File::create(live.path("a.yaml")).unwrap();
    file.write_all(b"two").unwrap();
    drop(file);
    fs::remove_file(live.path("a.yaml~")).unwrap();
    live.shows_next(&[("a.yaml", "two")]).await;
}

#[tokio::test]
async fn follow_deletion_removes_the_shard_and_the_last_gives_an_empty_world() {
    let mut live = Live::start(&[("a.yaml", "one"), ("b.yaml", "two")]).await;
    fs::remove_file(live.path("a.yaml")).unwrap();
    live.shows(&[("b.yaml", "two")]).await;
    fs::remove_file(live.path("b.yaml")).unwrap();
    live.shows(&[]).await;
}

#[tokio::test]
async fn follow_rename_moves_the_objects_without_a_gap() {
    let mut live = Live::start(&[("a.yaml", "one")]).await;
    fs::rename(live.path("a.yaml"), live.path("b.yaml")).unwrap();
    live.shows(&[("b.yaml", "one")]).await;
}

#[tokio::test]
async fn follow_new_folders_with_files_are_found_and_then_followed() {
    let mut live = Live::start(&[("a.yaml", "one")]).await;
    fs::create_dir_all(live.path("x/y/z")).unwrap();
    live.write("x/y/z/b.yaml", "two");
    live.shows(&[("a.yaml", "one"), ("x/y/z/b.yaml", "two")])
        .await;
    live.write("x/y/z/b.yaml", "three");
    live.shows(&[("a.yaml", "one"), ("x/y/z/b.yaml", "three")])
        .await;
    fs::remove_dir_all(live.path("x")).unwrap();
    live.shows(&[("a.yaml", "one")]).await;
}

#[tokio::test]
async fn follow_config_map_switch_shows_the_new_files() {
    let mut live = Live::start_with(&[], lines(), |root| {
        fs::create_dir_all(root.join("..v1")).unwrap();
        fs::write(root.join("..v1/a.yaml"), "one").unwrap();
        symlink("..v1", root.join("..data")).unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    })
    .await;
    live.shows(&[("a.yaml", "one")]).await;
    for version in 2..5 {
        let folder = format!("..v{version}");
        fs::create_dir(live.path(&folder)).unwrap();
        live.write(&format!("{folder}/a.yaml"), &format!("v{version}"));
        symlink(&folder, live.path("..data_tmp")).unwrap();
        fs::rename(live.path("..data_tmp"), live.path("..data")).unwrap();
        fs::remove_dir_all(live.path(&format!("..v{}", version - 1))).unwrap();
        live.shows_next(&[("a.yaml", &format!("v{version}"))]).await;
    }
}

#[tokio::test]
async fn follow_target_of_a_link_edited_in_place_is_taken() {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("real");
    fs::write(&target, "one").unwrap();
    let mut live = Live::start_with(&[], lines(), |root| {
        fs::create_dir(root).unwrap();
        symlink(&target, root.join("a.yaml")).unwrap();
    })
    .await;
    live.shows(&[("a.yaml", "one")]).await;
    fs::write(&target, "two").unwrap();
    live.shows(&[("a.yaml", "two")]).await;
}

#[tokio::test]
async fn follow_folder_replaced_again_and_again_is_read_and_followed() {
    let mut live = Live::start(&[("a.yaml", "one")]).await;
    for round in 0..3 {
        let (old, new) = (
            live.root.with_file_name("old"),
            live.root.with_file_name("new"),
        );
        fs::create_dir_all(new.join("sub")).unwrap();
        fs::write(new.join("a.yaml"), format!("first{round}")).unwrap();
        fs::write(new.join("sub/b.yaml"), "deep").unwrap();
        fs::rename(&live.root, &old).unwrap();
        fs::rename(&new, &live.root).unwrap();
        live.shows(&[("a.yaml", &format!("first{round}")), ("sub/b.yaml", "deep")])
            .await;
        live.write("sub/b.yaml", "edited");
        live.shows(&[
            ("a.yaml", &format!("first{round}")),
            ("sub/b.yaml", "edited"),
        ])
        .await;
        fs::remove_dir_all(old).unwrap();
    }
}

#[tokio::test]
async fn follow_root_link_switched_to_another_folder_shows_that_folder() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("v1", "one"), ("v2", "two")] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("a.yaml"), text).unwrap();
    }
    let root = folder.path().join("current");
    symlink("v1", &root).unwrap();
    let watch = FileSource::open(std::slice::from_ref(&root), lines())
        .unwrap()
        .spawn()
        .unwrap();
    let mut live = Live {
        root,
        watch,
        seen: BTreeMap::new(),
        _folder: folder,
    };
    live.shows(&[("a.yaml", "one")]).await;
    symlink("v2", live.root.with_file_name("next")).unwrap();
    fs::rename(live.root.with_file_name("next"), &live.root).unwrap();
    live.shows(&[("a.yaml", "two")]).await;
    live.write("a.yaml", "three");
    live.shows(&[("a.yaml", "three")]).await;
}

#[tokio::test]
async fn follow_half_written_file_keeps_last_good_until_closed() {
    let mut live = Live::start(&[("a.yaml", "one\ntwo"), ("b.yaml", "x")]).await;
    let mut half = File::create(live.path("a.yaml")).unwrap();
    half.write_all(b"thr").unwrap();
    half.sync_all().unwrap();

    live.write("b.yaml", "y");
    live.shows_next(&[("a.yaml", "one two"), ("b.yaml", "y")])
        .await;
    live.watch.rescanner().rescan();
    live.write("c.yaml", "z");
    live.shows_next(&[("a.yaml", "one two"), ("b.yaml", "y"), ("c.yaml", "z")])
        .await;

    half.write_all(b"ee").unwrap();
    drop(half);
    live.shows_next(&[("a.yaml", "three"), ("b.yaml", "y"), ("c.yaml", "z")])
        .await;
}

/// [`lines`], counting how often it is asked.
fn counted() -> (Load, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let (mut load, counter) = (lines(), Arc::clone(&count));
    let load: Load = Box::new(move |file, text, previous| {
        counter.fetch_add(1, Ordering::Relaxed);
        load(file, text, previous)
    });
    (load, count)
}

#[tokio::test]
async fn follow_touch_and_rescan_without_change_report_nothing() {
    let (load, count) = counted();
    let mut live = Live::start_with(&[("a.yaml", "one"), ("b.yaml", "x")], load, |_| {}).await;
    live.shows(&[("a.yaml", "one"), ("b.yaml", "x")]).await;
    let before = count.load(Ordering::Relaxed);

    File::options()
        .write(true)
        .open(live.path("a.yaml"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    live.write("a.yaml", "one");
    live.watch.rescanner().rescan();
    live.write("b.yaml", "y");
    live.shows_next(&[("a.yaml", "one"), ("b.yaml", "y")]).await;

    assert_eq!(count.load(Ordering::Relaxed), before + 1);
}

#[tokio::test]
async fn follow_broken_text_keeps_last_good_and_says_so() {
    let mut live = Live::start(&[("a.yaml", "one")]).await;
    live.write("a.yaml", "broken");
    let root = live.root.clone();
    let report = live
        .until(|report| !shard(report, &root, "a.yaml").diagnostics.is_empty())
        .await;
    assert_eq!(content(&report, &live.root), expected(&[("a.yaml", "one")]));
    fs::write(live.path("a.yaml"), b"\xff").unwrap();
    let said = |report: &SourceReport| {
        shard(report, &root, "a.yaml").diagnostics[0]
            .message
            .contains("UTF-8")
    };
    let report = live.until(said).await;
    assert_eq!(content(&report, &live.root), expected(&[("a.yaml", "one")]));
    live.write("a.yaml", "two");
    live.shows(&[("a.yaml", "two")]).await;
}

#[tokio::test]
async fn follow_root_folder_gone_fails_with_last_view_and_recovers() {
    let mut live = Live::start(&[("a.yaml", "one")]).await;
    let away = live.root.with_file_name("away");
    fs::rename(&live.root, &away).unwrap();
    let report = live
        .until(|report| matches!(report, SourceReport::Failing { .. }))
        .await;
    assert_eq!(content(&report, &live.root), expected(&[("a.yaml", "one")]));
    fs::write(away.join("b.yaml"), "two").unwrap();
    fs::rename(&away, &live.root).unwrap();
    live.shows(&[("a.yaml", "one"), ("b.yaml", "two")]).await;
}

#[tokio::test]
async fn follow_named_file_deleted_and_written_again_goes_and_comes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services.conf");
    fs::write(&file, "one").unwrap();
    fs::write(folder.path().join("other.yaml"), "no").unwrap();
    let watch = FileSource::open(std::slice::from_ref(&file), lines())
        .unwrap()
        .spawn()
        .unwrap();
    let mut live = Live {
        root: folder.path().to_owned(),
        watch,
        seen: BTreeMap::new(),
        _folder: folder,
    };
    live.shows(&[("services.conf", "one")]).await;
    fs::remove_file(&file).unwrap();
    live.shows(&[]).await;
    fs::write(&file, "two").unwrap();
    live.shows(&[("services.conf", "two")]).await;
}

#[tokio::test]
async fn follow_many_edits_ends_with_the_last() {
    let mut live = Live::start(&[("a.yaml", "0")]).await;
    for edit in 1..=2_000 {
        live.write("a.yaml", &edit.to_string());
        if edit % 100 == 0 {
            live.write(&format!("{edit}.yaml"), "x");
            fs::remove_file(live.path(&format!("{edit}.yaml"))).unwrap();
        }
    }
    live.shows(&[("a.yaml", "2000")]).await;
}

#[tokio::test]
async fn follow_stdin_is_read_once_and_stays_beside_files() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [
        PathBuf::from("-"),
        folder.path().to_owned(),
        PathBuf::from("-"),
    ];
    let stdin = Box::new(io::Cursor::new(b"piped".to_vec()));
    let watch = FileSource::with_stdin(&paths, lines(), stdin)
        .unwrap()
        .spawn()
        .unwrap();
    let mut live = Live {
        root: folder.path().to_owned(),
        watch,
        seen: BTreeMap::new(),
        _folder: folder,
    };
    live.shows(&[("<stdin>", "piped")]).await;
    live.write("a.yaml", "one");
    live.shows(&[("<stdin>", "piped"), ("a.yaml", "one")]).await;
}

#[tokio::test]
async fn follow_inert_kinds_are_counted_over_files() {
    let live = Live::start(&[
        ("a.yaml", "kind Ingress\nkind Ingress"),
        ("b.yaml", "kind Ingress\nkind Job"),
    ])
    .await;
    let wanted = BTreeMap::from([("Ingress".into(), 3), ("Job".into(), 1)]);
    let mut inert = live.watch.inert.clone();
    tokio::time::timeout(DEADLINE, inert.wait_for(|inert| *inert == wanted))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn follow_without_events_looks_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let source = FileSource::open(std::slice::from_ref(&root), lines()).unwrap();
    let watch = source.spawn_with(|_| Watches::refused()).unwrap();
    let mut live = Live {
        root,
        watch,
        seen: BTreeMap::new(),
        _folder: folder,
    };
    live.shows(&[]).await;
    live.write("a.yaml", "one");
    live.shows(&[("a.yaml", "one")]).await;
}

#[tokio::test]
async fn follow_manifests_invalid_edit_keeps_last_good_and_unchanged_objects_stay() {
    let service = |name: &str, port: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports: [{{port: {port}}}]\n"
        )
    };
    let both = |port: &str| format!("{}---\n{}", service("one", "80"), service("two", port));
    let settings = ManifestSettings {
        namespace: "default".into(),
        strictness: Strictness::Lenient,
    };
    let mut live = Live::start_with(&[("a.yaml", &both("80"))], manifests(settings), |_| {}).await;
    let before = live.shows(&[("a.yaml", "one two")]).await;

    live.write("a.yaml", &both("99999"));

    let root = live.root.clone();
    let is_error = |report: &SourceReport| {
        shard(report, &root, "a.yaml")
            .diagnostics
            .iter()
            .any(|d| d.severity == Severity::Error)
    };
    let after = live.until(is_error).await;
    let objects = [&before, &after].map(|report| shard(report, &root, "a.yaml").objects.clone());
    assert_eq!(objects[1].len(), 2);
    assert!(
        objects[0]
            .iter()
            .zip(&objects[1])
            .all(|(before, after)| Arc::ptr_eq(before, after))
    );
}

#[tokio::test]
async fn drop_ends_the_thread() {
    let live = Live::start(&[("a.yaml", "one")]).await;
    let mut reports = live.watch.reports.clone();
    reports.mark_unchanged();
    drop(live.watch);
    tokio::time::timeout(DEADLINE, reports.changed())
        .await
        .unwrap()
        .unwrap_err();
}

#[test]
fn open_missing_path_names_it() {
    let error = FileSource::open(&["/nonexistent/a".into()], lines()).unwrap_err();
    assert!(matches!(error, FileError::Path { .. }));
    assert_eq!(error.to_string(), "cannot read /nonexistent/a");
}
