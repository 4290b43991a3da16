//! Typed Kubernetes objects with their origin. Owns the values that every later stage reads: decoded, defaulted and
//! validated, so nothing behind this module checks them again. Must not know where objects come from (files, a
//! cluster) nor what is derived from them (addresses, endpoints).

pub mod annotations;
pub mod app_protocol;
pub mod balancing;
pub mod decode;
pub mod diagnostic;
pub mod draining;
pub mod endpoint_probe;
pub mod endpoints;
pub mod limits;
pub mod meta;
pub mod pod;
pub mod proxy_protocol;
pub mod service;
pub mod source_address;
pub mod tree;
pub mod validate;
pub mod workload;

use std::sync::Arc;

pub use app_protocol::{AppProtocol, AppReason, Application, PortNames};
pub use balancing::{BalancePolicy, Weight};
pub use endpoint_probe::EndpointProbe;
pub use endpoints::{
    AddressType, Conditions, EndpointSlice, Endpoints, Hints, SliceEndpoint, SlicePort,
};
pub use meta::{Kind, Labels, Meta, ObjectKey, Origin, Position};
pub use pod::{Container, ContainerPort, Pod, PodSpec, Probe, ProbeCheck};
pub use proxy_protocol::ProxyProtocol;
pub use service::{
    ClusterIpRequest, Protocol, Service, ServicePort, ServiceType, TargetPort, TrafficPolicy,
};
pub use source_address::SourceAddress;
pub use workload::{LabelSelector, PodTemplate, Workload};

/// One validated Kubernetes object.
///
/// Equality covers the origin too, so an object whose lines moved is another object; everything that is compiled
/// from it is compared by value and stays the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Kind, namespace and name.
    pub key: ObjectKey,
    /// Labels, annotations and what else `metadata` carries.
    pub meta: Meta,
    /// Where it was declared.
    pub origin: Origin,
    /// The document as it was written, as JSON with sorted keys: what `get -o yaml` shows and overrides start from.
    pub manifest: Arc<str>,
    /// The part that depends on the kind.
    pub spec: Spec,
}

/// The part of an object that depends on its kind. A closed set: other kinds are inert and never become objects.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// `v1` Service.
    Service(Arc<Service>),
    /// `v1` Endpoints.
    Endpoints(Arc<Endpoints>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// `v1` Pod.
    Pod(Arc<Pod>),
    /// `apps/v1` Deployment, ReplicaSet, DaemonSet or StatefulSet (the key tells which).
    Workload(Arc<Workload>),
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
}
