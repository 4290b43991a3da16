//! Clients that are slow, too large or too many frames: they are told, or cut off, and others are served meanwhile.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use super::{
    GET, answer, ask,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
        fields, frame, hello, next_frame,
    },
    open, up, willing,
};
use crate::support::{PATIENCE, is_installed, namespace::in_namespace, program::Program};

/// The frames of a turn.
type Chunk<'a> = &'a (dyn Fn(u32) -> Vec<u8> + Sync);

/// Clients that send a byte now and then.
const SLOW: usize = 20;
/// Memory that a flood may cost for as long as it lasts.
const MOST_MEMORY: u64 = 48 << 10;

/// Others ask while `work` is done, and each gets an answer.
fn beside<T>(web: SocketAddr, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let others = scope.spawn(|| {
            while !is_over.load(Relaxed) {
                // A connection of its own: new ones must get in, too.
                assert_eq!(ask(&mut open(web), GET).unwrap().0, 200);
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Relaxed);
        others.join().unwrap();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn slow_heads_get_408_however_many_bytes_trickle_in() {
    in_namespace!(Unprivileged);
    let (program, web) = up(&["--http-head-timeout=1s"], "http", &[willing()]);
    beside(web, || {
        let mut clients: Vec<_> = (0..SLOW).map(|_| Some(open(web))).collect();
        for client in clients.iter_mut().flatten() {
            let stream = client.get_mut();
            stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
            stream
                .set_read_timeout(Some(Duration::from_millis(10)))
                .unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while clients.iter().any(Option::is_some) {
            assert!(Instant::now() < deadline, "a slow client is still there");
            for place in &mut clients {
                let Some(client) = place else { continue };
                match client.get_ref().peek(&mut [0]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        // Cut between the two is seen by the next look.
                        let _ = client.get_mut().write_all(b"a");
                    }
                    _ => {
                        assert_eq!(answer(client).unwrap().0, 408);
                        *place = None;
                    }
                }
            }
        }
    });
    program.wait_for_connections_to_end();
}

#[test]
fn body_that_stops_is_cut_after_the_idle_time() {
    in_namespace!(Unprivileged);
    let (program, web) = up(&["--tcp-idle-timeout=1s"], "http", &[willing()]);
    let mut clients: Vec<_> = (0..SLOW).map(|_| open(web)).collect();
    for client in &mut clients {
        client
            .get_mut()
            .write_all(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 9\r\n\r\na")
            .unwrap();
    }
    // This endpoint answers before it has all; what it says goes through, and the connection does not outlive the time.
    for client in &mut clients {
        let _ = client.read_to_end(&mut Vec::new());
    }
    program.wait_for_connections_to_end();
}

#[test]
fn slowhttptest_keeps_nobody_from_being_served() {
    in_namespace!(Unprivileged);
    if !is_installed("slowhttptest") {
        return;
    }
    let args = ["--http-head-timeout=1s", "--tcp-idle-timeout=1s"];
    let (program, web) = up(&args, "http", &[willing()]);
    for mode in ["-H", "-B"] {
        let folder = tempfile::tempdir().unwrap();
        beside(web, || {
            let url = format!("http://{web}/");
            let args = ["-c", "200", "-r", "200", "-i", "1", "-l", "3", "-u", &url];
            let status = Command::new("slowhttptest")
                .arg(mode)
                .args(args)
                .current_dir(folder.path())
                .stdout(Stdio::null())
                .status();
            assert!(status.is_ok());
        });
        program.wait_for_connections_to_end();
    }
}

#[test]
fn heads_beyond_the_limits_get_431() {
    in_namespace!(Unprivileged);
    let (program, web) = up(&[], "http", &[willing()]);
    for more in [
        format!("X: {}\r\n", "y".repeat(70_000)),
        "X: y\r\n".repeat(10_000),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: web\r\n{more}\r\n");
        let mut client = open(web);
        // It may be cut off before all is sent.
        let _ = client.get_mut().write_all(request.as_bytes());
        assert_eq!(answer(&mut client).unwrap().0, 431);
    }
    drop(program);
}

/// Resident memory in KiB, and processor time in ticks (proc(5)).
fn usage(program: &Program) -> (u64, u64) {
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", program.pid())).unwrap();
    let status = read("status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.unwrap().trim().trim_end_matches(" kB");
    let stat = read("stat");
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    // utime and stime, the 14th and 15th.
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    (resident.parse().unwrap(), ticks)
}

/// Waits for half a second in which next to no time is used.
fn wait_until_idle(program: &Program, case: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, before) = usage(program);
        thread::park_timeout(Duration::from_millis(500));
        let (_, after) = usage(program);
        if after - before <= 3 {
            return;
        }
        assert!(Instant::now() < deadline, "{case}: busy");
    }
}

/// Sends `chunk(0)`, `chunk(1)` and so on, and reads what comes. Whether it was cut off, or told to go.
fn flood(web: SocketAddr, count: u32, chunk: impl Fn(u32) -> Vec<u8> + Sync) -> bool {
    let mut client = open(web);
    let mut writer = client.get_ref().try_clone().unwrap();
    let chunk = &chunk;
    thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let hello = writer.write_all(&hello());
            let sent =
                hello.and_then(|()| (0..count).try_for_each(|turn| writer.write_all(&chunk(turn))));
            let _ = writer.shutdown(Shutdown::Write);
            sent.is_ok()
        });
        let mut is_told = false;
        while let Ok((kind, ..)) = next_frame(&mut client) {
            is_told |= kind == GOAWAY;
        }
        // Whoever still writes sees the end of it.
        let _ = client.get_ref().shutdown(Shutdown::Both);
        !writing.join().unwrap() || is_told
    })
}

