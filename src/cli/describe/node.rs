//! A Node with what its pods ask for. Owns its layout and the sums.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Related, container, events,
    json::{at, boolean, items, name, namespace, pairs, scalar, text, texts},
    meta::{self, or_none},
    quantity::Quantity,
    writer::Writer,
};
use crate::{cli::age, objects::Resource};

/// Amounts by name of the resource.
type Amounts = BTreeMap<String, Quantity>;

/// A Node.
pub(super) fn describe(out: &mut Writer, node: &Value, related: &Related) {
    out.pair(0, "Name", name(node));
    out.pair(0, "Roles", or_none(roles(node)));
    meta::labels_and_annotations(out, node);
    meta::created(out, node);
    meta::taints(out, node);
    out.pair(0, "Unschedulable", boolean(node, "/spec/unschedulable"));
    // Leases are how a kubelet reports its health; there is none here, which kubectl words like this.
    let missing = format!(
        "Failed to get lease: leases.coordination.k8s.io \"{}\" not found",
        name(node)
    );
    out.pair(0, "Lease", missing);
    conditions(out, node);
    out.line(0, "Addresses:");
    for addr in items(node, "/status/addresses") {
        out.pair(1, text(addr, "/type"), text(addr, "/address"));
    }
    for (title, path) in [
        ("Capacity", "/status/capacity"),
        ("Allocatable", "/status/allocatable"),
    ] {
        let amounts = container::amounts(node, path);
        if !amounts.is_empty() {
            out.line(0, format_args!("{title}:"));
        }
        for (name, amount) in amounts {
            out.pair(1, name, amount);
        }
    }
    system(out, node);
    let own: Vec<&Value> = related
        .pods
        .iter()
        .filter(|pod| {
            text(pod, "/spec/nodeName") == name(node)
                && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
        })
        .collect();
    pods(out, node, &own, related);
    events::write(out, Resource::Nodes, node, related);
}

