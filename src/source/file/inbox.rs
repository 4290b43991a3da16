//! Where file system events wait for the Source's thread: gathered by path, so that a storm takes the room of the
//! files it concerns. Owns the translation of notify's events; must not look at the file system.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use notify::{
    Event, EventKind,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};

/// Paths that wait at most. More, and everything is looked at instead.
const MAX_PATHS: usize = 16_384;

/// What happened to one path since it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Touch {
    /// The name came, went, or was given to something else.
    pub(super) named: bool,
    /// Somebody who had it open for writing closed it.
    pub(super) closed: bool,
    /// Owner, mode or times changed.
    pub(super) attributes: bool,
    /// Whether the last sign was of a write still going on (`true`) or of its end.
    pub(super) writing: Option<bool>,
}

/// Everything since the last look.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// By path.
    pub(super) touched: BTreeMap<PathBuf, Touch>,
    /// Events were lost.
    pub(super) lost: bool,
    /// The user asked for everything to be read again.
    pub(super) force: bool,
    /// The Source is no longer wanted.
    pub(super) stop: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.touched.is_empty() && !self.lost && !self.force && !self.stop
    }
}

/// The waiting room.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    batch: Mutex<Batch>,
    filled: Condvar,
}

impl Inbox {
    /// Asks for everything to be read again.
    pub(super) fn force(&self) {
        self.lock().force = true;
        self.filled.notify_one();
    }

    /// Asks the Source to end.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.filled.notify_one();
    }

    /// Takes one event in.
    pub(super) fn event(&self, event: notify::Result<Event>) {
        let mut batch = self.lock();
        let Ok(event) = event else {
            batch.lost = true;
            self.filled.notify_one();
            return;
        };
        if event.need_rescan() {
            batch.lost = true;
        }
        for path in event.paths {
            note(&mut batch, path, event.kind);
        }
        if !batch.is_empty() {
            self.filled.notify_one();
        }
    }

    /// Takes out what is there, waiting for something until `deadline` (for ever without one).
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Batch {
        let mut batch = self.lock();
        while batch.is_empty() {
            batch =
                match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                    None => self
                        .filled
                        .wait(batch)
                        .unwrap_or_else(PoisonError::into_inner),
                    Some(left) if left.is_zero() => break,
                    Some(left) => {
                        self.filled
                            .wait_timeout(batch, left)
                            .unwrap_or_else(PoisonError::into_inner)
                            .0
                    }
                };
        }
        std::mem::take(&mut *batch)
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        // A batch is valid after every single step, so a panic elsewhere does not spoil it.
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(batch: &mut Batch, path: PathBuf, kind: EventKind) {
    let apply: fn(&mut Touch) = match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => |touch| {
            touch.closed = true;
            touch.writing = Some(false);
        },
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => |touch| {
            touch.named = true;
            touch.writing = Some(false);
        },
        EventKind::Create(CreateKind::Folder) => |touch| touch.named = true,
        EventKind::Create(_) => |touch| {
            touch.named = true;
            touch.writing = Some(true);
        },
        EventKind::Modify(ModifyKind::Metadata(_)) => |touch| touch.attributes = true,
        EventKind::Modify(_) => |touch| touch.writing = Some(true),
        EventKind::Access(_) | EventKind::Any | EventKind::Other => return,
    };
    if batch.touched.len() < MAX_PATHS || batch.touched.contains_key(&path) {
        apply(batch.touched.entry(path).or_default());
    } else {
        batch.lost = true;
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, RenameMode};

    use super::*;

    fn event(inbox: &Inbox, kind: EventKind, path: &str) {
        inbox.event(Ok(Event::new(kind).add_path(path.into())));
    }

    #[test]
    fn wait_several_events_on_a_path_come_as_one_touch() {
        let inbox = Inbox::default();
        event(&inbox, EventKind::Create(CreateKind::File), "/a");
        event(
            &inbox,
            EventKind::Modify(ModifyKind::Data(DataChange::Any)),
            "/a",
        );
        event(
            &inbox,
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            "/a",
        );
        event(
            &inbox,
            EventKind::Modify(ModifyKind::Name(RenameMode::To)),
            "/b",
        );
        event(
            &inbox,
            EventKind::Access(AccessKind::Open(AccessMode::Any)),
            "/c",
        );

        let batch = inbox.wait(None);

        let written = Touch {
            named: true,
            closed: true,
            attributes: false,
            writing: Some(false),
        };
        let renamed = Touch {
            named: true,
            writing: Some(false),
            ..Touch::default()
        };
        assert_eq!(
            batch.touched,
            BTreeMap::from([("/a".into(), written), ("/b".into(), renamed)])
        );
        assert!(inbox.wait(Some(Instant::now())).is_empty());
    }

    #[test]
    fn event_more_paths_than_fit_are_dropped_and_marked_lost() {
        let inbox = Inbox::default();
        for number in 0..=MAX_PATHS {
            event(
                &inbox,
                EventKind::Create(CreateKind::File),
                &format!("/{number}"),
            );
        }
        let batch = inbox.wait(None);
        assert_eq!(batch.touched.len(), MAX_PATHS);
        assert!(batch.lost);
    }
}
