//! Exponential back-off with full jitter. Owns the arithmetic; randomness is an argument.

use std::time::Duration;

/// A retry schedule: `base`, doubled on every failure, never above `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// A schedule that has not failed yet.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            failures: 0,
        }
    }

    /// The delay before the next attempt: between half and the whole of the doubled base, by `jitter` in `0..=u16::MAX`.
    pub fn next(&mut self, jitter: u16) -> Duration {
        let whole = self
            .base
            .saturating_mul(1_u32 << self.failures.min(16))
            .min(self.cap);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        half + half.mul_f64(f64::from(jitter) / f64::from(u16::MAX))
    }

    /// How many attempts have failed in a row.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts again after a success.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_repeated_failures_doubles_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let delays: Vec<u128> = (0..6).map(|_| backoff.next(u16::MAX).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(0), Duration::from_millis(50));
    }
}
