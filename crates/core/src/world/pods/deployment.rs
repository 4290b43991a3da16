//! Deployments: one ReplicaSet per template, and the passage from one to the next. Owns how many pods each set gets,
//! by the rules of Kubernetes' Deployment controller; which pods those are belongs to `replica_set`, the shares of the
//! sets when a rollout is scaled to `proportion`.

mod proportion;

use std::sync::Arc;

use super::{
    PodKey, PodTable, ReplicaSet, TEMPLATE_HASH_LABEL,
    control::Work,
    names,
    progress::{Seen, Tally},
    replica_set::{Counts, NewSet},
    revisions::same_template,
};
use crate::{
    object::{LabelSelector, Labels, Object, ObjectKey, Workload, workload::Strategy},
    time::Timestamp,
};

const COMPONENT: &str = "deployment-controller";

/// Annotations of a Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// A set of the Deployment at hand, counted.
struct Standing {
    key: PodKey,
    replicas: u32,
    counts: Counts,
    revision: u64,
    desired: u32,
    most: u32,
    created: Timestamp,
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
        // A Deployment has no other strategies.
        Strategy::Recreate | Strategy::Partition(_) | Strategy::OnDelete => Bounds {
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

impl PodTable {
    /// The sets of the Deployment `owner`.
    pub(super) fn sets_of<'t>(
        &'t self,
        owner: &'t ObjectKey,
    ) -> impl Iterator<Item = &'t Arc<ReplicaSet>> {
        self.sets
            .range((Arc::clone(&owner.namespace), Arc::clone(&owner.name))..)
            .map(|(_, set)| set)
            .take_while(|set| {
                set.namespace == owner.namespace && set.name.starts_with(&*owner.name)
            })
            .filter(|set| set.deployment.as_ref() == Some(&owner.name))
    }
}

impl Work<'_> {
    /// The keys of the sets of the Deployment `owner`.
    pub(super) fn sets_of(&self, owner: &ObjectKey) -> Vec<PodKey> {
        self.table.sets_of(owner).map(|set| set.key()).collect()
    }

    pub(super) fn control_deployment(&mut self, object: &Object, wanted: &Workload) {
        Rollout {
            work: self,
            owner: &object.key,
            annotations: &object.meta.annotations,
            wanted,
            bounds: bounds(wanted),
            made: false,
        }
        .run();
    }
}

struct Rollout<'r, 'w> {
    work: &'r mut Work<'w>,
    owner: &'r ObjectKey,
    annotations: &'r Labels,
    wanted: &'r Workload,
    bounds: Bounds,
    /// A set was made for the wanted template.
    made: bool,
}

impl Rollout<'_, '_> {
    fn run(&mut self) {
        let min_ready = self.wanted.min_ready;
        for set in self.work.sets_of(self.owner) {
            self.work.update_set(&set, |set| set.min_ready = min_ready);
            self.work.claim_for(&set);
        }
        self.follow_new_set();
        if self.wanted.paused || self.is_scaled() {
            self.rescale();
        }
        match self.wanted.strategy {
            _ if self.wanted.paused => {}
            Strategy::Recreate | Strategy::Partition(_) | Strategy::OnDelete => self.recreate(),
            Strategy::RollingUpdate { .. } => self.roll(),
        }
        // Last, so that no pod is made only to be taken away; what was missing on the way does not count.
        self.work.forget_missing();
        for set in self.work.sets_of(self.owner) {
            self.work.fill(&set);
        }
        let complete = self.sync_status();
        if complete || self.wanted.paused {
            self.forget_old_sets();
        }
    }

    /// The Deployment's sets, oldest first, the new one last.
    fn standings(&self) -> Vec<Standing> {
        let mut sets: Vec<_> = self.work.table.sets_of(self.owner).collect();
        let is_new = |set: &ReplicaSet| same_template(&set.template, &self.wanted.template);
        sets.sort_by_key(|set| (is_new(set), set.created, set.revision));
        sets.into_iter()
            .map(|set| Standing {
                key: set.key(),
                replicas: set.replicas,
                counts: set.counts(self.work.table, self.work.now),
                revision: set.revision,
                desired: set.desired,
                most: set.most,
                created: set.created,
                is_new: is_new(set),
            })
            .collect()
    }

