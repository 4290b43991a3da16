//! Choosing an endpoint. Owns immutable sets of endpoints, the tickets drawn over them, and the atomics that outlive
//! snapshots (counters, in-flight, ejection). Must not look anything up: it gets the set that the snapshot found.

mod cycle;
mod ewma;
mod header_faults;
mod limit;
mod line;
mod maglev;
mod outlier;
mod selector;
mod statuses;
mod unkept;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use crate::{
    health,
    http::retry::RetryBudget,
    object::{BalancePolicy, Weight},
    observe::{histogram::AtomicHistogram, window},
    time::Timestamp,
};
pub use ewma::PeakEwma;
pub use header_faults::{HeaderFault, HeaderFaults};
pub use limit::{Limit, Unpicked};
use limit::{claim, leaves_room};
pub use line::{Line, Place, Turn};
pub use selector::Key;
use selector::{Draw, Selector};
pub use statuses::Statuses;
pub use unkept::{Unkept, UnkeptCounts};

/// Counters of one Service port, carried across snapshots by its name.
#[derive(Debug, Default)]
pub struct PortState {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Attempts that failed, the last one of a rejected connection included: picks are `accepted + retries -
    /// rejected`.
    pub retries: AtomicU64,
    /// Accepted connections reset because nothing could serve them, or policy forbade it.
    pub rejected: AtomicU64,
    /// Connections that have a place: they are being relayed, or on their way to an endpoint, or wait for one. Each took it
    /// by [`PortState::enter`] and gives it back by [`PortState::leave`].
    pub active: AtomicU64,
    /// The most of them.
    pub limit: Limit,
    /// Who waits for one of these places.
    pub entrance: Line,
    /// Who waits for a place at any endpoint.
    pub line: Line,
    /// Connections that reached an endpoint.
    pub connected: AtomicU64,
    /// Of the rejected: there was no usable endpoint anywhere. Where a listener refuses, the kernel answers and
    /// nothing is counted.
    pub refused_no_endpoints: AtomicU64,
    /// Of the rejected: a traffic policy allows no endpoint here, which Kubernetes drops.
    pub dropped_policy: AtomicU64,
    /// Of the rejected: the source is outside `loadBalancerSourceRanges`, which Kubernetes drops.
    pub dropped_source_range: AtomicU64,
    /// Of the rejected: a trusted front end that sent no usable PROXY header.
    pub header_faults: HeaderFaults,
    /// Retries of requests in progress, of HTTP ports.
    pub retry_budget: RetryBudget,
    /// Of the rejected: they waited in vain for a place that a limit kept back.
    pub rejected_full: AtomicU64,
    /// Connections and flows that went to an endpoint from our own address though the client's was to be kept.
    pub source_not_kept: UnkeptCounts,
    /// Attempts, also at endpoints that have left since: `accepted + retries - rejected`, counted on its own.
    pub picked: AtomicU64,
    /// Answers to requests of an HTTP port, ours too.
    pub statuses: Statuses,
    /// How relayed connections ended.
    pub ends: Ends,
    /// Bytes written to endpoints.
    pub bytes_to: AtomicU64,
    /// Bytes written to clients.
    pub bytes_from: AtomicU64,
    /// Datagrams sent to endpoints.
    pub datagrams_to: AtomicU64,
    /// Datagrams sent to clients.
    pub datagrams_from: AtomicU64,
    /// Datagrams that were dropped: no endpoint, no descriptor, or a full buffer.
    pub datagrams_dropped: AtomicU64,
    /// How long relayed connections lasted, in microseconds.
    pub durations: AtomicHistogram,
    /// What its Service says, or said last.
    pub drain_timeout: DrainTimeout,
}

/// How long connections may last whose endpoint or Service port is gone; without limit unless it is told.
#[derive(Debug, Default)]
pub struct DrainTimeout(AtomicU64);

impl DrainTimeout {
    /// From now on.
    pub fn set(&self, timeout: Option<Duration>) {
        let ms = timeout.and_then(|timeout| u64::try_from(timeout.as_millis()).ok());
        self.0
            .store(ms.map_or(0, |ms| ms.saturating_add(1)), Relaxed);
    }

    /// `None` is no limit.
    pub fn get(&self) -> Option<Duration> {
        self.0
            .load(Relaxed)
            .checked_sub(1)
            .map(Duration::from_millis)
    }
}

impl PortState {
    /// What its counters do not explain: attempts that are neither a connection nor a retry. Zero, but for what
    /// waits or is being counted at this moment.
    pub fn residual(&self) -> i64 {
        let count = |counter: &AtomicU64| i64::try_from(counter.load(Relaxed)).unwrap_or(i64::MAX);
        count(&self.accepted) + count(&self.retries) - count(&self.rejected) - count(&self.picked)
    }

