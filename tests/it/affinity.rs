//! Session affinity and balancing of a Service, by real connections from clients with addresses of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::support::{
    PATIENCE,
    namespace::in_namespace,
    program::{Program, way},
};

/// Four backends on 127.1.0.1 to 127.1.0.4 that answer with the last byte of their address.
fn backends() {
    for n in 1..=4_u8 {
        let listener = TcpListener::bind(SocketAddr::from(([127, 1, 0, n], 9000))).unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.write_all(&[n]);
            }
        });
    }
}

/// Which backend answers a client with this address.
fn ask(from: Ipv4Addr, to: SocketAddr) -> u8 {
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&fd, &SocketAddr::from((from, 0))).unwrap();
    connect(&fd, &to).unwrap();
    let mut stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    answer[0]
}

fn client(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, 0, n)
}

/// A Service on port 8080 and node port 30080; `extra` goes below `spec`.
fn service(annotations: &str, extra: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations: {{{annotations}}}\nspec:\n  type: \
         NodePort\n  ports: [{{port: 8080, nodePort: 30080}}]\n{extra}"
    )
}

fn slice(annotations: &str, numbers: &[u8]) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels: \
         {{kubernetes.io/service-name: web}}\n  annotations: {{{annotations}}}\naddressType: IPv4\nports: [{{port: \
         9000}}]\nendpoints:\n"
    );
    for n in numbers {
        let _ = writeln!(text, "  - addresses: [127.1.0.{n}]");
    }
    text
}

const CLIENT_IP: &str = "  sessionAffinity: ClientIP\n";

/// How often each backend answers `times` connections.
fn shares(to: SocketAddr, times: usize) -> BTreeMap<u8, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..times {
        *shares.entry(ask(client(1), to)).or_default() += 1;
    }
    shares
}

#[test]
fn client_ip_sticks_on_every_frontend_and_is_switched_live() {
    in_namespace!(Root);
    backends();
    let program = Program::up(
        &[],
        &[
            ("service.yaml", &service("", CLIENT_IP)),
            ("slice.yaml", &slice("", &[1, 2, 3, 4])),
        ],
    );
    let web = program.wait_for_endpoints("web", 4);
    let doors = ["ClusterIP", "NodePort"].map(|kind| way(&web, kind));
    let first: Vec<u8> = (1..=8).map(|n| ask(client(n), doors[0])).collect();
    assert_eq!(first, [1, 2, 3, 4, 1, 2, 3, 4], "new clients take turns");
    for door in doors.iter().cycle().take(6) {
        let again: Vec<u8> = (1..=8).map(|n| ask(client(n), *door)).collect();
        assert_eq!(again, first, "{door}");
    }
    let port = |program: &Program| program.status().services[0].ports[0].clone();
    let (status, seconds) = (port(&program), Some(10_800));
    assert_eq!(status.affinity_seconds, seconds);
    let of = |status: &portico::control::status::PortStatus| -> Vec<(u64, u64)> {
        let endpoints = status.endpoints.iter();
        endpoints.map(|of| (of.picks, of.affine)).collect()
    };
    assert_eq!(of(&status), [(14, 12); 4]);

    program.write("service.yaml", &service("", ""));
    let seconds =
        |status: &portico::control::status::Status| status.services[0].ports[0].affinity_seconds;
    program.wait_for("no affinity", |status| seconds(status).is_none());
    assert_eq!(
        shares(doors[1], 8),
        BTreeMap::from([(1, 2), (2, 2), (3, 2), (4, 2)])
    );

    let config = "  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}\n";
    program.write(
        "service.yaml",
        &service("", &format!("{CLIENT_IP}{config}")),
    );
    program.wait_for("affinity for a minute", |status| {
        seconds(status) == Some(60)
    });
    assert_eq!(shares(doors[0], 8).len(), 1);
    assert_eq!(program.wait_for_connections_to_end().connections, 0);
}

