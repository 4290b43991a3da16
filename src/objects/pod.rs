//! Pods: simulated ones, declared ones that run elsewhere, and declared ones that nobody runs. Owns which pods there
//! are and their `metadata`; defaults and status belong to [`super::pod_spec`] and [`super::pod_status`].

use std::sync::Arc;

use portico_core::{
    object::{Kind, Object, ObjectKey, Pod, Spec},
    world::{
        Simulation,
        pods::{PodPhase, SimulatedPod},
    },
};
use serde_json::Value;

use super::{
    Resource, View,
    json::{Fields, parsed, set, within},
    meta, pod_spec, pod_status,
    time::rfc3339,
};

pub(super) fn list(view: View<'_>) -> Vec<Fields> {
    let table = view.world.pods();
    let mut pods: Vec<Fields> = table
        .pods
        .values()
        .map(|pod| simulated(view, pod))
        .collect();
    let declared = view.world.objects();
    pods.extend(declared.filter_map(|(key, object)| match &object.spec {
        Spec::Pod(pod) => not_simulated(view, key, object, pod),
        _ => None,
    }));
    pods
}

fn simulated(view: View<'_>, pod: &Arc<SimulatedPod>) -> Fields {
    let mut made = parsed(&pod.manifest);
    set(&mut made, "apiVersion", "v1");
    set(&mut made, "kind", "Pod");
    within(&mut made, "metadata", |meta| describe(view, pod, meta));
    let node = (!matches!(pod.phase, PodPhase::Pending)).then(|| Arc::clone(&pod.node));
    let spec = fill_spec(&mut made, node.as_deref());
    let status = pod_status::simulated(view, pod, &spec);
    set(&mut made, "status", status);
    made
}

/// `metadata` of a simulated pod; from a template nothing is left of it but what became the pod's.
fn describe(view: View<'_>, pod: &Arc<SimulatedPod>, meta: &mut Fields) {
    let key = ObjectKey {
        kind: Kind::Pod,
        namespace: Arc::clone(&pod.namespace),
        name: Arc::clone(&pod.name),
    };
    let object = view.world.object(&key).filter(|_| pod.owner.is_none());
    for field in ["managedFields", "selfLink", "labels", "annotations"] {
        meta.remove(field);
    }
    set(meta, "name", &*pod.name);
    set(meta, "namespace", &*pod.namespace);
    set(meta, "uid", meta::pod_uid(view, pod));
    set(meta, "creationTimestamp", rfc3339(pod.created));
    set(meta, "resourceVersion", meta::resource_version(view));
    set(meta, "generation", 1);
    if !pod.labels.is_empty() {
        set(meta, "labels", meta::labels(&pod.labels));
    }
    let mut annotations = meta::labels(&pod.annotations);
    if let Some(object) = object {
        meta::set_source(&mut annotations, object);
    }
    if !annotations.is_empty() {
        set(meta, "annotations", annotations);
    }
    if let Some(owner) = &pod.owner {
        set(meta, "generateName", format!("{}-", owner.name));
        let owner = ObjectKey {
            kind: owner.kind,
            namespace: Arc::clone(&pod.namespace),
            name: Arc::clone(&owner.name),
        };
        set(
            meta,
            "ownerReferences",
            meta::owner_references(view, &owner),
        );
    }
    pod_status::set_deletion(meta, pod);
}

/// Fills the spec in and tells what became of it.
fn fill_spec(made: &mut Fields, node: Option<&str>) -> Fields {
    let mut filled = Fields::new();
    within(made, "spec", |spec| {
        pod_spec::fill_spec(spec);
        pod_spec::fill_pod(spec);
        if let Some(node) = node {
            set(spec, "nodeName", node);
        }
        filled.clone_from(spec);
    });
    filled
}

/// A declared pod that is not simulated; `None` for one that is, or that was deleted at run time.
fn not_simulated(view: View<'_>, key: &ObjectKey, object: &Object, pod: &Pod) -> Option<Fields> {
    let table = view.world.pods();
    let place = (Arc::clone(&key.namespace), Arc::clone(&key.name));
    if table.pods.contains_key(&place) {
        return None;
    }
    let elsewhere = !pod.pod_ips.is_empty() || pod.finished;
    let unplaced = || table.unplaced().any(|(owner, _)| owner == key);
    if !elsewhere && !pod.terminating && view.world.simulation() == Simulation::On && !unplaced() {
        return None;
    }
    let mut made = meta::declared(view, Resource::Pods, object);
    let spec = fill_spec(&mut made, None);
    if elsewhere {
        let ready = view.world.declared_pod_ready(&place, pod);
        pod_status::elsewhere((view, ready), key, pod, &mut made);
    } else {
        set(
            &mut made,
            "status",
            Value::Object(pod_status::pending(&spec)),
        );
    }
    Some(made)
}
