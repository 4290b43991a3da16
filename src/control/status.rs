//! What runs, as one value that `up` prints, `status` shows and tests wait for. Owns the shape; reads world, snapshot
//! and listener states.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use portico_core::{
    balance::EndpointSet,
    object::{diagnostic::Diagnostic, service::IpFamily},
    snapshot::{
        FrontendKey, FrontendKind, Generation, PortView, Scope, ServiceView, Snapshot,
        plan::{Bind, ListenerKey},
    },
    world::World,
};
use serde::{Deserialize, Serialize};

/// The whole status.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Program version.
    pub version: String,
    /// Name of the instance.
    pub instance: String,
    /// Process id.
    pub pid: u32,
    /// Generation in force.
    pub generation: Generation,
    /// Whether every source has been read once.
    pub synced: bool,
    /// Services, sorted by namespace and name.
    pub services: Vec<ServiceStatus>,
    /// Sockets that are not simply listening on what was declared, or turn clients away.
    pub listeners: Vec<ListenerReport>,
    /// Where DNS is answered.
    pub dns: Vec<DnsStatus>,
    /// Simulated pods.
    pub pods: Vec<PodStatus>,
    /// Number of listeners.
    pub listener_count: usize,
    /// Connections in progress.
    pub connections: usize,
    /// UDP flows in progress.
    #[serde(default)]
    pub flows: usize,
    /// Listeners that are not served for want of descriptors.
    #[serde(default)]
    pub beyond_descriptors: usize,
    /// Descriptors that the process has open.
    pub descriptors: usize,
    /// Where metrics and health are answered over TCP.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// Findings about the manifests, sorted by file and position.
    pub findings: Vec<Diagnostic>,
}

impl Status {
    /// The findings as text, a line each.
    pub fn findings_text(&self) -> String {
        let lines: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }
}

/// One Service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `spec.type`.
    #[serde(rename = "type")]
    pub service_type: String,
    /// Cluster IP, `None` for headless, empty for ExternalName.
    pub cluster_ip: String,
    /// `externalName`.
    pub external_name: Option<String>,
    /// External and load-balancer addresses.
    pub external_ips: Vec<IpAddr>,
    /// A `loadBalancerIP` that could not be had.
    pub desired_load_balancer_ip: Option<IpAddr>,
    /// Ports as kubectl shows them: `80:30080/TCP`; also of headless Services.
    pub port_list: Vec<String>,
    /// Ports with frontends; none for headless and ExternalName.
    pub ports: Vec<PortStatus>,
    /// Ready addresses of a headless Service.
    pub headless_addresses: Vec<IpAddr>,
    /// `file:line` of its declaration.
    pub origin: String,
    /// Selector, for the hint that nothing matches it.
    pub selector: BTreeMap<String, String>,
}

/// One port in one family.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortStatus {
    /// Name.
    pub name: String,
    /// Protocol.
    pub protocol: String,
    /// Number.
    pub port: u16,
    /// Node port.
    pub node_port: Option<u16>,
    /// Usable endpoints with what they got.
    pub endpoints: Vec<EndpointStatus>,
    /// How an endpoint is chosen: `round-robin`, `random`, `least-request`, `maglev`.
    #[serde(default)]
    pub balance: String,
    /// Time-out of session affinity by client address; null without.
    #[serde(default)]
    pub affinity_seconds: Option<u64>,
    /// Addresses at which it is really reachable, by kind of frontend.
    pub reachable: Vec<Reachable>,
    /// Connections accepted, relayed, repeated elsewhere, rejected.
    pub accepted: u64,
    /// See `accepted`.
    pub connected: u64,
    /// See `accepted`.
    pub retries: u64,
    /// See `accepted`.
    pub rejected: u64,
    /// Attempts at endpoints, also those that have left since: accepted + retries - rejected.
    #[serde(default)]
    pub picks: u64,
    /// What is left of that equation: 0, but for what is being counted at this moment.
    #[serde(default)]
    pub residual: i64,
    /// Bytes written to endpoints.
    #[serde(default)]
    pub bytes_to_endpoints: u64,
    /// Bytes written to clients.
    #[serde(default)]
    pub bytes_to_clients: u64,
    /// Of the rejected: no usable endpoint anywhere (a listener that refuses counts nothing).
    #[serde(default)]
    pub refused_no_endpoints: u64,
    /// Of the rejected: a traffic policy allows no endpoint here.
    #[serde(default)]
    pub dropped_policy: u64,
    /// Of the rejected: the source is outside `loadBalancerSourceRanges`.
    #[serde(default)]
    pub dropped_source_range: u64,
    /// Connections and flows that went on from our own address though the client's was to be kept.
    #[serde(default)]
    pub source_not_kept: u64,
}

