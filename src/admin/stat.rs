//! What Service ports and their endpoints got, as one value that is printed, drawn and read by scripts: totals, rates
//! over windows, shares against expected ones, and why they differ. Owns the shape, which is versioned; what is counted
//! is the data path's, what a window is the sampler's.

mod build;
mod causes;

use std::net::SocketAddr;

use axum::http::StatusCode;
use portico_core::observe::evenness::Evenness;
use serde::{Deserialize, Serialize};

pub(super) use build::{Source, all, of_service};

/// Version of the shape: changed when a field changes its meaning or goes.
pub const SCHEMA: &str = "portico.dev/stat/v1";

/// What is asked beside the path.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Query {
    /// Whether each endpoint is listed; evenness is judged in any case.
    pub(super) endpoints: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self { endpoints: true }
    }
}

/// A refusal: its status and what to print.
pub(super) type Refusal = (StatusCode, String);

/// All of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stat {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it was read (RFC 3339).
    pub time: String,
    /// Generation in force.
    pub generation: u64,
    /// A Service port in one family each, by namespace and name.
    pub ports: Vec<PortStat>,
}

/// One Service port in one family.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortStat {
    /// Namespace.
    pub namespace: String,
    /// Service.
    pub service: String,
    /// Name of the port; may be empty.
    pub port_name: String,
    /// Number.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `IPv4` or `IPv6`.
    pub ip_family: String,
    /// What is counted one by one, wherever connections are named here.
    #[serde(default)]
    pub unit: Unit,
    /// How an endpoint is chosen.
    pub balance: String,
    /// Time-out of session affinity; null without.
    pub affinity_seconds: Option<u64>,
    /// Endpoints that may be chosen and do not sit out.
    pub ready: usize,
    /// Endpoints that there are.
    pub declared: usize,
    /// Totals since the Service port came.
    pub counts: PortCounts,
    /// How long connecting to endpoints took, since the set in force came or longer.
    pub connect: Latency,
    /// How long relayed connections lasted.
    pub durations: Latency,
    /// `1s`, `10s`, `1m`, `mark`, `epoch`.
    pub windows: Vec<PortWindow>,
    /// The set of endpoints in force.
    pub epoch: Epoch,
    /// What there is to know beside the figures.
    pub notes: Vec<String>,
    /// Endpoints in the order of their turns.
    pub endpoints: Vec<EndpointStat>,
}

impl PortStat {
    /// The window of this name.
    pub fn window(&self, name: &str) -> Option<&PortWindow> {
        self.windows.iter().find(|window| window.window == name)
    }
}

/// What a Service port forwards, and counts, one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// TCP.
    #[default]
    Connections,
    /// HTTP.
    Requests,
    /// UDP.
    Flows,
}

impl Unit {
    /// One of them.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Connections => "connection",
            Self::Requests => "request",
            Self::Flows => "flow",
        }
    }

    /// Behind a figure in a cell.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Connections => "conn",
            Self::Requests => "req",
            Self::Flows => "flow",
        }
    }
}

/// Totals of a Service port.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortCounts {
    /// Connections (flows) accepted.
    pub connections: u64,
    /// In progress.
    pub active: u64,
    /// Those that reached an endpoint.
    pub established: u64,
    /// Attempts at endpoints.
    pub picks: u64,
    /// Attempts that failed.
    pub retries: u64,
    /// Connections that were turned away, by reason.
    pub rejections: Rejections,
    /// Connections + retries - rejections - picks: 0, but for what waits or is being counted at this moment.
    pub residual: i64,
    /// Bytes written to endpoints.
    pub bytes_to_endpoints: u64,
    /// Bytes written to clients.
    pub bytes_to_clients: u64,
    /// Failed attempts at the present endpoints, by reason.
    pub failures: Failures,
}

/// Connections that were turned away, by reason.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejections {
    /// All.
    pub total: u64,
    /// No usable endpoint anywhere; a listener that refuses counts nothing.
    pub no_endpoint: u64,
    /// A traffic policy allows no endpoint here.
    pub policy: u64,
    /// The source is outside `loadBalancerSourceRanges`.
    pub source_range: u64,
    /// A trusted front end sent no usable PROXY header.
    #[serde(default)]
    pub proxy_header: u64,
    /// A limit left no place in time.
    #[serde(default)]
    pub full: u64,
    /// Every attempt failed.
    pub all_failed: u64,
}

/// Attempts that failed, by reason.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// All.
    pub total: u64,
    /// The endpoint refused.
    pub refused: u64,
    /// Connecting took too long.
    pub timeout: u64,
    /// Anything else.
    pub other: u64,
}

