//! Affinity held to its promise under a passed-in clock: sticky, sliding, expiring on time, bounded.

use std::{collections::HashMap as Model, net::Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::object::Protocol;

const HOURS: Duration = Duration::from_hours(3);

fn port(service: &str) -> AffinePort {
    let name = ServicePortName {
        namespace: "ns".into(),
        service: service.into(),
        port: "".into(),
        protocol: Protocol::Tcp,
    };
    AffinePort::new(&name, Generation(1))
}

fn client(n: u32) -> Client {
    Client {
        port: port("web"),
        addr: Ipv4Addr::from(0x7f00_0000 + n).into(),
    }
}

fn endpoint(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 80).into()
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

#[test]
fn lookup_ten_thousand_clients_are_kept_and_expire_on_time() {
    let mut table = AffinityTable::new(65_536, 7);
    for n in 0..10_000_u32 {
        table.stick(client(n), endpoint((n % 7) as u8), HOURS, at(u64::from(n)));
    }
    assert_eq!((table.len(), table.shed()), (10_000, 0));
    let end = |n: u32| u64::from(n) + 10_800_000;
    for n in 0..10_000_u32 {
        let found = table.lookup(client(n), HOURS, at(end(n) - 1));
        assert_eq!(found, Some(endpoint((n % 7) as u8)));
    }
    for n in 0..10_000_u32 {
        assert_eq!(table.lookup(client(n), HOURS, at(end(n))), None);
    }
    assert!(table.is_empty());
}

#[test]
fn stick_more_clients_than_fit_sheds_the_oldest_and_counts() {
    let mut table = AffinityTable::new(10_000, 7);
    for n in 0..15_000_u32 {
        table.stick(client(n), endpoint(1), HOURS, at(u64::from(n)));
        assert!(table.len() <= 10_000);
    }
    assert_eq!((table.len(), table.shed()), (10_000, 5_000));
    assert_eq!(table.lookup(client(4_999), HOURS, at(15_000)), None);
    assert_eq!(
        table.lookup(client(5_000), HOURS, at(15_000)),
        Some(endpoint(1))
    );
}

#[test]
fn stick_clears_expired_ones_away_without_counting_them_as_shed() {
    let mut table = AffinityTable::new(1_000, 7);
    let second = Duration::from_secs(1);
    (0..1_000).for_each(|n| table.stick(client(n), endpoint(1), second, at(0)));
    (1_000..1_500).for_each(|n| table.stick(client(n), endpoint(1), second, at(1_000)));
    assert_eq!((table.len(), table.shed()), (500, 0));
}

#[test]
fn stick_again_slides_the_end() {
    let mut table = AffinityTable::new(8, 7);
    let timeout = Duration::from_secs(10);
    table.stick(client(1), endpoint(1), timeout, at(0));
    table.stick(client(1), endpoint(1), timeout, at(9_000));
    assert_eq!(
        table.lookup(client(1), timeout, at(18_999)),
        Some(endpoint(1))
    );
    assert_eq!(table.lookup(client(1), timeout, at(19_000)), None);
}

#[test]
fn lookup_follows_the_timeout_in_force_now() {
    let mut table = AffinityTable::new(8, 7);
    table.stick(client(1), endpoint(1), Duration::from_secs(10), at(0));
    let longer = Duration::from_mins(1);
    assert_eq!(
        table.lookup(client(1), longer, at(30_000)),
        Some(endpoint(1))
    );
    let shorter = Duration::from_secs(5);
    assert_eq!(table.lookup(client(1), shorter, at(30_000)), None);
}

#[test]
fn forget_leaves_a_client_that_went_elsewhere() {
    let mut table = AffinityTable::new(8, 7);
    table.stick(client(1), endpoint(2), HOURS, at(0));
    table.forget(client(1), endpoint(1));
    assert_eq!(table.lookup(client(1), HOURS, at(1)), Some(endpoint(2)));
    table.forget(client(1), endpoint(2));
    assert_eq!(table.lookup(client(1), HOURS, at(1)), None);
}

#[test]
fn ports_and_times_of_switching_on_are_told_apart() {
    let mut table = AffinityTable::new(8, 7);
    table.stick(client(1), endpoint(1), HOURS, at(0));
    let other = Client {
        port: port("api"),
        ..client(1)
    };
    assert_eq!(table.lookup(other, HOURS, at(0)), None);
    let name = ServicePortName {
        namespace: "ns".into(),
        service: "web".into(),
        port: "".into(),
        protocol: Protocol::Tcp,
    };
    let again = Client {
        port: AffinePort::new(&name, Generation(2)),
        ..client(1)
    };
    assert_eq!(table.lookup(again, HOURS, at(0)), None);
}

#[derive(Debug, Clone)]
enum Act {
    Stick(u32, u8),
    Lookup(u32),
    Forget(u32, u8),
}

fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
    let act = prop_oneof![
        (0..24_u32, 0..3_u8).prop_map(|(client, endpoint)| Act::Stick(client, endpoint)),
        (0..24_u32).prop_map(Act::Lookup),
        (0..24_u32, 0..3_u8).prop_map(|(client, endpoint)| Act::Forget(client, endpoint)),
    ];
    prop::collection::vec((0..400_u64, act), 0..200)
}

proptest! {
    /// Against a model without a bound: what the table remembers is right and in time, and what it has forgotten
    /// early was shed and counted.
    #[test]
    fn table_agrees_with_an_unbounded_one_but_for_what_it_shed(acts in acts(), capacity in 1..32_usize) {
        let timeout = Duration::from_secs(2);
        let mut table = AffinityTable::new(capacity, 1);
        let mut model: Model<u32, (u8, u64)> = Model::new();
        let (mut now, mut missing) = (1, 0);
        for (pause, act) in acts {
            now += pause;
            match act {
                Act::Stick(n, to) => {
                    table.stick(client(n), endpoint(to), timeout, at(now));
                    model.insert(n, (to, now));
                }
                Act::Forget(n, from) => {
                    table.forget(client(n), endpoint(from));
                    if model.get(&n).is_some_and(|(to, _)| *to == from) {
                        model.remove(&n);
                    }
                }
                Act::Lookup(n) => {
                    let wanted = model.get(&n).filter(|(_, last)| now - last < 2_000);
                    let wanted = wanted.map(|(to, _)| endpoint(*to));
                    let found = table.lookup(client(n), timeout, at(now));
                    if found.is_none() && wanted.is_some() {
                        missing += 1;
                        model.remove(&n);
                    } else {
                        prop_assert_eq!(found, wanted);
                    }
                }
            }
            prop_assert!(table.len() <= capacity);
        }
        prop_assert!(missing <= table.shed());
        if capacity >= 24 {
            prop_assert_eq!(table.shed(), 0);
        }
    }
}
