//! What stands at a name of a cluster zone. Owns the grammar of Service and Pod names and the records at each; zones,
//! aliases and negative answers belong to `lookup`.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    Name, PodNames, Record, RecordData, RecordType, TTL,
    elsewhere::Asker,
    endpoints::{self, Shown},
    zone::Zone,
};
use crate::{
    object::{ServiceType, service::Protocol},
    snapshot::{ServiceView, Snapshot, service_path},
};

/// What stands at a name.
#[derive(Debug)]
pub(super) enum Node<'a> {
    /// The zone's own name.
    Apex,
    /// A name only because others lie below it (RFC 8020).
    Empty,
    /// `dns-version`.
    Version,
    /// `ns.dns`, an endpoint or a Pod: addresses.
    Addresses(Vec<IpAddr>),
    /// A Service with addresses.
    Service(&'a ServiceView),
    /// A port of a Service.
    Port(&'a ServiceView, PortName<'a>),
    /// A Service of type ExternalName: an alias of this name.
    Alias(&'a str),
}

/// Name and protocol of a port, as SRV names give them.
#[derive(Debug, Clone, Copy)]
pub(super) struct PortName<'a> {
    pub(super) name: &'a str,
    pub(super) protocol: Protocol,
}

/// Records for the answer and the additional section.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub answers: Vec<Record>,
    pub additional: Vec<Record>,
}

/// What stands at `labels`, which are in lower case, the leftmost first.
pub(super) fn find<'a>(snapshot: &'a Snapshot, labels: &'a [String]) -> Option<Node<'a>> {
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match *labels {
        [] => Some(Node::Apex),
        ["dns-version"] => Some(Node::Version),
        // Nothing lies below, so that it is not there either.
        [.., "pod"] if snapshot.cluster.dns.pods == PodNames::Disabled => None,
        ["dns" | "svc" | "pod"] => Some(Node::Empty),
        ["ns", "dns"] => Some(Node::Addresses(snapshot.cluster.name_servers().to_vec())),
        [namespace, "svc" | "pod"] => snapshot.has_namespace(namespace).then_some(Node::Empty),
        [label, namespace, "pod"] => find_pod(snapshot, label, namespace),
        [ref front @ .., service, namespace, "svc"] => {
            let service = snapshot.service(&service_path(namespace, service))?;
            find_in_service(service, front)
        }
        _ => None,
    }
}

/// A verified Pod is an endpoint in its namespace.
fn find_pod<'a>(snapshot: &'a Snapshot, label: &str, namespace: &str) -> Option<Node<'a>> {
    let addr = endpoints::undashed(label)?;
    let is_known = match snapshot.cluster.dns.pods {
        PodNames::Disabled => false,
        PodNames::Insecure => snapshot.has_namespace(namespace),
        PodNames::Verified => {
            let mut services = snapshot.address_owners(addr)?.endpoint_of.iter();
            services.any(|service| &*service.namespace == namespace)
        }
    };
    is_known.then(|| Node::Addresses(vec![addr]))
}

fn find_in_service<'a>(service: &'a ServiceView, front: &[&'a str]) -> Option<Node<'a>> {
    if let Some(target) = &service.spec.external_name {
        // An address is no name to be an alias of, so such a Service has no name either.
        return (front.is_empty() && target.parse::<IpAddr>().is_err())
            .then_some(Node::Alias(target));
    }
    // A headless Service without ready endpoints does not exist (specification, section 2.4.1).
    if is_headless(service) && endpoints::shown(service).next().is_none() {
        return None;
    }
    match *front {
        [] => Some(Node::Service(service)),
        [label] => match protocol(label) {
            Some(wanted) => ports(service)
                .iter()
                .any(|port| port.protocol == wanted)
                .then_some(Node::Empty),
            None => find_endpoint(service, label),
        },
        [port, transport] => {
            let wanted = PortName {
                name: port.strip_prefix('_')?,
                protocol: protocol(transport)?,
            };
            let exists =
                |port: &PortName<'_>| port.name == wanted.name && port.protocol == wanted.protocol;
            ports(service)
                .iter()
                .any(exists)
                .then_some(Node::Port(service, wanted))
        }
        _ => None,
    }
}

fn find_endpoint<'a>(service: &'a ServiceView, label: &str) -> Option<Node<'a>> {
    let named = endpoints::shown(service).filter(|endpoint| endpoint.label() == label);
    let addresses = unique(named.map(|endpoint| endpoint.addr));
    (!addresses.is_empty()).then_some(Node::Addresses(addresses))
}

pub(super) fn is_headless(service: &ServiceView) -> bool {
    !service.spec.has_vip() && service.spec.service_type != ServiceType::ExternalName
}

/// `_tcp` and the like.
fn protocol(label: &str) -> Option<Protocol> {
    let name = label.strip_prefix('_')?;
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| protocol.srv_label() == name)
}

