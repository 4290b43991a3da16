//! `/livez`, `/readyz` and `/healthz` as the API server answers them: `ok`, or with `?verbose` a line a check;
//! `?exclude=NAME` leaves one out; a failure is always told in full. Owns the checks and their words.
//!
//! Alive is: control takes its turns. Ready is: every source was read once, sockets were tried, the end has not begun.
//! A socket that could not be had does not make the program unready, because everything else is served; the line says
//! that it is degraded.

use std::{fmt::Write as _, time::Duration};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use portico_core::time::Timestamp;
use tokio::sync::oneshot;

use super::{Request, public::Seen};

/// Control answers within this time, or it is stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// What control says of itself.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Whether every source was read once and what was read is served.
    pub synced: bool,
    /// Sockets for Services.
    pub listeners: usize,
    /// Those that are not where they were declared.
    pub missing: Vec<String>,
    /// Addresses where DNS was to be answered and is not.
    pub dns_missing: Vec<String>,
    /// When something was last published.
    pub updated: Timestamp,
}

/// Which question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    Live,
    Ready,
    Healthy,
}

/// `?verbose&exclude=NAME&exclude=NAME`.
#[derive(Debug, Default)]
pub(super) struct CheckQuery {
    verbose: bool,
    excluded: Vec<String>,
}

impl CheckQuery {
    /// From what stands behind the question mark.
    pub(super) fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for part in query.split('&') {
            match part.split_once('=').unwrap_or((part, "")) {
                ("verbose", value) => parsed.verbose = !matches!(value, "0" | "false"),
                ("exclude", name) => parsed.excluded.push(name.to_owned()),
                _ => {}
            }
        }
        parsed
    }
}

/// One check.
#[derive(Debug, PartialEq, Eq)]
struct Check {
    name: &'static str,
    /// What is wrong.
    problem: Option<String>,
    /// What is to be known though nothing is wrong.
    note: Option<String>,
}

impl Check {
    fn of(name: &'static str, problem: Option<String>) -> Self {
        Self {
            name,
            problem,
            note: None,
        }
    }
}

/// Asks control; `None` when it does not answer in time.
pub(super) async fn ask(seen: &Seen) -> Option<Health> {
    let (reply, answer) = oneshot::channel();
    let asking = async {
        seen.control.send(Request::Health(reply)).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(PATIENCE, asking).await.ok().flatten()
}

pub(super) async fn answer(seen: &Seen, probe: Probe, query: &CheckQuery) -> Response {
    // While connections are let finish nobody answers for control, and that is meant.
    let health = if seen.stop.is_cancelled() {
        None
    } else {
        ask(seen).await
    };
    // Read last: the end may have begun while control was asked.
    let is_stopping = seen.stop.is_cancelled();
    let checks = checks(probe, health.as_ref(), is_stopping);
    let (status, text) = respond(probe, &checks, query);
    let plain = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, plain, text).into_response()
}

fn checks(probe: Probe, health: Option<&Health>, is_stopping: bool) -> Vec<Check> {
    let stuck = format!("control does not answer within {} s", PATIENCE.as_secs());
    let is_stuck = health.is_none() && !is_stopping;
    let mut checks = vec![
        Check::of("ping", None),
        Check::of("control", is_stuck.then_some(stuck)),
    ];
    if probe == Probe::Live {
        return checks;
    }
    let nothing = Health::default();
    let known = health.unwrap_or(&nothing);
    let unread = !known.synced && !is_stopping;
    let unread = unread.then(|| "not every source was read yet".to_owned());
    checks.push(Check::of("manifests", unread));
    checks.push(Check {
        note: degraded(&known.missing, known.listeners),
        ..Check::of("listeners", None)
    });
    checks.push(Check {
        note: degraded(&known.dns_missing, known.dns_missing.len()),
        ..Check::of("dns", None)
    });
    if probe == Probe::Ready {
        let ending = "the program is ending".to_owned();
        checks.push(Check::of("shutdown", is_stopping.then_some(ending)));
    }
    checks
}

fn degraded(missing: &[String], of: usize) -> Option<String> {
    let first = missing.first()?;
    Some(format!(
        "degraded: {} of {of} not where declared, first {first}",
        missing.len()
    ))
}

