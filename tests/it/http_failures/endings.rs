//! Endpoints that end under a request or its answer.

use std::{
    io::{BufRead as _, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;

use super::{
    GET, Stream, answer, ask, endpoint,
    frames::{
        DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, next_frame,
    },
    head, manifest, open, up, willing,
};
use crate::support::{PATIENCE, namespace::in_namespace};

/// `loadtest reliability http-endings` has a thousand.
const ENDINGS: usize = 30;
/// `loadtest reliability http-stale` has a hundred thousand.
const REQUESTS: usize = 2000;

/// How an endpoint ends in the middle: every other one by a reset, as the kernel ends those of a killed process that had bytes to
/// read.
fn end(stream: &Stream, turn: usize) {
    if turn % 2 == 1 {
        let _ = set_socket_linger(stream.get_ref(), Some(Duration::ZERO));
    }
}

/// An endpoint of HTTP/1 that answers with this much.
fn breaking(answer: &'static [u8]) -> SocketAddr {
    let turns = AtomicUsize::new(0);
    endpoint(move |mut client| {
        head(&mut client)?;
        client.get_mut().write_all(answer)?;
        end(&client, turns.fetch_add(1, Relaxed));
        Ok(())
    })
}

/// An endpoint of HTTP/2 that ends in the middle of its answer.
fn breaking_http2() -> SocketAddr {
    let turns = AtomicUsize::new(0);
    endpoint(move |mut client| {
        client.read_exact(&mut [0; PREFACE.len()])?;
        client.get_mut().write_all(&frame(SETTINGS, 0, 0, b""))?;
        let id = loop {
            let (kind, _, id, _) = next_frame(&mut client)?;
            if kind == HEADERS {
                break id;
            }
        };
        // 0x88 is `:status: 200` in the static table (RFC 7541, appendix A).
        let mut answer = frame(HEADERS, END_HEADERS, id, b"\x88");
        answer.extend(frame(DATA, 0, id, b"half"));
        client.get_mut().write_all(&answer)?;
        end(&client, turns.fetch_add(1, Relaxed));
        Ok(())
    })
}

/// A client of HTTP/1 never takes such an answer for whole.
fn expect_broken(web: SocketAddr) {
    for round in 0..ENDINGS {
        let mut client = open(web);
        let got = ask(&mut client, GET);
        match got {
            // Told instead, where the end came before the head went on.
            Ok((502, _)) | Err(_) => {}
            Ok(whole) => panic!("round {round}: {whole:?}"),
        }
    }
}

/// Nor does one of HTTP/2: its stream is reset, or the connection.
fn expect_broken_http2(web: SocketAddr) {
    for round in 0..ENDINGS {
        let mut client = open(web);
        // `:method: GET`, `:scheme: http`, `:path: /` by index, `:authority: web` as a literal.
        let head = b"\x82\x86\x84\x01\x03web";
        let mut request = PREFACE.to_vec();
        request.extend(frame(SETTINGS, 0, 0, b""));
        request.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, head));
        client.get_mut().write_all(&request).unwrap();
        let mut status = None;
        while let Ok((kind, flags, id, payload)) = next_frame(&mut client) {
            if kind == HEADERS && status.is_none() {
                status = payload.first().copied();
            }
            if kind == RST_STREAM && id == 1 {
                break;
            }
            let is_end = (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0;
            // A 502 is whole.
            assert!(
                !is_end || status != Some(0x88),
                "round {round}: a clean end"
            );
            if is_end {
                break;
            }
        }
    }
}

#[test]
fn endpoint_killed_in_mid_answer_is_seen_by_clients_of_either_version() {
    in_namespace!(Unprivileged);
    let cases = [
        (
            "http",
            breaking(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"),
        ),
        (
            "http",
            breaking(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ),
        ("kubernetes.io/h2c", breaking_http2()),
    ];
    for (protocol, endpoint) in cases {
        let (program, web) = up(&[], protocol, &[endpoint]);
        expect_broken(web);
        expect_broken_http2(web);
        program.wait_for_connections_to_end();
    }
}

#[test]
fn endpoint_that_closes_idle_connections_at_random_moments_costs_no_request() {
    in_namespace!(Unprivileged);
    let seed = AtomicU64::new(7);
    let stale = endpoint(move |mut client| {
        // A linear congruential generator (Knuth): any sequence will do that is the same each time.
        let step = |seed: u64| Some(seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        loop {
            head(&mut client)?;
            client
                .get_mut()
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            let drawn = seed.fetch_update(Relaxed, Relaxed, step).unwrap();
            // Gives up when nothing comes for this long, which is about as long as clients wait.
            let idle = Duration::from_micros(1 + (drawn >> 33) % 1000);
            client.get_ref().set_read_timeout(Some(idle))?;
            match client.get_ref().peek(&mut [0]) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                // Nothing came, or it came while we looked: every other time it is closed all the same, unread.
                _ if drawn & (1 << 32) == 0 => return Ok(()),
                _ => client.get_ref().set_read_timeout(Some(PATIENCE))?,
            }
        }
    });
    let (program, web) = up(&["--workers=1"], "http", &[stale]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = open(web);
                for number in 0..REQUESTS / 4 {
                    let (status, body) = ask(&mut client, GET).unwrap();
                    let said = String::from_utf8_lossy(&body);
                    assert_eq!(status, 200, "request {number}: {said}");
                }
            });
        }
    });
    program.wait_for_connections_to_end();
}

