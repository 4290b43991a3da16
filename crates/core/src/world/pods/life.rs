//! What the controllers keep of a pod beside what is shown of it: where each container is between two runs, and what
//! the pod host was last asked for. Owns these values and the delays between runs; what happens to them belongs to
//! `control`.

use std::time::Duration;

use super::WantedPort;
use crate::time::Timestamp;

/// First delay before a failed start is repeated: a port that was just being given up is free by then.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The following delays: kubelet's `CrashLoopBackOff`, doubled from this to `LAST_RETRY`.
const NEXT_RETRY: Duration = Duration::from_secs(10);

/// Longest delay between two starts.
const LAST_RETRY: Duration = Duration::from_mins(5);

/// What ran for this long starts afresh with the delays, as kubelet counts it.
pub(super) const HEALED: Duration = Duration::from_mins(10);

/// One pod's.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    /// Its containers in the order of the spec.
    pub(super) units: Vec<Unit>,
    /// Ports asked for with its start or since.
    pub(super) ports: Vec<Vec<WantedPort>>,
}

impl Life {
    pub(super) fn new(containers: usize) -> Self {
        Self {
            units: vec![Unit::default(); containers],
            ports: Vec::new(),
        }
    }

    pub(super) fn step(&self, index: usize) -> Option<Step> {
        self.units.get(index).map(|unit| unit.step)
    }

    /// When something has to happen to one of its containers.
    pub(super) fn timer(&self) -> Option<Timestamp> {
        let timers = self.units.iter().filter_map(|unit| match unit.step {
            Step::Up | Step::Starting => None,
            Step::Ending { by: at } | Step::Resting { until: at } => Some(at),
        });
        timers.min()
    }
}

/// One container's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unit {
    pub(super) step: Step,
    /// Ends and failed starts in a row.
    pub(super) crashes: u32,
    /// What its readiness probe said last.
    pub(super) passing: bool,
}

/// Where a container of a running pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Step {
    /// It runs.
    #[default]
    Up,
    /// Its end was asked for.
    Ending {
        /// It is taken for ended then.
        by: Timestamp,
    },
    /// It waits.
    Resting {
        /// It is started then.
        until: Timestamp,
    },
    /// Its start was asked for.
    Starting,
}

/// The delay before a pod's next start after a failure that `failures` came before.
pub(super) fn retry_delay(failures: u32) -> Duration {
    failures.checked_sub(1).map_or(FIRST_RETRY, doubled)
}

/// The delay before a container's next run after an end that `crashes` came before.
pub(super) fn restart_delay(crashes: u32) -> Duration {
    crashes.checked_sub(1).map_or(Duration::ZERO, doubled)
}

fn doubled(times: u32) -> Duration {
    NEXT_RETRY
        .saturating_mul(1 << times.min(16))
        .min(LAST_RETRY)
}
