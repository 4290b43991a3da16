//! Columns of `ReplicaSets`, Deployments, `DaemonSets` and `StatefulSets`.

use portico_core::time::Timestamp;
use serde_json::Value;

use super::{
    CONTAINERS, Column, Detail::Usual, IMAGES, NONE, SELECTOR, age, labels, list, name, number,
    selector, text,
};

pub(super) const REPLICA_SET: &[Column] = &[
    ("NAME", Usual),
    ("DESIRED", Usual),
    ("CURRENT", Usual),
    ("READY", Usual),
    ("AGE", Usual),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(super) const DEPLOYMENT: &[Column] = &[
    ("NAME", Usual),
    ("READY", Usual),
    ("UP-TO-DATE", Usual),
    ("AVAILABLE", Usual),
    ("AGE", Usual),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(super) const DAEMON_SET: &[Column] = &[
    ("NAME", Usual),
    ("DESIRED", Usual),
    ("CURRENT", Usual),
    ("READY", Usual),
    ("UP-TO-DATE", Usual),
    ("AVAILABLE", Usual),
    ("NODE SELECTOR", Usual),
    ("AGE", Usual),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
pub(super) const STATEFUL_SET: &[Column] = &[
    ("NAME", Usual),
    ("READY", Usual),
    ("AGE", Usual),
    CONTAINERS,
    IMAGES,
];

pub(super) fn replica_set(object: &Value, now: Timestamp) -> Vec<String> {
    let [containers, images] = containers(object);
    vec![
        name(object),
        desired(object).to_string(),
        number(object, "/status/replicas").to_string(),
        number(object, "/status/readyReplicas").to_string(),
        age(object, now),
        containers,
        images,
        selector_or_none(object),
    ]
}

pub(super) fn deployment(object: &Value, now: Timestamp) -> Vec<String> {
    let [containers, images] = containers(object);
    let ready = number(object, "/status/readyReplicas");
    vec![
        name(object),
        format!("{ready}/{}", desired(object)),
        number(object, "/status/updatedReplicas").to_string(),
        number(object, "/status/availableReplicas").to_string(),
        age(object, now),
        containers,
        images,
        selector(object.pointer("/spec/selector")),
    ]
}

pub(super) fn daemon_set(object: &Value, now: Timestamp) -> Vec<String> {
    let [containers, images] = containers(object);
    let status = |field: &str| number(object, &format!("/status/{field}")).to_string();
    vec![
        name(object),
        status("desiredNumberScheduled"),
        status("currentNumberScheduled"),
        status("numberReady"),
        status("updatedNumberScheduled"),
        status("numberAvailable"),
        labels(object.pointer("/spec/template/spec/nodeSelector")),
        age(object, now),
        containers,
        images,
        selector_or_none(object),
    ]
}

pub(super) fn stateful_set(object: &Value, now: Timestamp) -> Vec<String> {
    let [containers, images] = containers(object);
    let ready = number(object, "/status/readyReplicas");
    vec![
        name(object),
        format!("{ready}/{}", desired(object)),
        age(object, now),
        containers,
        images,
    ]
}

/// `spec.replicas`, which the API server defaults to 1.
fn desired(object: &Value) -> i64 {
    let declared = object.pointer("/spec/replicas").and_then(Value::as_i64);
    declared.unwrap_or(1)
}

fn containers(object: &Value) -> [String; 2] {
    let containers = list(object, "/spec/template/spec/containers");
    ["/name", "/image"].map(|field| {
        let values: Vec<String> = containers.iter().map(|item| text(item, field)).collect();
        values.join(",")
    })
}

fn selector_or_none(object: &Value) -> String {
    match selector(object.pointer("/spec/selector")) {
        none if none.is_empty() => NONE.to_owned(),
        found => found,
    }
}
