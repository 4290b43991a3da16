//! The sockets behind a Service's addresses: which are really bound, which moved, which cannot be had, and who has
//! them instead. Owns the sentences; reasons, holders and fixes come with the listeners' reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use portico_core::{
    object::{Protocol, diagnostic::Severity},
    snapshot::{FrontendKey, FrontendKind},
};

use super::{
    model::{Cause, Problem, Way},
    subject::{Subject, problem},
    verdicts,
};
use crate::control::status::{reachable_at, report_of};

/// Every address and port of the Service.
pub(super) fn ways(subject: Subject<'_>) -> Vec<Way> {
    let frontends = subject.service.frontends.iter();
    frontends
        .filter_map(|(key, kind, port)| {
            let view = subject.service.ports.get(*port)?;
            let reachable = reachable_at(key, *kind, subject.view.listeners);
            Some(Way {
                kind: reachable.kind,
                port: verdicts::label(&view.name.port, view.number, view.name.protocol),
                protocol: view.name.protocol.to_string(),
                declared: reachable.declared.to_string(),
                bound: reachable.bound.map(|bound| bound.to_string()),
                problem: reachable.problem,
            })
        })
        .collect()
}

/// What becomes of clients that a traffic policy or source ranges turn away at addresses of these kinds.
pub(super) fn turned_away(subject: Subject<'_>, concerns: impl Fn(FrontendKind) -> bool) -> String {
    let mut frontends = subject.service.frontends.iter();
    let is_datagrams = |key: &FrontendKey| key.protocol == Protocol::Udp;
    if frontends
        .clone()
        .any(|(key, kind, _)| concerns(*kind) && is_datagrams(key))
        && frontends.all(|(key, kind, _)| !concerns(*kind) || is_datagrams(key))
    {
        return "dropped".to_owned();
    }
    let frontends = subject.service.frontends.iter();
    let concerned = frontends
        .filter(|(key, kind, _)| key.protocol == Protocol::Tcp && concerns(*kind))
        .filter_map(|(key, _, _)| report_of(key, subject.view.listeners)?.turned_away.as_ref());
    let answers: BTreeSet<String> = concerned.map(ToString::to_string).collect();
    if answers.is_empty() {
        // Nothing runs that could say.
        return "dropped where the kernel takes a socket filter, else accepted and reset"
            .to_owned();
    }
    Vec::from_iter(answers).join("; ")
}

/// What the filters of its sockets have dropped.
pub(super) fn dropped(subject: Subject<'_>) -> Vec<Problem> {
    let mut counts = BTreeMap::new();
    let frontends = subject.service.frontends.iter();
    for (key, _, _) in frontends.filter(|(key, _, _)| key.protocol == Protocol::Tcp) {
        let report = report_of(key, subject.view.listeners);
        counts.extend(report.and_then(|report| {
            let count = report.dropped_by_filter.filter(|count| *count > 0)?;
            Some((report.declared, count))
        }));
    }
    let said = counts.into_iter().map(|(declared, count)| {
        let text = format!(
            "{declared}: its socket filter dropped {count} packets, where each SYN counts that a client repeats, and \
             what found the queue full"
        );
        problem(Severity::Note, Cause::Field, text)
    });
    said.collect()
}

/// What is wrong with them.
pub(super) fn problems(subject: Subject<'_>) -> Vec<Problem> {
    let mut problems = sockets(subject);
    problems.extend(taken(subject));
    problems.extend(elsewhere(subject));
    problems.extend(protocols(subject));
    problems
}

fn sockets(subject: Subject<'_>) -> Vec<Problem> {
    let mut said = BTreeSet::new();
    let mut problems = Vec::new();
    for (key, _, _) in &subject.service.frontends {
        let Some(report) = report_of(key, subject.view.listeners) else {
            continue;
        };
        let has_problem = matches!(&*report.state, "failed" | "fallback");
        if !has_problem || !said.insert((report.declared, key.protocol)) {
            continue;
        }
        let declared = SocketAddr::new(key.addr, key.port);
        let mut text = format!(
            "{declared} cannot be bound: {}",
            report.reason.as_deref().unwrap_or("unknown")
        );
        if let Some(holder) = &report.holder {
            text = format!("{text}; held by {holder}");
        }
        let (cause, severity) = match report.bound {
            Some(bound) => {
                text = format!("{text}; served on {bound} meanwhile");
                (Cause::BoundElsewhere, Severity::Warning)
            }
            None => (Cause::NotBound, Severity::Error),
        };
        problems.push(Problem {
            fix: report.fix.clone().filter(|fix| !fix.is_empty()),
            ..problem(severity, cause, text)
        });
    }
    problems
}

/// Addresses that an earlier Service keeps.
fn taken(subject: Subject<'_>) -> Vec<Problem> {
    let lost = subject.record.lost.iter();
    lost.map(|(addr, port, protocol, winner)| Problem {
        at: Some(subject.at(&match subject.spec().external_ips.iter().position(|of| of == addr) {
            Some(index) => format!("spec.externalIPs[{index}]"),
            None => "spec.loadBalancerIP".to_owned(),
        })),
        fix: Some(format!("use another address or port, or take it away from {winner}")),
        ..problem(
            Severity::Warning,
            Cause::AddressTaken,
            format!(
                "{addr}:{port}/{protocol} is served for Service {winner}, which was declared earlier, and not for this one"
            ),
        )
    })
    .collect()
}

/// External addresses that this host does not have.
fn elsewhere(subject: Subject<'_>) -> Vec<Problem> {
    let settings = subject.view.world.settings();
    let own = &settings.host_addresses;
    // By a route, when it is bound.
    let is_given = |addr: &IpAddr| {
        settings
            .external_ranges
            .iter()
            .any(|range| range.contains(addr))
    };
    let cluster = &subject.view.snapshot.cluster;
    let is_reported = |addr: &IpAddr| {
        let mut frontends = subject.service.frontends.iter();
        frontends.any(|(key, _, _)| {
            key.addr == *addr && report_of(key, subject.view.listeners).is_some()
        })
    };
    let external = subject.spec().external_ips.iter().enumerate();
    external
        .filter(|(_, addr)| {
            let is_here = addr.is_loopback() || own.contains(addr) || is_given(addr);
            !is_here && !cluster.owns(**addr) && !is_reported(addr)
        })
        .map(|(index, addr)| {
            let bits = if addr.is_ipv4() { 32 } else { 128 };
            Problem {
                at: Some(subject.at(&format!("spec.externalIPs[{index}]"))),
                fix: Some(format!("sudo ip address add {addr}/{bits} dev lo, or start with --external-ip-cidr {addr}/{bits} (needs CAP_NET_ADMIN), or name an address that this host has")),
                ..problem(
                    Severity::Warning,
                    Cause::AddressElsewhere,
                    format!("external address {addr} is not one of this host: nothing can listen there"),
                )
            }
        })
        .collect()
}

fn protocols(subject: Subject<'_>) -> Vec<Problem> {
    let ports = subject.spec().ports.iter().enumerate();
    let other = ports.filter(|(_, port)| !port.protocol.is_forwarded() && subject.spec().has_vip());
    other
        .map(|(index, port)| Problem {
            at: Some(subject.at_port(index, "port")),
            fix: Some("reach its endpoints directly; its name and addresses are there".to_owned()),
            ..problem(
                Severity::Error,
                Cause::Protocol,
                format!(
                    "port {} is {}: only TCP and UDP are forwarded",
                    super::subject::label(port),
                    port.protocol
                ),
            )
        })
        .collect()
}
