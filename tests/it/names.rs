//! Names, asked over UDP and TCP as any client asks, decoded by an independent library.

mod clients;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};

use crate::{
    metrics::{admin, scrape},
    support::{
        PATIENCE, addr,
        host::{HERE, Host},
        namespace::in_namespace,
        program::{Program, portico},
    },
};

fn question(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

pub(crate) fn ask_udp(server: SocketAddr, name: &str, record_type: RecordType) -> Message {
    ask_udp_from("127.0.0.1:0", server, name, record_type)
}

fn ask_udp_from(from: &str, server: SocketAddr, name: &str, record_type: RecordType) -> Message {
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server).unwrap();
    socket
        .send(&question(name, record_type).to_vec().unwrap())
        .unwrap();
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).unwrap();
    Message::from_vec(&answer[..length]).unwrap()
}

pub(crate) fn ask_tcp(server: SocketAddr, name: &str, record_type: RecordType) -> Message {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let query = question(name, record_type).to_vec().unwrap();
    stream
        .write_all(&u16::try_from(query.len()).unwrap().to_be_bytes())
        .unwrap();
    stream.write_all(&query).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    Message::from_vec(&answer).unwrap()
}

/// Addresses in an answer, sorted.
pub(crate) fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let mut found: Vec<Ipv4Addr> = message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(a.0),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    found
}

const MANIFESTS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, ports: [{name: pg, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: pg, port: 5432}]
endpoints:
  - {addresses: [127.0.0.21], hostname: db-0}
  - {addresses: [127.0.0.22], hostname: db-1}
  - {addresses: [127.0.0.23], conditions: {ready: false}}
---
apiVersion: v1
kind: Service
metadata: {name: gihyo}
spec: {type: ExternalName, externalName: gihyo.jp}
";

#[test]
fn services_answer_in_every_form_over_udp_and_tcp() {
    in_namespace!(Root);
    let program = Program::up(&[], &[("all.yaml", MANIFESTS)]);
    let status = program.status();
    let server = status.dns[0].bound.unwrap();
    assert_eq!(server, addr("127.96.0.10:53"));
    let echo = status
        .services
        .iter()
        .find(|service| service.name == "echo")
        .unwrap();
    let echo: Ipv4Addr = echo.cluster_ip.parse().unwrap();
    let forms = [
        "echo",
        "echo.default",
        "echo.default.svc",
        "echo.default.svc.cluster.local",
        "ECHO.Default.svc.local",
    ];
    for name in forms {
        for answer in [
            ask_udp(server, name, RecordType::A),
            ask_tcp(server, name, RecordType::A),
        ] {
            assert_eq!(
                answer.metadata.response_code,
                ResponseCode::NoError,
                "{name}"
            );
            assert_eq!(addresses(&answer), [echo], "{name}");
        }
    }
    let headless = ask_udp(server, "db.default.svc.cluster.local.", RecordType::A);
    assert_eq!(
        addresses(&headless),
        [Ipv4Addr::new(127, 0, 0, 21), Ipv4Addr::new(127, 0, 0, 22)]
    );
    let named = ask_udp(server, "db-1.db.default.svc.cluster.local.", RecordType::A);
    assert_eq!(addresses(&named), [Ipv4Addr::new(127, 0, 0, 22)]);
    let service = ask_udp(
        server,
        "_http._tcp.echo.default.svc.cluster.local.",
        RecordType::SRV,
    );
    assert!(
        matches!(&service.answers[0].data, RData::SRV(srv) if srv.port == 80),
        "{service:?}"
    );
    let alias = ask_udp(server, "gihyo.default.svc.cluster.local.", RecordType::A);
    assert!(
        matches!(&alias.answers[..], [only] if matches!(&only.data, RData::CNAME(name) if name.0.to_ascii() == "gihyo.jp.")),
        "{alias:?}"
    );
    let reverse = format!(
        "{}.in-addr.arpa.",
        Ipv4Addr::from(u32::from(echo).swap_bytes())
    );
    let pointer = ask_udp(server, &reverse, RecordType::PTR);
    assert!(
        matches!(&pointer.answers[0].data, RData::PTR(name) if name.0.to_ascii() == "echo.default.svc.cluster.local."),
        "{pointer:?}"
    );
}

#[test]
fn absent_names_are_told_apart_from_absent_records() {
    in_namespace!(Root);
    // Nobody listens there.
    let nobody = ["--dns-upstream", "127.0.0.1:9"];
    let program = Program::up(&nobody, &[("all.yaml", MANIFESTS)]);
    let server = program.status().dns[0].bound.unwrap();
    let soa = |message: &Message| {
        message
            .authorities
            .iter()
            .any(|record| record.record_type() == RecordType::SOA)
    };
    let nodata = ask_udp(server, "echo.default.svc.cluster.local.", RecordType::AAAA);
    assert!(
        nodata.metadata.response_code == ResponseCode::NoError
            && nodata.answers.is_empty()
            && soa(&nodata)
    );
    let nothing = ask_udp(server, "nobody.default.svc.cluster.local.", RecordType::A);
    assert!(nothing.metadata.response_code == ResponseCode::NXDomain && soa(&nothing));
    for foreign in ["example.com.", "printer.local."] {
        let unknown = ask_udp(server, foreign, RecordType::A);
        assert_eq!(
            unknown.metadata.response_code,
            ResponseCode::ServFail,
            "{foreign}"
        );
    }
}

