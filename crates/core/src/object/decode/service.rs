//! `v1` Service: reading and defaults (`SetDefaults_Service` of the Kubernetes API server).

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{cursor::Cursor, marks::Marks};
use crate::object::{
    service::{
        ClusterIpRequest, IpFamily, IpFamilyPolicy, Service, ServicePort, ServiceType, TargetPort,
        TrafficDistribution, TrafficPolicy,
    },
    validate::{meta, service as rules, syntax},
};

const DEFAULT_AFFINITY_SECONDS: i64 = 10800;
const POLICIES: [(&str, TrafficPolicy); 2] = [
    ("Cluster", TrafficPolicy::Cluster),
    ("Local", TrafficPolicy::Local),
];

/// Reads a whole Service. What it returns is good only if nothing was reported.
pub(super) fn read(object: &Cursor<'_>, marks: &mut Marks) -> Service {
    let spec = object.field("spec");
    let service_type = spec.field("type").one_of(&[
        ("ClusterIP", ServiceType::ClusterIP),
        ("ExternalName", ServiceType::ExternalName),
        ("LoadBalancer", ServiceType::LoadBalancer),
        ("NodePort", ServiceType::NodePort),
    ]);
    let service_type = service_type.unwrap_or(ServiceType::ClusterIP);
    meta::labels(&spec.field("selector"));
    let service = Service {
        service_type,
        cluster_ip: cluster_ip(&spec, service_type),
        ports: ports(&spec.field("ports"), service_type, marks),
        selector: spec.field("selector").labels(),
        external_ips: spec
            .field("externalIPs")
            .items()
            .filter_map(|item| external_ip(&item))
            .collect(),
        load_balancer_ip: load_balancer_ip(&spec.field("loadBalancerIP")),
        load_balancer_class: spec
            .field("loadBalancerClass")
            .named_if_set(syntax::qualified_name),
        load_balancer_source_ranges: source_ranges(&spec.field("loadBalancerSourceRanges")),
        allocate_load_balancer_node_ports: spec
            .field("allocateLoadBalancerNodePorts")
            .boolean()
            .unwrap_or(true),
        client_ip_affinity: affinity(&spec),
        external_traffic_policy: spec
            .field("externalTrafficPolicy")
            .one_of(&POLICIES)
            .unwrap_or_default(),
        internal_traffic_policy: spec
            .field("internalTrafficPolicy")
            .one_of_if_set(&POLICIES)
            .unwrap_or_default(),
        traffic_distribution: spec.field("trafficDistribution").one_of_if_set(&[
            ("PreferClose", TrafficDistribution::PreferSameZone),
            ("PreferSameNode", TrafficDistribution::PreferSameNode),
            ("PreferSameZone", TrafficDistribution::PreferSameZone),
        ]),
        health_check_node_port: spec.field("healthCheckNodePort").optional_port(),
        publish_not_ready_addresses: spec
            .field("publishNotReadyAddresses")
            .boolean()
            .unwrap_or(false),
        external_name: external_name(&spec, service_type),
        ip_families: families(&spec.field("ipFamilies")),
        ip_family_policy: spec.field("ipFamilyPolicy").one_of(&[
            ("PreferDualStack", IpFamilyPolicy::PreferDualStack),
            ("RequireDualStack", IpFamilyPolicy::RequireDualStack),
            ("SingleStack", IpFamilyPolicy::SingleStack),
        ]),
    };
    rules::check(&spec, &service);
    rules::check_annotations(&object.field("metadata"), &service);
    mark(&spec, marks);
    service
}

fn cluster_ip(spec: &Cursor<'_>, service_type: ServiceType) -> ClusterIpRequest {
    let single = spec.field("clusterIP");
    match single.non_empty() {
        None => ClusterIpRequest::Auto,
        Some(_) if service_type == ServiceType::ExternalName => ClusterIpRequest::Auto,
        Some(text) if &**text == "None" => ClusterIpRequest::Headless,
        Some(text) => {
            let listed = spec.field("clusterIPs");
            let parse = |text: &Arc<str>| text.parse::<IpAddr>().ok();
            let all: Vec<IpAddr> = listed
                .items()
                .filter_map(|item| item.text().and_then(parse))
                .collect();
            ClusterIpRequest::Static(if all.is_empty() {
                parse(text).into_iter().collect()
            } else {
                all
            })
        }
    }
}

