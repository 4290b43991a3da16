//! Bytes between two streams. Owns half-close, backpressure, time-outs and the account of how a relay ended; generic
//! over its streams, of which it knows no more than whether they may be [spliced](splicing): the caller turns the outcome
//! into a close or a reset.
//!
//! A relay that waits owns no buffer. It reads into the thread's scratch buffer and writes at once; only what the
//! other side does not take is copied, and nothing more is read in that direction until it is gone. Between two sockets
//! a busy direction leaves its bytes to the kernel.

mod splicing;

use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    time::{Instant, Sleep},
};

pub use splicing::MaybeSocket;
use splicing::{Filled, Splicing};

/// Size of a thread's scratch buffer, and so the most that one direction keeps while its receiver is slow, in bytes.
pub const SCRATCH_BYTES: usize = 64 * 1024;

/// Reads and writes of one direction in one poll. Small enough that the runtime's budget (128 operations a poll of a
/// task) is never used up by the first direction alone: the second would starve.
const ROUNDS: usize = 8;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Time-outs of a relay, both counted from the last byte in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// While both sides may send.
    pub idle: Duration,
    /// Once one side has finished.
    pub half_closed: Duration,
}

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The endpoint's.
    Upstream,
}

/// How a relay ended. Anything but [`Outcome::Finished`] must not look like a clean end to either side.
#[derive(Debug)]
pub enum Outcome {
    /// Both sides finished, and each was told so; the last one, if it is a socket, will be by its close.
    Finished,
    /// Reading from or writing to this side failed (a reset, as a rule).
    Broken(Side, io::Error),
    /// Nothing moved for too long.
    TimedOut,
}

/// Whoever counts bytes while they move.
pub trait Meter {
    /// So many bytes were written since the beginning, in each direction. True if some are kept back: then
    /// [`flush`](Self::flush) is called within [`FLUSH_AFTER`], if the relay lasts so long.
    fn moved(&mut self, to_upstream: u64, to_downstream: u64) -> bool;
    /// Nothing is to be kept back.
    fn flush(&mut self);
    /// One side has finished sending, and the other was told; may be said again.
    fn half_closed(&mut self, by: Side) {
        let _ = by;
    }
}

/// Counts nothing: what a relay moved is in its account.
impl Meter for () {
    fn moved(&mut self, _: u64, _: u64) -> bool {
        false
    }

    fn flush(&mut self) {}
}

/// The longest time that a [`Meter`] keeps bytes back.
pub const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// The account of a relay.
#[derive(Debug)]
pub struct Relayed {
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes written to the endpoint.
    pub to_upstream: u64,
    /// Bytes written to the client.
    pub to_downstream: u64,
}

