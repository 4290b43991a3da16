//! What is written down about pods, in the words of kubelet and scheduler. Owns reasons and components.

use std::sync::Arc;

use super::Work;
use crate::{
    object::{Kind, ObjectKey},
    world::{
        events::{EventKind, NewEvent},
        pods::SimulatedPod,
    },
};

/// An event that does not say yet what it is about.
pub(super) struct Say {
    kind: EventKind,
    reason: &'static str,
    message: String,
    component: &'static str,
}

impl Say {
    /// kubelet's, of what is as it should be.
    pub(super) fn normal(reason: &'static str, message: String) -> Self {
        Self {
            kind: EventKind::Normal,
            reason,
            message,
            component: "kubelet",
        }
    }

    /// kubelet's, of what is not.
    pub(super) fn warning(reason: &'static str, message: String) -> Self {
        Self {
            kind: EventKind::Warning,
            ..Self::normal(reason, message)
        }
    }

    /// The scheduler's.
    pub(super) fn scheduled(message: String) -> Self {
        Self {
            component: "default-scheduler",
            ..Self::normal("Scheduled", message)
        }
    }

    /// A warning that no cluster gives.
    pub(super) fn of_ours(reason: &'static str, message: String) -> Self {
        Self {
            component: "portico",
            ..Self::warning(reason, message)
        }
    }
}

impl Work<'_> {
    /// Writes down what happened to a pod.
    pub(super) fn say(&mut self, pod: &SimulatedPod, what: Say) {
        let about = ObjectKey {
            kind: Kind::Pod,
            namespace: Arc::clone(&pod.namespace),
            name: Arc::clone(&pod.name),
        };
        let event = NewEvent {
            about,
            kind: what.kind,
            reason: what.reason,
            message: what.message,
            component: what.component,
        };
        self.events.record(event, self.now);
    }
}
