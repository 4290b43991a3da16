//! The admin interface over TCP: metrics, health and the status, to be read and nothing else; commands stay on the
//! unix socket, where only its user can give them. Owns the routes and who may ask.
//!
//! A page in a browser can be made to ask any local port by a name that resolves to 127.0.0.1 (DNS rebinding). So a
//! listener on a loopback address answers only to `localhost` and to addresses.
//!
//! A connection has one request and a time, and a listener so many connections: who sends half a request, or takes
//! its answer slowly, holds no more memory than that.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
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
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use portico_dataplane::{Observer, Published};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
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

/// Connections of one listener at a time; the next ones wait in its backlog.
const MOST_CONNECTIONS: usize = 64;
/// From a connection's first moment to the end of its answer: three times what Prometheus gives a scrape
/// (`scrape_timeout`).
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Bytes of a request, and of an answer that the socket has no room for.
const BUFFER: usize = 64 * 1024;
/// Until the next attempt when no connection can be accepted, as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

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
                served.spawn(accept(listener, router));
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

/// Accepts as long as there is room. Its connections end with it.
async fn accept(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        // Both are cancel safe.
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(answer(stream, router.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection to the admin interface is not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers one request in its time.
async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(ANSWER_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the admin interface broke"),
        Err(_) => tracing::debug!("a connection to the admin interface took too long"),
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
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        net::TcpStream,
        time::Instant,
    };

    use super::*;

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    fn of_text(text: String) -> Router {
        Router::new().route("/", get(|| async { text }))
    }

    /// How long a connection lasts whose client has sent `sent` and takes nothing, and the client.
    async fn lasts(sent: &[u8], text: String) -> (Duration, DuplexStream) {
        let (mut client, server) = duplex(1024);
        client.write_all(sent).await.unwrap();
        let start = Instant::now();
        answer(server, of_text(text)).await;
        (start.elapsed(), client)
    }

    #[tokio::test(start_paused = true)]
    async fn answer_to_half_a_request_ends_after_its_time() {
        for sent in [
            &b""[..],
            b"GET / HT",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        ] {
            let (lasted, _client) = lasts(sent, "hello".into()).await;
            assert!(lasted >= ANSWER_TIME, "{lasted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answer_that_nobody_takes_ends_after_its_time() {
        let (lasted, mut client) = lasts(ASK, "x".repeat(1 << 20)).await;
        assert!(lasted >= ANSWER_TIME, "{lasted:?}");
        let mut taken = Vec::new();
        client.read_to_end(&mut taken).await.unwrap();
        assert!(taken.starts_with(b"HTTP/1.1 200") && taken.len() <= 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn answer_that_is_taken_ends_its_connection_at_once() {
        let (lasted, mut client) = lasts(ASK, "hello".into()).await;
        assert_eq!(lasted, Duration::ZERO);
        let mut taken = String::new();
        client.read_to_string(&mut taken).await.unwrap();
        assert!(
            taken.contains("connection: close") && taken.ends_with("hello"),
            "{taken}"
        );
    }

    #[tokio::test]
    async fn accept_beyond_the_most_connections_waits_until_one_has_ended() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut served = JoinSet::new();
        served.spawn(accept(listener, of_text("hello".into())));
        let mut silent = Vec::new();
        for _ in 0..MOST_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut next = TcpStream::connect(address).await.unwrap();
        next.write_all(ASK).await.unwrap();
        // Turns enough for an answer, if it were accepted.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let mut answered = [0; 12];
        let error = next.try_read(&mut answered).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        silent.pop();
        next.read_exact(&mut answered).await.unwrap();
        assert_eq!(answered, *b"HTTP/1.1 200");
    }

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
