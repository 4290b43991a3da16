//! Keepers as they should be and as they should not, at a listener of their own. They are in the namespace of the test,
//! whose addresses are all local.

use std::{
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use portico_core::{
    object::Protocol,
    snapshot::{
        Snapshot,
        plan::{Bind, ListenerKey},
    },
};
use portico_dataplane::{Opener as _, Published, open_for_another};
use rustix::event::{PollFd, PollFlags, poll};

use super::*;
use crate::handover::{ANSWER_WITHIN, Channel, FromKeeper, Received, Socket, ToKeeper};

/// The daemon's side.
struct Daemon {
    runs: Runs,
    desk: Desk,
    told: mpsc::Receiver<RunEvent>,
    dns_at: SocketAddr,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

/// An address that no other test has.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | (a & 63), b, NEXT.fetch_add(1, Relaxed))
}

fn daemon() -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.sock");
    let cluster = Arc::new(Cluster {
        dns_address: own_address().into(),
        ..Cluster::default()
    });
    let empty = Snapshot::empty(Arc::clone(&cluster));
    let published = Arc::new(Published::from_pointee(empty));
    let service = Arc::new(DnsService::new(published, 0, 0));
    let listener = Listener::bind(&path).unwrap();
    let (runs, desk, told) = Runs::start(listener, &cluster, service).unwrap();
    Daemon {
        runs,
        desk,
        told,
        dns_at: SocketAddr::new(cluster.dns_address, DNS_PORT),
        path,
        _folder: folder,
    }
}

impl Daemon {
    /// One that said who it is, and was asked for the sockets of DNS: the number of that request.
    fn newcomer(&self) -> (Channel, Scope, u64, Vec<Socket>) {
        let keeper = Channel::connect(&self.path).unwrap();
        keeper.send(&hello(), &[]).unwrap();
        let Some(ToKeeper::Welcome(welcome)) = heard(&keeper) else {
            panic!("not welcome");
        };
        assert_eq!(welcome.dns, self.dns_at);
        assert_eq!(welcome.search[0], "shop.svc.cluster.local");
        let (id, sockets) = asked(&keeper);
        assert_eq!(sockets.len(), 2);
        (keeper, Scope(welcome.scope), id, sockets)
    }

    /// One that was let in, without DNS.
    fn keeper(&mut self) -> (Channel, Scope) {
        let (keeper, scope, id, _) = self.newcomer();
        answer(&keeper, id, &[], vec![Err(DENIED); 2]);
        assert_eq!(self.told.blocking_recv(), Some(RunEvent::Began(scope)));
        (keeper, scope)
    }

    /// Asks for a socket as control does.
    fn ask(&mut self, key: ListenerKey) -> io::Result<OwnedFd> {
        let addr = SocketAddr::new(key.bind.addr(), key.port);
        self.desk.open(key, addr)
    }

    fn end(self) {
        self.runs.stop();
    }
}

const DENIED: i32 = rustix::io::Errno::ACCESS.raw_os_error();

fn hello() -> FromKeeper {
    hello_but(|_| {})
}

fn hello_but(change: impl FnOnce(&mut Hello)) -> FromKeeper {
    let mut hello = Hello {
        version: VERSION,
        pid: 42,
        command: "npm test".into(),
        namespace: "shop".into(),
    };
    change(&mut hello);
    FromKeeper::Hello(hello)
}

