//! The frames of a client's connection of HTTP/2, beside its codec. Owns following them both ways, the end of a connection whose client
//! floods it or does not finish what it began, and that such a client can read why. What is too much, the core says; what frames
//! mean, the codec. The codec has no way to be told of an end with an error code, so it is dropped where one of its frames ends, and GOAWAY
//! follows.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::Reason;
use portico_core::http::flood::{Counter, Follower, Kind};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, sleep_until, timeout},
};

use super::{LINGER, Over, PREFACE, Session, linger, wire::Wire};

/// The type of GOAWAY (RFC 9113, section 6.8).
const GOAWAY: u8 = 7;

/// Why a connection is not left to its codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// There are too many of these.
    Flood(Kind),
    /// A frame or the fields of a request are not complete in time, or nothing came at all.
    Late,
}

impl Cause {
    /// The error code of its GOAWAY, and what that says to people.
    fn goodbye(self) -> (Reason, String) {
        match self {
            Self::Flood(kind) => {
                let text = format!("too many {} frames", kind.as_str());
                (Reason::ENHANCE_YOUR_CALM, text)
            }
            Self::Late => (Reason::NO_ERROR, "a frame came too late".to_owned()),
        }
    }
}

/// The client's socket as the codec has it.
#[derive(Debug, Clone)]
pub(super) struct Framed(Rc<RefCell<Frames>>);

/// What is known of the frames.
#[derive(Debug)]
struct Frames {
    wire: Wire,
    began: Instant,
    received: Follower,
    sent: Follower,
    counter: Counter,
    /// Since when the client owes the rest of something.
    owes_since: Option<Instant>,
    /// The last stream that it opened.
    last_stream: u32,
    /// Nothing else is read, nor is another frame begun.
    cause: Option<Cause>,
}

impl Framed {
    pub(super) fn new(wire: Wire) -> Self {
        let now = Instant::now();
        Self(Rc::new(RefCell::new(Frames {
            wire,
            began: now,
            received: Follower::after(PREFACE.len()),
            sent: Follower::after(0),
            counter: Counter::default(),
            owes_since: Some(now),
            last_stream: 0,
            cause: None,
        })))
    }

    /// Returns when the connection must not go on, at the end of a frame that was begun, if that comes soon. To be polled after the codec,
    /// by the same task, which is why nothing wakes it but its timer.
    pub(super) async fn over(&self, patience: Duration) -> Cause {
        let mut timer = pin!(sleep_until(Instant::now() + patience));
        let cause = poll_fn(|cx| {
            loop {
                let mut frames = self.0.borrow_mut();
                if let Some(cause) = frames.cause {
                    return Poll::Ready(cause);
                }
                let Some(since) = frames.owes_since else {
                    return Poll::Pending;
                };
                // As in the watch, corrected when it fires.
                ready!(timer.as_mut().poll(cx));
                let (at, now) = (since + patience, Instant::now());
                if at > now {
                    timer.as_mut().reset(at);
                } else if frames.has_unread(cx) {
                    frames.owes_since = Some(now);
                } else {
                    frames.cause = Some(Cause::Late);
                }
            }
        })
        .await;
        let whole = poll_fn(|_| {
            if self.0.borrow().sent.missing() == 0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        // Whoever does not read is not told.
        let _ = timeout(LINGER, whole).await;
        cause
    }

    /// Ends the connection, once its codec is dropped.
    pub(super) async fn end(self, session: &Session, over: Result<Over<h2::Error>, Cause>) {
        let Some(frames) = Rc::into_inner(self.0).map(RefCell::into_inner) else {
            return;
        };
        let local = &session.arrival.local;
        let flooded = || session.shared.totals.flooded.fetch_add(1, Relaxed);
        match over {
            Err(cause) => {
                if let Cause::Flood(_) = cause {
                    flooded();
                }
                frames.dismiss(cause, local).await;
            }
            Ok(Over::Ended(Err(error))) => {
                tracing::debug!(%local, %error, "connection of HTTP/2 broke");
                if !error.is_go_away() || !error.is_library() {
                    return;
                }
                if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                    flooded();
                }
                // The codec has said why, and ended the sending.
                linger(frames.wire.into_parts().0).await;
            }
            Ok(_) => {}
        }
    }
}

impl Frames {
    /// Follows what was read, up to a flood.
    fn saw(&mut self, mut bytes: &[u8]) {
        let now = Instant::now();
        let (mut is_new, mut last_stream) = (false, self.last_stream);
        while let Some(head) = self.received.next(&mut bytes) {
            is_new |= !head.continues();
            if head.opens() {
                last_stream = last_stream.max(head.stream);
            }
            if let Some(kind) = self.counter.received(&head, now.duration_since(self.began)) {
                self.cause = Some(Cause::Flood(kind));
                return;
            }
        }
        self.last_stream = last_stream;
        let since = self.owes_since.filter(|_| !is_new).unwrap_or(now);
        self.owes_since = self.received.is_amidst().then_some(since);
    }

