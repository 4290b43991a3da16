//! UDP through the real program, to simulated pods, which answer a datagram with their name.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Result},
    net::{SocketAddr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use portico::control::status::{PortStatus, ServiceStatus};

use crate::support::{
    PATIENCE, get,
    namespace::in_namespace,
    program::{Program, way},
};

const BOTH: &str = "\
apiVersion: v1
kind: Service
metadata: {name: both}
spec:
  type: NodePort
  selector: {app: both}
  ports:
    - {name: u, port: 9000, targetPort: 9000, nodePort: 30090, protocol: UDP}
    - {name: t, port: 9000, targetPort: 9000, nodePort: 30090, protocol: TCP}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: both}
spec:
  replicas: 3
  selector: {matchLabels: {app: both}}
  template:
    metadata: {labels: {app: both}}
    spec:
      containers:
        - name: main
          image: example.com/both:1
          ports: [{containerPort: 9000, protocol: UDP}, {containerPort: 9000, protocol: TCP}]
";

pub(crate) fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Connected: only an answer from the address that was asked is heard.
pub(crate) fn ask(socket: &UdpSocket) -> Result<String> {
    socket.send(b"who?")?;
    let mut bytes = [0; 256];
    let length = socket.recv(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

#[test]
fn clients_by_cluster_ip_and_node_port_are_spread_evenly_beside_tcp() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("both.yaml", BOTH)]);
    let both = program.wait_for_endpoints("both", 3);
    let doors = ["ClusterIP", "NodePort"].map(|kind| way(&both, kind));
    assert_eq!((doors[0].port(), doors[1].port()), (9000, 30090));
    let clients: Vec<UdpSocket> = doors
        .iter()
        .cycle()
        .take(60)
        .map(|door| client(*door))
        .collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for client in &clients {
        let pod = ask(client).unwrap();
        assert_eq!(ask(client).unwrap(), pod, "a flow stays");
        *counts.entry(pod).or_default() += 1;
    }
    assert_eq!(
        counts.values().copied().collect::<Vec<_>>(),
        [20; 3],
        "{counts:?}"
    );
    // A node port answers from each of the host's addresses that was asked.
    assert!(counts.contains_key(&ask(&client("127.0.0.9:30090".parse().unwrap())).unwrap()));
    for door in doors {
        assert!(
            counts.contains_key(&get(door).unwrap()),
            "TCP on the same number"
        );
    }
    let status = program.status();
    let service = status
        .services
        .iter()
        .find(|service| service.name == "both")
        .unwrap();
    let udp = service
        .ports
        .iter()
        .find(|port| port.protocol == "UDP")
        .unwrap();
    assert_eq!(status.flows, 61);
    assert_eq!(
        (udp.accepted, udp.connected, udp.retries, udp.rejected),
        (61, 61, 0, 0)
    );
    let text = String::from_utf8(program.command(&["status"]).stdout).unwrap();
    assert!(!text.contains("not forwarded"), "{text}");
    let explained = program.command(&["explain", "service", "both"]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(
        text.contains("both is served: 3 of 3 endpoints on 2 ports"),
        "{text}"
    );
}

#[test]
fn fixed_client_port_survives_a_rollout_and_is_refused_without_pods() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("both.yaml", BOTH)]);
    let both = program.wait_for_endpoints("both", 3);
    let client = client(way(&both, "NodePort"));
    let before = ask(&client).unwrap();
    program.write("both.yaml", &BOTH.replace("both:1", "both:2"));
    client
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut lost = 0;
    loop {
        match ask(&client) {
            Ok(pod) if pod != before => break,
            Ok(_) => {}
            Err(_) => lost += 1,
        }
        assert!(Instant::now() < deadline, "{}", program.stderr());
    }
    assert!(lost <= 1, "lost {lost} datagrams");
    program.write("both.yaml", &BOTH.replace("replicas: 3", "replicas: 0"));
    loop {
        match ask(&client) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            _ => assert!(Instant::now() < deadline, "{}", program.stderr()),
        }
    }
    program.watch_for("the flows to end", |status| status.flows == 0);
}

/// How long nothing has to come for "dropped".
const SILENCE: Duration = Duration::from_millis(200);

