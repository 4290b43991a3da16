//! Rules of the Service API against the running program: who may connect, health checks, live changes of type and
//! labels, zones.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::Instant,
};

use portico::control::status::{ServiceStatus, Status};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
    net,
};

use crate::support::{
    PATIENCE, addr, get,
    namespace::in_namespace,
    program::{Program, way},
};

/// A backend that answers every connection with its name.
fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let length = name.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
            );
        }
    });
    bound
}

/// A Service `web` with this `metadata` beside its name and this `spec`.
fn web(metadata: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n{metadata}spec:\n{spec}")
}

/// A slice of `web`: each endpoint with the lines that follow its address.
fn slice(endpoints: &[(SocketAddr, &str)]) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels:\n    \
         kubernetes.io/service-name: web\naddressType: IPv4\nports:\n  - port: {}\nendpoints:\n",
        endpoints[0].0.port()
    );
    for (endpoint, rest) in endpoints {
        text.push_str("  - addresses: [\"");
        text.push_str(&endpoint.ip().to_string());
        text.push_str("\"]\n");
        text.push_str(rest);
    }
    text
}

/// One request from `source`: the answer's body, or what became of the connection.
fn get_from(source: &str, target: SocketAddr) -> std::io::Result<String> {
    let connecting = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0))?;
        tokio::time::timeout(PATIENCE, socket.connect(target)).await?
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut stream = runtime.block_on(connecting)?.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    Ok(body.unwrap_or_default().to_owned())
}

/// The socket of a client at `source` that is on its way to `target` and does not wait.
fn begin(source: &str, target: SocketAddr) -> OwnedFd {
    let flags = net::SocketFlags::NONBLOCK | net::SocketFlags::CLOEXEC;
    let (family, stream) = (net::AddressFamily::INET, net::SocketType::STREAM);
    let socket = net::socket_with(family, stream, flags, None).unwrap();
    let source: IpAddr = source.parse().unwrap();
    net::bind(&socket, &SocketAddr::new(source, 0)).unwrap();
    assert_eq!(net::connect(&socket, &target), Err(Errno::INPROGRESS));
    socket
}

/// Whether anything came back: a connection, a refusal.
fn is_answered(client: &OwnedFd) -> bool {
    let mut poll = [PollFd::new(client, PollFlags::OUT | PollFlags::HUP)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut poll, Some(&now)).unwrap() > 0
}

/// Packets that the filter of the socket at `door` has dropped.
fn dropped_at(status: &Status, door: SocketAddr) -> u32 {
    let mut reports = status.listeners.iter();
    let report = reports.find(|report| {
        report.declared.port() == door.port()
            && (report.declared == door || report.declared.ip().is_unspecified())
    });
    report
        .and_then(|report| report.dropped_by_filter)
        .unwrap_or_default()
}

/// What a command of the same instance prints.
fn said(program: &Program, args: &[&str]) -> String {
    String::from_utf8(program.command(args).stdout).unwrap()
}

/// A client at `source` hears nothing of `door`: neither a connection nor a refusal.
fn assert_dropped(program: &Program, source: &str, door: SocketAddr) {
    let before = dropped_at(&program.status(), door);
    let client = begin(source, door);
    let deadline = Instant::now() + PATIENCE;
    while dropped_at(&program.status(), door) == before {
        assert!(Instant::now() < deadline, "{source} to {door}: no drop");
    }
    assert!(!is_answered(&client), "{source} to {door}");
}

pub(crate) fn service<'s>(status: &'s Status, name: &str) -> &'s ServiceStatus {
    status
        .services
        .iter()
        .find(|service| service.name == name)
        .unwrap()
}

fn wait_for_type(program: &Program, wanted: &str) -> ServiceStatus {
    let status = program.wait_for(wanted, |status| {
        service(status, "web").service_type == wanted
    });
    service(&status, "web").clone()
}

