//! The keeper: binds sockets inside on the running portico's request and hands them to it (`handover`). Owns the
//! connection, what is local inside and the files that lead to our DNS; keeps no socket and serves nothing.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portico_core::backoff::Backoff;
use portico_dataplane::open_for_another;
use rustix::io::Errno;

use super::files::{self, Files, FilesError};
use crate::{
    clock::jitter,
    handover::{Channel, FromKeeper, HandoverError, Hello, Socket, ToKeeper, VERSION, Welcome},
    host::routes::Routes,
};

/// After a connection that lasted for this long the next failure is a new one.
const WELL: Duration = Duration::from_secs(10);

/// Whom it keeps sockets for.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Where the running portico takes them.
    pub(super) socket: PathBuf,
    /// Whose Services have short names.
    pub(super) namespace: String,
    /// The program, for people.
    pub(super) command: String,
}

/// What a keeper has to say.
#[derive(Debug)]
pub(super) enum Said {
    /// All Services are served inside, again after each restart of the running portico.
    Ready,
    /// What the user may want to know.
    Note(String),
    /// They never will be.
    Failed(String),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the portico that runs does not take part: {0}")]
    Refused(String),
    #[error("nobody takes sockets at {}: {source}", path.display())]
    Nobody { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error("the portico that runs has ended")]
    Gone,
}

impl Keeper {
    /// Serves until the process ends, through every restart of the running portico.
    pub(super) fn keep(&self, say: impl Fn(Said)) {
        let mut inside = Inside::new();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut told = String::new();
        loop {
            let since = Instant::now();
            let end = self.serve(&mut inside, &say);
            if !inside.is_ready && !matches!(end, End::Gone) {
                return say(Said::Failed(end.to_string()));
            }
            // That nobody is there is what a restart looks like.
            let text = end.to_string();
            if matches!(end, End::Refused(_) | End::Files(_)) && told != text {
                say(Said::Note(text.clone()));
                told = text;
            }
            if since.elapsed() >= WELL {
                backoff.reset();
            }
            // Nobody wakes this thread, and to wake early would do no harm.
            std::thread::park_timeout(backoff.next(jitter()));
        }
    }

    /// One connection, to its end.
    fn serve(&self, inside: &mut Inside, say: &impl Fn(Said)) -> End {
        let served = self.connect().and_then(|channel| {
            loop {
                let Some(received) = channel.receive::<ToKeeper>()? else {
                    return Ok(());
                };
                match received.message {
                    ToKeeper::Welcome(welcome) => inside.welcome(&welcome, say)?,
                    ToKeeper::Refused { why } => return Err(End::Refused(why)),
                    ToKeeper::Local { add } => inside.make_local(&add, say),
                    ToKeeper::Open { id, sockets } => open(&channel, id, &sockets)?,
                    ToKeeper::Ready { failed, .. } => {
                        for text in failed.into_iter().filter(|_| !inside.is_ready) {
                            say(Said::Note(format!("not served inside: {text}")));
                        }
                        inside.is_ready = true;
                        say(Said::Ready);
                    }
                }
            }
        });
        served.err().unwrap_or(End::Gone)
    }

    fn connect(&self) -> Result<Channel, End> {
        let channel = Channel::connect(&self.socket).map_err(|source| End::Nobody {
            path: self.socket.clone(),
            source,
        })?;
        let hello = FromKeeper::Hello(Hello {
            version: VERSION,
            pid: std::process::id(),
            command: self.command.clone(),
            namespace: self.namespace.clone(),
        });
        channel.send(&hello, &[])?;
        Ok(channel)
    }
}

/// Opens what is asked for and hands it over; ours close with the end of this function.
fn open(channel: &Channel, id: u64, sockets: &[Socket]) -> Result<(), HandoverError> {
    let opened: Vec<io::Result<OwnedFd>> = sockets
        .iter()
        .map(|one| open_for_another(one.protocol, one.addr, one.device_is_loopback))
        .collect();
    let number = |error: &io::Error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
    let results = opened
        .iter()
        .map(|one| one.as_ref().map(drop).map_err(number));
    let answer = FromKeeper::Opened {
        id,
        results: results.collect(),
    };
    let descriptors: Vec<BorrowedFd<'_>> = opened.iter().flatten().map(|fd| fd.as_fd()).collect();
    channel.send(&answer, &descriptors)
}

/// What the keeper has changed in its namespaces.
#[derive(Debug)]
struct Inside {
    routes: Routes,
    files: Option<Files>,
    /// The program may run, or does.
    is_ready: bool,
}

impl Inside {
    fn new() -> Self {
        let mut routes = Routes::open("run");
        // Single addresses may be of a network that leads elsewhere: nobody but us and the program is in here.
        let everywhere = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        // If it is refused, so is every address, which is said then.
        let _refused = routes.allow(&everywhere);
        Self {
            routes,
            files: None,
            is_ready: false,
        }
    }

    fn welcome(&mut self, welcome: &Welcome, say: &impl Fn(Said)) -> Result<(), End> {
        let (dns, search) = (welcome.dns.ip(), &welcome.search);
        if let Some(files) = &self.files {
            files.say(dns, search)?;
        } else {
            self.files = Some(Files::lay(dns, search)?);
            // Without it they are laid until the host's are replaced.
            let _running = std::thread::Builder::new()
                .name("run-files".into())
                .spawn(files::stay);
        }
        self.make_local(&welcome.local, say);
        Ok(())
    }

    /// What cannot be made local is not served: its sockets will fail, and the running portico says which.
    fn make_local(&mut self, nets: &[IpNet], say: &impl Fn(Said)) {
        for net in nets {
            let is_single = net.prefix_len() == net.max_prefix_len();
            let made = if is_single {
                self.routes.attach(net.addr()).map(drop)
            } else {
                self.routes.make_local(&[*net]).map(drop)
            };
            if let Err(error) = made {
                say(Said::Note(error.to_string()));
            }
        }
    }
}
