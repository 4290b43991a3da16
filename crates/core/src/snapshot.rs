//! The compiled, immutable view of the world that the data path, DNS and every report read. Owns its types and its
//! lookups; building one belongs to [`compile`], what sockets it needs to [`plan`]. Must not change after
//! publication: the only things that move are the atomics behind [`crate::balance`], which outlive snapshots.

pub mod access;
pub mod assemble;
pub mod compile;
pub mod draining;
pub mod filter;
pub mod health_check;
pub mod plan;
pub mod selection;
pub mod sharded;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};

use crate::{
    affinity::ClientAffinity,
    balance::{EndpointSet, PortState},
    dns::{
        DnsRules,
        fast::{Key, Prepared},
    },
    http::HttpRules,
    object::{
        Application, BalancePolicy, EndpointSlice, Origin, Protocol, ProxyProtocol, Service,
        SourceAddress,
        service::{IpFamily, TrafficPolicy},
    },
    time::Timestamp,
};
pub use access::SourceRangeReach;
pub use health_check::HealthCheck;
use sharded::Sharded;

/// The number of a Snapshot: grows by one with every publication.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What does not change while the program runs: domains and ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Zones that the DNS serves, without trailing dot, lower case; the first is the primary one.
    pub domains: Vec<Arc<str>>,
    /// Namespace whose search list bare names are answered by; `None` switches the server-side search off.
    pub search_namespace: Option<Arc<str>>,
    /// Range of cluster IPs that may be requested.
    pub service_cidr: IpNet,
    /// The part of it that dynamic addresses come from.
    pub dynamic_service_cidr: IpNet,
    /// Range of IPv6 cluster IPs; without one the cluster is single-stack.
    pub service_cidr_v6: Option<IpNet>,
    /// Range of load-balancer addresses.
    pub load_balancer_cidr: IpNet,
    /// Range of IPv6 load-balancer addresses.
    pub load_balancer_cidr_v6: Option<IpNet>,
    /// Range of simulated pods' addresses.
    pub pod_cidr: IpNet,
    /// Host addresses that node ports are served on.
    pub node_port_addresses: NodePortAddresses,
    /// The address that DNS is asked at, whether or not a privilege keeps it from port 53.
    pub dns_address: IpAddr,
    /// Name of this node; endpoints whose `nodeName` equals it (or is absent) are local.
    pub node_name: Arc<str>,
    /// Zone of this node.
    pub zone: Option<Arc<str>>,
    /// Addresses that the host owns: a client with one of them is on this node.
    pub host_addresses: Vec<IpAddr>,
    /// Which frontends `loadBalancerSourceRanges` guards.
    pub source_range_reach: SourceRangeReach,
    /// What of DNS was chosen.
    pub dns: DnsRules,
    /// What of HTTP was chosen.
    pub http: HttpRules,
}

impl Default for Cluster {
    /// Where nothing is set: the first instance's ranges, on a host of which nothing is known.
    fn default() -> Self {
        let net = |second, third, bits| {
            IpNet::V4(Ipv4Net::new_assert(
                Ipv4Addr::new(127, second, third, 0),
                bits,
            ))
        };
        Self {
            domains: vec![Arc::from("cluster.local")],
            search_namespace: None,
            service_cidr: net(96, 0, 12),
            dynamic_service_cidr: net(96, 0, 16),
            service_cidr_v6: None,
            load_balancer_cidr: net(112, 0, 20),
            load_balancer_cidr_v6: None,
            pod_cidr: net(120, 0, 17),
            node_port_addresses: NodePortAddresses::All,
            dns_address: Ipv4Addr::new(127, 96, 0, 10).into(),
            node_name: Arc::from("node"),
            zone: None,
            host_addresses: Vec::new(),
            source_range_reach: SourceRangeReach::LoadBalancer,
            dns: DnsRules::default(),
            http: HttpRules::default(),
        }
    }
}

impl Cluster {
    /// Whether `addr` belongs to one of our own ranges, where only a Frontend may answer.
    pub fn owns(&self, addr: IpAddr) -> bool {
        self.ranges().any(|range| range.contains(&addr))
    }

    /// Where DNS is asked, which is what the zones' name server leads to.
    pub fn name_servers(&self) -> &[IpAddr] {
        match &*self.dns.listened {
            [] => std::slice::from_ref(&self.dns_address),
            listened => listened,
        }
    }

