//! Rules of the Service API that show over several rounds: type changes, health checks, hints, zones.

use super::*;
use crate::{
    object::{
        endpoints::{EndpointSubset, Endpoints},
        service::{HEADLESS_LABEL, IpFamilyPolicy, TrafficDistribution},
    },
    snapshot::FrontendKind,
    world::hints::ZONE_LABEL,
};

fn node(name: &str, zone: &str) -> Arc<Object> {
    let labels = Labels::from([(ZONE_LABEL.into(), zone.into())]);
    let mut node = Arc::unwrap_or_clone(object(Kind::Node, name, labels, Spec::Node));
    node.key.namespace = Arc::default();
    Arc::new(node)
}

fn local_balancer() -> Service {
    Service {
        external_traffic_policy: TrafficPolicy::Local,
        ..spec(LoadBalancer, &[(80, TCP, None)])
    }
}

impl Bench {
    fn apply(&mut self, spec: Service) -> Addresses {
        self.file("a", &[service("web", spec), slice("e", "web", 1)])
            .round();
        self.addresses("web").unwrap()
    }

    fn kinds(&self) -> Vec<FrontendKind> {
        let view = self.snapshot.service("ns/web").unwrap();
        view.frontends.iter().map(|(_, kind, _)| *kind).collect()
    }

    fn findings(&self) -> Vec<String> {
        let findings = self.world.diagnostics();
        findings
            .iter()
            .map(|finding| format!("{}: {}", finding.path, finding.message))
            .collect()
    }
}

#[test]
fn type_changes_release_and_allocate_as_the_api_server_does() {
    let mut bench = Bench::new(Deviations::default());
    let alias = || Service {
        service_type: ServiceType::ExternalName,
        external_name: Some("example.com".into()),
        ..Service::default()
    };
    let got = bench.apply(alias());
    assert_eq!(got, Addresses::default());
    let node_port = bench.apply(spec(NodePort, &[(80, TCP, Some(30020))]));
    assert_eq!(
        (node_port.cluster_ips.len(), &*node_port.node_ports),
        (1, &[Some(30020)][..])
    );
    // What the new version does not name is kept, by the port's name.
    let balancer = bench.apply(spec(LoadBalancer, &[(80, TCP, None)]));
    assert_eq!(balancer.node_ports, [Some(30020)]);
    assert_eq!(balancer.cluster_ips, node_port.cluster_ips);
    assert_eq!(balancer.load_balancer_ips.len(), 1);
    let unallocated = bench.apply(Service {
        allocate_load_balancer_node_ports: false,
        ..spec(LoadBalancer, &[(80, TCP, None)])
    });
    assert_eq!(
        unallocated.node_ports,
        [Some(30020)],
        "switching it off takes nothing away"
    );
    let plain = bench.apply(spec(ClusterIP, &[(80, TCP, None)]));
    assert_eq!(
        (&plain.cluster_ips, &*plain.node_ports),
        (&node_port.cluster_ips, &[None][..])
    );
    assert_eq!(plain.load_balancer_ips, [] as [IpAddr; 0]);
    assert_eq!(bench.kinds(), [FrontendKind::ClusterIP]);
    assert_eq!(
        bench.apply(alias()),
        Addresses {
            node_ports: Vec::new(),
            ..Addresses::default()
        }
    );
    assert_eq!(bench.kinds(), []);
    let other = service("other", spec(NodePort, &[(80, TCP, Some(30020))]));
    bench.file("b", &[other]).round();
    assert_eq!(
        bench.addresses("other").unwrap().node_ports,
        [Some(30020)],
        "free again"
    );
}

#[test]
fn balancer_that_stops_allocating_keeps_its_node_ports_over_a_restart() {
    let stopped = || Service {
        allocate_load_balancer_node_ports: false,
        ..spec(LoadBalancer, &[(80, TCP, None)])
    };
    let mut bench = Bench::new(Deviations::default());
    let given = bench
        .apply(spec(LoadBalancer, &[(80, TCP, None)]))
        .node_ports;
    assert!(given[0].is_some());
    assert_eq!(bench.apply(stopped()).node_ports, given);
    let mut restarted = Bench::new(bench.world.deviations().clone());
    assert_eq!(restarted.apply(stopped()).node_ports, given);
    let mut again = Bench::new(restarted.world.deviations().clone());
    assert_eq!(
        again.apply(stopped()).node_ports,
        given,
        "and over the next one"
    );
}

