//! Sockets for a pod's ports. Owns the way round a privilege or a neighbour; must not serve.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
};

use portico_core::{object::Protocol, world::pods::WantedPort};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;

/// How far a port that cannot be had is moved.
const MOVE: u16 = 10_000;

/// Ports tried from there.
const CANDIDATES: u16 = 100;

/// One port with its socket.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) wanted: WantedPort,
    pub(super) number: u16,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// A protocol that is not simulated.
    Unserved,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    #[error("bind {addr} ({protocol:?}): {source}")]
    Refused {
        addr: SocketAddr,
        protocol: Protocol,
        source: io::Error,
    },
    #[error("bind {addr} ({protocol:?}): {source}, and so are {CANDIDATES} ports from {first}")]
    NoneFree {
        addr: SocketAddr,
        protocol: Protocol,
        first: u16,
        source: io::Error,
    },
}

/// A socket for each of `ports` at `ip`. `taken` has the ports that no other may be moved to, and gets these.
pub(super) fn bind_all(
    ip: IpAddr,
    ports: &[WantedPort],
    taken: &mut BTreeSet<WantedPort>,
) -> Result<Vec<Bound>, BindError> {
    taken.extend(ports);
    let mut bound = Vec::with_capacity(ports.len());
    for wanted in ports {
        let socket = bind(ip, *wanted, taken)?;
        taken.insert(WantedPort {
            number: socket.number,
            ..*wanted
        });
        bound.push(socket);
    }
    Ok(bound)
}

/// A socket for `wanted`, at another number where its own cannot be had; never at one of `taken`.
fn bind(ip: IpAddr, wanted: WantedPort, taken: &BTreeSet<WantedPort>) -> Result<Bound, BindError> {
    let protocol = wanted.protocol;
    let addr = SocketAddr::new(ip, wanted.number);
    let source = match open(addr, protocol) {
        Ok(kind) => {
            return Ok(Bound {
                wanted,
                number: wanted.number,
                kind,
            });
        }
        Err(source) if !can_move(&source) => {
            return Err(BindError::Refused {
                addr,
                protocol,
                source,
            });
        }
        Err(source) => source,
    };
    let first = wanted
        .number
        .checked_add(MOVE)
        .unwrap_or_else(|| wanted.number - MOVE);
    let candidates = (first..=u16::MAX).filter(|number| {
        !taken.contains(&WantedPort {
            number: *number,
            protocol,
        })
    });
    for number in candidates.take(usize::from(CANDIDATES)) {
        match open(SocketAddr::new(ip, number), protocol) {
            Ok(kind) => {
                return Ok(Bound {
                    wanted,
                    number,
                    kind,
                });
            }
            Err(error) if can_move(&error) => {}
            Err(source) => {
                return Err(BindError::Refused {
                    addr,
                    protocol,
                    source,
                });
            }
        }
    }
    Err(BindError::NoneFree {
        addr,
        protocol,
        first,
        source,
    })
}

/// Whether another number may help: a privileged port, or one that somebody has.
fn can_move(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::AddrInUse
    )
}

fn open(addr: SocketAddr, protocol: Protocol) -> io::Result<Kind> {
    match protocol {
        Protocol::Tcp => {
            let socket = if addr.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            // A pod that comes back finds its predecessor's connections in TIME_WAIT (ip(7), SO_REUSEADDR).
            socket.set_reuseaddr(true)?;
            socket.bind(addr)?;
            Ok(Kind::Tcp(socket.listen(BACKLOG)?))
        }
        Protocol::Udp => {
            let socket = std::net::UdpSocket::bind(addr)?;
            socket.set_nonblocking(true)?;
            Ok(Kind::Udp(UdpSocket::from_std(socket)?))
        }
        Protocol::Sctp => Ok(Kind::Unserved),
    }
}
