//! Topology of endpoints: the zones that their nodes are in, and the hints that `spec.trafficDistribution` asks for.
//! Owns what a cluster's EndpointSlice controller adds to the slices that it makes (KEP-4444, KEP-3015); slices that
//! people write keep their own hints, and following hints is selection's.

use std::sync::Arc;

use super::World;
use crate::object::{
    EndpointSlice, Hints, Kind, Object, ObjectKey, SliceEndpoint, service::TrafficDistribution,
};

/// The label that says which zone a node is in.
pub(super) const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Which zone each node is in.
#[derive(Debug)]
pub(super) struct Zones<'a> {
    world: &'a World,
    own: Option<Arc<str>>,
    /// Some zone is known.
    any: bool,
}

/// The zone that a Node declares.
pub(super) fn zone_label(node: &Object) -> Option<&Arc<str>> {
    let zone = node.meta.labels.get(ZONE_LABEL);
    zone.filter(|zone| !zone.is_empty())
}

impl World {
    /// This node's zone: the setting, else what its Node object says.
    pub fn zone(&self) -> Option<Arc<str>> {
        let cluster = &self.settings.cluster;
        let declared = || self.declared_zone(&cluster.node_name);
        cluster.zone.clone().or_else(declared)
    }

    fn declared_zone(&self, node: &Arc<str>) -> Option<Arc<str>> {
        let key = ObjectKey {
            kind: Kind::Node,
            namespace: Arc::default(),
            name: Arc::clone(node),
        };
        zone_label(self.merge.get(&key)?).cloned()
    }

    pub(super) fn zones(&self) -> Zones<'_> {
        let own = self.zone();
        let any = own.is_some() || self.merge.iter_kind(Kind::Node).next().is_some();
        Zones {
            world: self,
            own,
            any,
        }
    }
}

impl Zones<'_> {
    fn own_node(&self) -> &Arc<str> {
        &self.world.settings.cluster.node_name
    }

    fn of(&self, node: &Arc<str>) -> Option<Arc<str>> {
        if node == self.own_node() {
            self.own.clone()
        } else {
            self.world.declared_zone(node)
        }
    }

    /// The slice with the zones of its endpoints, and with the hints that `distribution` asks for.
    pub(super) fn complete(
        &self,
        slice: &Arc<EndpointSlice>,
        distribution: Option<TrafficDistribution>,
    ) -> Arc<EndpointSlice> {
        if !self.any && distribution.is_none() {
            return Arc::clone(slice);
        }
        let mut completed = EndpointSlice::clone(slice);
        for endpoint in &mut completed.endpoints {
            if let Some(node) = endpoint
                .node_name
                .as_ref()
                .filter(|_| endpoint.zone.is_none())
            {
                endpoint.zone = self.of(node);
            }
            endpoint.hints = self.hints(endpoint, distribution);
        }
        if completed == **slice {
            Arc::clone(slice)
        } else {
            Arc::new(completed)
        }
    }

    /// Only ready endpoints are hinted; one without a zone switches the hints of zones off for all. One that names no
    /// node can only be here.
    fn hints(&self, endpoint: &SliceEndpoint, distribution: Option<TrafficDistribution>) -> Hints {
        let Some(distribution) = distribution.filter(|_| endpoint.conditions.ready) else {
            return Hints::default();
        };
        let is_here = endpoint.node_name.is_none();
        let zone = endpoint
            .zone
            .as_ref()
            .or(self.own.as_ref().filter(|_| is_here));
        let node = || endpoint.node_name.as_ref().unwrap_or(self.own_node());
        let nodes = match distribution {
            TrafficDistribution::PreferSameNode => vec![Arc::clone(node())],
            TrafficDistribution::PreferSameZone => Vec::new(),
        };
        Hints {
            zones: zone.cloned().into_iter().collect(),
            nodes,
        }
    }
}
