//! Preferences for endpoints near by (`traffic_distribution.go` of Kubernetes' `test/e2e/network`). The nodes: n1 and n3
//! in zone za, n2 in zb, n4 in zc, where no endpoint is.

use std::collections::BTreeSet;

use super::{backends, pod, seen, service, these};
use crate::support::{
    client::ANYWHERE,
    namespace::in_namespace,
    program::{Program, way},
};

/// Whom a client on `node` reaches by a Service that prefers what `distribution` says: ten requests, all answered by
/// these.
fn reached(node: &str, distribution: &str) -> BTreeSet<String> {
    let nodes: String = [("n1", "za"), ("n2", "zb"), ("n3", "za"), ("n4", "zc")]
        .map(|(name, zone)| {
            format!(
                "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: {zone}}}}}\n"
            )
        })
        .concat();
    let spec = format!(
        "trafficDistribution: {distribution}, selector: {{app: web}}, ports: [{{port: 80, targetPort: 9000}}]"
    );
    let pods: String = [(1, "n1"), (2, "n2"), (3, "n3")]
        .map(|(number, node)| pod(number, "", &format!(", nodeName: {node}"), ""))
        .concat();
    let program = Program::up(
        &["--node-name", node],
        &[
            ("nodes.yaml", &nodes),
            ("pods.yaml", &pods),
            ("web.yaml", &service("web", &spec)),
        ],
    );
    let status = program.status();
    seen(ANYWHERE, way(&status.services[0], "ClusterIP"), 10)
}

#[test]
fn row_32_prefer_same_zone_reaches_all_of_the_zone_and_none_outside() {
    in_namespace!(Root);
    backends(3);
    assert_eq!(reached("n1", "PreferSameZone"), these(&[1, 3]));
    assert_eq!(reached("n2", "PreferSameZone"), these(&[2]));
}

#[test]
fn row_32_prefer_close_means_the_same_zone() {
    in_namespace!(Root);
    backends(3);
    assert_eq!(reached("n1", "PreferClose"), these(&[1, 3]));
}

#[test]
fn row_32_zone_without_endpoints_reaches_all() {
    in_namespace!(Root);
    backends(3);
    assert_eq!(reached("n4", "PreferSameZone"), these(&[1, 2, 3]));
}

#[test]
fn row_32_prefer_same_node_reaches_the_node_then_the_zone_then_all() {
    in_namespace!(Root);
    backends(3);
    assert_eq!(reached("n3", "PreferSameNode"), these(&[3]));
    assert_eq!(reached("n4", "PreferSameNode"), these(&[1, 2, 3]));
}
