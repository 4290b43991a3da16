//! The names that DNS has for a Service, and one command to try. Owns the choice of the command.

use portico_core::object::Protocol;

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

/// The command that shows most: a request to a port that forwards, else a question to DNS.
pub(super) fn attempt(subject: Subject<'_>, ways: &[Way], ports: &[PortVerdict]) -> Option<String> {
    let (namespace, name) = (subject.namespace(), subject.name());
    let resolve = || format!("portico resolve {name}.{namespace}");
    if !subject.spec().has_vip() {
        return Some(resolve());
    }
    let forwards = |way: &&Way| {
        let mut ports = ports.iter();
        way.protocol == Protocol::Tcp.as_str()
            && ports.any(|port| port.port == way.port && !port.reachable.is_empty())
    };
    let way = ways
        .iter()
        .filter(forwards)
        .find(|way| way.bound.is_some())?;
    let declared: std::net::SocketAddr = way.declared.parse().ok()?;
    let mut bound: std::net::SocketAddr = way.bound.as_deref()?.parse().ok()?;
    if bound.ip().is_unspecified() {
        bound.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let mut of_way = subject.spec().ports.iter();
    let number = of_way
        .find(|port| super::subject::label(port) == way.port)
        .map_or(declared.port(), |port| port.port);
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

fn uri_host(bound: std::net::SocketAddr) -> String {
    match bound {
        std::net::SocketAddr::V4(bound) => bound.ip().to_string(),
        std::net::SocketAddr::V6(bound) => format!("[{}]", bound.ip()),
    }
}
