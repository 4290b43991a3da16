//! The admin interface over TCP: metrics, health and the status, to be read and nothing else; commands stay on the
//! unix socket, where only its user can give them. Owns the routes and who may ask.
//!
//! A page in a browser can be made to ask any local port by a name that resolves to 127.0.0.1 (DNS rebinding). So a
//! listener on a loopback address answers only to `localhost` and to addresses.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, RawQuery, Request as HttpRequest, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use portico_dataplane::{Observer, Published};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Request, checks,
    checks::{CheckQuery, Probe},
    kube_proxy,
    metrics::Scrape,
    sampler::{PACE, Sampler},
    stat,
};
use crate::{
    clock,
    dns::DnsService,
    telemetry::metrics::{self, text::CONTENT_TYPE},
};

/// What the routes see. Cloning shares everything.
#[derive(Clone)]
pub struct Seen {
    /// The snapshot in force.
    pub published: Arc<Published>,
    /// What the data path counts.
    pub data_path: Observer,
    /// What DNS counts.
    pub dns: Arc<DnsService>,
    /// Windows over the counters.
    pub sampler: Arc<Sampler>,
    /// The way to control.
    pub control: mpsc::Sender<Request>,
    /// Cancelled when the end has begun.
    pub stop: CancellationToken,
    /// Endpoints with series of their own.
    pub most_endpoints: usize,
}

/// What a listener answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Everything that can be read.
    Admin,
    /// What kube-proxy answers on its health port, 10256.
    KubeProxyHealth,
    /// What kube-proxy answers on its metrics port, 10249.
    KubeProxyMetrics,
}

/// Answers on `listeners` and samples counters until `cancel`. To be run on a thread of its own: nothing here waits
/// for the data path, and the data path must not wait for it.
pub async fn serve(
    listeners: Vec<(std::net::TcpListener, Purpose)>,
    seen: Seen,
    cancel: CancellationToken,
) {
    let mut served = JoinSet::new();
    for (listener, purpose) in listeners {
        let address = listener.local_addr();
        match (address, TcpListener::from_std(listener)) {
            (Ok(address), Ok(listener)) => {
                let router = router(address, purpose, seen.clone());
                served.spawn(async move { axum::serve(listener, router).await });
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "the admin interface cannot be served over TCP");
            }
        }
    }
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {
                metrics::upkeep();
                seen.sampler.sample(&seen.published.load_full(), clock::now());
            }
        }
    }
}

fn router(address: SocketAddr, purpose: Purpose, seen: Seen) -> Router {
    let router = match purpose {
        Purpose::Admin => Router::new()
            .route("/metrics", get(scrape))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/healthz", get(healthz))
            .route("/version", get(version))
            .route("/v1/status", get(status))
            .route("/v1/stat", get(stat_of_all))
            .route("/v1/stat/{namespace}/{name}", get(stat_of_service)),
        Purpose::KubeProxyHealth => return kube_proxy::health_router(seen),
        Purpose::KubeProxyMetrics => Router::new()
            .route("/metrics", get(scrape))
            .route("/healthz", get(|| async { "ok" }))
            .route("/proxyMode", get(kube_proxy::proxy_mode)),
    };
    let router = router.with_state(seen);
    if address.ip().is_loopback() {
        router.layer(middleware::from_fn(local_names_only))
    } else {
        router
    }
}

async fn local_names_only(request: HttpRequest, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_local(host) {
        return next.run(request).await;
    }
    let text = "the Host header must be localhost or an address\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

/// Whether a Host header names this machine, without a name that somebody else's DNS could answer.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() && !name.ends_with(':') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

async fn scrape(State(seen): State<Seen>) -> Response {
    let most = seen.most_endpoints;
    let body = Body::new(Scrape::new(seen, most, clock::now()));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

async fn livez(State(seen): State<Seen>, RawQuery(query): RawQuery) -> Response {
    let query = CheckQuery::parse(query.as_deref().unwrap_or_default());
    checks::answer(&seen, Probe::Live, &query).await
}

async fn readyz(State(seen): State<Seen>, RawQuery(query): RawQuery) -> Response {
    let query = CheckQuery::parse(query.as_deref().unwrap_or_default());
    checks::answer(&seen, Probe::Ready, &query).await
}

async fn healthz(State(seen): State<Seen>, RawQuery(query): RawQuery) -> Response {
    let query = CheckQuery::parse(query.as_deref().unwrap_or_default());
    checks::answer(&seen, Probe::Healthy, &query).await
}

async fn version() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "name": "portico", "version": env!("CARGO_PKG_VERSION") }))
}

async fn status(State(seen): State<Seen>) -> Result<Response, StatusCode> {
    let (reply, answer) = tokio::sync::oneshot::channel();
    let asked = seen.control.send(Request::Status(reply)).await;
    asked.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let status = answer.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(status).into_response())
}

async fn stat_of_all(
    State(seen): State<Seen>,
    Query(query): Query<stat::Query>,
) -> Json<stat::Stat> {
    let snapshot = seen.published.load_full();
    let source = stat::Source::new(&snapshot, &seen.sampler, clock::now());
    Json(stat::all(&source, &query))
}

async fn stat_of_service(
    State(seen): State<Seen>,
    Path((namespace, name)): Path<(String, String)>,
    Query(query): Query<stat::Query>,
) -> Result<Json<stat::Stat>, stat::Refusal> {
    let snapshot = seen.published.load_full();
    let source = stat::Source::new(&snapshot, &seen.sampler, clock::now());
    stat::of_service(&source, (&namespace, &name), &query).map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_local_takes_localhost_and_addresses_only() {
        for host in [
            "localhost",
            "LocalHost:7070",
            "127.0.0.1:7070",
            "127.0.0.1",
            "[::1]:7070",
            "::1",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7070",
            "localhost.evil.example:7070",
            "127.0.0.1.evil:80",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
