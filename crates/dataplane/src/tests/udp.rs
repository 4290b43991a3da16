//! UDP on real sockets: what arrives, from where, and what becomes of flows.

use std::{net::UdpSocket, process::Command};

use portico_core::time::Timestamp;

use super::*;

/// Set in a process of the test's own.
const INSIDE: &str = "PORTICO_TEST_INSIDE";

/// What a client waits for an answer that is not to come.
const SILENCE: Duration = Duration::from_millis(200);

fn udp(bind: Bind, port: u16) -> ListenerKey {
    ListenerKey {
        scope: Scope::HOST,
        bind,
        port,
        protocol: Protocol::Udp,
    }
}

fn subject(vip: IpAddr, endpoints: &[SocketAddr]) -> Subject {
    Subject {
        protocol: Protocol::Udp,
        ..Subject::at(vip, endpoints)
    }
}

fn bench_at(vip: IpAddr, mode: Mode, subjects: &[&Subject]) -> Bench {
    let settings = DataSettings {
        workers: 2,
        ..DataSettings::default()
    };
    let mut bench = Bench::new(settings, subjects);
    bench.bind(&[(udp(Bind::Address(vip), PORT), mode)]);
    bench
}

/// An endpoint that answers every datagram with its name in front, until told to end: then its port is closed.
struct Answering {
    addr: SocketAddr,
    name: u8,
    thread: Option<thread::JoinHandle<()>>,
}

impl Answering {
    fn named(name: u8) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut bytes = vec![0; 70_000];
            loop {
                let (length, from) = socket.recv_from(&mut bytes).unwrap();
                if &bytes[..length] == b"end" {
                    return;
                }
                let mut answer = vec![name];
                answer.extend(&bytes[..length]);
                // Too long for the name in front: as it came.
                let answer = if length > 60_000 {
                    &bytes[..length]
                } else {
                    &answer
                };
                socket.send_to(answer, from).unwrap();
            }
        });
        Self {
            addr,
            name,
            thread: Some(thread),
        }
    }

    fn end(mut self) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"end", self.addr).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn client(to: impl Into<SocketAddr>) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to.into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn ask(socket: &UdpSocket, question: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(question)?;
    let mut bytes = vec![0; 70_000];
    let length = socket.recv(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Asks until there is an answer: how many questions it took.
fn ask_until_answered(socket: &UdpSocket, name: u8) -> usize {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    (1..100)
        .find(|_| ask(socket, b"?").is_ok_and(|answer| answer == [name, b'?']))
        .unwrap()
}

#[test]
fn datagrams_of_one_client_stay_and_those_of_others_take_turns() {
    let vip = vip();
    let pods = [Answering::named(b'a'), Answering::named(b'b')];
    let subject = subject(vip, &[pods[0].addr, pods[1].addr]);
    let bench = bench_at(vip, Mode::Listening, &[&subject]);
    let clients: Vec<_> = (0..6).map(|_| client((vip, PORT))).collect();
    let first: Vec<u8> = clients
        .iter()
        .map(|client| ask(client, b"hi").unwrap()[0])
        .collect();
    assert_eq!(first, *b"ababab");
    for (client, name) in clients.iter().zip(first) {
        assert_eq!(
            ask(client, b"again").unwrap(),
            [&[name], &b"again"[..]].concat()
        );
    }
    assert_eq!((bench.plane.flows(), bench.plane.connections()), (6, 0));
    wait_until("counters", || {
        bench.plane.counters().datagrams_to_downstream == 12
    });
    let counters = bench.plane.counters();
    assert_eq!(
        (
            counters.flows_opened,
            counters.datagrams_to_upstream,
            counters.datagrams_dropped
        ),
        (6, 12, 0)
    );
    drop(bench);
    subject.assert_reconciled();
    let port = &subject.port;
    let counted = [
        &port.active,
        &port.datagrams_to,
        &port.bytes_to,
        &port.datagrams_from,
        &port.bytes_from,
        &port.datagrams_dropped,
    ];
    let counted = counted.map(|counter| counter.load(Relaxed));
    // "hi" and "again" of six clients, and one letter more each way back.
    assert_eq!(counted, [0, 12, 42, 12, 54, 0]);
}

#[test]
fn datagram_of_any_size_arrives_whole() {
    let vip = vip();
    let pod = Answering::named(b'a');
    let subject = subject(vip, &[pod.addr]);
    let _bench = bench_at(vip, Mode::Listening, &[&subject]);
    let client = client((vip, PORT));
    assert_eq!(ask(&client, b"").unwrap(), b"a");
    let largest: Vec<u8> = (0..65_507_u32).map(|n| n.to_le_bytes()[0]).collect();
    assert_eq!(ask(&client, &largest).unwrap(), largest);
    assert_eq!(ask(&client, b"").unwrap(), b"a");
}

#[test]
fn datagrams_in_a_burst_all_arrive_in_order() {
    let vip = vip();
    let pod = Answering::named(b'a');
    let subject = subject(vip, &[pod.addr]);
    let _bench = bench_at(vip, Mode::Listening, &[&subject]);
    let client = client((vip, PORT));
    for n in 0..100_u8 {
        client.send(&[n]).unwrap();
    }
    let mut bytes = [0; 16];
    for n in 0..100 {
        let length = client.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], [b'a', n]);
    }
}

