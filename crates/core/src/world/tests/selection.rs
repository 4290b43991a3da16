//! Endpoint selection of whole worlds against the rule of Kubernetes' proxy, written down a second time step by step
//! (`CategorizeEndpoints` and its dispatch by kind of address).

use std::net::SocketAddr;

use super::*;
use crate::{
    object::service::IpFamily,
    snapshot::{ClientPlace, FrontendKind, Verdict},
    world::hints::ZONE_LABEL,
};

/// One endpoint of one slice, as drawn.
#[derive(Debug, Clone)]
struct Drawn {
    last: u8,
    number: u16,
    conditions: Conditions,
    node: Option<&'static str>,
    hints: Hints,
}

#[derive(Debug, Clone)]
struct Policies {
    internal: TrafficPolicy,
    external: TrafficPolicy,
    service_type: ServiceType,
    external_ip: bool,
}

fn names(of: &'static [&'static str]) -> impl Strategy<Value = Vec<Arc<str>>> {
    prop::sample::subsequence(of, 0..=of.len())
        .prop_map(|names| names.into_iter().map(Arc::from).collect())
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let node = prop::sample::select(vec![None, Some("here"), Some("elsewhere")]);
    let hints = (names(&["za", "zb"]), names(&["elsewhere", "here"]));
    (1..5_u8, 9000..9002_u16, any::<[bool; 3]>(), node, hints).prop_map(
        |(last, number, [ready, serving, terminating], node, (zones, nodes))| Drawn {
            last,
            number,
            conditions: Conditions {
                ready,
                serving,
                terminating,
            },
            node,
            hints: Hints { zones, nodes },
        },
    )
}

fn policies() -> impl Strategy<Value = Policies> {
    let policy = || prop::sample::select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local]);
    let service_type = prop::sample::select(vec![ClusterIP, NodePort, LoadBalancer]);
    (policy(), policy(), service_type, any::<bool>()).prop_map(
        |(internal, external, service_type, external_ip)| Policies {
            internal,
            external,
            service_type,
            external_ip,
        },
    )
}

fn slice_object(name: &str, drawn: &Drawn, address_type: AddressType) -> Arc<Object> {
    let slice = EndpointSlice {
        is_for_another_proxy: false,
        service_name: Some("web".into()),
        address_type,
        ports: vec![SlicePort {
            name: "tcp-80".into(),
            protocol: TCP,
            port: Some(drawn.number),
            app_protocol: None,
        }],
        endpoints: vec![SliceEndpoint {
            weight: Weight::default(),
            address: Some([127, 1, 0, drawn.last].into()),
            conditions: drawn.conditions,
            hostname: None,
            node_name: drawn.node.map(Into::into),
            zone: None,
            pod_name: None,
            hints: drawn.hints.clone(),
        }],
    };
    let spec = Spec::EndpointSlice(Arc::new(slice));
    object(Kind::EndpointSlice, name, Labels::new(), spec)
}

fn node(zone: &str) -> Arc<Object> {
    let labels = Labels::from([(ZONE_LABEL.into(), zone.into())]);
    let mut node = Arc::unwrap_or_clone(object(Kind::Node, "here", labels, Spec::Node));
    node.key.namespace = Arc::default();
    Arc::new(node)
}

type Addrs = Vec<SocketAddr>;

