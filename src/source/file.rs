//! The file Source: manifests in files and folders, followed live. Owns its thread, the pace of its reports and what
//! an event leads to; what a text means belongs to the loader it is given.
//!
//! The way through: `inbox` gathers events, `survey` walks, `watches` follows the walk, `tree` reads what
//! changed and keeps what was loaded. Parsing is processor work, so all of it runs on one thread of its own.

mod inbox;
mod lease;
mod pace;
mod read;
mod survey;
mod tree;
mod watches;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use portico_core::{
    time::Timestamp,
    world::{Shard, SourceReport},
};
use tokio::sync::watch;
use tracing::{info, warn};

use inbox::{Batch, Inbox, Touch};
use pace::Pace;
use survey::survey;
use tree::{Tree, Trust, name_of};
use watches::Watches;

use crate::clock;

use super::{
    manifest::{self, Loaded, ManifestSettings},
    walk::is_manifest_name,
};

/// Events that follow one that was acted on are acted on together, after this long at most.
const WINDOW: Duration = Duration::from_millis(50);

/// How often everything is looked at where no events can be had, and what is unsettled where they may not come.
const POLL: Duration = Duration::from_secs(1);

/// Rounds of walking and watching before what was found is taken as it is: a folder made during the walk is found by
/// the next round.
const MAX_ROUNDS: usize = 8;

/// Makes a shard of a text: the file as the user named it, its text, and what was loaded from it before.
pub type Load = Box<dyn FnMut(&Arc<str>, &str, Option<&Shard>) -> Loaded + Send>;

/// The loader of Kubernetes manifests.
pub fn manifests(settings: ManifestSettings) -> Load {
    Box::new(move |file, text, previous| manifest::load(file, text, &settings, previous))
}

/// Why the Source cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A path that was given does not exist or cannot be reached.
    #[error("cannot read {}", path.display())]
    Path {
        /// As the user named it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start the thread that follows the manifests")]
    Thread(#[source] io::Error),
}

/// Manifests in files, folders and standard input.
pub struct FileSource {
    roots: Vec<PathBuf>,
    once: Vec<(Arc<str>, Box<dyn Read + Send>)>,
    load: Load,
}

impl fmt::Debug for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSource")
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}

impl FileSource {
    /// The manifests at `paths`: files, folders with all below them, `-` for standard input. What is neither file nor
    /// folder (a pipe) is read once.
    ///
    /// # Errors
    /// Names the first path that cannot be reached.
    pub fn open(paths: &[PathBuf], load: Load) -> Result<Self, FileError> {
        Self::with_stdin(paths, load, Box::new(io::stdin()))
    }

    /// [`FileSource::open`] with something else in the place of standard input.
    ///
    /// # Errors
    /// Names the first path that cannot be reached.
    pub fn with_stdin(
        paths: &[PathBuf],
        load: Load,
        stdin: Box<dyn Read + Send>,
    ) -> Result<Self, FileError> {
        let mut source = Self {
            roots: Vec::new(),
            once: Vec::new(),
            load,
        };
        let mut stdin = Some(stdin);
        for path in paths {
            if path.as_os_str() == "-" {
                source
                    .once
                    .extend(stdin.take().map(|stdin| ("<stdin>".into(), stdin)));
                continue;
            }
            let failed = |error| FileError::Path {
                path: path.clone(),
                source: error,
            };
            let metadata = fs::metadata(path).map_err(failed)?;
            if metadata.is_dir() || metadata.is_file() {
                source.roots.push(path.clone());
            } else {
                let pipe = fs::File::open(path).map_err(failed)?;
                source.once.push((name_of(path), Box::new(pipe)));
            }
        }
        Ok(source)
    }

