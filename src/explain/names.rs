//! The names that DNS has for a Service, and one command to try. Owns the choice of the command.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portico_core::{
    dns,
    object::{Protocol, ServiceType, service::IpFamily},
};

use super::{
    model::{EndpointReport, PortVerdict, Way},
    subject::Subject,
};

/// Ports that do not speak HTTP, as registered with IANA.
const OTHER_PROTOCOLS: [u16; 14] = [
    21, 22, 25, 53, 110, 143, 389, 1433, 1883, 3306, 5432, 5672, 6379, 27017,
];

/// Names from the longest to the shortest.
pub(super) fn of(subject: Subject<'_>, reports: &[EndpointReport]) -> Vec<String> {
    let (namespace, name) = (subject.namespace(), subject.name());
    let cluster = &subject.view.snapshot.cluster;
    let domains = cluster.domains.iter();
    let mut names: Vec<String> = domains
        .map(|domain| format!("{name}.{namespace}.svc.{domain}"))
        .collect();
    if let Some(search) = &cluster.search_namespace {
        names.push(format!("{name}.{namespace}"));
        if search == namespace {
            names.push(name.to_string());
        }
    }
    if !subject.spec().has_vip()
        && reports.iter().any(|report| report.chosen)
        && let Some(domain) = cluster.domains.first()
    {
        let slices = subject.record.slices.iter();
        let hosts = slices
            .flat_map(|slice| &slice.endpoints)
            .filter(|endpoint| endpoint.conditions.ready)
            .filter_map(|endpoint| endpoint.hostname.as_ref());
        names.extend(hosts.map(|host| format!("{host}.{name}.{namespace}.svc.{domain}")));
    }
    names
}

/// What clients that have loopback addresses of their own get.
pub(super) fn elsewhere(subject: Subject<'_>) -> Option<String> {
    if subject.spec().service_type == ServiceType::ExternalName {
        return None;
    }
    let cluster = &subject.view.snapshot.cluster;
    let told = dns::told_elsewhere(subject.service, cluster);
    let addresses: Vec<String> = told.addresses.iter().map(ToString::to_string).collect();
    let mut ports = subject.service.ports.iter();
    Some(if told.are_node_ports {
        format!("{} with its node ports", addresses.join(", "))
    } else if !addresses.is_empty() {
        addresses.join(", ")
    } else if !subject.spec().has_vip() {
        "no address: its endpoints have loopback ones only".to_owned()
    } else if ports.any(|port| port.node_port.is_some()) {
        "no address; --advertise ADDR names this host to them, where its node ports are".to_owned()
    } else {
        "no address; an external IP would be one, or type NodePort with --advertise ADDR".to_owned()
    })
}

/// The command that shows most: a request to a port that forwards, else a question to DNS.
pub(super) fn attempt(subject: Subject<'_>, ways: &[Way], ports: &[PortVerdict]) -> Option<String> {
    let (namespace, name) = (subject.namespace(), subject.name());
    let resolve = || format!("portico resolve {name}.{namespace}");
    if !subject.spec().has_vip() {
        return Some(resolve());
    }
    let way = first_that_forwards(Protocol::Tcp, ways, ports)
        .or_else(|| first_that_forwards(Protocol::Udp, ways, ports))?;
    let declared: SocketAddr = way.declared.parse().ok()?;
    let mut bound: SocketAddr = way.bound.as_deref()?.parse().ok()?;
    match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => bound.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => bound.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let mut of_way = subject.spec().ports.iter();
    let number = of_way
        .find(|port| super::subject::label(port) == way.port)
        .map_or(declared.port(), |port| port.port);
    if way.protocol == Protocol::Udp.as_str() {
        return Some(datagram(bound, number));
    }
    Some(if OTHER_PROTOCOLS.contains(&number) {
        format!("nc -vz {} {}", bound.ip(), bound.port())
    } else if number == 443 || way.port == "https" {
        format!("curl -k https://{bound}/")
    } else if bound.port() == 80 {
        format!("curl http://{}/", uri_host(bound))
    } else {
        format!("curl http://{bound}/")
    })
}

/// The first address of a protocol that is bound and has endpoints in its family.
fn first_that_forwards<'w>(
    protocol: Protocol,
    ways: &'w [Way],
    ports: &[PortVerdict],
) -> Option<&'w Way> {
    let forwards = |way: &&Way| {
        let addr: Option<SocketAddr> = way.declared.parse().ok();
        let family = addr.map(|addr| IpFamily::of(addr.ip()).as_str());
        let mut ports = ports.iter();
        way.protocol == protocol.as_str()
            && way.bound.is_some()
            && ports.any(|port| {
                let is_of_way = port.port == way.port && family == Some(&*port.family);
                is_of_way && !port.reachable.is_empty()
            })
    };
    ways.iter().find(forwards)
}

/// One datagram, and what comes back within a second; a question where a DNS server is expected.
fn datagram(bound: SocketAddr, number: u16) -> String {
    let (ip, port) = (bound.ip(), bound.port());
    if number == 53 {
        format!("dig @{ip} -p {port} example.com")
    } else {
        format!("echo hello | nc -u -w 1 {ip} {port}")
    }
}

fn uri_host(bound: SocketAddr) -> String {
    match bound {
        SocketAddr::V4(bound) => bound.ip().to_string(),
        SocketAddr::V6(bound) => format!("[{}]", bound.ip()),
    }
}
