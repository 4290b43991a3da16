//! A client's connection as a codec reads and writes it. Owns what was read before the codec began, what is known of the
//! connection's progress, and that an end of the client's sending is no end of the connection while it waits for an answer.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use crate::tcp::Resetting;

/// See [`poll_gathered`].
const SMALL_BYTES: usize = 1024;
/// Requests of a connection that may be given up before their answers begin, in each [`WINDOW`].
const MOST_GIVEN_UP: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);

/// How far a client's connection is. Shared by what reads it, what answers and what watches the time.
#[derive(Debug)]
pub(super) struct Progress {
    /// The last byte in either direction.
    pub(super) last: Cell<Instant>,
    /// The first byte since the last request, if there is one: of the next one's head.
    pub(super) head_since: Cell<Option<Instant>>,
    /// Requests that are not over.
    pub(super) requests: Cell<u32>,
    /// Of these, whose bodies have not ended.
    pub(super) uploads: Cell<u32>,
    /// Bytes read and written.
    pub(super) bytes: Cell<(u64, u64)>,
    /// Requests that were given up before their answers began, since when.
    given_up: Cell<(Instant, u32)>,
    /// A body was not read to its end.
    pub(super) was_cut_short: Cell<bool>,
    /// A body broke: the end of the connection must not look clean.
    pub(super) is_broken: Cell<bool>,
    /// Of HTTP/1 bytes between requests are of a head, and the client's end of sending is kept from the codec while requests wait for
    /// their answers. HTTP/2 has rules of its own.
    pub(super) is_http1: Cell<bool>,
}

impl Progress {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            last: Cell::new(Instant::now()),
            head_since: Cell::new(None),
            requests: Cell::new(0),
            uploads: Cell::new(0),
            bytes: Cell::new((0, 0)),
            given_up: Cell::new((Instant::now(), 0)),
            was_cut_short: Cell::new(false),
            is_broken: Cell::new(false),
            is_http1: Cell::new(false),
        })
    }

    fn moved(&self, read: usize, written: usize) {
        let now = Instant::now();
        self.last.set(now);
        let is_between = self.is_http1.get() && self.requests.get() == 0;
        if read > 0 && is_between && self.head_since.get().is_none() {
            self.head_since.set(Some(now));
        }
        let (before, after) = self.bytes.get();
        self.bytes
            .set((before + count(read), after + count(written)));
    }

    /// A request's head is complete.
    pub(super) fn begin(self: &Rc<Self>) -> Underway {
        self.head_since.set(None);
        self.requests.set(self.requests.get() + 1);
        Underway {
            progress: Rc::clone(self),
            is_answered: false,
        }
    }

    /// Whether the client asks only to give up (CVE-2023-44487).
    pub(super) fn is_flooded(&self) -> bool {
        self.given_up.get().1 > MOST_GIVEN_UP
    }

    fn gave_up(&self, now: Instant) {
        let (since, count) = self.given_up.get();
        self.given_up.set(if now.duration_since(since) < WINDOW {
            (since, count + 1)
        } else {
            (now, 1)
        });
    }
}

/// A request that is not over. Dropped: it is.
#[derive(Debug)]
pub(super) struct Underway {
    progress: Rc<Progress>,
    is_answered: bool,
}

impl Underway {
    /// Its answer begins.
    pub(super) const fn answered(mut self) -> Self {
        self.is_answered = true;
        self
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let (progress, now) = (&self.progress, Instant::now());
        progress.last.set(now);
        progress
            .requests
            .set(progress.requests.get().saturating_sub(1));
        if !self.is_answered {
            progress.gave_up(now);
        }
    }
}

/// A client's socket.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: Resetting,
    /// What is to be read before it.
    seen: Bytes,
    progress: Rc<Progress>,
}

impl Wire {
    pub(super) fn new(stream: Resetting, seen: Bytes, progress: Rc<Progress>) -> Self {
        Self {
            stream,
            seen,
            progress,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.seen.is_empty() {
            let polled = Pin::new(&mut self.stream.stream).poll_read(cx, buf);
            if !matches!(polled, Poll::Ready(Ok(()))) {
                return polled;
            }
        } else {
            let count = self.seen.len().min(buf.remaining());
            buf.put_slice(&self.seen.split_to(count));
        }
        let count = buf.filled().len() - before;
        let progress = &self.progress;
        let waits = progress.requests.get() > 0 && progress.uploads.get() == 0;
        if count == 0 && waits && progress.is_http1.get() {
            // Asked again once the answer has gone.
            return Poll::Pending;
        }
        progress.moved(count, 0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream.stream).poll_write(cx, bytes);
        wrote(&self.progress, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = poll_gathered(Pin::new(&mut self.stream.stream), cx, slices);
        wrote(&self.progress, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.progress.is_broken.get() {
            // It is reset when it closes, which an end of sending would hide.
            return Poll::Ready(Ok(()));
        }
        self.stream.disarm();
        Pin::new(&mut self.stream.stream).poll_shutdown(cx)
    }
}

/// Writes a small message as one: gathering it costs the kernel more than copying so little.
fn poll_gathered(
    stream: Pin<&mut TcpStream>,
    cx: &mut Context<'_>,
    slices: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [one] = slices {
        return stream.poll_write(cx, one);
    }
    let (mut whole, mut length) = ([0; SMALL_BYTES], 0);
    for slice in slices {
        let Some(room) = whole.get_mut(length..length + slice.len()) else {
            return stream.poll_write_vectored(cx, slices);
        };
        room.copy_from_slice(slice);
        length += slice.len();
    }
    stream.poll_write(cx, whole.get(..length).unwrap_or_default())
}

fn wrote(progress: &Progress, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    if let Poll::Ready(Ok(count)) = &polled {
        progress.moved(0, *count);
    }
    polled
}

pub(super) fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// An endpoint's socket, which tells whether anything was written to it since it was asked last.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) stream: TcpStream,
    pub(super) written: Rc<Cell<bool>>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.set(true);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written.set(true);
        poll_gathered(Pin::new(&mut self.stream), cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
