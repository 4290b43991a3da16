//! From a client's connection or request to a connection with an endpoint. Owns the choice, the attempts and their account; must not read
//! a byte of the client, so that every attempt starts from the same place. A PROXY header of a trusted front end was read
//! before, and what it says is the arrival's source.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use http::{HeaderMap, HeaderValue};
use portico_core::{
    balance::{Endpoint, EndpointSet, EndpointState, Key, PortState, Turn, Unpicked},
    object::{BalancePolicy, Protocol},
    proxy_protocol::Header,
    snapshot::{HealthCheck, PortView, Scope, Snapshot, Verdict, draining::Asked},
    time::Timestamp,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    account::{Accepted, Attempt},
    dial::{DialError, Keeping, dial},
    proxy_protocol,
    waiting::{Looked, in_turn},
};
use crate::{affinity::Sticky, clock, net, worker::Shared};

/// Where a connection came in, as far as a Frontend is found by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Where its listener lives.
    pub(crate) scope: Scope,
    /// The port its listener was declared for.
    pub(crate) declared_port: u16,
    /// Its own address on our side.
    pub(crate) local: SocketAddr,
    /// Its source, when the kernel said so.
    pub(crate) peer: Option<IpAddr>,
    /// The port of its source; 0 when the kernel did not say.
    pub(crate) peer_port: u16,
}

impl Arrival {
    /// What it asked for.
    pub(crate) const fn asked(&self) -> Asked {
        Asked {
            scope: self.scope,
            local: self.local,
            declared_port: self.declared_port,
        }
    }
}

/// Why a connection reached no endpoint. The client is reset, unless something else is to be done first.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// Its local address is no Frontend.
    Unmatched,
    /// It is a health check, to be answered by ourselves.
    HealthCheck(Arc<HealthCheck>),
    /// Its source is a trusted front end of this Service port, which says first whose connection it is.
    Unheaded(Arc<PortState>),
    /// It is no connection that is forwarded, but every request in it.
    SpeaksHttp,
    /// No endpoint can be used, or none is left that was not tried.
    NoEndpoint,
    /// There are endpoints, but none that a traffic policy allows here.
    Policy,
    /// Its source is outside the ranges that may connect.
    SourceRange,
    /// As many attempts as allowed have failed.
    AllFailed,
    /// A limit left no place, and none became free in time. Session affinity waits for this endpoint alone.
    Full(Option<Arc<EndpointState>>),
}

impl From<Unpicked> for Rejection {
    fn from(why: Unpicked) -> Self {
        match why {
            Unpicked::Unusable => Self::NoEndpoint,
            Unpicked::Full => Self::Full(None),
            Unpicked::Awaited(endpoint) => Self::Full(Some(endpoint)),
        }
    }
}

/// A connection to an endpoint, and the account of it.
pub(super) struct Reached {
    pub(super) stream: TcpStream,
    pub(super) endpoint: SocketAddr,
    pub(super) port: Arc<PortView>,
    pub(super) attempt: Attempt,
    pub(super) accepted: Accepted,
}

/// What the newest snapshot says about the next attempt.
struct Choice {
    port: Arc<PortView>,
    account: Accepted,
    /// The attempt at this address, or why there is none.
    attempt: Result<(SocketAddr, Attempt), Rejection>,
    is_loop: bool,
    /// The request's cookie named the endpoint.
    is_wanted: bool,
    /// The client, where session affinity is on.
    sticky: Option<Sticky>,
    /// The client, where its address is to be kept.
    keeping: Option<Keeping>,
    /// Whether there may be places for others; looked for by those who were called only.
    is_more: bool,
}

/// An endpoint that was chosen and has a place for this client from now on.
pub(crate) struct Chosen {
    pub(crate) port: Arc<PortView>,
    pub(crate) account: Accepted,
    pub(crate) addr: SocketAddr,
    pub(crate) attempt: Attempt,
    /// It is being connected to.
    pub(crate) is_dialling: bool,
    is_loop: bool,
    is_wanted: bool,
    sticky: Option<Sticky>,
    keeping: Option<Keeping>,
    /// How long connecting to it may take.
    patience: Duration,
}

impl Chosen {
    /// The cookie that brings its client back, unless it was brought by one.
    pub(crate) fn cookie(&self) -> Option<HeaderValue> {
        let cookie = self.port.app.cookie.as_ref().filter(|_| !self.is_wanted)?;
        cookie.set_cookie(self.addr)
    }

    /// Whether a connection to it is for this client alone: the endpoint is told who it is by the connection itself.
    pub(crate) fn is_private(&self) -> bool {
        self.keeping.is_some() || self.port.proxy.send.is_some()
    }

