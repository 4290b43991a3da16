//! The order in which weighted round robin takes endpoints: smooth, and exact over its length. Owns the computation;
//! pure.

use crate::object::Weight;

/// Most entries of a cycle, unless the endpoints themselves are more. Weights whose sum is above are scaled down.
pub(super) const LONGEST: usize = 4096;

/// A cycle of slots. Over any run of its length that tickets draw, each slot comes up as often as its weight says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cycle {
    /// Slots in order.
    pub(super) slots: Box<[u32]>,
    /// The weights did not fit and were scaled: shares are approximate.
    pub(super) is_scaled: bool,
}

impl Cycle {
    /// The cycle of these weights; `None` when all endpoints have equal shares, so that none is needed. If no weight
    /// is above zero, all are equal.
    pub(super) fn of(weights: &[Weight]) -> Option<Self> {
        let first = weights.first()?;
        if weights.iter().all(|weight| weight == first) {
            return None;
        }
        let raw = weights.iter().map(|weight| u64::from(weight.get()));
        let mut shares: Vec<u64> = raw.collect();
        let divisor = shares.iter().copied().fold(0, gcd).max(1);
        for share in &mut shares {
            *share /= divisor;
        }
        let is_scaled = scale(&mut shares);
        Some(Self {
            slots: smooth(&shares).into(),
            is_scaled,
        })
    }
}

/// Brings the sum down to about [`LONGEST`]; whoever has a share keeps one. Tells whether it had to.
fn scale(shares: &mut [u64]) -> bool {
    let (total, longest) = (shares.iter().sum::<u64>(), LONGEST as u64);
    let takers = shares.iter().filter(|share| **share > 0).count() as u64;
    if total <= longest.max(takers) {
        return false;
    }
    for share in shares.iter_mut().filter(|share| **share > 0) {
        *share = ((*share * longest + total / 2) / total).max(1);
    }
    true
}

/// Smooth weighted round robin as nginx does it: each turn everybody gains its share, the richest is taken and pays
/// the sum of all shares.
fn smooth(shares: &[u64]) -> Vec<u32> {
    let total: i64 = shares.iter().map(|share| signed(*share)).sum();
    let mut credit: Vec<(u32, i64, i64)> = (0_u32..)
        .zip(shares)
        .filter(|(_, share)| **share > 0)
        .map(|(slot, share)| (slot, signed(*share), 0))
        .collect();
    let mut slots = Vec::with_capacity(usize::try_from(total).unwrap_or_default());
    for _ in 0..total {
        let mut best: Option<&mut (u32, i64, i64)> = None;
        for entry in &mut credit {
            entry.2 += entry.1;
            match &best {
                Some(richest) if richest.2 >= entry.2 => {}
                _ => best = Some(entry),
            }
        }
        if let Some(richest) = best {
            richest.2 -= total;
            slots.push(richest.0);
        }
    }
    slots
}

fn signed(share: u64) -> i64 {
    i64::try_from(share).unwrap_or(i64::MAX)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights(numbers: &[u16]) -> Vec<Weight> {
        numbers.iter().map(|n| Weight::new(*n).unwrap()).collect()
    }

    fn slots(numbers: &[u16]) -> Option<Vec<u32>> {
        Cycle::of(&weights(numbers)).map(|cycle| cycle.slots.to_vec())
    }

    #[test]
    fn cycle_of_five_one_one_spreads_the_heavy_one() {
        assert_eq!(slots(&[5, 1, 1]).unwrap(), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn cycle_is_reduced_by_what_all_weights_share() {
        assert_eq!(slots(&[30, 10]).unwrap(), [0, 0, 1, 0]);
        assert_eq!(slots(&[0, 7]).unwrap(), [1]);
    }

    #[test]
    fn cycle_of_equal_weights_is_none() {
        for equal in [&[][..], &[1], &[1, 1], &[7, 7, 7], &[0, 0]] {
            assert_eq!(slots(equal), None, "{equal:?}");
        }
    }

    #[test]
    fn cycle_of_too_large_a_sum_is_scaled_and_forgets_nobody() {
        let mut numbers = vec![256_u16; 400];
        numbers.push(1);
        let cycle = Cycle::of(&weights(&numbers)).unwrap();
        assert!(cycle.is_scaled);
        assert!(cycle.slots.len() <= LONGEST + numbers.len());
        assert!(cycle.slots.contains(&400));
    }

    proptest! {
        #[test]
        fn cycle_gives_each_exactly_its_weight(numbers in prop::collection::vec(0_u16..=256, 1..12)) {
            prop_assume!(numbers.iter().any(|n| *n != numbers[0]));
            let cycle = Cycle::of(&weights(&numbers)).unwrap();
            prop_assert!(!cycle.is_scaled);
            let divisor = numbers.iter().map(|n| u64::from(*n)).fold(0, gcd);
            for (slot, number) in (0_u32..).zip(&numbers) {
                let times = cycle.slots.iter().filter(|of| **of == slot).count() as u64;
                prop_assert_eq!(times * divisor, u64::from(*number));
            }
        }

        /// Smooth: after any number of turns nobody is a whole turn and more beside its share, for few endpoints.
        #[test]
        fn cycle_of_two_is_never_more_than_a_turn_beside_the_shares(a in 1_u16..=64, b in 1_u16..=64) {
            prop_assume!(a != b);
            let slots = slots(&[a, b]).unwrap();
            let total = f64::from(a) + f64::from(b);
            let mut first = 0.0;
            for (turn, slot) in (1_u32..).zip(slots) {
                first += f64::from(u8::from(slot == 0));
                let due = f64::from(turn) * f64::from(a) / total;
                prop_assert!((first - due).abs() <= 1.0, "turn {}: {} of {}", turn, first, due);
            }
        }
    }
}