fn roles(node: &Value) -> String {
    let labels = pairs(node, "/metadata/labels");
    let roles: BTreeSet<&str> = labels
        .iter()
        .filter_map(|(key, value)| {
            let role = key.strip_prefix("node-role.kubernetes.io/");
            role.or_else(|| (*key == "kubernetes.io/role").then_some(*value))
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn conditions(out: &mut Writer, node: &Value) {
    let conditions = items(node, "/status/conditions");
    if conditions.is_empty() {
        return;
    }
    out.line(0, "Conditions:");
    out.line(
        1,
        "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage",
    );
    out.line(
        1,
        "----\t------\t-----------------\t------------------\t------\t-------",
    );
    for one in conditions {
        let [heartbeat, transition] =
            ["/lastHeartbeatTime", "/lastTransitionTime"].map(|path| out.time(text(one, path)));
        out.line(
            1,
            format_args!(
                "{} \t{} \t{} \t{} \t{} \t{}",
                text(one, "/type"),
                text(one, "/status"),
                heartbeat,
                transition,
                text(one, "/reason"),
                text(one, "/message")
            ),
        );
    }
}

fn system(out: &mut Writer, node: &Value) {
    out.line(0, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
        ("Kube-Proxy Version", "kubeProxyVersion"),
    ] {
        let value = text(node, &format!("/status/nodeInfo/{field}")).to_owned();
        out.pair(1, title, value);
    }
    out.pair_if(0, "PodCIDR", text(node, "/spec/podCIDR"));
    out.pair_if(0, "PodCIDRs", &texts(node, "/spec/podCIDRs").join(","));
    out.pair_if(0, "ProviderID", text(node, "/spec/providerID"));
}

fn pods(out: &mut Writer, node: &Value, pods: &[&Value], related: &Related) {
    let allocatable = match sums([at(node, "/status/allocatable")]) {
        allocatable if allocatable.is_empty() => sums([at(node, "/status/capacity")]),
        allocatable => allocatable,
    };
    let count = pods.len();
    out.pair(0, "Non-terminated Pods", format_args!("({count} in total)"));
    out.line(
        1,
        "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge",
    );
    out.line(
        1,
        "---------\t----\t\t------------\t----------\t---------------\t-------------\t---",
    );
    let mut total = [Amounts::new(), Amounts::new()];
    for pod in pods {
        let of = ["requests", "limits"].map(|kind| of_pod(pod, kind));
        let share = |name: &str| {
            let [requests, limits] = &of;
            format!(
                "{}\t{}",
                with_share(requests, name, &allocatable),
                with_share(limits, name, &allocatable)
            )
        };
        out.line(
            1,
            format_args!(
                "{}\t{}\t\t{}\t{}\t{}",
                namespace(pod),
                name(pod),
                share("cpu"),
                share("memory"),
                age::since(Some(text(pod, "/metadata/creationTimestamp")), related.now)
            ),
        );
        for (total, of) in total.iter_mut().zip(of) {
            add(total, of);
        }
    }
    allocated(out, &total, &allocatable);
}

fn allocated(out: &mut Writer, [requests, limits]: &[Amounts; 2], allocatable: &Amounts) {
    out.line(0, "Allocated resources:");
    out.line(
        1,
        "(Total limits may be over 100 percent, i.e., overcommitted.)",
    );
    out.line(1, "Resource\tRequests\tLimits");
    out.line(1, "--------\t--------\t------");
    let huge = |name: &&str| name.starts_with("hugepages-");
    let standard = ["cpu", "memory", "ephemeral-storage"];
    let names = || allocatable.keys().map(String::as_str);
    for name in standard.into_iter().chain(names().filter(huge)) {
        out.line(
            1,
            format_args!(
                "{name}\t{}\t{}",
                with_share(requests, name, allocatable),
                with_share(limits, name, allocatable)
            ),
        );
    }
    for name in names().filter(|name| !huge(name) && !standard.contains(name) && *name != "pods") {
        let amount = |of: &Amounts| of.get(name).copied().unwrap_or(Quantity::ZERO);
        out.line(
            1,
            format_args!("{name}\t{}\t{}", amount(requests), amount(limits)),
        );
    }
}

/// `250m (12%)`: an amount, and what part of the node's it is.
fn with_share(amounts: &Amounts, name: &str, allocatable: &Amounts) -> String {
    let amount = amounts.get(name).copied().unwrap_or(Quantity::ZERO);
    let all = allocatable.get(name).copied().unwrap_or(Quantity::ZERO);
    let (part, whole) = match name {
        "cpu" => (amount.milli(), all.milli()),
        _ => (amount.value(), all.value()),
    };
    let percent = (part * 100).checked_div(whole).unwrap_or(0);
    format!("{amount} ({percent}%)")
}

/// What a pod asks for: its containers together, or an init container if that asks for more, and the overhead.
fn of_pod(pod: &Value, kind: &str) -> Amounts {
    let path = format!("/resources/{kind}");
    let mut sum = sums(
        items(pod, "/spec/containers")
            .iter()
            .map(|container| at(container, &path)),
    );
    for container in items(pod, "/spec/initContainers") {
        for (name, amount) in sums([at(container, &path)]) {
            let own = sum.entry(name).or_insert(amount);
            if amount.nano() > own.nano() {
                *own = amount;
            }
        }
    }
    let mut overhead = sums([at(pod, "/spec/overhead")]);
    if kind == "limits" {
        overhead.retain(|name, _| sum.get(name).is_some_and(|amount| !amount.is_zero()));
    }
    add(&mut sum, overhead);
    sum
}

fn sums<'a>(maps: impl IntoIterator<Item = Option<&'a Value>>) -> Amounts {
    let mut sum = Amounts::new();
    for (name, amount) in maps
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .flatten()
    {
        if let Some(amount) = Quantity::parse(&scalar(amount, "").to_string()) {
            *sum.entry(name.clone()).or_insert(Quantity::ZERO) += amount;
        }
    }
    sum
}

fn add(sum: &mut Amounts, more: Amounts) {
    for (name, amount) in more {
        *sum.entry(name).or_insert(Quantity::ZERO) += amount;
    }
}
