//! Clients of HTTP/2 that begin something and leave it there: each is ended in its time, and holds next to nothing until then.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use super::{
    endpoint,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, SETTINGS,
        WINDOW_UPDATE, fields, frame, goodbye, hello, next_frame, request,
    },
    open, up, willing,
};
use crate::support::namespace::in_namespace;

/// What portico lets an endpoint send before anybody reads it: a stream's window, and the frame that waits to be passed on.
const AHEAD: usize = (64 + 16) << 10;

#[test]
fn frames_that_are_begun_and_not_ended_get_goaway_in_time() {
    in_namespace!(Unprivileged);
    let (program, web) = up(&["--http-head-timeout=300ms"], "http", &[willing()]);
    let whole = frame(HEADERS, END_HEADERS, 1, &request("POST"));
    let begun = |flags| frame(HEADERS, flags, 3, &request("GET"));
    let cut = |mut frame: Vec<u8>| {
        frame.pop();
        frame
    };
    for (case, sent) in [
        ("the preface alone", PREFACE.to_vec()),
        ("a part of SETTINGS", hello()[..PREFACE.len() + 5].to_vec()),
        ("HEADERS to be continued", [hello(), begun(0)].concat()),
        (
            "CONTINUATION to be continued",
            [
                hello(),
                begun(0),
                frame(CONTINUATION, 0, 3, &fields(&[("x", "y")])),
            ]
            .concat(),
        ),
        (
            "a part of HEADERS",
            [hello(), cut(begun(END_HEADERS))].concat(),
        ),
        (
            "a part of PING",
            [hello(), cut(frame(PING, 0, 0, &[0; 8]))].concat(),
        ),
        (
            "HEADERS beside a request in progress",
            [hello(), whole, begun(0)].concat(),
        ),
    ] {
        let mut client = open(web);
        client.get_mut().write_all(&sent).unwrap();
        let mut told = None;
        while let Ok((kind, _, _, payload)) = next_frame(&mut client) {
            if kind == GOAWAY {
                told = Some(goodbye(&payload));
            }
        }
        let (code, text) = told.unwrap_or_else(|| panic!("{case}: no GOAWAY"));
        assert_eq!((code, &*text), (0, "a frame came too late"), "{case}");
    }
    // Nobody floods.
    assert_eq!(program.counted("portico_connections_flooded_total"), 0);
    program.wait_for_connections_to_end();
}

#[test]
fn body_that_comes_slowly_is_no_frame_that_is_late() {
    in_namespace!(Unprivileged);
    let (_program, web) = up(&["--http-head-timeout=100ms"], "http", &[willing()]);
    let mut client = open(web);
    let head = frame(HEADERS, END_HEADERS, 1, &request("POST"));
    let body = frame(DATA, END_STREAM, 1, b"slow");
    let (first, rest) = body.split_at(10);
    client
        .get_mut()
        .write_all(&[&*hello(), &head, first].concat())
        .unwrap();
    thread::park_timeout(Duration::from_millis(500));
    client.get_mut().write_all(rest).unwrap();
    loop {
        let (kind, flags, stream, _) = next_frame(&mut client).unwrap();
        assert_ne!(kind, GOAWAY);
        if stream == 1 && flags & END_STREAM != 0 {
            break;
        }
    }
}

/// An endpoint of HTTP/2 that answers with as much as it may, and how much that was.
fn unbounded() -> (SocketAddr, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let addr = endpoint(move |mut client| {
        client.read_exact(&mut [0; PREFACE.len()])?;
        client.get_mut().write_all(&frame(SETTINGS, 0, 0, b""))?;
        // The stream's; the connection's is larger.
        let (mut window, mut id) = (0, 0);
        loop {
            let (kind, flags, stream, payload) = next_frame(&mut client)?;
            match kind {
                SETTINGS if flags == 0 => {
                    // INITIAL_WINDOW_SIZE (RFC 9113, section 6.5.2).
                    let mut all = payload.chunks(6);
                    let said = all.find(|it| it[..2] == [0, 4]).unwrap();
                    window =
                        usize::try_from(u32::from_be_bytes(said[2..].try_into().unwrap())).unwrap();
                    client.get_mut().write_all(&frame(SETTINGS, 1, 0, b""))?;
                }
                HEADERS => {
                    id = stream;
                    // :status 200 (RFC 7541, appendix A).
                    client
                        .get_mut()
                        .write_all(&frame(HEADERS, END_HEADERS, id, &[0x88]))?;
                }
                WINDOW_UPDATE if stream != 0 => {
                    window +=
                        usize::try_from(u32::from_be_bytes(payload.try_into().unwrap())).unwrap();
                }
                _ => {}
            }
            while id != 0 && window > 0 {
                let length = window.min(16 << 10);
                client
                    .get_mut()
                    .write_all(&frame(DATA, 0, id, &vec![b'x'; length]))?;
                window -= length;
                counted.fetch_add(length, Relaxed);
            }
        }
    });
    (addr, sent)
}

#[test]
fn window_that_is_never_opened_is_ended_at_the_idle_time_and_nothing_is_read_ahead() {
    in_namespace!(Unprivileged);
    let (endpoint, sent) = unbounded();
    let (program, web) = up(&["--tcp-idle-timeout=1s"], "kubernetes.io/h2c", &[endpoint]);
    let mut client = open(web);
    let shut = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
        &frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET")),
    ];
    client.get_mut().write_all(&shut.concat()).unwrap();
    let mut kinds = Vec::new();
    while let Ok((kind, ..)) = next_frame(&mut client) {
        kinds.push(kind);
    }
    assert!(
        kinds.contains(&HEADERS) && !kinds.contains(&DATA),
        "{kinds:?}"
    );
    program.wait_for_connections_to_end();
    let sent = sent.load(Relaxed);
    assert!((1..=AHEAD).contains(&sent), "{sent}");
}
