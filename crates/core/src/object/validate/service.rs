//! Rules of `v1` Service that concern several fields together. Owns those; single values are checked as they are
//! read.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    address, app_protocol, balancing, draining, limits, proxy_protocol, source_address, syntax,
};
use crate::object::{
    decode::cursor::Cursor,
    service::{ClusterIpRequest, IpFamily, IpFamilyPolicy, Service, ServiceType, TrafficPolicy},
};

/// Longest session affinity, in seconds (`v1.ClientIPConfig`).
const MAX_AFFINITY_SECONDS: i64 = 86400;
const RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

/// Everything about `spec` that a single value does not tell.
pub(crate) fn check(spec: &Cursor<'_>, service: &Service) {
    check_ports(spec, service);
    check_type(spec, service);
    check_cluster_ips(spec, service.service_type);
    check_families(spec, service);
    check_load_balancer(spec, service);
    check_policies(spec, service);
    check_affinity(spec);
    warn_of_ignored(spec, service);
}

fn check_ports(spec: &Cursor<'_>, service: &Service) {
    let ports = spec.field("ports");
    if ports.len() == 0 && service.has_vip() {
        ports.required("");
    }
    let (mut numbers, mut names, mut node_ports) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (item, port) in ports.items().zip(&service.ports) {
        let name = item.field("name");
        if port.name.is_empty() && ports.len() > 1 {
            name.required("");
        } else if !port.name.is_empty() && !names.insert(&port.name) {
            name.duplicate(&name.shown());
        }
        let number = item.field("port");
        if !number.is_present() {
            number.required("");
        } else if port.port > 0 && !numbers.insert((port.protocol, port.port)) {
            item.duplicate(&format!(
                "{{\"port\":{},\"protocol\":\"{}\"}}",
                port.port, port.protocol
            ));
        }
        let node_port = item.field("nodePort");
        let Some(wanted) = node_port.int().filter(|wanted| *wanted != 0) else {
            continue;
        };
        if service.service_type == ServiceType::ClusterIP {
            node_port.forbidden("may not be used when `type` is 'ClusterIP'");
        } else if !node_ports.insert((port.protocol, wanted)) {
            node_port.duplicate(&node_port.shown());
        }
    }
}

fn check_type(spec: &Cursor<'_>, service: &Service) {
    let headless = spec
        .field("clusterIP")
        .text()
        .is_some_and(|text| &**text == "None");
    let service_type = service.service_type;
    if headless && service.takes_node_ports() {
        let why = format!(
            "may not be set to 'None' for {} services",
            service_type.as_str()
        );
        spec.field("clusterIP").invalid(&why);
    }
    if service_type != ServiceType::ExternalName {
        return;
    }
    let name = spec.field("externalName");
    let text = name.non_empty();
    match text.map(|text| text.strip_suffix('.').unwrap_or(text)) {
        None | Some("") => name.required(""),
        Some(text) => {
            for why in syntax::subdomain(text) {
                name.error(format!("Invalid value: {text:?}: {why}"));
            }
        }
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let field = spec.field(field);
        let given = field.is_present() && field.text().is_none_or(|text| !text.is_empty());
        if given && (field.text().is_some() || field.len() > 0) {
            field.forbidden("may not be set for ExternalName services");
        }
    }
}

fn check_cluster_ips(spec: &Cursor<'_>, service_type: ServiceType) {
    if service_type == ServiceType::ExternalName {
        return;
    }
    let (primary, all) = (spec.field("clusterIP"), spec.field("clusterIPs"));
    let first = primary.non_empty();
    if first.is_some_and(|text| &**text != "None") {
        primary.address();
    }
    if all.len() > 0 && first.is_none() {
        all.invalid("must be empty when `clusterIP` is not specified");
    }
    if all.len() > 2 {
        all.invalid("may only hold up to 2 values");
    }
    let mut families = BTreeSet::new();
    for (index, item) in all.items().enumerate() {
        let Some(text) = item.text() else { continue };
        if index == 0 && first.is_some_and(|first| first != text) {
            item.invalid("first value must match `clusterIP`");
        }
        if &**text == "None" {
            if all.len() > 1 {
                item.invalid("'None' must be the first and only value");
            }
        } else if let Some(addr) = item.address()
            && !families.insert(IpFamily::of(addr))
        {
            all.invalid("may specify no more than one IP for each IP family");
        }
    }
}

