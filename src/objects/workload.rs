//! The kinds of `apps/v1`: Deployment, ReplicaSet, DaemonSet and StatefulSet. Owns their defaults
//! (`pkg/apis/apps/v1/defaults.go` of Kubernetes) and the `metadata` of ReplicaSets that Deployments made; how far a
//! rollout is, is told by [`status`].

mod status;

use portico_core::{
    object::{
        Kind, LabelSelector, ObjectKey, Spec, Workload,
        workload::{IntOrPercent, LabelOperator, Strategy},
    },
    world::pods::RunningReplicaSet,
};
use serde_json::{Value, json};

use super::{
    Resource, View,
    json::{Fields, fields, fill, fill_pointer, parsed, set, within},
    meta, pod_spec,
    time::rfc3339,
};
use status::{Known, Statuses};

pub(super) fn deployments(view: View<'_>) -> Vec<Fields> {
    let statuses = Statuses::of(view);
    declared(&statuses, view, Kind::Deployment)
}

pub(super) fn replica_sets(view: View<'_>) -> Vec<Fields> {
    let statuses = Statuses::of(view);
    let mut sets = declared(&statuses, view, Kind::ReplicaSet);
    let made = statuses.made();
    sets.extend(made.map(|(running, owner, known)| of_deployment(view, running, owner, known)));
    sets
}

pub(super) fn daemon_sets(view: View<'_>) -> Vec<Fields> {
    declared(&Statuses::of(view), view, Kind::DaemonSet)
}

pub(super) fn stateful_sets(view: View<'_>) -> Vec<Fields> {
    declared(&Statuses::of(view), view, Kind::StatefulSet)
}

/// The declared objects of one kind.
fn declared(statuses: &Statuses<'_>, view: View<'_>, kind: Kind) -> Vec<Fields> {
    let (resource, fill_spec, nothing): (_, fn(&mut Fields, &Workload), _) = match kind {
        Kind::DaemonSet => {
            let nothing = json!({
                "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
            });
            (Resource::DaemonSets, fill_daemon_set, nothing)
        }
        Kind::StatefulSet => {
            let nothing = json!({"availableReplicas": 0, "replicas": 0});
            (Resource::StatefulSets, fill_stateful_set, nothing)
        }
        Kind::ReplicaSet => (
            Resource::ReplicaSets,
            fill_replica_set,
            json!({"replicas": 0}),
        ),
        _ => (Resource::Deployments, fill_deployment, json!({})),
    };
    let objects = view.world.objects().filter(|(key, _)| key.kind == kind);
    objects
        .filter_map(|(key, object)| {
            let Spec::Workload(workload) = &object.spec else {
                return None;
            };
            let mut made = meta::declared(view, resource, object);
            within(&mut made, "spec", |spec| fill_spec(spec, workload));
            match statuses.declared(key) {
                Some(known) => tell(&mut made, known),
                // Nobody controls it here: what was written is all that is known.
                None => fill_pointer(&mut made, "status", nothing.clone()),
            }
            Some(made)
        })
        .collect()
}

/// Writes down what is known.
fn tell(made: &mut Fields, known: Known) {
    set(made, "status", known.status);
    within(made, "metadata", |meta| {
        set(meta, "generation", known.generation);
        set(meta, "creationTimestamp", rfc3339(known.created));
        if !known.annotations.is_empty() {
            within(meta, "annotations", |annotations| {
                annotations.extend(known.annotations);
            });
        }
    });
}

/// A ReplicaSet that a Deployment made for one revision.
fn of_deployment(
    view: View<'_>,
    running: &RunningReplicaSet,
    owner: &ObjectKey,
    known: Known,
) -> Fields {
    let place = (&*running.namespace, &*running.name);
    let mut made = meta::made(view, Resource::ReplicaSets, place);
    within(&mut made, "metadata", |meta| {
        set(meta, "labels", meta::labels(&running.labels));
        let owners = meta::owner_references(view, owner);
        set(meta, "ownerReferences", owners);
    });
    set(&mut made, "spec", revision_spec(running));
    tell(&mut made, known);
    made
}

