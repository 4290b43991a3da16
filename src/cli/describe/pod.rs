//! A pod, and the template that workloads make pods from. Owns their layout.

use serde_json::Value;

use super::{
    Related, container,
    container::Place,
    events,
    json::{at, controller, items, number, pairs, text},
    meta::{self, NONE},
    volume,
    writer::Writer,
};
use crate::{cli::age, objects::Resource};

/// A pod.
pub(super) fn describe(out: &mut Writer, pod: &Value, related: &Related) {
    meta::name(out, pod);
    if let Some(priority) = at(pod, "/spec/priority") {
        out.pair(0, "Priority", priority);
    }
    out.pair_if(
        0,
        "Priority Class Name",
        text(pod, "/spec/priorityClassName"),
    );
    out.pair_if(0, "Runtime Class Name", text(pod, "/spec/runtimeClassName"));
    out.pair_if(0, "Service Account", text(pod, "/spec/serviceAccountName"));
    match text(pod, "/spec/nodeName") {
        "" => out.pair(0, "Node", NONE),
        node => out.pair(
            0,
            "Node",
            format_args!("{node}/{}", text(pod, "/status/hostIP")),
        ),
    }
    if at(pod, "/status/startTime").is_some() {
        let start = out.time(text(pod, "/status/startTime"));
        out.pair(0, "Start Time", start);
    }
    meta::labels_and_annotations(out, pod);
    status(out, pod, related);
    addresses(out, pod);
    controlled_by(out, pod);
    out.pair_if(
        0,
        "NominatedNodeName",
        text(pod, "/status/nominatedNodeName"),
    );
    if let Some(resources) = at(pod, "/spec/resources") {
        out.line(0, "Resources:");
        container::resources(out, 1, resources);
    }
    containers(out, pod);
    conditions(out, pod);
    let spec = at(pod, "/spec").unwrap_or(&Value::Null);
    volume::write_all(out, spec, "");
    out.pair(0, "QoS Class", qos(pod));
    meta::labels(out, "Node-Selectors", &pairs(spec, "/nodeSelector"));
    meta::tolerations(out, "Tolerations", spec);
    meta::spread(out, spec, "");
    events::write(out, Resource::Pods, pod, related);
}

fn status(out: &mut Writer, pod: &Value, related: &Related) {
    let phase = text(pod, "/status/phase");
    let deleted = text(pod, "/metadata/deletionTimestamp");
    if deleted.is_empty() || matches!(phase, "Failed" | "Succeeded") {
        out.pair(0, "Status", phase);
    } else {
        let lasts = age::since(Some(deleted), related.now);
        out.pair(0, "Status", format_args!("Terminating (lasts {lasts})"));
        let grace = number(pod, "/metadata/deletionGracePeriodSeconds");
        out.pair(0, "Termination Grace Period", format_args!("{grace}s"));
    }
    out.pair_if(0, "Reason", text(pod, "/status/reason"));
    out.pair_if(0, "Message", text(pod, "/status/message"));
    if let Some(profile) = at(pod, "/spec/securityContext/seccompProfile") {
        out.pair(0, "SeccompProfile", text(profile, "/type"));
        if text(profile, "/type") == "Localhost" {
            out.pair(0, "LocalhostProfile", text(profile, "/localhostProfile"));
        }
    }
}

fn addresses(out: &mut Writer, pod: &Value) {
    out.pair(0, "IP", text(pod, "/status/podIP"));
    let all = items(pod, "/status/podIPs");
    if all.is_empty() {
        out.pair(0, "IPs", NONE);
        return;
    }
    out.line(0, "IPs:");
    for addr in all {
        out.pair(1, "IP", text(addr, "/ip"));
    }
}

/// `Controlled By`, if it is.
pub(super) fn controlled_by(out: &mut Writer, object: &Value) {
    if let Some(owner) = controller(object) {
        let (kind, name) = (text(owner, "/kind"), text(owner, "/name"));
        out.pair(0, "Controlled By", format_args!("{kind}/{name}"));
    }
}

