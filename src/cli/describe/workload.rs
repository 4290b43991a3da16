//! ReplicaSets, Deployments, DaemonSets and StatefulSets. Owns their layout and which pods and ReplicaSets are theirs.

use portico_core::calendar::parse_rfc3339;
use serde_json::Value;

use super::{
    Related, events,
    json::{at, is_controlled_by, name, namespace, number, pairs, scalar, text},
    meta::{self, or_none},
    pod, volume,
    writer::Writer,
};
use crate::{cli::get::selector::Selector, objects::Resource};

/// A ReplicaSet.
pub(super) fn replica_set(out: &mut Writer, set: &Value, related: &Related) {
    meta::name(out, set);
    out.pair(0, "Selector", or_none(selector(set)));
    meta::labels_and_annotations(out, set);
    pod::controlled_by(out, set);
    let current = number(set, "/status/replicas");
    let desired = number(set, "/spec/replicas");
    out.pair(
        0,
        "Replicas",
        format_args!("{current} current / {desired} desired"),
    );
    out.pair(0, "Pods Status", pods_status(set, related));
    pod::template(out, at(set, "/spec/template"));
    meta::conditions(out, set);
    events::write(out, Resource::ReplicaSets, set, related);
}

/// A Deployment.
pub(super) fn deployment(out: &mut Writer, deployment: &Value, related: &Related) {
    meta::name(out, deployment);
    meta::created(out, deployment);
    meta::labels_and_annotations(out, deployment);
    out.pair(0, "Selector", selector(deployment));
    let status = |field: &str| number(deployment, &format!("/status/{field}"));
    out.pair(
        0,
        "Replicas",
        format_args!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            number(deployment, "/spec/replicas"),
            status("updatedReplicas"),
            status("replicas"),
            status("availableReplicas"),
            status("unavailableReplicas")
        ),
    );
    out.pair(0, "StrategyType", text(deployment, "/spec/strategy/type"));
    let min_ready = number(deployment, "/spec/minReadySeconds");
    out.pair(0, "MinReadySeconds", min_ready);
    if let Some(rolling) = at(deployment, "/spec/strategy/rollingUpdate") {
        out.pair(
            0,
            "RollingUpdateStrategy",
            format_args!(
                "{} max unavailable, {} max surge",
                scalar(rolling, "/maxUnavailable"),
                scalar(rolling, "/maxSurge")
            ),
        );
    }
    pod::template(out, at(deployment, "/spec/template"));
    meta::conditions(out, deployment);
    let sets = ReplicaSets::of(deployment, &related.replica_sets);
    if !sets.old.is_empty() || sets.new.is_some() {
        out.pair(0, "OldReplicaSets", list(&sets.old));
        out.pair(0, "NewReplicaSet", list(sets.new.as_slice()));
    }
    events::write(out, Resource::Deployments, deployment, related);
}

fn list(sets: &[&Value]) -> String {
    let texts: Vec<String> = sets
        .iter()
        .map(|set| {
            let (current, desired) = (
                number(set, "/status/replicas"),
                number(set, "/spec/replicas"),
            );
            format!("{} ({current}/{desired} replicas created)", name(set))
        })
        .collect();
    or_none(texts.join(", "))
}

/// A DaemonSet.
pub(super) fn daemon_set(out: &mut Writer, set: &Value, related: &Related) {
    meta::name(out, set);
    out.pair(0, "Selector", selector(set));
    let nodes = pairs(set, "/spec/template/spec/nodeSelector");
    out.pair(0, "Node-Selector", meta::joined(&nodes));
    meta::labels_and_annotations(out, set);
    for (title, field) in [
        (
            "Desired Number of Nodes Scheduled",
            "desiredNumberScheduled",
        ),
        (
            "Current Number of Nodes Scheduled",
            "currentNumberScheduled",
        ),
        (
            "Number of Nodes Scheduled with Up-to-date Pods",
            "updatedNumberScheduled",
        ),
        (
            "Number of Nodes Scheduled with Available Pods",
            "numberAvailable",
        ),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ] {
        let count = number(set, &format!("/status/{field}"));
        out.line(0, format_args!("{title}: {count}"));
    }
    out.pair(0, "Pods Status", pods_status(set, related));
    pod::template(out, at(set, "/spec/template"));
    events::write(out, Resource::DaemonSets, set, related);
}