/// `spec` of a ReplicaSet of one revision.
fn revision_spec(running: &RunningReplicaSet) -> Fields {
    let mut template = parsed(&running.template.manifest);
    fill_template(&mut template);
    within(&mut template, "metadata", |meta| {
        set(meta, "labels", meta::labels(&running.labels));
    });
    let mut spec = fields(json!({"replicas": running.replicas}));
    if !running.min_ready.is_zero() {
        set(&mut spec, "minReadySeconds", running.min_ready.as_secs());
    }
    set(&mut spec, "selector", selector(&running.selector));
    set(&mut spec, "template", template);
    spec
}

fn fill_deployment(spec: &mut Fields, workload: &Workload) {
    fill_common(spec, workload);
    // Versions before apps/v1 had other defaults, and what was read says which; "none" was spelt as the largest.
    fill_pointer(spec, "replicas", workload.replicas);
    fill_pointer(
        spec,
        "revisionHistoryLimit",
        workload.revision_history_limit,
    );
    let deadline = workload.progress_deadline;
    let deadline = deadline.map_or(i64::from(i32::MAX), |deadline| {
        i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX)
    });
    fill_pointer(spec, "progressDeadlineSeconds", deadline);
    within(spec, "strategy", |strategy| {
        fill(strategy, "type", "RollingUpdate");
        if strategy.get("type") == Some(&json!("RollingUpdate")) {
            let (surge, unavailable) = overlap(workload);
            within(strategy, "rollingUpdate", |rolling| {
                fill_pointer(rolling, "maxSurge", surge);
                fill_pointer(rolling, "maxUnavailable", unavailable);
            });
        }
    });
}

/// `maxSurge` and `maxUnavailable` of a Deployment, as written or defaulted.
fn overlap(workload: &Workload) -> (Value, Value) {
    let amount = |amount| match amount {
        IntOrPercent::Int(number) => json!(number),
        IntOrPercent::Percent(percent) => json!(format!("{percent}%")),
    };
    match workload.strategy {
        Strategy::RollingUpdate {
            max_surge,
            max_unavailable,
        } => (amount(max_surge), amount(max_unavailable)),
        _ => (json!("25%"), json!("25%")),
    }
}

fn fill_replica_set(spec: &mut Fields, workload: &Workload) {
    fill_common(spec, workload);
    fill_pointer(spec, "replicas", workload.replicas);
}

fn fill_daemon_set(spec: &mut Fields, workload: &Workload) {
    fill_common(spec, workload);
    let limit = workload.revision_history_limit;
    fill_pointer(spec, "revisionHistoryLimit", limit);
    within(spec, "updateStrategy", |strategy| {
        fill(strategy, "type", "RollingUpdate");
        if strategy.get("type") == Some(&json!("RollingUpdate")) {
            within(strategy, "rollingUpdate", |rolling| {
                fill_pointer(rolling, "maxUnavailable", 1);
                fill_pointer(rolling, "maxSurge", 0);
            });
        }
    });
}

fn fill_stateful_set(spec: &mut Fields, workload: &Workload) {
    fill_common(spec, workload);
    fill_pointer(spec, "replicas", workload.replicas);
    fill_pointer(
        spec,
        "revisionHistoryLimit",
        workload.revision_history_limit,
    );
    fill(spec, "podManagementPolicy", "OrderedReady");
    fill_pointer(spec, "serviceName", "");
    within(spec, "persistentVolumeClaimRetentionPolicy", |policy| {
        fill(policy, "whenDeleted", "Retain");
        fill(policy, "whenScaled", "Retain");
    });
    within(spec, "updateStrategy", |strategy| {
        let is_given = strategy.contains_key("type");
        fill(strategy, "type", "RollingUpdate");
        let rolls = strategy.get("type") == Some(&json!("RollingUpdate"));
        // A type that is written without its parameters stays without them.
        if rolls && (!is_given || strategy.contains_key("rollingUpdate")) {
            within(strategy, "rollingUpdate", |rolling| {
                fill_pointer(rolling, "partition", 0);
            });
        }
    });
    super::json::each(spec, "volumeClaimTemplates", |claim| {
        fill(claim, "apiVersion", "v1");
        fill(claim, "kind", "PersistentVolumeClaim");
        within(claim, "spec", |spec| fill(spec, "volumeMode", "Filesystem"));
        within(claim, "status", |status| fill(status, "phase", "Pending"));
    });
}

