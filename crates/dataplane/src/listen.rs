//! Listeners as the control side sees them: which sockets exist, in which state, and when a failed one is tried
//! again. Owns that table and the order of its steps; what connections mean is the Snapshot's, accepting the workers'.
//!
//! Every method runs on the control thread. A change of state reaches the workers as a command, in order; only
//! closing waits for them, so that the port is free when it returns.

pub(crate) mod accept;
mod bind;
pub(crate) mod guard;
pub(crate) mod opener;
pub(crate) mod status;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use portico_core::{
    backoff::Backoff,
    object::Protocol,
    snapshot::{
        Scope,
        filter::Filter,
        plan::{Bind, ListenerKey, Mode},
    },
    time::Timestamp,
};

use crate::{clock, inherit::Inherited, net, settings::DataSettings, worker::Workers};
use accept::Listening;
use bind::Binder;
use guard::Filtering;
use opener::Opener;
use status::{BindError, BindErrorKind, ListenerState, ListenerStatus};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Listeners {
    entries: BTreeMap<ListenerKey, Entry>,
    binder: Binder,
    backoff: Backoff,
}

#[derive(Debug)]
struct Entry {
    services: Arc<str>,
    mode: Mode,
    socket: Option<Arc<Listening>>,
    /// Whether workers accept from its socket whenever that listens.
    accepting: bool,
    /// Set exactly while `socket` is not on the declared port. Both are `None` while a UDP port refuses: closed, the
    /// kernel answers port unreachable.
    error: Option<BindError>,
    backoff: Backoff,
    retry_at: Option<Timestamp>,
}

impl Entry {
    fn wants_worker(&self) -> bool {
        self.accepting && self.mode == Mode::Listening
    }

    /// Whether an answer about its socket is to come.
    fn is_pending(&self) -> bool {
        let error = self.error.as_ref();
        error.is_some_and(|error| error.kind == BindErrorKind::Pending)
    }

    fn has_fallback(&self) -> bool {
        self.error.is_some() && self.socket.is_some()
    }

    fn state(&self) -> ListenerState {
        match (&self.socket, &self.error) {
            (None, None) => ListenerState::Refusing,
            (None, Some(_)) => ListenerState::Failed,
            (Some(socket), Some(_)) => ListenerState::Fallback {
                port: socket.bound.port(),
            },
            (Some(_), None) if self.mode == Mode::Refusing => ListenerState::Refusing,
            (Some(_), None) => ListenerState::Listening,
        }
    }
}

