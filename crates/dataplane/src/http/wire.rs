//! Sockets as codecs read and write them: a client's, with what was read before the codec began, and an endpoint's.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{progress::Progress, requests::Requests};
use crate::tcp::Resetting;

/// See [`poll_gathered`].
const SMALL_BYTES: usize = 1024;

/// A client's socket, and what came by it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Resetting,
    /// What is read before what comes.
    pub(super) held: BytesMut,
    pub(super) progress: Rc<Progress>,
}

impl Socket {
    /// Reads what comes; says how much.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream.stream).poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        self.progress.moved(count, 0);
        Poll::Ready(Ok(count))
    }

    /// Keeps what is to be read later.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Gives some of what is held, at most so much.
    pub(super) fn give(&mut self, most: usize, buf: &mut ReadBuf<'_>) -> usize {
        let count = most.min(self.held.len()).min(buf.remaining());
        buf.put_slice(&self.held.split_to(count));
        if self.held.is_empty() {
            // A connection that is idle has no use for the room.
            self.held = BytesMut::new();
        }
        count
    }
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    /// Of HTTP/1; HTTP/2 has rules of its own for what is read when.
    requests: Option<Requests>,
}

impl Wire {
    pub(super) fn new(
        (stream, held): (Resetting, BytesMut),
        progress: Rc<Progress>,
        requests: Option<Requests>,
    ) -> Self {
        progress.moved(held.len(), 0);
        let socket = Socket {
            stream,
            held,
            progress,
        };
        Self { socket, requests }
    }

    /// The socket, and what came and was not read.
    pub(super) fn into_parts(self) -> (Resetting, BytesMut) {
        (self.socket.stream, self.socket.held)
    }

    pub(super) fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.socket.stream.stream)
    }

    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &polled {
            self.socket.progress.moved(0, *count);
        }
        polled
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, requests } = &mut *self;
        if let Some(requests) = requests {
            return requests.poll(socket, cx, buf);
        }
        if socket.give(usize::MAX, buf) == 0 {
            ready!(socket.poll(cx, buf))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream().poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = poll_gathered(self.stream(), cx, slices);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.stream.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.socket.progress.is_broken.get() {
            // It is reset when it closes, which an end of sending would hide.
            return Poll::Ready(Ok(()));
        }
        self.socket.stream.disarm();
        self.stream().poll_shutdown(cx)
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
