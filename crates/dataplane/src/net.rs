//! System calls on sockets. Owns, with [`datagrams`], every `unsafe` line of this crate; must not know Services, snapshots or workers.

pub(crate) mod datagrams;
pub(crate) mod filter;
pub(crate) mod liveness;
pub(crate) mod pipe;
pub(crate) mod source;

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
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
    Ok(SharedFd::new(socket_at(addr, device)?.into()))
}

fn socket_at(addr: SocketAddr, device: Device) -> io::Result<Socket> {
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
    bind_local(&socket, addr)?;
    Ok(socket)
}

/// Binds `socket` to `addr`. bind(2) takes any IPv4 address that a route makes local, but of IPv6 only those that an
/// interface has: for others that are local by a route it has to be told not to look (`IPV6_FREEBIND`, which needs no
/// privilege; Linux 4.15). An address that is not local stays refused.
pub(crate) fn bind_local(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    let bound = socket.bind(&SockAddr::from(addr));
    match (&bound, addr) {
        (Err(error), SocketAddr::V6(v6))
            if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) && is_local_by_route(*v6.ip()) =>
        {
            socket.set_freebind_v6(true)?;
            socket.bind(&SockAddr::from(addr))
        }
        _ => bound,
    }
}

/// A socket for something beside Services at an address that the host has, be it by a route alone: it does not block,
/// and listens if it is of TCP.
///
/// # Errors
/// Of socket(2), bind(2) or listen(2).
pub fn open_at(addr: SocketAddr, protocol: portico_core::object::Protocol) -> io::Result<OwnedFd> {
    let kind = match protocol {
        portico_core::object::Protocol::Tcp => Type::STREAM,
        _ => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(addr), kind.nonblocking(), None)?;
    if kind == Type::STREAM {
        // Connections of a former run may still be about to end (`SO_REUSEADDR`, socket(7)).
        socket.set_reuse_address(true)?;
    }
    bind_local(&socket, addr)?;
    if kind == Type::STREAM {
        socket.listen(1024)?;
    }
    Ok(socket.into())
}

/// A socket of a Service for another process, which has the address: bound as a listener's would be, not listening.
/// With `device_is_loopback` it hears the device `lo` alone.
///
/// # Errors
/// Of socket(2), setsockopt(2) or bind(2).
pub fn open_for_another(
    protocol: portico_core::object::Protocol,
    addr: SocketAddr,
    device_is_loopback: bool,
) -> io::Result<OwnedFd> {
    let device = if device_is_loopback {
        Device::Loopback
    } else {
        Device::Any
    };
    let socket = match protocol {
        portico_core::object::Protocol::Tcp => socket_at(addr, device)?,
        _ => datagrams::socket_at(addr, device)?,
    };
    Ok(socket.into())
}

/// Whether the most specific of the kernel's IPv6 routes to `addr` is a local one (`/proc/net/ipv6_route`).
fn is_local_by_route(addr: Ipv6Addr) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    is_local_in(&table, addr)
}

/// Columns of a line, in hexadecimal: destination, length of its prefix, source, length, next hop, metric, two
/// counters, flags, and the device.
fn is_local_in(table: &str, addr: Ipv6Addr) -> bool {
    /// `RTF_LOCAL` of `linux/ipv6_route.h`.
    const LOCAL: u32 = 0x8000_0000;
    let routes = table.lines().filter_map(|line| {
        let mut columns = line.split_whitespace();
        let network = u128::from_str_radix(columns.next()?, 16).ok()?;
        let length = u32::from_str_radix(columns.next()?, 16).ok()?;
        let flags = u32::from_str_radix(columns.nth(6)?, 16).ok()?;
        let mask = u128::MAX
            .checked_shl(128_u32.checked_sub(length)?)
            .unwrap_or(0);
        let is_towards = u128::from(addr) & mask == network;
        is_towards.then_some((length, flags & LOCAL != 0))
    });
    routes.max().is_some_and(|(_, is_local)| is_local)
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

/// The first and the last port that the kernel gives to outgoing connections (`ip_local_port_range`, ip(7)).
pub(crate) fn local_port_range() -> Option<(u16, u16)> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut bounds = text.split_whitespace().map(str::parse);
    Some((bounds.next()?.ok()?, bounds.next()?.ok()?))
}

/// Listens, for the first time or again after [`refuse`].
pub(crate) fn listen(fd: &SharedFd, backlog: u16) -> io::Result<()> {
    Ok(rustix::net::listen(fd, i32::from(backlog))?)
}

/// Makes the kernel refuse what has not been accepted and whatever comes. The socket keeps its port; connections that
/// were accepted from it go on. One that refuses already is left alone: Linux would note the shutdown of a socket that does
/// not listen, and whatever it accepted later would be at its end from the start.
pub(crate) fn refuse(fd: &SharedFd) -> io::Result<()> {
    if rustix::net::sockopt::socket_acceptconn(fd)? {
        rustix::net::shutdown(fd, Shutdown::Read)?;
    }
    Ok(())
}

