//! The host's own addresses. Owns reading them from the kernel's tables in `/proc` (proc(5)); a host without them
//! simply has none.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
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
        .filter(|addr| addr.is_ipv4() && wanted.iter().any(|net| net.contains(*addr)));
    NodePortAddresses::Listed(chosen.copied().collect())
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