#[test]
fn endpoint_that_fails_five_times_in_a_row_sits_out_and_others_get_its_requests() {
    in_namespace!(Unprivileged);
    let failing = endpoint(|mut client| {
        while head(&mut client).is_ok() {
            client
                .get_mut()
                .write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    });
    let (program, web) = up(&[], "http", &[failing, willing()]);
    let mut client = open(web);
    let statuses: Vec<u16> = (0..30).map(|_| ask(&mut client, GET).unwrap().0).collect();
    let (first, rest) = statuses.split_at(10);
    assert_eq!(first.iter().filter(|status| **status == 503).count(), 5);
    assert_eq!(rest, [200; 20]);
    let said = program.command(&["explain", "service/web"]).stdout;
    let said = String::from_utf8(said).unwrap();
    let expected = format!("{failing} sits out after failures in a row");
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn retry_in_another_protocol_tells_of_the_client_once() {
    in_namespace!(Unprivileged);
    let ((say, asked), (go, may_go)) = (mpsc::channel(), mpsc::channel());
    let gate = Arc::new(Mutex::new((say, may_go)));
    // Of HTTP/2 it ends once it may, without an answer; of HTTP/1 it answers with the head that it got.
    let serve = move |mut client: Stream| {
        if client.fill_buf()?.starts_with(b"PRI") {
            client.read_exact(&mut [0; PREFACE.len()])?;
            client.get_mut().write_all(&frame(SETTINGS, 0, 0, b""))?;
            while next_frame(&mut client)?.0 != HEADERS {}
            let gate = gate.lock().unwrap();
            gate.0.send(()).unwrap();
            gate.1.recv_timeout(PATIENCE).unwrap();
            return Ok(());
        }
        let head = head(&mut client)?.join("\n");
        let length = head.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}");
        client.get_mut().write_all(answer.as_bytes())
    };
    let endpoints = [endpoint(serve.clone()), endpoint(serve)];
    let args = [
        "--http-trusted-proxies=127.0.0.0/8",
        "--http-headers=via,forwarded",
    ];
    let (program, web) = up(&args, "kubernetes.io/h2c", &endpoints);
    let before = program.status().generation;
    let mut client = open(web);
    client
        .get_mut()
        .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
        .unwrap();
    asked.recv_timeout(PATIENCE).unwrap();
    program.write("web.yaml", &manifest("http", &endpoints));
    program.wait_for("the edit", |status| status.generation > before);
    go.send(()).unwrap();
    let (status, body) = answer(&mut client).unwrap();
    let told = String::from_utf8(body).unwrap();
    assert_eq!(status, 200, "{told}");
    let lines = |name: &str| -> Vec<&str> {
        told.lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    };
    assert_eq!(lines("x-forwarded-for"), ["192.0.2.1, 127.0.0.1"], "{told}");
    assert_eq!(lines("via"), ["1.1 portico"], "{told}");
    assert_eq!(told.matches("for=").count(), 1, "{told}");
}
