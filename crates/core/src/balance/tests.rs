//! Round robin held to its promise: exact shares, also around ejected and tried endpoints and across threads.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn set(count: u16) -> EndpointSet {
    let endpoints = (0..count)
        .map(|n| Endpoint {
            addr: SocketAddr::from(([127, 0, 0, 1], 8000 + n)),
            state: Arc::default(),
        })
        .collect();
    EndpointSet::new(endpoints, None)
}

fn picks(set: &EndpointSet) -> Vec<u64> {
    set.endpoints()
        .iter()
        .map(|endpoint| endpoint.state.picks.load(Relaxed))
        .collect()
}

#[test]
fn pick_three_endpoints_gives_each_a_third_in_turn() {
    let set = set(3);
    let order: Vec<u16> = (0..6)
        .map(|_| set.pick(&[], Timestamp::default()).unwrap().addr.port())
        .collect();
    assert_eq!(order, [8000, 8001, 8002, 8000, 8001, 8002]);
}

#[test]
fn pick_one_of_three_ejected_splits_two_thousand_exactly() {
    let set = set(3);
    let now = Timestamp::from_millis(1);
    set.endpoints()[2]
        .state
        .ejection
        .eject_until(Timestamp::from_millis(1_000_000));
    (0..2_000).for_each(|_| assert!(set.pick(&[], now).is_some()));
    assert_eq!(picks(&set), [1_000, 1_000, 0]);
}

#[test]
fn pick_all_ejected_ignores_ejection() {
    let set = set(2);
    for endpoint in set.endpoints() {
        endpoint
            .state
            .ejection
            .eject_until(Timestamp::from_millis(10));
    }
    (0..10).for_each(|_| assert!(set.pick(&[], Timestamp::default()).is_some()));
    assert_eq!(picks(&set), [5, 5]);
}

#[test]
fn pick_all_tried_gives_none() {
    let set = set(2);
    let tried: Vec<SocketAddr> = set
        .endpoints()
        .iter()
        .map(|endpoint| endpoint.addr)
        .collect();
    assert!(set.pick(&tried, Timestamp::default()).is_none());
    assert_eq!(
        set.pick(&tried[..1], Timestamp::default()).unwrap().addr,
        tried[1]
    );
    assert!(
        EndpointSet::new(Vec::new(), None)
            .pick(&[], Timestamp::default())
            .is_none()
    );
}

#[test]
fn pick_from_many_threads_stays_exact() {
    let set = set(5);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                (0..1_000).for_each(|_| assert!(set.pick(&[], Timestamp::default()).is_some()));
            });
        }
    });
    assert_eq!(picks(&set), [1_600; 5]);
}

#[test]
fn new_after_a_predecessor_goes_on_with_its_ticket() {
    let first = set(3);
    first.pick(&[], Timestamp::default());
    let second = EndpointSet::new(first.endpoints().to_vec(), Some(&first));
    assert_eq!(
        second.pick(&[], Timestamp::default()).unwrap().addr.port(),
        8001
    );
    let shares: BTreeMap<u16, u64> = second
        .endpoints()
        .iter()
        .map(|e| (e.addr.port(), e.state.picks.load(Relaxed)))
        .collect();
    assert_eq!(shares, BTreeMap::from([(8000, 1), (8001, 1), (8002, 0)]));
}

fn balanced(policy: BalancePolicy, weights: &[u16]) -> EndpointSet {
    let endpoints = set(u16::try_from(weights.len()).unwrap())
        .endpoints()
        .to_vec();
    let weights = weights.iter().map(|n| Weight::new(*n).unwrap()).collect();
    EndpointSet::balanced(
        endpoints,
        Balance {
            policy,
            weights,
            limit: None,
        },
        None,
    )
}

fn limited(count: u16, most: u32) -> EndpointSet {
    let balance = Balance {
        limit: NonZeroU32::new(most),
        ..Balance::default()
    };
    EndpointSet::balanced(set(count).endpoints().to_vec(), balance, None)
}

#[test]
fn pick_one_of_three_full_splits_two_thousand_exactly() {
    let set = limited(3, 1_000);
    set.endpoints()[1].state.active.store(1_000, Relaxed);
    (0..2_000).for_each(|_| assert!(set.pick(&[], Timestamp::default()).is_some()));
    assert_eq!(picks(&set), [1_000, 0, 1_000]);
    assert!(matches!(
        set.pick_for(None, &[], Timestamp::default()).unwrap_err(),
        Unpicked::Full
    ));
    assert!(!set.has_room(Timestamp::default()));
    set.endpoints()[1].state.leave(&PortState::default());
    assert!(set.has_room(Timestamp::default()));
    assert!(set.pick(&[], Timestamp::default()).is_some());
    assert_eq!(picks(&set), [1_000, 1, 1_000]);
}

