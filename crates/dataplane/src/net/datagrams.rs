//! Datagrams in batches (recvmmsg(2), sendmmsg(2)). Owns UDP sockets' options, the buffers of one worker and the
//! `unsafe` lines for them; must not know flows.

pub(crate) mod exchange;

use std::{
    io,
    mem::{self, MaybeUninit},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    ops::Range,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr,
};

use portico_core::balance::Unkept;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Device, SharedFd, source};

/// Datagrams received or sent by one system call.
pub(crate) const BATCH: usize = 32;
/// Datagrams asked for where there was at most one the last time: less to prepare, and one more than one, so that a
/// single one is still known to be all.
const FEW: usize = 2;
/// More than the largest payload: 65 507 bytes over IPv4, 65 527 over IPv6.
const LARGEST: usize = 64 * 1024;
/// Distance of two buffers. Not a power of two, or the heads of all would share a few lines of the processor's cache.
const STRIDE: usize = LARGEST + 320;
/// Kernel buffer asked for a listening socket; `net.core.rmem_max` caps it.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// A UDP socket bound to `addr` and to nothing else. One for every address also says which one was asked (ip(7),
/// `IP_PKTINFO`; ipv6(7), `IPV6_RECVPKTINFO`). Without `SO_REUSEADDR`, which would let two UDP sockets share a port.
pub(crate) fn bind(addr: SocketAddr, device: Device) -> io::Result<SharedFd> {
    Ok(SharedFd::new(socket_at(addr, device)?.into()))
}

pub(super) fn socket_at(addr: SocketAddr, device: Device) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if device == Device::Loopback {
        socket.bind_device(Some(b"lo"))?;
    }
    fit(&socket, addr)?;
    super::bind_local(&socket, addr)?;
    Ok(socket)
}

/// What a socket that is, or will be, bound to `addr` needs to be served.
pub(crate) fn fit(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    if addr.ip().is_unspecified() {
        tell_local_addresses(socket, addr)?;
    }
    // A burst is lost if it fails, which is no reason not to serve.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(())
}

/// A UDP socket that sends to `endpoint` and hears only that (and its ICMP errors). With `client`, from that address;
/// where that cannot be had from ours, and why.
pub(crate) fn connect(
    endpoint: SocketAddr,
    client: Option<IpAddr>,
) -> io::Result<(OwnedFd, Option<Unkept>)> {
    let open = || {
        Socket::new(
            Domain::for_address(endpoint),
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )
    };
    let target = SockAddr::from(endpoint);
    let mut why = None;
    if let Some(client) = client {
        let socket = open()?;
        match source::bind(&socket, client, endpoint) {
            Ok(()) => match socket.connect(&target) {
                Ok(()) => return Ok((socket.into(), None)),
                Err(error) => why = Some(source::unkept(&error).ok_or(error)?),
            },
            Err(unkept) => why = Some(unkept),
        }
    }
    let socket = open()?;
    socket.connect(&target)?;
    Ok((socket.into(), why))
}

#[expect(
    unsafe_code,
    reason = "no crate of ours has a safe wrapper for IP_PKTINFO"
)]
fn tell_local_addresses(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    let (level, option) = match addr {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    // SAFETY: the option's value is an int, which `on` is; the kernel only reads it during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// How a failed call on a flow's socket is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing to receive, or no room to send.
    Later,
    /// The endpoint (or the network on its behalf) refused earlier datagrams: ICMP errors of a connected socket.
    Refused,
    /// Descriptors, memory or ports are used up.
    Exhausted,
    /// This one datagram cannot be sent.
    Unfit,
}

impl Failure {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => Self::Later,
            Some(
                libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::ENOPROTOOPT,
            ) => Self::Refused,
            // ENOSPC: watches of epoll(7).
            Some(
                libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOSPC | libc::EADDRNOTAVAIL,
            ) => Self::Exhausted,
            _ => Self::Unfit,
        }
    }
}

/// Where datagrams of an unconnected socket go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    client: SockAddr,
    /// The address that they leave from, where the socket leaves that open.
    from: Option<IpAddr>,
}

impl Target {
    pub(crate) fn new(client: SocketAddr, from: Option<IpAddr>) -> Self {
        Self {
            client: SockAddr::from(client),
            from,
        }
    }
}

/// What a receive came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// Datagrams.
    pub(crate) count: usize,
    /// Whether nothing was left.
    pub(crate) is_all: bool,
}