#[test]
fn floods_of_frames_are_cut_off_and_leave_nothing_behind() {
    in_namespace!(Unprivileged);
    let (program, web) = up(&[], "http", &[willing()]);
    let head = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "web"),
    ]);
    assert_eq!(ask(&mut open(web), GET).unwrap().0, 200);
    let (before, _) = usage(&program);
    // An entry of 4000 bytes for the dynamic table, then as many mentions of it as fit (RFC 7541, section 6).
    let mut bomb = head.clone();
    bomb.extend(b"\x40\x01x\x7f\xa1\x1e");
    bomb.extend([b'y'; 4000]);
    bomb.extend([0xbe; 12_000]);
    let first = |turn: u32, flags| {
        let head = frame(HEADERS, flags, 1, &head);
        if turn == 0 { head } else { Vec::new() }
    };
    let reset = |turn: u32| {
        let id = 2 * turn + 1;
        let head = frame(HEADERS, END_HEADERS | END_STREAM, id, &head);
        [head, frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
    };
    let empty = |turn| [first(turn, END_HEADERS), frame(DATA, 0, 1, b"")].concat();
    let more = |turn| {
        [
            first(turn, 0),
            frame(CONTINUATION, 0, 1, &fields(&[("x", "y")]).repeat(200)),
        ]
        .concat()
    };
    let ping = |_| frame(PING, 0, 0, &[0; 8]);
    let settings = |_| frame(SETTINGS, 0, 0, b"");
    let bombs = |turn: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * turn + 1, &bomb);
    let cases: [(&str, u32, Chunk<'_>, bool); 6] = [
        ("rapid reset", 50_000, &reset, true),
        ("empty DATA", 100_000, &empty, true),
        ("CONTINUATION", 20_000, &more, true),
        ("HPACK bomb", 200, &bombs, false),
        ("PING", 100_000, &ping, false),
        ("SETTINGS", 100_000, &settings, false),
    ];
    for (case, count, chunk, must_be_cut) in cases {
        let is_cut = beside(web, || flood(web, count, chunk));
        let (after, _) = usage(&program);
        println!("{case}: cut {is_cut}, {after} KiB resident, {before} before");
        assert!(is_cut || !must_be_cut, "{case} is let through");
        assert!(
            after < before + MOST_MEMORY,
            "{case}: {before} to {after} KiB"
        );
        program.wait_for_connections_to_end();
        wait_until_idle(&program, case);
    }
}
