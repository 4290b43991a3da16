//! Connections whose endpoint or Service port is gone, and what is left at all. Owns which are closed and when, and the
//! report of live connections; must not touch a socket: a cut connection's own task resets it.
//!
//! As in a cluster, an established connection stays whatever happens to its endpoint or its Service, unless its Service
//! says for how long (annotation `portico.dev/drain-timeout`). The time begins when the endpoint (or the address and port
//! that the client asked for) is gone from the published Snapshot, and is forgotten when it comes back. An endpoint that is
//! being shut down is not gone: it lets its connections finish within its own grace.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use portico_core::{
    balance::End,
    snapshot::{
        Generation, ServicePortName, Snapshot,
        draining::{Asked, Standing},
    },
    time::Timestamp,
};

use crate::{
    tcp::registry::{Live, Phase, Reached},
    worker::Shared,
};

/// Beyond the longest connect attempt, so that an attempt chosen by the Snapshot before is over.
const SETTLING: Duration = Duration::from_millis(50);

/// Why a connection is to end, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draining {
    /// Its endpoint is being shut down; it ends its connections itself.
    Terminating,
    /// Its endpoint is gone.
    EndpointGone,
    /// What its client asked for is gone.
    ServiceGone,
    /// The program ends.
    Shutdown,
}

/// A live connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Unique in the process.
    pub id: u64,
    /// When it was accepted.
    pub since: Timestamp,
    /// The client; `None` when the kernel did not say.
    pub client: Option<SocketAddr>,
    /// The address that the client asked for, on our side.
    pub local: SocketAddr,
    /// The Service port; `None` while what was asked for belongs to none.
    pub service: Option<ServicePortName>,
    /// The endpoint; `None` while one is being connected to.
    pub endpoint: Option<SocketAddr>,
    /// How far it is.
    pub phase: Phase,
    /// Why it is to end, if it is, and when it is closed, if ever.
    pub draining: Option<(Draining, Option<Timestamp>)>,
    /// Bytes written to the endpoint.
    pub to_endpoint: u64,
    /// Bytes written to the client.
    pub to_client: u64,
}

/// What the control side remembers between looks.
#[derive(Debug, Default)]
pub(crate) struct Drains {
    looked_at: Generation,
    next: Option<Timestamp>,
}

/// What one look came to.
#[derive(Debug, Default)]
struct Look {
    next: Option<Timestamp>,
    cut: usize,
}

impl Look {
    fn again_at(&mut self, at: Timestamp) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

impl Drains {
    /// Looks for connections to close, if the Snapshot is another or a deadline has passed. Returns when to look again.
    pub(crate) fn look(&mut self, shared: &Shared, now: Timestamp) -> Option<Timestamp> {
        let snapshot = shared.published.load_full();
        let is_due = self.next.is_some_and(|at| at <= now);
        if self.looked_at == snapshot.generation && !is_due {
            return self.next;
        }
        self.looked_at = snapshot.generation;
        let mut look = Look::default();
        for registry in &shared.registries {
            registry.each(|live| judge(shared, &snapshot, live, now, &mut look));
        }
        if look.cut > 0 {
            tracing::info!(
                connections = look.cut,
                "closed: what they were for is gone, and their Services' drain time-outs are over"
            );
        }
        self.next = look.next;
        self.next
    }
}

fn judge(shared: &Shared, snapshot: &Snapshot, live: &Live, now: Timestamp, look: &mut Look) {
    if live.phase() == Phase::Requests {
        // It needs no endpoint of its own. What its requests mean now, only another connection of its client's can be asked for.
        if !speaks_http(snapshot, &live.asked()) {
            live.dismiss();
        }
        return live.is_there();
    }
    let Some(reached) = live.endpoint() else {
        // Perhaps on its way to an endpoint that the Snapshot before had.
        let patience = shared.settings.last_connect_timeout();
        return look.again_at(now.after(patience + SETTLING));
    };
    let Some(timeout) = reached.port.drain_timeout.get() else {
        return live.is_there();
    };
    let why = match standing(snapshot, live, reached) {
        Standing::Kept | Standing::Terminating => return live.is_there(),
        Standing::EndpointGone => End::EndpointGone,
        Standing::ServiceGone => End::ServiceGone,
    };
    let deadline = live.is_gone(now).after(timeout);
    if deadline > now {
        return look.again_at(deadline);
    }
    if live.cut(why) {
        look.cut += 1;
    }
}

/// Whether what is asked for there is a Service port that is forwarded request by request.
fn speaks_http(snapshot: &Snapshot, asked: &Asked) -> bool {
    let frontend = snapshot.asked(asked);
    frontend.is_some_and(|frontend| frontend.port.app.protocol.is_http())
}

/// How a connection or request with an endpoint stands.
fn standing(snapshot: &Snapshot, live: &Live, reached: &Reached) -> Standing {
    let asked = live.asked();
    if live.phase() == Phase::Request && !speaks_http(snapshot, &asked) {
        return Standing::ServiceGone;
    }
    snapshot.standing(&asked, &reached.name, reached.endpoint())
}

/// All live connections, the oldest first.
pub(crate) fn connections(shared: &Shared) -> Vec<Connection> {
    let snapshot = shared.published.load_full();
    let ends_at = shared.ends_at.load(Relaxed);
    let ends_at = (ends_at != 0).then(|| Timestamp::from_millis(ends_at));
    let mut found = Vec::new();
    for registry in &shared.registries {
        registry.each(|live| found.push(report(&snapshot, live, ends_at)));
    }
    // Requests are in the connections of their clients, and stand beside them only while they outlive what they are for.
    let outlives = |draining| {
        let gone = [Draining::EndpointGone, Draining::ServiceGone];
        matches!(draining, Some((why, _)) if gone.contains(&why))
    };
    found.retain(|one: &Connection| one.phase != Phase::Request || outlives(one.draining));
    found.sort_by_key(|connection| (connection.since, connection.id));
    found
}

fn report(snapshot: &Snapshot, live: &Arc<Live>, ends_at: Option<Timestamp>) -> Connection {
    let asked = live.asked();
    let (to_endpoint, to_client) = live.bytes();
    let reached = live.endpoint();
    let service = match reached {
        Some(reached) => Some(&reached.name),
        None => snapshot.asked(&asked).map(|frontend| &frontend.port.name),
    };
    let draining = match (ends_at, reached) {
        (Some(_), _) => Some((Draining::Shutdown, ends_at)),
        (None, None) => None,
        (None, Some(reached)) => {
            let timeout = reached.port.drain_timeout.get();
            let deadline = live.gone_since().zip(timeout);
            let deadline = deadline.map(|(since, timeout)| since.after(timeout));
            match standing(snapshot, live, reached) {
                Standing::Kept => None,
                Standing::Terminating => Some((Draining::Terminating, None)),
                Standing::EndpointGone => Some((Draining::EndpointGone, deadline)),
                Standing::ServiceGone => Some((Draining::ServiceGone, deadline)),
            }
        }
    };
    Connection {
        id: live.id,
        since: live.since,
        client: live.client(),
        local: asked.local,
        service: service.map(|name| ServicePortName::clone(name)),
        endpoint: reached.map(Reached::endpoint),
        phase: live.phase(),
        draining,
        to_endpoint,
        to_client,
    }
}