#[test]
fn row_29_source_ranges_drop_and_follow_edits() {
    in_namespace!(Root);
    let endpoint = backend("me");
    let spec = |ranges: &str| {
        let spec = format!(
            "  type: LoadBalancer\n  loadBalancerSourceRanges: {ranges}\n  ports:\n    - port: 80\n"
        );
        web("", &spec)
    };
    let program = Program::up(
        &[],
        &[
            ("web.yaml", &spec("[\" 127.0.1.0/24 \"]")),
            ("slice.yaml", &slice(&[(endpoint, "")])),
        ],
    );
    let status = program.wait_for_endpoints("web", 1);
    let door = way(&status, "LoadBalancer");
    assert_eq!(get_from("127.0.1.7", door).unwrap(), "me");
    assert_dropped(&program, "127.0.2.7", door);
    for open in ["NodePort", "ClusterIP"] {
        let door = way(&status, open);
        assert_eq!(get_from("127.0.2.7", door).unwrap(), "me", "{open}");
    }
    let status = program.status();
    let port = &service(&status, "web").ports[0];
    assert_eq!((port.dropped_source_range, port.rejected), (0, 0));
    let told = said(&program, &["describe", "service", "web"]);
    assert!(told.contains("dropped by a socket filter"), "{told}");
    let told = said(&program, &["explain", "service", "web"]);
    assert!(told.contains("its socket filter dropped"), "{told}");

    let generation = status.generation;
    program.write("web.yaml", &spec("[127.0.2.0/24]"));
    program.wait_for("the edit", |status| status.generation > generation);
    assert_eq!(get_from("127.0.2.7", door).unwrap(), "me");
    assert_dropped(&program, "127.0.1.7", door);

    // Ranges of the other family only: nobody, and said.
    let generation = program.status().generation;
    program.write("web.yaml", &spec("[\"fd00::/8\"]"));
    let status = program.wait_for("the edit", |status| status.generation > generation);
    assert_dropped(&program, "127.0.2.7", door);
    let findings = status.findings_text();
    assert!(
        findings.contains("no range is of the family of"),
        "{findings}"
    );

    let generation = status.generation;
    program.write("web.yaml", &spec("[]"));
    program.wait_for("the edit", |status| status.generation > generation);
    assert_eq!(get_from("127.0.2.7", door).unwrap(), "me");
}

#[test]
fn source_ranges_everywhere_guard_node_ports_too() {
    in_namespace!(Root);
    let spec = "  type: LoadBalancer\n  loadBalancerSourceRanges: [127.0.1.0/24]\n  ports:\n    - port: 80\n";
    let program = Program::up(
        &["--source-ranges-everywhere"],
        &[
            ("web.yaml", &web("", spec)),
            ("slice.yaml", &slice(&[(backend("me"), "")])),
        ],
    );
    let status = program.wait_for_endpoints("web", 1);
    let door = way(&status, "NodePort");
    assert_eq!(get_from("127.0.1.7", door).unwrap(), "me");
    assert_dropped(&program, "127.0.2.7", door);
}

#[test]
fn internal_policy_without_a_local_endpoint_drops_and_follows_edits() {
    in_namespace!(Root);
    let spec = "  internalTrafficPolicy: Local\n  ports:\n    - port: 80\n";
    let far = slice(&[(backend("far"), "    nodeName: elsewhere\n")]);
    let program = Program::up(
        &["--node-name", "here"],
        &[("web.yaml", &web("", spec)), ("slice.yaml", &far)],
    );
    let status = program.status();
    let door = way(service(&status, "web"), "ClusterIP");
    assert_dropped(&program, "127.0.0.1", door);
    let told = said(&program, &["explain", "service", "web"]);
    assert!(
        told.contains("connections are dropped by a socket filter"),
        "{told}"
    );
    let near = slice(&[(backend("near"), "    nodeName: here\n")]);
    program.write("slice.yaml", &near);
    program.wait_for_endpoints("web", 1);
    assert_eq!(get_from("127.0.0.1", door).unwrap(), "near");
}

/// Status line, headers in lower case and body of a health check.
pub(crate) fn ask_health(port: u16) -> (String, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    (line.to_owned(), headers.to_lowercase(), body.to_owned())
}

fn health_port(program: &Program) -> u16 {
    let services = program.objects("services");
    let web = services
        .iter()
        .find(|service| service["metadata"]["name"] == "web")
        .unwrap();
    let port = web["spec"]["healthCheckNodePort"].as_u64().unwrap();
    u16::try_from(port).unwrap()
}

