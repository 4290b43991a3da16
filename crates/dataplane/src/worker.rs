//! Workers: one thread with one runtime each. Owns the threads, what they share, where a new connection goes and how
//! it all ends. Must not know what a listener means.

use std::{
    collections::HashMap,
    io,
    net::TcpStream,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, Release, SeqCst},
        },
        mpsc as blocking,
    },
    thread,
};

use portico_core::object::Protocol;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Published,
    affinity::Affinity,
    budget::{self, DESCRIPTORS_PER_CONNECTION},
    clock,
    http::{log::AccessLog, pool::Pool},
    listen::{accept, accept::Listening},
    net,
    settings::DataSettings,
    tcp::{
        self,
        account::{Accepted, Totals},
        connect::Arrival,
        dial::sources::Sources,
        registry::{self, Registry},
    },
    udp::{self, Udp},
};

/// Commands that may wait for a worker; the control side waits when there are more.
const COMMAND_QUEUE: usize = 64;

/// Of the clients that there may be, so many parts are not told to go at a time.
const IDLE_PART: usize = 16;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) published: Arc<Published>,
    pub(crate) settings: DataSettings,
    pub(crate) totals: Totals,
    pub(crate) affinity: Affinity,
    pub(crate) sources: Sources,
    /// Descriptors of listeners.
    pub(crate) sockets: AtomicUsize,
    /// What [`Self::share_out`] found last.
    spare: AtomicUsize,
    /// Flows of all workers.
    pub(crate) flows: AtomicUsize,
    /// Live connections of each worker.
    pub(crate) registries: Box<[Arc<Registry>]>,
    /// When a pause of accepting was last complained about, in milliseconds.
    pub(crate) complained_at: AtomicU64,
    /// Another Snapshot is in force.
    pub(crate) changed: Notify,
    /// How often that was said: to be asked by those who do not wait for it.
    pub(crate) changes: AtomicU64,
    /// Where requests are logged, if they are.
    pub(crate) access_log: OnceLock<Arc<AccessLog>>,
    /// The program ends: for those whose connections would last.
    pub(crate) ending: Notify,
    /// When the connections that are left are closed, in milliseconds; 0 while the program goes on.
    pub(crate) ends_at: AtomicU64,
    /// Clients' connections of HTTP, which need a connection to an endpoint only now and then.
    pub(crate) http_clients: AtomicUsize,
    /// Connections of HTTP to endpoints.
    pub(crate) http_endpoints: AtomicUsize,
    /// Descriptors are short: workers let go of what lies idle.
    pub(crate) short: Notify,
    loads: Box<[Arc<AtomicUsize>]>,
    /// Connections that are being accepted, which have no slot yet.
    admissions: AtomicUsize,
    inboxes: Box<[mpsc::Sender<Incoming>]>,
}

impl Shared {
    /// Says that another Snapshot is in force.
    pub(crate) fn has_changed(&self) {
        self.changes.fetch_add(1, Release);
        self.changed.notify_waiters();
    }

    /// Connections of all workers.
    pub(crate) fn connections(&self) -> usize {
        self.loads.iter().map(|load| load.load(SeqCst)).sum()
    }

    /// Connections of each worker.
    pub(crate) fn loads(&self) -> Vec<usize> {
        self.loads.iter().map(|load| load.load(Relaxed)).collect()
    }

    /// Descriptors for connections and flows together. Done for each connection, for the process's limit may be lowered from
    /// outside (prlimit(2)), and when listeners come and go; flows, which take turns of a few microseconds, go by what was
    /// found last.
    pub(crate) fn share_out(&self) -> usize {
        let (workers, listeners) = (self.loads.len(), self.sockets.load(Relaxed));
        let spare = budget::spare(net::descriptor_limit(), workers, listeners);
        self.spare.store(spare, Relaxed);
        spare
    }

    /// Most connections at a time.
    pub(crate) fn limit(&self) -> usize {
        self.limit_by(self.share_out())
    }

    fn limit_by(&self, spare: usize) -> usize {
        let affordable = (spare / DESCRIPTORS_PER_CONNECTION).max(1);
        let most = self.settings.max_connections;
        most.map_or(affordable, |most| most.min(affordable))
    }

