//! UDP through the real program, to simulated pods, which answer a datagram with their name.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Result},
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

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
    program.wait_for("the flows to end", |status| status.flows == 0);
}
