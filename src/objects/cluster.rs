//! Namespaces and Nodes. Owns those that nobody declared: `default`, namespaces that objects are in, and this
//! machine as the only node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use portico_core::{
    object::{Kind, ObjectKey},
    time::Timestamp,
};
use serde_json::{Value, json};

use super::{
    Resource, View,
    json::{Fields, fields, fill, fill_pointer, items, set, text, within},
    meta,
    pod_status::{HOST_IP, condition},
    slice::label,
    time::rfc3339,
};
use crate::host;

const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Declared namespaces, those that objects are in, and `default`. Namespaces of a cluster's own parts are listed
/// only if something is in them: nothing of a cluster runs here.
pub(super) fn namespaces(view: View<'_>) -> Vec<Fields> {
    let mut names: Vec<Arc<str>> = view.world.namespaces().keys().cloned().collect();
    if !view.world.namespaces().contains_key("default") {
        names.push("default".into());
    }
    names
        .into_iter()
        .map(|name| namespace(view, name))
        .collect()
}

fn namespace(view: View<'_>, name: Arc<str>) -> Fields {
    let key = ObjectKey {
        kind: Kind::Namespace,
        namespace: Arc::default(),
        name,
    };
    let resource = Resource::Namespaces;
    let mut made = match view.world.object(&key) {
        Some(object) => meta::declared(view, resource, object),
        None => meta::made(view, resource, ("", &key.name)),
    };
    within(&mut made, "metadata", |meta| {
        within(meta, "labels", |labels| {
            set(labels, "kubernetes.io/metadata.name", &*key.name);
        });
    });
    within(&mut made, "spec", |spec| {
        fill_pointer(spec, "finalizers", json!(["kubernetes"]));
    });
    set(&mut made, "status", json!({"phase": "Active"}));
    made
}

/// Declared nodes; this machine if there are none, or if pods run on it all the same.
pub(super) fn nodes(view: View<'_>) -> Vec<Fields> {
    let declared = view.world.objects();
    let mut nodes: Vec<Fields> = declared
        .filter(|(key, _)| key.kind == Kind::Node)
        .map(|(_, object)| declared_node(view, meta::declared(view, Resource::Nodes, object)))
        .collect();
    let here = &view.world.cluster().node_name;
    let is_here = |node: &Fields| {
        let meta = node.get("metadata").and_then(Value::as_object);
        meta.is_some_and(|meta| text(meta, "name") == &**here)
    };
    let mut pods = view.world.pods().pods.values();
    if nodes.is_empty() || !nodes.iter().any(is_here) && pods.any(|pod| pod.node == *here) {
        nodes.push(this_node(view));
    }
    nodes
}

/// A declared node keeps its status; nobody watches it here, so without one it counts as ready.
fn declared_node(view: View<'_>, mut node: Fields) -> Fields {
    let name = match node.get("metadata") {
        Some(Value::Object(meta)) => text(meta, "name").to_owned(),
        _ => String::new(),
    };
    within(&mut node, "metadata", |meta| {
        within(meta, "labels", |labels| {
            fill(labels, HOSTNAME_LABEL, &*name);
            let cluster = view.world.cluster();
            if let Some(zone) = cluster
                .zone
                .as_ref()
                .filter(|_| *cluster.node_name == *name)
            {
                fill(labels, ZONE_LABEL, &**zone);
            }
        });
    });
    within(&mut node, "spec", |_| {});
    within(&mut node, "status", |status| {
        if items(status, "conditions").next().is_none() {
            set(status, "conditions", conditions(view));
        }
        if items(status, "addresses").next().is_none() {
            let addresses = json!([{"type": "Hostname", "address": name}]);
            set(status, "addresses", addresses);
        }
        // Its pods run on this machine.
        fill_pointer(status, "capacity", capacity());
        let capacity = status.get("capacity").cloned().unwrap_or_default();
        fill_pointer(status, "allocatable", capacity);
        fill_pointer(status, "nodeInfo", node_info(view, &name));
        fill_pointer(
            status,
            "daemonEndpoints",
            json!({"kubeletEndpoint": {"Port": 0}}),
        );
    });
    node
}

