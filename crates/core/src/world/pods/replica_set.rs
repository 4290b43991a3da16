//! ReplicaSets: as many pods as asked for, from one template. Owns which pods are made and which go first; how many a
//! Deployment's sets get belongs to `deployment`.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use super::{
    PodKey, PodOwner, PodPhase, PodTable, ReplicaSet, SimulatedPod,
    control::{NewPod, Work},
    ownership::{Claimant, key_of},
    revisions::CHANGE_CAUSE,
};
use crate::{
    object::{Kind, LabelSelector, Labels, ObjectKey, PodTemplate, Workload, workload::selects},
    time::Timestamp,
};

/// The annotation that ranks pods for scaling down: the cheaper go first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

const COMPONENT: &str = "replicaset-controller";

/// A ReplicaSet as it runs: declared by manifest, or made for a revision of a Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningReplicaSet {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// The Deployment that owns it.
    pub deployment: Option<Arc<str>>,
    /// The key of that Deployment.
    pub owner: Option<ObjectKey>,
    /// Revision of that Deployment; 0 without one.
    pub revision: u64,
    /// `kubernetes.io/change-cause` of that revision.
    pub change_cause: Option<Arc<str>>,
    /// Annotations: those of the Deployment at the time of that revision, and the controller's
    /// (`deployment.kubernetes.io/revision`, `desired-replicas`, `max-replicas`, `revision-history`). Empty without a
    /// Deployment.
    pub annotations: Labels,
    /// `metadata.generation`.
    pub generation: u64,
    /// Pods wanted now.
    pub replicas: u32,
    /// Pods it has that are not ending.
    pub current: u32,
    /// Those that have all labels of the template.
    pub fully_labeled: u32,
    /// Those that are ready.
    pub ready: u32,
    /// Those that have been ready for `minReadySeconds`.
    pub available: u32,
    /// Its pods that are ending.
    pub terminating: u32,
    /// Which pods are its own, with `pod-template-hash` where a Deployment owns it.
    pub selector: LabelSelector,
    /// Labels of its pods, with `pod-template-hash` where a Deployment owns it.
    pub labels: Labels,
    /// What its pods are made from, without that label.
    pub template: Arc<PodTemplate>,
    /// `minReadySeconds`.
    pub min_ready: Duration,
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
        owner: set.deployment.is_some().then(|| set.owner()),
        revision: set.revision,
        change_cause: set.annotations.get(CHANGE_CAUSE).cloned(),
        annotations: set.shown_annotations(),
        generation: set.generation,
        replicas: set.replicas,
        current: counts.current,
        fully_labeled: counts.fully_labeled,
        ready: counts.ready,
        available: counts.available,
        terminating: counts.terminating,
        selector: set.selector.clone(),
        labels: set.labels.clone(),
        template: Arc::clone(&set.template),
        min_ready: set.min_ready,
        created: set.created,
    }
}

/// The pods of a ReplicaSet, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Not ending.
    pub(super) current: u32,
    /// With all labels of the template.
    pub(super) fully_labeled: u32,
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
    pub(super) selector: LabelSelector,
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

    /// As the owner of its pods.
    pub(super) fn as_owner(&self) -> PodOwner {
        PodOwner {
            kind: Kind::ReplicaSet,
            name: Arc::clone(&self.name),
        }
    }

    fn as_object(&self) -> ObjectKey {
        ObjectKey {
            kind: Kind::ReplicaSet,
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(&self.name),
        }
    }

    fn shown_annotations(&self) -> Labels {
        let mut shown = self.annotations.clone();
        if self.deployment.is_none() {
            return shown;
        }
        let mut own = |name: &str, value: String| {
            shown.insert(
                format!("deployment.kubernetes.io/{name}").into(),
                value.into(),
            );
        };
        own("revision", self.revision.to_string());
        own("desired-replicas", self.desired.to_string());
        own("max-replicas", self.most.to_string());
        if !self.former_revisions.is_empty() {
            let former: Vec<String> = self.former_revisions.iter().map(u64::to_string).collect();
            own("revision-history", former.join(","));
        }
        shown
    }

    /// Its pods, ending ones included.
    pub(super) fn pods<'t>(
        &self,
        table: &'t PodTable,
    ) -> impl Iterator<Item = &'t Arc<SimulatedPod>> + use<'t> {
        table.pods_of(&self.namespace, Some(self.as_owner()))
    }

    pub(super) fn counts(&self, table: &PodTable, now: Timestamp) -> Counts {
        self.pods(table).fold(Counts::default(), |mut counts, pod| {
            if pod.is_terminating() {
                counts.terminating += 1;
            } else {
                counts.current += 1;
                counts.fully_labeled += u32::from(selects(&self.labels, &pod.labels));
                counts.ready += u32::from(pod.is_ready());
                counts.available += u32::from(pod.is_available(self.min_ready, now));
            }
            counts
        })
    }

    /// Its pods that are not ending, those to go first before the others.
    fn by_dispensability(&self, table: &PodTable) -> Vec<PodKey> {
        let pods = self.pods(table).filter(|pod| !pod.is_terminating());
        let mut pods: Vec<&Arc<SimulatedPod>> = pods.collect();
        pods.sort_by_cached_key(|pod| pod.rank());
        pods.into_iter().map(|pod| key_of(pod)).collect()
    }
}

