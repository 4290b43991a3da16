//! What runs, as one value that `up` prints, `status` shows and tests wait for. Owns the shape; `build` makes it of world,
//! snapshot and listener states.

mod build;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use portico_core::{
    object::diagnostic::Diagnostic,
    snapshot::{Generation, plan::ListenerKey},
};
use serde::{Deserialize, Serialize};

pub use build::{pods, reachable_at, report_of, services, starting};

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
    /// Domains that Services are named under, the primary one first.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Whether every source has been read once.
    pub synced: bool,
    /// Services, sorted by namespace and name.
    pub services: Vec<ServiceStatus>,
    /// Sockets that are not simply listening on what was declared, or turn clients away.
    pub listeners: Vec<ListenerReport>,
    /// Where DNS is answered.
    pub dns: Vec<DnsStatus>,
    /// The zones that it answers, the primary cluster domain first.
    #[serde(default)]
    pub dns_zones: Vec<String>,
    /// Names that were asked for lately and do not exist, but nearly.
    #[serde(default)]
    pub missed_names: Vec<MissedNameStatus>,
    /// Who is asked for names that are not ours.
    #[serde(default)]
    pub dns_upstreams: Vec<UpstreamStatus>,
    /// Programs that `portico run` started.
    #[serde(default)]
    pub runs: Vec<RunStatus>,
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
    /// What is spoken there, and why it is taken for that; null where nothing says so, which is TCP.
    #[serde(default)]
    pub speaks: Option<String>,
    /// How an endpoint is chosen: `round-robin`, `random`, `least-request`, `peak-ewma`, `maglev`.
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
    /// What is left of that equation: 0, but for what waits or is being counted at this moment.
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
    /// Of the rejected: a trusted front end that sent no usable PROXY header.
    #[serde(default)]
    pub proxy_header_faults: u64,
    /// Of the rejected: they waited in vain for a place that a limit kept back.
    #[serde(default)]
    pub rejected_full: u64,
    /// Connections that have a place, those that wait for an endpoint included.
    #[serde(default)]
    pub active: u64,
    /// The most of them; null without a limit.
    #[serde(default)]
    pub max_connections: Option<u32>,
    /// Most connections of an endpoint; null without a limit.
    #[serde(default)]
    pub max_connections_per_endpoint: Option<u32>,
    /// Connections that wait for a place.
    #[serde(default)]
    pub waiting: u64,
    /// Connections and flows that went on from our own address though the client's was to be kept.
    #[serde(default)]
    pub source_not_kept: u64,
}

impl Status {
    /// As programs of `portico run` have it: everything is where it was declared.
    #[must_use]
    pub fn inside(mut self) -> Self {
        let ports = self.services.iter_mut().flat_map(|one| &mut one.ports);
        for place in ports.flat_map(|port| &mut port.reachable) {
            place.bound = Some(place.declared);
            place.problem = None;
        }
        self
    }
}

impl PortStatus {
    /// Where it is served by an address of this kind, if it is.
    pub fn served_at(&self, kind: &str) -> Option<SocketAddr> {
        let mut places = self.reachable.iter();
        places.find(|place| place.kind == kind)?.bound
    }
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

/// A name that DNS was asked for and that does not exist.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MissedNameStatus {
    /// The name.
    pub name: String,
    /// How often.
    pub count: u64,
    /// The name that may have been meant.
    pub meant: String,
}

/// One server that is asked for names that are not ours.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamStatus {
    /// Where.
    pub server: SocketAddr,
    /// Names in this domain alone.
    pub domain: Option<String>,
    /// Why it is not asked, or not in its turn.
    pub problem: Option<String>,
}

/// One `portico run`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// Its process.
    pub pid: u32,
    /// What runs inside.
    pub command: String,
    /// The namespace whose Services have short names inside.
    pub namespace: String,
    /// When it began (RFC 3339).
    pub since: String,
    /// Sockets that are served inside.
    pub listeners: usize,
    /// What is not served there, and why.
    pub failed: Vec<String>,
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

/// The listener's part of the status by key, as far as it is not simply listening.
pub type ListenerReports = BTreeMap<ListenerKey, ListenerReport>;

/// What lets `wanted` listeners be served: they have half of the descriptors.
pub fn descriptors_fix(wanted: usize) -> String {
    let limit = wanted.saturating_mul(2);
    format!("`ulimit -n {limit}` (LimitNOFILE={limit} in a systemd unit) and start again")
}