    /// Leave to accept one more, if there is a place. Of two workers that take the last one at the same moment each sees the
    /// other, so that the limit holds; both may step back, and try again.
    pub(crate) fn admit(&self) -> Option<Admission<'_>> {
        let others = self.admissions.fetch_add(1, SeqCst);
        let admission = Admission(&self.admissions);
        let (connections, spare) = (self.connections() + others, self.share_out());
        let is_short = connections > 0 && self.used(connections) >= spare;
        let is_full = connections >= self.limit_by(spare) || is_short;
        (!is_full).then_some(admission)
    }

    /// Descriptors of so many connections, of flows, and of connections of HTTP to endpoints that are more than the clients that one
    /// was counted for.
    fn used(&self, connections: usize) -> usize {
        connections
            .saturating_mul(DESCRIPTORS_PER_CONNECTION)
            .saturating_add(self.flows.load(Relaxed))
            .saturating_add(self.unclaimed())
    }

    fn unclaimed(&self) -> usize {
        let endpoints = self.http_endpoints.load(Relaxed);
        endpoints.saturating_sub(self.http_clients.load(Relaxed))
    }

    /// Whether connections of HTTP to endpoints take descriptors that others need, by what [`Self::share_out`] found last.
    pub(crate) fn is_short(&self) -> bool {
        let used = self.used(self.connections());
        self.unclaimed() > 0 && used >= self.spare.load(Relaxed)
    }

    /// How many more flows there may be: flows leave half of the descriptors to connections.
    pub(crate) fn room_for_flows(&self) -> usize {
        let spare = self.spare.load(Relaxed);
        let left = spare.saturating_sub(self.connections() * DESCRIPTORS_PER_CONNECTION);
        self.settings
            .max_flows
            .min(left.min(spare / 2))
            .saturating_sub(self.flows.load(Relaxed))
    }

    /// A place for one more connection. Worker `own` keeps it unless it would then be more than one ahead of the least
    /// loaded one.
    fn place(&self, own: usize) -> (usize, Slot) {
        let load_of = |worker: usize| {
            self.loads
                .get(worker)
                .map_or(usize::MAX, |load| load.load(Relaxed))
        };
        let least = (0..self.loads.len())
            .min_by_key(|worker| load_of(*worker))
            .unwrap_or(own);
        let worker = if load_of(own) > load_of(least) {
            least
        } else {
            own
        };
        (worker, Slot::of(self.loads.get(worker)))
    }

    /// Gives a connection to the least loaded worker from outside the workers. One that no queue takes is reset: the
    /// kernel does so on close, for its bytes were never read, or the client sees its end.
    pub(crate) fn adopt(&self, stream: TcpStream, arrival: Arrival) {
        let (worker, slot) = self.place(0);
        if let Some(inbox) = self.inboxes.get(worker) {
            // A full queue rejects it.
            if let Err(error) = inbox.try_send(Incoming {
                stream,
                arrival,
                slot,
                accepted: None,
            }) {
                let (mpsc::error::TrySendError::Full(lost)
                | mpsc::error::TrySendError::Closed(lost)) = error;
                let _ = socket2::SockRef::from(&lost.stream)
                    .set_linger(Some(std::time::Duration::ZERO));
            }
        }
    }
}

/// One of those that a number of [`Shared`] says, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Numbered {
    shared: Arc<Shared>,
    number: fn(&Shared) -> &AtomicUsize,
}

impl Numbered {
    pub(crate) fn one(shared: &Arc<Shared>, number: fn(&Shared) -> &AtomicUsize) -> Self {
        number(shared).fetch_add(1, Relaxed);
        Self {
            shared: Arc::clone(shared),
            number,
        }
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        (self.number)(&self.shared).fetch_sub(1, Relaxed);
    }
}

/// Leave to accept a connection, held until that has its [`Slot`].
#[derive(Debug)]
pub(crate) struct Admission<'a>(&'a AtomicUsize);

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// A connection's share of its worker's load, taken when the worker is chosen.
#[derive(Debug)]
pub(crate) struct Slot(Option<Arc<AtomicUsize>>);

