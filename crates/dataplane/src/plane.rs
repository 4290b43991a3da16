//! The data path as the control side holds it. Owns the composition of listeners and workers, the budget of
//! descriptors and the end; must not decide what is bound: plans say so.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use portico_core::{
    backoff::Backoff,
    snapshot::plan::{ListenerKey, Mode},
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Published,
    listen::{Listeners, status::ListenerStatus},
    net,
    settings::DataSettings,
    worker::Workers,
};

/// Descriptors kept for everything else: sources, DNS, the admin interface, the runtimes themselves.
const RESERVED_DESCRIPTORS: usize = 256;
/// A connection has a socket to the client and one to the endpoint.
const DESCRIPTORS_PER_CONNECTION: usize = 2;

/// The running data path. All methods belong to the control thread, which they hold up for at most
/// [`DataSettings::release_timeout`]; data never waits for it. Dropping it cuts every connection.
///
/// The order of one change of the world: [`bind`](Self::bind), publish the Snapshot, [`accept`](Self::accept),
/// [`switch`](Self::switch), [`close`](Self::close), [`retry`](Self::retry).
pub struct DataPlane {
    listeners: Listeners,
    workers: Workers,
    descriptor_limit: usize,
}

/// Sums since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Connections given to another worker than the one that accepted them.
    pub handed_over: u64,
    /// Connections reset because their local address is no Frontend.
    pub unmatched: u64,
    /// Times that a worker paused accepting, for want of descriptors or at the limit of connections.
    pub pauses: u64,
    /// Connections reset because nothing moved for too long.
    pub timed_out: u64,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections in progress when the drain began.
    pub waited_for: usize,
    /// Connections reset because they did not finish in time (also of those that were still queued then).
    pub cut: usize,
}

impl DataPlane {
    /// Raises the process's descriptor limit to its hard limit and starts the workers, which have nothing to do yet.
    pub fn start(settings: DataSettings, published: Arc<Published>) -> io::Result<Self> {
        let listeners = Listeners::new(
            settings.backlog,
            Backoff::new(settings.rebind_base, settings.rebind_cap),
        );
        let descriptor_limit = net::raise_descriptor_limit();
        let plane = Self {
            listeners,
            workers: Workers::start(settings, published)?,
            descriptor_limit,
        };
        plane.budget();
        Ok(plane)
    }

    /// Binds what is not bound yet; nothing is accepted before [`accept`](Self::accept), clients wait in the kernel's
    /// queue. A failure concerns one listener: where another port of its address will do, it gets the next free one
    /// from its own + 10000 that `is_declared` (asked with `0.0.0.0` for wildcards) leaves free.
    pub fn bind(
        &mut self,
        wanted: &[(ListenerKey, Mode, Arc<str>)],
        is_declared: &dyn Fn(IpAddr, u16) -> bool,
    ) {
        self.listeners.bind(&self.workers, wanted, is_declared);
        self.budget();
    }

    /// Newly bound listeners begin to accept. To be called once the Snapshot that knows them is published.
    pub fn accept(&mut self) {
        self.listeners.accept(&self.workers);
    }

    /// Makes a listener refuse or listen again. Established connections stay, and so does the port, unless another
    /// process took it meanwhile: that is a bind failure.
    pub fn switch(&mut self, key: ListenerKey, mode: Mode) {
        self.listeners.switch(&self.workers, key, mode);
    }

    /// Closes listeners: what waits in their queues is served by the newest Snapshot, established connections go on.
    /// Their ports are free on return, and go at once to listeners of ours that wanted them.
    pub fn close(&mut self, keys: &[ListenerKey]) {
        self.listeners.close(&self.workers, keys);
        self.budget();
    }

    /// Tries the declared ports of failing listeners whose time has come, and gives those that failed since the last
    /// call their time. Returns when to call again; also to be called after [`bind`](Self::bind),
    /// [`switch`](Self::switch) and [`close`](Self::close).
    pub fn retry(&mut self, now: Timestamp) -> Option<Timestamp> {
        let next = self.listeners.retry(&self.workers, now);
        self.budget();
        next
    }

    /// All listeners, sorted by key.
    pub fn statuses(&self) -> Vec<ListenerStatus> {
        self.listeners.statuses()
    }

    /// Connections in progress, those that are still being connected to an endpoint included.
    pub fn connections(&self) -> usize {
        self.workers.shared.connections()
    }

    /// Connections in progress of each worker.
    pub fn worker_loads(&self) -> Vec<usize> {
        self.workers.shared.loads()
    }

    /// Most connections at a time, as the descriptors stand.
    pub fn connection_limit(&self) -> usize {
        self.workers.shared.limit.load(Relaxed)
    }

    /// Descriptors that listeners and connections have open (at most; a connection without endpoint has one).
    pub fn descriptors_used(&self) -> usize {
        self.listeners.sockets() + self.connections() * DESCRIPTORS_PER_CONNECTION
    }

    /// Descriptors that the process may open.
    pub fn descriptor_limit(&self) -> usize {
        self.descriptor_limit
    }

    /// Sums since the start.
    pub fn counters(&self) -> Counters {
        let totals = &self.workers.shared.totals;
        Counters {
            handed_over: totals.handed_over.load(Relaxed),
            unmatched: totals.unmatched.load(Relaxed),
            pauses: totals.pauses.load(Relaxed),
            timed_out: totals.timed_out.load(Relaxed),
        }
    }

    /// Stops accepting, lets connections finish until `deadline` has passed or `cancel` is cancelled (a second
    /// signal), then resets the rest and ends the workers. Needs a runtime with time.
    ///
    /// # Cancel safety
    /// Dropped early, it cuts every connection.
    pub async fn drain(mut self, deadline: Duration, cancel: CancellationToken) -> DrainReport {
        let waited_for = self.connections();
        self.listeners.close(&self.workers, &self.listeners.keys());
        let cut = CancellationToken::new();
        self.workers.finish(&cut);
        // All three are cancel safe.
        let finished = tokio::select! {
            biased;
            () = cancel.cancelled() => false,
            () = self.workers.ended() => true,
            () = tokio::time::sleep(deadline) => false,
        };
        let left = if finished { 0 } else { self.connections() };
        cut.cancel();
        self.workers.ended().await;
        self.workers.join();
        DrainReport {
            waited_for,
            cut: left,
        }
    }

    fn budget(&self) {
        let shared = &self.workers.shared;
        let free = self
            .descriptor_limit
            .saturating_sub(self.listeners.sockets() + reserved(self.descriptor_limit));
        let affordable = (free / DESCRIPTORS_PER_CONNECTION).max(1);
        shared.limit.store(
            shared
                .settings
                .max_connections
                .map_or(affordable, |most| most.min(affordable)),
            Relaxed,
        );
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        let cut = CancellationToken::new();
        cut.cancel();
        self.workers.finish(&cut);
        self.workers.join();
    }
}

/// Descriptors kept back: under a small limit no more than half of it, so that connections have their share.
const fn reserved(limit: usize) -> usize {
    if limit / 2 < RESERVED_DESCRIPTORS {
        limit / 2
    } else {
        RESERVED_DESCRIPTORS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_small_limit_leaves_half_for_connections() {
        assert_eq!(
            (reserved(20_000), reserved(512), reserved(100)),
            (256, 256, 50)
        );
    }
}
