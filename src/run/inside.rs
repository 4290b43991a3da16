//! The process inside: makes the namespaces, lets the keeper serve them, and has the program for a child. Owns the
//! order of that and what becomes of the program; it lives in the program's process group and does nothing of what the
//! terminal asks of the group.

use std::{
    ffi::OsString,
    future::ready,
    io,
    ops::ControlFlow,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use tokio::{sync::mpsc, task::yield_now, time::sleep};

use super::{
    exec,
    keeper::{Keeper, Said},
    link::{Ending, FromInside, ToInside},
    namespaces,
    signals::{self, Caught, OF_TERMINALS},
};
use crate::handover::Channel;

/// The hidden argument of the process. After it: the socket for the keeper, a namespace, the program and its words. Its
/// standard input is the link to its parent.
pub(super) const INSIDE_ARGUMENT: &str = "__run";

/// What may wait to be dealt with; whoever has more to tell waits.
const WAITING: usize = 16;
/// After so long the user is told what is waited for.
const SILENCE: Duration = Duration::from_secs(2);

/// What happens.
#[derive(Debug)]
enum Event {
    Parent(ToInside, Option<OwnedFd>),
    /// The parent is gone, and nobody wants the program any more.
    ParentGone,
    Keeper(Said),
    Program(WaitStatus),
}

/// The process of [`INSIDE_ARGUMENT`].
pub(super) fn main(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let Ok(link) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let link = Arc::new(Channel::from(link));
    // Before there is a second thread (unshare(2)).
    let entered = namespaces::enter();
    let is_inside = entered.is_ok();
    exec::end_with_parent();
    let told = link.send(&FromInside::Entered(entered), &[]);
    if told.is_err() || !is_inside {
        return ExitCode::FAILURE;
    }
    let socket = PathBuf::from(words.next().unwrap_or_default());
    let namespace = words.next().unwrap_or_default();
    let command: Vec<OsString> = words.collect();
    let shown: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    let keeper = Keeper {
        socket,
        namespace: namespace.to_string_lossy().into_owned(),
        command: shown.join(" ").chars().take(200).collect(),
    };
    let failed = match serve(keeper, command, &link) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => FromInside::Failed(error.to_string()),
    };
    // If nobody hears it, nobody is there.
    let _gone = link.send(&failed, &[]);
    ExitCode::FAILURE
}

/// Returns when the program has ended and that was told, or the parent is gone.
fn serve(keeper: Keeper, command: Vec<OsString>, link: &Arc<Channel>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let caught = signals::catch()?;
        let (events, mut happened) = mpsc::channel(WAITING);
        let hearing = (Arc::clone(link), events.clone());
        spawn("run-link", move || hear(&hearing.0, &hearing.1))?;
        let said = events.clone();
        // Whoever is not heard any more ends with this process.
        let say = move |what| drop(said.blocking_send(Event::Keeper(what)));
        spawn("run-keeper", move || keeper.keep(say))?;
        let mut inside = Inside {
            link,
            events,
            command,
            caught,
            stdin: None,
            is_ready: false,
            program: None,
        };
        let mut silence = std::pin::pin!(sleep(SILENCE));
        let mut is_silent = true;
        loop {
            tokio::select! {
                event = happened.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    if inside.handle(event).await?.is_break() {
                        return Ok(());
                    }
                }
                () = &mut silence, if is_silent && !inside.is_ready => {
                    is_silent = false;
                    inside.tell(&FromInside::Note("waiting until portico is ready".to_owned()))?;
                }
            }
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // It ends with the process.
    let _running = std::thread::Builder::new().name(name.into()).spawn(work)?;
    Ok(())
}

/// Passes on what the parent says.
fn hear(link: &Channel, events: &mpsc::Sender<Event>) {
    while let Ok(Some(received)) = link.receive() {
        let descriptor = received.descriptors.into_iter().next();
        let event = Event::Parent(received.message, descriptor);
        if events.blocking_send(event).is_err() {
            return;
        }
    }
    let _ended = events.blocking_send(Event::ParentGone);
}

