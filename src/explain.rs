//! Why a Service is served as it is: from world, Snapshot and listeners to one value that people and scripts read.
//! Owns the causes, their order and their words; must not decide anything that is served, read a clock or print.

mod endpoints;
pub mod fields;
mod health;
mod joins;
mod limits;
mod listeners;
mod model;
mod names;
mod notes;
mod selector;
mod source;
mod subject;
mod verdicts;

use std::collections::BTreeSet;

use portico_core::{
    object::{
        Application, Kind, ObjectKey, Protocol, ServiceType, Spec,
        decode::closest,
        diagnostic::Severity,
        service::{HEADLESS_LABEL, SERVICE_PROXY_NAME_LABEL},
    },
    snapshot::service_path,
};

pub use model::{
    Answer, Cause, EndpointReport, Explanation, Join, PortVerdict, Problem, State, Verdicts, Way,
};

use crate::{
    objects::{Resource, View},
    words::counted,
};
use subject::{Subject, place, problem};

/// Explains the Service `name` of `namespace`; `None` when nothing was ever said about such a Service.
pub fn explain(view: View<'_>, namespace: &str, name: &str) -> Option<Explanation> {
    let path = service_path(namespace, name);
    let record = view.world.services().get(&*path);
    match (record, view.snapshot.service(&path)) {
        (Some(record), Some(service)) => Some(in_force(Subject {
            view,
            record,
            service,
            matching: &subject::matching(view, record),
        })),
        _ => rejected(view, namespace, name),
    }
}

/// The Service and the pods and workloads that its selector matches: whose run-time changes concern it.
pub fn related(view: View<'_>, namespace: &str, name: &str) -> Vec<ObjectKey> {
    let path = service_path(namespace, name);
    let Some(record) = view.world.services().get(&*path) else {
        return Vec::new();
    };
    let matching = subject::matching(view, record).into_iter();
    let keys = matching.map(|of| ObjectKey {
        kind: of.kind,
        namespace: of.namespace.clone(),
        name: of.name.clone(),
    });
    std::iter::once(record.object.key.clone())
        .chain(keys)
        .collect()
}

fn in_force(subject: Subject<'_>) -> Explanation {
    let sources = subject.sources();
    let ports = verdicts::of(subject.service);
    let endpoints = endpoints::of(subject, &sources);
    let addresses = listeners::ways(subject);
    let object = &subject.record.object;
    let mut problems = notes::findings(subject.view, &object.key.to_string(), Some(object));
    tell_newer(&mut problems);
    problems.extend(left_alone(subject));
    problems.extend(notes::problems(subject));
    if subject.spec().service_type != ServiceType::ExternalName && !is_own_dns(subject) {
        problems.extend(selector::problems(subject, &sources));
        problems.extend(joins::problems(subject, &sources));
        problems.extend(health::problems(subject, &ports, &endpoints));
        problems.extend(listeners::problems(subject));
        problems.extend(limits::problems(subject));
    }
    problems.extend(notes::notes(subject));
    problems.sort();
    problems.dedup();
    let (notes, problems): (Vec<Problem>, Vec<Problem>) = problems
        .into_iter()
        .partition(|problem| problem.severity == Severity::Note);
    let state = state(subject, &ports, &endpoints, &addresses);
    let spec = subject.spec();
    Explanation {
        namespace: subject.namespace().to_string(),
        name: subject.name().to_string(),
        service_type: spec.service_type.as_str().to_owned(),
        state,
        headline: headline(subject, state, (&ports, &endpoints), &problems),
        origin: Some(place(&object.origin, "")),
        overrides: Vec::new(),
        selector: spec
            .selector
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        matching: if spec.selector.is_empty() {
            String::new()
        } else {
            selector::summary(subject)
        },
        cluster_ips: subject.service.cluster_ips.clone(),
        joins: joins::of(subject, &sources),
        names: names::of(subject, &endpoints),
        elsewhere: names::elsewhere(subject),
        attempt: names::attempt(subject, &addresses, &ports),
        problems,
        notes,
        addresses,
        ports,
        endpoints,
        balance: balance(subject),
        affinity_seconds: affinity_seconds(subject),
        affinity_cookie: of_http(subject, |app| Some(app.cookie.as_ref()?.name().to_owned())),
        hash_header: of_http(subject, |app| Some(app.hash_header.as_ref()?.to_string())),
    }
}

/// The policy of its ports, which all have the same one.
fn balance(subject: Subject<'_>) -> String {
    let port = subject.service.ports.first();
    port.map_or_else(String::new, |port| port.policy().as_str().to_owned())
}

fn affinity_seconds(subject: Subject<'_>) -> Option<u64> {
    let mut ports = subject.service.ports.iter();
    let affinity = ports.find_map(|port| port.affinity)?;
    Some(affinity.timeout.as_secs())
}