    /// Begins to follow the manifests, on a thread that ends when the returned value is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(self) -> Result<FileWatch, FileError> {
        self.spawn_with(Watches::new)
    }

    fn spawn_with(
        self,
        watches: impl FnOnce(&Arc<Inbox>) -> Watches,
    ) -> Result<FileWatch, FileError> {
        let inbox = Arc::new(Inbox::default());
        let (reports, reports_rx) = watch::channel(SourceReport::Pending);
        let (inert, inert_rx) = watch::channel(BTreeMap::new());
        let told = Arc::new(AtomicU64::new(0));
        let follower = Follower {
            roots: self.roots,
            tree: Tree::new(self.load),
            watches: watches(&inbox),
            inbox: Arc::clone(&inbox),
            pace: Pace::new(WINDOW),
            reports,
            inert,
            limit: None,
            noticed: None,
            told: Arc::clone(&told),
        };
        let once = self.once;
        thread::Builder::new()
            .name("manifests".to_owned())
            .spawn(move || follower.run(once))
            .map_err(FileError::Thread)?;
        Ok(FileWatch {
            reports: reports_rx,
            inert: inert_rx,
            inbox,
            noticed: told,
        })
    }
}

/// A file Source at work. Its thread ends when this is dropped; if the thread ends otherwise, `reports` is closed.
#[derive(Debug)]
pub struct FileWatch {
    /// The state of the Source, newest only.
    pub reports: watch::Receiver<SourceReport>,
    /// Documents of kinds that nothing acts on, by kind, for one notice each.
    pub inert: watch::Receiver<BTreeMap<Arc<str>, usize>>,
    inbox: Arc<Inbox>,
    noticed: Arc<AtomicU64>,
}

impl FileWatch {
    /// When the change was first noticed that the newest report came from; `None` for the first report.
    pub fn noticed(&self) -> Option<Timestamp> {
        let noticed = self.noticed.load(Relaxed);
        (noticed > 0).then(|| Timestamp::from_millis(noticed))
    }

    /// A handle with which everything is read again (`SIGHUP`).
    pub fn rescanner(&self) -> Rescanner {
        Rescanner {
            inbox: Arc::clone(&self.inbox),
        }
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}

/// Has every file read again, whatever its time stamps say.
#[derive(Debug, Clone)]
pub struct Rescanner {
    inbox: Arc<Inbox>,
}

impl Rescanner {
    /// Asks for it; returns at once. Nothing is reported when nothing changed.
    pub fn rescan(&self) {
        self.inbox.force();
    }
}

/// What has to be looked at.
#[derive(Debug, PartialEq, Eq)]
enum Work {
    Places(BTreeSet<PathBuf>),
    All(Trust),
}

impl Work {
    const fn none() -> Self {
        Self::Places(BTreeSet::new())
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::Places(places) if places.is_empty())
    }

    /// Both. Places that a survey by identity would trust wrongly are no loss: a write gives a fresh, so unsettled,
    /// stamp, and unsettled files are read.
    fn join(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Places(places), Self::Places(more)) => places.extend(more),
            (Self::Places(_), all @ Self::All(_)) => *self = all,
            (Self::All(trust), Self::All(Trust::Nothing)) => *trust = Trust::Nothing,
            (Self::All(_), _) => {}
        }
    }
}

/// The thread's state.
struct Follower {
    roots: Vec<PathBuf>,
    tree: Tree,
    watches: Watches,
    inbox: Arc<Inbox>,
    pace: Pace,
    reports: watch::Sender<SourceReport>,
    inert: watch::Sender<BTreeMap<Arc<str>, usize>>,
    /// Why events do not cover everything.
    limit: Option<String>,
    /// When the oldest change was noticed that is not in a report yet.
    noticed: Option<Timestamp>,
    /// The same for the newest report.
    told: Arc<AtomicU64>,
}

impl Follower {
    fn run(mut self, once: Vec<(Arc<str>, Box<dyn Read + Send>)>) {
        for (name, mut input) in once {
            let mut bytes = Vec::new();
            if let Err(error) = input.read_to_end(&mut bytes) {
                warn!(file = %name, %error, "input ended early");
            }
            self.tree.insert_once(&name, &bytes);
        }
        self.survey(Trust::Nothing, Instant::now());
        self.publish();
        let mut work = Work::none();
        let mut poll_at = Instant::now() + POLL;
        loop {
            let batch = self.inbox.wait(self.deadline(&work, poll_at));
            if batch.stop || self.reports.is_closed() {
                return;
            }
            work.join(self.work_of(batch));
            if !work.is_none() {
                self.noticed.get_or_insert_with(clock::now);
            }
            let now = Instant::now();
            if now >= poll_at {
                poll_at = now + POLL;
                if self.limit.is_some() || self.tree.is_unsettled() {
                    work.join(Work::All(Trust::Identity));
                }
            }
            self.act(&mut work, now);
        }
    }

