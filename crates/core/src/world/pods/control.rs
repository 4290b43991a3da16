//! One round of the controllers: observations and timers in, actions out. Owns the choice of the owners to look at;
//! how many pods one wants belongs to `deployment` and `replica_set`, what happens to a pod to
//! `pod_state`.

mod pod_state;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Owners, PodAction, PodKey, PodObservation, PodPhase, PodTable, Reconciled};
use crate::{
    object::{Kind, Labels, Object, ObjectKey, Pod, Spec},
    time::Timestamp,
    world::AddressPool,
};

pub(super) use pod_state::NewPod;
#[cfg(test)]
pub(super) use pod_state::retry_delay;
use pod_state::timer_of;

/// How long an owner without room (addresses, a taken name) waits before it tries again.
const NO_ROOM: Duration = Duration::from_secs(1);

/// What a round needs beside the table and the owners.
#[derive(Debug)]
pub struct Round<'a> {
    /// What the pod host saw since the last round, in order.
    pub observations: &'a [PodObservation],
    /// Where pods get their addresses, under the owner `namespace/name`.
    pub addresses: &'a mut AddressPool,
    /// Now.
    pub now: Timestamp,
    /// Seed of the run's pod names.
    pub seed: u64,
}

/// The pod host died, and every pod with it: in the next round those that were ending are gone and all others are
/// started again. Call it before the round that gets the observations of the new host.
pub const fn host_lost(table: &mut PodTable) {
    table.host_lost = true;
}

/// Brings `table` closer to what `owners` want. Does nothing when nothing changed; is to be called again at
/// [`Reconciled::deadline`], when an owner changed, and with every observation.
pub fn reconcile(table: &mut PodTable, owners: &Owners, round: Round<'_>) -> Reconciled {
    let Round {
        observations,
        addresses,
        now,
        seed,
    } = round;
    let mut work = Work {
        table,
        addresses,
        now,
        seed,
        actions: Vec::new(),
        changed: BTreeSet::new(),
        dirty: BTreeSet::new(),
        missing: 0,
    };
    work.take_host_loss();
    for observation in observations {
        work.observe(observation);
    }
    work.run_pod_timers();
    work.compare_owners(owners);
    work.control(owners);
    work.finish()
}

/// A round at work.
pub(super) struct Work<'a> {
    pub(super) table: &'a mut PodTable,
    addresses: &'a mut AddressPool,
    pub(super) now: Timestamp,
    seed: u64,
    actions: Vec<PodAction>,
    changed: BTreeSet<PodKeyLabels>,
    dirty: BTreeSet<ObjectKey>,
    /// Pods that the owner at hand could not make.
    missing: u32,
}

type PodKeyLabels = (Arc<str>, Labels);

