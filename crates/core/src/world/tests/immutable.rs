//! Edits that an API server would refuse since a field may not change: the last good version stays, and its words are
//! said about the newest one.

use super::*;

fn asks(address: &str) -> Service {
    Service {
        cluster_ip: match address {
            "" => ClusterIpRequest::Auto,
            "None" => ClusterIpRequest::Headless,
            _ => ClusterIpRequest::Static(vec![address.parse().unwrap()]),
        },
        ..spec(ClusterIP, &[(80, TCP, None)])
    }
}

fn errors(bench: &Bench) -> Vec<String> {
    let findings = bench.world.diagnostics();
    let errors = findings.iter().filter(|f| f.severity == Severity::Error);
    errors
        .map(|f| format!("{}: {}", f.path, f.message))
        .collect()
}

fn put(bench: &mut Bench, spec: Service) -> Addresses {
    bench.file("a", &[service("web", spec)]).round();
    bench.addresses("web").unwrap()
}

#[test]
fn cluster_ip_changed_is_refused_and_the_last_good_version_stays_until_it_fits() {
    let mut bench = Bench::new(Deviations::default());
    let before = put(&mut bench, asks(""));
    let given = before.cluster_ips[0].to_string();
    for (asked, words) in [("127.96.0.40", "[\"127.96.0.40\"]"), ("None", "[\"None\"]")] {
        let mut newest = asks(asked);
        newest.ports[0].port = 81;
        assert_eq!(put(&mut bench, newest), before);
        let refused =
            format!("spec.clusterIPs[0]: Invalid value: {words}: may not change once set");
        assert_eq!(errors(&bench), [refused]);
        let record = &bench.world.services()["ns/web"];
        assert_eq!(record.spec.ports[0].port, 80, "nothing of it is in force");
    }
    assert_eq!(put(&mut bench, asks(&given)), before, "named as it is");
    assert_eq!(put(&mut bench, asks("")), before, "no longer named");
    assert_eq!(errors(&bench), [""; 0]);
}

#[test]
fn cluster_ip_of_a_headless_service_is_refused_and_free_after_external_name_or_deletion() {
    let mut bench = Bench::new(Deviations::default());
    let address = "127.96.0.40";
    assert!(put(&mut bench, asks("None")).cluster_ips.is_empty());
    assert!(put(&mut bench, asks(address)).cluster_ips.is_empty());
    let refused = "spec.clusterIPs[0]: Invalid value: [\"127.96.0.40\"]: may not change once set";
    assert_eq!(errors(&bench), [refused]);
    let alias = Service {
        service_type: ServiceType::ExternalName,
        external_name: Some("example.com".into()),
        ..asks("")
    };
    put(&mut bench, alias);
    let got = put(&mut bench, asks(address));
    assert_eq!(got.cluster_ips, [address.parse::<IpAddr>().unwrap()]);
    bench.file("a", &[]).round();
    assert!(put(&mut bench, asks("None")).cluster_ips.is_empty());
    assert_eq!(errors(&bench), [""; 0]);
}

#[test]
fn foreign_cluster_ip_is_compared_by_the_address_that_it_stands_for() {
    let mut bench = Bench::new(Deviations::default());
    let before = put(&mut bench, asks("10.0.0.200"));
    let mut edited = asks("10.0.0.200");
    edited.ports[0].port = 81;
    assert_eq!(put(&mut bench, edited).cluster_ips, before.cluster_ips);
    assert_eq!(errors(&bench), [""; 0]);
    assert_eq!(
        put(&mut bench, asks("10.0.0.201")).cluster_ips,
        before.cluster_ips
    );
    let refused = "spec.clusterIPs[0]: Invalid value: [\"10.0.0.201\"]: may not change once set";
    assert_eq!(errors(&bench), [refused]);
}

#[test]
fn class_of_a_balancer_changes_only_with_the_type() {
    let of = |class: Option<&str>| Service {
        load_balancer_class: class.map(Into::into),
        ..spec(LoadBalancer, &[(80, TCP, None)])
    };
    let mut bench = Bench::new(Deviations::default());
    put(&mut bench, of(Some("example.com/a")));
    for (class, words) in [(Some("example.com/b"), "\"example.com/b\""), (None, "null")] {
        assert!(put(&mut bench, of(class)).load_balancer_ips.is_empty());
        let refused =
            format!("spec.loadBalancerClass: Invalid value: {words}: may not change once set");
        assert_eq!(errors(&bench), [refused]);
    }
    put(&mut bench, asks(""));
    assert_eq!(put(&mut bench, of(None)).load_balancer_ips.len(), 1);
    assert_eq!(errors(&bench), [""; 0]);
}

#[test]
fn address_type_changed_leaves_the_last_good_slice_in_force() {
    let mut bench = Bench::new(Deviations::default());
    let of = |last, address_type| {
        let mut object = Arc::unwrap_or_clone(slice("e", "web", last));
        if let Spec::EndpointSlice(slice) = &mut object.spec {
            Arc::make_mut(slice).address_type = address_type;
        }
        Arc::new(object)
    };
    let web = service("web", asks(""));
    let mut edit = |object: Option<Arc<Object>>| {
        let objects: Vec<_> = std::iter::once(Arc::clone(&web)).chain(object).collect();
        bench.file("a", &objects).round();
        (bench.endpoints("web"), errors(&bench))
    };
    let refused = "addressType: Invalid value: \"IPv6\": field is immutable".to_owned();
    let at = |last: u8| vec![format!("127.1.0.{last}:9000")];
    assert_eq!(edit(Some(of(1, AddressType::IPv4))), (at(1), vec![]));
    assert_eq!(
        edit(Some(of(3, AddressType::IPv6))),
        (at(1), vec![refused.clone()])
    );
    assert_eq!(
        edit(Some(of(5, AddressType::IPv6))),
        (at(1), vec![refused]),
        "again"
    );
    assert_eq!(
        edit(Some(of(7, AddressType::IPv4))),
        (at(7), vec![]),
        "it fits again"
    );
    assert_eq!(edit(Some(of(9, AddressType::IPv6))).0, at(7));
    assert_eq!(edit(None), (vec![], vec![]), "and is gone when deleted");
}

#[test]
fn newcomer_cannot_take_what_a_refused_edit_leaves_in_force() {
    let mut bench = Bench::new(Deviations::default());
    let before = put(&mut bench, asks("127.96.0.40"));
    let newcomer = service("first", asks("127.96.0.40"));
    let edited = service("web", asks("127.96.0.41"));
    bench.file("a", &[newcomer, edited]).round();
    assert_eq!(bench.addresses("web"), Some(before));
    assert_eq!(bench.addresses("first"), None);
    assert_eq!(errors(&bench).len(), 2);
}
