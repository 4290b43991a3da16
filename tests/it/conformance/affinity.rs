//! Session affinity by client address (`service.go` and `loadbalancer.go` of Kubernetes' `test/e2e/network`).

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::mpsc,
    time::{Duration, Instant},
};

use super::{ELSEWHERE, HERE, answers, backends, edit, seen, service, slice, these, up};
use crate::support::{
    addr,
    client::ANYWHERE,
    host::{self, Host},
    namespace::in_namespace,
    program::way,
};

/// So many answers by one backend count as affinity.
const CONFIRMED: usize = 15;
const CLIENT_IP: &str = "sessionAffinity: ClientIP";
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 9, 0, 1);

/// A Service on a node port, with three backends.
fn web(rest: &str) -> String {
    let spec = format!("type: NodePort, ports: [{{port: 80, nodePort: 30080}}], {rest}");
    service("web", &spec) + &slice("web", &[(1, ""), (2, ""), (3, "")])
}

/// The one who answers all of them.
fn only(from: Ipv4Addr, to: SocketAddr) -> String {
    let all = seen(from, to, CONFIRMED);
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap()
}

#[test]
fn row_05_client_ip_affinity_holds_fifteen_times_on_cluster_ip_and_node_port() {
    in_namespace!(Root);
    backends(3);
    let program = up(&[("web.yaml", &web(CLIENT_IP))]);
    let status = program.wait_for_endpoints("web", 3);
    let doors = ["ClusterIP", "NodePort"].map(|kind| way(&status, kind));
    assert_eq!(only(CLIENT, doors[0]), only(CLIENT, doors[1]));
    let clients = (1..=6).map(|n| Ipv4Addr::new(127, 9, 1, n));
    let chosen: BTreeSet<String> = clients.map(|client| only(client, doors[1])).collect();
    assert_eq!(chosen, these(&[1, 2, 3]), "clients apart are spread");
}

#[test]
fn row_06_affinity_is_switched_off_and_on_live_on_cluster_ip_and_node_port() {
    in_namespace!(Root);
    backends(3);
    let program = up(&[("web.yaml", &web("sessionAffinity: None"))]);
    let status = program.wait_for_endpoints("web", 3);
    for door in ["ClusterIP", "NodePort"].map(|kind| way(&status, kind)) {
        assert_eq!(seen(CLIENT, door, CONFIRMED), these(&[1, 2, 3]));
        edit(&program, "web.yaml", &web(CLIENT_IP));
        only(CLIENT, door);
        edit(&program, "web.yaml", &web("sessionAffinity: None"));
        assert_eq!(seen(CLIENT, door, CONFIRMED), these(&[1, 2, 3]));
    }
}

#[test]
fn row_07_affinity_ends_with_its_timeout_on_cluster_ip_and_node_port() {
    in_namespace!(Root);
    backends(3);
    let timeout = Duration::from_secs(1);
    let config = "sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}";
    let program = up(&[("web.yaml", &web(&format!("{CLIENT_IP}, {config}")))]);
    let status = program.wait_for_endpoints("web", 3);
    for door in ["ClusterIP", "NodePort"].map(|kind| way(&status, kind)) {
        let mut last: Option<(Instant, String)> = None;
        for _ in 0..CONFIRMED {
            let began = Instant::now();
            let answer = answers(CLIENT, door, 1).remove(0);
            if let Some((before, former)) = &last
                && before.elapsed() < timeout
            {
                assert_eq!(&answer, former);
            }
            last = Some((began, answer));
        }
        // Nothing ever comes: time itself is what this row is about.
        let (_nobody, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(timeout + Duration::from_millis(100));
        let later = answers(CLIENT, door, 1).remove(0);
        assert_ne!(later, last.unwrap().1, "whose turn it is");
    }
}

#[test]
fn row_08_affinity_holds_at_the_load_balancer_under_both_traffic_policies() {
    in_namespace!(Root);
    let other = Host::join();
    backends(3);
    let web = |policy: &str, affinity: &str| {
        let spec = format!(
            "type: LoadBalancer, loadBalancerIP: 10.77.0.1, externalTrafficPolicy: {policy}, sessionAffinity: {affinity}, \
             ports: [{{port: 8080, nodePort: 30080}}]"
        );
        service("web", &spec) + &slice("web", &[(1, HERE), (2, HERE), (3, ELSEWHERE)])
    };
    let program = up(&[("web.yaml", &web("Cluster", "ClientIP"))]);
    let status = program.wait_for_endpoints("web", 3);
    let door = way(&status, "LoadBalancer");
    assert_eq!(door, SocketAddr::from((host::HERE, 8080)));
    let node_port = SocketAddr::from((host::HERE, 30080));
    for (policy, reachable) in [("Cluster", &[1, 2, 3][..]), ("Local", &[1, 2])] {
        edit(&program, "web.yaml", &web(policy, "None"));
        assert_eq!(
            other.run(|| seen(ANYWHERE, door, CONFIRMED)),
            these(reachable),
            "{policy}"
        );
        edit(&program, "web.yaml", &web(policy, "ClientIP"));
        let chosen = other.run(|| (only(ANYWHERE, door), only(ANYWHERE, node_port)));
        assert_eq!(chosen.0, chosen.1, "one affinity for both");
        assert!(these(reachable).contains(&chosen.0), "{policy}: {chosen:?}");
    }
    assert_eq!(addr("10.77.0.1:8080"), door);
}
