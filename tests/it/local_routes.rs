//! Addresses that are this host's by a route: ranges of a real cluster, and external addresses. Each test has a network
//! namespace of its own, whose routes it may change.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use portico::host::routes::{RouteError, Routes};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::{
    PATIENCE, addr, get,
    namespace::in_namespace,
    program::{Program, portico, way},
};

/// A backend that answers every connection with the address it came from.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bound = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let (mut request, peer) = ([0; 1024], peer.ip().to_string());
            let _ = stream.read(&mut request);
            let length = peer.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{peer}"
            );
        }
    });
    bound
}

/// A Service `web` on port 80 with this in its spec, and a process behind it.
fn web(spec: &str, backend: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  ports: [{{port: 80}}]\n{spec}---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels:\n    \
         kubernetes.io/service-name: web\naddressType: IPv4\nports:\n  - port: {}\nendpoints:\n  - addresses: [\"{}\"]\n",
        backend.port(),
        backend.ip()
    )
}

/// A command of ip(8), which must do.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The destinations of all local routes that a portico made.
fn ours() -> Vec<String> {
    let text = ip("route show table local proto 150") + &ip("-6 route show table local proto 150");
    let lines = text.lines();
    let destination = |line: &str| line.split_whitespace().nth(1).unwrap().to_owned();
    lines.map(destination).collect()
}

/// `portico up` that is to fail: what it says.
fn refused(folder: &Path, args: &[&str]) -> String {
    std::fs::write(folder.join("web.yaml"), web("", addr("127.0.0.1:1"))).unwrap();
    let plain = portico(folder);
    let environment = plain
        .get_envs()
        .filter_map(|(key, value)| Some((key, value?)));
    // One that starts all the same must not hold the test up.
    let Output { status, stderr, .. } = Command::new("timeout")
        .arg(PATIENCE.as_secs().to_string())
        .arg(plain.get_program())
        .arg("up")
        .args(args)
        .arg(folder.join("web.yaml"))
        .envs(environment)
        .output()
        .unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(!status.success(), "{said}");
    said
}

/// What becomes of a connection from a port of our choice.
fn connect_from(port: u16, target: SocketAddr) -> std::io::Result<TcpStream> {
    let connecting = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new([0, 0, 0, 0].into(), port))?;
        socket.connect(target).await?.into_std()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(connecting)
}

#[test]
fn service_range_of_a_cluster_is_served_as_declared_and_leaves_with_the_program() {
    in_namespace!(Root);
    let text = web("  clusterIP: 10.96.7.8\n", backend());
    let mut program = Program::up(&["--service-cidr", "10.96.0.0/12"], &[("web.yaml", &text)]);
    assert_eq!(
        way(&program.wait_for_endpoints("web", 1), "ClusterIP"),
        addr("10.96.7.8:80")
    );
    assert_eq!(
        get(addr("10.96.7.8:80")).unwrap(),
        "127.0.0.1",
        "what the backend sees"
    );
    let client = TcpStream::connect(addr("10.96.7.8:80")).unwrap();
    assert_eq!(
        client.local_addr().unwrap().ip(),
        IpAddr::from([127, 0, 0, 1]),
        "the VIP itself without a preferred source"
    );
    drop(client);
    assert_eq!(
        program.stderr().matches("not in the service range").count(),
        0
    );
    assert_eq!(ours(), ["10.96.0.0/12"]);

    program.signal("TERM");
    assert!(program.ended().success());
    assert_eq!(ours(), [""; 0]);
}

#[test]
fn vip_where_nobody_listens_refuses_also_from_a_port_with_its_number() {
    in_namespace!(Root);
    let text = web("", backend());
    let _program = Program::up(&["--service-cidr", "10.96.0.0/12"], &[("web.yaml", &text)]);
    let dead = addr("10.96.200.200:9999");
    for port in [0, dead.port()] {
        let error = connect_from(port, dead).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionRefused,
            "from port {port}"
        );
    }
    // What it guards against: the same route without a source lets the client meet itself.
    ip("route add local 10.200.0.0/16 dev lo table local");
    let met = connect_from(9999, addr("10.200.0.9:9999")).unwrap();
    assert_eq!(met.local_addr().unwrap(), met.peer_addr().unwrap());
}

