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
    GET, LARGE, answer, ask, endpoint,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING,
        PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, asking_for_all, fields, frame, goodbye,
        hello, next_frame, request,
    },
    head, open, sending, up, wait_until_full, willing,
};
use crate::support::{PATIENCE, is_installed, namespace::in_namespace, program::Program};

/// Twice the streams of a flood that nobody ends.
const MOST_STREAMS: u32 = 200_000;
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

/// Frames that a client sends again and again.
struct Flood {
    case: &'static str,
    /// What GOAWAY says, unless the codec has a limit of its own, and which comes first is chance.
    said: Option<String>,
    /// What begins it.
    first: Vec<u8>,
    /// With the number of a stream that is not used yet.
    again: Box<dyn Fn(u32) -> Vec<u8> + Sync>,
}

/// Those that need no stream.
fn floods_of_a_connection() -> impl Iterator<Item = Flood> {
    let all = [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, b"")),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(0xfa, 0, 0, b"")),
    ];
    all.into_iter().map(|(case, frame)| Flood {
        case,
        said: Some(format!("too many {case} frames")),
        first: Vec::new(),
        again: Box::new(move |_| frame.clone()),
    })
}

/// Those within a stream.
fn floods_of_a_stream() -> impl Iterator<Item = Flood> {
    let head = request("POST");
    let more = fields(&[("x", "y")]).repeat(200);
    let all = [
        ("empty DATA", END_HEADERS, frame(DATA, 0, 1, b"")),
        ("CONTINUATION", 0, frame(CONTINUATION, 0, 1, &more)),
        ("empty CONTINUATION", 0, frame(CONTINUATION, 0, 1, b"")),
    ];
    all.into_iter().map(move |(case, flags, frames)| Flood {
        case,
        said: None,
        first: frame(HEADERS, flags, 1, &head),
        again: Box::new(move |_| frames.clone()),
    })
}

/// Those of streams.
fn floods_of_streams() -> impl Iterator<Item = Flood> {
    // An entry of 4000 bytes for the dynamic table, then as many mentions of it as fit (RFC 7541, section 6).
    let mut bomb = request("POST");
    bomb.extend(b"\x40\x01x\x7f\xa1\x1e");
    bomb.extend([b'y'; 4000]);
    bomb.extend([0xbe; 12_000]);
    let false_length = [request("POST"), fields(&[("content-length", "1")])].concat();
    let (end, whole) = (END_HEADERS, END_HEADERS | END_STREAM);
    let (most, cancel) = ([0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 8]);
    let all = [
        ("HPACK bomb", bomb, whole, None),
        (
            "rapid reset",
            request("GET"),
            whole,
            Some((RST_STREAM, 0, cancel)),
        ),
        // MadeYouReset: streams that have to be reset.
        (
            "window overflow",
            request("GET"),
            whole,
            Some((WINDOW_UPDATE, 0, most)),
        ),
        (
            "false length",
            false_length,
            end,
            Some((DATA, END_STREAM, most)),
        ),
    ];
    all.into_iter().map(|(case, head, flags, behind)| Flood {
        case,
        said: None,
        first: Vec::new(),
        again: Box::new(move |id| {
            let behind = behind.map(|(kind, flags, payload)| frame(kind, flags, id, &payload));
            [frame(HEADERS, flags, id, &head), behind.unwrap_or_default()].concat()
        }),
    })
}

/// Sends it and reads what comes, up to the end: what GOAWAY said, and when.
fn send(flood: &Flood, web: SocketAddr) -> Option<(u32, String, Duration)> {
    let mut client = open(web);
    let mut writer = client.get_ref().try_clone().unwrap();
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut sent = writer.write_all(&[hello(), flood.first.clone()].concat());
            let mut streams = (1..MOST_STREAMS).step_by(2);
            while let (Ok(()), Some(id)) = (&sent, streams.next()) {
                sent = writer.write_all(&(flood.again)(id));
            }
        });
        let mut told = None;
        while let Ok((kind, _, _, payload)) = next_frame(&mut client) {
            if kind == GOAWAY {
                let (code, text) = goodbye(&payload);
                told = Some((code, text, began.elapsed()));
            }
        }
        // Whoever still writes sees the end of it.
        let _ = client.get_ref().shutdown(Shutdown::Both);
        told
    })
}

