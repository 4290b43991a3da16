//! Which probe is asked when. Owns the running probes, their order and the bound on attempts at once; an attempt
//! itself is a function that it is given, so that tests run it in their own time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use portico_core::{
    probe::{Attempt, ProbeState},
    time::Timestamp,
    world::probes::{ProbeKey, ProbeObservation, ProbeSubject, ProbeTarget, ProbeTargets},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Counters, MOST_ATTEMPTS};

/// An attempt that begins this long after it was due had to wait for others.
const DELAYED: Duration = Duration::from_millis(100);

/// One life of one probe: a changed target is another one.
type ProbeId = u64;

struct Running {
    key: ProbeKey,
    target: ProbeTarget,
    state: ProbeState,
    attempt: Option<AbortHandle>,
}

/// See the module's documentation.
pub(super) struct Schedule<A, J> {
    ask: A,
    jitter: J,
    counters: Arc<Counters>,
    /// Zero of the timestamps in here.
    began: Instant,
    ids: BTreeMap<ProbeKey, ProbeId>,
    probes: BTreeMap<ProbeId, Running>,
    /// When the probes at rest are due: at most one entry a probe. Those that are overdue wait for a free place, the
    /// longest overdue first.
    due: BTreeSet<(Timestamp, ProbeId)>,
    attempts: JoinSet<(ProbeId, Attempt)>,
    /// Observations that the channel has no room for. While there is one, results are left where they are.
    outbox: VecDeque<ProbeObservation>,
    last_id: ProbeId,
}

impl<A, F, J> Schedule<A, J>
where
    A: Fn(&ProbeSubject, ProbeTarget) -> F,
    F: Future<Output = Attempt> + Send + 'static,
    J: FnMut() -> u16,
{
    pub(super) fn new(ask: A, jitter: J, counters: Arc<Counters>) -> Self {
        Self {
            ask,
            jitter,
            counters,
            began: Instant::now(),
            ids: BTreeMap::new(),
            probes: BTreeMap::new(),
            due: BTreeSet::new(),
            attempts: JoinSet::new(),
            outbox: VecDeque::new(),
            last_id: 0,
        }
    }

    /// Runs until it is cancelled or one of the channels is closed.
    pub(super) async fn run(
        mut self,
        mut targets: watch::Receiver<Arc<ProbeTargets>>,
        observations: mpsc::Sender<ProbeObservation>,
        cancel: CancellationToken,
    ) {
        let wanted = Arc::clone(&targets.borrow_and_update());
        self.set(&wanted);
        loop {
            self.start_due();
            self.count();
            let next = self.next_start();
            // All branches are cancel safe.
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                changed = targets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = Arc::clone(&targets.borrow_and_update());
                    self.set(&wanted);
                }
                place = observations.reserve(), if !self.outbox.is_empty() => {
                    let Ok(place) = place else { return };
                    if let Some(observation) = self.outbox.pop_front() {
                        place.send(observation);
                    }
                }
                Some(ended) = self.attempts.join_next(), if self.outbox.is_empty() => {
                    self.take(ended);
                }
                () = sleep_until(next) => {}
            }
        }
    }

    /// Ends the probes that are not wanted any more or not in this way, and begins those that are new.
    fn set(&mut self, wanted: &ProbeTargets) {
        let now = self.now();
        let gone = self.probes.iter().filter(|(_, probe)| {
            let wanted = wanted.get(&probe.key);
            wanted.is_none_or(|wanted| *wanted != probe.target)
        });
        let gone: Vec<ProbeId> = gone.map(|(id, _)| *id).collect();
        for id in gone {
            let Some(probe) = self.probes.remove(&id) else {
                continue;
            };
            self.ids.remove(&probe.key);
            if let Some(due) = probe.state.next_due() {
                self.due.remove(&(due, id));
            }
            if let Some(attempt) = probe.attempt {
                attempt.abort();
            }
        }
        for (key, target) in wanted {
            if self.ids.contains_key(key) {
                continue;
            }
            self.last_id += 1;
            let jitter = (self.jitter)();
            let state = ProbeState::new(key.kind, &target.probe, now, jitter);
            self.due
                .extend(state.next_due().map(|due| (due, self.last_id)));
            self.ids.insert(key.clone(), self.last_id);
            let probe = Running {
                key: key.clone(),
                target: target.clone(),
                state,
                attempt: None,
            };
            self.probes.insert(self.last_id, probe);
        }
    }

    /// Begins attempts that are due, as far as there are places.
    fn start_due(&mut self) {
        let now = self.now();
        while self.attempts.len() < MOST_ATTEMPTS {
            let Some(&(due, id)) = self.due.first().filter(|(due, _)| *due <= now) else {
                return;
            };
            self.due.pop_first();
            let Some(probe) = self.probes.get_mut(&id) else {
                continue;
            };
            let answer = (self.ask)(&probe.key.subject, probe.target.clone());
            let attempt = self.attempts.spawn(async move { (id, answer.await) });
            probe.attempt = Some(attempt);
            self.counters.attempts.fetch_add(1, Relaxed);
            if now.since(due) >= DELAYED {
                self.counters.delayed.fetch_add(1, Relaxed);
            }
        }
    }

    /// When the next attempt may begin, apart from those that wait for a place.
    fn next_start(&self) -> Option<Instant> {
        let (due, _) = self.due.first()?;
        let has_place = self.attempts.len() < MOST_ATTEMPTS;
        has_place.then(|| self.began + Duration::from_millis(due.as_millis()))
    }

    fn take(&mut self, ended: Result<(ProbeId, Attempt), JoinError>) {
        let (id, attempt) = match ended {
            Ok(ended) => ended,
            // Aborted with its probe; or broken, and then so is the prober.
            Err(error) => {
                return error
                    .try_into_panic()
                    .map_or((), |panic| std::panic::resume_unwind(panic));
            }
        };
        let now = self.now();
        // It may have ended just before its probe was taken away.
        let Some(probe) = self.probes.get_mut(&id) else {
            return;
        };
        probe.attempt = None;
        if let Some(outcome) = probe.state.observe(attempt, now) {
            let key = probe.key.clone();
            self.outbox.push_back(ProbeObservation { key, outcome });
        }
        self.due.extend(probe.state.next_due().map(|due| (due, id)));
    }

    fn count(&self) {
        self.counters.probes.store(self.probes.len(), Relaxed);
        self.counters.running.store(self.attempts.len(), Relaxed);
    }

    fn now(&self) -> Timestamp {
        Timestamp::default().after(self.began.elapsed())
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