/// Seconds; null without any value.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// How many values.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99: Option<f64>,
}

/// What a Service port got over one window.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortWindow {
    /// `1s`, `10s`, `1m`, `mark`, `epoch`.
    pub window: String,
    /// How long it really is.
    pub seconds: f64,
    /// Connections (flows) accepted.
    pub connections: u64,
    /// Attempts at endpoints.
    pub picks: u64,
    /// Connections turned away.
    pub rejected: u64,
    /// Bytes written to endpoints.
    pub bytes_to_endpoints: u64,
    /// Bytes written to clients.
    pub bytes_to_clients: u64,
    /// Connections a second.
    pub connections_per_second: f64,
    /// Bytes a second, both ways together.
    pub bytes_per_second: f64,
    /// Share of connections that were turned away; null without connections.
    pub error_share: Option<f64>,
    /// How much of it the set in force has been there: what is even is judged over this.
    pub set_seconds: f64,
    /// Whether picks are as the shares say; null without picks.
    pub verdict: Option<Verdict>,
    /// By unit.
    pub evenness: Units,
    /// Why picks are not even; empty where they are.
    pub uneven_because: Vec<String>,
}

/// How even each unit was.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Units {
    /// All picks.
    pub picks: Option<Evenness>,
    /// Picks in turn: without those by session affinity.
    pub turns: Option<Evenness>,
    /// Connections that reached an endpoint.
    pub connections: Option<Evenness>,
    /// Bytes, both ways together.
    pub bytes: Option<Evenness>,
}

/// Whether shares are as they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As exact as turns, or as even as chance, or off by less than anybody minds.
    Even,
    /// None of these.
    Uneven,
}

/// A coefficient of variation that nobody minds: with very many picks chance alone would find fault with it.
const NEGLIGIBLE: f64 = 0.02;
/// Below it chance would hardly have done it.
const UNLIKELY: f64 = 0.01;

impl Verdict {
    /// Strict turns differ by one at most (computed shares by a rounding more); what is left must be small, or what
    /// independent picks would have come to as well.
    pub(super) fn of(found: &Evenness) -> Self {
        if found.spread <= 1.000_001 || found.cov <= NEGLIGIBLE || found.p >= UNLIKELY {
            Self::Even
        } else {
            Self::Uneven
        }
    }

    /// As it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Uneven => "uneven",
        }
    }
}

/// The set of endpoints in force.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Epoch {
    /// Since when (RFC 3339), to a second.
    pub since: String,
    /// How long.
    pub seconds: f64,
    /// Who came with it; nobody for the first one.
    pub joined: Vec<SocketAddr>,
    /// Who left with it.
    pub left: Vec<SocketAddr>,
}

/// One endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStat {
    /// Address and port.
    pub address: SocketAddr,
    /// Its pod, where one is known.
    pub pod: Option<String>,
    /// Its share beside the others'.
    pub weight: u16,
    /// The same as a share of 1.
    pub expected: f64,
    /// It sits out after failures.
    pub ejected: bool,
    /// Until then (RFC 3339); null if it never sat out since its last success.
    pub ejected_until: Option<String>,
    /// Since when it is in the set (RFC 3339), to a second.
    pub since: String,
    /// Times that it was chosen.
    pub picks: u64,
    /// Of these, by session affinity.
    pub affine: u64,
    /// Attempts that reached it.
    pub connections: u64,
    /// Connections in progress.
    pub active: u64,
    /// Attempts that failed.
    pub failures: Failures,
    /// Bytes written to it.
    pub bytes_to_endpoint: u64,
    /// Bytes written to clients for it.
    pub bytes_to_clients: u64,
    /// How long connecting to it took.
    pub connect: Latency,
    /// `1s`, `10s`, `1m`, `mark`, `epoch`.
    pub windows: Vec<EndpointWindow>,
}

impl EndpointStat {
    /// The window of this name.
    pub fn window(&self, name: &str) -> Option<&EndpointWindow> {
        self.windows.iter().find(|window| window.window == name)
    }
}

/// What one endpoint got over one window, within the life of the set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointWindow {
    /// `1s`, `10s`, `1m`, `mark`, `epoch`.
    pub window: String,
    /// Times that it was chosen.
    pub picks: u64,
    /// Of these, in turn: without session affinity.
    pub turns: u64,
    /// Attempts that reached it.
    pub connections: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Bytes written to it.
    pub bytes_to_endpoint: u64,
    /// Bytes written to clients for it.
    pub bytes_to_clients: u64,
    /// Its share of all picks; null without picks.
    pub share: Option<f64>,
    /// The share by the expected one, less 1; null without picks, or where nothing is expected.
    pub deviation: Option<f64>,
}
