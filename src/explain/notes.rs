//! What the manifest says beside what is served: rejected edits, findings, fields and annotations that nothing acts
//! on, probes that cannot run, ports that had to move. Owns which of it is a problem and which a note.

use portico_core::{
    object::{
        Kind, Object, Protocol, ServiceType, Spec,
        diagnostic::{Diagnostic, Severity},
        service::IpFamily,
    },
    probe::counted_as_passing,
    snapshot::{FrontendKind, SourceRangeReach},
};
use serde_json::Value;

use super::{
    fields, listeners,
    model::{Cause, Problem},
    source,
    subject::{Run, Subject, few, place, problem},
    verdicts,
};
use crate::objects::View;

/// Findings about the Service itself, and about the file that it stands in while that cannot be read.
pub(super) fn findings(view: View<'_>, about: &str, object: Option<&Object>) -> Vec<Problem> {
    let diagnostics = view.world.diagnostics();
    let file = object.map(|object| &object.origin.file);
    let concerns = |finding: &Diagnostic| match &finding.object {
        Some(named) => named == about,
        None => finding.severity == Severity::Error && Some(&finding.file) == file,
    };
    let own = diagnostics.iter().filter(|finding| concerns(finding));
    own.filter(|finding| !is_said_elsewhere(finding))
        .map(finding_of)
        .collect()
}

/// What listeners and lost claims say better.
fn is_said_elsewhere(finding: &Diagnostic) -> bool {
    finding.message.contains("is already served for Service")
}

fn finding_of(finding: &Diagnostic) -> Problem {
    let cause = match finding.severity {
        Severity::Error => Cause::Rejected,
        _ if finding.message.contains("mapped to") => Cause::Mapped,
        Severity::Warning | Severity::Note => Cause::Finding,
    };
    let text = if finding.path.is_empty() {
        finding.message.clone()
    } else {
        format!("{}: {}", finding.path, finding.message)
    };
    let at = finding
        .position
        .map(|position| format!("{}:{}", finding.file, position.line));
    Problem {
        at,
        fix: remedy(finding),
        ..problem(finding.severity, cause, text)
    }
}

/// What to change for the findings that people meet most.
fn remedy(finding: &Diagnostic) -> Option<String> {
    let message = &*finding.message;
    let is = |text: &str| message.contains(text);
    let text = if is("provided port is already allocated") {
        "name another nodePort, or leave it out: a free one is given"
    } else if is("The range of valid ports is") {
        "name a nodePort in the range, leave it out, or start with --service-node-port-range FIRST-LAST"
    } else if is("may not be set to 'None'") {
        "take `clusterIP: None` out for a node port, or `type` for a headless Service"
    } else if is("provided IP is already allocated") {
        "name another clusterIP, or leave it out: a free one is given"
    } else if is("(see --service-cidr-v6)") {
        "start with --service-cidr-v6 CIDR, or leave ipFamilies and ipFamilyPolicy out"
    } else if is("mapped to") {
        "use the address it was mapped to, or leave clusterIP out; --service-cidr changes the range"
    } else if is("did you mean") {
        return None;
    } else if finding.severity == Severity::Error {
        return Some(format!(
            "correct it; `portico validate {}` shows the line",
            finding.file
        ));
    } else {
        return None;
    };
    Some(text.to_owned())
}

/// Problems of the manifest that are no finding.
pub(super) fn problems(subject: Subject<'_>) -> Vec<Problem> {
    address_as_name(subject).into_iter().collect()
}

/// A name made of digits and dots is good DNS, but nobody has it.
fn address_as_name(subject: Subject<'_>) -> Option<Problem> {
    let spec = subject.spec();
    let name = spec.external_name.as_deref()?;
    let addr: std::net::IpAddr = name.parse().ok()?;
    debug_assert_eq!(spec.service_type, ServiceType::ExternalName);
    let service = subject.name();
    Some(Problem {
        at: Some(subject.at("spec.externalName")),
        fix: Some(format!(
            "make it a Service without selector and an EndpointSlice with that address: portico map {service}:PORT={addr}:PORT"
        )),
        ..problem(
            Severity::Error,
            Cause::AddressAsName,
            format!(
                "externalName {addr} is an IP address, but is taken as a DNS name, which nobody resolves"
            ),
        )
    })
}

