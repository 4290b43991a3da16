//! EndpointSlices: those that were written, and those that a cluster's controllers would make (endpointslice and
//! endpointslicemirroring of kube-controller-manager). Owns their names and labels; which endpoints there are is the
//! world's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use portico_core::{
    object::{
        AddressType, EndpointSlice, Kind, ObjectKey, SliceEndpoint, Spec,
        endpoints::SERVICE_NAME_LABEL, service::IpFamily,
    },
    world::{ServiceRecord, pods::pod_name},
};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Resource, View,
    cluster::zones,
    json::{Fields, each, fill, set, text, within},
    meta,
    service::{endpoint_port, inherited_labels},
};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// `--max-endpoints-per-slice` of kube-controller-manager.
const MOST_ENDPOINTS: usize = 100;

pub(super) fn list(view: View<'_>) -> Vec<Fields> {
    let mut slices: Vec<Fields> = view
        .world
        .objects()
        .filter(|(key, _)| key.kind == Kind::EndpointSlice)
        .map(|(_, object)| written(meta::declared(view, Resource::EndpointSlices, object)))
        .collect();
    let maker = Maker {
        view,
        zones: zones(view),
    };
    for (record, made) in controlled(view) {
        slices.extend(maker.slices(record, &made));
    }
    slices
}

/// Every Service with the slices that controllers made for it: all but the written ones.
pub(super) fn controlled(
    view: View<'_>,
) -> impl Iterator<Item = (&ServiceRecord, Vec<&Arc<EndpointSlice>>)> {
    let objects = view.world.objects();
    let written: BTreeSet<*const EndpointSlice> = objects
        .filter_map(|(_, object)| match &object.spec {
            Spec::EndpointSlice(slice) => Some(Arc::as_ptr(slice)),
            _ => None,
        })
        .collect();
    view.world.services().values().map(move |record| {
        let slices = record.slices.iter();
        let made = slices.filter(|slice| !written.contains(&Arc::as_ptr(slice)));
        (&**record, made.collect())
    })
}

/// Whether a Service has its endpoints from pods.
pub(super) fn selects(record: &ServiceRecord) -> bool {
    !record.spec.selector.is_empty()
        && record.spec.service_type != portico_core::object::ServiceType::ExternalName
}

/// A written slice with its defaults; fields of the beta version become those of today.
fn written(mut slice: Fields) -> Fields {
    each(&mut slice, "ports", |port| {
        fill(port, "name", "");
        fill(port, "protocol", "TCP");
    });
    each(&mut slice, "endpoints", |endpoint| {
        if !endpoint.contains_key("conditions") {
            set(endpoint, "conditions", json!({}));
        }
        let Some(Value::Object(mut topology)) = endpoint.remove("topology") else {
            return;
        };
        let known = [
            ("kubernetes.io/hostname", "nodeName"),
            ("topology.kubernetes.io/zone", "zone"),
        ];
        for (label, field) in known {
            if let Some(value) = topology.remove(label) {
                fill(endpoint, field, value);
            }
        }
        if !topology.is_empty() {
            set(endpoint, "deprecatedTopology", topology);
        }
    });
    for list in ["endpoints", "ports"] {
        if slice.get(list).is_none_or(|items| items == &json!([])) {
            set(&mut slice, list, Value::Null);
        }
    }
    slice
}

struct Maker<'a> {
    view: View<'a>,
    /// Zones of nodes by name.
    zones: BTreeMap<Arc<str>, String>,
}

/// What one slice is made of.
struct Part<'a> {
    record: &'a ServiceRecord,
    slice: &'a EndpointSlice,
    endpoints: &'a [SliceEndpoint],
    /// Which of the slices with the same ports.
    index: usize,
}