/// `select` of the rule: cluster, local, any.
fn select(
    eps: &BTreeMap<SocketAddr, Drawn>,
    s: &Policies,
    zone: Option<&str>,
) -> (Option<Addrs>, Option<Addrs>, bool) {
    let external = s.service_type != ClusterIP || s.external_ip;
    let uses_cluster = s.internal != TrafficPolicy::Local || external;
    let uses_local =
        s.internal == TrafficPolicy::Local || (s.external == TrafficPolicy::Local && external);
    let those = |wanted: &dyn Fn(&Drawn) -> bool| -> Addrs {
        eps.iter()
            .filter(|(_, e)| wanted(e))
            .map(|(addr, _)| *addr)
            .collect()
    };
    let ready = |e: &Drawn| e.conditions.ready;
    let fallback = |e: &Drawn| e.conditions.serving && e.conditions.terminating;
    let local = |e: &Drawn| e.node != Some("elsewhere");
    let for_node = |e: &Drawn| e.hints.nodes.iter().any(|node| &**node == "here");
    let for_zone =
        |e: &Drawn| zone.is_some_and(|zone| e.hints.zones.iter().any(|hint| &**hint == zone));
    let mut any = false;
    let mut cluster = None;
    if uses_cluster {
        let r: Vec<&Drawn> = eps.values().filter(|e| ready(e)).collect();
        let by_node = !r.is_empty()
            && r.iter().all(|e| !e.hints.nodes.is_empty())
            && r.iter().any(|e| for_node(e));
        let by_zone = !r.is_empty()
            && r.iter().all(|e| !e.hints.zones.is_empty())
            && r.iter().any(|e| for_zone(e));
        let mut chosen = those(&|e| {
            ready(e)
                && (if by_node {
                    for_node(e)
                } else {
                    !by_zone || for_zone(e)
                })
        });
        if chosen.is_empty() {
            chosen = those(&fallback);
        }
        any = !chosen.is_empty();
        cluster = Some(chosen);
    }
    if !uses_local {
        return (cluster, None, any);
    }
    any = any || eps.values().any(|e| ready(e) || fallback(e));
    let mut chosen = those(&|e| local(e) && ready(e));
    if chosen.is_empty() {
        chosen = those(&|e| local(e) && fallback(e));
    }
    (cluster, Some(chosen), any)
}

fn addrs(set: &Arc<crate::balance::EndpointSet>) -> Addrs {
    set.endpoints()
        .iter()
        .map(|endpoint| endpoint.addr)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn compile_any_world_selects_and_dispatches_as_the_rule_in_words(
        drawn in prop::collection::vec(drawn(), 0..6),
        policies in policies(),
        zone in prop::sample::select(vec![None, Some("za"), Some("zb")]),
        fqdn: bool,
    ) {
        let mut web = spec(policies.service_type, &[(80, TCP, None)]);
        web.internal_traffic_policy = policies.internal;
        web.external_traffic_policy = policies.external;
        if policies.external_ip {
            web.external_ips = vec![[127, 5, 0, 1].into()];
        }
        let mut objects = vec![service("web", web)];
        objects.extend(zone.map(node));
        let mut eps: BTreeMap<SocketAddr, Drawn> = BTreeMap::new();
        for (index, one) in drawn.iter().enumerate() {
            objects.push(slice_object(&format!("s{index}"), one, AddressType::IPv4));
            let addr = SocketAddr::from(([127, 1, 0, one.last], one.number));
            let rank = |e: &Drawn| (e.node != Some("elsewhere"), e.conditions.ready, e.conditions.serving);
            if eps.get(&addr).is_none_or(|kept| rank(one) > rank(kept)) {
                eps.insert(addr, one.clone());
            }
        }
        if fqdn {
            let last = Drawn { last: 9, number: 9000, conditions: Conditions::READY, node: None, hints: Hints::default() };
            objects.push(slice_object("fqdn", &last, AddressType::Fqdn));
        }
        let mut bench = Bench::new(Deviations::default());
        bench.file("a", &objects).round();
        let view = bench.snapshot.service("ns/web").unwrap();
        let port = &view.ports[0];
        prop_assert_eq!(port.family, IpFamily::IPv4);
        let expected = select(&eps, &policies, zone);
        let got = (port.cluster.as_ref().map(addrs), port.local.as_ref().map(addrs), port.any);
        prop_assert_eq!(&got, &expected);
        let (cluster, local, any) = expected;
        for (_, kind, _) in view.frontends.iter().filter(|(_, kind, _)| *kind != FrontendKind::HealthCheck) {
            for place in [ClientPlace::OnNode, ClientPlace::Elsewhere] {
                let internal = *kind == FrontendKind::ClusterIP;
                let is_local = if internal { policies.internal } else { policies.external } == TrafficPolicy::Local;
                let use_local = is_local && (internal || place == ClientPlace::Elsewhere);
                let chosen = if use_local { &local } else { &cluster }.clone().unwrap_or_default();
                match port.verdict(*kind, place) {
                    Verdict::Forward(set) => prop_assert_eq!(addrs(set), chosen),
                    Verdict::Drop => prop_assert!(chosen.is_empty() && any),
                    Verdict::Refuse => prop_assert!(chosen.is_empty() && !any),
                }
            }
        }
    }
}
