//! Which pods belong to which controller: owner references and selectors together, as Kubernetes'
//! `PodControllerRefManager` joins them. Owns release, adoption and the index of pods by owner; must not decide how
//! many pods there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Owners, PodKey, PodOwner, PodTable, SimulatedPod, TEMPLATE_HASH_LABEL, control::Work};
use crate::{
    object::{Kind, LabelSelector, Labels, Object, ObjectKey, Spec},
    world::{EventKind, NewEvent},
};

/// Names of pods by namespace and owner; those of nobody are under `None`.
pub(super) type OwnerIndex = BTreeMap<(Arc<str>, Option<PodOwner>), BTreeSet<Arc<str>>>;

impl PodTable {
    /// Enters a pod into the indexes by owner and, for one of nobody, by label, or takes it out.
    pub(super) fn index_owner(&mut self, pod: &SimulatedPod, enters: bool) {
        match (&pod.owner, enters) {
            (None, true) => self.orphans.insert(&pod.namespace, &pod.labels, &pod.name),
            (None, false) => self.orphans.remove(&pod.namespace, &pod.labels, &pod.name),
            (Some(_), _) => {}
        }
        let key = (Arc::clone(&pod.namespace), pod.owner.clone());
        if enters {
            let names = self.owned.entry(key).or_default();
            names.insert(Arc::clone(&pod.name));
        } else if let Some(names) = self.owned.get_mut(&key) {
            names.remove(&pod.name);
            if names.is_empty() {
                self.owned.remove(&key);
            }
        }
    }

    /// The pods of `owner`, ending ones included, by name.
    pub(super) fn pods_of<'t>(
        &'t self,
        namespace: &Arc<str>,
        owner: Option<PodOwner>,
    ) -> impl Iterator<Item = &'t Arc<SimulatedPod>> + use<'t> {
        let names = self.owned.get(&(Arc::clone(namespace), owner));
        let names = names.into_iter().flatten();
        let namespace = Arc::clone(namespace);
        names.filter_map(move |name| self.pods.get(&(Arc::clone(&namespace), Arc::clone(name))))
    }

    /// Pods of nobody that `selector` may match: those under its rarest pair, which is the template hash where it has
    /// one, else all.
    fn orphans_for<'t>(
        &'t self,
        namespace: &'t Arc<str>,
        selector: &'t LabelSelector,
    ) -> Box<dyn Iterator<Item = &'t Arc<SimulatedPod>> + 't> {
        let pairs = &selector.match_labels;
        let hash = pairs.get_key_value(TEMPLATE_HASH_LABEL);
        let Some((label, value)) = hash.or_else(|| pairs.first_key_value()) else {
            return Box::new(self.pods_of(namespace, None));
        };
        let names = self.orphans.get(namespace, label, value);
        Box::new(names.filter_map(|name| self.pods.get(&(Arc::clone(namespace), Arc::clone(name)))))
    }

    /// The keys of the pods of `owner`, ending ones included.
    pub(super) fn owned_keys(&self, namespace: &Arc<str>, owner: &PodOwner) -> Vec<PodKey> {
        self.pods_of(namespace, Some(owner.clone()))
            .map(|pod| key_of(pod))
            .collect()
    }
}

pub(super) fn key_of(pod: &SimulatedPod) -> PodKey {
    (Arc::clone(&pod.namespace), Arc::clone(&pod.name))
}

/// A controller that claims pods.
pub(super) struct Claimant<'c> {
    pub(super) namespace: &'c Arc<str>,
    pub(super) owner: &'c PodOwner,
    pub(super) selector: &'c LabelSelector,
    /// Which of the pods that match may become its own.
    pub(super) may_adopt: &'c dyn Fn(&SimulatedPod) -> bool,
}