fn check_families(spec: &Cursor<'_>, service: &Service) {
    if service.service_type == ServiceType::ExternalName {
        return;
    }
    let families = spec.field("ipFamilies");
    let mut seen = BTreeSet::new();
    for (item, family) in families.items().zip(&service.ip_families) {
        if !seen.insert(*family) {
            item.duplicate(&item.shown());
        }
    }
    let cluster_ips = spec.field("clusterIPs");
    if service.family_policy() == IpFamilyPolicy::SingleStack {
        let policy = spec.field("ipFamilyPolicy");
        let listed =
            matches!(&service.cluster_ip, ClusterIpRequest::Static(asked) if asked.len() == 2);
        let both = [(listed, "cluster IPs"), (seen.len() == 2, "IP families")];
        for (_, what) in both.into_iter().filter(|(is_double, _)| *is_double) {
            policy.error(format!(
                "Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            ));
        }
    }
    let single = spec.field("clusterIP");
    let listed: Vec<_> = if cluster_ips.len() > 0 {
        cluster_ips.items().collect()
    } else {
        vec![single]
    };
    for (index, (item, family)) in listed.iter().zip(&service.ip_families).enumerate() {
        let addr: Option<IpAddr> = item.text().and_then(|text| text.parse().ok());
        if addr.is_some_and(|addr| IpFamily::of(addr) != *family) {
            let name = if *family == IpFamily::IPv4 {
                "an IPv4"
            } else {
                "an IPv6"
            };
            item.invalid(&format!(
                "expected {name} value as indicated by `ipFamilies[{index}]`"
            ));
        }
    }
}

fn check_load_balancer(spec: &Cursor<'_>, service: &Service) {
    if service.service_type == ServiceType::LoadBalancer {
        return;
    }
    let ranges = spec.field("loadBalancerSourceRanges");
    if ranges.len() > 0 {
        ranges.forbidden(ONLY_LOAD_BALANCER);
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        let field = spec.field(field);
        if field.is_present() {
            field.forbidden(ONLY_LOAD_BALANCER);
        }
    }
}

fn check_policies(spec: &Cursor<'_>, service: &Service) {
    let external = spec.field("externalTrafficPolicy");
    let accessible = service.takes_node_ports()
        || (service.service_type == ServiceType::ClusterIP && spec.field("externalIPs").len() > 0);
    if external.non_empty().is_some() && !accessible {
        external.invalid("may only be set for externally-accessible services");
    }
    let check_port = spec.field("healthCheckNodePort");
    let takes_check = service.service_type == ServiceType::LoadBalancer
        && service.external_traffic_policy == TrafficPolicy::Local;
    if check_port.int().is_some_and(|port| port != 0) && !takes_check {
        check_port.invalid(
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    }
}

fn check_affinity(spec: &Cursor<'_>) {
    if spec
        .field("sessionAffinity")
        .text()
        .is_none_or(|text| &**text != "ClientIP")
    {
        return;
    }
    let config = spec.field("sessionAffinityConfig");
    let client_ip = config.field("clientIP");
    let timeout = client_ip.field("timeoutSeconds");
    if timeout
        .int()
        .is_some_and(|seconds| !(1..=MAX_AFFINITY_SECONDS).contains(&seconds))
    {
        timeout.invalid("must be greater than 0 and less than 86400");
    }
}

/// Fields that have no meaning for the type (the API server's warnings, `GetWarningsForService`).
fn warn_of_ignored(spec: &Cursor<'_>, service: &Service) {
    let (external_ips, name) = (spec.field("externalIPs"), spec.field("externalName"));
    let is_alias = service.service_type == ServiceType::ExternalName;
    if is_alias && external_ips.len() > 0 {
        external_ips.warn("is ignored when spec.type is \"ExternalName\"");
    }
    if !is_alias && name.non_empty().is_some() {
        name.warn("is ignored when spec.type is not \"ExternalName\"");
    }
    let is_headless = service.service_type == ServiceType::ClusterIP
        && service.cluster_ip == ClusterIpRequest::Headless;
    if !is_headless {
        return;
    }
    let (balancer, affinity) = (spec.field("loadBalancerIP"), spec.field("sessionAffinity"));
    for (field, is_given) in [
        (external_ips, external_ips.len() > 0),
        (balancer, balancer.non_empty().is_some()),
        (affinity, service.client_ip_affinity.is_some()),
    ] {
        if is_given {
            field.warn("is ignored for headless services");
        }
    }
}

/// Annotations that depend on each other or on the type.
pub(crate) fn check_annotations(meta: &Cursor<'_>, service: &Service) {
    const MODE: &str = "service.kubernetes.io/topology-mode";
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let annotations = meta.field("annotations");
    balancing::check_service(&annotations, service);
    source_address::check_service(&annotations, service);
    draining::check_service(&annotations, service);
    limits::check_service(&annotations, service);
    app_protocol::check_service(&annotations, service);
    proxy_protocol::check_service(&annotations, service);
    let (mode_field, hints) = (annotations.key(MODE), annotations.key(HINTS));
    if let (Some(mode), Some(text)) = (mode_field.text(), hints.text())
        && mode != text
    {
        mode_field.invalid(&format!(
            "must match annotations[{HINTS}] when both are specified"
        ));
    }
    for annotation in [mode_field, hints] {
        if annotation
            .text()
            .is_some_and(|text| text.eq_ignore_ascii_case("auto"))
        {
            annotation.warn(
                "topology-mode Auto is ignored: spec.trafficDistribution is what hints are made of here",
            );
        }
    }
    check_range_annotation(&annotations.key(RANGES_ANNOTATION), service);
}

/// The older form of `spec.loadBalancerSourceRanges`. Proxies read the field only, so that this guards nothing.
fn check_range_annotation(annotation: &Cursor<'_>, service: &Service) {
    let Some(text) = annotation.text() else {
        return;
    };
    if service.service_type != ServiceType::LoadBalancer {
        annotation.forbidden(ONLY_LOAD_BALANCER);
        return;
    }
    let text = text.trim();
    if text.is_empty() || !service.load_balancer_source_ranges.is_empty() {
        return;
    }
    let mut is_good = true;
    for range in text.split(',').map(str::trim) {
        if let Err(why) = address::parse_range(range) {
            annotation.error(format!("Invalid value: {range:?}: {why}"));
            is_good = false;
        }
    }
    if is_good {
        annotation.warn("this annotation guards nothing here: write spec.loadBalancerSourceRanges");
    }
}
