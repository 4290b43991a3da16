//! What happens to the containers of a running pod: probes make them started, ready or restarted, and between two runs
//! they wait as kubelet lets them wait. Owns the way from one run to the next and what makes a pod ready; the phases
//! of the whole pod belong to `pod_state`.

use std::{sync::Arc, time::Duration};

use super::{
    Work,
    pod_state::{OVERDUE, millis, moved},
    say::Say,
};
use crate::{
    object::Container,
    world::{
        pods::{
            ContainerChange, Fault, PodAction, PodKey, SimulatedPod,
            life::{HEALED, Life, Step, Unit, restart_delay},
            plan,
        },
        probes::{ProbeKind, ProbeObservation, ProbeOutcome, ProbeSubject},
    },
};

/// What kubelet calls a container that waits for its next run.
const CRASH_LOOP: &str = "CrashLoopBackOff";

impl Work<'_> {
    /// All containers of a pod run for the first time, or again after the host was lost.
    pub(super) fn bring_up(&mut self, key: &PodKey) {
        let count = self.table.pods.get(key).map(|pod| pod.containers.len());
        for index in 0..count.unwrap_or_default() {
            self.enter_run(key, index);
        }
        self.settle(key);
    }

    /// A container runs.
    fn enter_run(&mut self, key: &PodKey, index: usize) {
        let Some((pod, container)) = self.container(key, index) else {
            return;
        };
        let now = self.now;
        let started = container
            .startup
            .as_ref()
            .is_none_or(|probe| runs_never(probe));
        self.set_unit(&pod, index, |unit| {
            unit.step = Step::Up;
            unit.passing = false;
        });
        self.update(key, |pod| {
            if let Some(state) = pod.containers.get_mut(index) {
                state.running_since = Some(now);
                state.waiting = None;
                state.started = started;
            }
        });
        let (name, image) = (&container.name, &container.image);
        let pulled = format!("Container image \"{image}\" already present on machine");
        self.say(&pod, Say::normal("Pulled", pulled));
        self.say(
            &pod,
            Say::normal("Created", format!("Created container: {name}")),
        );
        self.say(
            &pod,
            Say::normal("Started", format!("Started container {name}")),
        );
        for (kind, port) in plan::unknown_ports(&container) {
            let message = format!(
                "{} probe errored and resulted in unknown state: container {name} has no port named \"{port}\"",
                title(kind)
            );
            self.say(&pod, Say::warning("Unhealthy", message));
        }
    }

    /// Works out which containers are ready, and since when the pod is.
    pub(super) fn settle(&mut self, key: &PodKey) {
        let Some(pod) = self.table.pods.get(key) else {
            return;
        };
        let units = self
            .table
            .lives
            .get(&pod.uid)
            .map(|life| life.units.clone());
        let units = units.unwrap_or_default();
        let failing = fails_at_once(pod, Fault::Ready);
        let (now, running) = (self.now, pod.is_running());
        self.update(key, |pod| {
            let specs = pod.spec.containers.iter();
            for ((state, unit), spec) in pod.containers.iter_mut().zip(&units).zip(specs) {
                let probed = spec
                    .readiness
                    .as_ref()
                    .is_some_and(|probe| !runs_never(probe));
                let up = running && unit.step == Step::Up && state.started;
                state.ready = up && (unit.passing || !probed) && !failing;
            }
            let ready = running && pod.containers.iter().all(|state| state.ready);
            pod.ready_since = pod.ready_since.or(Some(now)).filter(|_| ready);
        });
    }

    /// Takes what a probe says of a simulated pod; anything else, or a former run's, concerns nobody here.
    pub(super) fn observe_probe(&mut self, seen: &ProbeObservation) {
        let ProbeSubject::Simulated(uid) = &seen.key.subject else {
            return;
        };
        let Some(key) = self.table.uids.get(uid).cloned() else {
            return;
        };
        let Some(pod) = self.table.pods.get(&key).filter(|pod| pod.is_running()) else {
            return;
        };
        let (pod, kind) = (Arc::clone(pod), seen.key.kind);
        let is_same = |name: &Arc<str>| *name == seen.key.container;
        let index = pod.containers.iter().position(|state| is_same(&state.name));
        let Some((index, state)) = index.and_then(|at| Some((at, pod.containers.get(at)?))) else {
            return;
        };
        let life = self.table.lives.get(uid);
        let up = life.is_some_and(|life| life.step(index) == Some(Step::Up));
        if !up || state.restarts != seen.key.run {
            return;
        }
        if let ProbeOutcome::Failure { reason } | ProbeOutcome::Unhealthy { reason } = &seen.outcome
        {
            let message = format!("{} probe failed: {reason}", title(kind));
            self.say(&pod, Say::warning("Unhealthy", message));
        }
        match (&seen.outcome, kind) {
            (ProbeOutcome::Success, ProbeKind::Startup) => self.update(&key, |pod| {
                if let Some(state) = pod.containers.get_mut(index) {
                    state.started = true;
                }
            }),
            (ProbeOutcome::Success | ProbeOutcome::Failure { .. }, ProbeKind::Readiness) => {
                let passing = seen.outcome == ProbeOutcome::Success;
                self.set_unit(&pod, index, |unit| unit.passing = passing);
            }
            (ProbeOutcome::Failure { .. }, _) => self.kill(&key, index, Some(kind)),
            (ProbeOutcome::Success, ProbeKind::Liveness) | (ProbeOutcome::Unhealthy { .. }, _) => {}
        }
        self.settle(&key);
    }

    /// Ends one run of a container; the next one follows.
    pub(super) fn kill(&mut self, key: &PodKey, index: usize, probe: Option<ProbeKind>) {
        let Some((pod, container)) = self.container(key, index) else {
            return;
        };
        let kind = probe.unwrap_or(ProbeKind::Liveness);
        let own = plan::probes(&container).find(|(of, _)| *of == kind);
        let grace = own.and_then(|(_, probe)| probe.termination_grace);
        let grace = grace.unwrap_or(pod.spec.termination_grace);
        let by = self.now.after(grace).after(OVERDUE);
        self.set_unit(&pod, index, |unit| unit.step = Step::Ending { by });
        self.update(key, |pod| {
            if let Some(state) = pod.containers.get_mut(index) {
                (state.started, state.ready) = (false, false);
            }
        });
        let name = &container.name;
        let probe = title(kind).to_lowercase();
        let message = format!("Container {name} failed {probe} probe, will be restarted");
        self.say(&pod, Say::normal("Killing", message));
        self.actions.push(PodAction::EndContainer {
            uid: pod.uid,
            container: Arc::clone(name),
            grace_ms: millis(grace),
        });
        self.wake_pods_at(by);
    }

    /// Takes what the host says of one container.
    pub(super) fn observe_container(&mut self, key: &PodKey, name: &str, became: &ContainerChange) {
        let Some(pod) = self.table.pods.get(key).filter(|pod| pod.is_running()) else {
            return;
        };
        let pod = Arc::clone(pod);
        let index = pod.containers.iter().position(|state| *state.name == *name);
        let Some(index) = index else { return };
        let step = self
            .table
            .lives
            .get(&pod.uid)
            .and_then(|life| life.step(index));
        match (became, step) {
            (ContainerChange::Ended, Some(Step::Ending { .. })) => {
                self.rest(key, index, "Completed");
            }
            (ContainerChange::Running { bound }, Some(Step::Starting)) => {
                let gone = self.ports_of(&pod, index);
                self.update(key, |pod| {
                    pod.moved_ports.retain(|port, _| !gone.contains(port));
                    pod.moved_ports.extend(moved(bound));
                });
                self.enter_run(key, index);
            }
            (ContainerChange::Failed { reason }, Some(Step::Starting)) => {
                self.say(&pod, Say::warning("Failed", format!("Error: {reason}")));
                self.rest(key, index, "Error");
            }
            _ => {}
        }
        self.settle(key);
    }

    /// A container has ended: the next run begins at once or after kubelet's back-off.
    fn rest(&mut self, key: &PodKey, index: usize, reason: &str) {
        let Some((pod, container)) = self.container(key, index) else {
            return;
        };
        let since = pod
            .containers
            .get(index)
            .and_then(|state| state.running_since);
        let healed = since.is_some_and(|since| self.now.since(since) >= HEALED);
        let mut delay = Duration::ZERO;
        self.set_unit(&pod, index, |unit| {
            if healed {
                unit.crashes = 0;
            }
            delay = restart_delay(unit.crashes);
            unit.crashes = unit.crashes.saturating_add(1);
        });
        let now = self.now;
        self.update(key, |pod| {
            if let Some(state) = pod.containers.get_mut(index) {
                if state.running_since.take().is_some() {
                    state.last_end = Some((now, reason.into()));
                }
                state.waiting = Some(CRASH_LOOP.into());
            }
        });
        if delay.is_zero() {
            return self.restart(key, index);
        }
        let until = now.after(delay);
        self.set_unit(&pod, index, |unit| unit.step = Step::Resting { until });
        self.wake_pods_at(until);
        let message = format!(
            "Back-off restarting failed container {} in pod {}_{}({})",
            container.name, pod.name, pod.namespace, pod.uid.0
        );
        self.say(&pod, Say::warning("BackOff", message));
    }

    /// Asks for the next run of a container.
    fn restart(&mut self, key: &PodKey, index: usize) {
        let Some((pod, container)) = self.container(key, index) else {
            return;
        };
        self.set_unit(&pod, index, |unit| unit.step = Step::Starting);
        self.update(key, |pod| {
            if let Some(state) = pod.containers.get_mut(index) {
                state.restarts = state.restarts.saturating_add(1);
                state.waiting = Some("ContainerCreating".into());
            }
        });
        self.actions.push(PodAction::StartContainer {
            uid: pod.uid,
            container: Arc::clone(&container.name),
        });
    }

    /// Starts the containers of a pod that have waited long enough, gives up those that should have ended.
    pub(super) fn run_container_timers(&mut self, key: &PodKey) {
        let Some(pod) = self.table.pods.get(key).cloned() else {
            return;
        };
        for index in 0..pod.containers.len() {
            let step = self
                .table
                .lives
                .get(&pod.uid)
                .and_then(|life| life.step(index));
            match step {
                Some(Step::Ending { by }) if by <= self.now => self.rest(key, index, "Error"),
                Some(Step::Resting { until }) if until <= self.now => self.restart(key, index),
                _ => {}
            }
        }
        self.settle(key);
        let timer = self.table.lives.get(&pod.uid).and_then(Life::timer);
        if let Some(at) = timer {
            self.wake_pods_at(at);
        }
    }

    fn container(&self, key: &PodKey, index: usize) -> Option<(Arc<SimulatedPod>, Container)> {
        let pod = self.table.pods.get(key)?;
        let container = pod.spec.containers.get(index)?.clone();
        Some((Arc::clone(pod), container))
    }

    fn set_unit(&mut self, pod: &SimulatedPod, index: usize, set: impl FnOnce(&mut Unit)) {
        let life = self.table.lives.get_mut(&pod.uid);
        if let Some(unit) = life.and_then(|life| life.units.get_mut(index)) {
            set(unit);
        }
    }

    fn ports_of(&self, pod: &SimulatedPod, index: usize) -> Vec<crate::world::pods::WantedPort> {
        let life = self.table.lives.get(&pod.uid);
        let ports = life.and_then(|life| life.ports.get(index));
        ports.cloned().unwrap_or_default()
    }
}

/// Whether a fault acts on the pod itself, because no probe of its kind could tell of it.
pub(super) fn fails_at_once(pod: &SimulatedPod, fault: Fault) -> bool {
    let kind = match fault {
        Fault::Ready => ProbeKind::Readiness,
        Fault::Live => ProbeKind::Liveness,
        Fault::Port => return false,
    };
    pod.faults.contains(&fault) && !plan::answers(&pod.spec, kind)
}

/// A probe that cannot run here counts as passing.
fn runs_never(probe: &crate::object::Probe) -> bool {
    probe.check == crate::object::ProbeCheck::Exec
}

const fn title(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Readiness => "Readiness",
        ProbeKind::Liveness => "Liveness",
    }
}
