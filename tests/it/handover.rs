//! Sockets of other network namespaces, handed out by a keeper of the test's own: what `portico run` needs of the running
//! program. The keeper is as simple as can be, and bad where a test says so.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    process::Command,
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use hickory_proto::rr::RecordType;
use portico::handover::{Channel, FromKeeper, Hello, Socket, ToKeeper, VERSION};
use portico_dataplane::open_for_another;

use crate::{
    names::{addresses, ask_tcp, ask_udp},
    support::{
        PATIENCE, addr,
        backend::{self, WHO},
        client::{ANYWHERE, is_refused, post},
        get,
        host::Host,
        namespace::in_namespace,
        program::{Program, way},
    },
};

/// What a keeper answers to [`ToKeeper::Open`] with.
type Conduct = fn(&Channel, u64, &[Socket]);

/// A keeper in the namespace of a host. Dropped, its connection ends.
struct Keeper {
    channel: Arc<Channel>,
    /// What it is told, but for requests.
    told: mpsc::Receiver<ToKeeper>,
}

impl Keeper {
    /// One that does what it should, once it may start its command; with what could not be served.
    fn ready(host: &Arc<Host>, program: &Program) -> (Self, Vec<String>) {
        let keeper = Self::behaving(host, program, honest);
        loop {
            if let ToKeeper::Ready { failed, .. } = keeper.told.recv_timeout(PATIENCE).unwrap() {
                return (keeper, failed);
            }
        }
    }

    fn behaving(host: &Arc<Host>, program: &Program, conduct: Conduct) -> Self {
        let channel = Arc::new(Channel::connect(&program.runtime_dir().join("run.sock")).unwrap());
        let hello = Hello {
            version: VERSION,
            pid: std::process::id(),
            command: "a test".into(),
            namespace: "default".into(),
        };
        channel.send(&FromKeeper::Hello(hello), &[]).unwrap();
        let (tell, told) = mpsc::channel();
        let (inside, ours) = (Arc::clone(host), Arc::clone(&channel));
        thread::spawn(move || inside.run(|| keep(&ours, conduct, &tell)));
        Self { channel, told }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&*self.channel, rustix::net::Shutdown::Both);
    }
}

fn keep(channel: &Channel, conduct: Conduct, tell: &mpsc::Sender<ToKeeper>) {
    while let Ok(Some(received)) = channel.receive::<ToKeeper>() {
        match &received.message {
            ToKeeper::Open { id, sockets } => conduct(channel, *id, sockets),
            ToKeeper::Welcome(welcome) => make_local(&welcome.local),
            ToKeeper::Local { add } => make_local(add),
            ToKeeper::Refused { .. } | ToKeeper::Ready { .. } => {}
        }
        let _ = tell.send(received.message);
    }
}

fn make_local(ranges: &[impl ToString]) {
    for range in ranges {
        let range = range.to_string();
        let arguments = ["route", "add", "local", &range, "dev", "lo"];
        let status = Command::new("ip").args(arguments).status().unwrap();
        assert!(status.success());
    }
}

/// Opens everything.
fn honest(channel: &Channel, id: u64, sockets: &[Socket]) {
    let opened = sockets.iter().map(|of| {
        open_for_another(of.protocol, of.addr, of.device_is_loopback)
            .map_err(|error| error.raw_os_error().unwrap_or_default())
    });
    let opened: Vec<Result<OwnedFd, i32>> = opened.collect();
    let passed: Vec<_> = opened.iter().flatten().map(OwnedFd::as_fd).collect();
    let results = opened
        .iter()
        .map(|of| of.as_ref().map(drop).map_err(|code| *code));
    let results = results.collect();
    let _ = channel.send(&FromKeeper::Opened { id, results }, &passed);
}

/// Never answers for Services.
fn silent(channel: &Channel, id: u64, sockets: &[Socket]) {
    if sockets.iter().all(|of| of.addr.port() == 53) {
        honest(channel, id, sockets);
    }
}

