//! Service ports at the limits that their annotations set. Owns the sentences; who waits, and who goes next, is the data
//! path's.

use std::sync::atomic::Ordering::Relaxed;

use portico_core::{
    object::{
        annotations::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ENDPOINT},
        diagnostic::Severity,
    },
    snapshot::PortView,
};

use super::{
    model::{Cause, Problem},
    subject::{Subject, problem},
    verdicts,
};
use crate::words::counted;

/// Limits that keep connections waiting, or would keep the next one.
pub(super) fn problems(subject: Subject<'_>) -> Vec<Problem> {
    let ports = subject.service.ports.iter();
    let reached = ports.flat_map(|port| [of_port(port), of_endpoints(subject, port)]);
    let reached = reached.flatten().map(|(text, fix)| Problem {
        at: Some(subject.at("metadata.annotations")),
        fix: Some(fix),
        ..problem(Severity::Warning, Cause::Full, text)
    });
    reached.collect()
}

fn of_port(port: &PortView) -> Option<(String, String)> {
    let state = &port.state;
    let most = state.limit.get().filter(|_| !state.has_room())?;
    let text = format!(
        "{} has {}, and {MAX_CONNECTIONS} allows {most}: the next ones wait until one ends",
        title(port),
        counted(count(state.active.load(Relaxed)), "connection"),
    );
    Some((text, format!("raise {MAX_CONNECTIONS}")))
}

fn of_endpoints(subject: Subject<'_>, port: &PortView) -> Option<(String, String)> {
    let now = subject.view.now;
    let most = port.endpoint_limit().filter(|_| !port.has_room(now))?;
    let text = format!(
        "{}: each endpoint has the {} that {MAX_CONNECTIONS_PER_ENDPOINT} allows: {} for a place, no longer than \
         --connect-timeout",
        title(port),
        counted(count(most.get().into()), "connection"),
        match port.state.line.len_of_all() {
            0 => "the next ones wait".to_owned(),
            1 => "1 waits".to_owned(),
            waiting => format!("{waiting} wait"),
        }
    );
    let fix = format!("raise {MAX_CONNECTIONS_PER_ENDPOINT}, or add endpoints");
    Some((text, fix))
}

fn title(port: &PortView) -> String {
    let label = verdicts::label(&port.name.port, port.number, port.name.protocol);
    format!("port {label}")
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
