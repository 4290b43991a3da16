//! When work is to begin: a rate as times that do not depend on how the last one went (open loop), so that a slow
//! answer does not hide the ones behind it. Owns the schedule, the release of work at its time, and how late the
//! generator itself was; must not know what the work is.
//!
//! The runtime's own timers count milliseconds, which at a thousand a second would be as long as the interval. So a
//! thread that does nothing else sleeps until something is due.

use std::{
    cell::{Cell, RefCell},
    io::{self, Write as _},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::{
    thread::{ClockId, NanosleepRelativeResult, clock_nanosleep_relative},
    time::Timespec,
};
use tokio::{io::AsyncReadExt as _, net::UnixStream, sync::Semaphore};

/// Shortest sleep: what falls due within it is released together.
const SHORTEST: Duration = Duration::from_micros(50);

/// Longest sleep at a time.
const LONGEST: Duration = Duration::from_millis(100);

/// Most that may wait for work at a time.
const MOST_CLIENTS: usize = 1 << 16;

/// A schedule at work, for one thread.
pub(super) struct Pace {
    started: Instant,
    /// Units of work a second.
    rate: f64,
    total: u64,
    until: Option<Duration>,
    due: Semaphore,
    taken: Cell<u64>,
    /// How late work was released, in nanoseconds.
    lag: RefCell<Histogram<u64>>,
    released: Cell<u64>,
    is_over: Cell<bool>,
}

/// One unit of work: when it was to begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) intended: Instant,
}

impl Pace {
    /// `total` units at `rate` a second, at most for `until`; the first is due now.
    ///
    /// # Errors
    /// The bounds of the histogram are refused, which they are not.
    pub(super) fn new(rate: f64, total: u64, until: Option<Duration>) -> io::Result<Self> {
        let lag = Histogram::new_with_bounds(1_000, 60_000_000_000, 3).map_err(io::Error::other)?;
        Ok(Self {
            started: Instant::now(),
            rate,
            total,
            until,
            due: Semaphore::new(0),
            taken: Cell::new(0),
            lag: RefCell::new(lag),
            released: Cell::new(0),
            is_over: Cell::new(false),
        })
    }

    /// When everything began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// How late the generator was, in nanoseconds.
    pub(super) fn lag(&self) -> Histogram<u64> {
        self.lag.borrow().clone()
    }

    /// The next unit of work, at its time; `None` when there is no more.
    pub(super) async fn turn(&self) -> Option<Turn> {
        // An error says that the schedule is over.
        self.due.acquire().await.ok()?.forget();
        let number = self.taken.get();
        if number >= self.total {
            return None;
        }
        self.taken.set(number + 1);
        Some(Turn {
            intended: self.started + offset(number, self.rate),
        })
    }

    /// How much was begun.
    pub(super) fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// How much was released and never begun.
    pub(super) fn unsent(&self) -> u64 {
        self.released.get().saturating_sub(self.taken.get())
    }

    /// Takes what is released and not yet begun out of the schedule.
    pub(super) fn stop(&self) {
        self.is_over.set(true);
        self.due.close();
    }

    /// Releases work at its time until all is released, the time is over or [`Self::stop`] was called.
    ///
    /// # Errors
    /// The kernel has no timer for us.
    pub(super) async fn run(&self) -> io::Result<()> {
        let mut metronome = Metronome::start(self.started, self.rate, self.total)?;
        while !self.is_over.get() {
            let now = self.started.elapsed();
            if self.until.is_some_and(|until| now >= until) {
                self.stop();
                break;
            }
            let released = self.released.get();
            let due = due_at(now, self.rate).min(self.total);
            for number in released..due {
                let late = now.saturating_sub(offset(number, self.rate));
                self.record(late);
            }
            self.released.set(due.max(released));
            self.due
                .add_permits(usize::try_from(due.saturating_sub(released)).unwrap_or(0));
            if due >= self.total {
                // Whoever waits for work finds that there is none.
                self.due.add_permits(MOST_CLIENTS);
                break;
            }
            metronome.tick().await?;
        }
        Ok(())
    }

    fn record(&self, late: Duration) {
        let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.lag.borrow_mut().saturating_record(late);
    }
}

/// Tells when something is due: a thread that sleeps for nanoseconds (`clock_nanosleep(2)`) and writes a byte. It ends
/// when nobody reads any more.
struct Metronome(UnixStream);

impl Metronome {
    fn start(started: Instant, rate: f64, total: u64) -> io::Result<Self> {
        let (ticks, mut bell) = std::os::unix::net::UnixStream::pair()?;
        ticks.set_nonblocking(true)?;
        std::thread::Builder::new()
            .name("metronome".to_owned())
            .spawn(move || {
                let mut next = 1;
                while next < total {
                    let at = offset(next, rate);
                    let rest = at.saturating_sub(started.elapsed()).max(SHORTEST);
                    if nap(rest).is_err() || bell.write_all(&[0]).is_err() {
                        return;
                    }
                    next = due_at(started.elapsed(), rate);
                }
                let _ = bell.write_all(&[0]);
            })?;
        Ok(Self(UnixStream::from_std(ticks)?))
    }

    /// Waits until something is due, or the thread has ended.
    async fn tick(&mut self) -> io::Result<()> {
        // Bytes that have piled up are one tick.
        let read = self.0.read(&mut [0; 64]).await?;
        // The thread ends when everything is due.
        debug_assert!(read <= 64);
        Ok(())
    }
}

/// Sleeps for `time`, in parts of a second at most, so that whoever waits for the end does not wait long.
fn nap(time: Duration) -> io::Result<()> {
    let time = Timespec {
        tv_sec: 0,
        tv_nsec: time.min(LONGEST).subsec_nanos().into(),
    };
    match clock_nanosleep_relative(ClockId::Monotonic, &time) {
        NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) => Ok(()),
        NanosleepRelativeResult::Err(error) => Err(error.into()),
    }
}

fn offset(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(float(number) / rate)
}

/// How many units have fallen due by `now`; the first is due at once.
fn due_at(now: Duration, rate: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count that is not negative and far below 2^53"
    )]
    let due = (now.as_secs_f64() * rate) as u64;
    due.saturating_add(1)
}

/// A number of at most 2^53, which is any that is counted here.
pub(super) use portico_core::observe::real as float;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pace_gives_every_turn_once_and_in_order() {
        let pace = Pace::new(100_000.0, 50, None).unwrap();
        let turns = async {
            let mut turns = Vec::new();
            while turns.len() < 50 {
                turns.push(pace.turn().await.unwrap());
            }
            turns
        };
        let (turns, released) = tokio::join!(turns, pace.run());
        released.unwrap();
        assert!(pace.turn().await.is_none());
        for two in turns.windows(2) {
            assert_eq!(two[1].intended - two[0].intended, Duration::from_micros(10));
        }
        assert_eq!(pace.lag().len(), 50);
    }

    #[tokio::test]
    async fn pace_that_is_stopped_gives_no_more_turns() {
        let pace = Pace::new(1.0, 1000, None).unwrap();
        let first = async {
            let first = pace.turn().await;
            pace.stop();
            (first.is_some(), pace.turn().await.is_none())
        };
        let turns = tokio::select! {
            biased;
            turns = first => turns,
            _ = pace.run() => unreachable!("the second of a thousand is due in a second"),
        };
        assert_eq!(turns, (true, true));
    }
}
