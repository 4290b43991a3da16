//! Deployments: one ReplicaSet per template, and the passage from one to the next. Owns how many pods each set gets,
//! by the rules of Kubernetes' Deployment controller; which pods those are belongs to `replica_set`.
//!
//! Two simplifications: scaling in the middle of a rollout gives new pods to the newest set and takes surplus ones
//! from the oldest (those not available first), where Kubernetes spreads them in proportion; and two templates with
//! the same 32-bit hash are one template.

use std::sync::Arc;

use super::{
    PodKey, ReplicaSet, TEMPLATE_HASH_LABEL,
    control::Work,
    names,
    replica_set::{Counts, NewSet},
};
use crate::object::{ObjectKey, Workload, workload::Strategy};

/// A set of the Deployment at hand, counted.
struct Standing {
    key: PodKey,
    replicas: u32,
    counts: Counts,
    revision: u64,
    /// It has the template that is wanted now.
    is_new: bool,
}

impl Standing {
    fn unavailable(&self) -> u32 {
        self.replicas.saturating_sub(self.counts.available)
    }
}

/// `maxSurge` and `maxUnavailable` in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) surge: u32,
    pub(super) unavailable: u32,
}

/// The bounds for `wanted`: surge rounded up, unavailable rounded down and at most all; if both are nothing, one may
/// be missing, for else nothing could ever move (`ResolveFenceposts`).
pub(super) fn bounds(wanted: &Workload) -> Bounds {
    match wanted.strategy {
        Strategy::Recreate => Bounds {
            surge: 0,
            unavailable: wanted.replicas,
        },
        Strategy::RollingUpdate {
            max_surge,
            max_unavailable,
        } => {
            let surge = max_surge.of_rounded_up(wanted.replicas);
            let unavailable = max_unavailable.of_rounded_down(wanted.replicas);
            let unavailable = if surge == 0 {
                unavailable.max(1)
            } else {
                unavailable
            };
            Bounds {
                surge,
                unavailable: unavailable.min(wanted.replicas),
            }
        }
    }
}

impl Work<'_> {
    /// The sets of the Deployment `owner`.
    pub(super) fn sets_of(&self, owner: &ObjectKey) -> Vec<PodKey> {
        self.owned_sets(owner).map(|set| set.key()).collect()
    }

    fn owned_sets<'t>(&'t self, owner: &'t ObjectKey) -> impl Iterator<Item = &'t Arc<ReplicaSet>> {
        self.table
            .sets
            .range((Arc::clone(&owner.namespace), Arc::clone(&owner.name))..)
            .map(|(_, set)| set)
            .take_while(|set| {
                set.namespace == owner.namespace && set.name.starts_with(&*owner.name)
            })
            .filter(|set| set.deployment.as_ref() == Some(&owner.name))
    }

    pub(super) fn control_deployment(&mut self, owner: &ObjectKey, wanted: &Workload) {
        Rollout {
            work: self,
            owner,
            wanted,
            bounds: bounds(wanted),
        }
        .run();
    }
}

struct Rollout<'r, 'w> {
    work: &'r mut Work<'w>,
    owner: &'r ObjectKey,
    wanted: &'r Workload,
    bounds: Bounds,
}

impl Rollout<'_, '_> {
    fn run(&mut self) {
        let min_ready = self.wanted.min_ready;
        for set in self.work.sets_of(self.owner) {
            self.work.update_set(&set, |set| set.min_ready = min_ready);
        }
        self.renumber();
        match self.wanted.strategy {
            _ if self.wanted.paused => self.scale_paused(),
            Strategy::Recreate => self.recreate(),
            Strategy::RollingUpdate { .. } => self.roll(),
        }
        // Last, so that no pod is made only to be taken away; what was missing on the way does not count.
        self.work.forget_missing();
        for set in self.work.sets_of(self.owner) {
            self.work.fill(&set);
        }
        self.forget_old_sets();
    }

