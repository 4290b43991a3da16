//! Where control and the thread of the runs meet. Owns what was asked for and what has come, of each run; nobody holds
//! its lock while waiting for anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use portico_core::{
    snapshot::{Scope, plan::Bind, plan::ListenerKey},
    time::Timestamp,
};
use portico_dataplane::Opener;
use tokio::sync::Notify;

use super::MOST_RUNS;
use crate::handover::{Hello, MOST_SOCKETS, Socket, ToKeeper};

/// Most characters of a command that are kept.
const MOST_COMMAND: usize = 80;
/// Most failures that a keeper is told of.
const MOST_FAILURES: usize = 20;
/// Most addresses that a keeper is told of at a time: no message is longer than it may be.
const MOST_ADDRESSES: usize = 512;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Desk(Arc<Mutex<State>>);

/// A run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Where its sockets are.
    pub scope: Scope,
    /// The keeper's process.
    pub pid: u32,
    /// What runs inside, on one line.
    pub command: String,
    /// Whose Services have short names there.
    pub namespace: String,
    /// When it connected.
    pub since: Timestamp,
    /// Why DNS is not answered inside.
    pub dns_problem: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    /// The last scope that was given.
    last: u32,
    entries: BTreeMap<Scope, Entry>,
    /// Ranges that every keeper makes local at once.
    ranges: Vec<IpNet>,
    /// Addresses outside the ranges that Services name.
    external: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Entry {
    run: Run,
    sockets: BTreeMap<ListenerKey, Slot>,
    /// Those that the keeper has not been asked for yet.
    queue: BTreeSet<ListenerKey>,
    /// The external addresses that the keeper knows.
    told: BTreeSet<IpAddr>,
    /// What lets the command start, until it is said.
    ready: Option<ToKeeper>,
    wake: Arc<Notify>,
}

#[derive(Debug)]
enum Slot {
    Asked(SocketAddr),
    Here(OwnedFd),
    Failed(i32),
}

/// What a keeper is to be told next.
#[derive(Debug)]
pub(super) enum Work {
    /// Something without an answer.
    Say(ToKeeper),
    /// Sockets to open.
    Open(Vec<(ListenerKey, Socket)>),
}

impl Desk {
    /// One where no run is yet. These ranges are local in each from its beginning.
    pub(super) fn new(ranges: Vec<IpNet>) -> Self {
        Self(Arc::new(Mutex::new(State {
            ranges,
            ..State::default()
        })))
    }

    /// A place for another run; `None` if there is none left.
    pub(super) fn enter(&self, hello: &Hello, since: Timestamp) -> Option<Entered> {
        let state = &mut *self.lock();
        if state.entries.len() >= MOST_RUNS {
            return None;
        }
        state.last += 1;
        let (scope, wake) = (Scope(state.last), Arc::new(Notify::new()));
        let entry = Entry {
            run: Run {
                scope,
                pid: hello.pid,
                command: printable(&hello.command),
                namespace: hello.namespace.clone(),
                since,
                dns_problem: None,
            },
            sockets: BTreeMap::new(),
            queue: BTreeSet::new(),
            told: BTreeSet::new(),
            ready: None,
            wake: Arc::clone(&wake),
        };
        state.entries.insert(scope, entry);
        Some(Entered {
            desk: self.clone(),
            scope,
            wake,
        })
    }

