//! One round of the controllers: observations and timers in, actions out. Owns the choice of the owners to look at;
//! how many pods one wants belongs to the controllers (`deployment`, `replica_set`, `daemon_set`, `stateful_set`), what
//! happens to a pod to `pod_state`, to its containers to `containers`, and what people ask for to `commands`.

mod commands;
mod containers;
mod pod_state;
mod say;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use super::{
    Owners, PodAction, PodCommand, PodKey, PodNode, PodObservation, PodOwner, PodPhase, PodTable,
    Reconciled, SimulatedPod, WantedPort, ownership::Strays,
};
use crate::{
    object::{Kind, Labels, Object, ObjectKey, Pod, Spec},
    time::Timestamp,
    world::{
        AddressPool, EventLog,
        events::{EventKind, NewEvent},
        probes::ProbeObservation,
    },
};

pub use commands::{CommandError, check_command};
#[cfg(test)]
pub(super) use pod_state::MOST_PODS;
pub(super) use pod_state::NewPod;
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
    /// This node's name.
    pub node: Arc<str>,
    /// The nodes there are; none means this one, without labels.
    pub nodes: &'a [PodNode],
    /// What probes said since the last round, in order.
    pub probes: &'a [ProbeObservation],
    /// What people asked for since the last round, in order.
    pub commands: &'a [PodCommand],
    /// Which ports Services ask of a pod by number.
    pub service_ports: ServicePorts<'a>,
    /// Namespaces in which Services changed since the last round.
    pub edited: &'a BTreeSet<Arc<str>>,
    /// Where what happened is written down.
    pub events: &'a mut EventLog,
}

/// The ports that the Services which select a pod ask for by number (`targetPort`), by its namespace and labels.
#[derive(Clone, Copy)]
pub struct ServicePorts<'a>(pub &'a dyn Fn(&Arc<str>, &Labels) -> Vec<WantedPort>);

impl Default for ServicePorts<'_> {
    /// There are no Services.
    fn default() -> Self {
        Self(&|_, _| Vec::new())
    }
}

impl fmt::Debug for ServicePorts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServicePorts")
    }
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
        node,
        nodes,
        probes,
        commands,
        service_ports,
        edited,
        events,
    } = round;
    let mut work = Work {
        table,
        addresses,
        now,
        seed,
        node,
        events,
        service_ports,
        actions: Vec::new(),
        changed: BTreeSet::new(),
        dirty: BTreeSet::new(),
        strays: Strays::default(),
        missing: 0,
        full: false,
    };
    work.take_nodes(nodes, owners);
    work.take_host_loss();
    for observation in observations {
        work.observe(observation);
    }
    for seen in probes {
        work.observe_probe(seen);
    }
    work.run_pod_timers();
    work.compare_owners(owners);
    for command in commands {
        work.obey(command);
    }
    work.compare_ports(edited);
    work.control(owners);
    work.finish()
}

