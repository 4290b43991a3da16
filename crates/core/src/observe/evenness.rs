//! How evenly something was shared out. Owns the figures and their meaning; what is shared (connections, requests,
//! bytes) and over which time is the caller's.
//!
//! No single figure tells the truth. Strict round robin has a chi-square near 0, far less than chance would give, so
//! that `p` is near 1; and over very many picks a skew that nobody minds is significant. So judge by [`Evenness::cov`]
//! and, for strict round robin, by [`Evenness::spread`], which is at most 1 for one cursor over one set of endpoints.

use super::real;

/// How evenly `total` was shared out.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evenness {
    /// What was shared out.
    pub total: f64,
    /// Among how many that expected a share.
    pub parts: usize,
    /// Largest difference to the expected share, less the smallest one: `max - min` where all expect the same.
    pub spread: f64,
    /// Coefficient of variation: the standard deviation of observed by expected, each weighted with what was
    /// expected. Where all expect the same it is the standard deviation (of the population) by the mean. It is the
    /// effect size w of Cohen too, `sqrt(chi_square / total)`.
    pub cov: f64,
    /// Jain's index of fairness, `1 / (1 + cov^2)`: the same information between 1/parts and 1.
    pub jain: f64,
    /// Largest ratio of observed by expected.
    pub most: f64,
    /// Smallest ratio of observed by expected.
    pub least: f64,
    /// Pearson's chi-square against the expected shares.
    pub chi_square: f64,
    /// Its degrees of freedom: one less than the parts.
    pub degrees: usize,
    /// How often chance alone would give a chi-square this large or larger, if picks were independent. Small says
    /// uneven; very near 1 says more even than chance, as round robin is.
    pub p: f64,
}

/// How evenly `observed` is shared out among parts that expect shares by weight. Parts of weight 0 expect nothing and
/// are left out, with what they got. `None` when there is nothing to judge: nothing observed, or nobody expects a share.
pub fn by_weight(observed: &[u64], weights: &[u64]) -> Option<Evenness> {
    let pairs = observed.iter().zip(weights);
    let parts: Vec<(f64, f64)> = pairs
        .filter(|(_, weight)| **weight > 0)
        .map(|(count, weight)| (real(*count), real(*weight)))
        .collect();
    let total: f64 = parts.iter().map(|(count, _)| count).sum();
    let weight: f64 = parts.iter().map(|(_, weight)| weight).sum();
    let expecting = parts
        .iter()
        .map(|(count, own)| (*count, total * own / weight));
    of_expected(&expecting.collect::<Vec<_>>())
}

/// How evenly `observed` is shared out among parts that expect the same.
pub fn equal(observed: &[u64]) -> Option<Evenness> {
    by_weight(observed, &vec![1; observed.len()])
}

/// How far observed counts are from expected ones, as pairs (observed, expected): for shares that changed on the
/// way, where what each expected was added up over the sets of endpoints that it belonged to. Pairs that expect
/// nothing are left out. `None` when there is nothing to judge.
pub fn of_expected(pairs: &[(f64, f64)]) -> Option<Evenness> {
    let pairs: Vec<(f64, f64)> = pairs.iter().copied().filter(|pair| pair.1 > 0.0).collect();
    let total: f64 = pairs.iter().map(|(observed, _)| observed).sum();
    if pairs.is_empty() || total <= 0.0 {
        return None;
    }
    let differences = pairs.iter().map(|(observed, expected)| observed - expected);
    let (low, high) = ends(differences);
    let (least, most) = ends(pairs.iter().map(|(observed, expected)| observed / expected));
    let squares = pairs
        .iter()
        .map(|(observed, expected)| (observed - expected).powi(2) / expected);
    let chi_square: f64 = squares.sum();
    let cov = (chi_square / total).sqrt();
    let degrees = pairs.len() - 1;
    Some(Evenness {
        total,
        parts: pairs.len(),
        spread: high - low,
        cov,
        jain: 1.0 / (1.0 + cov * cov),
        most,
        least,
        chi_square,
        degrees,
        p: chi_square_tail(chi_square, degrees),
    })
}

