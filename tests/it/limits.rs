//! What happens when something runs out: local ports, descriptors, the other side's life.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::{
    net::{AddressFamily, SocketType, bind, connect, socket, sockopt::set_socket_linger},
    process::{Resource, Rlimit, prlimit, setrlimit},
};

use crate::support::{
    PATIENCE,
    host::{HERE, Host, ip},
    namespace::in_namespace,
    program::{Program, way},
};

/// A Service `web` at port 80 whose endpoint is this one.
fn web(endpoint: Ipv4Addr) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{type: NodePort, ports: [{{port: 80, nodePort: \
         30080}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels: \
         {{kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{{port: 9000}}]\nendpoints: [{{addresses: \
         [{endpoint}]}}]\n"
    )
}

/// Tells each client on port 9000 the address that it is seen at, and holds its connection until it ends.
fn telling(addr: Ipv4Addr) {
    let listener = TcpListener::bind((addr, 9000)).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            std::thread::spawn(move || {
                let seen = peer.ip();
                let _ = stream.write_all(format!("{seen}\n").as_bytes());
                let _ = stream.read(&mut [0]);
            });
        }
    });
}

/// A connection from this address, whose port must not be one that the kernel gives away where those are few: a port
/// that is bound at one address is given to no connection, from whatever address.
fn connect_from(from: (Ipv4Addr, u16), to: SocketAddr) -> TcpStream {
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&fd, &SocketAddr::from(from)).unwrap();
    connect(&fd, &to).unwrap();
    // No port of the program's waits for the end of what is reset.
    set_socket_linger(&fd, Some(Duration::ZERO)).unwrap();
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The line that the endpoint says.
fn seen(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            _ if byte == *b"\n" => return Ok(String::from_utf8_lossy(&line).into_owned()),
            _ => line.push(byte[0]),
        }
    }
}

/// Until a worker has paused accepting.
fn wait_for_a_pause(program: &Program) {
    let began = std::time::Instant::now();
    while program.counted("portico_accept_pauses_total") == 0 {
        assert!(began.elapsed() < PATIENCE);
    }
}