#[test]
fn client_ip_survives_other_edits_and_is_void_when_its_endpoint_goes_or_refuses() {
    in_namespace!(Root);
    backends();
    let program = Program::up(
        &[],
        &[
            ("service.yaml", &service("", CLIENT_IP)),
            ("slice.yaml", &slice("", &[1, 2, 3])),
        ],
    );
    let web = way(&program.wait_for_endpoints("web", 3), "ClusterIP");
    assert_eq!([1, 2, 3].map(|n| ask(client(n), web)), [1, 2, 3]);
    program.write("slice.yaml", &slice("", &[1, 2, 3, 4]));
    program.wait_for_endpoints("web", 4);
    assert_eq!([1, 2, 3].map(|n| ask(client(n), web)), [1, 2, 3]);
    program.write("slice.yaml", &slice("", &[1, 3, 4]));
    program.wait_for_endpoints("web", 3);
    let moved = ask(client(2), web);
    assert_ne!(moved, 2);
    assert_eq!([1, 2, 3].map(|n| ask(client(n), web)), [1, moved, 3]);
    // Nobody listens on 127.1.0.5: whoever is sent there goes elsewhere, and stays there.
    program.write("slice.yaml", &slice("", &[5]));
    program.wait_for("the one that refuses", |status| {
        let endpoints = &status.services[0].ports[0].endpoints;
        endpoints.len() == 1 && endpoints[0].address.ip() == IpAddr::from([127, 1, 0, 5])
    });
    let socket = TcpStream::connect(web).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_ne!((&socket).read(&mut [0]).unwrap_or_default(), 1);
    program.write("slice.yaml", &slice("", &[4, 5]));
    program.wait_for_endpoints("web", 2);
    for n in 1..=6 {
        assert_eq!([ask(client(n), web), ask(client(n), web)], [4, 4]);
    }
}

#[test]
fn weights_are_exact_over_a_cycle_and_follow_edits() {
    in_namespace!(Root);
    backends();
    let program = Program::up(
        &[],
        &[
            ("service.yaml", &service("", "")),
            (
                "slice.yaml",
                &slice("portico.dev/weights: \"127.1.0.1=3\"", &[1, 2]),
            ),
        ],
    );
    let web = way(&program.wait_for_endpoints("web", 2), "ClusterIP");
    let order: Vec<u8> = (0..8).map(|_| ask(client(1), web)).collect();
    assert_eq!(order, [1, 1, 2, 1, 1, 1, 2, 1]);
    assert_eq!(shares(web, 400), BTreeMap::from([(1, 300), (2, 100)]));
    program.write(
        "slice.yaml",
        &slice("portico.dev/weights: \"127.1.0.2=0\"", &[1, 2]),
    );
    program.wait_for("a drained endpoint", |status| {
        let endpoints = &status.services[0].ports[0].endpoints;
        endpoints.iter().map(|of| of.weight).eq([1, 0])
    });
    assert_eq!(shares(web, 20), BTreeMap::from([(1, 20)]));
    let output = program.command(&["explain", "service", "web"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Balance: round-robin, by weight"), "{text}");
    assert!(text.contains("drained: its weight is 0"), "{text}");
}

#[test]
fn policies_are_switched_live_and_maglev_keeps_a_client_where_it_is() {
    in_namespace!(Root);
    backends();
    let annotation = |policy: &str| service(&format!("portico.dev/balance: {policy}"), "");
    let program = Program::up(
        &[],
        &[
            ("service.yaml", &annotation("maglev")),
            ("slice.yaml", &slice("", &[1, 2, 3, 4])),
        ],
    );
    let web = way(&program.wait_for_endpoints("web", 4), "ClusterIP");
    let first: Vec<u8> = (1..=60).map(|n| ask(client(n), web)).collect();
    let again: Vec<u8> = (1..=60).map(|n| ask(client(n), web)).collect();
    assert_eq!(first, again);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 4);
    program.write("slice.yaml", &slice("", &[1, 2, 3]));
    program.wait_for_endpoints("web", 3);
    let after: Vec<u8> = (1..=60).map(|n| ask(client(n), web)).collect();
    let moved = first
        .iter()
        .zip(&after)
        .filter(|(was, is)| **was != 4 && was != is);
    assert!(moved.count() <= 6, "{first:?} {after:?}");
    for policy in ["random", "least-request", "round-robin"] {
        program.write("service.yaml", &annotation(policy));
        program.wait_for(policy, |status| {
            status.services[0].ports[0].balance == policy
        });
        let shares = shares(web, 90);
        assert_eq!(shares.len(), 3, "{policy}: {shares:?}");
    }
}

/// As [`backends`], over UDP.
fn udp_backends() {
    for n in 1..=4_u8 {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 1, 0, n], 9000))).unwrap();
        std::thread::spawn(move || {
            while let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
                let _ = socket.send_to(&[n], from);
            }
        });
    }
}

