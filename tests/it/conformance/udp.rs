//! Other protocols than TCP, alone and beside it (`service.go`, `conntrack.go`, `loadbalancer.go` of Kubernetes'
//! `test/e2e/network`).

use std::io::ErrorKind;

use hickory_proto::rr::{RData, RecordType};
use rustix::net::{AddressFamily, SocketType, connect, ipproto, socket};

use super::{UNREADY, backends, edit, seen, service, slice_of, these, up};
use crate::{
    names::{addresses, ask_udp},
    support::{
        client::{ANYWHERE, is_refused},
        namespace::in_namespace,
        program::way,
    },
    udp::{ask, client},
};

const TCP: &str = "{name: t, port: 80}";
const UDP: &str = "{name: u, port: 80, protocol: UDP}";

#[test]
fn row_04_tcp_and_udp_share_a_port_and_either_goes_alone() {
    in_namespace!(Root);
    backends(1);
    let web = |ports: &str| service("web", &format!("clusterIP: 127.96.7.7, ports: [{ports}]"));
    let ports = "{name: t, port: 9000}, {name: u, port: 9000, protocol: UDP}";
    let endpoints = slice_of("web", "one", ports, &[(1, "")]);
    let both = format!("{TCP}, {UDP}");
    let program = up(&[("web.yaml", &web(&both)), ("slice.yaml", &endpoints)]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    assert_eq!(seen(ANYWHERE, door, 5), these(&[1]));
    assert_eq!(ask(&client(door)).unwrap(), "b1");
    edit(&program, "web.yaml", &web(TCP));
    assert_eq!(seen(ANYWHERE, door, 5), these(&[1]));
    assert!(ask(&client(door)).is_err_and(refused));
    edit(&program, "web.yaml", &web(UDP));
    assert!(is_refused(ANYWHERE, door));
    assert_eq!(ask(&client(door)).unwrap(), "b1");
}

/// A load balancer with a UDP port, behind it one backend.
fn balancer() -> String {
    service(
        "web",
        "type: LoadBalancer, ports: [{port: 80, nodePort: 30080, protocol: UDP}]",
    )
}

fn behind(number: u8, rest: &str) -> String {
    slice_of(
        "web",
        "one",
        "{port: 9000, protocol: UDP}",
        &[(number, rest)],
    )
}

#[test]
fn row_30_client_that_keeps_its_port_reaches_an_endpoint_once_it_is_ready() {
    in_namespace!(Root);
    backends(1);
    let program = up(&[
        ("web.yaml", &balancer()),
        ("slice.yaml", &behind(1, UNREADY)),
    ]);
    let web = program.wait_for_endpoints("web", 0);
    let clients = ["ClusterIP", "NodePort", "LoadBalancer"].map(|kind| client(way(&web, kind)));
    for client in &clients {
        let error = ask(client).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    edit(&program, "slice.yaml", &behind(1, ""));
    for client in &clients {
        assert_eq!(ask(client).unwrap(), "b1", "the next datagram");
    }
}

#[test]
fn row_30_client_that_keeps_its_port_follows_replaced_endpoints_by_every_frontend() {
    in_namespace!(Root);
    backends(2);
    let program = up(&[("web.yaml", &balancer()), ("slice.yaml", &behind(1, ""))]);
    let web = program.wait_for_endpoints("web", 1);
    let clients = ["ClusterIP", "NodePort", "LoadBalancer"].map(|kind| client(way(&web, kind)));
    for number in [1, 2, 1, 2, 1] {
        program.write("slice.yaml", &behind(number, ""));
        program.wait_for("the replacement", |status| {
            let endpoint = status.services[0].ports[0].endpoints.first();
            endpoint.is_some_and(|endpoint| endpoint.address.ip() == super::address(number))
        });
        for client in &clients {
            assert_eq!(ask(client).unwrap(), format!("b{number}"));
        }
    }
}

#[test]
fn row_36_sctp_services_have_addresses_endpoints_and_names() {
    in_namespace!(Root);
    backends(1);
    let spec = "ports: [{name: s, port: 5060, protocol: SCTP}, {name: t, port: 5060}]";
    let ports = "{name: s, port: 9000, protocol: SCTP}, {name: t, port: 9000}";
    let text = service("web", spec) + &slice_of("web", "one", ports, &[(1, "")]);
    let program = up(&[("web.yaml", &text)]);
    let status = program.wait_for("its endpoints", |status| {
        let web = &status.services[0];
        web.ports.iter().any(|port| !port.endpoints.is_empty())
    });
    let web = &status.services[0];
    assert_eq!(web.port_list, ["5060/SCTP", "5060/TCP"]);
    let object = program.wait_for_object("services", "web", |_| true);
    assert_eq!(object["spec"]["ports"][0]["protocol"], "SCTP", "{object}");
    let slice = program.wait_for_object("endpointslices", "web-one", |_| true);
    assert_eq!(slice["ports"][0]["protocol"], "SCTP", "{slice}");
    let server = status.dns[0].bound.unwrap();
    let name = "web.default.svc.cluster.local.";
    let found = addresses(&ask_udp(server, name, RecordType::A));
    assert_eq!(
        found,
        [web.cluster_ip.parse::<std::net::Ipv4Addr>().unwrap()]
    );
    let answer = ask_udp(server, &format!("_s._sctp.{name}"), RecordType::SRV);
    assert!(
        matches!(&answer.answers[..], [only] if matches!(&only.data, RData::SRV(srv) if srv.port == 5060)),
        "{answer:?}"
    );
    let door = way(web, "ClusterIP");
    assert_eq!(seen(ANYWHERE, door, 5), these(&[1]), "TCP beside it");
    let said = program.command(&["status"]).stdout;
    let said = String::from_utf8_lossy(&said).into_owned() + &status.findings_text();
    assert!(said.contains("SCTP"), "that it is not forwarded: {said}");
    match socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::SCTP)) {
        Ok(fd) => {
            println!("SCTP is not forwarded: a client must be refused");
            assert!(connect(&fd, &door).is_err());
        }
        Err(error) => println!("no SCTP connection was tried: this kernel has none: {error}"),
    }
}