#[test]
fn pick_beside_full_ones_takes_no_ejected_one_until_all_are_ejected() {
    let set = limited(2, 1);
    let (now, later) = (Timestamp::from_millis(1), Timestamp::from_millis(1_000));
    let [first, second] = [0, 1].map(|n| &set.endpoints()[n].state);
    first.ejection.eject_until(later);
    assert_eq!(set.pick(&[], now).unwrap().addr.port(), 8001);
    assert!(matches!(
        set.pick_for(None, &[], now).unwrap_err(),
        Unpicked::Full
    ));
    assert!(!set.has_room(now) && set.has_room(later));
    second.ejection.eject_until(later);
    assert_eq!(set.pick(&[], now).unwrap().addr.port(), 8000);
    let tried = set.endpoints()[1].addr;
    assert!(matches!(
        set.pick_for(None, &[tried], now).unwrap_err(),
        Unpicked::Full
    ));
    let both: Vec<_> = set.endpoints().iter().map(|of| of.addr).collect();
    assert!(matches!(
        set.pick_for(None, &both, now).unwrap_err(),
        Unpicked::Unusable
    ));
}

#[test]
fn pick_from_many_threads_fills_every_place_and_no_more() {
    let set = limited(5, 100);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| while set.pick(&[], Timestamp::default()).is_some() {});
        }
    });
    assert_eq!(picks(&set), [100; 5]);
    let active = set
        .endpoints()
        .iter()
        .map(|of| of.state.active.load(Relaxed));
    assert_eq!(active.collect::<Vec<_>>(), [100; 5]);
}

fn client(n: u32) -> IpAddr {
    std::net::Ipv4Addr::from(0x7f00_0000 + n).into()
}

fn pick_times(set: &EndpointSet, times: u32) {
    (0..times).for_each(|n| {
        set.pick_for(Some(client(n)), &[], Timestamp::default())
            .unwrap();
    });
}

#[test]
fn pick_three_to_one_is_exact_over_a_cycle_and_smooth() {
    let set = balanced(BalancePolicy::RoundRobin, &[3, 1]);
    let order: Vec<u16> = (0..8)
        .map(|_| set.pick(&[], Timestamp::default()).unwrap().addr.port())
        .collect();
    assert_eq!(order, [8000, 8000, 8001, 8000, 8000, 8000, 8001, 8000]);
}

#[test]
fn pick_weighted_from_many_threads_stays_exact() {
    let set = balanced(BalancePolicy::RoundRobin, &[5, 3, 2]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| pick_times(&set, 1_000));
        }
    });
    assert_eq!(picks(&set), [4_000, 2_400, 1_600]);
}

#[test]
fn pick_weighted_with_the_heavy_one_ejected_keeps_the_others_shares() {
    let set = balanced(BalancePolicy::RoundRobin, &[256, 2, 1]);
    let ejection = &set.endpoints()[0].state.ejection;
    ejection.eject_until(Timestamp::from_millis(10));
    pick_times(&set, 300);
    assert_eq!(picks(&set), [0, 200, 100]);
}

#[test]
fn pick_weight_zero_is_drained_while_another_has_more_under_every_policy() {
    for policy in BalancePolicy::ALL {
        let set = balanced(policy, &[0, 1, 0, 1]);
        pick_times(&set, 400);
        let picks = picks(&set);
        assert_eq!((picks[0], picks[2]), (0, 0), "{policy:?}");
        assert!(picks[1] > 100 && picks[3] > 100, "{policy:?}: {picks:?}");
        let tried = [set.endpoints()[1].addr, set.endpoints()[3].addr];
        assert!(
            set.pick(&tried, Timestamp::default()).is_none(),
            "{policy:?}"
        );
        let drained = set.endpoints()[0].addr;
        assert!(
            set.pick_affine(drained, &[], Timestamp::default(), Turn::Newcomer)
                .is_err()
        );
    }
}

#[test]
fn pick_all_of_weight_zero_is_as_if_none_had_weights() {
    for policy in BalancePolicy::ALL {
        let set = balanced(policy, &[0, 0]);
        pick_times(&set, 100);
        assert!(picks(&set).iter().all(|picks| *picks > 20), "{policy:?}");
    }
}

