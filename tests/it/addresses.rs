//! Addresses: what is bound, what is not, what is said about it, and what serves meanwhile.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
};

use crate::support::{
    addr, get,
    namespace::in_namespace,
    program::{Program, way},
};

/// A Service with one process behind it.
fn service(name: &str, spec: &str, backend: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n{spec}---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  labels:\n    \
         kubernetes.io/service-name: {name}\naddressType: IPv4\nports:\n  - port: {}\nendpoints:\n  - addresses: [\"{}\"]\n",
        backend.port(),
        backend.ip()
    )
}

/// A backend that answers every connection with its name.
fn backend(bind: &str, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(bind).unwrap();
    let bound = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            answer(stream, name);
        }
    });
    bound
}

fn answer(mut stream: TcpStream, name: &str) {
    let mut request = [0; 1024];
    let _ = stream.read(&mut request);
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
        name.len()
    );
}

#[test]
fn backend_on_the_wildcard_of_the_service_port_is_served_beside_it() {
    in_namespace!(Root);
    let backend = backend("0.0.0.0:8080", "me");
    let text = service(
        "web",
        "  ports:\n    - port: 8080\n",
        addr("127.0.0.1:8080"),
    );
    let program = Program::up(&[], &[("web.yaml", &text)]);
    let web = program.wait_for_endpoints("web", 1);
    let door = way(&web, "ClusterIP");
    assert_eq!(door.port(), 18080, "the next port from + 10000 stands in");
    assert_eq!(get(door).unwrap(), "me");
    let status = program.status();
    let report = status
        .listeners
        .iter()
        .find(|report| report.state == "fallback")
        .unwrap();
    assert_eq!(report.bound, Some(door));
    assert!(
        report
            .reason
            .as_deref()
            .unwrap()
            .contains("ddress already in use"),
        "{report:?}"
    );
    assert!(
        report
            .holder
            .as_deref()
            .unwrap()
            .contains(&format!("pid {}", std::process::id())),
        "{report:?}"
    );
    assert!(
        report.fix.as_deref().unwrap().contains("127.0.0.1"),
        "{report:?}"
    );
    assert_eq!(backend.port(), 8080);
}

#[test]
fn declared_port_is_taken_back_once_it_is_free() {
    in_namespace!(Root);
    let holder = TcpListener::bind("0.0.0.0:8080").unwrap();
    let target = backend("127.0.0.1:0", "me");
    let program = Program::up(
        &[],
        &[(
            "web.yaml",
            &service("web", "  ports:\n    - port: 8080\n", target),
        )],
    );
    let web = program.wait_for_endpoints("web", 1);
    assert_eq!(way(&web, "ClusterIP").port(), 18080);
    drop(holder);
    let declared = SocketAddr::new(way(&web, "ClusterIP").ip(), 8080);
    // A retry is no generation: ask until it has happened.
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while get(declared).is_err() {
        assert!(std::time::Instant::now() < deadline, "{}", program.stderr());
        program.ask("/v1/status");
    }
    assert_eq!(get(declared).unwrap(), "me");
}

#[test]
fn cluster_ip_on_a_node_ports_number_works_beside_it_and_strangers_are_reset() {
    in_namespace!(Root);
    let (a, b) = (backend("127.0.0.1:0", "a"), backend("127.0.0.1:0", "b"));
    let files = [
        (
            "a.yaml",
            &*service(
                "a",
                "  type: NodePort\n  ports:\n    - port: 80\n      nodePort: 30080\n",
                a,
            ),
        ),
        (
            "b.yaml",
            &*service(
                "b",
                "  clusterIP: 127.96.7.7\n  ports:\n    - port: 30080\n",
                b,
            ),
        ),
    ];
    let program = Program::up(&[], &files);
    program.wait_for_endpoints("b", 1);
    assert_eq!(get(addr("127.0.0.1:30080")).unwrap(), "a");
    assert_eq!(get(addr("127.96.7.7:30080")).unwrap(), "b");
    let stranger = get(addr("127.96.7.8:30080")).unwrap_err();
    assert_eq!(
        stranger.kind(),
        ErrorKind::ConnectionReset,
        "an address of ours that no Service has"
    );
}

#[test]
fn no_endpoint_refuses_and_established_connections_stay() {
    in_namespace!(Root);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let program = Program::up(
        &[],
        &[(
            "web.yaml",
            &service(
                "web",
                "  clusterIP: 127.96.7.7\n  ports:\n    - port: 80\n",
                target,
            ),
        )],
    );
    let mut client = TcpStream::connect("127.96.7.7:80").unwrap();
    let (mut server, _) = listener.accept().unwrap();
    program.write("web.yaml", "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  clusterIP: 127.96.7.7\n  ports:\n    - port: 80\n");
    program.wait_for_endpoints("web", 0);
    assert_eq!(
        TcpStream::connect("127.96.7.7:80").unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    client.write_all(b"still here").unwrap();
    let mut read = [0; 10];
    server.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"still here");
    program.write(
        "web.yaml",
        &service(
            "web",
            "  clusterIP: 127.96.7.7\n  ports:\n    - port: 80\n",
            target,
        ),
    );
    program.wait_for_endpoints("web", 1);
    assert!(
        TcpStream::connect("127.96.7.7:80").is_ok(),
        "and listens again"
    );
}

