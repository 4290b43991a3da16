//! `status` of Pods, as kubelet would report it. Owns phases, conditions and container states of simulated pods, and
//! what declared ones leave out.

use std::{net::IpAddr, sync::Arc};

use portico_core::{
    object::{Container, ObjectKey, Pod},
    time::Timestamp,
    world::pods::{ContainerState, PodPhase, SimulatedPod},
};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    View,
    json::{Fields, fields, fill, fill_pointer, items, set, text, within},
    meta, qos,
    time::rfc3339,
};

/// The address of the node: everything here is on loopback addresses.
pub(super) const HOST_IP: &str = "127.0.0.1";

/// The status of a pod that nobody has started, and nobody will.
pub(super) fn pending(spec: &Fields) -> Fields {
    fields(json!({"phase": "Pending", "qosClass": qos::class(spec)}))
}

/// The status of a simulated pod with `spec`.
pub(super) fn simulated(view: View<'_>, pod: &SimulatedPod, spec: &Fields) -> Fields {
    let mut status = fields(json!({
        "phase": phase(pod),
        "qosClass": qos::class(spec),
        "observedGeneration": 1,
    }));
    if matches!(pod.phase, PodPhase::Pending) {
        if let Some(why) = &pod.unschedulable {
            let mut scheduled = condition("PodScheduled", false, pod.created);
            set(&mut scheduled, "reason", "Unschedulable");
            set(&mut scheduled, "message", &**why);
            set(&mut scheduled, "observedGeneration", 1);
            set(&mut status, "conditions", vec![Value::Object(scheduled)]);
        }
        return status;
    }
    let uid = meta::pod_uid(view, pod);
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|state| {
            let declared = pod.spec.containers.iter();
            let declared = declared
                .into_iter()
                .find(|declared| declared.name == state.name);
            container(pod, &uid, state, declared).into()
        })
        .collect();
    set(&mut status, "containerStatuses", containers);
    let init: Vec<Value> = items(spec, "initContainers")
        .map(|container| init_container(pod, &uid, container).into())
        .collect();
    if !init.is_empty() {
        set(&mut status, "initContainerStatuses", init);
    }
    set(&mut status, "conditions", conditions(pod));
    set(&mut status, "hostIP", HOST_IP);
    set(&mut status, "hostIPs", json!([{"ip": HOST_IP}]));
    set(&mut status, "startTime", rfc3339(pod.created));
    if has_sandbox(pod) {
        set(&mut status, "podIP", pod.ip.to_string());
        set(&mut status, "podIPs", json!([{"ip": pod.ip}]));
    }
    status
}

/// Whether its network is there: as soon as something of it has run.
fn has_sandbox(pod: &SimulatedPod) -> bool {
    let ran = |state: &ContainerState| state.running_since.is_some() || state.last_end.is_some();
    matches!(pod.phase, PodPhase::Running { .. }) || pod.containers.iter().any(ran)
}

fn phase(pod: &SimulatedPod) -> &'static str {
    if has_sandbox(pod) {
        "Running"
    } else {
        "Pending"
    }
}

fn container(
    pod: &SimulatedPod,
    uid: &str,
    state: &ContainerState,
    declared: Option<&Container>,
) -> Fields {
    let runs = state
        .running_since
        .filter(|_| !waits(pod, state))
        .or_else(|| restarts(pod, state));
    let mut status = fields(json!({
        "name": &*state.name,
        "image": declared.map(|container| &*container.image).unwrap_or_default(),
        "imageID": "",
        "ready": state.ready && runs.is_some(),
        "restartCount": state.restarts,
        "started": state.started && runs.is_some(),
        "lastState": last_state(pod, uid, state),
    }));
    match runs {
        Some(since) => {
            set(
                &mut status,
                "state",
                json!({"running": {"startedAt": rfc3339(since)}}),
            );
            set(
                &mut status,
                "containerID",
                container_id(uid, &state.name, state.restarts),
            );
        }
        None => set(
            &mut status,
            "state",
            json!({"waiting": waiting(pod, uid, state)}),
        ),
    }
    status
}

