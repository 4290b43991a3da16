//! System calls on sockets. Owns, with [`datagrams`], every `unsafe` line of this crate; must not know Services, snapshots or workers.

pub(crate) mod datagrams;

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use rustix::{
    net::{Shutdown, SocketAddrAny, SocketFlags},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

/// A listening socket's descriptor, shared by the workers that accept from it. It closes with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct SharedFd(Arc<OwnedFd>);

impl SharedFd {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl AsRawFd for SharedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for SharedFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Registers `fd` with the calling worker's runtime.
#[expect(
    unsafe_code,
    reason = "tokio cannot see that the descriptor outlives its registration"
)]
pub(crate) fn register(fd: SharedFd) -> io::Result<AsyncFd<SharedFd>> {
    // SAFETY: `SharedFd` owns a share of an `OwnedFd`, never gives it away and has no interior mutability: as long as
    // the `AsyncFd` owns it, the descriptor stays open and `as_raw_fd` returns the same one.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Which addresses a listening socket hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    /// Whatever reaches its address.
    Any,
    /// Only what comes through the loopback device (`SO_BINDTODEVICE`; needs no privilege since Linux 5.7).
    Loopback,
}

/// A TCP socket bound to `addr` and to nothing else, not listening yet. `SO_REUSEADDR` lets it pass connections in
/// `TIME_WAIT`, as servers do; beside a listening socket Linux refuses it all the same (socket(7)).
pub(crate) fn bind(addr: SocketAddr, device: Device) -> io::Result<SharedFd> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if device == Device::Loopback {
        socket.bind_device(Some(b"lo"))?;
    }
    bind_to(&socket, addr)?;
    Ok(SharedFd::new(socket.into()))
}

/// Binds to an address of this host. Linux takes for one of IPv6 only what an interface has, although a local route
/// brings packets for more; IPv4 asks the routes by itself. `IPV6_FREEBIND` would take any address, also one that
/// nothing ever reaches, so that it is for those alone.
fn bind_to(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    match (socket.bind(&SockAddr::from(addr)), addr.ip()) {
        (Err(error), IpAddr::V6(ip))
            if error.kind() == io::ErrorKind::AddrNotAvailable && has_local_route(ip) =>
        {
            socket.set_freebind_v6(true)?;
            socket.bind(&SockAddr::from(addr))
        }
        (done, _) => done,
    }
}

/// Whether a route delivers packets for `addr` to this host, by `/proc/net/ipv6_route` (proc(5)).
fn has_local_route(addr: Ipv6Addr) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    table.lines().any(|line| is_local_route_to(addr, line))
}

/// Columns: destination and its prefix length, both hexadecimal, then those of the source, next hop, metric, use
/// counts, and the flags, of which this one is `RTF_LOCAL`.
fn is_local_route_to(addr: Ipv6Addr, line: &str) -> bool {
    const LOCAL: u32 = 0x8000_0000;
    let mut columns = line.split_whitespace();
    let net = columns.next().map(|hex| u128::from_str_radix(hex, 16));
    let length = columns.next().map(|hex| u32::from_str_radix(hex, 16));
    let flags = columns.nth(6).map(|hex| u32::from_str_radix(hex, 16));
    let (Some(Ok(net)), Some(Ok(length @ 1..=128)), Some(Ok(flags))) = (net, length, flags) else {
        return false;
    };
    flags & LOCAL != 0 && (u128::from(addr) ^ net) >> (128 - length) == 0
}

/// The socket with this number, which the process was started with; closed for the programs that it starts itself.
/// `None` if there is none. To be called before the process opens anything of its own, once for each number.
#[expect(
    unsafe_code,
    reason = "nothing else makes an owned descriptor of a number"
)]
pub(crate) fn take_socket(number: RawFd) -> Option<OwnedFd> {
    let target = std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    if !target.to_string_lossy().starts_with("socket:") {
        return None;
    }
    // SAFETY: the descriptor is open, as proc(5) has just said, and the protocol of sd_listen_fds(3) makes it ours; the
    // only caller asks once for each number and before anything else could have been given it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// The number of descriptors that this process may open now.
pub(crate) fn descriptor_limit() -> usize {
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// Listens, for the first time or again after [`refuse`].
pub(crate) fn listen(fd: &SharedFd, backlog: u16) -> io::Result<()> {
    Ok(rustix::net::listen(fd, i32::from(backlog))?)
}

/// Makes the kernel refuse what has not been accepted and whatever comes. The socket keeps its port; connections that
/// were accepted from it go on.
pub(crate) fn refuse(fd: &SharedFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(fd, Shutdown::Read)?)
}

/// The next connection of the accept queue with its source address.
pub(crate) fn accept(fd: impl AsFd) -> io::Result<(TcpStream, Option<IpAddr>)> {
    let (fd, peer) =
        rustix::net::acceptfrom_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer: SocketAddrAny| SocketAddr::try_from(peer).ok());
    Ok((
        TcpStream::from(fd),
        peer.map(|peer| peer.ip().to_canonical()),
    ))
}

/// Raises the number of descriptors that this process may open to its hard limit and returns it.
pub(crate) fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused only by a sandbox; the current limit then stays the truth.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        );
    }
    descriptor_limit()
}

/// How a failed accept is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptFailure {
    /// The queue is empty.
    Empty,
    /// This one connection is gone already (accept(2) passes pending network errors on).
    Gone,
    /// The socket refuses now, or was closed.
    Stopped,
    /// Descriptors or memory are used up.
    Exhausted,
}

impl AcceptFailure {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Self::Empty,
            Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK) => Self::Stopped,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Self::Exhausted,
            _ => Self::Gone,
        }
    }
}

/// Whether a failed connect says something about us instead of the endpoint.
pub(crate) fn is_own_fault(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_local_route_to_takes_local_routes_that_contain_the_address() {
        let line = |length: &str, flags: &str| {
            let none = "0".repeat(32);
            format!(
                "fd000096000000000000000000000000 {length} {none} 00 {none} 00000400 00000001 00000000 {flags}       lo"
            )
        };
        let check = |addr: &str, line: &str| is_local_route_to(addr.parse().unwrap(), line);
        assert!(check("fd00:96::4:5678", &line("6c", "80000001")));
        assert!(!check("fd00:97::1", &line("6c", "80000001")));
        assert!(check("fd00:96::", &line("80", "80000001")));
        assert!(!check("fd00:96::1", &line("80", "80000001")));
        assert!(!check("fd00:96::1", &line("6c", "00000001")), "not local");
        assert!(!check("fd00:96::1", &line("00", "80000001")), "no prefix");
        assert!(!check("fd00:96::1", "fd00"));
    }
}