/// Hands over sockets of other addresses for Services.
fn lying(channel: &Channel, id: u64, sockets: &[Socket]) {
    let other = |of: &Socket| Socket {
        addr: SocketAddr::new(of.addr.ip(), of.addr.port() + 1),
        ..*of
    };
    if sockets.iter().all(|of| of.addr.port() == 53) {
        honest(channel, id, sockets);
    } else {
        honest(channel, id, &sockets.iter().map(other).collect::<Vec<_>>());
    }
}

/// A Service on port 80 with one endpoint, or none where that is empty.
fn service(name: &str, protocol: &str, spec: &str, endpoint: Option<SocketAddr>) -> String {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80, protocol: {protocol}}}]{spec}}}\n"
    );
    let Some(endpoint) = endpoint else {
        return service;
    };
    format!(
        "{service}---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, labels: \
         {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{port: {}, protocol: {protocol}}}]\n\
         endpoints: [{{addresses: [{}]}}]\n",
        endpoint.port(),
        endpoint.ip()
    )
}

/// What a UDP server says; one that is about to close may lose the question.
fn ask_who(server: SocketAddr) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE / 20))?;
    socket.connect(server)?;
    socket.send(WHO)?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn is_unreachable(server: SocketAddr) -> bool {
    ask_who(server).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Tries until it is as wanted: a socket inside comes a moment after its generation.
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::yield_now();
    }
}

fn vip(program: &Program, name: &str) -> SocketAddr {
    let status = program.wait_for(name, |status| {
        status.services.iter().any(|service| service.name == name)
    });
    let services = status.services.iter();
    way(
        services.clone().find(|of| of.name == name).unwrap(),
        "ClusterIP",
    )
}

#[test]
fn services_are_served_inside_a_namespace_as_outside_and_follow_the_manifests() {
    in_namespace!(Root);
    backend::tcp(addr("127.0.0.1:9001"), "web");
    backend::tcp(addr("127.0.0.1:9002"), "late");
    backend::udp(addr("127.0.0.1:9003"), "datagrams");
    let web = service("web", "TCP", "", Some(addr("127.0.0.1:9001")));
    let udp = service("udp", "UDP", "", Some(addr("127.0.0.1:9003")));
    let program = Program::up(
        &[],
        &[
            ("web.yaml", &web),
            ("udp.yaml", &udp),
            ("dead.yaml", &service("dead", "TCP", "", None)),
            ("mute.yaml", &service("mute", "UDP", "", None)),
        ],
    );
    program.wait_for_endpoints("web", 1);
    program.wait_for_endpoints("udp", 1);
    let host = Arc::new(Host::join());
    let (keeper, failed) = Keeper::ready(&host, &program);
    assert_eq!(failed, [""; 0]);
    let at = |name| vip(&program, name);
    let (web_at, udp_at, dead_at, mute_at) = (at("web"), at("udp"), at("dead"), at("mute"));
    let dns = addr("127.96.0.10:53");
    host.run(|| {
        assert_eq!(get(web_at).unwrap(), "web");
        assert_eq!(ask_who(udp_at).unwrap(), "datagrams");
        assert!(is_refused(ANYWHERE, dead_at));
        assert!(
            is_refused(ANYWHERE, addr("127.96.200.200:80")),
            "none at all"
        );
        assert!(is_unreachable(mute_at));
        let name = "web.default.svc.cluster.local.";
        for answer in [
            ask_udp(dns, name, RecordType::A),
            ask_tcp(dns, name, RecordType::A),
        ] {
            assert_eq!(addresses(&answer), [web_at.ip()]);
        }
    });
    let status = program.status();
    let run = &status.runs[0];
    assert_eq!((&*run.command, &*run.namespace), ("a test", "default"));
    assert_eq!((run.listeners, run.failed.len()), (4, 0));
    assert_eq!(status.listener_count, 4, "those of the host alone");
    let said = String::from_utf8(program.command(&["status"]).stdout).unwrap();
    assert!(said.contains(", a test, namespace default, for "), "{said}");
    assert!(said.contains(": 4 sockets\n"), "{said}");

    // Services that come and change later.
    let late = service("late", "TCP", "", Some(addr("127.0.0.1:9002")));
    program.write("late.yaml", &late);
    program.wait_for_endpoints("late", 1);
    let late_at = at("late");
    assert_eq!(host.run(|| until("late", || get(late_at).ok())), "late");
    program.write("web.yaml", &service("web", "TCP", "", None));
    program.wait_for_endpoints("web", 0);
    host.run(|| until("a refusal", || is_refused(ANYWHERE, web_at).then_some(())));
    program.write("web.yaml", &web);
    assert_eq!(host.run(|| until("web", || get(web_at).ok())), "web");
    program.write("udp.yaml", &service("udp", "UDP", "", None));
    host.run(|| until("port unreachable", || is_unreachable(udp_at).then_some(())));
    program.write("udp.yaml", &udp);
    host.run(|| until("udp", || ask_who(udp_at).ok()));
    std::fs::remove_file(program.manifests().join("late.yaml")).unwrap();
    host.run(|| until("its end", || is_refused(ANYWHERE, late_at).then_some(())));
    drop(keeper);
}