/// Relays until both sides have finished, one breaks, or patience ends. The streams, each as the half that is read and
/// the half that is written, are left as they are then.
///
/// Sockets' bytes may go through a pipe of the thread that polls: it must be the same one from first to last.
///
/// # Cancel safety
/// Not cancel safe: bytes that one side was slow to take are lost with the future.
pub fn relay<'r, R, W, S, T, M>(
    downstream: (R, W),
    upstream: (S, T),
    patience: Patience,
    meter: &mut M,
) -> impl Future<Output = Relayed>
where
    R: AsyncRead + MaybeSocket + 'r,
    W: AsyncWrite + MaybeSocket,
    S: AsyncRead + MaybeSocket + 'r,
    T: AsyncWrite + MaybeSocket,
    M: Meter,
{
    let mut there: Lane<'r, R> = Lane::new(downstream.0, Side::Downstream, Side::Upstream);
    let mut back: Lane<'r, S> = Lane::new(upstream.0, Side::Upstream, Side::Downstream);
    let (mut to_client, mut to_endpoint) = (downstream.1, upstream.1);
    let mut watch = Watch {
        patience,
        last: Instant::now(),
        half_closed: false,
        flush_at: None,
    };
    // Uses what it captures in place: arguments of an `async fn` would be held twice.
    async move {
        let mut timer = pin!(tokio::time::sleep(watch.patience.idle));
        let outcome = std::future::poll_fn(|cx| {
            let moved = there.bytes() + back.bytes();
            let ends = (
                there.poll(cx, Pin::new(&mut to_endpoint), back.phase())?,
                back.poll(cx, Pin::new(&mut to_client), there.phase())?,
            );
            if ends == (Progress::Done, Progress::Done) {
                return Poll::Ready(Ok(Outcome::Finished));
            }
            let half_closed = ends.0 == Progress::Done || ends.1 == Progress::Done;
            if half_closed {
                meter.half_closed(if ends.0 == Progress::Done {
                    Side::Downstream
                } else {
                    Side::Upstream
                });
            }
            let has_moved = moved != there.bytes() + back.bytes();
            watch.note(timer.as_mut(), has_moved, half_closed);
            if has_moved && meter.moved(there.bytes(), back.bytes()) {
                watch.flush_soon(timer.as_mut());
            }
            watch
                .poll(cx, timer.as_mut(), meter)
                .map(|()| Ok(Outcome::TimedOut))
        })
        .await
        .unwrap_or_else(|Broken(side, error)| Outcome::Broken(side, error));
        // What moved with the very last poll.
        meter.moved(there.bytes(), back.bytes());
        meter.flush();
        Relayed {
            outcome,
            to_upstream: there.bytes(),
            to_downstream: back.bytes(),
        }
    }
}

/// The clock of a relay. The timer is set once and corrected when it fires: setting it at every byte would cost more
/// than the bytes.
struct Watch {
    patience: Patience,
    last: Instant,
    half_closed: bool,
    /// When the meter is to give what it keeps back.
    flush_at: Option<Instant>,
}

impl Watch {
    fn note(&mut self, timer: Pin<&mut Sleep>, moved: bool, half_closed: bool) {
        let newly_half_closed = half_closed && !self.half_closed;
        if moved || newly_half_closed {
            self.last = Instant::now();
        }
        if newly_half_closed {
            self.half_closed = true;
            let deadline = self.deadline();
            timer.reset(self.flush_at.map_or(deadline, |at| at.min(deadline)));
        }
    }

    /// One timer setting a second at most, however much moves.
    fn flush_soon(&mut self, timer: Pin<&mut Sleep>) {
        if self.flush_at.is_none() {
            let at = self.last + FLUSH_AFTER;
            self.flush_at = Some(at);
            timer.reset(at.min(self.deadline()));
        }
    }

    fn deadline(&self) -> Instant {
        self.last
            + if self.half_closed {
                self.patience.half_closed
            } else {
                self.patience.idle
            }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        meter: &mut impl Meter,
    ) -> Poll<()> {
        loop {
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.flush_at.is_some_and(|at| at <= now) {
                self.flush_at = None;
                meter.flush();
            }
            let deadline = self.deadline();
            if deadline <= now {
                return Poll::Ready(());
            }
            let next = self.flush_at.map_or(deadline, |at| at.min(deadline));
            timer.as_mut().reset(next);
        }
    }
}

/// Which side failed, and how.
struct Broken(Side, io::Error);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Waits for either side; a wake-up is registered.
    Waiting,
    /// The sender finished and the receiver was told.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The sender finished; the receiver is still to be told.
    Ending,
    Ended,
}

/// A direction with the stream that it reads. Once that has ended, its failure is waited for: no read finds it any more.
struct Lane<'r, R> {
    direction: Direction,
    reader: Option<R>,
    /// Boxed: most of its life a connection is open both ways.
    failure: Option<Pin<Box<dyn Future<Output = io::Error> + Send + 'r>>>,
}