    /// The Deployment's sets, oldest first, the new one last.
    fn standings(&self) -> Vec<Standing> {
        let mut sets: Vec<_> = self.work.owned_sets(self.owner).collect();
        let hash = self.wanted.template.hash;
        sets.sort_by_key(|set| (set.template.hash == hash, set.created, set.revision));
        sets.into_iter()
            .map(|set| Standing {
                key: set.key(),
                replicas: set.replicas,
                counts: set.counts(self.work.table, self.work.now),
                revision: set.revision,
                is_new: set.template.hash == hash,
            })
            .collect()
    }

    /// Gives the set of the wanted template the highest revision: a former template that comes back is a new revision
    /// of its old set.
    fn renumber(&mut self) {
        let standings = self.standings();
        let Some(new) = standings.iter().find(|set| set.is_new) else {
            return;
        };
        let newest = standings
            .iter()
            .filter(|set| !set.is_new)
            .map(|set| set.revision)
            .max()
            .unwrap_or_default();
        if new.revision <= newest {
            self.work
                .update_set(&new.key, |set| set.revision = newest + 1);
        }
    }

    /// The set of the wanted template, made if it is not there yet.
    fn ensure_new_set(&mut self) {
        if self.standings().iter().any(|set| set.is_new) {
            return;
        }
        let template = &self.wanted.template;
        let mut collisions = 0;
        let (key, hash) = loop {
            let hash = names::template_hash_text(template.hash, collisions);
            let key = (
                Arc::clone(&self.owner.namespace),
                format!("{}-{hash}", self.owner.name).into(),
            );
            if !self.work.table.sets.contains_key(&key) {
                break (key, hash);
            }
            collisions += 1;
        };
        let mut labels = template.labels.clone();
        labels.insert(TEMPLATE_HASH_LABEL.into(), hash.into());
        let deployment = Some(Arc::clone(&self.owner.name));
        self.work.add_set(NewSet {
            key,
            deployment,
            template,
            labels,
            min_ready: self.wanted.min_ready,
        });
        self.renumber();
    }

    /// All old pods go, and when the last has ended the new ones come.
    fn recreate(&mut self) {
        self.trim();
        let old: Vec<Standing> = self
            .standings()
            .into_iter()
            .filter(|set| !set.is_new)
            .collect();
        for set in old.iter().filter(|set| set.replicas > 0) {
            self.work.scale(&set.key, 0);
        }
        let mut sets = self.standings().into_iter().filter(|set| !set.is_new);
        if sets.all(|set| set.counts.current + set.counts.terminating == 0) {
            self.ensure_new_set();
            self.scale_new(self.wanted.replicas);
        }
    }

    /// Steps until nothing more may be done for now. Each step moves as many pods as its bounds allow, and what the
    /// next steps can do depends on new pods becoming available, so there are few.
    fn roll(&mut self) {
        self.ensure_new_set();
        while self.trim() || self.grow_new() || self.drop_unavailable() || self.shrink_old() {}
    }

    /// Takes away what is above the bounds, as it is after `replicas` or `maxSurge` were lowered.
    fn trim(&mut self) -> bool {
        let standings = self.standings();
        let mut excess = total(&standings)
            .saturating_sub(self.wanted.replicas.saturating_add(self.bounds.surge));
        let mut moved = false;
        let mut left: Vec<(&Standing, u32)> =
            standings.iter().map(|set| (set, set.replicas)).collect();
        for only_unavailable in [true, false] {
            for (set, replicas) in &mut left {
                let may_go = if only_unavailable {
                    set.unavailable()
                } else {
                    *replicas
                };
                let going = may_go.min(*replicas).min(excess);
                *replicas -= going;
                excess -= going;
            }
        }
        for (set, replicas) in left {
            let most = if set.is_new {
                self.wanted.replicas
            } else {
                u32::MAX
            };
            if replicas.min(most) != set.replicas {
                self.work.scale(&set.key, replicas.min(most));
                moved = true;
            }
        }
        moved
    }

