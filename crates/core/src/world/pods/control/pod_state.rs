//! What happens to one pod: made, started, seen running, put off, stopped, forgotten. Owns the states and the table's
//! indexes; must not decide how many pods there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Work, say::Say};
use crate::{
    object::{Kind, Labels, ObjectKey, PodSpec},
    time::Timestamp,
    world::pods::{
        Behaviour, ContainerState, PodAction, PodKey, PodOwner, PodPhase, PodUid, SimulatedPod,
        WantedPort,
        life::{HEALED, Life, Step, retry_delay},
        plan, pod_name,
    },
};

/// How long a pod that should have ended may stay silent after its grace before it is given up.
pub(super) const OVERDUE: Duration = Duration::from_secs(1);

/// Pods that there may be at a time. A typing mistake (`replicas: 1000000`) is not to take all memory and sockets.
pub(in crate::world::pods) const MOST_PODS: usize = 5_000;

/// A pod to be made.
pub(in crate::world::pods) struct NewPod {
    pub(in crate::world::pods) key: PodKey,
    pub(in crate::world::pods) labels: Labels,
    pub(in crate::world::pods) annotations: Labels,
    pub(in crate::world::pods) owner: Option<PodOwner>,
    pub(in crate::world::pods) spec: Arc<PodSpec>,
    pub(in crate::world::pods) manifest: Arc<str>,
    /// The node that it is for; `None` means this one, unless the spec names one.
    pub(in crate::world::pods) node: Option<Arc<str>>,
}

