//! Families of a Service: defaults and demands, as the API server has them, and what the snapshot makes of them.

use super::*;
use crate::{
    object::service::{IpFamily, IpFamilyPolicy},
    snapshot::{FrontendKind, PortView, Scope, plan::any_address},
};

const V4: IpFamily = IpFamily::IPv4;
const V6: IpFamily = IpFamily::IPv6;

fn dual_cluster() -> Cluster {
    Cluster {
        service_cidr_v6: Some("fd00:10:96::/120".parse().unwrap()),
        load_balancer_cidr_v6: Some("fd00:10:97::/124".parse().unwrap()),
        node_port_addresses: NodePortAddresses::All,
        host_addresses: vec![[127, 0, 0, 1].into(), "::1".parse().unwrap()],
        ..cluster()
    }
}

fn bench_in(cluster: Cluster, remembered: Deviations) -> Bench {
    let settings = WorldSettings {
        cluster: Arc::new(cluster),
        ..world(remembered).settings().clone()
    };
    Bench::of(World::new(settings))
}

fn bench() -> Bench {
    bench_in(dual_cluster(), Deviations::default())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A Service with these families, this policy and these addresses.
fn wants(families: &[IpFamily], policy: Option<IpFamilyPolicy>, addresses: &[&str]) -> Service {
    let asked: Vec<IpAddr> = addresses.iter().map(|addr| ip(addr)).collect();
    Service {
        ip_families: families.to_vec(),
        ip_family_policy: policy,
        cluster_ip: if asked.is_empty() {
            ClusterIpRequest::Auto
        } else {
            ClusterIpRequest::Static(asked)
        },
        ..spec(ClusterIP, &[(80, TCP, None)])
    }
}

impl Bench {
    fn put(&mut self, spec: Service) -> Option<Addresses> {
        self.file("a", &[service("web", spec), slice("e", "web", 1)])
            .round();
        self.addresses("web")
    }

    fn said(&self) -> Vec<String> {
        let findings = self.world.diagnostics();
        let text = |finding: &Diagnostic| format!("{}: {}", finding.path, finding.message);
        findings.iter().map(text).collect()
    }
}

#[test]
fn families_default_as_the_api_server_has_them() {
    use IpFamilyPolicy::{PreferDualStack, RequireDualStack, SingleStack};
    let check = |dual: bool, spec: Service, wanted: &[IpFamily]| {
        let cluster = if dual { dual_cluster() } else { cluster() };
        let mut bench = bench_in(cluster, Deviations::default());
        let got = bench
            .put(spec.clone())
            .unwrap_or_else(|| panic!("{:?}", bench.said()));
        assert_eq!(got.families, wanted, "dual {dual}, {spec:?}");
        let of: Vec<_> = got.cluster_ips.iter().copied().map(IpFamily::of).collect();
        assert_eq!(of, wanted, "one address a family, in their order");
    };
    for dual in [false, true] {
        check(dual, wants(&[], None, &[]), &[V4]);
        check(dual, wants(&[], Some(SingleStack), &[]), &[V4]);
        check(dual, wants(&[V4], None, &[]), &[V4]);
    }
    check(false, wants(&[], Some(PreferDualStack), &[]), &[V4]);
    check(true, wants(&[], Some(PreferDualStack), &[]), &[V4, V6]);
    check(true, wants(&[], Some(RequireDualStack), &[]), &[V4, V6]);
    check(true, wants(&[V6], None, &[]), &[V6]);
    check(true, wants(&[V6], Some(PreferDualStack), &[]), &[V6, V4]);
    check(true, wants(&[V6], Some(RequireDualStack), &[]), &[V6, V4]);
    check(
        true,
        wants(&[V6, V4], Some(RequireDualStack), &[]),
        &[V6, V4],
    );
    check(true, wants(&[], None, &["fd00:10:96::7"]), &[V6]);
    let both = Some(RequireDualStack);
    check(true, wants(&[], both, &["fd00:10:96::7"]), &[V6, V4]);
    check(
        true,
        wants(&[], both, &["fd00:10:96::7", "127.96.0.7"]),
        &[V6, V4],
    );
    check(
        true,
        wants(&[], both, &["127.96.0.7", "fd00:10:96::7"]),
        &[V4, V6],
    );
    check(
        true,
        wants(&[V4], both, &["127.96.0.7", "fd00:10:96::7"]),
        &[V4, V6],
    );
}

#[test]
fn families_of_names_alone_have_no_addresses() {
    let headless = |families: &[IpFamily], policy, selects: bool| Service {
        cluster_ip: ClusterIpRequest::Headless,
        selector: if selects {
            labels("web")
        } else {
            Labels::new()
        },
        ..wants(families, policy, &[])
    };
    let single = Some(IpFamilyPolicy::SingleStack);
    let prefer = Some(IpFamilyPolicy::PreferDualStack);
    let check = |dual: bool, spec: Service, wanted: &[IpFamily]| {
        let cluster = if dual { dual_cluster() } else { cluster() };
        let got = bench_in(cluster, Deviations::default()).put(spec).unwrap();
        assert_eq!((&*got.families, got.cluster_ips.len()), (wanted, 0));
    };
    for dual in [false, true] {
        check(dual, headless(&[], None, true), &[V4]);
        check(dual, headless(&[], None, false), &[V4, V6]);
        check(dual, headless(&[V6], None, false), &[V6, V4]);
        check(dual, headless(&[V6], single, false), &[V6]);
        check(dual, headless(&[], single, false), &[V4]);
    }
    check(false, headless(&[], prefer, true), &[V4]);
    check(true, headless(&[], prefer, true), &[V4, V6]);
    check(true, headless(&[V6], None, true), &[V6]);
}

#[test]
fn families_that_the_cluster_lacks_are_invalid_in_its_words() {
    use IpFamilyPolicy::{PreferDualStack, RequireDualStack};
    let check = |spec: Service, wanted: &[&str]| {
        let mut bench = bench_in(cluster(), Deviations::default());
        assert_eq!(bench.put(spec), None);
        assert_eq!(bench.said(), wanted);
    };
    let policy = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack \
                  services (see --service-cidr-v6)";
    let first = "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster (see --service-cidr-v6)";
    let second = "spec.ipFamilies[1]: Invalid value: \"IPv6\": not configured on this cluster (see --service-cidr-v6)";
    check(wants(&[], Some(RequireDualStack), &[]), &[policy]);
    check(wants(&[V6], None, &[]), &[first]);
    check(wants(&[V6], Some(RequireDualStack), &[]), &[first, policy]);
    check(wants(&[V4, V6], Some(PreferDualStack), &[]), &[second]);
    let address = "spec.clusterIP: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster (see \
                   --service-cidr-v6)";
    check(wants(&[], None, &["fd00::1"]), &[address]);
    let headless = Service {
        cluster_ip: ClusterIpRequest::Headless,
        selector: labels("web"),
        ..wants(&[V6], None, &[])
    };
    check(headless, &[first]);
}

#[test]
fn secondary_family_comes_and_goes_and_the_primary_address_stays() {
    let mut bench = bench();
    let single = bench.put(wants(&[], None, &[])).unwrap();
    let dual = bench
        .put(wants(&[], Some(IpFamilyPolicy::RequireDualStack), &[]))
        .unwrap();
    assert_eq!(dual.cluster_ips[0], single.cluster_ips[0]);
    assert!(
        dual_cluster()
            .service_cidr_v6
            .unwrap()
            .contains(&dual.cluster_ips[1])
    );
    assert_eq!(bench.said(), [] as [&str; 0]);
    let back = bench
        .put(wants(&[], Some(IpFamilyPolicy::SingleStack), &[]))
        .unwrap();
    assert_eq!(back, single);
    let other = service(
        "other",
        wants(&[], None, &[&dual.cluster_ips[1].to_string()]),
    );
    bench.file("b", &[other]).round();
    assert_eq!(
        bench.addresses("other").unwrap().cluster_ips,
        [dual.cluster_ips[1]],
        "free again"
    );
}

#[test]
fn primary_family_changed_is_refused_and_one_no_longer_named_stays() {
    let mut bench = bench();
    let both = Some(IpFamilyPolicy::RequireDualStack);
    let before = bench.put(wants(&[V4, V6], both, &[])).unwrap();
    let after = bench.put(wants(&[V6, V4], both, &[])).unwrap();
    assert_eq!(after, before);
    assert_eq!(
        bench.said(),
        ["spec.ipFamilies[0]: Invalid value: [\"IPv6\",\"IPv4\"]: may not change once set"]
    );
    bench.file("a", &[]).round();
    let before = bench.put(wants(&[V6], None, &[])).unwrap();
    assert_eq!(bench.put(wants(&[], None, &[])).unwrap(), before);
    assert_eq!(bench.said(), [""; 0]);
}

#[test]
fn addresses_of_ipv6_are_hashed_requested_and_refused_as_those_of_ipv4() {
    let mut bench = bench();
    let single = bench.put(wants(&[V6], None, &[])).unwrap().cluster_ips[0];
    // A sixteenth of 256 addresses is given on request only.
    assert!(single > ip("fd00:10:96::10"), "{single}");
    let again = bench_in(dual_cluster(), Deviations::default())
        .put(wants(&[V6], None, &[]))
        .unwrap();
    assert_eq!(
        again.cluster_ips,
        [single],
        "it is a matter of the name alone"
    );
    bench.put(wants(&[], None, &[&single.to_string()])).unwrap();
    for (asked, why) in [
        (
            single.to_string(),
            "provided IP is already allocated (to ns/web)",
        ),
        (
            "fd00:10:96::".to_owned(),
            "provided IP is not in the valid range. The range of valid IPs is fd00:10:96::/120",
        ),
    ] {
        bench
            .file("b", &[service("other", wants(&[], None, &[&asked]))])
            .round();
        assert_eq!(bench.addresses("other"), None);
        let wanted = format!(
            "spec.clusterIP: Invalid value: \"{asked}\": failed to allocate IP {asked}: {why}"
        );
        assert_eq!(bench.said(), [wanted]);
        bench.file("b", &[]).round();
    }
    // IPv6 has no broadcast address; an address of another cluster's range is mapped into ours.
    for (asked, got) in [
        ("fd00:10:96::ff", "fd00:10:96::ff"),
        ("fd00::1:9", "fd00:10:96::9"),
    ] {
        bench
            .file("b", &[service("other", wants(&[], None, &[asked]))])
            .round();
        assert_eq!(bench.addresses("other").unwrap().cluster_ips, [ip(got)]);
        bench.file("b", &[]).round();
    }
}

#[test]
fn deviations_of_both_families_survive_a_restart() {
    let both = || wants(&[], Some(IpFamilyPolicy::RequireDualStack), &[]);
    let mut first = bench();
    let natural = first.put(both()).unwrap();
    let taken: Vec<String> = natural.cluster_ips.iter().map(IpAddr::to_string).collect();
    let taken: Vec<&str> = taken.iter().map(String::as_str).collect();
    let policy = Some(IpFamilyPolicy::RequireDualStack);
    let mut second = bench();
    second
        .file("0", &[service("first", wants(&[], policy, &taken))])
        .file("a", &[service("web", both())])
        .round();
    let moved = second.addresses("web").unwrap();
    assert_ne!(moved.cluster_ips, natural.cluster_ips);
    let remembered = second.world.deviations().clone();
    let mut names: Vec<&str> = remembered.cluster_ips.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["ns/web", "ns/web:IPv6"]);
    let mut third = bench_in(dual_cluster(), remembered);
    assert_eq!(third.put(both()).unwrap(), moved);
}

