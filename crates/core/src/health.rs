//! Passive health: an endpoint that keeps refusing connections sits out for a while. Owns the state machine; the
//! data path reports outcomes, the balancer asks.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::time::Timestamp;

/// Connect failures in a row after which an endpoint is ejected.
pub const FAILURES_TO_EJECT: u32 = 5;
/// First ejection; doubled with every further one, up to [`LONGEST_EJECTION`].
pub const FIRST_EJECTION: Duration = Duration::from_secs(10);
/// The longest ejection.
pub const LONGEST_EJECTION: Duration = Duration::from_mins(5);

/// Passive ejection of one endpoint. After its time it gets its share again: the first success clears its record, the
/// first failure ejects it for twice as long.
#[derive(Debug, Default)]
pub struct Ejection {
    failures_in_a_row: AtomicU32,
    ejections: AtomicU32,
    until_ms: AtomicU64,
}

impl Ejection {
    /// Whether it sits out at `now`.
    pub fn is_ejected(&self, now: Timestamp) -> bool {
        now.as_millis() < self.until_ms.load(Relaxed)
    }

    /// The end of the current ejection, if it has ever been ejected.
    pub fn until(&self) -> Option<Timestamp> {
        match self.until_ms.load(Relaxed) {
            0 => None,
            ms => Some(Timestamp::from_millis(ms)),
        }
    }

    /// A connection was made.
    pub fn succeeded(&self) {
        // Read first: the common case must not dirty a line that every worker shares.
        if self.failures_in_a_row.load(Relaxed) != 0 {
            self.failures_in_a_row.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
            self.until_ms.store(0, Relaxed);
        }
    }

    /// A connection could not be made.
    pub fn failed(&self, now: Timestamp) {
        self.failed_where(now, || true);
    }

    /// The same where others have a say: asked only when it would be ejected, and if they deny it, at each further failure.
    pub fn failed_where(&self, now: Timestamp, may_eject: impl FnOnce() -> bool) {
        let failures = self
            .failures_in_a_row
            .fetch_add(1, Relaxed)
            .saturating_add(1);
        let until = self.until_ms.load(Relaxed);
        if failures < FAILURES_TO_EJECT || now.as_millis() < until || !may_eject() {
            return;
        }
        let time = FIRST_EJECTION
            .saturating_mul(1_u32 << self.ejections.load(Relaxed).min(8))
            .min(LONGEST_EJECTION);
        // Of workers that see failures at once, one ejects: else the next time would be doubled by each.
        let ejected = now.after(time).as_millis();
        if self
            .until_ms
            .compare_exchange(until, ejected, Relaxed, Relaxed)
            .is_ok()
        {
            self.ejections.fetch_add(1, Relaxed);
        }
    }

    /// Ejects it until `until`, whatever its record.
    pub fn eject_until(&self, until: Timestamp) {
        self.failures_in_a_row.store(FAILURES_TO_EJECT, Relaxed);
        self.until_ms.store(until.as_millis(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejection_five_failures_ejects_and_one_success_clears() {
        let ejection = Ejection::default();
        let now = Timestamp::from_millis(1_000);
        (0..4).for_each(|_| ejection.failed(now));
        assert!(!ejection.is_ejected(now));
        ejection.failed(now);
        assert!(ejection.is_ejected(now.after(Duration::from_secs(9))));
        assert!(!ejection.is_ejected(now.after(Duration::from_secs(10))));
        ejection.failed(now.after(Duration::from_secs(11)));
        assert!(
            ejection.is_ejected(now.after(Duration::from_secs(30))),
            "the second one lasts twice as long"
        );
        ejection.succeeded();
        assert!(!ejection.is_ejected(now.after(Duration::from_secs(12))));
    }

    #[test]
    fn ejection_failures_of_many_threads_at_once_count_as_one_ejection() {
        for _ in 0..50 {
            let ejection = Ejection::default();
            let now = Timestamp::from_millis(1_000);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..20).for_each(|_| ejection.failed(now)));
                }
            });
            assert_eq!(ejection.ejections.load(Relaxed), 1);
            assert_eq!(ejection.until(), Some(now.after(FIRST_EJECTION)));
        }
    }
}
