//! The data path as the control side holds it. Owns the composition of listeners and workers, the budget of
//! descriptors and the end; must not decide what is bound: plans say so.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use portico_core::{
    balance::End,
    snapshot::{
        Scope,
        filter::Filter,
        plan::{ListenerKey, Mode},
    },
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Published,
    budget::{DESCRIPTORS_PER_CONNECTION, most_listeners, reserved},
    clock,
    draining::Drains,
    http::log::AccessLog,
    inherit::Inherited,
    listen::{Listeners, opener::Opener, status::ListenerStatus},
    net,
    observer::Observer,
    settings::DataSettings,
    worker::{Shared, Workers},
};

/// Fewer than these, beside those of the workers, serve nothing.
const LEAST_DESCRIPTORS: usize = 48;
/// The descriptors of a worker's runtime.
const DESCRIPTORS_PER_WORKER: usize = 8;

/// The running data path. All methods belong to the control thread, which they hold up for at most
/// [`DataSettings::release_timeout`]; data never waits for it. Dropping it cuts every connection.
///
/// The order of one change of the world: [`filter`](Self::filter) what is to drop more, [`bind`](Self::bind), publish the Snapshot, [`accept`](Self::accept),
/// [`switch`](Self::switch), [`filter`](Self::filter) what is to drop less, [`close`](Self::close),
/// [`retry`](Self::retry).
pub struct DataPlane {
    listeners: Listeners,
    workers: Workers,
    descriptor_limit: usize,
    drains: Drains,
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
    /// Idle connections of HTTP, of clients and to endpoints, that made room for others.
    pub idle_shed: u64,
    /// Connections reset because nothing moved for too long.
    pub timed_out: u64,
    /// Connections of HTTP/2 ended because their clients flooded them.
    pub flooded: u64,
    /// Connections reset because their endpoint was gone and their Service's drain time-out was over.
    pub drained_endpoint: u64,
    /// The same for those whose address or port of a Service was gone.
    pub drained_service: u64,
    /// Times that one of our addresses had no port left for a connection to an endpoint.
    pub ports_exhausted: u64,
    /// UDP flows begun.
    pub flows_opened: u64,
    /// UDP flows ended to make room for others.
    pub flows_shed: u64,
    /// Times that no socket could be opened for a UDP flow: no descriptor, memory or port was left.
    pub flows_unopened: u64,
    /// UDP flows ended because they were idle.
    pub flows_expired: u64,
    /// Times that an endpoint of a UDP flow refused (ICMP port unreachable).
    pub flows_refused: u64,
    /// Datagrams sent to endpoints.
    pub datagrams_to_upstream: u64,
    /// Datagrams sent to clients.
    pub datagrams_to_downstream: u64,
    /// Datagrams dropped: no Frontend, no endpoint, no descriptor, or a full buffer.
    pub datagrams_dropped: u64,
    /// Clients that session affinity remembers now.
    pub affinity_clients: usize,
    /// Clients that it forgot before their time, because there were too many.
    pub affinity_shed: u64,
    /// Lines of the access log that were dropped or lost.
    pub log_lines_dropped: u64,
}

impl Counters {
    pub(crate) fn of(shared: &Shared) -> Self {
        let totals = &shared.totals;
        let (affinity_clients, affinity_shed) = shared.affinity.counts();
        let ended = |end| {
            let registries = shared.registries.iter();
            registries.map(|registry| registry.ends().of(end)).sum()
        };
        Self {
            handed_over: totals.handed_over.load(Relaxed),
            unmatched: totals.unmatched.load(Relaxed),
            pauses: totals.pauses.load(Relaxed),
            idle_shed: totals.idle_shed.load(Relaxed),
            timed_out: ended(End::Idle),
            flooded: totals.flooded.load(Relaxed),
            drained_endpoint: ended(End::EndpointGone),
            drained_service: ended(End::ServiceGone),
            ports_exhausted: shared.sources.exhausted(),
            flows_opened: totals.flows_opened.load(Relaxed),
            flows_shed: totals.flows_shed.load(Relaxed),
            flows_unopened: totals.flows_unopened.load(Relaxed),
            flows_expired: totals.flows_expired.load(Relaxed),
            flows_refused: totals.flows_refused.load(Relaxed),
            datagrams_to_upstream: totals.datagrams_to_upstream.load(Relaxed),
            datagrams_to_downstream: totals.datagrams_to_downstream.load(Relaxed),
            datagrams_dropped: totals.datagrams_dropped.load(Relaxed),
            affinity_clients,
            affinity_shed,
            log_lines_dropped: shared.access_log.get().map_or(0, |log| log.dropped()),
        }
    }
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
    ///
    /// # Errors
    /// Too few descriptors even so; the system gives no thread.
    pub fn start(settings: DataSettings, published: Arc<Published>) -> io::Result<Self> {
        Self::start_with(settings, published, Arc::default())
    }

