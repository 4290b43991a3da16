//! A filter says what the Snapshot says, for any source and destination, however its sockets came to be.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    balance::{Endpoint, EndpointSet},
    object::{
        Origin, Position, Protocol, ProxyProtocol, Service, TrafficPolicy, service::ServiceType,
    },
    snapshot::{
        FrontendKey, Scope, ServicePortName, ServiceView, Snapshot, SourceRangeReach,
        assemble::assemble,
        compile::Transition,
        plan::{Bind, ListenerKey, ListenerPlan, ListenerTable},
    },
};

fn cluster(reach: SourceRangeReach) -> Arc<Cluster> {
    Arc::new(Cluster {
        service_cidr: "127.96.0.0/16".parse().unwrap(),
        load_balancer_cidr: "127.112.0.0/16".parse().unwrap(),
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        host_addresses: vec!["192.0.2.1".parse().unwrap()],
        source_range_reach: reach,
        ..Cluster::default()
    })
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A Service port's facts that filters depend on.
#[derive(Debug, Clone)]
struct Facts {
    /// Address, and which kind it is.
    frontends: Vec<(IpAddr, FrontendKind)>,
    internal: TrafficPolicy,
    external: TrafficPolicy,
    /// Usable endpoints on the node and anywhere.
    local: bool,
    any: bool,
    ranges: Vec<IpNet>,
    /// Whose headers name the client.
    front_ends: Vec<IpNet>,
}

fn set(some: bool) -> Arc<EndpointSet> {
    let endpoint = Endpoint {
        addr: ([127, 0, 0, 1], 9000).into(),
        state: Arc::default(),
    };
    Arc::new(EndpointSet::new(
        some.then_some(endpoint).into_iter().collect(),
        None,
    ))
}

fn view(name: &str, facts: &Facts) -> Arc<ServiceView> {
    let port = |family| {
        Arc::new(PortView {
            name: Arc::new(ServicePortName {
                namespace: "default".into(),
                service: name.into(),
                port: "".into(),
                protocol: Protocol::Tcp,
            }),
            family,
            number: 80,
            node_port: None,
            cluster: Some(set(facts.any)),
            local: Some(set(facts.any && facts.local)),
            any: facts.any,
            internal_policy: facts.internal,
            external_policy: facts.external,
            affinity: None,
            source: crate::object::SourceAddress::default(),
            app: crate::object::Application::default(),
            proxy: ProxyProtocol {
                send: None,
                accept_from: facts.front_ends.clone().into(),
            },
            state: Arc::default(),
        })
    };
    let key = |addr| FrontendKey {
        scope: Scope::HOST,
        addr,
        port: 80,
        protocol: Protocol::Tcp,
    };
    let frontends = facts.frontends.iter();
    Arc::new(ServiceView {
        namespace: "default".into(),
        name: name.into(),
        origin: Origin {
            file: "test".into(),
            position: Position::default(),
            marks: Arc::from([]),
        },
        spec: Arc::new(Service {
            service_type: ServiceType::LoadBalancer,
            load_balancer_source_ranges: facts.ranges.clone(),
            ..Service::default()
        }),
        cluster_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        slices: Vec::new(),
        ports: vec![port(IpFamily::IPv4), port(IpFamily::IPv6)],
        frontends: frontends
            .map(|(addr, kind)| (key(*addr), *kind, usize::from(addr.is_ipv6())))
            .collect(),
    })
}

/// Listeners with their filters, as the plans have left them.
#[derive(Debug, Default, PartialEq)]
struct Sockets {
    bound: BTreeMap<ListenerKey, Option<Arc<Filter>>>,
}

impl Sockets {
    fn carry_out(&mut self, plan: &ListenerPlan) {
        let mut pending: BTreeMap<ListenerKey, Arc<Filter>> = BTreeMap::new();
        for (key, filter) in &plan.tighten {
            match self.bound.get_mut(key) {
                Some(held) => {
                    assert_eq!(*held, None, "only what had none is tightened before");
                    *held = Some(Arc::clone(filter));
                }
                None => drop(pending.insert(*key, Arc::clone(filter))),
            }
        }
        for (key, ..) in &plan.bind {
            self.bound.insert(*key, pending.remove(key));
        }
        assert!(pending.is_empty(), "a filter without a socket");
        for (key, filter) in &plan.loosen {
            let held = self.bound.get_mut(key).expect("a socket");
            assert!(held.is_some());
            held.clone_from(filter);
        }
        for key in &plan.close {
            let held = self.bound.remove(key).expect("a socket");
            assert_eq!(held, None, "a filter does not outlive its socket's meaning");
        }
    }

    /// Whether a packet gets to the one who accepts, if a socket hears it.
    fn admits(&self, source: IpAddr, destination: IpAddr) -> Option<bool> {
        let covers = |bind| match bind {
            Bind::Address(own) => own == destination,
            _ => destination.is_ipv4(),
        };
        let mut hearing = self.bound.iter().filter(|(key, _)| covers(key.bind));
        let (_, filter) = hearing.next()?;
        assert!(hearing.next().is_none(), "two sockets hear it");
        let filter = filter.as_ref();
        Some(filter.is_none_or(|filter| filter.admits(source, destination)))
    }
}

/// What the data path would say: an address without a frontend is its business too.
fn oracle(snapshot: &Snapshot, source: IpAddr, destination: IpAddr) -> bool {
    let local = (destination, 80).into();
    let Some(frontend) = snapshot.frontend(Scope::HOST, local, 80, Protocol::Tcp) else {
        return true;
    };
    if frontend.kind == FrontendKind::HealthCheck {
        return true;
    }
    let is_dropped = |place| matches!(frontend.port.verdict(frontend.kind, place), Verdict::Drop);
    if frontend.port.proxy.trusts(source) {
        // Whom it speaks for is not known yet: is there anybody who might go on?
        let somebody = frontend
            .sources
            .as_ref()
            .is_none_or(|ranges| !ranges.is_empty());
        return somebody
            && !(is_dropped(ClientPlace::OnNode) && is_dropped(ClientPlace::Elsewhere));
    }
    let place = snapshot.cluster.place_of(Some(source), destination);
    frontend.admits(Some(source)) && !is_dropped(place)
}

const SOURCES: [&str; 14] = [
    "127.0.0.1",
    "127.0.0.9",
    "127.96.0.2",
    "10.1.2.3",
    "10.244.3.4",
    "192.0.2.1",
    "192.0.2.2",
    "198.51.100.7",
    "203.0.113.9",
    "127.112.0.1",
    "::1",
    "fd00::1",
    "fd00::9",
    "2001:db8::1",
];

const FRONTENDS: [(&str, FrontendKind); 8] = [
    ("127.96.0.2", FrontendKind::ClusterIP),
    ("127.96.0.3", FrontendKind::ClusterIP),
    ("127.112.0.1", FrontendKind::LoadBalancer),
    ("127.112.0.2", FrontendKind::LoadBalancer),
    ("198.51.100.7", FrontendKind::ExternalIP),
    ("0.0.0.0", FrontendKind::NodePort),
    ("0.0.0.0", FrontendKind::HealthCheck),
    ("fd00::1", FrontendKind::LoadBalancer),
];

const RANGES: [&str; 7] = [
    "10.0.0.0/8",
    "127.0.0.9/32",
    "127.0.0.0/8",
    "198.51.100.0/24",
    "0.0.0.0/0",
    "fd00::/64",
    "::/0",
];

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)]
}

