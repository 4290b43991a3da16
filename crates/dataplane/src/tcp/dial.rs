//! One attempt at an endpoint, from the client's address where that is to be kept. Owns the two steps and their time; must
//! not choose the endpoint, nor hold anything against it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use portico_core::{balance::Unkept, object::SourceAddress, snapshot::PortView};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};

use crate::{net::source, unkept};

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
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

/// Connects to `addr` within `timeout`. Where the client's address cannot be kept, ours is used: so what is held
/// against the endpoint never is a matter of the source alone.
pub(super) async fn dial(
    addr: SocketAddr,
    keeping: Option<Keeping>,
    timeout: Duration,
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
    connect(open(addr)?, addr, deadline).await
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
    let socket = TcpSocket::from_std_stream(socket.into());
    match timeout_at(deadline, socket.connect(addr)).await {
        Ok(connected) => connected.map_err(DialError::Failed),
        Err(_) => Err(DialError::TimedOut),
    }
}
