//! Histograms whose buckets grow with the value: every octave is cut into the same number of equal parts, as in
//! `HdrHistogram`. Owns the buckets, the counts and their quantiles; the unit of a value is the caller's.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::real;

/// Where the buckets of a histogram lie: `2^precision` of them in every octave, so that a value is known to one part
/// in `2^precision`. Values from [`Buckets::end`] on share the last bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    precision: u32,
    octaves: u32,
}

impl Buckets {
    /// For the data path: 12.5 per cent, up to 2^36 (19 hours in microseconds), 272 buckets.
    pub const COARSE: Self = Self {
        precision: 3,
        octaves: 36,
    };
    /// For measurements: three significant digits, up to 2^36.
    pub const FINE: Self = Self {
        precision: 10,
        octaves: 36,
    };

    /// Number of buckets.
    pub fn count(self) -> usize {
        let rows = self.octaves - self.precision + 1;
        usize::try_from(rows << self.precision).unwrap_or(usize::MAX)
    }

    /// The smallest value that is too large for a bucket of its own.
    pub const fn end(self) -> u64 {
        1 << self.octaves
    }

    /// The bucket of `value`.
    pub fn index(self, value: u64) -> usize {
        let value = value.min(self.end() - 1);
        let highest = u64::BITS - value.leading_zeros();
        // Below 2^precision a bucket is one value wide; from there on each octave is one row.
        let row = highest.saturating_sub(self.precision + 1);
        let in_row = value >> row;
        usize::try_from((u64::from(row) << self.precision) + in_row).unwrap_or(usize::MAX)
    }

    /// The smallest value of bucket `index`, which is one more than the largest of the one before.
    pub fn lower(self, index: usize) -> u64 {
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        let width = 1_u64 << self.precision;
        let row = (index >> self.precision).saturating_sub(1);
        (index - row * width) << row.min(63)
    }

    /// The largest value of bucket `index`.
    pub fn upper(self, index: usize) -> u64 {
        self.lower(index + 1) - 1
    }
}

/// Counts by value. Mergeable: the same values in any order and any parts give the same histogram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: Buckets,
    counts: Vec<u64>,
    count: u64,
    sum: u64,
    least: u64,
    most: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new(buckets: Buckets) -> Self {
        Self {
            buckets,
            counts: vec![0; buckets.count()],
            count: 0,
            sum: 0,
            least: u64::MAX,
            most: 0,
        }
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts a value `times` times.
    pub fn record_many(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        if let Some(count) = self.counts.get_mut(self.buckets.index(value)) {
            *count += times;
        }
        self.count += times;
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    /// Adds all of `other`. Values of finer buckets go where they belong here; those of coarser ones keep their
    /// coarseness, by the smallest value of their bucket.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets == other.buckets {
            for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
                *mine += theirs;
            }
        } else {
            for (value, _, count) in other.filled() {
                if let Some(mine) = self.counts.get_mut(self.buckets.index(value)) {
                    *mine += count;
                }
            }
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, exact.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The smallest one; `None` without any.
    pub fn least(&self) -> Option<u64> {
        (self.count > 0).then_some(self.least)
    }

    /// The largest one; `None` without any.
    pub fn most(&self) -> Option<u64> {
        (self.count > 0).then_some(self.most)
    }

    /// Their mean; `None` without any.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| real(self.sum) / real(self.count))
    }

    /// The value that the share `quantile` (0 to 1) of all values does not exceed, as the largest value of its bucket
    /// but never more than the largest recorded. `None` without any value.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let wanted = quantile.clamp(0.0, 1.0) * real(self.count);
        let mut seen = 0;
        for (_, upper, count) in self.filled() {
            seen += count;
            if real(seen) >= wanted {
                return Some(upper.min(self.most).max(self.least));
            }
        }
        Some(self.most)
    }

    /// How many values lie in buckets that end below `bound`: exact where a bucket begins at `bound`, as at every
    /// power of two.
    pub fn below(&self, bound: u64) -> u64 {
        let buckets = self.filled().take_while(|(_, upper, _)| *upper < bound);
        buckets.map(|(_, _, count)| count).sum()
    }

    /// Buckets that hold something: smallest value, largest value, count; in order.
    pub fn filled(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let counts = self.counts.iter().enumerate();
        counts
            .filter(|(_, count)| **count > 0)
            .map(|(index, count)| {
                let (lower, upper) = (self.buckets.lower(index), self.buckets.upper(index));
                (lower, upper, *count)
            })
    }
}

/// A histogram that many threads record into: two relaxed additions for a value, no lock. It takes no memory before
/// the first value, because most endpoints of a large World never get one.
#[derive(Debug, Default)]
pub struct AtomicHistogram {
    counts: OnceLock<Box<[AtomicU64]>>,
    sum: AtomicU64,
}

