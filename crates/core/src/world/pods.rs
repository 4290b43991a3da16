//! Simulated pods and the controllers that keep their number: Deployments make ReplicaSets; ReplicaSets, DaemonSets
//! and StatefulSets make pods; bare Pods are themselves. Owns names, rollouts and pod states; must not start anything: it returns actions, and
//! what became of them comes back as observations.
//!
//! The way through: [`reconcile`] takes observations and timers in, finds the owners they concern, and lets
//! each of those compare what it wants with what the table has (`deployment`, `replica_set`, `daemon_set`,
//! `stateful_set`). Nothing is
//! remembered as "to do": a lost or repeated observation is put right by the next comparison.

mod behaviour;
mod control;
mod daemon_set;
mod deployment;
mod life;
mod names;
mod nodes;
mod ownership;
mod plan;
mod progress;
mod replica_set;
mod revisions;
mod stateful_set;
mod status;
mod targets;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    object::{ContainerPort, LabelSelector, Labels, Object, ObjectKey, PodSpec, PodTemplate},
    time::Timestamp,
    world::services::LabelIndex,
};

pub use crate::object::workload::TEMPLATE_HASH_LABEL;
pub use behaviour::Behaviour;
pub use control::{CommandError, Round, ServicePorts, check_command, host_lost, reconcile};
pub use names::{pod_name, template_hash_text};
pub use nodes::PodNode;
pub use plan::{ContainerPlan, PROBE_HEADER, Served, ServedProbe};
pub use progress::{Condition, ConditionKind, ConditionStatus};
pub use replica_set::{RunningReplicaSet, replica_sets};
pub use revisions::{CHANGE_CAUSE, REVISION_HASH_LABEL, Revision, revisions};
pub use status::{
    DaemonSetStatus, DeploymentStatus, StatefulSetStatus, daemon_set_status, deployment_status,
    generation, stateful_set_status,
};
pub(crate) use targets::simulated_targets;

/// Namespace and name.
pub type PodKey = (Arc<str>, Arc<str>);

/// Who owns a pod: its controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodOwner {
    /// ReplicaSet, DaemonSet or StatefulSet.
    pub kind: crate::object::Kind,
    /// Its name, in the pod's namespace.
    pub name: Arc<str>,
}

/// What people ask of simulated pods at run time. It lasts as long as the pod does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodCommand {
    /// End it. Its controller makes another one; a bare Pod stays away until its document is edited or until
    /// [`PodCommand::Reset`].
    Delete {
        /// Which one.
        pod: PodKey,
        /// Instead of the pod's grace.
        grace: Option<Duration>,
    },
    /// Change its labels.
    Label {
        /// Which one.
        pod: PodKey,
        /// `Some` sets a label, `None` takes it away.
        changes: BTreeMap<Arc<str>, Option<Arc<str>>>,
    },
    /// Change its annotations.
    Annotate {
        /// Which one.
        pod: PodKey,
        /// As for labels.
        changes: BTreeMap<Arc<str>, Option<Arc<str>>>,
    },
    /// Make it fail, or heal it.
    Fault {
        /// Which one.
        pod: PodKey,
        /// In what.
        fault: Fault,
        /// Fail, or heal.
        failing: bool,
    },
    /// Take back labels, annotations, faults and deletions of all pods, or of one.
    Reset {
        /// `None` means all.
        pod: Option<PodKey>,
    },
}

/// What fails in a simulated pod.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// Its readiness probes answer 503; without such a probe it is not ready at once.
    Ready,
    /// Its liveness probes answer 503; without such a probe its containers are restarted at once.
    Live,
    /// It closes its ports.
    Port,
}

/// One container of a simulated pod, as `status.containerStatuses` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerState {
    /// Its name.
    pub name: Arc<str>,
    /// It runs since this time.
    pub running_since: Option<Timestamp>,
    /// Why it waits when it does not run: `ContainerCreating`, `CrashLoopBackOff`.
    pub waiting: Option<Arc<str>>,
    /// Its startup probe has succeeded, or it has none.
    pub started: bool,
    /// Its readiness probe succeeds, or it has none.
    pub ready: bool,
    /// Times that it was restarted.
    pub restarts: u32,
    /// When it ended last, and why.
    pub last_end: Option<(Timestamp, Arc<str>)>,
}

/// Identity of one incarnation of a simulated pod; never used twice in a run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct PodUid(pub u64);

