//! What is known of every manifest file: its identity, its text's hash and what was loaded from it. Owns when a file
//! is read again and when a vanished one is given up; must not watch, wait or read a clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hasher},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use portico_core::{
    object::diagnostic::{Diagnostic, Severity},
    world::{Shard, SourceView},
};

use super::{
    Load,
    read::{Identity, Reading, Seen, Text, read},
    survey::{Failure, Found, Survey},
};
use crate::source::{manifest::Loaded, walk::is_manifest_name};

/// How long a vanished file keeps its objects: editors and mounts take a file away and put the new one in its place,
/// and a Service must not end in between.
pub(super) const GRACE: Duration = Duration::from_millis(50);

/// Which files to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Those whose identity changed.
    Identity,
    /// All.
    Nothing,
}

/// The files and what was loaded from them.
pub(super) struct Tree {
    load: Load,
    entries: BTreeMap<Arc<str>, Entry>,
    /// Names by the places of their files.
    places: BTreeMap<PathBuf, BTreeSet<Arc<str>>>,
    /// Folders whose manifests count: their naming by real path.
    folders: BTreeMap<PathBuf, PathBuf>,
    joints: BTreeSet<PathBuf>,
    /// Places that somebody writes to, by the events.
    writing: BTreeSet<PathBuf>,
    /// Names of files that could not be read because somebody writes to them.
    busy: BTreeSet<Arc<str>>,
    failure: Option<Outage>,
    is_applied: bool,
}

/// Something cannot be read.
struct Outage {
    error: Arc<str>,
    since: Instant,
    /// Whether it lasts longer than a replacement takes.
    is_shown: bool,
}

struct Entry {
    path: PathBuf,
    places: Vec<PathBuf>,
    /// Of the text that was loaded; `None` before the first and after a failed read.
    known: Option<Known>,
    shard: Option<Arc<Shard>>,
    inert: BTreeMap<Arc<str>, usize>,
    missing_since: Option<Instant>,
    /// Not a file that could be read again (standard input).
    is_once: bool,
}

#[derive(Clone, Copy)]
struct Known {
    identity: Identity,
    hash: u64,
    settled: bool,
}

impl Entry {
    fn new(path: PathBuf, places: Vec<PathBuf>) -> Self {
        Self {
            path,
            places,
            known: None,
            shard: None,
            inert: BTreeMap::new(),
            missing_since: None,
            is_once: false,
        }
    }
}

impl Tree {
    pub(super) fn new(load: Load) -> Self {
        Self {
            load,
            entries: BTreeMap::new(),
            places: BTreeMap::new(),
            folders: BTreeMap::new(),
            joints: BTreeSet::new(),
            writing: BTreeSet::new(),
            busy: BTreeSet::new(),
            failure: None,
            is_applied: false,
        }
    }

    /// Whether a manifest is, or leads over, this place.
    pub(super) fn knows(&self, place: &Path) -> bool {
        self.places.contains_key(place)
    }

    /// Whether more than one file depends on this place.
    pub(super) fn is_joint(&self, place: &Path) -> bool {
        self.joints.contains(place) || self.folders.contains_key(place)
    }

    /// Whether the place is directly in a folder whose manifests count.
    pub(super) fn is_inside(&self, place: &Path) -> bool {
        place
            .parent()
            .is_some_and(|folder| self.folders.contains_key(folder))
    }

    /// Notes whether somebody is writing to a place.
    pub(super) fn note_writing(&mut self, place: &Path, is_writing: bool) {
        if is_writing {
            self.writing.insert(place.to_owned());
        } else {
            self.writing.remove(place);
        }
    }

    /// Forgets who writes: events were lost.
    pub(super) fn forget_writing(&mut self) {
        self.writing.clear();
    }

    /// Loads a text that can be read only once. Returns whether the view changed.
    pub(super) fn insert_once(&mut self, name: &Arc<str>, bytes: &[u8]) -> bool {
        let mut entry = Entry {
            is_once: true,
            ..Entry::new(PathBuf::new(), Vec::new())
        };
        let changed = take_text(&mut self.load, name, &mut entry, bytes);
        self.entries.insert(Arc::clone(name), entry);
        changed
    }