/// A backend at 127.1.0.`number`:9000 that answers with its number, until it is dropped: then its port is closed.
struct Numbered {
    addr: SocketAddr,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Numbered {
    fn new(number: u8) -> Self {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 1, 0, number], 9000))).unwrap();
        let addr = socket.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 16];
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                if &bytes[..length] == b"end" {
                    return;
                }
                socket.send_to(number.to_string().as_bytes(), from).unwrap();
            }
        });
        Self {
            addr,
            thread: Some(thread),
        }
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _ = socket.send_to(b"end", self.addr);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A Service `u` of port 9000, node port 30091; `extra` goes below `spec`.
fn service(extra: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: u}}\nspec:\n  ports: [{{port: 9000, nodePort: 30091, \
         protocol: UDP}}]\n{extra}"
    )
}

/// Its slice with 127.1.0.`number`; `extra` goes below the endpoint.
fn slice(number: u8, extra: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: u-1, labels: \
         {{kubernetes.io/service-name: u}}}}\naddressType: IPv4\nports: [{{port: 9000, protocol: UDP}}]\nendpoints:\n  \
         - addresses: [127.1.0.{number}]\n{extra}"
    )
}

/// The answer to one datagram from a socket that is not connected, and that it came from where it was sent.
fn ask_at(socket: &UdpSocket, to: SocketAddr) -> String {
    socket.send_to(b"who?", to).unwrap();
    let mut bytes = [0; 16];
    let (length, from) = socket.recv_from(&mut bytes).unwrap();
    assert_eq!(from, to);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn row_30_udp_survives_backend_cycling_from_a_fixed_source_port() {
    in_namespace!(Root);
    let mut backend = Numbered::new(1);
    let program = Program::up(
        &[],
        &[
            ("u.yaml", &service("  type: NodePort\n")),
            ("slice.yaml", &slice(1, "")),
        ],
    );
    let status = program.wait_for_endpoints("u", 1);
    let doors = ["ClusterIP", "NodePort"].map(|kind| way(&status, kind));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    for number in 2..=11 {
        for door in doors {
            assert_eq!(ask_at(&client, door), (number - 1).to_string());
        }
        let next = Numbered::new(number);
        program.write("slice.yaml", &slice(number, ""));
        program.wait_for("the next backend", |status| {
            let endpoints = &status.services[0].ports[0].endpoints;
            endpoints.iter().map(|of| of.address).eq([next.addr])
        });
        // The old one is gone when the next datagram comes: nothing was in flight, nothing is lost.
        backend = next;
        for door in doors {
            assert_eq!(ask_at(&client, door), number.to_string());
        }
    }
    assert_eq!(program.status().flows, 2);
    drop(backend);
}

#[test]
fn row_4_tcp_and_udp_on_one_number_and_either_goes_alone() {
    in_namespace!(Root);
    let ports = |protocols: &[&str]| {
        let ports = protocols.iter().map(|protocol| {
            format!(
                "    - {{name: {protocol}, port: 9000, nodePort: 30092, protocol: {}}}\n",
                protocol.to_uppercase()
            )
        });
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: u}}\nspec:\n  type: NodePort\n  ports:\n{}",
            ports.collect::<String>()
        )
    };
    let slice = "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: u-1, labels: {kubernetes.io/service-name: u}}
addressType: IPv4
ports: [{name: udp, port: 9000, protocol: UDP}, {name: tcp, port: 9000, protocol: TCP}]
endpoints:
  - addresses: [127.1.0.1]
";
    let _udp = Numbered::new(1);
    let tcp = TcpListener::bind("127.1.0.1:9000").unwrap();
    std::thread::spawn(move || {
        tcp.incoming()
            .map_while(std::result::Result::ok)
            .for_each(drop);
    });
    let program = Program::up(
        &[],
        &[("u.yaml", &ports(&["udp", "tcp"])), ("slice.yaml", slice)],
    );
    let status = program.wait_for_endpoints("u", 1);
    let doors = ["ClusterIP", "NodePort"].map(|kind| way(&status, kind));
    let check = |program: &Program, tcp: bool, udp: bool| {
        program.wait_for("the ports", |status| {
            status.services[0].ports.len() == usize::from(tcp) + usize::from(udp)
        });
        for door in doors {
            assert_eq!(std::net::TcpStream::connect(door).is_ok(), tcp, "{door}");
            assert_eq!(
                ask(&client(door)).ok().as_deref(),
                udp.then_some("1"),
                "{door}"
            );
        }
    };
    check(&program, true, true);
    for (left, tcp, udp) in [("udp", false, true), ("tcp", true, false)] {
        program.write("u.yaml", &ports(&[left]));
        check(&program, tcp, udp);
        program.write("u.yaml", &ports(&["udp", "tcp"]));
        check(&program, true, true);
    }
}

