//! One probe: when it is due next, and what its results mean together. Owns the schedule and the thresholds, counted
//! as kubelet counts them (Kubernetes API reference, Probe; kubelet's prober worker); must not ask anybody anything:
//! attempts, their timeout and chance are the caller's.

use std::{sync::Arc, time::Duration};

use crate::{
    object::{Probe, ProbeCheck},
    time::Timestamp,
    world::probes::{ProbeKind, ProbeOutcome},
};

/// The longest random wait before the first attempt of a probe without `initialDelaySeconds`. kubelet spreads it over
/// a whole period, and only in its own first period; here it is no longer than this, so that what was just started
/// is served within a second and probes that start together still do not run together.
pub const LONGEST_JITTER: Duration = Duration::from_secs(1);

/// Why an `exec` probe counts as passing.
pub const EXEC_PASSES: &str = "an exec probe cannot run here: it counts as passing";

/// Why an `httpGet` probe with scheme HTTPS counts as passing. A TLS client means a dozen crates and a cryptographic
/// library in C and assembler for a probe whose certificate nobody verifies, and simulated pods serve no TLS.
pub const HTTPS_PASSES: &str = "HTTPS is not spoken here: the probe counts as passing";

/// Why a probe with this check is not run but counts as passing; `None` when it is run.
pub const fn counted_as_passing(check: &ProbeCheck) -> Option<&'static str> {
    match check {
        ProbeCheck::Exec => Some(EXEC_PASSES),
        ProbeCheck::HttpGet { https: true, .. } => Some(HTTPS_PASSES),
        ProbeCheck::HttpGet { .. } | ProbeCheck::TcpSocket { .. } | ProbeCheck::Grpc { .. } => None,
    }
}

/// What one attempt came to: success, or why not, in kubelet's words.
pub type Attempt = Result<(), Arc<str>>;

/// See the module's documentation. Before any result readiness counts as failing, liveness as passing, and startup
/// as neither.
#[derive(Debug, Clone)]
pub struct ProbeState {
    kind: ProbeKind,
    period: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    /// `None` once nothing more is to be learnt.
    due: Option<Timestamp>,
    /// The last attempt's result, and how often it came in a row.
    last: Option<bool>,
    in_a_row: u32,
    /// What was told last; of liveness, that it passes, needs no telling.
    told: Option<bool>,
}

impl ProbeState {
    /// A probe of a container that started at `started_at`. `jitter` in `0..=u16::MAX` spreads first attempts.
    pub fn new(kind: ProbeKind, probe: &Probe, started_at: Timestamp, jitter: u16) -> Self {
        let wait = if probe.initial_delay.is_zero() {
            let most = probe.period.min(LONGEST_JITTER);
            most.mul_f64(f64::from(jitter) / f64::from(u16::MAX))
        } else {
            probe.initial_delay
        };
        Self {
            kind,
            // Not zero: the next attempt must lie in the future.
            period: probe.period.max(Duration::from_millis(1)),
            success_threshold: probe.success_threshold.max(1),
            failure_threshold: probe.failure_threshold.max(1),
            due: Some(started_at.after(wait)),
            last: None,
            in_a_row: 0,
            told: match kind {
                ProbeKind::Liveness => Some(true),
                ProbeKind::Readiness | ProbeKind::Startup => None,
            },
        }
    }

    /// When to make the next attempt; `None` when there is none: a startup probe that has passed, a startup or
    /// liveness probe that has failed (another run of the container is another probe).
    pub const fn next_due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Takes the result of the attempt that was due, at the time it ended. The next one is due at the next tick of the
    /// period; ticks that passed meanwhile are left out, as kubelet's ticker does.
    pub fn observe(&mut self, attempt: Attempt, now: Timestamp) -> Option<ProbeOutcome> {
        let due = self.due?;
        self.due = Some(next_tick(due, self.period, now));
        let passed = attempt.is_ok();
        if self.last == Some(passed) {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            (self.last, self.in_a_row) = (Some(passed), 1);
        }
        let threshold = if passed {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        let is_news = self.in_a_row >= threshold && self.told != Some(passed);
        if is_news {
            self.told = Some(passed);
            if self.is_settled(passed) {
                self.due = None;
            }
        }
        match attempt {
            Ok(()) => is_news.then_some(ProbeOutcome::Success),
            Err(reason) if is_news => Some(ProbeOutcome::Failure { reason }),
            Err(reason) => Some(ProbeOutcome::Unhealthy { reason }),
        }
    }

    const fn is_settled(&self, passed: bool) -> bool {
        match self.kind {
            ProbeKind::Readiness => false,
            ProbeKind::Liveness => !passed,
            ProbeKind::Startup => true,
        }
    }
}

/// The first of `due + n * period`, n >= 1, that is after `now`.
fn next_tick(due: Timestamp, period: Duration, now: Timestamp) -> Timestamp {
    let behind = now.since(due).as_millis();
    let missed = u32::try_from(behind / period.as_millis().max(1)).unwrap_or(u32::MAX - 1);
    due.after(period.saturating_mul(missed + 1))
}

#[cfg(test)]
mod tests;
