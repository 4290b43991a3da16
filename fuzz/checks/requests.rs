//! A client's bytes in HTTP/1: what passes as one request is one to the codec behind, hyper, to the byte, and so is what stands in
//! for one that is refused.

use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use portico_core::http::{
    framing::HeadLimits,
    message::{Messages, stand_in},
};

/// Sent behind each request.
const NEXT: &[u8] = b"GET /the-next HTTP/1.1\r\nHost: next\r\n\r\n";

pub(crate) fn check(bytes: &[u8]) {
    let mut messages = Messages::new(HeadLimits::default());
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let passed = match messages.pass(rest, 0) {
            Ok(passed) => passed,
            Err(fault) => {
                assert!(messages.is_head() && !fault.to_string().is_empty());
                if let Some(instead) = stand_in(rest, fault) {
                    let seen = read(&[&instead, NEXT].concat());
                    assert!(
                        seen[0].is_whole && seen[0].body.is_empty(),
                        "{fault}: {seen:?}"
                    );
                    check_next(&seen, &instead);
                }
                return;
            }
        };
        if !messages.is_between() {
            // It is not whole yet, or there is none.
            return;
        }
        let request = &rest[..passed];
        let seen = read(&[request, NEXT].concat());
        check_next(&seen, request);
        at += passed;
        messages.begin();
    }
}

/// The first is a request, and the only one up to the next.
fn check_next(seen: &[Seen], request: &[u8]) {
    let text = String::from_utf8_lossy(request);
    assert!(!seen.is_empty(), "no request: {text:?}");
    // A body that has trailers which are none is one up to there, and the connection is done for.
    let is_sound = seen[0].is_whole || (text.contains("hunked") && seen.len() == 1);
    assert!(is_sound, "not whole: {text:?}, {seen:?}");
    match seen {
        [_] => {}
        [_, next] => assert_eq!(next.line, "GET /the-next", "{text:?}, {seen:?}"),
        _ => panic!("{text:?}: {seen:?}"),
    }
}

/// A request as hyper gives it.
#[derive(Debug)]
struct Seen {
    /// Method and target.
    line: String,
    body: Bytes,
    is_whole: bool,
}

/// The requests that hyper reads.
fn read(bytes: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let noted = Rc::clone(&noted);
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await;
            let is_whole = body.is_ok();
            let body = body.map(http_body_util::Collected::to_bytes);
            noted.borrow_mut().push(Seen {
                line,
                body: body.unwrap_or_default(),
                is_whole,
            });
            Ok::<_, io::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let memory = Memory(bytes.to_vec(), 0);
    let connection = http1::Builder::new()
        .half_close(false)
        .max_buf_size(64 << 10)
        .max_header_size(64 << 10)
        .header_read_timeout(None)
        .serve_connection(memory, service);
    let mut connection = pin!(connection);
    let mut cx = Context::from_waker(Waker::noop());
    // As often as hyper may want to be woken for what it has put off.
    for _ in 0..8 {
        if connection.as_mut().poll(&mut cx).is_ready() {
            break;
        }
    }
    seen.take()
}

/// A client that has sent all this, and waits.
struct Memory(Vec<u8>, usize);

impl Read for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self(bytes, at) = &mut *self;
        let rest = &bytes[*at..];
        let count = rest.len().min(buf.remaining());
        if count == 0 {
            return Poll::Pending;
        }
        buf.put_slice(&rest[..count]);
        *at += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