#[test]
fn datagrams_of_no_and_of_most_bytes_go_whole_by_cluster_ip_and_node_port() {
    in_namespace!(Root);
    let echo = UdpSocket::bind("127.1.0.1:9000").unwrap();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 70_000];
        while let Ok((length, from)) = echo.recv_from(&mut bytes) {
            echo.send_to(&bytes[..length], from).unwrap();
        }
    });
    let program = Program::up(
        &[],
        &[
            ("u.yaml", &service("  type: NodePort\n")),
            ("slice.yaml", &slice(1, "")),
        ],
    );
    let status = program.wait_for_endpoints("u", 1);
    let mut bytes = vec![0; 70_000];
    for kind in ["ClusterIP", "NodePort"] {
        let client = client(way(&status, kind));
        for length in [0, 1, 1472, 65_507, 0] {
            let sent: Vec<u8> = (0..length)
                .map(|n: u32| (n % 251).to_le_bytes()[0])
                .collect();
            client.send(&sent).unwrap();
            let length = client.recv(&mut bytes).unwrap();
            assert!(
                bytes[..length] == sent,
                "{kind}: {length} of {}",
                sent.len()
            );
        }
    }
}

fn port_of(services: &[ServiceStatus]) -> &PortStatus {
    &services[0].ports[0]
}

/// Whether nothing comes back.
fn is_dropped(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let answer = ask(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    answer.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn source_ranges_and_policies_hold_for_flows_that_exist() {
    in_namespace!(Root);
    let _backend = Numbered::new(1);
    let ranges = |range: &str, rest: &str| {
        service(&format!(
            "  type: LoadBalancer\n  loadBalancerSourceRanges: [{range}]\n{rest}"
        ))
    };
    let program = Program::up(
        &["--node-name", "here"],
        &[
            ("u.yaml", &ranges("127.0.1.0/24", "")),
            ("slice.yaml", &slice(1, "    nodeName: elsewhere\n")),
        ],
    );
    let status = program.wait_for_endpoints("u", 1);
    let client = |source: &str, kind: &str| {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.connect(way(&status, kind)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (inside, outside) = (
        client("127.0.1.7", "LoadBalancer"),
        client("127.0.2.7", "LoadBalancer"),
    );
    let by_cluster_ip = client("127.0.2.7", "ClusterIP");
    assert_eq!(ask(&inside).unwrap(), "1");
    assert_eq!(ask(&by_cluster_ip).unwrap(), "1", "the load balancer only");
    assert!(is_dropped(&outside));

    let generation = program.status().generation;
    program.write("u.yaml", &ranges("127.0.2.0/24", ""));
    program.wait_for("the edit", |status| status.generation > generation);
    assert_eq!(ask(&outside).unwrap(), "1");
    assert!(is_dropped(&inside), "its flow ends with the next datagram");
    let status = program.status();
    let port = port_of(&status.services);
    assert_eq!(
        (port.dropped_source_range, port.dropped_policy, status.flows),
        (2, 0, 2)
    );

    program.write(
        "u.yaml",
        &ranges("127.0.2.0/24", "  internalTrafficPolicy: Local\n"),
    );
    program.wait_for("the edit", |now| now.generation > status.generation);
    assert!(
        is_dropped(&by_cluster_ip),
        "its endpoint is on another node"
    );
    assert_eq!(ask(&outside).unwrap(), "1", "the other policy");
    let status = program.status();
    let port = port_of(&status.services);
    assert_eq!(
        (port.dropped_source_range, port.dropped_policy, status.flows),
        (2, 1, 1)
    );
    assert_eq!(port.accepted, port.connected + port.rejected);
    let explained = program.command(&["explain", "service", "u"]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(
        text.contains("1 flows were dropped because a traffic policy"),
        "{text}"
    );
}
