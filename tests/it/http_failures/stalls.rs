//! Clients of HTTP/2 that begin something and leave it there: each is ended in its time.

use std::io::Write as _;

use super::{
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, fields, frame,
        goodbye, hello, next_frame, request,
    },
    open, up, willing,
};
use crate::support::namespace::in_namespace;

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
    std::thread::park_timeout(std::time::Duration::from_millis(500));
    client.get_mut().write_all(rest).unwrap();
    loop {
        let (kind, flags, stream, _) = next_frame(&mut client).unwrap();
        assert_ne!(kind, GOAWAY);
        if stream == 1 && flags & END_STREAM != 0 {
            break;
        }
    }
}