    /// Follows what was written.
    fn wrote(&mut self, mut bytes: &[u8]) {
        while let Some(head) = self.sent.next(&mut bytes) {
            self.counter.sent(&head);
        }
    }

    /// As much of what is to be written as may be.
    fn allowed<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        if self.cause.is_none() {
            return Some(bytes);
        }
        let rest = bytes.get(..self.sent.missing().min(bytes.len()));
        rest.filter(|rest| !rest.is_empty())
    }

    /// Whether there is something to be read: the codec does not read while it cannot write, which is no fault of what waits.
    fn has_unread(&mut self, cx: &mut Context<'_>) -> bool {
        self.wire.stream().poll_read_ready(cx).is_ready()
    }

    /// Says why the connection ends, unless it would be read as part of a frame.
    async fn dismiss(mut self, cause: Cause, local: &SocketAddr) {
        let (reason, text) = cause.goodbye();
        tracing::debug!(%local, ?reason, text, "connection of HTTP/2 is ended");
        if self.sent.missing() == 0 {
            let frame = go_away(self.last_stream, reason, &text);
            let _ = timeout(LINGER, self.wire.stream().write_all(&frame)).await;
        }
        linger(self.wire.into_parts().0).await;
    }
}

/// A GOAWAY frame (RFC 9113, section 6.8).
fn go_away(last_stream: u32, reason: Reason, text: &str) -> Vec<u8> {
    let length = u32::try_from(8 + text.len()).unwrap_or_default();
    let [_, length @ ..] = length.to_be_bytes();
    let mut frame = [&length[..], &[GOAWAY, 0, 0, 0, 0, 0]].concat();
    frame.extend(last_stream.to_be_bytes());
    frame.extend(u32::from(reason).to_be_bytes());
    frame.extend(text.as_bytes());
    frame
}

impl AsyncRead for Framed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut frames = self.0.borrow_mut();
        let before = buf.filled().len();
        if frames.cause.is_none() {
            ready!(Pin::new(&mut frames.wire).poll_read(cx, buf))?;
            frames.saw(buf.filled().get(before..).unwrap_or_default());
        }
        if frames.cause.is_some() {
            buf.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Framed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut frames = self.0.borrow_mut();
        let Some(bytes) = frames.allowed(bytes) else {
            return Poll::Pending;
        };
        let count = ready!(Pin::new(&mut frames.wire).poll_write(cx, bytes))?;
        frames.wrote(bytes.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut frames = self.0.borrow_mut();
        if frames.cause.is_some() {
            drop(frames);
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write(cx, first.map_or(&[], |slice| slice));
        }
        let count = ready!(Pin::new(&mut frames.wire).poll_write_vectored(cx, slices))?;
        let mut rest = count;
        for slice in slices {
            let (part, _) = slice.split_at(rest.min(slice.len()));
            frames.wrote(part);
            rest -= part.len();
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().wire.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().wire).poll_shutdown(cx)
    }
}
