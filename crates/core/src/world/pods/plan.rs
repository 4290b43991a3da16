//! What the pod host is told of a pod's containers: the ports of each and the probes that it has to answer. Owns
//! which container a port belongs to.
//!
//! `containerPort` is informational (Kubernetes API reference, ContainerPort: "Not specifying a port here DOES NOT
//! prevent that port from being exposed"), so a pod also serves what its probes and its Services ask for by number.

use std::{collections::BTreeSet, sync::Arc};

use super::WantedPort;
use crate::{
    object::{Container, PodSpec, Probe, ProbeCheck, Protocol, TargetPort},
    world::probes::ProbeKind,
};

/// A request header that tells a simulated pod which of its probes asks (`startup`, `readiness`, `liveness`): of several
/// with the same path only that one is made to fail. Without it, a path fails when any probe with that path is to.
pub const PROBE_HEADER: &str = "x-portico-probe";

/// One container as the pod host serves it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPlan {
    /// Its name.
    pub name: Arc<str>,
    /// Ports to serve, without duplicates.
    pub ports: Vec<WantedPort>,
    /// Probes to answer.
    pub probes: Vec<ServedProbe>,
    /// Containers of the pod that it passes on to what it gets: their logs have its requests too.
    #[serde(default)]
    pub backends: Vec<Arc<str>>,
}

/// One probe as the one who is probed sees it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServedProbe {
    /// Which probe.
    pub kind: ProbeKind,
    /// How it is recognised.
    pub served: Served,
}

/// How a request of a probe is recognised.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Served {
    /// An HTTP request with this path, without a query.
    Path(Arc<str>),
    /// `grpc.health.v1.Health/Check` for this service.
    Grpc(Arc<str>),
}

/// The containers of `spec` in order, with the ports that Services ask for beside their own.
pub(super) fn containers(spec: &PodSpec, services: &[WantedPort]) -> Vec<ContainerPlan> {
    let ports = ports(spec, services);
    let plan = |(container, ports): (&Container, Vec<WantedPort>)| ContainerPlan {
        name: Arc::clone(&container.name),
        ports,
        probes: probes(container).filter_map(served).collect(),
        backends: backends(spec, container),
    };
    spec.containers.iter().zip(ports).map(plan).collect()
}

/// The other containers whose ports the environment of `container` names.
fn backends(spec: &PodSpec, container: &Container) -> Vec<Arc<str>> {
    let is_named = |other: &&Container| {
        let mut ports = other.ports.iter();
        other.name != container.name
            && ports.any(|port| container.backends.contains(&port.container_port))
    };
    let named = spec.containers.iter().filter(is_named);
    named.map(|other| Arc::clone(&other.name)).collect()
}

/// Every container's ports: those that it declares, those that its probes ask for by number, and for the first one
/// what `services` ask for and no container has.
pub(super) fn ports(spec: &PodSpec, services: &[WantedPort]) -> Vec<Vec<WantedPort>> {
    let mut taken = BTreeSet::new();
    let declared = spec.containers.iter().map(|container| {
        let ports = container.ports.iter().map(WantedPort::from);
        ports.filter(|port| taken.insert(*port)).collect()
    });
    let mut shares: Vec<Vec<WantedPort>> = declared.collect();
    for (container, share) in spec.containers.iter().zip(&mut shares) {
        let asked = probes(container).filter_map(|(_, probe)| numeric_port(probe));
        share.extend(asked.filter(|port| taken.insert(*port)));
    }
    if let Some(first) = shares.first_mut() {
        first.extend(services.iter().filter(|port| taken.insert(**port)));
    }
    for share in &mut shares {
        share.sort_unstable();
    }
    shares
}

/// A container's probes.
pub(super) fn probes(container: &Container) -> impl Iterator<Item = (ProbeKind, &Arc<Probe>)> {
    [
        (ProbeKind::Startup, &container.startup),
        (ProbeKind::Readiness, &container.readiness),
        (ProbeKind::Liveness, &container.liveness),
    ]
    .into_iter()
    .filter_map(|(kind, probe)| Some((kind, probe.as_ref()?)))
}

/// Probes that ask at a port by a name that none of the container's ports has: kubelet never comes to ask.
pub(super) fn unknown_ports(container: &Container) -> impl Iterator<Item = (ProbeKind, &Arc<str>)> {
    probes(container).filter_map(|(kind, probe)| {
        let (ProbeCheck::HttpGet {
            port: TargetPort::Name(name),
            ..
        }
        | ProbeCheck::TcpSocket {
            port: TargetPort::Name(name),
            ..
        }) = &probe.check
        else {
            return None;
        };
        let known = container.ports.iter().any(|port| port.name == *name);
        (!known).then_some((kind, name))
    })
}

fn numeric_port(probe: &Probe) -> Option<WantedPort> {
    let number = match &probe.check {
        ProbeCheck::HttpGet {
            port: TargetPort::Number(number),
            ..
        }
        | ProbeCheck::TcpSocket {
            port: TargetPort::Number(number),
            ..
        } => *number,
        ProbeCheck::Grpc { port, .. } => *port,
        ProbeCheck::HttpGet { .. } | ProbeCheck::TcpSocket { .. } | ProbeCheck::Exec => {
            return None;
        }
    };
    Some(WantedPort {
        number,
        protocol: Protocol::Tcp,
    })
}

fn served((kind, probe): (ProbeKind, &Arc<Probe>)) -> Option<ServedProbe> {
    let served = match &probe.check {
        ProbeCheck::HttpGet { path, .. } => {
            Served::Path(path.split('?').next().unwrap_or_default().into())
        }
        ProbeCheck::Grpc { service, .. } => Served::Grpc(Arc::clone(service)),
        ProbeCheck::TcpSocket { .. } | ProbeCheck::Exec => return None,
    };
    Some(ServedProbe { kind, served })
}

/// Whether a container of `spec` has a probe of this kind that a fault can make fail: one that is answered.
pub(super) fn answers(spec: &PodSpec, kind: ProbeKind) -> bool {
    let mut all = spec.containers.iter().flat_map(probes);
    all.any(|probe| probe.0 == kind && served(probe).is_some())
}