#[test]
fn balancer_that_never_allocates_node_ports_has_those_it_names() {
    let mut bench = Bench::new(Deviations::default());
    let got = bench.apply(Service {
        allocate_load_balancer_node_ports: false,
        ..spec(LoadBalancer, &[(80, TCP, None), (81, TCP, Some(30005))])
    });
    assert_eq!(got.node_ports, [None, Some(30005)]);
}

#[test]
fn health_check_port_is_allocated_kept_and_released() {
    let mut bench = Bench::new(Deviations::default());
    let got = bench.apply(local_balancer());
    let number = got.health_check_node_port.unwrap();
    assert_ne!(got.node_ports, [Some(number)]);
    assert!(bench.kinds().contains(&FrontendKind::HealthCheck));
    let key = |frontend: FrontendKind| {
        let view = bench.snapshot.service("ns/web").unwrap();
        view.frontends
            .iter()
            .find(|(_, kind, _)| *kind == frontend)
            .unwrap()
            .0
    };
    let frontend = bench
        .snapshot
        .frontends
        .get(&key(FrontendKind::HealthCheck))
        .unwrap();
    let health = frontend.health.as_ref().unwrap();
    assert_eq!((health.local_endpoints, health.status()), (1, 200));
    // Another policy needs none; back again it asks for one, which Kubernetes would not let it change later.
    let cluster = spec(LoadBalancer, &[(80, TCP, None)]);
    assert_eq!(bench.apply(cluster).health_check_node_port, None);
    let mut asking = local_balancer();
    asking.health_check_node_port = Some(30003);
    assert_eq!(
        bench.apply(asking.clone()).health_check_node_port,
        Some(30003)
    );
    assert_eq!(
        bench.apply(local_balancer()).health_check_node_port,
        Some(30003),
        "kept"
    );
    bench.apply(asking.clone());
    asking.health_check_node_port = Some(30004);
    assert_eq!(bench.apply(asking).health_check_node_port, Some(30003));
    assert_eq!(
        bench.findings(),
        ["spec.healthCheckNodePort: Forbidden: field is immutable"]
    );
}

#[test]
fn health_check_port_of_another_is_refused_whatever_the_protocol() {
    let mut bench = Bench::new(Deviations::default());
    let mut asking = local_balancer();
    asking.health_check_node_port = Some(30007);
    let other = service("a", spec(NodePort, &[(53, UDP, Some(30007))]));
    bench.file("a", &[other, service("web", asking)]).round();
    assert_eq!(bench.addresses("web"), None);
    assert_eq!(
        bench.findings(),
        [
            "spec.healthCheckNodePort: Invalid value: 30007: failed to allocate requested HealthCheck NodePort 30007: provided port is already allocated (to ns/a)"
        ]
    );
}

#[test]
fn node_port_of_two_ports_is_one_only_with_one_number() {
    let mut bench = Bench::new(Deviations::default());
    let both = bench.apply(spec(
        NodePort,
        &[(53, TCP, Some(30007)), (53, UDP, Some(30007))],
    ));
    assert_eq!(both.node_ports, [Some(30007); 2]);
    let auto = bench.apply(spec(NodePort, &[(54, TCP, None), (54, UDP, None)]));
    assert_eq!(auto.node_ports[0], auto.node_ports[1]);
    bench.apply(spec(
        NodePort,
        &[(53, TCP, Some(30007)), (54, UDP, Some(30007))],
    ));
    assert_eq!(
        bench.findings(),
        [
            "spec.ports[1].nodePort: Invalid value: 30007: provided port is already allocated (to ns/web)"
        ]
    );
}