/// What the pod host is to do. Carried out after the snapshot that belongs to it was published, so that a pod loses
/// its clients before it stops accepting.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodAction {
    /// Serve these containers' ports at this address. Said of a pod that runs, it is to say again how it is.
    Start {
        /// Identity.
        uid: PodUid,
        /// The name that its answers carry.
        name: Arc<str>,
        /// Its address.
        ip: IpAddr,
        /// Its containers in the order of the spec; no port belongs to two of them.
        containers: Vec<ContainerPlan>,
        /// How it behaves.
        behaviour: Behaviour,
        /// What fails in it.
        faults: BTreeSet<Fault>,
    },
    /// Open and close ports of a running pod until they are these.
    Ports {
        /// Identity.
        uid: PodUid,
        /// Every container's ports, in the order of the spec.
        ports: Vec<Vec<WantedPort>>,
    },
    /// Behave and fail like this from now on.
    Adjust {
        /// Identity.
        uid: PodUid,
        /// How it behaves.
        behaviour: Behaviour,
        /// What fails in it.
        faults: BTreeSet<Fault>,
    },
    /// Close one container's ports as at the pod's end; the others go on.
    EndContainer {
        /// Identity.
        uid: PodUid,
        /// Which container.
        container: Arc<str>,
        /// Time to finish, in milliseconds.
        grace_ms: u64,
    },
    /// Open the ports of a container that has ended.
    StartContainer {
        /// Identity.
        uid: PodUid,
        /// Which container.
        container: Arc<str>,
    },
    /// Stop accepting at once, finish what is being served, end after `grace`.
    Stop {
        /// Identity.
        uid: PodUid,
        /// Time to finish, in milliseconds.
        grace_ms: u64,
    },
}

/// One port that a simulated pod serves.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct WantedPort {
    /// `containerPort`.
    pub number: u16,
    /// Protocol.
    pub protocol: crate::object::Protocol,
}

/// What became of a simulated pod.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodObservation {
    /// It serves: for every wanted port the number really bound (another one where a privilege or a conflict stood
    /// in the way).
    Running {
        /// Identity.
        uid: PodUid,
        /// Wanted port and the number bound for it.
        bound: Vec<(WantedPort, u16)>,
    },
    /// It could not start; it is tried again.
    Failed {
        /// Identity.
        uid: PodUid,
        /// Why, for people.
        reason: String,
    },
    /// It has ended, after a stop or by itself.
    Ended {
        /// Identity.
        uid: PodUid,
    },
    /// One of its containers ended or came back.
    Container {
        /// Identity.
        uid: PodUid,
        /// Which container.
        container: Arc<str>,
        /// What became of it.
        became: ContainerChange,
    },
}

impl PodObservation {
    /// Which pod it is about.
    pub const fn uid(&self) -> PodUid {
        let (Self::Running { uid, .. }
        | Self::Failed { uid, .. }
        | Self::Ended { uid }
        | Self::Container { uid, .. }) = self;
        *uid
    }
}

/// What became of one container.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerChange {
    /// Its last connection is done or was cut.
    Ended,
    /// It serves again: for every wanted port of it the number really bound.
    Running {
        /// Wanted port and the number bound for it.
        bound: Vec<(WantedPort, u16)>,
    },
    /// It could not start; it is tried again.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// State of a simulated pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodPhase {
    /// It was made and nothing else: not scheduled (`SimulatedPod::node` is where it will go), no start. Status
    /// `Pending`; ends in the next round.
    Pending,
    /// Its start was asked for. Status `ContainerCreating`.
    Starting,
    /// Its containers run, as far as they do not wait for a restart.
    Running {
        /// When they started.
        since: Timestamp,
    },
    /// It could not start; another attempt at this time.
    Waiting {
        /// When to try again.
        retry_at: Timestamp,
        /// Why it failed.
        reason: Arc<str>,
    },
    /// It gets no new connections and ends by this time.
    Terminating {
        /// End of its grace.
        deadline: Timestamp,
    },
}

/// One simulated pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedPod {
    /// Identity.
    pub uid: PodUid,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Labels, with `pod-template-hash` for pods of a Deployment.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Its controller; `None` for a bare Pod and for one that was released.
    pub owner: Option<PodOwner>,
    /// Containers, host name.
    pub spec: Arc<PodSpec>,
    /// What it was made from: the template, or the bare Pod's document, as JSON with sorted keys.
    pub manifest: Arc<str>,
    /// The node that it counts as running on; while it is `Pending`, the one that it will get; empty while there is
    /// none for it.
    pub node: Arc<str>,
    /// Why there is no node for it, in the scheduler's words: it stays `Pending` and has no address to show.
    pub unschedulable: Option<Arc<str>>,
    /// Its address.
    pub ip: IpAddr,
    /// Its containers in the order of the spec.
    pub containers: Vec<ContainerState>,
    /// Since when it is ready, if it is.
    pub ready_since: Option<Timestamp>,
    /// What is made to fail in it.
    pub faults: BTreeSet<Fault>,
    /// It was given these labels or annotations at run time: what it had before.
    pub original: Option<(Labels, Labels)>,
    /// State.
    pub phase: PodPhase,
    /// Container ports whose number had to be another one: what the endpoints say.
    pub moved_ports: BTreeMap<WantedPort, u16>,
    /// When it was made.
    pub created: Timestamp,
}

impl SimulatedPod {
    /// Whether it may get new connections: condition `Ready`.
    pub const fn is_ready(&self) -> bool {
        matches!(self.phase, PodPhase::Running { .. }) && self.ready_since.is_some()
    }

    /// Whether its containers run, as far as they do not wait for a restart.
    pub const fn is_running(&self) -> bool {
        matches!(self.phase, PodPhase::Running { .. })
    }

