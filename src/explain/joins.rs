//! Which ports join and which do not. Owns the near misses: Service ports find ports of slices by name and protocol,
//! and container ports by the name in `targetPort` (Kubernetes API reference, `ServicePort`, `EndpointPort`).

use std::collections::BTreeSet;

use portico_core::object::{
    AddressType, Protocol, ServicePort, SlicePort, TargetPort,
    decode::closest,
    diagnostic::Severity,
    service::{HEADLESS_LABEL, IpFamily, SERVICE_PROXY_NAME_LABEL},
};

use super::{
    endpoints::numbers,
    model::{Cause, Join, Problem},
    subject::{From, Labelled, Run, Source, Subject, few, label, place, problem},
};
use crate::words::counted;

/// How every Service port joins, in each family of the Service.
pub(super) fn of(subject: Subject<'_>, sources: &[Source<'_>]) -> Vec<Join> {
    let ports = subject.spec().ports.iter();
    let families = &subject.record.addresses.families;
    ports
        .flat_map(|port| families.iter().map(move |family| (port, *family)))
        .map(|(port, family)| {
            let (mut joined, mut missing) = (Vec::new(), Vec::new());
            let of_family =
                |source: &&Source<'_>| family_of(source.slice.address_type) == Some(family);
            for source in filled(sources).filter(of_family) {
                let numbers = numbers(source, port);
                let title = title(source);
                if numbers.is_empty() {
                    missing.push(title);
                } else {
                    joined.extend(numbers.iter().map(|number| format!("{title}: {number}")));
                }
            }
            Join {
                port: label(port),
                family: family.as_str().to_owned(),
                number: port.port,
                protocol: port.protocol.to_string(),
                target_port: port.target_port.to_string(),
                joined,
                missing,
            }
        })
        .collect()
}

/// What keeps ports from joining.
pub(super) fn problems(subject: Subject<'_>, sources: &[Source<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !subject.spec().has_vip() {
        return problems;
    }
    for (index, port) in subject.spec().ports.iter().enumerate() {
        let joins = |source: &&Source<'_>| !numbers(source, port).is_empty();
        let (joined, apart): (Vec<&Source<'_>>, Vec<&Source<'_>>) =
            filled(sources).partition(joins);
        let severity = if joined.is_empty() {
            Severity::Error
        } else {
            Severity::Warning
        };
        let joining = Joining {
            subject,
            index,
            port,
            severity,
        };
        let (pods, written): (Vec<_>, Vec<_>) = apart
            .into_iter()
            .partition(|source| source.from == From::Pods);
        problems.extend(
            written
                .into_iter()
                .filter_map(|source| joining.slice(source)),
        );
        if !pods.is_empty() {
            problems.extend(joining.target_name());
        }
        problems.extend(joining.target_number());
    }
    problems.extend(outside(subject, sources));
    problems
}

/// Slices with endpoints.
fn filled<'s, 'a>(sources: &'s [Source<'a>]) -> impl Iterator<Item = &'s Source<'a>> {
    sources
        .iter()
        .filter(|source| !source.slice.endpoints.is_empty())
}

fn title(source: &Source<'_>) -> String {
    let count = source.slice.endpoints.len();
    match source.from {
        From::Pods => counted(count, "selected pod"),
        From::Written | From::Mirrored => source.name.clone(),
    }
}

/// One Service port looking for its endpoints.
struct Joining<'a> {
    subject: Subject<'a>,
    index: usize,
    port: &'a ServicePort,
    severity: Severity,
}

