//! EndpointSlice and Endpoints: reading and defaults.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{cursor::Cursor, marks::Marks};
use crate::object::{
    balancing::{Weight, Weights},
    endpoints::{
        AddressType, Conditions, EndpointSlice, EndpointSubset, Endpoints, Hints,
        SERVICE_NAME_LABEL, SliceEndpoint, SlicePort,
    },
    service::{HEADLESS_LABEL, SERVICE_PROXY_NAME_LABEL},
    validate::{balancing, endpoints as rules, syntax},
};

/// Label by which legacy Endpoints ask not to be mirrored into slices.
const SKIP_MIRROR_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
const ADDRESS_TYPES: [(&str, AddressType); 3] = [
    ("FQDN", AddressType::Fqdn),
    ("IPv4", AddressType::IPv4),
    ("IPv6", AddressType::IPv6),
];

/// Reads a whole slice. What it returns is good only if nothing was reported.
pub(super) fn read_slice(object: &Cursor<'_>, marks: &mut Marks) -> EndpointSlice {
    let meta = object.field("metadata");
    let labels = meta.field("labels");
    marks.add(&labels);
    let kind_of_address = object.field("addressType");
    if kind_of_address.non_empty().is_none() {
        kind_of_address.required("");
    }
    marks.add(&kind_of_address);
    let address_type = kind_of_address.one_of(&ADDRESS_TYPES);
    rules::check_slice(object);
    let endpoints = object.field("endpoints");
    let read = |item: Cursor<'_>| {
        marks.add(&item);
        slice_endpoint(&item, address_type)
    };
    let mut endpoints: Vec<_> = endpoints.items().map(read).collect();
    weigh(&meta.field("annotations"), &mut endpoints);
    let ports = object.field("ports");
    marks.add(&ports);
    let read = |item: Cursor<'_>| {
        marks.add(&item);
        port(&item)
    };
    EndpointSlice {
        service_name: labels.field(SERVICE_NAME_LABEL).non_empty().cloned(),
        address_type: address_type.unwrap_or(AddressType::IPv4),
        ports: ports.items().map(read).collect(),
        endpoints,
        is_for_another_proxy: [SERVICE_PROXY_NAME_LABEL, HEADLESS_LABEL]
            .iter()
            .any(|label| labels.field(label).is_present()),
    }
}

/// Reads whole Endpoints. What it returns is good only if nothing was reported.
pub(super) fn read_endpoints(object: &Cursor<'_>) -> Endpoints {
    let meta = object.field("metadata");
    let labels = meta.field("labels");
    let subsets = object.field("subsets");
    let mut subsets: Vec<_> = subsets.items().map(|item| subset(&item)).collect();
    let endpoints = subsets.iter_mut().flat_map(|subset| &mut subset.endpoints);
    weigh(&meta.field("annotations"), endpoints);
    Endpoints {
        subsets,
        skip_mirror: labels
            .field(SKIP_MIRROR_LABEL)
            .text()
            .is_some_and(|text| &**text == "true"),
    }
}

/// Gives each endpoint the weight that the annotations say.
fn weigh<'e>(annotations: &Cursor<'_>, endpoints: impl IntoIterator<Item = &'e mut SliceEndpoint>) {
    let weights = Weights::of(&annotations.labels());
    let mut addresses = BTreeSet::new();
    for endpoint in endpoints {
        endpoint.weight = weights.weight(endpoint.address);
        addresses.extend(endpoint.address);
    }
    balancing::check_slice(annotations, &addresses);
}

fn subset(subset: &Cursor<'_>) -> EndpointSubset {
    rules::check_subset(subset);
    let mut endpoints = Vec::new();
    for (list, ready) in [("addresses", true), ("notReadyAddresses", false)] {
        let conditions = Conditions {
            ready,
            serving: ready,
            terminating: false,
        };
        let list = subset.field(list);
        endpoints.extend(list.items().map(|item| {
            let ip = item.field("ip");
            if !ip.is_present() {
                ip.required("");
            }
            endpoint(&item, ip.reachable_address(), conditions)
        }));
    }
    let ports = subset.field("ports");
    EndpointSubset {
        endpoints,
        ports: ports.items().map(|item| port(&item)).collect(),
    }
}

fn slice_endpoint(item: &Cursor<'_>, address_type: Option<AddressType>) -> SliceEndpoint {
    let address = rules::check_addresses(&item.field("addresses"), address_type);
    // Unlike that of legacy Endpoints it is an optional text: an empty one is none that a name may be.
    if item.field("hostname").non_empty().is_none() {
        item.field("hostname").named_if_set(syntax::label);
    }
    let conditions = item.field("conditions");
    // Absent conditions read as Kubernetes' own proxy reads them.
    let conditions = Conditions {
        ready: conditions.field("ready").boolean().unwrap_or(true),
        serving: conditions.field("serving").boolean().unwrap_or(true),
        terminating: conditions.field("terminating").boolean().unwrap_or(false),
    };
    endpoint(item, address, conditions)
}

fn endpoint(item: &Cursor<'_>, address: Option<IpAddr>, conditions: Conditions) -> SliceEndpoint {
    let target = item.field("targetRef");
    let is_pod = target
        .field("kind")
        .text()
        .is_some_and(|kind| &**kind == "Pod");
    // The old API version kept node and zone as topology labels.
    let topology = item.field("topology");
    let old_node = topology
        .field("kubernetes.io/hostname")
        .non_empty()
        .cloned();
    let old_zone = topology
        .field("topology.kubernetes.io/zone")
        .non_empty()
        .cloned();
    SliceEndpoint {
        address,
        conditions,
        hostname: item.field("hostname").named(syntax::label),
        node_name: item
            .field("nodeName")
            .named_if_set(syntax::subdomain)
            .or(old_node),
        zone: item.field("zone").non_empty().cloned().or(old_zone),
        pod_name: target.field("name").non_empty().filter(|_| is_pod).cloned(),
        hints: hints(&item.field("hints")),
        weight: Weight::default(),
    }
}

fn hints(hints: &Cursor<'_>) -> Hints {
    let names = |field: &str| {
        let list = hints.field(field);
        let mut names: Vec<Arc<str>> = list
            .items()
            .filter_map(|item| item.field("name").non_empty().cloned())
            .collect();
        names.sort();
        names
    };
    Hints {
        zones: names("forZones"),
        nodes: names("forNodes"),
    }
}

/// A slice's port without a number is skipped by proxies; Kubernetes does not look at the range, but a number that
/// is no port cannot be meant.
fn port(item: &Cursor<'_>) -> SlicePort {
    SlicePort {
        name: item.field("name").named(syntax::label).unwrap_or_default(),
        protocol: item.field("protocol").protocol(),
        port: item.field("port").optional_port(),
        app_protocol: item
            .field("appProtocol")
            .named_if_set(syntax::qualified_name),
    }
}