impl AtomicHistogram {
    /// Its buckets.
    pub const BUCKETS: Buckets = Buckets::COARSE;

    /// Counts one value.
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts one value so many times.
    pub fn record_many(&self, value: u64, times: u64) {
        let counts = self.counts.get_or_init(|| {
            let zeroes = (0..Self::BUCKETS.count()).map(|_| AtomicU64::new(0));
            zeroes.collect()
        });
        if let Some(count) = counts.get(Self::BUCKETS.index(value)) {
            count.fetch_add(times, Relaxed);
        }
        self.sum.fetch_add(value.wrapping_mul(times), Relaxed);
    }

    /// What was recorded until now. A value that is recorded at the same time may be in the counts and not in the
    /// sum. The least and the most are those of their buckets.
    pub fn load(&self) -> Histogram {
        let mut histogram = Histogram::new(Self::BUCKETS);
        let Some(counts) = self.counts.get() else {
            return histogram;
        };
        for (count, from) in histogram.counts.iter_mut().zip(counts) {
            *count = from.load(Relaxed);
        }
        histogram.count = histogram.counts.iter().sum();
        histogram.sum = self.sum.load(Relaxed);
        let ends = histogram.filled().map(|(lower, upper, _)| (lower, upper));
        let (least, most) = ends.fold((u64::MAX, 0), |(least, most), (lower, upper)| {
            (least.min(lower), most.max(upper))
        });
        (histogram.least, histogram.most) = (least, most);
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new(Buckets::COARSE);
        values.into_iter().for_each(|value| histogram.record(value));
        histogram
    }

    #[test]
    fn buckets_cover_every_value_once_and_keep_their_precision() {
        for buckets in [Buckets::COARSE, Buckets::FINE] {
            assert_eq!(buckets.lower(0), 0);
            assert_eq!(buckets.upper(buckets.count() - 1), buckets.end() - 1);
            for index in 0..buckets.count() {
                let (lower, upper) = (buckets.lower(index), buckets.upper(index));
                assert_eq!(buckets.index(lower), index);
                assert_eq!(buckets.index(upper), index);
                assert!((upper - lower) << buckets.precision <= lower, "{index}");
            }
        }
        assert_eq!(Buckets::COARSE.count(), 272);
        assert_eq!(
            Buckets::COARSE.index(u64::MAX),
            Buckets::COARSE.count() - 1,
            "what is too large is in the last one"
        );
    }

    #[test]
    fn histogram_quantiles_of_one_to_a_thousand_are_within_an_eighth() {
        let histogram = of(1..=1000);
        for (quantile, exact) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let found = real(histogram.quantile(quantile).unwrap());
            assert!(found >= exact && found <= exact * 1.125, "{found}");
        }
        assert_eq!(histogram.quantile(0.0), Some(1));
        assert_eq!(histogram.quantile(1.0), Some(1000));
        assert_eq!(histogram.mean(), Some(500.5));
        assert_eq!((histogram.least(), histogram.most()), (Some(1), Some(1000)));
        assert_eq!(of([]).quantile(0.5), None);
        assert_eq!(of([]).mean(), None);
    }

    #[test]
    fn histogram_fine_knows_three_digits() {
        let mut histogram = Histogram::new(Buckets::FINE);
        (1..=100_000).for_each(|value| histogram.record(value));
        let p99 = histogram.quantile(0.99).unwrap();
        assert!((99_000..=99_099).contains(&p99), "{p99}");
    }

    #[test]
    fn histogram_merged_from_parts_equals_the_whole() {
        let mut merged = of((0..5000).step_by(2));
        merged.merge(&of((1..5000).step_by(2)));
        assert_eq!(merged, of(0..5000));
        let mut coarse = of([]);
        let mut fine = Histogram::new(Buckets::FINE);
        (0..5000).for_each(|value| fine.record(value));
        coarse.merge(&fine);
        assert_eq!(coarse, of(0..5000));
    }

    #[test]
    fn histogram_below_a_power_of_two_is_exact() {
        let histogram = of(0..5000);
        assert_eq!(histogram.below(64), 64);
        assert_eq!(histogram.below(1024), 1024);
        assert_eq!(histogram.below(1 << 36), 5000);
    }

    #[test]
    fn atomic_histogram_of_many_threads_loses_nothing() {
        let shared = AtomicHistogram::default();
        assert_eq!(shared.load().count(), 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|value| shared.record(value)));
            }
        });
        let histogram = shared.load();
        assert_eq!(histogram.count(), 4000);
        assert_eq!(histogram.sum(), 4 * 499_500);
        assert_eq!(histogram.below(512), 4 * 512);
    }
}