/// A StatefulSet.
pub(super) fn stateful_set(out: &mut Writer, set: &Value, related: &Related) {
    meta::name(out, set);
    meta::created(out, set);
    out.pair(0, "Selector", selector(set));
    meta::labels_and_annotations(out, set);
    let (desired, total) = (
        number(set, "/spec/replicas"),
        number(set, "/status/replicas"),
    );
    out.pair(
        0,
        "Replicas",
        format_args!("{desired} desired | {total} total"),
    );
    let strategy = at(set, "/spec/updateStrategy").unwrap_or(&Value::Null);
    out.pair(0, "Update Strategy", text(strategy, "/type"));
    if let Some(partition) = at(strategy, "/rollingUpdate/partition") {
        out.pair(1, "Partition", partition);
        if let Some(most) = at(strategy, "/rollingUpdate/maxUnavailable") {
            out.pair(1, "MaxUnavailable", scalar(most, ""));
        }
    }
    out.pair(0, "Pods Status", pods_status(set, related));
    pod::template(out, at(set, "/spec/template"));
    volume::claims(out, set);
    events::write(out, Resource::StatefulSets, set, related);
}

fn selector(object: &Value) -> String {
    at(object, "/spec/selector")
        .map(meta::selector)
        .unwrap_or_default()
}

/// Pods that the selector chooses and that `owner` controls, by phase.
fn pods_status(owner: &Value, related: &Related) -> String {
    let selector = Selector::of_object(owner);
    let own = related.pods.iter().filter(|pod| {
        namespace(pod) == namespace(owner) && is_controlled_by(pod, owner) && selector.matches(pod)
    });
    let phases: Vec<&str> = own.map(|pod| text(pod, "/status/phase")).collect();
    let count = |phase| phases.iter().filter(|one| **one == phase).count();
    format!(
        "{} Running / {} Waiting / {} Succeeded / {} Failed",
        count("Running"),
        count("Pending"),
        count("Succeeded"),
        count("Failed")
    )
}

/// The ReplicaSets of a Deployment, oldest first.
pub(crate) struct ReplicaSets<'a> {
    /// Those with another template than the Deployment's.
    pub(crate) old: Vec<&'a Value>,
    /// The one with the Deployment's template; if there are several, the oldest.
    pub(crate) new: Option<&'a Value>,
}

impl<'a> ReplicaSets<'a> {
    /// Those of `all` that `deployment` selects and controls.
    pub(crate) fn of(deployment: &Value, all: &'a [Value]) -> Self {
        let selector = Selector::of_object(deployment);
        let mut old: Vec<&Value> = all
            .iter()
            .filter(|set| {
                namespace(set) == namespace(deployment)
                    && is_controlled_by(set, deployment)
                    && selector.matches(set)
            })
            .collect();
        old.sort_by_key(|set| {
            (
                parse_rfc3339(text(set, "/metadata/creationTimestamp")),
                name(set),
            )
        });
        let wanted = template(deployment);
        let new = old.iter().position(|set| template(set) == wanted);
        let new = new.map(|index| old.remove(index));
        Self { old, new }
    }
}

/// The template without the label that tells ReplicaSets apart, and without what is empty: the API does not tell apart
/// an empty list and none.
fn template(object: &Value) -> Option<Value> {
    let mut template = at(object, "/spec/template")?.clone();
    if let Some(Value::Object(labels)) = template.pointer_mut("/metadata/labels") {
        labels.remove("pod-template-hash");
    }
    Some(without_empty(template))
}

fn without_empty(value: Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match value {
        Value::Array(items) => items.into_iter().map(without_empty).collect(),
        Value::Object(fields) => {
            let fields = fields
                .into_iter()
                .map(|(key, value)| (key, without_empty(value)));
            Value::Object(fields.filter(|(_, value)| !is_empty(value)).collect())
        }
        other => other,
    }
}