fn containers(out: &mut Writer, pod: &Value) {
    for (label, of_spec, of_status) in [
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
        (
            "Ephemeral Containers",
            "ephemeralContainers",
            "ephemeralContainerStatuses",
        ),
    ] {
        let containers = items(pod, &format!("/spec/{of_spec}"));
        if containers.is_empty() && label != "Containers" {
            continue;
        }
        let statuses = items(pod, &format!("/status/{of_status}"));
        container::write_all(out, label, containers, statuses, Place::Pod(pod));
    }
}

fn conditions(out: &mut Writer, pod: &Value) {
    let conditions = items(pod, "/status/conditions");
    let gates = items(pod, "/spec/readinessGates");
    if !gates.is_empty() {
        out.line(0, "Readiness Gates:");
        out.line(1, "Type\tStatus");
    }
    for gate in gates {
        let kind = text(gate, "/conditionType");
        let found = conditions.iter().find(|one| text(one, "/type") == kind);
        let status = found.map_or(NONE, |one| text(one, "/status"));
        out.line(1, format_args!("{kind} \t{status} "));
    }
    if !conditions.is_empty() {
        out.line(0, "Conditions:");
        out.line(1, "Type\tStatus");
    }
    for one in conditions {
        let (kind, status) = (text(one, "/type"), text(one, "/status"));
        out.line(1, format_args!("{kind} \t{status} "));
    }
}

/// The class that the status names, or else the one that the API would give it (Kubernetes documentation, "Pod Quality
/// of Service Classes").
fn qos(pod: &Value) -> &str {
    let named = text(pod, "/status/qosClass");
    if !named.is_empty() {
        return named;
    }
    let containers = || {
        let main = items(pod, "/spec/containers").iter();
        main.chain(items(pod, "/spec/initContainers"))
    };
    let amount = |container: &Value, kind: &str, name: &str| {
        let found = container.pointer(&format!("/resources/{kind}/{name}"));
        found.map(|amount| super::quantity::canonical(&super::json::scalar(amount, "").to_string()))
    };
    let is_set = |container: &Value| {
        ["limits", "requests"]
            .into_iter()
            .flat_map(|kind| ["cpu", "memory"].map(|name| amount(container, kind, name)))
            .any(|amount| amount.is_some_and(|amount| amount != "0"))
    };
    let is_fixed = |container: &Value| {
        ["cpu", "memory"].into_iter().all(|name| {
            let limit = amount(container, "limits", name);
            let request = amount(container, "requests", name).or_else(|| limit.clone());
            limit.is_some() && limit == request
        })
    };
    if !containers().any(is_set) {
        "BestEffort"
    } else if containers().all(is_fixed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// `Pod Template` of a workload.
pub(crate) fn template(out: &mut Writer, template: Option<&Value>) {
    out.line(0, "Pod Template:");
    let Some(template) = template else {
        out.write(1, "<unset>");
        return;
    };
    meta::labels(out, "  Labels", &pairs(template, "/metadata/labels"));
    let annotations = pairs(template, "/metadata/annotations");
    if !annotations.is_empty() {
        meta::annotations(out, "  Annotations", &annotations);
    }
    let spec = at(template, "/spec").unwrap_or(&Value::Null);
    out.pair_if(1, "Service Account", text(spec, "/serviceAccountName"));
    for (label, path) in [
        ("Init Containers", "/initContainers"),
        ("Containers", "/containers"),
    ] {
        let containers = items(spec, path);
        if label == "Containers" || !containers.is_empty() {
            container::write_all(out, label, containers, &[], Place::Template);
        }
    }
    volume::write_all(out, spec, "  ");
    meta::spread(out, spec, "  ");
    out.pair_if(1, "Priority Class Name", text(spec, "/priorityClassName"));
    meta::labels(out, "  Node-Selectors", &pairs(spec, "/nodeSelector"));
    meta::tolerations(out, "  Tolerations", spec);
}
