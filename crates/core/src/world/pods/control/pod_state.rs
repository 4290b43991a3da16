//! What happens to one pod: made, started, seen running, put off, stopped, forgotten. Owns the states and the table's
//! indexes; must not decide how many pods there are.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::Work;
use crate::{
    object::{Kind, Labels, ObjectKey, PodSpec},
    time::Timestamp,
    world::pods::{
        PodAction, PodKey, PodPhase, PodUid, SimulatedPod, WantedPort, pod_name, wanted_ports,
    },
};

/// How long a pod that should have ended may stay silent after its grace before it is given up.
const OVERDUE: Duration = Duration::from_secs(1);

/// First delay before a failed start is repeated: a port that was just being given up is free by then.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The following delays: kubelet's `CrashLoopBackOff`, doubled from this to `LAST_RETRY`.
const NEXT_RETRY: Duration = Duration::from_secs(10);

/// Longest delay between two starts.
const LAST_RETRY: Duration = Duration::from_mins(5);

/// A pod that ran for this long starts afresh with the delays, as kubelet counts it.
const HEALED: Duration = Duration::from_mins(10);

/// A pod to be made.
pub(in crate::world::pods) struct NewPod {
    pub(in crate::world::pods) key: PodKey,
    pub(in crate::world::pods) labels: Labels,
    pub(in crate::world::pods) replica_set: Option<Arc<str>>,
    pub(in crate::world::pods) spec: Arc<PodSpec>,
}

