//! Plans held to their promise: diff of equal is empty, applying a plan gives what is wanted, shapes change whole.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    balance::{Endpoint, EndpointSet},
    object::{AppProtocol, Origin, Position, Service, TrafficPolicy, service::IpFamily},
    snapshot::ServicePortName,
};

const NODE: IpAddr = any_address(IpFamily::IPv4);
const NODE_V6: IpAddr = any_address(IpFamily::IPv6);

fn vip(n: u8) -> IpAddr {
    IpAddr::from([127, 96, 1, n])
}

fn view(name: &str, frontends: &[(IpAddr, u16)], endpoints: usize) -> Arc<ServiceView> {
    let name: Arc<str> = name.into();
    let endpoint = |n| Endpoint {
        addr: ([127, 0, 0, 1], 9000 + u16::try_from(n).unwrap()).into(),
        state: Arc::default(),
    };
    let endpoints: Vec<_> = (0..endpoints).map(endpoint).collect();
    let any = !endpoints.is_empty();
    let port = PortView {
        name: Arc::new(ServicePortName {
            namespace: "default".into(),
            service: Arc::clone(&name),
            port: "".into(),
            protocol: Protocol::Tcp,
        }),
        family: IpFamily::IPv4,
        number: 80,
        node_port: None,
        cluster: Some(Arc::new(EndpointSet::new(endpoints, None))),
        local: None,
        any,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source: crate::object::SourceAddress::default(),
        app: crate::object::Application::default(),
        proxy: crate::object::ProxyProtocol::default(),
        state: Arc::default(),
    };
    let key = |(addr, port): &(IpAddr, u16)| {
        let kind = if addr.is_unspecified() {
            FrontendKind::NodePort
        } else {
            FrontendKind::ClusterIP
        };
        (
            FrontendKey {
                scope: Scope::HOST,
                addr: *addr,
                port: *port,
                protocol: Protocol::Tcp,
            },
            kind,
            0,
        )
    };
    Arc::new(ServiceView {
        namespace: "default".into(),
        name,
        origin: Origin {
            file: "test".into(),
            position: Position::default(),
            marks: Arc::from([]),
        },
        spec: Arc::new(service()),
        cluster_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        slices: Vec::new(),
        ports: vec![Arc::new(port)],
        frontends: frontends.iter().map(key).collect(),
    })
}

fn service() -> Service {
    Service::default()
}

fn step(before: Option<&Arc<ServiceView>>, after: Option<&Arc<ServiceView>>) -> Vec<Transition> {
    vec![Transition {
        before: before.cloned(),
        after: after.cloned(),
    }]
}

fn binds(plan: &ListenerPlan) -> Vec<(Bind, u16, Mode)> {
    plan.bind
        .iter()
        .map(|(key, mode, _)| (key.bind, key.port, *mode))
        .collect()
}

#[test]
fn apply_node_port_on_a_vips_number_absorbs_it_and_gives_it_back() {
    let mut table = ListenerTable::new(100);
    let a = view("a", &[(vip(1), 30080)], 1);
    let b = view("b", &[(vip(2), 80), (NODE, 30080)], 1);
    assert_eq!(
        binds(&table.apply(&step(None, Some(&a)))),
        [(Bind::Address(vip(1)), 30080, Mode::Listening)]
    );
    let plan = table.apply(&step(None, Some(&b)));
    assert_eq!(
        binds(&plan),
        [
            (Bind::Address(vip(2)), 80, Mode::Listening),
            (Bind::Any, 30080, Mode::Listening)
        ]
    );
    assert_eq!(
        plan.close.iter().map(|key| key.bind).collect::<Vec<_>>(),
        [Bind::Address(vip(1))]
    );
    let plan = table.apply(&step(Some(&b), None));
    assert_eq!(
        binds(&plan),
        [(Bind::Address(vip(1)), 30080, Mode::Listening)]
    );
    assert_eq!(plan.close.len(), 2);
}

#[test]
fn apply_losing_the_last_endpoint_switches_and_never_rebinds() {
    let mut table = ListenerTable::new(100);
    let with = view("a", &[(vip(1), 80)], 2);
    let without = view("a", &[(vip(1), 80)], 0);
    table.apply(&step(None, Some(&with)));
    let plan = table.apply(&step(Some(&with), Some(&without)));
    assert_eq!(
        (plan.bind.len(), plan.close.len(), plan.switch[0].1),
        (0, 0, Mode::Refusing)
    );
    assert!(
        table
            .apply(&step(Some(&without), Some(&without)))
            .is_empty(),
        "equal is empty"
    );
}

