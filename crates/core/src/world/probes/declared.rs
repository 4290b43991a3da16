//! The probes of one pod given by manifest. Owns which of them run (a startup probe first, a readiness probe after
//! it) and what they say together; nothing can restart such a pod, so its liveness is not probed.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{ProbeKey, ProbeKind, ProbeResult, ProbeSubject, ProbeTarget, table::Results};
use crate::{
    object::{Container, Pod, Probe, ProbeCheck, TargetPort},
    probe::counted_as_passing,
    world::pods::PodKey,
};

/// Startup probes that failed, by container: the next attempt is another run, as after a restart.
pub(super) type Runs = BTreeMap<Arc<str>, u32>;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodProbes {
    containers: Vec<ContainerProbes>,
    /// Condition `Ready` of the manifest: what counts until a probe has decided.
    start: bool,
    runs: Runs,
}

#[derive(Debug, Clone, PartialEq)]
struct ContainerProbes {
    startup: Option<KeyedProbe>,
    readiness: Option<KeyedProbe>,
}

#[derive(Debug, Clone, PartialEq)]
struct KeyedProbe {
    key: ProbeKey,
    /// `None` when the port's name is that of no port: it can never be asked.
    target: Option<ProbeTarget>,
}

impl PodProbes {
    /// The probes of this pod; `None` when none of them runs.
    pub(super) fn of(pod_key: &PodKey, pod: &Pod, runs: Runs) -> Option<Self> {
        let ip = *pod.pod_ips.first().filter(|_| !pod.finished)?;
        let containers: Vec<ContainerProbes> = pod
            .spec
            .containers
            .iter()
            .map(|container| {
                let keyed = |kind, probe: &Option<Arc<Probe>>| {
                    let probe = probe.as_ref()?;
                    let runs_here = counted_as_passing(&probe.check).is_none();
                    runs_here.then(|| KeyedProbe {
                        key: ProbeKey {
                            subject: ProbeSubject::Declared(pod_key.clone()),
                            container: Arc::clone(&container.name),
                            kind,
                            run: runs.get(&container.name).copied().unwrap_or_default(),
                        },
                        target: target(probe, container, ip),
                    })
                };
                ContainerProbes {
                    startup: keyed(ProbeKind::Startup, &container.startup),
                    readiness: keyed(ProbeKind::Readiness, &container.readiness),
                }
            })
            .filter(|container| container.startup.is_some() || container.readiness.is_some())
            .collect();
        (!containers.is_empty()).then_some(Self {
            containers,
            start: pod.ready.unwrap_or(false),
            runs,
        })
    }

    /// Failed startups so far.
    pub(super) const fn runs(&self) -> &Runs {
        &self.runs
    }

    /// All of them, whether or not they run now.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ProbeKey> {
        self.all().map(|probe| &probe.key)
    }

    /// Whether this probe is there and asks at the same address as in `other`: then what it said still counts.
    pub(super) fn asks_the_same(&self, key: &ProbeKey, other: &Self) -> bool {
        let addr = |probes: &Self| {
            let probe = probes.all().find(|probe| probe.key == *key)?;
            Some(probe.target.as_ref().map(|target| target.addr))
        };
        addr(self).is_some_and(|addr_here| addr(other) == Some(addr_here))
    }

    fn all(&self) -> impl Iterator<Item = &KeyedProbe> {
        let all = self
            .containers
            .iter()
            .flat_map(|container| [&container.startup, &container.readiness]);
        all.flatten()
    }

    /// Those that can never be asked, with the reason.
    pub(super) fn unaskable(&self) -> impl Iterator<Item = (&ProbeKey, Arc<str>)> {
        let lost = self.all().filter(|probe| probe.target.is_none());
        lost.map(|probe| {
            let container = &probe.key.container;
            let reason =
                format!("container {container} has no port of the name that the probe asks for");
            (&probe.key, reason.into())
        })
    }

    /// Those that are to run now.
    pub(super) fn targets<'a>(
        &'a self,
        results: &'a Results,
    ) -> impl Iterator<Item = (ProbeKey, ProbeTarget)> + 'a {
        self.containers.iter().filter_map(move |container| {
            let starting = container
                .startup
                .as_ref()
                .filter(|startup| passing(results, &startup.key) != Some(true));
            let probe = starting.or(container.readiness.as_ref().filter(|_| starting.is_none()))?;
            Some((probe.key.clone(), probe.target.clone()?))
        })
    }

    /// Condition `Ready`.
    pub(super) fn is_ready(&self, results: &Results) -> bool {
        self.keys()
            .all(|key| passing(results, key).unwrap_or(self.start))
    }
}

fn passing(results: &Results, key: &ProbeKey) -> Option<bool> {
    results
        .get(key)
        .and_then(|result: &ProbeResult| result.passing)
}

/// Where kubelet would send this probe: `host`, else the pod's first address; a port's name is looked up among the
/// ports of the same container. A host that is no address is left to whoever runs the probe.
fn target(probe: &Arc<Probe>, container: &Container, ip: IpAddr) -> Option<ProbeTarget> {
    let (port, host) = match &probe.check {
        ProbeCheck::HttpGet { port, host, .. } | ProbeCheck::TcpSocket { port, host } => {
            let number = match port {
                TargetPort::Number(number) => *number,
                TargetPort::Name(name) => {
                    container
                        .ports
                        .iter()
                        .find(|port| port.name == *name)?
                        .container_port
                }
            };
            (number, host.as_deref())
        }
        ProbeCheck::Grpc { port, .. } => (*port, None),
        ProbeCheck::Exec => return None,
    };
    let ip = host.and_then(|host| host.parse().ok()).unwrap_or(ip);
    Some(ProbeTarget {
        probe: Arc::clone(probe),
        addr: SocketAddr::new(ip, port),
    })
}