fn ports(bench: &Bench) -> Vec<(IpFamily, usize)> {
    let view = bench.snapshot.service("ns/web").unwrap();
    let endpoints = |port: &PortView| port.cluster.as_ref().map_or(0, |set| set.len());
    let each = view.ports.iter();
    each.map(|port| (port.family, endpoints(port))).collect()
}

#[test]
fn frontends_of_a_family_are_fed_by_its_endpoints_alone() {
    let mut bench = bench();
    let both = Service {
        service_type: LoadBalancer,
        external_ips: vec![ip("10.9.8.7"), ip("2001:db8::7")],
        ..wants(&[], Some(IpFamilyPolicy::RequireDualStack), &[])
    };
    let got = bench.put(both.clone()).unwrap();
    assert_eq!(got.load_balancer_ips.len(), 2);
    assert_eq!(ports(&bench), [(V4, 1), (V6, 0)], "the slice is of IPv4");
    let number = got.node_ports[0].unwrap();
    let at = |local: &str, port: u16| {
        let found = bench
            .snapshot
            .frontend(Scope::HOST, (ip(local), port).into(), port, TCP);
        found.map(|frontend| (frontend.kind, frontend.port.family))
    };
    assert_eq!(at("::1", number), Some((FrontendKind::NodePort, V6)));
    assert_eq!(at("127.0.0.1", number), Some((FrontendKind::NodePort, V4)));
    assert_eq!(at("fd00:10:96::fe", number), None, "an address of ours");
    assert_eq!(at("2001:db8::7", 80), Some((FrontendKind::ExternalIP, V6)));
    let balancer = got.load_balancer_ips[1].to_string();
    assert_eq!(at(&balancer, 80), Some((FrontendKind::LoadBalancer, V6)));
    let cluster_ip = got.cluster_ips[1].to_string();
    assert_eq!(at(&cluster_ip, 80), Some((FrontendKind::ClusterIP, V6)));

    let single = Service {
        ip_family_policy: None,
        ..both
    };
    bench.put(single).unwrap();
    assert_eq!(ports(&bench), [(V4, 1)]);
    assert_eq!(
        bench.said(),
        [
            "spec.externalIPs[1]: 2001:db8::7 is not served: the Service has no IPv6 address (see spec.ipFamilies)"
        ]
    );
}

