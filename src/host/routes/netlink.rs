//! Routes and the loopback device of the kernel as messages of rtnetlink(7). Owns the bytes and the socket; must not decide which routes there
//! should be.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    time::Duration,
};

use ipnet::IpNet;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

/// `RT_TABLE_LOCAL`: what is looked up first, and where the kernel keeps the host's own addresses.
const LOCAL_TABLE: u32 = 255;
/// `RTN_LOCAL`: packets are delivered here.
const LOCAL: u8 = 2;
/// `RT_SCOPE_HOST`, and `RT_SCOPE_NOWHERE`, which matches any scope in a deletion.
const SCOPE_HOST: u8 = 254;
const SCOPE_ANY: u8 = 255;
/// Index of `lo`, the same in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// Kinds of message.
const DONE: u16 = 3;
const ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;

/// `NLM_F_...`.
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const INTERRUPTED: u16 = 0x10;
const EXCLUSIVE: u16 = 0x200;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;

/// `RTM_F_CLONED`: a cached copy, not a route. `RTM_F_FIB_MATCH`: answer with the route, not with what it resolves to.
const CLONED: u32 = 0x200;
const FIB_MATCH: u32 = 0x2000;

/// `RTA_...`.
const DESTINATION: u16 = 1;
const DEVICE: u16 = 4;
const PRIORITY: u16 = 6;
const SOURCE: u16 = 7;
const TABLE: u16 = 15;
/// Flags in the kind of an attribute (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const ATTRIBUTE_KIND: u16 = 0x3fff;

/// `sizeof(struct nlmsghdr)` and `sizeof(struct rtmsg)`.
const HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;
/// `IFF_UP` of netdevice(7).
const UP: u32 = 1;
/// The kernel fills at most 32 KiB at a time.
const BUFFER: usize = 64 * 1024;
/// The kernel answers at once; a sandbox that swallows requests must not hold a start up.
const PATIENCE: Duration = Duration::from_secs(5);
/// A dump that was overtaken by a change is read again, this often.
const DUMPS: usize = 5;

/// A route as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Where it leads to.
    pub(super) net: IpNet,
    pub(super) table: u32,
    /// `RTN_...`.
    pub(super) kind: u8,
    /// Who made it: `RTPROT_...` or a program's own number.
    pub(super) protocol: u8,
    /// What `ip route` calls metric.
    pub(super) priority: u32,
    /// The source that packets get whose sender chose none.
    pub(super) source: Option<IpAddr>,
    /// Index of the interface.
    pub(super) device: Option<u32>,
}

impl Route {
    /// A route that makes `net` local.
    pub(super) fn local(net: IpNet, protocol: u8, priority: u32, source: Option<IpAddr>) -> Self {
        Self {
            net,
            table: LOCAL_TABLE,
            kind: LOCAL,
            protocol,
            priority,
            source,
            device: Some(LOOPBACK),
        }
    }

    /// Whether its addresses are addresses of this host.
    pub(super) fn is_local(&self) -> bool {
        self.table == LOCAL_TABLE && self.delivers_here()
    }

    /// Whether packets that take it are delivered here, whatever its table: Linux keeps the tables `local` and `main`
    /// of IPv4 in one while there are no rules, and says `main` of what a look-up finds in either.
    pub(super) fn delivers_here(&self) -> bool {
        self.kind == LOCAL
    }

    /// The body of a message about it; `scope` concerns IPv4 alone.
    fn body(&self, scope: u8) -> Vec<u8> {
        let table = u8::try_from(self.table).unwrap_or_default();
        let scope = if self.net.addr().is_ipv4() { scope } else { 0 };
        let mut body = vec![
            family(self.net.addr()),
            self.net.prefix_len(),
            0,
            0,
            table,
            self.protocol,
            scope,
            self.kind,
        ];
        body.extend(0_u32.to_ne_bytes());
        attribute(&mut body, DESTINATION, &bytes_of(self.net.addr()));
        attribute(&mut body, PRIORITY, &self.priority.to_ne_bytes());
        if let Some(device) = self.device {
            attribute(&mut body, DEVICE, &device.to_ne_bytes());
        }
        if let Some(source) = self.source {
            attribute(&mut body, SOURCE, &bytes_of(source));
        }
        body
    }

