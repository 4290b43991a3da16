//! What runs out: descriptors. Accepting waits, nothing spins, nobody is lost.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use super::{echo, manifest};
use crate::support::{
    PATIENCE, may_open,
    namespace::in_namespace,
    program::{Program, way},
};

/// As `ulimit -n` of a cautious system.
const DESCRIPTORS: u32 = 256;
const CLIENTS: usize = 1000;
/// What a pool may keep open for the next connections: a leak would be of hundreds.
const POOLED: usize = 64;

#[test]
fn thousand_clients_with_256_descriptors_all_get_their_turn_and_nothing_spins() {
    in_namespace!(Root);
    // The clients' ends and the endpoint's are in this process.
    if !may_open(4096) {
        return;
    }
    let text = manifest("web", 80, &[echo()]);
    let program = Program::up_limited(DESCRIPTORS, &["--workers", "1"], &[("web.yaml", &text)]);
    let web = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let before = program.status().descriptors;
    let began = Instant::now();
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let stream = TcpStream::connect_timeout(&web, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream
        })
        .collect();
    // Both admin surfaces answer while no connection can be accepted.
    while program.counted("portico_accept_pauses_total") == 0 {
        assert!(began.elapsed() < PATIENCE, "accepting never pauses");
    }
    let status = program.status();
    assert!(status.connections > 0 && status.connections < CLIENTS);
    assert!(status.descriptors < usize::try_from(DESCRIPTORS).unwrap());
    // Far more than the buffers hold, on many connections at a time: whatever the relay would like to have for much
    // data is not to be had.
    let served = status.connections.min(32);
    let body: Vec<u8> = (0..1_000_003_u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for client in &clients[..served] {
            scope.spawn(|| exchange(client, &body));
        }
    });
    for client in &clients[served..] {
        exchange(client, b"ping");
    }
    drop(clients);
    let pauses = program.counted("portico_accept_pauses_total");
    let elapsed = began.elapsed();
    assert!(
        u128::from(pauses) <= 1 + elapsed.as_millis() / shortest_pause().as_millis(),
        "{pauses} pauses in {elapsed:?}: it spins"
    );
    let lines = program.stderr().matches("accepting is paused").count();
    let most = 1 + usize::try_from(elapsed.as_secs()).unwrap();
    assert!((1..=most).contains(&lines), "{lines} lines in {elapsed:?}");
    program.wait_for_descriptors(before + POOLED);
}

#[test]
fn descriptors_taken_away_under_load_stop_nothing_for_good() {
    in_namespace!(Root);
    let text = manifest("web", 80, &[echo()]);
    let program = Program::up(&["--workers", "1"], &[("web.yaml", &text)]);
    let web = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let before = program.wait_for_connections_to_end().descriptors;
    let kept = TcpStream::connect_timeout(&web, PATIENCE).unwrap();
    (&kept).write_all(b"ping").unwrap();
    (&kept).read_exact(&mut [0; 4]).unwrap();
    let limit = |count: u64| {
        let pid = rustix::process::Pid::from_raw(program.pid().try_into().unwrap());
        let resource = rustix::process::Resource::Nofile;
        let mut limit = rustix::process::getrlimit(resource);
        limit.current = Some(count);
        // Of the running program: what it counted on at its start is not there any more.
        rustix::process::prlimit(pid, resource, limit).unwrap()
    };
    let had = limit(u64::try_from(before).unwrap() + 8);
    let began = Instant::now();
    let clients: Vec<TcpStream> = (0..64)
        .map(|_| TcpStream::connect_timeout(&web, PATIENCE).unwrap())
        .collect();
    let is_told = |text: &str| program.stderr().contains(text);
    while !is_told("accepting is paused: the process has no descriptor") {
        assert!(began.elapsed() < PATIENCE, "{}", program.stderr());
    }
    limit(had.current.unwrap());
    // Those that came meanwhile are served or reset, as descriptors allowed; none is left hanging.
    for client in clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = (&client).write_all(b"ping");
        let _ = client.shutdown(Shutdown::Write);
        let end = (&client).read_to_end(&mut Vec::new());
        let is_late = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!end.is_err_and(is_late), "nobody answers");
    }
    // The one that was open has lost nothing, and new ones are served.
    exchange(&kept, b"ping");
    let pauses = program.counted("portico_accept_pauses_total");
    let elapsed = began.elapsed();
    assert!(
        u128::from(pauses) <= 1 + elapsed.as_millis() / shortest_pause().as_millis(),
        "{pauses} pauses in {elapsed:?}: it spins"
    );
    let next = TcpStream::connect_timeout(&web, PATIENCE).unwrap();
    exchange(&next, b"ping");
    drop((kept, next));
    program.wait_for_descriptors(before);
}

/// The first pause is of 10 ms at least half of which is waited (jitter).
const fn shortest_pause() -> Duration {
    Duration::from_millis(5)
}

/// Sends it all, ends, and expects it all back.
fn exchange(client: &TcpStream, body: &[u8]) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = client;
            stream.write_all(body).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut stream = client;
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert!(got == body, "{} of {} bytes", got.len(), body.len());
    });
}