impl Joining<'_> {
    /// Why a slice has nothing for this port. A slice that serves other ports of the Service is no mistake while this
    /// one has endpoints elsewhere.
    fn slice(&self, source: &Source<'_>) -> Option<Problem> {
        let ports = &source.slice.ports;
        let at = |index: usize| {
            source
                .origin
                .map(|origin| place(origin, &format!("ports[{index}]")))
        };
        if let Some(index) = ports.iter().position(|port| port.name == self.port.name) {
            return Some(self.same_name(source, ports.get(index)?, at(index)));
        }
        let of_others: Vec<usize> = (0..ports.len())
            .filter(|index| {
                ports
                    .get(*index)
                    .is_some_and(|port| self.joins_another(port))
            })
            .collect();
        if !of_others.is_empty() && self.severity != Severity::Error {
            return None;
        }
        let mut free = (0..ports.len()).filter(|index| !of_others.contains(index));
        let is_near = |index: &usize| {
            let name = ports.get(*index).map(|port| &*port.name);
            closest(&self.port.name, name.into_iter()).is_some()
        };
        let near = free
            .clone()
            .find(is_near)
            .or_else(|| free.next().filter(|_| free.next().is_none()));
        let at = match near {
            Some(index) => at(index),
            None => source.origin.map(|origin| place(origin, "ports")),
        };
        let (text, fix) = self.other_names(source, near.and_then(|index| ports.get(index)));
        Some(Problem {
            at,
            fix: Some(fix),
            ..problem(self.severity, Cause::PortName, text)
        })
    }

    fn joins_another(&self, port: &SlicePort) -> bool {
        let mut others = self.subject.spec().ports.iter();
        others.any(|other| other.name == port.name && other.protocol == port.protocol)
    }

    /// No port of the slice has the name; `near` may have been meant.
    fn other_names(&self, source: &Source<'_>, near: Option<&SlicePort>) -> (String, String) {
        let own = match &*self.port.name {
            "" => "has no name".to_owned(),
            name => format!("is named \"{name}\""),
        };
        let names: Vec<String> = source.slice.ports.iter().map(described).collect();
        let has = match near {
            Some(near) => possessive(near),
            None if names.is_empty() => "lists no ports".to_owned(),
            None => format!("has ports {}", few(&names)),
        };
        let text = format!(
            "{} {has}, the Service port {own}: they join by name",
            source.name
        );
        let fix = match (&*self.port.name, near) {
            ("", Some(near)) => format!(
                "write `name: {}` at the Service's port, or take the name away from the slice's",
                near.name
            ),
            ("", None) => "give the Service's port the name of the slice's".to_owned(),
            (name, Some(_)) => format!("write `name: {name}` at the port of the slice"),
            (name, None) => format!("add a port with `name: {name}` to the slice"),
        };
        (text, fix)
    }

    /// The name is right: the protocol differs, or the number is missing.
    fn same_name(&self, source: &Source<'_>, other: &SlicePort, at: Option<String>) -> Problem {
        let found = Problem {
            at,
            ..problem(self.severity, Cause::PortName, String::new())
        };
        if other.protocol == self.port.protocol {
            return Problem {
                text: format!("{}'s port {} has no number", source.name, described(other)),
                fix: Some("write `port: NUMBER` there".to_owned()),
                ..found
            };
        }
        Problem {
            cause: Cause::PortProtocol,
            text: format!(
                "{}'s port {} is {}, the Service port {} is {}: they join by name and protocol",
                source.name,
                described(other),
                other.protocol,
                label(self.port),
                self.port.protocol
            ),
            fix: Some(format!(
                "write `protocol: {}` at one of them so that both agree",
                self.port.protocol
            )),
            ..found
        }
    }

    /// Pods without a container port of the name in `targetPort`.
    fn target_name(&self) -> Option<Problem> {
        let TargetPort::Name(wanted) = &self.port.target_port else {
            return None;
        };
        let matching = self.subject.matching;
        let lacks = |candidate: &&Labelled<'_>| {
            candidate
                .spec
                .port_named(wanted, self.port.protocol)
                .is_none()
        };
        let lacking: Vec<&Labelled<'_>> = matching.iter().filter(lacks).collect();
        let first = lacking.first()?;
        let ports = container_ports(first);
        let near = ports
            .iter()
            .filter(|(name, _, protocol)| !name.is_empty() && *protocol == self.port.protocol)
            .find(|(name, ..)| closest(wanted, std::iter::once(&**name)).is_some())
            .or(ports.first().filter(|_| ports.len() == 1));
        let have = said(&ports);
        let more = match lacking.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let text = format!(
            "targetPort \"{wanted}\" of port {}: no container of {}{more} has a {} port of that name; {have}",
            label(self.port),
            first.title_at(),
            self.port.protocol
        );
        let fix = match near {
            Some((name, _, protocol)) if *protocol == self.port.protocol && !name.is_empty() => {
                format!("write `targetPort: {name}`, or name the container port \"{wanted}\"")
            }
            Some((_, number, protocol)) if *protocol == self.port.protocol => {
                format!("write `targetPort: {number}`, or name the container port \"{wanted}\"")
            }
            _ => format!(
                "name a {} port of a container \"{wanted}\"",
                self.port.protocol
            ),
        };
        Some(Problem {
            at: Some(self.subject.at_port(self.index, "targetPort")),
            fix: Some(fix),
            ..problem(self.severity, Cause::TargetPort, text)
        })
    }

    /// A number that no container declares: in a cluster the declaration only informs, a simulated pod listens on
    /// nothing else.
    fn target_number(&self) -> Option<Problem> {
        let TargetPort::Number(number) = self.port.target_port else {
            return None;
        };
        let matching = self.subject.matching;
        let declares = |candidate: &Labelled<'_>| {
            let ports = candidate.spec.containers.iter().flat_map(|of| &of.ports);
            let mut ports = ports.filter(|port| port.protocol == self.port.protocol);
            ports.any(|port| port.container_port == number)
        };
        let first = matching.iter().find(|candidate| !declares(candidate))?;
        let ports = container_ports(first);
        let simulated = !matches!(first.run, Run::Declared(pod) if !pod.pod_ips.is_empty());
        let severity = if ports.is_empty() && !simulated {
            Severity::Note
        } else {
            Severity::Warning
        };
        let meaning = if simulated {
            "a simulated pod listens on declared ports only, so connections are refused"
        } else {
            "that only informs, as in a cluster, but connections are refused if nothing listens there"
        };
        let text = format!(
            "targetPort {number} of port {}: no container of {} declares it; {}. {}{}",
            label(self.port),
            first.title_at(),
            said(&ports),
            meaning
                .chars()
                .take(1)
                .flat_map(char::to_uppercase)
                .collect::<String>(),
            meaning.get(1..).unwrap_or_default()
        );
        let fix = match ports.as_slice() {
            [(_, other, protocol)] if *protocol == self.port.protocol => {
                format!("write `targetPort: {other}`, or `containerPort: {number}`")
            }
            _ => format!("declare `containerPort: {number}`, or name another targetPort"),
        };
        Some(Problem {
            at: Some(self.subject.at_port(self.index, "targetPort")),
            fix: Some(fix),
            ..problem(severity, Cause::UndeclaredPort, text)
        })
    }
}

