//! The programs, run by an interpreter of the instructions in use, against the filters that they are made of. What a
//! real kernel makes of them is tested with real sockets.

use std::{net::Ipv6Addr, sync::Arc};

use portico_core::{
    balance::{Endpoint, EndpointSet},
    object::{Protocol, TrafficPolicy, service::IpFamily},
    snapshot::{Cluster, FrontendKind, PortView, ServicePortName, SourceRangeReach},
};
use proptest::prelude::*;

use super::*;

/// What the kernel does with a packet: how many bytes pass.
fn run(program: &[Instruction], packet: &[u8]) -> u32 {
    let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
    for _ in 0..=program.len() {
        let Instruction { code, yes, no, k } = program[at];
        let offset = usize::try_from(k.wrapping_sub(NETWORK)).unwrap();
        let jump = |holds: bool| usize::from(if holds { yes } else { no });
        at += 1;
        match code {
            LOAD => a = u32::from_be_bytes(packet[offset..offset + 4].try_into().unwrap()),
            LOAD_BYTE => a = packet[offset].into(),
            AND => a &= k,
            SHIFT_RIGHT => a >>= k,
            KEEP => x = a,
            JUMP_EQUAL => at += jump(a == k),
            JUMP_EQUAL_KEPT => at += jump(a == x),
            JUMP => at += usize::try_from(k).unwrap(),
            RETURN => return k,
            other => panic!("{other:#x}"),
        }
    }
    panic!("a program that only jumps forward has ended by now");
}

fn packet(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![0; 12];
            packet[0] = 0x45;
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = vec![0; 8];
            packet[0] = 0x6f;
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        _ => panic!("two families"),
    }
}

fn cluster(hosts: Vec<IpAddr>) -> Cluster {
    Cluster {
        service_cidr: "127.96.0.0/16".parse().unwrap(),
        load_balancer_cidr: "127.112.0.0/16".parse().unwrap(),
        pod_cidr: "fd00:0:0:1::/64".parse().unwrap(),
        host_addresses: hosts,
        source_range_reach: SourceRangeReach::Everywhere,
        ..Cluster::default()
    }
}

/// A node port, or whatever, with policy Local and an endpoint elsewhere if `local`.
fn port(local: bool) -> PortView {
    let endpoint = Endpoint {
        addr: ([127, 0, 0, 1], 1).into(),
        state: Arc::default(),
    };
    PortView {
        name: Arc::new(ServicePortName {
            namespace: "default".into(),
            service: "a".into(),
            port: "".into(),
            protocol: Protocol::Tcp,
        }),
        family: IpFamily::IPv4,
        number: 80,
        node_port: None,
        cluster: Some(Arc::new(EndpointSet::new(vec![endpoint], None))),
        local: Some(Arc::new(EndpointSet::new(Vec::new(), None))),
        any: true,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: if local {
            TrafficPolicy::Local
        } else {
            TrafficPolicy::Cluster
        },
        affinity: None,
        source: portico_core::object::SourceAddress::default(),
        app: portico_core::object::Application::default(),
        proxy: portico_core::object::ProxyProtocol::default(),
        state: Arc::default(),
    }
}

/// Few addresses, so that they meet.
fn any_addr() -> impl Strategy<Value = IpAddr> {
    let v4 = (0_u8..3, 0_u8..3).prop_map(|(a, b)| IpAddr::from([127, 96 + 16 * a, 0, b]));
    let v6 = (0_u16..3, 0_u16..3)
        .prop_map(|(a, b)| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, a, 0, 0, b, b)));
    prop_oneof![v4, v6]
}

fn any_net() -> impl Strategy<Value = IpNet> {
    (any_addr(), 0_u8..=128).prop_map(|(addr, bits)| {
        let most = if addr.is_ipv4() { 32 } else { 128 };
        IpNet::new(addr, bits % (most + 1)).unwrap()
    })
}

fn any_filter() -> impl Strategy<Value = Option<Filter>> {
    let frontend = (
        any_addr(),
        any::<bool>(),
        any::<bool>(),
        prop::option::of(prop::collection::vec(any_net(), 0..6)),
    );
    let frontends = prop::collection::vec(frontend, 1..6);
    let hosts = prop::collection::vec(any_addr(), 0..3);
    (frontends, hosts).prop_map(|(frontends, hosts)| {
        let cluster = cluster(hosts);
        let mut guards: Vec<(IpAddr, Guard)> = frontends
            .into_iter()
            .map(|(addr, wildcard, local, ranges)| {
                let (addr, kind) = match (wildcard, addr) {
                    (true, IpAddr::V4(_)) => (IpAddr::from([0; 4]), FrontendKind::NodePort),
                    (true, IpAddr::V6(_)) => (IpAddr::from([0; 16]), FrontendKind::NodePort),
                    (false, addr) => (addr, FrontendKind::LoadBalancer),
                };
                let family = IpFamily::of(addr);
                let ranges = ranges.map(|mut ranges| {
                    ranges.retain(|range| IpFamily::of(range.addr()) == family);
                    ranges
                });
                let guard = Guard::of(&port(local), (addr, kind), ranges.as_deref(), &cluster);
                (addr, guard)
            })
            .collect();
        guards.sort_by_key(|(addr, _)| *addr);
        guards.dedup_by_key(|(addr, _)| *addr);
        Filter::of(guards.iter().map(|(addr, guard)| (*addr, guard)), &cluster)
    })
}

proptest! {
    #[test]
    fn program_of_any_filter_passes_what_it_admits(
        filter in any_filter(),
        packets in prop::collection::vec((any_addr(), any_addr()), 32),
    ) {
        let Some(filter) = filter else {
            return Ok(());
        };
        let program = assemble(&filter).unwrap();
        for (source, destination) in packets {
            if source.is_ipv4() == destination.is_ipv4() {
                let passes = run(&program, &packet(source, destination));
                let expected = if filter.admits(source, destination) { PASS } else { DROP };
                prop_assert_eq!(passes, expected, "{} to {} by {:?}", source, destination, filter);
            }
        }
    }
}

fn filter_of(ranges: &[IpNet]) -> Filter {
    let (addr, cluster) = (IpAddr::from([127, 112, 0, 1]), cluster(Vec::new()));
    let kind = FrontendKind::LoadBalancer;
    let guard = Guard::of(&port(false), (addr, kind), Some(ranges), &cluster);
    Filter::of([(addr, &guard)].into_iter(), &cluster).unwrap()
}

/// Hosts that do not add up to larger ranges.
fn hosts(count: u32) -> Vec<IpNet> {
    let host = |n: u32| IpNet::from(IpAddr::from((0x0a00_0000 + 2 * n).to_be_bytes()));
    (0..count).map(host).collect()
}

#[test]
fn program_of_a_thousand_ranges_jumps_far() {
    let filter = filter_of(&hosts(1000));
    let program = assemble(&filter).unwrap();
    let passes = |source: [u8; 4]| run(&program, &packet(source.into(), [127, 112, 0, 1].into()));
    assert_eq!(passes([10, 0, 0, 0]), PASS);
    assert_eq!(passes([10, 0, 7, 206]), PASS);
    assert_eq!(passes([10, 0, 0, 1]), DROP);
    assert_eq!(passes([10, 0, 7, 208]), DROP);
}

#[test]
fn program_beyond_the_kernels_limit_is_refused_with_its_length() {
    let error = assemble(&filter_of(&hosts(2000))).unwrap_err();
    assert!(
        error.to_string().ends_with("and 4096 are the most"),
        "{error}"
    );
}
