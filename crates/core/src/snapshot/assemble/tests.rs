//! Tests of entering and taking out Services.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    object::{
        AddressType, Conditions, EndpointSlice, Hints, Origin, Position, Protocol, Service,
        SliceEndpoint, TrafficPolicy, Weight, service::IpFamily,
    },
    snapshot::{FrontendKey, FrontendKind, NodePortAddresses, PortView, Scope, ServicePortName},
};

fn cluster() -> Arc<Cluster> {
    Arc::new(Cluster {
        service_cidr: "127.96.0.0/16".parse().unwrap(),
        dynamic_service_cidr: "127.96.16.0/20".parse().unwrap(),
        load_balancer_cidr: "127.97.0.0/16".parse().unwrap(),
        pod_cidr: "127.98.0.0/16".parse().unwrap(),
        node_port_addresses: NodePortAddresses::Listed(Vec::new()),
        ..Cluster::default()
    })
}

/// Service `name` of `namespace` with a cluster IP that ends in `vip` and endpoints that end in `endpoints`.
fn service(namespace: &str, name: &str, vip: u8, endpoints: &[u8]) -> Arc<ServiceView> {
    let addr = IpAddr::from([127, 96, 0, vip]);
    let endpoint = |last: &u8| SliceEndpoint {
        address: Some(IpAddr::from([127, 98, 0, *last])),
        conditions: Conditions::READY,
        hostname: None,
        node_name: None,
        zone: None,
        pod_name: None,
        hints: Hints::default(),
        weight: Weight::default(),
    };
    let slice = EndpointSlice {
        is_for_another_proxy: false,
        service_name: Some(Arc::from(name)),
        address_type: AddressType::IPv4,
        ports: Vec::new(),
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    let port = PortView {
        name: Arc::new(ServicePortName {
            namespace: Arc::from(namespace),
            service: Arc::from(name),
            port: Arc::from("http"),
            protocol: Protocol::Tcp,
        }),
        family: IpFamily::IPv4,
        number: 80,
        node_port: None,
        cluster: None,
        local: None,
        any: false,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source: crate::object::SourceAddress::default(),
        app: crate::object::Application::default(),
        proxy: crate::object::ProxyProtocol::default(),
        state: Arc::default(),
    };
    let key = FrontendKey {
        scope: Scope::HOST,
        addr,
        port: 80,
        protocol: Protocol::Tcp,
    };
    Arc::new(ServiceView {
        namespace: Arc::from(namespace),
        name: Arc::from(name),
        origin: Origin {
            file: Arc::from("test"),
            position: Position::default(),
            marks: Arc::from([]),
        },
        spec: Arc::new(spec()),
        cluster_ips: vec![addr],
        load_balancer_ips: Vec::new(),
        slices: vec![Arc::new(slice)],
        ports: vec![Arc::new(port)],
        frontends: vec![(key, FrontendKind::ClusterIP, 0)],
    })
}

fn spec() -> Service {
    Service::default()
}

/// Everything that the indexes say, in a form that compares.
fn dump(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let names = snapshot
        .services()
        .into_iter()
        .map(|view| (view.path(), "service".to_owned()));
    let frontends = snapshot
        .frontends
        .iter()
        .map(|(key, frontend)| (format!("{key:?}"), frontend.port.name.to_string()));
    let addresses = snapshot.addresses.iter().map(|(addr, owners)| {
        let endpoint_of: Vec<_> = owners.endpoint_of.iter().map(|view| view.path()).collect();
        (
            addr.to_string(),
            format!(
                "{:?} {endpoint_of:?}",
                owners.cluster_ip_of.as_ref().map(|view| view.path())
            ),
        )
    });
    names.chain(frontends).chain(addresses).collect()
}

#[test]
fn assemble_two_services_on_one_endpoint_lists_both_in_order() {
    let services = vec![
        service("shop", "web", 1, &[7, 7, 8]),
        service("data", "pg", 2, &[7]),
    ];
    let snapshot = assemble(cluster(), services, &["empty"]);
    let owners = snapshot
        .address_owners(IpAddr::from([127, 98, 0, 7]))
        .unwrap();
    let paths: Vec<_> = owners.endpoint_of.iter().map(|view| view.path()).collect();
    assert_eq!(paths, ["data/pg", "shop/web"]);
    let owner = snapshot
        .address_owners(IpAddr::from([127, 96, 0, 1]))
        .unwrap()
        .cluster_ip_of
        .as_ref();
    assert_eq!(owner.map(|view| view.path()).as_deref(), Some("shop/web"));
    assert_eq!(
        snapshot
            .namespaces()
            .map(|name| &**name)
            .collect::<Vec<_>>(),
        ["data", "empty", "shop"]
    );
    assert!(snapshot.synced);
}

#[test]
fn unindex_service_whose_address_moved_on_leaves_it_with_the_new_owner() {
    let (old, new) = (
        service("shop", "old", 1, &[]),
        service("shop", "new", 1, &[]),
    );
    let mut snapshot = assemble(cluster(), vec![Arc::clone(&old), Arc::clone(&new)], &[]);
    unindex_service(&mut snapshot, &old);
    assert_eq!(dump(&snapshot), dump(&assemble(cluster(), vec![new], &[])));
}

#[test]
fn unindex_service_that_is_not_there_changes_nothing() {
    let mut snapshot = assemble(cluster(), vec![service("shop", "web", 1, &[1])], &[]);
    let before = dump(&snapshot);
    unindex_service(&mut snapshot, &service("shop", "other", 1, &[1]));
    assert_eq!(dump(&snapshot), before);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn index_then_unindex_in_any_order_equals_assembling_what_remains(
        steps in prop::collection::vec((0_u8..12, prop::collection::vec(0_u8..6, 0..4)), 0..40)
    ) {
        let mut snapshot = assemble(cluster(), Vec::new(), &["declared"]);
        let mut present: BTreeMap<u8, Arc<ServiceView>> = BTreeMap::new();
        for (id, endpoints) in steps {
            if let Some(old) = present.remove(&id) {
                unindex_service(&mut snapshot, &old);
            }
            // Three endpoints stand for "gone", so that both edits and removals occur.
            if endpoints.len() < 3 {
                let new = service(&format!("ns{}", id % 3), &format!("s{id}"), id, &endpoints);
                index_service(&mut snapshot, &new);
                present.insert(id, new);
            }
        }
        let fresh = assemble(cluster(), present.into_values().collect(), &["declared"]);
        prop_assert_eq!(dump(&snapshot), dump(&fresh));
    }
}

#[test]
fn standing_of_a_connection_goes_by_what_is_written_and_asked() {
    use crate::snapshot::draining::{Asked, Standing};

    let written = |endpoints: &[(u8, bool)]| {
        let view = service("default", "web", 7, &[]);
        let mut slice = EndpointSlice::clone(&view.slices[0]);
        slice.ports = vec![crate::object::SlicePort {
            name: Arc::from("http"),
            protocol: Protocol::Tcp,
            port: Some(8080),
            app_protocol: None,
        }];
        let like = service("default", "web", 7, &[1]).slices[0].endpoints[0].clone();
        for (last, terminating) in endpoints {
            slice.endpoints.push(SliceEndpoint {
                address: Some(IpAddr::from([127, 98, 0, *last])),
                conditions: Conditions {
                    ready: false,
                    serving: true,
                    terminating: *terminating,
                },
                ..like.clone()
            });
        }
        let view = ServiceView {
            namespace: Arc::clone(&view.namespace),
            name: Arc::clone(&view.name),
            origin: view.origin.clone(),
            spec: Arc::clone(&view.spec),
            cluster_ips: view.cluster_ips.clone(),
            load_balancer_ips: Vec::new(),
            slices: vec![Arc::new(slice)],
            ports: view.ports.clone(),
            frontends: view.frontends.clone(),
        };
        assemble(cluster(), vec![Arc::new(view)], &[])
    };
    let asked = |last| Asked {
        scope: Scope::HOST,
        local: (IpAddr::from([127, 96, 0, last]), 80).into(),
        declared_port: 80,
    };
    let name = service("default", "web", 7, &[]).ports[0].name.clone();
    let check = |snapshot: &Snapshot, vip: u8, (last, port): (u8, u16), expected| {
        let endpoint = (IpAddr::from([127, 98, 0, last]), port).into();
        let found = snapshot.standing(&asked(vip), &name, endpoint);
        assert_eq!(found, expected, "{last}:{port} by {vip}");
    };
    let snapshot = written(&[(1, false), (2, true), (3, true), (3, false)]);
    check(&snapshot, 7, (1, 8080), Standing::Kept);
    check(&snapshot, 7, (2, 8080), Standing::Terminating);
    check(&snapshot, 7, (3, 8080), Standing::Kept);
    check(&snapshot, 7, (4, 8080), Standing::EndpointGone);
    check(&snapshot, 7, (1, 8081), Standing::EndpointGone);
    check(&snapshot, 8, (1, 8080), Standing::ServiceGone);
    let other = assemble(cluster(), vec![service("default", "db", 7, &[1])], &[]);
    check(&other, 7, (1, 8080), Standing::ServiceGone);
}
