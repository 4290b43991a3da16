//! Events as `v1` Event. Owns their names; what is worth an event is decided where it happens.

use portico_core::world::Event;
use serde_json::{Value, json};

use super::{
    Resource, View,
    json::{Fields, fields},
    meta,
    time::rfc3339,
};

pub(super) fn list(view: View<'_>) -> Vec<Fields> {
    let events = view.world.events();
    events.iter().map(|made| event(view, made)).collect()
}

fn event(view: View<'_>, event: &Event) -> Fields {
    let about = &event.about;
    let resource = Resource::named(about.kind.as_str()).unwrap_or(Resource::Pods);
    // Events about what has no namespace are in the namespace `default`.
    let namespace = match &*about.namespace {
        "" => "default",
        namespace => namespace,
    };
    // `NAME.NANOSECONDS`, in hexadecimal digits, as client-go's recorder names them; the number keeps them apart.
    let moment = u128::from(event.first.as_millis()) * 1_000_000 + u128::from(event.id % 1_000_000);
    let name = format!("{}.{moment:x}", about.name);
    let mut involved = fields(json!({
        "apiVersion": resource.api_version(),
        "kind": about.kind.as_str(),
        "name": &*about.name,
        "resourceVersion": meta::resource_version(view),
        "uid": meta::uid_of(view, about),
    }));
    if !about.namespace.is_empty() {
        involved.insert("namespace".to_owned(), json!(&*about.namespace));
    }
    fields(json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": meta::uid(&["Event", namespace, &name]),
            "creationTimestamp": rfc3339(event.first),
            "resourceVersion": event.id.to_string(),
        },
        "involvedObject": involved,
        "type": event.kind.as_str(),
        "reason": &*event.reason,
        "message": &*event.message,
        "count": event.count,
        "firstTimestamp": rfc3339(event.first),
        "lastTimestamp": rfc3339(event.last),
        "eventTime": Value::Null,
        "source": {"component": event.component},
        "reportingComponent": event.component,
        "reportingInstance": "",
    }))
}
