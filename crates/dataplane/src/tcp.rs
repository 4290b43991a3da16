//! A TCP connection from accept to close. Owns what happens to the two sockets; choosing and connecting belong to
//! [`connect`], bytes to [`mod@relay`], counts to [`account`]. Must not accept.

pub(crate) mod account;
pub(crate) mod connect;
pub(crate) mod dial;
mod health_check;
mod proxy_protocol;
pub(crate) mod registry;
pub(crate) mod relay;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use portico_core::{
    balance::{End, HeaderFault, PortState},
    proxy_protocol::Route,
};
use tokio::net::TcpStream;

use crate::worker::{Incoming, Shared};
use account::{Accepted, Active, Totals};
use connect::{Arrival, Rejection};
use proxy_protocol::Client;
use registry::Registered;
use relay::{Outcome, Patience, Relayed, Side, relay};

/// A socket that is reset when dropped, unless it was let go: an end that nobody meant (a broken relay, a cut or
/// panicked task) must not look like a clean one.
#[derive(Debug)]
struct Resetting {
    stream: TcpStream,
    armed: bool,
}

impl Resetting {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            armed: true,
        }
    }

    fn let_go(mut self) {
        self.armed = false;
    }
}

impl Drop for Resetting {
    fn drop(&mut self) {
        if self.armed {
            // Fails only if the socket is gone already, which is what is wanted.
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// Both ends of a connection that is being relayed. The counts settle before the sockets close, so that whoever sees
/// the close sees the counts.
struct Relay {
    active: Active,
    downstream: Resetting,
    upstream: Resetting,
}

/// Serves one accepted connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, incoming: Incoming, live: Registered) {
    let Incoming {
        stream,
        arrival,
        slot,
    } = incoming;
    let Ok(downstream) = TcpStream::from_std(stream).map(Resetting::new) else {
        return;
    };
    let Some(mut both) = establish(&shared, &arrival, downstream, live).await else {
        return;
    };
    let settings = &shared.settings;
    let patience = Patience {
        idle: settings.idle_timeout,
        half_closed: settings.half_closed_timeout,
    };
    let relayed = relay(
        &mut both.downstream.stream,
        &mut both.upstream.stream,
        patience,
        &mut both.active,
    )
    .await;
    close(&shared.totals, both, &relayed);
    drop(slot);
}

async fn establish(
    shared: &Shared,
    arrival: &Arrival,
    mut downstream: Resetting,
    live: Registered,
) -> Option<Relay> {
    let (mut arrival, mut told) = (*arrival, None);
    let expected = proxy_protocol::expected(&shared.published.load(), &arrival);
    if let Some(port) = expected {
        told = headed(shared, &port, &mut downstream.stream).await.ok()?;
        arrival.peer = told.map_or(arrival.peer, |route| Some(route.source.ip()));
    }
    let arrival = &arrival;
    let client = Client {
        stream: &downstream.stream,
        told,
    };
    match connect::connect(shared, arrival, client, &live).await {
        Ok((upstream, endpoint, active)) => {
            let active = active.seen_as(live);
            tracing::debug!(local = %arrival.local, %endpoint, "connected");
            let upstream = Resetting::new(upstream);
            // Delays small messages if it fails, which is no reason to refuse them.
            let _ = downstream.stream.set_nodelay(true);
            let _ = upstream.stream.set_nodelay(true);
            Some(Relay {
                active,
                downstream,
                upstream,
            })
        }
        Err(Rejection::HealthCheck) => {
            // Asked again by its own lookup: nothing else needs to carry the answer.
            if let Some(check) = health_check::find(&shared.published.load(), arrival) {
                health_check::answer(downstream, &check).await;
            }
            None
        }
        Err(rejection) => {
            if rejection == Rejection::Unmatched {
                shared.totals.unmatched.fetch_add(1, Relaxed);
            }
            tracing::debug!(local = %arrival.local, peer = ?arrival.peer, ?rejection, "connection rejected");
            None
        }
    }
}

/// What a trusted front end says of its client. A fault is counted.
async fn headed(
    shared: &Shared,
    port: &Arc<PortState>,
    stream: &mut TcpStream,
) -> Result<Option<Route>, HeaderFault> {
    let patience = shared.settings.proxy_header_timeout;
    // Boxed: most connections never wait for one.
    let received = Box::pin(proxy_protocol::receive(stream, patience)).await;
    received.inspect_err(|fault| {
        drop(Accepted::by(port));
        port.header_faults.count(*fault);
        let reason = fault.as_str();
        tracing::debug!(peer = ?stream.peer_addr(), reason, "connection without a PROXY header rejected");
    })
}

fn close(totals: &Totals, both: Relay, relayed: &Relayed) {
    let Relay {
        active,
        downstream,
        upstream,
    } = both;
    active.ended(match relayed.outcome {
        Outcome::Finished => End::Finished,
        Outcome::TimedOut => End::Idle,
        Outcome::Broken(Side::Downstream, _) => End::Client,
        Outcome::Broken(Side::Upstream, _) => End::Endpoint,
    });
    tracing::debug!(
        outcome = ?relayed.outcome,
        to_upstream_bytes = relayed.to_upstream,
        to_downstream_bytes = relayed.to_downstream,
        "connection ended"
    );
    match relayed.outcome {
        Outcome::Finished => {
            downstream.let_go();
            upstream.let_go();
        }
        Outcome::TimedOut => {
            totals.timed_out.fetch_add(1, Relaxed);
        }
        Outcome::Broken(..) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serve_future_of_a_connection_stays_small() {
        fn size_of_future<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_future(serve);
        assert!(size < 2048, "{size} bytes for every connection");
    }
}
