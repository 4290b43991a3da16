//! What a draw means under each policy. Owns immutable selectors, built once with their set; every number comes from
//! a ticket or from the client's address, so that the same draw gives the same slot.

use std::{net::IpAddr, sync::atomic::Ordering::Relaxed};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Balance, Endpoint, EndpointSet, Tickets, cycle::Cycle, maglev};
use crate::{object::BalancePolicy, time::Timestamp};

/// What maglev goes by: the same endpoint for the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A client's address.
    Client(IpAddr),
    /// The hash of something else.
    Hash(u64),
}

impl Key {
    /// Of a value, such as that of a header.
    pub fn of(value: &[u8]) -> Self {
        Self::Hash(xxh3_64_with_seed(value, 3))
    }

    fn hash(self) -> u64 {
        match self {
            Self::Client(addr) => maglev::hash_of(addr),
            Self::Hash(hash) => hash,
        }
    }
}

/// What a draw may depend on beside its ticket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    pub(super) key: Option<Key>,
    pub(super) now: Timestamp,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) enum Selector {
    /// Slot after slot.
    RoundRobin,
    /// Entry after entry of the cycle.
    Weighted(Cycle),
    /// Any entry of the cycle, or any slot without one.
    Random(Option<Cycle>),
    /// The less loaded of two slots.
    LeastRequest,
    /// Of two slots the one that is likely to answer first.
    PeakEwma,
    /// The slot of the client's address.
    Maglev(maglev::Table),
}

impl Selector {
    pub(super) fn new(endpoints: &[Endpoint], balance: &Balance) -> Self {
        let cycle = || Cycle::of(&balance.weights);
        match balance.policy {
            BalancePolicy::RoundRobin => cycle().map_or(Self::RoundRobin, Self::Weighted),
            BalancePolicy::Random => Self::Random(cycle()),
            BalancePolicy::LeastRequest => Self::LeastRequest,
            BalancePolicy::PeakEwma => Self::PeakEwma,
            BalancePolicy::Maglev => Self::Maglev(maglev::Table::of(endpoints, &balance.weights)),
        }
    }

    pub(super) fn scaled_to(&self) -> Option<usize> {
        match self {
            Self::Weighted(cycle) | Self::Random(Some(cycle)) if cycle.is_scaled => {
                Some(cycle.slots.len())
            }
            _ => None,
        }
    }

    /// How many draws to make before the first usable endpoint will do. The one usable endpoint may have a single
    /// place in the cycle.
    pub(super) fn bound(&self, endpoints: usize) -> u64 {
        let places = match self {
            Self::Weighted(cycle) | Self::Random(Some(cycle)) => cycle.slots.len(),
            _ => endpoints,
        };
        places as u64 * 8 + 64
    }

    /// One draw; `None` when it falls on an endpoint that `at` does not give.
    pub(super) fn draw<'s>(
        &self,
        draw: Draw,
        (tickets, attempt): (&Tickets, u64),
        at: impl Fn(usize) -> Option<&'s Endpoint>,
        set: &'s EndpointSet,
    ) -> Option<&'s Endpoint> {
        let entry = |slots: &[u32], place: usize| {
            let slot = slots.get(place)?;
            at(usize::try_from(*slot).ok()?)
        };
        match self {
            Self::RoundRobin => at(set.nth(tickets.draw())),
            Self::Weighted(cycle) => {
                let place = tickets.draw() % (cycle.slots.len() as u64).max(1);
                entry(&cycle.slots, usize::try_from(place).ok()?)
            }
            Self::Random(None) => at(below(mix(tickets.draw()), set.len())),
            Self::Random(Some(cycle)) => {
                let place = below(mix(tickets.draw()), cycle.slots.len());
                entry(&cycle.slots, place)
            }
            Self::LeastRequest => less_loaded(mix(tickets.draw()), &at, set, |_| None),
            Self::PeakEwma => {
                let time = |endpoint: &Endpoint| endpoint.state.answers.micros(draw.now);
                less_loaded(mix(tickets.draw()), &at, set, time)
            }
            Self::Maglev(table) => {
                let hash = match draw.key {
                    Some(key) => key.hash(),
                    None => mix(tickets.draw()),
                };
                at(usize::try_from(table.slot(hash, attempt)?).ok()?)
            }
        }
    }
}

/// Of two different slots the one with fewer connections (or requests) for its weight, each counted as
/// what it costs there, where both say so: whoever has not been asked yet is neither better nor worse. Of one usable slot, that.
fn less_loaded<'s>(
    chance: u64,
    at: impl Fn(usize) -> Option<&'s Endpoint>,
    set: &EndpointSet,
    cost: impl Fn(&Endpoint) -> Option<u64>,
) -> Option<&'s Endpoint> {
    let count = set.len();
    let one = below(chance, count);
    // Of the others, each with the same chance.
    let step = 1 + below(mix(chance), count.saturating_sub(1).max(1));
    let other = (one + step) % count.max(1);
    match (at(one), at(other)) {
        (Some(a), Some(b)) => {
            // The load that a connection more would make; weight 0 counts as 1, where all have it.
            let (of_a, of_b) = cost(a).zip(cost(b)).unwrap_or((1, 1));
            let load = |endpoint: &Endpoint, cost: u64| {
                let active = u128::from(endpoint.state.active.load(Relaxed)) + 1;
                active * u128::from(cost)
            };
            let weight = |slot| u128::from(set.weight(slot).get().max(1));
            let is_lighter = load(a, of_a) * weight(other) <= load(b, of_b) * weight(one);
            Some(if is_lighter { a } else { b })
        }
        (a, b) => a.or(b),
    }
}

/// A number below `count`, in proportion to where `hash` lies in its range.
fn below(hash: u64, count: usize) -> usize {
    let scaled = (u128::from(hash) * count as u128) >> 64;
    usize::try_from(scaled).unwrap_or_default()
}

/// `SplitMix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014): successive
/// tickets give numbers without a pattern.
pub(super) const fn mix(ticket: u64) -> u64 {
    let mut bits = ticket.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
