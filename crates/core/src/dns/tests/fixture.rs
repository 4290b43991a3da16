//! The Services that the tables ask for: two namespaces with one Service for each rule. The program's tests of its server
//! have it, too.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use portico_core::{
    object::{
        AddressType, ClusterIpRequest, Conditions, EndpointSlice, Hints, Origin, Position,
        Protocol, Service, ServicePort, ServiceType, SliceEndpoint, SlicePort, TargetPort, Weight,
    },
    snapshot::{Cluster, NodePortAddresses, ServiceView, Snapshot, assemble::assemble},
};

pub(super) fn cluster() -> Cluster {
    Cluster {
        search_namespace: Some(Arc::from("shop")),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        dynamic_service_cidr: "10.96.16.0/20".parse().unwrap(),
        service_cidr_v6: Some("fd00:10:96::/48".parse().unwrap()),
        load_balancer_cidr: "10.97.0.0/16".parse().unwrap(),
        pod_cidr: "10.1.0.0/16".parse().unwrap(),
        node_port_addresses: NodePortAddresses::Listed(Vec::new()),
        dns_address: "10.96.0.10".parse().unwrap(),
        ..Cluster::default()
    }
}

/// Assembled once: a test of arbitrary packets asks for it thousands of times.
pub(super) fn snapshot() -> Snapshot {
    static ONCE: LazyLock<Snapshot> = LazyLock::new(|| {
        let services = shop().into_iter().chain(data()).map(Arc::new).collect();
        assemble(Arc::new(cluster()), services, &["empty"])
    });
    ONCE.clone()
}

fn shop() -> Vec<ServiceView> {
    let web = slice(&["http/8080", "https/8443"], &["10.1.0.11", "10.1.0.12"]);
    vec![
        vip("web", &["10.96.1.10"], &["http/80", "https/443"]).with(web),
        vip("dual", &["10.96.1.20", "fd00:10:96::20"], &["grpc/9000"]),
        vip("v6only", &["fd00:10:96::30"], &["http/80"]),
        vip("anon", &["10.96.1.40"], &["/5000"]),
        vip("dns2", &["10.96.1.53"], &["dns/53/udp", "dns-tcp/53"]),
        vip("idle", &["10.96.1.50"], &["http/80"]).with(slice(&["http/80"], &["10.1.0.50!"])),
        vip("bare", &["10.96.1.60"], &[]),
        external("ext", "db.example.net"),
        external("extin", "web.shop.svc.cluster.local"),
        external("extgone", "nosuch.shop.svc.cluster.local"),
        external("extv6", "v6only.shop.svc.cluster.local"),
        external("extlocal", "printer.local"),
        external("extip", "192.0.2.7"),
        external("exself", "exself.shop.svc.cluster.local"),
        external("exa", "exb.shop.svc.cluster.local"),
        external("exb", "exa.shop.svc.cluster.local"),
    ]
}

fn data() -> Vec<ServiceView> {
    let big: Vec<_> = (1..=60).map(|last| format!("10.1.2.{last}")).collect();
    let big: Vec<_> = big.iter().map(String::as_str).collect();
    let eight: Vec<_> = (1..=8).map(|last| format!("10.1.3.{last}")).collect();
    let eight: Vec<_> = eight.iter().map(String::as_str).collect();
    let mut early = headless("early").with(slice(&["pg/5432"], &["10.1.0.51!@early-0"]));
    Arc::make_mut(&mut early.spec).publish_not_ready_addresses = true;
    vec![
        headless("pg")
            .with(slice(
                &["pg/5432"],
                &["10.1.0.21@pg-0", "10.1.0.22@pg-1", "10.1.0.23!@pg-2"],
            ))
            .with(slice(&["pg/5432"], &["fd00:10:1::21@pg-0"])),
        headless("pgall").with(slice(&["pg/5432"], &["10.1.0.21"])),
        headless("raw").with(slice(&[], &["10.1.0.31"])),
        headless("twin").with(slice(
            &["http/80"],
            &["10.1.0.41@twin", "10.1.0.42@twin", "10.1.0.43"],
        )),
        headless("down").with(slice(&["x/1"], &["10.1.0.61!"])),
        early,
        headless("big").with(slice(&["x/9"], &big)),
        headless("eight").with(slice(&["x/9"], &eight)),
        headless("twice")
            .with(slice(&["x/9"], &["10.1.0.71"]))
            .with(slice(&["x/9", "y/10"], &["10.1.0.71"])),
        headless("six").with(slice(&["x/9"], &["fd00::"])),
    ]
}