    /// What windows over the port as a whole are made of, read now: also of endpoints that have left.
    pub fn totals(&self) -> window::Totals {
        let picks = self.picked.load(Relaxed);
        window::Totals {
            turns: picks,
            picks,
            connections: self.accepted.load(Relaxed),
            failures: self.rejected.load(Relaxed),
            bytes_to: self.bytes_to.load(Relaxed),
            bytes_from: self.bytes_from.load(Relaxed),
        }
    }
}

/// Why a relayed connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides finished.
    Finished,
    /// The client reset it, or could not be written to.
    Client,
    /// The endpoint reset it, or could not be written to.
    Endpoint,
    /// Nothing moved for too long.
    Idle,
    /// The program ended before it did.
    Cut,
    /// Its endpoint was taken away, and the time that its Service gives such connections is over.
    EndpointGone,
    /// The address or port that its client asked for was taken away, and the time is over.
    ServiceGone,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Finished,
        Self::Client,
        Self::Endpoint,
        Self::Idle,
        Self::Cut,
        Self::EndpointGone,
        Self::ServiceGone,
    ];

    /// As it stands in labels and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Client => "client_reset",
            Self::Endpoint => "endpoint_reset",
            Self::Idle => "idle",
            Self::Cut => "cut",
            Self::EndpointGone => "endpoint_gone",
            Self::ServiceGone => "service_gone",
        }
    }
}

/// Connections that are over, by reason.
#[derive(Debug, Default)]
pub struct Ends([AtomicU64; End::ALL.len()]);

impl Ends {
    /// Counts one.
    pub fn count(&self, end: End) {
        let found = End::ALL.into_iter().zip(&self.0);
        if let Some((_, count)) = found.into_iter().find(|(reason, _)| *reason == end) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// How many by this reason.
    pub fn of(&self, end: End) -> u64 {
        let found = self.load().find(|(reason, _)| *reason == end);
        found.map_or(0, |(_, count)| count)
    }

    /// How many by each reason.
    pub fn load(&self) -> impl Iterator<Item = (End, u64)> + '_ {
        let counts = self.0.iter().map(|count| count.load(Relaxed));
        End::ALL.into_iter().zip(counts)
    }
}

/// Live state of one endpoint behind one Service port, carried across snapshots by identity.
///
/// How even round robin is reads from `picks - affine`: a pick by session affinity is a pick of its endpoint, but
/// draws no ticket, so that it neither takes another client's turn nor gives one away.
#[derive(Debug, Default)]
pub struct EndpointState {
    /// Times that it was chosen.
    pub picks: AtomicU64,
    /// Of these, the ones by session affinity.
    pub affine: AtomicU64,
    /// Attempts that reached it.
    pub connected: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Of these: it refused.
    pub refused: AtomicU64,
    /// Of these: connecting timed out.
    pub timed_out: AtomicU64,
    /// Bytes written to it.
    pub bytes_to: AtomicU64,
    /// Bytes written to clients for it.
    pub bytes_from: AtomicU64,
    /// How long connecting to it took, in microseconds.
    pub connect_latency: AtomicHistogram,
    /// Connections in progress, and those that are being made: a pick takes a place, [`EndpointState::leave`] gives it back.
    pub active: AtomicU64,
    /// Who waits for a place here and nowhere else, before [`PortState::line`]: clients of session affinity.
    pub line: Line,
    /// Passive ejection.
    pub ejection: health::Ejection,
    /// How long it takes to answer; of HTTP ports only.
    pub answers: PeakEwma,
}

impl EndpointState {
    /// What windows are made of, read now.
    pub fn totals(&self) -> window::Totals {
        let picks = self.picks.load(Relaxed);
        window::Totals {
            turns: picks.saturating_sub(self.affine.load(Relaxed)),
            picks,
            connections: self.connected.load(Relaxed),
            failures: self.failures.load(Relaxed),
            bytes_to: self.bytes_to.load(Relaxed),
            bytes_from: self.bytes_from.load(Relaxed),
        }
    }

    /// Whoever was sent here by a pick is gone, and the place is for those who wait for it, else for those in
    /// [`PortState::line`].
    pub fn leave(&self, port: &PortState) {
        self.active.fetch_sub(1, SeqCst);
        if self.line.is_empty() {
            port.line.call();
        } else {
            self.line.call();
        }
    }
}

/// One endpoint of a set.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Address and port to connect to.
    pub addr: SocketAddr,
    /// Its live state.
    pub state: Arc<EndpointState>,
}