#[test]
fn ports_that_run_out_are_said_and_the_next_source_address_has_as_many_again() {
    in_namespace!(Root);
    telling(Ipv4Addr::LOCALHOST);
    let program = Program::up(&[], &[("web.yaml", &web(Ipv4Addr::LOCALHOST))]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40003").unwrap();
    let mut clients: Vec<TcpStream> = (0..36)
        .map(|n| connect_from((Ipv4Addr::new(127, 0, 1, n), 20_000), door))
        .collect();
    let mut sources: Vec<String> = clients
        .iter_mut()
        .map(|client| seen(client).unwrap())
        .collect();
    sources.sort();
    // Four ports at each of nine addresses.
    let expected: Vec<String> = (1..=9)
        .flat_map(|n| [(); 4].map(|()| format!("127.0.0.{n}")))
        .collect();
    assert_eq!(sources, expected);
    // One more has nowhere to go, and nobody but us is at fault: the endpoint serves the next one at once.
    let mut one_more = connect_from((Ipv4Addr::new(127, 0, 1, 99), 20_000), door);
    assert_eq!(
        seen(&mut one_more).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let status = program.status();
    assert!(
        !status.services[0].ports[0].endpoints.is_empty(),
        "{status:?}"
    );
    drop(clients);
    program.wait_for_connections_to_end();
    seen(&mut connect_from(
        (Ipv4Addr::new(127, 0, 1, 99), 20_001),
        door,
    ))
    .unwrap();
    assert!(program.counted("portico_ports_exhausted_total") >= 9);
    let said = program.stderr();
    assert!(
        said.contains("no local port is left") && said.contains("40000-40003"),
        "{said}"
    );
}

/// This process, and with it the program, gets so many descriptors.
fn limit_descriptors(limit: u64) {
    let both = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    setrlimit(Resource::Nofile, both).unwrap();
}

#[test]
fn descriptors_that_run_out_pause_accepting_and_nothing_else() {
    in_namespace!(Root);
    telling(Ipv4Addr::LOCALHOST);
    let text = web(Ipv4Addr::LOCALHOST);
    limit_descriptors(256);
    let program = Program::up(&["--workers", "2"], &[("web.yaml", &text)]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let limit = usize::try_from(program.counted("portico_connections_limit")).unwrap();
    assert!(limit < 100, "{limit}");
    let mut clients: Vec<TcpStream> = (0..limit)
        .map(|_| connect_from((Ipv4Addr::new(127, 0, 1, 1), 0), door))
        .collect();
    for client in &mut clients {
        seen(client).unwrap();
    }
    // These wait in the kernel's queue, and the program in its pauses.
    let mut waiting: Vec<TcpStream> = (0..20)
        .map(|_| connect_from((Ipv4Addr::new(127, 0, 1, 2), 0), door))
        .collect();
    let began = std::time::Instant::now();
    let mut pauses = program.counted("portico_accept_pauses_total");
    while pauses < 20 {
        // The admin surface answers all the while.
        pauses = program.counted("portico_accept_pauses_total");
        assert!(began.elapsed() < PATIENCE, "{pauses}");
    }
    // Two workers that pause for at least 5 ms; one that does not is a thousand times as often here.
    let most = began.elapsed().as_millis() / 5 * 2 + 40;
    assert!(u128::from(pauses) <= most, "{pauses} of {most}");
    drop(clients);
    for client in &mut waiting {
        seen(client).unwrap();
    }
    let said = program.stderr();
    let complaints = said.matches("accepting is paused").count();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    // Both workers together.
    assert!(
        (1..=seconds + 1).contains(&complaints),
        "{complaints} in {seconds} s"
    );
    assert!(said.contains("ulimit -n"), "{said}");
}

/// An endpoint of HTTP on port 9001 whose connections may be used again for a minute.
#[derive(Default)]
struct Answering {
    connections: AtomicUsize,
    asked: AtomicUsize,
    /// It answers when it was asked so often.
    wanted: AtomicUsize,
}

impl Answering {
    fn at(addr: Ipv4Addr) -> Arc<Self> {
        let endpoint = Arc::<Self>::default();
        let listener = TcpListener::bind((addr, 9001)).unwrap();
        let serving = Arc::clone(&endpoint);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let endpoint = Arc::clone(&serving);
                std::thread::spawn(move || endpoint.serve(stream));
            }
        });
        endpoint
    }

    fn serve(&self, mut stream: TcpStream) {
        self.connections.fetch_add(1, Relaxed);
        // Heads come in one piece here.
        while stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {
            self.asked.fetch_add(1, Relaxed);
            while self.asked.load(Relaxed) < self.wanted.load(Relaxed) {
                std::thread::yield_now();
            }
            let answer = "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
        }
        self.connections.fetch_sub(1, Relaxed);
    }

    fn wait_for_connections(&self, is_enough: impl Fn(usize) -> bool) {
        let began = std::time::Instant::now();
        while !is_enough(self.connections.load(Relaxed)) {
            assert!(began.elapsed() < PATIENCE, "{:?}", self.connections);
            std::thread::yield_now();
        }
    }

    /// So many clients that were all answered at once, each by a connection of its own, and ask nothing more.
    fn idle_clients(&self, count: usize, api: SocketAddr) -> Vec<TcpStream> {
        self.wanted.store(self.asked.load(Relaxed) + count, Relaxed);
        let mut clients: Vec<_> = (0..count)
            .map(|_| connect_from((Ipv4Addr::LOCALHOST, 0), api))
            .collect();
        for client in &mut clients {
            client.write_all(GET).unwrap();
        }
        for client in &mut clients {
            answered(client).unwrap();
        }
        clients
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n";

/// Reads an answer without a body.
fn answered(stream: &mut TcpStream) -> std::io::Result<()> {
    while seen(stream)? != "\r" {}
    Ok(())
}

/// Beside [`web`], a Service `api` of HTTP with an endpoint on port 9001.
fn api(endpoint: Ipv4Addr) -> String {
    web(endpoint)
        .replace("web", "api")
        .replace(
            "type: NodePort, ports: [{port: 80, nodePort: 30080}]",
            "ports: [{port: 80, appProtocol: http}]",
        )
        .replace("9000", "9001")
}

#[test]
fn idle_connections_of_http_make_room_for_others() {
    in_namespace!(Root);
    telling(Ipv4Addr::LOCALHOST);
    let endpoint = Answering::at(Ipv4Addr::LOCALHOST);
    let text = web(Ipv4Addr::LOCALHOST) + &api(Ipv4Addr::LOCALHOST);
    let program = Program::up_limited(256, &["--workers", "2"], &[("web.yaml", &text)]);
    let [raw, api] =
        ["web", "api"].map(|name| way(&program.wait_for_endpoints(name, 1), "ClusterIP"));
    let limit = usize::try_from(program.counted("portico_connections_limit")).unwrap();
    // As many as there may be, of a Service of TCP, which give up no place.
    let others = || {
        let clients = (0..limit).map(|_| connect_from((Ipv4Addr::LOCALHOST, 0), raw));
        let mut clients: Vec<_> = clients.collect();
        for client in &mut clients {
            seen(client).unwrap();
        }
        drop(clients);
        program.wait_for_connections_to_end();
    };
    // Clients that ask nothing.
    let mut silent = endpoint.idle_clients(limit, api);
    others();
    for client in &mut silent {
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "it is closed cleanly");
    }
    // What was kept of connections to the endpoint.
    drop(endpoint.idle_clients(limit / 2, api));
    program.wait_for_connections_to_end();
    endpoint.wait_for_connections(|count| count == limit / 2);
    others();
    // One takes no place from anybody.
    endpoint.wait_for_connections(|count| count <= 1);
    let shed = usize::try_from(program.counted("portico_http_idle_shed_total")).unwrap();
    assert!(shed >= limit + limit / 2, "{shed} of {limit}");
    // Who has been silent longest goes first.
    let mut silent = endpoint.idle_clients(limit, api);
    let mut ask = |client: usize| {
        let client = &mut silent[client];
        client.write_all(GET)?;
        answered(client)
    };
    ask(0).unwrap();
    seen(&mut connect_from((Ipv4Addr::LOCALHOST, 0), raw)).unwrap();
    ask(0).unwrap();
    assert!((1..limit).any(|client| ask(client).is_err()));
}

#[test]
fn limits_of_a_service_hold_and_follow_edits() {
    in_namespace!(Root);
    telling(Ipv4Addr::LOCALHOST);
    let limited = |annotations: &str| {
        let name = format!("{{name: web, annotations: {{{annotations}}}}}");
        web(Ipv4Addr::LOCALHOST).replacen("{name: web}", &name, 1)
    };
    let per_endpoint = "portico.dev/max-connections-per-endpoint";
    let program = Program::up(
        &["--workers", "2", "--connect-timeout", "10s"],
        &[("web.yaml", &limited(&format!("{per_endpoint}: \"2\"")))],
    );
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let client = || connect_from((Ipv4Addr::LOCALHOST, 0), door);
    let mut first = vec![client(), client()];
    for client in &mut first {
        seen(client).unwrap();
    }
    // Of three at once either worker may take the third first.
    first.push(client());
    program.watch_for("one to wait", |status| {
        status.services[0].ports[0].waiting == 1
    });
    let said = program.command(&["explain", "service", "web"]).stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains(per_endpoint) && said.contains("1 waits"),
        "{said}"
    );
    // Raised.
    program.write("web.yaml", &limited(&format!("{per_endpoint}: \"3\"")));
    seen(&mut first[2]).unwrap();
    // Another one: the listener's own, below what is open.
    program.write("web.yaml", &limited("portico.dev/max-connections: \"2\""));
    program.wait_for("the edit", |status| {
        status.services[0].ports[0].max_connections == Some(2)
    });
    let mut late = client();
    drop(first.pop());
    drop(first.pop());
    seen(&mut late).unwrap();
    let status = program.watch_for("the ends", |status| status.services[0].ports[0].active == 2);
    assert_eq!(status.services[0].ports[0].rejected, 0);
    let described = program.command(&["describe", "service", "web"]).stdout;
    let described = String::from_utf8_lossy(&described);
    assert!(
        described.contains("80/TCP: 2 of 2 connections"),
        "{described}"
    );
}