#[test]
fn names_follow_the_manifests_with_the_next_query() {
    in_namespace!(Root);
    let program = Program::up(&[], &[("all.yaml", MANIFESTS)]);
    let server = program.status().dns[0].bound.unwrap();
    program.write("more.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: late}\nspec: {clusterIP: 127.96.9.9, ports: [{port: 80}]}\n");
    program.wait_for("the new Service", |status| status.services.len() == 4);
    assert_eq!(
        addresses(&ask_udp(server, "late.", RecordType::A)),
        [Ipv4Addr::new(127, 96, 9, 9)]
    );
}

#[test]
fn resolve_asks_the_program_and_agrees_with_itself_offline() {
    in_namespace!(Root);
    let program = Program::up(&[], &[("all.yaml", MANIFESTS)]);
    let manifests = program.manifests();
    let name = "db.default.svc.cluster.local";
    let text = |args: &[&str]| String::from_utf8_lossy(&program.command(args).stdout).into_owned();
    let live = text(&["resolve", name, "SRV", "-o", "json"]);
    let offline = text(&[
        "resolve",
        name,
        "SRV",
        "-o",
        "json",
        "-f",
        manifests.to_str().unwrap(),
    ]);
    let parse = |text: &str| -> serde_json::Value {
        serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let sorted = |value: &serde_json::Value| {
        let mut data: Vec<String> = value["answers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a["data"].to_string())
            .collect();
        data.sort();
        data
    };
    let (live, offline) = (parse(&live), parse(&offline));
    assert_eq!(live["rcode"], "NOERROR");
    assert_eq!(live["authoritative"], true);
    assert_eq!((sorted(&live).len(), sorted(&live)), (2, sorted(&offline)));
    let missing = program.command(&["resolve", "nobody.default.svc.cluster.local"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn dns_without_privilege_is_on_port_10053() {
    in_namespace!(Unprivileged);
    let program = Program::up(&[], &[("all.yaml", MANIFESTS)]);
    let status = program.status();
    let server = status.dns[0].bound.unwrap();
    assert_eq!(server, addr("127.96.0.10:10053"));
    assert!(status.dns[0].problem.is_some());
    let answer = ask_udp(server, "echo", RecordType::A);
    assert_eq!(addresses(&answer).len(), 1);
    assert_eq!(server.ip(), IpAddr::from([127, 96, 0, 10]));
}

/// Services in every way to be reached from another machine, and in none.
const WAYS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: inside}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: node}
spec: {type: NodePort, ports: [{name: http, port: 80, nodePort: 30080}, {name: admin, port: 81, nodePort: 30081}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {externalIPs: [10.77.0.1], ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, loadBalancerIP: 127.112.0.9, ports: [{name: http, port: 80, nodePort: 30082}]}
";

#[test]
fn clients_elsewhere_get_what_is_reachable_there_and_never_loopback() {
    in_namespace!(Root);
    let there = Host::join();
    let unserved = [
        "--advertise",
        "10.77.0.1",
        "--nodeport-addresses",
        "127.0.0.0/8",
    ];
    assert_refused(&unserved, "--nodeport-addresses leaves it out");
    let program = Program::up(
        &["--dns-listen", "10.77.0.1:53", "--advertise", "10.77.0.1"],
        &[("ways.yaml", WAYS)],
    );
    let server = addr("10.77.0.1:53");
    let ask = |name: &str, record_type| {
        let name = format!("{name}.default.svc.cluster.local.");
        let by_udp = there.run(|| ask_udp_from("10.77.0.2:0", server, &name, record_type));
        let by_tcp = there.run(|| ask_tcp(server, &name, record_type));
        for answer in [&by_udp, &by_tcp] {
            let sections = [&answer.answers, &answer.additionals];
            for record in sections.into_iter().flatten() {
                let is_loopback = matches!(&record.data, RData::A(addr) if addr.0.is_loopback());
                assert!(!is_loopback, "{name}: {answer:?}");
            }
        }
        assert_eq!(addresses(&by_udp), addresses(&by_tcp));
        by_udp
    };
    let here = Ipv4Addr::from(HERE);
    let name = "ns.dns.cluster.local.";
    let name_server = there.run(|| ask_udp_from("10.77.0.2:0", server, name, RecordType::A));
    assert_eq!(addresses(&name_server), [here], "where DNS is listened at");
    for (name, expected) in [
        ("inside", &[][..]),
        ("node", &[here]),
        ("outside", &[here]),
        ("balanced", &[here]),
    ] {
        let answer = ask(name, RecordType::A);
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "{name}"
        );
        assert_eq!(addresses(&answer), expected, "{name}");
        let own = ask_udp_from("10.77.0.1:0", server, name, RecordType::A);
        let own = addresses(&own);
        assert!(
            own.iter().all(Ipv4Addr::is_loopback) && own.len() == 1,
            "{name} here: {own:?}"
        );
    }
    let ports = |name: &str| {
        let answer = ask(name, RecordType::SRV);
        let mut ports: Vec<u16> = answer
            .answers
            .iter()
            .map(|record| match &record.data {
                RData::SRV(srv) => srv.port,
                other => panic!("{other}"),
            })
            .collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(ports("node"), [30080, 30081]);
    assert_eq!(ports("balanced"), [30082]);
    assert_eq!(ports("outside"), [8080]);
    assert_eq!(ports("inside"), [0; 0]);

    // "inside" was asked for A and SRV, over UDP and TCP.
    let counted = scrape(admin(&program))["portico_dns_withheld_total"];
    assert!((counted - 4.0).abs() < f64::EPSILON, "{counted}");
    assert_eq!(
        program.stderr().matches("no address for a client").count(),
        1
    );
    let explain = |name: &str| {
        let explained = program.command(&["explain", "service", name]);
        let text = String::from_utf8(explained.stdout).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("From other machines and containers: "));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert!(explain("inside").starts_with("no address; "));
    assert_eq!(explain("node"), "10.77.0.1 with its node ports");
    assert_eq!(explain("outside"), "10.77.0.1");
}

#[test]
fn pods_have_the_names_of_their_mode_in_every_domain() {
    in_namespace!(Root);
    let slice = "127-0-0-21.default.pod";
    for (mode, known, unknown) in [
        ("disabled", ResponseCode::NXDomain, ResponseCode::NXDomain),
        ("insecure", ResponseCode::NoError, ResponseCode::NoError),
        ("verified", ResponseCode::NoError, ResponseCode::NXDomain),
    ] {
        let domains = [
            "--cluster-domain",
            "cluster.local",
            "--cluster-domain",
            "corp.example",
        ];
        let args = [&["--dns-pods", mode], &domains[..]].concat();
        let program = Program::up(&args, &[("all.yaml", MANIFESTS)]);
        let server = program.status().dns[0].bound.unwrap();
        for domain in ["cluster.local", "corp.example"] {
            let code = |name: &str| {
                let name = format!("{name}.{domain}.");
                ask_udp(server, &name, RecordType::A).metadata.response_code
            };
            assert_eq!(code(slice), known, "{mode} {domain}");
            assert_eq!(code("127-9-9-9.default.pod"), unknown, "{mode} {domain}");
            assert_eq!(code("127-9-9-9.nobody.pod"), ResponseCode::NXDomain);
            assert_eq!(code("echo.default.svc"), ResponseCode::NoError);
        }
    }
}

#[test]
fn names_that_cannot_be_served_are_refused_at_the_start() {
    in_namespace!(Unprivileged);
    for (args, said) in [
        (["--cluster-domain", "local"], "names of hosts on the link"),
        (["--cluster-domain", "a..b"], "empty label"),
        (["--cluster-domain", "."], "the root cannot be a zone"),
        (["--advertise", "127.0.0.5"], "no other machine"),
        (
            ["--advertise", "192.0.2.1,192.0.2.2"],
            "one address a family",
        ),
    ] {
        assert_refused(&args, said);
    }
}

/// `portico up` with `args` does not start and says so.
fn assert_refused(args: &[&str], said: &str) {
    let folder = tempfile::tempdir().unwrap();
    let refused = portico(folder.path())
        .arg("up")
        .args(args)
        .arg(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains(said),
        "{args:?}: {text}"
    );
}

#[test]
fn resolve_traces_the_search_list_and_status_tells_what_was_meant() {
    in_namespace!(Root);
    let program = Program::up(&[], &[("all.yaml", MANIFESTS)]);
    let server = program.status().dns[0].bound.unwrap();
    let text = |args: &[&str]| String::from_utf8(program.command(args).stdout).unwrap();
    let traced = text(&["resolve", "--trace", "db.default", "-n", "shop"]);
    let lines: Vec<&str> = traced.lines().collect();
    assert_eq!(
        lines[0],
        "search shop.svc.cluster.local svc.cluster.local cluster.local"
    );
    assert!(
        lines[2].starts_with("1. db.default.shop.svc.cluster.local.  NXDOMAIN"),
        "{traced}"
    );
    assert!(lines[3].contains("NOERROR: A 127.0.0.2"), "{traced}");
    assert_eq!(
        lines[4],
        "The application gets the records of db.default.svc.cluster.local."
    );
    let misspelt = text(&["resolve", "ehco.default.svc.cluster.local"]);
    assert!(
        misspelt.ends_with("did you mean echo.default.svc.cluster.local.?\n"),
        "{misspelt}"
    );

    ask_udp(server, "ecoh.default.svc.cluster.local.", RecordType::A);
    let told = "DNS: ecoh.default.svc.cluster.local. does not exist (asked once): did you mean echo.default.svc.cluster.local.?";
    let status = text(&["status"]);
    assert!(status.lines().any(|line| line == told), "{status}");
    let samples = scrape(admin(&program));
    assert!(
        (samples["coredns_dns_responses_total{rcode=\"NXDOMAIN\"}"] - 1.0).abs() < f64::EPSILON
    );
}