impl<'r, R: AsyncRead + MaybeSocket + 'r> Lane<'r, R> {
    fn new(reader: R, from: Side, to: Side) -> Self {
        Self {
            direction: Direction::new(from, to),
            reader: Some(reader),
            failure: None,
        }
    }

    const fn bytes(&self) -> u64 {
        self.direction.bytes
    }

    const fn phase(&self) -> Phase {
        self.direction.phase
    }

    fn poll<W: AsyncWrite + MaybeSocket>(
        &mut self,
        cx: &mut Context<'_>,
        to: Pin<&mut W>,
        other: Phase,
    ) -> Result<Progress, Broken> {
        if let Some(reader) = &mut self.reader {
            let progress = self.direction.poll(cx, Pin::new(reader), to, other)?;
            if progress == Progress::Waiting || other == Phase::Ended {
                return Ok(progress);
            }
        }
        if let Some(reader) = self.reader.take() {
            self.failure = Some(Box::pin(failure(reader)));
        }
        match self
            .failure
            .as_mut()
            .map(|failure| failure.as_mut().poll(cx))
        {
            Some(Poll::Ready(error)) => Err(Broken(self.direction.from, error)),
            _ => Ok(Progress::Done),
        }
    }
}

/// Waits until a socket that has ended fails: it is reset, or its peer does not answer any more. epoll(7) reports that
/// whether asked or not (`EPOLLERR` of `epoll_ctl(2)`).
async fn failure<R: MaybeSocket>(ended: R) -> io::Error {
    let Some(socket) = ended.socket() else {
        return std::future::pending().await;
    };
    match socket
        .ready(Interest::ERROR)
        .await
        .and_then(|_| socket.take_error())
    {
        Ok(None) => io::ErrorKind::ConnectionReset.into(),
        Ok(Some(error)) | Err(error) => error,
    }
}

/// One direction of a relay.
struct Direction {
    from: Side,
    to: Side,
    phase: Phase,
    /// What the receiver has not taken, from `written` on. Without an allocation while empty.
    pending: Vec<u8>,
    written: usize,
    splicing: Splicing,
    /// Whether something was written since the last flush.
    dirty: bool,
    bytes: u64,
}

impl Direction {
    fn new(from: Side, to: Side) -> Self {
        Self {
            from,
            to,
            phase: Phase::Open,
            pending: Vec::new(),
            written: 0,
            splicing: Splicing::default(),
            dirty: false,
            bytes: 0,
        }
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
        other: Phase,
    ) -> Result<Progress, Broken>
    where
        R: AsyncRead + MaybeSocket,
        W: AsyncWrite + MaybeSocket,
    {
        for _ in 0..ROUNDS {
            let step = match self.phase {
                _ if self.splicing.held() > 0 => self.poll_held(cx, &*to),
                _ if !self.pending.is_empty() => self.poll_pending(cx, to.as_mut()),
                Phase::Open => self.poll_open(cx, from.as_mut(), to.as_mut()),
                // The close of the last one says the same (tcp(7)) with one call less.
                Phase::Ending if other == Phase::Ended && to.socket().is_some() => {
                    self.phase = Phase::Ended;
                    return Ok(Progress::Done);
                }
                Phase::Ending => self.poll_end(cx, to.as_mut()),
                Phase::Ended => return Ok(Progress::Done),
            };
            if step?.is_pending() {
                return Ok(Progress::Waiting);
            }
        }
        if self.phase == Phase::Ended {
            return Ok(Progress::Done);
        }
        // More may be there: come back after the other direction and the other connections had their turn.
        cx.waker().wake_by_ref();
        Ok(Progress::Waiting)
    }

