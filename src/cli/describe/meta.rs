//! What all objects have: labels, annotations, selectors, tolerations, taints, conditions. Owns how they are laid out;
//! must not know any kind.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;

use super::{
    json::{at, boolean, items, pairs, scalar, text, texts},
    writer::Writer,
};

/// Longest annotation, key included, that stays on its line (kubectl's limit).
const MOST_ANNOTATION: usize = 140;
/// Written by `kubectl apply`; too long to be read.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";

/// `Name` and `Namespace`.
pub(super) fn name(out: &mut Writer, object: &Value) {
    out.pair(0, "Name", text(object, "/metadata/name"));
    out.pair(0, "Namespace", text(object, "/metadata/namespace"));
}

/// `Labels` and `Annotations` of an object.
pub(super) fn labels_and_annotations(out: &mut Writer, object: &Value) {
    labels(out, "Labels", &pairs(object, "/metadata/labels"));
    annotations(out, "Annotations", &pairs(object, "/metadata/annotations"));
}

/// One `key=value` a line, `<none>` without any.
pub(super) fn labels(out: &mut Writer, title: &str, labels: &BTreeMap<&str, &str>) {
    let lines = labels.iter().map(|(key, value)| format!("{key}={value}"));
    column(out, title, lines);
}

/// Lines below each other in the second column.
pub(super) fn column(out: &mut Writer, title: &str, lines: impl Iterator<Item = String>) {
    out.write(0, format_args!("{title}:\t"));
    let mut is_empty = true;
    for line in lines {
        let indent = if is_empty { "" } else { "\t" };
        out.line(0, format_args!("{indent}{line}"));
        is_empty = false;
    }
    if is_empty {
        out.line(0, NONE);
    }
}

/// One `key: value` a line; what is long or has several lines goes below its key.
pub(super) fn annotations(out: &mut Writer, title: &str, annotations: &BTreeMap<&str, &str>) {
    let shown = annotations.iter().filter(|(key, _)| **key != LAST_APPLIED);
    let lines = shown.map(|(key, value)| {
        let value = value.strip_suffix('\n').unwrap_or(value);
        if value.len() + key.len() + 2 <= MOST_ANNOTATION && !value.contains('\n') {
            return format!("{key}: {value}");
        }
        let below = value
            .split('\n')
            .map(|line| format!("\n\t  {}", shorten(line)));
        format!("{key}:{}", below.collect::<String>())
    });
    column(out, title, lines);
}

/// Cut at a character: kubectl cuts at a byte, which need not be one.
fn shorten(line: &str) -> String {
    let most = MOST_ANNOTATION - 2;
    if line.len() <= most {
        return line.to_owned();
    }
    let end = (0..=most)
        .rev()
        .find(|end| line.is_char_boundary(*end))
        .unwrap_or(0);
    format!("{}...", line.get(..end).unwrap_or_default())
}

/// `key=value,key=value`, `<none>` without any.
pub(super) fn joined(labels: &BTreeMap<&str, &str>) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    or_none(labels.join(","))
}

/// `<none>` for nothing.
pub(super) fn or_none(text: String) -> String {
    if text.is_empty() {
        NONE.to_owned()
    } else {
        text
    }
}

/// A `LabelSelector` as text, its requirements sorted by key; empty if it asks for nothing.
pub(super) fn selector(selector: &Value) -> String {
    let mut all: Vec<(&str, String)> = pairs(selector, "/matchLabels")
        .into_iter()
        .map(|(key, value)| (key, format!("{key}={value}")))
        .collect();
    all.extend(items(selector, "/matchExpressions").iter().map(|one| {
        let key = text(one, "/key");
        let mut values = texts(one, "/values");
        values.sort_unstable();
        let values = values.join(",");
        let text = match text(one, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        (key, text)
    }));
    all.sort_by_key(|(key, _)| *key);
    let texts: Vec<String> = all.into_iter().map(|(_, text)| text).collect();
    texts.join(",")
}

/// `Tolerations` of a pod, sorted by key.
pub(super) fn tolerations(out: &mut Writer, title: &str, spec: &Value) {
    let mut all: Vec<&Value> = items(spec, "/tolerations").iter().collect();
    all.sort_by_key(|one| text(one, "/key"));
    let lines = all.into_iter().map(|one| {
        let (key, value, effect) = (text(one, "/key"), text(one, "/value"), text(one, "/effect"));
        let mut line = key.to_owned();
        if !value.is_empty() {
            line.push('=');
            line.push_str(value);
        }
        if !effect.is_empty() {
            line.push(':');
            line.push_str(effect);
        }
        if text(one, "/operator") == "Exists" && value.is_empty() {
            line.push_str(if line.is_empty() {
                "op=Exists"
            } else {
                " op=Exists"
            });
        }
        if let Some(seconds) = at(one, "/tolerationSeconds") {
            let _ = write!(line, " for {seconds}s");
        }
        line
    });
    column(out, title, lines);
}

/// `Taints` of a node, sorted by effect and key.
pub(super) fn taints(out: &mut Writer, node: &Value) {
    let mut all: Vec<&Value> = items(node, "/spec/taints").iter().collect();
    all.sort_by_key(|one| format!("{},{}", text(one, "/effect"), text(one, "/key")));
    let lines = all.into_iter().map(|one| {
        let (key, value, effect) = (text(one, "/key"), text(one, "/value"), text(one, "/effect"));
        match (value, effect) {
            ("", "") => key.to_owned(),
            ("", effect) => format!("{key}:{effect}"),
            (value, "") => format!("{key}={value}:"),
            (value, effect) => format!("{key}={value}:{effect}"),
        }
    });
    column(out, "Taints", lines);
}

/// `Conditions` with type, status and reason, as workloads have them.
pub(super) fn conditions(out: &mut Writer, object: &Value) {
    let conditions = items(object, "/status/conditions");
    if conditions.is_empty() {
        return;
    }
    out.line(0, "Conditions:");
    out.line(1, "Type\tStatus\tReason");
    out.line(1, "----\t------\t------");
    for one in conditions {
        out.line(
            1,
            format_args!(
                "{} \t{}\t{}",
                text(one, "/type"),
                text(one, "/status"),
                text(one, "/reason")
            ),
        );
    }
}

/// `Topology Spread Constraints`, in a pod or (behind `space`) in a template.
pub(super) fn spread(out: &mut Writer, spec: &Value, space: &str) {
    let mut all: Vec<&Value> = items(spec, "/topologySpreadConstraints").iter().collect();
    if all.is_empty() {
        return;
    }
    all.sort_by_key(|one| text(one, "/topologyKey"));
    out.write(0, format_args!("{space}Topology Spread Constraints:\t"));
    for (index, one) in all.into_iter().enumerate() {
        let indent = if index == 0 {
            String::new()
        } else {
            format!("{space}\t")
        };
        let chosen = at(one, "/labelSelector")
            .map(|one| format!(" for selector {}", or_none(selector(one))))
            .unwrap_or_default();
        out.line(
            0,
            format_args!(
                "{indent}{}:{} when max skew {} is exceeded{chosen}",
                text(one, "/topologyKey"),
                text(one, "/whenUnsatisfiable"),
                scalar(one, "/maxSkew")
            ),
        );
    }
}

/// `CreationTimestamp`.
pub(super) fn created(out: &mut Writer, object: &Value) {
    let created = out.time(text(object, "/metadata/creationTimestamp"));
    out.pair(0, "CreationTimestamp", created);
}

/// `True` or `False`.
pub(super) fn capital(value: &Value, path: &str) -> &'static str {
    if boolean(value, path) {
        "True"
    } else {
        "False"
    }
}
