//! Choosing an endpoint. Owns immutable sets of endpoints, the tickets drawn over them, and the atomics that outlive
//! snapshots (counters, in-flight, ejection). Must not look anything up: it gets the set that the snapshot found.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{health, time::Timestamp};

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
    /// Connections that are being relayed.
    pub active: AtomicU64,
    /// Connections that reached an endpoint.
    pub connected: AtomicU64,
}

/// Live state of one endpoint behind one Service port, carried across snapshots by identity.
#[derive(Debug, Default)]
pub struct EndpointState {
    /// Tickets that chose it.
    pub picks: AtomicU64,
    /// Attempts that reached it.
    pub connected: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Connections in progress.
    pub active: AtomicU64,
    /// Passive ejection.
    pub ejection: health::Ejection,
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

/// An ordered set of usable endpoints and its tickets: one epoch of round robin.
#[derive(Debug)]
pub struct EndpointSet {
    endpoints: Box<[Endpoint]>,
    tickets: Tickets,
}

impl EndpointSet {
    /// A set whose first ticket follows `previous`' last one.
    pub fn new(endpoints: Vec<Endpoint>, previous: Option<&Self>) -> Self {
        let tickets = previous
            .map(|set| Tickets::after(&set.tickets))
            .unwrap_or_default();
        Self {
            endpoints: endpoints.into_boxed_slice(),
            tickets,
        }
    }

    /// The endpoints in order.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Strict round robin: the endpoint of the next ticket. One that is ejected or in `tried` costs its ticket, and
    /// another is drawn: its neighbour never gets its share. `None` when every endpoint is in `tried`; when all that
    /// remain are ejected, ejection is ignored, for a guess is better than a refusal.
    pub fn pick(&self, tried: &[SocketAddr], now: Timestamp) -> Option<&Endpoint> {
        self.draw(|endpoint| {
            !tried.contains(&endpoint.addr) && !endpoint.state.ejection.is_ejected(now)
        })
        .or_else(|| self.draw(|endpoint| !tried.contains(&endpoint.addr)))
        .inspect(|endpoint| {
            endpoint.state.picks.fetch_add(1, Relaxed);
        })
    }

    fn draw(&self, usable: impl Fn(&Endpoint) -> bool) -> Option<&Endpoint> {
        if !self.endpoints.iter().any(&usable) {
            return None;
        }
        // A draw fails only on unusable endpoints or when other workers take the tickets between; the bound is for
        // the case that the last usable endpoint was ejected after the check above.
        for _ in 0..(self.endpoints.len() * 8 + 64) {
            let slot = usize::try_from(self.tickets.draw() % self.endpoints.len() as u64)
                .unwrap_or_default();
            if let Some(endpoint) = self.endpoints.get(slot).filter(|endpoint| usable(endpoint)) {
                return Some(endpoint);
            }
        }
        let last = self.endpoints.iter().find(|endpoint| usable(endpoint))?;
        last.state.picks.fetch_add(1, Relaxed);
        Some(last)
    }
}

#[cfg(test)]
mod tests;
