//! Sockets that the process was started with (`sd_listen_fds(3)`). Owns their descriptors and which of them stands for
//! which address; must not read the environment: whoever starts the process says how many there are.
//!
//! A socket is never given away, only duplicates of it are: a Service that goes and comes again finds it again.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use socket2::{SockRef, Type};

use crate::net;

/// The first inherited descriptor (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// Nobody passes more; a mistaken number must not cost a look at each.
const MOST: u16 = 4096;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
    strange: Vec<Unused>,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InheritedKind {
    /// A stream socket.
    Tcp,
    /// A datagram socket.
    Udp,
}

impl fmt::Display for InheritedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// An inherited descriptor that serves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Its name (`LISTEN_FDNAMES`), else its number.
    pub name: String,
    /// What it is bound to; `None` for what is no TCP or UDP socket.
    pub socket: Option<(InheritedKind, SocketAddr)>,
}

#[derive(Debug)]
struct Socket {
    name: String,
    fd: OwnedFd,
    kind: InheritedKind,
    addr: SocketAddr,
    /// For a wildcard IPv6 socket: it hears IPv4 too.
    dual: bool,
    adopted: AtomicBool,
}

impl Inherited {
    /// Takes the `count` descriptors from 3 on, with their names as far as those go. Works once in a process, and must
    /// be called before the process opens anything of its own: a later call, or a number that is no socket, gives
    /// nothing.
    pub fn take(count: u16, names: &[String]) -> Self {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let mut inherited = Self::default();
        if TAKEN.swap(true, Relaxed) {
            return inherited;
        }
        for index in 0..count.min(MOST) {
            let number = FIRST + RawFd::from(index);
            let name = names
                .get(usize::from(index))
                .filter(|name| !name.is_empty());
            let name = name
                .cloned()
                .unwrap_or_else(|| format!("descriptor {number}"));
            match net::take_socket(number) {
                Some(fd) => inherited.add(name, fd),
                None => inherited.strange.push(Unused { name, socket: None }),
            }
        }
        inherited
    }

    /// These sockets, as tests make them.
    #[cfg(test)]
    pub(crate) fn of(sockets: Vec<OwnedFd>) -> Self {
        let mut inherited = Self::default();
        for fd in sockets {
            inherited.add("test".to_owned(), fd);
        }
        inherited
    }

    fn add(&mut self, name: String, fd: OwnedFd) {
        match described(&fd) {
            Some((kind, addr, dual)) => self.sockets.push(Socket {
                name,
                fd,
                kind,
                addr,
                dual,
                adopted: AtomicBool::new(false),
            }),
            None => self.strange.push(Unused { name, socket: None }),
        }
    }

    /// A duplicate of the socket that is bound to `addr`, if there is one. A wildcard IPv6 socket that hears IPv4 too
    /// stands for `0.0.0.0`.
    ///
    /// # Errors
    /// It cannot be duplicated.
    pub fn adopt(&self, kind: InheritedKind, addr: SocketAddr) -> io::Result<Option<OwnedFd>> {
        let found = self.sockets.iter().find(|socket| socket.is_for(kind, addr));
        let Some(socket) = found else {
            return Ok(None);
        };
        let fd = rustix::io::fcntl_dupfd_cloexec(&socket.fd, 0)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        socket.adopted.store(true, Relaxed);
        Ok(Some(fd))
    }

    /// Whether the TCP socket that is bound to `addr` hears IPv4 and IPv6.
    pub(crate) fn hears_both(&self, addr: SocketAddr) -> bool {
        let mut sockets = self.sockets.iter();
        sockets.any(|socket| socket.dual && socket.is_for(InheritedKind::Tcp, addr))
    }

    /// Ports with a wildcard TCP socket: no other socket can have them, so that it must serve every address there.
    pub fn wildcard_ports(&self) -> BTreeSet<u16> {
        let wildcard = |socket: &&Socket| {
            let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), socket.addr.port());
            socket.is_for(InheritedKind::Tcp, any)
        };
        let sockets = self.sockets.iter().filter(wildcard);
        sockets.map(|socket| socket.addr.port()).collect()
    }

    /// What has never been adopted.
    pub fn unused(&self) -> Vec<Unused> {
        let idle = self
            .sockets
            .iter()
            .filter(|socket| !socket.adopted.load(Relaxed));
        let idle = idle.map(|socket| Unused {
            name: socket.name.clone(),
            socket: Some((socket.kind, socket.addr)),
        });
        idle.chain(self.strange.iter().cloned()).collect()
    }

    /// Makes adopted sockets listen again, for whoever inherits them next: one that refuses would be taken for broken
    /// (`systemd.socket(5)` units fail at a hang-up), and clients may as well wait for a restart.
    pub(crate) fn resume(&self, backlog: u16) {
        let adopted = self
            .sockets
            .iter()
            .filter(|socket| socket.kind == InheritedKind::Tcp && socket.adopted.load(Relaxed));
        for socket in adopted {
            if let Err(error) = rustix::net::listen(&socket.fd, i32::from(backlog)) {
                tracing::warn!(listener = %socket.addr, %error, "an inherited socket does not listen again");
            }
        }
    }
}

impl Socket {
    fn is_for(&self, kind: InheritedKind, addr: SocketAddr) -> bool {
        let as_wildcard = addr.is_ipv4() && addr.ip().is_unspecified() && self.dual;
        self.kind == kind && (self.addr == addr || (as_wildcard && self.addr.port() == addr.port()))
    }
}

/// What `fd` is and what it is bound to, if it is a TCP or UDP socket; TCP must listen, or be able to.
fn described(fd: &OwnedFd) -> Option<(InheritedKind, SocketAddr, bool)> {
    let socket = SockRef::from(fd);
    let kind = match socket.r#type().ok()? {
        Type::STREAM => InheritedKind::Tcp,
        Type::DGRAM => InheritedKind::Udp,
        _ => return None,
    };
    // A connection is what `Accept=yes` passes: nothing can be accepted from it.
    if kind == InheritedKind::Tcp && socket.peer_addr().is_ok() {
        return None;
    }
    let addr = socket.local_addr().ok()?.as_socket()?;
    let dual =
        addr.is_ipv6() && addr.ip().is_unspecified() && matches!(socket.only_v6(), Ok(false));
    Some((kind, addr, dual))
}