    /// Whether the pod host has it and it is not being shut down.
    const fn is_served(&self) -> bool {
        matches!(self.phase, PodPhase::Starting | PodPhase::Running { .. })
    }

    /// Whether it is being shut down.
    pub const fn is_terminating(&self) -> bool {
        matches!(self.phase, PodPhase::Terminating { .. })
    }

    /// The number really served for container port `number`.
    pub fn bound(&self, port: WantedPort) -> u16 {
        self.moved_ports.get(&port).copied().unwrap_or(port.number)
    }
}

/// Ports that a pod with `spec` serves: every container's, each number and protocol once.
pub fn wanted_ports(spec: &PodSpec) -> Vec<WantedPort> {
    let mut ports: Vec<WantedPort> = spec
        .containers
        .iter()
        .flat_map(|c| &c.ports)
        .map(WantedPort::from)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

impl From<&ContainerPort> for WantedPort {
    fn from(port: &ContainerPort) -> Self {
        Self {
            number: port.container_port,
            protocol: port.protocol,
        }
    }
}

/// A ReplicaSet as the controllers keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReplicaSet {
    namespace: Arc<str>,
    name: Arc<str>,
    deployment: Option<Arc<str>>,
    revision: u64,
    /// Revisions that it had before (`deployment.kubernetes.io/revision-history`).
    former_revisions: Vec<u64>,
    /// Annotations copied from its Deployment.
    annotations: Labels,
    replicas: u32,
    /// `deployment.kubernetes.io/desired-replicas`: of the Deployment when this set was scaled last.
    desired: u32,
    /// `deployment.kubernetes.io/max-replicas`: that and `maxSurge`.
    most: u32,
    min_ready: Duration,
    selector: LabelSelector,
    template: Arc<PodTemplate>,
    /// Labels of its pods: the template's, with the hash label for those of a Deployment.
    labels: Labels,
    created: Timestamp,
    generation: u64,
}

/// Everything the controllers keep: pods by namespace and name, ReplicaSets, identities handed out.
#[derive(Debug, Clone, Default)]
pub struct PodTable {
    /// Pods by (namespace, name).
    pub pods: BTreeMap<PodKey, Arc<SimulatedPod>>,
    sets: BTreeMap<PodKey, Arc<ReplicaSet>>,
    /// Names of pods by namespace and owner.
    owned: ownership::OwnerIndex,
    /// Pods of nobody by label.
    orphans: LabelIndex,
    /// What is remembered of declared workloads.
    workloads: BTreeMap<ObjectKey, Arc<revisions::WorkloadState>>,
    /// Nodes as the last round saw them.
    nodes: Vec<PodNode>,
    /// Owners as the last round saw them.
    seen: Owners,
    uids: BTreeMap<PodUid, PodKey>,
    /// Starts that failed in a row.
    failures: BTreeMap<PodUid, u32>,
    /// Owners that must be looked at again at a time, whatever happens until then.
    wakes: BTreeMap<ObjectKey, Timestamp>,
    /// Pods that found no address or whose name is taken, by owner.
    unplaced: BTreeMap<ObjectKey, u32>,
    /// What is kept of each pod beside what is shown: its containers' steps, the ports asked for.
    lives: BTreeMap<PodUid, life::Life>,
    /// Bare Pods that were deleted by command, with their document at that time.
    absent: BTreeMap<PodKey, Arc<str>>,
    /// Not after the earliest time at which something has to happen to a pod.
    pod_timer: Option<Timestamp>,
    last_uid: u64,
    host_lost: bool,
}

impl PodTable {
    /// Owners whose pods could not all be made, for want of an address or because another pod has the name, and
    /// how many are missing. They are tried again.
    pub fn unplaced(&self) -> impl Iterator<Item = (&ObjectKey, u32)> {
        self.unplaced.iter().map(|(key, missing)| (key, *missing))
    }

    /// The nodes that pods may run on.
    pub fn nodes(&self) -> &[PodNode] {
        &self.nodes
    }

    /// Bare Pods that stay away because they were deleted by command.
    pub fn deleted(&self) -> impl Iterator<Item = &PodKey> {
        self.absent.keys()
    }

    /// The pod with this identity.
    pub fn by_uid(&self, uid: PodUid) -> Option<&Arc<SimulatedPod>> {
        self.pods.get(self.uids.get(&uid)?)
    }

    /// Starts of this pod that failed in a row.
    pub fn failures(&self, uid: PodUid) -> u32 {
        self.failures.get(&uid).copied().unwrap_or_default()
    }
}

/// What one round of the controllers did.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// For the pod host, in order.
    pub actions: Vec<PodAction>,
    /// Namespace and labels of pods that appeared, went, or changed in what endpoints show (address, phase,
    /// ports): the Services that select them are compiled again.
    pub changed: Vec<(Arc<str>, Labels)>,
    /// When to call again even if nothing happens.
    pub deadline: Option<Timestamp>,
}

/// Declared objects that own pods, by key: workloads, and Pods without an address of their own.
pub type Owners = BTreeMap<ObjectKey, Arc<Object>>;
