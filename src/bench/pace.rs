//! When work is to begin: a rate as times that do not depend on how the last one went (open loop), so that a slow
//! answer does not hide the ones behind it. Owns the schedule, the release of work at its time, and how late the
//! generator itself was; must not know what the work is.
//!
//! The runtime's own timers count milliseconds, which at a thousand a second would be as long as the interval: a
//! timer of the kernel (timerfd_create(2)) counts nanoseconds.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::{
    io::read,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use tokio::{io::unix::AsyncFd, sync::Semaphore};

/// Shortest sleep: what falls due within it is released together.
const SHORTEST: Duration = Duration::from_micros(50);

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

/// One unit of work: its number and when it was to begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) number: u64,
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
            number,
            intended: self.started + self.offset(number),
        })
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
        let timer = Timer::new()?;
        while !self.is_over.get() {
            let now = self.started.elapsed();
            if self.until.is_some_and(|until| now >= until) {
                self.stop();
                break;
            }
            let released = self.released.get();
            let due = self.due_at(now).min(self.total);
            for number in released..due {
                let late = now.saturating_sub(self.offset(number));
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
            let next = self.offset(due).saturating_sub(self.started.elapsed());
            timer.wait(next.max(SHORTEST)).await?;
        }
        Ok(())
    }

    fn record(&self, late: Duration) {
        let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.lag.borrow_mut().saturating_record(late);
    }

    fn offset(&self, number: u64) -> Duration {
        Duration::from_secs_f64(float(number) / self.rate)
    }

    /// How many units have fallen due by `now`.
    fn due_at(&self, now: Duration) -> u64 {
        // The first is due at once. Saturating by definition of the conversion; rates and times are bounded far below.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count that is not negative and far below 2^53"
        )]
        let due = (now.as_secs_f64() * self.rate) as u64;
        due.saturating_add(1)
    }
}

/// A number of at most 2^53, which is any that is counted here.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts are far below 2^53, up to which this is exact"
)]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

/// A timer of the kernel.
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self(AsyncFd::new(fd)?))
    }

    async fn wait(&self, time: Duration) -> io::Result<()> {
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: time.subsec_nanos().into(),
            },
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        let mut guard = self.0.readable().await?;
        // Its count of expirations; an early wake-up finds none, which does no harm either.
        let _ = read(self.0.get_ref(), &mut [0; 8]);
        guard.clear_ready();
        Ok(())
    }
}

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
        let numbers: Vec<u64> = turns.iter().map(|turn| turn.number).collect();
        assert_eq!(numbers, (0..50).collect::<Vec<u64>>());
        let step = turns[1].intended - turns[0].intended;
        assert_eq!(step, Duration::from_micros(10));
        assert_eq!(pace.lag().len(), 50);
    }

    #[tokio::test]
    async fn pace_that_is_stopped_gives_no_more_turns() {
        let pace = Pace::new(1.0, 1000, None).unwrap();
        let first = async {
            let first = pace.turn().await;
            pace.stop();
            (first.map(|turn| turn.number), pace.turn().await.is_none())
        };
        let turns = tokio::select! {
            biased;
            turns = first => turns,
            _ = pace.run() => unreachable!("the second of a thousand is due in a second"),
        };
        assert_eq!(turns, (Some(0), true));
    }
}