/// Slices whose endpoints have addresses of a family that the Service lacks, and slices of names.
fn outside(subject: Subject<'_>, sources: &[Source<'_>]) -> Vec<Problem> {
    let lacks = |source: &&Source<'_>| {
        if source.slice.is_for_another_proxy {
            return true;
        }
        let family = family_of(source.slice.address_type);
        !family.is_some_and(|family| subject.record.addresses.has(family))
    };
    let usable = !filled(sources).all(|source| lacks(&source));
    let odd = filled(sources).filter(lacks);
    // The second address of a dual-stack pod is no mistake.
    let odd = odd.filter(|source| source.from != From::Pods || !usable);
    odd.map(|source| {
        let (what, fix) = match family_of(source.slice.address_type) {
            _ if source.slice.is_for_another_proxy => (
                "is labelled as headless or for another proxy, so that names have it and no address serves it"
                    .to_owned(),
                format!("take the label {HEADLESS_LABEL} or {SERVICE_PROXY_NAME_LABEL} off it"),
            ),
            None => (
                "is of addressType FQDN, which Kubernetes gives no meaning".to_owned(),
                "list addresses with addressType IPv4, or use a Service of type ExternalName"
                    .to_owned(),
            ),
            Some(theirs) => {
                let (theirs, ours) = (theirs.as_str(), theirs.other().as_str());
                (
                    format!("lists {theirs} addresses, and the Service has {ours} ones only"),
                    format!(
                        "list the endpoints' {ours} addresses in a slice with addressType {ours}"
                    ),
                )
            }
        };
        Problem {
            at: source.origin.map(|origin| place(origin, "addressType")),
            fix: Some(fix),
            ..problem(
                if usable {
                    Severity::Warning
                } else {
                    Severity::Error
                },
                Cause::AddressType,
                format!("{} {what}", source.name),
            )
        }
    })
    .chain(unfed(subject, sources))
    .collect()
}

const fn family_of(address_type: AddressType) -> Option<IpFamily> {
    match address_type {
        AddressType::IPv4 => Some(IpFamily::IPv4),
        AddressType::IPv6 => Some(IpFamily::IPv6),
        AddressType::Fqdn => None,
    }
}

/// A family of the Service that no endpoint is of, while the other one is served.
fn unfed(subject: Subject<'_>, sources: &[Source<'_>]) -> Option<Problem> {
    let mut families = subject.record.addresses.families.iter().copied();
    let is_fed = |family: IpFamily| {
        filled(sources).any(|source| family_of(source.slice.address_type) == Some(family))
    };
    let family = families.find(|family| !is_fed(*family) && is_fed(family.other()))?;
    if !subject.record.addresses.has(family.other()) {
        return None;
    }
    let name = family.as_str();
    Some(Problem {
        fix: Some(format!(
            "list {name} addresses in an EndpointSlice with addressType {name}; simulated pods have IPv4 ones only"
        )),
        ..problem(
            Severity::Note,
            Cause::AddressType,
            format!(
                "no endpoint has an {name} address: connections to those of the Service are refused"
            ),
        )
    })
}

type ContainerPortText = (String, u16, Protocol);

fn container_ports(candidate: &Labelled<'_>) -> Vec<ContainerPortText> {
    let ports = candidate.spec.containers.iter().flat_map(|of| &of.ports);
    let ports: BTreeSet<_> = ports
        .map(|port| (port.name.to_string(), port.container_port, port.protocol))
        .collect();
    ports.into_iter().collect()
}

fn said(ports: &[ContainerPortText]) -> String {
    let each: Vec<String> = ports
        .iter()
        .map(|(name, number, protocol)| match &**name {
            "" => format!("{number}/{protocol}"),
            name => format!("\"{name}\" ({number}/{protocol})"),
        })
        .collect();
    match each.as_slice() {
        [] => "it declares no ports".to_owned(),
        each => format!("it has {}", few(each)),
    }
}

fn described(port: &SlicePort) -> String {
    match (&*port.name, port.port) {
        ("", Some(number)) => number.to_string(),
        ("", None) => "without name and number".to_owned(),
        (name, _) => format!("\"{name}\""),
    }
}

/// `has port "htpp"`, `has a port 8080 without a name`.
fn possessive(port: &SlicePort) -> String {
    match &*port.name {
        "" => format!("has a port {} without a name", described(port)),
        _ => format!("has port {}", described(port)),
    }
}
