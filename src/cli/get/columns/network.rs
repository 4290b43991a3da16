//! Columns of Services, endpoints and nodes.

use std::collections::BTreeSet;

use portico_core::time::Timestamp;
use serde_json::Value;

use super::{Detail, NONE, age, labels, list, name, number, text, text_or};

/// Most addresses and ports that a cell shows.
const MOST: usize = 3;
/// Longest list of a load balancer's addresses, in bytes, unless wide.
const LOAD_BALANCER_WIDTH: usize = 16;

pub(super) fn service(object: &Value, detail: Detail, now: Timestamp) -> Vec<String> {
    let ports: Vec<String> = list(object, "/spec/ports").iter().map(port).collect();
    vec![
        name(object),
        text(object, "/spec/type"),
        text_or(object, "/spec/clusterIPs/0", NONE),
        external_ip(object, detail),
        or_none(ports.join(",")),
        age(object, now),
        labels(object.pointer("/spec/selector")),
    ]
}

fn port(port: &Value) -> String {
    let protocol = text(port, "/protocol");
    match (number(port, "/port"), number(port, "/nodePort")) {
        (port, 0) => format!("{port}/{protocol}"),
        (port, node_port) => format!("{port}:{node_port}/{protocol}"),
    }
}

fn external_ip(object: &Value, detail: Detail) -> String {
    let declared: Vec<&str> = list(object, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text(object, "/spec/type").as_str() {
        "ClusterIP" | "NodePort" => or_none(declared.join(",")),
        "LoadBalancer" => {
            let balancer = load_balancer(object, detail);
            let all: Vec<&str> = [balancer.as_str()]
                .into_iter()
                .filter(|address| !address.is_empty())
                .chain(declared)
                .collect();
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        "ExternalName" => text(object, "/spec/externalName"),
        _ => "<unknown>".to_owned(),
    }
}

fn load_balancer(object: &Value, detail: Detail) -> String {
    let ingress = list(object, "/status/loadBalancer/ingress").iter();
    let addresses: BTreeSet<String> = ingress
        .map(|ingress| match text(ingress, "/ip") {
            ip if ip.is_empty() => text(ingress, "/hostname"),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    let addresses = addresses.into_iter().collect::<Vec<_>>().join(",");
    let clipped = addresses.get(..LOAD_BALANCER_WIDTH - 3);
    match clipped {
        Some(clipped) if detail == Detail::Usual && addresses.len() > LOAD_BALANCER_WIDTH => {
            format!("{clipped}...")
        }
        _ => addresses,
    }
}

pub(super) fn endpoints(object: &Value, now: Timestamp) -> Vec<String> {
    let subsets = list(object, "/subsets");
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = list(subset, "/addresses").iter();
        let addresses: Vec<String> = addresses.map(|address| text(address, "/ip")).collect();
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            all.extend(addresses);
            continue;
        }
        for port in ports {
            let port = number(port, "/port");
            all.extend(addresses.iter().map(|ip| {
                if ip.contains(':') {
                    format!("[{ip}]:{port}")
                } else {
                    format!("{ip}:{port}")
                }
            }));
        }
    }
    let shown = if subsets.is_empty() {
        NONE.to_owned()
    } else {
        few(&all)
    };
    vec![name(object), shown, age(object, now)]
}

pub(super) fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<String> {
    let ports = list(object, "/ports").iter();
    let ports: Vec<String> = ports
        .map(|port| {
            let number = port.get("port").and_then(Value::as_i64);
            let name = port.get("name").and_then(Value::as_str);
            number.map_or_else(
                || name.unwrap_or("*").to_owned(),
                |number| number.to_string(),
            )
        })
        .collect();
    let addresses: Vec<String> = list(object, "/endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let or_unset = |text: String| {
        if text.is_empty() {
            "<unset>".to_owned()
        } else {
            text
        }
    };
    vec![
        name(object),
        text(object, "/addressType"),
        or_unset(few(&ports)),
        or_unset(few(&addresses)),
        age(object, now),
    ]
}

/// The first three, and how many there are beside.
fn few(all: &[String]) -> String {
    match all.get(..MOST) {
        Some(shown) if all.len() > MOST => {
            format!("{} + {} more...", shown.join(","), all.len() - MOST)
        }
        _ => all.join(","),
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() {
        NONE.to_owned()
    } else {
        text
    }
}

pub(super) fn node(object: &Value, now: Timestamp) -> Vec<String> {
    let mut conditions = list(object, "/status/conditions").iter();
    let ready = conditions.find(|condition| text(condition, "/type") == "Ready");
    let mut status = match ready.map(|ready| text(ready, "/status")).as_deref() {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let mut addresses = list(object, "/status/addresses").iter();
        let found = addresses.find(|address| text(address, "/type") == kind);
        found.map_or_else(|| NONE.to_owned(), |found| text(found, "/address"))
    };
    let info = |name: &str| text_or(object, &format!("/status/nodeInfo/{name}"), "<unknown>");
    vec![
        name(object),
        status,
        or_none(roles(object)),
        age(object, now),
        text(object, "/status/nodeInfo/kubeletVersion"),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn roles(object: &Value) -> String {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let roles: BTreeSet<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}
