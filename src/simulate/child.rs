//! The child process: actions in on standard input, observations out on standard output, until the input closes.
//! Owns the set of running pods; what one pod does belongs to `pod`.

use std::{collections::BTreeMap, io, process::ExitCode, sync::Arc, time::Duration};

use portico_core::world::pods::{PodAction, PodObservation, PodUid};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, Lines},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::pod::{self, Pod, Wish};

/// Observations on their way to the parent; pods wait when it does not read.
const OBSERVATIONS: usize = 1024;

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

/// Carries out the actions that `reader` gives, one JSON value a line, and writes what becomes of them to `writer`.
/// Returns when `reader` ends, with every pod gone.
///
/// # Errors
/// When either side breaks or a line is not an action.
pub async fn run<R, W>(reader: R, writer: W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (reports, observations) = mpsc::channel(OBSERVATIONS);
    let mut pods = Pods {
        running: BTreeMap::new(),
        tasks: JoinSet::new(),
        reports,
    };
    tokio::select! {
        result = pods.obey(BufReader::new(reader).lines()) => result,
        result = write_observations(observations, BufWriter::new(writer)) => result,
    }
}

async fn write_observations<W>(
    mut observations: mpsc::Receiver<PodObservation>,
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

struct Pods {
    running: BTreeMap<PodUid, watch::Sender<Wish>>,
    tasks: JoinSet<PodUid>,
    reports: mpsc::Sender<PodObservation>,
}

impl Pods {
    async fn obey<R>(&mut self, mut lines: Lines<R>) -> io::Result<()>
    where
        R: tokio::io::AsyncBufRead + Unpin,
    {
        loop {
            // Both are cancel safe: a line read in part stays in `lines`, a task that ended stays in the set.
            tokio::select! {
                line = lines.next_line() => match line? {
                    Some(line) => self.act(serde_json::from_str(&line)?).await,
                    None => return Ok(()),
                },
                Some(ended) = self.tasks.join_next() => {
                    let uid = ended.map_err(io::Error::other)?;
                    self.running.remove(&uid);
                }
            }
        }
    }

    async fn act(&mut self, action: PodAction) {
        match action {
            PodAction::Start {
                uid,
                name,
                ip,
                ports,
            } => match self.running.get(&uid) {
                // Said twice, as it may be when a former child was lost: it only says again how it is.
                Some(wish) if !wish.is_closed() => wish.send_modify(Wish::repeat),
                _ => self.start(Pod {
                    uid,
                    name: Arc::clone(&name),
                    ip,
                    ports,
                }),
            },
            PodAction::Stop { uid, grace_ms } => {
                let deadline =
                    Instant::now() + Duration::from_millis(grace_ms.min(pod::LONGEST_GRACE_MS));
                match self.running.get(&uid) {
                    Some(wish) if !wish.is_closed() => {
                        wish.send_modify(|wish| *wish = Wish::End(deadline));
                    }
                    // Only the writer's end closes the channel, and then this is over too.
                    _ => drop(self.reports.send(PodObservation::Ended { uid }).await),
                }
            }
        }
    }

    fn start(&mut self, pod: Pod) {
        let (wish, wishes) = watch::channel(Wish::Serve(0));
        self.running.insert(pod.uid, wish);
        let reports = self.reports.clone();
        self.tasks.spawn(async move {
            let uid = pod.uid;
            pod.live(wishes, reports).await;
            uid
        });
    }
}