#[test]
fn node_ports_of_ipv6_need_a_host_that_has_it() {
    let both = Service {
        service_type: NodePort,
        ..wants(&[], Some(IpFamilyPolicy::RequireDualStack), &[])
    };
    let node_ports = |cluster: Cluster| -> Vec<IpAddr> {
        let mut bench = bench_in(cluster, Deviations::default());
        bench.put(both.clone()).unwrap();
        let view = bench.snapshot.service("ns/web").unwrap();
        let all = view.frontends.iter();
        all.filter(|(_, kind, _)| *kind == FrontendKind::NodePort)
            .map(|(key, ..)| key.addr)
            .collect()
    };
    let any = [V4, V6].map(any_address);
    assert_eq!(node_ports(dual_cluster()), any);
    let without = Cluster {
        host_addresses: vec![[127, 0, 0, 1].into()],
        ..dual_cluster()
    };
    assert_eq!(node_ports(without), any[..1]);
    let listed = vec![ip("::1"), ip("10.0.0.1")];
    let narrow = Cluster {
        node_port_addresses: NodePortAddresses::Listed(listed),
        ..dual_cluster()
    };
    assert_eq!(node_ports(narrow), [ip("10.0.0.1"), ip("::1")]);
}

#[test]
fn pods_with_two_addresses_join_by_the_services_families() {
    let pod = Pod {
        spec: Arc::default(),
        pod_ips: vec![[127, 0, 0, 9].into(), ip("fd00::9")],
        ready: None,
        terminating: false,
        finished: false,
    };
    let pod = object(Kind::Pod, "pod", labels("web"), Spec::Pod(Arc::new(pod)));
    let mut bench = bench();
    let mut check = |policy, wanted: &[(IpFamily, usize)]| {
        let spec = Service {
            selector: labels("web"),
            ..wants(&[], policy, &[])
        };
        bench
            .file("a", &[service("web", spec), Arc::clone(&pod)])
            .round();
        assert_eq!(ports(&bench), wanted);
        let view = bench.snapshot.service("ns/web").unwrap();
        assert_eq!(view.slices.len(), wanted.len());
    };
    check(None, &[(V4, 1)]);
    check(Some(IpFamilyPolicy::RequireDualStack), &[(V4, 1), (V6, 1)]);
    check(None, &[(V4, 1)]);
}
