//! `v1` Service after defaulting and validation, before allocation. Owns what the user asked for; which addresses
//! the Service got belongs to the world. Field semantics: Kubernetes API reference, `ServiceSpec`.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::meta::Labels;

/// The label that hides a Service from this proxy (`kube-proxy` honours it in the same way).
pub const SERVICE_PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// The label whose presence makes a proxy ignore the Service and its slices.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// `spec` of a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// `spec.type`; default ClusterIP.
    pub service_type: ServiceType,
    /// `spec.clusterIP` and `spec.clusterIPs`.
    pub cluster_ip: ClusterIpRequest,
    /// `spec.ports`; unique by protocol and number, and by name. May be empty only if headless or ExternalName.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`; empty means the user supplies the slices.
    pub selector: Labels,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `spec.loadBalancerIP`.
    pub load_balancer_ip: Option<IpAddr>,
    /// `spec.loadBalancerClass`; a Service with a class is left to another implementation.
    pub load_balancer_class: Option<Arc<str>>,
    /// `spec.loadBalancerSourceRanges`; empty allows all.
    pub load_balancer_source_ranges: Vec<IpNet>,
    /// `spec.allocateLoadBalancerNodePorts`; default true.
    pub allocate_load_balancer_node_ports: bool,
    /// `spec.sessionAffinity: ClientIP` with its time-out (default 3 h); `None` without affinity.
    pub client_ip_affinity: Option<Duration>,
    /// `spec.externalTrafficPolicy`; default Cluster.
    pub external_traffic_policy: TrafficPolicy,
    /// `spec.internalTrafficPolicy`; default Cluster.
    pub internal_traffic_policy: TrafficPolicy,
    /// `spec.trafficDistribution`.
    pub traffic_distribution: Option<TrafficDistribution>,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: Option<u16>,
    /// `spec.publishNotReadyAddresses`; default false.
    pub publish_not_ready_addresses: bool,
    /// `spec.externalName` without a trailing dot, lower case; set exactly for type ExternalName.
    pub external_name: Option<Arc<str>>,
    /// `spec.ipFamilies`, empty when not given.
    pub ip_families: Vec<IpFamily>,
    /// `spec.ipFamilyPolicy`.
    pub ip_family_policy: Option<IpFamilyPolicy>,
}

impl Default for Service {
    /// What the API server makes of an empty `spec`; without ports, which it would demand.
    fn default() -> Self {
        Self {
            service_type: ServiceType::ClusterIP,
            cluster_ip: ClusterIpRequest::Auto,
            ports: Vec::new(),
            selector: Labels::new(),
            external_ips: Vec::new(),
            load_balancer_ip: None,
            load_balancer_class: None,
            load_balancer_source_ranges: Vec::new(),
            allocate_load_balancer_node_ports: true,
            client_ip_affinity: None,
            external_traffic_policy: TrafficPolicy::Cluster,
            internal_traffic_policy: TrafficPolicy::Cluster,
            traffic_distribution: None,
            health_check_node_port: None,
            publish_not_ready_addresses: false,
            external_name: None,
            ip_families: Vec::new(),
            ip_family_policy: None,
        }
    }
}

impl Service {
    /// Whether the Service has names only: headless or ExternalName.
    pub fn has_vip(&self) -> bool {
        self.service_type != ServiceType::ExternalName
            && self.cluster_ip != ClusterIpRequest::Headless
    }

    /// `spec.ipFamilyPolicy` with its default, which is both families only for a headless Service without a selector
    /// (`initIPFamilyFields` of the API server).
    pub fn family_policy(&self) -> IpFamilyPolicy {
        self.ip_family_policy
            .unwrap_or(if self.is_headless_without_selector() {
                IpFamilyPolicy::RequireDualStack
            } else {
                IpFamilyPolicy::SingleStack
            })
    }

    /// Whether its endpoints and their families are the user's alone.
    pub fn is_headless_without_selector(&self) -> bool {
        self.cluster_ip == ClusterIpRequest::Headless
            && self.service_type != ServiceType::ExternalName
            && self.selector.is_empty()
    }

    /// Whether node ports belong to the type.
    pub fn takes_node_ports(&self) -> bool {
        matches!(
            self.service_type,
            ServiceType::NodePort | ServiceType::LoadBalancer
        )
    }
}

impl Service {
    /// Whether a health check for load balancers belongs to it: type LoadBalancer with `externalTrafficPolicy: Local`.
    pub fn takes_health_check(&self) -> bool {
        self.service_type == ServiceType::LoadBalancer
            && self.external_traffic_policy == TrafficPolicy::Local
    }
}

/// `spec.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum ServiceType {
    /// A virtual IP only.
    ClusterIP,
    /// ClusterIP and a port on the host's own addresses.
    NodePort,
    /// NodePort and an address from the load-balancer pool.
    LoadBalancer,
    /// A DNS alias.
    ExternalName,
}

impl ServiceType {
    /// As manifests spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalName => "ExternalName",
        }
    }
}

/// What the manifest says about cluster IPs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterIpRequest {
    /// Not given: allocate.
    Auto,
    /// `None`: headless.
    Headless,
    /// One or two addresses, at most one a family.
    Static(Vec<IpAddr>),
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum IpFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

impl IpFamily {
    /// The family of `addr`.
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::IPv4,
            IpAddr::V6(_) => Self::IPv6,
        }
    }

    /// The one that this is not.
    pub const fn other(self) -> Self {
        match self {
            Self::IPv4 => Self::IPv6,
            Self::IPv6 => Self::IPv4,
        }
    }

    /// As manifests spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        }
    }
}

/// `spec.ipFamilyPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpFamilyPolicy {
    /// One family.
    SingleStack,
    /// Both where both exist.
    PreferDualStack,
    /// Both, or the Service is invalid.
    RequireDualStack,
}

impl IpFamilyPolicy {
    /// As manifests spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SingleStack => "SingleStack",
            Self::PreferDualStack => "PreferDualStack",
            Self::RequireDualStack => "RequireDualStack",
        }
    }
}

/// `spec.internalTrafficPolicy`, `spec.externalTrafficPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub enum TrafficPolicy {
    /// All endpoints.
    #[default]
    Cluster,
    /// Only endpoints on this node.
    Local,
}

/// `spec.trafficDistribution`; `PreferClose` is read as its new name `PreferSameZone`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum TrafficDistribution {
    /// Prefer endpoints of this zone.
    PreferSameZone,
    /// Prefer endpoints on this node, then of this zone.
    PreferSameNode,
}

/// Transport protocol of a port.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Protocol {
    /// TCP, the default.
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP: accepted as an object, not forwarded.
    #[serde(rename = "SCTP")]
    Sctp,
}

impl Protocol {
    /// Whether ports of this protocol are forwarded; others have names and addresses only.
    pub const fn is_forwarded(self) -> bool {
        !matches!(self, Self::Sctp)
    }

    /// As manifests spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// As SRV names spell it, without the underscore.
    pub const fn srv_label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of `spec.ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty only when it is the only port. The key by which slices join.
    pub name: Arc<str>,
    /// Protocol; default TCP.
    pub protocol: Protocol,
    /// Port of the virtual addresses, 1 to 65535.
    pub port: u16,
    /// Port of the pods; default: the same number.
    pub target_port: TargetPort,
    /// `nodePort`, when given.
    pub node_port: Option<u16>,
    /// `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
}

/// `targetPort`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// A number, 1 to 65535.
    Number(u16),
    /// The name of a container port, resolved pod by pod.
    Name(Arc<str>),
}

impl fmt::Display for TargetPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}
