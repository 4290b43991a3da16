//! The `Listeners` block of a Service, the one that kubectl does not have: each declared address with where it is
//! really served. Owns its layout and, offline, what would be bound; the running program reports what is.

use std::net::SocketAddr;

use serde_json::Value;

use super::{
    json::{items, name, namespace, number, text, texts},
    meta::NONE,
    writer::Writer,
};
use crate::control::status::{
    EndpointStatus, ListenerReport, PortStatus, Reachable, ServiceStatus, Status,
};

/// Where the block comes from.
#[derive(Debug, Default)]
pub enum Listeners {
    /// No block: the text is kubectl's alone.
    #[default]
    Hidden,
    /// Nothing runs: what would be bound.
    Declared,
    /// From the running program.
    Live(Box<Status>),
}

/// One address of a Service with one port.
struct Line {
    kind: String,
    declared: String,
    bound: String,
    state: String,
    notes: Vec<(&'static str, String)>,
}

/// The block.
pub(super) fn write(out: &mut Writer, service: &Value, listeners: &Listeners) {
    let (lines, refused) = match listeners {
        Listeners::Hidden => return,
        Listeners::Declared => (declared(service), Vec::new()),
        Listeners::Live(status) => (live(service, status), refused(service, status)),
    };
    if lines.is_empty() {
        out.pair(0, "Listeners", NONE);
        return;
    }
    out.line(0, "Listeners:");
    // Notes stand between the rows, which ends every column but the first: the others are padded here.
    let widest = |header: &str, cell: fn(&Line) -> &String| {
        let cells = lines.iter().map(|line| cell(line).len());
        cells.max().unwrap_or(0).max(header.len())
    };
    let declared = widest("Declared", |line| &line.declared);
    let bound = widest("Bound", |line| &line.bound);
    let row = |kind: &str, [one, two, three]: [&str; 3]| {
        format!("{kind}\t{one:declared$}  {two:bound$}  {three}")
    };
    out.line(1, row("Kind", ["Declared", "Bound", "State"]));
    out.line(1, row("----", ["--------", "-----", "-----"]));
    for line in &lines {
        let cells = [line.declared.as_str(), &line.bound, &line.state];
        out.line(1, row(&line.kind, cells));
        for (title, note) in &line.notes {
            out.pair(2, title, note);
        }
    }
    for refused in refused {
        out.pair(1, "Refused", &refused);
    }
    if let Listeners::Live(status) = listeners {
        for port in ports(service, status) {
            if let Some(speaks) = &port.speaks {
                let text = format!("{}/{}: {speaks}", port.port, port.protocol);
                out.pair(1, "Speaks", &text);
            }
        }
        for limits in ports(service, status).filter_map(limits) {
            out.pair(1, "Limits", &limits);
        }
        for port in ports(service, status).filter(|port| port.source_not_kept > 0) {
            let text = format!(
                "{}/{}: {} clients seen at our own address: `portico explain` says why",
                port.port, port.protocol, port.source_not_kept
            );
            out.pair(1, "Source not kept", &text);
        }
    }
}

/// The ports that the program serves of it.
fn ports<'s>(service: &Value, status: &'s Status) -> impl Iterator<Item = &'s PortStatus> {
    let is_this =
        |one: &&ServiceStatus| one.name == name(service) && one.namespace == namespace(service);
    let own = status.services.iter().find(is_this);
    own.into_iter().flat_map(|own| &own.ports)
}

/// How near a port is to the limits that its annotations set, if they do.
fn limits(port: &PortStatus) -> Option<String> {
    let of_port = port
        .max_connections
        .map(|most| format!("{} of {most} connections", port.active));
    let of_endpoints = port.max_connections_per_endpoint.map(|most| {
        let is_full = |one: &&EndpointStatus| one.active >= u64::from(most);
        let full = port.endpoints.iter().filter(is_full).count();
        let all = port.endpoints.len();
        format!("{full} of {all} endpoints have their {most}")
    });
    let said: Vec<String> = [of_port, of_endpoints].into_iter().flatten().collect();
    let waiting = (port.waiting > 0).then(|| format!("; {} wait", port.waiting));
    (!said.is_empty()).then(|| {
        let waiting = waiting.unwrap_or_default();
        format!(
            "{}/{}: {}{waiting}",
            port.port,
            port.protocol,
            said.join(", ")
        )
    })
}