/// What its HTTP ports have, all of them the same.
fn of_http(subject: Subject<'_>, find: impl Fn(&Application) -> Option<String>) -> Option<String> {
    let mut ports = subject.service.ports.iter();
    ports.find_map(|port| find(&port.app))
}

/// An exported cluster's DNS Service is ours.
fn is_own_dns(subject: Subject<'_>) -> bool {
    let own = subject.view.snapshot.cluster.dns_address;
    subject.service.cluster_ips.contains(&own)
}

fn left_alone(subject: Subject<'_>) -> Option<Problem> {
    let labels = &subject.record.object.meta.labels;
    let label = [SERVICE_PROXY_NAME_LABEL, HEADLESS_LABEL]
        .into_iter()
        .find(|label| labels.contains_key(*label))?;
    Some(Problem {
        at: Some(subject.at("metadata.labels")),
        fix: Some(format!(
            "take the label {label} away to have it served here"
        )),
        ..problem(
            Severity::Error,
            Cause::LeftAlone,
            format!("its label {label} leaves it to another proxy, as in a cluster"),
        )
    })
}

fn state(
    subject: Subject<'_>,
    ports: &[PortVerdict],
    endpoints: &[EndpointReport],
    ways: &[Way],
) -> State {
    let spec = subject.spec();
    if spec.service_type == ServiceType::ExternalName {
        return State::Alias;
    }
    if subject.record.is_left_to_another_proxy() {
        return State::LeftAlone;
    }
    if is_own_dns(subject) {
        return State::Served;
    }
    if !spec.has_vip() {
        let in_dns = endpoints.iter().any(|report| report.chosen);
        return if in_dns { State::Names } else { State::Refused };
    }
    let forwards = |port: &&PortVerdict| {
        let verdict = port.verdict;
        let mut reached = endpoints.iter();
        let mut ways = ways.iter().filter(|way| way.port == port.port);
        // What leads back here is not connected to, and SCTP is not forwarded.
        if !reached.any(|report| report.chosen && report.port.as_ref() == Some(&port.port))
            || !ways.any(|way| way.protocol != Protocol::Sctp.as_str())
        {
            return false;
        }
        let all = [
            Some(verdict.internal),
            verdict.external,
            verdict.external_from_node,
        ];
        all.contains(&Some(Answer::Forward))
    };
    let served = ports.iter().filter(forwards).count();
    let is_dropped = ports
        .iter()
        .any(|port| port.verdict.internal == Answer::Drop);
    let is_unbound = !ways.is_empty() && ways.iter().all(|way| way.bound.is_none());
    match served {
        0 if is_dropped => State::Dropped,
        0 => State::Refused,
        _ if is_unbound => State::Unbound,
        some if some == ports.len() => State::Served,
        _ => State::PartlyServed,
    }
}

fn headline(
    subject: Subject<'_>,
    state: State,
    (ports, endpoints): (&[PortVerdict], &[EndpointReport]),
    problems: &[Problem],
) -> String {
    let name = subject.name();
    let (chosen, all) = endpoints::count(endpoints);
    let of = counted(all, "endpoint");
    let cause = problems
        .iter()
        .find(|problem| problem.cause != Cause::Rejected);
    let because = cause.map_or("of what is said below", |problem| problem.cause.phrase());
    match state {
        State::Served if is_own_dns(subject) => {
            format!("{name} is answered by portico's own DNS")
        }
        State::Served => {
            let (_, all) = served(ports);
            format!("{name} is served: {chosen} of {of} on {all}")
        }
        State::PartlyServed => {
            let (some, all) = served(ports);
            format!("{name} is served on {some} of {all}: {chosen} of {of}")
        }
        State::Refused if !subject.spec().has_vip() => {
            format!("{name} (headless) has no address in DNS, because {because}")
        }
        State::Refused => {
            let does = not_served(subject, ports);
            format!("{name} {does}: no usable endpoint, because {because}")
        }
        State::Dropped => format!(
            "{name} drops connections: its traffic policy is Local, and no usable endpoint is on this node"
        ),
        State::Unbound => format!("{name} is not served: none of its addresses could be bound"),
        State::Names => format!("{name} (headless) has names only: {chosen} of {of} in DNS"),
        State::Alias => format!(
            "{name} is an alias: a CNAME for {}",
            subject.spec().external_name.as_deref().unwrap_or_default()
        ),
        State::LeftAlone => format!("{name} is left to another proxy"),
        State::Rejected => format!("{name} is not served: its manifest is rejected"),
    }
}