/// The named ports: of the Service, or of the slices where it is headless.
pub(super) fn ports(service: &ServiceView) -> Vec<PortName<'_>> {
    let ports: Vec<_> = if is_headless(service) {
        let numbered = endpoints::shown(service).flat_map(|endpoint| &endpoint.slice.ports);
        let numbered = numbered.filter(|port| port.port.is_some());
        numbered
            .map(|port| PortName {
                name: &port.name,
                protocol: port.protocol,
            })
            .collect()
    } else {
        service
            .spec
            .ports
            .iter()
            .map(|port| PortName {
                name: &port.name,
                protocol: port.protocol,
            })
            .collect()
    };
    ports
        .into_iter()
        .filter(|port| !port.name.is_empty())
        .collect()
}

/// The addresses that the Service's own name has for `asker`.
pub(super) fn addresses(service: &ServiceView, asker: Asker<'_>) -> Vec<IpAddr> {
    if is_headless(service) {
        let shown = endpoints::shown(service).map(|endpoint| endpoint.addr);
        unique(shown.filter(|addr| asker.may_have(*addr)))
    } else {
        asker.way_to(service).addresses
    }
}

/// Each once, in the order of their first appearance.
fn unique(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    addresses.filter(|addr| seen.insert(*addr)).collect()
}

/// The A or AAAA records among `addresses`.
pub(super) fn address_records(
    owner: &Name,
    rtype: RecordType,
    addresses: &[IpAddr],
) -> Vec<Record> {
    let records = addresses
        .iter()
        .map(|addr| Record::address(owner.clone(), *addr));
    records
        .filter(|record| record.data.rtype() == rtype)
        .collect()
}

/// The SRV records of `service` for `asker`, of all ports or of one, with the addresses of their targets.
pub(super) fn srv_records(
    owner: &Name,
    zone: &Zone,
    service: &ServiceView,
    port: Option<PortName<'_>>,
    asker: Asker<'_>,
) -> Records {
    let wanted = |name: &str, protocol| {
        port.is_none_or(|port| port.name == name && port.protocol == protocol)
    };
    let items: Vec<Located> = if is_headless(service) {
        endpoints::shown(service)
            .filter(|endpoint| asker.may_have(endpoint.addr))
            .flat_map(|endpoint| locate_endpoint(service, zone, &endpoint, &wanted))
            .collect()
    } else {
        locate_service(service, zone, &wanted, asker)
    };
    // Equal shares of 100, as CoreDNS gives them: tools compare.
    let weight = u16::try_from(100 / items.len().max(1)).unwrap_or(0).max(1);
    let mut records = Records::default();
    let mut seen_targets = BTreeSet::new();
    let mut seen_ports = BTreeSet::new();
    for item in &items {
        if seen_ports.insert((item.target.as_wire(), item.port)) {
            let data = RecordData::Srv {
                weight,
                port: item.port,
                target: item.target.clone(),
            };
            records.answers.push(Record {
                name: owner.clone(),
                ttl: TTL,
                data,
            });
        }
    }
    for item in &items {
        if seen_targets.insert((item.target.as_wire(), item.addr)) {
            records
                .additional
                .push(Record::address(item.target.clone(), item.addr));
        }
    }
    group_by_target(&mut records.additional);
    records
}

/// One address of one port of a Service.
struct Located {
    target: Name,
    addr: IpAddr,
    port: u16,
}

fn locate_service(
    service: &ServiceView,
    zone: &Zone,
    wanted: &impl Fn(&str, Protocol) -> bool,
    asker: Asker<'_>,
) -> Vec<Located> {
    let Some(target) = zone.service_name(&[&service.name, &service.namespace]) else {
        return Vec::new();
    };
    let way = asker.way_to(service);
    let ports = service
        .spec
        .ports
        .iter()
        .filter(|port| wanted(&port.name, port.protocol));
    let each = |port: u16| {
        let target = &target;
        way.addresses.iter().map(move |addr| Located {
            target: target.clone(),
            addr: *addr,
            port,
        })
    };
    let numbers = ports.filter_map(|port| way.port(service, port));
    numbers.flat_map(each).collect()
}

fn locate_endpoint(
    service: &ServiceView,
    zone: &Zone,
    endpoint: &Shown<'_>,
    wanted: &impl Fn(&str, Protocol) -> bool,
) -> Vec<Located> {
    let Some(target) = zone.service_name(&[&endpoint.label(), &service.name, &service.namespace])
    else {
        return Vec::new();
    };
    let ports = endpoint
        .slice
        .ports
        .iter()
        .filter(|port| wanted(&port.name, port.protocol));
    let numbers = ports.filter_map(|port| port.port);
    numbers
        .map(|port| Located {
            target: target.clone(),
            addr: endpoint.addr,
            port,
        })
        .collect()
}

/// Brings the records of one owner and type together, in the order in which the owners first appear: what does not
/// fit a packet is left out by whole sets (RFC 2181 section 9).
fn group_by_target(records: &mut [Record]) {
    let mut order = std::collections::BTreeMap::new();
    for record in records.iter() {
        let next = order.len();
        order
            .entry(Box::<[u8]>::from(record.name.as_wire()))
            .or_insert(next);
    }
    records.sort_by_key(|record| {
        (
            order.get(record.name.as_wire()).copied(),
            record.data.rtype().number(),
        )
    });
}
