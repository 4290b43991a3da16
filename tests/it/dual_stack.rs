//! Dual stack against the running program: families in either order, each reached on its own, node ports of IPv6,
//! affinity, names, and a second family that comes and goes.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use portico::control::status::Status;
use serde_json::Value;

use crate::support::{
    PATIENCE, addr,
    namespace::in_namespace,
    program::{Program, portico},
};

const RANGE: &str = "fd00:10:96::/112";
const BALANCERS: &str = "fd00:10:97::/112";
const DUAL: [&str; 4] = [
    "--service-cidr-v6",
    RANGE,
    "--loadbalancer-cidr-v6",
    BALANCERS,
];

/// What an administrator does for a range of IPv6; false where the kernel has none.
fn make_local() -> bool {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 here");
        return false;
    }
    for range in [RANGE, BALANCERS] {
        let route = Command::new("ip")
            .args(["-6", "route", "add", "local", range, "dev", "lo"])
            .status();
        assert!(route.unwrap().success());
    }
    true
}

/// A backend that answers every connection with its name.
fn serve(bind: &str, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(bind).unwrap();
    let bound = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(name.as_bytes());
        }
    });
    bound
}

fn backends_of_ipv4() -> Vec<SocketAddr> {
    vec![serve("127.0.0.1:9000", "4a"), serve("127.0.0.2:9000", "4b")]
}

/// Two backends a family.
fn backends() -> [Vec<SocketAddr>; 2] {
    let six = vec![serve("[::1]:9000", "6c"), serve("[::1]:9001", "6d")];
    [backends_of_ipv4(), six]
}

/// A Service `web` on port 80; `spec` has lines of its own.
fn service(spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n{spec}  ports: [{{port: 80}}]\n"
    )
}