impl Listeners {
    /// For at most `most` sockets.
    pub(crate) fn new(settings: &DataSettings, inherited: Arc<Inherited>, most: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            binder: Binder::new(settings, inherited, most),
            backoff: Backoff::new(settings.rebind_base, settings.rebind_cap),
        }
    }

    /// Whoever opens the sockets of other scopes from now on.
    pub(crate) fn open_by(&mut self, opener: Box<dyn Opener>) {
        self.binder.opener = opener;
    }

    /// Number of sockets.
    pub(crate) fn sockets(&self) -> usize {
        self.binder.sockets()
    }

    /// Leaves inherited sockets as the next process wants to find them. Nothing is accepted from them any more.
    pub(crate) fn pass_on(&self) {
        self.binder.pass_on();
    }

    /// What a listener's sockets drop from now on, whichever it gets.
    pub(crate) fn filter(&mut self, key: ListenerKey, filter: Option<&Arc<Filter>>) {
        self.binder.set_filter(key, filter);
        let socket = self
            .entries
            .get(&key)
            .and_then(|entry| entry.socket.as_ref());
        if let Some(socket) = socket {
            self.binder.guard(socket);
        }
    }

    pub(crate) fn bind(
        &mut self,
        workers: &Workers,
        wanted: &[(ListenerKey, Mode, Arc<str>)],
        is_declared: &dyn Fn(IpAddr, u16) -> bool,
    ) {
        let mut homeless = self.evict(workers, wanted);
        for (key, mode, services) in wanted {
            if self.entries.contains_key(key) {
                continue;
            }
            let opened = if key.protocol == Protocol::Udp && *mode == Mode::Refusing {
                Ok(None)
            } else {
                self.binder.open(*key, *mode, key.port).map(Some)
            };
            let (socket, error) =
                opened.map_or_else(|error| (None, Some(error)), |socket| (socket, None));
            if error.is_some() {
                homeless.push(*key);
            }
            let (services, backoff) = (Arc::clone(services), self.backoff);
            let entry = Entry {
                services,
                mode: *mode,
                socket,
                accepting: false,
                error,
                backoff,
                retry_at: None,
            };
            self.entries.insert(*key, entry);
        }
        // After all declared ones, which always win.
        for key in homeless {
            self.fall_back(workers, key, is_declared);
        }
    }

    pub(crate) fn accept(&mut self, workers: &Workers) {
        let mut begun = Vec::new();
        for entry in self.entries.values_mut().filter(|entry| !entry.accepting) {
            entry.accepting = true;
            if entry.wants_worker() {
                begun.extend(entry.socket.clone());
            }
        }
        workers.accept_from(begun);
    }

    pub(crate) fn switch(&mut self, workers: &Workers, key: ListenerKey, mode: Mode) {
        let Some(entry) = self
            .entries
            .get_mut(&key)
            .filter(|entry| entry.mode != mode)
        else {
            return;
        };
        entry.mode = mode;
        if key.protocol == Protocol::Udp {
            return self.switch_udp(workers, key, mode);
        }
        let Some(socket) = entry.socket.clone() else {
            return;
        };
        match mode {
            Mode::Refusing => {
                refuse(workers, &socket);
                // A registration that has seen the hang-up stays closed for good: the next one starts afresh.
                workers.forget(vec![socket.id]);
            }
            Mode::Listening => match net::listen(&socket.fd, self.binder.backlog) {
                Ok(()) if entry.accepting => workers.accept_from(vec![socket]),
                Ok(()) => {}
                Err(error) => {
                    entry.error = Some(BindError::new(&socket.bound, &error));
                    entry.socket = None;
                    self.fall_back(workers, key, &|_, _| false);
                }
            },
        }
    }

    /// A UDP port that refuses is closed, whatever it was, and opened anew to listen.
    fn switch_udp(&mut self, workers: &Workers, key: ListenerKey, mode: Mode) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if mode == Mode::Refusing {
            if entry.is_pending() {
                self.binder.opener.forget(key);
            }
            entry.error = None;
            entry.retry_at = None;
            entry.backoff.reset();
            return retire(workers, entry.socket.take().into_iter().collect());
        }
        match self.binder.open(key, mode, key.port) {
            Ok(socket) => {
                entry.socket = Some(Arc::clone(&socket));
                if entry.accepting {
                    workers.accept_from(vec![socket]);
                }
            }
            Err(error) => {
                entry.error = Some(error);
                self.fall_back(workers, key, &|_, _| false);
            }
        }
    }

    /// The end of all: connections go on without their listeners. UDP sockets are left to the workers, which close
    /// them with the last of their flows.
    pub(crate) fn end(&mut self, workers: &Workers) {
        let entries = std::mem::take(&mut self.entries).into_values();
        let sockets = entries.filter_map(|entry| entry.socket);
        let of_tcp = sockets.filter(|socket| socket.key.protocol == Protocol::Tcp);
        retire(workers, of_tcp.collect());
    }

    pub(crate) fn close(&mut self, workers: &Workers, keys: &[ListenerKey]) {
        let mut removed = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(entry) = self.entries.remove(key) else {
                continue;
            };
            if entry.is_pending() {
                self.binder.opener.forget(*key);
            }
            removed.push(entry);
        }
        retire(
            workers,
            removed
                .into_iter()
                .filter_map(|entry| entry.socket)
                .collect(),
        );
        // What only our own closed sockets stood in the way of need not wait for its time.
        let freed: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| {
                entry
                    .error
                    .as_ref()
                    .is_some_and(|error| error.kind == BindErrorKind::InUse)
            })
            .filter(|(key, _)| {
                keys.iter().any(|closed| {
                    (closed.scope, closed.port, closed.protocol)
                        == (key.scope, key.port, key.protocol)
                        && bind::overlap(closed.bind, key.bind)
                })
            })
            .map(|(key, _)| *key)
            .collect();
        for key in freed {
            self.take_declared_port(workers, key);
        }
    }

    pub(crate) fn retry(&mut self, workers: &Workers, now: Timestamp) -> Option<Timestamp> {
        let failing: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.error.is_some())
            .map(|(key, _)| *key)
            .collect();
        for key in failing {
            // An answer may have come at any time; whoever is to give it has a deadline.
            let is_due = self.entries.get(&key).and_then(|entry| {
                let at = entry.retry_at.map(|at| at <= now);
                if entry.is_pending() { Some(true) } else { at }
            });
            let recovered = is_due == Some(true) && self.take_declared_port(workers, key);
            if is_due == Some(true) && !recovered {
                self.fall_back(workers, key, &|_, _| false);
            }
            if let Some(entry) = self
                .entries
                .get_mut(&key)
                .filter(|_| is_due != Some(false) && !recovered)
            {
                let waits = entry.is_pending();
                entry.retry_at = (!waits).then(|| now.after(entry.backoff.next(clock::jitter())));
            }
        }
        self.entries
            .values()
            .filter_map(|entry| entry.retry_at)
            .min()
    }

    pub(crate) fn statuses(&self, scope: Scope) -> Vec<ListenerStatus> {
        let status = |(key, entry): (&ListenerKey, &Entry)| ListenerStatus {
            key: *key,
            services: Arc::clone(&entry.services),
            state: entry.state(),
            bound: entry.socket.as_ref().map(|socket| socket.bound),
            error: entry.error.clone(),
            attempts: entry.backoff.failures(),
            retry_at: entry.retry_at,
            filtering: entry
                .socket
                .as_ref()
                .map_or(Filtering::Idle, |socket| socket.guarding.state(&socket.fd)),
        };
        let of_scope = self.entries.iter().filter(|(key, _)| key.scope == scope);
        of_scope.map(status).collect()
    }

    /// Binds the declared port of a failing listener; its fallback goes when that works. Tells whether it did.
    fn take_declared_port(&mut self, workers: &Workers, key: ListenerKey) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else {
            return false;
        };
        let socket = match self.binder.open(key, entry.mode, key.port) {
            Ok(socket) => socket,
            Err(error) => {
                entry.error = Some(error);
                return false;
            }
        };
        if !entry.is_pending() {
            tracing::info!(listener = %socket.bound, services = %entry.services, "listener has its declared port again");
        }
        entry.error = None;
        entry.retry_at = None;
        entry.backoff.reset();
        let fallback = entry.socket.replace(Arc::clone(&socket));
        if entry.wants_worker() {
            workers.accept_from(vec![socket]);
        }
        retire(workers, fallback.into_iter().collect());
        true
    }

    /// Gives a listener without a socket a fallback port, if its failure allows one. In another scope nobody would look
    /// for it there.
    fn fall_back(
        &mut self,
        workers: &Workers,
        key: ListenerKey,
        is_declared: &dyn Fn(IpAddr, u16) -> bool,
    ) {
        let without_socket = self
            .entries
            .get(&key)
            .filter(|entry| entry.socket.is_none());
        let Some((mode, error)) =
            without_socket.and_then(|entry| Some((entry.mode, entry.error.clone()?)))
        else {
            return;
        };
        let entries = &self.entries;
        let is_taken =
            |addr: IpAddr, port: u16| is_declared(addr, port) || declares(entries, key, port);
        if error.kind == BindErrorKind::Pending {
            return;
        }
        let socket = if key.scope == Scope::HOST && error.kind.allows_fallback() {
            self.binder.open_fallback(key, mode, &is_taken)
        } else {
            None
        };
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.socket = socket;
        let Some(socket) = &entry.socket else {
            // Said once; the state tells for how long. Where descriptors end there are thousands, told as a number.
            if entry.backoff.failures() == 0 && error.kind != BindErrorKind::Exhausted {
                tracing::warn!(services = %entry.services, %error, "listener failed");
            }
            return;
        };
        tracing::warn!(services = %entry.services, fallback = %socket.bound, %error, "listener falls back");
        if entry.wants_worker() {
            workers.accept_from(vec![Arc::clone(socket)]);
        }
    }

    /// Closes fallback sockets that stand on a port which is declared now. Their listeners need another one.
    fn evict(
        &mut self,
        workers: &Workers,
        wanted: &[(ListenerKey, Mode, Arc<str>)],
    ) -> Vec<ListenerKey> {
        let mut evicted = Vec::new();
        let mut retired = Vec::new();
        for (key, entry) in self
            .entries
            .iter_mut()
            .filter(|(_, entry)| entry.has_fallback())
        {
            let Some(port) = entry.socket.as_ref().map(|socket| socket.bound.port()) else {
                continue;
            };
            if wanted.iter().any(|(new, ..)| {
                (new.scope, new.port, new.protocol) == (key.scope, port, key.protocol)
                    && bind::overlap(new.bind, key.bind)
            }) {
                retired.extend(entry.socket.take());
                evicted.push(*key);
            }
        }
        if !retired.is_empty() {
            retire(workers, retired);
        }
        evicted
    }
}

