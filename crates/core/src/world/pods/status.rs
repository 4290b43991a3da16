//! The numbers that `status` of a declared workload shows. Owns the counting by each controller's rules; must not
//! change anything.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Condition, PodOwner, PodTable, REVISION_HASH_LABEL, SimulatedPod,
    deployment::tally,
    progress::Tally,
    revisions::{WorkloadState, revision_label, same_template},
};
use crate::{
    object::{Kind, ObjectKey},
    time::Timestamp,
};

/// `status` of a Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentStatus {
    /// `metadata.generation`.
    pub generation: u64,
    /// `observedGeneration`: the controllers look at every change in the round in which it comes.
    pub observed_generation: u64,
    /// Annotation `deployment.kubernetes.io/revision`; 0 before the first set.
    pub revision: u64,
    /// The ReplicaSet of the wanted template.
    pub new_replica_set: Option<Arc<str>>,
    /// `replicas`.
    pub replicas: u32,
    /// `updatedReplicas`.
    pub updated: u32,
    /// `readyReplicas`.
    pub ready: u32,
    /// `availableReplicas`.
    pub available: u32,
    /// `unavailableReplicas`.
    pub unavailable: u32,
    /// `terminatingReplicas`.
    pub terminating: u32,
    /// `conditions`, in the controller's order.
    pub conditions: Vec<Condition>,
    /// When it was declared first.
    pub created: Timestamp,
}

/// `status` of a DaemonSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSetStatus {
    /// `metadata.generation`.
    pub generation: u64,
    /// `observedGeneration`.
    pub observed_generation: u64,
    /// Annotation `deprecated.daemonset.template.generation`.
    pub template_generation: u64,
    /// `desiredNumberScheduled`.
    pub desired: u32,
    /// `currentNumberScheduled`.
    pub current: u32,
    /// `numberReady`.
    pub ready: u32,
    /// `updatedNumberScheduled`.
    pub updated: u32,
    /// `numberAvailable`.
    pub available: u32,
    /// `numberUnavailable`.
    pub unavailable: u32,
    /// `numberMisscheduled`.
    pub misscheduled: u32,
    /// When it was declared first.
    pub created: Timestamp,
}

/// `status` of a StatefulSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatefulSetStatus {
    /// `metadata.generation`.
    pub generation: u64,
    /// `observedGeneration`.
    pub observed_generation: u64,
    /// `replicas`: pods there are.
    pub replicas: u32,
    /// `readyReplicas`.
    pub ready: u32,
    /// `availableReplicas`.
    pub available: u32,
    /// `currentReplicas`: of the revision that was rolled out last.
    pub current: u32,
    /// `updatedReplicas`: of the newest revision.
    pub updated: u32,
    /// `currentRevision`.
    pub current_revision: Arc<str>,
    /// `updateRevision`.
    pub update_revision: Arc<str>,
    /// When it was declared first.
    pub created: Timestamp,
}

/// `metadata.generation` of a declared workload: it rises when its spec changes.
pub fn generation(table: &PodTable, key: &ObjectKey) -> Option<u64> {
    table.workloads.get(key).map(|state| state.generation)
}

/// The status of the Deployment `key`; `None` for one that no round has seen.
pub fn deployment_status(
    table: &PodTable,
    key: &ObjectKey,
    now: Timestamp,
) -> Option<DeploymentStatus> {
    let state = state_of(table, key, Kind::Deployment)?;
    let is_new = |template| same_template(template, &state.spec.template);
    let sets = table.sets_of(key).map(|set| {
        let counts = set.counts(table, now);
        (set.replicas, counts, is_new(&set.template))
    });
    let Tally {
        replicas,
        updated,
        ready,
        available,
        wanted_by_sets,
        terminating,
    } = tally(sets);
    let new = table.sets_of(key).find(|set| is_new(&set.template));
    Some(DeploymentStatus {
        generation: state.generation,
        observed_generation: state.generation,
        revision: table
            .sets_of(key)
            .map(|set| set.revision)
            .max()
            .unwrap_or_default(),
        new_replica_set: new.map(|set| Arc::clone(&set.name)),
        replicas,
        updated,
        ready,
        available,
        unavailable: wanted_by_sets.saturating_sub(available),
        terminating,
        conditions: state.progress.conditions.clone(),
        created: state.created,
    })
}

