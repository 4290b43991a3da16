//! One attempt at an endpoint, from the client's address where that is to be kept. Owns the two steps and their time; must
//! not choose the endpoint, nor hold anything against it.

pub(crate) mod sources;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use portico_core::{balance::Unkept, object::SourceAddress, snapshot::PortView};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{
    clock,
    net::{self, source},
    settings::DataSettings,
    unkept,
};
use sources::Sources;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the endpoint is one of our own frontends")]
    Loop,
    #[error("connecting timed out")]
    TimedOut,
    #[error("connecting failed")]
    Failed(#[source] io::Error),
}

/// A client whose address is to be kept, and the Service port that says so.
#[derive(Debug)]
pub(super) struct Keeping {
    client: IpAddr,
    port: Arc<PortView>,
}

impl Keeping {
    /// `None` where ours is as good, or the client's is unknown.
    pub(super) fn of(port: &Arc<PortView>, client: Option<IpAddr>) -> Option<Self> {
        let client = client.filter(|_| port.source == SourceAddress::Keep)?;
        Some(Self {
            client,
            port: Arc::clone(port),
        })
    }
}

/// Connects to `addr` within `patience`. Where the client's address cannot be kept, ours is used: so what is held
/// against the endpoint never is a matter of the source alone.
pub(super) async fn dial(
    addr: SocketAddr,
    keeping: Option<Keeping>,
    patience: Duration,
    (settings, sources): (&DataSettings, &Sources),
) -> Result<TcpStream, DialError> {
    let stream = attempt(addr, keeping, patience, sources).await?;
    if !addr.ip().is_loopback() {
        // Fails on no socket of TCP; without it a dead endpoint holds its connections for the idle time.
        let _ = settings.liveness().watch(&SockRef::from(&stream));
    }
    Ok(stream)
}

async fn attempt(
    addr: SocketAddr,
    keeping: Option<Keeping>,
    timeout: Duration,
    sources: &Sources,
) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + timeout;
    if let Some(Keeping { client, port }) = keeping {
        // Answers to a loopback address cannot go astray. To others they can, which leaves half of the time for ours.
        let until = if client.is_loopback() {
            deadline
        } else {
            Instant::now() + timeout / 2
        };
        match dial_from(client, addr, until).await {
            Ok(stream) => return Ok(stream),
            Err(Miss::Failed(error)) => return Err(error),
            Err(Miss::Unkept(why)) => unkept::tell(&port, client, addr, why),
        }
    }
    dial_from_ours(addr, deadline, sources).await
}

/// From the first of our addresses that has a port left, within one deadline.
async fn dial_from_ours(
    addr: SocketAddr,
    deadline: Instant,
    sources: &Sources,
) -> Result<TcpStream, DialError> {
    let mut dry = None;
    for (place, source) in sources.of(addr, clock::now()) {
        let socket = open(addr)?;
        let bound = source.map_or(Ok(()), |source| bind(&socket, source));
        let dialled = match bound {
            Ok(()) => connect(socket, addr, deadline).await,
            Err(error) => Err(DialError::Failed(error)),
        };
        match dialled {
            Err(DialError::Failed(error)) if sources::is_dry(&error) => {
                sources.ran_dry(place, addr, clock::now());
                dry = Some(error);
            }
            dialled => return dialled,
        }
    }
    Err(dry.map_or(DialError::TimedOut, DialError::Failed))
}

/// Binds to an address of ours. The port is chosen when it connects, so that it only has to be free towards that endpoint.
fn bind(socket: &Socket, source: IpAddr) -> io::Result<()> {
    // Without it fewer connections find a port, which is no reason to have none.
    let _ = net::defer_port(socket);
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// Why there is no connection from the client's address.
enum Miss {
    /// The endpoint's doing, or the host's.
    Failed(DialError),
    /// The address'.
    Unkept(Unkept),
}

async fn dial_from(client: IpAddr, addr: SocketAddr, deadline: Instant) -> Result<TcpStream, Miss> {
    let socket = open(addr).map_err(Miss::Failed)?;
    source::bind(&socket, client, addr).map_err(Miss::Unkept)?;
    connect(socket, addr, deadline)
        .await
        .map_err(|error| match &error {
            DialError::TimedOut if !client.is_loopback() => Miss::Unkept(Unkept::Silence),
            DialError::Failed(cause) => match source::unkept(cause) {
                Some(why) => Miss::Unkept(why),
                None => Miss::Failed(error),
            },
            _ => Miss::Failed(error),
        })
}

fn open(addr: SocketAddr) -> Result<Socket, DialError> {
    Socket::new(
        Domain::for_address(addr),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )
    .map_err(DialError::Failed)
}

async fn connect(
    socket: Socket,
    addr: SocketAddr,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let connecting = async {
        match socket.connect(&addr.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let stream = TcpStream::from_std(socket.into())?;
        // A failure comes with EPOLLERR (connect(2), epoll_ctl(2)): without it there is none to ask for.
        let has_failed = stream.ready(Interest::WRITABLE).await?.is_write_closed();
        match has_failed
            .then(|| stream.take_error())
            .transpose()?
            .flatten()
        {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    };
    match timeout_at(deadline, connecting).await {
        Ok(connected) => connected.map_err(DialError::Failed),
        Err(_) => Err(DialError::TimedOut),
    }
}
