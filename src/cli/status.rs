//! `portico status`: what the running program serves, as a table or as JSON. Owns the layout.

use std::{fmt::Write as _, process::ExitCode};

use clap::{Args, ValueEnum};

use super::{age, say, table::TabWriter};
use crate::{
    admin::client,
    control::status::{MissedNameStatus, RunStatus, ServiceStatus, Status},
    settings::InstanceOptions,
    words::counted,
};

/// Arguments of `portico status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Tables for people.
    Text,
    /// Everything, with the counters of every endpoint.
    Json,
}

/// Asks the running program and prints its status.
///
/// # Errors
/// No program runs under this instance name, or it does not answer.
pub fn run(args: &StatusArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let status: Status = serde_json::from_slice(&client::get(instance, "/v1/status")?)?;
    match args.output {
        Format::Json => say::line(serde_json::to_string_pretty(&status)?),
        Format::Text => say::text(text(&status)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The status for people.
pub fn text(status: &Status) -> String {
    let mut text = table(&status.services);
    for dns in &status.dns {
        let _ = match (&dns.bound, &dns.problem) {
            (Some(bound), None) => writeln!(text, "DNS: {bound} (UDP and TCP)"),
            (Some(bound), Some(problem)) => writeln!(text, "DNS: {bound} (UDP and TCP); {problem}"),
            (None, problem) => {
                writeln!(
                    text,
                    "DNS: not served at {}: {}",
                    dns.wanted,
                    problem.as_deref().unwrap_or("unknown")
                )
            }
        };
        if let Some(fix) = &dns.fix {
            let _ = writeln!(text, "  fix: {fix}");
        }
    }
    missed(&mut text, &status.missed_names);
    for upstream in &status.dns_upstreams {
        let names = upstream.domain.as_deref().unwrap_or("other names");
        let _ = write!(text, "DNS of {names}: {}", upstream.server);
        let _ = match &upstream.problem {
            Some(problem) => writeln!(text, ", but {problem}"),
            None => writeln!(text),
        };
    }
    runs(&mut text, &status.runs);
    for listener in status
        .listeners
        .iter()
        .filter(|listener| matches!(&*listener.state, "fallback" | "failed"))
    {
        let _ = write!(
            text,
            "{} ({}): {}",
            listener.declared,
            listener.services,
            listener.reason.as_deref().unwrap_or("")
        );
        let _ = listener
            .holder
            .as_ref()
            .map(|holder| write!(text, ", {holder}"));
        let _ = match listener.bound {
            Some(bound) => writeln!(text, "; served on {bound} meanwhile"),
            None => writeln!(text, "; not served, tried again"),
        };
        let _ = listener
            .fix
            .as_ref()
            .map(|fix| writeln!(text, "  fix: {fix}"));
    }
    text
}

fn runs(text: &mut String, runs: &[RunStatus]) {
    let now = crate::clock::now();
    for run in runs {
        let _ = writeln!(
            text,
            "run: pid {}, {}, namespace {}, for {}: {}",
            run.pid,
            run.command,
            run.namespace,
            age::since(Some(&run.since), now),
            counted(run.listeners, "socket")
        );
        for failed in &run.failed {
            let _ = writeln!(text, "  not served inside: {failed}");
        }
    }
}

fn missed(text: &mut String, names: &[MissedNameStatus]) {
    for missed in names {
        let times = match missed.count {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        let (name, meant) = (&missed.name, &missed.meant);
        let _ = writeln!(
            text,
            "DNS: {name} does not exist (asked {times}): did you mean {meant}?"
        );
    }
}

/// One row a Service, as `kubectl get services` with the endpoints beside it.
pub fn table(services: &[ServiceStatus]) -> String {
    let mut header = [
        "NAMESPACE",
        "NAME",
        "TYPE",
        "CLUSTER-IP",
        "EXTERNAL-IP",
        "PORT(S)",
        "ENDPOINTS",
        "NOTE",
    ]
    .map(str::to_owned);
    let mut rows: Vec<_> = services.iter().map(row).collect();
    let [.., note] = &mut header;
    if rows.iter().all(|[.., note]| note.is_empty()) {
        note.clear();
    }
    rows.insert(0, header);
    let text = TabWriter::default().lines(&rows);
    text.lines()
        .fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

fn row(service: &ServiceStatus) -> [String; 8] {
    let external: Vec<String> = service
        .external_ips
        .iter()
        .map(ToString::to_string)
        .collect();
    let none = || "<none>".to_owned();
    [
        service.namespace.clone(),
        service.name.clone(),
        service.service_type.clone(),
        if service.cluster_ip.is_empty() {
            none()
        } else {
            service.cluster_ip.clone()
        },
        service.external_name.clone().unwrap_or_else(|| {
            if !external.is_empty() {
                external.join(",")
            } else if service.service_type == "LoadBalancer" {
                // As kubectl shows one that nobody has given an address.
                "<pending>".to_owned()
            } else {
                none()
            }
        }),
        if service.port_list.is_empty() {
            none()
        } else {
            service.port_list.join(",")
        },
        endpoints(service),
        notes(service).join("; "),
    ]
}

fn endpoints(service: &ServiceStatus) -> String {
    let of_port = service.ports.first().map(|port| &port.endpoints);
    let mut all: Vec<String> = of_port
        .into_iter()
        .flatten()
        .map(|endpoint| endpoint.address.to_string())
        .collect();
    all.extend(service.headless_addresses.iter().map(ToString::to_string));
    match all.as_slice() {
        [] if service.external_name.is_some() => "-".into(),
        [] => "<none>".into(),
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first},{second},{third} + {} more...", rest.len())
        }
        few => few.join(","),
    }
}

/// What a user must know to reach it.
fn notes(service: &ServiceStatus) -> Vec<String> {
    let reachable = service.ports.iter().flat_map(|port| &port.reachable);
    let mut notes: Vec<String> = reachable
        .filter(|way| way.bound != Some(way.declared))
        .map(|way| match way.bound {
            Some(bound) => format!("{} -> {bound}", way.declared),
            None => format!("{} not served", way.declared),
        })
        .collect();
    if service.ports.iter().any(|port| port.protocol == "SCTP") {
        notes.push("SCTP is not forwarded".into());
    }
    if let Some(desired) = service.desired_load_balancer_ip {
        notes.push(format!("desired {desired}"));
    }
    if service
        .ports
        .first()
        .is_some_and(|port| port.endpoints.is_empty())
        && !service.selector.is_empty()
    {
        let selector: Vec<String> = service
            .selector
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        notes.push(format!("no ready pod matches {}", selector.join(",")));
    }
    notes
}