#[test]
fn wildcard_answers_from_the_address_that_was_asked() {
    let (vip, port) = (vip(), wildcard_port());
    let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let pod = Answering::named(b'a');
    let subject = Subject {
        protocol: Protocol::Udp,
        ..Subject::new(
            &[
                (any, port, FrontendKind::NodePort),
                (vip, port, FrontendKind::ClusterIP),
            ],
            &[pod.addr],
        )
    };
    let mut bench = Bench::new(DataSettings::default(), &[&subject]);
    bench.bind(&[(udp(Bind::Any, port), Mode::Listening)]);
    // Connected sockets hear only who they asked.
    let asked: [IpAddr; 3] = [
        vip,
        "127.0.0.1".parse().unwrap(),
        "127.0.0.77".parse().unwrap(),
    ];
    for addr in asked {
        assert_eq!(ask(&client((addr, port)), b"!").unwrap(), b"a!");
    }
    // One client socket, several addresses: several flows, told apart by who answers.
    let shared = UdpSocket::bind("127.0.0.1:0").unwrap();
    shared.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = [0; 16];
    for addr in asked {
        shared.send_to(b"!", (addr, port)).unwrap();
        assert_eq!(
            shared.recv_from(&mut bytes).unwrap(),
            (2, (addr, port).into())
        );
    }
    assert_eq!(bench.plane.flows(), 6);
    let stranger = client(("127.128.255.254".parse::<IpAddr>().unwrap(), port));
    stranger.set_read_timeout(Some(SILENCE)).unwrap();
    assert_eq!(
        kind_of(ask(&stranger, b"!")),
        io::ErrorKind::WouldBlock,
        "no Frontend"
    );
}

#[test]
fn tcp_and_udp_serve_one_number_side_by_side() {
    let vip = vip();
    let pod = Answering::named(b'a');
    let (of_tcp, of_udp) = (Subject::at(vip, &[echo()]), subject(vip, &[pod.addr]));
    let mut bench = Bench::new(DataSettings::default(), &[&of_tcp, &of_udp]);
    bench.bind(&[
        (at(vip, PORT), Mode::Listening),
        (udp(Bind::Address(vip), PORT), Mode::Listening),
    ]);
    assert_eq!(ask(&client((vip, PORT)), b"!").unwrap(), b"a!");
    assert_echoes(&mut connect(vip, PORT).unwrap());
    bench.plane.close(&[at(vip, PORT)]);
    assert_eq!(ask(&client((vip, PORT)), b"!").unwrap(), b"a!");
    let port = wildcard_port();
    bench.bind(&[
        (wildcard(Bind::Any, port), Mode::Listening),
        (udp(Bind::Any, port), Mode::Listening),
    ]);
    assert_eq!(bench.state(udp(Bind::Any, port)), ListenerState::Listening);
    assert_eq!(
        bench.state(wildcard(Bind::Any, port)),
        ListenerState::Listening
    );
}

