//! Which bytes of a client of HTTP/1 its codec gets, and when. Owns that the codec has one request at a time, from a head that it can
//! read; that the client's end of sending is kept from it while the request is answered; and that of what cannot be read a request
//! is made that is refused in words, counted and logged like any other. What is sound says [`portico_core::http::message`].

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use portico_core::http::{
    error::Cause,
    framing::{BadHead, HeadLimits},
    message::{Messages, stand_in},
};
use tokio::io::ReadBuf;

use super::{progress::Refused, wire::Socket};

/// Read by the codec in the place of a head that cannot be read.
const UNREAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
/// Bytes that are read behind a request that is not answered yet: an end or a reset may stand behind them.
const AHEAD_BYTES: usize = 8 * 1024;
/// Why a client whose head does not come is refused.
pub(super) const LATE: Refused = Refused {
    cause: Cause::SlowHead,
    is_unread: true,
};

/// The requests of a connection.
#[derive(Debug)]
pub(super) struct Requests {
    messages: Messages,
    /// Bytes of what is held that may be read.
    passing: usize,
    /// Bytes of what is held that are known to be no whole head.
    judged: usize,
    /// Heads that were passed.
    passed: u64,
    /// The client has ended its sending.
    has_ended: bool,
    /// A request was refused: where the next one begins cannot be told.
    is_over: bool,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            messages: Messages::new(HeadLimits::default()),
            passing: 0,
            judged: 0,
            passed: 0,
            has_ended: false,
            is_over: false,
        }
    }

    /// Reads on, up to the end of a request.
    pub(super) fn poll(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.passing > 0 {
                self.passing -= socket.give(self.passing, buf);
                return Poll::Ready(Ok(()));
            }
            if self.is_over {
                return Poll::Pending;
            }
            if self.messages.is_between() {
                if !socket.progress.is_idle(self.passed) {
                    return self.poll_ahead(socket, cx, buf);
                }
                self.messages.begin();
            }
            if self.messages.is_head() && socket.progress.is_refused() {
                self.replace(socket, UNREAD);
            } else if socket.held.len() > self.judged {
                self.judge(socket)?;
            } else if self.has_ended {
                if self.judged == 0 {
                    return Poll::Ready(Ok(()));
                }
                self.refuse(socket, BadHead::BrokenOff)?;
            } else if ready!(self.poll_more(socket, cx, buf))? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Judges what is held.
    fn judge(&mut self, socket: &mut Socket) -> io::Result<()> {
        match self.pass(&socket.held) {
            Ok(0) => {
                self.judged = socket.held.len();
                socket.progress.awaits_head();
                Ok(())
            }
            Ok(count) => {
                self.passing = count;
                Ok(())
            }
            Err(fault) => self.refuse(socket, fault),
        }
    }

    /// See [`Messages::pass`].
    fn pass(&mut self, bytes: &[u8]) -> Result<usize, BadHead> {
        let was_head = self.messages.is_head();
        let count = self.messages.pass(bytes, self.judged)?;
        if count > 0 {
            self.judged = 0;
            self.passed += u64::from(was_head);
        }
        Ok(count)
    }

    /// Reads the socket, and gives what belongs to the request. Says whether that is anything, be it its end.
    fn poll_more(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        if ready!(socket.poll(cx, buf))? == 0 {
            self.has_ended = true;
            // Of a head that breaks off more is to be said.
            return Poll::Ready(Ok(self.judged == 0));
        }
        let came = buf.filled().get(before..).unwrap_or_default();
        // Most often it is one whole request, and is not moved. Why it is none is found where it is held.
        let here = match self.judged {
            0 => self.pass(came).unwrap_or_default(),
            _ => 0,
        };
        socket.hold(came.get(here..).unwrap_or_default());
        buf.set_filled(before + here);
        Poll::Ready(Ok(here > 0))
    }

    /// Reads behind a request that is under way: whether the client is gone. That it only ended its sending is no news before the
    /// request is over (RFC 9112, section 9.6, speaks of such clients).
    fn poll_ahead(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.has_ended && socket.held.len() < AHEAD_BYTES {
            let before = buf.filled().len();
            let Poll::Ready(polled) = socket.poll(cx, buf) else {
                break;
            };
            self.has_ended = polled? == 0;
            socket.hold(buf.filled().get(before..).unwrap_or_default());
            buf.set_filled(before);
        }
        if self.has_ended || !socket.held.is_empty() {
            // The socket has no more to tell.
            socket.progress.wakes_when_idle(cx);
        }
        Poll::Pending
    }

    /// Lets the codec read something else, which is refused; what is wrong behind a head that has passed is an error of its own.
    fn refuse(&mut self, socket: &mut Socket, fault: BadHead) -> io::Result<()> {
        if !self.messages.is_head() {
            self.is_over = true;
            return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
        }
        let readable = stand_in(&socket.held, fault);
        socket.progress.refuse(Refused {
            cause: Cause::BadHead(fault),
            is_unread: readable.is_none(),
        });
        self.replace(socket, readable.as_deref().unwrap_or(UNREAD));
        Ok(())
    }

    fn replace(&mut self, socket: &mut Socket, stand_in: &[u8]) {
        self.is_over = true;
        self.passing = stand_in.len();
        socket.held = BytesMut::from(stand_in);
    }
}