/// What was mapped, approximated or ignored, and needs no action.
pub(super) fn notes(subject: Subject<'_>) -> Vec<Problem> {
    let object = &subject.record.object;
    let manifest: Value = serde_json::from_str(&object.manifest).unwrap_or_default();
    let note = |cause, path: &str, text: &str| Problem {
        at: Some(place(&object.origin, path)),
        ..problem(Severity::Note, cause, format!("{path}: {text}"))
    };
    let mut notes: Vec<Problem> = Vec::new();
    let given = fields::noted(&manifest).into_iter();
    notes.extend(given.map(|(path, text)| note(Cause::Field, path, text)));
    let deprecated = fields::deprecated(&manifest).into_iter();
    notes.extend(deprecated.map(|(path, text)| note(Cause::Deprecated, path, text)));
    notes.extend(fields::annotations(&manifest).into_iter().map(|key| {
        let text = format!("annotation {key}: nothing here acts on it");
        problem(Severity::Note, Cause::Field, text)
    }));
    notes.extend(scaled_weights(subject));
    notes.extend(unused_endpoints(subject));
    notes.extend(loopback_clients(subject));
    notes.extend(turned_away(subject));
    notes.extend(source::notes(subject));
    notes.extend(listeners::dropped(subject));
    notes.extend(pods(subject));
    notes
}

/// What follows from every client on this machine having one address.
fn loopback_clients(subject: Subject<'_>) -> Vec<Problem> {
    let spec = subject.spec();
    let mut notes = Vec::new();
    let has = |protocol| spec.ports.iter().any(|port| port.protocol == protocol);
    if spec.client_ip_affinity.is_some() && (has(Protocol::Tcp) || has(Protocol::Udp)) {
        notes.push((
            "spec.sessionAffinity",
            "every client on this machine is 127.0.0.1, so that ClientIP sends them all to one pod",
        ));
    }
    let ranges = guarded(subject);
    notes.extend(
        ranges
            .iter()
            .map(|text| ("spec.loadBalancerSourceRanges", &**text)),
    );
    notes
        .into_iter()
        .map(|(path, text)| Problem {
            at: Some(subject.at(path)),
            ..problem(Severity::Note, Cause::Field, format!("{path}: {text}"))
        })
        .collect()
}

/// Whom source ranges keep out: the clients of this machine, and everybody of a family that no range is of.
fn guarded(subject: Subject<'_>) -> Vec<String> {
    let ranges = &subject.spec().load_balancer_source_ranges;
    if ranges.is_empty() {
        return Vec::new();
    }
    let is_everywhere =
        subject.view.snapshot.cluster.source_range_reach == SourceRangeReach::Everywhere;
    let is_guarded = |kind: FrontendKind| {
        kind == FrontendKind::LoadBalancer || (is_everywhere && kind.is_external())
    };
    let places = if is_everywhere {
        "load-balancer, external and node addresses"
    } else {
        "the load-balancer address"
    };
    let has = |family| {
        let mut frontends = subject.service.frontends.iter();
        frontends.any(|(key, kind, _)| is_guarded(*kind) && IpFamily::of(key.addr) == family)
    };
    let fate = || listeners::turned_away(subject, is_guarded);
    let mut notes = Vec::new();
    for family in [IpFamily::IPv4, IpFamily::IPv6]
        .into_iter()
        .filter(|family| has(*family))
    {
        let loopback = std::net::IpAddr::from([127, 0, 0, 1]);
        if !ranges
            .iter()
            .any(|range| IpFamily::of(range.addr()) == family)
        {
            let (name, everybody) = match family {
                IpFamily::IPv4 => ("IPv4", "0.0.0.0/0"),
                IpFamily::IPv6 => ("IPv6", "::/0"),
            };
            notes.push(format!(
                "no range is of {name}: at {places} all its clients are {}; {everybody} would let everybody in",
                fate()
            ));
        } else if family == IpFamily::IPv4 && !ranges.iter().any(|range| range.contains(&loopback))
        {
            notes.push(format!(
                "clients on this machine are 127.0.0.1, which is in none of the ranges; at {places} they are {}",
                fate()
            ));
        }
    }
    notes
}

