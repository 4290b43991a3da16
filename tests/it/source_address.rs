//! Which address endpoints see their clients at, with `portico.dev/source-address: keep` and without.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use crate::support::{
    PATIENCE, addr,
    client::{ANYWHERE, get_from},
    get,
    host::{HERE, Host, THERE, ip},
    namespace::in_namespace,
    program::{Program, way},
};

/// A third machine's address, and ours on its network.
const THIRD: [u8; 4] = [10, 78, 0, 2];
const NEXT_TO_THIRD: [u8; 4] = [10, 78, 0, 1];
const LOCAL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// Tells each client by TCP and UDP the address that it is seen at.
fn telling(addr: impl Into<IpAddr>) {
    let addr = addr.into();
    let listener = TcpListener::bind((addr, 9000)).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let (mut request, seen) = ([0; 1024], peer.ip().to_string());
            let _ = stream.read(&mut request);
            let length = seen.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{seen}"
            );
        }
    });
    let socket = UdpSocket::bind((addr, 9000)).unwrap();
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
            let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
}

/// A Service at `vip` with this annotation, and one endpoint.
fn service(name: &str, vip: &str, value: &str, endpoint: [u8; 4]) -> String {
    let endpoint = Ipv4Addr::from(endpoint);
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{portico.dev/source-address: \
         {value}}}}}\nspec: {{clusterIP: {vip}, ports: [{{name: t, port: 80}}, {{name: u, port: 80, protocol: UDP}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  labels: \
         {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports: [{{name: t, port: 9000}}, {{name: u, port: 9000, \
         protocol: UDP}}]\nendpoints: [{{addresses: [{endpoint}]}}]\n"
    )
}

fn seen_by_udp(from: impl Into<IpAddr>, door: SocketAddr) -> std::io::Result<String> {
    let socket = UdpSocket::bind((from.into(), 0))?;
    socket.connect(door)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"who?")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// At which address the endpoint sees a client, by TCP and by UDP.
fn seen(from: Ipv4Addr, door: SocketAddr) -> [String; 2] {
    [
        get_from(from, door).unwrap(),
        seen_by_udp(from, door).unwrap(),
    ]
}

fn both(addr: impl Into<Ipv4Addr>) -> [String; 2] {
    let addr = addr.into().to_string();
    [addr.clone(), addr]
}

/// How many clients' addresses Service `name` did not keep, by TCP.
fn unkept(program: &Program, name: &str) -> u64 {
    let status = program.status();
    let mut services = status.services.iter();
    let service = services.find(|service| service.name == name).unwrap();
    service.ports[0].source_not_kept
}

fn said(program: &Program, args: &[&str]) -> String {
    String::from_utf8(program.command(args).stdout).unwrap()
}

/// A client's machine, and an endpoint's, each at its own cable and with its ways through this host.
fn client_and_endpoint() -> (Host, Host) {
    let client = Host::join();
    client.run(|| ip("route add 10.96.0.0/12 via 10.77.0.1"));
    let endpoint = Host::join_by(["near2", "far2"], "10.78.0");
    endpoint.run(|| {
        ip("route add default via 10.78.0.1");
        telling(THIRD);
    });
    (client, endpoint)
}

const REAL: [&str; 2] = ["--service-cidr", "10.96.0.0/12"];

#[test]
fn row_18_source_address_is_kept_through_the_cluster_ip() {
    in_namespace!(Root);
    let (other, _third) = client_and_endpoint();
    telling(HERE);
    // The commands of docs/adr/0013-source-address.md: answers to such clients are ours, from here and from there.
    ip("route add local default dev lo table 100");
    ip("rule add iif near2 to 10.77.0.0/24 sport 9000 lookup 100");
    ip("rule add iif lo to 10.77.0.2/32 sport 9000 lookup 100");
    let text = service("there", "10.96.7.1", "keep", THIRD)
        + &service("here", "10.96.7.2", "keep", HERE)
        + &service("plain", "10.96.7.3", "ours", THIRD);
    let program = Program::up(&REAL, &[("web.yaml", &text)]);
    let [there, here, plain] = ["there", "here", "plain"]
        .map(|name| way(&program.wait_for_endpoints(name, 1), "ClusterIP"));
    let far = Ipv4Addr::from(THERE);
    other.run(|| {
        assert_eq!(seen(far, there), both(THERE), "endpoint elsewhere");
        assert_eq!(seen(far, here), both(THERE), "endpoint on this host");
        assert_eq!(seen(far, plain), both(NEXT_TO_THIRD), "not asked for");
    });
    // Clients of this host need neither privilege nor routes.
    assert_eq!(seen(HERE.into(), there), both(HERE));
    assert_eq!(seen(LOCAL, here), both(LOCAL));
    assert_eq!(seen(HERE.into(), here), both(HERE), "an endpoint's own");
    assert_eq!(["there", "here"].map(|name| unkept(&program, name)), [0, 0]);
    let text = said(&program, &["explain", "service", "there"]);
    assert!(
        text.contains("endpoints see their clients' addresses"),
        "{text}"
    );
    assert_eq!(program.stderr().matches("sees our address").count(), 0);
}

/// One command of nft; false where there is none, or a kernel that cannot match sockets.
fn nft(command: &str) -> bool {
    let status = std::process::Command::new("nft").arg(command).status();
    status.is_ok_and(|status| status.success())
}

/// The other commands of docs/adr/0013-source-address.md: answers are known by their socket, so that those to direct
/// clients of the same port go on.
#[test]
fn source_address_is_kept_with_the_packet_filters_rule() {
    in_namespace!(Root);
    let (other, _third) = client_and_endpoint();
    let commands = [
        "add table inet portico",
        "add chain inet portico divert { type filter hook prerouting priority -150; }",
        "add rule inet portico divert meta l4proto { tcp, udp } socket transparent 1 meta mark set 1 accept",
    ];
    if !commands.into_iter().all(nft) {
        eprintln!("skipped: no nft here, or a kernel without its socket match");
        return;
    }
    ip("rule add fwmark 1 lookup 100");
    ip("route add local default dev lo table 100");
    let text = service("there", "10.96.7.1", "keep", THIRD);
    let program = Program::up(&REAL, &[("web.yaml", &text)]);
    let there = way(&program.wait_for_endpoints("there", 1), "ClusterIP");
    let far = Ipv4Addr::from(THERE);
    other.run(|| assert_eq!(seen(far, there), both(THERE)));
    assert_eq!(unkept(&program, "there"), 0);
    if std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").is_err() {
        eprintln!("skipped: direct clients, as this host may not forward");
        return;
    }
    other.run(|| {
        ip("route add 10.78.0.0/24 via 10.77.0.1");
        let direct = SocketAddr::from((THIRD, 9000));
        assert_eq!(seen(far, direct), both(THERE), "without portico");
    });
}

#[test]
fn source_address_of_ipv6_is_kept_as_well() {
    in_namespace!(Root);
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this kernel has no IPv6");
        return;
    }
    let (other, third) = client_and_endpoint();
    // Without the detection of duplicates an address can be used at once.
    ip("address add fd77::1/64 dev near nodad");
    ip("address add fd78::1/64 dev near2 nodad");
    let endpoint: Ipv6Addr = "fd78::2".parse().unwrap();
    other.run(|| {
        ip("address add fd77::2/64 dev far nodad");
        ip("-6 route add fd00:10:96::/112 via fd77::1");
    });
    third.run(|| {
        ip("address add fd78::2/64 dev far2 nodad");
        ip("-6 route add default via fd78::1");
        telling(endpoint);
    });
    // A fresh cable first looks for duplicates of its link-local address, until when it cannot ask for neighbours: the
    // kernel repeats the question for a client who has the patience.
    assert_eq!(get((endpoint, 9000).into()).unwrap(), "fd78::1");
    ip("-6 route add local default dev lo table 100");
    ip("-6 rule add iif near2 to fd77::/64 sport 9000 lookup 100");
    let text = service("web", "fd00:10:96::7", "keep", THIRD)
        .replace("spec: {", "spec: {ipFamilies: [IPv6], ")
        .replace("addressType: IPv4", "addressType: IPv6")
        .replace("clusterIP: fd00:10:96::7", "clusterIP: \"fd00:10:96::7\"")
        .replace("[10.78.0.2]", "[\"fd78::2\"]");
    let ranges = [&REAL[..], &["--service-cidr-v6", "fd00:10:96::/112"]].concat();
    let program = Program::up(&ranges, &[("web.yaml", &text)]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    assert_eq!(door, addr("[fd00:10:96::7]:80"));
    let seen = || {
        [
            get(door).unwrap(),
            seen_by_udp(Ipv6Addr::UNSPECIFIED, door).unwrap(),
        ]
    };
    assert_eq!(other.run(seen), ["fd77::2"; 2]);
    assert_eq!(unkept(&program, "web"), 0);
}

#[test]
fn source_address_whose_answers_go_astray_gives_way_to_ours_and_is_told() {
    in_namespace!(Root);
    let (other, _third) = client_and_endpoint();
    telling(HERE);
    let text = service("there", "10.96.7.1", "keep", THIRD)
        + &service("here", "10.96.7.2", "keep", HERE)
        + &service("hairpin", "10.96.7.3", "keep", THERE);
    other.run(|| telling(THERE));
    let program = Program::up(&REAL, &[("web.yaml", &text)]);
    let [there, here, hairpin] = ["there", "here", "hairpin"]
        .map(|name| way(&program.wait_for_endpoints(name, 1), "ClusterIP"));
    let ask = |door| other.run(|| get_from(ANYWHERE, door).unwrap());
    assert_eq!(ask(here), Ipv4Addr::from(HERE).to_string());
    assert_eq!(ask(there), Ipv4Addr::from(NEXT_TO_THIRD).to_string());
    assert_eq!(ask(hairpin), Ipv4Addr::from(HERE).to_string());
    // A loopback address does not leave its host.
    assert_eq!(
        seen(LOCAL, there),
        both(NEXT_TO_THIRD),
        "from a loopback address"
    );
    let names = ["here", "there", "hairpin"];
    assert_eq!(names.map(|name| unkept(&program, name)), [1, 2, 1]);
    for (name, why) in [
        ("here", "no answer came back"),
        ("there", "cannot be reached from the client's address"),
        ("hairpin", "discards what comes in with its own address"),
    ] {
        let text = said(&program, &["explain", "service", name]);
        assert!(text.contains(why), "{text}");
    }
    let status = program.status();
    let web = status.services.iter().find(|one| one.name == "there");
    let endpoint = &web.unwrap().ports[0].endpoints[0];
    assert_eq!(endpoint.failures, 0, "nothing is held against it");
    let text = said(&program, &["describe", "service", "here"]);
    assert!(text.contains("1 clients seen at our own address"), "{text}");
    // TCP's two reasons of `there`, that of `here`, of `hairpin`, and UDP's.
    assert_eq!(
        program.stderr().matches("sees our address").count(),
        5,
        "once each: {}",
        program.stderr()
    );
}

#[test]
fn source_address_without_the_privilege_gives_way_to_ours_and_is_told() {
    in_namespace!(Root);
    let (other, _third) = client_and_endpoint();
    // Neither is needed for local routes by those who have made them: here the range is the default one, and clients
    // come by a node port.
    for capability in [CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW] {
        remove_capability_from_bounding_set(capability).unwrap();
    }
    let text = service("web", "127.96.7.1", "keep", THIRD)
        .replace("spec: {", "spec: {type: NodePort, ")
        .replace(
            "port: 80}, {name: u",
            "port: 80, nodePort: 30080}, {name: u",
        )
        .replace(
            "port: 80, protocol: UDP}",
            "port: 80, nodePort: 30080, protocol: UDP}",
        );
    let program = Program::up(&[], &[("web.yaml", &text)]);
    program.wait_for_endpoints("web", 1);
    let door = SocketAddr::from((HERE, 30080));
    assert_eq!(other.run(|| seen(THERE.into(), door)), both(NEXT_TO_THIRD));
    assert_eq!(seen(HERE.into(), door), both(HERE), "a client of this host");
    assert_eq!(unkept(&program, "web"), 1);
    let text = said(&program, &["explain", "service", "web"]);
    assert!(text.contains("needs a privilege"), "{text}");
    assert!(text.contains("fix: give portico CAP_NET_RAW"), "{text}");
    let log = program.stderr();
    assert_eq!(
        log.matches("sees our address").count(),
        2,
        "TCP, UDP: {log}"
    );
    let mut metrics = TcpStream::connect(program.status().admin.unwrap()).unwrap();
    metrics
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut scraped = String::new();
    metrics.read_to_string(&mut scraped).unwrap();
    let counted = scraped.lines().filter(|line| {
        line.starts_with("portico_service_source_not_kept_total{")
            && line.contains("reason=\"privilege\"")
            && line.ends_with(" 1")
    });
    assert_eq!(counted.count(), 2, "TCP and UDP: {scraped}");
}