/// What was accepted and reset, by port and reason. What the kernel refuses or a filter drops never got that far.
fn refused(service: &Value, status: &Status) -> Vec<String> {
    let line = |port: &PortStatus| {
        let reasons = [
            (port.refused_no_endpoints, "without an endpoint"),
            (port.dropped_policy, "by traffic policy"),
            (port.dropped_source_range, "by source range"),
            (port.proxy_header_faults, "for want of a PROXY header"),
            (port.rejected_full, "for want of a place in time"),
        ];
        let counted = reasons.iter().filter(|(count, _)| *count > 0);
        let counted: Vec<String> = counted
            .map(|(count, why)| format!("{count} {why}"))
            .collect();
        (!counted.is_empty())
            .then(|| format!("{}/{}: {}", port.port, port.protocol, counted.join(", ")))
    };
    ports(service, status).filter_map(line).collect()
}

fn live(service: &Value, status: &Status) -> Vec<Line> {
    ports(service, status)
        .flat_map(|port| port.reachable.iter().map(move |way| (port, way)))
        .map(|(port, way)| reported(&port.protocol, way, &status.listeners))
        .collect()
}

/// A way in as the program reports it. A socket that serves several addresses is reported under its own: the wildcard.
fn reported(protocol: &str, way: &Reachable, reports: &[ListenerReport]) -> Line {
    let is_odd = way.bound != Some(way.declared) || way.problem.is_some();
    let family = way.declared.is_ipv4();
    let mut of_port = reports.iter().filter(|one| {
        one.declared.port() == way.declared.port()
            && one.declared.is_ipv4() == family
            && one.protocol == protocol
    });
    let own = of_port.clone().find(|one| one.declared == way.declared);
    let report = own.or_else(|| of_port.find(|one| one.declared.ip().is_unspecified()));
    // Datagrams are dropped without a filter.
    let turned_away = report
        .filter(|_| protocol == "TCP")
        .and_then(|one| Some((one.turned_away.as_ref()?, one.dropped_by_filter)));
    let report = report.filter(|one| is_odd || one.state == "refusing");
    let state = match report {
        Some(report) => report.state.clone(),
        None if way.bound.is_none() => "failed".into(),
        None if is_odd => "fallback".into(),
        None => "listening".into(),
    };
    let mut notes = Vec::new();
    let reason = report.and_then(|report| report.reason.clone());
    notes.extend(
        reason
            .or_else(|| way.problem.clone())
            .map(|it| ("Reason", it)),
    );
    if let Some(report) = report {
        notes.extend(report.holder.clone().map(|it| ("Holder", it)));
        notes.extend(report.fix.clone().map(|it| ("Fix", it)));
    }
    notes.extend(turned_away.map(|(how, count)| {
        let count = count.map(|count| format!(" ({count} packets so far, repeated ones too)"));
        ("Filter", format!("{how}{}", count.unwrap_or_default()))
    }));
    Line {
        kind: way.kind.clone(),
        declared: format!("{}/{protocol}", way.declared),
        bound: way.bound.map_or(NONE.into(), |bound| bound.to_string()),
        state,
        notes,
    }
}

/// What the Service declares: its addresses with its ports, and its node ports on all addresses of its families.
fn declared(service: &Value) -> Vec<Line> {
    let external = texts(service, "/spec/externalIPs");
    let ingress: Vec<&str> = items(service, "/status/loadBalancer/ingress")
        .iter()
        .map(|one| text(one, "/ip"))
        .collect();
    let mut lines = Vec::new();
    for port in items(service, "/spec/ports") {
        let protocol = text(port, "/protocol");
        let mut add = |kind: &str, addr: &str, number: i64| {
            let addr = addr.parse().ok();
            let declared = addr
                .zip(u16::try_from(number).ok().filter(|port| *port != 0))
                .map(|(ip, port)| SocketAddr::new(ip, port));
            lines.extend(declared.map(|declared| Line {
                kind: kind.into(),
                declared: format!("{declared}/{protocol}"),
                bound: NONE.into(),
                state: "would be bound".into(),
                notes: Vec::new(),
            }));
        };
        let number_of = number(port, "/port");
        for addr in texts(service, "/spec/clusterIPs") {
            add("ClusterIP", addr, number_of);
        }
        for family in texts(service, "/spec/ipFamilies") {
            let any = if family == "IPv6" { "::" } else { "0.0.0.0" };
            add("NodePort", any, number(port, "/nodePort"));
        }
        for addr in &external {
            add("ExternalIP", addr, number_of);
        }
        for addr in &ingress {
            add("LoadBalancer", addr, number_of);
        }
    }
    lines
}