    /// Moves on what the kernel holds for this direction.
    fn poll_held<W: MaybeSocket>(
        &mut self,
        cx: &mut Context<'_>,
        to: &W,
    ) -> Result<Poll<()>, Broken> {
        // What is held was filled for a socket.
        let Some(to) = to.socket() else {
            return Err(Broken(self.to, io::ErrorKind::Unsupported.into()));
        };
        match self.splicing.poll_drain(cx, to) {
            Poll::Ready(Ok(count)) => {
                self.wrote(count);
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(error)) => Err(Broken(self.to, error)),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Splices where that pays and works, else copies.
    fn poll_open<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut R>,
        to: Pin<&mut W>,
    ) -> Result<Poll<()>, Broken>
    where
        R: AsyncRead + MaybeSocket,
        W: AsyncWrite + MaybeSocket,
    {
        if self.splicing.is_due()
            && to.socket().is_some()
            && let Some(socket) = from.socket()
        {
            match self.splicing.poll_fill(cx, socket) {
                Poll::Ready(Ok(Filled::Bytes)) => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(Filled::Nothing)) => {}
                Poll::Ready(Err(error)) => return Err(Broken(self.from, error)),
                Poll::Pending => {
                    self.splicing.drained();
                    return Ok(Poll::Pending);
                }
            }
        }
        self.poll_transfer(cx, from, to)
    }

    /// Writes what is left of an earlier read; frees the buffer with the last byte.
    fn poll_pending<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        to: Pin<&mut W>,
    ) -> Result<Poll<()>, Broken> {
        let rest = self.pending.get(self.written..).unwrap_or_default();
        let Poll::Ready(count) =
            poll_write(cx, to, rest).map_err(|error| Broken(self.to, error))?
        else {
            return Ok(Poll::Pending);
        };
        self.wrote(count);
        self.written += count;
        if self.written >= self.pending.len() {
            self.pending = Vec::new();
            self.written = 0;
        }
        Ok(Poll::Ready(()))
    }

    /// Reads once and writes at once; keeps what the receiver does not take.
    fn poll_transfer<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut R>,
        mut to: Pin<&mut W>,
    ) -> Result<Poll<()>, Broken>
    where
        R: AsyncRead + ?Sized,
        W: AsyncWrite + ?Sized,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            if from
                .poll_read(cx, &mut buffer)
                .map_err(|error| Broken(self.from, error))?
                .is_pending()
            {
                self.splicing.drained();
                return self.flush(cx, to).map(|()| Poll::Pending);
            }
            let read = buffer.filled();
            if read.is_empty() {
                self.phase = Phase::Ending;
                self.splicing.drained();
                return Ok(Poll::Ready(()));
            }
            self.splicing.read(read.len());
            let count =
                match poll_write(cx, to.as_mut(), read).map_err(|error| Broken(self.to, error))? {
                    Poll::Ready(count) => count,
                    Poll::Pending => 0,
                };
            self.wrote(count);
            self.pending = read.get(count..).unwrap_or_default().to_vec();
            Ok(Poll::Ready(()))
        })
    }

    fn poll_end<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        to: Pin<&mut W>,
    ) -> Result<Poll<()>, Broken> {
        let end = to
            .poll_shutdown(cx)
            .map_err(|error| Broken(self.to, error))?;
        if end.is_ready() {
            self.phase = Phase::Ended;
        }
        Ok(end)
    }

    /// Buffering streams (not TCP) send only when told to.
    fn flush<W: AsyncWrite + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        to: Pin<&mut W>,
    ) -> Result<(), Broken> {
        if self.dirty
            && to
                .poll_flush(cx)
                .map_err(|error| Broken(self.to, error))?
                .is_ready()
        {
            self.dirty = false;
        }
        Ok(())
    }

    fn wrote(&mut self, count: usize) {
        self.dirty |= count > 0;
        self.bytes += u64::try_from(count).unwrap_or_default();
    }
}

/// As `poll_write`, but a stream that takes nothing is broken, not slow.
fn poll_write<W: AsyncWrite + ?Sized>(
    cx: &mut Context<'_>,
    to: Pin<&mut W>,
    bytes: &[u8],
) -> io::Result<Poll<usize>> {
    match to.poll_write(cx, bytes) {
        Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
        Poll::Ready(Ok(count)) => Ok(Poll::Ready(count)),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => Ok(Poll::Pending),
    }
}

#[cfg(test)]
mod tests;
