//! UDP flows: which client's datagrams go to which endpoint. Owns the table and its rules; has no socket and no clock.
//! What happens goes in (a datagram, an answer, a refusal, time), what to do comes out (send, open, close, drop), and
//! [`FlowTable::deadline`] says when to call again.
//!
//! The rules:
//! - A flow is one client's address and port, the address that it asked, and the socket that heard it. It stays on its
//!   endpoint until it has been idle for [`IDLE`], or for [`ANSWERED`] once a port 53 has answered.
//! - The table is bounded. For a new flow above the bound, the one used longest ago is shed.
//! - An endpoint that does not serve any more, or that policy forbids now, loses its flow at the next datagram; a client
//!   that is not admitted any more loses it altogether.
//! - An endpoint that refuses (ICMP port unreachable) loses it at once, and it counts as a failed connection; the next
//!   datagram goes to another one. A flow that as many endpoints as allowed have refused in a row begins anew.
//! - A table that drains begins no flow, and those that it has end after [`DRAINED`].

mod account;
mod order;
pub mod routes;
mod words;

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use crate::{snapshot::Generation, time::Timestamp};
use account::Account;
use order::{Links, Order};
use routes::Routes;
pub use words::{Dropped, FlowCounts, FlowId, FlowKey, Step, Way};

/// Time without a datagram in either direction after which a flow ends.
pub const IDLE: Duration = Duration::from_mins(1);
/// The same once an endpoint on port 53 has answered: a resolver's question is over then.
pub const ANSWERED: Duration = Duration::from_secs(10);
/// The same once the table drains.
pub const DRAINED: Duration = Duration::from_secs(1);
/// The port whose answers end a conversation.
const DNS_PORT: u16 = 53;

/// Flows with equal time-outs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Answered,
}

#[derive(Debug)]
struct Flow {
    key: FlowKey,
    account: Account,
    /// Endpoints that refused since one answered.
    tried: Vec<SocketAddr>,
    /// The generation in which its endpoint was last found to serve.
    checked: Generation,
    used: Timestamp,
    phase: Phase,
}

#[derive(Debug, Default)]
struct Slot {
    turn: u32,
    flow: Option<Flow>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct FlowTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashMap<FlowKey, u32>,
    links: Links,
    open: Order,
    answered: Order,
    closed: Vec<FlowId>,
    bound: usize,
    max_attempts: usize,
    is_draining: bool,
    now: Timestamp,
    counts: FlowCounts,
}