fn fill_common(spec: &mut Fields, workload: &Workload) {
    fill_pointer(spec, "selector", selector(&workload.selector));
    within(spec, "template", fill_template);
}

fn fill_template(template: &mut Fields) {
    within(template, "metadata", |_| {});
    within(template, "spec", pod_spec::fill_spec);
}

fn selector(selector: &LabelSelector) -> Fields {
    let mut made = Fields::new();
    if !selector.match_labels.is_empty() {
        set(
            &mut made,
            "matchLabels",
            meta::labels(&selector.match_labels),
        );
    }
    let expressions: Vec<Value> = selector
        .match_expressions
        .iter()
        .map(|expression| {
            let (operator, values) = match &expression.operator {
                LabelOperator::In(values) => ("In", Some(values)),
                LabelOperator::NotIn(values) => ("NotIn", Some(values)),
                LabelOperator::Exists => ("Exists", None),
                LabelOperator::DoesNotExist => ("DoesNotExist", None),
            };
            let mut made = fields(json!({"key": &*expression.key, "operator": operator}));
            if let Some(values) = values {
                let values: Vec<Value> = values.iter().map(|value| json!(&**value)).collect();
                set(&mut made, "values", values);
            }
            made.into()
        })
        .collect();
    if !expressions.is_empty() {
        set(&mut made, "matchExpressions", expressions);
    }
    made
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portico_core::object::{PodSpec, PodTemplate};

    use super::*;

    /// With these defaults everything that is filled in comes from the API version of today.
    fn workload() -> Workload {
        let labels = [("app".into(), "web".into())];
        Workload {
            replicas: 1,
            selector: LabelSelector {
                match_labels: labels.clone().into(),
                match_expressions: Vec::new(),
            },
            template: Arc::new(PodTemplate {
                labels: labels.into(),
                annotations: [].into(),
                spec: Arc::new(PodSpec::default()),
                hash: 0,
                manifest: "{}".into(),
            }),
            strategy: Strategy::Recreate,
            min_ready: std::time::Duration::ZERO,
            progress_deadline: None,
            revision_history_limit: 10,
            paused: false,
            service_name: None,
            parallel: false,
        }
    }

    fn filled(written: Value, fill: fn(&mut Fields, &Workload)) -> Value {
        let mut spec = fields(written);
        fill(&mut spec, &workload());
        let filled_in = spec.remove("template");
        assert!(filled_in.is_some_and(|template| template["spec"]["dnsPolicy"] == "ClusterFirst"));
        assert_eq!(
            spec.remove("selector"),
            Some(json!({"matchLabels": {"app": "web"}}))
        );
        Value::Object(spec)
    }

    #[test]
    fn fill_daemon_set_knows_its_strategy() {
        assert_eq!(
            filled(json!({}), fill_daemon_set),
            json!({
                "revisionHistoryLimit": 10,
                "updateStrategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}, "type": "RollingUpdate"},
            })
        );
        let written = json!({"type": "OnDelete"});
        let spec = filled(json!({"updateStrategy": written}), fill_daemon_set);
        assert_eq!(spec["updateStrategy"], written);
    }

    #[test]
    fn fill_stateful_set_knows_policies_and_claims() {
        let claims =
            json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
        assert_eq!(
            filled(json!({"volumeClaimTemplates": claims}), fill_stateful_set),
            json!({
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
                "podManagementPolicy": "OrderedReady",
                "replicas": 1,
                "revisionHistoryLimit": 10,
                "serviceName": "",
                "updateStrategy": {"rollingUpdate": {"partition": 0}, "type": "RollingUpdate"},
                "volumeClaimTemplates": [{
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"},
                    "status": {"phase": "Pending"},
                }],
            })
        );
        let written = json!({"type": "RollingUpdate"});
        let spec = filled(json!({"updateStrategy": written}), fill_stateful_set);
        assert_eq!(spec["updateStrategy"], written);
    }
}