    /// `None` for what is no route of the internet protocols, or a cached copy of one.
    fn parse(body: &[u8]) -> Option<Self> {
        let (head, mut rest) = body.split_at_checked(ROUTE_HEADER)?;
        let &[family, length, _, _, table, protocol, _, kind, ..] = head else {
            return None;
        };
        if number(head.get(8..)?)? & CLONED != 0 {
            return None;
        }
        let unspecified = match family_of(family)? {
            AddressFamily::INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let mut route = Self {
            net: IpNet::new(unspecified, length).ok()?,
            table: u32::from(table),
            kind,
            protocol,
            priority: 0,
            source: None,
            device: None,
        };
        while let Some((kind, value, next)) = next_attribute(rest) {
            match kind {
                DESTINATION => route.net = IpNet::new(addr_of(value)?, length).ok()?,
                DEVICE => route.device = number(value),
                PRIORITY => route.priority = number(value)?,
                SOURCE => route.source = addr_of(value),
                TABLE => route.table = number(value)?,
                _ => {}
            }
            rest = next;
        }
        Some(route)
    }
}

/// A socket to the kernel's routes.
#[derive(Debug)]
pub(super) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens it; needs no privilege.
    pub(super) fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0.
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// All routes of all tables.
    pub(super) fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut all = self.dump(AddressFamily::INET)?;
        // A kernel without IPv6 knows no routes of it.
        all.extend(self.dump(AddressFamily::INET6).unwrap_or_default());
        Ok(all)
    }

    fn dump(&mut self, family: AddressFamily) -> io::Result<Vec<Route>> {
        let mut body = vec![u8::try_from(family.as_raw()).unwrap_or_default()];
        body.resize(ROUTE_HEADER, 0);
        for _ in 0..DUMPS {
            let sequence = self.send(GET_ROUTE, REQUEST | DUMP, &body)?;
            if let (false, routes) = self.receive(sequence)? {
                return Ok(routes);
            }
        }
        Err(io::Error::other("the routes change too fast to be read"))
    }

    /// The route that packets to `addr` take, if there is one.
    pub(super) fn route_to(&mut self, addr: IpAddr) -> io::Result<Option<Route>> {
        let mut body = vec![family(addr), IpNet::from(addr).prefix_len()];
        body.resize(ROUTE_HEADER - size_of::<u32>(), 0);
        body.extend(FIB_MATCH.to_ne_bytes());
        attribute(&mut body, DESTINATION, &bytes_of(addr));
        let sequence = self.send(GET_ROUTE, REQUEST | ACKNOWLEDGE, &body)?;
        match self.receive(sequence) {
            Ok((_, routes)) => Ok(routes.into_iter().next()),
            Err(error) => match error.kind() {
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Adds a route; `AlreadyExists` if there is one of this table, destination and priority.
    pub(super) fn add(&mut self, route: &Route) -> io::Result<()> {
        let flags = REQUEST | ACKNOWLEDGE | CREATE | EXCLUSIVE;
        let sequence = self.send(NEW_ROUTE, flags, &route.body(SCOPE_HOST))?;
        self.receive(sequence).map(drop)
    }

    /// Sets the loopback device up, as `ip link set lo up` does.
    pub(super) fn set_loopback_up(&mut self) -> io::Result<()> {
        // `struct ifinfomsg`: family, padding and type are left open; index, flags, and which flags change.
        let body = [0, LOOPBACK, UP, UP].map(u32::to_ne_bytes).concat();
        let sequence = self.send(NEW_LINK, REQUEST | ACKNOWLEDGE, &body)?;
        self.receive(sequence).map(drop)
    }

    /// Deletes the route with this table, destination, priority and protocol; `ESRCH` if there is none. Who may not
    /// hears that first.
    pub(super) fn delete(&mut self, route: &Route) -> io::Result<()> {
        let sequence = self.send(DELETE_ROUTE, REQUEST | ACKNOWLEDGE, &route.body(SCOPE_ANY))?;
        self.receive(sequence).map(drop)
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = message(kind, flags, self.sequence, body);
        send(&self.fd, &request, SendFlags::empty())?;
        Ok(self.sequence)
    }

    /// Everything up to the end of the answer: whether it is in pieces that do not fit, and the routes in it.
    fn receive(&mut self, wanted: u32) -> io::Result<(bool, Vec<Route>)> {
        let mut buffer = vec![0; BUFFER];
        let mut routes = Vec::new();
        let mut interrupted = false;
        loop {
            let (_, length) = recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC)?;
            let mut rest = buffer
                .get(..length)
                .ok_or_else(|| io::Error::other("an answer of the kernel does not fit"))?;
            while let Some((head, body, next)) = next_message(rest) {
                rest = next;
                if head.sequence != wanted {
                    continue;
                }
                interrupted |= head.flags & INTERRUPTED != 0;
                match head.kind {
                    DONE => return Ok((interrupted, routes)),
                    ERROR => return outcome(body).map(|()| (interrupted, routes)),
                    NEW_ROUTE => routes.extend(Route::parse(body)),
                    _ => {}
                }
            }
        }
    }
}

/// What an `NLMSG_ERROR` says: an acknowledgement is one with number 0.
fn outcome(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::other("an answer of the kernel is too short")),
    }
}

