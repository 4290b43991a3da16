//! Edits that an API server would refuse because a field may not change once it is set. Owns the comparison with the
//! version in force and the words; who keeps that version is the caller's. Rules: `ValidateServiceUpdate` and
//! `ValidateEndpointSliceUpdate` of Kubernetes, after what its Service registry copies from the old version.

use std::net::IpAddr;

use super::addresses::{Addresses, mapped};
use crate::{
    object::{
        AddressType, ClusterIpRequest, EndpointSlice, Service, ServiceType, service::IpFamily,
    },
    snapshot::Cluster,
};

/// A field and what is wrong with it.
pub(super) type Finding = (String, String);

const SET: &str = "may not change once set";
const NONE: &str = "None";

/// What of a new version of a Service cannot follow the version in force; empty when it may.
pub(super) fn of_service(
    (before, held): (&Service, &Addresses),
    after: &Service,
    cluster: &Cluster,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_alias = |service: &Service| service.service_type == ServiceType::ExternalName;
    if !is_alias(before) && !is_alias(after) {
        findings.extend(cluster_ips((before, held), after, cluster));
        findings.extend(primary_family((before, held), after));
    }
    let is_balancer = |service: &Service| service.service_type == ServiceType::LoadBalancer;
    if is_balancer(before)
        && is_balancer(after)
        && before.load_balancer_class != after.load_balancer_class
    {
        let class = after.load_balancer_class.as_ref();
        let class = class.map_or_else(|| "null".to_owned(), |class| format!("\"{class}\""));
        let message = format!("Invalid value: {class}: {SET}");
        findings.push(("spec.loadBalancerClass".to_owned(), message));
    }
    // One that is not given is copied from the version in force.
    let asked = after.health_check_node_port;
    let has = held
        .health_check_node_port
        .filter(|_| before.takes_health_check());
    if after.takes_health_check() && asked.is_some() && has.is_some() && asked != has {
        let message = "Forbidden: field is immutable".to_owned();
        findings.push(("spec.healthCheckNodePort".to_owned(), message));
    }
    findings
}

fn cluster_ips(
    (before, held): (&Service, &Addresses),
    after: &Service,
    cluster: &Cluster,
) -> Vec<Finding> {
    let words = |all: &[String], index: usize| {
        let message = format!("Invalid value: {}: {SET}", listed(all));
        (format!("spec.clusterIPs[{index}]"), message)
    };
    let was_headless = before.cluster_ip == ClusterIpRequest::Headless;
    let asked = match &after.cluster_ip {
        ClusterIpRequest::Auto => return Vec::new(),
        ClusterIpRequest::Headless if was_headless => return Vec::new(),
        ClusterIpRequest::Headless => return vec![words(&[NONE.to_owned()], 0)],
        ClusterIpRequest::Static(asked) => asked,
    };
    let all: Vec<String> = asked.iter().map(ToString::to_string).collect();
    if was_headless {
        return vec![words(&all, 0)];
    }
    let declared = match &before.cluster_ip {
        ClusterIpRequest::Static(declared) => declared.as_slice(),
        ClusterIpRequest::Auto | ClusterIpRequest::Headless => &[],
    };
    let pairs = asked.iter().zip(&held.cluster_ips).enumerate();
    pairs
        .filter(|(index, (asked, held))| {
            // A foreign address may have been mapped, also to another one than it maps to.
            let is_same = asked == held
                || declared.get(*index) == Some(asked)
                || here(**asked, cluster) == **held;
            !is_same
        })
        .map(|(index, _)| words(&all, index))
        .collect()
}

/// The address that an address which was asked for stands for.
fn here(addr: IpAddr, cluster: &Cluster) -> IpAddr {
    match cluster.service_range(IpFamily::of(addr)) {
        Some(range) if !range.contains(&addr) => mapped(addr, range),
        _ => addr,
    }
}

fn primary_family((before, held): (&Service, &Addresses), after: &Service) -> Option<Finding> {
    if before.is_headless_without_selector() && after.is_headless_without_selector() {
        return None;
    }
    let (asked, has) = (after.ip_families.first()?, held.families.first()?);
    let all: Vec<String> = after
        .ip_families
        .iter()
        .map(|family| family.as_str().to_owned())
        .collect();
    let message = format!("Invalid value: {}: {SET}", listed(&all));
    (asked != has).then(|| ("spec.ipFamilies[0]".to_owned(), message))
}

fn listed(all: &[String]) -> String {
    let quoted: Vec<String> = all.iter().map(|one| format!("\"{one}\"")).collect();
    format!("[{}]", quoted.join(","))
}

/// What of a new version of a slice cannot follow the version in force.
pub(super) fn of_slice(before: &EndpointSlice, after: &EndpointSlice) -> Option<Finding> {
    let name = match after.address_type {
        AddressType::IPv4 => "IPv4",
        AddressType::IPv6 => "IPv6",
        AddressType::Fqdn => "FQDN",
    };
    let message = format!("Invalid value: \"{name}\": field is immutable");
    (before.address_type != after.address_type).then(|| ("addressType".to_owned(), message))
}