#[test]
fn apply_http_port_listens_without_endpoints_and_as_another_protocol_keeps_its_socket() {
    let mut table = ListenerTable::new(100);
    let speaks = |protocol| {
        let mut view = Arc::into_inner(view("a", &[(vip(1), 80)], 0)).unwrap();
        Arc::get_mut(&mut view.ports[0]).unwrap().app.protocol = protocol;
        Arc::new(view)
    };
    let [tcp, http] = [AppProtocol::Tcp, AppProtocol::H2c].map(speaks);
    let plan = table.apply(&step(None, Some(&http)));
    let bind = Bind::Address(vip(1));
    assert_eq!(binds(&plan), [(bind, 80, Mode::Listening)]);
    let plan = table.apply(&step(Some(&http), Some(&tcp)));
    assert_eq!((plan.bind.len(), plan.close.len()), (0, 0));
    assert_eq!(plan.switch[0].1, Mode::Refusing);
}

#[test]
fn apply_shared_wildcard_refuses_only_when_nobody_can_serve() {
    let mut table = ListenerTable::new(100);
    let node = view("a", &[(NODE, 30080)], 0);
    assert_eq!(
        binds(&table.apply(&step(None, Some(&node)))),
        [(Bind::Any, 30080, Mode::Refusing)]
    );
    let absorbed = view("b", &[(vip(1), 30080)], 1);
    let plan = table.apply(&step(None, Some(&absorbed)));
    assert_eq!(
        plan.switch
            .iter()
            .map(|(_, mode)| *mode)
            .collect::<Vec<_>>(),
        [Mode::Listening]
    );
}

#[test]
fn apply_over_budget_collapses_the_most_used_number() {
    let mut table = ListenerTable::new(10);
    let mut plan = ListenerPlan::default();
    for n in 0..20 {
        plan = table.apply(&step(
            None,
            Some(&view(&format!("s{n}"), &[(vip(n), 80)], 1)),
        ));
    }
    assert_eq!(table.len(), 1);
    assert!(plan.is_empty(), "the twentieth needs no socket of its own");
    assert!(table.is_declared(vip(3), 80) && !table.is_declared(vip(3), 81));
}

proptest! {
    /// Whatever the order of changes, the sockets that the plans leave are those that a fresh table would bind.
    #[test]
    fn apply_any_sequence_equals_a_fresh_table(changes in prop::collection::vec((0_u8..4, 0_u8..4, 0_usize..2, any::<bool>()), 0..30)) {
        let mut table = ListenerTable::new(1000);
        let mut views: BTreeMap<u8, Arc<ServiceView>> = BTreeMap::new();
        let mut sockets: BTreeMap<ListenerKey, Mode> = BTreeMap::new();
        for (name, shape, endpoints, remove) in changes {
            let frontends = match shape {
                0 => vec![(vip(name), 80)],
                1 => vec![(vip(name), 30080)],
                2 => vec![(vip(name), 80), (NODE, 30080 + u16::from(name))],
                _ => vec![],
            };
            let after = (!remove).then(|| view(&format!("s{name}"), &frontends, endpoints));
            let before = views.remove(&name);
            let plan = table.apply(&step(before.as_ref(), after.as_ref()));
            for key in &plan.close { prop_assert!(sockets.remove(key).is_some()); }
            for (key, mode, _) in &plan.bind { prop_assert!(sockets.insert(*key, *mode).is_none()); }
            for (key, mode) in &plan.switch { prop_assert!(sockets.insert(*key, *mode).is_some_and(|old| old != *mode)); }
            views.extend(after.map(|after| (name, after)));
        }
        let mut fresh = ListenerTable::new(1000);
        let all: Vec<Transition> = views.values().map(|v| Transition { before: None, after: Some(Arc::clone(v)) }).collect();
        let wanted: BTreeMap<ListenerKey, Mode> = fresh.apply(&all).bind.into_iter().map(|(key, mode, _)| (key, mode)).collect();
        prop_assert_eq!(sockets, wanted);
    }
}