/// Services with frontends of their own each: a frontend belongs to the Service that its number modulo three names.
fn facts() -> impl Strategy<Value = Vec<Option<Facts>>> {
    let one = (
        prop::sample::subsequence(
            (0..FRONTENDS.len()).collect::<Vec<_>>(),
            0..=FRONTENDS.len(),
        ),
        (policy(), policy(), any::<bool>(), any::<bool>()),
        prop::sample::subsequence(RANGES.to_vec(), 0..=3),
        prop::sample::subsequence(RANGES.to_vec(), 0..=2),
    );
    prop::collection::vec(prop::option::of(one), 3).prop_map(|all| {
        let all = all.into_iter().enumerate();
        all.map(|(owner, one)| {
            one.map(
                |(frontends, (internal, external, local, any), ranges, front_ends)| Facts {
                    frontends: frontends
                        .into_iter()
                        // Both kinds at 0.0.0.0 are one frontend: the same Service's, of which one is left out.
                        .filter(|n| n % 3 == owner && !(*n == 6 && owner == 0))
                        .map(|n| (addr(FRONTENDS[n].0), FRONTENDS[n].1))
                        .collect(),
                    internal,
                    external,
                    local,
                    any,
                    ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
                    front_ends: front_ends
                        .iter()
                        .map(|range| range.parse().unwrap())
                        .collect(),
                },
            )
        })
        .collect()
    })
}