    /// Connects, and says what the endpoint gets first.
    pub(crate) async fn dial(&mut self, asks: &Asks<'_>) -> Result<TcpStream, DialError> {
        if self.is_loop {
            return Err(DialError::Loop);
        }
        let (settings, sources) = (&asks.shared.settings, &asks.shared.sources);
        let keeping = self.keeping.take();
        let upstream = dial(self.addr, keeping, self.patience, (settings, sources)).await?;
        match self.port.proxy.send {
            Some(version) => {
                let client = (version, asks.header);
                proxy_protocol::greet(upstream, client, asks.arrival, settings.connect_timeout)
                    .await
            }
            None => Ok(upstream),
        }
    }

    /// Holds a failed attempt against the endpoint, and lets its client go elsewhere, unless the fault is ours.
    pub(crate) fn undialled(&self, asks: &Asks<'_>, error: &DialError) {
        if failed(&self.attempt, self.addr, error) == Fault::Theirs {
            self.forget(asks);
        }
    }

    /// Holds against the endpoint that it was reached and gave no answer, and lets its client go elsewhere.
    pub(crate) fn unanswered(&self, asks: &Asks<'_>) {
        self.held_against();
        self.forget(asks);
    }

    /// Holds the time that it took against the endpoint, where that decides.
    pub(crate) fn took_so_long(&self) {
        if self.port.policy() == BalancePolicy::PeakEwma {
            self.attempt.observe();
        }
    }

    /// Holds a request that came to nothing against the endpoint.
    pub(crate) fn held_against(&self) {
        let mut sets = [&self.port.cluster, &self.port.local].into_iter().flatten();
        let is_of = |set: &&Arc<EndpointSet>| {
            let mut endpoints = set.endpoints().iter();
            endpoints.any(|endpoint| endpoint.addr == self.addr)
        };
        if let Some(set) = sets.find(is_of) {
            set.request_failed(self.attempt.endpoint(), clock::now());
        }
    }

    /// The client may go elsewhere next time.
    fn forget(&self, asks: &Asks<'_>) {
        if let Some(sticky) = self.sticky {
            asks.shared.affinity.forget(sticky, self.addr);
        }
    }
}

/// How many endpoints a port has to choose from.
pub(crate) fn endpoints(port: &PortView) -> usize {
    let mut sets = [&port.cluster, &port.local].into_iter().flatten();
    sets.next().map_or(0, |set| set.len())
}

/// Connects to an endpoint for the client that came in at `arrival` and of which a front end said `header`. Every attempt asks
/// the newest snapshot and leaves out what was tried.
pub(super) async fn connect(
    shared: &Shared,
    arrival: &Arrival,
    header: Option<Header>,
    accepted: &mut Option<Accepted>,
) -> Result<Reached, Rejection> {
    let mut tried = Vec::new();
    let mut give_up_at = None;
    let asks = Asks {
        shared,
        arrival,
        header,
        unit: Unit::Connection,
    };
    loop {
        let mut chosen = asks.next(&tried, accepted, &mut give_up_at).await?;
        match chosen.dial(&asks).await {
            Ok(stream) => {
                return Ok(Reached {
                    stream,
                    endpoint: chosen.addr,
                    port: chosen.port,
                    attempt: chosen.attempt,
                    accepted: chosen.account,
                });
            }
            Err(error) => chosen.undialled(&asks, &error),
        }
        drop(chosen.attempt);
        tried.push(chosen.addr);
        if tried.len() >= shared.settings.max_attempts {
            return Err(Rejection::AllFailed);
        }
        *accepted = Some(chosen.account);
    }
}

/// What is forwarded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit<'a> {
    /// A connection, whatever is in it.
    Connection,
    /// A request of HTTP with these fields.
    Request(&'a HeaderMap),
}

/// What a connection asks for, whenever it asks.
#[derive(Clone, Copy)]
pub(crate) struct Asks<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) arrival: &'a Arrival,
    /// What a trusted front end said of the client.
    pub(crate) header: Option<Header>,
    pub(crate) unit: Unit<'a>,
}

