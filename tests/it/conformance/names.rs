//! Names (`dns.go`, `service.go` of Kubernetes' `test/e2e/network`; the DNS specification of the Kubernetes project).

use std::process::Command;

use hickory_proto::{
    op::Message,
    rr::{RData, RecordType},
};

use super::{address, backends, edit, pod, service, slice_of, up};
use crate::{
    names::{addresses, ask_tcp, ask_udp},
    support::{namespace::in_namespace, program::Program},
};

const DOMAIN: &str = "default.svc.cluster.local.";

/// What a question is answered with, over UDP and TCP alike.
fn ask(program: &Program, name: &str, record_type: RecordType) -> Message {
    let server = program.status().dns[0].bound.unwrap();
    let by_udp = ask_udp(server, name, record_type);
    let by_tcp = ask_tcp(server, name, record_type);
    assert_eq!(data(&by_udp), data(&by_tcp), "{name}");
    by_udp
}

/// The data of the answers, sorted.
fn data(message: &Message) -> Vec<String> {
    let records = message.answers.iter();
    let mut data: Vec<String> = records.map(|record| record.data.to_string()).collect();
    data.sort();
    data
}

#[test]
fn row_12_services_have_address_and_port_records_with_and_without_cluster_ip() {
    in_namespace!(Root);
    backends(2);
    let ports = "ports: [{name: http, port: 80}]";
    let endpoints =
        |name: &str| slice_of(name, "one", "{name: http, port: 9000}", &[(1, ""), (2, "")]);
    let text = service("plain", &format!("clusterIP: 127.96.7.7, {ports}"))
        + &endpoints("plain")
        + &service("headless", &format!("clusterIP: None, {ports}"))
        + &endpoints("headless");
    let program = up(&[("web.yaml", &text)]);
    let plain = ask(&program, &format!("plain.{DOMAIN}"), RecordType::A);
    assert_eq!(data(&plain), ["127.96.7.7"]);
    let headless = ask(&program, &format!("headless.{DOMAIN}"), RecordType::A);
    assert_eq!(addresses(&headless), [address(1), address(2)]);
    for (name, port, count) in [("plain", 80, 1), ("headless", 9000, 2)] {
        let question = format!("_http._tcp.{name}.{DOMAIN}");
        let answer = ask(&program, &question, RecordType::SRV);
        assert_eq!(answer.answers.len(), count, "{answer:?}");
        for record in &answer.answers {
            let RData::SRV(srv) = &record.data else {
                panic!("{record:?}");
            };
            assert_eq!(srv.port, port, "{name}");
            let target = ask(&program, &srv.target.to_ascii(), RecordType::A);
            assert_eq!(target.answers.len(), 1, "{}", srv.target);
        }
    }
    let reverse = ask(&program, "7.7.96.127.in-addr.arpa.", RecordType::PTR);
    assert_eq!(data(&reverse), [format!("plain.{DOMAIN}")]);
}

#[test]
fn row_12_partial_names_resolve_for_a_resolver_that_people_use() {
    in_namespace!(Root);
    let web = service("web", "clusterIP: 127.96.7.7, ports: [{port: 80}]");
    let program = up(&[("web.yaml", &web)]);
    let server = program.status().dns[0].bound.unwrap();
    for name in [
        "web",
        "web.default",
        "web.default.svc",
        "web.default.svc.cluster.local",
    ] {
        for transport in ["+notcp", "+tcp"] {
            let asked = Command::new("dig")
                .args([
                    "+short",
                    "+tries=1",
                    transport,
                    "-p",
                    &server.port().to_string(),
                ])
                .args([&format!("@{}", server.ip()), name, "A"])
                .output();
            let Ok(asked) = asked else {
                println!("dig is missing: asked by the library instead");
                let answer = ask(&program, &format!("{name}."), RecordType::A);
                assert_eq!(data(&answer), ["127.96.7.7"], "{name}");
                continue;
            };
            let answer = String::from_utf8_lossy(&asked.stdout).into_owned();
            assert_eq!(answer.trim(), "127.96.7.7", "{name} {transport}");
        }
    }
}

#[test]
fn row_12_pods_have_names_by_hostname_and_subdomain() {
    in_namespace!(Root);
    backends(2);
    let text = service(
        "sub",
        "clusterIP: None, selector: {app: web}, ports: [{port: 80}]",
    ) + &pod(1, "", ", hostname: first, subdomain: sub", "")
        + &pod(2, "", ", hostname: second, subdomain: sub", "");
    let program = up(&[("web.yaml", &text)]);
    let all = ask(&program, &format!("sub.{DOMAIN}"), RecordType::A);
    assert_eq!(addresses(&all), [address(1), address(2)]);
    for (hostname, number) in [("first", 1), ("second", 2)] {
        let answer = ask(&program, &format!("{hostname}.sub.{DOMAIN}"), RecordType::A);
        assert_eq!(addresses(&answer), [address(number)], "{hostname}");
    }
}

#[test]
fn row_12_external_name_is_an_alias_that_changes_and_becomes_an_address() {
    in_namespace!(Root);
    let alias = |name: &str| service("web", &format!("type: ExternalName, externalName: {name}"));
    let program = up(&[("web.yaml", &alias("foo.example.com"))]);
    let name = format!("web.{DOMAIN}");
    let answer = ask(&program, &name, RecordType::CNAME);
    assert_eq!(data(&answer), ["foo.example.com."]);
    edit(&program, "web.yaml", &alias("bar.example.com"));
    let answer = ask(&program, &name, RecordType::CNAME);
    assert_eq!(data(&answer), ["bar.example.com."]);
    edit(
        &program,
        "web.yaml",
        &service("web", "clusterIP: 127.96.7.7, ports: [{port: 80}]"),
    );
    assert_eq!(data(&ask(&program, &name, RecordType::A)), ["127.96.7.7"]);
    assert!(ask(&program, &name, RecordType::CNAME).answers.is_empty());
}