#[test]
fn two_namespaces_are_served_at_once_and_the_end_of_one_leaves_the_other() {
    in_namespace!(Root);
    backend::tcp(addr("127.0.0.1:9001"), "web");
    let web = service("web", "TCP", "", Some(addr("127.0.0.1:9001")));
    let program = Program::up(&[], &[("web.yaml", &web)]);
    program.wait_for_endpoints("web", 1);
    let hosts = [("near1", "far1", "10.78.0"), ("near2", "far2", "10.79.0")];
    let [one, other] = hosts.map(|(near, far, net)| Arc::new(Host::join_by([near, far], net)));
    let (first, _) = Keeper::ready(&one, &program);
    let (second, failed) = Keeper::ready(&other, &program);
    assert_eq!(failed, [""; 0]);
    let at = vip(&program, "web");
    assert_eq!(get(at).unwrap(), "web");
    for host in [&one, &other] {
        assert_eq!(host.run(|| get(at)).unwrap(), "web");
    }
    let descriptors = program.status().descriptors;
    drop(first);
    one.run(|| until("its end", || is_refused(ANYWHERE, at).then_some(())));
    program.wait_for_descriptors(descriptors - 1);
    assert_eq!(
        other.run(|| post(at, b"still here")).unwrap(),
        b"still here"
    );
    assert_eq!(program.status().runs.len(), 1);
    // It may come again, as after a restart of either, and leaves nothing.
    drop(second);
    let alone = |program: &Program| program.status().runs.is_empty().then_some(());
    until("both to be gone", || alone(&program));
    let descriptors = program.status().descriptors;
    for _ in 0..20 {
        let (_again, failed) = Keeper::ready(&one, &program);
        assert_eq!(failed, [""; 0]);
        assert_eq!(one.run(|| get(at)).unwrap(), "web");
    }
    until("all to be gone", || alone(&program));
    program.wait_for_descriptors(descriptors);
}

#[test]
fn run_leaves_half_of_the_sockets_to_the_host_and_is_told_what_it_lacks() {
    in_namespace!(Root);
    let text = |n: u16| {
        let ports = format!("{{port: {}}}", 1000 + n);
        service(&format!("s{n}"), "TCP", "", None).replace("{port: 80, protocol: TCP}", &ports)
    };
    let all: Vec<String> = (0..70).map(text).collect();
    let program = Program::up_limited(256, &[], &[("all.yaml", &all.join("---\n"))]);
    let host = Arc::new(Host::join());
    let (_keeper, failed) = Keeper::ready(&host, &program);
    assert_eq!(failed.len(), 21, "the first ones, and how many more");
    assert!(
        failed[0].contains("the first 64 of listeners may be here"),
        "{failed:?}"
    );
    let status = program.status();
    assert_eq!((status.listener_count, status.beyond_descriptors), (70, 0));
    let run = &status.runs[0];
    assert_eq!((run.listeners, run.failed.len()), (0, 70));
    // The host has those that come later all the same.
    program.write("one.yaml", &text(70));
    let status = program.wait_for("one more", |status| status.listener_count == 71);
    assert_eq!(status.beyond_descriptors, 0);
}

