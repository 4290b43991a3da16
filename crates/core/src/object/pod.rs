//! `v1` Pod and the pod specs inside workloads, reduced to what forwarding, names, probes and simulation read.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    meta::Labels,
    service::{Protocol, TargetPort},
};

/// The default of `terminationGracePeriodSeconds`.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

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
    /// `nodeSelector`: labels that a node must have.
    pub node_selector: Labels,
    /// `terminationGracePeriodSeconds`; default 30 s.
    pub termination_grace: Duration,
}

impl Default for PodSpec {
    /// No containers, and Kubernetes' defaults.
    fn default() -> Self {
        Self {
            containers: Vec::new(),
            hostname: None,
            subdomain: None,
            node_name: None,
            node_selector: Labels::new(),
            termination_grace: DEFAULT_GRACE,
        }
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Container {
    /// `name`.
    pub name: Arc<str>,
    /// `image`; may be empty.
    pub image: Arc<str>,
    /// `ports`.
    pub ports: Vec<ContainerPort>,
    /// Ports of this pod that its environment names, as in `BACKEND_HOST: localhost:8080`: it passes on what it gets.
    pub backends: Vec<u16>,
    /// `readinessProbe`: without success the container gets no traffic.
    pub readiness: Option<Arc<Probe>>,
    /// `livenessProbe`: after failure the container is restarted.
    pub liveness: Option<Arc<Probe>>,
    /// `startupProbe`: the other two wait for its success; after failure the container is restarted.
    pub startup: Option<Arc<Probe>>,
}

/// A probe of a container with Kubernetes' defaults filled in (Kubernetes API reference, Probe).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub check: ProbeCheck,
    /// `initialDelaySeconds`; default 0.
    pub initial_delay: Duration,
    /// `timeoutSeconds`; default 1 s, at least 1 s.
    pub timeout: Duration,
    /// `periodSeconds`; default 10 s, at least 1 s.
    pub period: Duration,
    /// `successThreshold`; default 1, and always 1 for liveness and startup.
    pub success_threshold: u32,
    /// `failureThreshold`; default 3, at least 1.
    pub failure_threshold: u32,
    /// `terminationGracePeriodSeconds` of the probe: instead of the pod's when it restarts the container.
    pub termination_grace: Option<Duration>,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeCheck {
    /// `httpGet`: status 200 to 399 is success; redirects to another host are success without being followed.
    HttpGet {
        /// `path`; default `/`.
        path: Arc<str>,
        /// `port`, a number or the name of a container port.
        port: TargetPort,
        /// `host`; default the pod's address.
        host: Option<Arc<str>>,
        /// `scheme` is HTTPS; certificates are not verified.
        https: bool,
        /// `httpHeaders` in order.
        headers: Vec<(Arc<str>, Arc<str>)>,
    },
    /// `tcpSocket`: a connection is success.
    TcpSocket {
        /// `port`, a number or the name of a container port.
        port: TargetPort,
        /// `host`; default the pod's address.
        host: Option<Arc<str>>,
    },
    /// `grpc`: `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// `port`.
        port: u16,
        /// `service`; default empty.
        service: Arc<str>,
    },
    /// `exec`: cannot run here, counted as success.
    Exec,
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