/// With one more slice.
pub(super) trait With {
    fn with(self, slice: EndpointSlice) -> Self;
}

impl With for ServiceView {
    fn with(mut self, slice: EndpointSlice) -> Self {
        self.slices.push(Arc::new(slice));
        self
    }
}

pub(super) fn vip(name: &str, addresses: &[&str], ports: &[&str]) -> ServiceView {
    let addresses: Vec<IpAddr> = addresses.iter().map(|addr| addr.parse().unwrap()).collect();
    let mut view = view("shop", name);
    let spec = Arc::make_mut(&mut view.spec);
    spec.cluster_ip = ClusterIpRequest::Static(addresses.clone());
    spec.ports = ports.iter().map(|port| service_port(port)).collect();
    view.cluster_ips = addresses;
    view
}

pub(super) fn headless(name: &str) -> ServiceView {
    let mut view = view("data", name);
    Arc::make_mut(&mut view.spec).cluster_ip = ClusterIpRequest::Headless;
    view
}

pub(super) fn external(name: &str, target: &str) -> ServiceView {
    let mut view = view("shop", name);
    let spec = Arc::make_mut(&mut view.spec);
    spec.service_type = ServiceType::ExternalName;
    spec.external_name = Some(Arc::from(target));
    view
}

/// `name/number`, or `name/number/udp`.
fn service_port(text: &str) -> ServicePort {
    let mut parts = text.split('/');
    let name = Arc::from(parts.next().unwrap());
    let port: u16 = parts.next().unwrap().parse().unwrap();
    let protocol = if parts.next() == Some("udp") {
        Protocol::Udp
    } else {
        Protocol::Tcp
    };
    ServicePort {
        name,
        protocol,
        port,
        target_port: TargetPort::Number(port),
        node_port: None,
        app_protocol: None,
    }
}

/// Endpoints are addresses, with `!` if they are not ready and `@hostname` if they have one.
pub(super) fn slice(ports: &[&str], endpoints: &[&str]) -> EndpointSlice {
    let ports = ports
        .iter()
        .map(|port| service_port(port))
        .map(|port| SlicePort {
            name: port.name,
            protocol: port.protocol,
            port: Some(port.port),
            app_protocol: None,
        });
    let endpoints: Vec<_> = endpoints.iter().map(|text| endpoint(text)).collect();
    let is_v6 = endpoints
        .iter()
        .all(|endpoint| endpoint.address.unwrap().is_ipv6());
    EndpointSlice {
        is_for_another_proxy: false,
        service_name: None,
        address_type: if is_v6 {
            AddressType::IPv6
        } else {
            AddressType::IPv4
        },
        ports: ports.collect(),
        endpoints,
    }
}

fn endpoint(text: &str) -> SliceEndpoint {
    let (addr, hostname) = text
        .split_once('@')
        .map_or((text, None), |(addr, name)| (addr, Some(Arc::from(name))));
    let ready = !addr.ends_with('!');
    SliceEndpoint {
        address: Some(addr.trim_end_matches('!').parse().unwrap()),
        conditions: Conditions {
            ready,
            serving: true,
            terminating: false,
        },
        hostname,
        node_name: None,
        zone: None,
        pod_name: None,
        hints: Hints::default(),
        weight: Weight::default(),
    }
}

fn view(namespace: &str, name: &str) -> ServiceView {
    let spec = Service::default();
    ServiceView {
        namespace: Arc::from(namespace),
        name: Arc::from(name),
        origin: Origin {
            file: Arc::from("fixture"),
            position: Position::default(),
            marks: Arc::from([]),
        },
        spec: Arc::new(spec),
        cluster_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        slices: Vec::new(),
        ports: Vec::new(),
        frontends: Vec::new(),
    }
}