#[test]
fn apply_over_budget_leaves_a_number_that_is_kept_apart_and_collapses_the_next() {
    let apart = BTreeSet::from([(Protocol::Tcp, 53)]);
    let mut table = ListenerTable::new(6).keeping_apart(apart);
    for n in 0..8 {
        let ports: &[u16] = if n < 3 { &[53, 80] } else { &[53] };
        let frontends: Vec<_> = ports.iter().map(|port| (vip(n), *port)).collect();
        table.apply(&step(None, Some(&view(&format!("s{n}"), &frontends, 1))));
    }
    let wildcards: Vec<u16> = table
        .running
        .keys()
        .filter(|key| key.bind == Bind::AnyLoopback)
        .map(|key| key.port)
        .collect();
    assert_eq!((wildcards, table.len()), (vec![80], 9));
}

#[test]
fn apply_external_address_on_a_collapsed_number_gives_each_its_own_socket() {
    let mut table = ListenerTable::new(2);
    for n in 0..4 {
        let one = view(&format!("s{n}"), &[(vip(n), 80)], 1);
        table.apply(&step(None, Some(&one)));
    }
    assert_eq!(table.len(), 1);
    let lan = view("lan", &[([10, 0, 0, 5].into(), 80)], 1);
    let plan = table.apply(&step(None, Some(&lan)));
    assert_eq!(
        (plan.bind.len(), plan.close.len()),
        (5, 1),
        "the loopback device does not hear 10.0.0.5"
    );
}

#[test]
fn apply_ipv6_address_beside_a_node_port_keeps_its_own_socket() {
    let mut table = ListenerTable::new(100);
    let v6: IpAddr = "::1".parse().unwrap();
    let external = view("a", &[(v6, 30080)], 1);
    let node = view("b", &[(NODE, 30080)], 0);
    table.apply(&step(None, Some(&external)));
    let plan = table.apply(&step(None, Some(&node)));
    assert_eq!(binds(&plan), [(Bind::Any, 30080, Mode::Refusing)]);
    assert!(plan.close.is_empty());
}

#[test]
fn apply_ipv6_node_port_absorbs_the_addresses_of_its_family_alone() {
    let mut table = ListenerTable::new(100);
    let v6: IpAddr = "fd00:10:96::7".parse().unwrap();
    let vips = view("a", &[(vip(1), 30080), (v6, 30080)], 1);
    table.apply(&step(None, Some(&vips)));
    let node = view("b", &[(NODE_V6, 30080)], 0);
    let plan = table.apply(&step(None, Some(&node)));
    assert_eq!(
        binds(&plan),
        [(Bind::AnyV6, 30080, Mode::Listening)],
        "it listens for the address that it hears"
    );
    let closed: Vec<_> = plan.close.iter().map(|key| key.bind).collect();
    assert_eq!(closed, [Bind::Address(v6)]);
    assert!(table.is_declared("fd00::1".parse().unwrap(), 30080));
    assert!(!table.is_declared([10, 0, 0, 1].into(), 30080));
    let both = view("b", &[(NODE, 30080), (NODE_V6, 30080)], 0);
    let plan = table.apply(&step(Some(&node), Some(&both)));
    assert_eq!(binds(&plan), [(Bind::Any, 30080, Mode::Listening)]);
    let plan = table.apply(&step(Some(&both), None));
    let back: Vec<_> = plan.bind.iter().map(|(key, ..)| key.bind).collect();
    assert_eq!(back, [Bind::Address(vip(1)), Bind::Address(v6)]);
}

