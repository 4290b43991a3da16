//! Who holds a port that we could not bind, and what to type about it. Owns the reading of /proc (proc(5)); must not
//! touch a socket or another process.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// The socket that stands in the way, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process; `None` when it belongs to another user or another pid namespace.
    pub pid: Option<u32>,
    /// The process's name.
    pub command: Option<String>,
    /// The socket's user.
    pub uid: u32,
    /// The address that it is bound to.
    pub local: SocketAddr,
}

impl fmt::Display for Holder {
    /// `held by python3 (pid 4242) on 0.0.0.0:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.command, self.pid) {
            (Some(command), Some(pid)) => write!(f, "held by {command} (pid {pid})")?,
            (None, Some(pid)) => write!(f, "held by pid {pid}")?,
            (_, None) => write!(f, "held by a process of uid {}", self.uid)?,
        }
        write!(f, " on {}", self.local)
    }
}

/// The listener that keeps TCP from being bound to `addr`. Reads every process's descriptors: for error reports, not
/// for the data path.
pub fn holder_of(addr: SocketAddr) -> Option<Holder> {
    find(addr, &TCP_TABLES)
}

/// The socket that keeps UDP from being bound to `addr`.
pub fn udp_holder_of(addr: SocketAddr) -> Option<Holder> {
    find(
        addr,
        &[
            ("/proc/thread-self/net/udp", UDP_UNCONNECTED),
            ("/proc/thread-self/net/udp6", UDP_UNCONNECTED),
        ],
    )
}

/// TCP listeners on wildcard addresses, one a port, which keep their port from being bound to any other address; no more
/// than `most`.
pub fn wildcard_listeners(most: usize) -> Vec<Holder> {
    let mut sockets = sockets(&TCP_TABLES);
    sockets.retain(|socket| socket.local.ip().is_unspecified());
    sockets.sort_by_key(|socket| socket.local.port());
    sockets.dedup_by_key(|socket| socket.local.port());
    sockets.iter().take(most).map(held).collect()
}

/// What to type so that `addr` can be bound after `error`; empty when nothing is known to help.
pub fn fix_for(error: io::ErrorKind, addr: SocketAddr, holder: Option<&Holder>) -> String {
    let program =
        std::env::current_exe().map_or("portico".to_owned(), |path| path.display().to_string());
    match error {
        io::ErrorKind::PermissionDenied => format!(
            "sudo sysctl net.ipv4.ip_unprivileged_port_start={} (or: sudo setcap cap_net_bind_service=+ep {program})",
            // DNS has 53: what is typed for one port does not take it from another.
            addr.port().min(53)
        ),
        io::ErrorKind::AddrInUse => fix_in_use(addr, holder),
        io::ErrorKind::AddrNotAvailable if addr.ip().is_loopback() => {
            "sudo ip link set lo up".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            let addr = addr.ip();
            let bits = if addr.is_ipv4() { 32 } else { 128 };
            format!(
                "sudo ip address add {addr} dev lo (or, with CAP_NET_ADMIN: --external-ip-cidr {addr}/{bits})"
            )
        }
        _ => String::new(),
    }
}

fn fix_in_use(addr: SocketAddr, holder: Option<&Holder>) -> String {
    let Some(holder) = holder else {
        return format!(
            "find the holder with: sudo ss -lptn 'sport = :{}'",
            addr.port()
        );
    };
    let stop = match holder.pid {
        Some(pid) => format!("stop it (kill {pid})"),
        None => format!(
            "stop it (sudo ss -lptn 'sport = :{}' names it)",
            addr.port()
        ),
    };
    if holder.local.ip().is_unspecified() && !addr.ip().is_unspecified() {
        let loopback: IpAddr = if addr.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        };
        format!(
            "{stop}, or bind it to {loopback} instead of {}: on Linux a wildcard listener on a port blocks that port \
             on every other address",
            holder.local.ip()
        )
    } else {
        stop
    }
}