#[test]
fn port_without_endpoints_is_refused_and_serves_once_switched() {
    let vip = vip();
    let pod = Answering::named(b'a');
    let mut subject = subject(vip, &[]);
    let mut bench = bench_at(vip, Mode::Refusing, &[&subject]);
    let key = udp(Bind::Address(vip), PORT);
    let client = client((vip, PORT));
    for _ in 0..3 {
        assert_eq!(bench.state(key), ListenerState::Refusing);
        assert_eq!(
            bench.plane.retry(Timestamp::from_millis(1)),
            None,
            "nothing to retry"
        );
        assert_eq!(
            kind_of(ask(&client, b"!")),
            io::ErrorKind::ConnectionRefused
        );
        subject.set_endpoints(&[pod.addr]);
        bench.publish(&[&subject]);
        bench.plane.switch(key, Mode::Listening);
        assert_eq!(bench.state(key), ListenerState::Listening);
        assert_eq!(ask(&client, b"!").unwrap(), b"a!");
        subject.set_endpoints(&[]);
        bench.publish(&[&subject]);
        bench.plane.switch(key, Mode::Refusing);
        assert_eq!(bench.plane.flows(), 0, "its flows end");
    }
}

#[test]
fn port_that_is_taken_falls_back_and_is_taken_over_when_free() {
    let vip = vip();
    let pod = Answering::named(b'a');
    let subject = subject(vip, &[pod.addr]);
    let holder = UdpSocket::bind((vip, PORT)).unwrap();
    let mut bench = bench_at(vip, Mode::Listening, &[&subject]);
    let key = udp(Bind::Address(vip), PORT);
    let ListenerState::Fallback { port } = bench.state(key) else {
        panic!("{:?}", bench.state(key));
    };
    assert_eq!(ask(&client((vip, port)), b"!").unwrap(), b"a!");
    drop(holder);
    let start = Timestamp::from_millis(1_000);
    bench.plane.retry(start);
    bench.plane.retry(start.after(Duration::from_mins(1)));
    assert_eq!(bench.state(key), ListenerState::Listening);
    assert_eq!(ask(&client((vip, PORT)), b"!").unwrap(), b"a!");
}

#[test]
fn one_fixed_client_port_survives_ten_backends() {
    let vip = vip();
    let mut subject = subject(vip, &[]);
    let client = client((vip, PORT));
    let mut pod = Answering::named(0);
    subject.set_endpoints(&[pod.addr]);
    let bench = bench_at(vip, Mode::Listening, &[&subject]);
    for name in 1..=10 {
        assert_eq!(ask(&client, b"?").unwrap(), [pod.name, b'?']);
        let next = Answering::named(name);
        subject.set_endpoints(&[next.addr]);
        bench.publish(&[&subject]);
        std::mem::replace(&mut pod, next).end();
        // Nothing was in flight: nothing is lost.
        assert_eq!(ask(&client, b"?").unwrap(), [name, b'?']);
    }
    assert_eq!(bench.plane.flows(), 1);
}

#[test]
fn endpoint_that_refuses_hands_its_flow_to_another() {
    let vip = vip();
    let (dying, living) = (Answering::named(b'a'), Answering::named(b'b'));
    let subject = subject(vip, &[dying.addr, living.addr]);
    let bench = bench_at(vip, Mode::Listening, &[&subject]);
    let client = client((vip, PORT));
    assert_eq!(ask(&client, b"?").unwrap(), b"a?");
    dying.end();
    let questions = ask_until_answered(&client, b'b');
    assert_eq!(questions, 2, "the one that was refused is lost, no other");
    assert_eq!(bench.plane.counters().flows_refused, 1);
    drop(bench);
    subject.assert_reconciled();
}

