//! Many Services under a small limit of descriptors, which the program inherits from the test.

use std::{
    fmt::Write as _,
    io::ErrorKind,
    net::{SocketAddr, TcpStream, UdpSocket},
};

use portico::control::status::{ServiceStatus, Status};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::support::{PATIENCE, namespace::in_namespace, program::Program};

const LIMIT: usize = 1024;

/// This process, and with it the program, gets so many descriptors.
fn limit_descriptors() {
    let limit = u64::try_from(LIMIT).ok();
    let both = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Nofile, both).unwrap();
}

/// Backends for both protocols on one number: each says what it is asked.
fn backend() -> u16 {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = tcp.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in tcp.incoming().map_while(Result::ok) {
            let _ = std::io::copy(&mut &stream, &mut &stream);
        }
    });
    let udp = UdpSocket::bind(bound).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((length, client)) = udp.recv_from(&mut bytes) {
            let _ = udp.send_to(&bytes[..length], client);
        }
    });
    bound.port()
}

/// `count` Services, each with a TCP and a UDP port of the numbers that `ports` gives it.
fn manifests(count: usize, ports: impl Fn(usize) -> (usize, usize)) -> String {
    let endpoint = backend();
    let mut text = String::new();
    for n in 0..count {
        let (tcp, udp) = ports(n);
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}}}\nspec:\n  ports:\n  - {{name: t, port: {tcp}}}\n  \
             - {{name: u, port: {udp}, protocol: UDP}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
             name: s{n}\n  labels: {{kubernetes.io/service-name: s{n}}}\naddressType: IPv4\nports:\n- {{name: t, port: \
             {endpoint}}}\n- {{name: u, port: {endpoint}, protocol: UDP}}\nendpoints: [{{addresses: [127.0.0.1]}}]\n",
        );
    }
    text
}

fn door(service: &ServiceStatus, protocol: &str) -> Option<SocketAddr> {
    let mut ports = service.ports.iter();
    let port = ports.find(|port| port.protocol == protocol).unwrap();
    port.reachable[0].bound
}

fn assert_tcp(door: SocketAddr) {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect_timeout(&door, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"t").unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
}

/// Connected: only an answer from the address that was asked is heard.
fn assert_udp(door: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(door).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(b"u").unwrap();
    let mut answer = [0; 8];
    assert_eq!(socket.recv(&mut answer).unwrap(), 1, "{door}");
}

fn assert_within_limit(status: &Status) {
    assert!(status.descriptors < LIMIT, "{}", status.descriptors);
}

#[test]
fn thousand_services_of_two_ports_within_a_thousand_descriptors_all_answer() {
    in_namespace!(Root);
    let text = manifests(1000, |_| (80, 5300));
    limit_descriptors();
    let program = Program::up(&[], &[("all.yaml", &text)]);
    let status = program.status();
    assert_eq!(
        (status.services.len(), status.beyond_descriptors),
        (1000, 0)
    );
    // One socket on the loopback device for each number, and nothing but them.
    assert_eq!(status.listener_count, 2);
    for service in &status.services {
        assert_tcp(door(service, "TCP").unwrap());
    }
    // A flow stays open for a while; those of all Services would fill their share.
    for service in status.services.iter().step_by(10) {
        assert_udp(door(service, "UDP").unwrap());
    }
    let status = program.wait_for_connections_to_end();
    assert_eq!(status.flows, 100);
    assert_within_limit(&status);
}

#[test]
fn number_of_our_own_dns_keeps_a_socket_for_each_address_when_others_share_one() {
    in_namespace!(Root);
    let text = manifests(400, |n| (80 + n % 2, 53));
    limit_descriptors();
    let program = Program::up(&[], &[("all.yaml", &text)]);
    let status = program.status();
    assert_eq!((status.listener_count, status.beyond_descriptors), (402, 0));
    for service in status.services.iter().step_by(20) {
        assert_tcp(door(service, "TCP").unwrap());
        let udp = door(service, "UDP").unwrap();
        assert_eq!(udp.port(), 53);
        assert_udp(udp);
    }
}

#[test]
fn listeners_beyond_the_descriptors_are_said_with_the_fix_and_the_rest_works() {
    in_namespace!(Root);
    let text = manifests(400, |n| (20_000 + 2 * n, 20_001 + 2 * n));
    limit_descriptors();
    let program = Program::up(&[], &[("all.yaml", &text)]);
    let status = program.status();
    let most = LIMIT / 2;
    assert_eq!(
        (status.listener_count, status.beyond_descriptors),
        (800, 800 - most)
    );
    assert_within_limit(&status);
    let said = program.stderr();
    for part in [
        "288 of 800 listeners are not served",
        "`ulimit -n 1600` (LimitNOFILE=1600 in a systemd unit)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let listed = program.command(&["status"]).stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert_eq!(listed.matches("; not served, tried again").count(), 288);
    let mut served = 0;
    for service in &status.services {
        if let Some(door) = door(service, "TCP") {
            assert_tcp(door);
        } else {
            let declared = service.ports[0].reachable[0].declared;
            let error = TcpStream::connect(declared).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        for protocol in ["TCP", "UDP"] {
            served += usize::from(door(service, protocol).is_some());
        }
        if let Some(door) = door(service, "UDP").filter(|_| served % 9 == 0) {
            assert_udp(door);
        }
    }
    assert_eq!(served, most);
}
