//! The conditions of a Deployment: `Available` and `Progressing`, with their times and the deadline. Owns the rules of
//! Kubernetes' Deployment controller for them (Kubernetes documentation, Deployments, "Deployment status"); counting is
//! the caller's.

use std::{sync::Arc, time::Duration};

use crate::{object::ObjectKey, time::Timestamp};

/// `type` of a condition of a Deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionKind {
    /// `Available`.
    Available,
    /// `Progressing`.
    Progressing,
}

impl ConditionKind {
    /// As the Kubernetes API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Progressing => "Progressing",
        }
    }
}

/// `status` of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionStatus {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`.
    Unknown,
}

impl ConditionStatus {
    /// As the Kubernetes API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One of `status.conditions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `type`.
    pub kind: ConditionKind,
    /// `status`.
    pub status: ConditionStatus,
    /// `reason`: `MinimumReplicasAvailable`, `NewReplicaSetAvailable`, `ProgressDeadlineExceeded`, ...
    pub reason: &'static str,
    /// `message`.
    pub message: Arc<str>,
    /// `lastUpdateTime`.
    pub last_update: Timestamp,
    /// `lastTransitionTime`.
    pub last_transition: Timestamp,
}

const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// Pods of a Deployment as its status counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Pods that are not ending.
    pub(super) replicas: u32,
    /// Those of the wanted template.
    pub(super) updated: u32,
    pub(super) ready: u32,
    pub(super) available: u32,
    /// Pods that the ReplicaSets want.
    pub(super) wanted_by_sets: u32,
    pub(super) terminating: u32,
}

impl Tally {
    /// Whether the rollout is done (`DeploymentComplete`).
    pub(super) const fn is_complete(&self, replicas: u32) -> bool {
        self.updated == replicas && self.replicas == replicas && self.available == replicas
    }

    /// Whether something went ahead since `before` (`DeploymentProgressing`).
    const fn is_ahead_of(&self, before: &Self) -> bool {
        let old = self.replicas.saturating_sub(self.updated);
        let old_before = before.replicas.saturating_sub(before.updated);
        self.updated > before.updated
            || old < old_before
            || self.ready > before.ready
            || self.available > before.available
    }
}

/// What the controller sees of the Deployment at the end of a round.
pub(super) struct Seen<'s> {
    pub(super) owner: &'s ObjectKey,
    /// The ReplicaSet of the wanted template.
    pub(super) new_set: Option<&'s str>,
    pub(super) tally: Tally,
    /// `replicas`.
    pub(super) wanted: u32,
    /// `replicas` less `maxUnavailable`; all of them where the strategy is not `RollingUpdate`.
    pub(super) least_available: u32,
    /// `progressDeadlineSeconds`.
    pub(super) deadline: Option<Duration>,
    pub(super) paused: bool,
    /// Whether the ReplicaSet was made in this round.
    pub(super) made: bool,
    pub(super) now: Timestamp,
}

/// Conditions and what they were decided on.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// In the order in which the controller writes them: the one that changed last is the last.
    pub(super) conditions: Vec<Condition>,
    before: Tally,
    /// The ReplicaSet that `before.updated` is about.
    new_set: Option<Arc<str>>,
}