impl Work<'_> {
    /// Releases pods whose labels no longer match and adopts those of nobody that do. A released pod goes on running.
    pub(super) fn claim(&mut self, claimant: &Claimant<'_>) {
        let Claimant {
            namespace,
            owner,
            selector,
            may_adopt,
        } = claimant;
        let matches = |pod: &&Arc<SimulatedPod>| selector.matches(&pod.labels);
        let own = self.table.pods_of(namespace, Some((*owner).clone()));
        let released: Vec<_> = own
            .filter(|pod| !pod.is_terminating() && !matches(pod))
            .cloned()
            .collect();
        let nobodys = self.table.orphans_for(namespace, selector);
        let adopted: Vec<_> = nobodys
            .filter(|pod| !pod.is_terminating() && matches(pod) && may_adopt(pod))
            .cloned()
            .collect();
        for pod in released {
            self.update(&key_of(&pod), |pod| pod.owner = None);
            let message = format!(
                "Labels no longer match the selector of {} {}: the pod runs on without it",
                owner.kind, owner.name
            );
            self.tell_pod(&pod, "Released", message);
        }
        for pod in adopted {
            self.update(&key_of(&pod), |pod| pod.owner = Some((*owner).clone()));
            let message = format!(
                "Labels match the selector of {} {}, which owns the pod from now on",
                owner.kind, owner.name
            );
            self.tell_pod(&pod, "Adopted", message);
        }
    }

    fn tell_pod(&mut self, pod: &SimulatedPod, reason: &'static str, message: String) {
        let about = ObjectKey {
            kind: Kind::Pod,
            namespace: Arc::clone(&pod.namespace),
            name: Arc::clone(&pod.name),
        };
        // Kubernetes has no event for it; the component says that this one is ours.
        let component = "portico";
        self.tell(about, component, reason, message);
    }

    /// Writes down a normal event.
    pub(super) fn tell(
        &mut self,
        about: ObjectKey,
        component: &'static str,
        reason: &'static str,
        message: String,
    ) {
        let event = NewEvent {
            about,
            kind: EventKind::Normal,
            reason,
            message,
            component,
        };
        self.events.record(event, self.now);
    }

    /// Lets workloads that a pod of nobody matches look at it.
    pub(super) fn show_strays(&mut self, owners: &Owners) {
        let found = self.strays.take_adopters(owners);
        self.dirty.extend(found);
    }
}

/// Pods of nobody that came or changed in this round, and who may take them.
#[derive(Debug, Default)]
pub(super) struct Strays {
    seen: BTreeSet<(Arc<str>, Labels)>,
    /// Made when it is needed first.
    adopters: Option<Adopters>,
}

impl Strays {
    /// Notes a pod that changed.
    pub(super) fn note(&mut self, pod: &SimulatedPod) {
        if pod.owner.is_none() && !pod.is_terminating() {
            let labels = pod.labels.clone();
            self.seen.insert((Arc::clone(&pod.namespace), labels));
        }
    }

    fn take_adopters(&mut self, owners: &Owners) -> Vec<ObjectKey> {
        if self.seen.is_empty() {
            return Vec::new();
        }
        let adopters = self.adopters.get_or_insert_with(|| Adopters::of(owners));
        let seen = std::mem::take(&mut self.seen);
        let found = seen
            .iter()
            .flat_map(|(namespace, labels)| adopters.of_pod(namespace, labels));
        found.collect()
    }
}

/// Workloads by one pair of their selector, so that not every one is asked about every pod.
#[derive(Debug, Default)]
struct Adopters {
    by_pair: BTreeMap<Option<Pair>, Vec<Arc<Object>>>,
}

type Pair = (Arc<str>, Arc<str>);

impl Adopters {
    fn of(owners: &Owners) -> Self {
        let mut all = Self::default();
        for object in owners.values() {
            let Spec::Workload(wanted) = &object.spec else {
                continue;
            };
            let pair = wanted.selector.match_labels.first_key_value();
            let pair = pair.map(|(label, value)| (Arc::clone(label), Arc::clone(value)));
            let group = all.by_pair.entry(pair).or_default();
            group.push(Arc::clone(object));
        }
        all
    }

    fn of_pod<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a Labels,
    ) -> impl Iterator<Item = ObjectKey> + 'a {
        let pairs = labels
            .iter()
            .map(|(label, value)| Some((Arc::clone(label), Arc::clone(value))));
        let groups = pairs
            .chain([None])
            .filter_map(|pair| self.by_pair.get(&pair));
        let matching = groups.flatten().filter(move |object| {
            object.key.namespace == *namespace
                && matches!(&object.spec, Spec::Workload(wanted) if wanted.selector.matches(labels))
        });
        matching.map(|object| object.key.clone())
    }
}
