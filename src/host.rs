//! The host's own addresses and what it is. Owns reading them: addresses from the kernel's tables in `/proc`
//! (proc(5)), of which a host without them simply has none, names from uname(2) and os-release(5).

mod near;
pub mod routes;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
pub use near::listen_near;
use portico_core::snapshot::NodePortAddresses;

/// Addresses that sockets of this network namespace can be bound to, sorted; 127/8 counts as 127.0.0.1 only.
pub fn addresses() -> Vec<IpAddr> {
    let v4 = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let all: BTreeSet<IpAddr> = local_v4(&v4)
        .into_iter()
        .map(IpAddr::V4)
        .chain(local_v6(&v6).into_iter().map(IpAddr::V6))
        .collect();
    all.into_iter().collect()
}

/// Addresses of `host` that node ports are served on, given `--nodeport-addresses`.
pub fn node_port_addresses(wanted: &[IpNet], host: &[IpAddr]) -> NodePortAddresses {
    let everything = |net: &IpNet| net.prefix_len() == 0;
    if wanted.is_empty() || wanted.iter().any(everything) {
        return NodePortAddresses::All;
    }
    let chosen = host
        .iter()
        .filter(|addr| wanted.iter().any(|net| net.contains(*addr)));
    NodePortAddresses::Listed(chosen.copied().collect())
}

/// Why nothing is served on node ports over IPv6, given the addresses of this host.
pub fn no_ipv6(host: &[IpAddr]) -> Option<String> {
    let text = "this host has no IPv6 address: node ports are served over IPv4 only\n  fix: sudo sysctl -w \
                net.ipv6.conf.all.disable_ipv6=0";
    (!host.iter().any(IpAddr::is_ipv6)).then(|| text.to_owned())
}

/// Why node ports may be taken by outgoing connections of this host, and what to do about it: the kernel gives
/// those any port of `ip_local_port_range` that is not in `ip_local_reserved_ports` (ip(7)).
pub fn ephemeral_clash((first, last): (u16, u16)) -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let range = read("ip_local_port_range")?;
    let reserved = read("ip_local_reserved_ports").unwrap_or_default();
    clash((first, last), &range, &reserved)
}

/// The same from the texts of both files.
pub(crate) fn clash((first, last): (u16, u16), range: &str, reserved: &str) -> Option<String> {
    let mut ends = range.split_whitespace().map(str::parse::<u16>);
    let (low, high) = (ends.next()?.ok()?, ends.next()?.ok()?);
    let (low, high) = (low.max(first), high.min(last));
    let reserved: Vec<(u16, u16)> = reserved.trim().split(',').filter_map(port_range).collect();
    let is_reserved = |port: &u16| {
        reserved
            .iter()
            .any(|(first, last)| (first..=last).contains(&port))
    };
    (low..=high).find(|port| !is_reserved(port))?;
    let kept: Vec<String> = reserved
        .iter()
        .map(|(first, last)| format!("{first}-{last}"))
        .chain([format!("{low}-{high}")])
        .collect();
    let kept = kept.join(",");
    Some(format!(
        "node ports {low}-{high} are also given to outgoing connections of this host (net.ipv4.ip_local_port_range): one \
         may be taken when it is wanted\n  fix: sudo sysctl -w net.ipv4.ip_local_reserved_ports={kept}"
    ))
}

/// `80` or `80-90`.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

/// What runs this program, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the distribution, else of the kernel.
    pub name: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// Memory in KiB, where the kernel tells (`/proc/meminfo`).
    pub memory_kib: Option<u64>,
}

/// What runs this program, as uname(2) and os-release(5) have it.
pub fn system() -> System {
    let uname = rustix::system::uname();
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .into_iter()
        .find_map(|file| std::fs::read_to_string(file).ok());
    let name = text.as_deref().and_then(pretty_name);
    System {
        kernel: uname.release().to_string_lossy().into_owned(),
        name: name.unwrap_or_else(|| uname.sysname().to_string_lossy().into_owned()),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory_kib: std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| total_kib(&text)),
    }
}

/// The number in `MemTotal: 1234 kB`.
fn total_kib(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The value of `PRETTY_NAME`, without quotes.
fn pretty_name(os_release: &str) -> Option<String> {
    let mut lines = os_release.lines();
    let value = lines.find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty())
}

/// `/32 host LOCAL` leaves of the trie: each follows a `|-- ADDRESS` line.
fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut leaf: Option<Ipv4Addr> = None;
    let mut found = Vec::new();
    for line in trie.lines().map(str::trim) {
        if let Some(addr) = line.strip_prefix("|-- ") {
            leaf = addr.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(leaf.take());
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// First column: 32 hexadecimal digits. Link-local addresses need a scope to be bound and are left out.
fn local_v6(table: &str) -> Vec<Ipv6Addr> {
    let first = |line: &str| {
        line.split_whitespace()
            .next()
            .and_then(|hex| u128::from_str_radix(hex, 16).ok())
    };
    table
        .lines()
        .filter_map(first)
        .map(Ipv6Addr::from)
        .filter(|addr| !addr.is_unicast_link_local())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIE: &str = "\
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.0.0.5
        /32 host LOCAL
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
";

    #[test]
    fn local_v4_takes_host_leaves_only() {
        assert_eq!(
            local_v4(TRIE),
            [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::LOCALHOST]
        );
    }

    #[test]
    fn clash_of_node_ports_with_the_ephemeral_range_names_the_fix() {
        let nodes = (30_000, 32_767);
        assert_eq!(clash(nodes, "32768\t60999\n", "\n"), None);
        let said = clash(nodes, "1024\t60999\n", "\n").unwrap();
        assert!(
            said.ends_with("ip_local_reserved_ports=30000-32767"),
            "{said}"
        );
        let said = clash(nodes, "32000 60999", "8080,9148-9150").unwrap();
        assert!(
            said.ends_with("ip_local_reserved_ports=8080-8080,9148-9150,32000-32767"),
            "{said}"
        );
        assert_eq!(clash(nodes, "1024 60999", "30000-31999,32000-32767"), None);
        assert_eq!(clash(nodes, "", ""), None);
    }

    #[test]
    fn pretty_name_is_taken_without_quotes() {
        let text = "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13\"\n";
        assert_eq!(pretty_name(text).as_deref(), Some("Debian GNU/Linux 13"));
        assert_eq!(pretty_name("ID=debian\n"), None);
        assert!(!system().kernel.is_empty());
    }

    #[test]
    fn total_kib_is_the_first_number_of_its_line() {
        let text = "MemTotal:       24689012 kB\nMemFree:  1 kB\n";
        assert_eq!(total_kib(text), Some(24_689_012));
        assert_eq!(total_kib("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn local_v6_leaves_link_local_out() {
        let table = "00000000000000000000000000000001 01 80 10 80 lo\nfe800000000000000000000000000001 02 40 20 80 eth0\n";
        assert_eq!(local_v6(table), [Ipv6Addr::LOCALHOST]);
    }

    #[test]
    fn node_port_addresses_loopback_range_is_one_address() {
        let host = [IpAddr::from([10, 0, 0, 5]), IpAddr::from([127, 0, 0, 1])];
        let wanted: IpNet = "127.0.0.0/8".parse().unwrap();
        assert_eq!(
            node_port_addresses(&[wanted], &host),
            NodePortAddresses::Listed(vec![host[1]])
        );
        assert_eq!(node_port_addresses(&[], &host), NodePortAddresses::All);
    }
}