    /// Our own ranges.
    pub fn ranges(&self) -> impl Iterator<Item = IpNet> {
        let v6 = [self.service_cidr_v6, self.load_balancer_cidr_v6];
        [self.service_cidr, self.load_balancer_cidr, self.pod_cidr]
            .into_iter()
            .chain(v6.into_iter().flatten())
    }

    /// The range of cluster IPs of a family; IPv4 is the primary one.
    pub const fn service_range(&self, family: IpFamily) -> Option<IpNet> {
        match family {
            IpFamily::IPv4 => Some(self.service_cidr),
            IpFamily::IPv6 => self.service_cidr_v6,
        }
    }

    /// The range of load-balancer addresses of a family.
    pub const fn load_balancer_range(&self, family: IpFamily) -> Option<IpNet> {
        match family {
            IpFamily::IPv4 => Some(self.load_balancer_cidr),
            IpFamily::IPv6 => self.load_balancer_cidr_v6,
        }
    }

    /// Where node ports of a family are served: its wildcard address, or those listed. Nowhere over IPv6 on a host
    /// that has no address of it.
    pub fn node_port_addresses_of(&self, family: IpFamily) -> Vec<IpAddr> {
        match &self.node_port_addresses {
            NodePortAddresses::All
                if family == IpFamily::IPv4 || self.host_addresses.iter().any(IpAddr::is_ipv6) =>
            {
                vec![plan::any_address(family)]
            }
            NodePortAddresses::All => Vec::new(),
            NodePortAddresses::Listed(addrs) => {
                let of_family = addrs.iter().filter(|addr| IpFamily::of(**addr) == family);
                of_family.copied().collect()
            }
        }
    }

    /// Where a client is that connects from `source` to our address `local`. Processes of this host and pods are on
    /// the node, as far as their source tells; an unknown source is taken for a stranger's.
    pub fn place_of(&self, source: Option<IpAddr>, local: IpAddr) -> ClientPlace {
        let Some(source) = source.map(|source| source.to_canonical()) else {
            return ClientPlace::Elsewhere;
        };
        let is_own = source.is_loopback()
            || source == local.to_canonical()
            || self.owns(source)
            || self.host_addresses.contains(&source);
        if is_own {
            ClientPlace::OnNode
        } else {
            ClientPlace::Elsewhere
        }
    }
}

/// `--nodeport-addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// One wildcard socket a port and family: every address of the host.
    All,
    /// These addresses only.
    Listed(Vec<IpAddr>),
}

/// Where sockets live: the host's network namespace, or that of a `portico run`. Every scope has the same frontends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(pub u32);

impl Scope {
    /// The network namespace that the program runs in.
    pub const HOST: Self = Self(0);
}

/// What a connection is looked up by: its local address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Where the socket lives.
    pub scope: Scope,
    /// Local address; the unspecified one stands for "any host address of this family" (node ports).
    pub addr: IpAddr,
    /// Port as declared, also while a fallback port stands in for it.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Which of a Service's addresses a Frontend is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum FrontendKind {
    /// `clusterIP`.
    ClusterIP,
    /// `nodePort`.
    NodePort,
    /// `externalIPs`.
    ExternalIP,
    /// Load-balancer address.
    LoadBalancer,
    /// `healthCheckNodePort`: answered by ourselves, for load balancers that ask which node has endpoints.
    HealthCheck,
}

impl FrontendKind {
    /// Whether `externalTrafficPolicy` (else `internalTrafficPolicy`) applies.
    pub const fn is_external(self) -> bool {
        !matches!(self, Self::ClusterIP | Self::HealthCheck)
    }

    /// Whether it is declared for the host's own addresses, whichever these are.
    pub const fn is_on_node_port(self) -> bool {
        matches!(self, Self::NodePort | Self::HealthCheck)
    }
}

/// One address and port of a Service.
#[derive(Debug, Clone)]
pub struct Frontend {
    /// Which kind of address.
    pub kind: FrontendKind,
    /// The Service port behind it; of a health check the first one, which it says nothing about.
    pub port: Arc<PortView>,
    /// Sources that may connect, of its family; `None` admits everybody.
    pub sources: Option<Arc<[IpNet]>>,
    /// What a health check answers; set exactly for [`FrontendKind::HealthCheck`].
    pub health: Option<Arc<HealthCheck>>,
}