#[test]
fn floods_of_frames_are_cut_off_and_leave_nothing_behind() {
    in_namespace!(Unprivileged);
    let (program, web) = up(&[], "http", &[willing()]);
    assert_eq!(ask(&mut open(web), GET).unwrap().0, 200);
    let (before, _) = usage(&program);
    let floods = floods_of_a_connection().chain(floods_of_a_stream());
    for (turn, flood) in (1..).zip(floods.chain(floods_of_streams())) {
        let case = flood.case;
        let told = beside(web, || send(&flood, web));
        let (after, _) = usage(&program);
        println!("{case}: {told:?}, {after} KiB resident, {before} before");
        let (code, text, _) = told.unwrap_or_else(|| panic!("{case} gets no GOAWAY"));
        assert_eq!(code, ENHANCE_YOUR_CALM, "{case}: {text}");
        assert!(flood.said.is_none_or(|said| said == text), "{case}: {text}");
        assert!(
            after < before + MOST_MEMORY,
            "{case}: {before} to {after} KiB"
        );
        program.wait_for_connections_to_end();
        wait_until_idle(&program, case);
        let counted = program.counted("portico_connections_flooded_total");
        assert_eq!(counted, turn, "{case}");
    }
}

#[test]
fn flood_amid_an_answer_that_nobody_reads_is_cut_between_frames() {
    in_namespace!(Unprivileged);
    let (program, web) = up(&[], "http", &[sending(LARGE)]);
    let mut client = open(web);
    client.get_mut().write_all(&asking_for_all()).unwrap();
    wait_until_full(&program, &client);
    let flood = frame(SETTINGS, 0, 0, b"").repeat(200);
    client.get_mut().write_all(&flood).unwrap();
    let mut bytes = Vec::new();
    let end = client.read_to_end(&mut bytes);
    let (mut rest, mut last) = (&bytes[..], None);
    while !rest.is_empty() {
        let (kind, _, stream, payload) = next_frame(&mut rest).unwrap();
        if kind == DATA {
            assert_eq!(stream, 1);
            assert!(payload.iter().all(|byte| b"ok".contains(byte)));
        }
        last = Some((kind, payload));
    }
    let (kind, payload) = last.unwrap();
    assert_eq!(kind, GOAWAY, "{end:?} after {} bytes", bytes.len());
    assert_eq!(goodbye(&payload).0, ENHANCE_YOUR_CALM);
    // The stream that was being answered.
    assert_eq!(payload[..4], [0, 0, 0, 1]);
    drop(client);
    program.wait_for_connections_to_end();
}

#[test]
fn requests_that_are_given_up_at_their_endpoints_are_a_flood() {
    in_namespace!(Unprivileged);
    let silent = endpoint(|mut client| {
        while head(&mut client).is_ok() {}
        Ok(())
    });
    let (program, web) = up(&[], "http", &[silent]);
    let mut client = open(web);
    client.get_mut().write_all(&hello()).unwrap();
    let asked = request("GET");
    let told = (1..MOST_STREAMS).step_by(20).find_map(|first| {
        let streams = || (first..first + 20).step_by(2);
        let heads = streams().map(|id| frame(HEADERS, END_HEADERS | END_STREAM, id, &asked));
        let heads: Vec<u8> = heads.flatten().collect();
        // What answers it has seen the requests before.
        let ping = frame(PING, 0, 0, &[0; 8]);
        client.get_mut().write_all(&[heads, ping].concat()).unwrap();
        loop {
            match next_frame(&mut client).unwrap() {
                (GOAWAY, _, _, payload) => return Some(goodbye(&payload)),
                (PING, ..) => break,
                _ => {}
            }
        }
        let resets = streams().flat_map(|id| frame(RST_STREAM, 0, id, &[0, 0, 0, 8]));
        let resets: Vec<u8> = resets.collect();
        client.get_mut().write_all(&resets).unwrap();
        None
    });
    let text = "too many RST_STREAM frames".to_owned();
    assert_eq!(told, Some((ENHANCE_YOUR_CALM, text)));
    program.wait_for_connections_to_end();
}
