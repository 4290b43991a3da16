//! The connection to one keeper. Owns what is said when, its deadlines, and the look at what is handed over: nothing
//! that a keeper says is believed.

use std::{convert::Infallible, future::pending, io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use portico_core::object::Protocol;
use rustix::net::{ipproto, sockopt};
use tokio::{
    net::UnixDatagram,
    time::{Instant, timeout},
};

use super::{
    Office, RunEvent,
    desk::{Entered, Work},
    dns::RunDns,
};
use crate::handover::{
    ANSWER_WITHIN, Channel, FromKeeper, HandoverError, Received, Socket, ToKeeper,
};

/// Why a connection was ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    /// By the other side.
    #[error("it is gone")]
    Gone,
    #[error("it did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Late,
    #[error("it said what it was not asked for")]
    Unasked,
    #[error("it handed over {got} sockets and said {said}")]
    Miscounted { got: usize, said: usize },
    #[error("what it handed over for {addr} {why}")]
    WrongSocket { addr: SocketAddr, why: String },
    #[error(transparent)]
    Handover(HandoverError),
}

impl From<HandoverError> for Cut {
    fn from(error: HandoverError) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match error {
            HandoverError::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                Self::Gone
            }
            error => Self::Handover(error),
        }
    }
}

/// Serves one connection to its end.
pub(super) async fn attend(channel: Channel<UnixDatagram>, office: Arc<Office>) {
    match converse(channel, &office).await {
        // Somebody looked whether there is anybody.
        Ok(()) | Err(Cut::Gone) => {}
        Err(error) => tracing::warn!(%error, "what was to be a `portico run` was cut off"),
    }
}

async fn converse(channel: Channel<UnixDatagram>, office: &Office) -> Result<(), Cut> {
    let mut talk = Talk { channel, last: 0 };
    let FromKeeper::Hello(hello) = talk.answer().await?.message else {
        return Err(Cut::Unasked);
    };
    let run = match office.admit(&hello) {
        Ok(run) => run,
        Err(why) => return talk.say(&ToKeeper::Refused { why }).await,
    };
    let welcome = office.welcome(&hello, run.scope);
    talk.say(&ToKeeper::Welcome(welcome)).await?;
    tracing::info!(scope = run.scope.0, pid = hello.pid, command = %hello.command, "a `portico run` began");
    let mut dns = RunDns::new();
    let Err(cut) = serve(&mut talk, office, (&run, &mut dns)).await;
    dns.end().await;
    let (scope, pid) = (run.scope, hello.pid);
    match cut {
        Cut::Gone => tracing::info!(scope = scope.0, pid, "a `portico run` ended"),
        error => tracing::warn!(scope = scope.0, pid, %error, "a `portico run` was cut off"),
    }
    drop(run);
    // Before the keeper learns of its end: it may come again, and what it had is closed then. Control is gone only at
    // the end of the program.
    let _ = office.events.send(RunEvent::Ended(scope)).await;
    Ok(())
}

async fn serve(
    talk: &mut Talk,
    office: &Office,
    (run, dns): (&Entered, &mut RunDns),
) -> Result<Infallible, Cut> {
    dns.open(talk, office, run).await?;
    let _ = office.events.send(RunEvent::Began(run.scope)).await;
    loop {
        while let Some(work) = run.next() {
            match work {
                Work::Say(message) => talk.say(&message).await?,
                Work::Open(wanted) => {
                    let sockets: Vec<Socket> = wanted.iter().map(|(_, socket)| *socket).collect();
                    let answers = talk.open(&sockets).await?;
                    for ((key, _), answer) in wanted.into_iter().zip(answers) {
                        run.settle(key, answer);
                    }
                    // One that finds the queue full has a round before it, which takes all that is there.
                    let _ = office.events.try_send(RunEvent::Answered);
                }
            }
        }
        // All are cancel safe: a notification not taken is kept, and nothing is asked that could be answered.
        tokio::select! {
            received = talk.receive() => {
                received?;
                return Err(Cut::Unasked);
            }
            () = run.wake.notified() => {}
            () = until(dns.again) => dns.open(talk, office, run).await?,
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => pending().await,
    }
}

/// The daemon's end of a connection.
#[derive(Debug)]
pub(super) struct Talk {
    channel: Channel<UnixDatagram>,
    /// The last request.
    last: u64,
}

impl Talk {
    /// Asks for sockets: each with its address, or an error number.
    pub(super) async fn open(
        &mut self,
        sockets: &[Socket],
    ) -> Result<Vec<Result<OwnedFd, i32>>, Cut> {
        self.last += 1;
        let request = ToKeeper::Open {
            id: self.last,
            sockets: sockets.to_vec(),
        };
        self.say(&request).await?;
        let Received {
            message,
            descriptors,
            lost,
        } = self.answer().await?;
        let results = match message {
            FromKeeper::Opened { id, results }
                if id == self.last && results.len() == sockets.len() =>
            {
                results
            }
            _ => return Err(Cut::Unasked),
        };
        let said = results.iter().filter(|result| result.is_ok()).count();
        let got = descriptors.len();
        if got > said || (got < said && !lost) {
            return Err(Cut::Miscounted { got, said });
        }
        let mut descriptors = descriptors.into_iter();
        let mut answers = Vec::with_capacity(sockets.len());
        for (socket, result) in sockets.iter().zip(results) {
            let answer = match result {
                Err(code) => Err(code),
                // The kernel closed those that this process had no room for.
                Ok(()) => descriptors
                    .next()
                    .ok_or(rustix::io::Errno::MFILE.raw_os_error()),
            };
            if let Ok(descriptor) = &answer {
                check(descriptor, socket).map_err(|why| Cut::WrongSocket {
                    addr: socket.addr,
                    why,
                })?;
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn say(&self, message: &ToKeeper) -> Result<(), Cut> {
        let saying = self.channel.send_in_time(message);
        let said = timeout(ANSWER_WITHIN, saying).await;
        Ok(said.map_err(|_| Cut::Late)??)
    }

    async fn answer(&self) -> Result<Received<FromKeeper>, Cut> {
        timeout(ANSWER_WITHIN, self.receive())
            .await
            .map_err(|_| Cut::Late)?
    }

    async fn receive(&self) -> Result<Received<FromKeeper>, Cut> {
        self.channel.receive_in_time().await?.ok_or(Cut::Gone)
    }
}

/// Whether `descriptor` is the socket that was asked for, and nothing else.
fn check(descriptor: &OwnedFd, wanted: &Socket) -> Result<(), String> {
    let protocol = match sockopt::socket_protocol(descriptor) {
        Ok(protocol) => protocol,
        Err(rustix::io::Errno::NOTSOCK) => return Err("is no socket".to_owned()),
        Err(error) => return Err(format!("cannot be looked at: {error}")),
    };
    let right = match wanted.protocol {
        Protocol::Tcp => ipproto::TCP,
        _ => ipproto::UDP,
    };
    if protocol != Some(right) {
        return Err(format!("is not of {}", wanted.protocol));
    }
    let bound = rustix::net::getsockname(descriptor).map_err(|error| error.to_string())?;
    match SocketAddr::try_from(bound) {
        Ok(bound) if bound == wanted.addr => {}
        Ok(bound) => return Err(format!("is bound to {bound}")),
        Err(_) => return Err("has no such address".to_owned()),
    }
    if rustix::net::getpeername(descriptor).is_ok() {
        return Err("is connected already".to_owned());
    }
    Ok(())
}
