//! DaemonSets: one pod on every node that suits, replaced node by node when the template changes. Owns that, by the
//! rules of Kubernetes' DaemonSet controller. Which nodes suit is decided by `nodeName` and `nodeSelector` alone: taints
//! and affinity are ignored.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    PodKey, PodNode, PodOwner, REVISION_HASH_LABEL, SimulatedPod,
    control::{NewPod, Work},
    ownership::{Claimant, key_of},
    revisions::revision_label,
};
use crate::object::{
    Kind, Object, ObjectKey, Workload,
    workload::{IntOrPercent, Strategy},
};

const COMPONENT: &str = "daemonset-controller";

/// The label with the number of a DaemonSet's template, which its controller still sets.
const TEMPLATE_GENERATION_LABEL: &str = "pod-template-generation";

impl Work<'_> {
    pub(super) fn control_daemon_set(&mut self, object: &Object, wanted: &Workload) {
        let owner = PodOwner {
            kind: Kind::DaemonSet,
            name: Arc::clone(&object.key.name),
        };
        let namespace = &object.key.namespace;
        self.claim(&Claimant {
            namespace,
            owner: &owner,
            selector: &wanted.selector,
            may_adopt: &|_| true,
        });
        let now = self.now;
        let revision = self.table.newest_revision(object, wanted, now);
        let nodes = self.table.nodes().to_vec();
        let suits = |node: &PodNode| node.suits(&wanted.template.spec);
        let suitable = nodes.into_iter().filter(suits).collect();
        let mut daemons = Daemons {
            work: self,
            key: &object.key,
            owner,
            wanted,
            hash: revision_label(&object.key, &revision),
            suitable,
        };
        daemons.run();
        let owner = daemons.owner;
        self.table
            .forget_revisions(&object.key, wanted.revision_history_limit);
        self.wake_when_available(&object.key, &owner, wanted.min_ready);
    }
}

type Pods = Vec<Arc<SimulatedPod>>;

struct Daemons<'d, 'w> {
    work: &'d mut Work<'w>,
    key: &'d ObjectKey,
    owner: PodOwner,
    wanted: &'d Workload,
    /// The label value of the wanted template.
    hash: Arc<str>,
    /// Nodes that suit.
    suitable: Vec<PodNode>,
}

/// What `maxSurge` and `maxUnavailable` mean for so many nodes, both rounded up; if both are nothing, one pod may be
/// missing.
fn bounds(max_surge: IntOrPercent, max_unavailable: IntOrPercent, nodes: u32) -> (u32, u32) {
    let surge = max_surge.of_rounded_up(nodes);
    let unavailable = max_unavailable.of_rounded_up(nodes);
    match (surge, unavailable) {
        (0, 0) => (0, 1),
        bounds => bounds,
    }
}

impl Daemons<'_, '_> {
    fn run(&mut self) {
        loop {
            let full = !self.manage();
            let moved = match self.wanted.strategy {
                Strategy::RollingUpdate {
                    max_surge,
                    max_unavailable,
                } => {
                    let nodes = u32::try_from(self.suitable.len()).unwrap_or(u32::MAX);
                    let (surge, unavailable) = bounds(max_surge, max_unavailable, nodes);
                    match surge {
                        0 => self.replace(unavailable),
                        _ => self.surge(surge),
                    }
                }
                _ => false,
            };
            if full || !moved {
                return;
            }
        }
    }

    /// Its pods by node, the oldest first, ending ones included.
    fn pods_by_node(&self) -> BTreeMap<Arc<str>, Pods> {
        let owner = Some(self.owner.clone());
        let mut by_node: BTreeMap<Arc<str>, Pods> = BTreeMap::new();
        for pod in self.work.table.pods_of(&self.key.namespace, owner) {
            let pods = by_node.entry(Arc::clone(&pod.node)).or_default();
            pods.push(Arc::clone(pod));
        }
        for pods in by_node.values_mut() {
            pods.sort_by_key(|pod| (pod.created, pod.uid));
        }
        by_node
    }

    fn is_updated(&self, pod: &SimulatedPod) -> bool {
        pod.labels.get(REVISION_HASH_LABEL) == Some(&self.hash)
    }

    fn is_available(&self, pod: &SimulatedPod) -> bool {
        pod.is_available(self.wanted.min_ready, self.work.now)
    }

    const fn may_surge(&self) -> bool {
        match self.wanted.strategy {
            Strategy::RollingUpdate { max_surge, .. } => {
                !matches!(max_surge, IntOrPercent::Int(0) | IntOrPercent::Percent(0))
            }
            _ => false,
        }
    }

    /// A pod on every node that suits, none on others, not more than are allowed (`podsShouldBeOnNode`). A node whose
    /// pod is ending waits until it has gone. False when there was no room for a pod.
    fn manage(&mut self) -> bool {
        let mut by_node = self.pods_by_node();
        let mut surplus: Vec<PodKey> = Vec::new();
        let mut empty: Vec<Arc<str>> = Vec::new();
        for node in &self.suitable {
            match by_node.remove(&node.name) {
                None => empty.push(Arc::clone(&node.name)),
                Some(pods) => surplus.extend(self.surplus_of(pods)),
            }
        }
        let misplaced = by_node.into_values().flatten();
        surplus.extend(
            misplaced
                .filter(|pod| !pod.is_terminating())
                .map(|pod| key_of(&pod)),
        );
        for pod in surplus {
            self.delete(&pod);
        }
        self.create_on(empty)
    }