/// The part of `struct nlmsghdr` that matters.
struct Head {
    kind: u16,
    flags: u16,
    sequence: u32,
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    // The kernel fills in who sends.
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

/// The first message of some, and what follows it.
fn next_message(bytes: &[u8]) -> Option<(Head, &[u8], &[u8])> {
    let length = usize::try_from(number(bytes)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let head = Head {
        kind: short(bytes.get(4..)?)?,
        flags: short(bytes.get(6..)?)?,
        sequence: number(bytes.get(8..)?)?,
    };
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((head, body, next))
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The first attribute of some, and what follows it.
fn next_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(short(bytes)?);
    let kind = short(bytes.get(2..)?)? & ATTRIBUTE_KIND;
    let value = bytes.get(4..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, value, next))
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn short(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn family(addr: IpAddr) -> u8 {
    let family = match addr {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    u8::try_from(family.as_raw()).unwrap_or_default()
}

fn family_of(number: u8) -> Option<AddressFamily> {
    let family = AddressFamily::from_raw(u16::from(number));
    [AddressFamily::INET, AddressFamily::INET6]
        .contains(&family)
        .then_some(family)
}

fn bytes_of(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

fn addr_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_route(net: &str, source: Option<&str>) -> Route {
        let source = source.map(|text| text.parse().unwrap());
        Route::local(net.parse().unwrap(), 150, 0x0102_0304, source)
    }

    #[test]
    fn body_then_parse_gives_the_same_route() {
        for route in [
            some_route("10.96.0.0/12", Some("127.0.0.1")),
            some_route("203.0.113.7/32", None),
            some_route("fd00:96::/108", None),
        ] {
            assert_eq!(Route::parse(&route.body(SCOPE_HOST)), Some(route));
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn message_of_a_local_route_is_what_ip_route_sends() {
        // As `strace ip route add local 10.96.0.0/12 dev lo table local scope host proto 150 metric 7 src 127.0.0.1`
        // shows it, with the attributes in our order.
        let mut route = some_route("10.96.0.0/12", Some("127.0.0.1"));
        route.priority = 7;
        let sent = message(
            NEW_ROUTE,
            REQUEST | ACKNOWLEDGE | CREATE | EXCLUSIVE,
            1,
            &route.body(SCOPE_HOST),
        );
        let head = [60, 0, 0, 0, 24, 0, 5, 6, 1, 0, 0, 0, 0, 0, 0, 0];
        let body = [2, 12, 0, 0, 255, 150, 254, 2, 0, 0, 0, 0];
        let destination = [8, 0, 1, 0, 10, 96, 0, 0];
        let priority = [8, 0, 6, 0, 7, 0, 0, 0];
        let device = [8, 0, 4, 0, 1, 0, 0, 0];
        let source = [8, 0, 7, 0, 127, 0, 0, 1];
        let whole = [&head[..], &body, &destination, &priority, &device, &source].concat();
        assert_eq!(sent, whole);
    }

    #[test]
    fn next_message_cut_short_or_of_no_length_ends() {
        let one = message(NEW_ROUTE, 0, 9, &some_route("10.0.0.0/8", None).body(0));
        let two = [one.clone(), message(DONE, 0, 9, &[])].concat();
        let (head, body, rest) = next_message(&two).unwrap();
        assert_eq!((head.kind, head.sequence), (NEW_ROUTE, 9));
        assert!(Route::parse(body).is_some());
        assert_eq!(next_message(rest).unwrap().0.kind, DONE);
        for length in 0..one.len() {
            assert!(next_message(&one[..length]).is_none(), "{length}");
        }
        assert!(next_message(&[0; HEADER]).is_none());
    }

    #[test]
    fn parse_of_any_cut_or_damaged_body_never_panics() {
        let body = some_route("fd00:96::/108", Some("::1")).body(0);
        for length in 0..body.len() {
            let _ = Route::parse(&body[..length]);
        }
        for index in 0..body.len() {
            for value in [0, 1, 2, 4, 128, 255] {
                let mut damaged = body.clone();
                damaged[index] = value;
                let _ = Route::parse(&damaged);
            }
        }
    }

    #[test]
    fn parse_leaves_cached_copies_and_other_families_out() {
        let mut body = some_route("10.0.0.0/8", None).body(0);
        body[8..12].copy_from_slice(&CLONED.to_ne_bytes());
        assert_eq!(Route::parse(&body), None);
        let mut body = some_route("10.0.0.0/8", None).body(0);
        body[0] = 16;
        assert_eq!(Route::parse(&body), None);
    }

    #[test]
    fn outcome_tells_an_acknowledgement_from_an_error() {
        outcome(&[0; 20]).unwrap();
        let refused = outcome(&(-1_i32).to_ne_bytes()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        outcome(&[0]).unwrap_err();
    }

    #[test]
    fn routes_of_this_host_have_loopback_among_them() {
        let mut kernel = Netlink::open().unwrap();
        let loopback: IpAddr = [127, 0, 0, 1].into();
        let routes = kernel.routes().unwrap();
        let is_loopback = |route: &Route| route.is_local() && route.net.contains(&loopback);
        // A namespace whose `lo` is down has none.
        if routes.iter().any(is_loopback) {
            let way = kernel.route_to(loopback).unwrap().unwrap();
            assert!(
                way.delivers_here() && way.net.contains(&loopback),
                "{way:?}"
            );
            assert_eq!(way.device, Some(LOOPBACK));
        }
    }
}
