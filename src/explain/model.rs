//! What an explanation says. Owns its shape, which is also its JSON; must not decide anything.

use std::{collections::BTreeMap, net::IpAddr};

use portico_core::object::diagnostic::Severity;
use serde::{Deserialize, Serialize};

/// One Service, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.type`; empty while no good version of the Service is known.
    #[serde(rename = "type")]
    pub service_type: String,
    /// What becomes of a connection, in one word.
    pub state: State,
    /// The same in one sentence.
    pub headline: String,
    /// What is wrong, the cause first.
    pub problems: Vec<Problem>,
    /// What was mapped, approximated or ignored.
    pub notes: Vec<Problem>,
    /// `file:line` of the version in force.
    pub origin: Option<String>,
    /// Changes made while the program runs, over what the file says.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// `spec.selector`.
    pub selector: BTreeMap<String, String>,
    /// Pods and workloads that it matches, counted; empty without a selector.
    pub matching: String,
    /// Cluster IPs; empty for headless and ExternalName.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<IpAddr>,
    /// Every address and port with where it is really bound.
    pub addresses: Vec<Way>,
    /// The choice of endpoints by port and family; none for headless and ExternalName.
    pub ports: Vec<PortVerdict>,
    /// How an endpoint is chosen: `round-robin`, `random`, `least-request`, `peak-ewma`, `maglev`; empty where nothing is.
    #[serde(default)]
    pub balance: String,
    /// Time-out of session affinity by client address, in seconds; null without.
    #[serde(default)]
    pub affinity_seconds: Option<u64>,
    /// The cookie that keeps clients of its HTTP ports at their endpoints; null without.
    #[serde(default)]
    pub affinity_cookie: Option<String>,
    /// The header that maglev goes by on its HTTP ports; null without.
    #[serde(default)]
    pub hash_header: Option<String>,
    /// How the ports of the Service find those of slices and pods.
    pub joins: Vec<Join>,
    /// Every endpoint that anything names for this Service, chosen or not.
    pub endpoints: Vec<EndpointReport>,
    /// Its names in DNS.
    pub names: Vec<String>,
    /// What they lead clients on other machines and in containers to; null for an alias.
    #[serde(default)]
    pub elsewhere: Option<String>,
    /// One command to try.
    #[serde(rename = "try")]
    pub attempt: Option<String>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Every port forwards.
    Served,
    /// Some ports forward.
    PartlyServed,
    /// No usable endpoint.
    Refused,
    /// Policy Local leaves no endpoint here: dropped by a socket filter, else reset.
    Dropped,
    /// Endpoints are there, but no socket could be bound.
    Unbound,
    /// Headless: names only.
    Names,
    /// ExternalName.
    Alias,
    /// No good version of it is known.
    Rejected,
    /// Its labels leave it to another proxy.
    LeftAlone,
}

/// What is wrong or deviates, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// An error keeps a port from being served; a warning does not; a note needs no action.
    pub severity: Severity,
    /// Which.
    pub cause: Cause,
    /// In words.
    pub text: String,
    /// `file:line` of what to look at.
    pub at: Option<String>,
    /// What to type or change.
    pub fix: Option<String>,
}

/// Causes, the more decisive first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// The manifest is not accepted.
    Rejected,
    /// A label leaves it to another proxy.
    LeftAlone,
    /// `externalName` is an address.
    AddressAsName,
    /// Pods would match, but nobody runs them.
    NotSimulated,
    /// No pod matches the selector.
    NoPodMatches,
    /// Pods match, but there are none of them at the moment.
    NoPods,
    /// No slice belongs to it, or none lists endpoints.
    NoSlice,
    /// Ports join by name, and no name is equal.
    PortName,
    /// The port of this name has another protocol.
    PortProtocol,
    /// No container has a port of this name.
    TargetPort,
    /// Addresses of another family, or none.
    AddressType,
    /// Endpoints are terminating.
    Terminating,
    /// Endpoints are not ready.
    NotReady,
    /// No endpoint is on this node.
    NoneLocal,
    /// An endpoint is an address of a Service.
    Loop,
    /// A socket could not be bound at all.
    NotBound,
    /// A socket is bound to another port meanwhile.
    BoundElsewhere,
    /// Another Service has the address.
    AddressTaken,
    /// The host does not have the address.
    AddressElsewhere,
    /// No container declares the port.
    UndeclaredPort,
    /// The protocol is not forwarded.
    Protocol,
    /// Endpoints sit out after failures in a row.
    Ejected,
    /// As many connections as an annotation allows.
    Full,
    /// An address was mapped into our range.
    Mapped,
    /// A simulated pod listens on another port.
    MovedPort,
    /// Some probe cannot run here.
    Probe,
    /// A field or annotation that nothing acts on, or not as in a cluster.
    Field,
    /// A field that Kubernetes has deprecated.
    Deprecated,
    /// Anything else that was found in the manifest.
    Finding,
}

