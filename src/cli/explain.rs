//! `portico explain`: why a Service is served as it is, from the running program or offline from manifests. Owns
//! arguments and layout; the causes and their words are those of [`crate::explain`].

use std::{fmt::Write as _, process::ExitCode};

use clap::{Args, ValueEnum};

use super::{
    Verbatim,
    cluster::{Cluster, ScopeOptions},
    draining, say,
    table::TabWriter,
};
use crate::{
    admin::client,
    app, clock,
    explain::{EndpointReport, Explanation, Problem},
    objects::Resource,
    settings::{ClusterOptions, InstanceOptions, ManifestOptions},
};

const AFTER_HELP: &str = "\
Examples:
  portico explain service web                     the cause first, each with what to change
  portico explain svc/web -n shop -o json         for scripts
  portico explain service web -f ./k8s            offline, on compiled manifests
  portico explain service web -f ./k8s --node-name worker-1 --zone a

In the JSON, `ports` has one entry a port and family: `port` is its name, or number and protocol as in 80/TCP;
`cluster` and `local` are the endpoints under each traffic policy, null where no address asks for them; `reachable`
is what any client may reach; `speaks` is what is spoken there and why; `verdict` says forward, refuse, unavailable
(HTTP: answered with 503) or drop for clients of the cluster IP (internal), of the other addresses from elsewhere
(external) and from this node (external_from_node), null without such addresses.";

/// Arguments of `portico explain`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ExplainArgs {
    /// `service NAME` or `service/NAME`
    #[arg(required = true, num_args = 1..=2, value_name = "service NAME")]
    what: Vec<String>,
    #[command(flatten)]
    scope: ScopeOptions,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    #[command(flatten)]
    cluster: ClusterOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Sentences and tables for people.
    Text,
    /// Everything, for scripts.
    Json,
}

/// Where the Service is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the running program.
    Running,
    /// In manifests that nobody serves.
    Manifests,
}

