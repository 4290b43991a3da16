//! Internal and external traffic policies, endpoints that are ending, health checks (`service.go`, `loadbalancer.go` of
//! Kubernetes' `test/e2e/network`). A client on this node gets policy Cluster from external frontends; the one that
//! tells is on another machine.

use std::net::{Ipv4Addr, SocketAddr};

use super::{ELSEWHERE, ENDING, HERE, PORT, backends, edit, seen, service, slice, these, up};
use crate::{
    service_rules::ask_health,
    support::{
        backend,
        client::{ANYWHERE, are_five_dropped, is_dropped, is_refused},
        host::{self, Host},
        namespace::in_namespace,
        program::{Program, way},
    },
};

const NODE_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), 30080);

fn ending(place: &str) -> String {
    format!("{place}{ENDING}")
}

#[test]
fn row_23_internal_policy_local_serves_pods_and_node_here_and_nobody_elsewhere() {
    in_namespace!(Root);
    let other = Host::join();
    backends(1);
    backend::tcp((host::HERE, PORT), "node");
    let manifests = |policy: &str| {
        let spec = format!("internalTrafficPolicy: {policy}, ports: [{{port: 80}}]");
        // One pod with an address of its own, one in the network of its node.
        service("pod", &spec)
            + &slice("pod", &[(1, HERE)])
            + &service("node", &spec)
            + &slice("node", &[(1, HERE)]).replace("127.1.0.1", "10.77.0.1")
    };
    let here = up(&[("all.yaml", &manifests("Local"))]);
    let there =
        other.run(|| Program::up(&["--node-name", "n2"], &[("all.yaml", &manifests("Local"))]));
    let doors = ["pod", "node"].map(|name| way(&here.wait_for_endpoints(name, 1), "ClusterIP"));
    let sources = [Ipv4Addr::new(127, 120, 0, 9), host::HERE.into()];
    for from in sources {
        assert_eq!(seen(from, doors[0], 5), these(&[1]), "from {from}");
        assert_eq!(seen(from, doors[1], 5), ["node".to_owned()].into());
    }
    for door in doors {
        for from in [sources[0], host::THERE.into()] {
            let dropped = other.run(|| are_five_dropped(from, door));
            assert!(dropped, "{door} from {from}");
        }
    }
    // The policy, not the way, is what kept them out.
    edit(&there, "all.yaml", &manifests("Cluster"));
    let all = other.run(|| seen(ANYWHERE, doors[1], 5));
    assert_eq!(all, ["node".to_owned()].into());
}

#[test]
fn row_24_ending_endpoints_serve_when_none_is_ready_internal_cluster() {
    in_namespace!(Root);
    backends(3);
    let web = service("web", "ports: [{port: 80}]");
    let [near, far] = [ending(HERE), ending(ELSEWHERE)];
    let leaving = slice("web", &[(1, &near), (2, &far)]);
    let program = up(&[("web.yaml", &web), ("slice.yaml", &leaving)]);
    let door = way(&program.wait_for_endpoints("web", 2), "ClusterIP");
    assert_eq!(seen(ANYWHERE, door, 5), these(&[1, 2]));
    let ready = slice("web", &[(1, &near), (2, &far), (3, ELSEWHERE)]);
    edit(&program, "slice.yaml", &ready);
    assert_eq!(seen(ANYWHERE, door, 5), these(&[3]));
}

