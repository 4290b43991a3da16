//! StatefulSets: pods with ordinal names, made and ended in order. Owns that, by the rules of Kubernetes' StatefulSet
//! controller: what waits for what under `OrderedReady`, and updates from the highest ordinal down. Volumes are ignored,
//! ordinals start at 0, and updates replace one pod at a time.

use std::sync::Arc;

use super::{
    PodKey, PodOwner, REVISION_HASH_LABEL, SimulatedPod,
    control::{NewPod, Work},
    ownership::{Claimant, key_of},
};
use crate::object::{Kind, Object, ObjectKey, PodSpec, PodTemplate, Workload, workload::Strategy};

const COMPONENT: &str = "statefulset-controller";

/// Labels of every pod of a StatefulSet (Kubernetes, "Well-Known Labels, Annotations and Taints").
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

impl Work<'_> {
    pub(super) fn control_stateful_set(&mut self, object: &Object, wanted: &Workload) {
        let key = &object.key;
        let owner = PodOwner {
            kind: Kind::StatefulSet,
            name: Arc::clone(&key.name),
        };
        self.claim(&Claimant {
            namespace: &key.namespace,
            owner: &owner,
            selector: &wanted.selector,
            may_adopt: &|pod| ordinal(&key.name, &pod.name).is_some(),
        });
        let now = self.now;
        let newest = self.table.newest_revision(object, wanted, now);
        self.table.update_workload(key, |state| {
            state.current.get_or_insert_with(|| Arc::clone(&newest));
        });
        let current = self.table.workloads.get(key);
        let current = current.and_then(|state| state.current.clone());
        let mut ordered = Ordered {
            work: self,
            key,
            owner,
            wanted,
            current: current.unwrap_or_else(|| Arc::clone(&newest)),
            newest,
        };
        while ordered.step() {}
        ordered.finish_update();
        let owner = ordered.owner;
        self.table
            .forget_revisions(key, wanted.revision_history_limit);
        self.wake_when_available(key, &owner, wanted.min_ready);
    }
}

