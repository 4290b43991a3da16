//! Medians, ratios of pairs and their interval. Pure: chance is a seed.

use serde::{Deserialize, Serialize};

/// How often the rounds are drawn anew for an interval.
const RESAMPLES: usize = 2000;

/// A middle with the interval in which 95 of 100 medians of rounds drawn anew lie (the percentile bootstrap).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Estimate {
    /// The median of the rounds.
    pub(crate) median: f64,
    /// Lower end.
    pub(crate) low: f64,
    /// Upper end.
    pub(crate) high: f64,
}

/// The middle one; of an even number the mean of the two middle ones.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied()?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = sorted.get(middle.checked_sub(1)?).copied()?;
    Some(f64::midpoint(lower, upper))
}

/// The median with its interval. With few rounds it is nearly their range, which is what few rounds can say.
pub(crate) fn estimate(values: &[f64], seed: u64) -> Option<Estimate> {
    let middle = median(values)?;
    let mut chance = seed;
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let drawn: Vec<f64> = (0..values.len())
                .filter_map(|_| values.get(draw(&mut chance, values.len())).copied())
                .collect();
            median(&drawn)
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    let at = |per_mille: usize| {
        medians
            .get(medians.len().saturating_sub(1) * per_mille / 1000)
            .copied()
    };
    Some(Estimate {
        median: rounded(middle),
        low: rounded(at(25)?),
        high: rounded(at(975)?),
    })
}

/// Each of `ours` by the one of `theirs` in the same round; rounds without both, or with a zero below, are left out.
pub(crate) fn ratios(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Vec<f64> {
    ours.iter()
        .zip(theirs)
        .filter_map(|(ours, theirs)| ours.zip(*theirs))
        .filter(|(_, theirs)| *theirs != 0.0)
        .map(|(ours, theirs)| ours / theirs)
        .collect()
}

/// How far values lie apart: the largest by the smallest, minus one. `None` without values or with one at zero.
pub(crate) fn movement(values: &[f64]) -> Option<f64> {
    let least = values.iter().copied().reduce(f64::min)?;
    let most = values.iter().copied().reduce(f64::max)?;
    (least > 0.0).then(|| most / least - 1.0)
}

/// Seven digits, which is more than is ever known: files stay small, and read back as they were written.
pub(crate) fn rounded(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

/// Standard deviation by mean of counts (of the whole population).
pub(crate) fn variation(counts: &[f64]) -> f64 {
    let n: f64 = counts.iter().map(|_| 1.0).sum();
    let mean = counts.iter().sum::<f64>() / n;
    if n == 0.0 || mean == 0.0 {
        return 0.0;
    }
    let variance = counts.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    variance.sqrt() / mean
}

/// A place below `length`, by splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
fn draw(chance: &mut u64, length: usize) -> usize {
    *chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *chance;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let length = u64::try_from(length).unwrap_or(u64::MAX).max(1);
    usize::try_from(z % length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_the_mean_of_both_middles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn estimate_of_equal_rounds_has_no_width() {
        let estimate = estimate(&[0.9; 5], 1).unwrap();
        assert_eq!((estimate.low, estimate.high), (0.9, 0.9));
    }

    #[test]
    fn estimate_holds_its_median_narrows_with_rounds_and_repeats() {
        let few: Vec<f64> = (0..5).map(|n| 1.0 + f64::from(n % 5) / 10.0).collect();
        let many: Vec<f64> = (0..200).map(|n| 1.0 + f64::from(n % 5) / 10.0).collect();
        let (few, many) = (
            (estimate(&few, 7).unwrap(), estimate(&few, 7).unwrap()),
            estimate(&many, 7).unwrap(),
        );
        assert_eq!(few.0, few.1);
        assert!(few.0.low <= few.0.median && few.0.median <= few.0.high);
        assert!(many.high - many.low < few.0.high - few.0.low);
    }

    #[test]
    fn ratios_pair_rounds_and_leave_out_what_has_no_pair() {
        let ours = [Some(1.0), Some(4.0), None, Some(3.0)];
        let theirs = [Some(2.0), Some(2.0), Some(1.0), Some(0.0)];
        assert_eq!(ratios(&ours, &theirs), [0.5, 2.0]);
    }

    #[test]
    fn movement_is_most_by_least_minus_one() {
        assert!((movement(&[100.0, 111.0, 105.0]).unwrap() - 0.11).abs() < 1e-9);
        assert_eq!(movement(&[5.0]), Some(0.0));
        assert_eq!(movement(&[]), None);
        assert_eq!(movement(&[0.0, 1.0]), None);
    }

    #[test]
    fn variation_of_equal_counts_is_zero_and_of_one_and_three_a_half() {
        let variations = (variation(&[5.0, 5.0]), variation(&[1.0, 3.0]));
        assert_eq!((variations, variation(&[])), ((0.0, 0.5), 0.0));
    }
}