/// The coefficient of variation that independent uniform picks have on average, near enough: `sqrt((k - 1) / n)`.
pub fn cov_of_chance(total: u64, parts: usize) -> f64 {
    let degrees = real(u64::try_from(parts.saturating_sub(1)).unwrap_or(u64::MAX));
    (degrees / real(total.max(1))).sqrt()
}

/// The probability that a chi-square of `degrees` degrees of freedom is `value` or more.
pub fn chi_square_tail(value: f64, degrees: usize) -> f64 {
    if degrees == 0 || value <= 0.0 {
        return 1.0;
    }
    let degrees = real(u64::try_from(degrees).unwrap_or(u64::MAX));
    upper_gamma(degrees / 2.0, value / 2.0).clamp(0.0, 1.0)
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// Terms after which an expansion is as good as it gets; near `a` each adds less than the last by a share of about
/// `1 / sqrt(a)`, so that thousands of endpoints need some hundred.
const TERMS: u32 = 10_000;

/// The regularized upper incomplete gamma function Q(shape, value).
fn upper_gamma(shape: f64, value: f64) -> f64 {
    let scale = (shape * value.ln() - value - ln_gamma(shape)).exp();
    if value < shape + 1.0 {
        1.0 - scale * lower_series(shape, value)
    } else {
        scale * upper_fraction(shape, value)
    }
}

/// DLMF 8.7.1: converges fast below shape + 1.
fn lower_series(shape: f64, value: f64) -> f64 {
    let (mut term, mut sum) = (1.0 / shape, 1.0 / shape);
    for n in 1..TERMS {
        term *= value / (shape + f64::from(n));
        sum += term;
        if term < sum * f64::EPSILON {
            break;
        }
    }
    sum
}

/// DLMF 8.9.2 in the way of Lentz: converges fast above shape + 1.
fn upper_fraction(shape: f64, value: f64) -> f64 {
    let tiny = f64::MIN_POSITIVE / f64::EPSILON;
    let away = |value: f64| if value.abs() < tiny { tiny } else { value };
    let mut denominator = value + 1.0 - shape;
    let mut ratio = 1.0 / tiny;
    let mut inverse = 1.0 / denominator;
    let mut fraction = inverse;
    for n in (1..TERMS).map(f64::from) {
        let numerator = n * (shape - n);
        denominator += 2.0;
        inverse = 1.0 / away(numerator * inverse + denominator);
        ratio = away(denominator + numerator / ratio);
        fraction *= inverse * ratio;
        if (inverse * ratio - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    fraction
}

/// The logarithm of the gamma function for positive values: Stirling's series (DLMF 5.11.1) from 10 on, reached by
/// the recurrence; good to 12 digits.
fn ln_gamma(value: f64) -> f64 {
    let (mut x, mut below) = (value, 1.0_f64);
    while x < 10.0 {
        below *= x;
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series =
        inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - below.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64, within: f64) {
        assert!((found - expected).abs() <= within, "{found} {expected}");
    }

    #[test]
    fn chi_square_tail_agrees_with_the_tables() {
        // NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.4: upper critical values.
        for (value, degrees, p) in [
            (3.841, 1, 0.05),
            (16.919, 9, 0.05),
            (21.666, 9, 0.01),
            (27.877, 9, 0.001),
            (4.168, 9, 0.9),
            (2.088, 9, 0.99),
            (124.342, 100, 0.05),
            (77.929, 100, 0.95),
        ] {
            close(chi_square_tail(value, degrees), p, p * 0.002);
        }
        close(chi_square_tail(2000.0, 2000), 0.4958, 0.001);
        close(chi_square_tail(0.0, 9), 1.0, 0.0);
        close(chi_square_tail(5.0, 0), 1.0, 0.0);
        close(chi_square_tail(1e6, 9), 0.0, 0.0);
    }

    #[test]
    fn ln_gamma_of_known_values() {
        close(ln_gamma(1.0), 0.0, 1e-11);
        close(ln_gamma(0.5), std::f64::consts::PI.sqrt().ln(), 1e-11);
        close(ln_gamma(10.0), 362_880.0_f64.ln(), 1e-11);
    }

    #[test]
    fn equal_of_strict_round_robin_is_perfectly_even() {
        let even = equal(&[100; 10]).unwrap();
        close(even.cov, 0.0, 0.0);
        close(even.spread, 0.0, 0.0);
        close(even.jain, 1.0, 0.0);
        close(even.p, 1.0, 0.0);
        assert_eq!((even.parts, even.degrees), (10, 9));
        let cut = equal(&[34, 33, 33]).unwrap();
        close(cut.spread, 1.0, 1e-9);
        assert!(cut.p > 0.98, "more even than chance: {}", cut.p);
    }

    #[test]
    fn equal_of_known_counts_gives_the_known_figures() {
        // Mean 20, deviations 10: standard deviation of the population sqrt(200/3).
        let found = equal(&[10, 20, 30]).unwrap();
        close(found.cov, (200.0_f64 / 3.0).sqrt() / 20.0, 1e-12);
        close(found.chi_square, 10.0, 1e-12);
        close(found.p, (-5.0_f64).exp(), 1e-9);
        close(found.jain, 3600.0 / (3.0 * 1400.0), 1e-12);
        close(found.spread, 20.0, 1e-12);
        close(found.most, 1.5, 1e-12);
        close(found.least, 0.5, 1e-12);
    }

    #[test]
    fn equal_of_uniform_random_picks_has_the_cov_of_chance() {
        // A linear congruential generator (Knuth's MMIX): the same picks in every run.
        let mut state = 42_u64;
        let mut pick = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((state >> 33) % 10).unwrap()
        };
        let runs = 200;
        let mut sum = 0.0;
        let mut rejected = 0;
        for _ in 0..runs {
            let mut counts = [0; 10];
            (0..1000).for_each(|_| counts[pick()] += 1);
            let found = equal(&counts).unwrap();
            sum += found.cov;
            rejected += usize::from(found.p < 0.05);
        }
        close(cov_of_chance(1000, 10), 0.0949, 0.0001);
        close(sum / f64::from(runs), 0.0925, 0.005);
        assert!((2..=22).contains(&rejected), "one in twenty: {rejected}");
    }

    #[test]
    fn by_weight_judges_against_the_shares_by_weight() {
        let found = by_weight(&[300, 100, 7], &[3, 1, 0]).unwrap();
        close(found.cov, 0.0, 0.0);
        close(found.total, 400.0, 0.0);
        assert_eq!(found.parts, 2, "what is drained expects nothing");
        let wrong = by_weight(&[200, 200], &[3, 1]).unwrap();
        close(wrong.spread, 200.0, 1e-9);
        close(wrong.most, 2.0, 1e-12);
        assert!(wrong.p < 1e-9);
    }

    #[test]
    fn of_expected_adds_up_over_sets_that_changed() {
        // 100 picks over two, then 300 over three of which one is new: all got what they had to.
        let found = of_expected(&[(150.0, 150.0), (150.0, 150.0), (100.0, 100.0)]).unwrap();
        close(found.cov, 0.0, 0.0);
        assert!(equal(&[150, 150, 100]).unwrap().cov > 0.1);
    }

    #[test]
    fn nothing_to_judge_is_none() {
        assert_eq!(equal(&[]), None);
        assert_eq!(equal(&[0, 0]), None);
        assert_eq!(by_weight(&[5], &[0]), None);
        close(equal(&[5]).unwrap().p, 1.0, 0.0);
    }
}