#[test]
fn endpoint_that_comes_back_at_its_address_is_found_again() {
    let vip = vip();
    let pod = Answering::named(b'a');
    let addr = pod.addr;
    let subject = subject(vip, &[addr]);
    let _bench = bench_at(vip, Mode::Listening, &[&subject]);
    let client = client((vip, PORT));
    assert_eq!(ask(&client, b"?").unwrap(), b"a?");
    pod.end();
    client.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(ask(&client, b"?").is_err());
    let again = UdpSocket::bind(addr).unwrap();
    client.send(b"!").unwrap();
    let mut bytes = [0; 16];
    again.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(again.recv(&mut bytes).unwrap(), 1);
}

#[test]
fn flows_above_the_bound_are_shed_and_counted() {
    let vip = vip();
    let pod = Answering::named(b'a');
    let subject = subject(vip, &[pod.addr]);
    let settings = DataSettings {
        workers: 1,
        max_flows: 4,
        ..DataSettings::default()
    };
    let mut bench = Bench::new(settings, &[&subject]);
    bench.bind(&[(udp(Bind::Address(vip), PORT), Mode::Listening)]);
    let clients: Vec<_> = (0..10).map(|_| client((vip, PORT))).collect();
    for client in &clients {
        assert_eq!(ask(client, b"?").unwrap(), b"a?");
        assert!(bench.plane.flows() <= 4);
    }
    assert_eq!(
        (bench.plane.flows(), bench.plane.counters().flows_shed),
        (4, 6)
    );
    assert_eq!(
        ask(&clients[0], b"?").unwrap(),
        b"a?",
        "a shed client begins anew"
    );
}

#[test]
fn listener_and_service_that_go_take_their_flows_with_them() {
    let (vip, port) = (vip(), wildcard_port());
    let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let pod = Answering::named(b'a');
    let node_port = |addr| Subject {
        protocol: Protocol::Udp,
        ..Subject::new(&[(addr, port, FrontendKind::NodePort)], &[pod.addr])
    };
    let (stays, goes) = (node_port(any), node_port(vip));
    let mut bench = Bench::new(DataSettings::default(), &[&stays, &goes]);
    bench.bind(&[(udp(Bind::Any, port), Mode::Listening)]);
    let local: IpAddr = "127.0.0.1".parse().unwrap();
    for addr in [vip, local] {
        ask(&client((addr, port)), b"?").unwrap();
    }
    assert_eq!(bench.plane.flows(), 2);
    bench.publish(&[&stays]);
    wait_until("the Service's flow ends", || bench.plane.flows() == 1);
    assert_eq!(goes.port.active.load(Relaxed), 0);
    bench.plane.close(&[udp(Bind::Any, port)]);
    assert_eq!(
        (bench.plane.flows(), stays.port.active.load(Relaxed)),
        (0, 0)
    );
    UdpSocket::bind((any, port)).unwrap();
}