/// `namespace/name:port` of a Service port, the identity under which counters live.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Service.
    pub service: Arc<str>,
    /// Port name; may be empty.
    pub port: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
}

impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)?;
        if self.port.is_empty() {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

/// One Service port in one family, with the endpoints that may be chosen.
#[derive(Debug)]
pub struct PortView {
    /// Identity; shared, for every connection carries it.
    pub name: Arc<ServicePortName>,
    /// Family of the frontends and endpoints.
    pub family: IpFamily,
    /// Port number of the virtual addresses.
    pub number: u16,
    /// `nodePort` that it got.
    pub node_port: Option<u16>,
    /// Endpoints under policy Cluster; `None` when no frontend needs them.
    pub cluster: Option<Arc<EndpointSet>>,
    /// Endpoints under policy Local; `None` when no frontend needs them.
    pub local: Option<Arc<EndpointSet>>,
    /// Whether any usable endpoint exists anywhere: tells refuse from drop.
    pub any: bool,
    /// `internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// `externalTrafficPolicy`.
    pub external_policy: TrafficPolicy,
    /// `sessionAffinity: ClientIP`.
    pub affinity: Option<ClientAffinity>,
    /// Which address endpoints see.
    pub source: SourceAddress,
    /// What is spoken there: whether connections or requests are forwarded.
    pub app: Application,
    /// Headers to endpoints and from front ends; of a TCP port only.
    pub proxy: ProxyProtocol,
    /// Counters of the port, carried across snapshots.
    pub state: Arc<PortState>,
}

/// What to do with a new connection, request or flow.
#[derive(Debug, Clone, Copy)]
pub enum Verdict<'a> {
    /// Choose from this set.
    Forward(&'a Arc<EndpointSet>),
    /// No usable endpoint anywhere: refuse at the transport level.
    Refuse,
    /// Endpoints exist, but policy Local leaves none here: Kubernetes drops.
    Drop,
}

impl PortView {
    /// How its endpoints are chosen.
    pub fn policy(&self) -> BalancePolicy {
        let mut sets = [&self.cluster, &self.local].into_iter().flatten();
        sets.next()
            .map_or_else(BalancePolicy::default, |set| set.balance().policy)
    }

    /// Most connections of an endpoint at a time.
    pub fn endpoint_limit(&self) -> Option<NonZeroU32> {
        let mut sets = [&self.cluster, &self.local].into_iter().flatten();
        sets.next()?.balance().limit
    }

    /// Whether one of its endpoints may have a place for another connection.
    pub fn has_room(&self, now: Timestamp) -> bool {
        let mut sets = [&self.cluster, &self.local].into_iter().flatten();
        sets.any(|set| set.has_room(now))
    }

    /// The set that a client of `kind` may reach. `client_on_node` is the short-circuit for external frontends with
    /// policy Local: clients on this node get Cluster semantics (KEP-2086 and `kube-proxy`'s rules).
    pub fn verdict(&self, kind: FrontendKind, client_on_node: ClientPlace) -> Verdict<'_> {
        let set = if self.is_local(kind, client_on_node) {
            &self.local
        } else {
            &self.cluster
        };
        match set {
            Some(set) if !set.is_empty() => Verdict::Forward(set),
            _ if self.any => Verdict::Drop,
            _ => Verdict::Refuse,
        }
    }

    /// Whether such a client may reach this node's endpoints only.
    pub fn is_local(&self, kind: FrontendKind, client: ClientPlace) -> bool {
        if kind.is_external() {
            self.external_policy == TrafficPolicy::Local && client == ClientPlace::Elsewhere
        } else {
            self.internal_policy == TrafficPolicy::Local
        }
    }
}

/// Where a client is, as far as traffic policies and DNS ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientPlace {
    /// On this node (its source address is one of the host's).
    #[default]
    OnNode,
    /// Anywhere else.
    Elsewhere,
}

/// A Service as DNS, the data path and reports see it.
#[derive(Debug)]
pub struct ServiceView {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Where it was declared.
    pub origin: Origin,
    /// The validated manifest.
    pub spec: Arc<Service>,
    /// Addresses that it got; empty for headless and ExternalName.
    pub cluster_ips: Vec<IpAddr>,
    /// Load-balancer addresses that it got.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Slices that belong to it (written, mirrored or derived from pods), in a deterministic order.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// One entry a port and family, in the order of the manifest; empty for headless and ExternalName.
    pub ports: Vec<Arc<PortView>>,
    /// Every frontend with the index of its port in `ports`.
    pub frontends: Vec<(FrontendKey, FrontendKind, usize)>,
}