impl Progress {
    fn progressing(&self) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == ConditionKind::Progressing)
    }

    /// Takes `condition` unless status and reason are the same as before; the time of the transition stays while the
    /// status does (`SetDeploymentCondition`).
    fn set(&mut self, mut condition: Condition) {
        let before = self
            .conditions
            .iter()
            .find(|before| before.kind == condition.kind);
        if let Some(before) = before {
            if before.status == condition.status && before.reason == condition.reason {
                return;
            }
            if before.status == condition.status {
                condition.last_transition = before.last_transition;
            }
        }
        self.forget(condition.kind);
        self.conditions.push(condition);
    }

    fn forget(&mut self, kind: ConditionKind) {
        self.conditions.retain(|condition| condition.kind != kind);
    }

    /// Notes that a ReplicaSet was made for a new template, or found when nothing was known of its rollout.
    pub(super) fn note_new_set(&mut self, seen: &Seen<'_>) {
        let name = seen.new_set.unwrap_or_default();
        if seen.made {
            let message = format!("Created new replica set {name:?}");
            self.set(seen.progressing("NewReplicaSetCreated", message));
        } else if self.progressing().is_none() && seen.new_set.is_some() {
            let message = format!("Found new replica set {name:?}");
            self.set(seen.progressing("FoundNewReplicaSet", message));
        }
    }

    /// A pause stops the clock of the deadline, and its end starts it anew (`checkPausedConditions`).
    pub(super) fn note_pause(&mut self, seen: &Seen<'_>) {
        let reason = self.progressing().map(|condition| condition.reason);
        if seen.deadline.is_none() || reason == Some(TIMED_OUT) {
            return;
        }
        let (reason, message) = match (seen.paused, reason == Some(PAUSED)) {
            (true, false) => (PAUSED, "Deployment is paused"),
            (false, true) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return,
        };
        let status = ConditionStatus::Unknown;
        self.set(Condition {
            status,
            ..seen.progressing(reason, message.to_owned())
        });
    }

    /// Decides on the conditions at the end of a round (`syncRolloutStatus`). Gives the time at which the deadline
    /// passes unless something happens before.
    pub(super) fn sync(&mut self, seen: &Seen<'_>) -> Option<Timestamp> {
        self.set(seen.available());
        let mut before = std::mem::replace(&mut self.before, seen.tally);
        if self.new_set.as_deref() != seen.new_set {
            // Of another template, no pod was counted as updated yet.
            self.new_set = seen.new_set.map(Arc::from);
            before.updated = 0;
        }
        let Some(deadline) = seen.deadline else {
            self.forget(ConditionKind::Progressing);
            return None;
        };
        let was_complete = seen.tally.replicas == seen.tally.updated
            && self.progressing().is_some_and(|now| now.reason == COMPLETE);
        if seen.paused || was_complete {
            return None;
        }
        if seen.tally.is_complete(seen.wanted) {
            let message = seen.subject("has successfully progressed.");
            self.set(seen.progressing(COMPLETE, message));
            return None;
        }
        if seen.tally.is_ahead_of(&before) {
            self.move_on(seen);
        }
        self.time_out(seen, deadline)
    }

    /// Progress with the same reason as before still counts from now on.
    fn move_on(&mut self, seen: &Seen<'_>) {
        let message = seen.subject("is progressing.");
        let mut condition = seen.progressing("ReplicaSetUpdated", message);
        if let Some(before) = self.progressing()
            && before.status == ConditionStatus::True
        {
            condition.last_transition = before.last_transition;
        }
        self.forget(ConditionKind::Progressing);
        self.conditions.push(condition);
    }

    fn time_out(&mut self, seen: &Seen<'_>, deadline: Duration) -> Option<Timestamp> {
        let condition = self.progressing()?;
        if matches!(condition.reason, COMPLETE | TIMED_OUT) {
            return None;
        }
        let at = condition.last_update.after(deadline);
        if at > seen.now {
            return Some(at);
        }
        let message = seen.subject("has timed out progressing.");
        self.set(Condition {
            status: ConditionStatus::False,
            ..seen.progressing(TIMED_OUT, message)
        });
        None
    }
}

impl Seen<'_> {
    fn subject(&self, what: &str) -> String {
        match self.new_set {
            Some(set) => format!("ReplicaSet {set:?} {what}"),
            None => format!("Deployment {:?} {what}", &*self.owner.name),
        }
    }

    fn progressing(&self, reason: &'static str, message: String) -> Condition {
        Condition {
            kind: ConditionKind::Progressing,
            status: ConditionStatus::True,
            reason,
            message: message.into(),
            last_update: self.now,
            last_transition: self.now,
        }
    }

    fn available(&self) -> Condition {
        let (status, reason, message) = if self.tally.available >= self.least_available {
            (
                ConditionStatus::True,
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
            )
        } else {
            (
                ConditionStatus::False,
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            )
        };
        Condition {
            kind: ConditionKind::Available,
            status,
            reason,
            message: message.into(),
            last_update: self.now,
            last_transition: self.now,
        }
    }
}
