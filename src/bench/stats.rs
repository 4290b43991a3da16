//! Medians and how sure they are. Owns arithmetic over figures of blocks.

use serde::{Deserialize, Serialize};

/// A figure with the interval that 95 of 100 repetitions would fall into.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interval {
    /// The median.
    pub median: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Repetitions of the bootstrap.
const REPETITIONS: usize = 2000;

/// The median of `values`; `None` of nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// The median of `values` with its 95 % interval by the percentile bootstrap (Efron, 1979). Always the same for the
/// same values.
pub(super) fn interval(values: &[f64]) -> Option<Interval> {
    let middle = median(values)?;
    // Marsaglia's xorshift: chance that repeats.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut medians: Vec<f64> = (0..REPETITIONS)
        .filter_map(|_| {
            let drawn: Vec<f64> = values
                .iter()
                .filter_map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let place = usize::try_from(state >> 33).ok()? % values.len();
                    values.get(place).copied()
                })
                .collect();
            median(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Some(Interval {
        median: middle,
        low: quantile(&medians, 0.025)?,
        high: quantile(&medians, 0.975)?,
    })
}

/// The value below which this share of the sorted values lies, between two of them in proportion.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = super::pace::float(u64::try_from(last).ok()?) * share;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place within the list"
    )]
    let below = place.floor() as usize;
    let (low, high) = (sorted.get(below)?, sorted.get((below + 1).min(last))?);
    Some(low + (high - low) * (place - place.floor()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_few_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn interval_holds_the_median_and_narrows_with_agreement() {
        let wide = interval(&[1.0, 9.0, 5.0, 2.0, 8.0]).unwrap();
        assert!(wide.low <= wide.median && wide.median <= wide.high);
        assert!(wide.high - wide.low > 1.0, "{wide:?}");
        let narrow = interval(&[5.0, 5.0, 5.1, 5.0, 4.9]).unwrap();
        assert!(narrow.high - narrow.low < 0.3, "{narrow:?}");
        assert_eq!(
            interval(&[2.0]).map(|one| (one.low, one.high)),
            Some((2.0, 2.0))
        );
        assert_eq!(interval(&[]), None);
    }
}