#[test]
fn pick_ejected_or_tried_goes_elsewhere_under_every_policy() {
    for policy in BalancePolicy::ALL {
        let set = balanced(policy, &[3, 2, 1]);
        let ejection = &set.endpoints()[0].state.ejection;
        ejection.eject_until(Timestamp::from_millis(10));
        let tried = [set.endpoints()[1].addr];
        for n in 0..50 {
            let picked = set.pick_for(Some(client(n)), &tried, Timestamp::default());
            assert_eq!(picked.unwrap().addr.port(), 8002, "{policy:?}");
        }
        let both = [tried[0], set.endpoints()[2].addr];
        let picked = set.pick_for(Some(client(1)), &both, Timestamp::default());
        assert_eq!(picked.unwrap().addr.port(), 8000, "{policy:?}: a guess");
    }
}

#[test]
fn pick_random_follows_the_weights_roughly_and_has_no_pattern() {
    let set = balanced(BalancePolicy::Random, &[3, 1]);
    pick_times(&set, 10_000);
    let picks = picks(&set);
    assert!((7_300..7_700).contains(&picks[0]), "{picks:?}");
    let plain = balanced(BalancePolicy::Random, &[1, 1]);
    let order: Vec<u16> = (0..64)
        .map(|_| plain.pick(&[], Timestamp::default()).unwrap().addr.port())
        .collect();
    assert!(order.windows(2).any(|two| two[0] == two[1]));
}

#[test]
fn pick_least_request_prefers_the_less_loaded_for_its_weight() {
    let set = balanced(BalancePolicy::LeastRequest, &[1, 1]);
    set.endpoints()[0].state.active.store(5, Relaxed);
    for _ in 0..5 {
        assert_eq!(
            set.pick(&[], Timestamp::default()).unwrap().addr.port(),
            8001
        );
    }
    // Both are as loaded now: those five are being connected.
    let weighted = balanced(BalancePolicy::LeastRequest, &[4, 1]);
    weighted.endpoints()[0].state.active.store(2, Relaxed);
    assert_eq!(
        weighted
            .pick(&[], Timestamp::default())
            .unwrap()
            .addr
            .port(),
        8000
    );
}

#[test]
fn pick_maglev_gives_a_client_the_same_endpoint_until_that_is_ejected() {
    let set = balanced(BalancePolicy::Maglev, &[1, 1, 1]);
    let pick = |n, now| set.pick_for(Some(client(n)), &[], now).unwrap().addr;
    let first: Vec<SocketAddr> = (0..300).map(|n| pick(n, Timestamp::default())).collect();
    for (n, was) in (0..).zip(&first) {
        assert_eq!(pick(n, Timestamp::default()), *was);
    }
    assert!(
        picks(&set).iter().all(|picks| *picks > 100),
        "{:?}",
        picks(&set)
    );
    set.endpoints()[0]
        .state
        .ejection
        .eject_until(Timestamp::from_millis(10));
    for (n, was) in (0..).zip(&first) {
        let is = pick(n, Timestamp::default());
        assert_ne!(is.port(), 8000);
        assert!(is == *was || was.port() == 8000, "only its clients move");
        assert_eq!(pick(n, Timestamp::from_millis(10)), *was, "and come back");
    }
}

#[test]
fn pick_peak_ewma_sends_little_to_who_is_slow_and_comes_back_when_that_is_over() {
    let set = balanced(BalancePolicy::PeakEwma, &[1, 1, 1]);
    let now = Timestamp::from_millis(1_000_000);
    let shares = |now: Timestamp, times: [u64; 3]| {
        let before = picks(&set);
        for _ in 0..3_000 {
            let picked = set.pick(&[], now).unwrap();
            let slot = usize::from(picked.addr.port() - 8000);
            let time = Duration::from_millis(times[slot]);
            picked.state.answers.observe(time, now);
            picked.state.leave(&PortState::default());
        }
        let gained = picks(&set).into_iter().zip(before);
        gained.map(|(is, was)| is - was).collect::<Vec<_>>()
    };
    shares(now, [50, 5, 5]);
    let slow = shares(now.after(Duration::from_secs(1)), [50, 5, 5]);
    assert!(slow[0] < 450, "at most 15 per cent: {slow:?}");
    // Nobody asks it, so that its time decays until it is worth a try.
    let later = now.after(Duration::from_mins(2));
    shares(later, [4, 5, 5]);
    let fast = shares(later.after(Duration::from_secs(1)), [4, 5, 5]);
    assert!(fast[0] > 1_500, "{fast:?}");
}