/// An init container has done its work as soon as the others run; one that is restarted always (a sidecar) runs
/// beside them. Nothing of it is simulated.
fn init_container(pod: &SimulatedPod, uid: &str, container: &Fields) -> Fields {
    let name = text(container, "name");
    let is_sidecar = text(container, "restartPolicy") == "Always";
    let began = rfc3339(pod.created);
    let ran = has_sandbox(pod);
    let id = container_id(uid, name, 0);
    let state = match (ran, is_sidecar) {
        (false, _) => json!({"waiting": {"reason": "PodInitializing"}}),
        (true, true) => json!({"running": {"startedAt": began}}),
        (true, false) => json!({"terminated": {
            "containerID": id, "exitCode": 0, "reason": "Completed", "startedAt": began, "finishedAt": began,
        }}),
    };
    let mut status = fields(json!({
        "name": name,
        "image": text(container, "image"),
        "imageID": "",
        "ready": ran,
        "restartCount": 0,
        "started": ran && is_sidecar,
        "lastState": {},
        "state": state,
    }));
    if ran {
        set(&mut status, "containerID", id);
    }
    status
}

/// Since when a container begins its next run: kubelet ends one and starts the next at once, so that nobody sees
/// `ContainerCreating` a second time.
fn restarts(pod: &SimulatedPod, state: &ContainerState) -> Option<Timestamp> {
    let begins = pod.is_running() && state.waiting.as_deref() == Some("ContainerCreating");
    let (ended, _) = state.last_end.as_ref().filter(|_| begins)?;
    Some(*ended)
}

fn waits(pod: &SimulatedPod, state: &ContainerState) -> bool {
    state.waiting.is_some() || matches!(pod.phase, PodPhase::Starting | PodPhase::Waiting { .. })
}

fn waiting(pod: &SimulatedPod, uid: &str, state: &ContainerState) -> Fields {
    let mut waiting = Fields::new();
    let reason = state.waiting.as_deref().unwrap_or("ContainerCreating");
    let (reason, message) = match (&pod.phase, reason) {
        (PodPhase::Waiting { reason: why, .. }, "ContainerCreating") => {
            ("RunContainerError", why.to_string())
        }
        (PodPhase::Waiting { reason: why, .. }, reason) => (reason, why.to_string()),
        (_, reason @ "CrashLoopBackOff") => {
            let (name, pod) = (&state.name, format!("{}_{}", pod.name, pod.namespace));
            let message = format!("back-off restarting failed container={name} pod={pod}({uid})");
            (reason, message)
        }
        (_, reason) => (reason, String::new()),
    };
    set(&mut waiting, "reason", reason);
    if !message.is_empty() {
        set(&mut waiting, "message", message);
    }
    waiting
}

fn last_state(pod: &SimulatedPod, uid: &str, state: &ContainerState) -> Value {
    let Some((ended, reason)) = &state.last_end else {
        return json!({});
    };
    // What is not kept: when the former run of a container that was restarted more than once began.
    let began = if state.restarts <= 1 {
        pod.created.min(*ended)
    } else {
        *ended
    };
    json!({"terminated": {
        "containerID": container_id(uid, &state.name, state.restarts.saturating_sub(1)),
        "exitCode": exit_code(reason),
        "reason": &**reason,
        "startedAt": rfc3339(began),
        "finishedAt": rfc3339(*ended),
    }})
}

/// The exit codes that go with the reasons: a container that did not end by itself was killed (128 + SIGKILL).
fn exit_code(reason: &str) -> u8 {
    if reason == "Completed" { 0 } else { 137 }
}

/// `portico://` and 64 digits, as runtimes name containers.
fn container_id(uid: &str, container: &str, run: u32) -> String {
    let half = |half: u8| xxh3_128(format!("{uid}/{container}/{run}/{half}").as_bytes());
    format!("portico://{:032x}{:032x}", half(0), half(1))
}

/// Kubelet's order.
fn conditions(pod: &SimulatedPod) -> Vec<Value> {
    let unready: Vec<&str> = pod
        .containers
        .iter()
        .filter(|state| !state.ready)
        .map(|state| &*state.name)
        .collect();
    let sandbox = has_sandbox(pod);
    let since = readiness_changed(pod);
    // One that is being ended is so until its containers have ended; that it gets no traffic is not for this to say.
    let ready = pod.is_ready() || (pod.is_terminating() && unready.is_empty());
    let started = match pod.phase {
        PodPhase::Running { since } => since,
        _ => pod.created,
    };
    let mut conditions = vec![
        condition("PodReadyToStartContainers", sandbox, started),
        condition("Initialized", true, pod.created),
        condition("Ready", ready, since),
        condition("ContainersReady", ready, since),
        condition("PodScheduled", true, pod.created),
    ];
    for condition in &mut conditions {
        let kind = text(condition, "type");
        if matches!(kind, "Ready" | "ContainersReady") && !ready {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            set(condition, "reason", "ContainersNotReady");
            set(condition, "message", message);
        }
        set(condition, "observedGeneration", 1);
    }
    conditions.into_iter().map(Value::Object).collect()
}