fn ports(list: &Cursor<'_>, service_type: ServiceType, marks: &mut Marks) -> Vec<ServicePort> {
    let read = |item: Cursor<'_>| {
        let number = item.field("port").port().unwrap_or_default();
        // An alias has no node ports; the API server drops them.
        let node_port = item
            .field("nodePort")
            .optional_port()
            .filter(|_| service_type != ServiceType::ExternalName);
        marks.add(&item);
        for field in ["port", "nodePort", "targetPort"] {
            marks.add(&item.field(field));
        }
        ServicePort {
            name: item.field("name").named(syntax::label).unwrap_or_default(),
            protocol: item.field("protocol").protocol(),
            port: number,
            target_port: target_port(&item.field("targetPort"), number),
            node_port,
            app_protocol: item
                .field("appProtocol")
                .named_if_set(syntax::qualified_name),
        }
    };
    list.items().map(read).collect()
}

/// Absent, 0 and "" mean the Service port's own number.
fn target_port(field: &Cursor<'_>, number: u16) -> TargetPort {
    match field.named(syntax::port_name) {
        Some(name) => TargetPort::Name(name),
        None => TargetPort::Number(field.optional_port().unwrap_or(number)),
    }
}

fn external_ip(item: &Cursor<'_>) -> Option<IpAddr> {
    let addr = item.address()?;
    if let Some(why) = syntax::special_address(addr) {
        item.invalid(&why);
        return None;
    }
    if addr.is_loopback() {
        item.note("loopback external addresses are accepted here; a cluster would reject them");
    }
    Some(addr)
}

/// Kubernetes takes any text here.
fn load_balancer_ip(field: &Cursor<'_>) -> Option<IpAddr> {
    let addr = field.non_empty()?.parse().ok();
    if addr.is_none() {
        field.warn(&format!("{} is not an IP address: ignored", field.shown()));
    }
    addr
}

fn source_ranges(list: &Cursor<'_>) -> Vec<IpNet> {
    list.items().filter_map(|item| item.range()).collect()
}

fn affinity(spec: &Cursor<'_>) -> Option<Duration> {
    let wanted = spec
        .field("sessionAffinity")
        .one_of(&[("ClientIP", true), ("None", false)])?;
    let config = spec.field("sessionAffinityConfig");
    let client_ip = config.field("clientIP");
    let seconds = client_ip
        .field("timeoutSeconds")
        .int()
        .unwrap_or(DEFAULT_AFFINITY_SECONDS);
    wanted.then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

fn external_name(spec: &Cursor<'_>, service_type: ServiceType) -> Option<Arc<str>> {
    if service_type != ServiceType::ExternalName {
        return None;
    }
    let field = spec.field("externalName");
    let text = field.non_empty()?;
    Some(text.strip_suffix('.').unwrap_or(text).to_lowercase().into())
}

fn families(list: &Cursor<'_>) -> Vec<IpFamily> {
    list.items()
        .filter_map(|item| item.one_of(&[("IPv4", IpFamily::IPv4), ("IPv6", IpFamily::IPv6)]))
        .collect()
}

fn mark(spec: &Cursor<'_>, marks: &mut Marks) {
    for field in [
        "clusterIP",
        "ipFamilyPolicy",
        "ports",
        "loadBalancerIP",
        "loadBalancerClass",
        "loadBalancerSourceRanges",
        "healthCheckNodePort",
        "selector",
        "externalName",
        "internalTrafficPolicy",
        "externalTrafficPolicy",
    ] {
        marks.add(&spec.field(field));
    }
    for list in ["clusterIPs", "externalIPs", "ipFamilies"] {
        let list = spec.field(list);
        for item in list.items() {
            marks.add(&item);
        }
    }
}
