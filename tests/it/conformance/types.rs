//! Types of Services and the changes between them (`service.go` of Kubernetes' `test/e2e/network`).

use std::net::{Ipv4Addr, SocketAddr};

use hickory_proto::rr::{RData, RecordType};

use super::{backends, edit, seen, service, slice, these, up};
use crate::{
    names::{addresses, ask_udp},
    support::{
        addr,
        client::{ANYWHERE, is_refused},
        host::{self, Host},
        namespace::in_namespace,
        program::{Program, way},
    },
};

#[test]
fn row_01_service_is_reached_by_name_by_cluster_ip_and_by_node_port_on_every_node_address() {
    in_namespace!(Root);
    let other = Host::join();
    backends(2);
    let spec = "type: NodePort, ports: [{port: 80, nodePort: 30080}]";
    let text = service("web", spec) + &slice("web", &[(1, ""), (2, "")]);
    let program = up(&[("web.yaml", &text)]);
    let web = program.wait_for_endpoints("web", 2);
    let by_name = name_of(&program, "web.default.svc.cluster.local.");
    assert_eq!(by_name, [web.cluster_ip.parse::<Ipv4Addr>().unwrap()]);
    let by_name = SocketAddr::from((by_name[0], 80));
    let local = addr("127.0.0.1:30080");
    let node = SocketAddr::from((host::HERE, 30080));
    for door in [by_name, local, node] {
        assert_eq!(seen(ANYWHERE, door, 10), these(&[1, 2]), "{door}");
    }
    assert_eq!(other.run(|| seen(ANYWHERE, node, 10)), these(&[1, 2]));
}

#[test]
fn row_02_external_name_becomes_cluster_ip_and_back() {
    in_namespace!(Root);
    check_changes("ports: [{port: 80}]", "ClusterIP");
}

#[test]
fn row_02_external_name_becomes_node_port_and_back() {
    in_namespace!(Root);
    let door = check_changes(
        "type: NodePort, ports: [{port: 80, nodePort: 30080}]",
        "NodePort",
    );
    assert_eq!(door, addr("127.0.0.1:30080"));
}

/// From an alias to the type and back: what is allocated serves, and is released.
fn check_changes(spec: &str, kind: &str) -> SocketAddr {
    backends(2);
    let alias = service("web", "type: ExternalName, externalName: example.com");
    let endpoints = slice("web", &[(1, ""), (2, "")]);
    let program = up(&[("web.yaml", &alias), ("slice.yaml", &endpoints)]);
    assert_eq!(alias_of(&program), ["example.com."]);

    program.write("web.yaml", &service("web", spec));
    let web = program.wait_for_endpoints("web", 2);
    assert_eq!(web.service_type, kind);
    let cluster_ip = way(&web, "ClusterIP");
    assert_eq!(
        name_of(&program, "web.default.svc.cluster.local."),
        [cluster_ip.ip()],
        "an address where the alias was"
    );
    assert_eq!(alias_of(&program), [""; 0]);
    let door = way(&web, kind);
    for door in [cluster_ip, door] {
        assert_eq!(seen(ANYWHERE, door, 10), these(&[1, 2]), "{door}");
    }

    edit(&program, "web.yaml", &alias);
    assert_eq!(alias_of(&program), ["example.com."]);
    for door in [cluster_ip, door] {
        assert!(is_refused(ANYWHERE, door), "{door} is released");
    }
    // Released means that another may have both.
    let ip = cluster_ip.ip();
    let next = service("next", &format!("clusterIP: {ip}, {spec}"));
    program.write("next.yaml", &(next + &slice("next", &[(1, "")])));
    let next = program.wait_for_endpoints("next", 1);
    assert_eq!(
        (way(&next, "ClusterIP"), way(&next, kind)),
        (cluster_ip, door)
    );
    assert_eq!(seen(ANYWHERE, door, 2), these(&[1]));
    door
}

fn name_of(program: &Program, name: &str) -> Vec<Ipv4Addr> {
    let server = program.status().dns[0].bound.unwrap();
    addresses(&ask_udp(server, name, RecordType::A))
}

/// Aliases that `web` has.
fn alias_of(program: &Program) -> Vec<String> {
    let server = program.status().dns[0].bound.unwrap();
    let answer = ask_udp(server, "web.default.svc.cluster.local.", RecordType::CNAME);
    let records = answer.answers.iter();
    let aliases = records.filter_map(|record| match &record.data {
        RData::CNAME(name) => Some(name.0.to_ascii()),
        _ => None,
    });
    aliases.collect()
}
