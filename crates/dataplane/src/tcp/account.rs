//! What is counted about a connection. Owns guards that settle every count exactly once, whatever way the connection
//! ends (also when its task is cut or panics); must not decide anything.
//!
//! How the counters reconcile, exactly whenever no connection is being dialled:
//! - for a Service port, `accepted = connected + rejected`;
//! - for an endpoint, `picks = connected + failures`;
//! - together, the picks of a Service port's endpoints are `accepted + retries - rejected`, where `retries` counts
//!   every failed attempt (the last one of a rejected connection too) and `rejected` takes its connection away again;
//!   a connection rejected without a pick adds to `accepted` and `rejected` alike.
//!
//! A connection whose frontend belongs to another Service port when it is retried counts as rejected by the first
//! and as accepted by the second.
//!
//! Counters are shared by all workers, so that a connection touches them once an event. Bytes it counts by itself, and
//! adds them every 64 KiB, a second after the first byte that was not added, and at its end.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use portico_core::balance::{End, EndpointState, PortState};
use tokio::{sync::Notify, time::Instant};

use crate::clock;

use super::{
    registry::Registered,
    relay::{Meter, Side},
    waiting,
};

/// Bytes of one direction that a connection keeps to itself before it adds them to counters that all workers share.
const FLUSH_BYTES: u64 = 64 * 1024;

/// A connection that a Service port accepted and that has not reached an endpoint. Dropped: it is rejected.
#[derive(Debug)]
pub(crate) struct Accepted {
    port: Arc<PortState>,
    /// Whether it has one of the port's places.
    entered: bool,
    settled: bool,
}

impl Accepted {
    pub(crate) fn by(port: &Arc<PortState>) -> Self {
        port.accepted.fetch_add(1, Relaxed);
        Self {
            port: Arc::clone(port),
            entered: false,
            settled: false,
        }
    }

    /// One for whom a place was taken by [`PortState::enter`].
    pub(crate) fn entered(port: &Arc<PortState>) -> Self {
        let mut account = Self::by(port);
        account.entered = true;
        account
    }

    pub(crate) fn is_by(&self, port: &Arc<PortState>) -> bool {
        Arc::ptr_eq(&self.port, port)
    }

    /// Takes a place, unless it has one or others wait for theirs; whether it has one now.
    pub(crate) fn enter(&mut self) -> bool {
        self.entered = self.entered || self.port.enter_as_newcomer();
        self.entered
    }

    /// Waits for a place in turn, unless it has one.
    pub(crate) async fn enter_in_turn(&mut self, changed: &Notify) {
        if !self.entered {
            waiting::enter(changed, &self.port).await;
            self.entered = true;
        }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if !self.settled {
            self.port.rejected.fetch_add(1, Relaxed);
            if self.entered {
                self.port.leave();
            }
        }
    }
}

/// One attempt at one endpoint, which was picked. Dropped: it failed.
#[derive(Debug)]
pub(crate) struct Attempt {
    port: Arc<PortState>,
    endpoint: Arc<EndpointState>,
    began: Instant,
    settled: bool,
}

impl Attempt {
    pub(crate) fn at(port: &Arc<PortState>, endpoint: &Arc<EndpointState>) -> Self {
        port.picked.fetch_add(1, Relaxed);
        Self {
            port: Arc::clone(port),
            endpoint: Arc::clone(endpoint),
            began: Instant::now(),
            settled: false,
        }
    }

    pub(crate) fn endpoint(&self) -> &Arc<EndpointState> {
        &self.endpoint
    }

    /// The endpoint was reached: the connection that `accepted` stands for is active from now on. Reports see it by
    /// its entry among the live ones.
    pub(crate) fn succeeded(self, accepted: Accepted, live: Registered) -> Active {
        self.endpoint.ejection.succeeded();
        Active {
            spent: self.settle(accepted, Instant::now()),
            end: End::Cut,
            live,
        }
    }

    /// The endpoint answered the request that `accepted` stands for with this status; the request is active from now on.
    pub(crate) fn answered(self, accepted: Accepted, status: u16) -> Exchange {
        self.port.statuses.count(status);
        let began = self.began;
        Exchange {
            spent: self.settle(accepted, began),
            end: End::Client,
        }
    }

    /// The request that `accepted` stands for is over before there was an answer, for this reason, which is no failure.
    pub(crate) fn abandoned(self, accepted: Accepted, why: End) {
        let began = self.began;
        self.settle(accepted, began).ended(why);
    }

    /// Tells the endpoint's average how long the answer took.
    pub(crate) fn observe(&self) {
        self.endpoint
            .answers
            .observe(self.began.elapsed(), clock::now());
    }