    fn grow_new(&mut self) -> bool {
        let standings = self.standings();
        let Some(new) = standings.iter().find(|set| set.is_new) else {
            return false;
        };
        let most = self.wanted.replicas.saturating_add(self.bounds.surge);
        let more = most
            .saturating_sub(total(&standings))
            .min(self.wanted.replicas.saturating_sub(new.replicas));
        if more > 0 {
            self.work.scale(&new.key, new.replicas + more);
        }
        more > 0
    }

    /// Old pods that are not available go first: nobody misses them (`cleanupUnhealthyReplicas`).
    fn drop_unavailable(&mut self) -> bool {
        let standings = self.standings();
        let new_unavailable: u32 = standings
            .iter()
            .filter(|set| set.is_new)
            .map(Standing::unavailable)
            .sum();
        let budget = total(&standings)
            .saturating_sub(self.least_available())
            .saturating_sub(new_unavailable);
        self.take_from_old(&standings, budget, Standing::unavailable)
    }

    /// Old pods go as far as enough others are available.
    fn shrink_old(&mut self) -> bool {
        let standings = self.standings();
        let available: u32 = standings.iter().map(|set| set.counts.available).sum();
        let budget = available.saturating_sub(self.least_available());
        self.take_from_old(&standings, budget, |set| set.replicas)
    }

    fn take_from_old(
        &mut self,
        standings: &[Standing],
        mut budget: u32,
        most: fn(&Standing) -> u32,
    ) -> bool {
        let mut moved = false;
        for set in standings.iter().filter(|set| !set.is_new) {
            let going = most(set).min(set.replicas).min(budget);
            if going > 0 {
                self.work.scale(&set.key, set.replicas - going);
                budget -= going;
                moved = true;
            }
        }
        moved
    }

    const fn least_available(&self) -> u32 {
        self.wanted.replicas.saturating_sub(self.bounds.unavailable)
    }

    /// A paused Deployment is scaled but not rolled: the only set with pods, else the newest, follows `replicas`; of
    /// several, surplus pods go and missing ones are added to the newest.
    fn scale_paused(&mut self) {
        let standings = self.standings();
        let mut active: Vec<&Standing> = standings.iter().filter(|set| set.replicas > 0).collect();
        active.sort_by_key(|set| set.revision);
        let wanted = self.wanted.replicas;
        match active.as_slice() {
            [] => {
                if let Some(latest) = standings.iter().max_by_key(|set| set.revision) {
                    self.work.scale(&latest.key, wanted);
                }
            }
            [only] if only.replicas != wanted => self.work.scale(&only.key, wanted),
            [_] => {}
            [.., newest] => {
                let missing = wanted.saturating_sub(total(&standings));
                if missing > 0 {
                    self.work.scale(&newest.key, newest.replicas + missing);
                } else {
                    self.trim();
                }
            }
        }
    }

    fn scale_new(&mut self, replicas: u32) {
        if let Some(new) = self
            .standings()
            .iter()
            .find(|set| set.is_new && set.replicas != replicas)
        {
            self.work.scale(&new.key, replicas);
        }
    }

    /// Once a rollout is complete (or paused), sets of former revisions beyond `revisionHistoryLimit` go, the oldest
    /// first, and only those whose last pod has ended.
    fn forget_old_sets(&mut self) {
        let standings = self.standings();
        let wanted = self.wanted.replicas;
        let new = standings.iter().find(|set| set.is_new);
        let complete = total(&standings) == wanted
            && new.is_some_and(|set| set.replicas == wanted && set.counts.available == wanted);
        if !complete && !self.wanted.paused {
            return;
        }
        let mut old: Vec<&Standing> = standings.iter().filter(|set| !set.is_new).collect();
        old.sort_by_key(|set| set.revision);
        let limit = usize::try_from(self.wanted.revision_history_limit).unwrap_or(usize::MAX);
        let surplus = old.len().saturating_sub(limit);
        let idle =
            |set: &&Standing| set.replicas + set.counts.current + set.counts.terminating == 0;
        for set in old.into_iter().take(surplus).filter(idle) {
            self.work.remove_set(&set.key);
        }
    }
}

fn total(standings: &[Standing]) -> u32 {
    standings
        .iter()
        .fold(0, |sum, set| sum.saturating_add(set.replicas))
}