#[test]
fn pick_peak_ewma_without_answers_goes_by_connections() {
    let set = balanced(BalancePolicy::PeakEwma, &[1, 1]);
    set.endpoints()[0].state.active.store(9, Relaxed);
    let picked = set.pick(&[], Timestamp::default()).unwrap();
    assert_eq!(picked.addr.port(), 8001);
}

#[test]
fn pick_by_a_value_is_the_same_endpoint_whoever_asks() {
    let set = balanced(BalancePolicy::Maglev, &[1, 1, 1]);
    let pick = |value: &[u8]| {
        let found = set.pick_by(Some(Key::of(value)), &[], Timestamp::default());
        found.unwrap().addr
    };
    let users: Vec<String> = (0..300).map(|n| format!("user-{n}")).collect();
    let first: Vec<SocketAddr> = users.iter().map(|user| pick(user.as_bytes())).collect();
    for (user, was) in users.iter().zip(&first) {
        assert_eq!(pick(user.as_bytes()), *was);
    }
    assert!(picks(&set).iter().all(|picks| *picks > 100));
}

#[test]
fn request_failed_ejects_half_of_the_endpoints_and_never_the_last() {
    let now = Timestamp::from_millis(1);
    for (count, expected) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
        let set = set(count);
        for _ in 0..20 {
            for endpoint in set.endpoints() {
                set.request_failed(&endpoint.state, now);
            }
        }
        let endpoints = set.endpoints().iter();
        let out = endpoints.filter(|it| it.state.ejection.is_ejected(now));
        assert_eq!(out.count(), expected, "of {count}");
    }
    let set = set(3);
    let first = &set.endpoints()[0].state;
    for _ in 0..3 {
        (0..4).for_each(|_| set.request_failed(first, now));
        first.ejection.succeeded();
    }
    assert!(!first.ejection.is_ejected(now), "five in a row, not in all");
}

#[test]
fn pick_affine_counts_beside_the_tickets() {
    let set = set(2);
    let second = set.endpoints()[1].addr;
    let now = Timestamp::default();
    for _ in 0..3 {
        assert_eq!(
            set.pick_affine(second, &[], now, Turn::Newcomer)
                .unwrap()
                .addr,
            second
        );
    }
    assert!(
        set.pick_affine(second, &[second], now, Turn::Newcomer)
            .is_err()
    );
    pick_times(&set, 4);
    let state = &set.endpoints()[1].state;
    let (picks, affine) = (state.picks.load(Relaxed), state.affine.load(Relaxed));
    assert_eq!((picks, affine), (5, 3));
    assert_eq!(set.endpoints()[0].state.picks.load(Relaxed), picks - affine);
}

fn any_policy() -> impl Strategy<Value = BalancePolicy> {
    prop::sample::select(BalancePolicy::ALL.to_vec())
}

proptest! {
    /// Nothing is chosen that may not be, and something is whenever something may.
    #[test]
    fn pick_is_usable_whenever_anything_is(
        policy in any_policy(),
        endpoints in prop::collection::vec((0_u16..=256, any::<bool>(), any::<bool>()), 1..12),
        from in any::<u32>(),
    ) {
        let weights: Vec<u16> = endpoints.iter().map(|(weight, ..)| *weight).collect();
        let set = balanced(policy, &weights);
        let mut tried = Vec::new();
        for (endpoint, (_, is_ejected, is_tried)) in set.endpoints().iter().zip(&endpoints) {
            if *is_ejected {
                endpoint.state.ejection.eject_until(Timestamp::from_millis(10));
            }
            if *is_tried {
                tried.push(endpoint.addr);
            }
        }
        let drains = weights.iter().any(|weight| *weight > 0);
        let open = |n: usize| (!drains || weights[n] > 0) && !endpoints[n].2;
        let best: Vec<usize> = (0..weights.len()).filter(|n| open(*n) && !endpoints[*n].1).collect();
        let any: Vec<usize> = (0..weights.len()).filter(|n| open(*n)).collect();
        let allowed = if best.is_empty() { any } else { best };
        for n in 0..16 {
            let picked = set.pick_for(Some(client(from.wrapping_add(n) >> 8)), &tried, Timestamp::default());
            let picked = picked.map(|endpoint| usize::from(endpoint.addr.port() - 8000));
            match picked {
                Ok(picked) => prop_assert!(allowed.contains(&picked)),
                Err(_) => prop_assert!(allowed.is_empty()),
            }
        }
        let counted: u64 = picks(&set).iter().sum();
        prop_assert_eq!(counted, if allowed.is_empty() { 0 } else { 16 });
    }
}
