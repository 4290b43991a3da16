//! What is remembered of a declared workload: generation, conditions and, for DaemonSets and StatefulSets, the
//! templates it has had (their `ControllerRevision` objects). A Deployment's revisions are its ReplicaSets. Owns the numbers of
//! revisions; must not touch pods.

use std::{collections::BTreeSet, sync::Arc};

use super::{PodOwner, PodTable, ReplicaSet, names, progress::Progress};
use crate::{
    object::{Kind, Labels, Object, ObjectKey, PodTemplate, Spec, Workload},
    time::Timestamp,
};

/// The annotation that `rollout history` shows as CHANGE-CAUSE.
pub const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// The label that tells the pods of a DaemonSet's or StatefulSet's revisions apart.
pub const REVISION_HASH_LABEL: &str = "controller-revision-hash";

/// One entry of `rollout history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// Annotation `kubernetes.io/change-cause` at that time.
    pub change_cause: Option<Arc<str>>,
    /// What pods were made from, without the label that the controller adds.
    pub template: Arc<PodTemplate>,
    /// The ReplicaSet or `ControllerRevision`.
    pub name: Arc<str>,
    /// When it was made.
    pub created: Timestamp,
}

/// What is remembered of a declared workload beside its pods.
#[derive(Debug, Clone)]
pub(super) struct WorkloadState {
    pub(super) generation: u64,
    pub(super) spec: Arc<Workload>,
    pub(super) created: Timestamp,
    /// Of a DaemonSet (`deprecated.daemonset.template.generation`): rises with its template.
    pub(super) template_generation: u64,
    /// Of a Deployment.
    pub(super) progress: Progress,
    /// Of a DaemonSet or StatefulSet, oldest revision first.
    pub(super) history: Vec<Revision>,
    /// `status.currentRevision` of a StatefulSet.
    pub(super) current: Option<Arc<str>>,
}

/// Whether two templates are one: the hash decides unless two texts share it.
pub(super) fn same_template(a: &PodTemplate, b: &PodTemplate) -> bool {
    a.hash == b.hash && a.manifest == b.manifest
}

/// The revisions of a Deployment, DaemonSet or StatefulSet, oldest first.
pub fn revisions(table: &PodTable, key: &ObjectKey) -> Vec<Revision> {
    let mut found: Vec<Revision> = match key.kind {
        Kind::Deployment => table
            .sets_of(key)
            .filter(|set| set.revision > 0)
            .map(|set| of_set(set))
            .collect(),
        _ => table
            .workloads
            .get(key)
            .map(|state| state.history.clone())
            .unwrap_or_default(),
    };
    found.sort_by_key(|revision| revision.revision);
    found
}

fn of_set(set: &ReplicaSet) -> Revision {
    Revision {
        revision: set.revision,
        change_cause: set.annotations.get(CHANGE_CAUSE).cloned(),
        template: Arc::clone(&set.template),
        name: Arc::clone(&set.name),
        created: set.created,
    }
}

impl PodTable {
    /// Notes what a declared workload says; its generation rises when that is something else than before.
    pub(super) fn note_spec(&mut self, object: &Object, now: Timestamp) {
        let Spec::Workload(spec) = &object.spec else {
            return;
        };
        let Some(state) = self.workloads.get_mut(&object.key) else {
            let state = WorkloadState {
                generation: 1,
                spec: Arc::clone(spec),
                created: now,
                template_generation: 1,
                progress: Progress::default(),
                history: Vec::new(),
                current: None,
            };
            self.workloads.insert(object.key.clone(), Arc::new(state));
            return;
        };
        if state.spec == *spec {
            return;
        }
        let state = Arc::make_mut(state);
        state.generation += 1;
        state.template_generation +=
            u64::from(!same_template(&state.spec.template, &spec.template));
        state.spec = Arc::clone(spec);
    }

    pub(super) fn update_workload(
        &mut self,
        key: &ObjectKey,
        change: impl FnOnce(&mut WorkloadState),
    ) {
        if let Some(state) = self.workloads.get_mut(key) {
            change(Arc::make_mut(state));
        }
    }

    /// The name of the revision of the wanted template, which is the newest: made if it is new, renumbered if it comes
    /// back.
    pub(super) fn newest_revision(
        &mut self,
        object: &Object,
        wanted: &Workload,
        now: Timestamp,
    ) -> Arc<str> {
        let key = &object.key;
        let mut name = Arc::default();
        self.update_workload(key, |state| {
            name = state.newest(key, (wanted, &object.meta.annotations), now);
        });
        name
    }

    /// Forgets the oldest revisions beyond `limit` that no pod comes from.
    pub(super) fn forget_revisions(&mut self, key: &ObjectKey, limit: u32) {
        let owner = PodOwner {
            kind: key.kind,
            name: Arc::clone(&key.name),
        };
        let pods = self.pods_of(&key.namespace, Some(owner));
        let live: BTreeSet<Arc<str>> = pods
            .filter_map(|pod| pod.labels.get(REVISION_HASH_LABEL).cloned())
            .collect();
        self.update_workload(key, |state| state.forget(limit, &live, key));
    }
}

impl WorkloadState {
    fn newest(
        &mut self,
        key: &ObjectKey,
        (wanted, annotations): (&Workload, &Labels),
        now: Timestamp,
    ) -> Arc<str> {
        let highest = self.history.last().map_or(0, |last| last.revision);
        let known = self
            .history
            .iter()
            .position(|known| same_template(&known.template, &wanted.template));
        if let Some(index) = known {
            let mut known = self.history.remove(index);
            if known.revision < highest {
                known.revision = highest + 1;
            }
            let name = Arc::clone(&known.name);
            self.history.push(known);
            return name;
        }
        let taken = |name: &str| self.history.iter().any(|known| *known.name == *name);
        let mut collisions = 0;
        let name: Arc<str> = loop {
            let hash = names::template_hash_text(wanted.template.hash, collisions);
            let name = format!("{}-{hash}", key.name);
            if !taken(&name) {
                break name.into();
            }
            collisions += 1;
        };
        self.history.push(Revision {
            revision: highest + 1,
            change_cause: annotations.get(CHANGE_CAUSE).cloned(),
            template: Arc::clone(&wanted.template),
            name: Arc::clone(&name),
            created: now,
        });
        name
    }

    fn forget(&mut self, limit: u32, live: &BTreeSet<Arc<str>>, key: &ObjectKey) {
        let newest = self.history.last().map(|last| Arc::clone(&last.name));
        let is_live = |revision: &Revision| {
            Some(&revision.name) == newest.as_ref()
                || Some(&revision.name) == self.current.as_ref()
                || live.contains(&revision_label(key, &revision.name))
        };
        let idle = self.history.iter().filter(|known| !is_live(known)).count();
        let mut surplus = idle.saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        let kept = self.history.iter().filter(|known| {
            let goes = surplus > 0 && !is_live(known);
            surplus -= usize::from(goes);
            !goes
        });
        self.history = kept.cloned().collect();
    }
}

/// The value of `controller-revision-hash` for the revision `name`: the hash alone in a DaemonSet, the whole name in
/// a StatefulSet.
pub(super) fn revision_label(key: &ObjectKey, name: &Arc<str>) -> Arc<str> {
    match key.kind {
        Kind::DaemonSet => {
            let hash = name.rsplit_once('-').map_or(&**name, |(_, hash)| hash);
            hash.into()
        }
        _ => Arc::clone(name),
    }
}