fn respond(probe: Probe, checks: &[Check], query: &CheckQuery) -> (StatusCode, String) {
    let is_excluded = |name: &str| query.excluded.iter().any(|excluded| excluded == name);
    let mut text = String::new();
    let mut failed = Vec::new();
    for check in checks {
        let name = check.name;
        let _ = match (&check.problem, &check.note) {
            _ if is_excluded(name) => writeln!(text, "[+]{name} excluded: ok"),
            (Some(problem), _) => {
                failed.push(name);
                writeln!(text, "[-]{name} failed: {problem}")
            }
            (None, Some(note)) => writeln!(text, "[+]{name} ok ({note})"),
            (None, None) => writeln!(text, "[+]{name} ok"),
        };
    }
    let name = match probe {
        Probe::Live => "livez",
        Probe::Ready => "readyz",
        Probe::Healthy => "healthz",
    };
    let is_known = |name: &&String| checks.iter().any(|check| check.name == name.as_str());
    for name in query.excluded.iter().filter(|name| !is_known(name)) {
        let _ = writeln!(
            text,
            "warn: some health checks cannot be excluded: no matches for \"{name}\""
        );
    }
    if !failed.is_empty() {
        let _ = writeln!(text, "{name} check failed");
        return (StatusCode::INTERNAL_SERVER_ERROR, text);
    }
    if query.verbose {
        let _ = writeln!(text, "{name} check passed");
        return (StatusCode::OK, text);
    }
    (StatusCode::OK, "ok".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> CheckQuery {
        CheckQuery::parse(text)
    }

    fn loaded() -> Health {
        Health {
            synced: true,
            listeners: 3,
            ..Health::default()
        }
    }

    #[test]
    fn respond_plain_is_ok_and_verbose_has_a_line_a_check() {
        let checks = checks(Probe::Ready, Some(&loaded()), false);
        let plain = respond(Probe::Ready, &checks, &query(""));
        assert_eq!(plain, (StatusCode::OK, "ok".to_owned()));
        let (status, text) = respond(Probe::Ready, &checks, &query("verbose"));
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            text,
            "[+]ping ok\n[+]control ok\n[+]manifests ok\n[+]listeners ok\n[+]dns ok\n[+]shutdown ok\nreadyz check passed\n"
        );
    }

    #[test]
    fn respond_failure_is_told_in_full_and_can_be_excluded() {
        let checks = checks(Probe::Ready, Some(&Health::default()), false);
        let (status, text) = respond(Probe::Ready, &checks, &query(""));
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(
            text.contains("[-]manifests failed: not every source was read yet\n"),
            "{text}"
        );
        assert!(text.ends_with("readyz check failed\n"), "{text}");
        let (status, _) = respond(Probe::Ready, &checks, &query("exclude=manifests"));
        assert_eq!(status, StatusCode::OK);
        let (_, text) = respond(
            Probe::Ready,
            &checks,
            &query("verbose&exclude=manifests&exclude=nonsense"),
        );
        assert!(text.contains("[+]manifests excluded: ok\n"), "{text}");
        assert!(text.contains("no matches for \"nonsense\""), "{text}");
    }

    #[test]
    fn checks_of_a_stuck_control_and_of_an_ending_program() {
        let failed = |probe, stopping| -> Vec<&str> {
            let checks = checks(probe, None, stopping);
            let failed = checks.iter().filter(|check| check.problem.is_some());
            failed.map(|check| check.name).collect()
        };
        assert_eq!(failed(Probe::Live, false), ["control"]);
        assert_eq!(failed(Probe::Live, true), [""; 0]);
        assert_eq!(failed(Probe::Ready, true), ["shutdown"]);
    }

    #[test]
    fn checks_of_a_socket_that_could_not_be_had_are_degraded_and_ready() {
        let health = Health {
            missing: vec!["127.0.0.1:80: in use".to_owned()],
            ..loaded()
        };
        let checks = checks(Probe::Ready, Some(&health), false);
        let (status, text) = respond(Probe::Ready, &checks, &query("verbose"));
        assert_eq!(status, StatusCode::OK);
        assert!(
            text.contains("[+]listeners ok (degraded: 1 of 3 not where declared, first 127.0.0.1:80: in use)\n"),
            "{text}"
        );
    }
}
