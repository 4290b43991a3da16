//! Columns of Pods: the state of the containers in one word.

use portico_core::{calendar::parse_rfc3339, time::Timestamp};
use serde_json::Value;

use super::{
    Column,
    Detail::{Usual, Wide},
    NONE, age, list, name, number, text, text_or,
};
use crate::cli::age::since;

pub(super) const COLUMNS: &[Column] = &[
    ("NAME", Usual),
    ("READY", Usual),
    ("STATUS", Usual),
    ("RESTARTS", Usual),
    ("AGE", Usual),
    ("IP", Wide),
    ("NODE", Wide),
    ("NOMINATED NODE", Wide),
    ("READINESS GATES", Wide),
];

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<String> {
    let summary = Summary::of(pod);
    let restarts = match summary.restarts.last {
        Some(last) if summary.restarts.count != 0 => {
            format!(
                "{} ({} ago)",
                summary.restarts.count,
                since(Some(last), now)
            )
        }
        _ => summary.restarts.count.to_string(),
    };
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total),
        summary.reason,
        restarts,
        age(pod, now),
        text_or(pod, "/status/podIPs/0/ip", NONE),
        text_or(pod, "/spec/nodeName", NONE),
        text_or(pod, "/status/nominatedNodeName", NONE),
        readiness_gates(pod),
    ]
}

/// How often containers were restarted, and when last.
#[derive(Debug, Clone, Copy, Default)]
struct Restarts<'v> {
    count: i64,
    last: Option<&'v str>,
}

impl<'v> Restarts<'v> {
    fn add(&mut self, container: &'v Value) {
        self.count += number(container, "/restartCount");
        let ended = container.pointer("/lastState/terminated/finishedAt");
        let ended = ended.and_then(Value::as_str);
        if ended.and_then(parse_rfc3339) > self.last.and_then(parse_rfc3339) {
            self.last = ended;
        }
    }
}

struct Summary<'v> {
    reason: String,
    ready: usize,
    total: usize,
    restarts: Restarts<'v>,
}

/// What the init containers have come to.
#[derive(PartialEq, Eq)]
enum Progress {
    Initializing,
    Initialized,
}

impl<'v> Summary<'v> {
    fn of(pod: &'v Value) -> Self {
        let init = list(pod, "/spec/initContainers");
        let sidecars = init
            .iter()
            .filter(|container| is_sidecar(container))
            .count();
        let mut summary = Self {
            reason: text_or(pod, "/status/reason", &text(pod, "/status/phase")),
            ready: 0,
            total: list(pod, "/spec/containers").len() + sidecars,
            restarts: Restarts::default(),
        };
        let gated = |condition: &Value| {
            text(condition, "/type") == "PodScheduled"
                && text(condition, "/reason") == "SchedulingGated"
        };
        if list(pod, "/status/conditions").iter().any(gated) {
            summary.reason = "SchedulingGated".into();
        }
        let of_sidecars = Self::restarts_of_sidecars(pod, init);
        let progress = summary.init(pod, init);
        if progress == Progress::Initialized || is_true(pod, "Initialized") {
            summary.restarts = of_sidecars;
            summary.main(pod);
        }
        if pod
            .pointer("/metadata/deletionTimestamp")
            .is_some_and(|time| !time.is_null())
        {
            let phase = text(pod, "/status/phase");
            if text(pod, "/status/reason") == "NodeLost" {
                summary.reason = "Unknown".into();
            } else if !matches!(phase.as_str(), "Succeeded" | "Failed") {
                summary.reason = "Terminating".into();
            }
        }
        summary
    }

    /// Of those that were looked at before the first one that is not done.
    fn restarts_of_sidecars(pod: &'v Value, init: &[Value]) -> Restarts<'v> {
        let mut restarts = Restarts::default();
        for status in list(pod, "/status/initContainerStatuses") {
            let is_sidecar = is_sidecar_named(init, status);
            if is_sidecar {
                restarts.add(status);
            }
            let is_over = is_done(status) || (is_sidecar && is_started(status));
            if !is_over {
                break;
            }
        }
        restarts
    }

    fn init(&mut self, pod: &'v Value, init: &[Value]) -> Progress {
        let statuses = list(pod, "/status/initContainerStatuses");
        for (index, status) in statuses.iter().enumerate() {
            self.restarts.add(status);
            if is_done(status) {
                continue;
            }
            if is_sidecar_named(init, status) && is_started(status) {
                self.ready += usize::from(is_set(status, "ready"));
                continue;
            }
            let waiting = text(status, "/state/waiting/reason");
            self.reason = if status.pointer("/state/terminated").is_some() {
                format!("Init:{}", ended(status))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", init.len())
            };
            return Progress::Initializing;
        }
        Progress::Initialized
    }

    fn main(&mut self, pod: &'v Value) {
        let mut runs = false;
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            self.restarts.add(status);
            let waiting = text(status, "/state/waiting/reason");
            let has = |state: &str| status.pointer(state).is_some_and(|state| !state.is_null());
            if !waiting.is_empty() {
                self.reason = waiting;
            } else if has("/state/terminated") {
                self.reason = ended(status);
            } else if is_set(status, "ready") && has("/state/running") {
                runs = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && runs {
            let is_ready = is_true(pod, "Ready");
            self.reason = if is_ready { "Running" } else { "NotReady" }.into();
        }
    }
}

/// Why a container ended, in a word.
fn ended(status: &Value) -> String {
    let reason = text(status, "/state/terminated/reason");
    let signal = number(status, "/state/terminated/signal");
    let code = number(status, "/state/terminated/exitCode");
    match (reason.is_empty(), signal) {
        (false, _) => reason,
        (true, 0) => format!("ExitCode:{code}"),
        (true, signal) => format!("Signal:{signal}"),
    }
}

fn is_done(status: &Value) -> bool {
    let ended = status.pointer("/state/terminated");
    ended.is_some_and(|ended| number(ended, "/exitCode") == 0)
}

fn is_started(status: &Value) -> bool {
    is_set(status, "started")
}

fn is_set(status: &Value, field: &str) -> bool {
    status.get(field) == Some(&Value::Bool(true))
}

/// An init container that keeps running beside the others.
fn is_sidecar(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

fn is_sidecar_named(init: &[Value], status: &Value) -> bool {
    let of = text(status, "/name");
    init.iter()
        .any(|container| text(container, "/name") == of && is_sidecar(container))
}

fn is_true(pod: &Value, condition: &str) -> bool {
    list(pod, "/status/conditions")
        .iter()
        .any(|of| text(of, "/type") == condition && text(of, "/status") == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| is_true(pod, &text(gate, "/conditionType")));
    format!("{}/{}", open.count(), gates.len())
}