/// Passes on what becomes of the program, to its end.
fn watch(program: Pid, events: &mpsc::Sender<Event>) {
    while let Ok(Some((_, status))) = waitpid(Some(program), WaitOptions::UNTRACED) {
        if events.blocking_send(Event::Program(status)).is_err() || !status.stopped() {
            return;
        }
    }
}

/// All that is known on the way.
struct Inside<'l> {
    link: &'l Channel,
    events: mpsc::Sender<Event>,
    command: Vec<OsString>,
    caught: Vec<Caught>,
    /// The program's, as soon as the parent has done its part.
    stdin: Option<OwnedFd>,
    /// The keeper has done its part.
    is_ready: bool,
    program: Option<Pid>,
}

impl Inside<'_> {
    fn tell(&self, what: &FromInside) -> io::Result<()> {
        self.link.send(what, &[]).map_err(io::Error::other)
    }

    /// Says whether this is the end.
    async fn handle(&mut self, event: Event) -> io::Result<ControlFlow<()>> {
        match event {
            Event::Parent(ToInside::Go, stdin) => {
                self.stdin = stdin;
                self.start()?;
            }
            Event::Parent(ToInside::Signal(signal), _) => return self.pass_on(signal).await,
            Event::Parent(ToInside::Continue, _) => self.signal(Signal::CONT),
            Event::ParentGone => return Ok(ControlFlow::Break(())),
            Event::Keeper(Said::Note(note)) => self.tell(&FromInside::Note(note))?,
            Event::Keeper(Said::Failed(why)) => {
                self.tell(&FromInside::Failed(why))?;
                return Ok(ControlFlow::Break(()));
            }
            Event::Keeper(Said::Ready) => {
                self.is_ready = true;
                self.start()?;
            }
            Event::Program(status) if status.stopped() => self.tell(&FromInside::Stopped)?,
            Event::Program(status) => return self.end(ending(status)),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn end(&self, ending: Ending) -> io::Result<ControlFlow<()>> {
        self.tell(&FromInside::Ended(ending))?;
        Ok(ControlFlow::Break(()))
    }

    /// Starts the program once everybody has done their part.
    fn start(&mut self) -> io::Result<()> {
        if !self.is_ready {
            return Ok(());
        }
        // Taken, so that it is started once.
        let Some(stdin) = self.stdin.take() else {
            return Ok(());
        };
        let (program, words) = self
            .command
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let child = exec::bound_to_us(program)
            .args(words)
            .stdin(Stdio::from(stdin))
            .spawn()?;
        let program = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let program = program.ok_or(io::ErrorKind::InvalidData)?;
        self.program = Some(program);
        let events = self.events.clone();
        spawn("run-program", move || watch(program, &events))
    }

    /// Passes a signal on that the parent got, unless the terminal sent it to the program, too: then it came here as
    /// well.
    async fn pass_on(&mut self, signal: i32) -> io::Result<ControlFlow<()>> {
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Ok(ControlFlow::Continue(()));
        };
        if self.program.is_none() && signal != Signal::TSTP {
            return self.end(Ending::Signal(signal.as_raw()));
        }
        // All that has come by now is seen after another look at what came.
        yield_now().await;
        let own = self.caught.iter_mut().find(|one| one.signal == signal);
        let is_of_terminal = match own {
            Some(own) if OF_TERMINALS.contains(&signal) => tokio::select! {
                biased;
                _came = own.arrivals.recv() => true,
                () = ready(()) => false,
            },
            _ => false,
        };
        if !is_of_terminal {
            self.signal(signal);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn signal(&self, signal: Signal) {
        if let Some(program) = self.program {
            // Its end is on its way to be told.
            let _ended = kill_process(program, signal);
        }
    }
}

fn ending(status: WaitStatus) -> Ending {
    if let Some(signal) = status.terminating_signal() {
        return Ending::Signal(signal);
    }
    let code = status.exit_status().unwrap_or_default();
    Ending::Code(u8::try_from(code).unwrap_or(u8::MAX))
}
