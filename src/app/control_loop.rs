//! The loop that drives the reconciler: waits for files, pods, requests, time and signals, and runs a round. Owns
//! when a round happens; what a round does is the reconciler's, what is answered belongs to [`answers`].

mod answers;
mod measure;

use std::time::Duration;

use portico_core::{
    snapshot::{Generation, Scope},
    time::Timestamp,
    world::{
        Input, SourceReport,
        pods::{PodCommand, PodObservation},
        probes::ProbeObservation,
    },
};
use portico_dataplane::DrainReport;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    happenings::Happenings,
    parts::{PodHandle, Probes, Rest, Sockets},
    watchers::Watchers,
};
use crate::{
    admin::Request,
    clock,
    control::{Reconciler, status},
    runs::RunEvent,
    simulate::host::{HostReport, LogReader},
    source::{file::FileWatch, overrides::Overrides},
};

/// Serving starts without a source that has said nothing for this long.
const SOURCE_DEADLINE: Duration = Duration::from_secs(30);

/// Sockets inside a `portico run` that are not shared by addresses: its descriptors are the program's.
const RUN_BUDGET: usize = 64;

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
    pub(super) probed: mpsc::Receiver<ProbeObservation>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) runs: mpsc::Receiver<RunEvent>,
    pub(super) stop: CancellationToken,
    pub(super) hurry: CancellationToken,
    /// Logs of simulated pods; `None` without simulation.
    pub(super) logs: Option<LogReader>,
}

/// See the module's documentation.
pub(super) struct ControlLoop {
    reconciler: Reconciler<Sockets, PodHandle, Probes>,
    watches: Watches,
    /// Reports that never change: mappings of the command line.
    fixed: Vec<SourceReport>,
    rest: Rest,
    observations: Vec<PodObservation>,
    /// What probes said since the last round.
    probed: Vec<ProbeObservation>,
    /// What people asked of pods since the last round.
    commands: Vec<PodCommand>,
    overrides: Overrides,
    watchers: Watchers,
    /// Who waits for lines of a log.
    readers: JoinSet<()>,
    happenings: Happenings,
    /// Runs whose commands wait for their first sockets.
    starting: Vec<Scope>,
    began: Timestamp,
    /// When a snapshot was last published.
    updated: Timestamp,
    files_changed: bool,
    /// When the oldest change was noticed that is not in force yet.
    noticed: Option<Timestamp>,
}

enum Event {
    Files,
    Pods(Option<HostReport>),
    Probes(ProbeObservation),
    Request(Option<Request>),
    Run(RunEvent),
    Time,
    Stop,
}

impl ControlLoop {
    pub(super) fn new(
        reconciler: Reconciler<Sockets, PodHandle, Probes>,
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
            probed: Vec::new(),
            commands: Vec::new(),
            overrides: Overrides::new(),
            watchers: Watchers::default(),
            readers: JoinSet::new(),
            happenings: Happenings::default(),
            starting: Vec::new(),
            began: clock::now(),
            updated: clock::now(),
            files_changed: true,
            noticed: None,
        }
    }

    /// Runs until told to stop, then drains.
    pub(super) async fn run(mut self, drain: Duration) -> anyhow::Result<DrainReport> {
        let mut wake = self.round();
        loop {
            match self.next_event(wake).await {
                Event::Stop | Event::Request(None) => break,
                Event::Request(Some(Request::Command(command, reply))) => {
                    self.noticed.get_or_insert_with(clock::now);
                    let result = self.carry_out(command);
                    wake = self.round();
                    // Who asked sees the effect in whatever is asked next.
                    let _ = reply.send(result);
                    continue;
                }
                Event::Request(Some(request)) => {
                    self.answer(request);
                    continue;
                }
                Event::Files => {
                    self.files_changed = true;
                    let noticed = self.watches.files.as_ref().and_then(FileWatch::noticed);
                    self.noticed = self.noticed.or(noticed);
                }
                Event::Pods(Some(report)) => self.take_pods(report).await,
                Event::Pods(None) => self.watches.pods = None,
                Event::Probes(observation) => self.take_probes(observation).await,
                Event::Run(event) => self.take_run(event),
                Event::Time => {}
            }
            wake = self.round();
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
            probed,
            requests,
            runs,
            stop,
            ..
        } = &mut self.watches;
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            request = requests.recv() => Event::Request(request),
            () = changed(files.as_mut()) => Event::Files,
            report = received(pods.as_mut()) => Event::Pods(report),
            // Closed only if the prober broke: then what it said last stays.
            Some(observation) = probed.recv() => Event::Probes(observation),
            // Closed only if its thread broke: then nobody comes any more.
            Some(event) = runs.recv() => Event::Run(event),
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

    /// Takes what a probe said and, after a short wait, all that came with it.
    async fn take_probes(&mut self, observation: ProbeObservation) {
        self.probed.push(observation);
        tokio::time::sleep(OBSERVATION_PACE).await;
        while let Ok(observation) = self.watches.probed.try_recv() {
            self.probed.push(observation);
        }
    }

    fn take_run(&mut self, event: RunEvent) {
        match event {
            RunEvent::Began(scope) => {
                self.reconciler.open_scope(scope, RUN_BUDGET);
                self.starting.push(scope);
            }
            RunEvent::Ended(scope) => {
                self.reconciler.close_scope(scope);
                self.starting.retain(|starting| *starting != scope);
            }
            // The round that follows takes what has come.
            RunEvent::Answered => {}
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

    fn round(&mut self) -> Option<Timestamp> {
        let now = clock::now();
        let mut reports = vec![self.overrides.report()];
        reports.extend(self.fixed.iter().cloned());
        reports.extend(
            self.watches
                .files
                .as_ref()
                .map(|files| files.reports.borrow().clone()),
        );
        let deadline = self.began.after(SOURCE_DEADLINE);
        let observations = std::mem::take(&mut self.observations);
        let probes = std::mem::take(&mut self.probed);
        let commands = std::mem::take(&mut self.commands);
        let outcome = self.reconciler.round(Input {
            reports: &reports,
            observations: &observations,
            probes: &probes,
            commands: &commands,
            now,
            waited_enough: now >= deadline,
        });
        self.rest.remember(self.reconciler.deviations());
        let files = std::mem::take(&mut self.files_changed);
        self.measure(&outcome, files, now);
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
        self.tell(&outcome.plan, files, now);
        if self.reconciler.world().is_synced() {
            let (sockets, generation) = (self.reconciler.listeners(), self.reconciler.generation());
            self.starting
                .retain(|scope| !sockets.release(*scope, generation));
        }
        let source = (!self.reconciler.world().is_synced()).then_some(deadline);
        let stale = self.clear_stale_overrides(now).then_some(now);
        [outcome.deadline, source, stale]
            .into_iter()
            .flatten()
            .min()
    }

    /// Listeners close, connections finish until the deadline, then everything else ends.
    async fn end(self, drain: Duration) -> anyhow::Result<DrainReport> {
        let hurry = self.watches.hurry.clone();
        let (sockets, pods, probes) = self.reconciler.into_parts();
        drop(probes);
        // Their keepers look for the next program from now on.
        self.rest.runs.stop();
        let Sockets(data_plane, routes, _) = sockets;
        let report = data_plane.drain(drain, hurry).await;
        self.rest.dns.stop();
        self.rest.observing.stop();
        drop(pods);
        // Last: connections need their addresses to the end.
        drop(routes);
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
