//! Local routes: what makes addresses that no interface has addresses of this host. Owns which routes are ours, that
//! they go when we go, and that nothing of anybody else is taken over. What the addresses are for is not known here.
//!
//! A route of type `local` on `lo` (ip-route(8)) lets sockets be bound to every address of its range, and delivers
//! packets for the range here, also those of other hosts that send them this way.
//!
//! **Source.** Of a local IPv4 route without preferred source the kernel takes the destination for the source: a client
//! on this host would reach 10.96.0.5 as 10.96.0.5, and a connection to a VIP where nobody listens, made from a port
//! with the number of the VIP's, would meet itself (simultaneous open, RFC 9293, 3.5) instead of being refused. So ours
//! carry 127.0.0.1. An address of an interface would do as long as it is there: when the network changes, the route
//! stays with a source that this host has no longer, and every connection fails with "network is unreachable". For
//! IPv6, where a range of a local route is no candidate for a source (RFC 6724, section 4), the kernel chooses an
//! address that the host has at that moment, and a preferred one could only be wrong.
//!
//! **Ownership.** Routes carry [`PROTOCOL`], and as metric the number of their instance. So whoever looks knows whose
//! they are without any record that could be lost, and what a killed run left is found by the next one.

mod netlink;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use ipnet::IpNet;
use netlink::{Netlink, Route};
use rustix::io::Errno;
use xxhash_rust::xxh3::xxh3_64;

/// `rtm_protocol` of our routes: a number that neither the kernel nor `rt_protos` of iproute2 gives to anybody.
pub const PROTOCOL: u8 = 150;

/// Routes with a shorter prefix than this say where everything goes that has no route (`0.0.0.0/0`, or the two halves
/// that VPN clients lay over it): they are no claim to an address.
const SHORTEST_CLAIM: u8 = 2;

/// Why addresses are not local.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The kernel wants a privilege.
    #[error("{0} is not local to this host, and to make it so needs CAP_NET_ADMIN")]
    Privilege(IpNet),
    /// Somebody has some of the addresses.
    #[error("{range} is in use on this host: {found}")]
    Taken {
        /// What was wanted.
        range: IpNet,
        /// The route in the way.
        found: String,
    },
    /// A process with the same number serves in this network namespace.
    #[error("the routes of this instance belong to another process that runs")]
    Running,
    /// The kernel did not do it.
    #[error("cannot {action} {range}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// For which addresses.
        range: IpNet,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel's routes cannot be read.
    #[error("cannot ask the kernel for its routes")]
    Unknown(#[source] io::Error),
}

impl RouteError {
    /// What to do about it, for `program` as started by the user.
    pub fn fix(&self, program: &str) -> Option<String> {
        match self {
            Self::Privilege(_) => Some(format!(
                "sudo setcap cap_net_admin,cap_net_bind_service+ep {program}; or leave ranges at their defaults in \
                 127/8, which need nothing; or try it in a network namespace: unshare -rn, there first: ip link set lo up"
            )),
            Self::Taken { .. } => Some("choose a range that nothing on this host uses".to_owned()),
            Self::Running => {
                Some("end it, or give this one a name with --instance NAME".to_owned())
            }
            // With the second one the kernel says that 127.0.0.1 is no address of this host.
            Self::Kernel { source, .. }
                if [Errno::NETDOWN, Errno::INVAL]
                    .map(|errno| Some(errno.raw_os_error()))
                    .contains(&source.raw_os_error()) =>
            {
                Some("sudo ip link set lo up, if it is down".to_owned())
            }
            Self::Kernel { .. } | Self::Unknown(_) => None,
        }
    }
}

/// The local routes of this instance; they go with this value.
#[derive(Debug)]
pub struct Routes {
    /// `None` where the system has no netlink: then there is nothing of ours either.
    kernel: Option<Netlink>,
    /// Metric of all our routes.
    owner: u32,
    /// That nobody else has our number, from the first change on.
    claim: Option<UnixDatagram>,
    /// What we have made local.
    ours: BTreeSet<IpNet>,
    /// Where single addresses may be made local.
    allowed: Vec<IpNet>,
    /// Single addresses that are wanted and could not be had.
    missing: BTreeSet<IpAddr>,
}

impl Routes {
    /// Looks for routes of the instance `identity` (the same for every run of it, and for no other one), and removes
    /// those that a killed run left. Changes nothing else, and fails nothing.
    pub fn open(identity: &str) -> Self {
        let kernel = Netlink::open()
            .inspect_err(|error| tracing::debug!(%error, "no access to routes"))
            .ok();
        let mut routes = Self {
            kernel,
            owner: number_of(identity),
            claim: None,
            ours: BTreeSet::new(),
            allowed: Vec::new(),
            missing: BTreeSet::new(),
        };
        routes.mend();
        routes
    }

