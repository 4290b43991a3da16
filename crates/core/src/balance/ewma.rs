//! How long endpoints take to answer, as the policy `peak-ewma` sees it: a longer time counts at once, shorter ones by and by
//! (Finagle's and linkerd's peak-EWMA). Owns one endpoint's average; must not choose.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::time::Timestamp;

/// After so long an observation counts for 1/e.
const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint is taken for at least: differences below it are no reason to prefer one, and one whose average has decayed does not
/// get everything.
const LEAST: Duration = Duration::from_millis(1);

/// The average and when it was last changed, in one word so that workers need no lock: microseconds plus one (zero is "never")
/// below, the low half of the milliseconds above.
#[derive(Debug, Default)]
pub struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// An answer began so long after its request had gone out.
    pub fn observe(&self, time: Duration, now: Timestamp) {
        let next = |word| {
            let average = match decayed(word, now) {
                // The part of the observation that the old average has lost.
                Some((weight, old)) if time < old => {
                    old.mul_f64(weight) + time.mul_f64(1.0 - weight)
                }
                _ => time,
            };
            let micros = u32::try_from(average.as_micros()).unwrap_or(u32::MAX);
            let micros = u64::from(micros).min(u64::from(u32::MAX) - 1) + 1;
            Some(((now.as_millis() & u64::from(u32::MAX)) << 32) | micros)
        };
        // Of two workers that observe at once one may be lost: it is an average.
        let _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }

    /// What the next answer may take, in microseconds; `None` while there was none.
    pub(super) fn micros(&self, now: Timestamp) -> Option<u64> {
        let (weight, old) = decayed(self.0.load(Relaxed), now)?;
        let time = old.mul_f64(weight).max(LEAST);
        u64::try_from(time.as_micros()).ok()
    }
}

/// The average as it was, and what is left of its weight; `None` if there is none.
fn decayed(word: u64, now: Timestamp) -> Option<(f64, Duration)> {
    let low = u64::from(u32::MAX);
    let micros = (word & low).checked_sub(1)?;
    let elapsed = (now.as_millis() & low).wrapping_sub(word >> 32) & low;
    // A clock that was set back a little looks like 49 days.
    let elapsed = if elapsed > low / 2 { 0 } else { elapsed };
    let weight = (-Duration::from_millis(elapsed).div_duration_f64(DECAY)).exp();
    Some((weight, Duration::from_micros(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn observe_longer_counts_at_once_and_shorter_by_and_by() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.micros(START), None);
        ewma.observe(Duration::from_millis(5), START);
        assert_eq!(ewma.micros(START), Some(5_000));
        ewma.observe(Duration::from_millis(80), START);
        assert_eq!(ewma.micros(START), Some(80_000));
        ewma.observe(Duration::from_millis(5), START);
        assert_eq!(ewma.micros(START), Some(80_000), "no time has passed");
        let later = START.after(DECAY);
        ewma.observe(Duration::from_millis(5), later);
        // 80 ms to 1/e and 5 ms for the rest, at the moment of the observation.
        let found = ewma.micros(later).unwrap();
        assert!((32_000..33_000).contains(&found), "{found}");
    }

    #[test]
    fn micros_of_silence_decay_to_the_least_and_survive_clocks() {
        let ewma = PeakEwma::default();
        ewma.observe(Duration::from_secs(1), START);
        assert_eq!(ewma.micros(START.after(DECAY * 100)), Some(1_000));
        let set_back = Timestamp::from_millis(START.as_millis() - 5_000);
        assert_eq!(ewma.micros(set_back), Some(1_000_000));
        ewma.observe(Duration::MAX, START);
        assert!(ewma.micros(START) > Some(4_000_000_000));
    }
}