#[test]
fn routes_of_a_killed_run_are_found_by_its_next_one_and_by_no_other() {
    in_namespace!(Root);
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let run = ["--runtime-dir", run.to_str().unwrap()];
    let text = web(
        "  clusterIP: 10.96.7.8\n  externalIPs: [203.0.113.7]\n",
        backend(),
    );
    let files = [("web.yaml", &*text)];
    let real = [
        &run[..],
        &[
            "--service-cidr",
            "10.96.0.0/12",
            "--external-ip-cidr",
            "203.0.113.0/24",
        ],
    ]
    .concat();
    let kill = |program: &mut Program| {
        program.signal("KILL");
        program.ended();
        assert_eq!(ours(), ["10.96.0.0/12", "203.0.113.7"]);
    };
    kill(&mut Program::up(&real, &files));

    let other = tempfile::tempdir().unwrap();
    let said = refused(other.path(), &["--service-cidr", "10.96.0.0/16"]);
    assert!(
        said.contains("10.96.0.0/16 is in use on this host: local 10.96.0.0/12 dev lo, left by another instance"),
        "{said}"
    );
    assert_eq!(ours(), ["10.96.0.0/12", "203.0.113.7"], "not its own");

    let mut again = Program::up(&real, &files);
    assert_eq!(get(addr("10.96.7.8:80")).unwrap(), "127.0.0.1");
    assert!(
        again.stderr().contains("a former run left"),
        "{}",
        again.stderr()
    );
    let said = refused(other.path(), &["--service-cidr", "10.96.0.0/16"]);
    assert!(
        said.contains("a route of another instance of portico that runs"),
        "{said}"
    );
    kill(&mut again);

    // One that needs none of them cleans up all the same.
    let mut last = Program::up(&run, &[("web.yaml", &web("", backend()))]);
    assert_eq!(ours(), [""; 0]);
    last.signal("INT");
    assert!(last.ended().success());
    assert_eq!(ours(), [""; 0]);
}

#[test]
fn range_without_the_privilege_is_refused_with_every_way_out() {
    in_namespace!(Unprivileged);
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ["--service-cidr", "10.96.0.0/12"],
        ["--external-ip-cidr", "203.0.113.0/24"],
    ];
    for setting in settings {
        let said = refused(folder.path(), &setting);
        for part in [
            "is not local to this host, and to make it so needs CAP_NET_ADMIN",
            "fix: sudo setcap cap_net_admin,cap_net_bind_service+ep ",
            "127/8",
            "unshare -rn",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}

#[test]
fn range_that_somebody_uses_is_refused_and_nothing_is_left() {
    in_namespace!(Root);
    ip("address add 10.100.0.7/32 dev lo");
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "--pod-cidr",
        "10.100.0.0/16",
        "--service-cidr",
        "10.32.0.0/16",
    ];
    let said = refused(folder.path(), &args);
    assert!(
        said.contains("10.100.0.0/16 is in use on this host: local 10.100.0.7/32 dev lo"),
        "{said}"
    );
    assert_eq!(ours(), [""; 0], "the range that was free is given back");
}

#[test]
fn range_while_loopback_is_down_is_refused_with_the_fix() {
    in_namespace!(Root);
    // As in a namespace that is new: down, and without an address.
    ip("link set lo down");
    ip("address del 127.0.0.1/8 dev lo");
    let folder = tempfile::tempdir().unwrap();
    let said = refused(folder.path(), &["--service-cidr", "10.96.0.0/12"]);
    assert!(said.contains("fix: sudo ip link set lo up"), "{said}");
}

