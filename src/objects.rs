//! Kubernetes objects as JSON, as an API server would give them: what was declared with its defaults, beside the
//! status that this program knows. Owns names of resources ([`resource`]) and the shapes (Kubernetes API reference,
//! v1.35); must not print: kubectl's columns and layouts are the command line's.

mod cluster;
pub mod connection;
mod endpoints;
mod event;
mod json;
mod meta;
mod pod;
mod pod_spec;
mod pod_status;
mod qos;
pub mod resource;
mod service;
mod slice;
pub mod time;
mod workload;

use portico_core::{snapshot::Snapshot, time::Timestamp, world::World};
use serde_json::Value;

pub use resource::Resource;

use crate::control::status::ListenerReports;

/// What objects are made from.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Declared objects, pods, events.
    pub world: &'a World,
    /// Services as they are forwarded.
    pub snapshot: &'a Snapshot,
    /// Sockets that are not simply listening on what was declared; empty offline.
    pub listeners: &'a ListenerReports,
    /// When the program started: the age of what has no other. Offline the time of reading.
    pub started: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// All objects of one resource, sorted by namespace and name; the keys of every JSON object are sorted too, as
/// kubectl prints them.
pub fn list(view: View<'_>, resource: Resource) -> Vec<Value> {
    let objects = match resource {
        Resource::Services => service::list(view),
        Resource::Endpoints => endpoints::list(view),
        Resource::EndpointSlices => slice::list(view),
        Resource::Pods => pod::list(view),
        Resource::ReplicaSets => workload::replica_sets(view),
        Resource::Deployments => workload::deployments(view),
        Resource::DaemonSets => workload::daemon_sets(view),
        Resource::StatefulSets => workload::stateful_sets(view),
        Resource::Namespaces => cluster::namespaces(view),
        Resource::Nodes => cluster::nodes(view),
        Resource::Events => event::list(view),
        // Of no World: whoever knows the data path makes them.
        Resource::Connections => Vec::new(),
    };
    let mut objects: Vec<Value> = objects.into_iter().map(Value::Object).collect();
    objects.sort_by(|a, b| place(a).cmp(&place(b)));
    for object in &mut objects {
        object.sort_all_objects();
    }
    objects
}

/// Namespace and name.
fn place(object: &Value) -> (&str, &str) {
    let text = |field: &str| {
        let value = object.get("metadata").and_then(|meta| meta.get(field));
        value.and_then(Value::as_str).unwrap_or_default()
    };
    (text("namespace"), text("name"))
}

#[cfg(test)]
mod tests;
