//! Binding the addresses that DNS is asked at. Owns the fallback port and the account of what was bound and why not;
//! must not retry: whoever reads the account does.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
};

use portico_core::object::Protocol;
use portico_dataplane::{Inherited, InheritedKind, open_at};
use rustix::net::sockopt;
use tokio::net::TcpListener;

/// The port of DNS.
const PORT: u16 = 53;
/// The port where 53 needs a privilege that the program lacks, or is taken.
const FALLBACK_PORT: u16 = 10_053;
/// Kernel buffer asked for; `net.core.rmem_max` caps it.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Connections that may wait to be accepted where others bound the socket.
const BACKLOG: i32 = 128;
/// How often an ephemeral port is asked for until one is free in both protocols.
const EPHEMERAL_TRIES: usize = 16;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// Every address, each with UDP and TCP on one port number.
    pub listen: Vec<DnsListen>,
}

/// One address to listen at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsListen {
    /// Address and port; port 0 takes any that is free.
    pub addr: SocketAddr,
    /// The port that stands in for it; `None` for an address that the user gave with its port.
    pub fallback_port: Option<u16>,
}

impl DnsListen {
    /// Port 53 of `addr`, else 10053.
    pub fn standard(addr: IpAddr) -> Self {
        Self {
            addr: SocketAddr::new(addr, PORT),
            fallback_port: Some(FALLBACK_PORT),
        }
    }

    /// This address and no other.
    pub fn exactly(addr: SocketAddr) -> Self {
        Self {
            addr,
            fallback_port: None,
        }
    }
}

/// UDP or TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsTransport {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
}

impl fmt::Display for DnsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// What became of one address.
#[derive(Debug)]
pub struct DnsBound {
    /// What was wanted.
    pub wanted: DnsListen,
    /// Where it listens, if it does, with the port that it got.
    pub addr: Option<SocketAddr>,
    /// What failed on the way, also if the fallback then worked.
    pub failures: Vec<DnsFailure>,
}

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind {transport} {addr}")]
pub struct DnsFailure {
    /// The address and port that was tried.
    pub addr: SocketAddr,
    /// In which protocol.
    pub transport: DnsTransport,
    /// Why not.
    pub source: io::Error,
}

/// Bound sockets, to be served, and the account of them.
#[derive(Debug)]
pub struct DnsListeners {
    pub(super) sockets: Vec<(UdpSocket, TcpListener)>,
    bound: Vec<DnsBound>,
    pub(super) namespace: Namespace,
}

/// Where sockets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespace {
    /// Where this process is.
    Ours,
    /// In another network namespace, with the clients of one command.
    Another,
}

impl DnsListeners {
    /// Sockets that somebody has bound to `addr` in another network namespace. Must run in the runtime that serves them.
    ///
    /// # Errors
    /// They cannot be made to listen, or not to block.
    pub fn handed_over(addr: SocketAddr, udp: OwnedFd, tcp: OwnedFd) -> io::Result<Self> {
        for socket in [&udp, &tcp] {
            rustix::io::ioctl_fionbio(socket, true)?;
        }
        rustix::net::listen(&tcp, BACKLOG)?;
        let bound = DnsBound {
            wanted: DnsListen::exactly(addr),
            addr: Some(addr),
            failures: Vec::new(),
        };
        Ok(Self {
            sockets: vec![(udp.into(), TcpListener::from_std(tcp.into())?)],
            bound: vec![bound],
            namespace: Namespace::Another,
        })
    }

    /// What became of each address, in the order of the settings.
    pub fn bound(&self) -> &[DnsBound] {
        &self.bound
    }
}

/// Binds every address of `settings`, or takes what is bound to it already among the sockets that the process was
/// started with; one that fails does not keep the others from serving. Must run in the runtime that serves them.
pub fn bind(settings: &DnsSettings, inherited: &Inherited) -> DnsListeners {
    let mut listeners = DnsListeners {
        sockets: Vec::new(),
        bound: Vec::new(),
        namespace: Namespace::Ours,
    };
    for wanted in &settings.listen {
        let mut bound = DnsBound {
            wanted: *wanted,
            addr: None,
            failures: Vec::new(),
        };
        let fallback = wanted
            .fallback_port
            .map(|port| SocketAddr::new(wanted.addr.ip(), port));
        for addr in std::iter::once(wanted.addr).chain(fallback) {
            match bind_both(addr, inherited) {
                Ok((addr, udp, tcp)) => {
                    bound.addr = Some(addr);
                    listeners.sockets.push((udp, tcp));
                    break;
                }
                Err(failure) => bound.failures.push(failure),
            }
        }
        listeners.bound.push(bound);
    }
    listeners
}

/// UDP and TCP on one port number: a client that gets a truncated answer asks again over TCP at the same.
fn bind_both(
    addr: SocketAddr,
    inherited: &Inherited,
) -> Result<(SocketAddr, UdpSocket, TcpListener), DnsFailure> {
    let mut tries = if addr.port() == 0 { EPHEMERAL_TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_once(addr, inherited) {
            Err(failure) if tries > 0 && failure.source.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
}

fn bind_once(
    wanted: SocketAddr,
    inherited: &Inherited,
) -> Result<(SocketAddr, UdpSocket, TcpListener), DnsFailure> {
    let failed = |addr, transport| {
        move |source| DnsFailure {
            addr,
            transport,
            source,
        }
    };
    if wanted.ip().is_unspecified() {
        let source = io::Error::new(
            io::ErrorKind::InvalidInput,
            "replies have to leave from the address that was asked: name one address",
        );
        return Err(failed(wanted, DnsTransport::Udp)(source));
    }
    let udp = udp_at(wanted, inherited).map_err(failed(wanted, DnsTransport::Udp))?;
    let addr = udp
        .local_addr()
        .map_err(failed(wanted, DnsTransport::Udp))?;
    let tcp = tcp_at(addr, inherited).map_err(failed(addr, DnsTransport::Tcp))?;
    Ok((addr, udp, tcp))
}

fn udp_at(addr: SocketAddr, inherited: &Inherited) -> io::Result<UdpSocket> {
    if let Some(fd) = inherited.adopt(InheritedKind::Udp, addr)? {
        return Ok(fd.into());
    }
    let fd = open_at(addr, Protocol::Udp)?;
    // A burst is lost if it fails, which is no reason not to serve.
    let _ = sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER);
    Ok(fd.into())
}

fn tcp_at(addr: SocketAddr, inherited: &Inherited) -> io::Result<TcpListener> {
    match inherited.adopt(InheritedKind::Tcp, addr)? {
        Some(fd) => TcpListener::from_std(fd.into()),
        None => TcpListener::from_std(open_at(addr, Protocol::Tcp)?.into()),
    }
}