/// States in `/proc/net/tcp` and `udp` (`TCP_LISTEN` and `TCP_CLOSE` of the kernel's `tcp_states.h`).
const TCP_LISTEN: &str = "0A";
const UDP_UNCONNECTED: &str = "07";

/// Listeners of TCP.
const TCP_TABLES: [(&str, &str); 2] = [
    ("/proc/thread-self/net/tcp", TCP_LISTEN),
    ("/proc/thread-self/net/tcp6", TCP_LISTEN),
];

/// One line of `/proc/net/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    uid: u32,
    inode: u64,
}

fn find(addr: SocketAddr, tables: &[(&str, &str)]) -> Option<Holder> {
    blocking(&sockets(tables), addr).map(held)
}

fn sockets(tables: &[(&str, &str)]) -> Vec<Socket> {
    tables
        .iter()
        .filter_map(|(path, state)| Some(parse(&fs::read_to_string(path).ok()?, state)))
        .flatten()
        .collect()
}

fn held(socket: &Socket) -> Holder {
    let process = process_of(Path::new("/proc"), socket);
    let (pid, command) = process.map_or((None, None), |(pid, command)| (Some(pid), command));
    Holder {
        pid,
        command,
        uid: socket.uid,
        local: socket.local,
    }
}

/// Sockets in `state` in the text of `/proc/net/tcp`, `tcp6`, `udp` or `udp6`. Lines that do not parse are left out.
fn parse(text: &str, state: &str) -> Vec<Socket> {
    text.lines()
        .skip(1)
        .filter_map(|line| parse_line(line, state))
        .collect()
}

fn parse_line(line: &str, state: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace();
    let local = parse_addr(fields.nth(1)?)?;
    if fields.nth(1)? != state {
        return None;
    }
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Socket { local, uid, inode })
}

/// `0100007F:0050`: words of 32 bits as the processor holds them, then the port.
fn parse_addr(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |from: usize| {
        u32::from_str_radix(ip.get(from..from + 8)?, 16)
            .ok()
            .map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            IpAddr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The socket that most likely keeps `addr` from being bound: one on the very address, else a wildcard of its family,
/// else one of the other family (`::` blocks IPv4 too, unless it is for IPv6 only, which the table does not tell).
fn blocking(sockets: &[Socket], addr: SocketAddr) -> Option<&Socket> {
    let ip = addr.ip().to_canonical();
    let rank = |socket: &Socket| {
        let local = socket.local.ip();
        let is_same_family = local.is_ipv4() == ip.is_ipv4();
        if local == ip {
            Some(0)
        } else if is_same_family && (local.is_unspecified() || ip.is_unspecified()) {
            Some(1)
        } else if local == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            || ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        {
            Some(2)
        } else {
            None
        }
    };
    sockets
        .iter()
        .filter(|socket| socket.local.port() == addr.port())
        .filter_map(|socket| Some((rank(socket)?, socket)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, socket)| socket)
}

/// The process with a descriptor of the socket, and its name. Processes of the socket's user come first: a parent
/// may have passed it on to them.
fn process_of(proc: &Path, socket: &Socket) -> Option<(u32, Option<String>)> {
    let wanted = format!("socket:[{}]", socket.inode);
    let mut pids: Vec<(bool, u32)> = fs::read_dir(proc)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((entry.metadata().ok()?.uid() != socket.uid, pid))
        })
        .collect();
    pids.sort_unstable();
    let (_, pid) = pids
        .into_iter()
        .find(|(_, pid)| has_descriptor(&proc.join(pid.to_string()), &wanted))?;
    let command = fs::read_to_string(proc.join(pid.to_string()).join("comm")).ok();
    Some((pid, command.map(|command| command.trim_end().to_owned())))
}

fn has_descriptor(process: &Path, wanted: &str) -> bool {
    // Other users' descriptors cannot be read: EACCES.
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == wanted)
    })
}

#[cfg(test)]
mod tests;
