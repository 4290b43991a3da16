//! The loop that drives the reconciler: waits for files, pods, requests, time and signals, and runs a round. Owns
//! when a round happens; what a round does is the reconciler's.

use std::time::Duration;

use portico_core::{
    snapshot::Generation,
    time::Timestamp,
    world::{SourceReport, pods::PodObservation},
};
use portico_dataplane::DrainReport;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::parts::{PodHandle, Rest, Sockets};
use crate::{
    admin::{Findings, Request},
    clock,
    control::{Reconciler, reconcile, status},
    simulate::host::HostReport,
    source::file::FileWatch,
};

/// Serving starts without a source that has said nothing for this long.
const SOURCE_DEADLINE: Duration = Duration::from_secs(30);

/// Rounds for observations of pods come no closer together than this: a rollout of many pods is few generations.
const OBSERVATION_PACE: Duration = Duration::from_millis(20);

/// Something that happened, for people.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The generation that is now in force.
    pub generation: Generation,
    /// How many Services were compiled anew.
    pub services: usize,
    /// Sockets bound, closed, switched.
    pub sockets: (usize, usize, usize),
    /// Simulated pods that have not come up yet.
    pub starting: usize,
    /// Files were read again: findings may have changed.
    pub files: bool,
}

/// What the loop waits for.
pub(super) struct Watches {
    pub(super) files: Option<FileWatch>,
    pub(super) pods: Option<mpsc::Receiver<HostReport>>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) stop: CancellationToken,
    pub(super) hurry: CancellationToken,
}

/// See the module's documentation.
pub(super) struct ControlLoop {
    reconciler: Reconciler<Sockets, PodHandle>,
    watches: Watches,
    /// Reports that never change: mappings of the command line.
    fixed: Vec<SourceReport>,
    rest: Rest,
    observations: Vec<PodObservation>,
    files_changed: bool,
}

enum Event {
    Files,
    Pods(Option<HostReport>),
    Request(Option<Request>),
    Time,
    Stop,
}

impl ControlLoop {
    pub(super) fn new(
        reconciler: Reconciler<Sockets, PodHandle>,
        watches: Watches,
        fixed: Vec<SourceReport>,
        rest: Rest,
    ) -> Self {
        Self {
            reconciler,
            watches,
            fixed,
            rest,
            observations: Vec::new(),
            files_changed: true,
        }
    }

    /// Runs until told to stop, then drains.
    pub(super) async fn run(mut self, drain: Duration) -> anyhow::Result<DrainReport> {
        let began = clock::now();
        let mut wake = self.round(began);
        loop {
            match self.next_event(wake).await {
                Event::Stop | Event::Request(None) => break,
                Event::Request(Some(Request::Status(reply))) => {
                    let _ = reply.send(Box::new(self.status()));
                    continue;
                }
                Event::Request(Some(Request::Findings(reply))) => {
                    let _ = reply.send(self.findings());
                    continue;
                }
                Event::Request(Some(Request::Reload)) => {
                    if let Some(files) = &self.watches.files {
                        files.rescanner().rescan();
                    }
                    continue;
                }
                Event::Files => self.files_changed = true,
                Event::Pods(Some(report)) => self.take_pods(report).await,
                Event::Pods(None) => self.watches.pods = None,
                Event::Time => {}
            }
            wake = self.round(began);
        }
        self.end(drain).await
    }

