//! Maglev's consistent hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI
//! 2016, section 3.4): a table of slots that endpoints fill in turns, each by a permutation of its own. Owns the
//! table; pure, and the same on every machine.

use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Endpoint, selector::mix};
use crate::object::Weight;

/// Two sizes only, because a change of the size moves most clients: the paper asks for a hundred entries an endpoint.
const SMALL: usize = 4093;
const SMALL_ENDPOINTS: usize = 40;
const LARGE: usize = 65_537;

/// Which slot serves which part of the hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table(Box<[u32]>);

/// One endpoint while the table is filled.
struct Filler {
    slot: u32,
    weight: u64,
    credit: u64,
    next: usize,
    skip: usize,
}

impl Table {
    /// The table of these endpoints. Those of weight 0 get no entry, unless all have.
    pub(super) fn of(endpoints: &[Endpoint], weights: &[Weight]) -> Self {
        let is_flat = weights.iter().all(|weight| weight.get() == 0);
        let weight = |index: usize| {
            let given = weights.get(index).copied().unwrap_or_default();
            if is_flat { 1 } else { u64::from(given.get()) }
        };
        let size = if endpoints.len() <= SMALL_ENDPOINTS {
            SMALL
        } else {
            LARGE
        };
        let mut fillers: Vec<Filler> = (0_u32..)
            .zip(endpoints)
            .enumerate()
            .map(|(index, (slot, endpoint))| Filler::new(slot, endpoint.addr, weight(index), size))
            .filter(|filler| filler.weight > 0)
            .collect();
        Self(fill(&mut fillers, size))
    }

    /// The slot for a client at its `attempt`-th draw: the first one is its own, the others are where it goes while
    /// that one is out.
    pub(super) fn slot(&self, client: u64, attempt: u64) -> Option<u32> {
        let hash = if attempt == 0 {
            client
        } else {
            mix(client.wrapping_add(attempt))
        };
        let entry = hash % (self.0.len() as u64).max(1);
        self.0.get(usize::try_from(entry).ok()?).copied()
    }
}

impl Filler {
    fn new(slot: u32, addr: SocketAddr, weight: u64, size: usize) -> Self {
        let hash = |seed, below: usize| {
            let hash = xxh3_64_with_seed(addr.to_string().as_bytes(), seed);
            usize::try_from(hash % below as u64).unwrap_or_default()
        };
        Self {
            slot,
            weight,
            credit: 0,
            next: hash(0, size),
            skip: hash(1, size - 1) + 1,
        }
    }

    /// The first free entry of its permutation. The size is prime, so that it visits every entry.
    fn claim(&mut self, entries: &mut [Option<u32>]) {
        loop {
            let at = self.next;
            self.next = (self.next + self.skip) % entries.len();
            if let Some(free @ None) = entries.get_mut(at) {
                *free = Some(self.slot);
                return;
            }
        }
    }
}

fn fill(fillers: &mut [Filler], size: usize) -> Box<[u32]> {
    let heaviest = fillers.iter().map(|filler| filler.weight).max();
    let Some(heaviest) = heaviest else {
        return Box::default();
    };
    let mut entries = vec![None; size];
    let mut left = size;
    // In each round the heaviest takes a turn, the others in proportion: at least one entry a round.
    while left > 0 {
        for filler in fillers.iter_mut() {
            filler.credit += filler.weight;
            if filler.credit < heaviest {
                continue;
            }
            filler.credit -= heaviest;
            filler.claim(&mut entries);
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    entries.into_iter().flatten().collect()
}

/// What a client's address is hashed to, the same on every machine.
pub(super) fn hash_of(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(addr) => xxh3_64_with_seed(&addr.octets(), 2),
        IpAddr::V6(addr) => xxh3_64_with_seed(&addr.octets(), 2),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

    use proptest::prelude::*;

    use super::*;

    fn endpoints(numbers: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
        let endpoint = |n| Endpoint {
            addr: ([10, 0, 0, n], 80).into(),
            state: Arc::default(),
        };
        numbers.into_iter().map(endpoint).collect()
    }

    fn shares(table: &Table) -> BTreeMap<u32, usize> {
        let mut shares = BTreeMap::new();
        for slot in &table.0 {
            *shares.entry(*slot).or_default() += 1;
        }
        shares
    }

    #[test]
    fn table_gives_equal_endpoints_equal_shares() {
        let table = Table::of(&endpoints(0..10), &[]);
        let shares = shares(&table);
        let (least, most) = (
            shares.values().min().unwrap(),
            shares.values().max().unwrap(),
        );
        assert!(most - least <= 1, "{shares:?}");
    }

    #[test]
    fn table_gives_weights_their_shares_and_zero_none() {
        let weights = [3, 1, 0].map(|n| Weight::new(n).unwrap());
        let shares = shares(&Table::of(&endpoints(0..3), &weights));
        assert_eq!(shares.len(), 2);
        assert!(shares[&0].abs_diff(3 * shares[&1]) <= 3, "{shares:?}");
    }

    #[test]
    fn table_of_nothing_has_no_slot() {
        assert_eq!(Table::of(&[], &[]).slot(7, 0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Who was not at the endpoint that went stays where it is, but for a small part.
        #[test]
        fn table_moves_few_clients_when_an_endpoint_goes(count in 3_u8..30, gone in 0_u8..30) {
            let gone = gone % count;
            let (all, rest) = (endpoints(0..count), endpoints((0..count).filter(|n| *n != gone)));
            let (before, after) = (Table::of(&all, &[]), Table::of(&rest, &[]));
            let (mut kept, mut moved) = (0_u32, 0_u32);
            for client in 0..2_000_u32 {
                let hash = hash_of(Ipv4Addr::from(0x0a01_0000 + client).into());
                let at = |endpoints: &[Endpoint], table: &Table| {
                    endpoints[usize::try_from(table.slot(hash, 0).unwrap()).unwrap()].addr
                };
                let (was, is) = (at(&all, &before), at(&rest, &after));
                if was == all[usize::from(gone)].addr {
                    continue;
                }
                if was == is { kept += 1 } else { moved += 1 }
            }
            prop_assert!(moved * 10 <= kept + moved, "{} of {} moved", moved, kept + moved);
        }
    }
}