#[test]
fn keepers_that_hang_or_lie_are_cut_off_and_harm_nobody() {
    in_namespace!(Root);
    backend::tcp(addr("127.0.0.1:9001"), "web");
    backend::tcp(addr("127.0.0.1:9002"), "late");
    let web = service("web", "TCP", "", Some(addr("127.0.0.1:9001")));
    let program = Program::up(&[], &[("web.yaml", &web)]);
    let host = Arc::new(Host::join());
    for conduct in [silent as Conduct, lying] {
        let keeper = Keeper::behaving(&host, &program, conduct);
        // Whoever is outside notices nothing.
        let late = service("late", "TCP", "", Some(addr("127.0.0.1:9002")));
        program.write("late.yaml", &late);
        program.wait_for_endpoints("late", 1);
        assert_eq!(get(vip(&program, "late")).unwrap(), "late");
        let told: Vec<ToKeeper> = keeper.told.iter().collect();
        assert!(
            !told
                .iter()
                .any(|message| matches!(message, ToKeeper::Ready { .. }))
        );
        until("its end", || program.status().runs.is_empty().then_some(()));
        std::fs::remove_file(program.manifests().join("late.yaml")).unwrap();
    }
    let said = program.stderr();
    assert!(said.contains("did not answer within 2 s"), "{said}");
    assert!(said.contains("is bound to"), "{said}");
    let (_keeper, failed) = Keeper::ready(&host, &program);
    assert_eq!(failed, [""; 0]);
    let at = vip(&program, "web");
    assert_eq!(host.run(|| get(at)).unwrap(), "web");
}

#[test]
fn ranges_external_addresses_and_node_ports_are_served_inside_too() {
    in_namespace!(Root);
    backend::tcp(addr("127.0.0.1:9001"), "web");
    let spec = ", type: NodePort, clusterIP: 10.96.7.8, externalIPs: [203.0.113.7]";
    let mut web = service("web", "TCP", spec, Some(addr("127.0.0.1:9001")));
    web = web.replace("{port: 80,", "{port: 80, nodePort: 30080,");
    let program = Program::up(
        &[
            "--service-cidr",
            "10.96.0.0/12",
            "--external-ip-cidr",
            "203.0.113.0/24",
        ],
        &[("web.yaml", &web)],
    );
    program.wait_for_endpoints("web", 1);
    let host = Arc::new(Host::join());
    let (_keeper, failed) = Keeper::ready(&host, &program);
    assert_eq!(failed, [""; 0]);
    host.run(|| {
        for at in [
            "10.96.7.8:80",
            "203.0.113.7:80",
            "127.0.0.1:30080",
            "10.77.0.2:30080",
        ] {
            assert_eq!(get(addr(at)).unwrap(), "web", "{at}");
        }
        assert!(is_refused(ANYWHERE, addr("10.96.7.9:80")));
        let name = "web.default.svc.cluster.local.";
        let answer = ask_udp(addr("10.96.0.10:53"), name, RecordType::A);
        assert_eq!(addresses(&answer).len(), 1);
    });
    // An address that comes later.
    let more = web.replace("203.0.113.7", "203.0.113.7, 203.0.113.8");
    program.write("web.yaml", &more);
    let at = addr("203.0.113.8:80");
    assert_eq!(host.run(|| until("it", || get(at).ok())), "web");
}

#[test]
fn many_services_share_few_sockets_inside() {
    in_namespace!(Root);
    backend::tcp(addr("127.0.0.1:9001"), "web");
    let endpoint = Some(addr("127.0.0.1:9001"));
    let mut all: Vec<String> = (0..200)
        .map(|n| service(&format!("s{n}"), "TCP", "", None))
        .collect();
    all.push(service("web", "TCP", "", endpoint));
    let program = Program::up(&[], &[("all.yaml", &all.join("---\n"))]);
    program.wait_for_endpoints("web", 1);
    let host = Arc::new(Host::join());
    let (_keeper, failed) = Keeper::ready(&host, &program);
    assert_eq!(failed, [""; 0]);
    let status = program.status();
    assert_eq!((status.listener_count, status.runs[0].listeners), (201, 1));
    let at = vip(&program, "web");
    assert_eq!(host.run(|| get(at)).unwrap(), "web");
}