    fn mend(&mut self) {
        let Ok(all) = self.all() else { return };
        let left: Vec<IpNet> = all
            .iter()
            .filter(|route| self.is_ours(route))
            .map(|route| route.net)
            .collect();
        // Who has the number runs, and these are not left over.
        if left.is_empty() || self.claim().is_err() {
            return;
        }
        self.ours.extend(&left);
        for range in left {
            match self.delete(range) {
                Ok(()) => tracing::info!(%range, "removed a route that a former run left"),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(%range, error, "a route that a former run left stays");
                }
            }
        }
    }

    /// Makes `ranges` local as far as they are not; returns those that were not.
    ///
    /// # Errors
    /// A privilege is missing, or somebody else has some of the addresses. What was added goes with this value.
    pub fn make_local(&mut self, ranges: &[IpNet]) -> Result<Vec<IpNet>, RouteError> {
        let mut added = Vec::new();
        for range in ranges.iter().map(IpNet::trunc) {
            // 127/8 always is, also where routes cannot be read.
            let loopback = range.addr().is_loopback() && range.prefix_len() >= 8;
            if loopback || self.ours.contains(&range) {
                continue;
            }
            let all = self.all().map_err(RouteError::Unknown)?;
            match standing(range, &all, |route| self.is_ours(route)) {
                Standing::Local => continue,
                Standing::Free => {}
                Standing::Taken(route) => {
                    let found = describe(route);
                    return Err(RouteError::Taken { range, found });
                }
            }
            self.add(range)?;
            tracing::info!(%range, "made local by a route");
            added.push(range);
        }
        Ok(added)
    }

    /// Lets [`Self::attach`] make addresses of these ranges local.
    ///
    /// # Errors
    /// A privilege is missing, which is better said now than with the first Service.
    pub fn allow(&mut self, ranges: &[IpNet]) -> Result<(), RouteError> {
        let Some(first) = ranges.first().map(|range| IpNet::from(range.addr())) else {
            return Ok(());
        };
        self.claim()?;
        // Deletes nothing: what a former run left is gone. The kernel asks for the privilege before it looks.
        self.delete(first)?;
        self.allowed = ranges.to_vec();
        Ok(())
    }

    /// Makes one address local if it is allowed and is not; returns whether it did.
    ///
    /// # Errors
    /// The address has a route of its own that leads elsewhere, or the kernel refuses; [`Self::retry`] tries again.
    pub fn attach(&mut self, addr: IpAddr) -> Result<bool, RouteError> {
        let done = self.try_attach(addr);
        if done.is_err() {
            self.missing.insert(addr);
        }
        done
    }

    /// Tries again what [`Self::attach`] could not do; returns the addresses that are local now.
    pub fn retry(&mut self) -> Vec<IpAddr> {
        let mut attached = Vec::new();
        for addr in std::mem::take(&mut self.missing) {
            if self.attach(addr).is_ok() {
                attached.push(addr);
            }
        }
        attached
    }

    fn try_attach(&mut self, addr: IpAddr) -> Result<bool, RouteError> {
        let range = IpNet::from(addr);
        let allowed = self.allowed.iter().any(|allowed| allowed.contains(&addr));
        if !allowed || self.ours.contains(&range) {
            return Ok(false);
        }
        let kernel = self.kernel.as_mut().ok_or_else(unsupported)?;
        let way = kernel.route_to(addr).map_err(RouteError::Unknown)?;
        if let Some(way) = way {
            // Another instance's goes with that one: ours beside it stays.
            let goes = way.protocol == PROTOCOL && way.net == range;
            if way.delivers_here() && !goes {
                return Ok(false);
            }
            // A network that the address is in is what the ranges were allowed for; its own route is somebody's will.
            if way.net == range && !goes {
                let found = describe(&way);
                return Err(RouteError::Taken { range, found });
            }
        }
        self.add(range)?;
        Ok(true)
    }

    /// Takes back what [`Self::attach`] did; returns whether it had done something.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach(&mut self, addr: IpAddr) -> Result<bool, RouteError> {
        self.missing.remove(&addr);
        let range = IpNet::from(addr);
        let attached = self.ours.contains(&range);
        if attached {
            self.delete(range)?;
        }
        Ok(attached)
    }

    /// Our number can be had once at a time in a network namespace (unix(7), abstract sockets), as its routes can.
    fn claim(&mut self) -> Result<(), RouteError> {
        if self.claim.is_some() {
            return Ok(());
        }
        let name = SocketAddr::from_abstract_name(format!("portico/routes/{}", self.owner));
        match name.and_then(|name| UnixDatagram::bind_addr(&name)) {
            Ok(claim) => self.claim = Some(claim),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(RouteError::Running);
            }
            Err(error) => return Err(RouteError::Unknown(error)),
        }
        Ok(())
    }

    fn add(&mut self, range: IpNet) -> Result<(), RouteError> {
        self.claim()?;
        let route = self.route(range);
        let kernel = self.kernel.as_mut().ok_or_else(unsupported)?;
        kernel
            .add(&route)
            .map_err(refused("add a local route for", range))?;
        self.ours.insert(range);
        Ok(())
    }

    fn delete(&mut self, range: IpNet) -> Result<(), RouteError> {
        let route = self.route(range);
        let kernel = self.kernel.as_mut().ok_or_else(unsupported)?;
        match kernel.delete(&route) {
            // Somebody was faster.
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            done => done.map_err(refused("delete the local route for", range))?,
        }
        self.ours.remove(&range);
        Ok(())
    }

    fn route(&self, range: IpNet) -> Route {
        let source = range.addr().is_ipv4();
        let source = source.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Route::local(range, PROTOCOL, self.owner, source)
    }

    fn is_ours(&self, route: &Route) -> bool {
        route.is_local() && route.protocol == PROTOCOL && route.priority == self.owner
    }

    fn all(&mut self) -> io::Result<Vec<Route>> {
        match &mut self.kernel {
            Some(kernel) => kernel.routes(),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        for range in self.ours.clone() {
            if let Err(error) = self.delete(range) {
                tracing::warn!(%range, error = chain(&error), "a local route stays");
            }
        }
    }
}

