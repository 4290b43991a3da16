//! On which node a pod counts as running. Owns the match of `nodeSelector` with the labels of nodes, as far as the
//! scheduler looks at it here: taints, affinity and resources are ignored, and where several nodes match, this one or
//! else the first is taken. Must not make or start pods.

use std::sync::Arc;

use super::{Owners, PodKey, SimulatedPod, control::Work};
use crate::{
    object::{Kind, Labels, ObjectKey, PodSpec, workload::selects},
    world::{EventKind, NewEvent},
};

/// A node that pods may run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNode {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
}

impl PodNode {
    /// Whether a pod with `spec` may run here (`NodeName` and `NodeAffinity` of the scheduler, reduced).
    pub(super) fn suits(&self, spec: &PodSpec) -> bool {
        spec.node_name
            .as_ref()
            .is_none_or(|name| *name == self.name)
            && selects(&spec.node_selector, &self.labels)
    }
}

impl Work<'_> {
    /// Takes the nodes of this round. When they are others than before, DaemonSets are looked at again and pods that
    /// found none look again.
    pub(super) fn take_nodes(&mut self, nodes: &[PodNode], owners: &Owners) {
        if *self.table.nodes == *nodes && !nodes.is_empty() {
            return;
        }
        let own = [PodNode {
            name: Arc::clone(&self.node),
            labels: Labels::new(),
        }];
        let nodes = if nodes.is_empty() { &own[..] } else { nodes };
        if *self.table.nodes == *nodes {
            return;
        }
        self.table.nodes = nodes.to_vec();
        let daemon_sets = owners.keys().filter(|key| key.kind == Kind::DaemonSet);
        self.dirty.extend(daemon_sets.cloned());
        let waiting = self.table.pods.iter();
        let waiting: Vec<PodKey> = waiting
            .filter(|(_, pod)| pod.unschedulable.is_some())
            .map(|(key, _)| key.clone())
            .collect();
        for key in waiting {
            self.place_again(&key);
        }
    }

    /// Looks again for a node for a pod that has none.
    fn place_again(&mut self, key: &PodKey) {
        let Some(pod) = self.table.pods.get(key).cloned() else {
            return;
        };
        let (node, unschedulable) = self.place(None, &pod.spec);
        self.update(key, |pod| {
            pod.node = node;
            pod.unschedulable = unschedulable;
        });
        if let Some(pod) = self.table.pods.get(key).cloned()
            && !self.note_unschedulable(&pod)
        {
            self.schedule(key);
        }
    }

    /// The node for a pod, or why there is none. `given` is its controller's choice.
    pub(super) fn place(
        &self,
        given: Option<Arc<str>>,
        spec: &PodSpec,
    ) -> (Arc<str>, Option<Arc<str>>) {
        if let Some(node) = given.or_else(|| spec.node_name.clone()) {
            return (node, None);
        }
        if spec.node_selector.is_empty() {
            return (Arc::clone(&self.node), None);
        }
        let suits = |node: &&PodNode| node.suits(spec);
        let mut nodes = self.table.nodes.iter().filter(suits);
        let own = nodes.clone().find(|node| node.name == self.node);
        if let Some(node) = own.or_else(|| nodes.next()) {
            return (Arc::clone(&node.name), None);
        }
        let count = self.table.nodes.len();
        let why = format!(
            "0/{count} nodes are available: {count} node(s) didn't match Pod's node affinity/selector."
        );
        (Arc::default(), Some(why.into()))
    }

    /// Writes down that a pod has no node; says whether that is so.
    pub(super) fn note_unschedulable(&mut self, pod: &SimulatedPod) -> bool {
        let Some(why) = &pod.unschedulable else {
            return false;
        };
        let event = NewEvent {
            about: ObjectKey {
                kind: Kind::Pod,
                namespace: Arc::clone(&pod.namespace),
                name: Arc::clone(&pod.name),
            },
            kind: EventKind::Warning,
            reason: "FailedScheduling",
            message: why.to_string(),
            component: "default-scheduler",
        };
        self.events.record(event, self.now);
        true
    }
}