    /// Gives the set of the wanted template the highest revision (a former template that comes back is a new revision
    /// of its old set) and the Deployment's annotations, the change cause among them.
    fn follow_new_set(&mut self) {
        let standings = self.standings();
        let Some(new) = standings.iter().find(|set| set.is_new) else {
            return;
        };
        let old = standings.iter().filter(|set| !set.is_new);
        let newest = old.map(|set| set.revision).max().unwrap_or_default();
        let annotations = self.annotations.iter();
        let copied = annotations.filter(|(name, _)| !NOT_COPIED.contains(&&***name));
        self.work.update_set(&new.key, |set| {
            if set.revision <= newest {
                if set.revision > 0 {
                    set.former_revisions.push(set.revision);
                }
                set.revision = newest + 1;
            }
            let copied = copied.map(|(name, value)| (Arc::clone(name), Arc::clone(value)));
            set.annotations.extend(copied);
        });
    }

    /// Gives a set another number of pods.
    fn scale(&mut self, set: &Standing, replicas: u32) {
        let (desired, most) = (self.wanted.replicas, self.most());
        self.work.update_set(&set.key, |set| {
            (set.replicas, set.desired, set.most) = (replicas, desired, most);
        });
        if replicas == set.replicas {
            return;
        }
        let way = if replicas > set.replicas {
            "up"
        } else {
            "down"
        };
        let message = format!(
            "Scaled {way} replica set {} from {} to {replicas}",
            set.key.1, set.replicas
        );
        self.work
            .tell(self.owner.clone(), COMPONENT, "ScalingReplicaSet", message);
        self.work.fill(&set.key);
    }

    /// `replicas` and `maxSurge`.
    const fn most(&self) -> u32 {
        self.wanted.replicas.saturating_add(self.bounds.surge)
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
        let hash: Arc<str> = hash.into();
        let mut labels = template.labels.clone();
        labels.insert(TEMPLATE_HASH_LABEL.into(), Arc::clone(&hash));
        let mut selector: LabelSelector = self.wanted.selector.clone();
        selector
            .match_labels
            .insert(TEMPLATE_HASH_LABEL.into(), hash);
        let deployment = Some(Arc::clone(&self.owner.name));
        self.work.add_set(NewSet {
            key,
            deployment,
            template,
            selector,
            labels,
            min_ready: self.wanted.min_ready,
        });
        self.made = true;
        self.follow_new_set();
    }

    /// All old pods go, and when the last has ended the new ones come.
    fn recreate(&mut self) {
        let old: Vec<Standing> = self
            .standings()
            .into_iter()
            .filter(|set| !set.is_new)
            .collect();
        for set in old.iter().filter(|set| set.replicas > 0) {
            self.scale(set, 0);
        }
        let mut sets = self.standings().into_iter().filter(|set| !set.is_new);
        if sets.all(|set| set.counts.current + set.counts.terminating == 0) {
            self.ensure_new_set();
            let standings = self.standings();
            for new in standings.iter().filter(|set| set.is_new) {
                self.scale(new, self.wanted.replicas);
            }
        }
    }

    /// Steps until nothing more may be done for now. Each step moves as many pods as its bounds allow, and what the
    /// next steps can do depends on new pods becoming available, so there are few.
    fn roll(&mut self) {
        self.ensure_new_set();
        while self.size_new() || self.drop_unavailable() || self.shrink_old() {}
    }

