//! What happened lately: rings of totals that were read from time to time. Owns which reading a window begins at;
//! must not read counters or clocks.
//!
//! A ring belongs to one epoch, the life of one set of endpoints: evenness means something only within it. So a
//! window reaches back to the beginning of the epoch at most, and tells how long it really is.

use std::{collections::VecDeque, ops::Sub, time::Duration};

use crate::time::Timestamp;

/// Running totals of one endpoint, or of a Service port as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Times that it was chosen in turn: picks without those by session affinity.
    pub turns: u64,
    /// Times that it was chosen.
    pub picks: u64,
    /// Connections that reached it; of a Service port, those that it accepted.
    pub connections: u64,
    /// Attempts that failed; of a Service port, connections that it turned away.
    #[serde(default)]
    pub failures: u64,
    /// Bytes sent to it.
    pub bytes_to: u64,
    /// Bytes received from it.
    pub bytes_from: u64,
}

impl Sub for Totals {
    type Output = Self;

    /// What was added since `earlier`; zero where nothing was.
    fn sub(self, earlier: Self) -> Self {
        Self {
            turns: self.turns.saturating_sub(earlier.turns),
            picks: self.picks.saturating_sub(earlier.picks),
            connections: self.connections.saturating_sub(earlier.connections),
            failures: self.failures.saturating_sub(earlier.failures),
            bytes_to: self.bytes_to.saturating_sub(earlier.bytes_to),
            bytes_from: self.bytes_from.saturating_sub(earlier.bytes_from),
        }
    }
}

/// How far back a window reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    /// One second.
    Second,
    /// Ten seconds.
    TenSeconds,
    /// One minute.
    Minute,
    /// To the mark, or else to the beginning of the epoch.
    Mark,
    /// To the beginning of the epoch.
    Epoch,
}

impl Span {
    /// All, from the shortest on.
    pub const ALL: [Self; 5] = [
        Self::Second,
        Self::TenSeconds,
        Self::Minute,
        Self::Mark,
        Self::Epoch,
    ];

    /// As it stands in labels and reports: `1s`, `10s`, `1m`, `mark`, `epoch`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "1s",
            Self::TenSeconds => "10s",
            Self::Minute => "1m",
            Self::Mark => "mark",
            Self::Epoch => "epoch",
        }
    }

    const fn length(self) -> Option<Duration> {
        match self {
            Self::Second => Some(Duration::from_secs(1)),
            Self::TenSeconds => Some(Duration::from_secs(10)),
            Self::Minute => Some(Duration::from_mins(1)),
            Self::Mark | Self::Epoch => None,
        }
    }
}

/// One reading: the totals of all endpoints of the epoch, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// When.
    pub at: Timestamp,
    /// Each endpoint's totals.
    pub totals: Box<[Totals]>,
}

/// What happened between two readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// What each endpoint got, in the order of the set.
    pub gained: Vec<Totals>,
}

/// Between readings that are kept for the last ten seconds.
const FINE: Duration = Duration::from_millis(900);
/// Between readings that are kept for the last minute.
const COARSE: Duration = Duration::from_millis(4_900);

/// The readings of one epoch that windows may begin at: about one a second for ten seconds, one in five seconds for a
/// minute, the first one, and the mark.
#[derive(Debug, Clone)]
pub struct Ring {
    first: Reading,
    /// Until then nothing was counted: most sets of a large World stay there, and need no other reading.
    quiet_until: Timestamp,
    mark: Option<Reading>,
    fine: VecDeque<Reading>,
    coarse: VecDeque<Reading>,
}

impl Ring {
    /// A ring for an epoch that began with `first`.
    pub fn new(first: Reading) -> Self {
        Self {
            quiet_until: first.at,
            first,
            mark: None,
            fine: VecDeque::new(),
            coarse: VecDeque::new(),
        }
    }

    /// The reading that the epoch began with.
    pub fn first(&self) -> &Reading {
        &self.first
    }

    /// Keeps a reading; forgets those that no window can begin at any more. Readings that come too fast are left out.
    pub fn keep(&mut self, reading: &Reading) {
        if self.fine.is_empty() && reading.totals == self.first.totals {
            self.quiet_until = reading.at;
            return;
        }
        keep(&mut self.fine, reading, FINE, Span::TenSeconds);
        keep(&mut self.coarse, reading, COARSE, Span::Minute);
    }

    /// Windows by [`Span::Mark`] begin at this reading.
    pub fn mark(&mut self, reading: Reading) {
        self.mark = Some(reading);
    }

    /// What happened over `span` until `now`. It begins at the youngest reading that is at least as old as the span;
    /// so it may be longer than that, and shorter only when the epoch is.
    pub fn over(&self, span: Span, now: &Reading) -> Window {
        let from = match span.length() {
            Some(length) => self.start(length, now.at),
            None if span == Span::Mark => self.mark.as_ref().unwrap_or(&self.first),
            None => &self.first,
        };
        let pairs = now.totals.iter().zip(&from.totals);
        let at = match span.length() {
            // While it was quiet, every moment had this reading.
            Some(length) if from.at <= self.quiet_until => {
                let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
                let wanted = now.at.as_millis().saturating_sub(length);
                let wanted = Timestamp::from_millis(wanted);
                wanted.min(self.quiet_until).max(from.at)
            }
            _ => from.at,
        };
        Window {
            from: at,
            to: now.at,
            gained: pairs.map(|(now, then)| *now - *then).collect(),
        }
    }