/// Sets the loopback device up: that of a new network namespace is down.
///
/// # Errors
/// `CAP_NET_ADMIN` is missing.
pub(crate) fn set_loopback_up() -> io::Result<()> {
    Netlink::open()?.set_loopback_up()
}

/// How a range relates to the routes that there are.
#[derive(Debug, PartialEq, Eq)]
enum Standing<'a> {
    /// All of it is local already.
    Local,
    /// Nobody has anything of it.
    Free,
    /// This route has some of it.
    Taken(&'a Route),
}

fn standing(range: IpNet, routes: &[Route], is_ours: impl Fn(&Route) -> bool) -> Standing<'_> {
    let is_portico = |route: &Route| route.protocol == PROTOCOL;
    let mut others = routes.iter().filter(|route| !is_ours(route));
    if others
        .clone()
        .any(|route| route.is_local() && !is_portico(route) && route.net.contains(&range))
    {
        return Standing::Local;
    }
    let overlaps = |route: &&Route| {
        let (a, b) = (&route.net, &range);
        route.net.prefix_len() >= SHORTEST_CLAIM && (a.contains(b) || b.contains(a))
    };
    others
        .find(overlaps)
        .map_or(Standing::Free, Standing::Taken)
}

/// A route that a portico left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// It, as ip-route(8) has it.
    pub text: String,
    /// What removes it.
    pub fix: String,
}

/// Routes of instances that no longer run; changes nothing.
pub fn left() -> Vec<Left> {
    let all = Netlink::open().and_then(|mut kernel| kernel.routes());
    let all = all.unwrap_or_default().into_iter();
    let left =
        all.filter(|route| route.is_local() && route.protocol == PROTOCOL && !is_held(route));
    left.map(|route| Left {
        text: named(&route),
        fix: removal(&route),
    })
    .collect()
}

/// A route in words, with how to be rid of one that nobody looks after any more.
fn describe(route: &Route) -> String {
    let text = named(route);
    if route.protocol != PROTOCOL {
        return text;
    }
    if is_held(route) {
        return format!("{text}, a route of another instance of portico that runs");
    }
    format!(
        "{text}, left by another instance of portico that was killed: its next start removes it, or: {}",
        removal(route)
    )
}

fn named(route: &Route) -> String {
    let device = route.device.map(device_name);
    let device = device.map_or(String::new(), |name| format!(" dev {name}"));
    let kind = if route.is_local() { "local " } else { "" };
    format!("{kind}{}{device}", route.net)
}

/// Whether the instance runs that has this number.
fn is_held(route: &Route) -> bool {
    let name = SocketAddr::from_abstract_name(format!("portico/routes/{}", route.priority));
    name.and_then(|name| UnixDatagram::bind_addr(&name))
        .is_err()
}

fn removal(route: &Route) -> String {
    format!(
        "sudo ip route del {} table local proto {PROTOCOL} metric {}",
        named(route),
        route.priority
    )
}

/// The same in every run and version. 0 would be no metric.
fn number_of(identity: &str) -> u32 {
    let low = xxh3_64(identity.as_bytes()) & u64::from(u32::MAX);
    u32::try_from(low).unwrap_or_default().max(1)
}

fn device_name(index: u32) -> String {
    let socket = UnixDatagram::unbound().ok();
    let name = socket.and_then(|socket| rustix::net::netdevice::index_to_name(&socket, index).ok());
    name.unwrap_or_else(|| format!("number {index}"))
}

fn refused(action: &'static str, range: IpNet) -> impl FnOnce(io::Error) -> RouteError {
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => RouteError::Privilege(range),
        _ => RouteError::Kernel {
            action,
            range,
            source,
        },
    }
}

fn unsupported() -> RouteError {
    RouteError::Unknown(io::ErrorKind::Unsupported.into())
}

fn chain(error: &RouteError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