proptest! {
    #[test]
    fn filters_of_any_history_say_what_the_snapshot_says(
        worlds in prop::collection::vec(facts(), 1..5),
        everywhere in any::<bool>(),
        budget in 1_usize..6,
    ) {
        let reach = if everywhere { SourceRangeReach::Everywhere } else { SourceRangeReach::LoadBalancer };
        let cluster = cluster(reach);
        let mut table = ListenerTable::new(budget).guarding(Arc::clone(&cluster));
        let mut sockets = Sockets::default();
        let mut before: Vec<Option<Arc<ServiceView>>> = vec![None; 3];
        for facts in worlds {
            let after: Vec<Option<Arc<ServiceView>>> = facts
                .iter()
                .zip(["a", "b", "c"])
                .map(|(facts, name)| facts.as_ref().map(|facts| view(name, facts)))
                .collect();
            let transitions: Vec<_> = before
                .iter()
                .zip(&after)
                .map(|(before, after)| Transition { before: before.clone(), after: after.clone() })
                .collect();
            sockets.carry_out(&table.apply(&transitions));
            before.clone_from(&after);
            let views = after.into_iter().flatten().collect();
            let snapshot = assemble(Arc::clone(&cluster), views, &[]);
            for source in SOURCES.map(addr) {
                for destination in SOURCES.map(addr) {
                    if source.is_ipv4() != destination.is_ipv4() {
                        continue;
                    }
                    if let Some(admitted) = sockets.admits(source, destination) {
                        let expected = oracle(&snapshot, source, destination);
                        prop_assert_eq!(admitted, expected, "{} to {}", source, destination);
                    }
                }
            }
        }
    }
}

fn one(frontend: (&str, FrontendKind), change: impl Fn(&mut Facts)) -> ListenerPlan {
    let mut facts = Facts {
        frontends: vec![(addr(frontend.0), frontend.1)],
        internal: TrafficPolicy::Cluster,
        external: TrafficPolicy::Cluster,
        local: false,
        any: true,
        ranges: Vec::new(),
        front_ends: Vec::new(),
    };
    change(&mut facts);
    let cluster = cluster(SourceRangeReach::LoadBalancer);
    let mut table = ListenerTable::new(9).guarding(cluster);
    table.apply(&[Transition {
        before: None,
        after: Some(view("a", &facts)),
    }])
}

#[test]
fn filter_nothing_to_drop_is_none() {
    let plan = one(("127.96.0.2", FrontendKind::ClusterIP), |_| {});
    assert!(plan.tighten.is_empty() && plan.loosen.is_empty());
    let everybody = |facts: &mut Facts| facts.ranges = vec!["0.0.0.0/0".parse().unwrap()];
    let plan = one(("127.112.0.1", FrontendKind::LoadBalancer), everybody);
    assert!(plan.tighten.is_empty());
    // Without any endpoint the kernel refuses: nothing is to be dropped.
    let nothing = |facts: &mut Facts| {
        facts.internal = TrafficPolicy::Local;
        facts.any = false;
    };
    assert!(
        one(("127.96.0.2", FrontendKind::ClusterIP), nothing)
            .tighten
            .is_empty()
    );
}

#[test]
fn filter_internal_policy_without_a_local_endpoint_drops_everybody() {
    let plan = one(("127.96.0.2", FrontendKind::ClusterIP), |facts| {
        facts.internal = TrafficPolicy::Local;
    });
    let [(_, filter)] = &plan.tighten[..] else {
        panic!("{plan:?}")
    };
    for source in ["127.0.0.1", "127.96.0.2", "10.1.2.3"] {
        assert!(!filter.admits(addr(source), addr("127.96.0.2")));
    }
}

#[test]
fn filter_external_policy_without_a_local_endpoint_drops_strangers() {
    let plan = one(("0.0.0.0", FrontendKind::NodePort), |facts| {
        facts.external = TrafficPolicy::Local;
    });
    let [(_, filter)] = &plan.tighten[..] else {
        panic!("{plan:?}")
    };
    let admits = |source, destination| filter.admits(addr(source), addr(destination));
    assert!(admits("127.0.0.1", "127.0.0.1"));
    assert!(admits("10.244.0.9", "192.0.2.1"), "a pod");
    assert!(admits("192.0.2.1", "192.0.2.7"), "an address of the host");
    assert!(admits("203.0.113.5", "203.0.113.5"), "the host itself");
    assert!(!admits("203.0.113.5", "192.0.2.1"));
}
