//! What people ask of simulated pods at run time. Owns what each command does to a pod and when it can be refused;
//! what its controller makes of that is the controller's.

use std::{collections::BTreeMap, sync::Arc};

use super::{Work, containers::fails_at_once};
use crate::{
    object::{Kind, Labels, ObjectKey, validate::syntax},
    world::pods::{Fault, PodAction, PodCommand, PodKey, PodTable, SimulatedPod},
};

/// Why a command cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such pod.
    #[error("pods \"{}\" not found", .0.1)]
    NotFound(PodKey),
    /// It is on its way out.
    #[error("pods \"{}\" is terminating", .0.1)]
    Terminating(PodKey),
    /// A label or annotation breaks the rules of the Kubernetes API.
    #[error("invalid {what} {text:?}: {why}")]
    Invalid {
        /// `label key`, `label value` or `annotation key`.
        what: &'static str,
        /// What was given.
        text: Arc<str>,
        /// The rule.
        why: &'static str,
    },
}

/// Labels or annotations to set and to take away.
type Changes = BTreeMap<Arc<str>, Option<Arc<str>>>;

/// Whether `command` can be carried out on `table`.
///
/// # Errors
/// When the pod is missing or ending, or a label is none.
pub fn check_command(table: &PodTable, command: &PodCommand) -> Result<(), CommandError> {
    let key = match command {
        PodCommand::Reset { pod: None } => return Ok(()),
        PodCommand::Reset { pod: Some(pod) } if table.absent.contains_key(pod) => return Ok(()),
        PodCommand::Delete { pod, .. }
        | PodCommand::Label { pod, .. }
        | PodCommand::Annotate { pod, .. }
        | PodCommand::Fault { pod, .. }
        | PodCommand::Reset { pod: Some(pod) } => pod,
    };
    let pod = table.pods.get(key);
    let pod = pod.ok_or_else(|| CommandError::NotFound(key.clone()))?;
    // One that is ending can still be hurried.
    if pod.is_terminating() && !matches!(command, PodCommand::Delete { .. }) {
        return Err(CommandError::Terminating(key.clone()));
    }
    match command {
        PodCommand::Label { changes, .. } => {
            check_keys("label key", changes)?;
            let values = changes.values().flatten();
            values
                .into_iter()
                .try_for_each(|value| check("label value", value, syntax::label_value(value)))
        }
        PodCommand::Annotate { changes, .. } => check_keys("annotation key", changes),
        PodCommand::Delete { .. } | PodCommand::Fault { .. } | PodCommand::Reset { .. } => Ok(()),
    }
}

fn check_keys(what: &'static str, changes: &Changes) -> Result<(), CommandError> {
    let mut keys = changes.keys();
    keys.try_for_each(|key| check(what, key, syntax::qualified_name(key)))
}

fn check(what: &'static str, text: &Arc<str>, broken: syntax::Broken) -> Result<(), CommandError> {
    match broken.into_iter().next() {
        None => Ok(()),
        Some(why) => Err(CommandError::Invalid {
            what,
            text: Arc::clone(text),
            why,
        }),
    }
}

