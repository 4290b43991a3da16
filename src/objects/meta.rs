//! `metadata` of objects. Owns identities (uid), ages and what the API server adds to or takes from a declared
//! `metadata`; must not know any kind's `spec`.

use portico_core::{
    object::{Kind, Object, ObjectKey, annotations::SOURCE},
    time::Timestamp,
    world::pods::SimulatedPod,
};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    Resource, View,
    json::{Fields, fields, fill, parsed, set, text, within},
    time::rfc3339,
};

/// When an object was made: as far as is known, when the program started.
pub(super) const fn created_of(view: View<'_>) -> Timestamp {
    view.started
}

/// The version of objects: it rises whenever anything does.
pub(super) fn resource_version(view: View<'_>) -> String {
    view.snapshot.generation.0.max(1).to_string()
}

/// A uid that the same parts always have, in the form of RFC 9562 (version 8: the bits are ours).
pub(super) fn uid(parts: &[&str]) -> String {
    let hash = xxh3_128(parts.join("/").as_bytes());
    let hash = hash & !(0xf << 76) | (0x8 << 76);
    let hash = hash & !(0x3 << 62) | (0x2 << 62);
    let digits = format!("{hash:032x}");
    let mut text = String::with_capacity(36);
    for (index, digit) in digits.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// The uid of any object: a written one stays, so that written references to it hold.
pub(super) fn uid_of(view: View<'_>, key: &ObjectKey) -> String {
    if key.kind == Kind::Pod {
        let pod = (key.namespace.clone(), key.name.clone());
        if let Some(pod) = view.world.pods().pods.get(&pod) {
            return pod_uid(view, pod);
        }
    }
    // Parsing is spared for all that have none.
    let manifest = view.world.object(key).map(|object| &object.manifest);
    let written = manifest
        .filter(|manifest| manifest.contains("\"uid\""))
        .and_then(|manifest| match parsed(manifest).get("metadata") {
            Some(Value::Object(meta)) => Some(text(meta, "uid").to_owned()),
            _ => None,
        });
    written
        .filter(|uid| !uid.is_empty())
        .unwrap_or_else(|| uid(&[key.kind.as_str(), &key.namespace, &key.name]))
}

/// The uid of one incarnation of a simulated pod in this run.
pub(super) fn pod_uid(view: View<'_>, pod: &SimulatedPod) -> String {
    let run = view.started.as_millis().to_string();
    let number = pod.uid.0.to_string();
    uid(&["Pod", &pod.namespace, &pod.name, &number, &run])
}

/// A declared object as it was written, with the API server's `metadata`. A written `status` is still there.
pub(super) fn declared(view: View<'_>, resource: Resource, object: &Object) -> Fields {
    let mut made = parsed(&object.manifest);
    let key = &object.key;
    identify(view, &mut made, resource, (&key.namespace, &key.name));
    within(&mut made, "metadata", |meta| {
        meta.remove("managedFields");
        meta.remove("selfLink");
        fill(meta, "uid", uid_of(view, key));
        within(meta, "annotations", |annotations| {
            set(annotations, SOURCE, source(object));
        });
        if text(meta, "labels").is_empty() && meta.get("labels") == Some(&json!({})) {
            meta.remove("labels");
        }
    });
    made
}

/// Takes over the annotation of the place of declaration.
pub(super) fn set_source(annotations: &mut Fields, object: &Object) {
    set(annotations, SOURCE, source(object));
}

fn source(object: &Object) -> String {
    format!("{}:{}", object.origin.file, object.origin.position.line)
}

/// An object that a controller made.
pub(super) fn made(view: View<'_>, resource: Resource, (namespace, name): (&str, &str)) -> Fields {
    let mut made = Fields::new();
    identify(view, &mut made, resource, (namespace, name));
    let uid = uid(&[resource.kind(), namespace, name]);
    within(&mut made, "metadata", |meta| set(meta, "uid", uid));
    made
}

/// Everything that `metadata` has of every object but the uid.
fn identify(
    view: View<'_>,
    object: &mut Fields,
    resource: Resource,
    (namespace, name): (&str, &str),
) {
    set(object, "apiVersion", resource.api_version());
    set(object, "kind", resource.kind());
    within(object, "metadata", |meta| {
        set(meta, "name", name);
        if resource.is_namespaced() {
            set(meta, "namespace", namespace);
        } else {
            meta.remove("namespace");
        }
        set(meta, "creationTimestamp", rfc3339(created_of(view)));
        set(meta, "resourceVersion", resource_version(view));
        if has_generation(resource) {
            set(meta, "generation", 1);
        } else {
            meta.remove("generation");
        }
    });
}

/// Whether the API server counts the versions of the `spec`.
const fn has_generation(resource: Resource) -> bool {
    !matches!(
        resource,
        Resource::Services
            | Resource::Endpoints
            | Resource::Namespaces
            | Resource::Nodes
            | Resource::Events
            | Resource::Connections
    )
}

/// `metadata.ownerReferences` of what the controller of `owner` made.
pub(super) fn owner_references(view: View<'_>, owner: &ObjectKey) -> Value {
    let api_version = match owner.kind {
        Kind::Deployment | Kind::ReplicaSet | Kind::DaemonSet | Kind::StatefulSet => "apps/v1",
        _ => "v1",
    };
    json!([{
        "apiVersion": api_version,
        "kind": owner.kind.as_str(),
        "name": &*owner.name,
        "uid": uid_of(view, owner),
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}

/// Labels as JSON.
pub(super) fn labels(labels: &portico_core::object::Labels) -> Fields {
    let pairs = labels.iter();
    pairs
        .map(|(key, value)| (key.to_string(), Value::from(&**value)))
        .collect()
}

/// The reference to a Pod in an endpoint.
pub(super) fn pod_reference(view: View<'_>, namespace: &str, name: &str) -> Fields {
    let key = ObjectKey {
        kind: Kind::Pod,
        namespace: namespace.into(),
        name: name.into(),
    };
    fields(json!({"kind": "Pod", "namespace": namespace, "name": name, "uid": uid_of(view, &key)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_of_parts_is_stable_and_has_the_form_of_a_uuid() {
        let found = uid(&["Service", "default", "web"]);
        assert_eq!(found, uid(&["Service", "default", "web"]));
        assert_ne!(found, uid(&["Service", "default", "wed"]));
        let lengths: Vec<usize> = found.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(found.as_bytes()[14], b'8', "version");
        assert!(matches!(found.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }
}