    /// The new set grows as far as the bounds allow, and never has more than `replicas` (`reconcileNewReplicaSet`).
    fn size_new(&mut self) -> bool {
        let standings = self.standings();
        let Some(new) = standings.iter().find(|set| set.is_new) else {
            return false;
        };
        let room = self.most().saturating_sub(total(&standings));
        let replicas = new.replicas.saturating_add(room).min(self.wanted.replicas);
        if replicas != new.replicas {
            self.scale(new, replicas);
        }
        replicas != new.replicas
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
                self.scale(set, set.replicas - going);
                budget -= going;
                moved = true;
            }
        }
        moved
    }

    const fn least_available(&self) -> u32 {
        self.wanted.replicas.saturating_sub(self.bounds.unavailable)
    }

    /// Whether `replicas` is another number than when a set with pods was scaled last (`isScalingEvent`).
    fn is_scaled(&self) -> bool {
        let standings = self.standings();
        let mut active = standings.iter().filter(|set| set.replicas > 0);
        active.any(|set| set.desired != self.wanted.replicas)
    }

    /// Follows `replicas` without rolling: the only set with pods, else the newest; of several, as Kubernetes spreads
    /// them (`scale` of the Deployment controller).
    fn rescale(&mut self) {
        let standings = self.standings();
        let wanted = self.wanted.replicas;
        let active: Vec<&Standing> = standings.iter().filter(|set| set.replicas > 0).collect();
        let new = standings.iter().find(|set| set.is_new);
        let latest = || new.or_else(|| standings.iter().max_by_key(|set| set.revision));
        match active.as_slice() {
            [] => {
                if let Some(latest) = latest() {
                    self.scale(latest, wanted);
                }
            }
            [only] => self.scale(only, wanted),
            _ if new.is_some_and(|new| {
                new.replicas == wanted && new.desired == wanted && new.counts.available == wanted
            }) =>
            {
                for old in active.into_iter().filter(|set| !set.is_new) {
                    self.scale(old, 0);
                }
            }
            _ if matches!(self.wanted.strategy, Strategy::RollingUpdate { .. }) => {
                let most = if wanted == 0 { 0 } else { self.most() };
                let current: u32 = active.iter().map(|set| set.counts.current).sum();
                let shares = proportion::Scaling {
                    replicas: wanted,
                    most,
                    current,
                }
                .spread(&active);
                for (set, replicas) in shares {
                    self.scale(set, replicas);
                }
            }
            _ => {}
        }
    }

    /// Decides on the conditions; says whether the rollout is complete.
    fn sync_status(&mut self) -> bool {
        let standings = self.standings();
        let new = standings.iter().find(|set| set.is_new);
        let tally = tally(
            standings
                .iter()
                .map(|set| (set.replicas, set.counts, set.is_new)),
        );
        let rolls = matches!(self.wanted.strategy, Strategy::RollingUpdate { .. });
        let missing = if rolls { self.bounds.unavailable } else { 0 };
        let seen = Seen {
            owner: self.owner,
            new_set: new.map(|set| &*set.key.1),
            tally,
            wanted: self.wanted.replicas,
            least_available: self.wanted.replicas.saturating_sub(missing),
            deadline: self.wanted.progress_deadline,
            paused: self.wanted.paused,
            made: self.made,
            now: self.work.now,
        };
        let mut wake = None;
        self.work.table.update_workload(self.owner, |state| {
            state.progress.note_pause(&seen);
            if seen.deadline.is_some() {
                state.progress.note_new_set(&seen);
            }
            wake = state.progress.sync(&seen);
        });
        if let Some(at) = wake {
            self.work.wake_owner_at(self.owner, at);
        }
        tally.is_complete(self.wanted.replicas)
    }

    /// Once a rollout is complete (or paused), sets of former revisions beyond `revisionHistoryLimit` go, the oldest
    /// first, and only those whose last pod has ended (`cleanupDeployment`).
    fn forget_old_sets(&mut self) {
        let standings = self.standings();
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

/// The pods of a Deployment from those of its sets: `replicas`, counts, and whether it is the new one.
pub(super) fn tally(sets: impl Iterator<Item = (u32, Counts, bool)>) -> Tally {
    sets.fold(Tally::default(), |sum, (replicas, counts, is_new)| Tally {
        replicas: sum.replicas + counts.current,
        updated: sum.updated + if is_new { counts.current } else { 0 },
        ready: sum.ready + counts.ready,
        available: sum.available + counts.available,
        wanted_by_sets: sum.wanted_by_sets.saturating_add(replicas),
        terminating: sum.terminating + counts.terminating,
    })
}

fn total(standings: &[Standing]) -> u32 {
    standings
        .iter()
        .fold(0, |sum, set| sum.saturating_add(set.replicas))
}
