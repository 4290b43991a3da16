//! Session affinity by client address (Kubernetes API reference, `ServiceSpec.sessionAffinity`). Owns which endpoint
//! a client of a Service port last went to, and when; bounded and without a clock. Must not know sets or sockets:
//! the caller says whether an endpoint may still be used.

use std::{
    collections::{BTreeMap, HashMap},
    hash::BuildHasher as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use foldhash::quality::FixedState;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    snapshot::{Generation, ServicePortName},
    time::Timestamp,
};

/// Entries at the old end that every new one may clear away: two, so that a table of expired ones shrinks.
const SWEPT_PER_ENTRY: usize = 2;

/// Session affinity of one Service port, as its current manifest has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAffinity {
    /// Whose clients.
    pub port: AffinePort,
    /// A client is remembered this long after its last new connection.
    pub timeout: Duration,
}

/// A Service port from the moment its affinity was switched on until it is switched off: all of its frontends share
/// it, changes of anything else keep it, and switching it on again starts afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinePort(u64);

impl AffinePort {
    /// The port called `name` with affinity since `since`. Ports are told apart by a hash: two that share one by
    /// accident share clients, which does no harm, for an endpoint is used only if it is in the port's own set.
    pub fn new(name: &ServicePortName, since: Generation) -> Self {
        let mut hash = Xxh3::new();
        for part in [&name.namespace, &name.service, &name.port] {
            hash.update(part.as_bytes());
            hash.update(&[0]);
        }
        hash.update(name.protocol.as_str().as_bytes());
        hash.update(&since.0.to_le_bytes());
        Self(hash.digest())
    }
}

/// A client of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// Where it comes to.
    pub port: AffinePort,
    /// Where it comes from.
    pub addr: IpAddr,
}

impl Client {
    /// Which of `count` tables is this client's, where one lock for all would be too few.
    pub fn place(self, seed: u64, count: usize) -> usize {
        // Another seed than the tables' own, or each would use a part of its buckets only.
        let hash = FixedState::with_seed(!seed).hash_one(self);
        usize::try_from(hash % (count as u64).max(1)).unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    endpoint: SocketAddr,
    order: Order,
    timeout: Duration,
}

/// When a client last connected; the number tells apart those of one instant.
type Order = (Timestamp, u64);

/// Clients and their endpoints: at most as many as its capacity, of which the one that has not connected for longest
/// is shed for a new one.
#[derive(Debug)]
pub struct AffinityTable {
    entries: HashMap<Client, Entry, FixedState>,
    by_age: BTreeMap<Order, Client>,
    capacity: usize,
    number: u64,
    shed: u64,
}

impl AffinityTable {
    /// An empty table for `capacity` clients, at least one. `seed` keeps clients from choosing colliding addresses.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self {
            entries: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_age: BTreeMap::new(),
            capacity: capacity.max(1),
            number: 0,
            shed: 0,
        }
    }

    /// The endpoint of `client` if it has one that has not expired: `now` is before its last new connection plus
    /// `timeout`, which is the one in force now.
    pub fn lookup(
        &mut self,
        client: Client,
        timeout: Duration,
        now: Timestamp,
    ) -> Option<SocketAddr> {
        let entry = self.entries.get(&client)?;
        if is_expired(entry, timeout, now) {
            self.remove(client);
            return None;
        }
        Some(entry.endpoint)
    }

    /// `client` has a new connection to `endpoint`.
    pub fn stick(
        &mut self,
        client: Client,
        endpoint: SocketAddr,
        timeout: Duration,
        now: Timestamp,
    ) {
        self.remove(client);
        self.sweep(now, SWEPT_PER_ENTRY);
        if self.entries.len() >= self.capacity
            && let Some(oldest) = self.oldest()
        {
            self.remove(oldest);
            self.shed = self.shed.saturating_add(1);
        }
        self.number = self.number.wrapping_add(1);
        let order = (now, self.number);
        self.by_age.insert(order, client);
        let entry = Entry {
            endpoint,
            order,
            timeout,
        };
        self.entries.insert(client, entry);
        self.check_invariants();
    }

    /// `endpoint` could not be reached: `client` is free again, unless it has gone elsewhere meanwhile.
    pub fn forget(&mut self, client: Client, endpoint: SocketAddr) {
        let entry = self.entries.get(&client);
        if entry.is_some_and(|entry| entry.endpoint == endpoint) {
            self.remove(client);
        }
        self.check_invariants();
    }

    /// Clears away at most `most` of the oldest, as far as they expired by the time-out of their last connection.
    pub fn sweep(&mut self, now: Timestamp, most: usize) {
        for _ in 0..most {
            let Some(oldest) = self.oldest() else { return };
            let entry = self.entries.get(&oldest);
            if !entry.is_none_or(|entry| is_expired(entry, entry.timeout, now)) {
                return;
            }
            self.remove(oldest);
        }
    }

    /// Number of clients, those included that expired and were not asked about since.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Clients that were forgotten early because the table was full, since the start.
    pub const fn shed(&self) -> u64 {
        self.shed
    }

    fn oldest(&self) -> Option<Client> {
        self.by_age.first_key_value().map(|(_, client)| *client)
    }

    fn remove(&mut self, client: Client) {
        if let Some(entry) = self.entries.remove(&client) {
            self.by_age.remove(&entry.order);
        }
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.entries.len(), self.by_age.len());
        debug_assert!(self.entries.len() <= self.capacity);
    }
}

fn is_expired(entry: &Entry, timeout: Duration, now: Timestamp) -> bool {
    now.since(entry.order.0) >= timeout
}

#[cfg(test)]
mod tests;