/// The ordinal of the pod `name` in the StatefulSet `set`, if that is how its pods are called.
fn ordinal(set: &str, name: &str) -> Option<u32> {
    let digits = name.strip_prefix(set)?.strip_prefix('-')?;
    let number: u32 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

struct Ordered<'o, 'w> {
    work: &'o mut Work<'w>,
    key: &'o ObjectKey,
    owner: PodOwner,
    wanted: &'o Workload,
    /// `currentRevision`.
    current: Arc<str>,
    /// `updateRevision`.
    newest: Arc<str>,
}

type Pods = Vec<(u32, Arc<SimulatedPod>)>;

impl Ordered<'_, '_> {
    /// Does what may be done now; false when nothing may. Each step looks at everything again, as the controller does
    /// after every change.
    fn step(&mut self) -> bool {
        let (replicas, condemned) = self.pods();
        match self.fill(&replicas) {
            Outcome::Moved => return true,
            Outcome::Waits => return false,
            Outcome::Done => {}
        }
        match self.shrink(&replicas, &condemned) {
            Outcome::Moved => return true,
            Outcome::Waits => return false,
            Outcome::Done => {}
        }
        self.update(&replicas)
    }

    /// Its pods below `replicas`, and those above that have to go, by ordinal.
    fn pods(&self) -> (Pods, Pods) {
        let owner = Some(self.owner.clone());
        let pods = self.work.table.pods_of(&self.key.namespace, owner);
        let numbered = pods.filter_map(|pod| {
            let number = ordinal(&self.key.name, &pod.name)?;
            Some((number, Arc::clone(pod)))
        });
        let mut all: Pods = numbered.collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter()
            .partition(|(number, _)| *number < self.wanted.replicas)
    }

    fn is_available(&self, pod: &SimulatedPod) -> bool {
        pod.is_available(self.wanted.min_ready, self.work.now)
    }

    /// Makes the pods that are missing, under `OrderedReady` each after those before it are available.
    fn fill(&mut self, replicas: &Pods) -> Outcome {
        let ordered = !self.wanted.parallel;
        let mut there = replicas.iter().peekable();
        let mut outcome = Outcome::Done;
        for number in 0..self.wanted.replicas {
            match there.next_if(|(of, _)| *of == number) {
                Some((_, pod)) if ordered && (pod.is_terminating() || !self.is_available(pod)) => {
                    return Outcome::Waits;
                }
                Some(_) => {}
                None => {
                    let room = self.create(number);
                    if ordered {
                        // The new pod is looked at next; it cannot be ready yet.
                        return Outcome::Waits;
                    }
                    if room == Room::Full {
                        let missing = self.wanted.replicas.saturating_sub(number + 1);
                        self.work.miss(missing);
                        return Outcome::Waits;
                    }
                    if room == Room::Made {
                        outcome = Outcome::Moved;
                    }
                }
            }
        }
        outcome
    }

    /// Ends pods above `replicas`, the highest first; under `OrderedReady` one at a time, and none while another pod is
    /// not well.
    fn shrink(&mut self, replicas: &Pods, condemned: &Pods) -> Outcome {
        if self.wanted.parallel {
            for (_, pod) in condemned.iter().filter(|(_, pod)| !pod.is_terminating()) {
                self.delete(pod);
            }
            return Outcome::Done;
        }
        let Some((_, last)) = condemned.last() else {
            return Outcome::Done;
        };
        let mut all = replicas.iter().chain(condemned);
        let unwell = all.find(|(_, pod)| pod.is_terminating() || !pod.is_ready());
        let is_first_unwell = unwell.is_some_and(|(_, pod)| pod.uid == last.uid);
        if last.is_terminating() || (!self.is_available(last) && !is_first_unwell) {
            return Outcome::Waits;
        }
        self.delete(last);
        Outcome::Moved
    }

    /// Ends the highest pod of another revision, as far down as the partition says, while those above it are well.
    fn update(&mut self, replicas: &Pods) -> bool {
        let Strategy::Partition(partition) = self.wanted.strategy else {
            return false;
        };
        for (_, pod) in replicas.iter().rev().filter(|(of, _)| *of >= partition) {
            let is_new = pod.labels.get(REVISION_HASH_LABEL) == Some(&self.newest);
            if !is_new && !pod.is_terminating() {
                self.delete(pod);
                return true;
            }
            if pod.is_terminating() || !self.is_available(pod) {
                return false;
            }
        }
        false
    }

    /// Once all pods are of the newest revision, that is the current one (`completeRollingUpdate`).
    fn finish_update(&mut self) {
        let (replicas, condemned) = self.pods();
        let is_done = |(_, pod): &(u32, Arc<SimulatedPod>)| {
            pod.is_ready() && pod.labels.get(REVISION_HASH_LABEL) == Some(&self.newest)
        };
        let whole = u32::try_from(replicas.len()) == Ok(self.wanted.replicas);
        let rolls = matches!(self.wanted.strategy, Strategy::Partition(_));
        if rolls && whole && condemned.is_empty() && replicas.iter().all(is_done) {
            let newest = Arc::clone(&self.newest);
            self.work
                .table
                .update_workload(self.key, |state| state.current = Some(newest));
        }
    }

    fn delete(&mut self, pod: &SimulatedPod) {
        self.work.stop(&key_of(pod));
        self.tell("delete", &pod.name);
    }

    fn tell(&mut self, verb: &str, pod: &str) {
        let set = &self.key.name;
        let message = format!("{verb} Pod {pod} in StatefulSet {set} successful");
        let reason = match verb {
            "create" => "SuccessfulCreate",
            _ => "SuccessfulDelete",
        };
        self.work.tell(self.key.clone(), COMPONENT, reason, message);
    }

    /// The revision that a new pod with this ordinal is made from: below the partition, the former one.
    fn revision_of(&self, number: u32) -> (Arc<str>, Arc<PodTemplate>) {
        let newest = (Arc::clone(&self.newest), Arc::clone(&self.wanted.template));
        match self.wanted.strategy {
            Strategy::Partition(partition) if number < partition => {
                let state = self.work.table.workloads.get(self.key);
                let mut history = state.iter().flat_map(|state| &state.history);
                let current = history.find(|known| known.name == self.current);
                current.map_or(newest, |known| {
                    (Arc::clone(&known.name), Arc::clone(&known.template))
                })
            }
            _ => newest,
        }
    }

    fn create(&mut self, number: u32) -> Room {
        let name: Arc<str> = format!("{}-{number}", self.key.name).into();
        let key: PodKey = (Arc::clone(&self.key.namespace), Arc::clone(&name));
        if self.work.table.pods.contains_key(&key) {
            self.work.miss(1);
            return Room::Taken;
        }
        let (revision, template) = self.revision_of(number);
        let mut labels = template.labels.clone();
        labels.insert(REVISION_HASH_LABEL.into(), revision);
        labels.insert(POD_NAME_LABEL.into(), Arc::clone(&name));
        labels.insert(POD_INDEX_LABEL.into(), number.to_string().into());
        let service = self.wanted.service_name.clone();
        let spec = PodSpec {
            hostname: Some(Arc::clone(&name)),
            subdomain: service.or_else(|| template.spec.subdomain.clone()),
            ..(*template.spec).clone()
        };
        let added = self.work.add(NewPod {
            key,
            labels,
            annotations: template.annotations.clone(),
            owner: Some(self.owner.clone()),
            spec: Arc::new(spec),
            manifest: Arc::clone(&template.manifest),
            node: None,
        });
        if !added {
            return Room::Full;
        }
        self.tell("create", &name);
        Room::Made
    }
}

/// What came of one part of a step.
enum Outcome {
    /// Something changed: everything is looked at again.
    Moved,
    /// Nothing more may be done now.
    Waits,
    /// The next part may go on.
    Done,
}

/// Whether there was room for a pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Made,
    /// Another pod has the name.
    Taken,
    /// No address is left.
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinal_of_names_that_the_set_would_not_give_is_none() {
        assert_eq!(ordinal("web", "web-0"), Some(0));
        assert_eq!(ordinal("web", "web-12"), Some(12));
        for name in [
            "web", "web-", "web-01", "web-a", "wob-1", "web-1-2", "web-+1",
        ] {
            assert_eq!(ordinal("web", name), None, "{name}");
        }
    }
}
