//! The `Events` table below an object. Owns which events are an object's and how they are laid out.

use portico_core::{calendar::parse_rfc3339, time::Timestamp};
use serde_json::Value;

use super::{
    Related,
    json::{at, name, namespace, number, text},
    meta::NONE,
    writer::Writer,
};
use crate::{cli::age, objects::Resource};

/// The table, unless events are not to be shown.
pub(super) fn write(out: &mut Writer, resource: Resource, object: &Value, related: &Related) {
    let Some(events) = &related.events else {
        return;
    };
    let mut own: Vec<&Value> = events
        .iter()
        .filter(|event| is_about(event, resource, object))
        .collect();
    if own.is_empty() {
        out.pair(0, "Events", NONE);
        return;
    }
    own.sort_by_key(|event| parse_rfc3339(text(event, "/lastTimestamp")));
    out.line(0, "Events:");
    out.line(1, "Type\tReason\tAge\tFrom\tMessage");
    out.line(1, "----\t------\t----\t----\t-------");
    for event in own {
        let source = match text(event, "/source/component") {
            "" => text(event, "/reportingComponent"),
            source => source,
        };
        out.line(
            1,
            format_args!(
                "{}\t{}\t{}\t{source}\t{}",
                text(event, "/type"),
                text(event, "/reason"),
                interval(event, related.now),
                text(event, "/message").trim()
            ),
        );
    }
}

/// `5s`, or `5s (x3 over 10s)` if it happened more than once.
fn interval(event: &Value, now: Timestamp) -> String {
    let age = |path| age::since(Some(text(event, path)), now);
    let first = if at(event, "/eventTime").is_some() {
        age("/eventTime")
    } else {
        age("/firstTimestamp")
    };
    if at(event, "/series").is_some() {
        let count = number(event, "/series/count");
        return format!(
            "{} (x{count} over {first})",
            age("/series/lastObservedTime")
        );
    }
    match number(event, "/count") {
        count if count > 1 => format!("{} (x{count} over {first})", age("/lastTimestamp")),
        _ => first,
    }
}

/// The field selectors of kubectl's search: name, namespace, kind (not for pods) and, where the event has one, uid.
/// A node's events may carry its name as uid.
fn is_about(event: &Value, resource: Resource, object: &Value) -> bool {
    let about = |path: &str| text(event, path);
    let uid = about("/involvedObject/uid");
    let is_same_uid = uid.is_empty()
        || uid == text(object, "/metadata/uid")
        || (resource == Resource::Nodes && uid == name(object));
    let is_same_kind =
        resource == Resource::Pods || about("/involvedObject/kind") == resource.kind();
    about("/involvedObject/name") == name(object)
        && about("/involvedObject/namespace") == namespace(object)
        && is_same_kind
        && is_same_uid
}