#[test]
fn ranges_of_both_families_become_local_and_leave_with_their_owner() {
    in_namespace!(Root);
    let nets = ["10.96.0.0/12", "fd00:96::/108"].map(|net| net.parse().unwrap());
    let mut routes = Routes::open("both families");
    assert_eq!(routes.make_local(&nets).unwrap(), nets);
    assert_eq!(
        routes.make_local(&nets).unwrap(),
        [],
        "a second time adds nothing"
    );
    assert_eq!(ours(), ["10.96.0.0/12", "fd00:96::/108"]);
    let mut twin = Routes::open("both families");
    assert_eq!(ours().len(), 2, "its owner lives");
    let error = twin.allow(&nets).unwrap_err();
    assert!(matches!(error, RouteError::Running), "{error}");
    drop(twin);

    let mut other = Routes::open("another");
    other
        .allow(&["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()))
        .unwrap();
    for text in ["203.0.113.7", "2001:db8::7"] {
        let addr: IpAddr = text.parse().unwrap();
        assert!(other.attach(addr).unwrap());
        assert!(!other.attach(addr).unwrap(), "it is there");
    }
    assert!(
        !other.attach([10, 96, 0, 1].into()).unwrap(),
        "it is local by the range"
    );
    assert_eq!(ours().len(), 4);
    // Somebody's own route to an address is respected, and the address is had once that is gone.
    let taken: IpAddr = [198, 51, 100, 1].into();
    ip("route add blackhole 198.51.100.1");
    other.attach(taken).unwrap_err();
    assert_eq!(other.retry(), [] as [IpAddr; 0]);
    ip("route del blackhole 198.51.100.1");
    assert_eq!(other.retry(), [taken]);
    assert_eq!(ours().len(), 5);
    drop(routes);
    drop(other);
    assert_eq!(ours(), [""; 0]);
}

/// Another host: a network namespace joined to ours by a cable. We are 192.168.7.1 there, and its way to everywhere.
struct Neighbour(Child);

impl Neighbour {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo there; cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "there\n");
        let neighbour = Self(child);
        let pid = neighbour.0.id();
        ip(&format!(
            "link add near type veth peer name far netns {pid}"
        ));
        ip("address add 192.168.7.1/24 dev near");
        ip("link set near up");
        neighbour.run(|| {
            ip("link set lo up");
            ip("address add 192.168.7.2/24 dev far");
            ip("link set far up");
            ip("route add default via 192.168.7.1")
        });
        neighbour
    }

    /// Does something there.
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let space = std::fs::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        // A thread of its own: it stays there.
        let there = std::thread::spawn(move || {
            use std::os::fd::AsFd as _;
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        there.join().unwrap()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn row_28_external_address_that_no_interface_has_is_reachable_here_and_from_another_host() {
    in_namespace!(Root);
    let neighbour = Neighbour::new();
    let target = backend();
    let with = |spec: &str| web(spec, target);
    let program = Program::up(
        &["--external-ip-cidr", "203.0.113.0/24"],
        &[(
            "web.yaml",
            &with("  externalIPs: [203.0.113.7, 198.51.100.9]\n"),
        )],
    );
    assert_eq!(ours(), ["203.0.113.7"], "the other one is in no range");
    assert_eq!(get(addr("203.0.113.7:80")).unwrap(), "127.0.0.1");
    let there = neighbour.run(|| get(addr("203.0.113.7:80")).unwrap());
    assert_eq!(there, "127.0.0.1");
    let status = program.status();
    let failed: Vec<_> = status
        .listeners
        .iter()
        .filter(|report| report.state == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].declared, addr("198.51.100.9:80"));
    let fix = failed[0].fix.as_deref().unwrap();
    assert!(fix.contains("--external-ip-cidr 198.51.100.9/32"), "{fix}");

    let explained = program.command(&["explain", "service", "web"]);
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(!explained.contains("203.0.113.7 is not"), "{explained}");

    // Live: another address, for a load balancer too.
    program.write(
        "web.yaml",
        &with(
            "  type: LoadBalancer\n  loadBalancerIP: 203.0.113.8\n  externalIPs: [203.0.113.9]\n",
        ),
    );
    program.wait_for("the new addresses", |status| {
        let web = status.services.iter().find(|service| service.name == "web");
        web.is_some_and(|web| web.external_ips.contains(&[203, 0, 113, 9].into()))
    });
    assert_eq!(ours(), ["203.0.113.8", "203.0.113.9"]);
    for text in ["203.0.113.8:80", "203.0.113.9:80"] {
        assert_eq!(
            neighbour.run(|| get(addr(text)).unwrap()),
            "127.0.0.1",
            "{text}"
        );
    }
    let gone = TcpStream::connect_timeout(&addr("203.0.113.7:80"), PATIENCE).unwrap_err();
    assert_ne!(gone.kind(), ErrorKind::TimedOut, "{gone}");
    std::fs::remove_file(program.manifests().join("web.yaml")).unwrap();
    program.wait_for("no Service", |status| {
        status.services.iter().all(|service| service.name != "web")
    });
    assert_eq!(ours(), [""; 0]);
}

#[test]
fn external_address_without_a_range_is_served_nowhere_and_said() {
    in_namespace!(Root);
    let program = Program::up(
        &[],
        &[(
            "web.yaml",
            &web("  externalIPs: [203.0.113.7]\n", backend()),
        )],
    );
    assert_eq!(ours(), [""; 0]);
    TcpStream::connect_timeout(&addr("203.0.113.7:80"), PATIENCE).unwrap_err();
    let status = program.status();
    let failed = status
        .listeners
        .iter()
        .find(|report| report.state == "failed")
        .unwrap();
    assert_eq!(failed.declared, addr("203.0.113.7:80"));
    assert!(
        failed
            .fix
            .as_deref()
            .unwrap()
            .contains("--external-ip-cidr 203.0.113.7/32")
    );
}
