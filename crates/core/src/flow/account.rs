//! What one flow does to the counters of its Service port and endpoint. Owns that every count settles exactly once,
//! whatever way the flow ends; must not choose.
//!
//! A flow on an endpoint counts as one connection. UDP has no handshake, so that a connection counts as made once the
//! endpoint answered, or has been silent for [`SETTLE`] without refusing, or the flow ended without a refusal; until
//! then it is like one that is being dialled. Settled, the sums are those of TCP: for a Service port `accepted =
//! connected + rejected`, for an endpoint `picks = connected + failures`, and the picks of a port's endpoints are
//! `accepted + retries - rejected`.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{Dropped, Way};
use crate::{
    balance::{Endpoint, PortState},
    time::Timestamp,
};

/// An endpoint that has not refused for so long counts as reached (as long as a TCP connect may take by default).
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// A connection of a Service port: accepted, and on an endpoint or on its way to one.
#[derive(Debug)]
pub(super) struct Account {
    port: Arc<PortState>,
    placed: Option<Placed>,
}

#[derive(Debug)]
struct Placed {
    endpoint: Endpoint,
    since: Timestamp,
    settled: bool,
}

impl Account {
    pub(super) fn accept(port: Arc<PortState>) -> Self {
        port.accepted.fetch_add(1, Relaxed);
        Self { port, placed: None }
    }

    pub(super) fn is_of(&self, port: &Arc<PortState>) -> bool {
        Arc::ptr_eq(&self.port, port)
    }

    /// The endpoint that it is on.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.placed.as_ref().map(|placed| &placed.endpoint)
    }

    /// It goes to `endpoint`, which a ticket chose.
    pub(super) fn place(&mut self, endpoint: Endpoint, now: Timestamp) {
        self.port.picked.fetch_add(1, Relaxed);
        self.port.active.fetch_add(1, Relaxed);
        self.placed = Some(Placed {
            endpoint,
            since: now,
            settled: false,
        });
    }

    /// Datagrams went one way.
    pub(super) fn moved(&self, way: Way, datagrams: u64, bytes: u64) {
        let (port, endpoint) = (&*self.port, self.endpoint().map(|of| &*of.state));
        let (count, total, own) = match way {
            Way::ToEndpoint => (
                &port.datagrams_to,
                &port.bytes_to,
                endpoint.map(|of| &of.bytes_to),
            ),
            Way::ToClient => (
                &port.datagrams_from,
                &port.bytes_from,
                endpoint.map(|of| &of.bytes_from),
            ),
        };
        count.fetch_add(datagrams, Relaxed);
        total.fetch_add(bytes, Relaxed);
        if let Some(own) = own {
            own.fetch_add(bytes, Relaxed);
        }
    }

    /// Datagrams were dropped on the way.
    pub(super) fn lost(&self, datagrams: u64) {
        self.port.datagrams_dropped.fetch_add(datagrams, Relaxed);
    }

    /// The endpoint answered.
    pub(super) fn answered(&mut self) {
        if let Some(placed) = &mut self.placed {
            placed.endpoint.state.ejection.succeeded();
            settle(placed, &self.port);
        }
    }

    /// Time went by without a refusal.
    pub(super) fn aged(&mut self, now: Timestamp) {
        if let Some(placed) = &mut self.placed
            && now.since(placed.since) >= SETTLE
        {
            settle(placed, &self.port);
        }
    }

    /// The endpoint refused, which is held against it: a failed attempt, or the end of a connection that was made.
    pub(super) fn refused(&mut self, now: Timestamp) -> Option<Endpoint> {
        let placed = self.leave()?;
        placed.endpoint.state.ejection.failed(now);
        if placed.settled {
            self.port.accepted.fetch_add(1, Relaxed);
        } else {
            placed.endpoint.state.failures.fetch_add(1, Relaxed);
            placed.endpoint.state.refused.fetch_add(1, Relaxed);
            self.port.retries.fetch_add(1, Relaxed);
        }
        Some(placed.endpoint)
    }

    /// An attempt at `endpoint`, which a ticket chose, that is not even made. `now` if the endpoint is to blame.
    pub(super) fn failed(&self, endpoint: &Endpoint, blame: Option<Timestamp>) {
        self.port.picked.fetch_add(1, Relaxed);
        endpoint.state.leave(&self.port);
        self.unmade(endpoint);
        if let Some(now) = blame {
            endpoint.state.ejection.failed(now);
        }
    }

    /// Why it goes nowhere; without an endpoint after failed attempts, those are counted already.
    pub(super) fn turned_away(&self, why: Dropped, tried: &[SocketAddr]) {
        let counter = match why {
            Dropped::NoEndpoint if tried.is_empty() => &self.port.refused_no_endpoints,
            Dropped::Policy => &self.port.dropped_policy,
            Dropped::SourceRange => &self.port.dropped_source_range,
            Dropped::NoEndpoint | Dropped::Unmatched | Dropped::Draining => return,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// No socket could be opened for it, which is our fault.
    pub(super) fn unopened(&mut self) {
        if let Some(placed) = self.leave() {
            self.unmade(&placed.endpoint);
        }
    }

    fn unmade(&self, endpoint: &Endpoint) {
        endpoint.state.failures.fetch_add(1, Relaxed);
        self.port.retries.fetch_add(1, Relaxed);
    }

    /// The connection ends and another one begins in its place.
    pub(super) fn renew(&mut self) {
        if let Some(mut placed) = self.leave() {
            settle(&mut placed, &self.port);
            self.port.accepted.fetch_add(1, Relaxed);
        }
    }

    fn leave(&mut self) -> Option<Placed> {
        let placed = self.placed.take()?;
        self.port.active.fetch_sub(1, Relaxed);
        placed.endpoint.state.leave(&self.port);
        Some(placed)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        match self.leave() {
            Some(mut placed) => settle(&mut placed, &self.port),
            None => {
                self.port.rejected.fetch_add(1, Relaxed);
            }
        }
    }
}

fn settle(placed: &mut Placed, port: &PortState) {
    if !placed.settled {
        placed.settled = true;
        placed.endpoint.state.connected.fetch_add(1, Relaxed);
        port.connected.fetch_add(1, Relaxed);
    }
}