/// A slice for each endpoint, since their port numbers differ.
fn slices(endpoints: &[Vec<SocketAddr>]) -> String {
    let slice = |(index, endpoint): (usize, &SocketAddr)| {
        let family = if endpoint.is_ipv4() { "IPv4" } else { "IPv6" };
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-{index}, labels: \
             {{kubernetes.io/service-name: web}}}}\naddressType: {family}\nports: [{{port: {}}}]\nendpoints: \
             [{{addresses: [\"{}\"]}}]\n",
            endpoint.port(),
            endpoint.ip()
        )
    };
    let all = endpoints.iter().flatten().enumerate().map(slice);
    all.collect::<Vec<_>>().join("---\n")
}

fn ask(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The answers of `times` connections, sorted, each once.
fn answers(to: SocketAddr, times: usize) -> Vec<String> {
    let mut all: Vec<String> = (0..times).map(|_| ask(to).unwrap()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn refused(to: SocketAddr) -> bool {
    ask(to).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// `spec` of the Service as the API has it.
fn spec(program: &Program) -> Value {
    let all = program.objects("services");
    let web = all.iter().find(|one| one["metadata"]["name"] == "web");
    web.map_or(Value::Null, |web| web["spec"].clone())
}

fn addresses(spec: &Value) -> Vec<IpAddr> {
    let all = spec["clusterIPs"].as_array().unwrap().iter();
    all.map(|one| one.as_str().unwrap().parse().unwrap())
        .collect()
}

/// Every door of `web`, by family: kind and where it is open.
fn doors(status: &Status, kind: &str) -> Vec<SocketAddr> {
    let ports = status.services.iter().flat_map(|service| &service.ports);
    let ways = ports.flat_map(|port| &port.reachable);
    ways.filter(|way| way.kind == kind)
        .filter_map(|way| way.bound)
        .collect()
}

fn lookup(program: &Program, name: &str, record_type: RecordType) -> Message {
    let server = program.status().dns[0].bound.unwrap();
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server).unwrap();
    socket.send(&question.to_vec().unwrap()).unwrap();
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).unwrap();
    Message::from_vec(&answer[..length]).unwrap()
}

/// Addresses at a name: those of A and those of AAAA.
fn named(program: &Program, name: &str) -> [Vec<IpAddr>; 2] {
    [RecordType::A, RecordType::AAAA].map(|record_type| {
        let answer = lookup(program, name, record_type);
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "{name}"
        );
        let records = answer.answers.iter();
        let mut found: Vec<IpAddr> = records
            .filter_map(|record| match &record.data {
                RData::A(a) => Some(a.0.into()),
                RData::AAAA(aaaa) => Some(aaaa.0.into()),
                _ => None,
            })
            .collect();
        found.sort_unstable();
        found
    })
}

#[test]
fn row_35_families_in_either_order_are_each_reached_by_their_own_endpoints() {
    in_namespace!(Root);
    if !make_local() {
        return;
    }
    let endpoints = slices(&backends());
    let program = Program::up(
        &DUAL,
        &[
            ("web.yaml", &service("  ipFamilies: [IPv6]\n")),
            ("slices.yaml", &endpoints),
        ],
    );
    let single = spec(&program);
    let alone = addresses(&single);
    assert_eq!(single["ipFamilies"], serde_json::json!(["IPv6"]));
    assert_eq!(single["ipFamilyPolicy"], "SingleStack");
    assert!(alone.len() == 1 && alone[0].is_ipv6(), "{single}");
    assert_eq!(answers((alone[0], 80).into(), 4), ["6c", "6d"]);

    for (families, wanted) in [
        ("[IPv6, IPv4]", ["IPv6", "IPv4"]),
        ("[IPv4, IPv6]", ["IPv4", "IPv6"]),
    ] {
        let text = service(&format!(
            "  ipFamilies: {families}\n  ipFamilyPolicy: RequireDualStack\n"
        ));
        if wanted[0] == "IPv4" {
            // The primary family may not change once set.
            program.write("web.yaml", "");
            program.wait_for("web is gone", |status| status.services.is_empty());
        }
        program.write("web.yaml", &text);
        let web = program.wait_for_object("services", "web", |web| {
            web["spec"]["ipFamilies"] == serde_json::json!(wanted)
        });
        let both = addresses(&web["spec"]);
        assert_eq!(both.len(), 2, "{web}");
        assert!(both.contains(&alone[0]), "what it has it keeps");
        for addr in both {
            let own = if addr.is_ipv4() {
                ["4a", "4b"]
            } else {
                ["6c", "6d"]
            };
            assert_eq!(answers((addr, 80).into(), 4), own, "{addr}");
        }
    }
    let text = service(
        "  clusterIP: \"fd00:10:96::7\"\n  clusterIPs: [\"fd00:10:96::7\", 127.96.0.7]\n  ipFamilyPolicy: PreferDualStack\n",
    );
    // Another primary address takes another Service.
    program.write("web.yaml", "");
    program.wait_for("web is gone", |status| status.services.is_empty());
    program.write("web.yaml", &text);
    program.wait_for_object("services", "web", |web| {
        web["spec"]["clusterIPs"] == serde_json::json!(["fd00:10:96::7", "127.96.0.7"])
    });
    assert_eq!(answers(addr("[fd00:10:96::7]:80"), 4), ["6c", "6d"]);
    assert_eq!(answers(addr("127.96.0.7:80"), 4), ["4a", "4b"]);
    let described = program.command(&["describe", "service", "web"]);
    let described = String::from_utf8_lossy(&described.stdout).into_owned();
    for line in [
        "IP Family Policy:         PreferDualStack",
        "IP Families:              IPv6,IPv4",
        "IPs:                      fd00:10:96::7,127.96.0.7",
    ] {
        assert!(described.contains(line), "{described}");
    }
}

#[test]
fn row_35_second_family_added_and_removed_live_leaves_the_first_alone() {
    in_namespace!(Root);
    if !make_local() {
        return;
    }
    let endpoints = slices(&backends());
    let program = Program::up(
        &DUAL,
        &[("web.yaml", &service("")), ("slices.yaml", &endpoints)],
    );
    let first = addresses(&spec(&program))[0];
    let held = TcpStream::connect((first, 80)).unwrap();
    program.write("web.yaml", &service("  ipFamilyPolicy: PreferDualStack\n"));
    let both = program.wait_for_object("services", "web", |web| {
        web["spec"]["clusterIPs"][1].is_string()
    });
    let both = addresses(&both["spec"]);
    assert_eq!(both[0], first);
    assert_eq!(answers((both[1], 80).into(), 4), ["6c", "6d"]);
    program.write("web.yaml", &service("  ipFamilyPolicy: SingleStack\n"));
    program.wait_for_object("services", "web", |web| {
        web["spec"]["clusterIPs"][1].is_null()
    });
    assert!(refused((both[1], 80).into()), "nothing listens there");
    assert_eq!(answers((first, 80).into(), 4), ["4a", "4b"]);
    let mut answer = String::new();
    (&held).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with('4'), "{answer}");
}

#[test]
fn row_35_node_ports_and_balancers_of_ipv6_are_served_beside_those_of_ipv4() {
    in_namespace!(Root);
    if !make_local() {
        return;
    }
    let [four, six] = backends();
    let balancer = |policy: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: LoadBalancer\n  ipFamilyPolicy: \
             {policy}\n  externalIPs: [\"fd00:9::9\"]\n  ports: [{{port: 80, nodePort: 30080}}]\n"
        )
    };
    // A cluster IP with a node port's number: the wildcard socket of its family hears it.
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec:\n  clusterIP: \"fd00:10:96::9\"\n  ports: \
                 [{port: 30080}]\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: other-1, \
                 labels: {kubernetes.io/service-name: other}}\naddressType: IPv6\nports: [{port: 9001}]\nendpoints: \
                 [{addresses: [\"::1\"]}]\n";
    let added = Command::new("ip")
        .args(["-6", "address", "add", "fd00:9::9/128", "dev", "lo"])
        .status();
    assert!(added.unwrap().success());
    let program = Program::up(
        &DUAL,
        &[
            ("web.yaml", &balancer("RequireDualStack")),
            ("slices.yaml", &slices(&[four, vec![six[0]]])),
            ("other.yaml", other),
        ],
    );
    let status = program.status();
    assert_eq!(doors(&status, "NodePort").len(), 2, "{status:#?}");
    assert_eq!(answers(addr("127.0.0.1:30080"), 4), ["4a", "4b"]);
    assert_eq!(answers(addr("[::1]:30080"), 4), ["6c"]);
    assert_eq!(answers(addr("[fd00:10:96::9]:30080"), 4), ["6d"]);
    assert_eq!(
        ask(addr("[fd00:10:96::8]:30080")).unwrap_err().kind(),
        ErrorKind::ConnectionReset,
        "an address of ours that no Service has"
    );
    assert_eq!(answers(addr("[fd00:9::9]:80"), 4), ["6c"]);
    let balancers = doors(&status, "LoadBalancer");
    assert_eq!(balancers.len(), 2);
    for door in balancers {
        assert_eq!(
            answers(door, 2)[0].as_bytes()[0],
            if door.is_ipv4() { b'4' } else { b'6' }
        );
    }
    program.write("web.yaml", &balancer("SingleStack"));
    program.wait_for("one family", |status| doors(status, "NodePort").len() == 1);
    assert!(refused(addr("[::1]:30080")));
    assert_eq!(answers(addr("[fd00:10:96::9]:30080"), 4), ["6d"]);
    assert_eq!(answers(addr("127.0.0.1:30080"), 4), ["4a", "4b"]);
}