/// One endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Address and port.
    pub address: SocketAddr,
    /// Its share beside the others' (`portico.dev/weight`).
    #[serde(default)]
    pub weight: u16,
    /// Times that it was chosen.
    pub picks: u64,
    /// Of these, the ones by session affinity. What is left of the picks is even, or as the weights say.
    #[serde(default)]
    pub affine: u64,
    /// Attempts that reached it.
    pub connected: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Connections in progress.
    pub active: u64,
    /// It sits out after failures.
    pub ejected: bool,
}

/// One way to a port.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reachable {
    /// Which kind of address.
    pub kind: String,
    /// The address as declared.
    pub declared: SocketAddr,
    /// The address to use, when there is one: another port where the declared one could not be had.
    pub bound: Option<SocketAddr>,
    /// Why it is not the declared one.
    pub problem: Option<String>,
}

/// A socket with a problem, that refuses for want of endpoints, or that turns clients away.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ListenerReport {
    /// Declared address and port.
    pub declared: SocketAddr,
    /// `TCP`, `UDP`.
    #[serde(default)]
    pub protocol: String,
    /// What it is for.
    pub services: String,
    /// `listening`, `refusing`, `fallback`, `failed`.
    pub state: String,
    /// Where it is bound.
    pub bound: Option<SocketAddr>,
    /// What went wrong.
    pub reason: Option<String>,
    /// Who holds the address.
    pub holder: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
    /// What becomes of clients that a traffic policy or source ranges turn away: null while there are none.
    #[serde(default)]
    pub turned_away: Option<TurnedAway>,
    /// Packets that the socket dropped since it was bound: those of its filter, each repeated SYN too, and those that
    /// found its queue full; null without a filter.
    #[serde(default)]
    pub dropped_by_filter: Option<u32>,
}

/// What becomes of clients that are to be dropped.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum TurnedAway {
    /// A socket filter drops what they send.
    Dropped,
    /// They are accepted and reset, because of this.
    Reset(String),
}

impl fmt::Display for TurnedAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped => f.write_str(
                "dropped by a socket filter: the client sees a time-out, as in a cluster",
            ),
            Self::Reset(reason) => write!(f, "accepted and reset, because {reason}"),
        }
    }
}

/// One address that DNS is answered at.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsStatus {
    /// Where it was to be.
    pub wanted: SocketAddr,
    /// Where it is.
    pub bound: Option<SocketAddr>,
    /// Why it is not where it was to be.
    pub problem: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
}

/// One simulated pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Address.
    pub ip: IpAddr,
    /// Phase, in the words of kubectl's column STATUS.
    pub phase: String,
    /// Container ports that had to move, as `80->10080/TCP`.
    pub moved_ports: Vec<String>,
}

/// What lets `wanted` listeners be served: they have half of the descriptors.
pub fn descriptors_fix(wanted: usize) -> String {
    let limit = wanted.saturating_mul(2);
    format!("`ulimit -n {limit}` (LimitNOFILE={limit} in a systemd unit) and start again")
}

/// The listener's part of the status by key, as far as it is not simply listening.
pub type ListenerReports = BTreeMap<ListenerKey, ListenerReport>;

