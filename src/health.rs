//! The prober: asks endpoints whether they are well and tells what changed. Owns the attempts (HTTP, TCP, gRPC) and
//! when they run; what they mean is counted in `portico_core::probe`, whom to ask comes from the world. Must not know
//! Services or pods.
//!
//! It runs on a thread and a runtime of its own: neither control nor the data path waits for an endpoint that hangs.
//! `exec` and HTTPS probes never get here: they count as passing
//! ([`counted_as_passing`](portico_core::probe::counted_as_passing)).

mod ask;
mod grpc;
mod http;
mod schedule;

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use portico_core::world::probes::{ProbeObservation, ProbeTargets};
use tokio::{
    runtime,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use schedule::Schedule;

/// Most attempts at once; the others wait for their turn.
pub const MOST_ATTEMPTS: usize = 64;

/// Observations that nobody has taken yet; while there are as many, no further result is looked at.
const OBSERVATIONS: usize = 256;

/// Threads that resolve host names of probes; a name server that hangs holds up these only.
const RESOLVERS: usize = 4;

/// What the prober has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeLoad {
    /// Probes that are run.
    pub probes: usize,
    /// Attempts in progress.
    pub running: usize,
    /// Attempts so far.
    pub attempts: u64,
    /// Attempts so far that had to wait for others ([`MOST_ATTEMPTS`]).
    pub delayed: u64,
}

/// The same while it changes.
#[derive(Debug, Default)]
struct Counters {
    probes: AtomicUsize,
    running: AtomicUsize,
    attempts: AtomicU64,
    delayed: AtomicU64,
}

/// The handle of the prober's thread. It ends when the handle is dropped.
#[derive(Debug)]
pub struct Prober {
    targets: watch::Sender<Arc<ProbeTargets>>,
    counters: Arc<Counters>,
    cancel: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Starts the thread; observations come from the channel, in order for each probe.
    ///
    /// # Errors
    /// The thread or its runtime could not be made.
    pub fn start() -> io::Result<(Self, mpsc::Receiver<ProbeObservation>)> {
        let (targets, wanted) = watch::channel(Arc::default());
        let (observations, observed) = mpsc::channel(OBSERVATIONS);
        let counters = Arc::new(Counters::default());
        let cancel = CancellationToken::new();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(RESOLVERS)
            .build()?;
        let (chance, mut drawn) = (RandomState::new(), 0_u64);
        let jitter = move || {
            drawn += 1;
            u16::try_from(chance.hash_one(drawn) >> 48).unwrap_or_default()
        };
        let schedule = Schedule::new(ask::ask, jitter, Arc::clone(&counters));
        let ending = cancel.clone();
        let thread = std::thread::Builder::new()
            .name("probes".into())
            .spawn(move || {
                runtime.block_on(schedule.run(wanted, observations, ending));
                // Does not wait for a name server.
                runtime.shutdown_background();
            })?;
        let prober = Self {
            targets,
            counters,
            cancel,
            thread: Some(thread),
        };
        Ok((prober, observed))
    }

    /// These are to run from now on. Those that are running already, with an equal target, go on undisturbed.
    pub fn set(&mut self, targets: Arc<ProbeTargets>) {
        self.targets.send_replace(targets);
    }

    /// What there is to do.
    pub fn load(&self) -> ProbeLoad {
        ProbeLoad {
            probes: self.counters.probes.load(Relaxed),
            running: self.counters.running.load(Relaxed),
            attempts: self.counters.attempts.load(Relaxed),
            delayed: self.counters.delayed.load(Relaxed),
        }
    }
}

impl Drop for Prober {
    /// Cuts off what is being asked and waits for the thread.
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
