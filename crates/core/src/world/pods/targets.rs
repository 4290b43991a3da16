//! The probes of simulated pods that are to run now. Owns their addresses: named ports resolved, moved ports as bound.

use std::net::{IpAddr, SocketAddr};

use super::{PodTable, SimulatedPod, WantedPort, life::Step, plan};
use crate::{
    object::{Container, Probe, ProbeCheck, Protocol, TargetPort},
    world::probes::{ProbeKey, ProbeKind, ProbeSubject, ProbeTarget},
};

/// See the module's documentation. A container's startup probe comes first, the others after its success; one that is
/// down has none, nor has `exec`, which cannot run here and counts as passing.
pub(crate) fn simulated_targets(table: &PodTable) -> impl Iterator<Item = (ProbeKey, ProbeTarget)> {
    let running = table.pods.values().filter(|pod| pod.is_running());
    running.flat_map(move |pod| {
        let life = table.lives.get(&pod.uid);
        let containers = pod.spec.containers.iter().enumerate();
        containers.flat_map(move |(index, container)| {
            let up = life.is_some_and(|life| life.step(index) == Some(Step::Up));
            let state = pod.containers.get(index).filter(|_| up);
            let probes = plan::probes(container).filter_map(move |(kind, probe)| {
                let state = state?;
                let due = (kind == ProbeKind::Startup) != state.started;
                let key = ProbeKey {
                    subject: ProbeSubject::Simulated(pod.uid),
                    container: container.name.clone(),
                    kind,
                    run: state.restarts,
                };
                let target = ProbeTarget {
                    probe: probe.clone(),
                    addr: address(pod, container, probe)?,
                };
                due.then_some((key, target))
            });
            probes.collect::<Vec<_>>()
        })
    })
}

/// Where a probe goes; `None` when no port has its name, or nothing is to be asked.
fn address(pod: &SimulatedPod, container: &Container, probe: &Probe) -> Option<SocketAddr> {
    let (port, host) = match &probe.check {
        ProbeCheck::HttpGet { port, host, .. } | ProbeCheck::TcpSocket { port, host } => {
            (port.clone(), host.as_deref())
        }
        ProbeCheck::Grpc { port, .. } => (TargetPort::Number(*port), None),
        ProbeCheck::Exec => return None,
    };
    let number = match port {
        TargetPort::Number(number) => number,
        // kubelet looks for the name in the probe's own container.
        TargetPort::Name(name) => {
            let named = container.ports.iter().find(|port| port.name == name);
            named?.container_port
        }
    };
    let host: Option<IpAddr> = host.and_then(|host| host.parse().ok());
    if let Some(host) = host.filter(|host| host.is_loopback() && *host != pod.ip) {
        return Some(SocketAddr::new(host, number));
    }
    let wanted = WantedPort {
        number,
        protocol: Protocol::Tcp,
    };
    Some(SocketAddr::new(pod.ip, pod.bound(wanted)))
}
