//! What the controllers say of workloads: `status`, and what they write into `metadata`. Owns the translation from
//! what the world counts, and nothing else: when the world tells more, this is the one place to change.

use portico_core::{
    object::{Kind, ObjectKey},
    time::Timestamp,
    world::pods::{
        Condition, DaemonSetStatus, DeploymentStatus, RunningReplicaSet, StatefulSetStatus,
        daemon_set_status, deployment_status, replica_sets, stateful_set_status,
    },
};
use serde_json::{Value, json};

use crate::objects::{
    View,
    json::{Fields, count, fields, set},
    meta,
    time::rfc3339,
};

const REVISION: &str = "deployment.kubernetes.io/revision";
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// What is known of one workload.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    /// `status`.
    pub(super) status: Fields,
    /// `metadata.generation`.
    pub(super) generation: u64,
    /// `metadata.creationTimestamp`.
    pub(super) created: Timestamp,
    /// Annotations of the controller's own.
    pub(super) annotations: Fields,
}

/// What is known of all workloads at one moment.
#[derive(Debug)]
pub(super) struct Statuses<'a> {
    view: View<'a>,
    sets: Vec<RunningReplicaSet>,
}

impl<'a> Statuses<'a> {
    pub(super) fn of(view: View<'a>) -> Self {
        let sets = replica_sets(view.world.pods(), view.now);
        Self { view, sets }
    }

    /// What is known of a declared workload; `None` when nobody controls it.
    pub(super) fn declared(&self, key: &ObjectKey) -> Option<Known> {
        let (pods, now) = (self.view.world.pods(), self.view.now);
        match key.kind {
            Kind::Deployment => deployment_status(pods, key, now).as_ref().map(deployment),
            Kind::DaemonSet => daemon_set_status(pods, key, now).as_ref().map(daemon_set),
            Kind::StatefulSet => stateful_set_status(pods, key, now)
                .as_ref()
                .map(stateful_set),
            Kind::ReplicaSet => self.declared_set(key).map(replica_set),
            _ => None,
        }
    }

    /// Sets are sorted by namespace and name.
    fn declared_set(&self, key: &ObjectKey) -> Option<&RunningReplicaSet> {
        let place = (&key.namespace, &key.name);
        let index = self
            .sets
            .binary_search_by(|set| (&set.namespace, &set.name).cmp(&place));
        let set = index.ok().and_then(|index| self.sets.get(index));
        set.filter(|set| set.owner.is_none())
    }

    /// ReplicaSets that Deployments made, each with its Deployment and what is known of it.
    pub(super) fn made(&self) -> impl Iterator<Item = (&RunningReplicaSet, &ObjectKey, Known)> {
        let sets = self.sets.iter();
        sets.filter_map(|set| Some((set, set.owner.as_ref()?, replica_set(set))))
    }
}

fn deployment(known: &DeploymentStatus) -> Known {
    let mut status = fields(json!({"observedGeneration": known.observed_generation}));
    count(&mut status, "replicas", known.replicas);
    count(&mut status, "updatedReplicas", known.updated);
    count(&mut status, "readyReplicas", known.ready);
    count(&mut status, "availableReplicas", known.available);
    count(&mut status, "unavailableReplicas", known.unavailable);
    set(&mut status, "terminatingReplicas", known.terminating);
    let conditions: Vec<Value> = known.conditions.iter().map(condition).collect();
    if !conditions.is_empty() {
        set(&mut status, "conditions", conditions);
    }
    let mut annotations = Fields::new();
    if known.revision > 0 {
        set(&mut annotations, REVISION, known.revision.to_string());
    }
    Known {
        status,
        generation: known.generation,
        created: known.created,
        annotations,
    }
}

fn condition(condition: &Condition) -> Value {
    json!({
        "type": condition.kind.as_str(),
        "status": condition.status.as_str(),
        "reason": condition.reason,
        "message": &*condition.message,
        "lastUpdateTime": rfc3339(condition.last_update),
        "lastTransitionTime": rfc3339(condition.last_transition),
    })
}

fn replica_set(known: &RunningReplicaSet) -> Known {
    let mut status = fields(json!({
        "replicas": known.current,
        "observedGeneration": known.generation,
        "terminatingReplicas": known.terminating,
    }));
    count(&mut status, "fullyLabeledReplicas", known.fully_labeled);
    count(&mut status, "readyReplicas", known.ready);
    count(&mut status, "availableReplicas", known.available);
    Known {
        status,
        generation: known.generation,
        created: known.created,
        annotations: meta::labels(&known.annotations),
    }
}

fn daemon_set(known: &DaemonSetStatus) -> Known {
    let mut status = fields(json!({
        "currentNumberScheduled": known.current,
        "desiredNumberScheduled": known.desired,
        "numberMisscheduled": known.misscheduled,
        "numberReady": known.ready,
        "observedGeneration": known.observed_generation,
    }));
    count(&mut status, "updatedNumberScheduled", known.updated);
    count(&mut status, "numberAvailable", known.available);
    count(&mut status, "numberUnavailable", known.unavailable);
    let generation = known.template_generation.to_string();
    Known {
        status,
        generation: known.generation,
        created: known.created,
        annotations: fields(json!({TEMPLATE_GENERATION: generation})),
    }
}

fn stateful_set(known: &StatefulSetStatus) -> Known {
    let mut status = fields(json!({
        "availableReplicas": known.available,
        "collisionCount": 0,
        "currentRevision": &*known.current_revision,
        "observedGeneration": known.observed_generation,
        "replicas": known.replicas,
        "updateRevision": &*known.update_revision,
    }));
    count(&mut status, "currentReplicas", known.current);
    count(&mut status, "readyReplicas", known.ready);
    count(&mut status, "updatedReplicas", known.updated);
    Known {
        status,
        generation: known.generation,
        created: known.created,
        annotations: Fields::new(),
    }
}