impl Asks<'_> {
    /// The next endpoint that is not in `tried`, by the newest Snapshot. Waits for a limit's place until `give_up_at`, which is set
    /// by the first wait: all that are made for one client have one deadline.
    pub(crate) async fn next(
        self,
        tried: &[SocketAddr],
        accepted: &mut Option<Accepted>,
        give_up_at: &mut Option<Instant>,
    ) -> Result<Chosen, Rejection> {
        let mut choice = self.choose(tried, accepted, Turn::Newcomer)?;
        if matches!(choice.attempt, Err(Rejection::Full(_))) {
            let patience = self.shared.settings.connect_timeout;
            let deadline = *give_up_at.get_or_insert_with(|| Instant::now() + patience);
            // Boxed: most never wait.
            choice = Box::pin(self.wait(tried, choice, deadline)).await?;
        }
        let account = choice.account;
        let (addr, attempt) = choice.attempt.inspect_err(|why| {
            count(why, &choice.port.state, tried);
        })?;
        let settings = &self.shared.settings;
        let most = settings.max_attempts.min(endpoints(&choice.port));
        Ok(Chosen {
            patience: if tried.len() + 1 < most {
                settings.connect_timeout
            } else {
                settings.last_connect_timeout()
            },
            port: choice.port,
            account,
            addr,
            attempt,
            is_loop: choice.is_loop,
            is_dialling: false,
            is_wanted: choice.is_wanted,
            sticky: choice.sticky,
            keeping: choice.keeping,
        })
    }

    /// Waits until `deadline` for what limits keep back, each in its turn: a place of the Service port, which it then
    /// keeps, and one at an endpoint.
    async fn wait(
        self,
        tried: &[SocketAddr],
        full: Choice,
        deadline: Instant,
    ) -> Result<Choice, Rejection> {
        let port = Arc::clone(&full.port.state);
        let changed = &self.shared.changed;
        let waiting = async {
            let mut choice = full;
            // What it waits for may change while it does.
            while let Err(Rejection::Full(at)) = choice.attempt {
                let (port, mut account) = (choice.port, choice.account);
                account.enter_in_turn(changed).await;
                let any = &port.state.line;
                let lines = at.as_ref().map_or((any, None), |at| (&at.line, Some(any)));
                let mut accepted = Some(account);
                let look = || self.look(tried, &mut accepted, (&port.state, at.as_ref()));
                choice = in_turn(changed, lines, look).await?;
            }
            Ok(choice)
        };
        timeout_at(deadline, waiting).await.unwrap_or_else(|_| {
            let why = Rejection::Full(None);
            count(&why, &port, tried);
            Err(why)
        })
    }

    /// The look of one that waits for a place of this port's, at this endpoint or at any. To wait for another one counts as
    /// found.
    fn look(
        self,
        tried: &[SocketAddr],
        accepted: &mut Option<Accepted>,
        (port, at): (&Arc<PortState>, Option<&Arc<EndpointState>>),
    ) -> Looked<Result<Choice, Rejection>> {
        let line = at.map_or(&port.line, |at| &at.line);
        let choice = match self.choose(tried, accepted, Turn::Called(line)) {
            Ok(choice) => choice,
            Err(why) => {
                return Looked {
                    found: Some(Err(why)),
                    is_more: true,
                };
            }
        };
        match &choice.attempt {
            Err(Rejection::Full(still))
                if choice.account.is_by(port)
                    && still.as_ref().map(Arc::as_ptr) == at.map(Arc::as_ptr) =>
            {
                let is_more = at.is_none() && choice.is_more;
                *accepted = Some(choice.account);
                Looked {
                    found: None,
                    is_more,
                }
            }
            _ => Looked {
                is_more: at.is_some() || choice.is_more,
                found: Some(Ok(choice)),
            },
        }
    }

    /// The next attempt, by the newest Snapshot; takes `accepted` if it is by the same Service port.
    fn choose(
        self,
        tried: &[SocketAddr],
        accepted: &mut Option<Accepted>,
        turn: Turn<'_>,
    ) -> Result<Choice, Rejection> {
        let Self {
            shared, arrival, ..
        } = self;
        let now = clock::now();
        let snapshot = shared.published.load();
        let frontend = snapshot.asked(&arrival.asked());
        let frontend = frontend.ok_or(Rejection::Unmatched)?;
        if let Some(check) = &frontend.health {
            return Err(Rejection::HealthCheck(Arc::clone(check)));
        }
        let port = &frontend.port;
        if self.header.is_none() && arrival.peer.is_some_and(|peer| port.proxy.trusts(peer)) {
            return Err(Rejection::Unheaded(Arc::clone(&port.state)));
        }
        if matches!(self.unit, Unit::Connection) && port.app.protocol.is_http() {
            return Err(Rejection::SpeaksHttp);
        }
        let mut account = accepted
            .take()
            .filter(|account| account.is_by(&port.state))
            .unwrap_or_else(|| Accepted::by(&port.state));
        let sticky = Sticky::of(port.affinity, arrival.peer);
        let keeping = Keeping::of(port, arrival.peer);
        let place = snapshot.cluster.place_of(arrival.peer, arrival.local.ip());
        let mut is_wanted = false;
        let endpoint = match port.verdict(frontend.kind, place) {
            _ if !frontend.admits(arrival.peer) => Err(Rejection::SourceRange),
            Verdict::Forward(_) if !(account.enter() && may_look(turn, &port.state)) => {
                Err(Rejection::Full(None))
            }
            Verdict::Forward(set) => {
                let picked = self.pick((port, set), sticky, (tried, turn), now);
                is_wanted = picked.is_wanted;
                picked.endpoint.map_err(Rejection::from)
            }
            Verdict::Refuse => Err(Rejection::NoEndpoint),
            Verdict::Drop => Err(Rejection::Policy),
        };
        let attempt =
            endpoint.map(|endpoint| (endpoint.addr, Attempt::at(&port.state, &endpoint.state)));
        let is_loop =
            (attempt.as_ref()).is_ok_and(|(addr, _)| leads_back(&snapshot, arrival, *addr));
        Ok(Choice {
            is_more: matches!(turn, Turn::Called(_)) && port.has_room(now),
            port: Arc::clone(port),
            account,
            attempt,
            is_loop,
            is_wanted,
            sticky,
            keeping,
        })
    }

    /// An endpoint of the set: the one that the request's cookie names, else the one that its client went to, else the next.
    fn pick<'s>(
        self,
        (port, set): (&PortView, &'s EndpointSet),
        sticky: Option<Sticky>,
        (tried, turn): (&[SocketAddr], Turn<'_>),
        now: Timestamp,
    ) -> Picked<'s> {
        let by_key = || match self.unit.key(port) {
            Some(key) => set.pick_by(Some(key), tried, now),
            None => set.pick_for(self.arrival.peer, tried, now),
        };
        let endpoint = match (self.unit.wanted(port, set), sticky) {
            (Some(addr), _) => match set.pick_affine(addr, tried, now, turn) {
                Err(Unpicked::Unusable) => by_key(),
                endpoint => {
                    return Picked {
                        is_wanted: endpoint.is_ok(),
                        endpoint,
                    };
                }
            },
            (None, Some(sticky)) => (self.shared.affinity).pick((sticky, turn), set, tried, now),
            (None, None) => by_key(),
        };
        Picked {
            endpoint,
            is_wanted: false,
        }
    }
}

