//! `discovery.k8s.io/v1` EndpointSlice and legacy `v1` Endpoints as the user wrote them. Owns the shapes; joining
//! them with Services belongs to the world. Semantics: Kubernetes API reference, EndpointSlice.

use std::{net::IpAddr, sync::Arc};

use super::{balancing::Weight, service::Protocol};

/// The label by which a slice names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// One EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The Service of the same namespace that it belongs to (its label); `None` when unlabelled: ignored.
    pub service_name: Option<Arc<str>>,
    /// `addressType`.
    pub address_type: AddressType,
    /// `ports`; a Service port joins by name and protocol.
    pub ports: Vec<SlicePort>,
    /// `endpoints`.
    pub endpoints: Vec<SliceEndpoint>,
    /// Labelled for another proxy or as headless: names have it, addresses are not served by it (kube-proxy does not
    /// watch such slices).
    pub is_for_another_proxy: bool,
}

/// `addressType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressType {
    /// IPv4 addresses.
    IPv4,
    /// IPv6 addresses.
    IPv6,
    /// Names; deprecated and without semantics: skipped.
    Fqdn,
}

/// One entry of a slice's `ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlicePort {
    /// Name; default empty.
    pub name: Arc<str>,
    /// Protocol; default TCP.
    pub protocol: Protocol,
    /// Number; without one the port is skipped.
    pub port: Option<u16>,
    /// `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
}

/// One endpoint of a slice. Only the first of its `addresses` is used, as Kubernetes' own proxy does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// First entry of `addresses`; `None` in a slice of type FQDN.
    pub address: Option<IpAddr>,
    /// `conditions`.
    pub conditions: Conditions,
    /// `hostname`, a DNS label: names the endpoint in DNS.
    pub hostname: Option<Arc<str>>,
    /// `nodeName`.
    pub node_name: Option<Arc<str>>,
    /// `zone`.
    pub zone: Option<Arc<str>>,
    /// `targetRef.name` when it refers to a Pod.
    pub pod_name: Option<Arc<str>>,
    /// `hints`.
    pub hints: Hints,
    /// `portico.dev/weight` and `portico.dev/weights`.
    pub weight: Weight,
}

/// Endpoint conditions with Kubernetes' reading of absent values: ready, serving, not terminating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Conditions {
    /// May get new connections.
    pub ready: bool,
    /// Would answer, whether or not it is terminating.
    pub serving: bool,
    /// Is being shut down.
    pub terminating: bool,
}

impl Conditions {
    /// Ready, serving, not terminating: what absent conditions mean.
    pub const READY: Self = Self {
        ready: true,
        serving: true,
        terminating: false,
    };
}

/// `hints` of an endpoint, sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hints {
    /// `forZones`.
    pub zones: Vec<Arc<str>>,
    /// `forNodes`.
    pub nodes: Vec<Arc<str>>,
}

/// Legacy Endpoints: `subsets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// `subsets`.
    pub subsets: Vec<EndpointSubset>,
    /// Label `endpointslice.kubernetes.io/skip-mirror: "true"`.
    pub skip_mirror: bool,
}

/// One subset: every address serves every port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSubset {
    /// `addresses` (ready) and `notReadyAddresses`, in this order, told apart by their conditions.
    pub endpoints: Vec<SliceEndpoint>,
    /// `ports`.
    pub ports: Vec<SlicePort>,
}
