//! When a direction of a relay leaves its bytes to the kernel (splice(2)), and the pipe it does that with. Owns the
//! choice and the two moves; must not count for others, nor know what ends a relay.
//!
//! A stream that is busy is spliced: one that brought [`SPLICE_AFTER`] bytes since it was last quiet. It is quiet when
//! it brings less than [`BURST_BYTES`] and then nothing. The pipe is lent for as long as the sender has more, not longer.

use std::{
    io,
    task::{Context, Poll, ready},
};

use rustix::io::Errno;
use tokio::{
    io::Interest,
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use super::SCRATCH_BYTES;
use crate::net::pipe::Pipe;

/// Bytes after which a direction is spliced. More than one scratch buffer, so that a message which one read takes never
/// costs a pipe.
pub(super) const SPLICE_AFTER: usize = 128 * 1024;
/// Fewer bytes from one pause of the sender to the next are small messages, not a stream.
pub(super) const BURST_BYTES: usize = 16 * 1024;

/// A half of a stream that may be a socket: then its bytes need not pass through this process.
pub trait MaybeSocket: Send + Unpin {
    /// The socket, if it is one.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl MaybeSocket for ReadHalf<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

impl MaybeSocket for WriteHalf<'_> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.as_ref())
    }
}

/// What an attempt to splice came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// The pipe holds some bytes now.
    Bytes,
    /// Nothing to splice, or nothing to splice with: a read tells which.
    Nothing,
}

/// The splicing of one direction.
#[derive(Debug, Default)]
pub(super) struct Splicing {
    pipe: Option<Pipe>,
    /// Bytes since the sender was last quiet, as far as they matter.
    streak: usize,
    /// Bytes since the sender last had no more.
    burst: usize,
    /// The last splice brought so little that the sender will have no more. A read says so for sure, at the same price.
    scarce: bool,
}

impl Splicing {
    /// Whether the next bytes are for [`Self::poll_fill`].
    pub(super) const fn is_due(&self) -> bool {
        self.streak >= SPLICE_AFTER && !self.scarce
    }

    /// Bytes that are in the pipe and go before any other.
    pub(super) fn held(&self) -> usize {
        self.pipe.as_ref().map_or(0, Pipe::held)
    }

    /// So many bytes were read.
    pub(super) fn read(&mut self, count: usize) {
        self.scarce = false;
        self.brought(count);
    }

    fn brought(&mut self, count: usize) {
        self.streak = self.streak.saturating_add(count);
        self.burst = self.burst.saturating_add(count);
    }

    /// The sender has no more for now, and nothing is held.
    pub(super) fn drained(&mut self) {
        self.pipe = None;
        self.scarce = false;
        // Without a byte it was not the sender that woke the relay.
        if (1..BURST_BYTES).contains(&self.burst) {
            self.streak = 0;
        }
        self.burst = 0;
    }

    /// Moves what the sender has into the pipe.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
    ) -> Poll<io::Result<Filled>> {
        ready!(from.poll_read_ready(cx))?;
        if self.pipe.is_none() {
            self.pipe = Pipe::lend();
        }
        let Some(pipe) = &mut self.pipe else {
            // Asks again only after as many bytes more.
            self.streak = 0;
            return Poll::Ready(Ok(Filled::Nothing));
        };
        match pipe.fill(from) {
            // Nothing is no end yet: behind a byte of urgent data (RFC 6093), at which splice(2) stops, there may be more.
            Ok(0) | Err(Errno::AGAIN | Errno::INTR) => {
                self.scarce = true;
                Poll::Ready(Ok(Filled::Nothing))
            }
            Ok(count) => {
                self.scarce = count < SCRATCH_BYTES / 2;
                self.brought(count);
                Poll::Ready(Ok(Filled::Bytes))
            }
            // A sandbox without splice, or no memory for it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOMEM) => {
                self.pipe = None;
                self.streak = 0;
                Poll::Ready(Ok(Filled::Nothing))
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Moves what the pipe holds to the receiver.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Ok(0));
        };
        loop {
            ready!(to.poll_write_ready(cx))?;
            let mut count = 0;
            let taken = to.try_io(Interest::WRITABLE, || {
                count = pipe.drain(to)?;
                // The kernel has asked for more room by itself then: the next move would be in vain.
                if pipe.held() > 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match taken {
                Ok(()) => return Poll::Ready(Ok(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if count > 0 {
                        return Poll::Ready(Ok(count));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