impl Maker<'_> {
    fn slices(&self, record: &ServiceRecord, made: &[&Arc<EndpointSlice>]) -> Vec<Fields> {
        let mut slices = Vec::new();
        for slice in made {
            for (index, endpoints) in slice.endpoints.chunks(MOST_ENDPOINTS).enumerate() {
                slices.push(self.slice(&Part {
                    record,
                    slice,
                    endpoints,
                    index,
                }));
            }
        }
        if made.is_empty() && selects(record) {
            let families = record.addresses.families.iter().enumerate();
            slices.extend(families.map(|(index, family)| self.placeholder(record, *family, index)));
        }
        slices
    }

    /// A Service whose selector finds nothing has one empty slice a family.
    fn placeholder(&self, record: &ServiceRecord, family: IpFamily, index: usize) -> Fields {
        let address_type = match family {
            IpFamily::IPv6 => AddressType::IPv6,
            IpFamily::IPv4 => AddressType::IPv4,
        };
        let empty = EndpointSlice {
            is_for_another_proxy: false,
            service_name: None,
            address_type,
            ports: Vec::new(),
            endpoints: Vec::new(),
        };
        self.slice(&Part {
            record,
            slice: &empty,
            endpoints: &[],
            index,
        })
    }

    fn slice(&self, part: &Part<'_>) -> Fields {
        let record = part.record;
        let key = &record.object.key;
        let view = self.view;
        let address_type = match part.slice.address_type {
            AddressType::IPv4 => "IPv4",
            AddressType::IPv6 => "IPv6",
            AddressType::Fqdn => "FQDN",
        };
        let name = slice_name(key, part, address_type);
        let mut slice = meta::made(view, Resource::EndpointSlices, (&key.namespace, &name));
        within(&mut slice, "metadata", |meta| {
            set(meta, "generateName", format!("{}-", key.name));
            self.describe(meta, record);
        });
        set(&mut slice, "addressType", address_type);
        let ports: Vec<Value> = part
            .slice
            .ports
            .iter()
            .map(|port| endpoint_port(port).into())
            .collect();
        let endpoints: Vec<Value> = part
            .endpoints
            .iter()
            .map(|endpoint| self.endpoint(&key.namespace, endpoint).into())
            .collect();
        set(&mut slice, "ports", list_or_null(ports));
        set(&mut slice, "endpoints", list_or_null(endpoints));
        slice
    }

    /// Labels, annotations and owner.
    fn describe(&self, meta: &mut Fields, record: &ServiceRecord) {
        let key = &record.object.key;
        let endpoints = ObjectKey {
            kind: Kind::Endpoints,
            ..key.clone()
        };
        let mirrored = self.view.world.object(&endpoints);
        let (mut labels, manager, owner) = match mirrored.filter(|_| !selects(record)) {
            Some(object) => {
                let mut annotations = meta::labels(&object.meta.annotations);
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
                if !annotations.is_empty() {
                    set(meta, "annotations", annotations);
                }
                let labels = meta::labels(&object.meta.labels);
                (
                    labels,
                    "endpointslicemirroring-controller.k8s.io",
                    &endpoints,
                )
            }
            None => (
                inherited_labels(record),
                "endpointslice-controller.k8s.io",
                key,
            ),
        };
        set(&mut labels, SERVICE_NAME_LABEL, &*key.name);
        set(&mut labels, MANAGED_BY, manager);
        set(meta, "labels", labels);
        let owners = meta::owner_references(self.view, owner);
        set(meta, "ownerReferences", owners);
    }

    fn endpoint(&self, namespace: &str, endpoint: &SliceEndpoint) -> Fields {
        let mut made = Fields::new();
        let address = endpoint.address.iter();
        let addresses: Vec<String> = address.map(ToString::to_string).collect();
        set(&mut made, "addresses", addresses);
        set(&mut made, "conditions", json!(endpoint.conditions));
        let node = endpoint.node_name.as_ref();
        let zone = endpoint.zone.as_deref();
        let zone = zone.or_else(|| node.and_then(|node| self.zones.get(node).map(String::as_str)));
        let texts = [
            ("hostname", endpoint.hostname.as_deref()),
            ("nodeName", node.map(|node| &**node)),
            ("zone", zone),
        ];
        for (field, value) in texts {
            if let Some(value) = value {
                set(&mut made, field, value);
            }
        }
        if let Some(pod) = &endpoint.pod_name {
            let reference = meta::pod_reference(self.view, namespace, pod);
            set(&mut made, "targetRef", reference);
        }
        let hints = hints(endpoint);
        if !hints.is_empty() {
            set(&mut made, "hints", hints);
        }
        made
    }
}

fn hints(endpoint: &SliceEndpoint) -> Fields {
    let lists = [
        ("forZones", &endpoint.hints.zones),
        ("forNodes", &endpoint.hints.nodes),
    ];
    let filled = lists.into_iter().filter(|(_, names)| !names.is_empty());
    filled
        .map(|(field, names)| {
            let names = names.iter().map(|name| json!({"name": &**name}));
            (field.to_owned(), names.collect())
        })
        .collect()
}

/// `SERVICE-xxxxx`: the same as long as the ports are.
fn slice_name(service: &ObjectKey, part: &Part<'_>, address_type: &str) -> String {
    use std::fmt::Write as _;
    let mut drawn = format!("{}/{address_type}/{}", service.namespace, part.index);
    for port in &part.slice.ports {
        // Writing to a String cannot fail.
        let _ = write!(drawn, "/{}:{}:{:?}", port.name, port.protocol, port.port);
    }
    pod_name(&service.name, xxh3_64(drawn.as_bytes()), 0)
}

/// An empty list is written as null: the field is not optional, and Go's nil is what it holds.
fn list_or_null(items: Vec<Value>) -> Value {
    if items.is_empty() {
        Value::Null
    } else {
        Value::Array(items)
    }
}

/// The text of an object's label.
pub(super) fn label<'a>(object: &'a Fields, name: &str) -> &'a str {
    let meta = object.get("metadata").and_then(Value::as_object);
    let labels = meta
        .and_then(|meta| meta.get("labels"))
        .and_then(Value::as_object);
    labels.map(|labels| text(labels, name)).unwrap_or_default()
}