    /// As [`start`](Self::start), with sockets that the process was started with: they are used wherever they are what
    /// would have been bound.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_with(
        settings: DataSettings,
        published: Arc<Published>,
        inherited: Arc<Inherited>,
    ) -> io::Result<Self> {
        let descriptor_limit = net::raise_descriptor_limit();
        check_descriptors(descriptor_limit, settings.workers)?;
        let listeners = Listeners::new(&settings, inherited, most_listeners(descriptor_limit));
        let plane = Self {
            listeners,
            workers: Workers::start(settings, published)?,
            descriptor_limit,
            drains: Drains::default(),
        };
        plane.budget();
        Ok(plane)
    }

    /// Whoever opens the sockets of other scopes than the host from now on; nobody does at first.
    pub fn open_by(&mut self, opener: Box<dyn Opener>) {
        self.listeners.open_by(opener);
    }

    /// From now on every request of HTTP ports is logged. Said once; later ones change nothing.
    pub fn log_requests(&self, log: Arc<AccessLog>) {
        let _ = self.workers.shared.access_log.set(log);
    }

    /// What a listener drops before it is accepted, whichever sockets it has or gets; `None` is nothing. Where the
    /// kernel does not take a filter, and for what gets through, the Snapshot's verdict is carried out by a reset.
    pub fn filter(&mut self, key: ListenerKey, filter: Option<&Arc<Filter>>) {
        self.listeners.filter(key, filter);
    }

    /// Binds what is not bound yet; nothing is accepted before [`accept`](Self::accept), clients wait in the kernel's
    /// queue. A failure concerns one listener: where another port of its address will do, it gets the next free one
    /// from its own + 10000 that `is_declared` (asked with `0.0.0.0` for wildcards) leaves free. One in another scope
    /// may have to wait for its socket ([`BindErrorKind::Pending`](crate::BindErrorKind::Pending)) and holds up no other:
    /// it begins with a later [`retry`](Self::retry).
    pub fn bind(
        &mut self,
        wanted: &[(ListenerKey, Mode, Arc<str>)],
        is_declared: &dyn Fn(IpAddr, u16) -> bool,
    ) {
        self.listeners.bind(&self.workers, wanted, is_declared);
        self.budget();
    }

    /// Newly bound listeners begin to accept, and limits are those of the new Snapshot, also for connections that wait for a
    /// place. To be called once it is published.
    pub fn accept(&mut self) {
        self.listeners.accept(&self.workers);
        self.workers.shared.has_changed();
    }

    /// Makes a listener refuse or listen again. Established connections stay, and so does the port, unless another
    /// process took it meanwhile: that is a bind failure.
    pub fn switch(&mut self, key: ListenerKey, mode: Mode) {
        self.listeners.switch(&self.workers, key, mode);
        // UDP opens and closes its socket.
        self.budget();
    }

    /// Closes listeners: what waits in their queues is served by the newest Snapshot, established connections go on,
    /// UDP flows end.
    /// Their ports are free on return, and go at once to listeners of ours that wanted them.
    pub fn close(&mut self, keys: &[ListenerKey]) {
        self.listeners.close(&self.workers, keys);
        self.budget();
    }

    /// Tries the declared ports of failing listeners whose time has come, takes sockets that have come from elsewhere, and
    /// gives those that failed since the last
    /// call their time. Returns when to call again; also to be called after [`bind`](Self::bind),
    /// [`switch`](Self::switch) and [`close`](Self::close).
    pub fn retry(&mut self, now: Timestamp) -> Option<Timestamp> {
        let next = self.listeners.retry(&self.workers, now);
        self.budget();
        next
    }

    /// Closes connections whose endpoint or Service port is gone from the published Snapshot, once their Services'
    /// drain time-outs are over. Returns when to call again; also to be called after a Snapshot was published.
    pub fn drain_gone(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.drains.look(&self.workers.shared, now)
    }

    /// All listeners of the host, sorted by key.
    pub fn statuses(&self) -> Vec<ListenerStatus> {
        self.statuses_in(Scope::HOST)
    }

    /// All listeners of a scope, sorted by key.
    pub fn statuses_in(&self, scope: Scope) -> Vec<ListenerStatus> {
        self.listeners.statuses(scope)
    }

    /// Connections in progress, those that are still being connected to an endpoint included.
    pub fn connections(&self) -> usize {
        self.workers.shared.connections()
    }

    /// UDP flows in progress.
    pub fn flows(&self) -> usize {
        self.workers.shared.flows.load(Relaxed)
    }

    /// Connections in progress of each worker.
    pub fn worker_loads(&self) -> Vec<usize> {
        self.workers.shared.loads()
    }

    /// Most connections at a time, as the descriptors stand.
    pub fn connection_limit(&self) -> usize {
        self.workers.shared.limit()
    }

    /// Descriptors that listeners, connections and flows have open (at most; a connection without endpoint has one).
    pub fn descriptors_used(&self) -> usize {
        self.listeners.sockets() + self.connections() * DESCRIPTORS_PER_CONNECTION + self.flows()
    }

    /// Most listeners: beyond, they fail for want of descriptors, which connections and flows need too.
    pub fn most_listeners(&self) -> usize {
        most_listeners(self.descriptor_limit)
    }

    /// Descriptors that the process may open.
    pub fn descriptor_limit(&self) -> usize {
        self.descriptor_limit
    }

    /// Those of them that it leaves to everything else.
    pub fn descriptors_kept_back(&self) -> usize {
        reserved(self.descriptor_limit)
    }

    /// Sums since the start.
    pub fn counters(&self) -> Counters {
        Counters::of(&self.workers.shared)
    }

    /// A handle to read the numbers with, from any thread.
    pub fn observer(&self) -> Observer {
        Observer::of(&self.workers.shared)
    }

    /// Stops accepting, lets connections finish and UDP flows fall silent for a second until `deadline` has passed or
    /// `cancel` is cancelled (a second signal), then resets the rest and ends the workers. Needs a runtime with time.
    ///
    /// # Cancel safety
    /// Dropped early, it cuts every connection.
    pub async fn drain(mut self, deadline: Duration, cancel: CancellationToken) -> DrainReport {
        let waited_for = self.connections();
        let ends_at = clock::now().after(deadline);
        let shared = &self.workers.shared;
        shared.ends_at.store(ends_at.as_millis(), Relaxed);
        shared.ending.notify_waiters();
        self.listeners.end(&self.workers);
        self.listeners.pass_on();
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
        shared.sockets.store(self.listeners.sockets(), Relaxed);
        shared.share_out();
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        let cut = CancellationToken::new();
        cut.cancel();
        self.workers.finish(&cut);
        self.workers.join();
        self.listeners.pass_on();
    }
}

/// What the process cannot do without: the runtimes of the workers (epoll, its wake-up, a timer), sources, DNS, the
/// admin interface, a first listener with a connection.
fn check_descriptors(limit: usize, workers: usize) -> io::Result<()> {
    let needed = LEAST_DESCRIPTORS.saturating_add(workers.saturating_mul(DESCRIPTORS_PER_WORKER));
    if limit >= needed {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{limit} descriptors are too few, {needed} are the least for {workers} workers: raise the limit with \
         `ulimit -n 4096` (LimitNOFILE=4096 in a systemd unit)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_descriptors_too_few_says_what_to_type() {
        assert!(check_descriptors(1024, 16).is_ok());
        let error = check_descriptors(40, 2).unwrap_err().to_string();
        assert!(
            error.contains("40 descriptors are too few") && error.contains("ulimit -n"),
            "{error}"
        );
    }
}
