//! `portico run` as the control loop has it: its thread, who opens sockets for the data path, and what is known of each
//! run. Owns the adapters; which sockets a run has is the reconciler's.

use std::sync::Arc;

use anyhow::Context as _;
use portico_core::{
    calendar::rfc3339,
    snapshot::{Cluster, Generation, Scope},
};
use portico_dataplane::{BindErrorKind, DataPlane, ListenerStatus};
use tokio::sync::mpsc;

use super::parts::Sockets;
use crate::{
    control::status::RunStatus,
    dns::DnsService,
    handover::Listener,
    instance::Instance,
    runs::{Desk, Run, RunEvent, Runs},
};

/// Begins to take `portico run`, whose sockets `data_plane` asks for from now on.
pub(super) fn start(
    instance: &Instance,
    cluster: &Cluster,
    dns: Arc<DnsService>,
    data_plane: &mut DataPlane,
) -> anyhow::Result<(Runs, Desk, mpsc::Receiver<RunEvent>)> {
    let path = instance.run_socket_path();
    let listener = Listener::bind(&path).with_context(|| {
        format!(
            "cannot bind the socket for `portico run` {}",
            path.display()
        )
    })?;
    let (runs, desk, told) =
        Runs::start(listener, cluster, dns).context("cannot start the thread of `portico run`")?;
    data_plane.open_by(Box::new(desk.clone()));
    Ok((runs, desk, told))
}

impl Sockets {
    /// What is known of every `portico run`.
    pub(super) fn runs(&self) -> Vec<RunStatus> {
        let status = |run: Run| {
            let statuses = self.0.statuses_in(run.scope);
            let (served, failed) = failures_in(&statuses);
            RunStatus {
                pid: run.pid,
                command: run.command,
                namespace: run.namespace,
                since: rfc3339(run.since),
                listeners: served,
                failed: run.dns_problem.into_iter().chain(failed).collect(),
            }
        };
        self.2.runs().into_iter().map(status).collect()
    }

    /// Lets the command of a run start, once all its sockets are there or have failed; tells whether they are.
    pub(super) fn release(&self, scope: Scope, generation: Generation) -> bool {
        let statuses = self.0.statuses_in(scope);
        let is_whole = !statuses.iter().any(is_pending);
        if is_whole {
            let (_, failed) = failures_in(&statuses);
            self.2.say_ready(scope, generation.0, failed);
        }
        is_whole
    }
}

/// Whether its socket is still to come from another network namespace.
fn is_pending(status: &ListenerStatus) -> bool {
    let kind = status.error.as_ref().map(|error| error.kind);
    kind == Some(BindErrorKind::Pending)
}

/// How many are served, and the others with their reasons.
fn failures_in(statuses: &[ListenerStatus]) -> (usize, Vec<String>) {
    let failed = statuses.iter().filter_map(|status| {
        let error = status.error.as_ref()?;
        let (protocol, services) = (status.key.protocol, &status.services);
        Some(format!("{protocol} of {services}: {error}"))
    });
    let failed: Vec<String> = failed.collect();
    (statuses.len() - failed.len(), failed)
}
