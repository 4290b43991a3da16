//! A TCP connection from accept to close. Owns what happens to the two sockets; choosing and connecting belong to
//! [`connect`], bytes to [`mod@relay`], counts to [`account`]. Must not accept.

pub(crate) mod account;
pub(crate) mod connect;
pub(crate) mod dial;
mod health_check;
mod proxy_protocol;
pub(crate) mod registry;
pub(crate) mod relay;
pub(crate) mod waiting;

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use portico_core::{
    balance::{End, PortState},
    proxy_protocol::Header,
};
use tokio::net::TcpStream;

use crate::{
    http::{self, pool::Pool},
    worker::{Incoming, Shared},
};
use account::{Accepted, Active};
use connect::{Arrival, Reached, Rejection};
use registry::Registered;
use relay::{Outcome, Patience, Relayed, Side, relay};

/// A socket that is reset when dropped, unless it was let go: an end that nobody meant (a broken relay, a cut or
/// panicked task) must not look like a clean one.
#[derive(Debug)]
pub(crate) struct Resetting {
    pub(crate) stream: TcpStream,
    armed: bool,
}

impl Resetting {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            armed: true,
        }
    }

    pub(crate) fn let_go(mut self) {
        self.disarm();
    }

    pub(crate) const fn disarm(&mut self) {
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

/// Serves one accepted connection to its end. What comes before the relay has an allocation of its own, which is gone
/// when the relay begins: a connection holds, nearly all of its time, what the relay needs and no more.
pub(crate) fn serve(
    (shared, pool): (Arc<Shared>, Rc<Pool>),
    incoming: Incoming,
    live: Registered,
) -> impl Future<Output = ()> {
    let Incoming {
        stream,
        arrival,
        slot,
        accepted,
    } = incoming;
    let patience = Patience {
        idle: shared.settings.idle_timeout,
        half_closed: shared.settings.half_closed_timeout,
    };
    let establishing = Box::pin(establish((shared, pool), stream, (arrival, accepted), live));
    async move {
        let _slot = slot;
        let Some(mut both) = establishing.await else {
            return;
        };
        let relayed = relay(
            both.downstream.stream.split(),
            both.upstream.stream.split(),
            patience,
            &mut both.active,
        )
        .await;
        close(both, &relayed);
    }
}

/// Both ends of the connection, once an endpoint is reached; whatever else is to be done for it is done here.
async fn establish(
    (shared, pool): (Arc<Shared>, Rc<Pool>),
    stream: std::net::TcpStream,
    (mut arrival, mut accepted): (Arrival, Option<Accepted>),
    live: Registered,
) -> Option<Relay> {
    let mut downstream = TcpStream::from_std(stream).map(Resetting::new).ok()?;
    let mut header = None;
    loop {
        match connect::connect(&shared, &arrival, header, &mut accepted).await {
            Ok(reached) => return Some(begin(reached, downstream, live)),
            Err(Rejection::Unheaded(port)) => {
                let said = headed(&shared, &port, &mut downstream.stream, &mut accepted).await?;
                if let Some(route) = said.route {
                    arrival.peer = Some(route.source.ip());
                    arrival.peer_port = route.source.port();
                }
                header = Some(said);
            }
            Err(Rejection::SpeaksHttp) => {
                let asked = (arrival, header);
                Box::pin(http::serve((shared, pool), asked, downstream, live)).await;
                return None;
            }
            Err(Rejection::HealthCheck(check)) => {
                health_check::answer(downstream, &check).await;
                return None;
            }
            Err(rejection) => {
                if matches!(rejection, Rejection::Unmatched) {
                    shared.totals.unmatched.fetch_add(1, Relaxed);
                }
                tracing::debug!(local = %arrival.local, peer = ?arrival.peer, ?rejection, "connection rejected");
                return None;
            }
        }
    }
}

fn begin(reached: Reached, downstream: Resetting, live: Registered) -> Relay {
    let Reached {
        stream,
        endpoint,
        port,
        attempt,
        accepted,
    } = reached;
    // Delays small messages if it fails, which is no reason to refuse them. The client's socket has it from its listener.
    let _ = stream.set_nodelay(true);
    live.reached(endpoint, &port);
    tracing::debug!(service = %port.name, %endpoint, "connected");
    Relay {
        active: attempt.succeeded(accepted, live),
        downstream,
        upstream: Resetting::new(stream),
    }
}

/// What a trusted front end says of its client; `None` of a fault, which is counted.
async fn headed(
    shared: &Shared,
    port: &Arc<PortState>,
    stream: &mut TcpStream,
    accepted: &mut Option<Accepted>,
) -> Option<Header> {
    let patience = shared.settings.proxy_header_timeout;
    let received = proxy_protocol::receive(stream, patience).await;
    received
        .inspect_err(|fault| {
            drop(accepted.take().unwrap_or_else(|| Accepted::by(port)));
            port.header_faults.count(*fault);
            let reason = fault.as_str();
            tracing::debug!(peer = ?stream.peer_addr(), reason, "connection without a PROXY header rejected");
        })
        .ok()
}

fn close(both: Relay, relayed: &Relayed) {
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
    // Otherwise both are reset.
    if matches!(relayed.outcome, Outcome::Finished) {
        downstream.let_go();
        upstream.let_go();
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
        // 32 of them only where the workspace is tested as a whole, whose features make tokio's timers larger.
        assert!(size <= 776, "{size} bytes for every connection");
    }
}
