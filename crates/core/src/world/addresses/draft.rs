//! A Service on its way through an allocation: what it wants and what it has so far. Owns those questions; who gets
//! what is the round's.

use std::sync::Arc;

use super::pools::Slot;
use crate::{
    object::{Object, Service, ServiceType, service::IpFamily},
    snapshot::Cluster,
};

/// A Service on its way: the version that may come into force and what it has so far.
pub(super) struct Draft {
    pub(super) object: Arc<Object>,
    pub(super) spec: Arc<Service>,
    pub(super) families: Vec<IpFamily>,
    /// One a family, unless it has names only.
    pub(super) cluster_ips: Vec<Slot>,
    pub(super) node_ports: Vec<Option<u16>>,
    /// One a family that has a range of them.
    pub(super) load_balancer_ips: Vec<Slot>,
    pub(super) health_check: Option<u16>,
}

impl Draft {
    pub(super) fn of(
        object: &Arc<Object>,
        spec: &Arc<Service>,
        families: Vec<IpFamily>,
        cluster: &Cluster,
    ) -> Self {
        let wanted = families.iter().filter(|_| spec.has_vip());
        let cluster_ips = wanted.map(|family| Slot::empty(*family)).collect();
        let wants_balancer =
            spec.service_type == ServiceType::LoadBalancer && spec.load_balancer_class.is_none();
        let asked = spec.load_balancer_ip.map(IpFamily::of);
        let balanced = families.iter().filter(|family| {
            let has_range = cluster.load_balancer_range(**family).is_some();
            wants_balancer && (has_range || asked == Some(**family))
        });
        let load_balancer_ips = balanced.map(|family| Slot::empty(*family)).collect();
        Self {
            object: Arc::clone(object),
            spec: Arc::clone(spec),
            cluster_ips,
            node_ports: vec![None; spec.ports.len()],
            load_balancer_ips,
            families,
            health_check: None,
        }
    }

    /// The node port of the first entry with the same port number, if that is another entry.
    pub(super) fn twin(&self, index: usize) -> Option<u16> {
        let ports = &self.spec.ports;
        let number = ports.get(index)?.port;
        let first = ports.iter().position(|other| other.port == number)?;
        self.node_ports
            .get(first)
            .copied()
            .flatten()
            .filter(|_| first != index)
    }

    /// Whether no other entry stands in the way of this node port for entry `index`: only entries with one port
    /// number and different protocols share.
    pub(super) fn may_use(&self, index: usize, number: u16) -> bool {
        let own = self.spec.ports.get(index);
        let mut others = self.node_ports.iter().zip(&self.spec.ports).enumerate();
        !others.any(|(other, (taken, port))| {
            let shares =
                own.is_some_and(|own| own.port == port.port && own.protocol != port.protocol);
            other != index && *taken == Some(number) && !shares
        })
    }

    /// Whether an earlier entry asks for this node port without sharing it with entry `index`: only entries with one
    /// port number do.
    pub(super) fn asks_elsewhere(&self, index: usize, number: u16) -> bool {
        let own = self.spec.ports.get(index).map(|port| port.port);
        let mut earlier = self.spec.ports.iter().take(index);
        earlier.any(|port| port.node_port == Some(number) && Some(port.port) != own)
    }

    pub(super) fn wants_node_ports(&self) -> bool {
        match self.spec.service_type {
            ServiceType::NodePort => true,
            ServiceType::LoadBalancer => self.spec.allocate_load_balancer_node_ports,
            ServiceType::ClusterIP | ServiceType::ExternalName => false,
        }
    }
}