/// The next connection of the accept queue with its source address.
pub(crate) fn accept(fd: impl AsFd) -> io::Result<(TcpStream, Option<SocketAddr>)> {
    let (fd, peer) =
        rustix::net::acceptfrom_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer: SocketAddrAny| SocketAddr::try_from(peer).ok());
    Ok((
        TcpStream::from(fd),
        peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port())),
    ))
}

/// Whether a connection waits in the accept queue, or the socket does not listen any more.
pub(crate) fn has_waiting(fd: impl AsFd) -> bool {
    let fd = fd.as_fd();
    let mut polled = [PollFd::new(&fd, PollFlags::IN)];
    // Interrupted by a signal, it is asked again soon.
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Packets that a socket dropped since it was made, of whatever cause (`SO_MEMINFO`, `SK_MEMINFO_DROPS`, Linux 4.12):
/// what its filter drops, and what finds its queue full. `None` where the kernel does not say.
#[expect(
    unsafe_code,
    reason = "no crate that is used here has this socket option"
)]
pub(crate) fn drops(fd: &SharedFd) -> Option<u32> {
    const PLACE: usize = 8;
    // More than any kernel has told so far; what it does not fill stays 0.
    let mut counts = [0_u32; 16];
    let mut length = libc::socklen_t::try_from(size_of_val(&counts)).ok()?;
    // SAFETY: the buffer is writable and `length` bytes long, the kernel writes no more and returns how much it wrote.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            (&raw mut counts).cast(),
            &raw mut length,
        )
    };
    let told = usize::try_from(length).ok()? / size_of::<u32>();
    (result == 0 && told > PLACE).then(|| counts.get(PLACE).copied())?
}

/// Leaves the choice of a port to connect(2) (`IP_BIND_ADDRESS_NO_PORT`, ip(7), Linux 4.2; of IPv6 sockets, too).
#[expect(
    unsafe_code,
    reason = "no crate that is used here has this socket option"
)]
pub(crate) fn defer_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    // SAFETY: the option's value is an int, which `on` is; the kernel only reads it during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
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
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EADDRNOTAVAIL
                | libc::EADDRINUSE
                | libc::EAGAIN
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_is_ours_when_the_host_has_run_out_and_theirs_when_they_do_not_answer() {
        let is_ours = |code| is_own_fault(&io::Error::from_raw_os_error(code));
        let ours = [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::EADDRNOTAVAIL,
            libc::EADDRINUSE,
            libc::EAGAIN,
        ];
        assert!(ours.into_iter().all(is_ours));
        let theirs = [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ETIMEDOUT];
        assert!(!theirs.into_iter().any(is_ours));
    }

    #[test]
    fn accept_failure_of_any_shortage_pauses_and_of_one_connection_does_not() {
        let kind = |code| AcceptFailure::of(&io::Error::from_raw_os_error(code));
        for shortage in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(kind(shortage), AcceptFailure::Exhausted);
        }
        // accept(2): errors of the network that waited on the new socket.
        for gone in [libc::ECONNABORTED, libc::EPROTO, libc::ENETUNREACH] {
            assert_eq!(kind(gone), AcceptFailure::Gone);
        }
        assert_eq!(kind(libc::EAGAIN), AcceptFailure::Empty);
        assert_eq!(kind(libc::EINVAL), AcceptFailure::Stopped);
    }

    #[test]
    fn refuse_of_a_socket_that_does_not_listen_leaves_its_later_connections_open() {
        let fd = bind("127.0.0.1:0".parse().unwrap(), Device::Any).unwrap();
        refuse(&fd).unwrap();
        for _ in 0..2 {
            listen(&fd, 1).unwrap();
            // Another one each time: a port that nobody asked for is not kept.
            let addr = SocketAddr::try_from(rustix::net::getsockname(&fd).unwrap()).unwrap();
            let _client = TcpStream::connect(addr).unwrap();
            let (stream, _) = accept(&fd).unwrap();
            let silent = stream.peek(&mut [0]).unwrap_err();
            assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
            refuse(&fd).unwrap();
            refuse(&fd).unwrap();
        }
    }

    #[test]
    fn address_is_local_by_the_most_specific_route_alone() {
        let zero = "0".repeat(32);
        let line = |network: &str, length: &str, flags: &str| {
            format!(
                "{network} {length} {zero} 00 {zero} 00000400 00000001 00000000 {flags}       lo\n"
            )
        };
        let table = line(&zero, "00", "00200200")
            + &line("fd000010009600000000000000000000", "70", "80000001")
            + &line("fd000010009600000000000000000500", "78", "00000001")
            + &line("00000000000000000000000000000001", "80", "80200001");
        let is_local = |addr: &str| is_local_in(&table, addr.parse().unwrap());
        assert!(is_local("fd00:10:96::1"));
        assert!(is_local("::1"));
        assert!(!is_local("fd00:10:97::1"), "elsewhere");
        assert!(!is_local("fd00:10:96::501"), "a part of it is not");
        assert!(!is_local_in("nonsense", Ipv6Addr::LOCALHOST));
    }
}