impl FlowTable {
    /// A table for at most `bound` flows, each tried at `max_attempts` endpoints in a row; both at least 1.
    pub fn new(bound: usize, max_attempts: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            links: Links::default(),
            open: Order::default(),
            answered: Order::default(),
            closed: Vec::new(),
            bound: bound.max(1),
            max_attempts: max_attempts.max(1),
            is_draining: false,
            now: Timestamp::default(),
            counts: FlowCounts::default(),
        }
    }

    /// Number of flows.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Sums since the start.
    pub fn counts(&self) -> FlowCounts {
        self.counts
    }

    /// Changes the bound (at least 1) and sheds what is above it.
    pub fn set_bound(&mut self, bound: usize) {
        self.bound = bound.max(1);
        while self.len() > self.bound && self.shed() {}
    }

    /// When [`Self::tick`] has something to do next; `None` without flows.
    pub fn deadline(&self) -> Option<Timestamp> {
        [&self.open, &self.answered]
            .into_iter()
            .filter_map(|order| self.flow(order.oldest()?))
            .map(|flow| self.end_of(flow))
            .min()
    }

    /// A flow whose socket is to be closed. To be asked after every other call, before its result is acted on, until
    /// there is none.
    pub fn closed(&mut self) -> Option<FlowId> {
        self.closed.pop()
    }

    /// A datagram came from a client.
    pub fn datagram(&mut self, key: FlowKey, now: Timestamp, routes: &impl Routes) -> Step {
        let now = self.advance(now);
        let step = self.route(key, now, routes);
        match step {
            Step::Drop(Dropped::Unmatched) => self.counts.unmatched += 1,
            Step::Drop(Dropped::NoEndpoint) => self.counts.no_endpoint += 1,
            Step::Drop(Dropped::Policy | Dropped::SourceRange) => self.counts.forbidden += 1,
            Step::Drop(Dropped::Draining) | Step::Forward(_) | Step::Open(..) => {}
        }
        step
    }

    /// Whose answers those of flow `id` are; `None` if that flow is over.
    pub fn key(&self, id: FlowId) -> Option<FlowKey> {
        self.flow_of(id).map(|flow| flow.key)
    }

    /// Datagrams of flow `id` were sent, `bytes` in all; what is over counts nothing.
    pub fn moved(&self, id: FlowId, way: Way, datagrams: u64, bytes: u64) {
        if let Some(flow) = self.flow_of(id) {
            flow.account.moved(way, datagrams, bytes);
        }
    }

    /// Datagrams of flow `id` were dropped for want of room.
    pub fn lost(&self, id: FlowId, datagrams: u64) {
        if let Some(flow) = self.flow_of(id) {
            flow.account.lost(datagrams);
        }
    }

    fn flow_of(&self, id: FlowId) -> Option<&Flow> {
        let slot = self.slots.get(usize::try_from(id.slot).ok()?)?;
        slot.flow.as_ref().filter(|_| slot.turn == id.turn)
    }

    /// The endpoint of flow `id` answered. `false` if that flow is over: the answer is nobody's.
    pub fn answer(&mut self, id: FlowId, now: Timestamp) -> bool {
        let now = self.advance(now);
        let Some(flow) = self.current(id) else {
            return false;
        };
        flow.account.answered();
        flow.tried.clear();
        let mut endpoint = flow.account.endpoint().into_iter();
        let ends_talk = endpoint.any(|endpoint| endpoint.addr.port() == DNS_PORT);
        if ends_talk && flow.phase == Phase::Open {
            flow.phase = Phase::Answered;
            self.open.remove(&mut self.links, id.slot);
            self.answered.push(&mut self.links, id.slot);
        }
        self.touch(id.slot, now);
        true
    }

    /// The endpoint of flow `id` refused (ECONNREFUSED on its socket, udp(7)). The socket is closed; the next datagram
    /// goes to another endpoint.
    pub fn refused(&mut self, id: FlowId, now: Timestamp, routes: &impl Routes) {
        let now = self.advance(now);
        let Some(flow) = self.current(id) else {
            return;
        };
        if let Some(endpoint) = flow.account.refused(now) {
            routes.forget(&flow.key, endpoint.addr);
            flow.tried.push(endpoint.addr);
            self.counts.refused += 1;
            self.close(id.slot);
        }
    }

    /// No socket could be opened for flow `id`: it ends.
    pub fn unopened(&mut self, id: FlowId) {
        if let Some(flow) = self.current(id) {
            flow.account.unopened();
            self.remove(id.slot);
        }
    }

    /// Sheds the flow used longest ago, for want of anything that flows need. `false` if there is none.
    pub fn shed(&mut self) -> bool {
        let heads = [self.open.oldest(), self.answered.oldest()];
        let oldest = heads
            .into_iter()
            .flatten()
            .filter_map(|slot| Some((self.flow(slot)?.used, slot)))
            .min();
        let Some((_, slot)) = oldest else {
            return false;
        };
        self.counts.shed += 1;
        self.remove(slot);
        true
    }

    /// Ends what has been idle for too long.
    pub fn tick(&mut self, now: Timestamp) {
        let now = self.advance(now);
        loop {
            let heads = [self.open.oldest(), self.answered.oldest()];
            let due = heads.into_iter().flatten().find(|slot| {
                let flow = self.flow(*slot);
                flow.is_some_and(|flow| self.end_of(flow) <= now)
            });
            let Some(slot) = due else {
                return;
            };
            self.counts.expired += 1;
            self.remove(slot);
        }
    }

    /// From now on no flow begins, and those that there are end once idle for [`DRAINED`].
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// The sockets that have flows.
    pub fn sockets(&self) -> BTreeSet<u64> {
        self.by_key.keys().map(|key| key.socket).collect()
    }

    /// Ends the flows of a socket that is closed.
    pub fn close_socket(&mut self, socket: u64) {
        self.end(|key, _| key.socket == socket);
    }

    /// Ends the flows of a socket whose address is not their Service port's any more. To be called for every new
    /// generation; endpoints that do not serve wait for the next datagram.
    pub fn sweep(&mut self, socket: u64, routes: &impl Routes) {
        self.end(|key, account| {
            key.socket == socket && !routes.port(key).is_some_and(|port| account.is_of(&port))
        });
    }

    fn end(&mut self, is_over: impl Fn(&FlowKey, &Account) -> bool) {
        let mut over: Vec<u32> = self
            .by_key
            .iter()
            .filter(|(key, slot)| {
                self.flow(**slot)
                    .is_some_and(|flow| is_over(key, &flow.account))
            })
            .map(|(_, slot)| *slot)
            .collect();
        over.sort_unstable();
        for slot in over {
            self.remove(slot);
        }
    }

    fn route(&mut self, key: FlowKey, now: Timestamp, routes: &impl Routes) -> Step {
        let Some(&slot) = self.by_key.get(&key) else {
            return self.begin(key, now, routes);
        };
        self.touch(slot, now);
        let Some(flow) = self.flow_mut(slot) else {
            debug_assert!(false, "a key without a flow");
            return Step::Drop(Dropped::Unmatched);
        };
        let mut has_lost = false;
        if flow.checked != routes.generation() {
            let is_its_own = routes
                .port(&key)
                .is_some_and(|port| flow.account.is_of(&port));
            if !is_its_own || !routes.admits(&key) {
                self.remove(slot);
                return self.begin(key, now, routes);
            }
            flow.checked = routes.generation();
            has_lost = flow
                .account
                .endpoint()
                .is_some_and(|endpoint| !routes.serves(&key, endpoint.addr));
        }
        flow.account.aged(now);
        if has_lost {
            flow.account.renew();
            flow.tried.clear();
            self.counts.lost += 1;
            self.close(slot);
        }
        self.forward(slot, now, routes)
    }

    /// The endpoint that a flow has, or another one.
    fn forward(&mut self, slot: u32, now: Timestamp, routes: &impl Routes) -> Step {
        let max_attempts = self.max_attempts;
        let Some(Slot {
            turn,
            flow: Some(flow),
        }) = slot_mut(&mut self.slots, slot)
        else {
            return Step::Drop(Dropped::Unmatched);
        };
        let id = FlowId { slot, turn: *turn };
        if flow.account.endpoint().is_some() {
            return Step::Forward(id);
        }
        let (key, was_refused) = (flow.key, !flow.tried.is_empty());
        let why = match flow.place(now, routes, max_attempts) {
            Ok(addr) => return Step::Open(id, addr),
            Err(why) => why,
        };
        self.remove(slot);
        if was_refused {
            // All were tried: from the start, for one may be back.
            return self.begin(key, now, routes);
        }
        Step::Drop(why)
    }

    fn begin(&mut self, key: FlowKey, now: Timestamp, routes: &impl Routes) -> Step {
        if self.is_draining {
            return Step::Drop(Dropped::Draining);
        }
        let Some(port) = routes.port(&key) else {
            return Step::Drop(Dropped::Unmatched);
        };
        let mut flow = Flow {
            key,
            account: Account::accept(port),
            tried: Vec::new(),
            checked: routes.generation(),
            used: now,
            phase: Phase::Open,
        };
        // Before another flow has to make room.
        let addr = match flow.place(now, routes, self.max_attempts) {
            Ok(addr) => addr,
            Err(why) => return Step::Drop(why),
        };
        while self.len() >= self.bound && self.shed() {}
        self.counts.opened += 1;
        Step::Open(self.insert(flow), addr)
    }

    fn insert(&mut self, flow: Flow) -> FlowId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.by_key.insert(flow.key, slot);
        self.open.push(&mut self.links, slot);
        let mut turn = 0;
        if let Some(place) = slot_mut(&mut self.slots, slot) {
            turn = place.turn;
            place.flow = Some(flow);
        }
        FlowId { slot, turn }
    }

    fn remove(&mut self, slot: u32) {
        let Some(flow) = slot_mut(&mut self.slots, slot).and_then(|place| place.flow.take()) else {
            return;
        };
        self.by_key.remove(&flow.key);
        match flow.phase {
            Phase::Open => self.open.remove(&mut self.links, slot),
            Phase::Answered => self.answered.remove(&mut self.links, slot),
        }
        self.close(slot);
        self.free.push(slot);
    }

    /// Ends what has the slot now. One that has no socket (its endpoint refused) is closed twice, which is harmless.
    fn close(&mut self, slot: u32) {
        if let Some(place) = slot_mut(&mut self.slots, slot) {
            self.closed.push(FlowId {
                slot,
                turn: place.turn,
            });
            place.turn = place.turn.wrapping_add(1);
        }
    }

    fn touch(&mut self, slot: u32, now: Timestamp) {
        let Some(flow) = self.flow_mut(slot) else {
            return;
        };
        flow.used = now;
        match flow.phase {
            Phase::Open => self.open.touch(&mut self.links, slot),
            Phase::Answered => self.answered.touch(&mut self.links, slot),
        }
    }

    /// When a flow ends if nothing moves.
    fn end_of(&self, flow: &Flow) -> Timestamp {
        flow.used.after(match flow.phase {
            _ if self.is_draining => DRAINED,
            Phase::Open => IDLE,
            Phase::Answered => ANSWERED,
        })
    }

    /// Time that never goes back, whatever the caller's clock does.
    fn advance(&mut self, now: Timestamp) -> Timestamp {
        self.now = self.now.max(now);
        self.now
    }

    fn current(&mut self, id: FlowId) -> Option<&mut Flow> {
        let slot = slot_mut(&mut self.slots, id.slot)?;
        slot.flow.as_mut().filter(|_| slot.turn == id.turn)
    }

    fn flow(&self, slot: u32) -> Option<&Flow> {
        self.slots.get(usize::try_from(slot).ok()?)?.flow.as_ref()
    }

    fn flow_mut(&mut self, slot: u32) -> Option<&mut Flow> {
        slot_mut(&mut self.slots, slot)?.flow.as_mut()
    }
}

impl Flow {
    /// Draws tickets until an endpoint may be used. What keeps it from that is counted, unless it was tried: then the
    /// failed attempts say so.
    fn place(
        &mut self,
        now: Timestamp,
        routes: &impl Routes,
        max_attempts: usize,
    ) -> Result<SocketAddr, Dropped> {
        while self.tried.len() < max_attempts {
            let picked = routes
                .pick(&self.key, &self.tried, now)
                .inspect_err(|why| self.account.turned_away(*why, &self.tried))?;
            let addr = picked.endpoint.addr;
            if !picked.leads_back {
                self.account.place(picked.endpoint, now);
                return Ok(addr);
            }
            self.account.failed(&picked.endpoint, Some(now));
            routes.forget(&self.key, addr);
            self.tried.push(addr);
        }
        Err(Dropped::NoEndpoint)
    }
}

fn slot_mut(slots: &mut [Slot], slot: u32) -> Option<&mut Slot> {
    slots.get_mut(usize::try_from(slot).ok()?)
}

#[cfg(test)]
mod tests;