    /// All runs, the oldest first.
    pub fn runs(&self) -> Vec<Run> {
        let state = self.lock();
        let entries = state.entries.values();
        entries.map(|entry| entry.run.clone()).collect()
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets the command of a run start.
    pub fn say_ready(&self, scope: Scope, generation: u64, failed: Vec<String>) {
        let state = &mut *self.lock();
        let Some(entry) = state.entries.get_mut(&scope) else {
            return;
        };
        let mut all: Vec<String> = entry.run.dns_problem.iter().cloned().collect();
        all.extend(failed);
        let more = all.len().saturating_sub(MOST_FAILURES);
        if more > 0 {
            all.truncate(MOST_FAILURES);
            all.push(format!("and {more} more"));
        }
        let failed = all;
        entry.ready = Some(ToKeeper::Ready { generation, failed });
        entry.wake.notify_one();
    }

    /// Services name these addresses now.
    pub fn attach(&self, addrs: &[IpAddr]) {
        let state = &mut *self.lock();
        let is_local = |addr: &IpAddr| {
            addr.is_loopback() || state.ranges.iter().any(|range| range.contains(addr))
        };
        let outside = addrs.iter().filter(|addr| !is_local(addr));
        state.external.extend(outside);
        for entry in state.entries.values() {
            entry.wake.notify_one();
        }
    }

    /// No Service names these any more. They stay local in the runs that there are, where nothing answers.
    pub fn detach(&self, addrs: &[IpAddr]) {
        let external = &mut self.lock().external;
        for addr in addrs {
            external.remove(addr);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On one line, and no longer than people read.
fn printable(command: &str) -> String {
    let mut text: String = command
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST_COMMAND)
        .collect();
    if command.chars().nth(MOST_COMMAND).is_some() {
        text.push_str("...");
    }
    text
}

impl Opener for Desk {
    fn open(&mut self, key: ListenerKey, addr: SocketAddr) -> io::Result<OwnedFd> {
        let state = &mut *self.lock();
        let Some(entry) = state.entries.get_mut(&key.scope) else {
            return Err(io::Error::other("the `portico run` is gone"));
        };
        match entry.sockets.remove(&key) {
            Some(Slot::Here(socket)) => Ok(socket),
            Some(Slot::Failed(code)) => match io::Error::from_raw_os_error(code) {
                error if error.kind() == io::ErrorKind::WouldBlock => Err(io::Error::other(error)),
                error => Err(error),
            },
            asked => {
                if asked.is_none() {
                    entry.queue.insert(key);
                    entry.wake.notify_one();
                }
                entry.sockets.insert(key, Slot::Asked(addr));
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
    }

    fn forget(&mut self, key: ListenerKey) {
        if let Some(entry) = self.lock().entries.get_mut(&key.scope) {
            entry.sockets.remove(&key);
            entry.queue.remove(&key);
        }
    }
}

/// A run's place, for as long as it lives.
#[derive(Debug)]
pub(super) struct Entered {
    desk: Desk,
    pub(super) scope: Scope,
    /// There may be work.
    pub(super) wake: Arc<Notify>,
}

impl Entered {
    /// What is to be done next.
    pub(super) fn next(&self) -> Option<Work> {
        let State {
            entries, external, ..
        } = &mut *self.desk.lock();
        let entry = entries.get_mut(&self.scope)?;
        // A wildcard may hear it, so that no socket announces an address.
        let fresh = external.difference(&entry.told).take(MOST_ADDRESSES);
        let fresh: Vec<IpAddr> = fresh.copied().collect();
        let add: Vec<IpNet> = fresh.iter().map(|addr| IpNet::from(*addr)).collect();
        if !add.is_empty() {
            entry.told.extend(fresh);
            return Some(Work::Say(ToKeeper::Local { add }));
        }
        let mut sockets = Vec::new();
        while sockets.len() < MOST_SOCKETS
            && let Some(key) = entry.queue.pop_first()
        {
            if let Some(Slot::Asked(addr)) = entry.sockets.get(&key) {
                let socket = Socket {
                    protocol: key.protocol,
                    addr: *addr,
                    device_is_loopback: key.bind == Bind::AnyLoopback,
                };
                sockets.push((key, socket));
            }
        }
        if !sockets.is_empty() {
            return Some(Work::Open(sockets));
        }
        entry.ready.take().map(Work::Say)
    }

    /// Lays down the answer for `key`, unless nobody waits for it any more.
    pub(super) fn settle(&self, key: ListenerKey, answer: Result<OwnedFd, i32>) {
        let state = &mut *self.desk.lock();
        let entry = state.entries.get_mut(&self.scope);
        if let Some(slot) = entry.and_then(|entry| entry.sockets.get_mut(&key))
            && matches!(slot, Slot::Asked(_))
        {
            *slot = answer.map_or_else(Slot::Failed, Slot::Here);
        }
    }

    /// Why DNS is not answered there; `None` once it is.
    pub(super) fn set_dns(&self, problem: Option<String>) {
        if let Some(entry) = self.desk.lock().entries.get_mut(&self.scope) {
            entry.run.dns_problem = problem;
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.desk.lock().entries.remove(&self.scope);
    }
}