/// The ticket counter of a set: shared by all workers, kept while the set stays equal.
#[derive(Debug, Default)]
pub struct Tickets(AtomicU64);

impl Tickets {
    /// A counter that goes on where `previous` stands, so that a change of the set does not restart at its head.
    pub fn after(previous: &Self) -> Self {
        Self(AtomicU64::new(previous.0.load(Relaxed)))
    }

    fn draw(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }
}

/// How a set is balanced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balance {
    /// The policy.
    pub policy: BalancePolicy,
    /// Weights of the endpoints in their order; empty when all have the default.
    pub weights: Vec<Weight>,
    /// Most connections of an endpoint at a time.
    pub limit: Option<NonZeroU32>,
}

/// An ordered set of usable endpoints and its tickets: one epoch of round robin.
#[derive(Debug)]
pub struct EndpointSet {
    endpoints: Box<[Endpoint]>,
    tickets: Tickets,
    selector: Selector,
    balance: Balance,
    /// Some have weight 0 and some have more: the former are passed over.
    drains: bool,
    /// What its endpoints had counted when it was made.
    first: Box<[window::Totals]>,
}

impl EndpointSet {
    /// A set in plain round robin whose first ticket follows `previous`' last one.
    pub fn new(endpoints: Vec<Endpoint>, previous: Option<&Self>) -> Self {
        Self::balanced(endpoints, Balance::default(), previous)
    }

    /// A set balanced in this way. Its first ticket follows `previous`' last one.
    pub fn balanced(endpoints: Vec<Endpoint>, balance: Balance, previous: Option<&Self>) -> Self {
        let tickets = previous
            .map(|set| Tickets::after(&set.tickets))
            .unwrap_or_default();
        let is_zero = |weight: &&Weight| weight.get() == 0;
        let zeroes = balance.weights.iter().filter(is_zero).count();
        Self {
            selector: Selector::new(&endpoints, &balance),
            first: endpoints
                .iter()
                .map(|endpoint| endpoint.state.totals())
                .collect(),
            endpoints: endpoints.into_boxed_slice(),
            tickets,
            drains: zeroes > 0 && zeroes < balance.weights.len(),
            balance,
        }
    }