    /// What is spent counts from `since`: a connection lasts from when it is made, a request from when its endpoint was chosen.
    fn settle(mut self, mut accepted: Accepted, since: Instant) -> Spent {
        self.settled = true;
        accepted.settled = true;
        self.endpoint.connected.fetch_add(1, Relaxed);
        self.port.connected.fetch_add(1, Relaxed);
        let latency = self.began.elapsed();
        self.endpoint.connect_latency.record(micros(latency));
        Spent {
            port: Arc::clone(&self.port),
            endpoint: Arc::clone(&self.endpoint),
            since,
            moved: (0, 0),
            flushed: (0, 0),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.settled {
            self.endpoint.failures.fetch_add(1, Relaxed);
            self.port.retries.fetch_add(1, Relaxed);
            self.endpoint.leave(&self.port);
        }
    }
}

/// A place of a Service port and one of its endpoint, which are given back when this is dropped, and what went to and fro there.
#[derive(Debug)]
struct Spent {
    port: Arc<PortState>,
    endpoint: Arc<EndpointState>,
    since: Instant,
    /// Bytes given to the endpoint and to the client.
    moved: (u64, u64),
    /// Of these, what the shared counters have.
    flushed: (u64, u64),
}

impl Spent {
    /// See [`Meter::moved`].
    fn moved(&mut self, to_upstream: u64, to_downstream: u64) -> bool {
        self.moved = (to_upstream, to_downstream);
        let unflushed = (to_upstream - self.flushed.0).max(to_downstream - self.flushed.1);
        if unflushed >= FLUSH_BYTES {
            self.flush();
        }
        self.moved != self.flushed
    }

    /// Adds what the shared counters do not have yet.
    fn flush(&mut self) {
        let to = self.moved.0 - self.flushed.0;
        let from = self.moved.1 - self.flushed.1;
        self.flushed = self.moved;
        let adds = [
            (to, &self.port.bytes_to, &self.endpoint.bytes_to),
            (from, &self.port.bytes_from, &self.endpoint.bytes_from),
        ];
        for (bytes, of_port, of_endpoint) in adds.into_iter().filter(|(bytes, ..)| *bytes > 0) {
            of_port.fetch_add(bytes, Relaxed);
            of_endpoint.fetch_add(bytes, Relaxed);
        }
    }

    fn ended(&self, end: End) {
        self.port.ends.count(end);
        self.port.durations.record(micros(self.since.elapsed()));
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.endpoint.leave(&self.port);
        self.port.leave();
    }
}

/// A connection that is being relayed. Dropped: it is over.
#[derive(Debug)]
pub(crate) struct Active {
    spent: Spent,
    end: End,
    /// Its entry among the live connections; dropped once everything is counted.
    live: Registered,
}

impl Active {
    /// It is over, for this reason.
    pub(crate) fn ended(mut self, end: End) {
        self.end = end;
    }
}

impl Meter for Active {
    fn moved(&mut self, to_upstream: u64, to_downstream: u64) -> bool {
        self.live.moved(to_upstream, to_downstream);
        self.spent.moved(to_upstream, to_downstream)
    }

    fn flush(&mut self) {
        self.spent.flush();
    }

    fn half_closed(&mut self, by: Side) {
        self.live.half_closed(by);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.flush();
        let end = self.live.cut_because().unwrap_or(self.end);
        self.live.ended(end);
        self.spent.ended(end);
    }
}

/// A request whose answer is on its way to the client. Dropped: it is over, and unless it was [said](Self::ended) how, its client
/// gave up.
#[derive(Debug)]
pub(crate) struct Exchange {
    spent: Spent,
    end: End,
}

impl Exchange {
    pub(crate) const fn ends(&mut self, end: End) {
        self.end = end;
    }

    /// So many bytes more were given to the client, and `to_upstream` to the endpoint since the beginning. Returns all that were
    /// given to the endpoint and to the client.
    pub(crate) fn gave(&mut self, bytes: u64, to_upstream: u64) -> (u64, u64) {
        self.moved(to_upstream, self.spent.moved.1 + bytes);
        self.spent.moved
    }
}

impl Meter for Exchange {
    fn moved(&mut self, to_upstream: u64, to_downstream: u64) -> bool {
        self.spent.moved(to_upstream, to_downstream)
    }

    fn flush(&mut self) {
        self.spent.flush();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.flush();
        self.spent.ended(self.end);
    }
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What the data path counts beside Service ports and endpoints.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Connections given to another worker than the one that accepted them.
    pub(crate) handed_over: AtomicU64,
    /// Connections to an address that is no Frontend.
    pub(crate) unmatched: AtomicU64,
    /// Times that a worker paused accepting, for want of descriptors or at the limit of connections.
    pub(crate) pauses: AtomicU64,
    /// See [`crate::Counters`].
    pub(crate) flooded: AtomicU64,
    /// See [`crate::Counters`].
    pub(crate) idle_shed: AtomicU64,
    /// See [`crate::Counters`].
    pub(crate) flows_opened: AtomicU64,
    /// See [`crate::Counters`].
    pub(crate) flows_shed: AtomicU64,
    /// See [`crate::Counters`].
    pub(crate) flows_unopened: AtomicU64,
    /// See [`crate::Counters`].
    pub(crate) flows_expired: AtomicU64,
    /// See [`crate::Counters`].
    pub(crate) flows_refused: AtomicU64,
    /// See [`crate::Counters`].
    pub(crate) datagrams_to_upstream: AtomicU64,
    /// See [`crate::Counters`].
    pub(crate) datagrams_to_downstream: AtomicU64,
    /// See [`crate::Counters`].
    pub(crate) datagrams_dropped: AtomicU64,
}