/// Connections that were reset where Kubernetes drops or refuses, and flows of UDP that were dropped, by reason.
fn turned_away(subject: Subject<'_>) -> Vec<Problem> {
    use std::sync::atomic::Ordering::Relaxed;
    let mut notes = Vec::new();
    for port in &subject.service.ports {
        let label = verdicts::label(&port.name.port, port.number, port.name.protocol);
        let state = &port.state;
        let what = if port.name.protocol == Protocol::Udp {
            "flows were dropped"
        } else {
            "connections were reset"
        };
        let reasons = [
            (&state.refused_no_endpoints, "no endpoint could be used"),
            (
                &state.dropped_policy,
                "a traffic policy allows no endpoint here",
            ),
            (
                &state.dropped_source_range,
                "their source is outside loadBalancerSourceRanges",
            ),
            (
                &state.rejected_full,
                "a limit left them no place within --connect-timeout",
            ),
        ];
        let reasons = reasons.map(|(count, why)| (count.load(Relaxed), why));
        let faults = state.header_faults.load();
        let faults = faults.map(|(fault, count)| (count, fault.phrase()));
        for (count, why) in reasons.into_iter().chain(faults) {
            if count > 0 {
                let text = format!("port {label}: {count} {what} because {why}");
                notes.push(problem(Severity::Note, Cause::Field, text));
            }
        }
    }
    notes
}

/// Weights that are too many and too different for an exact cycle.
fn scaled_weights(subject: Subject<'_>) -> Option<Problem> {
    let ports = subject.service.ports.iter();
    let mut sets = ports
        .flat_map(|port| [&port.cluster, &port.local])
        .flatten();
    let length = sets.find_map(|set| set.scaled_to())?;
    let text = format!(
        "weights are scaled to a cycle of {length} connections, so that shares are approximate: smaller weights or fewer different ones are exact"
    );
    Some(problem(Severity::Note, Cause::Field, text))
}

/// Endpoints that are not looked at.
fn unused_endpoints(subject: Subject<'_>) -> Option<Problem> {
    let mut all = subject.objects(Kind::Endpoints);
    let object = all.find(|object| &object.key.name == subject.name())?;
    let why = match &object.spec {
        Spec::Endpoints(endpoints) if endpoints.skip_mirror => "its label skip-mirror says so",
        _ if !subject.spec().selector.is_empty() => "the Service has a selector",
        _ => return None,
    };
    let text = format!("Endpoints {} are not used: {why}", object.key.name);
    Some(Problem {
        at: Some(place(&object.origin, "")),
        ..problem(Severity::Note, Cause::Field, text)
    })
}

/// Probes that cannot run here, and ports of simulated pods that had to move.
fn pods(subject: Subject<'_>) -> Vec<Problem> {
    let matching = subject.matching;
    let mut notes = Vec::new();
    for candidate in matching {
        let is_simulated_pod = matches!(candidate.run, Run::Simulated(pod) if pod.owner.is_some());
        // Said once, at the workload.
        if is_simulated_pod {
            continue;
        }
        for container in &candidate.spec.containers {
            let probes = [
                ("readinessProbe", &container.readiness),
                ("livenessProbe", &container.liveness),
                ("startupProbe", &container.startup),
            ];
            let unrun = probes.iter().filter_map(|(field, probe)| {
                Some((field, counted_as_passing(&probe.as_ref()?.check)?))
            });
            notes.extend(unrun.map(|(field, why)| {
                let text = format!(
                    "{field} of container {} in {}: {why}",
                    container.name,
                    candidate.title_at()
                );
                problem(Severity::Note, Cause::Probe, text)
            }));
        }
    }
    let moved: Vec<String> = matching
        .iter()
        .filter_map(|candidate| match candidate.run {
            Run::Simulated(pod) if !pod.moved_ports.is_empty() => {
                let ports: Vec<String> = pod
                    .moved_ports
                    .iter()
                    .map(|(port, to)| format!("{} to {to}", port.number))
                    .collect();
                Some(format!("{} ({})", pod.name, ports.join(", ")))
            }
            _ => None,
        })
        .collect();
    if !moved.is_empty() {
        let text = format!(
            "ports of simulated pods could not be bound and moved, the endpoints follow: {}",
            few(&moved)
        );
        notes.push(problem(Severity::Note, Cause::MovedPort, text));
    }
    notes
}