/// Of one that failed.
impl Default for Received {
    fn default() -> Self {
        Self {
            count: 0,
            is_all: true,
        }
    }
}

/// What a receiver wants to know beside the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Nothing: the socket is connected.
    Bytes,
    /// Who sent it.
    Source,
    /// Who sent it to which address.
    SourceAndLocal,
}

/// Room for one control message, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// Buffers for [`BATCH`] datagrams, with what the last receive said about them.
pub(crate) struct Batch {
    bytes: Box<[u8]>,
    /// The last receive had [`FEW`] or more.
    is_busy: bool,
    lengths: [usize; BATCH],
    sources: [Option<SocketAddr>; BATCH],
    locals: [Option<IpAddr>; BATCH],
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; STRIDE * BATCH].into_boxed_slice(),
            is_busy: false,
            lengths: [0; BATCH],
            sources: [None; BATCH],
            locals: [None; BATCH],
        }
    }

    /// Receives what is there, at most [`BATCH`] datagrams.
    pub(crate) fn receive(&mut self, fd: impl AsFd, wants: Wants) -> io::Result<Received> {
        let received = if self.is_busy {
            self.receive_up_to::<BATCH>(fd, wants)
        } else {
            self.receive_up_to::<FEW>(fd, wants)
        };
        self.is_busy = received
            .as_ref()
            .is_ok_and(|received| received.count >= FEW);
        received
    }

    fn receive_up_to<const MOST: usize>(
        &mut self,
        fd: impl AsFd,
        wants: Wants,
    ) -> io::Result<Received> {
        let mut names: [MaybeUninit<libc::sockaddr_storage>; MOST] =
            [const { MaybeUninit::uninit() }; MOST];
        let mut controls = [const { MaybeUninit::<Control>::uninit() }; MOST];
        let mut vectors = [EMPTY_VECTOR; MOST];
        let mut messages = [EMPTY_MESSAGE; MOST];
        for (((message, vector), (name, control)), buffer) in messages
            .iter_mut()
            .zip(&mut vectors)
            .zip(names.iter_mut().zip(&mut controls))
            .zip(self.bytes.chunks_exact_mut(STRIDE))
        {
            vector.iov_base = buffer.as_mut_ptr().cast();
            vector.iov_len = LARGEST;
            let header = &mut message.msg_hdr;
            header.msg_iov = ptr::from_mut(vector);
            header.msg_iovlen = 1;
            if wants != Wants::Bytes {
                header.msg_name = name.as_mut_ptr().cast();
                header.msg_namelen = length(size_of::<libc::sockaddr_storage>());
            }
            if wants == Wants::SourceAndLocal {
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = size_of::<Control>();
            }
        }
        let count = receive_all(fd, &mut messages)?;
        for (place, message) in messages.iter().enumerate().take(count) {
            self.note(place, message, wants);
        }
        Ok(Received {
            count,
            is_all: count < MOST,
        })
    }

    fn note(&mut self, place: usize, message: &libc::mmsghdr, wants: Wants) {
        if let Some(length) = self.lengths.get_mut(place) {
            *length = usize::try_from(message.msg_len).unwrap_or_default();
        }
        if let Some(source) = self.sources.get_mut(place) {
            *source = if wants == Wants::Bytes {
                None
            } else {
                source_of(&message.msg_hdr)
            };
        }
        if let Some(local) = self.locals.get_mut(place) {
            *local = if wants == Wants::SourceAndLocal {
                local_of(&message.msg_hdr)
            } else {
                None
            };
        }
    }

    /// Who sent the datagram at `place` of the last receive.
    pub(crate) fn source(&self, place: usize) -> Option<SocketAddr> {
        self.sources.get(place).copied().flatten()
    }

    /// The address of ours that it was sent to; `None` for broadcast and multicast.
    pub(crate) fn local(&self, place: usize) -> Option<IpAddr> {
        self.locals.get(place).copied().flatten()
    }

    /// Bytes of the datagrams in these places.
    pub(crate) fn bytes(&self, places: Range<usize>) -> u64 {
        let lengths = self.lengths.get(places).unwrap_or_default();
        lengths.iter().fold(0, |sum, length| {
            sum + u64::try_from(*length).unwrap_or_default()
        })
    }

    /// Sends the datagrams at `places` of the last receive in order and returns how many went.
    pub(crate) fn send(
        &self,
        fd: impl AsFd,
        places: Range<usize>,
        target: Option<&Target>,
    ) -> io::Result<usize> {
        if places.len() == 1 && target.is_none_or(|target| target.from.is_none()) {
            return send_one(fd, self.datagram(places.start), target).map(|()| 1);
        }
        let mut control = target.and_then(|target| target.from).map(leave_from);
        let mut vectors = [EMPTY_VECTOR; BATCH];
        let mut messages = [EMPTY_MESSAGE; BATCH];
        let count = places.len().min(BATCH);
        let datagrams = places.map(|place| self.datagram(place));
        for ((message, vector), datagram) in messages.iter_mut().zip(&mut vectors).zip(datagrams) {
            // Only read by the kernel.
            vector.iov_base = datagram.as_ptr().cast_mut().cast();
            vector.iov_len = datagram.len();
            let header = &mut message.msg_hdr;
            header.msg_iov = ptr::from_mut(vector);
            header.msg_iovlen = 1;
            if let Some(target) = target {
                header.msg_name = target.client.as_ptr().cast_mut().cast();
                header.msg_namelen = target.client.len();
            }
            if let Some((control, used)) = &mut control {
                header.msg_control = control.0.as_mut_ptr().cast();
                header.msg_controllen = *used;
            }
        }
        send_all(fd, messages.get_mut(..count).unwrap_or_default())
    }

    fn datagram(&self, place: usize) -> &[u8] {
        let length = self.lengths.get(place).copied().unwrap_or_default();
        self.bytes
            .get(place * STRIDE..place * STRIDE + length)
            .unwrap_or_default()
    }
}