/// The command.
///
/// # Errors
/// No such Service, no running program, or a path that cannot be read.
pub fn run(args: &ExplainArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let name = service_name(&args.what)?;
    let namespace = &args.scope.namespace;
    let (explanation, place) = if args.scope.filename.is_empty() {
        (ask(instance, namespace, name)?, Place::Running)
    } else {
        let manifests = ManifestOptions {
            namespace: namespace.clone(),
            strict: false,
        };
        let paths = &args.scope.filename;
        let offline = app::Offline::read(paths, &manifests, &args.cluster, instance)?;
        let explained = offline.explain(namespace, name);
        (explained.map_err(Verbatim)?, Place::Manifests)
    };
    match args.output {
        Format::Json => say::line(serde_json::to_string_pretty(&explanation)?),
        Format::Text => {
            say::text(text(&explanation, place));
            if place == Place::Running {
                let live = Cluster::Live(instance.clone());
                let connections = live.list(Resource::Connections, Some(namespace))?;
                for line in draining::lines(&connections, namespace, name, clock::now()) {
                    say::line(format_args!("Draining: {line}"));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(instance: &InstanceOptions, namespace: &str, name: &str) -> anyhow::Result<Explanation> {
    let body = client::get(instance, &format!("/v1/explain/{namespace}/{name}"));
    match body {
        Ok(body) => Ok(serde_json::from_slice(&body)?),
        Err(error) => match error.downcast::<client::Refused>() {
            Ok(refused) if refused.status == 404 => Err(Verbatim(if refused.text.is_empty() {
                Resource::Services.not_found(name)
            } else {
                refused.text
            })
            .into()),
            Ok(refused) => Err(refused.into()),
            Err(error) => Err(error),
        },
    }
}

/// `service web`, `svc/web`.
fn service_name(what: &[String]) -> anyhow::Result<&str> {
    let (kind, name) = match what {
        [kind, name] => (kind.as_str(), name.as_str()),
        [both] => match both.split_once('/') {
            Some(parts) => parts,
            None => anyhow::bail!("which one? portico explain service NAME"),
        },
        _ => anyhow::bail!("which one? portico explain service NAME"),
    };
    anyhow::ensure!(
        Resource::named(kind) == Some(Resource::Services),
        "'{kind}' cannot be explained, only Services can: portico explain service NAME"
    );
    // It becomes part of a path; no name of an object has other letters.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if name.is_empty() || !name.chars().all(is_plain) {
        anyhow::bail!(Verbatim(Resource::Services.not_found(name)));
    }
    Ok(name)
}

/// The explanation for people: the verdict, problems with what to do, then everything in tables.
fn text(explanation: &Explanation, place: Place) -> String {
    let mut text = format!("{}\n", explanation.headline);
    for problem in &explanation.problems {
        describe(&mut text, problem);
    }
    text.push('\n');
    identity(&mut text, explanation);
    balance(&mut text, explanation);
    addresses(&mut text, explanation);
    ports(&mut text, explanation);
    endpoints(&mut text, explanation);
    if !explanation.names.is_empty() {
        let _ = writeln!(text, "\nNames: {}", explanation.names.join(", "));
    }
    if let Some(told) = &explanation.elsewhere {
        let _ = writeln!(text, "From other machines and containers: {told}");
    }
    if let Some(attempt) = &explanation.attempt {
        let _ = match place {
            Place::Running => writeln!(text, "Try: {attempt}"),
            Place::Manifests => writeln!(text, "Try, once `portico up` serves it: {attempt}"),
        };
    }
    if !explanation.notes.is_empty() {
        text.push('\n');
    }
    for note in &explanation.notes {
        describe(&mut text, note);
    }
    text
}

fn describe(text: &mut String, problem: &Problem) {
    let severity = problem.severity.as_str();
    let at = problem
        .at
        .as_ref()
        .map_or_else(String::new, |at| format!(" ({at})"));
    let _ = writeln!(text, "{severity}: {}{at}", problem.text);
    if let Some(fix) = &problem.fix {
        let _ = writeln!(text, "  fix: {fix}");
    }
}

fn identity(text: &mut String, explanation: &Explanation) {
    let path = format!("{}/{}", explanation.namespace, explanation.name);
    let _ = write!(text, "Service {path}");
    if !explanation.service_type.is_empty() {
        let _ = write!(text, ", {}", explanation.service_type);
    }
    if let Some(origin) = &explanation.origin {
        let _ = write!(text, ", declared at {origin}");
    }
    text.push('\n');
    for change in &explanation.overrides {
        let _ = writeln!(text, "Changed while running: {change}");
    }
    if !explanation.selector.is_empty() {
        let pairs: Vec<String> = explanation
            .selector
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let _ = writeln!(
            text,
            "Selector: {} (matches {})",
            pairs.join(","),
            explanation.matching
        );
    }
}

/// How endpoints are chosen, unless that is plain round robin.
fn balance(text: &mut String, explanation: &Explanation) {
    if let Some(seconds) = explanation.affinity_seconds {
        let _ = writeln!(
            text,
            "Session affinity: by client address, until {seconds} s after its last new connection"
        );
    }
    if let Some(cookie) = &explanation.affinity_cookie {
        let _ = writeln!(text, "Session affinity: by cookie {cookie}, of HTTP ports");
    }
    let has_weights = has_weights(explanation);
    let policy = match &*explanation.balance {
        "" => return,
        "round-robin" if !has_weights => return,
        policy => policy,
    };
    let weights = if has_weights { ", by weight" } else { "" };
    let header = explanation.hash_header.as_ref();
    let header = header.filter(|_| policy == "maglev");
    let header = header.map_or_else(String::new, |name| {
        format!(", of HTTP ports by header {name}")
    });
    let _ = writeln!(text, "Balance: {policy}{weights}{header}");
}

fn has_weights(explanation: &Explanation) -> bool {
    let mut weights = explanation.endpoints.iter().filter_map(|of| of.weight);
    weights.any(|weight| weight != 1)
}

fn addresses(text: &mut String, explanation: &Explanation) {
    let rows = explanation.addresses.iter().map(|way| {
        vec![
            way.kind.clone(),
            way.declared.replace("0.0.0.0:", "*:"),
            way.port.clone(),
            match &way.bound {
                Some(bound) if *bound == way.declared => "as declared".to_owned(),
                Some(bound) => bound.clone(),
                None => "not bound".to_owned(),
            },
        ]
    });
    table(text, &["ADDRESS", "DECLARED", "PORT", "SERVED AT"], rows);
}

fn ports(text: &mut String, explanation: &Explanation) {
    let word = |answer: &crate::explain::Answer| {
        serde_json::to_value(answer)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let rows = explanation.ports.iter().map(|port| {
        let mut joins = explanation.joins.iter();
        let join = joins.find(|join| join.port == port.port && join.family == port.family);
        let verdict = &port.verdict;
        let external = verdict
            .external
            .as_ref()
            .map_or_else(|| "-".to_owned(), word);
        let from_node = verdict.external_from_node.as_ref();
        vec![
            port.port.clone(),
            port.family.clone(),
            port.speaks.clone(),
            join.map_or_else(String::new, |join| join.target_port.clone()),
            word(&verdict.internal),
            external,
            from_node.map_or_else(|| "-".to_owned(), word),
            join.map(|join| join.joined.join(", "))
                .filter(|joined| !joined.is_empty())
                .unwrap_or_else(|| "nothing".to_owned()),
        ]
    });
    let header = [
        "PORT",
        "FAMILY",
        "SPEAKS",
        "TARGET",
        "INTERNAL",
        "EXTERNAL",
        "FROM NODE",
        "JOINS",
    ];
    table(text, &header, rows);
}

/// Endpoints of a table; of more, those that are chosen come first and the rest is counted.
const MOST_ENDPOINTS: usize = 100;
/// Where weights stand among the columns of endpoints, if some are not 1.
const WEIGHT_COLUMN: usize = 5;

fn endpoints(text: &mut String, explanation: &Explanation) {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let has_weights = has_weights(explanation);
    let mut shown: Vec<&EndpointReport> = explanation.endpoints.iter().collect();
    let left_out = shown.len().saturating_sub(MOST_ENDPOINTS);
    if left_out > 0 {
        shown.sort_by_key(|endpoint| !endpoint.chosen);
        shown.truncate(MOST_ENDPOINTS);
    }
    let rows = shown.into_iter().map(|endpoint| {
        let mut row = vec![
            or_dash(&endpoint.address),
            or_dash(&endpoint.port),
            or_dash(&endpoint.pod),
            or_dash(&endpoint.node),
            endpoint.source.clone(),
            yes(endpoint.ready),
            yes(endpoint.chosen),
            endpoint.why.clone(),
        ];
        if has_weights {
            let weight = endpoint.weight.map(|weight| weight.to_string());
            row.insert(WEIGHT_COLUMN, or_dash(&weight));
        }
        row
    });
    let mut header = vec![
        "ENDPOINT", "PORT", "POD", "NODE", "FROM", "READY", "CHOSEN", "WHY",
    ];
    if has_weights {
        header.insert(WEIGHT_COLUMN, "WEIGHT");
    }
    table(text, &header, rows);
    if left_out > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "and {left_out} more: -o json has all of them");
    }
}

/// Nothing for no rows.
fn table(text: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut all: Vec<Vec<String>> = vec![header.iter().map(|&cell| cell.to_owned()).collect()];
    all.extend(rows);
    if all.len() == 1 {
        return;
    }
    text.push('\n');
    for line in TabWriter::default().lines(&all).lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests;