impl Work<'_> {
    /// The pod serves, or says again where.
    pub(super) fn observe_running(&mut self, key: &PodKey, bound: &[(WantedPort, u16)]) {
        let now = self.now;
        let Some(pod) = self.table.pods.get(key) else {
            return;
        };
        let comes_up = !pod.is_running();
        self.update(key, |pod| {
            pod.moved_ports = moved(bound).collect();
            if comes_up {
                pod.phase = PodPhase::Running { since: now };
            }
        });
        if comes_up {
            self.bring_up(key);
        }
    }

    /// Puts off the next start of a pod that failed.
    pub(super) fn wait(&mut self, key: &PodKey, reason: &str) {
        let Some(pod) = self.table.pods.get(key).cloned() else {
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
            };
            pod.ready_since = None;
            for container in &mut pod.containers {
                (container.started, container.ready) = (false, false);
                container.running_since = None;
                container.waiting = Some("CrashLoopBackOff".into());
            }
        });
        self.say(&pod, Say::warning("Failed", format!("Error: {reason}")));
        self.wake_pods_at(retry_at);
    }

    /// Makes a pod, whose start comes with the next round; counts it as missing when there is no address left.
    pub(in crate::world::pods) fn add(&mut self, new: NewPod) -> bool {
        let room = self.table.pods.len() < MOST_PODS;
        let address = address_owner(&new.key);
        let Some(ip) = room.then(|| self.addresses.take(&address)).flatten() else {
            self.missing = self.missing.saturating_add(1);
            self.full = true;
            return false;
        };
        let uid = self.next_uid();
        let (node, unschedulable) = self.place(new.node, &new.spec);
        let containers = new.spec.containers.iter().map(|container| ContainerState {
            name: Arc::clone(&container.name),
            running_since: None,
            waiting: Some("ContainerCreating".into()),
            started: false,
            ready: false,
            restarts: 0,
            last_end: None,
        });
        let pod = SimulatedPod {
            uid,
            namespace: Arc::clone(&new.key.0),
            name: Arc::clone(&new.key.1),
            labels: new.labels,
            annotations: new.annotations,
            owner: new.owner,
            containers: containers.collect(),
            spec: new.spec,
            manifest: new.manifest,
            node,
            unschedulable,
            ip,
            ready_since: None,
            faults: BTreeSet::new(),
            original: None,
            phase: PodPhase::Pending,
            moved_ports: BTreeMap::new(),
            created: self.now,
        };
        self.note(&pod);
        self.table.index_owner(&pod, true);
        let waits = self.note_unschedulable(&pod);
        self.table.uids.insert(uid, new.key.clone());
        let life = Life::new(pod.containers.len());
        self.table.lives.insert(uid, life);
        self.table.pods.insert(new.key, Arc::new(pod));
        if !waits {
            self.wake_pods_at(self.now);
        }
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

    /// Gives a new pod its node and asks for its start.
    pub(in crate::world::pods) fn schedule(&mut self, key: &PodKey) {
        let pod = self.table.pods.get(key).cloned();
        let Some(pod) = pod.filter(|pod| pod.unschedulable.is_none()) else {
            return;
        };
        let message = format!(
            "Successfully assigned {}/{} to {}",
            pod.namespace, pod.name, pod.node
        );
        self.say(&pod, Say::scheduled(message));
        self.start(key);
    }

    /// Asks for a start of a pod that is not ending.
    pub(in crate::world::pods) fn start(&mut self, key: &PodKey) {
        let pod = self.table.pods.get(key);
        if pod.is_none_or(|pod| pod.unschedulable.is_some()) {
            return;
        }
        self.update(key, |pod| {
            pod.phase = PodPhase::Starting;
            pod.ready_since = None;
            pod.moved_ports.clear();
            for container in &mut pod.containers {
                (container.started, container.ready) = (false, false);
                container.running_since = None;
                container.waiting = Some("ContainerCreating".into());
            }
        });
        let Some(pod) = self.table.pods.get(key).cloned() else {
            return;
        };
        let services = (self.service_ports.0)(&pod.namespace, &pod.labels);
        let containers = plan::containers(&pod.spec, &services);
        let life = self.table.lives.entry(pod.uid).or_default();
        life.ports = containers.iter().map(|plan| plan.ports.clone()).collect();
        for unit in &mut life.units {
            unit.step = Step::Up;
            unit.passing = false;
        }
        let behaviour = self.behaviour(&pod);
        self.actions.push(PodAction::Start {
            uid: pod.uid,
            name: Arc::clone(&pod.name),
            ip: pod.ip,
            containers,
            behaviour,
            faults: pod.faults.clone(),
        });
    }

    /// Tells the host which ports a pod is to serve now, if they are others than it was told.
    pub(super) fn ask_ports(&mut self, key: &PodKey) {
        let Some(pod) = self.table.pods.get(key).filter(|pod| pod.is_served()) else {
            return;
        };
        let services = (self.service_ports.0)(&pod.namespace, &pod.labels);
        let ports = plan::ports(&pod.spec, &services);
        let uid = pod.uid;
        let life = self.table.lives.entry(uid).or_default();
        if life.ports != ports {
            life.ports.clone_from(&ports);
            self.actions.push(PodAction::Ports { uid, ports });
        }
    }

    /// How a pod behaves; what cannot be read is said.
    pub(super) fn behaviour(&mut self, pod: &SimulatedPod) -> Behaviour {
        let (behaviour, problems) = Behaviour::read(&pod.annotations);
        for problem in problems {
            self.say(pod, Say::of_ours("InvalidAnnotation", problem));
        }
        behaviour
    }

    /// Asks a pod to end within its grace. One that the host does not have goes at once.
    pub(in crate::world::pods) fn stop(&mut self, key: &PodKey) {
        let terminating = |pod: &Arc<SimulatedPod>| pod.is_terminating();
        if !self.table.pods.get(key).is_some_and(terminating) {
            self.let_stay_away(key);
            self.stop_within(key, None);
        }
    }

    /// A bare Pod that its controller adopted and now ends comes back when its document is edited, not before: it would
    /// only be adopted and ended again, without end.
    fn let_stay_away(&mut self, key: &PodKey) {
        let (namespace, name) = key.clone();
        let bare = ObjectKey {
            kind: Kind::Pod,
            namespace,
            name,
        };
        let pod = self.table.pods.get(key).filter(|pod| pod.owner.is_some());
        let declared = self.table.seen.get(&bare);
        if let (Some(pod), Some(declared)) = (pod, declared)
            && pod.manifest == declared.manifest
        {
            let document = Arc::clone(&pod.manifest);
            self.table.absent.insert(key.clone(), document);
        }
    }

    /// Asks a pod to end within `grace` instead of its own; one that is ending already is hurried.
    pub(super) fn stop_within(&mut self, key: &PodKey, grace: Option<Duration>) {
        let Some(pod) = self.table.pods.get(key).cloned() else {
            return;
        };
        let grace = grace.unwrap_or(pod.spec.termination_grace);
        let deadline = self.now.after(grace);
        match pod.phase {
            PodPhase::Terminating { deadline: held } if held <= deadline => return,
            PodPhase::Pending | PodPhase::Waiting { .. } => return self.remove(key),
            PodPhase::Terminating { .. } | PodPhase::Starting | PodPhase::Running { .. } => {}
        }
        self.update(key, |pod| {
            pod.phase = PodPhase::Terminating { deadline };
            pod.ready_since = None;
        });
        for container in pod.containers.iter().filter(|_| !pod.is_terminating()) {
            let message = format!("Stopping container {}", container.name);
            self.say(&pod, Say::normal("Killing", message));
        }
        self.wake_pods_at(deadline.after(OVERDUE));
        self.actions.push(PodAction::Stop {
            uid: pod.uid,
            grace_ms: millis(grace),
        });
    }

    /// Forgets a pod and gives its address back.
    pub(super) fn remove(&mut self, key: &PodKey) {
        let Some(pod) = self.table.pods.remove(key) else {
            return;
        };
        self.table.index_owner(&pod, false);
        self.addresses.release(pod.ip, &address_owner(key));
        self.table.uids.remove(&pod.uid);
        self.table.failures.remove(&pod.uid);
        self.table.lives.remove(&pod.uid);
        self.note(&pod);
    }

    /// Changes a pod; if that changed anything, its Services and its owner are looked at.
    pub(in crate::world::pods) fn update(
        &mut self,
        key: &PodKey,
        change: impl FnOnce(&mut SimulatedPod),
    ) {
        let Some(pod) = self.table.pods.get_mut(key) else {
            return;
        };
        let before = Arc::clone(pod);
        change(Arc::make_mut(pod));
        let after = Arc::clone(pod);
        if before != after {
            if before.owner != after.owner || before.labels != after.labels {
                self.table.index_owner(&before, false);
                self.table.index_owner(&after, true);
            }
            self.note(&before);
            self.note(&after);
        }
    }

    fn note(&mut self, pod: &SimulatedPod) {
        self.changed
            .insert((Arc::clone(&pod.namespace), pod.labels.clone()));
        self.strays.note(pod);
        self.dirty.extend(self.owner_of(pod));
    }

    fn owner_of(&self, pod: &SimulatedPod) -> Option<ObjectKey> {
        let namespace = Arc::clone(&pod.namespace);
        let Some(owner) = &pod.owner else {
            return Some(ObjectKey {
                kind: Kind::Pod,
                namespace,
                name: Arc::clone(&pod.name),
            });
        };
        if owner.kind == Kind::ReplicaSet {
            let set = (namespace, Arc::clone(&owner.name));
            return self.table.sets.get(&set).map(|set| set.owner());
        }
        Some(ObjectKey {
            kind: owner.kind,
            namespace,
            name: Arc::clone(&owner.name),
        })
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

/// Why pods are missing.
pub(super) fn no_room(missing: u32) -> String {
    format!(
        "Error creating: no room for {missing} more: at most {MOST_PODS} pods are simulated, as far as their addresses \
         last (--pod-cidr)"
    )
}

/// Under which name a pod holds its address.
fn address_owner(key: &PodKey) -> String {
    format!("{}/{}", key.0, key.1)
}

/// When something has to happen to a pod.
pub(super) fn timer_of(pod: &SimulatedPod, life: Option<&Life>) -> Option<Timestamp> {
    match &pod.phase {
        PodPhase::Pending if pod.unschedulable.is_some() => None,
        PodPhase::Pending => Some(pod.created),
        PodPhase::Waiting { retry_at, .. } => Some(*retry_at),
        PodPhase::Terminating { deadline } => Some(deadline.after(OVERDUE)),
        PodPhase::Running { .. } => life?.timer(),
        PodPhase::Starting => None,
    }
}

/// Those of the ports whose number had to be another one.
pub(super) fn moved(bound: &[(WantedPort, u16)]) -> impl Iterator<Item = (WantedPort, u16)> {
    let moved = bound.iter().filter(|(port, number)| port.number != *number);
    moved.copied()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
