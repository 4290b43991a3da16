//! Balancing and affinity through the Snapshot: what an edit keeps and what it changes.

use std::time::Duration;

use super::*;
use crate::{
    balance::EndpointSet,
    object::{
        AppProtocol, BalancePolicy, Weight,
        annotations::{BALANCE, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ENDPOINT, PROTOCOL},
    },
    snapshot::PortView,
    time::Timestamp,
};

fn weighed(name: &str, last: u8, weight: u16) -> Arc<Object> {
    let mut object = Object::clone(&slice(name, "web", last));
    let Spec::EndpointSlice(slice) = &mut object.spec else {
        unreachable!("a slice")
    };
    Arc::make_mut(slice).endpoints[0].weight = Weight::new(weight).unwrap();
    Arc::new(object)
}

fn web(policy: Option<&str>, affinity: Option<Duration>) -> Arc<Object> {
    let spec = Service {
        client_ip_affinity: affinity,
        ..spec(ClusterIP, &[(80, TCP, None)])
    };
    let mut object = Object::clone(&service("web", spec));
    let annotations = policy.map(|policy| (BALANCE.into(), policy.into()));
    object.meta.annotations = annotations.into_iter().collect();
    Arc::new(object)
}

fn port(bench: &Bench) -> Arc<PortView> {
    Arc::clone(&bench.snapshot.service("ns/web").unwrap().ports[0])
}

fn set(bench: &Bench) -> Arc<EndpointSet> {
    port(bench).cluster.clone().unwrap()
}

#[test]
fn compile_equal_weights_and_policy_keep_the_set_and_others_make_one_with_its_state() {
    let mut bench = Bench::new(Deviations::default());
    let slices = |weight| [weighed("s1", 1, weight), weighed("s2", 3, 1)];
    let mut compile = |service, slices: [Arc<Object>; 2]| {
        let [one, two] = slices;
        bench.file("a", &[service, one, two]).round();
        set(&bench)
    };
    let first = compile(web(None, None), slices(3));
    for _ in 0..5 {
        first.pick(&[], Timestamp::default());
    }
    let same = compile(web(Some("round-robin"), None), slices(3));
    assert!(Arc::ptr_eq(&first, &same), "the same in other words");
    let heavier = compile(web(None, None), slices(4));
    assert!(!Arc::ptr_eq(&first, &heavier));
    assert_eq!(heavier.weight(0), Weight::new(4).unwrap());
    let hashed = compile(web(Some("maglev"), None), slices(4));
    assert_eq!(hashed.balance().policy, BalancePolicy::Maglev);
    let plain = compile(web(Some("nonsense"), None), slices(1));
    assert_eq!(*plain.balance(), crate::balance::Balance::default());
    for set in [heavier, hashed, plain] {
        assert!(Arc::ptr_eq(
            &first.endpoints()[0].state,
            &set.endpoints()[0].state
        ));
    }
}

#[test]
fn compile_limits_hold_for_tcp_and_edits_keep_the_live_state() {
    let limited = |[of_port, of_endpoint]: [&str; 2]| {
        let mut object = Object::clone(&service(
            "web",
            spec(ClusterIP, &[(80, TCP, None), (80, UDP, None)]),
        ));
        object.meta.annotations = [
            (MAX_CONNECTIONS.into(), of_port.into()),
            (MAX_CONNECTIONS_PER_ENDPOINT.into(), of_endpoint.into()),
        ]
        .into();
        Arc::new(object)
    };
    let mut bench = Bench::new(Deviations::default());
    let mut limits = |annotations| {
        let slice = weighed("s1", 1, 1);
        bench.file("a", &[limited(annotations), slice]).round();
        let ports = &bench.snapshot.service("ns/web").unwrap().ports;
        let found = [0, 1].map(|n| {
            let most = [ports[n].state.limit.get(), ports[n].endpoint_limit()];
            most.map(|most| most.map(std::num::NonZeroU32::get))
        });
        (found, set(&bench))
    };
    let (found, first) = limits(["7", "3"]);
    assert_eq!(found, [[Some(7), Some(3)], [None, None]]);
    let (found, second) = limits(["many", "5"]);
    assert_eq!(found, [[None, Some(5)], [None, None]]);
    assert!(Arc::ptr_eq(
        &first.endpoints()[0].state,
        &second.endpoints()[0].state
    ));
}

#[test]
fn compile_change_of_app_protocol_keeps_endpoints_and_counters() {
    let mut bench = Bench::new(Deviations::default());
    let mut compile = |annotation: &str| {
        let mut object = Object::clone(&web(None, None));
        object.meta.annotations = [(PROTOCOL.into(), annotation.into())].into();
        bench
            .file("a", &[Arc::new(object), slice("s1", "web", 1)])
            .round();
        port(&bench)
    };
    let [plain, http] = ["tcp", "http"].map(&mut compile);
    assert_eq!(plain.app.protocol, AppProtocol::Tcp);
    assert_eq!(http.app.protocol, AppProtocol::Http);
    assert!(Arc::ptr_eq(&plain.state, &http.state));
    let [plain, http] = [plain, http].map(|port| port.cluster.clone().unwrap());
    assert!(Arc::ptr_eq(&plain, &http));
}

#[test]
fn compile_affinity_is_kept_by_edits_and_begins_anew_when_switched_on_again() {
    let mut bench = Bench::new(Deviations::default());
    let mut compile = |service, last| {
        bench
            .file("a", &[service, slice("s1", "web", last)])
            .round();
        port(&bench).affinity
    };
    let (short, long) = (Duration::from_secs(5), Duration::from_hours(3));
    assert_eq!(compile(web(None, None), 1), None);
    let first = compile(web(None, Some(long)), 1).unwrap();
    assert_eq!(first.timeout, long);
    let edited = compile(web(Some("maglev"), Some(short)), 3).unwrap();
    assert_eq!((edited.port, edited.timeout), (first.port, short));
    assert_eq!(compile(web(None, None), 3), None);
    let again = compile(web(None, Some(long)), 3).unwrap();
    assert_ne!(again.port, first.port);
}

#[test]
fn pods_get_the_weight_of_their_annotation() {
    let mut bench = Bench::new(Deviations::default());
    let mut heavy = Object::clone(&pod("p1", "a", 1));
    let weight = (crate::object::annotations::WEIGHT.into(), "3".into());
    heavy.meta.annotations = Labels::from([weight]);
    let selecting = Service {
        selector: labels("a"),
        ..spec(ClusterIP, &[(80, TCP, None)])
    };
    let objects = [
        service("web", selecting),
        Arc::new(heavy),
        pod("p2", "a", 2),
    ];
    bench.file("a", &objects).round();
    let weights = &set(&bench).balance().weights.clone();
    assert_eq!(
        weights
            .iter()
            .map(|weight| weight.get())
            .collect::<Vec<_>>(),
        [3, 1]
    );
}