impl Cause {
    /// What follows "no usable endpoint, because".
    pub(crate) const fn phrase(self) -> &'static str {
        match self {
            Self::NotSimulated => "nobody runs its pods",
            Self::NoPodMatches => "its selector matches no pod",
            Self::NoPods => "its pods are not there",
            Self::NoSlice => "no EndpointSlice lists endpoints for it",
            Self::PortName => "its port has another name than the endpoints' port",
            Self::PortProtocol => "its port has another protocol than the endpoints' port",
            Self::TargetPort => "no container has its targetPort",
            Self::AddressType => "its endpoints have no address that can be used",
            Self::Terminating => "its endpoints are terminating",
            Self::NotReady => "no endpoint is ready",
            Self::Loop => "its endpoints are addresses of Services",
            Self::Protocol => "only TCP and UDP are forwarded",
            _ => "of what is said below",
        }
    }
}

/// One port in one family: which endpoints may be chosen. The keys are part of the interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortVerdict {
    /// Name of the Service port; without one its number and protocol, as `80/TCP`.
    pub port: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// What is spoken there, and why it is taken for that; `-` of what is not TCP.
    #[serde(default)]
    pub speaks: String,
    /// Endpoints under policy Cluster, sorted; null where no address of the Service asks for them.
    pub cluster: Option<Vec<String>>,
    /// Endpoints under policy Local, sorted; null where no address of the Service asks for them.
    pub local: Option<Vec<String>>,
    /// All that some client may reach, sorted.
    pub reachable: Vec<String>,
    /// Whether any endpoint is usable anywhere: tells refuse from drop.
    pub any: bool,
    /// What becomes of connections.
    pub verdict: Verdicts,
}

/// What becomes of connections, by where they come from and arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// To the cluster IP.
    pub internal: Answer,
    /// From elsewhere to a node port, an external or a load-balancer address; null if the port has none.
    pub external: Option<Answer>,
    /// From this node to the same; null if the port has none.
    pub external_from_node: Option<Answer>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// To an endpoint.
    Forward,
    /// No usable endpoint anywhere.
    Refuse,
    /// The same of an HTTP port: requests are answered with 503.
    Unavailable,
    /// Policy Local, and none here: dropped by a socket filter, else reset.
    Drop,
}

/// One address and port of the Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Way {
    /// `ClusterIP`, `NodePort`, `ExternalIP`, `LoadBalancer`.
    pub kind: String,
    /// The Service port, as in [`PortVerdict::port`].
    pub port: String,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// As declared; an unspecified address stands for every address of the host.
    pub declared: String,
    /// Where it is really bound; null while it could not be had. Offline as declared.
    pub bound: Option<String>,
    /// Why that is not the declared address.
    pub problem: Option<String>,
}

/// How one Service port finds ports of slices and pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    /// The Service port, as in [`PortVerdict::port`].
    pub port: String,
    /// `IPv4` or `IPv6`: slices of the other one do not count.
    pub family: String,
    /// `port`.
    pub number: u16,
    /// `protocol`.
    pub protocol: String,
    /// `targetPort`; of no meaning without a selector.
    pub target_port: String,
    /// Slices and pods with the number that they have for it.
    pub joined: Vec<String>,
    /// Slices and pods that have endpoints but not this port.
    pub missing: Vec<String>,
}

/// One endpoint, chosen or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the conditions of the Kubernetes API are booleans, and this is their JSON"
)]
pub struct EndpointReport {
    /// The Service port that it was joined to, as in [`PortVerdict::port`]; null without one.
    pub port: Option<String>,
    /// `address:port`, or the address alone where it has no port; null for a pod that has none.
    pub address: Option<String>,
    /// The pod.
    pub pod: Option<String>,
    /// Its node.
    pub node: Option<String>,
    /// `EndpointSlice NAME`, `Endpoints NAME` or `selector`.
    pub source: String,
    /// `conditions.ready`.
    pub ready: bool,
    /// `conditions.serving`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// Its share beside the others' (`portico.dev/weight`); null for what has no address.
    #[serde(default)]
    pub weight: Option<u16>,
    /// It sits out after failures in a row.
    pub ejected: bool,
    /// Whether some client may reach it.
    pub chosen: bool,
    /// Why, or why not.
    pub why: String,
}
