//! Which sockets can be had. Owns binding them for a moment, and asking who is in the way.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::{Attempt, Failure, Missing, Services};
use crate::control::{
    holder::{self, Holder},
    status::{ListenerReport, ServiceStatus, Status},
};

/// Ports whose holder is looked up: each look-up reads all of `/proc`.
const MOST_HOLDERS: usize = 16;
/// Patience with a connection from here to here.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// How much higher a port is served that cannot be had.
const FALLBACK_OFFSET: u16 = 10_000;

/// Tries one socket, and who is in its way.
pub(super) fn attempt(protocol: &'static str, addr: SocketAddr) -> Attempt {
    let failure = try_bind(protocol, addr).err().map(|error| {
        let holder = holder_of(protocol, addr, &error);
        failure(&error, addr, holder.as_ref())
    });
    Attempt {
        protocol,
        addr,
        failure,
    }
}

/// Connects to a listener of our own at `addr`, on any port: an address of a device that is down can be bound.
pub(super) fn connect(addr: IpAddr) -> Attempt {
    let tried = TcpListener::bind((addr, 0)).and_then(|listener| {
        TcpStream::connect_timeout(&listener.local_addr()?, CONNECT_PATIENCE).map(drop)
    });
    let addr = SocketAddr::new(addr, 0);
    let failure = tried.err().map(|error| Failure {
        fix: match error.kind() {
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => {
                holder::fix_for(io::ErrorKind::AddrNotAvailable, addr, None)
            }
            // A packet filter, most likely: whose, cannot be told.
            _ => String::new(),
        },
        ..failure(&error, addr, None)
    });
    Attempt {
        protocol: "TCP",
        addr,
        failure,
    }
}

/// The first that nobody holds, else the last.
pub(super) fn first_not_held<const N: usize>(attempts: [Attempt; N]) -> Attempt {
    let is_held = |attempt: &Attempt| {
        let failure = attempt.failure.as_ref();
        failure.is_some_and(|failure| failure.kind == io::ErrorKind::AddrInUse)
    };
    let (held, free): (Vec<_>, Vec<_>) = attempts.into_iter().partition(is_held);
    let mut all = free.into_iter().chain(held);
    #[expect(
        clippy::expect_used,
        reason = "N is not 0: an array of ports that are named"
    )]
    all.next().expect("there is a port to try")
}

/// Bound as the program would bind it, but that it does not listen: nobody can connect.
fn try_bind(protocol: &str, addr: SocketAddr) -> io::Result<()> {
    let family = if addr.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let kind = if protocol == "UDP" {
        SocketType::DGRAM
    } else {
        SocketType::STREAM
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if kind == SocketType::STREAM {
        // Connections that ended a moment ago are in nobody's way (TIME_WAIT).
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if !addr.is_ipv4() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(bind(&socket, &addr)?)
}

fn holder_of(protocol: &str, addr: SocketAddr, error: &io::Error) -> Option<Holder> {
    if error.kind() != io::ErrorKind::AddrInUse {
        return None;
    }
    match protocol {
        "UDP" => holder::udp_holder_of(addr),
        _ => holder::holder_of(addr),
    }
}

fn failure(error: &io::Error, addr: SocketAddr, holder: Option<&Holder>) -> Failure {
    Failure {
        kind: error.kind(),
        text: error.to_string(),
        fix: holder::fix_for(error.kind(), addr, holder),
        holder: holder.map(ToString::to_string),
    }
}

/// Ports with a wildcard listener, and who has each.
pub(super) fn wildcards() -> Vec<(u16, String)> {
    let listeners = holder::wildcard_listeners(MOST_HOLDERS).into_iter();
    let who = |holder: Holder| match (holder.command, holder.pid) {
        (Some(command), _) => command,
        (None, Some(pid)) => format!("pid {pid}"),
        (None, None) => format!("uid {}", holder.uid),
    };
    listeners
        .map(|holder| (holder.local.port(), who(holder)))
        .collect()
}

/// The sockets of what is declared, else of what runs.
pub(super) fn services(declared: Option<&[ServiceStatus]>, running: Option<&Status>) -> Services {
    match (declared, running) {
        (Some(services), _) => of_declared(services, running.map(|status| status.pid)),
        (None, Some(status)) => {
            let reports = status.listeners.iter();
            let missing = reports.filter(|report| matches!(&*report.state, "fallback" | "failed"));
            Services::Running {
                missing: missing.map(reported).collect(),
                all: status.listener_count,
            }
        }
        (None, None) => Services::Unknown,
    }
}

fn reported(report: &ListenerReport) -> Missing {
    Missing {
        addr: report.declared,
        service: report.services.clone(),
        why: report.reason.clone().unwrap_or_default(),
        holder: report.holder.clone(),
        instead: report.bound,
        fix: report.fix.clone().unwrap_or_default(),
    }
}

fn of_declared(services: &[ServiceStatus], ours: Option<u32>) -> Services {
    let mut wanted: BTreeMap<(SocketAddr, &'static str), String> = BTreeMap::new();
    for service in services {
        for port in &service.ports {
            let protocol = match &*port.protocol {
                "TCP" => "TCP",
                "UDP" => "UDP",
                _ => continue,
            };
            for place in &port.reachable {
                let name = format!("{}/{}", service.namespace, service.name);
                wanted.entry((place.declared, protocol)).or_insert(name);
            }
        }
    }
    let mut missing = Vec::new();
    let mut holders = 0;
    for ((addr, protocol), service) in &wanted {
        let Err(error) = try_bind(protocol, *addr) else {
            continue;
        };
        let is_held = error.kind() == io::ErrorKind::AddrInUse;
        let holder =
            (is_held && holders < MOST_HOLDERS).then(|| holder_of(protocol, *addr, &error));
        holders += usize::from(holder.is_some());
        let holder = holder.flatten();
        let is_ours = |holder: &Holder| ours.is_some() && holder.pid == ours;
        if holder.as_ref().is_some_and(is_ours) {
            continue;
        }
        missing.push(absent(
            *addr,
            service.clone(),
            failure(&error, *addr, holder.as_ref()),
        ));
    }
    Services::Declared {
        missing,
        all: wanted.len(),
    }
}

fn absent(addr: SocketAddr, service: String, failure: Failure) -> Missing {
    let has_stand_in = matches!(
        failure.kind,
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    );
    let port = addr.port().checked_add(FALLBACK_OFFSET);
    Missing {
        addr,
        service,
        why: failure.text,
        holder: failure.holder,
        instead: port
            .filter(|_| has_stand_in)
            .map(|port| SocketAddr::new(addr.ip(), port)),
        fix: failure.fix,
    }
}