    /// # Cancel safety
    /// Every branch is cancel safe: watch, channels and sleep lose nothing.
    async fn next_event(&mut self, wake: Option<Timestamp>) -> Event {
        let now = clock::now();
        let pause = wake.map(|at| at.since(now));
        let Watches {
            files,
            pods,
            requests,
            stop,
            ..
        } = &mut self.watches;
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            request = requests.recv() => Event::Request(request),
            () = changed(files.as_mut()) => Event::Files,
            report = received(pods.as_mut()) => Event::Pods(report),
            () = until(pause) => Event::Time,
        }
    }

    /// Takes a pod's report and, after a short wait, all that came with it.
    async fn take_pods(&mut self, report: HostReport) {
        self.take_pod(report);
        tokio::time::sleep(OBSERVATION_PACE).await;
        while let Some(Ok(report)) = self.watches.pods.as_mut().map(mpsc::Receiver::try_recv) {
            self.take_pod(report);
        }
    }

    fn take_pod(&mut self, report: HostReport) {
        match report {
            HostReport::Observed(observation) => self.observations.push(observation),
            HostReport::Lost => {
                tracing::warn!("the process of the simulated pods was lost; they start again");
                self.observations.clear();
                self.reconciler.pod_host_lost();
            }
        }
    }

    fn round(&mut self, began: Timestamp) -> Option<Timestamp> {
        let now = clock::now();
        let mut reports = self.fixed.clone();
        reports.extend(
            self.watches
                .files
                .as_ref()
                .map(|files| files.reports.borrow().clone()),
        );
        let deadline = began.after(SOURCE_DEADLINE);
        let observations = std::mem::take(&mut self.observations);
        let outcome = self.reconciler.round(reconcile::input(
            &reports,
            &observations,
            now,
            now >= deadline,
        ));
        self.rest.remember(self.reconciler.deviations());
        let files = std::mem::take(&mut self.files_changed);
        if outcome.published.is_some() || (files && self.reconciler.world().is_synced()) {
            let generation = self.reconciler.generation();
            let plan = &outcome.plan;
            tracing::debug!(
                generation = generation.0,
                services = outcome.services,
                "published"
            );
            self.rest.say(Notice {
                generation,
                services: outcome.services,
                sockets: (plan.bind.len(), plan.close.len(), plan.switch.len()),
                starting: status::starting(self.reconciler.world()),
                files,
            });
        }
        let source = (!self.reconciler.world().is_synced()).then_some(deadline);
        [outcome.deadline, source].into_iter().flatten().min()
    }

    fn status(&self) -> status::Status {
        let world = self.reconciler.world();
        let sockets = self.reconciler.listeners();
        let listeners = sockets.reports();
        let snapshot = self.reconciler.snapshot();
        status::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            instance: self.rest.instance.name().to_owned(),
            pid: std::process::id(),
            generation: snapshot.generation,
            synced: snapshot.synced,
            services: status::services(&snapshot, &listeners, clock::now()),
            listener_count: sockets.0.statuses().len(),
            listeners: listeners.into_values().collect(),
            dns: self.rest.dns.status(),
            pods: status::pods(world),
            connections: sockets.0.connections(),
            descriptors: super::parts::descriptors(),
            findings: world.diagnostics(),
        }
    }

    /// What is wrong with the manifests, and which kinds in them nothing acts on.
    fn findings(&self) -> Findings {
        let inert = self.watches.files.as_ref();
        Findings {
            diagnostics: self.reconciler.world().diagnostics(),
            inert: inert
                .map(|files| files.inert.borrow().clone())
                .unwrap_or_default(),
        }
    }

    /// Listeners close, connections finish until the deadline, then everything else ends.
    async fn end(self, drain: Duration) -> anyhow::Result<DrainReport> {
        let hurry = self.watches.hurry.clone();
        let (sockets, pods) = self.reconciler.into_parts();
        let report = sockets.0.drain(drain, hurry).await;
        self.rest.dns.stop();
        drop(pods);
        Ok(report)
    }
}

async fn changed(files: Option<&mut FileWatch>) {
    match files {
        // A thread that ended unasked has closed the channel; its last view stays.
        Some(files) => {
            if files.reports.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

async fn received(pods: Option<&mut mpsc::Receiver<HostReport>>) -> Option<HostReport> {
    match pods {
        Some(pods) => pods.recv().await,
        None => std::future::pending().await,
    }
}

async fn until(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
