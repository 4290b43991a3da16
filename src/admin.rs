//! The admin interface on the instance's unix socket: HTTP and JSON. Owns the routes; reads the snapshot and asks
//! control, and never touches either.

pub mod checks;
pub mod client;
mod kube_proxy;
mod lines;
mod metrics;
pub mod public;
pub mod sampler;
pub mod stat;

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use portico_core::object::diagnostic::Diagnostic;
use portico_dataplane::{Observer, Published};
use serde::Deserialize;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

use lines::Lines;

use crate::{
    clock,
    control::{
        command::{
            Command, CommandError, Done, LogPage, LogRequest, OverrideLine, Revision, Target,
        },
        status::Status,
        way::{Wanted, Way},
    },
    dns::{self, DnsService},
    explain::Explanation,
    objects::{Resource, connection},
};

/// What the admin interface asks of control.
#[derive(Debug)]
pub enum Request {
    /// The whole status.
    Status(oneshot::Sender<Box<Status>>),
    /// What is wrong with the manifests: less work than the whole status.
    Findings(oneshot::Sender<Findings>),
    /// Read everything again.
    Reload,
    /// How control is.
    Health(oneshot::Sender<checks::Health>),
    /// Whether control takes its turns.
    Alive(oneshot::Sender<()>),
    /// All objects of a resource.
    Objects(Resource, oneshot::Sender<Vec<serde_json::Value>>),
    /// Every change of a resource, as lines.
    Watch(Resource, mpsc::Sender<String>),
    /// Change something at run time.
    Command(Command, oneshot::Sender<Result<Done, CommandError>>),
    /// Why a Service is served as it is; else what to say when it is not there.
    Explain(
        (String, String),
        oneshot::Sender<Result<Box<Explanation>, String>>,
    ),
    /// Lines of a log.
    Logs(LogRequest, oneshot::Sender<Result<LogPage, CommandError>>),
    /// The revisions of a workload.
    Revisions(Target, oneshot::Sender<Vec<Revision>>),
    /// Where a program that cannot ask DNS is to connect to.
    Way(Wanted, oneshot::Sender<Way>),
    /// What was changed at run time.
    Overrides(oneshot::Sender<Vec<OverrideLine>>),
}

/// What there is to say about the manifests.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Findings, sorted by file and position.
    pub diagnostics: Vec<Diagnostic>,
    /// Kinds that nothing acts on, with the number of their objects.
    pub inert: BTreeMap<Arc<str>, usize>,
}

/// The longest time that a request waits for a new generation.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What the routes see.
#[derive(Clone)]
pub struct AdminState {
    /// The snapshot in force.
    pub published: Arc<Published>,
    /// Answers questions as DNS does.
    pub dns: Arc<DnsService>,
    /// The way to control.
    pub control: mpsc::Sender<Request>,
    /// The generation in force, to wait for the next one.
    pub generations: watch::Receiver<u64>,
    /// Windows over the counters.
    pub sampler: Arc<sampler::Sampler>,
    /// Live connections.
    pub data_path: Observer,
}

/// Binds the socket. What a killed run left at `path` was removed when the instance was claimed.
///
/// # Errors
/// The socket cannot be bound.
pub fn bind(path: &std::path::Path) -> io::Result<UnixListener> {
    UnixListener::bind(path)
}

/// Answers on `listener` until `cancel`.
pub async fn serve(listener: UnixListener, state: AdminState, cancel: CancellationToken) {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/generation", get(generation))
        .route("/v1/windows", get(windows))
        .route("/v1/mark", post(mark))
        .route("/v1/stat", get(stat_of_all))
        .route("/v1/stat/{namespace}/{name}", get(stat_of_service))
        .route("/v1/resolve", get(resolve))
        .route("/v1/way", post(way))
        .route("/v1/reload", post(reload))
        .route("/v1/objects/{resource}", get(objects))
        .route("/v1/watch/{resource}", get(watch))
        .route("/v1/command", post(command))
        .route("/v1/overrides", get(overrides))
        .route("/v1/explain/{namespace}/{name}", get(explain))
        .route("/v1/logs/{namespace}/{pod}/{container}", get(logs))
        .route(
            "/v1/revisions/{resource}/{namespace}/{name}",
            get(revisions),
        )
        .with_state(state);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the admin socket failed");
    }
}