impl SimulatedPod {
    /// From when on a ready pod counts as available.
    pub(super) fn available_at(&self, min_ready: Duration) -> Option<Timestamp> {
        let since = self.ready_since.filter(|_| self.is_ready())?;
        Some(since.after(min_ready))
    }

    /// Whether it has been ready for `min_ready`.
    pub(super) fn is_available(&self, min_ready: Duration, now: Timestamp) -> bool {
        self.available_at(min_ready).is_some_and(|at| at <= now)
    }

    /// What ranks pods when some have to go, as in Kubernetes (`ActivePodsWithRanks`): without a node, not running, not
    /// ready, of lower deletion cost, ready for a shorter time, restarted more often, younger. Pods on one node count
    /// as if on many, and times are compared exactly, not by their magnitude.
    fn rank(&self) -> impl Ord + use<> {
        let cost = self.annotations.get(DELETION_COST);
        let cost: i32 = cost.and_then(|cost| cost.parse().ok()).unwrap_or_default();
        let since = self.ready_since.filter(|_| self.is_ready()).map(Reverse);
        let restarts = self.containers.iter().map(|one| one.restarts).max();
        (
            !self.node.is_empty(),
            matches!(self.phase, PodPhase::Running { .. }),
            (self.is_ready(), cost),
            since,
            Reverse(restarts),
            (Reverse(self.created), Reverse(self.uid)),
        )
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
                selector: wanted.selector.clone(),
                labels: wanted.template.labels.clone(),
                min_ready: wanted.min_ready,
            }),
        }
        self.update_set(&key, |set| {
            set.replicas = wanted.replicas;
            set.min_ready = wanted.min_ready;
            set.template = Arc::clone(&wanted.template);
            set.selector.clone_from(&wanted.selector);
            set.labels.clone_from(&wanted.template.labels);
        });
        self.claim_for(&key);
        self.fill(&key);
    }

    pub(super) fn add_set(&mut self, new: NewSet<'_>) {
        let (namespace, name) = new.key.clone();
        let set = ReplicaSet {
            namespace,
            name,
            deployment: new.deployment,
            revision: 0,
            former_revisions: Vec::new(),
            annotations: Labels::new(),
            replicas: 0,
            desired: 0,
            most: 0,
            min_ready: new.min_ready,
            selector: new.selector,
            template: Arc::clone(new.template),
            labels: new.labels,
            created: self.now,
            generation: 1,
        };
        self.table.sets.insert(new.key, Arc::new(set));
    }

    /// Changes a set; its generation rises when that changed its spec.
    pub(super) fn update_set(&mut self, key: &PodKey, change: impl FnOnce(&mut ReplicaSet)) {
        let Some(set) = self.table.sets.get_mut(key) else {
            return;
        };
        let before = Arc::clone(set);
        let after = Arc::make_mut(set);
        change(after);
        let same = before.replicas == after.replicas
            && before.min_ready == after.min_ready
            && before.template == after.template;
        after.generation += u64::from(!same);
    }

    /// Releases and adopts pods for a set.
    pub(super) fn claim_for(&mut self, key: &PodKey) {
        if let Some(set) = self.table.sets.get(key).cloned() {
            self.claim(&Claimant {
                namespace: &set.namespace,
                owner: &set.as_owner(),
                selector: &set.selector,
                may_adopt: &|_| true,
            });
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

    /// Makes or ends pods until the set has as many as it wants.
    pub(super) fn fill(&mut self, key: &PodKey) {
        let Some(set) = self.table.sets.get(key).cloned() else {
            return;
        };
        let wanted = usize::try_from(set.replicas).unwrap_or(usize::MAX);
        let alive = set
            .pods(self.table)
            .filter(|pod| !pod.is_terminating())
            .count();
        let surplus = match alive.saturating_sub(wanted) {
            0 => Vec::new(),
            _ => set.by_dispensability(self.table),
        };
        for pod in surplus.iter().take(alive.saturating_sub(wanted)) {
            let message = format!("Deleted pod: {}", pod.1);
            self.stop(pod);
            self.tell(set.as_object(), COMPONENT, "SuccessfulDelete", message);
        }
        for made in alive..wanted {
            let name = self.free_pod_name(&set.namespace, &set.name);
            let message = format!("Created pod: {name}");
            let added = self.add(NewPod {
                key: (Arc::clone(&set.namespace), name),
                labels: set.labels.clone(),
                annotations: set.template.annotations.clone(),
                owner: Some(set.as_owner()),
                spec: Arc::clone(&set.template.spec),
                manifest: Arc::clone(&set.template.manifest),
                node: None,
            });
            if !added {
                // The first is counted; without room for it there is none for the others.
                self.miss(u32::try_from(wanted - made - 1).unwrap_or(u32::MAX));
                break;
            }
            self.tell(set.as_object(), COMPONENT, "SuccessfulCreate", message);
        }
        self.wake_when_available(&set.owner(), &set.as_owner(), set.min_ready);
    }

    /// Comes back to `key` when the next of the ready pods of `owner` becomes available.
    pub(super) fn wake_when_available(
        &mut self,
        key: &ObjectKey,
        owner: &PodOwner,
        min_ready: Duration,
    ) {
        let pods = self.table.pods_of(&key.namespace, Some(owner.clone()));
        let next = pods
            .filter_map(|pod| pod.available_at(min_ready))
            .filter(|at| *at > self.now)
            .min();
        if let Some(at) = next {
            self.wake_owner_at(key, at);
        }
    }
}
