//! Session affinity where connections and flows are made: the pure tables behind locks. Owns how many there are and which
//! client belongs to which; what is remembered, and for how long, is the table's.
//!
//! A client's table is found by its address and Service port, so that a lock is shared only by the few clients that
//! fall on it, and only where affinity is on. It is held for a lookup and a pick, never across a wait.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use portico_core::{
    affinity::{AffinityTable, Client, ClientAffinity},
    balance::{Endpoint, EndpointSet, Turn, Unpicked},
    flow::routes::{Asker, Stickiness},
    time::Timestamp,
};

use crate::clock;

/// Tables. With ten thousand clients one has about 160 of its [`CLIENTS_PER_TABLE`].
const TABLES: usize = 64;
/// Clients that a table remembers: 65 536 in all.
const CLIENTS_PER_TABLE: usize = 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Affinity {
    tables: Box<[Mutex<AffinityTable>]>,
    seed: u64,
}

/// Who asks and by which rule: what a choice and its outcome are told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sticky {
    rule: ClientAffinity,
    client: Client,
}

impl Sticky {
    /// `None` without affinity, or for a client whose address the kernel did not say.
    pub(crate) fn of(affinity: Option<ClientAffinity>, peer: Option<IpAddr>) -> Option<Self> {
        let (rule, client) = (affinity?, peer?);
        Some(Self::by(Asker { rule, client }))
    }

    fn by(asker: Asker) -> Self {
        let Asker { rule, client } = asker;
        let client = Client {
            port: rule.port,
            addr: client.to_canonical(),
        };
        Self { rule, client }
    }
}

impl Affinity {
    pub(crate) fn new() -> Self {
        let seed = clock::seed();
        let table = |_| Mutex::new(AffinityTable::new(CLIENTS_PER_TABLE, seed));
        Self {
            tables: (0..TABLES).map(table).collect(),
            seed,
        }
    }

    /// The endpoint that the client went to before, if it is in `set` and may still be used, else the set's choice:
    /// from now on that is the client's. Either way its time starts anew. A client whose endpoint is full waits for that
    /// one, as behind a cookie of `HAProxy`.
    pub(crate) fn pick<'s>(
        &self,
        (sticky, turn): (Sticky, Turn<'_>),
        set: &'s EndpointSet,
        tried: &[SocketAddr],
        now: Timestamp,
    ) -> Result<&'s Endpoint, Unpicked> {
        let Sticky { rule, client } = sticky;
        let mut table = self.table(client).ok_or(Unpicked::Unusable)?;
        let before = table.lookup(client, rule.timeout, now);
        let before = before.map(|addr| set.pick_affine(addr, tried, now, turn));
        let endpoint = match before {
            None | Some(Err(Unpicked::Unusable)) => set.pick_for(Some(client.addr), tried, now),
            Some(found) => found,
        }?;
        table.stick(client, endpoint.addr, rule.timeout, now);
        Ok(endpoint)
    }

    /// The endpoint could not be reached: the client is free to go elsewhere.
    pub(crate) fn forget(&self, sticky: Sticky, endpoint: SocketAddr) {
        if let Some(mut table) = self.table(sticky.client) {
            table.forget(sticky.client, endpoint);
        }
    }

    /// Clients that are remembered, and how many were forgotten early for want of room since the start.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let tables = self.tables.iter().map(lock);
        tables.fold((0, 0), |(clients, shed), table| {
            (clients + table.len(), shed + table.shed())
        })
    }

    fn table(&self, client: Client) -> Option<MutexGuard<'_, AffinityTable>> {
        self.tables.get(client.place(self.seed, TABLES)).map(lock)
    }
}

/// For flows, as for connections.
impl Stickiness for Affinity {
    fn pick<'s>(
        &self,
        asker: Asker,
        set: &'s EndpointSet,
        tried: &[SocketAddr],
        now: Timestamp,
    ) -> Option<&'s Endpoint> {
        self.pick((Sticky::by(asker), Turn::Newcomer), set, tried, now)
            .ok()
    }

    fn forget(&self, asker: Asker, endpoint: SocketAddr) {
        self.forget(Sticky::by(asker), endpoint);
    }
}