    fn start(&self, length: Duration, now: Timestamp) -> &Reading {
        let is_old = |reading: &&Reading| now.since(reading.at) >= length;
        let kept = [&self.fine, &self.coarse].into_iter().flatten();
        kept.filter(is_old)
            .max_by_key(|reading| reading.at)
            .unwrap_or(&self.first)
    }
}

fn keep(readings: &mut VecDeque<Reading>, reading: &Reading, pace: Duration, longest: Span) {
    let is_due = |last: &Reading| reading.at.since(last.at) >= pace;
    if !readings.back().is_none_or(is_due) {
        return;
    }
    readings.push_back(reading.clone());
    let length = longest.length().unwrap_or_default();
    // The oldest goes when the one after it is old enough to begin the longest window.
    while readings
        .get(1)
        .is_some_and(|second| reading.at.since(second.at) >= length)
    {
        readings.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(second: u64, picks: &[u64]) -> Reading {
        let totals = picks.iter().map(|picks| Totals {
            turns: *picks,
            picks: *picks,
            ..Totals::default()
        });
        Reading {
            at: Timestamp::from_millis(second * 1000),
            totals: totals.collect(),
        }
    }

    /// A ring that saw `n` and `2n` picks at second `n`, until `last`.
    fn ring(last: u64) -> Ring {
        let mut ring = Ring::new(reading(0, &[0, 0]));
        (1..=last).for_each(|second| ring.keep(&reading(second, &[second, 2 * second])));
        ring
    }

    #[track_caller]
    fn check(ring: &Ring, span: Span, now: u64, expected: (u64, [u64; 2])) {
        let window = ring.over(span, &reading(now, &[now, 2 * now]));
        let picks: Vec<u64> = window.gained.iter().map(|totals| totals.picks).collect();
        assert_eq!(
            window.to.since(window.from),
            Duration::from_secs(expected.0)
        );
        assert_eq!(picks, expected.1);
    }

    #[test]
    fn ring_of_two_minutes_knows_every_window() {
        let ring = ring(120);
        check(&ring, Span::Second, 120, (1, [1, 2]));
        check(&ring, Span::TenSeconds, 120, (10, [10, 20]));
        check(&ring, Span::Epoch, 120, (120, [120, 240]));
        check(&ring, Span::Mark, 120, (120, [120, 240]));
        let minute = ring.over(Span::Minute, &reading(120, &[120, 240]));
        let length = minute.to.since(minute.from).as_secs();
        assert!((60..=65).contains(&length), "{length}");
    }

    #[test]
    fn ring_of_a_quiet_set_keeps_nothing_and_knows_its_windows() {
        let mut ring = Ring::new(reading(0, &[7, 7]));
        (1..=100).for_each(|second| ring.keep(&reading(second, &[7, 7])));
        assert!(ring.fine.is_empty() && ring.coarse.is_empty());
        let window = ring.over(Span::TenSeconds, &reading(101, &[8, 7]));
        assert_eq!(window.from, Timestamp::from_millis(91_000));
        let window = ring.over(Span::Second, &reading(105, &[8, 7]));
        assert_eq!(window.from, Timestamp::from_millis(100_000));
        assert_eq!((window.gained[0].picks, window.gained[1].picks), (1, 0));
        let window = ring.over(Span::Epoch, &reading(105, &[8, 7]));
        assert_eq!(window.from, Timestamp::from_millis(0));
    }

    #[test]
    fn ring_of_a_young_epoch_reaches_to_its_beginning() {
        let ring = ring(3);
        check(&ring, Span::Second, 3, (1, [1, 2]));
        check(&ring, Span::TenSeconds, 3, (3, [3, 6]));
        check(
            &Ring::new(reading(5, &[5, 10])),
            Span::Second,
            5,
            (0, [0, 0]),
        );
    }

    #[test]
    fn ring_marked_counts_from_the_mark() {
        let mut ring = ring(30);
        ring.mark(reading(30, &[30, 60]));
        check(&ring, Span::Mark, 37, (7, [7, 14]));
        check(&ring, Span::Epoch, 37, (37, [37, 74]));
    }

    #[test]
    fn ring_of_a_day_stays_small_also_when_read_too_often() {
        let mut ring = Ring::new(reading(0, &[0]));
        for tenth in 0..864_000 {
            let mut reading = reading(0, &[tenth]);
            reading.at = Timestamp::from_millis(tenth * 100);
            ring.keep(&reading);
        }
        assert!(ring.fine.len() <= 13, "{}", ring.fine.len());
        assert!(ring.coarse.len() <= 14, "{}", ring.coarse.len());
    }

    #[test]
    fn ring_not_read_for_long_gives_a_longer_window() {
        let ring = ring(10);
        check(&ring, Span::Second, 50, (40, [40, 80]));
    }
}
