//! How far a client's connection is. Owns what its codec, what answers and what watches the time tell each other; who does what
//! about it is theirs.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use portico_core::http::error::Cause;
use tokio::time::Instant;

use super::wire::count;

/// Why portico answers a request whose head is not one that may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) cause: Cause,
    /// What is read in its place does not say what was asked for.
    pub(super) is_unread: bool,
}

/// How far a client's connection is. Shared by what reads it, what answers and what watches the time.
#[derive(Debug)]
pub(super) struct Progress {
    /// The last byte in either direction.
    pub(super) last: Cell<Instant>,
    /// The first byte of a head that is not complete, if there is one.
    pub(super) head_since: Cell<Option<Instant>>,
    /// Requests that are not over.
    pub(super) requests: Cell<u32>,
    /// Bytes read and written.
    pub(super) bytes: Cell<(u64, u64)>,
    /// A body was not read to its end.
    pub(super) was_cut_short: Cell<bool>,
    /// Its client is to come back on another connection.
    pub(super) is_of_age: Cell<bool>,
    /// A body broke: the end of the connection must not look clean.
    pub(super) is_broken: Cell<bool>,
    /// Requests whose heads were complete, from the beginning.
    begun: Cell<u64>,
    /// Why the request that begins next is answered by us.
    refused: Cell<Option<Refused>>,
    /// Who waits until no request is under way.
    waiting: RefCell<Option<Waker>>,
}

impl Progress {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            last: Cell::new(Instant::now()),
            head_since: Cell::new(None),
            requests: Cell::new(0),
            bytes: Cell::new((0, 0)),
            was_cut_short: Cell::new(false),
            is_of_age: Cell::new(false),
            is_broken: Cell::new(false),
            begun: Cell::new(0),
            refused: Cell::new(None),
            waiting: RefCell::new(None),
        })
    }

    pub(super) fn moved(&self, read: usize, written: usize) {
        self.last.set(Instant::now());
        let (before, after) = self.bytes.get();
        self.bytes
            .set((before + count(read), after + count(written)));
    }

    /// Since when nothing is asked; `None` while something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.requests.get() == 0 && self.head_since.get().is_none();
        is_idle.then(|| self.last.get())
    }

    /// Some of a head is there, not all.
    pub(super) fn awaits_head(&self) {
        if self.head_since.get().is_none() {
            self.head_since.set(Some(self.last.get()));
        }
    }

    /// The request that is read next is to be answered so.
    pub(super) fn refuse(&self, refused: Refused) {
        self.refused.set(Some(refused));
    }

    /// Whether the next request is to be refused, and has not begun.
    pub(super) const fn is_refused(&self) -> bool {
        self.refused.get().is_some()
    }

    /// Why the request that has just begun is refused.
    pub(super) fn take_refused(&self) -> Option<Refused> {
        self.refused.take()
    }

    /// Whether this many requests have begun, and all are over.
    pub(super) const fn is_idle(&self, begun: u64) -> bool {
        self.requests.get() == 0 && self.begun.get() >= begun
    }

    /// Has `cx` woken when no request is under way: there is something that nothing else tells of.
    pub(super) fn wakes_when_idle(&self, cx: &Context<'_>) {
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
    }

    /// A request's head is complete.
    pub(super) fn begin(self: &Rc<Self>) -> Underway {
        self.head_since.set(None);
        self.begun.set(self.begun.get() + 1);
        self.requests.set(self.requests.get() + 1);
        Underway {
            progress: Rc::clone(self),
        }
    }
}

/// A request that is not over. Dropped: it is.
#[derive(Debug)]
pub(super) struct Underway {
    progress: Rc<Progress>,
}

impl Drop for Underway {
    fn drop(&mut self) {
        let progress = &self.progress;
        progress.last.set(Instant::now());
        progress
            .requests
            .set(progress.requests.get().saturating_sub(1));
        if progress.requests.get() == 0
            && let Some(waiting) = progress.waiting.take()
        {
            waiting.wake();
        }
    }
}