impl Work<'_> {
    pub(super) fn observe_running(&mut self, key: &PodKey, bound: &[(WantedPort, u16)]) {
        let now = self.now;
        let moved_ports = bound
            .iter()
            .filter(|(port, number)| port.number != *number)
            .copied()
            .collect();
        self.update(key, |pod| {
            if !pod.is_ready() {
                pod.phase = PodPhase::Running { since: now };
            }
            pod.moved_ports = moved_ports;
        });
    }

    /// Puts off the next start of a pod that failed.
    pub(super) fn wait(&mut self, key: &PodKey, reason: &str) {
        let Some(pod) = self.table.pods.get(key) else {
            return;
        };
        let healed =
            matches!(pod.phase, PodPhase::Running { since } if self.now.since(since) >= HEALED);
        let failures = self.table.failures.entry(pod.uid).or_default();
        let delay = retry_delay(if healed { 0 } else { *failures });
        *failures = if healed {
            1
        } else {
            failures.saturating_add(1)
        };
        let retry_at = self.now.after(delay);
        self.update(key, |pod| {
            pod.phase = PodPhase::Waiting {
                retry_at,
                reason: reason.into(),
            }
        });
        self.wake_pods_at(retry_at);
    }

    /// Makes a pod and asks for its start; counts it as missing when there is no address left.
    pub(in crate::world::pods) fn add(&mut self, new: NewPod) -> bool {
        let Some(ip) = self.addresses.take(&address_owner(&new.key)) else {
            self.missing = self.missing.saturating_add(1);
            return false;
        };
        let uid = self.next_uid();
        let pod = SimulatedPod {
            uid,
            namespace: Arc::clone(&new.key.0),
            name: Arc::clone(&new.key.1),
            labels: new.labels,
            replica_set: new.replica_set,
            spec: new.spec,
            ip,
            phase: PodPhase::Starting,
            moved_ports: BTreeMap::new(),
            created: self.now,
        };
        self.note(&pod);
        self.table.uids.insert(uid, new.key.clone());
        self.table.pods.insert(new.key.clone(), Arc::new(pod));
        self.ask_start(&new.key);
        true
    }

    /// A name for a new pod of the ReplicaSet `set` that no pod has.
    pub(in crate::world::pods) fn free_pod_name(
        &mut self,
        namespace: &Arc<str>,
        set: &str,
    ) -> Arc<str> {
        loop {
            let name: Arc<str> = pod_name(set, self.next_uid().0, self.seed).into();
            if !self
                .table
                .pods
                .contains_key(&(Arc::clone(namespace), Arc::clone(&name)))
            {
                return name;
            }
        }
    }

    fn next_uid(&mut self) -> PodUid {
        self.table.last_uid += 1;
        PodUid(self.table.last_uid)
    }

    /// Asks for a start of a pod that is not ending.
    pub(super) fn start(&mut self, key: &PodKey) {
        self.update(key, |pod| {
            pod.phase = PodPhase::Starting;
            pod.moved_ports.clear();
        });
        self.ask_start(key);
    }

    fn ask_start(&mut self, key: &PodKey) {
        let Some(pod) = self.table.pods.get(key) else {
            return;
        };
        self.actions.push(PodAction::Start {
            uid: pod.uid,
            name: Arc::clone(&pod.name),
            ip: pod.ip,
            ports: wanted_ports(&pod.spec),
        });
    }

    /// Asks a pod to end within its grace. One that the host does not have goes at once.
    pub(in crate::world::pods) fn stop(&mut self, key: &PodKey) {
        let Some(pod) = self.table.pods.get(key).cloned() else {
            return;
        };
        match pod.phase {
            PodPhase::Terminating { .. } => {}
            PodPhase::Waiting { .. } => self.remove(key),
            PodPhase::Starting | PodPhase::Running { .. } => {
                let grace = pod.spec.termination_grace;
                let deadline = self.now.after(grace);
                self.update(key, |pod| pod.phase = PodPhase::Terminating { deadline });
                self.wake_pods_at(deadline.after(OVERDUE));
                let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                self.actions.push(PodAction::Stop {
                    uid: pod.uid,
                    grace_ms,
                });
            }
        }
    }

    /// Forgets a pod and gives its address back.
    pub(super) fn remove(&mut self, key: &PodKey) {
        let Some(pod) = self.table.pods.remove(key) else {
            return;
        };
        self.addresses.release(pod.ip, &address_owner(key));
        self.table.uids.remove(&pod.uid);
        self.table.failures.remove(&pod.uid);
        self.note(&pod);
    }

    /// Changes a pod; if that changed anything, its Services and its owner are looked at.
    pub(super) fn update(&mut self, key: &PodKey, change: impl FnOnce(&mut SimulatedPod)) {
        let Some(pod) = self.table.pods.get_mut(key) else {
            return;
        };
        let before = Arc::clone(pod);
        change(Arc::make_mut(pod));
        let after = Arc::clone(pod);
        if before != after {
            self.note(&before);
            self.note(&after);
        }
    }

    fn note(&mut self, pod: &SimulatedPod) {
        self.changed
            .insert((Arc::clone(&pod.namespace), pod.labels.clone()));
        self.dirty.extend(self.owner_of(pod));
    }

    fn owner_of(&self, pod: &SimulatedPod) -> Option<ObjectKey> {
        let namespace = Arc::clone(&pod.namespace);
        let Some(set) = &pod.replica_set else {
            return Some(ObjectKey {
                kind: Kind::Pod,
                namespace,
                name: Arc::clone(&pod.name),
            });
        };
        let set = self
            .table
            .sets
            .get(&(Arc::clone(&namespace), Arc::clone(set)))?;
        Some(set.owner())
    }

    pub(super) fn wake_pods_at(&mut self, at: Timestamp) {
        self.table.pod_timer = Some(self.table.pod_timer.map_or(at, |timer| timer.min(at)));
    }

    pub(in crate::world::pods) fn wake_owner_at(&mut self, owner: &ObjectKey, at: Timestamp) {
        let wake = self.table.wakes.entry(owner.clone()).or_insert(at);
        *wake = at.min(*wake);
    }

    /// The owner at hand lacks `count` pods.
    pub(in crate::world::pods) const fn miss(&mut self, count: u32) {
        self.missing = self.missing.saturating_add(count);
    }

    /// The pods of the owner at hand are counted again from the start.
    pub(in crate::world::pods) const fn forget_missing(&mut self) {
        self.missing = 0;
    }
}

/// Under which name a pod holds its address.
fn address_owner(key: &PodKey) -> String {
    format!("{}/{}", key.0, key.1)
}

/// When something has to happen to a pod in this phase.
pub(super) fn timer_of(phase: &PodPhase) -> Option<Timestamp> {
    match phase {
        PodPhase::Waiting { retry_at, .. } => Some(*retry_at),
        PodPhase::Terminating { deadline } => Some(deadline.after(OVERDUE)),
        PodPhase::Starting | PodPhase::Running { .. } => None,
    }
}

/// The delay after a failure that `failures` came before.
pub(in crate::world::pods) fn retry_delay(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => FIRST_RETRY,
        Some(doublings) => NEXT_RETRY
            .saturating_mul(1 << doublings.min(16))
            .min(LAST_RETRY),
    }
}