    /// Takes over a whole survey. Returns whether the view or the failure changed.
    pub(super) fn apply(&mut self, survey: Survey, trust: Trust, now: Instant) -> bool {
        let Survey {
            files,
            folders,
            joints,
            failures,
            watch: _,
        } = survey;
        self.folders = folders;
        self.joints = joints;
        let (failures, gone) = self.sort_failures(failures);
        let mut changed = self.note_failure(failures.first().map(describe), now);

        let mut unseen: BTreeSet<Arc<str>> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.is_once)
            .map(|(name, _)| Arc::clone(name))
            .collect();
        self.places.clear();
        for Found { path, places } in files {
            let name = name_of(&path);
            unseen.remove(&name);
            self.add(&name, path, places);
            changed |= self.refresh(&name, trust, now);
        }
        for name in unseen {
            changed |= self.lose(&name, &failures, &gone, now);
        }
        let Self {
            writing, places, ..
        } = self;
        writing.retain(|place| places.contains_key(place));
        changed | self.drop_renamed()
    }

    /// Reads the files at these places, whatever their identity. Returns whether the view changed.
    pub(super) fn look_at(&mut self, places: &BTreeSet<PathBuf>, now: Instant) -> bool {
        let mut changed = false;
        for place in places {
            if !self.knows(place) {
                self.discover(place);
            }
            for name in self.places.get(place).cloned().unwrap_or_default() {
                changed |= self.refresh(&name, Trust::Nothing, now);
            }
        }
        changed | self.drop_renamed()
    }

    /// Looks again at what could not be decided: gives up files that stay away, reads those that were being
    /// written. Returns whether the view changed.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let mut changed = false;
        if let Some(outage) = self
            .failure
            .as_mut()
            .filter(|outage| !outage.is_shown && now >= outage.since + GRACE)
        {
            outage.is_shown = true;
            changed = true;
        }
        for name in std::mem::take(&mut self.busy) {
            changed |= self.refresh(&name, Trust::Identity, now);
        }
        let overdue: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| {
                entry
                    .missing_since
                    .is_some_and(|since| now >= since + GRACE)
            })
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in overdue {
            changed |= self.refresh(&name, Trust::Identity, now);
            if self
                .entries
                .get(&name)
                .is_some_and(|entry| entry.missing_since.is_some())
            {
                changed |= self.remove(&name);
            }
        }
        changed
    }

    /// When the first vanished file has to be given up, or an outage shown.
    pub(super) fn grace_ends(&self) -> Option<Instant> {
        let outage = self
            .failure
            .as_ref()
            .filter(|outage| !outage.is_shown)
            .map(|outage| outage.since);
        let missing = self
            .entries
            .values()
            .filter_map(|entry| entry.missing_since);
        missing.chain(outage).min().map(|since| since + GRACE)
    }

    /// Whether something has to be looked at again although no event may come.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.busy.is_empty() || self.failure.is_some()
    }

    /// The complete view.
    pub(super) fn view(&self) -> SourceView {
        let shards = self
            .entries
            .iter()
            .filter_map(|(name, entry)| Some((Arc::clone(name), Arc::clone(entry.shard.as_ref()?))))
            .collect();
        SourceView {
            shards,
            ..SourceView::default()
        }
    }

    /// Why the view may be old.
    pub(super) fn failure(&self) -> Option<Arc<str>> {
        self.failure
            .as_ref()
            .filter(|outage| outage.is_shown)
            .map(|outage| Arc::clone(&outage.error))
    }

    /// Documents of kinds that nothing acts on, by kind.
    pub(super) fn inert(&self) -> BTreeMap<Arc<str>, usize> {
        let mut total = BTreeMap::new();
        for (kind, count) in self.entries.values().flat_map(|entry| &entry.inert) {
            *total.entry(Arc::clone(kind)).or_default() += count;
        }
        total
    }

    /// Returns whether what is shown changed. The first failure is shown at once: there is no view to keep.
    fn note_failure(&mut self, error: Option<Arc<str>>, now: Instant) -> bool {
        let before = self.failure();
        let is_first = !std::mem::replace(&mut self.is_applied, true);
        let known = self.failure.take();
        self.failure = error.map(|error| match known {
            Some(outage) => Outage { error, ..outage },
            None => Outage {
                error,
                since: now,
                is_shown: is_first,
            },
        });
        before != self.failure()
    }

    /// A root that was a file and is gone is a deleted file, not a failure.
    fn sort_failures(&self, failures: Vec<Failure>) -> (Vec<Failure>, BTreeSet<PathBuf>) {
        let is_deleted_file = |failure: &Failure| {
            failure.error.kind() == io::ErrorKind::NotFound
                && self.entries.contains_key(&name_of(&failure.path))
        };
        let (gone, failures) = failures.into_iter().partition::<Vec<_>, _>(is_deleted_file);
        (
            failures,
            gone.into_iter().map(|failure| failure.path).collect(),
        )
    }

    /// A known file that the survey did not find. Below a folder that cannot be read it stays as it is.
    fn lose(
        &mut self,
        name: &Arc<str>,
        failures: &[Failure],
        gone: &BTreeSet<PathBuf>,
        now: Instant,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        let is_hidden_by_failure = failures
            .iter()
            .any(|failure| entry.path.starts_with(&failure.path));
        let is_kept = is_hidden_by_failure && !gone.contains(&entry.path);
        let (path, places) = (entry.path.clone(), entry.places.clone());
        self.add(name, path, places);
        if is_kept {
            return false;
        }
        match self.entries.get_mut(name) {
            Some(entry) if entry.shard.is_some() => {
                entry.missing_since.get_or_insert(now);
                false
            }
            _ => self.remove(name),
        }
    }

    fn add(&mut self, name: &Arc<str>, path: PathBuf, places: Vec<PathBuf>) {
        for place in &places {
            self.places
                .entry(place.clone())
                .or_default()
                .insert(Arc::clone(name));
        }
        match self.entries.get_mut(name) {
            Some(entry) => {
                entry.path = path;
                entry.places = places;
            }
            None => {
                self.entries
                    .insert(Arc::clone(name), Entry::new(path, places));
            }
        }
    }

    /// A new file in a folder that counts.
    fn discover(&mut self, place: &Path) {
        let Some(file_name) = place.file_name().filter(|name| is_manifest_name(name)) else {
            return;
        };
        let Some(folder) = place.parent().and_then(|folder| self.folders.get(folder)) else {
            return;
        };
        let path = folder.join(file_name);
        self.add(&name_of(&path), path, vec![place.to_owned()]);
    }

    /// Reads one file if it has to be. Returns whether its shard changed.
    fn refresh(&mut self, name: &Arc<str>, trust: Trust, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        if trust == Trust::Identity && is_unchanged(entry) {
            entry.missing_since = None;
            return false;
        }
        let is_writing = entry
            .places
            .iter()
            .any(|place| self.writing.contains(place));
        match read(
            &entry.path,
            if is_writing {
                Seen::Writing
            } else {
                Seen::Quiet
            },
        ) {
            Reading::Whole(text) => {
                entry.missing_since = None;
                take_whole(&mut self.load, name, entry, &text)
            }
            Reading::Busy => {
                entry.missing_since = None;
                self.busy.insert(Arc::clone(name));
                false
            }
            Reading::Missing | Reading::Folder if entry.shard.is_none() => self.remove(name),
            Reading::Missing | Reading::Folder => {
                entry.missing_since.get_or_insert(now);
                false
            }
            Reading::Failed(error) => {
                entry.missing_since = None;
                entry.known = None;
                keep_objects(name, entry, format!("cannot read the file: {error}"))
            }
        }
    }

    /// A vanished file that is now found under another name is given up at once: else its objects would be there
    /// twice for a while.
    fn drop_renamed(&mut self) -> bool {
        let identity = |entry: &Entry| entry.known.map(|known| known.identity);
        let renamed: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.missing_since.is_some())
            .filter_map(|(name, entry)| Some((name, identity(entry)?)))
            .filter(|(_, lost)| {
                self.entries
                    .values()
                    .filter(|entry| entry.missing_since.is_none())
                    .any(|entry| identity(entry).is_some_and(|found| found.is_same_file(*lost)))
            })
            .map(|(name, _)| Arc::clone(name))
            .collect();
        renamed
            .iter()
            .fold(false, |changed, name| self.remove(name) | changed)
    }

    /// Returns whether the view changed.
    fn remove(&mut self, name: &Arc<str>) -> bool {
        let Some(entry) = self.entries.remove(name) else {
            return false;
        };
        self.busy.remove(name);
        for place in &entry.places {
            self.writing.remove(place);
            if let Some(names) = self.places.get_mut(place) {
                names.remove(name);
                if names.is_empty() {
                    self.places.remove(place);
                }
            }
        }
        entry.shard.is_some()
    }
}