    /// When to wake without an event: for what is waiting for its window, for a vanished file's grace, or to poll.
    fn deadline(&self, work: &Work, poll_at: Instant) -> Option<Instant> {
        let due = (!work.is_none()).then(|| self.pace.due(Instant::now()));
        let poll = (self.limit.is_some() || self.tree.is_unsettled()).then_some(poll_at);
        [due, poll, self.tree.grace_ends()]
            .into_iter()
            .flatten()
            .min()
    }

    fn act(&mut self, work: &mut Work, now: Instant) {
        let mut changed = false;
        if !work.is_none() && now >= self.pace.due(now) {
            self.pace.acted(now);
            changed |= match std::mem::replace(work, Work::none()) {
                Work::Places(places) => self.tree.look_at(&places, now),
                Work::All(trust) => self.survey(trust, now),
            };
        }
        changed |= self.tree.settle(now);
        if changed {
            self.publish();
        }
        if work.is_none() {
            self.noticed = None;
        }
    }

    /// Walks and watches until both agree, then reads. Returns whether something changed.
    fn survey(&mut self, trust: Trust, now: Instant) -> bool {
        let mut found = survey(&self.roots);
        for _ in 0..MAX_ROUNDS {
            let followed = self.watches.follow(&found.watch);
            self.limited(followed.limit);
            if !followed.added {
                break;
            }
            found = survey(&self.roots);
        }
        self.tree.apply(found, trust, now)
    }

    fn limited(&mut self, limit: Option<String>) {
        if self.limit == limit {
            return;
        }
        if let Some(reason) = &limit {
            warn!(%reason, "manifests are looked at every second");
        } else {
            info!("manifests are watched again");
        }
        self.limit = limit;
    }

    fn publish(&self) {
        let view = self.tree.view();
        let report = match self.tree.failure() {
            None => SourceReport::Synced(view),
            Some(error) => SourceReport::Failing {
                view: Some(view),
                error,
            },
        };
        let noticed = self.noticed.map_or(0, Timestamp::as_millis);
        self.told.store(noticed, Relaxed);
        self.reports.send_replace(report);
        let inert = self.tree.inert();
        self.inert.send_if_modified(|known| {
            let is_new = *known != inert;
            *known = inert;
            is_new
        });
    }

    /// What a batch of events asks for.
    fn work_of(&mut self, batch: Batch) -> Work {
        let mut work = Work::none();
        if batch.force || batch.lost {
            // Lost events may have concerned the watches themselves.
            self.watches.forget_all();
            self.tree.forget_writing();
            work.join(Work::All(Trust::Nothing));
        }
        for (place, touch) in batch.touched {
            work.join(self.work_at(place, touch));
        }
        work
    }

    fn work_at(&mut self, place: PathBuf, touch: Touch) -> Work {
        let is_known = self.tree.knows(&place);
        let is_inside =
            self.tree.is_inside(&place) && place.file_name().is_some_and(is_manifest_name);
        if let Some(is_writing) = touch.writing
            && (is_known || is_inside)
        {
            self.tree.note_writing(
                &place,
                is_writing && !(touch.named && is_whole_at_creation(&place)),
            );
        }
        if touch.named && (self.watches.contains(&place) || self.tree.is_joint(&place)) {
            self.watches.forget(&place);
            return Work::All(Trust::Identity);
        }
        if touch.named && self.tree.is_inside(&place) && is_link_or_folder(&place) {
            return Work::All(Trust::Identity);
        }
        if touch.attributes && self.tree.is_joint(&place) {
            return Work::All(Trust::Identity);
        }
        if (is_known || is_inside) && (touch.named || touch.closed || touch.attributes) {
            return Work::Places(BTreeSet::from([place]));
        }
        Work::none()
    }
}

/// Links and further names of an existing file are whole as soon as they are there; a new file may still be written.
fn is_whole_at_creation(place: &Path) -> bool {
    fs::symlink_metadata(place).is_ok_and(|metadata| !metadata.is_file() || metadata.nlink() > 1)
}

fn is_link_or_folder(place: &Path) -> bool {
    fs::symlink_metadata(place).is_ok_and(|metadata| metadata.is_symlink() || metadata.is_dir())
}

#[cfg(test)]
mod tests;