/// What clients meet at ports without a usable endpoint, each thing once. Where endpoints are addresses of Services, the
/// Snapshot has a choice, and it is the attempt that fails.
fn not_served(subject: Subject<'_>, ports: &[PortVerdict]) -> String {
    let views = subject.service.ports.iter().zip(ports);
    let does: BTreeSet<&str> = views
        .map(
            |(view, port)| match (port.verdict.internal, view.name.protocol) {
                (Answer::Unavailable, _) => "answers requests with 503",
                (Answer::Forward, Protocol::Tcp) if view.app.protocol.is_http() => {
                    "answers requests with 502"
                }
                (Answer::Forward, Protocol::Tcp) => "resets connections",
                (Answer::Forward, Protocol::Udp) => "drops datagrams",
                _ => "refuses connections",
            },
        )
        .collect();
    let does: Vec<&str> = does.into_iter().rev().collect();
    does.join(", and ")
}

/// How many ports have an endpoint that some client reaches, and how many there are: each once, unless the families of
/// a Service that has both differ.
fn served(ports: &[PortVerdict]) -> (usize, String) {
    let forwards = |port: &&PortVerdict| !port.reachable.is_empty();
    let names = |ports: &mut dyn Iterator<Item = &PortVerdict>| -> BTreeSet<String> {
        ports.map(|port| port.port.clone()).collect()
    };
    let all = names(&mut ports.iter());
    let some = names(&mut ports.iter().filter(forwards));
    let none = names(&mut ports.iter().filter(|port| !forwards(port)));
    if some.is_disjoint(&none) {
        return (some.len(), counted(all.len(), "port"));
    }
    let forwarding = ports.iter().filter(forwards).count();
    (
        forwarding,
        format!("{} (each family has its own)", counted(ports.len(), "port")),
    )
}

/// A Service that was declared, but of which no good version is known.
fn rejected(view: View<'_>, namespace: &str, name: &str) -> Option<Explanation> {
    let key = ObjectKey {
        kind: Kind::Service,
        namespace: namespace.into(),
        name: name.into(),
    };
    let object = view.world.object(&key);
    let mut problems = notes::findings(view, &key.to_string(), object.map(AsRef::as_ref));
    problems.sort();
    problems.dedup();
    let (notes, problems): (Vec<Problem>, Vec<Problem>) = problems
        .into_iter()
        .partition(|problem| problem.severity == Severity::Note);
    if object.is_none() && problems.is_empty() {
        return None;
    }
    let spec = object.and_then(|object| match &object.spec {
        Spec::Service(spec) => Some(spec),
        _ => None,
    });
    let headline = if problems.is_empty() {
        format!("{name} is not served yet: not every source has been read")
    } else {
        format!("{name} is not served: its manifest is rejected")
    };
    Some(Explanation {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        service_type: spec.map_or_else(String::new, |spec| spec.service_type.as_str().to_owned()),
        state: State::Rejected,
        headline,
        origin: object
            .map(|object| place(&object.origin, ""))
            .or_else(|| problems.iter().find_map(|problem| problem.at.clone())),
        problems,
        notes,
        overrides: Vec::new(),
        selector: std::collections::BTreeMap::default(),
        matching: String::new(),
        cluster_ips: Vec::new(),
        addresses: Vec::new(),
        ports: Vec::new(),
        balance: String::new(),
        affinity_seconds: None,
        affinity_cookie: None,
        hash_header: None,
        joins: Vec::new(),
        endpoints: Vec::new(),
        names: Vec::new(),
        elsewhere: None,
        attempt: None,
    })
}

/// The version in force is a good one: what is rejected is a newer one. A second declaration is not: its own words say
/// which one stays.
fn tell_newer(problems: &mut [Problem]) {
    let rejected = problems.iter_mut().filter(|problem| {
        problem.severity == Severity::Error && !problem.text.contains("already declared at ")
    });
    for problem in rejected {
        problem.text = format!(
            "a newer version is rejected, the one before stays in force: {}",
            problem.text
        );
    }
}

/// What to say about a Service that nobody declared: kubectl's words, then what was perhaps meant.
pub fn not_found(view: View<'_>, namespace: &str, name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = Resource::Services.not_found(name);
    let all: Vec<(&str, &str)> = view
        .world
        .services()
        .keys()
        .filter_map(|path| path.split_once('/'))
        .collect();
    let here = all.iter().filter(|(of, _)| *of == namespace);
    if let Some(near) = closest(name, here.map(|(_, other)| *other)) {
        let _ = write!(text, "\nDid you mean \"{near}\"?");
    }
    let mut elsewhere: Vec<&str> = all
        .iter()
        .filter(|(of, other)| *of != namespace && *other == name)
        .map(|(of, _)| *of)
        .collect();
    elsewhere.truncate(3);
    for other in elsewhere {
        let _ = write!(text, "\nThere is one in namespace {other}: add -n {other}");
    }
    let diagnostics = view.world.diagnostics();
    let unreadable = diagnostics
        .iter()
        .filter(|finding| finding.object.is_none() && finding.severity == Severity::Error);
    for finding in unreadable.take(3) {
        let _ = write!(text, "\nNot everything could be read: {finding}");
    }
    text
}

#[cfg(test)]
mod tests;
