//! The live connections of a worker. Owns their entries, what reports read of them, and how many ended for which reason
//! (also of Services that are gone, whose own counters went with them); which are to be closed is decided by
//! [`crate::draining`].
//!
//! A connection takes its worker's lock when it begins and when it ends, and stores its bytes without one. Whoever reads
//! holds the lock for a few hundred entries at a time, so that a report of many thousand connections keeps no worker
//! waiting.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Deref,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Poll, Waker},
};

use portico_core::{
    balance::{End, Ends, PortState},
    snapshot::{PortView, Scope, ServicePortName, draining::Asked},
    time::Timestamp,
};
use tokio::{task::AbortHandle, time::Instant};

use super::{connect::Arrival, relay::Side};
use crate::clock;

/// Entries read under one hold of the lock.
const CHUNK: usize = 256;

/// Phases, as [`Live::phase`] has them.
const OPEN: u8 = 0;
const CLIENT_FINISHED: u8 = 1;
const ENDPOINT_FINISHED: u8 = 2;
const REQUESTS: u8 = 3;
const REQUEST: u8 = 4;

/// See [`dismiss_idle`].
const LEAST_IDLE_MS: u64 = 1000;

/// See [`Live::asks_nothing_since`].
const BUSY: u64 = u64::MAX;

/// An address without what only IPv6 sockets have: entries are many.
#[derive(Debug, Clone, Copy)]
struct Address(IpAddr, u16);

impl Address {
    fn of(addr: SocketAddr) -> Self {
        Self(addr.ip(), addr.port())
    }

    fn whole(self) -> SocketAddr {
        SocketAddr::new(self.0, self.1)
    }
}

/// How far an established connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// An endpoint is being connected to.
    Connecting,
    /// Both sides may send.
    Open,
    /// This side has finished sending.
    HalfClosed(Side),
    /// Every request in it goes to an endpoint of its own.
    Requests,
    /// It is one of these requests.
    Request,
}

/// What a connection got when it reached its endpoint.
#[derive(Debug)]
pub(crate) struct Reached {
    endpoint: Address,
    pub(crate) name: Arc<ServicePortName>,
    pub(crate) port: Arc<PortState>,
}

impl Reached {
    pub(crate) fn endpoint(&self) -> SocketAddr {
        self.endpoint.whole()
    }
}

/// A connection, as seen from outside.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: u64,
    pub(crate) since: Timestamp,
    client: Option<Address>,
    local: Address,
    scope: Scope,
    declared_port: u16,
    phase: AtomicU8,
    /// Place in [`End::ALL`] of why it was cut, plus 1; 0 while it was not.
    cut: AtomicU8,
    /// Its client is to come back on another connection.
    dismissed: AtomicBool,
    /// Since when its client asks nothing, in milliseconds of [`clock::ticks`]; [`BUSY`] while it does, or where that means nothing.
    asks_nothing_since: AtomicU64,
    to_endpoint: AtomicU64,
    to_client: AtomicU64,
    /// Since when what it needs is gone, in milliseconds; 0 while nothing is.
    gone_since: AtomicU64,
    reached: OnceLock<Reached>,
    task: OnceLock<AbortHandle>,
    waker: OnceLock<Waker>,
}

impl Live {
    /// It reached an endpoint of this Service port.
    pub(crate) fn reached(&self, endpoint: SocketAddr, port: &PortView) {
        // Said once: a connection has one endpoint. Not the view itself, which would keep all endpoints of its Snapshot.
        let _ = self.reached.set(Reached {
            endpoint: Address::of(endpoint),
            name: Arc::clone(&port.name),
            port: Arc::clone(&port.state),
        });
    }

    /// The endpoint, once there is one.
    pub(crate) fn endpoint(&self) -> Option<&Reached> {
        self.reached.get()
    }

    pub(crate) fn asked(&self) -> Asked {
        Asked {
            scope: self.scope,
            local: self.local.whole(),
            declared_port: self.declared_port,
        }
    }

