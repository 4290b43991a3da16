//! From a listener's key to a bound socket. Owns addresses, the order of fallback ports and the unique numbers of
//! sockets; must not remember anything else: which sockets exist is [`super::Listeners`]'.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use portico_core::{
    object::Protocol,
    snapshot::{
        Scope,
        filter::Filter,
        plan::{Bind, ListenerKey, Mode},
    },
};
use socket2::SockRef;

use super::{
    accept::Listening,
    guard::Guarding,
    opener::{Nobody, Opener},
    status::{BindError, BindErrorKind},
};
use crate::{
    inherit::{Inherited, InheritedKind},
    net::{self, Device, SharedFd, datagrams, liveness::Liveness},
    settings::DataSettings,
};

/// A fallback port is the declared one plus this, or the next free one after it.
const FALLBACK_OFFSET: u32 = 10_000;
/// How many fallback ports are tried.
const FALLBACK_CANDIDATES: u32 = 100;
/// Fallback ports below need a privilege on most hosts, so that a sum beyond 65535 goes on from here.
const FIRST_UNPRIVILEGED: u32 = 1024;

/// Who made a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Us,
    /// It is inherited, or was handed over by somebody in another network namespace.
    Another,
}

/// Makes sockets.
#[derive(Debug)]
pub(super) struct Binder {
    pub(super) backlog: u16,
    liveness: Liveness,
    inherited: Arc<Inherited>,
    /// For what is in another network namespace.
    pub(super) opener: Box<dyn Opener>,
    next_id: u64,
    /// What sockets drop, of those that are to drop something.
    filters: BTreeMap<ListenerKey, Arc<Filter>>,
    /// A filter could not be put on, and that was said.
    complained: bool,
    /// Each socket has one.
    shares: Arc<()>,
    /// Most sockets at a time.
    most: usize,
}

impl Binder {
    pub(super) fn new(settings: &DataSettings, inherited: Arc<Inherited>, most: usize) -> Self {
        Self {
            backlog: settings.backlog,
            liveness: settings.liveness(),
            inherited,
            opener: Box::new(Nobody),
            next_id: 0,
            filters: BTreeMap::new(),
            complained: false,
            shares: Arc::default(),
            most,
        }
    }

    /// Number of sockets that are open.
    pub(super) fn sockets(&self) -> usize {
        Arc::strong_count(&self.shares) - 1
    }

    /// Remembers what sockets for `key` drop from now on.
    pub(super) fn set_filter(&mut self, key: ListenerKey, filter: Option<&Arc<Filter>>) {
        match filter {
            Some(filter) => self.filters.insert(key, Arc::clone(filter)),
            None => self.filters.remove(&key),
        };
    }

    /// Brings the filter of `listening` in line with what is remembered. A failure is said once, whatever it concerns.
    pub(super) fn guard(&mut self, listening: &Listening) {
        let filter = self.filters.get(&listening.key).map(|filter| &**filter);
        let Err(reason) = listening.guarding.set(&listening.fd, filter) else {
            return;
        };
        if !self.complained {
            self.complained = true;
            tracing::warn!(
                listener = %listening.bound,
                reason = %reason,
                "clients that are to be dropped are accepted and reset instead"
            );
        }
    }

    /// A socket for `key` on `port`, listening unless `mode` says otherwise.
    pub(super) fn open(
        &mut self,
        key: ListenerKey,
        mode: Mode,
        port: u16,
    ) -> Result<Arc<Listening>, BindError> {
        let addr = SocketAddr::new(address_of(key.bind), port);
        if !key.protocol.is_forwarded() {
            return Err(BindError::unsupported(
                &addr,
                "only TCP and UDP are forwarded",
            ));
        }
        // Other scopes have what those of the host leave of its half.
        let most = if key.scope == Scope::HOST {
            self.most
        } else {
            self.most / 2
        };
        if self.sockets() >= most {
            return Err(BindError::exhausted(&addr, key.scope, most));
        }
        let device = if key.bind == Bind::AnyLoopback {
            Device::Loopback
        } else {
            Device::Any
        };
        let opened = match key.protocol {
            _ if key.scope != Scope::HOST => self.handed_over(key, addr),
            Protocol::Udp => datagrams::bind(addr, device).map(|fd| (fd, Maker::Us)),
            _ => self.socket(key.bind, addr, device),
        };
        let (fd, maker) = opened.map_err(|error| BindError::of_opening(key, &addr, &error))?;
        self.next_id += 1;
        let listening = Arc::new(Listening {
            id: self.next_id,
            key,
            bound: addr,
            fd,
            guarding: Guarding::default(),
            _share: Arc::clone(&self.shares),
        });
        if key.protocol == Protocol::Tcp {
            // Before the first client.
            self.guard(&listening);
            // Its connections take it over (tcp(7)), each without a call of its own. Delays small messages if it fails,
            // which is no reason to have no listener.
            let _ = SockRef::from(&listening.fd).set_tcp_nodelay(true);
            if device == Device::Any && !addr.ip().is_loopback() {
                // Fails on no socket of TCP; without it dead clients hold their connections for the idle time.
                let _ = self.liveness.watch(&SockRef::from(&listening.fd));
            }
            self.begin(&listening.fd, mode, maker)
                .map_err(|error| BindError::new(&addr, &error))?;
        }
        Ok(listening)
    }

