//! What the columns of each resource show: the API server's printers (Kubernetes 1.35,
//! `pkg/printers/internalversion`). Owns names, order, placeholders and clipping; must not align.

mod connection;
mod network;
mod pod;
mod workload;

use portico_core::time::Timestamp;
use serde_json::{Map, Value};

use crate::{cli::age, objects::Resource};

/// What stands for nothing.
pub(super) const NONE: &str = "<none>";

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// The usual columns.
    Usual,
    /// And those of `-o wide`; addresses in full.
    Wide,
}

/// A column's name, and whether only `-o wide` has it.
type Column = (&'static str, Detail);

use Detail::{Usual, Wide};

const CONTAINERS: Column = ("CONTAINERS", Wide);
const IMAGES: Column = ("IMAGES", Wide);
const SELECTOR: Column = ("SELECTOR", Wide);

/// All columns of a resource.
const fn columns(resource: Resource) -> &'static [Column] {
    match resource {
        Resource::Services => &[
            ("NAME", Usual),
            ("TYPE", Usual),
            ("CLUSTER-IP", Usual),
            ("EXTERNAL-IP", Usual),
            ("PORT(S)", Usual),
            ("AGE", Usual),
            SELECTOR,
        ],
        Resource::Endpoints => &[("NAME", Usual), ("ENDPOINTS", Usual), ("AGE", Usual)],
        Resource::EndpointSlices => &[
            ("NAME", Usual),
            ("ADDRESSTYPE", Usual),
            ("PORTS", Usual),
            ("ENDPOINTS", Usual),
            ("AGE", Usual),
        ],
        Resource::Pods => pod::COLUMNS,
        Resource::ReplicaSets => workload::REPLICA_SET,
        Resource::Deployments => workload::DEPLOYMENT,
        Resource::DaemonSets => workload::DAEMON_SET,
        Resource::StatefulSets => workload::STATEFUL_SET,
        Resource::Namespaces => &[("NAME", Usual), ("STATUS", Usual), ("AGE", Usual)],
        Resource::Nodes => &[
            ("NAME", Usual),
            ("STATUS", Usual),
            ("ROLES", Usual),
            ("AGE", Usual),
            ("VERSION", Usual),
            ("INTERNAL-IP", Wide),
            ("EXTERNAL-IP", Wide),
            ("OS-IMAGE", Wide),
            ("KERNEL-VERSION", Wide),
            ("CONTAINER-RUNTIME", Wide),
        ],
        Resource::Events => &[
            ("LAST SEEN", Usual),
            ("TYPE", Usual),
            ("REASON", Usual),
            ("OBJECT", Usual),
            ("SUBOBJECT", Wide),
            ("SOURCE", Wide),
            ("MESSAGE", Usual),
            ("FIRST SEEN", Wide),
            ("COUNT", Wide),
            ("NAME", Wide),
        ],
        Resource::Connections => connection::COLUMNS,
    }
}

/// The headers.
pub(crate) fn headers(resource: Resource, detail: Detail) -> Vec<String> {
    let shown = columns(resource).iter();
    shown
        .filter(|(_, of)| detail == Wide || *of == Usual)
        .map(|(name, _)| (*name).to_owned())
        .collect()
}

/// The place among the headers of the object's name, which carries the kind in `kind/name`.
pub(crate) fn name_column(resource: Resource, detail: Detail) -> Option<usize> {
    headers(resource, detail)
        .iter()
        .position(|name| name == "NAME")
}

/// The cells of one object.
pub(crate) fn cells(
    resource: Resource,
    object: &Value,
    detail: Detail,
    now: Timestamp,
) -> Vec<String> {
    let cells = match resource {
        Resource::Services => network::service(object, detail, now),
        Resource::Endpoints => network::endpoints(object, now),
        Resource::EndpointSlices => network::endpoint_slice(object, now),
        Resource::Pods => pod::cells(object, now),
        Resource::ReplicaSets => workload::replica_set(object, now),
        Resource::Deployments => workload::deployment(object, now),
        Resource::DaemonSets => workload::daemon_set(object, now),
        Resource::StatefulSets => workload::stateful_set(object, now),
        Resource::Namespaces => vec![
            name(object),
            text(object, "/status/phase"),
            age(object, now),
        ],
        Resource::Nodes => network::node(object, now),
        Resource::Events => event(object, now),
        Resource::Connections => connection::cells(object, now),
    };
    let shown = columns(resource).iter().zip(cells);
    shown
        .filter(|((_, of), _)| detail == Wide || *of == Usual)
        .map(|(_, cell)| cell)
        .collect()
}

