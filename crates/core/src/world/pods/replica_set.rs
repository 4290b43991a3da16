//! ReplicaSets: as many pods as asked for, from one template. Owns which pods are made and which go first; how many a
//! Deployment's sets get belongs to `deployment`.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use super::{
    PodKey, PodPhase, PodTable, ReplicaSet, SimulatedPod,
    control::{NewPod, Work},
    names,
};
use crate::{
    object::{Kind, Labels, ObjectKey, PodTemplate, Workload},
    time::Timestamp,
};

/// A ReplicaSet as it runs: declared by manifest, or made for a revision of a Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningReplicaSet {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// The Deployment that owns it.
    pub deployment: Option<Arc<str>>,
    /// Revision of that Deployment; 0 without one.
    pub revision: u64,
    /// Pods wanted now.
    pub replicas: u32,
    /// Pods it has that are not ending.
    pub current: u32,
    /// Those that are ready.
    pub ready: u32,
    /// Those that have been ready for `minReadySeconds`.
    pub available: u32,
    /// Labels of its pods, with `pod-template-hash` where a Deployment owns it.
    pub labels: Labels,
    /// What its pods are made from.
    pub template: Arc<PodTemplate>,
    /// When it was made.
    pub created: Timestamp,
}

/// Every ReplicaSet as it stands at `now`, by namespace and name; those of former revisions want no pods.
pub fn replica_sets(table: &PodTable, now: Timestamp) -> Vec<RunningReplicaSet> {
    table
        .sets
        .values()
        .map(|set| describe(table, set, now))
        .collect()
}

fn describe(table: &PodTable, set: &ReplicaSet, now: Timestamp) -> RunningReplicaSet {
    let counts = set.counts(table, now);
    RunningReplicaSet {
        namespace: Arc::clone(&set.namespace),
        name: Arc::clone(&set.name),
        deployment: set.deployment.clone(),
        revision: set.revision,
        replicas: set.replicas,
        current: counts.current,
        ready: counts.ready,
        available: counts.available,
        labels: set.labels.clone(),
        template: Arc::clone(&set.template),
        created: set.created,
    }
}

/// The pods of a ReplicaSet, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Not ending.
    pub(super) current: u32,
    pub(super) ready: u32,
    pub(super) available: u32,
    /// Ending.
    pub(super) terminating: u32,
}

/// What a new ReplicaSet is made of.
pub(super) struct NewSet<'a> {
    pub(super) key: PodKey,
    pub(super) deployment: Option<Arc<str>>,
    pub(super) template: &'a Arc<PodTemplate>,
    pub(super) labels: Labels,
    pub(super) min_ready: Duration,
}

impl ReplicaSet {
    pub(super) fn key(&self) -> PodKey {
        (Arc::clone(&self.namespace), Arc::clone(&self.name))
    }

    /// The declared object that this set belongs to or is.
    pub(super) fn owner(&self) -> ObjectKey {
        let (kind, name) = match &self.deployment {
            Some(deployment) => (Kind::Deployment, deployment),
            None => (Kind::ReplicaSet, &self.name),
        };
        ObjectKey {
            kind,
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(name),
        }
    }

    /// Its pods, ending ones included. They lie together in the table, because their names begin alike.
    pub(super) fn pods<'t>(
        &'t self,
        table: &'t PodTable,
    ) -> impl Iterator<Item = &'t Arc<SimulatedPod>> {
        table
            .pods
            .range((Arc::clone(&self.namespace), Arc::clone(&self.pod_base))..)
            .map(|(_, pod)| pod)
            .take_while(|pod| {
                pod.namespace == self.namespace && pod.name.starts_with(&*self.pod_base)
            })
            .filter(|pod| pod.replica_set.as_ref() == Some(&self.name))
    }

    pub(super) fn counts(&self, table: &PodTable, now: Timestamp) -> Counts {
        self.pods(table).fold(Counts::default(), |mut counts, pod| {
            if pod.is_terminating() {
                counts.terminating += 1;
            } else {
                counts.current += 1;
                counts.ready += u32::from(pod.is_ready());
                counts.available += u32::from(self.available_at(pod).is_some_and(|at| at <= now));
            }
            counts
        })
    }

    /// From when on a ready pod counts as available.
    fn available_at(&self, pod: &SimulatedPod) -> Option<Timestamp> {
        match pod.phase {
            PodPhase::Running { since } => Some(since.after(self.min_ready)),
            _ => None,
        }
    }

    /// When the next of its ready pods becomes available.
    fn next_available(&self, table: &PodTable, now: Timestamp) -> Option<Timestamp> {
        self.pods(table)
            .filter_map(|pod| self.available_at(pod))
            .filter(|at| *at > now)
            .min()
    }

    /// Its pods that are not ending, those to go first before the others, as Kubernetes ranks them where it applies
    /// here: not ready before ready, ready for a shorter time first, then younger first.
    fn by_dispensability(&self, table: &PodTable) -> Vec<PodKey> {
        let mut pods: Vec<&Arc<SimulatedPod>> = self
            .pods(table)
            .filter(|pod| !pod.is_terminating())
            .collect();
        pods.sort_by_cached_key(|pod| {
            let since = match pod.phase {
                PodPhase::Running { since } => Some(Reverse(since)),
                _ => None,
            };
            (since, Reverse(pod.created), Reverse(pod.uid))
        });
        pods.into_iter()
            .map(|pod| (Arc::clone(&pod.namespace), Arc::clone(&pod.name)))
            .collect()
    }
}

