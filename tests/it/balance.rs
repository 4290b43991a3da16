//! Even, provably: connections counted by the pod that answered.

use std::{collections::BTreeMap, net::SocketAddr, sync::Mutex};

use crate::support::{
    get,
    namespace::in_namespace,
    program::{Program, way},
};

const WEB: &str = include_str!("../../config/demo/web.yaml");

/// Counts the answers of `connections` connections from `clients` parallel clients.
pub(crate) fn count(
    target: SocketAddr,
    connections: usize,
    clients: usize,
) -> BTreeMap<String, usize> {
    let counts = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for client in 0..clients {
            let share = connections / clients + usize::from(client < connections % clients);
            let counts = &counts;
            scope.spawn(move || {
                for _ in 0..share {
                    let pod = get(target).unwrap_or_else(|error| format!("failed: {error}"));
                    *counts.lock().unwrap().entry(pod).or_default() += 1;
                }
            });
        }
    });
    counts.into_inner().unwrap()
}

#[test]
fn three_thousand_connections_from_sixteen_clients_are_exactly_even() {
    in_namespace!(Root);
    let program = Program::up(
        &["--simulate"],
        &[("web.yaml", &WEB.replace("replicas: 4", "replicas: 3"))],
    );
    let web = program.wait_for_endpoints("web", 3);
    let counts = count(way(&web, "ClusterIP"), 3_000, 16);
    assert_eq!(
        counts.values().copied().collect::<Vec<_>>(),
        [1_000, 1_000, 1_000],
        "{counts:?}"
    );
    let status = program.status();
    let port = &status
        .services
        .iter()
        .find(|service| service.name == "web")
        .unwrap()
        .ports[0];
    assert_eq!(
        (port.accepted, port.connected, port.retries, port.rejected),
        (3_000, 3_000, 0, 0)
    );
    assert_eq!(
        port.endpoints
            .iter()
            .map(|endpoint| endpoint.picks)
            .sum::<u64>(),
        port.connected + port.retries
    );
}

#[test]
fn cluster_ip_node_port_and_load_balancer_share_one_round_robin() {
    in_namespace!(Root);
    let text = WEB.replace(
        "type: NodePort",
        "type: LoadBalancer\n  externalIPs: [127.200.0.1]",
    );
    let program = Program::up(&["--simulate"], &[("web.yaml", &text)]);
    let web = program.wait_for_endpoints("web", 4);
    let doors = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalIP"].map(|kind| way(&web, kind));
    assert_eq!(doors[3], "127.200.0.1:8080".parse().unwrap());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for door in doors.iter().cycle().take(400) {
        *counts.entry(get(*door).unwrap()).or_default() += 1;
    }
    assert_eq!(
        counts.values().copied().collect::<Vec<_>>(),
        [100; 4],
        "{counts:?}"
    );
}