#[test]
fn two_services_with_one_external_address_the_earlier_keeps_it() {
    in_namespace!(Root);
    let (a, b) = (backend("127.0.0.1:0", "a"), backend("127.0.0.1:0", "b"));
    let spec = "  externalIPs: [127.200.0.1]\n  ports:\n    - port: 8080\n";
    let program = Program::up(
        &[],
        &[
            ("a.yaml", &service("a", spec, a)),
            ("b.yaml", &service("b", spec, b)),
        ],
    );
    program.wait_for_endpoints("b", 1);
    assert_eq!(get(addr("127.200.0.1:8080")).unwrap(), "a");
    let findings = program.status().findings_text();
    assert!(
        findings.contains("127.200.0.1:8080/TCP is already served for Service default/a"),
        "{findings}"
    );
    std::fs::remove_file(program.manifests().join("a.yaml")).unwrap();
    program.wait_for("a is gone", |status| status.services.len() == 1);
    assert_eq!(
        get(addr("127.200.0.1:8080")).unwrap(),
        "b",
        "the next one takes over"
    );
}

#[test]
fn addresses_stay_over_a_restart_and_agree_offline() {
    in_namespace!(Root);
    let text = service("web", "  ports:\n    - port: 80\n", addr("127.0.0.1:1"));
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("web.yaml");
    std::fs::write(&manifests, &text).unwrap();
    let first = Program::up(&[], &[("web.yaml", &text)])
        .wait_for_endpoints("web", 1)
        .cluster_ip;
    let second = Program::up(&[], &[("web.yaml", &text)])
        .wait_for_endpoints("web", 1)
        .cluster_ip;
    assert_eq!(first, second);
    let offline = crate::support::program::portico(folder.path())
        .args([
            "resolve",
            "web.default.svc.cluster.local",
            "-o",
            "json",
            "-f",
        ])
        .arg(&manifests)
        .output()
        .unwrap();
    let answer = String::from_utf8_lossy(&offline.stdout);
    assert!(answer.contains(&first), "{answer}");
}

#[test]
fn second_start_of_an_instance_fails_and_names_the_holder() {
    in_namespace!(Root);
    let program = Program::up(&[], &[]);
    let second = program.command(&["up", program.manifests().to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(1));
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        error.contains(&program.pid().to_string()) && error.contains("--instance"),
        "{error}"
    );
}

#[test]
fn two_instances_serve_side_by_side_from_ranges_of_their_own() {
    in_namespace!(Root);
    let target = backend("127.0.0.1:0", "me");
    let text = service("web", "  ports:\n    - port: 8080\n", target);
    let first = Program::up(&[], &[("web.yaml", &text)]);
    let second = Program::up(&["--instance", "other"], &[("web.yaml", &text)]);
    let ways =
        [&first, &second].map(|program| way(&program.wait_for_endpoints("web", 1), "ClusterIP"));
    assert_ne!(ways[0].ip(), ways[1].ip());
    assert!(
        ways.iter()
            .all(|way| way.port() == 8080 && get(*way).unwrap() == "me"),
        "{ways:?}"
    );
    let dns = [&first, &second].map(|program| program.status().dns[0].bound.unwrap());
    assert_ne!(dns[0], dns[1]);
}

#[test]
fn node_ports_narrowed_to_loopback_are_served_there_only() {
    in_namespace!(Root);
    let status = std::process::Command::new("ip")
        .args(["address", "add", "10.9.8.7/32", "dev", "lo"])
        .status();
    assert!(status.unwrap().success());
    let target = backend("127.0.0.1:0", "me");
    let text = service(
        "web",
        "  type: NodePort\n  ports:\n    - port: 80\n      nodePort: 30080\n",
        target,
    );
    let narrow = Program::up(
        &["--nodeport-addresses", "127.0.0.0/8"],
        &[("web.yaml", &text)],
    );
    narrow.wait_for_endpoints("web", 1);
    assert_eq!(get(addr("127.0.0.1:30080")).unwrap(), "me");
    assert_eq!(
        get(addr("10.9.8.7:30080")).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    drop(narrow);
    let wide = Program::up(&[], &[("web.yaml", &text)]);
    wide.wait_for_endpoints("web", 1);
    assert_eq!(get(addr("10.9.8.7:30080")).unwrap(), "me");
}
