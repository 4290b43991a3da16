//! Who reaches whom, and with how much (`networking.go` of Kubernetes' `test/e2e/network`).

use std::net::SocketAddr;

use super::{PORT, address, backends, edit, pod, seen, service, slice, slice_of, these, up};
use crate::{
    support::{
        addr, backend,
        client::{ANYWHERE, get_from, is_refused, post},
        host::{self, Host},
        namespace::in_namespace,
        program::way,
    },
    udp,
};

#[test]
fn row_34_large_requests_and_answers_pass_unchanged() {
    in_namespace!(Root);
    backends(1);
    let text = service(
        "web",
        "ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]",
    ) + &slice_of(
        "web",
        "one",
        "{name: t, port: 9000}, {name: u, port: 9000, protocol: UDP}",
        &[(1, "")],
    );
    let program = up(&[("web.yaml", &text)]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let pattern = |length: usize| -> Vec<u8> { (0_u8..=250).cycle().take(length).collect() };
    for length in [2_000, 4 << 20] {
        let sent = pattern(length);
        assert!(post(door, &sent).unwrap() == sent, "{length} bytes by TCP");
    }
    let client = udp::client(door);
    for length in [2_000, 60_000, 65_507] {
        let sent = pattern(length);
        client.send(&sent).unwrap();
        let mut got = vec![0; 65_536];
        let received = client.recv(&mut got).unwrap();
        assert!(got[..received] == sent, "{length} bytes by UDP");
    }
}

#[test]
fn row_34_several_services_share_their_pods() {
    in_namespace!(Root);
    backends(2);
    let spec = "selector: {app: web}, ports: [{port: 80, targetPort: 9000}]";
    let services = service("first", spec) + &service("second", spec);
    let pods = pod(1, "", "", "") + &pod(2, "", "", "");
    let program = up(&[("services.yaml", &services), ("pods.yaml", &pods)]);
    let doors =
        ["first", "second"].map(|name| way(&program.wait_for_endpoints(name, 2), "ClusterIP"));
    assert_ne!(doors[0], doors[1]);
    for door in doors {
        assert_eq!(seen(ANYWHERE, door, 10), these(&[1, 2]));
    }
    edit(&program, "services.yaml", &service("first", spec));
    assert_eq!(seen(ANYWHERE, doors[0], 10), these(&[1, 2]));
    assert!(is_refused(ANYWHERE, doors[1]), "the other goes alone");
}

#[test]
fn row_34_endpoints_in_the_hosts_network_are_reached_by_pods_nodes_and_endpoints() {
    in_namespace!(Root);
    let other = Host::join();
    backend::tcp((host::HERE, PORT), "here");
    other.run(|| backend::tcp((host::THERE, PORT), "there"));
    let both = slice("web", &[(1, ""), (2, "")])
        .replace("127.1.0.1", "10.77.0.1")
        .replace("127.1.0.2", "10.77.0.2");
    let spec = "type: NodePort, ports: [{port: 80, nodePort: 30080}]";
    let program = up(&[("web.yaml", &(service("web", spec) + &both))]);
    let door = way(&program.wait_for_endpoints("web", 2), "ClusterIP");
    let all = ["here", "there"].map(str::to_owned).into();
    // Pods, the node, and the endpoint's own address are all just clients.
    for from in [[127, 120, 0, 9], host::HERE, [127, 0, 0, 1]] {
        assert_eq!(seen(from.into(), door, 10), all, "from {from:?}");
    }
    let node_port = SocketAddr::from((host::HERE, 30080));
    assert_eq!(seen(ANYWHERE, node_port, 10), all);
    assert_eq!(other.run(|| seen(ANYWHERE, node_port, 10)), all);
}

#[test]
fn row_34_changed_endpoints_and_node_port_take_effect_for_tcp_and_udp() {
    in_namespace!(Root);
    backends(2);
    let web = |number: u16| {
        let ports = format!(
            "{{name: t, port: 80, nodePort: {number}}}, {{name: u, port: 80, nodePort: {number}, protocol: UDP}}"
        );
        service("web", &format!("type: NodePort, ports: [{ports}]"))
    };
    let endpoints = |number: u8| {
        let ports = "{name: t, port: 9000}, {name: u, port: 9000, protocol: UDP}";
        slice_of("web", "one", ports, &[(number, "")])
    };
    let program = up(&[("web.yaml", &web(30080)), ("slice.yaml", &endpoints(1))]);
    program.wait_for_endpoints("web", 1);
    let [old, new] = [addr("127.0.0.1:30080"), addr("127.0.0.1:30081")];
    let client = udp::client(old);
    assert_eq!(get_from(address(9), old).unwrap(), "b1");
    assert_eq!(udp::ask(&client).unwrap(), "b1");
    edit(&program, "slice.yaml", &endpoints(2));
    assert_eq!(get_from(address(9), old).unwrap(), "b2");
    assert_eq!(udp::ask(&client).unwrap(), "b2");
    edit(&program, "web.yaml", &web(30081));
    assert_eq!(get_from(address(9), new).unwrap(), "b2");
    assert_eq!(udp::ask(&udp::client(new)).unwrap(), "b2");
    assert!(is_refused(ANYWHERE, old));
    assert!(udp::ask(&udp::client(old)).is_err());
}
