//! From a listener's key to a bound socket. Owns addresses, the order of fallback ports and the unique numbers of
//! sockets; must not remember anything else: which sockets exist is [`super::Listeners`]'.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use portico_core::{
    object::Protocol,
    snapshot::{
        Scope,
        plan::{Bind, ListenerKey, Mode},
    },
};

use super::{
    accept::Listening,
    status::{BindError, BindErrorKind},
};
use crate::{
    inherit::{Inherited, InheritedKind},
    net::{self, Device, SharedFd, datagrams},
};

/// A fallback port is the declared one plus this, or the next free one after it.
const FALLBACK_OFFSET: u32 = 10_000;
/// How many fallback ports are tried.
const FALLBACK_CANDIDATES: u32 = 100;
/// Fallback ports below need a privilege on most hosts, so that a sum beyond 65535 goes on from here.
const FIRST_UNPRIVILEGED: u32 = 1024;

/// Makes sockets.
#[derive(Debug)]
pub(super) struct Binder {
    pub(super) backlog: u16,
    inherited: Arc<Inherited>,
    next_id: u64,
}

impl Binder {
    pub(super) fn new(backlog: u16, inherited: Arc<Inherited>) -> Self {
        Self {
            backlog,
            inherited,
            next_id: 0,
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
        if key.scope != Scope::HOST {
            return Err(BindError::unsupported(
                &addr,
                "its network namespace is not open",
            ));
        }
        let device = if key.bind == Bind::AnyLoopback {
            Device::Loopback
        } else {
            Device::Any
        };
        let fd = match key.protocol {
            Protocol::Udp => datagrams::bind(addr, device),
            _ => self.socket(key.bind, addr, (device, mode)),
        };
        let fd = fd.map_err(|error| BindError::new(&addr, &error))?;
        self.next_id += 1;
        Ok(Arc::new(Listening {
            id: self.next_id,
            key,
            bound: addr,
            fd,
        }))
    }

    /// An inherited socket if there is one for `addr`, else one of our own.
    fn socket(
        &self,
        bind: Bind,
        addr: SocketAddr,
        (device, mode): (Device, Mode),
    ) -> io::Result<SharedFd> {
        // One that hears IPv4 too is the listener of that family, which may listen while this one refuses.
        let inherited = if bind == Bind::AnyV6 && self.inherited.hears_both(addr) {
            None
        } else {
            self.inherited.adopt(InheritedKind::Tcp, addr)?
        };
        let listens = inherited.is_some();
        let fd = match inherited {
            Some(fd) => SharedFd::new(fd),
            None => net::bind(addr, device)?,
        };
        match mode {
            Mode::Listening => net::listen(&fd, self.backlog)?,
            // It listened for whoever passed it on; one that does not says so, which is as good.
            Mode::Refusing if listens => net::refuse(&fd).unwrap_or_default(),
            Mode::Refusing => {}
        }
        Ok(fd)
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