impl Slot {
    fn of(load: Option<&Arc<AtomicUsize>>) -> Self {
        load.inspect(|load| {
            load.fetch_add(1, SeqCst);
        });
        Self(load.cloned())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(load) = &self.0 {
            load.fetch_sub(1, Relaxed);
        }
    }
}

/// An accepted connection on its way to its task.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) stream: TcpStream,
    pub(crate) arrival: Arrival,
    pub(crate) slot: Slot,
    /// Its account, if its Service port has a limit.
    pub(crate) accepted: Option<Accepted>,
}

/// What the control side tells a worker.
enum Command {
    Start(Arc<[Arc<Listening>]>),
    Stop {
        ids: Arc<[u64]>,
        done: Option<blocking::SyncSender<()>>,
    },
    Finish {
        cut: CancellationToken,
    },
}

/// One worker, seen by its own tasks.
pub(crate) struct Worker {
    index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) udp: Udp,
    pool: Rc<Pool>,
    tracker: TaskTracker,
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> Self {
        Self {
            index,
            udp: Udp::new(shared.settings.max_attempts),
            shared,
            pool: Rc::default(),
            tracker: TaskTracker::new(),
        }
    }

    fn serves(&self, listening: &Listening) -> bool {
        listening.key.protocol == Protocol::Tcp
            || listening.owner(self.shared.loads.len()) == self.index
    }

    /// Lets go of what lies idle, because there is no room for another connection: connections to endpoints first, then the clients
    /// that ask nothing, a few of them, longest first. Whether there was any.
    pub(crate) fn makes_room(&self) -> bool {
        let shared = &self.shared;
        let mut shed = 0;
        if shared.is_short() {
            shed = self.pool.shed();
            // Those of other workers.
            shared.short.notify_waiters();
        }
        let is_enough = shed > 0 && shared.admit().is_some();
        if !is_enough && shared.http_clients.load(Relaxed) > 0 {
            let most = (shared.limit() / IDLE_PART).clamp(1, shared.settings.accept_burst.max(1));
            shed += registry::dismiss_idle(&shared.registries, most);
        }
        let all = u64::try_from(shed).unwrap_or(u64::MAX);
        shared.totals.idle_shed.fetch_add(all, Relaxed);
        shed > 0
    }

    /// Serves a connection here or hands it to a worker with less to do.
    pub(crate) fn dispatch(&self, stream: TcpStream, arrival: Arrival, accepted: Option<Accepted>) {
        let (worker, slot) = self.shared.place(self.index);
        let incoming = Incoming {
            stream,
            arrival,
            slot,
            accepted,
        };
        let inbox = self
            .shared
            .inboxes
            .get(worker)
            .filter(|_| worker != self.index);
        let Some(inbox) = inbox else {
            return self.serve(incoming);
        };
        match inbox.try_send(incoming) {
            Ok(()) => {
                self.shared.totals.handed_over.fetch_add(1, Relaxed);
            }
            Err(
                mpsc::error::TrySendError::Full(incoming)
                | mpsc::error::TrySendError::Closed(incoming),
            ) => {
                let slot = Slot::of(self.shared.loads.get(self.index));
                self.serve(Incoming { slot, ..incoming });
            }
        }
    }

    fn serve(&self, incoming: Incoming) {
        let Some(registry) = self.shared.registries.get(self.index) else {
            return;
        };
        let registered = registry.enter(&incoming.arrival, clock::now());
        let live = Arc::clone(registered.live());
        // The tracker owns the task; a panic ends that task alone.
        let of_worker = (Arc::clone(&self.shared), Rc::clone(&self.pool));
        let task = self
            .tracker
            .spawn_local(tcp::serve(of_worker, incoming, registered));
        live.can_be_cut_by(task.abort_handle());
    }
}

/// The control side's end of one worker.
struct Handle {
    commands: blocking::SyncSender<Command>,
    wake: Arc<Notify>,
    ended: Option<oneshot::Receiver<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Handle {
    /// A worker that ended takes no commands and needs none.
    fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.wake.notify_one();
        }
    }
}

/// All workers, seen by the control side.
pub(crate) struct Workers {
    pub(crate) shared: Arc<Shared>,
    handles: Vec<Handle>,
}