fn event(object: &Value, now: Timestamp) -> Vec<String> {
    let time = |path: &str| object.pointer(path).and_then(Value::as_str);
    let first = match time("/firstTimestamp") {
        Some(time) => age::since(Some(time), now),
        None => age::since(time("/eventTime"), now),
    };
    let mut last = match time("/lastTimestamp") {
        Some(time) => age::since(Some(time), now),
        None => first.clone(),
    };
    let mut count = number(object, "/count").max(1);
    if object.get("series").is_some_and(Value::is_object) {
        last = age::since(time("/series/lastObservedTime"), now);
        count = number(object, "/series/count");
    }
    let kind = text(object, "/involvedObject/kind").to_lowercase();
    let target = match text(object, "/involvedObject/name") {
        name if name.is_empty() => kind,
        name => format!("{kind}/{name}"),
    };
    let first_of = |one: &str, other: &str| match text(object, one) {
        found if found.is_empty() => text(object, other),
        found => found,
    };
    let mut source = first_of("/source/component", "/reportingComponent");
    let instance = first_of("/source/host", "/reportingInstance");
    if !instance.is_empty() {
        source = format!("{source}, {instance}");
    }
    vec![
        last,
        text(object, "/type"),
        text(object, "/reason"),
        target,
        text(object, "/involvedObject/fieldPath"),
        source,
        text(object, "/message").trim().to_owned(),
        first,
        count.to_string(),
        name(object),
    ]
}

pub(super) fn name(object: &Value) -> String {
    text(object, "/metadata/name")
}

pub(super) fn age(object: &Value, now: Timestamp) -> String {
    let created = object.pointer("/metadata/creationTimestamp");
    age::since(created.and_then(Value::as_str), now)
}

/// The string at `path`, or nothing.
pub(super) fn text(object: &Value, path: &str) -> String {
    let found = object.pointer(path).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

pub(super) fn text_or(object: &Value, path: &str, otherwise: &str) -> String {
    match text(object, path) {
        found if found.is_empty() => otherwise.to_owned(),
        found => found,
    }
}

/// The number at `path`, or 0, which is what an absent number means in statuses.
pub(super) fn number(object: &Value, path: &str) -> i64 {
    let found = object.pointer(path).and_then(Value::as_i64);
    found.unwrap_or(0)
}

/// The list at `path`, or an empty one.
pub(super) fn list<'v>(object: &'v Value, path: &str) -> &'v [Value] {
    let found = object.pointer(path).and_then(Value::as_array);
    found.map_or(&[], Vec::as_slice)
}

/// Labels by key, `<none>` without any.
pub(crate) fn labels(labels: Option<&Value>) -> String {
    let mut pairs: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() {
        return NONE.to_owned();
    }
    pairs.sort_unstable();
    pairs.join(",")
}

/// A label selector of a workload as its string form has it; empty without requirements.
pub(super) fn selector(selector: Option<&Value>) -> String {
    let map = |name: &str| selector.and_then(|selector| selector.get(name));
    let equal = map("matchLabels").and_then(Value::as_object);
    let mut parts: Vec<(String, String)> = equal
        .into_iter()
        .flat_map(Map::iter)
        .map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            (key.clone(), format!("{key}={value}"))
        })
        .collect();
    for expression in map("matchExpressions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let key = text(expression, "/key");
        let mut values: Vec<&str> = list(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(expression, "/operator").as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        parts.push((key, part));
    }
    parts.sort_by(|(left, _), (right, _)| left.cmp(right));
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    parts.join(",")
}
