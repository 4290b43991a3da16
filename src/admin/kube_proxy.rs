//! What kube-proxy answers on its own ports, for probes and load balancers that know nothing else (`--kube-proxy-ports`).
//! Owns bodies and headers as kube-proxy has them (`pkg/proxy/healthcheck/proxy_health.go`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use portico_core::{calendar, time::Timestamp};

use super::{checks, public::Seen};
use crate::clock;

/// Our data path in the words of kube-proxy's `--proxy-mode`.
pub(super) async fn proxy_mode() -> &'static str {
    "userspace"
}

pub(super) fn health_router(seen: Seen) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .with_state(seen)
}

/// When control last said that it is up to date: told while it does not answer.
static LAST: AtomicU64 = AtomicU64::new(0);

async fn healthz(State(seen): State<Seen>) -> Response {
    let (status, last, now) = look(&seen).await;
    metrics::counter!("kubeproxy_proxy_healthz_total", "code" => status.as_str().to_owned())
        .increment(1);
    // A Node with the autoscaler's taint is not eligible (KEP-3836); there is no autoscaler for this machine.
    let body = format!(
        "{{\"lastUpdated\": \"{}\",\"currentTime\": \"{}\", \"nodeEligible\": true}}",
        text(last),
        text(now)
    );
    respond(status, body)
}

async fn livez(State(seen): State<Seen>) -> Response {
    let (status, last, now) = look(&seen).await;
    metrics::counter!("kubeproxy_proxy_livez_total", "code" => status.as_str().to_owned())
        .increment(1);
    let body = format!(
        "{{\"lastUpdated\": \"{}\",\"currentTime\": \"{}\"}}",
        text(last),
        text(now)
    );
    respond(status, body)
}

/// Healthy is: no change waits. That holds while control takes its turns, starting up included; then the last update
/// is now, as kube-proxy has it.
async fn look(seen: &Seen) -> (StatusCode, Timestamp, Timestamp) {
    let health = checks::ask(seen).await;
    let now = clock::now();
    if health.is_some() || seen.stop.is_cancelled() {
        LAST.store(now.as_millis(), Relaxed);
        return (StatusCode::OK, now, now);
    }
    let last = Timestamp::from_millis(LAST.load(Relaxed));
    (StatusCode::SERVICE_UNAVAILABLE, last, now)
}

/// As Go prints a time in UTC: `2026-01-02 03:04:05.678 +0000 UTC`.
fn text(time: Timestamp) -> String {
    let rfc3339 = calendar::rfc3339_millis(time);
    rfc3339.replace('T', " ").replace('Z', " +0000 UTC")
}

fn respond(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_as_go_prints_a_time() {
        assert_eq!(
            text(Timestamp::from_millis(1_767_323_045_678)),
            "2026-01-02 03:04:05.678 +0000 UTC"
        );
    }
}