/// Asks control and waits for its answer.
async fn ask<T>(
    state: &AdminState,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, StatusCode> {
    let (reply, answer) = oneshot::channel();
    let asked = state.control.send(request(reply)).await;
    asked.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    answer.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn status(State(state): State<AdminState>) -> Result<Json<Box<Status>>, StatusCode> {
    ask(&state, Request::Status).await.map(Json)
}

/// What happened on each Service port over each window, and how even it was.
async fn windows(State(state): State<AdminState>) -> Json<Vec<sampler::PortWindows>> {
    let snapshot = state.published.load_full();
    Json(state.sampler.report(&snapshot, clock::now()))
}

/// Windows since a mark begin now.
async fn mark(State(state): State<AdminState>) -> StatusCode {
    let snapshot = state.published.load_full();
    let now = clock::now();
    // What has come since the last sample belongs before the mark too.
    state.sampler.sample(&snapshot, now);
    state.sampler.mark(now);
    StatusCode::NO_CONTENT
}

/// What every Service port got.
async fn stat_of_all(
    State(state): State<AdminState>,
    Query(query): Query<stat::Query>,
) -> Json<stat::Stat> {
    let snapshot = state.published.load_full();
    let source = stat::Source::new(&snapshot, &state.sampler, clock::now());
    Json(stat::all(&source, &query))
}

/// What the ports of one Service got.
async fn stat_of_service(
    State(state): State<AdminState>,
    Path((namespace, name)): Path<(String, String)>,
    Query(query): Query<stat::Query>,
) -> Result<Json<stat::Stat>, stat::Refusal> {
    let snapshot = state.published.load_full();
    let source = stat::Source::new(&snapshot, &state.sampler, clock::now());
    stat::of_service(&source, (&namespace, &name), &query).map(Json)
}

async fn objects(
    State(state): State<AdminState>,
    Path(resource): Path<Resource>,
) -> Result<Json<Vec<serde_json::Value>>, StatusCode> {
    // Not of the World: control need not be asked, which answers nobody any more while the program ends.
    if resource == Resource::Connections {
        return Ok(Json(connection::list(&state.data_path.connections())));
    }
    let asked = ask(&state, |reply| Request::Objects(resource, reply));
    asked.await.map(Json)
}

/// Batches of changes that a watch may be behind; one that is further behind is ended.
const WATCH_QUEUE: usize = 256;

async fn watch(
    State(state): State<AdminState>,
    Path(resource): Path<Resource>,
) -> Result<Body, StatusCode> {
    // They change with every byte.
    if resource == Resource::Connections {
        return Err(StatusCode::NOT_IMPLEMENTED);
    }
    let (sender, lines) = mpsc::channel(WATCH_QUEUE);
    let asked = state.control.send(Request::Watch(resource, sender)).await;
    asked.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Body::new(Lines::new(lines)))
}

async fn command(
    State(state): State<AdminState>,
    Json(command): Json<Command>,
) -> Result<Json<Done>, (StatusCode, String)> {
    let ending = |status: StatusCode| (status, "portico is ending".to_owned());
    let done = ask(&state, |reply| Request::Command(command, reply)).await;
    done.map_err(ending)?
        .map(Json)
        .map_err(|error| refusal(&error))
}

fn refusal(error: &CommandError) -> (StatusCode, String) {
    let status = match error {
        CommandError::NotFound { .. } => StatusCode::NOT_FOUND,
        CommandError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, error.to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Page {
    after: u64,
    limit: usize,
    wait_ms: u64,
    previous: bool,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            after: 0,
            limit: 1000,
            wait_ms: 0,
            previous: false,
        }
    }
}

async fn logs(
    State(state): State<AdminState>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(page): Query<Page>,
) -> Result<Json<LogPage>, (StatusCode, String)> {
    let request = LogRequest {
        namespace,
        pod,
        container,
        previous: page.previous,
        after: page.after,
        limit: page.limit,
        wait: Duration::from_millis(page.wait_ms).min(LONGEST_WAIT),
    };
    let ending = |status: StatusCode| (status, "portico is ending".to_owned());
    let read = ask(&state, |reply| Request::Logs(request, reply)).await;
    read.map_err(ending)?
        .map(Json)
        .map_err(|error| refusal(&error))
}

async fn explain(
    State(state): State<AdminState>,
    Path(of): Path<(String, String)>,
) -> Result<Json<Box<Explanation>>, (StatusCode, String)> {
    let ending = |status: StatusCode| (status, "portico is ending".to_owned());
    let found = ask(&state, |reply| Request::Explain(of, reply)).await;
    let not_found = |text| (StatusCode::NOT_FOUND, text);
    found.map_err(ending)?.map(Json).map_err(not_found)
}

async fn revisions(
    State(state): State<AdminState>,
    Path((resource, namespace, name)): Path<(Resource, String, String)>,
) -> Result<Json<Vec<Revision>>, StatusCode> {
    let target = Target {
        resource,
        namespace,
        name,
    };
    let asked = ask(&state, |reply| Request::Revisions(target, reply));
    asked.await.map(Json)
}

async fn way(
    State(state): State<AdminState>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Way>, StatusCode> {
    let asked = ask(&state, |reply| Request::Way(wanted, reply));
    asked.await.map(Json)
}

async fn overrides(State(state): State<AdminState>) -> Result<Json<Vec<OverrideLine>>, StatusCode> {
    ask(&state, Request::Overrides).await.map(Json)
}

#[derive(Deserialize)]
struct After {
    after: Option<u64>,
}

/// The generation in force; with `?after=N`, once it is greater than N or [`LONGEST_WAIT`] is over.
async fn generation(State(mut state): State<AdminState>, Query(query): Query<After>) -> Json<u64> {
    if let Some(after) = query.after {
        let newer = state.generations.wait_for(|generation| *generation > after);
        let _ = tokio::time::timeout(LONGEST_WAIT, newer).await;
    }
    Json(state.published.load().generation.0)
}

async fn reload(State(state): State<AdminState>) -> StatusCode {
    match state.control.send(Request::Reload).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[derive(Deserialize)]
struct Question {
    name: String,
    #[serde(rename = "type", default)]
    record_type: Option<String>,
}

async fn resolve(
    State(state): State<AdminState>,
    Query(question): Query<Question>,
) -> Result<Json<serde_json::Value>, (StatusCode, String)> {
    let record_type = question.record_type.as_deref().unwrap_or("A");
    match dns::answer_json(&state.dns, &question.name, record_type).await {
        Ok(answer) => Ok(Json(answer)),
        Err(error) => Err((StatusCode::BAD_REQUEST, error.to_string())),
    }
}