/// Services of a snapshot with where they are reachable.
pub fn services(
    snapshot: &Snapshot,
    listeners: &ListenerReports,
    now: portico_core::time::Timestamp,
) -> Vec<ServiceStatus> {
    snapshot
        .services()
        .into_iter()
        .map(|view| service(view, listeners, now))
        .collect()
}

fn service(
    view: &ServiceView,
    listeners: &ListenerReports,
    now: portico_core::time::Timestamp,
) -> ServiceStatus {
    let spec = &view.spec;
    let cluster_ip = match view.cluster_ips.first() {
        Some(addr) => addr.to_string(),
        None if spec.external_name.is_some() => String::new(),
        None => "None".into(),
    };
    let desired = spec
        .load_balancer_ip
        .filter(|addr| !view.load_balancer_ips.contains(addr));
    let port = |index: usize, port: &PortView| {
        let reachable = view.frontends.iter().filter(|(_, _, of)| *of == index);
        let reachable = reachable
            .map(|(key, kind, _)| reachable_at(key, *kind, listeners))
            .collect();
        port_status(port, reachable, now)
    };
    ServiceStatus {
        namespace: view.namespace.to_string(),
        name: view.name.to_string(),
        service_type: spec.service_type.as_str().into(),
        cluster_ip,
        external_name: spec.external_name.as_deref().map(str::to_owned),
        external_ips: spec
            .external_ips
            .iter()
            .chain(&view.load_balancer_ips)
            .copied()
            .collect(),
        desired_load_balancer_ip: desired,
        port_list: port_list(view),
        headless_addresses: headless_addresses(view),
        ports: view
            .ports
            .iter()
            .enumerate()
            .map(|(index, view)| port(index, view))
            .collect(),
        origin: format!("{}:{}", view.origin.file, view.origin.position.line),
        selector: spec
            .selector
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
    }
}

/// Ports of the manifest with the node ports that they got.
fn port_list(view: &ServiceView) -> Vec<String> {
    let ports = view
        .spec
        .ports
        .iter()
        .filter(|_| view.spec.external_name.is_none());
    ports
        .map(|port| {
            let same = |live: &&std::sync::Arc<PortView>| {
                live.number == port.port && live.name.protocol == port.protocol
            };
            match view.ports.iter().find(same).and_then(|live| live.node_port) {
                Some(node_port) => format!("{}:{node_port}/{}", port.port, port.protocol),
                None => format!("{}/{}", port.port, port.protocol),
            }
        })
        .collect()
}