impl Work<'_> {
    fn take_host_loss(&mut self) {
        if !std::mem::take(&mut self.table.host_lost) {
            return;
        }
        let keys: Vec<PodKey> = self.table.pods.keys().cloned().collect();
        for key in keys {
            match self.table.pods.get(&key).map(|pod| &pod.phase) {
                Some(PodPhase::Terminating { .. }) => self.remove(&key),
                Some(PodPhase::Starting | PodPhase::Running { .. }) => self.start(&key),
                // Its start comes with its time.
                Some(PodPhase::Waiting { .. }) | None => {}
            }
        }
    }

    fn observe(&mut self, observation: &PodObservation) {
        let (PodObservation::Running { uid, .. }
        | PodObservation::Failed { uid, .. }
        | PodObservation::Ended { uid }) = observation;
        // What is said of a pod that was given up, or of a former host's, concerns nobody.
        let Some(key) = self.table.uids.get(uid).cloned() else {
            return;
        };
        let Some(pod) = self.table.pods.get(&key) else {
            return;
        };
        match observation {
            PodObservation::Running { .. } if pod.is_terminating() => {}
            PodObservation::Running { bound, .. } => self.observe_running(&key, bound),
            // The host keeps nothing of a pod that could not start or has ended.
            PodObservation::Failed { .. } | PodObservation::Ended { .. }
                if pod.is_terminating() =>
            {
                self.remove(&key);
            }
            PodObservation::Failed { reason, .. } => self.wait(&key, reason),
            PodObservation::Ended { .. } => self.wait(&key, "ended without being asked to"),
        }
    }

    /// Starts what waited long enough, gives up what should have ended long ago.
    fn run_pod_timers(&mut self) {
        if self.table.pod_timer.is_none_or(|at| at > self.now) {
            return;
        }
        self.table.pod_timer = None;
        let timed: Vec<(PodKey, Timestamp)> = self
            .table
            .pods
            .iter()
            .filter_map(|(key, pod)| timer_of(&pod.phase).map(|at| (key.clone(), at)))
            .collect();
        for (key, at) in timed {
            let ending = self
                .table
                .pods
                .get(&key)
                .is_some_and(|pod| pod.is_terminating());
            match at <= self.now {
                true if ending => self.remove(&key),
                true => self.start(&key),
                false => self.wake_pods_at(at),
            }
        }
    }

    /// Ends the pods of owners that went, notes owners that changed or whose time has come.
    fn compare_owners(&mut self, owners: &Owners) {
        let gone: Vec<ObjectKey> = self
            .table
            .seen
            .keys()
            .filter(|key| !owners.contains_key(*key))
            .cloned()
            .collect();
        for key in gone {
            self.retire(&key);
        }
        for (key, object) in owners {
            if self
                .table
                .seen
                .get(key)
                .is_none_or(|seen| !Arc::ptr_eq(seen, object))
            {
                self.table.seen.insert(key.clone(), Arc::clone(object));
                self.dirty.insert(key.clone());
            }
        }
        let due = self.table.wakes.iter().filter(|(_, at)| **at <= self.now);
        self.dirty.extend(due.map(|(key, _)| key.clone()));
    }

    fn retire(&mut self, key: &ObjectKey) {
        self.table.seen.remove(key);
        self.table.wakes.remove(key);
        self.table.unplaced.remove(key);
        match key.kind {
            Kind::Deployment => {
                for set in self.sets_of(key) {
                    self.remove_set(&set);
                }
            }
            Kind::ReplicaSet => {
                let set = (Arc::clone(&key.namespace), Arc::clone(&key.name));
                if self
                    .table
                    .sets
                    .get(&set)
                    .is_some_and(|set| set.deployment.is_none())
                {
                    self.remove_set(&set);
                }
            }
            _ => {
                let pod = (Arc::clone(&key.namespace), Arc::clone(&key.name));
                if self
                    .table
                    .pods
                    .get(&pod)
                    .is_some_and(|pod| pod.replica_set.is_none())
                {
                    self.stop(&pod);
                }
            }
        }
    }

    fn control(&mut self, owners: &Owners) {
        while let Some(key) = self.dirty.pop_first() {
            let Some(object) = owners.get(&key) else {
                continue;
            };
            self.table.wakes.remove(&key);
            self.table.unplaced.remove(&key);
            self.forget_missing();
            self.control_owner(object);
            if self.missing > 0 {
                self.table.unplaced.insert(key.clone(), self.missing);
                self.wake_owner_at(&key, self.now.after(NO_ROOM));
            }
            // Ending a pod that never ran makes its owner dirty again; it was just looked at with that pod gone.
            self.dirty.remove(&key);
        }
    }

    fn control_owner(&mut self, object: &Object) {
        match (object.key.kind, &object.spec) {
            (Kind::Deployment, Spec::Workload(wanted)) => {
                self.control_deployment(&object.key, wanted);
            }
            (Kind::ReplicaSet, Spec::Workload(wanted)) => {
                self.control_declared_set(&object.key, wanted);
            }
            (Kind::Pod, Spec::Pod(pod)) => {
                self.control_bare_pod(&object.key, &object.meta.labels, pod);
            }
            _ => {}
        }
    }

    /// A bare Pod: itself, by name. Its labels may change while it runs, its spec only with a new incarnation, which
    /// has to wait for the name.
    fn control_bare_pod(&mut self, owner: &ObjectKey, labels: &Labels, declared: &Pod) {
        let key = (Arc::clone(&owner.namespace), Arc::clone(&owner.name));
        let wanted = declared.pod_ips.is_empty() && !declared.terminating && !declared.finished;
        if let Some(pod) = self.table.pods.get(&key).cloned() {
            if pod.replica_set.is_some() {
                self.missing += u32::from(wanted);
                return;
            }
            if pod.is_terminating() {
                return;
            }
            if wanted && pod.spec == declared.spec {
                if pod.labels != *labels {
                    self.update(&key, |pod| pod.labels.clone_from(labels));
                }
                return;
            }
            self.stop(&key);
        }
        if wanted && !self.table.pods.contains_key(&key) {
            let spec = Arc::clone(&declared.spec);
            self.add(NewPod {
                key,
                labels: labels.clone(),
                replica_set: None,
                spec,
            });
        }
    }

    fn finish(self) -> Reconciled {
        let wake = self.table.wakes.values().min().copied();
        Reconciled {
            actions: self.actions,
            changed: self.changed.into_iter().collect(),
            deadline: [wake, self.table.pod_timer].into_iter().flatten().min(),
        }
    }
}
