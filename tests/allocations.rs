//! What the prepared answers of DNS cost in memory: nothing for a query, little for a Service. A program of its own,
//! since it counts all allocations that it makes.

#![expect(
    clippy::unwrap_used,
    reason = "tests fail by panicking, also outside of functions that are marked as tests"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
};

use portico_core::{
    dns::{Moment, fast, packet::Transport},
    object::{
        AddressType, ClusterIpRequest, Conditions, EndpointSlice, Hints, Origin, Position,
        Protocol, Service, ServicePort, SliceEndpoint, SlicePort, TargetPort, Weight,
    },
    snapshot::{Cluster, NodePortAddresses, ServiceView, Snapshot, assemble::assemble},
};

thread_local! {
    static COUNTED: Cell<(u64, isize)> = const { Cell::new((0, 0)) };
}

struct Counting;

fn note(times: u64, bytes: isize) {
    let _ = COUNTED.try_with(|counted| {
        let (all, held) = counted.get();
        counted.set((all + times, held + bytes));
    });
}

#[expect(unsafe_code, reason = "an allocator cannot be had without")]
// SAFETY: the system's allocator does all; beside it only a number of this thread changes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of the same method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        note(0, -layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn view(name: &str, addr: [u8; 4], endpoints: &[[u8; 4]]) -> Arc<ServiceView> {
    let port = ServicePort {
        name: Arc::from("http"),
        protocol: Protocol::Tcp,
        port: 80,
        target_port: TargetPort::Number(80),
        node_port: None,
        app_protocol: None,
    };
    let spec = Service {
        cluster_ip: if addr == [0; 4] {
            ClusterIpRequest::Headless
        } else {
            ClusterIpRequest::Auto
        },
        ports: vec![port],
        ..Service::default()
    };
    let endpoint = |addr: &[u8; 4]| SliceEndpoint {
        address: Some((*addr).into()),
        conditions: Conditions::READY,
        hostname: None,
        node_name: None,
        zone: None,
        pod_name: None,
        hints: Hints::default(),
        weight: Weight::default(),
    };
    let slice = EndpointSlice {
        is_for_another_proxy: false,
        service_name: None,
        address_type: AddressType::IPv4,
        ports: vec![SlicePort {
            name: Arc::from("http"),
            protocol: Protocol::Tcp,
            port: Some(8080),
            app_protocol: None,
        }],
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    Arc::new(ServiceView {
        namespace: Arc::from("default"),
        name: Arc::from(name),
        origin: Origin {
            file: Arc::from("test"),
            position: Position::default(),
            marks: Arc::from([]),
        },
        spec: Arc::new(spec),
        cluster_ips: if addr == [0; 4] {
            Vec::new()
        } else {
            vec![addr.into()]
        },
        load_balancer_ips: Vec::new(),
        slices: vec![Arc::new(slice)],
        ports: Vec::new(),
        frontends: Vec::new(),
    })
}

fn cluster() -> Arc<Cluster> {
    Arc::new(Cluster {
        search_namespace: Some(Arc::from("default")),
        service_cidr: "127.96.0.0/16".parse().unwrap(),
        dynamic_service_cidr: "127.96.16.0/20".parse().unwrap(),
        load_balancer_cidr: "127.97.0.0/16".parse().unwrap(),
        pod_cidr: "127.98.0.0/16".parse().unwrap(),
        node_port_addresses: NodePortAddresses::Listed(Vec::new()),
        ..Cluster::default()
    })
}

fn query(name: &str, rtype: u16) -> Vec<u8> {
    let mut packet = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    packet.extend(rtype.to_be_bytes());
    // Class IN and an OPT record of 1232 bytes with a cookie.
    packet.extend([
        0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8,
    ]);
    packet
}

fn counted<T>(run: impl FnOnce() -> T) -> (T, u64, isize) {
    let (all, held) = COUNTED.get();
    let result = run();
    let (all_after, held_after) = COUNTED.get();
    (result, all_after - all, held_after - held)
}

#[test]
fn answer_that_is_prepared_allocates_nothing() {
    let many: Vec<[u8; 4]> = (1..=60).map(|last| [127, 98, 0, last]).collect();
    let services = vec![
        view("web", [127, 96, 1, 10], &many[..2]),
        view("big", [0; 4], &many),
    ];
    let snapshot: Snapshot = assemble(cluster(), services, &[]);
    let queries: Vec<Vec<u8>> = [
        ("web.default.svc.cluster.local", 1),
        ("WEB.default.svc.cluster.local", 28),
        ("big.default.svc.cluster.local", 1),
        ("_http._tcp.web.default.svc.cluster.local", 33),
        ("web.default.svc.cluster.local", 33),
        ("nosuch.default.svc.cluster.local", 1),
        ("example.com.svc.cluster.local", 1),
        ("default.svc.cluster.local", 1),
        ("web.default.svc.local", 65),
        ("10.1.96.127.in-addr.arpa", 12),
        ("127-98-0-1.web.default.svc.cluster.local", 1),
    ]
    .map(|(name, rtype)| query(name, rtype))
    .to_vec();
    let mut out = Vec::with_capacity(2048);
    let (hits, allocations, _) = counted(|| {
        let mut moment = Moment::default();
        let mut hits = 0;
        for _ in 0..100 {
            for packet in &queries {
                moment = moment.next();
                hits += usize::from(
                    fast::respond(&snapshot, packet, (Transport::Udp, moment), &mut out).is_some(),
                );
            }
        }
        hits
    });
    assert_eq!((hits, allocations), (1100, 0));
}

#[test]
fn answers_of_10_000_services_take_less_than_64_mib() {
    let services: Vec<_> = (0..10_000_u16)
        .map(|number| {
            let [a, b] = number.to_be_bytes();
            let endpoints = [1, 2, 3].map(|more| [127, 98 + more, a, b]);
            view(&format!("service-{number}"), [127, 96, a, b], &endpoints)
        })
        .collect();
    let (snapshot, _, held) = counted(|| assemble(cluster(), services, &[]));
    let (name, mut out) = ("service-9999.default.svc.cluster.local", Vec::new());
    assert!(
        fast::respond(
            &snapshot,
            &query(name, 1),
            (Transport::Udp, Moment::default()),
            &mut out
        )
        .is_some()
    );
    println!("{held} bytes for all that is looked up");
    assert!(held < 64 << 20, "{held} bytes, with all other indexes");
}
