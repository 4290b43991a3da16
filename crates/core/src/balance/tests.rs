//! Round robin held to its promise: exact shares, also around ejected and tried endpoints and across threads.

use std::collections::BTreeMap;

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