impl Work<'_> {
    /// Carries out one command; one about a pod that is not there does nothing.
    pub(super) fn obey(&mut self, command: &PodCommand) {
        match command {
            PodCommand::Delete { pod, grace } => {
                let document = self.table.seen.get(&bare(pod));
                let document = document.map(|object| Arc::clone(&object.manifest));
                let is_bare = |pod: &Arc<SimulatedPod>| pod.owner.is_none();
                if let Some(document) = document
                    && self.table.pods.get(pod).is_some_and(is_bare)
                {
                    self.table.absent.insert(pod.clone(), document);
                }
                self.stop_within(pod, *grace);
            }
            PodCommand::Label { pod, changes } => {
                self.relabel(pod, |labels, _| apply(labels, changes));
            }
            PodCommand::Annotate { pod, changes } => {
                self.relabel(pod, |_, annotations| apply(annotations, changes));
            }
            PodCommand::Fault {
                pod,
                fault,
                failing,
            } => self.fault(pod, *fault, *failing),
            PodCommand::Reset { pod: Some(pod) } => self.reset(pod),
            PodCommand::Reset { pod: None } => {
                let all = self.table.pods.keys().chain(self.table.absent.keys());
                for pod in all.cloned().collect::<Vec<_>>() {
                    self.reset(&pod);
                }
            }
        }
    }

    /// Changes labels or annotations of a pod that is not ending, and lets everybody look who may want or lose it.
    fn relabel(&mut self, key: &PodKey, change: impl FnOnce(&mut Labels, &mut Labels)) {
        let Some(before) = self.living(key) else {
            return;
        };
        self.update(key, |pod| {
            let had = (pod.labels.clone(), pod.annotations.clone());
            change(&mut pod.labels, &mut pod.annotations);
            if (&pod.labels, &pod.annotations) != (&had.0, &had.1) {
                pod.original.get_or_insert(had);
            }
        });
        self.after_relabel(key, &before);
    }

    /// What follows from other labels or annotations than `before` had.
    pub(super) fn after_relabel(&mut self, key: &PodKey, before: &SimulatedPod) {
        let Some(after) = self.table.pods.get(key).cloned() else {
            return;
        };
        if before.labels != after.labels {
            let workloads = self.table.seen.keys();
            let near = workloads
                .filter(|owner| owner.namespace == after.namespace && owner.kind != Kind::Pod);
            self.dirty.extend(near.cloned());
            self.ask_ports(key);
        }
        if before.annotations != after.annotations {
            self.adjust(key);
        }
    }

    fn fault(&mut self, key: &PodKey, fault: Fault, failing: bool) {
        let Some(before) = self.living(key) else {
            return;
        };
        self.update(key, |pod| {
            if failing {
                pod.faults.insert(fault);
            } else {
                pod.faults.remove(&fault);
            }
        });
        let Some(after) = self.table.pods.get(key).cloned() else {
            return;
        };
        if before.faults == after.faults {
            return;
        }
        self.adjust(key);
        if fault == Fault::Live && after.is_running() && fails_at_once(&after, fault) {
            for index in 0..after.containers.len() {
                let life = self.table.lives.get(&after.uid);
                let step = life.and_then(|life| life.step(index));
                if step == Some(crate::world::pods::life::Step::Up) {
                    self.kill(key, index, None);
                }
            }
        }
        self.settle(key);
    }

    fn reset(&mut self, key: &PodKey) {
        if self.table.absent.remove(key).is_some() {
            self.dirty.insert(bare(key));
        }
        let Some(before) = self.living(key) else {
            return;
        };
        self.update(key, |pod| {
            if let Some((labels, annotations)) = pod.original.take() {
                (pod.labels, pod.annotations) = (labels, annotations);
            }
        });
        self.after_relabel(key, &before);
        for fault in &before.faults {
            self.fault(key, *fault, false);
        }
    }

    /// Tells the host how a pod behaves and fails, if it has it.
    fn adjust(&mut self, key: &PodKey) {
        let Some(pod) = self.living(key) else { return };
        let behaviour = self.behaviour(&pod);
        if pod.is_served() {
            self.actions.push(PodAction::Adjust {
                uid: pod.uid,
                behaviour,
                faults: pod.faults.clone(),
            });
        }
    }

    fn living(&self, key: &PodKey) -> Option<Arc<SimulatedPod>> {
        let pod = self.table.pods.get(key);
        pod.filter(|pod| !pod.is_terminating()).cloned()
    }
}

fn apply(pairs: &mut Labels, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(pairs.insert(Arc::clone(key), Arc::clone(value))),
            None => drop(pairs.remove(key)),
        }
    }
}

/// The key of the document of a bare Pod.
fn bare(pod: &PodKey) -> ObjectKey {
    ObjectKey {
        kind: Kind::Pod,
        namespace: Arc::clone(&pod.0),
        name: Arc::clone(&pod.1),
    }
}
