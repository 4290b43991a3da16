//! Legacy Endpoints: those that were written, and those that the endpoints controller would keep for Services with a
//! selector. Owns the grouping into subsets (`RepackSubsets` of Kubernetes).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use portico_core::{
    object::{AddressType, EndpointSlice, Kind, SliceEndpoint, SlicePort, service::IpFamily},
    snapshot::service_path,
    world::ServiceRecord,
};
use serde_json::Value;

use super::{
    Resource, View,
    json::{Fields, each, fill, set, text, within},
    meta,
    service::{endpoint_port, inherited_labels},
    slice::{controlled, selects},
};

pub(super) fn list(view: View<'_>) -> Vec<Fields> {
    let services = view.world.services();
    let is_controlled = |path: &str| services.get(path).is_some_and(|record| selects(record));
    let mut endpoints: Vec<Fields> = view
        .world
        .objects()
        .filter(|(key, _)| {
            key.kind == Kind::Endpoints && !is_controlled(&service_path(&key.namespace, &key.name))
        })
        .map(|(_, object)| written(meta::declared(view, Resource::Endpoints, object)))
        .collect();
    for (record, slices) in controlled(view) {
        if selects(record) {
            endpoints.push(derived(view, record, &slices));
        }
    }
    endpoints
}

fn written(mut endpoints: Fields) -> Fields {
    each(&mut endpoints, "subsets", |subset| {
        each(subset, "ports", |port| {
            fill(port, "protocol", "TCP");
            drop_empty_name(port);
        });
    });
    endpoints
}

fn drop_empty_name(port: &mut Fields) {
    if text(port, "name").is_empty() {
        port.remove("name");
    }
}

fn derived(view: View<'_>, record: &ServiceRecord, slices: &[&Arc<EndpointSlice>]) -> Fields {
    let key = &record.object.key;
    let mut endpoints = meta::made(view, Resource::Endpoints, (&key.namespace, &key.name));
    let mut labels = inherited_labels(record);
    let manager = "endpoints.kubernetes.io/managed-by";
    set(&mut labels, manager, "endpoint-controller");
    within(&mut endpoints, "metadata", |meta| {
        set(meta, "labels", labels);
    });
    // Endpoints know one family: the first.
    let wanted = match record.addresses.families.first() {
        Some(IpFamily::IPv6) => AddressType::IPv6,
        _ => AddressType::IPv4,
    };
    let of_family = slices.iter().filter(|slice| slice.address_type == wanted);
    let subsets: Vec<Value> = repacked(record, of_family.copied())
        .into_iter()
        .map(|(addresses, ports)| subset(view, &key.namespace, &addresses, &ports).into())
        .collect();
    if !subsets.is_empty() {
        set(&mut endpoints, "subsets", subsets);
    }
    endpoints
}

/// An address with the pod behind it, in the order of its text.
type Place<'a> = (String, Option<&'a Arc<str>>);
/// Addresses with their endpoints.
type Addresses<'a> = BTreeMap<Place<'a>, &'a SliceEndpoint>;

/// Addresses with the ports that all of them serve.
fn repacked<'a>(
    record: &ServiceRecord,
    slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
) -> Vec<(Addresses<'a>, Vec<&'a SlicePort>)> {
    let mut by_port: BTreeMap<Option<&SlicePort>, Addresses<'a>> = BTreeMap::new();
    for slice in slices {
        let mut ports: Vec<Option<&SlicePort>> = slice.ports.iter().map(Some).collect();
        // Without Service ports there are addresses without ports; otherwise a pod without the port is left out.
        if record.spec.ports.is_empty() {
            ports.push(None);
        }
        let tolerant = record.spec.publish_not_ready_addresses;
        for endpoint in &slice.endpoints {
            let Some(address) = endpoint.address else {
                continue;
            };
            if endpoint.conditions.terminating && !tolerant {
                continue;
            }
            for port in &ports {
                let place = (address.to_string(), endpoint.pod_name.as_ref());
                by_port.entry(*port).or_default().insert(place, endpoint);
            }
        }
    }
    let mut order: Vec<&str> = record.spec.ports.iter().map(|port| &*port.name).collect();
    order.dedup();
    let mut groups: Vec<(Addresses<'a>, Vec<&SlicePort>)> = Vec::new();
    for (port, addresses) in by_port {
        let keys: BTreeSet<_> = addresses.keys().collect();
        let same = groups
            .iter_mut()
            .find(|(of, _)| of.len() == keys.len() && of.keys().all(|key| keys.contains(key)));
        match same {
            Some((_, ports)) => ports.extend(port),
            None => groups.push((addresses, port.into_iter().collect())),
        }
    }
    for (_, ports) in &mut groups {
        ports.sort_by_key(|port| order.iter().position(|name| *name == &*port.name));
    }
    groups
}

fn subset(
    view: View<'_>,
    namespace: &str,
    addresses: &Addresses<'_>,
    ports: &[&SlicePort],
) -> Fields {
    let mut subset = Fields::new();
    for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
        let list: Vec<Value> = addresses
            .iter()
            .filter(|(_, endpoint)| endpoint.conditions.ready == ready)
            .map(|((ip, _), endpoint)| address(view, namespace, ip, endpoint).into())
            .collect();
        if !list.is_empty() {
            set(&mut subset, field, list);
        }
    }
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| {
            let mut port = endpoint_port(port);
            drop_empty_name(&mut port);
            port.into()
        })
        .collect();
    if !ports.is_empty() {
        set(&mut subset, "ports", ports);
    }
    subset
}

fn address(view: View<'_>, namespace: &str, ip: &str, endpoint: &SliceEndpoint) -> Fields {
    let mut address = Fields::new();
    set(&mut address, "ip", ip);
    if let Some(hostname) = &endpoint.hostname {
        set(&mut address, "hostname", &**hostname);
    }
    if let Some(node) = &endpoint.node_name {
        set(&mut address, "nodeName", &**node);
    }
    if let Some(pod) = &endpoint.pod_name {
        set(
            &mut address,
            "targetRef",
            meta::pod_reference(view, namespace, pod),
        );
    }
    address
}
