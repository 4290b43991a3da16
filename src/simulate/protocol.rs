//! What the child and its keeper say to each other, one JSON value a line, and the logs that are asked for over it.
//! Owns these types; must not read or write anything.

use std::{sync::Arc, time::Duration};

use portico_core::world::pods::{PodAction, PodObservation, PodUid};
use serde::{Deserialize, Serialize};

/// From the keeper to the child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ToChild {
    /// Something to do.
    Pod(PodAction),
    /// A page of a log to send.
    Logs {
        /// Given back with the answer.
        id: u64,
        /// Which page.
        query: LogQuery,
    },
}

/// From the child to its keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FromChild {
    /// What became of a pod.
    Pod(PodObservation),
    /// A page of a log.
    Logs {
        /// The query's.
        id: u64,
        /// The page.
        page: Result<LogPage, LogError>,
    },
}

/// Which lines of a container's log are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogQuery {
    /// The pod.
    pub uid: PodUid,
    /// The container; `None` means the first one.
    pub container: Option<Arc<str>>,
    /// Lines of the run before the present one.
    pub previous: bool,
    /// Lines after the one with this number; 0 means from the first that is kept.
    pub after: u64,
    /// Most lines wanted; more than are kept of a container (1 000) never come.
    pub limit: usize,
    /// How long to wait for the first line; at most 60 s are waited.
    pub wait: Duration,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// Its number, rising by one with each line of a container, over its restarts.
    pub seq: u64,
    /// When it was written, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The line, which begins with the time (RFC 3339), without its end.
    pub text: String,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogPage {
    /// Lines in order; none when the wait was over.
    pub lines: Vec<LogLine>,
    /// What to ask for as `after` next.
    pub next: u64,
    /// Lines between `after` and the first of these are not kept any more.
    pub lost: bool,
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum LogError {
    /// The pod does not run here (any more).
    #[error("the pod is not running")]
    NoPod,
    /// The pod has no container of that name.
    #[error("container {0} is not valid for the pod")]
    NoContainer(Arc<str>),
    /// The container has not been restarted.
    #[error("previous terminated container {0:?} not found")]
    NoPrevious(Arc<str>),
    /// Too many wait for lines.
    #[error("too many readers of logs; try again later")]
    Busy,
    /// The process of the simulated pods went away, and the logs with it.
    #[error("the process of the simulated pods ended")]
    Lost,
}