/// A socket of a client, which makes a flow of its own.
fn udp_socket(from: Ipv4Addr, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn ask_by(socket: &UdpSocket) -> std::io::Result<u8> {
    let mut answer = [0];
    socket.send(b"?")?;
    socket.recv(&mut answer)?;
    Ok(answer[0])
}

/// Which backend answers a new flow.
fn ask_udp(from: Ipv4Addr, to: SocketAddr) -> u8 {
    ask_by(&udp_socket(from, to)).unwrap()
}

fn over_udp(text: &str) -> String {
    text.replace("port: 8080", "protocol: UDP, port: 8080")
        .replace("[{port: 9000}]", "[{port: 9000, protocol: UDP}]")
}

#[test]
fn row_8_client_ip_of_udp_sticks_on_cluster_ip_and_node_port() {
    in_namespace!(Root);
    udp_backends();
    let with_slice = |numbers: &[u8]| over_udp(&slice("", numbers));
    let program = Program::up(
        &[],
        &[
            ("service.yaml", &over_udp(&service("", CLIENT_IP))),
            ("slice.yaml", &with_slice(&[1, 2, 3, 4])),
        ],
    );
    let web = program.wait_for_endpoints("web", 4);
    let doors = ["ClusterIP", "NodePort"].map(|kind| way(&web, kind));
    let ask_all = |door| -> Vec<u8> { (1..=8).map(|n| ask_udp(client(n), door)).collect() };
    let first = ask_all(doors[0]);
    assert_eq!(first, [1, 2, 3, 4, 1, 2, 3, 4], "new clients take turns");
    for door in doors.iter().cycle().take(6) {
        assert_eq!(ask_all(*door), first, "{door}");
    }
    let of: Vec<(u64, u64)> = program.status().services[0].ports[0]
        .endpoints
        .iter()
        .map(|of| (of.picks, of.affine))
        .collect();
    assert_eq!(of, [(14, 12); 4]);

    // One that goes: a flow that is there and new ones agree on the next one.
    let there = udp_socket(client(2), doors[0]);
    assert_eq!(ask_by(&there).unwrap(), 2);
    program.write("slice.yaml", &with_slice(&[1, 3, 4]));
    program.wait_for_endpoints("web", 3);
    let moved = ask_by(&there).unwrap();
    assert_ne!(moved, 2);
    for door in doors {
        assert_eq!(ask_udp(client(2), door), moved);
    }

    // Nobody has 127.1.0.5: whoever is sent there is refused, goes elsewhere with the next datagram, and stays there.
    program.write("slice.yaml", &with_slice(&[4, 5]));
    program.wait_for_endpoints("web", 2);
    for n in 1..=6 {
        let socket = udp_socket(client(20 + n), doors[0]);
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let questions = (1..=2).find(|_| ask_by(&socket).is_ok());
        assert!(questions.is_some(), "refused twice");
        assert_eq!(
            [0, 1].map(|door| ask_udp(client(20 + n), doors[door])),
            [4, 4]
        );
    }

    program.write("service.yaml", &over_udp(&service("", "")));
    program.wait_for("no affinity", |status| {
        status.services[0].ports[0].affinity_seconds.is_none()
    });
    program.write("slice.yaml", &with_slice(&[1, 2, 3, 4]));
    program.wait_for_endpoints("web", 4);
    let mut turns: Vec<u8> = (0..4).map(|_| ask_udp(client(1), doors[1])).collect();
    turns.sort_unstable();
    assert_eq!(turns, [1, 2, 3, 4]);
}
