//! Which probes are to run, and what they last said. Owns the identity of a probe and the table of results for pods
//! that run elsewhere; what a result does to a simulated pod belongs to `pods`. Must not run a probe.

mod declared;
mod table;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::pods::{PodKey, PodUid};
use crate::object::Probe;

pub(super) use table::{ProbeTable, WrittenSlice};

/// Who is probed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeSubject {
    /// A simulated pod.
    Simulated(PodUid),
    /// A pod given by manifest with an address.
    Declared(PodKey),
    /// An endpoint of a hand-written slice, by Service path and address (`portico.dev/readiness-probe`).
    Endpoint(Arc<str>, SocketAddr),
}

/// Which of a container's probes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum ProbeKind {
    /// `startupProbe`.
    Startup,
    /// `readinessProbe`.
    Readiness,
    /// `livenessProbe`.
    Liveness,
}

/// Identity of one probe of one run of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeKey {
    /// Who.
    pub subject: ProbeSubject,
    /// Container; empty for an endpoint.
    pub container: Arc<str>,
    /// Which.
    pub kind: ProbeKind,
    /// Restarts of the container: another run is another probe.
    pub run: u32,
}

/// What is to be probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// The probe.
    pub probe: Arc<Probe>,
    /// Where it goes: the address with the port already resolved, as really bound.
    pub addr: SocketAddr,
}

/// A change in what a probe says; the thresholds have been counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeObservation {
    /// Which probe.
    pub key: ProbeKey,
    /// What it says now.
    pub outcome: ProbeOutcome,
}

/// What a probe says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// `successThreshold` successes in a row.
    Success,
    /// `failureThreshold` failures in a row.
    Failure {
        /// The last one, in kubelet's words: `HTTP probe failed with statuscode: 503`.
        reason: Arc<str>,
    },
    /// One more failed attempt, not decisive: for the event `Unhealthy` only.
    Unhealthy {
        /// As for a failure.
        reason: Arc<str>,
    },
}

impl ProbeKind {
    /// As kubelet's events begin: `Readiness probe failed: ...`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// What is known of one probe of a declared pod or of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// What was decided last; `None` while neither threshold has been reached.
    pub passing: Option<bool>,
    /// What was said last, decisive or not.
    pub last: ProbeOutcome,
}

/// All probes that are to run now.
pub type ProbeTargets = BTreeMap<ProbeKey, ProbeTarget>;