    /// Pods of one node that have to go. With a surge, an old pod stays beside a new one until that is available.
    fn surplus_of(&self, pods: Pods) -> Vec<PodKey> {
        let pods: Pods = pods
            .into_iter()
            .filter(|pod| !pod.is_terminating())
            .collect();
        if !self.may_surge() {
            return pods.iter().skip(1).map(|pod| key_of(pod)).collect();
        }
        let (new, old): (Pods, Pods) = pods.into_iter().partition(|pod| self.is_updated(pod));
        let extra = new.iter().skip(1).chain(old.iter().skip(1));
        let mut surplus: Vec<PodKey> = extra.map(|pod| key_of(pod)).collect();
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!old.is_ready() || self.is_available(new))
        {
            surplus.push(key_of(old));
        }
        surplus
    }

    /// One pod of each revision on a node; `None` when there are more.
    fn pair<'p>(&self, pods: &'p Pods) -> Option<Pair<'p>> {
        let alive = pods.iter().filter(|pod| !pod.is_terminating());
        let (new, old): (Vec<_>, Vec<_>) = alive.partition(|pod| self.is_updated(pod));
        (new.len() < 2 && old.len() < 2).then(|| (new.first().copied(), old.first().copied()))
    }

    /// Ends old pods as far as so many may be unavailable; the next comparison makes new ones in their place.
    fn replace(&mut self, most_unavailable: u32) -> bool {
        let by_node = self.pods_by_node();
        let mut unavailable = 0;
        let mut going: Vec<PodKey> = Vec::new();
        let mut candidates: Vec<PodKey> = Vec::new();
        for node in &self.suitable {
            let pair = by_node.get(&node.name).and_then(|pods| self.pair(pods));
            match pair {
                Some((Some(new), None)) => unavailable += u32::from(!self.is_available(new)),
                Some((None, Some(old))) if self.is_available(old) => candidates.push(key_of(old)),
                Some((None, Some(old))) => {
                    going.push(key_of(old));
                    unavailable += 1;
                }
                _ => unavailable += 1,
            }
        }
        let more = most_unavailable.saturating_sub(unavailable);
        let more = usize::try_from(more).unwrap_or(usize::MAX);
        going.extend(candidates.into_iter().take(more));
        for pod in &going {
            self.delete(pod);
        }
        !going.is_empty()
    }

    /// Makes new pods beside so many old ones, and ends old ones beside which a new one is available.
    fn surge(&mut self, most: u32) -> bool {
        let by_node = self.pods_by_node();
        let mut surging = 0;
        let mut going: Vec<PodKey> = Vec::new();
        let mut coming: Vec<Arc<str>> = Vec::new();
        let mut candidates: Vec<Arc<str>> = Vec::new();
        for node in &self.suitable {
            let Some(pods) = by_node.get(&node.name) else {
                continue;
            };
            match self.pair(pods) {
                None => surging += 1,
                Some((_, None)) => {}
                Some((None, Some(old))) if self.is_available(old) => {
                    candidates.push(Arc::clone(&node.name));
                }
                Some((None, Some(_))) => coming.push(Arc::clone(&node.name)),
                Some((Some(new), Some(old))) if self.is_available(new) => going.push(key_of(old)),
                Some((Some(_), Some(_))) => surging += 1,
            }
        }
        let more = usize::try_from(most.saturating_sub(surging)).unwrap_or(usize::MAX);
        coming.extend(candidates.into_iter().take(more));
        let moved = !going.is_empty() || !coming.is_empty();
        for pod in &going {
            self.delete(pod);
        }
        self.create_on(coming) && moved
    }

    fn delete(&mut self, pod: &PodKey) {
        self.work.stop(pod);
        let message = format!("Deleted pod: {}", pod.1);
        self.work
            .tell(self.key.clone(), COMPONENT, "SuccessfulDelete", message);
    }

    /// Makes a pod on each of `nodes`; false when there was no room for one.
    fn create_on(&mut self, nodes: Vec<Arc<str>>) -> bool {
        let template = &self.wanted.template;
        let generation = self.work.table.workloads.get(self.key);
        let generation = generation.map_or(1, |state| state.template_generation);
        let mut labels = template.labels.clone();
        labels.insert(REVISION_HASH_LABEL.into(), Arc::clone(&self.hash));
        labels.insert(
            TEMPLATE_GENERATION_LABEL.into(),
            generation.to_string().into(),
        );
        let mut left = nodes.len();
        for node in nodes {
            let namespace = Arc::clone(&self.key.namespace);
            let name = self.work.free_pod_name(&namespace, &self.key.name);
            let message = format!("Created pod: {name}");
            left -= 1;
            let added = self.work.add(NewPod {
                key: (namespace, name),
                labels: labels.clone(),
                annotations: template.annotations.clone(),
                owner: Some(self.owner.clone()),
                spec: Arc::clone(&template.spec),
                manifest: Arc::clone(&template.manifest),
                node: Some(node),
            });
            if !added {
                // The first is counted; without room for it there is none for the others.
                self.work.miss(u32::try_from(left).unwrap_or(u32::MAX));
                return false;
            }
            self.work
                .tell(self.key.clone(), COMPONENT, "SuccessfulCreate", message);
        }
        true
    }
}

/// A pod of the wanted revision and one of another.
type Pair<'p> = (Option<&'p Arc<SimulatedPod>>, Option<&'p Arc<SimulatedPod>>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_numbers_and_shares_round_up() {
        use IntOrPercent::{Int, Percent};
        assert_eq!(bounds(Int(0), Int(1), 5), (0, 1));
        assert_eq!(bounds(Int(0), Percent(25), 5), (0, 2));
        assert_eq!(bounds(Percent(10), Int(0), 5), (1, 0));
        assert_eq!(bounds(Percent(10), Percent(0), 0), (0, 1));
    }
}