/// When the pod became ready, or, as far as is known, stopped being so.
fn readiness_changed(pod: &SimulatedPod) -> Timestamp {
    let ends = pod
        .containers
        .iter()
        .filter_map(|state| state.last_end.as_ref());
    let last_end = ends.map(|(at, _)| *at).max();
    let up = pod
        .containers
        .iter()
        .filter_map(|state| state.running_since.filter(|_| state.ready));
    let ending = match pod.phase {
        PodPhase::Terminating { deadline } => Some(up.max().unwrap_or(begun(deadline, pod))),
        _ => None,
    };
    let since = pod.ready_since.filter(|_| pod.is_ready());
    since.or(ending).or(last_end).unwrap_or(pod.created)
}

/// When the end that is over by `deadline` began.
fn begun(deadline: Timestamp, pod: &SimulatedPod) -> Timestamp {
    let grace = u64::try_from(pod.spec.termination_grace.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(deadline.as_millis().saturating_sub(grace))
}

pub(super) fn condition(kind: &str, holds: bool, since: Timestamp) -> Fields {
    fields(json!({
        "type": kind,
        "status": if holds { "True" } else { "False" },
        "lastProbeTime": null,
        "lastTransitionTime": rfc3339(since),
    }))
}

/// The status of a declared pod that runs elsewhere: as written, with what it leaves out. `ready` is what its probes
/// say, if any are run.
pub(super) fn elsewhere(
    (view, ready): (View<'_>, bool),
    key: &ObjectKey,
    pod: &Pod,
    made: &mut Fields,
) {
    let spec = made.get("spec").and_then(Value::as_object);
    let class = spec.map(qos::class).unwrap_or_default();
    within(made, "status", |status| {
        fill_elsewhere((view, ready), key, pod, (status, class));
    });
}

fn fill_elsewhere(
    (view, ready): (View<'_>, bool),
    key: &ObjectKey,
    pod: &Pod,
    (status, class): (&mut Fields, &str),
) {
    let since = meta::created_of(view);
    let ready = ready && !pod.finished;
    fill(status, "phase", "Running");
    fill(status, "qosClass", class);
    fill(status, "startTime", rfc3339(since));
    if let Some(first) = pod.pod_ips.first() {
        fill(status, "podIP", first.to_string());
        let all = pod.pod_ips.iter().map(IpAddr::to_string);
        let all: Vec<Value> = all.map(|ip| json!({"ip": ip})).collect();
        fill_pointer(status, "podIPs", all);
    }
    if pod.finished {
        return;
    }
    if items(status, "conditions").next().is_none() {
        let conditions: Vec<Value> = [
            ("Initialized", true),
            ("Ready", ready),
            ("ContainersReady", ready),
            ("PodScheduled", true),
        ]
        .into_iter()
        .map(|(kind, holds)| condition(kind, holds, since).into())
        .collect();
        set(status, "conditions", conditions);
    }
    if items(status, "containerStatuses").next().is_none() {
        let uid = meta::uid_of(view, key);
        let running = |container: &Container| {
            json!({
                "name": &*container.name,
                "image": &*container.image,
                "imageID": "",
                "containerID": container_id(&uid, &container.name, 0),
                "ready": ready,
                "started": true,
                "restartCount": 0,
                "state": {"running": {"startedAt": rfc3339(since)}},
                "lastState": {},
            })
        };
        let containers: Vec<Value> = pod.spec.containers.iter().map(running).collect();
        set(status, "containerStatuses", containers);
    }
}

/// `metadata.deletionTimestamp` and its grace, of a pod that ends.
pub(super) fn set_deletion(meta: &mut Fields, pod: &Arc<SimulatedPod>) {
    if let PodPhase::Terminating { deadline } = pod.phase {
        set(meta, "deletionTimestamp", rfc3339(deadline));
        let grace = pod.spec.termination_grace.as_secs();
        set(meta, "deletionGracePeriodSeconds", grace);
    }
}
