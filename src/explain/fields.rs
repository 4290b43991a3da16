//! What becomes of each field, in one place: the table of docs/fields.md is this one, and explanations quote it. Owns the
//! words; whether an object has a field that is worth a word is asked of its manifest.

use serde_json::Value;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Kind; empty for the kind of the row before.
    pub object: &'static str,
    /// Fields, as the page prints them.
    pub field: &'static str,
    /// What becomes of them.
    pub text: &'static str,
    /// Fields of a Service that are worth a note when given, with the value that is not.
    noted: &'static [(&'static str, &'static str)],
}

const fn row(
    object: &'static str,
    field: &'static str,
    text: &'static str,
    noted: &'static [(&'static str, &'static str)],
) -> Row {
    Row {
        object,
        field,
        text,
        noted,
    }
}

/// Every row, in the page's order.
pub const TABLE: [Row; 69] = [
    row(
        "all",
        "`metadata.name`, `namespace`, `labels`",
        "honoured",
        &[],
    ),
    row(
        "",
        "`metadata.deletionTimestamp`",
        "honoured on Pods, ignored elsewhere",
        &[],
    ),
    row(
        "",
        "`metadata.annotations`, `ownerReferences`, `finalizers`, everything else",
        "ignored, but for `portico.dev/...` and `kubernetes.io/change-cause`",
        &[],
    ),
    row(
        "Service",
        "`spec.type`",
        "honoured: ClusterIP, NodePort, LoadBalancer, ExternalName, and headless",
        &[],
    ),
    row(
        "",
        "`spec.clusterIP`, `clusterIPs`",
        "honoured in both families; addresses outside our ranges are mapped into them",
        &[],
    ),
    row(
        "",
        "`spec.ports[].name`, `port`, `targetPort`, `nodePort`",
        "honoured",
        &[],
    ),
    row(
        "",
        "`spec.ports[].protocol`",
        "TCP and UDP honoured; SCTP has names and addresses, and is not forwarded",
        &[],
    ),
    row(
        "",
        "`spec.ports[].appProtocol`",
        "honoured: `http`, `kubernetes.io/ws`, `kubernetes.io/h2c` and `grpc` are forwarded request by request, others as TCP",
        &[],
    ),
    row("", "`spec.selector`", "honoured", &[]),
    row("", "`spec.externalName`", "honoured", &[]),
    row(
        "",
        "`spec.externalIPs`",
        "honoured if this host can bind them; loopback ones are legal",
        &[],
    ),
    row(
        "",
        "`spec.loadBalancerIP`",
        "approximated: taken if this host can bind it, else shown as desired and the pool's used",
        &[],
    ),
    row(
        "",
        "`spec.loadBalancerClass`",
        "honoured: a Service with a class is left to others and stays `<pending>`",
        &[("spec.loadBalancerClass", "")],
    ),
    row("", "`spec.allocateLoadBalancerNodePorts`", "honoured", &[]),
    row(
        "",
        "`spec.loadBalancerSourceRanges`",
        "honoured at the load-balancer address, by family; others are dropped by a socket filter, or reset where the kernel takes none. `--source-ranges-everywhere` guards node ports and external addresses too",
        &[],
    ),
    row(
        "",
        "`spec.internalTrafficPolicy`, `externalTrafficPolicy`",
        "honoured; what Kubernetes drops is dropped by a socket filter, or reset where the kernel takes none",
        &[],
    ),
    row(
        "",
        "`spec.healthCheckNodePort`",
        "honoured: 200 while this node has ready endpoints, else 503",
        &[],
    ),
    row(
        "",
        "`spec.sessionAffinity`, `sessionAffinityConfig`",
        "honoured. All loopback clients are 127.0.0.1, so that ClientIP sends them all to one pod",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/protocol`",
        "ours: `tcp`, `http`, `h2c` or `grpc` for all TCP ports or as in `web=http,admin=tcp`; comes before `appProtocol`",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/balance`",
        "ours: `round-robin` (default), `random`, `least-request`, `peak-ewma` or `maglev`; sessionAffinity comes first",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/affinity-cookie`",
        "ours, of HTTP ports: the cookie that keeps a client at its endpoint, as in `NAME; Max-Age=3600`",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/hash-header`",
        "ours, of HTTP ports with `maglev`: the header whose value decides",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/http-response-timeout`",
        "ours, of HTTP ports: the client gets 504 when no answer has begun so long after its request, as in `30s`; without it `--http-response-timeout` counts",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/source-address`",
        "ours: `ours` (default) or `keep`: endpoints see the client's address; of clients on other machines with a privilege and routes",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/drain-timeout`",
        "ours: connections whose endpoint, address or port was taken away are reset after this long, as in `30s`; without it they go on, as in a cluster",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/max-connections`",
        "ours: TCP connections that each port of the Service has at a time; the next ones wait in the kernel's queue",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/max-connections-per-endpoint`",
        "ours: TCP connections, of HTTP ports requests in progress, that each endpoint gets at a time; the next ones go to another, or wait for `--connect-timeout`",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/proxy-protocol`",
        "ours: `v1` or `v2`: TCP endpoints get a PROXY header with the client and what it asked for",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/accept-proxy-protocol-from`",
        "ours: front ends whose PROXY headers name the client, and who must send one",
        &[],
    ),
    row("", "`spec.publishNotReadyAddresses`", "honoured", &[]),
    row(
        "",
        "`spec.trafficDistribution`",
        "honoured: hints are made of it, from the nodes' zones; hints of written slices stay",
        &[],
    ),
    row(
        "",
        "`spec.ipFamilies`, `ipFamilyPolicy`",
        "honoured with a range of IPv6 cluster IPs (`--service-cidr-v6`); without one PreferDualStack gets IPv4, and asking for IPv6 is invalid. The primary family of a Service stays, as in a cluster",
        &[],
    ),
    row(
        "",
        "`spec.topologyKeys`",
        "ignored, as in current Kubernetes",
        &[("spec.topologyKeys", "")],
    ),
    row("", "`status`", "ignored", &[]),
    row(
        "EndpointSlice",
        "label `kubernetes.io/service-name`",
        "honoured",
        &[],
    ),
    row(
        "",
        "`addressType`",
        "IPv4 and IPv6 honoured, each for frontends of its family; FQDN ignored",
        &[],
    ),
    row(
        "",
        "`ports[].name`, `port`, `protocol`",
        "honoured; `appProtocol` where the Service port has none",
        &[],
    ),
    row(
        "",
        "`endpoints[].addresses`",
        "honoured; loopback ones are legal",
        &[],
    ),
    row(
        "",
        "`endpoints[].conditions`",
        "honoured: ready, serving and terminating",
        &[],
    ),
    row("", "`endpoints[].hostname`", "honoured in names", &[]),
    row(
        "",
        "`endpoints[].nodeName`",
        "honoured by the traffic policies, against `--node-name`",
        &[],
    ),
    row(
        "",
        "`endpoints[].zone`",
        "honoured in reports; hints decide, and are made from nodes' zones where we make the slice",
        &[],
    ),
    row(
        "",
        "`endpoints[].hints`",
        "honoured, against `--zone` and `--node-name`",
        &[],
    ),
    row(
        "",
        "`endpoints[].targetRef`",
        "approximated: the pod's name, for reports",
        &[],
    ),
    row(
        "",
        "annotations `portico.dev/weight`, `weights`",
        "ours: shares from 0 (drained) to 256, for all addresses or as in `10.0.0.1=3,10.0.0.2=1`",
        &[],
    ),
    row(
        "Endpoints",
        "`subsets[]`",
        "honoured: mirrored into slices where the Service has no selector, annotations for weights too",
        &[],
    ),
    row(
        "",
        "label `endpointslice.kubernetes.io/skip-mirror`",
        "honoured",
        &[],
    ),
    row(
        "Pod",
        "`status.podIP`, `podIPs`",
        "honoured: such a Pod runs elsewhere; one without is simulated",
        &[],
    ),
    row(
        "",
        "`status.phase`, `conditions`",
        "honoured: Succeeded and Failed serve nothing, Ready decides",
        &[],
    ),
    row(
        "",
        "`spec.containers[].ports[]`",
        "honoured: what a `targetPort` by name means; a simulated pod serves these and what its Services and probes ask for",
        &[],
    ),
    row(
        "",
        "annotation `portico.dev/weight`, also of templates",
        "ours: the pod's share from 0 (drained) to 256; default 1",
        &[],
    ),
    row("", "`spec.hostname`, `subdomain`", "honoured in names", &[]),
    row(
        "",
        "`spec.nodeName`",
        "honoured by the traffic policies",
        &[],
    ),
    row(
        "",
        "`spec.terminationGracePeriodSeconds`",
        "honoured by simulated pods",
        &[],
    ),
    row(
        "",
        "`spec.containers[].image`",
        "approximated: nothing is pulled; another image is another revision",
        &[],
    ),
    row(
        "",
        "readiness, liveness and startup probes",
        "honoured: httpGet, tcpSocket, grpc; exec and HTTPS count as passing",
        &[],
    ),
    row(
        "",
        "lifecycle, init containers",
        "ignored: init containers count as done",
        &[],
    ),
    row(
        "",
        "everything else (env, volumes, resources, scheduling, security)",
        "ignored",
        &[],
    ),
    row(
        "Deployment",
        "`spec.replicas`, `selector`, `template`",
        "honoured with `--simulate`; names are as Kubernetes makes them",
        &[],
    ),
    row(
        "",
        "`spec.strategy`",
        "honoured: RollingUpdate with maxSurge and maxUnavailable, Recreate",
        &[],
    ),
    row(
        "",
        "`spec.minReadySeconds`, `paused`, `revisionHistoryLimit`",
        "honoured",
        &[],
    ),
    row("", "`spec.progressDeadlineSeconds`", "honoured", &[]),
    row(
        "ReplicaSet",
        "`spec.replicas`, `selector`, `template`, `minReadySeconds`",
        "honoured with `--simulate`",
        &[],
    ),
    row(
        "DaemonSet",
        "`spec.selector`, `template`, `updateStrategy`, `minReadySeconds`, `revisionHistoryLimit`",
        "honoured with `--simulate`: a pod for each Node that `nodeSelector` and `nodeName` allow",
        &[],
    ),
    row(
        "StatefulSet",
        "`spec.replicas`, `selector`, `template`, `serviceName`, `podManagementPolicy`, `updateStrategy`, `minReadySeconds`, `revisionHistoryLimit`",
        "honoured with `--simulate`; one pod at a time whatever `maxUnavailable` says",
        &[],
    ),
    row(
        "",
        "`spec.volumeClaimTemplates`, `ordinals`",
        "ignored",
        &[],
    ),
    row(
        "Node",
        "`metadata.name`, `labels`",
        "approximated: DaemonSets and `nodeSelector` go by them, all pods run here, and label `topology.kubernetes.io/zone` is the zone of endpoints on it; this node is `--node-name` in `--zone`",
        &[],
    ),
    row(
        "Namespace",
        "`metadata.name`",
        "honoured: a namespace exists by this or by an object in it, which decides NXDOMAIN",
        &[],
    ),
    row(
        "every other kind",
        "everything",
        "ignored: one notice a kind",
        &[],
    ),
];

/// Fields that Kubernetes has deprecated in a Service, with what it says instead (Kubernetes API reference, v1.35,
/// `ServiceSpec`; KEP-5707 for external IPs).
const DEPRECATED: [(&str, &str); 2] = [
    (
        "spec.loadBalancerIP",
        "deprecated in Kubernetes since 1.24: its meaning depends on the implementation",
    ),
    (
        "spec.externalIPs",
        "deprecated in Kubernetes since 1.36: type LoadBalancer takes its place",
    ),
];

/// Annotations of Kubernetes that say something to those who run the cluster, and nothing here.
const SILENT_ANNOTATIONS: [&str; 3] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "kubernetes.io/change-cause",
    "kubernetes.io/description",
];

/// Fields of a Service's manifest that nothing acts on, or not as in a cluster: path and words.
pub(super) fn noted(manifest: &Value) -> Vec<(&'static str, &'static str)> {
    let rows = TABLE.iter();
    let fields = rows.flat_map(|row| {
        row.noted
            .iter()
            .map(|(path, usual)| (*path, *usual, row.text))
    });
    fields
        .filter(|(path, usual, _)| {
            let values = values(manifest, path);
            values.iter().any(|value| is_worth_a_word(value, usual))
        })
        .map(|(path, _, text)| (path, text))
        .collect()
}

/// Deprecated fields that a Service's manifest has: path and words.
pub(super) fn deprecated(manifest: &Value) -> Vec<(&'static str, &'static str)> {
    let fields = DEPRECATED.into_iter();
    fields
        .filter(|(path, _)| {
            let values = values(manifest, path);
            values.iter().any(|value| is_worth_a_word(value, ""))
        })
        .collect()
}

/// Annotations of Kubernetes or of its providers that nothing acts on here.
pub(super) fn annotations(manifest: &Value) -> Vec<String> {
    let annotations = manifest.pointer("/metadata/annotations");
    let keys = annotations.and_then(Value::as_object).into_iter().flatten();
    let of_kubernetes = |key: &&String| {
        let domain = key.split('/').next().unwrap_or_default();
        let is_theirs = ["kubernetes.io", "k8s.io"]
            .iter()
            .any(|of| domain == *of || domain.ends_with(&format!(".{of}")));
        is_theirs && !SILENT_ANNOTATIONS.contains(&key.as_str())
    };
    keys.map(|(key, _)| key)
        .filter(of_kubernetes)
        .cloned()
        .collect()
}

/// The values at `spec.ports[].name` and the like.
fn values<'v>(manifest: &'v Value, path: &str) -> Vec<&'v Value> {
    let mut found = vec![manifest];
    for step in path.split('.') {
        let (name, is_list) = match step.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (step, false),
        };
        found = found
            .into_iter()
            .filter_map(|value| value.get(name))
            .collect();
        if is_list {
            found = found
                .into_iter()
                .filter_map(Value::as_array)
                .flatten()
                .collect();
        }
    }
    found
}

fn is_worth_a_word(value: &Value, usual: &str) -> bool {
    let text = match value {
        Value::Null => return false,
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => return false,
        other => other.to_string(),
    };
    !text.is_empty() && text != usual
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_the_page_is_this_one() {
        let page = include_str!("../../docs/fields.md");
        let printed: Vec<&str> = page
            .lines()
            .skip_while(|line| !line.starts_with("| object | field |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        let own: Vec<String> = TABLE
            .iter()
            .map(|row| {
                let object = match row.object {
                    "" => String::new(),
                    object => format!("{object} "),
                };
                format!("| {object}| {} | {} |", row.field, row.text)
            })
            .collect();
        assert_eq!(printed, own);
    }

    #[test]
    fn noted_fields_are_those_that_say_something() {
        let manifest = serde_json::json!({
            "metadata": {"annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "service.beta.kubernetes.io/aws-load-balancer-type": "nlb",
                "example.com/owner": "me",
            }},
            "spec": {
                "sessionAffinity": "None", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"],
                "loadBalancerIP": "", "topologyKeys": ["*"],
            },
        });
        let paths: Vec<&str> = noted(&manifest).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["spec.topologyKeys"]);
        assert_eq!(deprecated(&manifest), []);
        assert_eq!(
            annotations(&manifest),
            ["service.beta.kubernetes.io/aws-load-balancer-type"]
        );
    }
}
