//! `v1` Pod and the pod specs inside workloads, reduced to what forwarding, names and simulation read.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::service::Protocol;

/// One Pod given by manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// `spec`.
    pub spec: Arc<PodSpec>,
    /// `status.podIPs`, else `status.podIP`: the pod runs elsewhere and is only referred to. Empty: simulate it.
    pub pod_ips: Vec<IpAddr>,
    /// Condition `Ready` in `status.conditions`; `None` when not given (then a pod with an address counts as ready).
    pub ready: Option<bool>,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// `status.phase` is Succeeded or Failed: the pod serves nothing.
    pub finished: bool,
}

/// `spec` of a Pod or pod template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// `containers`, at least one.
    pub containers: Vec<Container>,
    /// `hostname`.
    pub hostname: Option<Arc<str>>,
    /// `subdomain`.
    pub subdomain: Option<Arc<str>>,
    /// `nodeName`.
    pub node_name: Option<Arc<str>>,
    /// `terminationGracePeriodSeconds`; default 30 s.
    pub termination_grace: Duration,
}

impl PodSpec {
    /// The number of the container port called `name` with `protocol`, first match in container order, as
    /// Kubernetes' endpoint controller resolves a named `targetPort`.
    pub fn port_named(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let mut ports = self
            .containers
            .iter()
            .flat_map(|container| &container.ports);
        ports
            .find(|port| &*port.name == name && port.protocol == protocol)
            .map(|port| port.container_port)
    }
}

/// One entry of `containers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// `name`.
    pub name: Arc<str>,
    /// `image`; may be empty.
    pub image: Arc<str>,
    /// `ports`.
    pub ports: Vec<ContainerPort>,
}

/// One entry of a container's `ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPort {
    /// `name`; default empty.
    pub name: Arc<str>,
    /// `containerPort`.
    pub container_port: u16,
    /// `protocol`; default TCP.
    pub protocol: Protocol,
}
