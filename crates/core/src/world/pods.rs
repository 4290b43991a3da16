//! Simulated pods and the controllers that keep their number: Deployments make ReplicaSets, ReplicaSets make pods,
//! bare Pods are themselves. Owns names, rollouts and pod states; must not start anything: it returns actions, and
//! what became of them comes back as observations.
//!
//! The way through: [`reconcile`] takes observations and timers in, finds the owners they concern, and lets
//! each of those compare what it wants with what the table has (`deployment`, `replica_set`). Nothing is
//! remembered as "to do": a lost or repeated observation is put right by the next comparison.

mod control;
mod deployment;
mod names;
mod replica_set;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use crate::{
    object::{ContainerPort, Labels, Object, ObjectKey, PodSpec, PodTemplate},
    time::Timestamp,
};

pub use control::{Round, host_lost, reconcile};
pub use names::{pod_name, template_hash_text};
pub use replica_set::{RunningReplicaSet, replica_sets};

/// The label that tells the pods of a Deployment's revisions apart (`pod-template-hash`).
pub const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// Namespace and name.
pub type PodKey = (Arc<str>, Arc<str>);

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
    /// Serve these ports at this address.
    Start {
        /// Identity.
        uid: PodUid,
        /// The name that its answers carry.
        name: Arc<str>,
        /// Its address.
        ip: IpAddr,
        /// Container ports to serve, without duplicates.
        ports: Vec<WantedPort>,
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
}

/// State of a simulated pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodPhase {
    /// Its start was asked for.
    Starting,
    /// It serves since this time.
    Running {
        /// When it became ready.
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
    /// The ReplicaSet that owns it; `None` for a bare Pod.
    pub replica_set: Option<Arc<str>>,
    /// Containers, host name.
    pub spec: Arc<PodSpec>,
    /// Its address.
    pub ip: IpAddr,
    /// State.
    pub phase: PodPhase,
    /// Container ports whose number had to be another one: what the endpoints say.
    pub moved_ports: BTreeMap<WantedPort, u16>,
    /// When it was made.
    pub created: Timestamp,
}

impl SimulatedPod {
    /// Whether it may get new connections.
    pub const fn is_ready(&self) -> bool {
        matches!(self.phase, PodPhase::Running { .. })
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
    /// What its pods' names begin with.
    pod_base: Arc<str>,
    deployment: Option<Arc<str>>,
    revision: u64,
    replicas: u32,
    min_ready: Duration,
    template: Arc<PodTemplate>,
    /// Labels of its pods: the template's, with the hash label for those of a Deployment.
    labels: Labels,
    created: Timestamp,
}

/// Everything the controllers keep: pods by namespace and name, ReplicaSets, identities handed out.
#[derive(Debug, Clone, Default)]
pub struct PodTable {
    /// Pods by (namespace, name).
    pub pods: BTreeMap<PodKey, Arc<SimulatedPod>>,
    sets: BTreeMap<PodKey, Arc<ReplicaSet>>,
    /// Owners as the last round saw them.
    seen: Owners,
    uids: BTreeMap<PodUid, PodKey>,
    /// Starts that failed in a row.
    failures: BTreeMap<PodUid, u32>,
    /// Owners that must be looked at again at a time, whatever happens until then.
    wakes: BTreeMap<ObjectKey, Timestamp>,
    /// Pods that found no address or whose name is taken, by owner.
    unplaced: BTreeMap<ObjectKey, u32>,
    /// Not after the earliest time at which a pod is started again or given up.
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

/// Declared objects that own pods, by key: Deployments, ReplicaSets and Pods without an address of their own.
pub type Owners = BTreeMap<ObjectKey, Arc<Object>>;

/// The default of `terminationGracePeriodSeconds`.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);