impl Work<'_> {
    /// A ReplicaSet given by manifest. An edited template is for the pods to come, as in Kubernetes.
    pub(super) fn control_declared_set(&mut self, owner: &ObjectKey, wanted: &Workload) {
        let key = (Arc::clone(&owner.namespace), Arc::clone(&owner.name));
        match self.table.sets.get(&key) {
            Some(set) if set.deployment.is_some() => return self.miss(wanted.replicas),
            Some(_) => {}
            None => self.add_set(NewSet {
                key: key.clone(),
                deployment: None,
                template: &wanted.template,
                labels: wanted.template.labels.clone(),
                min_ready: wanted.min_ready,
            }),
        }
        self.update_set(&key, |set| {
            set.replicas = wanted.replicas;
            set.min_ready = wanted.min_ready;
            set.template = Arc::clone(&wanted.template);
            set.labels.clone_from(&wanted.template.labels);
        });
        self.fill(&key);
    }

    pub(super) fn add_set(&mut self, new: NewSet<'_>) {
        let (namespace, name) = new.key.clone();
        let set = ReplicaSet {
            pod_base: names::pod_base(&name).into(),
            namespace,
            name,
            deployment: new.deployment,
            revision: 0,
            replicas: 0,
            min_ready: new.min_ready,
            template: Arc::clone(new.template),
            labels: new.labels,
            created: self.now,
        };
        self.table.sets.insert(new.key, Arc::new(set));
    }

    pub(super) fn update_set(&mut self, key: &PodKey, change: impl FnOnce(&mut ReplicaSet)) {
        if let Some(set) = self.table.sets.get_mut(key) {
            change(Arc::make_mut(set));
        }
    }

    /// Forgets a set and ends its pods.
    pub(super) fn remove_set(&mut self, key: &PodKey) {
        let Some(set) = self.table.sets.remove(key) else {
            return;
        };
        for pod in set.by_dispensability(self.table) {
            self.stop(&pod);
        }
    }

    pub(super) fn scale(&mut self, key: &PodKey, replicas: u32) {
        self.update_set(key, |set| set.replicas = replicas);
        self.fill(key);
    }

    /// Makes or ends pods until the set has as many as it wants.
    pub(super) fn fill(&mut self, key: &PodKey) {
        let Some(set) = self.table.sets.get(key).cloned() else {
            return;
        };
        let wanted = usize::try_from(set.replicas).unwrap_or(usize::MAX);
        let pods = set.by_dispensability(self.table);
        for pod in pods.iter().take(pods.len().saturating_sub(wanted)) {
            self.stop(pod);
        }
        for made in pods.len()..wanted {
            let name = self.free_pod_name(&set.namespace, &set.name);
            let added = self.add(NewPod {
                key: (Arc::clone(&set.namespace), name),
                labels: set.labels.clone(),
                replica_set: Some(Arc::clone(&set.name)),
                spec: Arc::clone(&set.template.spec),
            });
            if !added {
                // The first is counted; without room for it there is none for the others.
                self.miss(u32::try_from(wanted - made - 1).unwrap_or(u32::MAX));
                break;
            }
        }
        if let Some(at) = set.next_available(self.table, self.now) {
            self.wake_owner_at(&set.owner(), at);
        }
    }
}