impl ServiceView {
    /// `namespace/name`, the key of [`Snapshot::service`].
    pub fn path(&self) -> String {
        service_path(&self.namespace, &self.name)
    }
}

/// `namespace/name`.
pub fn service_path(namespace: &str, name: &str) -> String {
    let mut path = String::with_capacity(namespace.len() + name.len() + 1);
    path.push_str(namespace);
    path.push('/');
    path.push_str(name);
    path
}

/// The compiled view. Cloning shares everything; only [`compile`] makes a changed one.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its number.
    pub generation: Generation,
    /// Ranges and domains.
    pub cluster: Arc<Cluster>,
    /// False until every required source has synced once; DNS answers misses with SERVFAIL until then.
    pub synced: bool,
    pub(crate) services: Sharded<Arc<str>, Arc<ServiceView>>,
    /// What DNS answers for each Service, by its name and namespace as labels in wire form.
    pub(crate) prepared: Sharded<Key, Arc<Prepared>>,
    pub(crate) frontends: Sharded<FrontendKey, Frontend>,
    /// Services behind an address: the owner of a cluster IP, or those an endpoint address belongs to.
    pub(crate) addresses: Sharded<IpAddr, AddressOwners>,
    /// Namespaces that exist, each with the number of objects in it.
    pub(crate) namespaces: Arc<BTreeMap<Arc<str>, usize>>,
}

/// Who uses an address, for PTR answers.
#[derive(Debug, Clone, Default)]
pub struct AddressOwners {
    /// The Service whose cluster IP it is.
    pub cluster_ip_of: Option<Arc<ServiceView>>,
    /// Services that have it as an endpoint, sorted by namespace and name.
    pub endpoint_of: Vec<Arc<ServiceView>>,
}

impl Snapshot {
    /// The snapshot of an empty world that no source has reported to yet.
    pub fn empty(cluster: Arc<Cluster>) -> Self {
        Self {
            generation: Generation(0),
            cluster,
            synced: false,
            services: Sharded::new(),
            prepared: Sharded::new(),
            frontends: Sharded::new(),
            addresses: Sharded::new(),
            namespaces: Arc::new(BTreeMap::new()),
        }
    }

    /// The Service `namespace/name` (see [`service_path`]).
    pub fn service(&self, path: &str) -> Option<&Arc<ServiceView>> {
        self.services.get(path)
    }

    /// What DNS answers for `service`.
    pub(crate) fn prepared_of(&self, service: &ServiceView) -> Option<Arc<Prepared>> {
        self.prepared.get(&*Prepared::key(service)).cloned()
    }

    /// All Services, sorted by namespace and name.
    pub fn services(&self) -> Vec<&Arc<ServiceView>> {
        let mut services: Vec<_> = self.services.iter().map(|(_, view)| view).collect();
        services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        services
    }

    /// The Frontend for a connection whose local address is `local`, on a socket declared for `declared_port`
    /// (the same number unless a fallback port stands in). An address in our own ranges matches exactly or not at
    /// all; any other host address may also be a node port. Every scope sees the frontends of the host: they are kept
    /// once, however many scopes there are.
    pub fn frontend(
        &self,
        _scope: Scope,
        local: SocketAddr,
        declared_port: u16,
        protocol: Protocol,
    ) -> Option<&Frontend> {
        let addr = local.ip().to_canonical();
        let key = FrontendKey {
            scope: Scope::HOST,
            addr,
            port: declared_port,
            protocol,
        };
        if let Some(frontend) = self.frontends.get(&key) {
            return Some(frontend);
        }
        if self.cluster.owns(addr) {
            return None;
        }
        self.frontends.get(&FrontendKey {
            addr: plan::any_address(IpFamily::of(addr)),
            ..key
        })
    }

    /// Whether the namespace exists: declared, or some object is in it.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// Namespaces that exist, sorted.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.keys()
    }

    /// Who uses `addr`.
    pub fn address_owners(&self, addr: IpAddr) -> Option<&AddressOwners> {
        self.addresses.get(&addr)
    }
}
