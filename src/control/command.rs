//! What people ask the running program to change, and how it refuses. Owns the shapes that travel over the admin
//! socket; carrying them out belongs to the app.

use std::collections::BTreeMap;

use portico_core::world::pods::Fault;
use serde::{Deserialize, Serialize};

use crate::objects::Resource;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// Which resource.
    pub resource: Resource,
    /// Its namespace; empty for cluster-scoped resources.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Target {
    /// `deployment.apps/web`, as kubectl names it in what it prints.
    pub fn display(&self) -> String {
        format!("{}/{}", self.resource.qualified_singular(), self.name)
    }
}

/// A change at run time. Nothing of it is written to the user's files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Command {
    /// `scale --replicas`.
    Scale {
        /// Which workload.
        target: Target,
        /// How many.
        replicas: u32,
        /// Only if it has this many now.
        current: Option<u32>,
    },
    /// `set image`.
    SetImage {
        /// Which workload.
        target: Target,
        /// Container and image; `*` is every container.
        images: Vec<(String, String)>,
    },
    /// `rollout restart`.
    Restart {
        /// Which workload.
        target: Target,
    },
    /// `rollout pause` and `rollout resume`.
    Pause {
        /// Which Deployment.
        target: Target,
        /// Pause, or resume.
        paused: bool,
    },
    /// `rollout undo`.
    Undo {
        /// Which workload.
        target: Target,
        /// 0 is the one before.
        to_revision: u64,
    },
    /// `label`.
    Label {
        /// Which object.
        target: Target,
        /// `None` takes a label away.
        changes: BTreeMap<String, Option<String>>,
        /// Whether other values may be replaced.
        overwrite: bool,
    },
    /// `annotate`.
    Annotate {
        /// Which object.
        target: Target,
        /// `None` takes an annotation away.
        changes: BTreeMap<String, Option<String>>,
        /// Whether other values may be replaced.
        overwrite: bool,
    },
    /// `delete pod`.
    DeletePod {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Instead of its own grace.
        grace_seconds: Option<u64>,
    },
    /// `pod fail` and `pod heal`.
    Fault {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// What fails.
        fault: Fault,
        /// Fail, or heal.
        failing: bool,
    },
    /// `reset`.
    Reset {
        /// One object; `None` is everything.
        target: Option<Target>,
    },
}

/// What was done, in the word that follows the object's name: `scaled`, `not labeled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The word.
    pub verb: String,
    /// What people should know beside it.
    pub warning: Option<String>,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such object.
    #[error("{}", resource.not_found(name))]
    NotFound {
        /// Which resource.
        resource: Resource,
        /// Name.
        name: String,
    },
    /// It cannot be done to this object.
    #[error("{0}")]
    Refused(String),
}

impl CommandError {
    /// The object is not there.
    pub fn not_found(target: &Target) -> Self {
        Self::NotFound {
            resource: target.resource,
            name: target.name.clone(),
        }
    }
}

/// One line of `portico overrides`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverrideLine {
    /// The object.
    pub target: Target,
    /// What was changed, as in `replicas=5`.
    pub change: String,
    /// When, in milliseconds since the Unix epoch; `None` for what has no time of its own.
    pub since_ms: Option<u64>,
}

/// Which lines of a log are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
    /// Of the run before its last restart.
    pub previous: bool,
    /// Lines after this one.
    pub after: u64,
    /// Most lines.
    pub limit: usize,
    /// How long to wait for the first one.
    pub wait: std::time::Duration,
}

/// Lines that a container of a simulated pod wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogPage {
    /// In order.
    pub lines: Vec<LogLine>,
    /// What to ask `after` next time.
    pub next: u64,
    /// There will be no more.
    pub ended: bool,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The line.
    pub text: String,
}

/// A revision that a workload had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its number, from 1.
    pub revision: i64,
    /// `kubernetes.io/change-cause`; may be empty.
    pub change_cause: String,
    /// Its pod template.
    pub template: serde_json::Value,
}