impl Unit<'_> {
    /// The endpoint that a request's cookie names.
    fn wanted(self, port: &PortView, set: &EndpointSet) -> Option<SocketAddr> {
        match self {
            Self::Connection => None,
            Self::Request(fields) => port.app.cookie.as_ref()?.endpoint_of(fields, set),
        }
    }

    /// What a request is hashed by.
    fn key(self, port: &PortView) -> Option<Key> {
        match self {
            Self::Connection => None,
            Self::Request(fields) => {
                let value = fields.get(port.app.hash_header.as_ref()?)?;
                Some(Key::of(value.as_bytes()))
            }
        }
    }
}

/// What a set says about an attempt.
struct Picked<'s> {
    endpoint: Result<&'s Endpoint, Unpicked>,
    /// The request's cookie named it.
    is_wanted: bool,
}

/// Whether nobody who came before waits for an endpoint.
fn may_look(turn: Turn<'_>, port: &PortState) -> bool {
    matches!(turn, Turn::Called(_)) || port.line.is_empty()
}

/// Counts a rejection by its reason; one after failed attempts is already counted as those.
fn count(why: &Rejection, port: &PortState, tried: &[SocketAddr]) {
    let counter = match why {
        Rejection::NoEndpoint if tried.is_empty() => &port.refused_no_endpoints,
        Rejection::Policy => &port.dropped_policy,
        Rejection::SourceRange => &port.dropped_source_range,
        Rejection::Full(_) => &port.rejected_full,
        _ => return,
    };
    counter.fetch_add(1, Relaxed);
}

/// Whether connecting to `endpoint` would end at a Frontend of ours. A node port is declared for every host address,
/// and which addresses those are is not known here, so that one counts only where this host is sure to answer.
fn leads_back(snapshot: &Snapshot, arrival: &Arrival, endpoint: SocketAddr) -> bool {
    match snapshot.frontend(arrival.scope, endpoint, endpoint.port(), Protocol::Tcp) {
        Some(frontend) if frontend.kind.is_on_node_port() => {
            endpoint.ip().is_loopback() || endpoint.ip() == arrival.local.ip()
        }
        found => found.is_some(),
    }
}

/// Whose fault a failed attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Ours,
    Theirs,
}

/// Holds a failed attempt against its endpoint, unless the fault is ours.
fn failed(attempt: &Attempt, addr: SocketAddr, error: &DialError) -> Fault {
    tracing::debug!(endpoint = %addr, error = %error, cause = ?std::error::Error::source(error), "attempt failed");
    match error {
        DialError::TimedOut => attempt.endpoint().timed_out.fetch_add(1, Relaxed),
        DialError::Failed(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => {
            attempt.endpoint().refused.fetch_add(1, Relaxed)
        }
        _ => 0,
    };
    if matches!(error, DialError::Failed(cause) if net::is_own_fault(cause)) {
        return Fault::Ours;
    }
    attempt.endpoint().ejection.failed(clock::now());
    Fault::Theirs
}
