//! What a load gave: answers by name, failures by kind, times. Owns the arithmetic of "even".

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use serde::Serialize;

/// Answers and failures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Answers by who gave them.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Failures by kind.
    pub(crate) failures: BTreeMap<String, u64>,
    #[serde(skip)]
    times: Vec<Duration>,
}

impl Counts {
    /// One good answer.
    pub(crate) fn answered(&mut self, name: String, took: Duration) {
        *self.answers.entry(name).or_default() += 1;
        self.times.push(took);
    }

    /// One failure.
    pub(crate) fn failed(&mut self, kind: &str) {
        *self.failures.entry(kind.to_owned()).or_default() += 1;
    }

    /// Takes another part in.
    pub(crate) fn add(&mut self, part: Self) {
        for (name, count) in part.answers {
            *self.answers.entry(name).or_default() += count;
        }
        for (kind, count) in part.failures {
            *self.failures.entry(kind).or_default() += count;
        }
        self.times.extend(part.times);
    }

    /// Good answers.
    pub(crate) fn answered_total(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Failed connections.
    pub(crate) fn failed_total(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Difference between the most and the least asked.
    pub(crate) fn spread(&self) -> u64 {
        let (least, most) = (self.answers.values().min(), self.answers.values().max());
        most.zip(least).map_or(0, |(most, least)| most - least)
    }

    /// Median, 99th percentile and maximum of the times of good answers.
    pub(crate) fn times(&self) -> Times {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = |percent: usize| {
            let place = times.len().saturating_sub(1) * percent / 100;
            times.get(place).copied().unwrap_or_default().as_micros()
        };
        Times {
            median: at(50),
            p99: at(99),
            max: at(100),
        }
    }

    /// One line an answerer, then one a kind of failure.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for (name, count) in &self.answers {
            let _ = writeln!(text, "{count:>9}  {name}");
        }
        for (kind, count) in &self.failures {
            let _ = writeln!(text, "{count:>9}  FAILED: {kind}");
        }
        text
    }
}

/// Times of good answers in microseconds, from connecting to the last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Times {
    /// Half took at most this.
    #[serde(rename = "median_us")]
    pub(crate) median: u128,
    /// 99 of 100 took at most this.
    #[serde(rename = "p99_us")]
    pub(crate) p99: u128,
    /// The slowest.
    #[serde(rename = "max_us")]
    pub(crate) max: u128,
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "median {} us, 99 % {} us, slowest {} us",
            self.median, self.p99, self.max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(answers: &[(&str, u64)]) -> Counts {
        let mut counts = Counts::default();
        for (name, count) in answers {
            for _ in 0..*count {
                counts.answered((*name).to_owned(), Duration::from_micros(*count));
            }
        }
        counts
    }

    #[test]
    fn counts_spread_is_most_minus_least() {
        assert_eq!(counts(&[("a", 5), ("b", 3)]).spread(), 2);
        assert_eq!(counts(&[("a", 5)]).spread(), 0);
        assert_eq!(counts(&[]).spread(), 0);
    }

    #[test]
    fn counts_of_parts_add_up() {
        let mut all = counts(&[("a", 5), ("b", 3)]);
        let mut other = counts(&[("b", 4)]);
        other.failed("late");
        all.add(other);
        assert_eq!(
            (all.answered_total(), all.failed_total(), all.spread()),
            (12, 1, 2)
        );
        assert_eq!(all.table().lines().count(), 3);
    }

    #[test]
    fn counts_times_are_percentiles() {
        let mut counts = Counts::default();
        for time in 1..=100 {
            counts.answered("a".into(), Duration::from_micros(time));
        }
        assert_eq!(
            counts.times(),
            Times {
                median: 50,
                p99: 99,
                max: 100
            }
        );
    }
}