#[expect(unsafe_code, reason = "a C structure of numbers")]
// SAFETY: all zero is a valid `sockaddr_storage`: of no family.
const EMPTY_NAME: libc::sockaddr_storage = unsafe { mem::zeroed() };

const EMPTY_VECTOR: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

#[expect(unsafe_code, reason = "a C structure of pointers and numbers")]
// SAFETY: all zero is a valid `mmsghdr`: null pointers with zero lengths.
const EMPTY_MESSAGE: libc::mmsghdr = unsafe { mem::zeroed() };

#[expect(unsafe_code, reason = "no crate of ours has a safe recvmmsg")]
fn receive_all(fd: impl AsFd, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let count = libc::c_uint::try_from(messages.len()).unwrap_or_default();
    // SAFETY: every pointer in `messages` was set by the caller, `Batch::receive_up_to` or `Exchange::run`, to memory of
    // the stated length that it holds mutably until after the call; nothing else refers to it.
    let received = unsafe {
        libc::recvmmsg(
            fd.as_fd().as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
        )
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

#[expect(
    unsafe_code,
    reason = "rustix' sendto copies the address into a form of its own first"
)]
fn send_one(fd: impl AsFd, datagram: &[u8], target: Option<&Target>) -> io::Result<()> {
    let (name, length) = target.map_or((ptr::null(), 0), |target| {
        (target.client.as_ptr().cast(), target.client.len())
    });
    // SAFETY: the bytes and the address (of the stated length, or none) outlive the call, which only reads them.
    let sent = unsafe {
        libc::sendto(
            fd.as_fd().as_raw_fd(),
            datagram.as_ptr().cast(),
            datagram.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            name,
            length,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[expect(unsafe_code, reason = "rustix' sendmmsg allocates for every message")]
fn send_all(fd: impl AsFd, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let count = libc::c_uint::try_from(messages.len()).unwrap_or_default();
    // SAFETY: every pointer in `messages` was set by the caller, `Batch::send` or `Exchange`, to memory of the stated length that
    // outlives the call; the kernel writes nothing but `msg_len`.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_fd().as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[expect(unsafe_code, reason = "the kernel's address is a C union")]
fn source_of(header: &libc::msghdr) -> Option<SocketAddr> {
    let is = |size: usize| header.msg_namelen >= length(size);
    if !is(size_of::<libc::sa_family_t>()) {
        return None;
    }
    let name = header.msg_name;
    // SAFETY: `msg_name` points to a `sockaddr_storage` of which the kernel has written `msg_namelen` bytes: at least
    // the family, and what is read of each family is checked against that length. The storage is aligned for all.
    unsafe {
        match i32::from(*name.cast::<libc::sa_family_t>()) {
            libc::AF_INET if is(size_of::<libc::sockaddr_in>()) => {
                let of = &*name.cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(u32::from_be(of.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(of.sin_port)).into())
            }
            libc::AF_INET6 if is(size_of::<libc::sockaddr_in6>()) => {
                let of = &*name.cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(of.sin6_addr.s6_addr);
                let port = u16::from_be(of.sin6_port);
                Some(SocketAddrV6::new(ip, port, of.sin6_flowinfo, of.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// The destination, if it is an address of this host: of broadcast and multicast over IPv4 the local address differs.
#[expect(unsafe_code, reason = "control messages are read through C macros")]
fn local_of(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: `msg_control` and `msg_controllen` are as the kernel left them, the macros stay within them, an
    // `IP_PKTINFO` message carries an `in_pktinfo` and an `IPV6_PKTINFO` message an `in6_pktinfo`, which are read without
    // presuming their alignment.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(of) = message.as_ref() {
            let data = libc::CMSG_DATA(message);
            match (of.cmsg_level, of.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                    let addr = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                    let is_own = info.ipi_addr.s_addr == info.ipi_spec_dst.s_addr;
                    return is_own.then_some(addr.into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                    let addr = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    return (!addr.is_multicast()).then_some(addr.into());
                }
                _ => message = libc::CMSG_NXTHDR(header, message),
            }
        }
    }
    None
}

/// The control message that makes datagrams leave from `addr`, and its length.
fn leave_from(addr: IpAddr) -> (Control, usize) {
    match addr {
        IpAddr::V4(addr) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(addr).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            control_of(libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(addr) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: addr.octets(),
                },
                ipi6_ifindex: 0,
            };
            control_of(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

/// `UDP_SEGMENT` of `linux/udp.h` (Linux 4.18): one message is sent as several datagrams of that length, the last of
/// which may be shorter. Not every system's part of `libc` has it.
const UDP_SEGMENT: libc::c_int = 103;
/// As many the kernel makes of one message at most (`UDP_MAX_SEGMENTS`; 128 since Linux 6.10).
const MOST_SEGMENTS: usize = 64;

/// The control message that cuts a message into datagrams of `length` bytes, and its own length.
fn segments_of(length: usize) -> (Control, usize) {
    // Not even a packet is longer.
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    control_of(libc::SOL_UDP, UDP_SEGMENT, length)
}

/// Whether the kernel knows [`UDP_SEGMENT`]; one that does not would ignore it and send what belongs to several
/// datagrams as one.
#[expect(
    unsafe_code,
    reason = "no crate that is used here has this socket option"
)]
fn knows_segments(fd: impl AsFd) -> bool {
    let mut value: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: the option's value is an int, and `length` its size; the kernel writes no more.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_UDP,
            UDP_SEGMENT,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    result == 0
}

/// A control message with `info`, an `in_pktinfo` or `in6_pktinfo` or what is no longer.
#[expect(unsafe_code, reason = "control messages are written through C macros")]
fn control_of<T: Copy>(level: libc::c_int, kind: libc::c_int, info: T) -> (Control, usize) {
    // Of `in6_pktinfo`, the larger one, `CMSG_SPACE` is 40.
    const { assert!(size_of::<T>() <= size_of::<libc::in6_pktinfo>()) };
    let mut control = Control([0; 64]);
    let payload = libc::c_uint::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: `CMSG_SPACE` of either payload is at most 40 bytes, so that header and payload fit into `control`, which is
    // aligned for the header.
    unsafe {
        let used = usize::try_from(libc::CMSG_SPACE(payload)).unwrap_or_default();
        let mut header = EMPTY_MESSAGE.msg_hdr;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = used;
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = usize::try_from(libc::CMSG_LEN(payload)).unwrap_or_default();
        ptr::write_unaligned(libc::CMSG_DATA(message).cast(), info);
        (control, used)
    }
}

fn length(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).unwrap_or_default()
}

/// Makes the kernel refuse what would leave `socket` as several datagrams: it has to compute their checksums.
#[cfg(test)]
#[expect(
    unsafe_code,
    reason = "no crate that is used here has this socket option"
)]
fn refuse_segments(socket: &std::net::UdpSocket) {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap();
    // SAFETY: the option's value is an int, which `on` is; the kernel only reads it during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            length,
        )
    };
    assert_eq!(result, 0);
}