fn headless_addresses(view: &ServiceView) -> Vec<IpAddr> {
    if view.spec.has_vip() {
        return Vec::new();
    }
    let endpoints = view.slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.conditions.ready);
    let mut addresses: Vec<IpAddr> = ready.filter_map(|endpoint| endpoint.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn port_status(
    port: &PortView,
    reachable: Vec<Reachable>,
    now: portico_core::time::Timestamp,
) -> PortStatus {
    use std::sync::atomic::Ordering::Relaxed;
    let sets: Vec<&EndpointSet> = [&port.cluster, &port.local]
        .into_iter()
        .flatten()
        .map(AsRef::as_ref)
        .collect();
    let mut endpoints: BTreeMap<SocketAddr, EndpointStatus> = BTreeMap::new();
    let all = sets.iter().flat_map(|set| {
        let weights = (0..).map(|index| set.weight(index));
        set.endpoints().iter().zip(weights)
    });
    for (endpoint, weight) in all {
        let state = &endpoint.state;
        endpoints.insert(
            endpoint.addr,
            EndpointStatus {
                address: endpoint.addr,
                weight: weight.get(),
                picks: state.picks.load(Relaxed),
                affine: state.affine.load(Relaxed),
                connected: state.connected.load(Relaxed),
                failures: state.failures.load(Relaxed),
                active: state.active.load(Relaxed),
                ejected: state.ejection.is_ejected(now),
            },
        );
    }
    PortStatus {
        name: port.name.port.to_string(),
        protocol: port.name.protocol.to_string(),
        port: port.number,
        node_port: port.node_port,
        endpoints: endpoints.into_values().collect(),
        balance: port.policy().as_str().into(),
        affinity_seconds: port.affinity.map(|affinity| affinity.timeout.as_secs()),
        reachable,
        accepted: port.state.accepted.load(Relaxed),
        connected: port.state.connected.load(Relaxed),
        retries: port.state.retries.load(Relaxed),
        rejected: port.state.rejected.load(Relaxed),
        picks: port.state.picked.load(Relaxed),
        residual: port.state.residual(),
        bytes_to_endpoints: port.state.bytes_to.load(Relaxed),
        bytes_to_clients: port.state.bytes_from.load(Relaxed),
        refused_no_endpoints: port.state.refused_no_endpoints.load(Relaxed),
        dropped_policy: port.state.dropped_policy.load(Relaxed),
        dropped_source_range: port.state.dropped_source_range.load(Relaxed),
        source_not_kept: port.state.source_not_kept.total(),
    }
}

/// The report about the socket behind a frontend; `None` when it simply listens.
pub fn report_of<'r>(
    key: &FrontendKey,
    listeners: &'r ListenerReports,
) -> Option<&'r ListenerReport> {
    let any = Bind::any(IpFamily::of(key.addr));
    let own = if key.addr.is_unspecified() {
        any
    } else {
        Bind::Address(key.addr)
    };
    let of = |bind| {
        listeners.get(&ListenerKey {
            scope: Scope::HOST,
            bind,
            port: key.port,
            protocol: key.protocol,
        })
    };
    let collapsed = key.addr.is_ipv4().then_some(Bind::AnyLoopback);
    [own, any].into_iter().chain(collapsed).find_map(of)
}

/// Where a frontend is really reachable.
pub fn reachable_at(
    key: &FrontendKey,
    kind: FrontendKind,
    listeners: &ListenerReports,
) -> Reachable {
    let declared = SocketAddr::new(key.addr, key.port);
    let report = report_of(key, listeners);
    let kind = match kind {
        FrontendKind::ClusterIP => "ClusterIP",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::ExternalIP => "ExternalIP",
        FrontendKind::LoadBalancer => "LoadBalancer",
        FrontendKind::HealthCheck => "HealthCheck",
    };
    let bound = match report {
        None => Some(declared),
        Some(report) => report
            .bound
            .map(|bound| SocketAddr::new(declared.ip(), bound.port())),
    };
    let problem = report
        .filter(|report| report.state != "refusing")
        .and_then(|report| report.reason.clone());
    Reachable {
        kind: kind.into(),
        declared,
        bound,
        problem,
    }
}

/// Simulated pods, sorted by namespace and name.
pub fn pods(world: &World) -> Vec<PodStatus> {
    use portico_core::world::pods::PodPhase;
    world
        .pods()
        .pods
        .values()
        .map(|pod| PodStatus {
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            ip: pod.ip,
            phase: match &pod.phase {
                PodPhase::Pending => "Pending".into(),
                PodPhase::Starting => "ContainerCreating".into(),
                PodPhase::Running { .. } => {
                    let waiting = pod
                        .containers
                        .iter()
                        .find_map(|state| state.waiting.clone());
                    waiting.map_or_else(|| "Running".into(), |why| why.to_string())
                }
                PodPhase::Waiting { reason, .. } => format!("Waiting: {reason}"),
                PodPhase::Terminating { .. } => "Terminating".into(),
            },
            moved_ports: pod
                .moved_ports
                .iter()
                .map(|(port, to)| format!("{}->{to}/{}", port.number, port.protocol))
                .collect(),
        })
        .collect()
}

/// Simulated pods that were asked to start and have not said anything yet.
pub fn starting(world: &World) -> usize {
    use portico_core::world::pods::PodPhase;
    let pods = world.pods().pods.values();
    pods.filter(|pod| matches!(pod.phase, PodPhase::Pending | PodPhase::Starting))
        .count()
}
