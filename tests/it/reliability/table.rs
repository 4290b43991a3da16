//! Edits of the table: listeners that come, go and move, and turns that stay exact.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use super::{echo, manifest};
use crate::{
    balance::count,
    support::{
        PATIENCE, backend, get, may_open,
        namespace::in_namespace,
        program::{Program, way},
    },
};

/// Rounds of adding, removing and moving.
const ROUNDS: usize = 20;

/// Endpoints 127.0.1.1 and following, each of which answers with its number.
fn endpoints(count: u8) -> Vec<SocketAddr> {
    let addrs: Vec<SocketAddr> = (1..=count).map(|n| ([127, 0, 1, n], 9000).into()).collect();
    for addr in &addrs {
        backend::tcp(*addr, &addr.ip().to_string());
    }
    addrs
}

/// A connection that stays, to an endpoint that gives back what it gets.
struct Kept(TcpStream);

impl Kept {
    fn open(at: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&at, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut kept = Self(stream);
        kept.check();
        kept
    }

    fn check(&mut self) {
        self.0.write_all(b"ping").unwrap();
        let mut answer = [0; 4];
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping");
    }
}

#[test]
fn listeners_added_removed_and_moved_leave_others_and_the_established_alone() {
    in_namespace!(Root);
    let named = endpoints(1);
    let echo = echo();
    let program = Program::up(
        &["--workers", "2"],
        &[
            ("stays.yaml", &manifest("stays", 80, &named)),
            ("kept.yaml", &manifest("kept", 80, &[echo])),
        ],
    );
    let stays = way(&program.wait_for_endpoints("stays", 1), "ClusterIP");
    let mut beside = Kept::open(way(&program.wait_for_endpoints("kept", 1), "ClusterIP"));
    let (over, failed) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    if get(stays).ok().as_deref() != Some("127.0.1.1") {
                        failed.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        let mut established = Vec::new();
        for round in 0..ROUNDS {
            // Comes at one port, moves to another, goes.
            let mut last: Option<SocketAddr> = None;
            for port in [8000, 8001] {
                program.write("moves.yaml", &manifest("moves", port, &[echo]));
                let status = program.wait_for("the listener", |status| {
                    let mut services = status.services.iter();
                    services.any(|service| {
                        service.name == "moves"
                            && service.ports.iter().any(|port_status| {
                                port_status.port == port && port_status.endpoints.len() == 1
                            })
                    })
                });
                let moves = status
                    .services
                    .iter()
                    .find(|service| service.name == "moves");
                let at = way(moves.unwrap(), "ClusterIP");
                established.push(Kept::open(at));
                if let Some(last) = last.replace(at) {
                    expect_refused(last, round);
                }
            }
            program.write("moves.yaml", "");
            program.wait_for("it to go", |status| status.services.len() == 2);
            expect_refused(last.unwrap(), round);
            beside.check();
            established.iter_mut().for_each(Kept::check);
        }
        over.store(true, SeqCst);
    });
    assert_eq!(failed.load(SeqCst), 0);
}

/// As soon as the status tells that it is gone.
fn expect_refused(at: SocketAddr, round: usize) {
    let kind = TcpStream::connect(at).map_err(|error| error.kind());
    assert_eq!(
        kind.err(),
        Some(ErrorKind::ConnectionRefused),
        "round {round}"
    );
}

#[test]
fn round_robin_is_exact_for_any_number_of_endpoints_from_sixty_four_clients() {
    in_namespace!(Root);
    // The clients and the endpoints are in this process.
    if !may_open(1024) {
        return;
    }
    let all = endpoints(100);
    let program = Program::up(
        &["--workers", "4"],
        &[("web.yaml", &manifest("web", 80, &all[..1]))],
    );
    for number in [1, 2, 3, 5, 7, 100] {
        program.write("web.yaml", &manifest("web", 80, &all[..number]));
        let web = way(&program.wait_for_endpoints("web", number), "ClusterIP");
        // Not a multiple of the endpoints unless there is one: the last cycle stays unfinished.
        let connections = number * 700_usize.div_ceil(number) + number / 2;
        let counts = count(web, connections, 64);
        let (least, most) = (
            counts.values().min().unwrap(),
            counts.values().max().unwrap(),
        );
        assert_eq!(counts.len(), number, "{counts:?}");
        assert!(most - least <= 1, "{number}: {counts:?}");
        assert_eq!(counts.values().sum::<usize>(), connections);
    }
}