/// What the daemon says next; `None` when it ends the connection.
fn heard(keeper: &Channel) -> Option<ToKeeper> {
    match keeper.receive() {
        Ok(received) => received.map(|Received { message, .. }| message),
        // Something was said to it that it did not read any more.
        Err(HandoverError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}

fn asked(keeper: &Channel) -> (u64, Vec<Socket>) {
    match heard(keeper) {
        Some(ToKeeper::Open { id, sockets }) => (id, sockets),
        other => panic!("{other:?}"),
    }
}

fn answer(keeper: &Channel, id: u64, sockets: &[OwnedFd], results: Vec<Result<(), i32>>) {
    let passed: Vec<_> = sockets.iter().map(OwnedFd::as_fd).collect();
    let answer = FromKeeper::Opened { id, results };
    keeper.send(&answer, &passed).unwrap();
}

/// Opens what is asked for; how many that was.
fn open(keeper: &Channel) -> usize {
    let (id, wanted) = asked(keeper);
    let open = |of: &Socket| open_for_another(of.protocol, of.addr, of.device_is_loopback);
    let opened: Vec<_> = wanted.iter().map(|of| open(of).unwrap()).collect();
    answer(keeper, id, &opened, vec![Ok(()); wanted.len()]);
    wanted.len()
}

fn key(scope: Scope, port: u16, protocol: Protocol) -> ListenerKey {
    ListenerKey {
        scope,
        bind: Bind::Address(own_address().into()),
        port,
        protocol,
    }
}

fn is_awaited(socket: io::Result<OwnedFd>) -> bool {
    socket.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

#[test]
fn run_is_welcomed_asked_told_and_forgotten_when_it_ends() {
    let mut daemon = daemon();
    let (keeper, scope) = daemon.keeper();
    let run = daemon.desk.runs().remove(0);
    let who = (run.pid, &*run.command, &*run.namespace);
    assert_eq!(who, (42, "npm test", "shop"));
    assert!(run.dns_problem.unwrap().contains("Permission denied"));

    let keys: Vec<_> = (0..70)
        .map(|n| key(scope, 7000 + n, Protocol::Tcp))
        .collect();
    for key in &keys {
        assert!(is_awaited(daemon.ask(*key)));
    }
    let mut opened = 0;
    while opened < keys.len() {
        opened += open(&keeper);
        assert_eq!(daemon.told.blocking_recv(), Some(RunEvent::Answered));
    }
    for key in &keys {
        let socket = TcpListener::from(daemon.ask(*key).unwrap());
        assert_eq!(socket.local_addr().unwrap().port(), key.port);
    }
    let loopback = [127, 0, 0, 9].into();
    daemon.desk.attach(&[loopback, [203, 0, 113, 7].into()]);
    let add = vec!["203.0.113.7/32".parse().unwrap()];
    assert_eq!(heard(&keeper), Some(ToKeeper::Local { add }));
    daemon.desk.say_ready(scope, 5, vec!["why".into(); 30]);
    let Some(ToKeeper::Ready { generation, failed }) = heard(&keeper) else {
        panic!("not ready");
    };
    assert_eq!((generation, failed.len()), (5, 21));
    assert_eq!(failed.last().map(String::as_str), Some("and 11 more"));

    drop(keeper);
    assert_eq!(daemon.told.blocking_recv(), Some(RunEvent::Ended(scope)));
    assert!(daemon.desk.runs().is_empty());
    let error = daemon.ask(keys[0]).unwrap_err();
    assert!(error.to_string().contains("is gone"), "{error}");
    daemon.end();
}

#[test]
fn command_of_a_run_is_one_line_of_some_length() {
    let mut daemon = daemon();
    let mut shown = |command: &str| {
        let keeper = Channel::connect(&daemon.path).unwrap();
        let named = hello_but(|hello| command.clone_into(&mut hello.command));
        keeper.send(&named, &[]).unwrap();
        assert!(matches!(heard(&keeper), Some(ToKeeper::Welcome(_))));
        let shown = daemon.desk.runs().remove(0).command;
        drop(keeper);
        assert!(matches!(
            daemon.told.blocking_recv(),
            Some(RunEvent::Ended(_))
        ));
        shown
    };
    assert_eq!(shown("sh -c 'a\n\x1b[31mb'"), "sh -c 'a  [31mb'");
    assert_eq!(shown(&"x".repeat(80)), "x".repeat(80));
    assert_eq!(shown(&"x".repeat(81)), "x".repeat(80) + "...");
    daemon.end();
}

#[test]
fn run_is_told_of_any_number_of_addresses() {
    let mut daemon = daemon();
    let (keeper, _) = daemon.keeper();
    let all: Vec<_> = (0..5000_u32)
        .map(|n| Ipv6Addr::from_bits(u128::MAX - u128::from(n)).into())
        .collect();
    daemon.desk.attach(&all);
    let mut told = 0;
    while told < all.len() {
        let Some(ToKeeper::Local { add }) = heard(&keeper) else {
            panic!("not told");
        };
        told += add.len();
    }
    daemon.end();
}

#[test]
fn run_of_another_version_or_an_impossible_namespace_is_refused_and_told_why() {
    let daemon = daemon();
    let refused = |hello: FromKeeper| {
        let keeper = Channel::connect(&daemon.path).unwrap();
        keeper.send(&hello, &[]).unwrap();
        let Some(ToKeeper::Refused { why }) = heard(&keeper) else {
            panic!("let in");
        };
        assert_eq!(heard(&keeper), None);
        why
    };
    let why = refused(hello_but(|hello| hello.version += 1));
    assert!(why.contains("another version"), "{why}");
    let injected = |hello: &mut Hello| "a\nnameserver b".clone_into(&mut hello.namespace);
    let why = refused(hello_but(injected));
    assert!(why.contains("not a DNS label"), "{why}");
    daemon.end();
}

#[test]
fn runs_beyond_the_bound_are_refused_until_one_ends() {
    let mut daemon = daemon();
    let mut keepers: Vec<_> = (0..MOST_RUNS).map(|_| daemon.keeper()).collect();
    let late = Channel::connect(&daemon.path).unwrap();
    late.send(&hello(), &[]).unwrap();
    assert!(matches!(heard(&late), Some(ToKeeper::Refused { .. })));
    let (first, scope) = keepers.remove(0);
    drop(first);
    assert_eq!(daemon.told.blocking_recv(), Some(RunEvent::Ended(scope)));
    daemon.keeper();
    daemon.end();
}

#[test]
fn dns_is_answered_at_the_sockets_that_a_run_hands_over() {
    let mut daemon = daemon();
    let (keeper, scope, id, wanted) = daemon.newcomer();
    let open = |of: &Socket| open_for_another(of.protocol, of.addr, of.device_is_loopback);
    let bound: io::Result<Vec<OwnedFd>> = wanted.iter().map(open).collect();
    let Ok(sockets) = bound else {
        eprintln!("skipped: port 53 needs a privilege here");
        return daemon.end();
    };
    answer(&keeper, id, &sockets, vec![Ok(()); 2]);
    drop(sockets);
    assert_eq!(daemon.told.blocking_recv(), Some(RunEvent::Began(scope)));
    assert_eq!(daemon.desk.runs().remove(0).dns_problem, None);
    // For the root's address, which a server that has read nothing answers in some way.
    let query = *b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01";
    let client = UdpSocket::bind((daemon.dns_at.ip(), 0)).unwrap();
    client.set_read_timeout(Some(10 * ANSWER_WITHIN)).unwrap();
    client.send_to(&query, daemon.dns_at).unwrap();
    let mut response = [0; 512];
    assert!(client.recv(&mut response).unwrap() >= query.len());
    assert_eq!(&response[..2], b"\x12\x34");
    assert!(TcpStream::connect(daemon.dns_at).is_ok());
    drop(keeper);
    assert_eq!(daemon.told.blocking_recv(), Some(RunEvent::Ended(scope)));
    assert!(
        TcpStream::connect(daemon.dns_at).is_err(),
        "it ends with it"
    );
    daemon.end();
}

#[test]
fn keeper_that_does_not_answer_is_cut_off_and_holds_up_nobody() {
    let mut daemon = daemon();
    let (keeper, scope) = daemon.keeper();
    let (other, of_other) = daemon.keeper();
    assert!(is_awaited(daemon.ask(key(scope, 7000, Protocol::Tcp))));
    asked(&keeper);
    // Another one is served meanwhile.
    let theirs = key(of_other, 7000, Protocol::Udp);
    assert!(is_awaited(daemon.ask(theirs)));
    assert_eq!(open(&other), 1);
    assert_eq!(daemon.told.blocking_recv(), Some(RunEvent::Answered));
    assert!(daemon.ask(theirs).is_ok());
    assert_eq!(heard(&keeper), None);
    assert_eq!(daemon.told.blocking_recv(), Some(RunEvent::Ended(scope)));
    daemon.end();
}

/// One that answers a request for a TCP socket wrongly is cut off at once.
fn check_liar(lie: impl Fn(&Channel, u64, Socket)) {
    let mut daemon = daemon();
    let (keeper, scope) = daemon.keeper();
    assert!(is_awaited(daemon.ask(key(scope, 7000, Protocol::Tcp))));
    let (id, sockets) = asked(&keeper);
    lie(&keeper, id, sockets[0]);
    assert_eq!(heard(&keeper), None);
    assert_eq!(daemon.told.blocking_recv(), Some(RunEvent::Ended(scope)));
    assert!(daemon.desk.runs().is_empty());
    daemon.end();
}

#[test]
fn keeper_that_hands_over_something_else_is_cut_off() {
    let with = |keeper: &Channel, id, descriptor: OwnedFd| {
        answer(keeper, id, &[descriptor], vec![Ok(())]);
    };
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let null = || std::fs::File::open("/dev/null").unwrap();
    check_liar(|keeper, id, _| with(keeper, id, null().into()));
    check_liar(|keeper, id, _| with(keeper, id, listener().into()));
    check_liar(|keeper, id, of| {
        let udp = open_for_another(Protocol::Udp, of.addr, false).unwrap();
        with(keeper, id, udp);
    });
    check_liar(|keeper, id, _| {
        let (one, _) = std::os::unix::net::UnixStream::pair().unwrap();
        with(keeper, id, one.into());
    });
    // It stays to the end: a connection that is reset is none.
    let listener = listener();
    check_liar(|keeper, id, of| {
        let socket = open_for_another(of.protocol, of.addr, false).unwrap();
        // It does not block: connected once it can be written to.
        let _ = rustix::net::connect(&socket, &listener.local_addr().unwrap());
        let writable = &mut [PollFd::new(&socket, PollFlags::OUT)];
        poll(writable, None).unwrap();
        with(keeper, id, socket);
    });
}

#[test]
fn keeper_whose_answer_does_not_fit_the_request_is_cut_off() {
    let socket = || TcpListener::bind("127.0.0.1:0").unwrap().into();
    check_liar(|keeper, id, _| answer(keeper, id, &[], vec![Ok(())]));
    check_liar(|keeper, id, _| answer(keeper, id, &[socket()], vec![Err(DENIED)]));
    check_liar(|keeper, id, _| answer(keeper, id, &[], Vec::new()));
    check_liar(|keeper, id, _| answer(keeper, id + 1, &[], vec![Err(DENIED)]));
    check_liar(|keeper, _, _| keeper.send(&hello(), &[]).unwrap());
    check_liar(|keeper, _, _| keeper.send(&"nonsense", &[]).unwrap());
}

#[test]
fn answer_that_nobody_waits_for_any_more_is_closed() {
    let mut daemon = daemon();
    let (keeper, scope) = daemon.keeper();
    let wanted = key(scope, 7000, Protocol::Tcp);
    assert!(is_awaited(daemon.ask(wanted)));
    let (id, sockets) = asked(&keeper);
    daemon.desk.forget(wanted);
    let addr = sockets[0].addr;
    let socket = open_for_another(Protocol::Tcp, addr, false).unwrap();
    answer(&keeper, id, &[socket], vec![Ok(())]);
    assert_eq!(daemon.told.blocking_recv(), Some(RunEvent::Answered));
    assert!(TcpListener::bind(addr).is_ok(), "nobody has it");
    // One that says to try again is no reason to wait for ever.
    let wanted = key(scope, 7001, Protocol::Tcp);
    assert!(is_awaited(daemon.ask(wanted)));
    let (id, _) = asked(&keeper);
    let again = rustix::io::Errno::AGAIN.raw_os_error();
    answer(&keeper, id, &[], vec![Err(again)]);
    assert_eq!(daemon.told.blocking_recv(), Some(RunEvent::Answered));
    let answered = daemon.ask(wanted);
    assert!(answered.is_err() && !is_awaited(answered));
    daemon.end();
}

#[test]
fn local_inside_is_what_is_served_and_not_of_loopback() {
    let cluster = Cluster {
        service_cidr: "10.96.0.0/12".parse().unwrap(),
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        dns_address: [10, 96, 0, 10].into(),
        service_cidr_v6: Some("fd00:10:96::/112".parse().unwrap()),
        node_port_addresses: NodePortAddresses::Listed(vec![
            [127, 0, 0, 1].into(),
            [192, 0, 2, 1].into(),
        ]),
        ..Cluster::default()
    };
    let local = local_inside(&cluster);
    let local: Vec<String> = local.iter().map(ToString::to_string).collect();
    assert_eq!(local, ["10.96.0.0/12", "192.0.2.1/32", "fd00:10:96::/112"]);
    assert!(local_inside(&Cluster::default()).is_empty());
}