    pub(crate) fn client(&self) -> Option<SocketAddr> {
        self.client.map(Address::whole)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Acquire) {
            REQUESTS => Phase::Requests,
            REQUEST => Phase::Request,
            _ if self.reached.get().is_none() => Phase::Connecting,
            CLIENT_FINISHED => Phase::HalfClosed(Side::Downstream),
            ENDPOINT_FINISHED => Phase::HalfClosed(Side::Upstream),
            _ => Phase::Open,
        }
    }

    /// It is not forwarded itself, but the requests in it; its task is woken by `waker`.
    pub(crate) fn serves_requests(&self, waker: Waker) {
        let _ = self.waker.set(waker);
        self.phase.store(REQUESTS, Release);
    }

    /// Tells its client to come back on another connection, after the requests that it has asked. Only of one that serves requests.
    pub(crate) fn dismiss(&self) {
        if !self.dismissed.swap(true, Relaxed) {
            self.waker.get().inspect(|waker| waker.wake_by_ref());
        }
    }

    /// Its client asks nothing since then; `None` while it does.
    pub(crate) fn rests(&self, since: Option<Instant>) {
        let since = since.map_or(BUSY, clock::ticks);
        self.asks_nothing_since.store(since, Relaxed);
    }

    /// Since when its client asks nothing, if it can be [dismissed](Self::dismiss) without harm.
    fn idle_since(&self) -> Option<u64> {
        let since = self.asks_nothing_since.load(Relaxed);
        let may_be_dismissed = self.phase() == Phase::Requests && !self.is_dismissed();
        (since != BUSY && may_be_dismissed).then_some(since)
    }

    pub(crate) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Relaxed)
    }

    /// It leads to one endpoint from now on.
    pub(crate) fn becomes_tunnel(&self, endpoint: SocketAddr, port: &PortView) {
        self.reached(endpoint, port);
        self.phase.store(OPEN, Relaxed);
    }

    /// So many bytes since the beginning. Only its own task stores them.
    pub(crate) fn moved(&self, to_endpoint: u64, to_client: u64) {
        self.to_endpoint.store(to_endpoint, Relaxed);
        self.to_client.store(to_client, Relaxed);
    }

    /// Bytes written to the endpoint and to the client.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.to_endpoint.load(Relaxed), self.to_client.load(Relaxed))
    }

    pub(crate) fn half_closed(&self, by: Side) {
        let phase = match by {
            Side::Downstream => CLIENT_FINISHED,
            Side::Upstream => ENDPOINT_FINISHED,
        };
        self.phase.store(phase, Relaxed);
    }

    /// Since when what it needs is gone: `now` if that is new.
    pub(crate) fn is_gone(&self, now: Timestamp) -> Timestamp {
        self.gone_since().unwrap_or_else(|| {
            self.gone_since.store(now.as_millis().max(1), Relaxed);
            now
        })
    }

    /// What it needs is there (again).
    pub(crate) fn is_there(&self) {
        self.gone_since.store(0, Relaxed);
    }

    pub(crate) fn gone_since(&self) -> Option<Timestamp> {
        let since = self.gone_since.load(Relaxed);
        (since != 0).then(|| Timestamp::from_millis(since))
    }

    /// The task that serves it, which is all that cutting needs: a dropped task resets both sides.
    pub(crate) fn can_be_cut_by(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    /// Ends it, for this reason; true the first time. A connection is reset on both sides; who polls a request finds it
    /// [cut](Self::cut_because).
    pub(crate) fn cut(&self, why: End) -> bool {
        let place = End::ALL.iter().position(|end| *end == why);
        let place = place.and_then(|place| u8::try_from(place + 1).ok());
        let is_first = self
            .cut
            .compare_exchange(0, place.unwrap_or(0), Relaxed, Relaxed)
            .is_ok();
        if is_first {
            self.task.get().inspect(|task| task.abort());
            self.waker.get().inspect(|waker| waker.wake_by_ref());
        }
        is_first
    }

    /// Why it was cut.
    pub(crate) fn cut_because(&self) -> Option<End> {
        let place = usize::from(self.cut.load(Relaxed)).checked_sub(1)?;
        End::ALL.get(place).copied()
    }

    /// What comes of `future`, unless this is cut before; without an entry nothing is.
    pub(crate) async fn unless_cut<F: Future>(
        live: Option<&Self>,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, End> {
        let Some(live) = live else {
            return Ok(future.await);
        };
        std::future::poll_fn(|cx| match live.cut_because() {
            Some(why) => Poll::Ready(Err(why)),
            None => future.as_mut().poll(cx).map(Ok),
        })
        .await
    }
}

/// Who wakes the task that asks.
pub(crate) async fn waker() -> Waker {
    std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await
}

/// A worker's entries.
#[derive(Debug)]
pub(crate) struct Registry {
    slab: Mutex<Slab>,
    ends: Ends,
}

#[derive(Debug, Default)]
struct Slab {
    entries: Vec<Option<Arc<Live>>>,
    free: Vec<usize>,
    next_id: u64,
    step: u64,
}

/// An entry's stay: it leaves with this.
#[derive(Debug)]
pub(crate) struct Registered {
    registry: Arc<Registry>,
    live: Arc<Live>,
    place: usize,
}

impl Registered {
    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// An entry for a request of this connection, which goes to `endpoint` and is polled by whom `waker` wakes.
    pub(crate) fn request(
        &self,
        arrival: &Arrival,
        (endpoint, port): (SocketAddr, &PortView),
        waker: Waker,
        now: Timestamp,
    ) -> Self {
        let request = self.registry.enter(arrival, now);
        request.phase.store(REQUEST, Relaxed);
        // Before it has its endpoint, without which nobody cuts it.
        let _ = request.waker.set(waker);
        request.reached(endpoint, port);
        request
    }

    /// It is over, for this reason.
    pub(crate) fn ended(&self, end: End) {
        self.registry.ends.count(end);
    }
}

impl Deref for Registered {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut slab = self.registry.lock();
        if let Some(entry) = slab.entries.get_mut(self.place) {
            *entry = None;
            slab.free.push(self.place);
        }
    }
}

