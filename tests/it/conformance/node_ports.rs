//! Node ports: who gets which number (`service.go`, `loadbalancer.go` of Kubernetes' `test/e2e/network`).

use super::{backends, edit, seen, service, slice, slice_of, these, up};
use crate::{
    service_rules,
    support::{
        addr,
        client::{ANYWHERE, is_refused},
        namespace::in_namespace,
        program::way,
    },
    udp,
};

fn node_port(name: &str, number: u16, backend: u8) -> String {
    let spec = format!("type: NodePort, ports: [{{port: 80, nodePort: {number}}}]");
    service(name, &spec) + &slice(name, &[(backend, "")])
}

#[test]
fn row_21_node_port_taken_is_an_error_until_it_is_released() {
    in_namespace!(Root);
    backends(2);
    let program = up(&[
        ("a.yaml", &node_port("a", 30080, 1)),
        ("b.yaml", &node_port("b", 30080, 2)),
    ]);
    program.wait_for_endpoints("a", 1);
    let findings = program.status().findings_text();
    assert!(
        findings.contains("30080: provided port is already allocated"),
        "{findings}"
    );
    let door = addr("127.0.0.1:30080");
    assert_eq!(seen(ANYWHERE, door, 5), these(&[1]));
    std::fs::remove_file(program.manifests().join("a.yaml")).unwrap();
    program.wait_for("the next one", |status| {
        let mut services = status.services.iter();
        services.any(|service| service.name == "b" && !service.ports.is_empty())
            && !status.findings_text().contains("already allocated")
    });
    assert_eq!(seen(ANYWHERE, door, 5), these(&[2]), "used again");
}

#[test]
fn row_21_node_port_outside_the_range_is_an_error() {
    in_namespace!(Root);
    backends(1);
    let program = up(&[("a.yaml", &node_port("a", 29999, 1))]);
    let findings = program.status().findings_text();
    let phrase =
        "29999: provided port is not in the valid range. The range of valid ports is 30000-32767";
    assert!(findings.contains(phrase), "{findings}");
    assert!(is_refused(ANYWHERE, addr("127.0.0.1:29999")));
    edit(&program, "a.yaml", &node_port("a", 30080, 1));
    assert_eq!(seen(ANYWHERE, addr("127.0.0.1:30080"), 5), these(&[1]));
}

#[test]
fn row_22_changed_node_port_moves_the_service() {
    in_namespace!(Root);
    backends(1);
    let program = up(&[("a.yaml", &node_port("a", 30080, 1))]);
    program.wait_for_endpoints("a", 1);
    let [old, new] = [addr("127.0.0.1:30080"), addr("127.0.0.1:30081")];
    assert_eq!(seen(ANYWHERE, old, 5), these(&[1]));
    edit(&program, "a.yaml", &node_port("a", 30081, 1));
    assert_eq!(seen(ANYWHERE, new, 5), these(&[1]));
    assert!(is_refused(ANYWHERE, old));
}

#[test]
fn row_22_node_port_for_tcp_and_udp_on_one_number_when_the_type_changes() {
    in_namespace!(Root);
    backends(1);
    let both = "{name: t, port: 9000}, {name: u, port: 9000, protocol: UDP}";
    let endpoints = slice_of("web", "one", both, &[(1, "")]);
    let cluster_ip = service("web", "ports: [{name: t, port: 80}]");
    let program = up(&[("web.yaml", &cluster_ip), ("slice.yaml", &endpoints)]);
    let web = program.wait_for_endpoints("web", 1);
    let door = way(&web, "ClusterIP");
    let ports =
        "{name: t, port: 80, nodePort: 30080}, {name: u, port: 80, nodePort: 30080, protocol: UDP}";
    edit(
        &program,
        "web.yaml",
        &service("web", &format!("type: NodePort, ports: [{ports}]")),
    );
    let node_port = addr("127.0.0.1:30080");
    for door in [door, node_port] {
        assert_eq!(seen(ANYWHERE, door, 5), these(&[1]), "{door} by TCP");
        assert_eq!(udp::ask(&udp::client(door)).unwrap(), "b1", "{door} by UDP");
    }
}

#[test]
fn row_22_changed_port_of_a_load_balancer_keeps_its_node_port() {
    in_namespace!(Root);
    backends(1);
    let web = |port: u16| {
        service(
            "web",
            &format!("type: LoadBalancer, ports: [{{port: {port}}}]"),
        )
    };
    let program = up(&[
        ("web.yaml", &web(80)),
        ("slice.yaml", &slice("web", &[(1, "")])),
    ]);
    let before = program.wait_for_endpoints("web", 1);
    assert_eq!(seen(ANYWHERE, way(&before, "LoadBalancer"), 5), these(&[1]));
    edit(&program, "web.yaml", &web(81));
    let status = program.status();
    let after = service_rules::service(&status, "web");
    assert_eq!(way(after, "NodePort"), way(&before, "NodePort"));
    assert_eq!(way(after, "LoadBalancer").port(), 81);
    for kind in ["LoadBalancer", "NodePort", "ClusterIP"] {
        assert_eq!(seen(ANYWHERE, way(after, kind), 5), these(&[1]), "{kind}");
    }
    assert!(is_refused(ANYWHERE, way(&before, "LoadBalancer")));
}
