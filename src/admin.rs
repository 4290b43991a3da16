//! The admin interface on the instance's unix socket: HTTP and JSON. Owns the routes; reads the snapshot and asks
//! control, and never touches either.

pub mod client;

use std::{collections::BTreeMap, io, path::Path, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, post},
};
use portico_core::object::diagnostic::Diagnostic;
use portico_dataplane::Published;
use serde::Deserialize;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    control::status::Status,
    dns::{self, DnsService},
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
}

/// Binds the socket. What a killed run left at `path` was removed when the instance was claimed.
///
/// # Errors
/// The socket cannot be bound.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    UnixListener::bind(path)
}

/// Answers on `listener` until `cancel`.
pub async fn serve(listener: UnixListener, state: AdminState, cancel: CancellationToken) {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/generation", get(generation))
        .route("/v1/resolve", get(resolve))
        .route("/v1/reload", post(reload))
        .with_state(state);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the admin socket failed");
    }
}

async fn status(State(state): State<AdminState>) -> Result<Json<Box<Status>>, StatusCode> {
    let (reply, answer) = oneshot::channel();
    state
        .control
        .send(Request::Status(reply))
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    answer
        .await
        .map(Json)
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
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
    match dns::answer_json(&state.dns, &question.name, record_type) {
        Ok(answer) => Ok(Json(answer)),
        Err(error) => Err((StatusCode::BAD_REQUEST, error.to_string())),
    }
}