impl Workers {
    pub(crate) fn start(settings: DataSettings, published: Arc<Published>) -> io::Result<Self> {
        let count = settings.workers.max(1);
        let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| mpsc::channel(settings.handover_queue.max(1)))
            .unzip();
        let shared = Arc::new(Shared {
            published,
            settings,
            totals: Totals::default(),
            affinity: Affinity::new(),
            sources: Sources::default(),
            sockets: AtomicUsize::new(0),
            spare: AtomicUsize::new(0),
            flows: AtomicUsize::new(0),
            registries: Registry::of_workers(count),
            complained_at: AtomicU64::new(0),
            admissions: AtomicUsize::new(0),
            changed: Notify::new(),
            changes: AtomicU64::new(0),
            access_log: OnceLock::new(),
            ending: Notify::new(),
            ends_at: AtomicU64::new(0),
            http_clients: AtomicUsize::new(0),
            http_endpoints: AtomicUsize::new(0),
            short: Notify::new(),
            loads: (0..count).map(|_| Arc::default()).collect(),
            inboxes: inboxes.into_boxed_slice(),
        });
        let mut workers = Self {
            shared: Arc::clone(&shared),
            handles: Vec::with_capacity(count),
        };
        for (index, inbox) in receivers.into_iter().enumerate() {
            workers
                .handles
                .push(spawn(index, Arc::clone(&shared), inbox)?);
        }
        Ok(workers)
    }

    /// Every worker begins to accept from these.
    pub(crate) fn accept_from(&self, listening: Vec<Arc<Listening>>) {
        if listening.is_empty() {
            return;
        }
        let listening: Arc<[_]> = listening.into();
        for handle in &self.handles {
            handle.send(Command::Start(Arc::clone(&listening)));
        }
    }

    /// No worker accepts from these any more once the commands have been worked off, before any later one.
    pub(crate) fn forget(&self, ids: Vec<u64>) {
        self.stop(ids, None);
    }

    /// As [`Self::forget`], and waits until every worker has let go of them.
    pub(crate) fn release(&self, ids: Vec<u64>) {
        let (done, acknowledged) = blocking::sync_channel(self.handles.len());
        self.stop(ids, Some(&done));
        drop(done);
        for _ in &self.handles {
            if acknowledged
                .recv_timeout(self.shared.settings.release_timeout)
                .is_err()
            {
                tracing::warn!("a worker is late to let go of closed listeners");
                return;
            }
        }
    }

    fn stop(&self, ids: Vec<u64>, done: Option<&blocking::SyncSender<()>>) {
        let ids: Arc<[_]> = ids.into();
        for handle in &self.handles {
            handle.send(Command::Stop {
                ids: Arc::clone(&ids),
                done: done.cloned(),
            });
        }
    }

    /// Tells every worker to end with its last connection, or at `cut`.
    pub(crate) fn finish(&self, cut: &CancellationToken) {
        for handle in &self.handles {
            handle.send(Command::Finish { cut: cut.clone() });
        }
    }

    /// Waits until every worker has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: what has ended stays ended.
    pub(crate) async fn ended(&mut self) {
        for handle in &mut self.handles {
            if let Some(ended) = &mut handle.ended {
                // An error means that the thread is gone, which is as good.
                let _ = ended.await;
                handle.ended = None;
            }
        }
    }

    pub(crate) fn join(&mut self) {
        for thread in self
            .handles
            .iter_mut()
            .filter_map(|handle| handle.thread.take())
        {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

fn spawn(index: usize, shared: Arc<Shared>, inbox: mpsc::Receiver<Incoming>) -> io::Result<Handle> {
    let (commands, received) = blocking::sync_channel(COMMAND_QUEUE);
    let (end, ended) = oneshot::channel();
    let wake = Arc::new(Notify::new());
    let woken = Arc::clone(&wake);
    // Built here, so that a failure is the caller's; the runtime itself must stay on its thread.
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    let thread = thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            match builder.build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    let worker = Rc::new(Worker::new(index, shared));
                    runtime.block_on(run(worker, received, woken, inbox));
                    // Cuts the connections that are left, before the end is reported.
                    drop(runtime);
                }
                Err(error) => {
                    tracing::error!(worker = index, %error, "a worker's runtime could not be built");
                }
            }
            // Nobody waits for it when the data path was dropped without a drain.
            let _ = end.send(());
        })?;
    Ok(Handle {
        commands,
        wake,
        ended: Some(ended),
        thread: Some(thread),
    })
}

