//! What every ReplicaSet gets when a Deployment is scaled in the middle of a rollout: shares in proportion to what
//! they have, as Kubernetes' Deployment controller gives them ("Proportional scaling" in its documentation), so that
//! a rollout that fails stays small. Owns the arithmetic.

use std::cmp::Reverse;

use super::Standing;

/// What a Deployment is scaled to.
pub(super) struct Scaling {
    /// `replicas`.
    pub(super) replicas: u32,
    /// Most pods of all sets together: `replicas` and `maxSurge`, or none.
    pub(super) most: u32,
    /// Pods there are, in the place of the former `most` where a set does not know it.
    pub(super) current: u32,
}

impl Scaling {
    /// The new size of every set with pods.
    pub(super) fn spread<'s>(&self, active: &[&'s Standing]) -> Vec<(&'s Standing, u32)> {
        let total: i64 = active.iter().map(|set| i64::from(set.replicas)).sum();
        let to_add = i64::from(self.most) - total;
        let mut sets = active.to_vec();
        // Larger sets first; of equal ones the newer grow first and the older shrink first.
        sets.sort_by_key(|set| (set.created, set.revision));
        if to_add > 0 {
            sets.reverse();
        }
        sets.sort_by_key(|set| Reverse(set.replicas));
        let mut added = 0;
        let mut sizes: Vec<i64> = Vec::with_capacity(sets.len());
        for set in &sets {
            let allowed = to_add - added;
            let share = match to_add {
                0 => 0,
                1.. => self.fraction(set).min(allowed),
                _ => self.fraction(set).max(allowed),
            };
            added += share;
            sizes.push(i64::from(set.replicas) + share);
        }
        // What rounding left over goes to or comes from the largest.
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        let sizes = sizes
            .into_iter()
            .map(|size| u32::try_from(size).unwrap_or_default());
        sets.into_iter().zip(sizes).collect()
    }

    /// How much a set would grow or shrink if all kept their shares, rounded to the nearest.
    fn fraction(&self, set: &Standing) -> i64 {
        let replicas = i64::from(set.replicas);
        if self.replicas == 0 {
            return -replicas;
        }
        let before = if set.most == 0 {
            self.current
        } else {
            set.most
        };
        if before == 0 {
            return 0;
        }
        let before = i64::from(before);
        (2 * replicas * i64::from(self.most) + before) / (2 * before) - replicas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(place: usize, replicas: u32, most: u32) -> Standing {
        Standing {
            key: ("default".into(), place.to_string().into()),
            replicas,
            counts: super::super::Counts::default(),
            revision: u64::try_from(place).unwrap(),
            desired: 10,
            most,
            created: crate::time::Timestamp::default(),
            is_new: false,
        }
    }

    fn check(sizes: &[u32], (before, replicas, surge): (u32, u32, u32), expected: &[u32]) {
        let sets: Vec<Standing> = sizes
            .iter()
            .enumerate()
            .map(|(index, size)| set(index, *size, before))
            .collect();
        let active: Vec<&Standing> = sets.iter().collect();
        let scaling = Scaling {
            replicas,
            most: if replicas == 0 { 0 } else { replicas + surge },
            current: sizes.iter().sum(),
        };
        let mut found: Vec<(usize, u32)> = scaling
            .spread(&active)
            .into_iter()
            .map(|(set, size)| (set.key.1.parse().unwrap(), size))
            .collect();
        found.sort_unstable();
        let found: Vec<u32> = found.into_iter().map(|(_, size)| size).collect();
        assert_eq!(found, expected, "{sizes:?} {replicas}+{surge}");
    }

    /// The cases are worked out by hand from the rule; the first is the example of Kubernetes' documentation.
    #[test]
    fn spread_of_a_scaled_rollout_keeps_the_shares() {
        check(&[8, 5], (13, 15, 3), &[11, 7]);
        check(&[5, 8], (13, 15, 3), &[7, 11]);
        check(&[2, 2], (4, 5, 0), &[2, 3]);
        check(&[2, 2], (4, 3, 0), &[1, 2]);
        check(&[9, 4], (13, 5, 1), &[4, 2]);
        check(&[8, 5], (13, 0, 3), &[0, 0]);
        check(&[8, 5], (13, 10, 3), &[8, 5]);
        check(&[8, 5], (0, 15, 3), &[11, 7]);
    }
}
