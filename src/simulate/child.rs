//! The child process: actions and questions in on standard input, observations and pages of logs out on standard
//! output, until the input closes.
//! Owns the set of running pods; what one pod does belongs to `pod`.

use std::{collections::BTreeMap, io, process::ExitCode, sync::Arc, time::Duration};

use portico_core::world::pods::{PodAction, PodObservation, PodUid};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, Lines},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};

use super::{
    pod::{self, Order, Plan, Pod, PodLogs},
    protocol::{FromChild, LogError, LogQuery, ToChild},
};

/// Observations on their way to the parent; pods wait when it does not read.
const OBSERVATIONS: usize = 1024;

/// Orders on their way to one pod; the others wait when it is busy.
const ORDERS: usize = 64;

/// Readers of logs that may wait for a line.
const READERS: usize = 256;

/// Serves pods until standard input closes: the whole of the hidden command `__pods`.
pub fn child_main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portico: simulated pods: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    // The end of the input ends this process; the signal is for a parent that is killed while this one is stopped.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    crate::privilege::keep_ports_alone()?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        // A terminal or a service supervisor signals the whole group, but the parent drains first and needs its pods
        // until then. Receiving a signal and not looking at it is ignoring it.
        let _ignored = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        run(tokio::io::stdin(), tokio::io::stdout()).await
    });
    // A read of standard input may still be waiting on its thread.
    runtime.shutdown_background();
    result
}

/// Lets this process have as many descriptors as the system allows it; with fewer, some pods report that they fail.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        eprintln!("portico: simulated pods: raising the limit of open files: {error}");
    }
}

/// Carries out what `reader` gives, one JSON value a line, and writes what becomes of it to `writer`. Returns when
/// `reader` ends, with every pod gone.
///
/// # Errors
/// When either side breaks or a line is not what the keeper says.
pub async fn run<R, W>(reader: R, writer: W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (reports, observations) = mpsc::channel(OBSERVATIONS);
    let mut pods = Pods {
        running: BTreeMap::new(),
        tasks: JoinSet::new(),
        readers: JoinSet::new(),
        reports,
    };
    tokio::select! {
        result = pods.obey(BufReader::new(reader).lines()) => result,
        result = write_observations(observations, BufWriter::new(writer)) => result,
    }
}

async fn write_observations<W>(
    mut observations: mpsc::Receiver<FromChild>,
    mut writer: W,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    while let Some(observation) = observations.recv().await {
        let mut line = serde_json::to_vec(&observation)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
        if observations.is_empty() {
            writer.flush().await?;
        }
    }
    Ok(())
}

/// A pod that runs.
struct Running {
    orders: mpsc::Sender<Order>,
    logs: Arc<PodLogs>,
}

struct Pods {
    running: BTreeMap<PodUid, Running>,
    tasks: JoinSet<PodUid>,
    /// Those that read logs.
    readers: JoinSet<()>,
    reports: mpsc::Sender<FromChild>,
}

impl Pods {
    async fn obey<R>(&mut self, mut lines: Lines<R>) -> io::Result<()>
    where
        R: tokio::io::AsyncBufRead + Unpin,
    {
        loop {
            // All are cancel safe: a line read in part stays in `lines`, a task that ended stays in the set.
            tokio::select! {
                line = lines.next_line() => match line? {
                    Some(line) => match serde_json::from_str(&line)? {
                        ToChild::Pod(action) => self.act(action).await,
                        ToChild::Logs { id, query } => self.read(id, query).await,
                    },
                    None => return Ok(()),
                },
                Some(ended) = self.tasks.join_next() => {
                    let uid = ended.map_err(io::Error::other)?;
                    self.running.remove(&uid);
                }
                Some(_) = self.readers.join_next() => {}
            }
        }
    }

    async fn act(&mut self, action: PodAction) {
        match action {
            PodAction::Start {
                uid,
                name,
                ip,
                containers,
                behaviour,
                faults,
            } => {
                let plan = Plan {
                    uid,
                    name,
                    ip,
                    containers,
                    behaviour,
                    faults,
                };
                self.start(plan).await;
            }
            PodAction::Stop { uid, grace_ms } => {
                let order = Order::Stop(deadline(grace_ms));
                self.tell_or_end(uid, order).await;
            }
            PodAction::EndContainer {
                uid,
                container,
                grace_ms,
            } => {
                let order = Order::EndContainer(container, deadline(grace_ms));
                self.tell_or_end(uid, order).await;
            }
            PodAction::StartContainer { uid, container } => {
                self.tell_or_end(uid, Order::StartContainer(container))
                    .await;
            }
            PodAction::Ports { uid, ports } => {
                self.tell(uid, Order::Ports(ports)).await;
            }
            PodAction::Adjust {
                uid,
                behaviour,
                faults,
            } => {
                self.tell(uid, Order::Adjust(behaviour, faults)).await;
            }
        }
    }

    /// Whether there is such a pod to hear it.
    async fn tell(&self, uid: PodUid, order: Order) -> bool {
        match self.running.get(&uid) {
            Some(pod) => pod.orders.send(order).await.is_ok(),
            None => false,
        }
    }

    /// One that does not run has ended.
    async fn tell_or_end(&self, uid: PodUid, order: Order) {
        if !self.tell(uid, order).await {
            self.report(FromChild::Pod(PodObservation::Ended { uid }))
                .await;
        }
    }

    async fn start(&mut self, plan: Plan) {
        let known = self.running.get(&plan.uid);
        if let Some(pod) = known.filter(|pod| !pod.orders.is_closed()) {
            // Said twice, as it may be when a former child was lost: it only says again how it is.
            let ports = plan.containers.into_iter().map(|unit| unit.ports).collect();
            let order = Order::Repeat(ports, plan.behaviour, plan.faults);
            let _ending = pod.orders.send(order).await;
            return;
        }
        let (orders, taken) = mpsc::channel(ORDERS);
        let uid = plan.uid;
        let (pod, logs) = Pod::new(plan, self.reports.clone());
        self.running.insert(uid, Running { orders, logs });
        self.tasks.spawn(async move {
            pod.live(taken).await;
            uid
        });
    }

    /// Answers a question about a log, as soon as there is a line or its wait is over.
    async fn read(&mut self, id: u64, query: LogQuery) {
        let refused = match self.running.get(&query.uid) {
            _ if self.readers.len() >= READERS => LogError::Busy,
            None => LogError::NoPod,
            Some(pod) => {
                let (logs, reports) = (Arc::clone(&pod.logs), self.reports.clone());
                self.readers.spawn(async move {
                    let page = logs.read(&query).await;
                    let _ending = reports.send(FromChild::Logs { id, page }).await;
                });
                return;
            }
        };
        let page = Err(refused);
        self.report(FromChild::Logs { id, page }).await;
    }

    /// Only the writer's end closes the channel, and then this is over too.
    async fn report(&self, what: FromChild) {
        let _ending = self.reports.send(what).await;
    }
}

fn deadline(grace_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(grace_ms.min(pod::LONGEST_GRACE_MS))
}