/// The path as the user named it, as text.
pub(super) fn name_of(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

fn describe(failure: &Failure) -> Arc<str> {
    format!("cannot read {}: {}", failure.path.display(), failure.error).into()
}

/// Whether stat vouches for the text that was loaded.
fn is_unchanged(entry: &Entry) -> bool {
    let Some(known) = entry.known.filter(|known| known.settled) else {
        return false;
    };
    entry
        .path
        .metadata()
        .is_ok_and(|metadata| Identity::of(&metadata) == known.identity)
}

fn take_whole(load: &mut Load, name: &Arc<str>, entry: &mut Entry, text: &Text) -> bool {
    let mut hasher = DefaultHasher::new();
    hasher.write(&text.bytes);
    let hash = hasher.finish();
    let is_same_text = entry.known.is_some_and(|known| known.hash == hash);
    entry.known = Some(Known {
        identity: text.identity,
        hash,
        settled: text.settled,
    });
    !is_same_text && take_text(load, name, entry, &text.bytes)
}

fn take_text(load: &mut Load, name: &Arc<str>, entry: &mut Entry, bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let Loaded { shard, inert } = load(name, text, entry.shard.as_deref());
            entry.inert = inert;
            put(entry, shard)
        }
        Err(error) => {
            let message = format!("not valid UTF-8 after {} bytes", error.valid_up_to());
            keep_objects(name, entry, message)
        }
    }
}

/// The last good objects stay in force, with one finding about the whole file.
fn keep_objects(name: &Arc<str>, entry: &mut Entry, message: String) -> bool {
    let objects = entry
        .shard
        .as_ref()
        .map(|shard| shard.objects.clone())
        .unwrap_or_default();
    let diagnostic = Diagnostic {
        file: Arc::clone(name),
        position: None,
        severity: Severity::Error,
        object: None,
        path: String::new(),
        message,
    };
    put(
        entry,
        Shard {
            objects,
            diagnostics: vec![diagnostic],
        },
    )
}

/// An equal shard stays the same `Arc`.
fn put(entry: &mut Entry, shard: Shard) -> bool {
    let is_new = entry.shard.as_deref() != Some(&shard);
    if is_new {
        entry.shard = Some(Arc::new(shard));
    }
    is_new
}

#[cfg(test)]
mod tests;
