//! Connections of a Service that are to end, in a line for each endpoint and reason. Owns the words, for `describe` and
//! `explain`; each connection by itself is shown by `get connections`.

use std::collections::BTreeMap;

use portico_core::time::Timestamp;
use serde_json::Value;

use super::{age, describe::json::text};

/// `3 connections to 10.0.0.1:80: the endpoint is none of its Service any more; closed in 12s at the earliest`.
pub(crate) fn lines(
    connections: &[Value],
    namespace: &str,
    service: &str,
    now: Timestamp,
) -> Vec<String> {
    let mut groups: BTreeMap<_, (usize, Option<&str>)> = BTreeMap::new();
    for connection in connections {
        let is_of_service = text(connection, "/metadata/namespace") == namespace
            && text(connection, "/spec/service") == service;
        let why = text(connection, "/status/message");
        if !is_of_service || why.is_empty() {
            continue;
        }
        let group = groups.entry((text(connection, "/spec/endpoint"), why));
        let (count, first) = group.or_default();
        *count += 1;
        // Times of this form sort as text.
        let deadline = connection
            .pointer("/status/deadline")
            .and_then(Value::as_str);
        *first = (*first).into_iter().chain(deadline).min();
    }
    let line = |((endpoint, why), (count, first)): ((&str, &str), (usize, Option<&str>))| {
        let noun = if count == 1 {
            "connection"
        } else {
            "connections"
        };
        let to = if endpoint.is_empty() { "" } else { " to " };
        let closed = match first {
            None => "not closed by portico".to_owned(),
            Some(first) if count == 1 => format!("closed in {}", age::until(first, now)),
            Some(first) => format!("the first is closed in {}", age::until(first, now)),
        };
        format!("{count} {noun}{to}{endpoint}: {why}; {closed}")
    };
    groups.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn connection(service: &str, endpoint: &str, status: &Value) -> Value {
        json!({
            "metadata": {"namespace": "default"},
            "spec": {"service": service, "endpoint": endpoint},
            "status": status,
        })
    }

    #[test]
    fn lines_count_by_endpoint_and_reason_and_name_the_first_deadline() {
        let gone =
            |deadline: &str| json!({"state": "Draining", "message": "gone", "deadline": deadline});
        let ending = json!({"state": "Draining", "message": "it ends"});
        let all = [
            connection("web", "10.0.0.2:80", &gone("2024-01-02T00:00:30Z")),
            connection("web", "10.0.0.2:80", &gone("2024-01-02T00:00:20Z")),
            connection("web", "10.0.0.1:80", &ending),
            connection("web", "10.0.0.2:80", &json!({"state": "Open"})),
            connection("db", "10.0.0.2:80", &ending),
        ];
        let now = Timestamp::from_millis(1_704_153_600_000);
        assert_eq!(
            lines(&all, "default", "web", now),
            [
                "1 connection to 10.0.0.1:80: it ends; not closed by portico",
                "2 connections to 10.0.0.2:80: gone; the first is closed in 20s"
            ]
        );
        assert_eq!(lines(&all, "other", "web", now), Vec::<String>::new());
    }
}
