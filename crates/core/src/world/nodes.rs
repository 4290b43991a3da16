//! The nodes of the world, on which simulated pods count as running. Owns their labels; which of them suits a pod is
//! decided in `pods`.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    World,
    hints::{ZONE_LABEL, zone_label},
    merge::Change,
    pods::PodNode,
};
use crate::object::{Kind, Labels, Object};

const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

impl World {
    /// The declared nodes, or this one when none is declared, with the labels that a kubelet gives its node
    /// (Kubernetes, "Well-Known Labels, Annotations and Taints").
    pub fn pod_nodes(&self) -> Vec<PodNode> {
        let cluster = &self.settings.cluster;
        let own = || (Arc::clone(&cluster.node_name), Labels::new());
        let declared = self.merge.iter_kind(Kind::Node);
        let mut nodes: Vec<_> = declared
            .map(|(key, object)| (Arc::clone(&key.name), object.meta.labels.clone()))
            .collect();
        if nodes.is_empty() {
            nodes.push(own());
        }
        let with_labels = nodes.into_iter().map(|(name, mut labels)| {
            labels
                .entry(HOSTNAME_LABEL.into())
                .or_insert_with(|| Arc::clone(&name));
            if let Some(zone) = cluster.zone.as_ref().filter(|_| name == cluster.node_name) {
                labels
                    .entry(ZONE_LABEL.into())
                    .or_insert_with(|| Arc::clone(zone));
            }
            PodNode { name, labels }
        });
        with_labels.collect()
    }

    /// Marks the Services whose endpoints are on a node that changed its zone: all of them when it is this node, whose
    /// zone decides which hints are followed.
    pub(super) fn index_node(&self, change: &Change, changed: &mut BTreeSet<Arc<str>>) {
        let zone = |object: &Option<Arc<Object>>| object.as_deref().and_then(zone_label).cloned();
        if zone(&change.before) == zone(&change.after) {
            return;
        }
        let node = &change.key.name;
        let is_own = *node == self.settings.cluster.node_name;
        let concerned = self.records.iter().filter(|(_, record)| {
            let mut endpoints = record.slices.iter().flat_map(|slice| &slice.endpoints);
            is_own || endpoints.any(|endpoint| endpoint.node_name.as_ref() == Some(node))
        });
        changed.extend(concerned.map(|(path, _)| Arc::clone(path)));
    }
}