#[test]
fn second_family_of_a_cluster_ip_is_refused_without_a_range_and_the_last_good_version_stays() {
    let mut bench = Bench::new(Deviations::default());
    let before = bench.apply(spec(ClusterIP, &[(80, TCP, None)]));
    let asked = vec![before.cluster_ips[0], "fd00::1".parse().unwrap()];
    let got = bench.apply(Service {
        cluster_ip: ClusterIpRequest::Static(asked.clone()),
        ip_family_policy: Some(IpFamilyPolicy::PreferDualStack),
        ..spec(ClusterIP, &[(80, TCP, None)])
    });
    assert_eq!(got, before);
    let refused = format!(
        "spec.clusterIPs[1]: Invalid value: [\"{}\",\"fd00::1\"]: IPv6 is not configured on this cluster (see --service-cidr-v6)",
        asked[0]
    );
    assert_eq!(bench.findings()[0], refused);
}

#[test]
fn source_ranges_of_the_other_family_close_the_address_with_a_warning() {
    let mut bench = Bench::new(Deviations::default());
    let got = bench.apply(Service {
        load_balancer_source_ranges: vec!["fd00::/8".parse().unwrap()],
        ..spec(LoadBalancer, &[(80, TCP, None)])
    });
    let addr = got.load_balancer_ips[0];
    assert_eq!(
        bench.findings(),
        [format!(
            "spec.loadBalancerSourceRanges: no range is of the family of {addr}: nobody may connect there"
        )]
    );
    let view = bench.snapshot.service("ns/web").unwrap();
    let (key, _, _) = view
        .frontends
        .iter()
        .find(|(_, kind, _)| *kind == FrontendKind::LoadBalancer)
        .unwrap();
    let frontend = bench.snapshot.frontends.get(key).unwrap();
    assert!(!frontend.admits(Some([127, 0, 0, 1].into())));
}

#[test]
fn labels_of_another_proxy_hide_a_service_while_they_are_there() {
    let mut bench = Bench::new(Deviations::default());
    let web = || spec(ClusterIP, &[(80, TCP, None)]);
    bench.apply(web());
    for label in [SERVICE_PROXY_NAME_LABEL, HEADLESS_LABEL] {
        let mut hidden = Arc::unwrap_or_clone(service("web", web()));
        hidden.meta.labels = Labels::from([(label.into(), "".into())]);
        bench.file("a", &[Arc::new(hidden)]).round();
        assert_eq!(bench.kinds(), [], "{label}");
        bench.apply(web());
        assert_eq!(bench.kinds(), [FrontendKind::ClusterIP], "{label}");
    }
}

fn subset(node: &str, last: u8, ready: bool) -> EndpointSubset {
    EndpointSubset {
        endpoints: vec![SliceEndpoint {
            weight: Weight::default(),
            address: Some([127, 1, 0, last].into()),
            conditions: Conditions {
                ready,
                serving: ready,
                terminating: false,
            },
            hostname: None,
            node_name: Some(node.into()),
            zone: None,
            pod_name: None,
            hints: Hints::default(),
        }],
        ports: vec![SlicePort {
            name: "tcp-80".into(),
            protocol: TCP,
            port: Some(9000),
            app_protocol: None,
        }],
    }
}

fn hints(bench: &Bench) -> Vec<String> {
    let view = bench.snapshot.service("ns/web").unwrap();
    let endpoints = view.slices.iter().flat_map(|slice| &slice.endpoints);
    let text = |names: &[Arc<str>]| names.join(",");
    endpoints
        .map(|e| {
            format!(
                "{}/{}/{}",
                e.zone.as_deref().unwrap_or("-"),
                text(&e.hints.zones),
                text(&e.hints.nodes)
            )
        })
        .collect()
}

