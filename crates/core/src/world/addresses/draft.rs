//! A Service on its way through an allocation: what it wants and what it has so far. Owns those questions; who gets
//! what is the round's.

use std::{net::IpAddr, sync::Arc};

use crate::object::{Object, Service, ServiceType};

/// A Service on its way: the version that may come into force and what it has so far.
pub(super) struct Draft {
    pub(super) object: Arc<Object>,
    pub(super) spec: Arc<Service>,
    pub(super) cluster_ip: Option<IpAddr>,
    /// The address was asked for, not chosen by us.
    pub(super) cluster_ip_is_static: bool,
    pub(super) node_ports: Vec<Option<u16>>,
    pub(super) load_balancer_ip: Option<IpAddr>,
    pub(super) health_check: Option<u16>,
}

impl Draft {
    pub(super) fn of(object: &Arc<Object>, spec: &Arc<Service>) -> Self {
        Self {
            object: Arc::clone(object),
            spec: Arc::clone(spec),
            cluster_ip: None,
            cluster_ip_is_static: false,
            node_ports: vec![None; spec.ports.len()],
            load_balancer_ip: None,
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

    pub(super) fn wants_cluster_ip(&self) -> bool {
        self.spec.has_vip()
    }

    pub(super) fn wants_load_balancer_ip(&self) -> bool {
        self.spec.service_type == ServiceType::LoadBalancer
            && self.spec.load_balancer_class.is_none()
    }

    pub(super) fn wants_node_ports(&self) -> bool {
        match self.spec.service_type {
            ServiceType::NodePort => true,
            ServiceType::LoadBalancer => self.spec.allocate_load_balancer_node_ports,
            ServiceType::ClusterIP | ServiceType::ExternalName => false,
        }
    }
}
