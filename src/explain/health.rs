//! Why endpoints that join are not used: not ready, terminating, elsewhere, a loop. Owns the sentences; the reasons
//! of single endpoints are [`super::endpoints`]'s.

use std::collections::BTreeSet;

use portico_core::{
    object::{TrafficPolicy, diagnostic::Severity},
    snapshot::FrontendKind,
};

use super::{
    listeners::turned_away,
    model::{Answer, Cause, EndpointReport, PortVerdict, Problem},
    subject::{Subject, few, problem},
};

/// What keeps endpoints from being used.
pub(super) fn problems(
    subject: Subject<'_>,
    ports: &[PortVerdict],
    reports: &[EndpointReport],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let joined: Vec<&EndpointReport> = reports
        .iter()
        .filter(|report| report.port.is_some() || !subject.spec().has_vip())
        .filter(|report| report.address.is_some())
        .collect();
    let serves = if subject.spec().has_vip() {
        ports.iter().any(|port| !port.reachable.is_empty())
    } else {
        joined.iter().any(|report| report.chosen)
    };
    problems.extend(unready(
        &joined,
        serves || ports.iter().any(|port| port.any),
    ));
    problems.extend(terminating(&joined, serves));
    problems.extend(none_local(subject, ports, &joined));
    problems.extend(loops(&joined));
    problems.extend(ejected(&joined));
    problems
}

fn unready(joined: &[&EndpointReport], serves: bool) -> Option<Problem> {
    let unready: Vec<String> = joined
        .iter()
        .filter(|report| !report.ready && !report.terminating)
        .map(|report| format!("{}: {}", title(report), reason(report)))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let first = unready.first()?;
    let total = distinct(joined);
    let text = match (unready.len(), total) {
        (1, 1) => format!("its only endpoint is not ready; {first}"),
        (unready, total) if unready == total => {
            format!("none of {total} endpoints is ready; {first}")
        }
        (1, total) => format!("1 of {total} endpoints is not ready; {first}"),
        (count, total) => format!(
            "{count} of {total} endpoints are not ready; {}",
            few(&unready)
        ),
    };
    let severity = if serves {
        Severity::Warning
    } else {
        Severity::Error
    };
    let said = |text: &str| joined.iter().any(|report| report.why.contains(text));
    let fix = if said("made to fail") {
        "portico pod heal POD ready"
    } else if said("probe") {
        "make what the probe asks for answer; publishNotReadyAddresses: true serves it all the same"
    } else if said("it is starting") || said("it waits") {
        "portico get pods shows how far they are"
    } else {
        "set the condition to True once it is ready; publishNotReadyAddresses: true serves pods all the same"
    };
    Some(Problem {
        fix: Some(fix.to_owned()),
        ..problem(severity, Cause::NotReady, text)
    })
}

fn terminating(joined: &[&EndpointReport], serves: bool) -> Option<Problem> {
    let ending: Vec<String> = joined
        .iter()
        .filter(|report| report.terminating)
        .map(|report| title(report))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if ending.is_empty() || ending.len() < distinct(joined) {
        return None;
    }
    let (severity, meanwhile) = if serves {
        (
            Severity::Warning,
            "what ends serves until then, since nothing else is ready",
        )
    } else {
        (Severity::Error, "nothing serves any more")
    };
    let who = match ending.as_slice() {
        [only] => format!("its only endpoint is terminating ({only})"),
        all => format!("all {} endpoints are terminating ({})", all.len(), few(all)),
    };
    let text = format!("{who}: {meanwhile}");
    Some(Problem {
        fix: Some("take deletionTimestamp or the condition terminating out of the manifest, or add new endpoints".to_owned()),
        ..problem(severity, Cause::Terminating, text)
    })
}

/// Policy Local, and no endpoint on this node.
fn none_local(
    subject: Subject<'_>,
    ports: &[PortVerdict],
    joined: &[&EndpointReport],
) -> Vec<Problem> {
    let spec = subject.spec();
    let here = &subject.view.snapshot.cluster.node_name;
    let nodes: BTreeSet<String> = joined
        .iter()
        .filter_map(|report| report.node.clone())
        .collect();
    let nodes: Vec<String> = nodes.into_iter().collect();
    let is_dropped = |answer: fn(&PortVerdict) -> Option<Answer>| {
        ports.iter().any(|port| answer(port) == Some(Answer::Drop))
    };
    let inside = is_dropped(|port| Some(port.verdict.internal))
        && spec.internal_traffic_policy == TrafficPolicy::Local;
    let outside = is_dropped(|port| port.verdict.external)
        && spec.external_traffic_policy == TrafficPolicy::Local;
    let found = |field: &str, is_concerned: fn(FrontendKind) -> bool, severity| {
        let text = format!(
            "{field} is Local, and no usable endpoint is on this node ({here}), but on {}: connections are {}",
            few(&nodes),
            turned_away(subject, is_concerned)
        );
        let node = nodes.first().map_or("", |node| node);
        Problem {
            at: Some(subject.at(&format!("spec.{field}"))),
            fix: Some(format!(
                "write `{field}: Cluster`, or start with `--node-name {node}` to be that node"
            )),
            ..problem(severity, Cause::NoneLocal, text)
        }
    };
    let mut problems = Vec::new();
    if inside {
        problems.push(found(
            "internalTrafficPolicy",
            |kind| !kind.is_external(),
            Severity::Error,
        ));
    }
    if outside {
        problems.push(found(
            "externalTrafficPolicy",
            FrontendKind::is_external,
            Severity::Warning,
        ));
    }
    problems
}

fn loops(joined: &[&EndpointReport]) -> Option<Problem> {
    let mut looped: Vec<String> = joined
        .iter()
        .filter(|report| report.why.starts_with("an address of Service"))
        .map(|report| format!("{} is {}", title(report), report.why))
        .collect();
    let severity = if looped.len() == joined.len() {
        Severity::Error
    } else {
        Severity::Warning
    };
    // Several ports may lead to the same one.
    looped.dedup();
    (!looped.is_empty()).then(|| Problem {
        fix: Some("name the address of the process itself".to_owned()),
        ..problem(severity, Cause::Loop, few(&looped))
    })
}

fn ejected(joined: &[&EndpointReport]) -> Option<Problem> {
    let out: Vec<String> = joined
        .iter()
        .filter(|report| report.ejected)
        .map(|report| title(report))
        .collect();
    let verb = if out.len() == 1 { "sits" } else { "sit" };
    (!out.is_empty()).then(|| Problem {
        fix: Some(
            "see that something listens there and that it answers, of HTTP with no 502, 503 or 504; each is tried again after its time"
                .to_owned(),
        ),
        ..problem(
            Severity::Warning,
            Cause::Ejected,
            format!("{} {verb} out after failures in a row", few(&out)),
        )
    })
}

fn distinct(joined: &[&EndpointReport]) -> usize {
    let titles: BTreeSet<String> = joined.iter().map(|report| title(report)).collect();
    titles.len()
}

fn title(report: &EndpointReport) -> String {
    match (&report.pod, &report.address) {
        (Some(pod), _) => format!("pod {pod}"),
        (None, Some(address)) => address.clone(),
        (None, None) => report.source.clone(),
    }
}

fn reason(report: &EndpointReport) -> &str {
    let why = &*report.why;
    let why = why.strip_prefix("not in DNS: ").unwrap_or(why);
    why.strip_prefix("not ready: ").unwrap_or(why)
}