/// A round at work.
pub(super) struct Work<'a> {
    pub(super) table: &'a mut PodTable,
    addresses: &'a mut AddressPool,
    pub(super) now: Timestamp,
    seed: u64,
    pub(super) node: Arc<str>,
    pub(super) events: &'a mut EventLog,
    service_ports: ServicePorts<'a>,
    actions: Vec<PodAction>,
    changed: BTreeSet<PodKeyLabels>,
    pub(super) dirty: BTreeSet<ObjectKey>,
    /// Pods without an owner that changed: somebody may adopt them.
    pub(super) strays: Strays,
    /// Pods that the owner at hand could not make.
    missing: u32,
    /// There was no room for one of them.
    full: bool,
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
                Some(PodPhase::Pending | PodPhase::Waiting { .. }) | None => {}
            }
        }
    }

    fn observe(&mut self, observation: &PodObservation) {
        // What is said of a pod that was given up, or of a former host's, concerns nobody.
        let Some(key) = self.table.uids.get(&observation.uid()).cloned() else {
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
            PodObservation::Container {
                container, became, ..
            } => self.observe_container(&key, container, became),
        }
    }

    /// Starts what is new or waited long enough, gives up what should have ended long ago.
    fn run_pod_timers(&mut self) {
        if self.table.pod_timer.is_none_or(|at| at > self.now) {
            return;
        }
        self.table.pod_timer = None;
        let table = &*self.table;
        let timed = table.pods.iter().filter_map(|(key, pod)| {
            let at = timer_of(pod, table.lives.get(&pod.uid))?;
            Some((key.clone(), at))
        });
        for (key, at) in timed.collect::<Vec<_>>() {
            if at > self.now {
                self.wake_pods_at(at);
                continue;
            }
            match self.table.pods.get(&key).map(|pod| &pod.phase) {
                Some(PodPhase::Terminating { .. }) => self.remove(&key),
                Some(PodPhase::Pending) => self.schedule(&key),
                Some(PodPhase::Waiting { .. }) => self.start(&key),
                Some(PodPhase::Running { .. }) => self.run_container_timers(&key),
                Some(PodPhase::Starting) | None => {}
            }
        }
    }

    /// Lets pods serve what the edited Services ask of them.
    fn compare_ports(&mut self, edited: &BTreeSet<Arc<str>>) {
        for namespace in edited {
            let first = (Arc::clone(namespace), Arc::from(""));
            let pods = self.table.pods.range(first..).map(|(key, _)| key);
            let within = pods.take_while(|key| key.0 == *namespace);
            for key in within.cloned().collect::<Vec<_>>() {
                self.ask_ports(&key);
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
                let seen = self.table.seen.get(key);
                if seen.is_some_and(|seen| is_replaced(seen, object)) {
                    self.retire(key);
                }
                self.table.seen.insert(key.clone(), Arc::clone(object));
                self.table.note_spec(object, self.now);
                self.dirty.insert(key.clone());
            }
        }
        let due = self.table.wakes.iter().filter(|(_, at)| **at <= self.now);
        self.dirty.extend(due.map(|(key, _)| key.clone()));
    }

    fn retire(&mut self, key: &ObjectKey) {
        let seen = self.table.seen.remove(key);
        self.table.workloads.remove(key);
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
            Kind::DaemonSet | Kind::StatefulSet => {
                let owner = PodOwner {
                    kind: key.kind,
                    name: Arc::clone(&key.name),
                };
                for pod in self.table.owned_keys(&key.namespace, &owner) {
                    self.stop(&pod);
                }
            }
            _ => {
                let pod = (Arc::clone(&key.namespace), Arc::clone(&key.name));
                self.table.absent.remove(&pod);
                let is_it = |pod: &Arc<SimulatedPod>| {
                    let adopted = seen.is_some_and(|seen| seen.manifest == pod.manifest);
                    pod.owner.is_none() || adopted
                };
                if self.table.pods.get(&pod).is_some_and(is_it) {
                    self.stop(&pod);
                }
            }
        }
    }

    fn control(&mut self, owners: &Owners) {
        self.show_strays(owners);
        while let Some(key) = self.dirty.pop_first() {
            let Some(object) = owners.get(&key) else {
                continue;
            };
            self.table.wakes.remove(&key);
            self.table.unplaced.remove(&key);
            self.forget_missing();
            self.full = false;
            self.control_owner(object);
            if self.missing > 0 {
                if self.full {
                    self.warn_of_no_room(&key);
                }
                self.table.unplaced.insert(key.clone(), self.missing);
                self.wake_owner_at(&key, self.now.after(NO_ROOM));
            }
            // Ending a pod that never ran makes its owner dirty again; it was just looked at with that pod gone.
            self.dirty.remove(&key);
            self.show_strays(owners);
        }
    }

    /// Said at every attempt, as ReplicaSets do: what the pods that are there say must not push it out of the log.
    fn warn_of_no_room(&mut self, owner: &ObjectKey) {
        let event = NewEvent {
            about: owner.clone(),
            kind: EventKind::Warning,
            reason: "FailedCreate",
            message: pod_state::no_room(self.missing),
            component: "portico",
        };
        self.events.record(event, self.now);
    }

    fn control_owner(&mut self, object: &Object) {
        match (object.key.kind, &object.spec) {
            (Kind::Deployment, Spec::Workload(wanted)) => {
                self.control_deployment(object, wanted);
            }
            (Kind::ReplicaSet, Spec::Workload(wanted)) => {
                self.control_declared_set(&object.key, wanted);
            }
            (Kind::DaemonSet, Spec::Workload(wanted)) => {
                self.control_daemon_set(object, wanted);
            }
            (Kind::StatefulSet, Spec::Workload(wanted)) => {
                self.control_stateful_set(object, wanted);
            }
            (Kind::Pod, Spec::Pod(pod)) => {
                self.control_bare_pod(object, pod);
            }
            _ => {}
        }
    }

    /// A bare Pod: itself, by name. Its labels may change while it runs, its spec only with a new incarnation, which
    /// has to wait for the name.
    fn control_bare_pod(&mut self, object: &Object, declared: &Pod) {
        let owner = &object.key;
        let key = (Arc::clone(&owner.namespace), Arc::clone(&owner.name));
        let wanted = declared.pod_ips.is_empty() && !declared.terminating && !declared.finished;
        if let Some(pod) = self.table.pods.get(&key).cloned() {
            if pod.owner.is_some() {
                // Another pod has the name, unless this one was adopted: then it is its controller's.
                self.missing += u32::from(wanted && pod.manifest != object.manifest);
                return;
            }
            if pod.is_terminating() {
                return;
            }
            if wanted && pod.spec == declared.spec {
                return self.edit_bare_pod(&key, &pod, object);
            }
            self.stop(&key);
        }
        let absent = self.table.absent.get(&key);
        if absent.is_some_and(|document| *document == object.manifest) {
            return;
        }
        self.table.absent.remove(&key);
        if wanted && !self.table.pods.contains_key(&key) {
            let spec = Arc::clone(&declared.spec);
            self.add(NewPod {
                key,
                labels: object.meta.labels.clone(),
                annotations: object.meta.annotations.clone(),
                owner: None,
                spec,
                manifest: Arc::clone(&object.manifest),
                node: None,
            });
        }
    }

    /// Takes over what may change while a bare Pod runs. An edited document wins over what was set at run time.
    fn edit_bare_pod(&mut self, key: &PodKey, pod: &SimulatedPod, object: &Object) {
        let declared = (&object.meta.labels, &object.meta.annotations);
        let had = pod
            .original
            .as_ref()
            .map_or((&pod.labels, &pod.annotations), |(labels, annotations)| {
                (labels, annotations)
            });
        if had == declared && pod.manifest == object.manifest {
            return;
        }
        self.update(key, |pod| {
            pod.labels.clone_from(declared.0);
            pod.annotations.clone_from(declared.1);
            pod.original = None;
            pod.manifest = Arc::clone(&object.manifest);
        });
        self.after_relabel(key, pod);
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

/// Whether an edit is one that a cluster refuses, so that it means delete and create: else the pods of the old selector
/// would stay behind without an owner, and those of a StatefulSet would keep the former Service's names.
fn is_replaced(before: &Object, after: &Object) -> bool {
    match (&before.spec, &after.spec) {
        (Spec::Workload(before), Spec::Workload(after)) => {
            before.selector != after.selector || before.service_name != after.service_name
        }
        _ => false,
    }
}