#[test]
fn row_35_affinity_holds_on_the_secondary_family() {
    in_namespace!(Root);
    if !make_local() {
        return;
    }
    let endpoints = slices(&backends());
    let text = service("  ipFamilyPolicy: RequireDualStack\n  sessionAffinity: ClientIP\n");
    let program = Program::up(&DUAL, &[("web.yaml", &text), ("slices.yaml", &endpoints)]);
    for addr in addresses(&spec(&program)) {
        assert_eq!(answers((addr, 80).into(), 6).len(), 1, "{addr}");
    }
    let ports = program.status().services[0].ports.clone();
    let picks = |port: &portico::control::status::PortStatus| -> (u64, u64) {
        let endpoints = port.endpoints.iter();
        endpoints.fold((0, 0), |(all, kept), one| {
            (all + one.picks, kept + one.affine)
        })
    };
    let picks: Vec<(u64, u64)> = ports.iter().map(picks).collect();
    assert_eq!(picks, [(6, 5), (6, 5)], "each family by itself");
}

#[test]
fn row_35_names_have_the_addresses_of_their_families() {
    in_namespace!(Root);
    if !make_local() {
        return;
    }
    let headless = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, ports: [{port: 80}]}\n---\n\
                    apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: db-1, labels: \
                    {kubernetes.io/service-name: db}}\naddressType: IPv6\nports: [{port: 80}]\nendpoints: [{addresses: \
                    [\"fd00:1::7\"]}]\n";
    let text = service("  ipFamilyPolicy: RequireDualStack\n");
    let program = Program::up(&DUAL, &[("web.yaml", &text), ("db.yaml", headless)]);
    let both = addresses(&spec(&program));
    let name = "web.default.svc.cluster.local.";
    assert_eq!(named(&program, name), [vec![both[0]], vec![both[1]]]);
    let db: IpAddr = "fd00:1::7".parse().unwrap();
    assert_eq!(
        named(&program, "db.default.svc.cluster.local."),
        [vec![], vec![db]]
    );
    let IpAddr::V6(second) = both[1] else {
        panic!("{both:?}")
    };
    let nibbles = format!("{:032x}", u128::from(second));
    let reverse: Vec<String> = nibbles.chars().rev().map(String::from).collect();
    let answer = lookup(
        &program,
        &format!("{}.ip6.arpa.", reverse.join(".")),
        RecordType::PTR,
    );
    assert_eq!(answer.answers.len(), 1, "{answer:?}");
    assert_eq!(answer.answers[0].data.to_string(), name);
    // The primary family may not change once set: another Service takes its place.
    program.write("web.yaml", "");
    program.wait_for("web is gone", |status| {
        status.services.iter().all(|service| service.name != "web")
    });
    program.write("web.yaml", &service("  ipFamilies: [IPv6]\n"));
    program.wait_for_object("services", "web", |web| {
        web["spec"]["clusterIPs"] == serde_json::json!([second.to_string()])
    });
    assert_eq!(
        named(&program, name),
        [vec![], vec![IpAddr::V6(second)]],
        "no data of the other family"
    );
}

#[test]
fn row_35_require_dual_stack_without_a_range_is_invalid_and_the_last_good_version_stays() {
    in_namespace!(Root);
    let four = backends_of_ipv4();
    let program = Program::up(
        &[],
        &[
            ("web.yaml", &service("")),
            ("slices.yaml", &slices(&[four])),
        ],
    );
    let before = spec(&program);
    program.write("web.yaml", &service("  ipFamilyPolicy: RequireDualStack\n"));
    let reason = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services";
    program.wait_for("the finding", |status| {
        status.findings_text().contains(reason)
    });
    assert_eq!(spec(&program), before);
    assert_eq!(answers((addresses(&before)[0], 80).into(), 4), ["4a", "4b"]);
    program.write("web.yaml", &service("  ipFamilyPolicy: PreferDualStack\n"));
    let web = program.wait_for_object("services", "web", |web| {
        web["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    });
    assert_eq!(web["spec"]["clusterIPs"], before["clusterIPs"]);
    assert_eq!(web["spec"]["ipFamilies"], serde_json::json!(["IPv4"]));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    std::fs::write(&file, service("  ipFamilyPolicy: RequireDualStack\n")).unwrap();
    let validate = |args: &[&str]| {
        let mut command = portico(folder.path());
        let output = command
            .arg("validate")
            .args(args)
            .arg(&file)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, report) = validate(&[]);
    assert!(code == Some(1) && report.contains(reason), "{report}");
    assert!(report.contains("web.yaml:5:19"), "{report}");
    assert_eq!(validate(&["--service-cidr-v6", RANGE]).0, Some(0));
    let too_large = portico(folder.path())
        .args([
            "up",
            "--instance",
            "other",
            "--service-cidr-v6",
            "fd00::/48",
        ])
        .arg(&file)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&too_large.stderr).into_owned();
    assert!(
        error.contains("is too large; for 128-bit addresses, the mask must be >= 64"),
        "{error}"
    );
}

#[test]
fn names_are_answered_at_an_ipv6_address_that_a_route_makes_local() {
    in_namespace!(Root);
    if !make_local() {
        return;
    }
    let server = "[fd00:10:96::a]:53";
    let args = ["--service-cidr-v6", RANGE, "--dns-listen", server];
    let program = Program::up(&args, &[("web.yaml", &service(""))]);
    assert_eq!(program.status().dns[0].bound, Some(server.parse().unwrap()));
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii("web.default.svc.cluster.local.").unwrap();
    question.add_query(Query::query(name, RecordType::A));
    let socket = UdpSocket::bind("[::1]:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server).unwrap();
    socket.send(&question.to_vec().unwrap()).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap();
    let answer = Message::from_vec(&answer[..length]).unwrap();
    assert_eq!(answer.answers.len(), 1);
    TcpStream::connect(server).unwrap();
}

#[test]
fn filter_of_one_family_is_described_at_its_own_listener_alone() {
    in_namespace!(Root);
    if !make_local() {
        return;
    }
    let endpoints = backends();
    let spec =
        "  type: NodePort\n  ipFamilyPolicy: RequireDualStack\n  externalTrafficPolicy: Local\n";
    let text = format!("{}---\n{}", service(spec), slices(&endpoints));
    // Those of IPv4 are on another node.
    let mut documents: Vec<String> = text.split("---\n").map(str::to_owned).collect();
    for document in documents
        .iter_mut()
        .filter(|one| one.contains("addressType: IPv4"))
    {
        *document = document.replace("\"]}]", "\"], nodeName: far}]");
    }
    let program = Program::up(&DUAL, &[("web.yaml", &documents.join("---\n"))]);
    let described = program.command(&["describe", "service", "web"]).stdout;
    let described = String::from_utf8(described).unwrap();
    let lines: Vec<&str> = described.lines().collect();
    let after = |declared: &str| {
        let at = lines
            .iter()
            .position(|line| line.contains(declared))
            .unwrap();
        lines[at + 1]
    };
    assert!(after("0.0.0.0:").contains("Filter:"), "{described}");
    assert!(!after("[::]:").contains("Filter:"), "{described}");
}
