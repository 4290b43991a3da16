//! The process that the user started: has the process inside for a child, connects it to the outside world, and looks
//! to a shell like the program itself: its signals, its stops, its end. Must be outside of the namespaces, where the
//! host's network is.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    inside::INSIDE_ARGUMENT,
    link::{Ending, FromInside, ToInside},
    namespaces::NoNamespaces,
    signals::{self, Caught},
    world::{self, Network, NoWorld, World},
};
use crate::handover::{Channel, HandoverError};

/// What may wait to be dealt with.
const WAITING: usize = 16;

/// What is to run, and where.
#[derive(Debug)]
pub struct Run {
    /// Where the running portico takes sockets.
    pub socket: PathBuf,
    /// Whose Services have short names.
    pub namespace: String,
    /// The program and its words.
    pub command: Vec<OsString>,
    /// Who carries connections to the outside world.
    pub network: Network,
    /// Variables besides those of this process.
    pub variables: Vec<(&'static str, OsString)>,
}

/// Why a program did not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There are no namespaces for it.
    #[error("{}", forbidden(.0))]
    Namespaces(NoNamespaces),
    /// There is no outside world, though it was asked for.
    #[error(transparent)]
    World(#[from] NoWorld),
    /// The process inside says so.
    #[error("{0}")]
    Inside(String),
    /// The process inside is gone.
    #[error("the process inside ended before the program did")]
    Gone,
    /// The system refuses.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// With what to type, as far as that is known.
fn forbidden(why: &NoNamespaces) -> String {
    let program = std::env::current_exe().unwrap_or_default();
    match why.fix(&program.display().to_string()) {
        Some(fix) => format!("{why}\n  to allow it: {fix}"),
        None => why.to_string(),
    }
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::System { action, source }
}

impl Run {
    /// Runs the program to its end, and ends as it did: with its exit status, or by the signal that ended it.
    ///
    /// # Errors
    /// It did not run.
    pub fn run(&self) -> Result<ExitCode, RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed("start a runtime"))?;
        match runtime.block_on(self.to_the_end())? {
            Ending::Code(code) => Ok(ExitCode::from(code)),
            Ending::Signal(signal) => Ok(signals::die_of(signal)),
        }
    }

    async fn to_the_end(&self) -> Result<Ending, RunError> {
        let caught = signals::catch().map_err(failed("catch signals"))?;
        let (link, mut inside) = self.start().map_err(failed("start a process"))?;
        let (events, mut happened) = mpsc::channel(WAITING);
        let hearing = Arc::clone(&link);
        // It ends when the process inside does.
        let _thread = std::thread::Builder::new()
            .name("run-link".into())
            .spawn(move || hear(&hearing, &events))
            .map_err(failed("start a thread"))?;
        let (mut signals, _tasks) = listen(caught);
        let mut running = Running {
            link: &link,
            network: self.network,
            inside: inside.id(),
            world: None,
        };
        let end = loop {
            let handled = tokio::select! {
                Some(signal) = signals.recv() => running.tell(&ToInside::Signal(signal)).map(|()| None),
                event = happened.recv() => running.handle(event).await,
            };
            match handled {
                Ok(None) => {}
                Ok(Some(ending)) => break Ok(ending),
                Err(error) => break Err(error),
            }
        };
        if let Some(world) = running.world {
            world.close().await;
        }
        // Neither has anything left to do; killed, it takes the program with it.
        let _gone = inside.kill();
        let _gone = inside.wait();
        end
    }

    /// Starts the process inside.
    fn start(&self) -> io::Result<(Arc<Channel>, Child)> {
        let (ours, theirs) = Channel::pair()?;
        let inside = Command::new(super::EXECUTABLE)
            .arg0("portico")
            .arg(INSIDE_ARGUMENT)
            .arg(&self.socket)
            .arg(&self.namespace)
            .args(&self.command)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok((Arc::new(ours), inside))
    }
}

/// Passes on what the process inside says.
fn hear(link: &Channel, events: &mpsc::Sender<FromInside>) {
    while let Ok(Some(received)) = link.receive() {
        if events.blocking_send(received.message).is_err() {
            return;
        }
    }
}

/// The numbers of signals as they come; the tasks end with their value.
fn listen(caught: Vec<Caught>) -> (mpsc::Receiver<i32>, JoinSet<()>) {
    let (came, signals) = mpsc::channel(WAITING);
    let mut tasks = JoinSet::new();
    for mut one in caught {
        let came = came.clone();
        tasks.spawn(async move {
            while one.arrivals.recv().await.is_some() {
                if came.send(one.signal.as_raw()).await.is_err() {
                    return;
                }
            }
        });
    }
    (signals, tasks)
}

/// What there is while the program runs.
struct Running<'l> {
    link: &'l Channel,
    network: Network,
    /// The process inside.
    inside: u32,
    world: Option<World>,
}

impl Running<'_> {
    fn tell(&self, what: &ToInside) -> Result<(), RunError> {
        let told = match what {
            ToInside::Go => self.link.send(what, &[io::stdin().as_fd()]),
            _ => self.link.send(what, &[]),
        };
        match told {
            // Its last words may be on their way.
            Err(HandoverError::Io(_)) | Ok(()) => Ok(()),
            Err(_) => Err(RunError::Gone),
        }
    }

    async fn handle(&mut self, event: Option<FromInside>) -> Result<Option<Ending>, RunError> {
        match event.ok_or(RunError::Gone)? {
            FromInside::Entered(entered) => {
                entered.map_err(RunError::Namespaces)?;
                self.connect().await?;
                self.tell(&ToInside::Go)?;
            }
            FromInside::Failed(why) => return Err(RunError::Inside(why)),
            FromInside::Note(note) => say(&note),
            FromInside::Stopped => {
                // A shell takes us for the program: it sees a stopped job, and goes on when we do.
                let _stopped = kill_process(getpid(), Signal::STOP);
                self.tell(&ToInside::Continue)?;
            }
            FromInside::Ended(ending) => return Ok(Some(ending)),
        }
        Ok(None)
    }

    /// A program that can do without the outside world runs without it, unless the user wanted it by name.
    async fn connect(&mut self) -> Result<(), RunError> {
        match world::connect(self.network, self.inside).await {
            Ok(world) => self.world = world,
            // Nobody can join namespaces of a process that has ended, which has said why.
            Err(_) if self.is_gone() => {}
            Err(error) if self.network == Network::Auto => say(&error.to_string()),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Whether the process inside has ended; it stays to be waited for.
    fn is_gone(&self) -> bool {
        let inside = i32::try_from(self.inside).ok().and_then(Pid::from_raw);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        inside.is_some_and(|id| waitid(WaitId::Pid(id), options).is_ok_and(|end| end.is_some()))
    }
}

/// A line for the user, beside what the program says.
fn say(text: &str) {
    // Whoever has closed it does not want it.
    let _closed = writeln!(io::stderr(), "portico run: {text}");
}