/// The status of the DaemonSet `key`; `None` for one that no round has seen.
pub fn daemon_set_status(
    table: &PodTable,
    key: &ObjectKey,
    now: Timestamp,
) -> Option<DaemonSetStatus> {
    let state = state_of(table, key, Kind::DaemonSet)?;
    let label = newest_label(state, key);
    let mut oldest: BTreeMap<&Arc<str>, &SimulatedPod> = BTreeMap::new();
    for pod in pods_of(table, key) {
        let known = oldest.entry(&pod.node).or_insert(pod);
        if (pod.created, pod.uid) < (known.created, known.uid) {
            *known = pod;
        }
    }
    let mut status = DaemonSetStatus {
        generation: state.generation,
        observed_generation: state.generation,
        template_generation: state.template_generation,
        desired: 0,
        current: 0,
        ready: 0,
        updated: 0,
        available: 0,
        unavailable: 0,
        misscheduled: 0,
        created: state.created,
    };
    for node in table.nodes() {
        let pod = oldest.get(&node.name);
        if !node.suits(&state.spec.template.spec) {
            status.misscheduled += u32::from(pod.is_some());
            continue;
        }
        status.desired += 1;
        let Some(pod) = pod else { continue };
        status.current += 1;
        status.ready += u32::from(pod.is_ready());
        status.available += u32::from(pod.is_available(state.spec.min_ready, now));
        status.updated += u32::from(pod.labels.get(REVISION_HASH_LABEL) == label.as_ref());
    }
    status.unavailable = status.desired.saturating_sub(status.available);
    Some(status)
}

/// The status of the StatefulSet `key`; `None` for one that no round has seen.
pub fn stateful_set_status(
    table: &PodTable,
    key: &ObjectKey,
    now: Timestamp,
) -> Option<StatefulSetStatus> {
    let state = state_of(table, key, Kind::StatefulSet)?;
    let update_revision = newest_label(state, key).unwrap_or_default();
    let current_revision = state.current.clone();
    let current_revision = current_revision.unwrap_or_else(|| Arc::clone(&update_revision));
    let mut status = StatefulSetStatus {
        generation: state.generation,
        observed_generation: state.generation,
        replicas: 0,
        ready: 0,
        available: 0,
        current: 0,
        updated: 0,
        current_revision,
        update_revision,
        created: state.created,
    };
    for pod in pods_of(table, key) {
        status.replicas += 1;
        status.ready += u32::from(pod.is_ready());
        status.available += u32::from(pod.is_available(state.spec.min_ready, now));
        let label = pod.labels.get(REVISION_HASH_LABEL);
        let is = |revision: &Arc<str>| !pod.is_terminating() && label == Some(revision);
        status.current += u32::from(is(&status.current_revision));
        status.updated += u32::from(is(&status.update_revision));
    }
    Some(status)
}

fn state_of<'t>(table: &'t PodTable, key: &ObjectKey, kind: Kind) -> Option<&'t WorkloadState> {
    let state = table.workloads.get(key).filter(|_| key.kind == kind);
    state.map(|state| &**state)
}

fn newest_label(state: &WorkloadState, key: &ObjectKey) -> Option<Arc<str>> {
    let newest = state.history.last();
    newest.map(|newest| revision_label(key, &newest.name))
}

fn pods_of<'t>(table: &'t PodTable, key: &ObjectKey) -> impl Iterator<Item = &'t SimulatedPod> {
    let owner = PodOwner {
        kind: key.kind,
        name: Arc::clone(&key.name),
    };
    let pods = table.pods_of(&key.namespace, Some(owner));
    pods.map(|pod| &**pod)
}