#[test]
fn row_24_ending_endpoints_serve_when_none_is_ready_internal_local() {
    in_namespace!(Root);
    backends(3);
    let web = service("web", "internalTrafficPolicy: Local, ports: [{port: 80}]");
    let near = ending(HERE);
    let leaving = slice("web", &[(1, &near), (2, ELSEWHERE)]);
    let program = up(&[("web.yaml", &web), ("slice.yaml", &leaving)]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    assert_eq!(seen(ANYWHERE, door, 5), these(&[1]));
    let ready = slice("web", &[(1, &near), (2, ELSEWHERE), (3, HERE)]);
    edit(&program, "slice.yaml", &ready);
    assert_eq!(seen(ANYWHERE, door, 5), these(&[3]));
    edit(&program, "slice.yaml", &slice("web", &[(2, ELSEWHERE)]));
    assert!(are_five_dropped(ANYWHERE, door));
}

#[test]
fn row_24_ending_endpoints_serve_when_none_is_ready_external_cluster() {
    in_namespace!(Root);
    let other = Host::join();
    backends(3);
    let web = service(
        "web",
        "type: NodePort, ports: [{port: 80, nodePort: 30080}]",
    );
    let [near, far] = [ending(HERE), ending(ELSEWHERE)];
    let leaving = slice("web", &[(1, &near), (2, &far)]);
    let program = up(&[("web.yaml", &web), ("slice.yaml", &leaving)]);
    program.wait_for_endpoints("web", 2);
    assert_eq!(other.run(|| seen(ANYWHERE, NODE_PORT, 5)), these(&[1, 2]));
    let ready = slice("web", &[(1, &near), (2, &far), (3, ELSEWHERE)]);
    edit(&program, "slice.yaml", &ready);
    assert_eq!(other.run(|| seen(ANYWHERE, NODE_PORT, 5)), these(&[3]));
}

#[test]
fn row_24_ending_endpoints_serve_when_none_is_ready_external_local() {
    in_namespace!(Root);
    let other = Host::join();
    backends(3);
    let spec = "type: NodePort, externalTrafficPolicy: Local, ports: [{port: 80, nodePort: 30080}]";
    let near = ending(HERE);
    let leaving = slice("web", &[(1, &near), (2, ELSEWHERE)]);
    let program = up(&[
        ("web.yaml", &service("web", spec)),
        ("slice.yaml", &leaving),
    ]);
    program.wait_for_endpoints("web", 2);
    assert_eq!(other.run(|| seen(ANYWHERE, NODE_PORT, 5)), these(&[1]));
    assert_eq!(
        seen(ANYWHERE, NODE_PORT, 5),
        these(&[2]),
        "from the node itself, policy Cluster"
    );
    let ready = slice("web", &[(1, &near), (2, ELSEWHERE), (3, HERE)]);
    edit(&program, "slice.yaml", &ready);
    assert_eq!(other.run(|| seen(ANYWHERE, NODE_PORT, 5)), these(&[3]));
    edit(&program, "slice.yaml", &slice("web", &[(2, ELSEWHERE)]));
    assert!(other.run(|| are_five_dropped(ANYWHERE, NODE_PORT)));
}

/// A load balancer whose health check is at 30099.
fn balancer(policy: &str) -> String {
    let check = match policy {
        "Local" => ", healthCheckNodePort: 30099",
        _ => "",
    };
    let spec = format!(
        "type: LoadBalancer, externalTrafficPolicy: {policy}{check}, ports: [{{port: 80, nodePort: 30080}}]"
    );
    service("web", &spec)
}

/// The code that the health check answers with.
fn health() -> u16 {
    let (line, _, _) = ask_health(30099);
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn row_25_health_check_fails_while_only_ending_endpoints_serve() {
    in_namespace!(Root);
    let other = Host::join();
    backends(2);
    let endpoints = slice("web", &[(1, HERE), (2, ELSEWHERE)]);
    let program = up(&[("web.yaml", &balancer("Local")), ("slice.yaml", &endpoints)]);
    program.wait_for_endpoints("web", 2);
    assert_eq!(health(), 200);
    assert_eq!(other.run(|| seen(ANYWHERE, NODE_PORT, 5)), these(&[1]));
    let leaving = slice("web", &[(1, &ending(HERE)), (2, ELSEWHERE)]);
    edit(&program, "slice.yaml", &leaving);
    for _ in 0..5 {
        assert_eq!(health(), 503);
        assert_eq!(other.run(|| seen(ANYWHERE, NODE_PORT, 1)), these(&[1]));
    }
}

#[test]
fn row_26_node_port_and_health_check_follow_changes_of_the_external_policy() {
    in_namespace!(Root);
    let other = Host::join();
    backends(2);
    let program = up(&[
        ("web.yaml", &balancer("Local")),
        ("slice.yaml", &slice("web", &[(1, ELSEWHERE)])),
    ]);
    let web = program.wait_for_endpoints("web", 1);
    let check = SocketAddr::from(([127, 0, 0, 1], 30099));
    for _ in 0..2 {
        assert!(other.run(|| is_dropped(ANYWHERE, NODE_PORT)));
        assert_eq!(health(), 503);
        edit(&program, "web.yaml", &balancer("Cluster"));
        assert_eq!(other.run(|| seen(ANYWHERE, NODE_PORT, 5)), these(&[1]));
        assert!(is_refused(ANYWHERE, check), "no health check");
        edit(&program, "web.yaml", &balancer("Local"));
    }
    edit(
        &program,
        "slice.yaml",
        &slice("web", &[(1, ELSEWHERE), (2, HERE)]),
    );
    assert_eq!(other.run(|| seen(ANYWHERE, NODE_PORT, 5)), these(&[2]));
    assert_eq!(health(), 200);
    assert_eq!(seen(ANYWHERE, way(&web, "ClusterIP"), 6), these(&[1, 2]));
}