impl Registry {
    /// Worker `index` gives every `count`th number, so that numbers are unique without being shared.
    pub(crate) fn of_workers(count: usize) -> Box<[Arc<Self>]> {
        let step = u64::try_from(count.max(1)).unwrap_or(1);
        let of_worker = |next_id| {
            Arc::new(Self {
                slab: Mutex::new(Slab {
                    next_id,
                    step,
                    ..Slab::default()
                }),
                ends: Ends::default(),
            })
        };
        (1..=step).map(of_worker).collect()
    }

    /// A new connection.
    pub(crate) fn enter(self: &Arc<Self>, arrival: &Arrival, now: Timestamp) -> Registered {
        let mut slab = self.lock();
        let id = slab.next_id;
        slab.next_id += slab.step;
        let live = Arc::new(Live {
            id,
            since: now,
            client: arrival.peer.map(|peer| Address(peer, arrival.peer_port)),
            local: Address::of(arrival.local),
            scope: arrival.scope,
            declared_port: arrival.declared_port,
            phase: AtomicU8::new(OPEN),
            cut: AtomicU8::new(0),
            dismissed: AtomicBool::new(false),
            asks_nothing_since: AtomicU64::new(BUSY),
            to_endpoint: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            gone_since: AtomicU64::new(0),
            reached: OnceLock::new(),
            task: OnceLock::new(),
            waker: OnceLock::new(),
        });
        let entry = Some(Arc::clone(&live));
        let place = if let Some(place) = slab.free.pop() {
            if let Some(free) = slab.entries.get_mut(place) {
                *free = entry;
            }
            place
        } else {
            slab.entries.push(entry);
            slab.entries.len() - 1
        };
        drop(slab);
        Registered {
            registry: Arc::clone(self),
            live,
            place,
        }
    }

    /// Shows every entry to `look`, without the lock.
    pub(crate) fn each(&self, mut look: impl FnMut(&Arc<Live>)) {
        let mut chunk = Vec::with_capacity(CHUNK);
        for start in (0..).step_by(CHUNK) {
            {
                let slab = self.lock();
                let Some(rest) = slab.entries.get(start..).filter(|rest| !rest.is_empty()) else {
                    return;
                };
                chunk.extend(rest.iter().take(CHUNK).flatten().cloned());
            }
            chunk.drain(..).for_each(|live| look(&live));
        }
    }

    /// Connections to endpoints that are over, by reason.
    pub(crate) const fn ends(&self) -> &Ends {
        &self.ends
    }

    fn lock(&self) -> MutexGuard<'_, Slab> {
        self.slab.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells clients that have asked nothing for a while to come back on another connection, so many of them at most, longest first:
/// how many. One that has just come, or got an answer, is about to ask.
pub(crate) fn dismiss_idle(registries: &[Arc<Registry>], most: usize) -> usize {
    let latest = clock::ticks(Instant::now()).saturating_sub(LEAST_IDLE_MS);
    let mut longest: Vec<(u64, Arc<Live>)> = Vec::with_capacity(2 * most);
    let keep = |longest: &mut Vec<(u64, Arc<Live>)>| {
        longest.sort_unstable_by_key(|(since, _)| *since);
        longest.truncate(most);
    };
    for registry in registries {
        registry.each(|live| {
            if let Some(since) = live.idle_since().filter(|since| *since <= latest) {
                if longest.len() >= 2 * most {
                    keep(&mut longest);
                }
                longest.push((since, Arc::clone(live)));
            }
        });
    }
    keep(&mut longest);
    for (_, live) in &longest {
        live.dismiss();
    }
    longest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(n: u16) -> Arrival {
        Arrival {
            scope: Scope::HOST,
            declared_port: 80,
            local: "127.96.0.7:80".parse().unwrap(),
            peer: Some("127.0.0.1".parse().unwrap()),
            peer_port: n,
        }
    }

    fn clients(registry: &Registry) -> Vec<u16> {
        let mut found = Vec::new();
        registry.each(|live| found.push(live.client().unwrap().port()));
        found
    }

    #[test]
    fn registry_entries_leave_and_their_places_are_used_again() {
        let registries = Registry::of_workers(2);
        let now = Timestamp::from_millis(5);
        let mut entries: Vec<_> = (0..600)
            .map(|n| registries[0].enter(&arrival(n), now))
            .collect();
        assert_eq!(clients(&registries[0]), (0..600).collect::<Vec<_>>());
        entries.retain(|live| live.client().unwrap().port() % 2 == 1);
        assert_eq!(clients(&registries[0]).len(), 300);
        entries.push(registries[0].enter(&arrival(1000), now));
        assert_eq!(registries[0].lock().entries.len(), 600);
        entries.clear();
        assert!(clients(&registries[0]).is_empty());
    }

    #[test]
    fn registry_numbers_of_two_workers_never_meet() {
        let registries = Registry::of_workers(2);
        let now = Timestamp::from_millis(0);
        let ids = [0, 1, 0, 1].map(|worker| registries[worker].enter(&arrival(0), now).id);
        assert_eq!(ids, [1, 2, 3, 4]);
    }

    #[test]
    fn live_is_small() {
        assert!(size_of::<Live>() <= 192, "{}", size_of::<Live>());
    }
}
