//! From a client's connection to one with an endpoint. Owns the choice, the attempts and their account; must not read
//! a byte of the client, so that every attempt starts from the same place. A PROXY header of a trusted front end was read
//! before, and what it says is the arrival's source.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use portico_core::{
    balance::{EndpointState, PortState, Turn, Unpicked},
    object::Protocol,
    snapshot::{HealthCheck, PortView, Scope, Snapshot, Verdict},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    account::{Accepted, Attempt},
    dial::{DialError, Keeping, dial},
    proxy_protocol::{self, Client},
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

/// Why a connection reached no endpoint. The client is reset, unless something else is to be done first.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// Its local address is no Frontend.
    Unmatched,
    /// It is a health check, to be answered by ourselves.
    HealthCheck(Arc<HealthCheck>),
    /// Its source is a trusted front end of this Service port, which says first whose connection it is.
    Unheaded(Arc<PortState>),
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
    /// The client, where session affinity is on.
    sticky: Option<Sticky>,
    /// The client, where its address is to be kept.
    keeping: Option<Keeping>,
    /// Whether there may be places for others; looked for by those who were called only.
    is_more: bool,
}

/// Connects to an endpoint for `client`, which came in at `arrival`. Every attempt asks the newest snapshot and leaves out what
/// was tried.
pub(super) async fn connect(
    shared: &Shared,
    arrival: &Arrival,
    client: Client<'_>,
    accepted: &mut Option<Accepted>,
) -> Result<Reached, Rejection> {
    let mut tried = Vec::new();
    let mut give_up_at = None;
    let asks = Asks {
        shared,
        arrival,
        client,
    };
    loop {
        let mut choice = asks.choose(&tried, accepted, Turn::Newcomer)?;
        if matches!(choice.attempt, Err(Rejection::Full(_))) {
            let patience = shared.settings.connect_timeout;
            let deadline = *give_up_at.get_or_insert_with(|| Instant::now() + patience);
            // Boxed: most connections never wait.
            choice = Box::pin(asks.wait(&tried, choice, deadline)).await?;
        }
        let account = choice.account;
        let (addr, attempt) = choice.attempt.inspect_err(|why| {
            count(why, &choice.port.state, &tried);
        })?;
        let dialled = if choice.is_loop {
            Err(DialError::Loop)
        } else {
            dial(addr, choice.keeping, &shared.settings, &shared.sources).await
        };
        let patience = shared.settings.connect_timeout;
        // The header that the endpoint gets first.
        let dialled = match (dialled, choice.port.proxy.send) {
            (Ok(upstream), Some(version)) => {
                proxy_protocol::greet(upstream, (version, client), arrival, patience).await
            }
            (dialled, _) => dialled,
        };
        match dialled {
            Ok(stream) => {
                return Ok(Reached {
                    stream,
                    endpoint: addr,
                    port: choice.port,
                    attempt,
                    accepted: account,
                });
            }
            Err(error) => {
                if failed(&attempt, addr, &error) == Fault::Theirs
                    && let Some(sticky) = choice.sticky
                {
                    shared.affinity.forget(sticky, addr);
                }
            }
        }
        drop(attempt);
        tried.push(addr);
        if tried.len() >= shared.settings.max_attempts {
            return Err(Rejection::AllFailed);
        }
        *accepted = Some(account);
    }
}

/// What a connection asks for, whenever it asks.
#[derive(Clone, Copy)]
struct Asks<'a> {
    shared: &'a Shared,
    arrival: &'a Arrival,
    client: Client<'a>,
}

impl Asks<'_> {
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
            shared,
            arrival,
            client,
        } = self;
        let now = clock::now();
        let snapshot = shared.published.load();
        let frontend = snapshot
            .frontend(
                arrival.scope,
                arrival.local,
                arrival.declared_port,
                Protocol::Tcp,
            )
            .ok_or(Rejection::Unmatched)?;
        if let Some(check) = &frontend.health {
            return Err(Rejection::HealthCheck(Arc::clone(check)));
        }
        let port = &frontend.port;
        if client.is_unheaded(&port.proxy, arrival) {
            return Err(Rejection::Unheaded(Arc::clone(&port.state)));
        }
        let mut account = accepted
            .take()
            .filter(|account| account.is_by(&port.state))
            .unwrap_or_else(|| Accepted::by(&port.state));
        let sticky = Sticky::of(port.affinity, arrival.peer);
        let keeping = Keeping::of(port, arrival.peer);
        let place = snapshot.cluster.place_of(arrival.peer, arrival.local.ip());
        let endpoint = match port.verdict(frontend.kind, place) {
            _ if !frontend.admits(arrival.peer) => Err(Rejection::SourceRange),
            Verdict::Forward(_) if !(account.enter() && may_look(turn, &port.state)) => {
                Err(Rejection::Full(None))
            }
            Verdict::Forward(set) => match sticky {
                Some(sticky) => shared.affinity.pick((sticky, turn), set, tried, now),
                None => set.pick_for(arrival.peer, tried, now),
            }
            .map_err(|why| match why {
                Unpicked::Unusable => Rejection::NoEndpoint,
                Unpicked::Full => Rejection::Full(None),
                Unpicked::Awaited(endpoint) => Rejection::Full(Some(endpoint)),
            }),
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
            sticky,
            keeping,
        })
    }
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
