//! The keeper of the child process that serves simulated pods. Owns its start, its restarts and the pipes; must not
//! decide anything about pods. Questions about their logs belong to `logs`.
//!
//! The process and its pipes live on one thread of their own: the child asks the kernel to end it with the *thread*
//! that started it (`PR_SET_PDEATHSIG` in prctl(2)), and a worker thread may end before the program does.

mod logs;

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use portico_core::{
    backoff::Backoff,
    world::pods::{PodAction, PodObservation},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::protocol::{FromChild, ToChild};
use crate::clock::jitter;
pub use logs::LogReader;
use logs::Questions;

/// The hidden argument that makes the program a child that serves pods.
pub const CHILD_ARGUMENT: &str = "__pods";

/// Actions that may wait for the child. A child that is so far behind is replaced, after which every pod is asked for
/// again.
const WAITING_ACTIONS: usize = 1 << 18;

/// Reports that may wait for the reader; beyond them the child waits.
const WAITING_REPORTS: usize = 1024;

/// A child that ran for this long was well.
const WELL: Duration = Duration::from_secs(30);

/// What the keeper of the pods says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostReport {
    /// A pod's state.
    Observed(PodObservation),
    /// The child died, and every pod with it; actions that it had not read are forgotten. Another child is started.
    Lost,
}

/// The child process that serves simulated pods; dropping it ends the child.
#[derive(Debug)]
pub struct PodHost {
    queue: Arc<Queue>,
    logs: LogReader,
    ending: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl PodHost {
    /// Starts `executable` with the argument `__pods`. `/proc/self/exe` survives that the program's file is replaced.
    ///
    /// # Errors
    /// When the process or the thread that keeps it cannot be started; later deaths are reported as
    /// [`HostReport::Lost`] and repaired.
    pub fn start(executable: impl Into<PathBuf>) -> io::Result<(Self, mpsc::Receiver<HostReport>)> {
        let (reports, reader) = mpsc::channel(WAITING_REPORTS);
        let queue = Arc::new(Queue::default());
        let ending = CancellationToken::new();
        let (logs, questions) = logs::channel();
        let keeper = Keeper {
            executable: executable.into(),
            queue: Arc::clone(&queue),
            reports,
            questions,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
        };
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let stop = ending.clone();
        let thread = std::thread::Builder::new()
            .name("pod-host".into())
            .spawn(move || keeper.run(&started, &stop))?;
        // The thread says how its start went, or is gone.
        start.recv().map_err(io::Error::other)??;
        Ok((
            Self {
                queue,
                logs,
                ending,
                thread: Some(thread),
            },
            reader,
        ))
    }

    /// Asks for the pods' logs; may be cloned and outlive the host.
    pub fn logs(&self) -> LogReader {
        self.logs.clone()
    }

    /// Passes actions on in order. Never waits: what the child has not read yet is kept, up to a bound.
    pub fn send(&self, actions: &[PodAction]) {
        self.queue.push(actions);
    }
}

impl Drop for PodHost {
    fn drop(&mut self) {
        self.ending.cancel();
        if let Some(thread) = self.thread.take() {
            // It ends as soon as the kernel has taken the child away. A panic there was printed there.
            let _panicked = thread.join();
        }
    }
}

/// Actions on their way to the child.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Notify,
    too_many: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    actions: VecDeque<PodAction>,
    /// There were too many; the child is to be replaced.
    overflowed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is held, and each change is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, actions: &[PodAction]) {
        let mut waiting = self.lock();
        waiting.overflowed |= waiting.actions.len().saturating_add(actions.len()) > WAITING_ACTIONS;
        if !waiting.overflowed {
            waiting.actions.extend(actions.iter().cloned());
        }
        let changed = if waiting.overflowed {
            &self.too_many
        } else {
            &self.more
        };
        drop(waiting);
        changed.notify_one();
    }

    /// Forgets everything: what is said from now on is for the next child.
    fn clear(&self) {
        *self.lock() = Waiting::default();
    }

    /// The actions that wait, at least one.
    ///
    /// # Cancel safety
    /// Nothing is taken before it returns.
    async fn take(&self) -> VecDeque<PodAction> {
        loop {
            let actions = std::mem::take(&mut self.lock().actions);
            if !actions.is_empty() {
                return actions;
            }
            self.more.notified().await;
        }
    }

    /// Waits until there is more than may be kept.
    async fn overflow(&self) {
        while !self.lock().overflowed {
            self.too_many.notified().await;
        }
    }
}