fn hears(key: &ListenerKey, addr: IpAddr, port: u16) -> bool {
    let on_device = match key.bind {
        Bind::Address(bound) => bound == addr,
        Bind::Any => addr.is_ipv4(),
        Bind::AnyLoopback => addr.is_ipv4() && addr.is_loopback(),
        Bind::AnyV6 => addr.is_ipv6(),
    };
    on_device && key.port == port
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    /// Also under a budget every frontend is heard by exactly one socket, in the right mode, and no socket is idle.
    #[test]
    fn apply_any_sequence_under_a_budget_leaves_each_frontend_one_socket(
        budget in 1_usize..6,
        changes in prop::collection::vec((0_u8..6, 0_u8..7, 0_usize..2, any::<bool>()), 0..40),
    ) {
        let mut table = ListenerTable::new(budget);
        let mut views: BTreeMap<u8, Arc<ServiceView>> = BTreeMap::new();
        let mut sockets: BTreeMap<ListenerKey, Mode> = BTreeMap::new();
        for (name, shape, endpoints, remove) in changes {
            let frontends = match shape {
                0 | 1 => vec![(vip(name), 80)],
                2 => vec![(vip(name), 30080), (IpAddr::from([10, 0, 0, name]), 80)],
                3 => vec![(vip(name), 80), (NODE, 30080 + u16::from(name))],
                4 => vec![(IpAddr::from([0, 0, 0, 0, 0, 0, 0, u16::from(name) + 1]), 30080), (vip(name), 80)],
                5 => vec![(NODE_V6, 30080 + u16::from(name)), (vip(name), 30080)],
                _ => vec![],
            };
            let after = (!remove).then(|| view(&format!("s{name}"), &frontends, endpoints));
            let before = views.remove(&name);
            let plan = table.apply(&step(before.as_ref(), after.as_ref()));
            for key in &plan.close { prop_assert!(sockets.remove(key).is_some()); }
            for (key, mode, services) in &plan.bind {
                prop_assert!(!services.is_empty());
                prop_assert!(sockets.insert(*key, *mode).is_none());
            }
            for (key, mode) in &plan.switch { prop_assert!(sockets.insert(*key, *mode).is_some_and(|old| old != *mode)); }
            views.extend(after.map(|after| (name, after)));
        }
        let mut wanted: BTreeMap<ListenerKey, bool> = BTreeMap::new();
        for (key, kind, index) in views.values().flat_map(|view| view.frontends.iter().map(move |(k, kind, at)| (k, *kind, &view.ports[*at]))) {
            let listens = mode_of(index, kind) == Mode::Listening;
            let heard: Vec<_> = sockets.keys().filter(|socket| hears(socket, key.addr, key.port)).collect();
            prop_assert_eq!(heard.len(), 1, "{:?} by {:?}", key, heard);
            *wanted.entry(*heard[0]).or_default() |= listens;
        }
        let modes: BTreeMap<ListenerKey, bool> = sockets.into_iter().map(|(key, mode)| (key, mode == Mode::Listening)).collect();
        prop_assert_eq!(modes, wanted);
    }
}

#[test]
fn table_sharing_a_port_serves_its_addresses_by_one_wildcard() {
    let (web, shop) = (
        view("web", &[(vip(1), 80), (vip(1), 443)], 1),
        view("shop", &[(vip(2), 80)], 0),
    );
    let mut table = ListenerTable::new(100).sharing([80].into());
    let plan = table.apply(&[
        Transition {
            before: None,
            after: Some(Arc::clone(&web)),
        },
        Transition {
            before: None,
            after: Some(shop),
        },
    ]);
    let bound: Vec<_> = plan
        .bind
        .iter()
        .map(|(key, mode, _)| (key.bind, key.port, *mode))
        .collect();
    assert_eq!(
        bound,
        [
            (Bind::Address(vip(1)), 443, Mode::Listening),
            (Bind::Any, 80, Mode::Listening),
        ]
    );
    let plan = table.apply(&[Transition {
        before: Some(web),
        after: None,
    }]);
    assert_eq!(
        plan.switch.len(),
        1,
        "nobody is left that can serve: {plan:?}"
    );
    assert_eq!(plan.close.len(), 1);
}

#[test]
fn table_of_a_scope_has_keys_of_its_own_and_ends_whole() {
    let mut table = ListenerTable::new(100).of(Scope(3));
    let a = view("a", &[(vip(1), 80), (NODE, 30080)], 1);
    let plan = table.apply(&step(None, Some(&a)));
    assert_eq!(plan.bind.len(), 2);
    assert!(plan.bind.iter().all(|(key, ..)| key.scope == Scope(3)));
    assert!(table.is_declared(vip(1), 80));
    let bound: Vec<_> = plan.bind.iter().map(|(key, ..)| *key).collect();
    assert_eq!(table.end().close, bound);
}

#[test]
fn table_of_a_scope_over_budget_collapses_addresses_of_any_kind() {
    let outside = |n: u8| IpAddr::from([10, 96, 0, n]);
    let v6 = |n: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]);
    let all: Vec<_> = (1..4)
        .map(|n| {
            let name = format!("s{n}");
            view(&name, &[(outside(n), 80), (v6(n.into()), 80)], 1)
        })
        .collect();
    let transitions: Vec<_> = all.iter().flat_map(|view| step(None, Some(view))).collect();
    let mut inside = ListenerTable::new(2).of(Scope(1));
    let bound = binds(&inside.apply(&transitions));
    assert_eq!(
        bound,
        [
            (Bind::AnyLoopback, 80, Mode::Listening),
            (Bind::AnyV6, 80, Mode::Listening)
        ]
    );
    let mut host = ListenerTable::new(2);
    assert_eq!(
        host.apply(&transitions).bind.len(),
        6,
        "the network reaches them there"
    );
}