/// A worker's life: commands and connections from other workers, until it is told to finish.
async fn run(
    worker: Rc<Worker>,
    commands: blocking::Receiver<Command>,
    wake: Arc<Notify>,
    mut inbox: mpsc::Receiver<Incoming>,
) {
    let mut accepting = HashMap::new();
    loop {
        // Both are cancel safe: a notification not taken is kept, a message not taken stays in the channel.
        tokio::select! {
            biased;
            () = wake.notified() => {
                while let Ok(command) = commands.try_recv() {
                    match command {
                        Command::Start(listening) => start(&worker, &mut accepting, &listening),
                        Command::Stop { ids, done } => {
                            stop(&mut accepting, &ids).await;
                            // The control side may have given up waiting.
                            done.map(|done| done.try_send(()));
                        }
                        Command::Finish { cut } => {
                            return finish(&worker, &mut accepting, &mut inbox, cut).await;
                        }
                    }
                }
            }
            Some(incoming) = inbox.recv() => worker.serve(incoming),
            () = worker.pool.tend(&worker.shared.short) => {}
        }
    }
}

fn start(
    worker: &Rc<Worker>,
    accepting: &mut HashMap<u64, JoinHandle<()>>,
    listening: &[Arc<Listening>],
) {
    for listening in listening
        .iter()
        .filter(|listening| worker.serves(listening))
    {
        let (worker, listening) = (Rc::clone(worker), Arc::clone(listening));
        let id = listening.id;
        let task = if listening.key.protocol == Protocol::Udp {
            tokio::task::spawn_local(udp::run(worker, listening))
        } else {
            tokio::task::spawn_local(accept::run(worker, listening))
        };
        accepting.insert(id, task);
    }
}

/// Ends the accepting tasks and waits for their end: a descriptor can be registered only once with a runtime, and is
/// closed only when no task has it.
async fn stop(accepting: &mut HashMap<u64, JoinHandle<()>>, ids: &[u64]) {
    let stopped: Vec<_> = ids.iter().filter_map(|id| accepting.remove(id)).collect();
    stopped.iter().for_each(JoinHandle::abort);
    for task in stopped {
        // Cancelled or ended by itself: both are the end.
        let _ = task.await;
    }
}

async fn finish(
    worker: &Worker,
    accepting: &mut HashMap<u64, JoinHandle<()>>,
    inbox: &mut mpsc::Receiver<Incoming>,
    cut: CancellationToken,
) {
    inbox.close();
    while let Ok(incoming) = inbox.try_recv() {
        worker.serve(incoming);
    }
    worker.tracker.close();
    let silence = async { tokio::join!(worker.tracker.wait(), udp::drain(worker, accepting)) };
    tokio::select! {
        biased;
        () = cut.cancelled() => {}
        _ = silence => {}
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use portico_core::snapshot::Snapshot;

    use super::*;

    #[test]
    fn admit_from_many_threads_never_exceeds_the_limit() {
        let settings = DataSettings {
            workers: 4,
            max_connections: Some(1),
            ..DataSettings::default()
        };
        let published = Arc::new(Published::from_pointee(Snapshot::empty(Arc::default())));
        let workers = Workers::start(settings, published).unwrap();
        let shared = &workers.shared;
        let admitted = AtomicUsize::new(0);
        thread::scope(|scope| {
            for own in 0..4 {
                let admitted = &admitted;
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        let Some(admission) = shared.admit() else {
                            continue;
                        };
                        // Accepting takes a while.
                        thread::yield_now();
                        let (_, slot) = shared.place(own);
                        drop(admission);
                        admitted.fetch_add(1, Relaxed);
                        assert_eq!(shared.connections(), 1);
                        drop(slot);
                    }
                });
            }
        });
        assert!(admitted.into_inner() > 0);
        assert_eq!(shared.connections(), 0);
    }
}