/// Why a child's time was over.
enum End {
    /// It died or broke the protocol.
    Child(io::Error),
    /// Nobody listens any more.
    Unheard,
}

struct Keeper {
    executable: PathBuf,
    queue: Arc<Queue>,
    reports: mpsc::Sender<HostReport>,
    questions: Questions,
    backoff: Backoff,
}

impl Keeper {
    fn run(
        mut self,
        started: &std::sync::mpsc::SyncSender<io::Result<()>>,
        ending: &CancellationToken,
    ) {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        runtime.block_on(async {
            let mut child = match spawn(&self.executable) {
                Ok(child) => child,
                Err(error) => return drop(started.send(Err(error))),
            };
            // The caller waits for it.
            let _heard = started.send(Ok(()));
            ending.run_until_cancelled(self.keep(&mut child)).await;
            // Killed and reaped, if it is not gone already.
            let _gone = child.kill().await;
        });
    }

    /// Keeps a child running until nobody listens.
    async fn keep(&mut self, child: &mut Child) {
        loop {
            let since = Instant::now();
            let end = self.serve(child).await;
            // It may be gone already, and if not, it is of no use.
            let _gone = child.kill().await;
            let End::Child(error) = end else { return };
            tracing::warn!(target: "portico::simulate", %error, "child process of the simulated pods ended");
            if since.elapsed() >= WELL {
                self.backoff.reset();
            }
            self.queue.clear();
            self.questions.forget();
            if self.reports.send(HostReport::Lost).await.is_err() {
                return;
            }
            *child = self.replace().await;
        }
    }

    async fn replace(&mut self) -> Child {
        loop {
            tokio::time::sleep(self.backoff.next(jitter())).await;
            match spawn(&self.executable) {
                Ok(child) => return child,
                Err(error) => {
                    let executable = self.executable.display();
                    tracing::warn!(target: "portico::simulate", %error, %executable, "start of the simulated pods failed");
                }
            }
        }
    }

    /// Carries actions and observations until one of the pipes ends.
    async fn serve(&self, child: &mut Child) -> End {
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return End::Child(io::Error::other("its pipes are missing"));
        };
        tokio::select! {
            end = self.hear(stdout) => end,
            Err(error) = self.tell(stdin) => End::Child(error),
            () = self.queue.overflow() => End::Child(io::Error::other("it does not read its actions")),
        }
    }

    /// Passes actions and questions on.
    async fn tell(&self, stdin: ChildStdin) -> io::Result<()> {
        let mut stdin = BufWriter::new(stdin);
        loop {
            // Both are cancel safe.
            tokio::select! {
                actions = self.queue.take() => for action in actions {
                    write_line(&mut stdin, &ToChild::Pod(action)).await?;
                },
                (id, query) = self.questions.next() => {
                    write_line(&mut stdin, &ToChild::Logs { id, query }).await?;
                }
            }
            stdin.flush().await?;
        }
    }

    /// Passes observations and answers on.
    async fn hear(&self, stdout: ChildStdout) -> End {
        let mut lines = BufReader::new(stdout).lines();
        loop {
            let heard = match lines.next_line().await {
                Ok(Some(line)) => serde_json::from_str(&line).map_err(io::Error::from),
                Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => Err(error),
            };
            match heard {
                Ok(FromChild::Pod(observation)) => {
                    let report = HostReport::Observed(observation);
                    if self.reports.send(report).await.is_err() {
                        return End::Unheard;
                    }
                }
                Ok(FromChild::Logs { id, page }) => self.questions.answer(id, page),
                Err(error) => return End::Child(error),
            }
        }
    }
}

async fn write_line(stdin: &mut BufWriter<ChildStdin>, what: &ToChild) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stdin.write_all(&line).await
}

fn spawn(executable: &Path) -> io::Result<Child> {
    Command::new(executable)
        .arg0(OsString::from("portico"))
        .arg(CHILD_ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
}