    /// The endpoints in order.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// What each endpoint had counted when the set was made, in their order: with it begins this epoch.
    pub fn first_totals(&self) -> &[window::Totals] {
        &self.first
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// How it is balanced.
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// The weight of the endpoint at `index`.
    pub fn weight(&self, index: usize) -> Weight {
        self.balance.weights.get(index).copied().unwrap_or_default()
    }

    /// The length of the weighted cycle if the weights had to be scaled to fit one: shares are approximate then.
    pub fn scaled_to(&self) -> Option<usize> {
        self.selector.scaled_to()
    }

    /// [`Self::pick_for`] a client that is not known.
    pub fn pick(&self, tried: &[SocketAddr], now: Timestamp) -> Option<&Endpoint> {
        self.pick_for(None, tried, now).ok()
    }

    /// The endpoint of the next draw. What a draw is, the policy says: round robin takes the next ticket's place in
    /// the order (or in the weighted cycle), random and least request hash the ticket, and maglev hashes `client`.
    /// An endpoint that is ejected, full or in `tried` costs its draw, and another is made: its neighbour never gets its
    /// share. When all that are not in `tried` are ejected, ejection is ignored, for a guess is better than a refusal; not
    /// so when others are but full, for their places become free. An endpoint of weight 0 is never chosen while the set has
    /// one with more.
    ///
    /// The endpoint has a connection more from now on, until [`EndpointState::leave`].
    ///
    /// # Errors
    /// Every endpoint is in `tried`, or all that may be used are full.
    pub fn pick_for(
        &self,
        client: Option<IpAddr>,
        tried: &[SocketAddr],
        now: Timestamp,
    ) -> Result<&Endpoint, Unpicked> {
        self.pick_by(client.map(Key::Client), tried, now)
    }

    /// The same for whoever has this key: a request's header instead of its client's address.
    ///
    /// # Errors
    /// As of [`Self::pick_for`].
    pub fn pick_by(
        &self,
        key: Option<Key>,
        tried: &[SocketAddr],
        now: Timestamp,
    ) -> Result<&Endpoint, Unpicked> {
        let draw = Draw { key, now };
        let is_left = |endpoint: &Endpoint| !tried.contains(&endpoint.addr);
        let is_sound =
            |endpoint: &Endpoint| is_left(endpoint) && !endpoint.state.ejection.is_ejected(now);
        match self.pick_of(draw, is_sound) {
            Err(Unpicked::Unusable) => self.pick_of(draw, is_left),
            found => found,
        }
    }

    fn pick_of(
        &self,
        draw: Draw,
        usable: impl Fn(&Endpoint) -> bool,
    ) -> Result<&Endpoint, Unpicked> {
        while let Some(endpoint) = self.draw(draw, |endpoint| {
            usable(endpoint) && self.has_place(endpoint)
        }) {
            if self.take_place(endpoint) {
                return Ok(endpoint);
            }
            // Its last place was taken since.
        }
        if self.open().any(usable) {
            Err(Unpicked::Full)
        } else {
            Err(Unpicked::Unusable)
        }
    }

    /// The endpoint at `addr` for a client that session affinity sends there. Counts as a pick, but draws no ticket.
    ///
    /// # Errors
    /// It may not be used any more (it left the set, is drained, in `tried` or ejected), or is full, or others wait for it
    /// whose turn comes first.
    pub fn pick_affine(
        &self,
        addr: SocketAddr,
        tried: &[SocketAddr],
        now: Timestamp,
        turn: Turn<'_>,
    ) -> Result<&Endpoint, Unpicked> {
        let endpoint = self
            .open()
            .find(|endpoint| endpoint.addr == addr)
            .filter(|it| !tried.contains(&addr) && !it.state.ejection.is_ejected(now))
            .ok_or(Unpicked::Unusable)?;
        let is_in_turn = self.balance.limit.is_none() || turn.is_before(&endpoint.state.line);
        if !(is_in_turn && self.take_place(endpoint)) {
            return Err(Unpicked::Awaited(Arc::clone(&endpoint.state)));
        }
        endpoint.state.affine.fetch_add(1, Relaxed);
        Ok(endpoint)
    }

    /// Whether a pick may find a place.
    pub fn has_room(&self, now: Timestamp) -> bool {
        let is_sound = |endpoint: &Endpoint| !endpoint.state.ejection.is_ejected(now);
        let is_any_sound = self.open().any(is_sound);
        self.open()
            .any(|endpoint| self.has_place(endpoint) && (is_sound(endpoint) || !is_any_sound))
    }

    /// Whether it has a place for those to whom any will do.
    fn has_place(&self, endpoint: &Endpoint) -> bool {
        let (limit, state) = (self.balance.limit, &endpoint.state);
        limit.is_none() || (state.line.is_empty() && leaves_room(limit, state.active.load(SeqCst)))
    }

    fn take_place(&self, endpoint: &Endpoint) -> bool {
        let is_taken = claim(&endpoint.state.active, self.balance.limit);
        if is_taken {
            endpoint.state.picks.fetch_add(1, Relaxed);
        }
        is_taken
    }

    /// Those that may be chosen at all.
    fn open(&self) -> impl Iterator<Item = &Endpoint> {
        let slots = self.endpoints.iter().enumerate();
        slots
            .filter(|(slot, _)| self.is_open(*slot))
            .map(|(_, endpoint)| endpoint)
    }

    fn is_open(&self, slot: usize) -> bool {
        !self.drains || self.weight(slot).get() > 0
    }

    fn draw(&self, draw: Draw, usable: impl Fn(&Endpoint) -> bool) -> Option<&Endpoint> {
        match &self.selector {
            Selector::RoundRobin => self.turn(usable),
            selector => {
                let at = |slot: usize| {
                    let endpoint = self.endpoints.get(slot)?;
                    (self.is_open(slot) && usable(endpoint)).then_some(endpoint)
                };
                let last = (0..self.endpoints.len()).find_map(at)?;
                let mut attempts = 0..selector.bound(self.endpoints.len());
                let found =
                    attempts.find_map(|n| selector.draw(draw, (&self.tickets, n), at, self));
                Some(found.unwrap_or(last))
            }
        }
    }

    /// Plain round robin, on its own because it is what nearly every connection takes.
    fn turn(&self, usable: impl Fn(&Endpoint) -> bool) -> Option<&Endpoint> {
        if !self.endpoints.iter().any(&usable) {
            return None;
        }
        // A draw fails only on unusable endpoints or when other workers take the tickets between; the bound is for
        // the case that the last usable endpoint was ejected after the check above.
        for _ in 0..(self.endpoints.len() * 8 + 64) {
            let slot = self.nth(self.tickets.draw());
            if let Some(endpoint) = self.endpoints.get(slot).filter(|endpoint| usable(endpoint)) {
                return Some(endpoint);
            }
        }
        self.endpoints.iter().find(|endpoint| usable(endpoint))
    }

    fn nth(&self, ticket: u64) -> usize {
        usize::try_from(ticket % self.endpoints.len() as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
