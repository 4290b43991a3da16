//! What was changed of simulated pods at run time, as lines of the list of overrides. Owns the words.

use portico_core::{
    object::Labels,
    world::{
        World,
        pods::{Fault, SimulatedPod},
    },
};

use crate::{
    control::command::{OverrideLine, Target},
    objects::Resource,
};

/// Labels, annotations and faults that people gave to simulated pods.
pub(super) fn of_pods(world: &World) -> Vec<OverrideLine> {
    world
        .pods()
        .pods
        .values()
        .flat_map(|pod| of_pod(pod))
        .collect()
}

fn of_pod(pod: &SimulatedPod) -> Vec<OverrideLine> {
    let mut changes = Vec::new();
    if let Some((labels, annotations)) = &pod.original {
        changes.extend(differences("label", labels, &pod.labels));
        changes.extend(differences("annotation", annotations, &pod.annotations));
    }
    changes.extend(pod.faults.iter().map(|fault| {
        let what = match fault {
            Fault::Ready => "ready",
            Fault::Live => "live",
            Fault::Port => "port",
        };
        format!("fails {what}")
    }));
    let line = |change| OverrideLine {
        target: Target {
            resource: Resource::Pods,
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
        },
        change,
        since_ms: None,
    };
    changes.into_iter().map(line).collect()
}

fn differences(what: &str, before: &Labels, after: &Labels) -> Vec<String> {
    let set = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, value)| format!("{what} {key}={value}"));
    let gone = before
        .keys()
        .filter(|key| !after.contains_key(*key))
        .map(|key| format!("{what} {key}-"));
    set.chain(gone).collect()
}