#[test]
fn health_check_says_503_while_a_terminating_endpoint_still_serves() {
    in_namespace!(Root);
    let endpoint = backend("me");
    let spec = "  type: LoadBalancer\n  externalTrafficPolicy: Local\n  ports:\n    - port: 80\n";
    let program = Program::up(
        &[],
        &[
            ("web.yaml", &web("", spec)),
            ("slice.yaml", &slice(&[(endpoint, "")])),
        ],
    );
    let status = program.wait_for_endpoints("web", 1);
    let port = health_port(&program);
    let (line, headers, body) = ask_health(port);
    assert_eq!(line, "HTTP/1.1 200 OK");
    for header in [
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-load-balancing-endpoint-weight: 1",
    ] {
        assert!(headers.lines().any(|line| line == header), "{headers}");
    }
    let expected = "{\n\t\"service\": {\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 1,\n\t\"serviceProxyHealthy\": true\n}";
    assert_eq!(body, expected);

    let ending = "    conditions: {ready: false, serving: true, terminating: true}\n";
    let generation = program.status().generation;
    program.write("slice.yaml", &slice(&[(endpoint, ending)]));
    program.wait_for("the end begins", |status| status.generation > generation);
    assert_eq!(ask_health(port).0, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(get(way(&status, "NodePort")).unwrap(), "me");

    // Policy Cluster needs no health check: its port is closed.
    program.write("web.yaml", &web("", &spec.replace("Local", "Cluster")));
    program.wait_for("no health check", |status| {
        let mut ways = service(status, "web")
            .ports
            .iter()
            .flat_map(|port| &port.reachable);
        !ways.any(|way| way.kind == "HealthCheck")
    });
    let error = TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn types_change_live_in_both_directions() {
    in_namespace!(Root);
    let ports = "  ports:\n    - port: 80\n";
    let program = Program::up(
        &[],
        &[
            (
                "web.yaml",
                &web("", "  type: ExternalName\n  externalName: example.com\n"),
            ),
            ("slice.yaml", &slice(&[(backend("me"), "")])),
        ],
    );
    assert_eq!(service(&program.status(), "web").cluster_ip, "");
    program.write("web.yaml", &web("", &format!("  type: NodePort\n{ports}")));
    let node_port = wait_for_type(&program, "NodePort");
    assert_eq!(get(way(&node_port, "NodePort")).unwrap(), "me");
    assert_eq!(get(way(&node_port, "ClusterIP")).unwrap(), "me");

    program.write(
        "web.yaml",
        &web("", &format!("  type: LoadBalancer\n{ports}")),
    );
    let balancer = wait_for_type(&program, "LoadBalancer");
    assert_eq!(balancer.cluster_ip, node_port.cluster_ip);
    assert_eq!(way(&balancer, "NodePort"), way(&node_port, "NodePort"));
    assert_eq!(get(way(&balancer, "LoadBalancer")).unwrap(), "me");

    program.write("web.yaml", &web("", &format!("  type: ClusterIP\n{ports}")));
    let plain = wait_for_type(&program, "ClusterIP");
    assert_eq!(plain.cluster_ip, node_port.cluster_ip);
    let error = TcpStream::connect(way(&node_port, "NodePort")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(get(way(&plain, "ClusterIP")).unwrap(), "me");

    program.write(
        "web.yaml",
        &web("", "  type: ExternalName\n  externalName: example.com\n"),
    );
    wait_for_type(&program, "ExternalName");
    assert!(TcpStream::connect(way(&plain, "ClusterIP")).is_err());
}

#[test]
fn labels_of_another_proxy_toggle_live() {
    in_namespace!(Root);
    let spec = "  clusterIP: 127.96.7.7\n  ports:\n    - port: 80\n";
    let program = Program::up(
        &[],
        &[
            ("web.yaml", &web("", spec)),
            ("slice.yaml", &slice(&[(backend("me"), "")])),
        ],
    );
    program.wait_for_endpoints("web", 1);
    let door = addr("127.96.7.7:80");
    for label in ["service-proxy-name: other", "headless: \"\""] {
        let labels = format!("  labels:\n    service.kubernetes.io/{label}\n");
        program.write("web.yaml", &web(&labels, spec));
        program.wait_for("hidden", |status| service(status, "web").ports.is_empty());
        assert_eq!(
            TcpStream::connect(door).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        program.write("web.yaml", &web("", spec));
        program.wait_for_endpoints("web", 1);
        assert_eq!(get(door).unwrap(), "me");
    }
}

#[test]
fn zones_of_nodes_decide_which_endpoints_are_preferred() {
    in_namespace!(Root);
    let node = |name: &str, zone: &str| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels:\n    topology.kubernetes.io/zone: {zone}\n"
        )
    };
    let pod = |name: &str, node: &str, ip: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: web}}\nspec:\n  nodeName: {node}\n  \
             containers:\n    - name: web\n      image: web\nstatus:\n  podIP: {ip}\n"
        )
    };
    let spec =
        "  trafficDistribution: PreferSameZone\n  selector: {app: web}\n  ports:\n    - port: 80\n";
    let nodes = |far: &str| node("near", "za") + &node("far", far);
    let program = Program::up(
        &["--node-name", "near"],
        &[
            ("web.yaml", &web("", spec)),
            (
                "pods.yaml",
                &(pod("a", "near", "127.1.0.1") + &pod("b", "far", "127.1.0.2")),
            ),
            ("nodes.yaml", &nodes("zb")),
        ],
    );
    let near: IpAddr = [127, 1, 0, 1].into();
    let web = program.wait_for_endpoints("web", 1);
    assert_eq!(web.ports[0].endpoints[0].address.ip(), near);
    program.write("nodes.yaml", &nodes("za"));
    program.wait_for_endpoints("web", 2);
    program.write("nodes.yaml", &nodes("zc"));
    program.wait_for_endpoints("web", 1);
}
