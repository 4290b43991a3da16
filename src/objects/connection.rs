//! Live TCP connections as objects, `portico.dev/v1` Connection. Owns their shape and the words for their states.

use portico_dataplane::{Connection, Draining, Phase, Side};
use serde_json::{Value, json};

use super::{
    json::{Fields, fields, set},
    meta,
    time::rfc3339,
};

/// Why a connection is to end.
const fn reason(why: Draining) -> (&'static str, &'static str) {
    match why {
        Draining::Terminating => (
            "EndpointTerminating",
            "the endpoint is being shut down and lets its connections finish",
        ),
        Draining::EndpointGone => (
            "EndpointGone",
            "the endpoint is none of its Service any more",
        ),
        Draining::ServiceGone => (
            "ServiceGone",
            "the address and port that the client asked for are none of its Service any more",
        ),
        Draining::Shutdown => ("Shutdown", "portico is ending"),
    }
}

/// All of `connections` that belong to a Service, sorted by namespace, then the oldest first.
pub fn list(connections: &[Connection]) -> Vec<Value> {
    let mut found: Vec<_> = connections
        .iter()
        .filter_map(|connection| Some((connection.service.as_ref()?, connection)))
        .collect();
    found
        .sort_by_key(|(service, connection)| (&service.namespace, connection.since, connection.id));
    let objects = found.into_iter().map(|(_, connection)| object(connection));
    objects
        .map(|object| {
            let mut object = Value::Object(object);
            object.sort_all_objects();
            object
        })
        .collect()
}

fn object(connection: &Connection) -> Fields {
    let mut spec = fields(json!({
        "protocol": "TCP",
        "address": connection.local.to_string(),
    }));
    let mut meta = Fields::new();
    let name = format!("tcp-{}", connection.id);
    if let Some(service) = &connection.service {
        set(&mut spec, "service", &*service.service);
        set(&mut spec, "port", port(&service.port, connection));
        set(&mut meta, "namespace", &*service.namespace);
        set(
            &mut meta,
            "labels",
            json!({"kubernetes.io/service-name": &*service.service}),
        );
    }
    if let Some(client) = connection.client {
        set(&mut spec, "client", client.to_string());
        set(&mut spec, "clientIP", client.ip().to_string());
    }
    if let Some(endpoint) = connection.endpoint {
        set(&mut spec, "endpoint", endpoint.to_string());
    }
    set(&mut meta, "creationTimestamp", rfc3339(connection.since));
    set(
        &mut meta,
        "uid",
        meta::uid(&["Connection", &name, &rfc3339(connection.since)]),
    );
    set(&mut meta, "name", name);
    fields(json!({
        "apiVersion": "portico.dev/v1",
        "kind": "Connection",
        "metadata": meta,
        "spec": spec,
        "status": status(connection),
    }))
}

/// A port by its name, else by its number.
fn port(name: &str, connection: &Connection) -> String {
    if name.is_empty() {
        connection.local.port().to_string()
    } else {
        name.to_owned()
    }
}

fn status(connection: &Connection) -> Fields {
    let state = match (connection.draining, connection.phase) {
        (_, Phase::Connecting) => "Connecting",
        (Some(_), _) => "Draining",
        (None, Phase::HalfClosed(_)) => "HalfClosed",
        (None, Phase::Open) => "Open",
        (None, Phase::Requests | Phase::Request) => "Requests",
    };
    let mut status = fields(json!({
        "state": state,
        "bytesIn": connection.to_endpoint,
        "bytesOut": connection.to_client,
    }));
    if let Phase::HalfClosed(side) = connection.phase {
        let side = match side {
            Side::Downstream => "client",
            Side::Upstream => "endpoint",
        };
        set(&mut status, "finished", side);
    }
    if let Some((why, deadline)) = connection.draining {
        let (reason, message) = reason(why);
        set(&mut status, "reason", reason);
        set(&mut status, "message", message);
        if let Some(deadline) = deadline {
            set(&mut status, "deadline", rfc3339(deadline));
        }
    }
    status
}