/// Whether a listener is declared for `port` on an address that `key` hears too.
fn declares(entries: &BTreeMap<ListenerKey, Entry>, key: ListenerKey, port: u16) -> bool {
    if bind::address_of(key.bind).is_unspecified() {
        return entries.keys().any(|other| {
            (other.port, other.protocol, other.scope) == (port, key.protocol, key.scope)
                && bind::overlap(other.bind, key.bind)
        });
    }
    let shapes = [key.bind, Bind::Any, Bind::AnyLoopback, Bind::AnyV6];
    let mut shapes = shapes
        .into_iter()
        .filter(|bind| bind::overlap(*bind, key.bind));
    shapes.any(|bind| entries.contains_key(&ListenerKey { bind, port, ..key }))
}

/// Serves what is queued already, then makes the kernel refuse the rest.
fn refuse(workers: &Workers, socket: &Listening) {
    // It ends with any failure: an empty queue, as a rule.
    while let Ok((stream, peer)) = socket.accept() {
        if let Ok(arrival) = socket.arrival(&stream, peer) {
            workers.shared.adopt(stream, arrival);
        }
    }
    let _ = net::refuse(&socket.fd);
}

/// Closes sockets; established connections go on, flows end.
fn retire(workers: &Workers, sockets: Vec<Arc<Listening>>) {
    if sockets.is_empty() {
        return;
    }
    for socket in sockets
        .iter()
        .filter(|socket| socket.key.protocol == Protocol::Tcp)
    {
        refuse(workers, socket);
        // Whoever shares an inherited socket with us must not share what was ours.
        socket.guarding.release(&socket.fd);
    }
    workers.release(sockets.iter().map(|socket| socket.id).collect());
    // The last share of each: its port is free from here on.
    drop(sockets);
}