/// `web` of this distribution and its Endpoints: one here, one far, one far that is not ready.
fn distributed(distribution: Option<TrafficDistribution>) -> Vec<Arc<Object>> {
    let spec = Service {
        traffic_distribution: distribution,
        ..spec(ClusterIP, &[(80, TCP, None)])
    };
    let endpoints = Endpoints {
        subsets: vec![
            subset("here", 1, true),
            subset("far", 2, true),
            subset("far", 3, false),
        ],
        skip_mirror: false,
    };
    let endpoints = Spec::Endpoints(Arc::new(endpoints));
    let endpoints = object(Kind::Endpoints, "web", Labels::new(), endpoints);
    vec![service("web", spec), endpoints]
}

#[test]
fn traffic_distribution_hints_ready_endpoints_of_made_slices() {
    let mut bench = Bench::new(Deviations::default());
    let nodes = [node("here", "za"), node("far", "zb")];
    bench
        .file("nodes", &nodes)
        .file("a", &distributed(None))
        .round();
    assert_eq!(hints(&bench), ["za//", "zb//", "zb//"]);
    assert_eq!(bench.endpoints("web").len(), 2);

    let zone = Some(TrafficDistribution::PreferSameZone);
    bench.file("a", &distributed(zone)).round();
    assert_eq!(hints(&bench), ["za/za/", "zb/zb/", "zb//"]);
    assert_eq!(bench.endpoints("web"), ["127.1.0.1:9000"]);

    let mut objects = distributed(Some(TrafficDistribution::PreferSameNode));
    objects.push(slice("e", "web", 5));
    bench.file("a", &objects).round();
    let kept = ["-//", "za/za/here", "zb/zb/far", "zb//"];
    assert_eq!(hints(&bench), kept, "written ones keep their own");
}

#[test]
fn zones_of_nodes_that_change_take_their_services_along() {
    let mut bench = Bench::new(Deviations::default());
    let zone = Some(TrafficDistribution::PreferSameZone);
    bench
        .file("nodes", &[node("here", "za"), node("far", "za")])
        .file("a", &distributed(zone))
        .file(
            "b",
            &[service("other", spec(ClusterIP, &[(80, TCP, None)]))],
        )
        .round();
    assert_eq!(bench.snapshot.cluster.zone.as_deref(), Some("za"));
    assert_eq!(bench.endpoints("web").len(), 2, "one zone for all");
    let moved = [node("here", "za"), node("far", "zc")];
    assert_eq!(
        bench.file("nodes", &moved).round(),
        1,
        "no Service without endpoints there"
    );
    assert_eq!(hints(&bench), ["za/za/", "zc/zc/", "zc//"]);
    assert_eq!(bench.endpoints("web"), ["127.1.0.1:9000"]);
    assert_eq!(
        bench.file("nodes", &[]).round(),
        2,
        "this node concerns all"
    );
    assert_eq!(bench.snapshot.cluster.zone, None);
    assert_eq!(bench.endpoints("web").len(), 2, "no zone, no hints");
}

#[test]
fn named_target_port_has_endpoints_on_several_numbers() {
    let mut bench = Bench::new(Deviations::default());
    let mut web = spec(ClusterIP, &[(80, TCP, None)]);
    web.ports[0].target_port = TargetPort::Name("http".into());
    web.selector = labels("web");
    let named = |name: &str, last: u8, number: u16| {
        let mut spec = PodSpec::default();
        spec.containers.push(crate::object::pod::Container {
            backends: Vec::new(),
            name: "web".into(),
            image: "web".into(),
            ports: vec![crate::object::pod::ContainerPort {
                name: "http".into(),
                container_port: number,
                protocol: TCP,
            }],
            readiness: None,
            liveness: None,
            startup: None,
        });
        let Spec::Pod(pod) = &pod(name, "web", last).spec else {
            unreachable!()
        };
        let pod = Pod {
            spec: Arc::new(spec),
            ..Pod::clone(pod)
        };
        object(Kind::Pod, name, labels("web"), Spec::Pod(Arc::new(pod)))
    };
    bench
        .file(
            "a",
            &[
                service("web", web),
                named("a", 1, 8080),
                named("b", 2, 9090),
            ],
        )
        .round();
    assert_eq!(bench.endpoints("web"), ["127.2.0.1:8080", "127.2.0.2:9090"]);
}