/// Runs a test once more, alone in a process that `shell` prepares. True inside; false outside, once that has passed.
fn is_alone(test: &str, shell: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let status = Command::new(shell[0])
        .args(&shell[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its own process");
    false
}

#[test]
fn wildcard_of_ipv6_answers_from_the_address_that_was_asked() {
    let has_ipv6 = ["-Urn", "ip", "-6", "addr", "show", "dev", "lo"];
    if std::env::var_os(INSIDE).is_none() {
        let probe = Command::new("unshare").args(has_ipv6).output();
        if !probe.is_ok_and(|output| output.status.success()) || UdpSocket::bind("[::1]:0").is_err()
        {
            eprintln!("skipped: no IPv6 or no namespaces here");
            return;
        }
    }
    let script = r#"ip link set lo up && ip addr add fd00::7/128 dev lo nodad && exec "$0" "$@""#;
    if !is_alone(
        "tests::udp::wildcard_of_ipv6_answers_from_the_address_that_was_asked",
        &["unshare", "-Urn", "--", "sh", "-c", script],
    ) {
        return;
    }
    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let asked: [IpAddr; 2] = ["::1".parse().unwrap(), "fd00::7".parse().unwrap()];
    // The kernel takes a new address into use a moment later, even without looking for duplicates (RFC 4862, 5.4).
    wait_until("the addresses", || {
        asked.iter().all(|addr| UdpSocket::bind((*addr, 0)).is_ok())
    });
    let pod = Answering::named(b'a');
    let frontends = asked.map(|addr| (addr, PORT, FrontendKind::ClusterIP));
    let subject = Subject {
        protocol: Protocol::Udp,
        ..Subject::new(&frontends, &[pod.addr])
    };
    let mut bench = Bench::new(DataSettings::default(), &[&subject]);
    let key = udp(Bind::Address(any), PORT);
    bench.bind(&[(key, Mode::Listening)]);
    let shared = UdpSocket::bind("[::1]:0").unwrap();
    shared.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = [0; 16];
    for addr in asked.iter().cycle().take(4) {
        shared.send_to(b"!", (*addr, PORT)).unwrap();
        let from = shared.recv_from(&mut bytes).unwrap();
        assert_eq!(from, (2, (*addr, PORT).into()));
    }
    assert_eq!(bench.plane.flows(), 2);
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("IPv4 is somebody else's");
}

#[test]
fn descriptors_that_run_out_shed_the_oldest_flow_and_are_counted() {
    if !is_alone(
        "tests::udp::descriptors_that_run_out_shed_the_oldest_flow_and_are_counted",
        &["sh", "-c", r#"exec "$0" "$@""#],
    ) {
        return;
    }
    let vip = vip();
    let pods = [Answering::named(b'a'), Answering::named(b'b')];
    let subject = subject(vip, &[pods[0].addr, pods[1].addr]);
    let bench = bench_at(vip, Mode::Listening, &[&subject]);
    let clients: Vec<_> = (0..12).map(|_| client((vip, PORT))).collect();
    assert_eq!(ask(&clients[0], b"?").unwrap(), b"a?");
    // The budget was made with more: what others open is not known to it.
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let room = u64::try_from(open).unwrap() + 4;
    let limit = rustix::process::Rlimit {
        current: Some(room),
        ..rustix::process::getrlimit(rustix::process::Resource::Nofile)
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let turns: Vec<u8> = clients[1..]
        .iter()
        .map(|client| ask(client, b"?").unwrap()[0])
        .collect();
    assert_eq!(turns, *b"bababababab", "no turn is lost");
    wait_until("the sums", || {
        let counters = bench.plane.counters();
        (counters.flows_opened, counters.datagrams_to_downstream) == (12, 12)
    });
    let (counters, flows) = (bench.plane.counters(), bench.plane.flows());
    assert!(counters.flows_unopened > 0, "{counters:?}");
    assert_eq!(counters.flows_shed, 12 - u64::try_from(flows).unwrap());
    assert_eq!(ask(&clients[11], b"?").unwrap(), b"b?", "the newest stays");
    drop(bench);
    subject.assert_reconciled();
}

#[test]
fn budget_follows_the_listeners() {
    let addresses: Vec<IpAddr> = (0..20).map(|_| vip()).collect();
    let frontends: Vec<_> = addresses
        .iter()
        .map(|addr| (*addr, PORT, FrontendKind::ClusterIP))
        .collect();
    let pod = Answering::named(b'a');
    let subject = Subject {
        protocol: Protocol::Udp,
        ..Subject::new(&frontends, &[pod.addr])
    };
    let mut bench = Bench::new(DataSettings::default(), &[&subject]);
    let before = bench.plane.connection_limit();
    let keys: Vec<_> = addresses
        .iter()
        .map(|addr| udp(Bind::Address(*addr), PORT))
        .collect();
    let wanted: Vec<_> = keys.iter().map(|key| (*key, Mode::Listening)).collect();
    bench.bind(&wanted);
    assert_eq!(before - bench.plane.connection_limit(), 10);
    bench.plane.close(&keys[10..]);
    assert_eq!(before - bench.plane.connection_limit(), 5);
    for key in &keys[..10] {
        bench.plane.switch(*key, Mode::Refusing);
    }
    bench.plane.retry(Timestamp::from_millis(1));
    assert_eq!(before, bench.plane.connection_limit());
}