    /// An inherited socket if there is one for `addr`, else one of our own.
    fn socket(
        &self,
        bind: Bind,
        addr: SocketAddr,
        device: Device,
    ) -> io::Result<(SharedFd, Maker)> {
        // One that hears IPv4 too is the listener of that family, which may listen while this one refuses.
        let inherited = if bind == Bind::AnyV6 && self.inherited.hears_both(addr) {
            None
        } else {
            self.inherited.adopt(InheritedKind::Tcp, addr)?
        };
        let Some(fd) = inherited else {
            return Ok((net::bind(addr, device)?, Maker::Us));
        };
        // Another process may have left its own.
        net::filter::detach(&fd);
        Ok((SharedFd::new(fd), Maker::Another))
    }

    /// A socket of another network namespace. Whoever opened it need not have told it what we need of it.
    fn handed_over(&mut self, key: ListenerKey, addr: SocketAddr) -> io::Result<(SharedFd, Maker)> {
        let fd = self.opener.open(key, addr)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        if key.protocol == Protocol::Udp {
            datagrams::fit(&SockRef::from(&fd), addr)?;
        }
        Ok((SharedFd::new(fd), Maker::Another))
    }

    fn begin(&self, fd: &SharedFd, mode: Mode, maker: Maker) -> io::Result<()> {
        match (mode, maker) {
            (Mode::Listening, _) => net::listen(fd, self.backlog)?,
            // It may have listened for whoever passed it on.
            (Mode::Refusing, Maker::Another) => net::refuse(fd)?,
            (Mode::Refusing, Maker::Us) => {}
        }
        Ok(())
    }

    /// Inherited sockets listen again, whatever their Services came to.
    pub(super) fn pass_on(&self) {
        self.inherited.resume(self.backlog);
    }

    /// A socket for `key` on the first free fallback port that `is_declared` leaves to it.
    pub(super) fn open_fallback(
        &mut self,
        key: ListenerKey,
        mode: Mode,
        is_declared: &dyn Fn(IpAddr, u16) -> bool,
    ) -> Option<Arc<Listening>> {
        let addr = address_of(key.bind);
        for port in fallback_ports(key.port).filter(|port| !is_declared(addr, *port)) {
            match self.open(key, mode, port) {
                Ok(listening) => return Some(listening),
                Err(BindError {
                    kind: BindErrorKind::InUse | BindErrorKind::Privilege,
                    ..
                }) => {}
                Err(_) => return None,
            }
        }
        None
    }
}

pub(super) const fn address_of(bind: Bind) -> IpAddr {
    bind.addr()
}

/// Whether sockets of both shapes cannot have one port number.
pub(super) fn overlap(a: Bind, b: Bind) -> bool {
    let (a, b) = (address_of(a), address_of(b));
    a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
}

fn fallback_ports(declared: u16) -> impl Iterator<Item = u16> {
    let ports = u32::from(u16::MAX) + 1 - FIRST_UNPRIVILEGED;
    let first = u32::from(declared) + FALLBACK_OFFSET;
    (first..first + FALLBACK_CANDIDATES)
        .map(move |port| {
            if port > u32::from(u16::MAX) {
                port - ports
            } else {
                port
            }
        })
        .filter_map(|port| u16::try_from(port).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_listener_gives_its_connections_no_delay() {
        let mut binder = Binder::new(&DataSettings::default(), Arc::default(), 1);
        let key = ListenerKey {
            scope: Scope::HOST,
            bind: Bind::Address([127, 0, 0, 1].into()),
            port: 80,
            protocol: Protocol::Tcp,
        };
        let listening = binder.open(key, Mode::Listening, 0).unwrap();
        let socket = SockRef::from(&listening.fd);
        socket.set_nonblocking(false).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let _client = std::net::TcpStream::connect(addr).unwrap();
        assert!(listening.accept().unwrap().0.nodelay().unwrap());
    }

    #[test]
    fn open_in_another_scope_leaves_half_of_the_sockets_to_the_host() {
        let mut binder = Binder::new(&DataSettings::default(), Arc::default(), 2);
        let key = |scope| ListenerKey {
            scope,
            bind: Bind::Address([127, 0, 0, 1].into()),
            port: 80,
            protocol: Protocol::Tcp,
        };
        let mut open = |scope| binder.open(key(scope), Mode::Refusing, 0);
        let kind = |error: BindError| error.kind;
        let nobody = open(Scope(1)).map_err(kind).unwrap_err();
        assert_eq!(nobody, BindErrorKind::Other, "it was asked for");
        let _first = open(Scope::HOST).unwrap();
        let beyond = open(Scope(1)).map_err(kind).unwrap_err();
        assert_eq!(beyond, BindErrorKind::Exhausted);
        open(Scope::HOST).unwrap();
    }

    #[test]
    fn fallback_ports_beyond_the_last_one_go_on_with_the_first_unprivileged_one() {
        assert_eq!(
            fallback_ports(80).take(2).collect::<Vec<_>>(),
            [10_080, 10_081]
        );
        assert_eq!(fallback_ports(80).count(), 100);
        assert_eq!(
            fallback_ports(55_535).take(2).collect::<Vec<_>>(),
            [65_535, 1024]
        );
        assert!(fallback_ports(65_535).all(|port| port >= 1024));
    }
}
