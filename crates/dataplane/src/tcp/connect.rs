//! From a client's connection to one with an endpoint. Owns the choice, the attempts and their account; must not read
//! a byte of the client, so that every attempt starts from the same place.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use portico_core::{
    balance::PortState,
    object::Protocol,
    snapshot::{ClientPlace, FrontendKind, Scope, Snapshot, Verdict},
    time::Timestamp,
};
use tokio::net::{TcpSocket, TcpStream};

use super::account::{Accepted, Active, Attempt};
use crate::{clock, net, worker::Shared};

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
}

impl Arrival {
    /// A source that is loopback or the very address connected to is this host's own.
    fn place(&self) -> ClientPlace {
        match self.peer {
            Some(peer) if peer.is_loopback() || peer == self.local.ip().to_canonical() => {
                ClientPlace::OnNode
            }
            _ => ClientPlace::Elsewhere,
        }
    }
}

/// Why a connection reached no endpoint. The client is reset in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Its local address is no Frontend.
    Unmatched,
    /// No endpoint may be used, or none is left that was not tried.
    NoEndpoint,
    /// As many attempts as allowed have failed.
    AllFailed,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("the endpoint is one of our own frontends")]
    Loop,
    #[error("connecting timed out")]
    TimedOut,
    #[error("connecting failed")]
    Failed(#[source] io::Error),
}

/// What the newest snapshot says about the next attempt.
struct Choice {
    port: Arc<PortState>,
    /// The attempt at this address, unless the verdict is to refuse.
    attempt: Option<(SocketAddr, Attempt)>,
    is_loop: bool,
}

/// Connects to an endpoint for the client at `arrival`. Every attempt asks the newest snapshot and leaves out what
/// was tried.
pub(crate) async fn connect(
    shared: &Shared,
    arrival: &Arrival,
) -> Result<(TcpStream, SocketAddr, Active), Rejection> {
    let mut tried = Vec::new();
    let mut accepted: Option<Accepted> = None;
    loop {
        let now = clock::now();
        let Some(choice) = choose(&shared.published.load(), arrival, &tried, now) else {
            return Err(Rejection::Unmatched);
        };
        let account = match accepted.take() {
            Some(account) if account.is_by(&choice.port) => account,
            _ => Accepted::by(&choice.port),
        };
        let Some((addr, attempt)) = choice.attempt else {
            return Err(Rejection::NoEndpoint);
        };
        match dial(addr, choice.is_loop, shared.settings.connect_timeout).await {
            Ok(upstream) => return Ok((upstream, addr, attempt.succeeded(account))),
            Err(error) => failed(&attempt, addr, &error),
        }
        drop(attempt);
        tried.push(addr);
        if tried.len() >= shared.settings.max_attempts {
            return Err(Rejection::AllFailed);
        }
        accepted = Some(account);
    }
}

fn choose(
    snapshot: &Snapshot,
    arrival: &Arrival,
    tried: &[SocketAddr],
    now: Timestamp,
) -> Option<Choice> {
    let frontend = snapshot.frontend(
        arrival.scope,
        arrival.local,
        arrival.declared_port,
        Protocol::Tcp,
    )?;
    let port = Arc::clone(&frontend.port.state);
    let endpoint = match frontend.port.verdict(frontend.kind, arrival.place()) {
        Verdict::Forward(set) => set.pick(tried, now),
        Verdict::Refuse | Verdict::Drop => None,
    };
    let is_loop = endpoint.is_some_and(|endpoint| leads_back(snapshot, arrival, endpoint.addr));
    let attempt = endpoint.map(|endpoint| (endpoint.addr, Attempt::at(&port, &endpoint.state)));
    Some(Choice {
        port,
        attempt,
        is_loop,
    })
}

/// Whether connecting to `endpoint` would end at a Frontend of ours. A node port is declared for every host address,
/// and which addresses those are is not known here, so that one counts only where this host is sure to answer.
fn leads_back(snapshot: &Snapshot, arrival: &Arrival, endpoint: SocketAddr) -> bool {
    match snapshot.frontend(arrival.scope, endpoint, endpoint.port(), Protocol::Tcp) {
        Some(frontend) if frontend.kind == FrontendKind::NodePort => {
            endpoint.ip().is_loopback() || endpoint.ip() == arrival.local.ip()
        }
        found => found.is_some(),
    }
}

async fn dial(addr: SocketAddr, is_loop: bool, timeout: Duration) -> Result<TcpStream, DialError> {
    if is_loop {
        return Err(DialError::Loop);
    }
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .map_err(DialError::Failed)?;
    match tokio::time::timeout(timeout, socket.connect(addr)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(DialError::Failed(error)),
        Err(_) => Err(DialError::TimedOut),
    }
}

/// Holds a failed attempt against its endpoint, unless the fault is ours.
fn failed(attempt: &Attempt, addr: SocketAddr, error: &DialError) {
    tracing::debug!(endpoint = %addr, error = %error, cause = ?std::error::Error::source(error), "attempt failed");
    if !matches!(error, DialError::Failed(cause) if net::is_own_fault(cause)) {
        attempt.endpoint().ejection.failed(clock::now());
    }
}
