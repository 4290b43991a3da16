//! The address ranges of each instance. Owns the arithmetic over 127/8, all of which binds on Linux without privilege
//! or set-up.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// Where the addresses of an instance come from. Slots share what is valid, and differ in what is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    /// Cluster addresses that may be asked for: `127.96.0.0/12`, the same in all slots.
    pub service: IpNet,
    /// Cluster addresses that are handed out: a /16 of it.
    pub dynamic_service: IpNet,
    /// Load balancer addresses: a /20 of `127.112.0.0/16`.
    pub load_balancer: IpNet,
    /// Pods: a /17 of `127.120.0.0/13`.
    pub pods: IpNet,
    /// Reserved as the first address of the range is in a cluster, for the API server.
    pub kubernetes: IpAddr,
    /// Where names are answered.
    pub dns: IpAddr,
    /// Port of the admin interface on loopback, where it is wanted beside the socket.
    pub admin_port: u16,
}

/// The ranges of `slot`, 0 to 15; higher ones wrap.
pub fn ranges(slot: u8) -> Ranges {
    let slot = slot % super::SLOTS;
    // 127.120.0.0/13 has sixteen networks of 17 bits: two to a second byte.
    let pods = Ipv4Addr::new(127, 120 + slot / 2, 128 * (slot % 2), 0);
    Ranges {
        service: net(Ipv4Addr::new(127, 96, 0, 0), 12),
        dynamic_service: net(Ipv4Addr::new(127, 96 + slot, 0, 0), 16),
        load_balancer: net(Ipv4Addr::new(127, 112, 16 * slot, 0), 20),
        pods: net(pods, 17),
        kubernetes: Ipv4Addr::new(127, 96 + slot, 0, 1).into(),
        dns: Ipv4Addr::new(127, 96 + slot, 0, 10).into(),
        admin_port: 10300 + u16::from(slot),
    }
}

fn net(base: Ipv4Addr, bits: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(base, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_default_slot_is_as_documented() {
        let ranges = ranges(0);
        let text = [
            ranges.service,
            ranges.dynamic_service,
            ranges.load_balancer,
            ranges.pods,
        ]
        .map(|net| net.to_string());
        assert_eq!(
            text,
            [
                "127.96.0.0/12",
                "127.96.0.0/16",
                "127.112.0.0/20",
                "127.120.0.0/17"
            ]
        );
        assert_eq!(ranges.dns.to_string(), "127.96.0.10");
    }

    #[test]
    fn ranges_slots_are_disjoint_and_inside_the_whole() {
        let all: Vec<_> = (0..16).map(ranges).collect();
        let whole = |text: &str| text.parse::<IpNet>().unwrap();
        for (slot, one) in all.iter().enumerate() {
            assert!(one.service.contains(&one.dynamic_service));
            assert!(
                one.dynamic_service.contains(&one.dns)
                    && one.dynamic_service.contains(&one.kubernetes)
            );
            assert!(whole("127.112.0.0/16").contains(&one.load_balancer));
            assert!(whole("127.120.0.0/13").contains(&one.pods));
            for other in all.iter().skip(slot + 1) {
                assert_ne!(one.dynamic_service, other.dynamic_service);
                assert_ne!(one.load_balancer, other.load_balancer);
                assert_ne!(one.pods, other.pods);
                assert_ne!(one.admin_port, other.admin_port);
            }
        }
    }
}