/// The limit of descriptors of the running program.
fn set_limit_of(program: &Program, limit: u64) {
    let pid = i32::try_from(program.pid()).unwrap();
    let current = Rlimit {
        current: Some(limit),
        maximum: Some(1024),
    };
    prlimit(
        rustix::process::Pid::from_raw(pid),
        Resource::Nofile,
        current,
    )
    .unwrap();
}

#[test]
fn descriptors_that_others_took_pause_accepting_until_they_are_back() {
    in_namespace!(Root);
    telling(Ipv4Addr::LOCALHOST);
    let text = web(Ipv4Addr::LOCALHOST);
    limit_descriptors(1024);
    let program = Program::up(&["--workers", "2"], &[("web.yaml", &text)]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    // Not even standard streams: accept(2) fails for want of a number (EMFILE), however few are open.
    set_limit_of(&program, 3);
    let began = std::time::Instant::now();
    let mut clients: Vec<TcpStream> = (0..20)
        .map(|_| connect_from((Ipv4Addr::LOCALHOST, 0), door))
        .collect();
    while !program.stderr().contains("no descriptor or memory left") {
        assert!(began.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    set_limit_of(&program, 1024);
    for client in &mut clients {
        assert_eq!(seen(client).unwrap(), "127.0.0.1");
    }
    let pauses = u128::from(program.counted("portico_accept_pauses_total"));
    let most = began.elapsed().as_millis() / 5 * 2 + 40;
    assert!((1..=most).contains(&pauses), "{pauses} of {most}");
}

#[test]
fn descriptors_lowered_from_outside_keep_back_those_of_the_admin_interface() {
    in_namespace!(Root);
    telling(Ipv4Addr::LOCALHOST);
    let text = web(Ipv4Addr::LOCALHOST);
    limit_descriptors(1024);
    let program = Program::up(&["--workers", "2"], &[("web.yaml", &text)]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let before = program.counted("portico_connections_limit");
    set_limit_of(&program, 200);
    let limit = program.counted("portico_connections_limit");
    assert!(limit < 50 && limit < before, "{limit} of {before}");
    // Together they need what is kept back, and more.
    let mut clients: Vec<TcpStream> = (0..100)
        .map(|_| connect_from((Ipv4Addr::LOCALHOST, 0), door))
        .collect();
    wait_for_a_pause(&program);
    // As many as the other worker accepts at the same moment.
    let open = u64::try_from(program.status().connections).unwrap();
    assert!((limit..=limit + 1).contains(&open), "{open} of {limit}");
    set_limit_of(&program, 1024);
    for client in &mut clients {
        assert_eq!(seen(client).unwrap(), "127.0.0.1");
    }
}

#[test]
fn connections_that_drain_are_told_with_their_deadline() {
    in_namespace!(Root);
    let (first, second) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    telling(first);
    let annotated = "{name: web, annotations: {portico.dev/drain-timeout: 1h}}";
    let text = |endpoint| web(endpoint).replacen("{name: web}", annotated, 1);
    let program = Program::up(&[], &[("web.yaml", &text(first))]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let mut clients = [(); 3].map(|()| connect_from((Ipv4Addr::LOCALHOST, 0), door));
    for client in &mut clients {
        seen(client).unwrap();
    }
    program.write("web.yaml", &text(second));
    let said = |arguments: &[&str]| {
        let output = program.command(arguments);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        (out, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let expected = "3 connections to 127.0.0.1:9000: the endpoint is none of its Service any more; the first is closed in ";
    let began = std::time::Instant::now();
    while !said(&["describe", "service", "web"]).0.contains(expected) {
        assert!(
            began.elapsed() < PATIENCE,
            "{:?}",
            said(&["describe", "service", "web"])
        );
    }
    let (explained, _) = said(&["explain", "service", "web"]);
    assert!(
        explained.contains(&format!("Draining: {expected}")),
        "{explained}"
    );
    let (table, beyond) = said(&["get", "connections", "--limit", "2", "--no-headers"]);
    assert_eq!((table.lines().count(), &*beyond), (2, "and 1 more\n"));
}

/// Takes connections on port 9000 and never says a word nor closes one.
fn holding(addr: Ipv4Addr) {
    let listener = TcpListener::bind((addr, 9000)).unwrap();
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
}

#[test]
fn connections_beyond_the_flag_wait_in_the_kernels_queue() {
    in_namespace!(Root);
    telling(Ipv4Addr::LOCALHOST);
    let text = web(Ipv4Addr::LOCALHOST);
    let program = Program::up(&["--max-connections", "2"], &[("web.yaml", &text)]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    assert_eq!(program.counted("portico_connections_limit"), 2);
    let [mut first, mut second, mut third] =
        [(); 3].map(|()| connect_from((Ipv4Addr::LOCALHOST, 0), door));
    seen(&mut first).unwrap();
    seen(&mut second).unwrap();
    wait_for_a_pause(&program);
    assert_eq!(program.status().connections, 2);
    let said = program.stderr();
    assert!(
        said.contains("as many connections are open as the settings allow"),
        "{said}"
    );
    drop(first);
    seen(&mut third).unwrap();
}

#[test]
fn connections_that_are_silent_too_long_are_reset() {
    in_namespace!(Root);
    holding(Ipv4Addr::LOCALHOST);
    let text = web(Ipv4Addr::LOCALHOST);
    // The one flag at a time: the other's default is beyond patience.
    for flag in ["--tcp-idle-timeout", "--tcp-half-closed-timeout"] {
        let program = Program::up(&[flag, "200ms"], &[("web.yaml", &text)]);
        let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
        let mut client = connect_from((Ipv4Addr::LOCALHOST, 0), door);
        if flag == "--tcp-half-closed-timeout" {
            client.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let end = seen(&mut client).unwrap_err().kind();
        assert_eq!(end, ErrorKind::ConnectionReset, "{flag}");
    }
}

#[test]
fn connections_left_at_the_end_are_reset_after_the_drain_timeout() {
    in_namespace!(Root);
    telling(Ipv4Addr::LOCALHOST);
    let text = web(Ipv4Addr::LOCALHOST);
    let mut program = Program::up(&["--drain-timeout", "100ms"], &[("web.yaml", &text)]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let mut client = connect_from((Ipv4Addr::LOCALHOST, 0), door);
    seen(&mut client).unwrap();
    program.signal("TERM");
    let end = seen(&mut client).unwrap_err().kind();
    assert_eq!(end, ErrorKind::ConnectionReset);
    program.ended();
}

#[test]
fn listeners_have_the_queue_that_the_kernel_allows() {
    in_namespace!(Root);
    for (allowed, queue) in [("8192", "4096"), ("16", "16")] {
        std::fs::write("/proc/sys/net/core/somaxconn", allowed).unwrap();
        let program = Program::up(&[], &[("web.yaml", &web(Ipv4Addr::LOCALHOST))]);
        way(&program.wait_for_endpoints("web", 1), "ClusterIP");
        let listeners = std::process::Command::new("ss")
            .args(["-Hltn", "sport", "=", ":80"])
            .output()
            .unwrap();
        // State, what waits, the most of it.
        let listeners = String::from_utf8(listeners.stdout).unwrap();
        let found = listeners.split_whitespace().nth(2);
        assert_eq!(found, Some(queue), "{listeners}");
    }
}

#[test]
fn connections_to_the_admin_interface_beyond_sixty_four_wait() {
    in_namespace!(Root);
    let program = Program::up(&[], &[]);
    let admin = program.status().admin.unwrap();
    let before = program.status().descriptors;
    let mut clients: Vec<TcpStream> = (0..90)
        .map(|_| TcpStream::connect(admin).unwrap())
        .collect();
    program.watch_for("the first ones", |status| status.descriptors >= before + 64);
    // A file that is being read goes by.
    let open = program.status().descriptors;
    assert!(open < before + 80, "{open} of {before}");
    let mut last = clients.pop().unwrap();
    last.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .unwrap();
    drop(clients);
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("portico_connections_limit"), "{answer}");
}

#[test]
fn peers_that_vanish_end_their_connections_on_either_side() {
    in_namespace!(Root);
    let host = Host::join();
    host.run(|| telling([10, 77, 0, 2].into()));
    let program = Program::up(
        &["--tcp-keepalive", "1s", "--tcp-user-timeout", "1s"],
        &[("web.yaml", &web([10, 77, 0, 2].into()))],
    );
    let near = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let mut local = connect_from((Ipv4Addr::LOCALHOST, 0), near);
    assert_eq!(seen(&mut local).unwrap(), "10.77.0.1");
    let door = SocketAddr::from((HERE, 30_080));
    let mut remote = host.run(|| connect_from((Ipv4Addr::UNSPECIFIED, 0), door));
    seen(&mut remote).unwrap();
    assert_eq!(program.status().connections, 2);
    ip("link set near down");
    // Nobody sends, and nobody can say that it is gone.
    program.wait_for_connections_to_end();
    assert_eq!(
        seen(&mut local).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}