/// A panic under the lock is a broken invariant of the table, which the next entry point would find too; that must
/// not take other clients' connections with it.
fn lock(table: &Mutex<AffinityTable>) -> MutexGuard<'_, AffinityTable> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc, time::Duration};

    use portico_core::{
        affinity::AffinePort,
        object::Protocol,
        snapshot::{Generation, ServicePortName},
    };

    use super::*;

    fn newcomer(client: u32) -> (Sticky, Turn<'static>) {
        (sticky(client), Turn::Newcomer)
    }

    fn sticky(client: u32) -> Sticky {
        let name = ServicePortName {
            namespace: "ns".into(),
            service: "web".into(),
            port: "".into(),
            protocol: Protocol::Tcp,
        };
        let rule = ClientAffinity {
            port: AffinePort::new(&name, Generation(1)),
            timeout: Duration::from_secs(10),
        };
        let addr = Ipv4Addr::from(0x7f00_0001 + client).into();
        Sticky::of(Some(rule), Some(addr)).unwrap()
    }

    fn set(numbers: impl IntoIterator<Item = u8>) -> EndpointSet {
        let endpoint = |n| Endpoint {
            addr: ([10, 0, 0, n], 80).into(),
            state: Arc::default(),
        };
        EndpointSet::new(numbers.into_iter().map(endpoint).collect(), None)
    }

    #[test]
    fn pick_twenty_thousand_clients_keeps_each_at_its_endpoint_and_forgets_none() {
        let (affinity, set) = (Affinity::new(), set(0..7));
        let now = Timestamp::from_millis(1);
        let pick = |n, now| affinity.pick(newcomer(n), &set, &[], now).unwrap().addr;
        let first: Vec<_> = (0..20_000).map(|n| pick(n, now)).collect();
        assert_eq!(affinity.counts(), (20_000, 0));
        let again: Vec<_> = (0..20_000).rev().map(|n| pick(n, now)).collect();
        assert!(first.iter().eq(again.iter().rev()));
    }

    #[test]
    fn pick_of_more_clients_than_fit_stays_within_the_bound_and_counts() {
        let (affinity, set) = (Affinity::new(), set(0..2));
        let now = Timestamp::from_millis(1);
        for n in 0..100_000 {
            let _ = affinity.pick(newcomer(n), &set, &[], now);
        }
        let (clients, shed) = affinity.counts();
        assert!(clients <= TABLES * CLIENTS_PER_TABLE);
        assert_eq!(u64::try_from(clients).unwrap() + shed, 100_000);
    }

    #[test]
    fn pick_affine_draws_no_ticket_and_others_stay_in_turn() {
        let (affinity, set) = (Affinity::new(), set(0..3));
        let now = Timestamp::from_millis(1);
        let last = |endpoint: &Endpoint| match endpoint.addr.ip() {
            IpAddr::V4(addr) => addr.octets()[3],
            IpAddr::V6(_) => unreachable!("only IPv4 here"),
        };
        let mut order = Vec::new();
        for n in 0..6 {
            for _ in 0..5 {
                let picked = affinity.pick(newcomer(0), &set, &[], now).unwrap();
                assert_eq!(last(picked), 0);
            }
            order.push(last(
                affinity.pick(newcomer(1 + n), &set, &[], now).unwrap(),
            ));
        }
        assert_eq!(order, [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn pick_of_an_endpoint_that_went_or_was_tried_goes_elsewhere_and_stays_there() {
        let affinity = Affinity::new();
        let now = Timestamp::from_millis(1);
        let both = set(0..2);
        let first = affinity.pick(newcomer(0), &both, &[], now).unwrap().addr;
        let second = affinity
            .pick(newcomer(0), &both, &[first], now)
            .unwrap()
            .addr;
        assert_ne!(first, second);
        for _ in 0..4 {
            assert_eq!(
                affinity.pick(newcomer(0), &both, &[], now).unwrap().addr,
                second
            );
        }
        let other = set(5..6);
        let third = affinity.pick(newcomer(0), &other, &[], now).unwrap().addr;
        assert_eq!(third, other.endpoints()[0].addr);
    }

    #[test]
    fn pick_after_the_timeout_or_a_refusal_is_a_new_choice() {
        let (affinity, set) = (Affinity::new(), set(0..2));
        let at = |ms| Timestamp::from_millis(ms);
        let pick = |now| affinity.pick(newcomer(0), &set, &[], now).unwrap().addr;
        let first = pick(at(0));
        assert_eq!(pick(at(9_999)), first);
        assert_ne!(pick(at(19_999)), first, "ten seconds after the last one");
        affinity.forget(sticky(0), pick(at(20_000)));
        assert_eq!(pick(at(20_001)), first);
    }
}