fn this_node(view: View<'_>) -> Fields {
    let cluster = view.world.cluster();
    let name = &*cluster.node_name;
    let mut node = meta::made(view, Resource::Nodes, ("", name));
    let mut labels = fields(json!({
        HOSTNAME_LABEL: name,
        "kubernetes.io/arch": architecture(),
        "kubernetes.io/os": std::env::consts::OS,
        "beta.kubernetes.io/arch": architecture(),
        "beta.kubernetes.io/os": std::env::consts::OS,
    }));
    if let Some(zone) = &cluster.zone {
        set(&mut labels, ZONE_LABEL, &**zone);
    }
    within(&mut node, "metadata", |meta| set(meta, "labels", labels));
    let capacity = capacity();
    let pods = cluster.pod_cidr.to_string();
    set(
        &mut node,
        "spec",
        json!({"podCIDR": pods, "podCIDRs": [pods]}),
    );
    set(
        &mut node,
        "status",
        json!({
            "addresses": [
                {"type": "InternalIP", "address": HOST_IP},
                {"type": "Hostname", "address": name},
            ],
            "conditions": conditions(view),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "capacity": capacity,
            "allocatable": capacity,
            "nodeInfo": node_info(view, name),
        }),
    );
    node
}

fn conditions(view: View<'_>) -> Vec<Value> {
    let since = meta::created_of(view);
    let good = [
        (
            "MemoryPressure",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        ("Ready", "KubeletReady", "kubelet is posting ready status"),
    ];
    let heartbeat = heartbeat(view);
    let conditions = good.into_iter().map(|(kind, reason, message)| {
        let mut made = condition(kind, kind == "Ready", since);
        made.remove("lastProbeTime");
        set(&mut made, "lastHeartbeatTime", rfc3339(heartbeat));
        set(&mut made, "reason", reason);
        set(&mut made, "message", message);
        made.into()
    });
    conditions.collect()
}

/// When the node last said that it is well: every five minutes, as kubelet does while nothing changes
/// (`nodeStatusReportFrequency`), so that a watch is not told of each look.
fn heartbeat(view: View<'_>) -> Timestamp {
    const PERIOD: Duration = Duration::from_mins(5);
    let periods = view.now.since(view.started).as_secs() / PERIOD.as_secs();
    let periods = u32::try_from(periods).unwrap_or(u32::MAX);
    view.started.after(PERIOD.saturating_mul(periods))
}

/// Processors and memory of this machine; the number of pods is not limited.
fn capacity() -> Fields {
    let system = host::system();
    let mut capacity = fields(json!({"cpu": system.processors.to_string()}));
    if let Some(memory) = system.memory_kib {
        set(&mut capacity, "memory", format!("{memory}Ki"));
    }
    capacity
}

/// The identities are of the node's name: those of the machine are nobody's business (machine-id(5)).
fn node_info(view: View<'_>, name: &str) -> Value {
    let version = format!("portico/{}", env!("CARGO_PKG_VERSION"));
    let run = view.started.as_millis().to_string();
    let system = host::system();
    json!({
        "architecture": architecture(),
        "bootID": meta::uid(&["boot", name, &run]),
        "containerRuntimeVersion": format!("portico://{}", env!("CARGO_PKG_VERSION")),
        "kernelVersion": system.kernel,
        "kubeProxyVersion": version,
        "kubeletVersion": version,
        "machineID": meta::uid(&["machine", name]).replace('-', ""),
        "operatingSystem": std::env::consts::OS,
        "osImage": system.name,
        "systemUUID": meta::uid(&["system", name]),
    })
}

/// As Go names it (`GOARCH`).
const fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        std::env::consts::ARCH
    }
}

/// Zones of nodes by name.
pub(super) fn zones(view: View<'_>) -> BTreeMap<Arc<str>, String> {
    let mut zones: BTreeMap<Arc<str>, String> = nodes(view)
        .iter()
        .filter_map(|node| {
            let meta = node.get("metadata").and_then(Value::as_object)?;
            let zone = label(node, ZONE_LABEL);
            (!zone.is_empty()).then(|| (Arc::from(text(meta, "name")), zone.to_owned()))
        })
        .collect();
    let cluster = view.world.cluster();
    if let Some(zone) = &cluster.zone {
        let here = Arc::clone(&cluster.node_name);
        zones.entry(here).or_insert_with(|| zone.to_string());
    }
    zones
}
