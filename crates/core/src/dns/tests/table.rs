//! Questions and their answers. `Z` stands for `cluster.local`, which is the zone where the question gives none.

use std::sync::Arc;

use super::fixture;
use crate::{
    dns::{Answer, Class, Moment, Name, Question, Rcode, Record, RecordData, RecordType, answer},
    snapshot::Snapshot,
};

/// Asks `name type` and compares `rcode; answers; authority; additional`. Addresses come sorted, an owner only where
/// it is not the name that was asked, an SOA as the name of its zone.
fn check(question: &str, expected: &str) {
    check_in(&fixture::snapshot(), question, expected);
}

fn check_in(snapshot: &Snapshot, question: &str, expected: &str) {
    let asked = parse(question);
    let answer = answer(snapshot, &asked, Moment { serial: 7, seed: 3 });
    assert_eq!(show(&asked.name, &answer), expected, "{question}");
    assert_eq!(
        answer.authoritative,
        answer.rcode != Rcode::Refused,
        "{question}"
    );
    assert!(
        answer
            .answers
            .iter()
            .chain(&answer.additional)
            .all(|record| match record.data {
                RecordData::Txt(_) => record.ttl == 28_800,
                _ => record.ttl == 5,
            })
    );
}

fn parse(question: &str) -> Question {
    let (name, rtype) = question.split_once(' ').unwrap();
    Question::new(
        Name::parse(&absolute(name)).unwrap(),
        rtype.parse().unwrap(),
    )
}

fn absolute(name: &str) -> String {
    match name {
        "@" => "cluster.local.".to_owned(),
        _ if name.ends_with('.') => name.to_owned(),
        _ => format!("{name}.cluster.local."),
    }
}

fn show(asked: &Name, answer: &Answer) -> String {
    let mut addresses: Vec<_> = answer
        .answers
        .iter()
        .map(|record| show_record(asked, record))
        .collect();
    if answer
        .answers
        .iter()
        .all(|record| matches!(record.data, RecordData::A(_) | RecordData::Aaaa(_)))
    {
        addresses.sort();
    }
    let authority = answer.authority.iter().map(|record| match &record.data {
        RecordData::Soa(_) => short(&record.name.to_string()),
        _ => record.to_string(),
    });
    let additional = answer
        .additional
        .iter()
        .map(|record| show_record(asked, record));
    let sections = [addresses, authority.collect(), additional.collect()];
    let sections = sections.map(|section| {
        if section.is_empty() {
            "-".to_owned()
        } else {
            section.join(", ")
        }
    });
    format!("{}; {}", answer.rcode, sections.join("; "))
}

fn show_record(asked: &Name, record: &Record) -> String {
    let owner = if record.name == *asked {
        String::new()
    } else {
        short(&record.name.to_string()) + " "
    };
    format!(
        "{owner}{} {}",
        record.data.rtype(),
        short(&record.data.to_string())
    )
}

fn short(text: &str) -> String {
    text.replace("cluster.local.", "Z")
}

#[test]
fn answer_service_names_gives_its_addresses_by_family() {
    check("web.shop.svc A", "NOERROR; A 10.96.1.10; -; -");
    check("web.shop.svc AAAA", "NOERROR; -; Z; -");
    check("dual.shop.svc A", "NOERROR; A 10.96.1.20; -; -");
    check("dual.shop.svc AAAA", "NOERROR; AAAA fd00:10:96::20; -; -");
    check("v6only.shop.svc AAAA", "NOERROR; AAAA fd00:10:96::30; -; -");
    check("v6only.shop.svc A", "NOERROR; -; Z; -");
    check("bare.shop.svc A", "NOERROR; A 10.96.1.60; -; -");
    check("idle.shop.svc A", "NOERROR; A 10.96.1.50; -; -");
    check("anon.shop.svc A", "NOERROR; A 10.96.1.40; -; -");
}

#[test]
fn answer_missing_names_is_nxdomain_with_the_zones_soa() {
    for name in [
        "nosuch.shop.svc",
        "web.hidden.svc",
        "web.empty.svc",
        "hidden.svc",
        "hidden.pod",
        "*.shop.svc",
        "any.shop.svc",
        "google.com.shop.svc",
        "google.com.svc",
        "google.com",
        "foo",
        "foo.dns",
        "a.b.web.shop.svc",
        "a._http._tcp.web.shop.svc",
        "web.shop.svc.x",
        "100.0.0.10",
        "example.org",
    ] {
        for rtype in [
            "A",
            "AAAA",
            "SRV",
            "TXT",
            "NS",
            "ANY",
            "PTR",
            "CNAME",
            "TYPE65400",
        ] {
            check(&format!("{name} {rtype}"), "NXDOMAIN; -; Z; -");
        }
    }
}

#[test]
fn answer_empty_non_terminals_is_no_data() {
    for name in [
        "@",
        "svc",
        "pod",
        "empty.svc",
        "empty.pod",
        "shop.svc",
        "shop.pod",
        "dns",
        "_tcp.web.shop.svc",
        "_tcp.pg.data.svc",
    ] {
        for rtype in ["A", "AAAA", "SRV", "TXT", "PTR", "HINFO", "MX", "CNAME"] {
            check(&format!("{name} {rtype}"), "NOERROR; -; Z; -");
        }
    }
    check("_udp.web.shop.svc A", "NXDOMAIN; -; Z; -");
    check("_udp.dns2.shop.svc A", "NOERROR; -; Z; -");
    check("_tcp.anon.shop.svc A", "NXDOMAIN; -; Z; -");
}

#[test]
fn answer_endpoint_names_follows_hostname_then_address() {
    check("10-1-0-11.web.shop.svc A", "NOERROR; A 10.1.0.11; -; -");
    check("10-1-0-50.idle.shop.svc A", "NXDOMAIN; -; Z; -");
    check("pg-0.pg.data.svc A", "NOERROR; A 10.1.0.21; -; -");
    check("pg-0.pg.data.svc AAAA", "NOERROR; AAAA fd00:10:1::21; -; -");
    check("pg-1.pg.data.svc AAAA", "NOERROR; -; Z; -");
    check("10-1-0-21.pg.data.svc A", "NXDOMAIN; -; Z; -");
    check("pg-2.pg.data.svc A", "NXDOMAIN; -; Z; -");
    check("10-1-0-21.pgall.data.svc A", "NOERROR; A 10.1.0.21; -; -");
    check("10-1-0-31.raw.data.svc A", "NOERROR; A 10.1.0.31; -; -");
    check(
        "twin.twin.data.svc A",
        "NOERROR; A 10.1.0.41, A 10.1.0.42; -; -",
    );
    check("early-0.early.data.svc A", "NOERROR; A 10.1.0.51; -; -");
    check("fd00--0.six.data.svc AAAA", "NOERROR; AAAA fd00::; -; -");
    check("fd00--.six.data.svc AAAA", "NXDOMAIN; -; Z; -");
    check("pg-0.pg.data.svc SRV", "NOERROR; -; Z; -");
}

#[test]
fn answer_headless_names_gives_every_ready_endpoint_once() {
    check("pg.data.svc A", "NOERROR; A 10.1.0.21, A 10.1.0.22; -; -");
    check("pg.data.svc AAAA", "NOERROR; AAAA fd00:10:1::21; -; -");
    check("pgall.data.svc AAAA", "NOERROR; -; Z; -");
    check("raw.data.svc A", "NOERROR; A 10.1.0.31; -; -");
    check(
        "twin.data.svc A",
        "NOERROR; A 10.1.0.41, A 10.1.0.42, A 10.1.0.43; -; -",
    );
    check("twice.data.svc A", "NOERROR; A 10.1.0.71; -; -");
    check("early.data.svc A", "NOERROR; A 10.1.0.51; -; -");
    for rtype in ["A", "AAAA", "SRV", "MX"] {
        check(&format!("down.data.svc {rtype}"), "NXDOMAIN; -; Z; -");
    }
}

#[test]
fn answer_srv_of_service_gives_service_ports() {
    check(
        "_http._tcp.web.shop.svc SRV",
        "NOERROR; SRV 0 100 80 web.shop.svc.Z; -; web.shop.svc.Z A 10.96.1.10",
    );
    check(
        "web.shop.svc SRV",
        "NOERROR; SRV 0 50 80 web.shop.svc.Z, SRV 0 50 443 web.shop.svc.Z; -; A 10.96.1.10",
    );
    check(
        "_grpc._tcp.dual.shop.svc SRV",
        "NOERROR; SRV 0 50 9000 dual.shop.svc.Z; -; dual.shop.svc.Z A 10.96.1.20, dual.shop.svc.Z AAAA fd00:10:96::20",
    );
    check(
        "_dns._udp.dns2.shop.svc SRV",
        "NOERROR; SRV 0 100 53 dns2.shop.svc.Z; -; dns2.shop.svc.Z A 10.96.1.53",
    );
    check("_dns._tcp.dns2.shop.svc SRV", "NXDOMAIN; -; Z; -");
    check("_x._tcp.web.shop.svc SRV", "NXDOMAIN; -; Z; -");
    check("_http._udp.web.shop.svc SRV", "NXDOMAIN; -; Z; -");
    check("http.tcp.web.shop.svc SRV", "NXDOMAIN; -; Z; -");
    check("_._tcp.anon.shop.svc SRV", "NXDOMAIN; -; Z; -");
    check(
        "anon.shop.svc SRV",
        "NOERROR; SRV 0 100 5000 anon.shop.svc.Z; -; A 10.96.1.40",
    );
    check("bare.shop.svc SRV", "NOERROR; -; Z; -");
    check("_http._tcp.web.shop.svc A", "NOERROR; -; Z; -");
}

#[test]
fn answer_srv_of_headless_gives_slice_ports_and_endpoint_names() {
    check(
        "_pg._tcp.pg.data.svc SRV",
        "NOERROR; SRV 0 33 5432 pg-0.pg.data.svc.Z, SRV 0 33 5432 pg-1.pg.data.svc.Z; -; \
         pg-0.pg.data.svc.Z A 10.1.0.21, pg-0.pg.data.svc.Z AAAA fd00:10:1::21, pg-1.pg.data.svc.Z A 10.1.0.22",
    );
    check(
        "_http._tcp.twin.data.svc SRV",
        "NOERROR; SRV 0 33 80 twin.twin.data.svc.Z, SRV 0 33 80 10-1-0-43.twin.data.svc.Z; -; \
         twin.twin.data.svc.Z A 10.1.0.41, twin.twin.data.svc.Z A 10.1.0.42, 10-1-0-43.twin.data.svc.Z A 10.1.0.43",
    );
    check("raw.data.svc SRV", "NOERROR; -; Z; -");
    check(
        "twice.data.svc SRV",
        "NOERROR; SRV 0 33 9 10-1-0-71.twice.data.svc.Z, SRV 0 33 10 10-1-0-71.twice.data.svc.Z; -; \
         10-1-0-71.twice.data.svc.Z A 10.1.0.71",
    );
    check("_y._tcp.pg.data.svc SRV", "NXDOMAIN; -; Z; -");
}

#[test]
fn answer_external_names_is_an_alias_for_every_type() {
    for rtype in ["CNAME", "A", "AAAA", "SRV", "TXT", "ANY", "HTTPS"] {
        check(
            &format!("ext.shop.svc {rtype}"),
            "NOERROR; CNAME db.example.net.; -; -",
        );
    }
    check("extlocal.shop.svc A", "NOERROR; CNAME printer.local.; -; -");
    check(
        "extin.shop.svc A",
        "NOERROR; CNAME web.shop.svc.Z, web.shop.svc.Z A 10.96.1.10; -; -",
    );
    check(
        "extin.shop.svc CNAME",
        "NOERROR; CNAME web.shop.svc.Z; -; -",
    );
    check("extv6.shop.svc A", "NOERROR; CNAME v6only.shop.svc.Z; Z; -");
    check(
        "extgone.shop.svc A",
        "NXDOMAIN; CNAME nosuch.shop.svc.Z; Z; -",
    );
    check(
        "exself.shop.svc A",
        "NOERROR; CNAME exself.shop.svc.Z; -; -",
    );
    check(
        "exa.shop.svc A",
        "NOERROR; CNAME exb.shop.svc.Z, exb.shop.svc.Z CNAME exa.shop.svc.Z; -; -",
    );
    check("extip.shop.svc A", "NXDOMAIN; -; Z; -");
    check("x.ext.shop.svc CNAME", "NXDOMAIN; -; Z; -");
    check("a.b.ext.shop.svc CNAME", "NXDOMAIN; -; Z; -");
    check("_http._tcp.ext.shop.svc SRV", "NXDOMAIN; -; Z; -");
}

#[test]
fn answer_reverse_names_gives_services_then_endpoints() {
    check(
        "10.1.96.10.in-addr.arpa. PTR",
        "NOERROR; PTR web.shop.svc.Z; -; -",
    );
    check(
        "10.1.96.10.in-addr.arpa. A",
        "NOERROR; -; 96.10.in-addr.arpa.; -",
    );
    check(
        "21.0.1.10.in-addr.arpa. PTR",
        "NOERROR; PTR pg-0.pg.data.svc.Z, PTR 10-1-0-21.pgall.data.svc.Z; -; -",
    );
    check(
        "71.0.1.10.in-addr.arpa. PTR",
        "NOERROR; PTR 10-1-0-71.twice.data.svc.Z; -; -",
    );
    check(
        "11.0.1.10.in-addr.arpa. PTR",
        "NOERROR; PTR 10-1-0-11.web.shop.svc.Z; -; -",
    );
    check(
        "11.0.1.10.in-addr.arpa. TXT",
        "NOERROR; -; 11.0.1.10.in-addr.arpa.; -",
    );
    check(
        "1.96.10.in-addr.arpa. PTR",
        "NOERROR; -; 96.10.in-addr.arpa.; -",
    );
    check(
        "9.96.10.in-addr.arpa. PTR",
        "NXDOMAIN; -; 96.10.in-addr.arpa.; -",
    );
    check(
        "99.1.96.10.in-addr.arpa. PTR",
        "NXDOMAIN; -; 96.10.in-addr.arpa.; -",
    );
    check(
        "1.10.1.96.10.in-addr.arpa. PTR",
        "NXDOMAIN; -; 96.10.in-addr.arpa.; -",
    );
    check(
        "010.1.96.10.in-addr.arpa. PTR",
        "NXDOMAIN; -; 96.10.in-addr.arpa.; -",
    );
    check(
        "96.10.in-addr.arpa. PTR",
        "NOERROR; -; 96.10.in-addr.arpa.; -",
    );
    check(
        "96.10.in-addr.arpa. NS",
        "NOERROR; NS ns.dns.Z; -; ns.dns.Z A 10.96.0.10",
    );
    check(
        "96.10.in-addr.arpa. SOA",
        "NOERROR; SOA ns.dns.96.10.in-addr.arpa. hostmaster.96.10.in-addr.arpa. 7 7200 1800 86400 5; -; -",
    );
    let six = Name::reverse("fd00:10:96::20".parse().unwrap());
    check(&format!("{six} PTR"), "NOERROR; PTR dual.shop.svc.Z; -; -");
}

#[test]
fn answer_reverse_names_of_others_is_refused() {
    for name in [
        "23.0.1.10.in-addr.arpa.",
        "99.0.1.10.in-addr.arpa.",
        "10.in-addr.arpa.",
        "in-addr.arpa.",
        "arpa.",
        "1.2.0.192.in-addr.arpa.",
        "x.ip6.arpa.",
        "x.10.in-addr.arpa.",
    ] {
        check(&format!("{name} PTR"), "REFUSED; -; -; -");
    }
}

#[test]
fn answer_reverse_of_a_range_between_octets_splits_it_into_zones() {
    let mut snapshot = fixture::snapshot();
    let cluster = Arc::make_mut(&mut snapshot.cluster);
    cluster.service_cidr = "10.96.0.0/15".parse().unwrap();
    check_in(
        &snapshot,
        "9.9.97.10.in-addr.arpa. PTR",
        "NXDOMAIN; -; 97.10.in-addr.arpa.; -",
    );
    check_in(&snapshot, "9.9.98.10.in-addr.arpa. PTR", "REFUSED; -; -; -");
    check_in(
        &snapshot,
        "10.1.96.10.in-addr.arpa. PTR",
        "NOERROR; PTR web.shop.svc.Z; -; -",
    );
}

#[test]
fn answer_pod_names_knows_endpoints_of_the_namespace() {
    check("10-1-0-21.data.pod A", "NOERROR; A 10.1.0.21; -; -");
    check("10-1-0-21.data.pod AAAA", "NOERROR; -; Z; -");
    check(
        "fd00-10-1--21.data.pod AAAA",
        "NOERROR; AAAA fd00:10:1::21; -; -",
    );
    check("10-1-0-21.shop.pod A", "NXDOMAIN; -; Z; -");
    check("10-9-9-9.data.pod A", "NXDOMAIN; -; Z; -");
    check("junk.data.pod A", "NXDOMAIN; -; Z; -");
    check("x.10-1-0-21.data.pod A", "NXDOMAIN; -; Z; -");
}

#[test]
fn answer_apex_and_fixed_names_describes_the_zone() {
    check(
        "@ SOA",
        "NOERROR; SOA ns.dns.Z hostmaster.Z 7 7200 1800 86400 5; -; -",
    );
    check("@ NS", "NOERROR; NS ns.dns.Z; -; ns.dns.Z A 10.96.0.10");
    check("@ ANY", "NOERROR; HINFO \"RFC8482\" \"\"; -; -");
    check("ns.dns A", "NOERROR; A 10.96.0.10; -; -");
    check("ns.dns AAAA", "NOERROR; -; Z; -");
    check("svc NS", "NOERROR; -; Z; -");
    check("shop.svc SOA", "NOERROR; -; Z; -");
    check("dns-version TXT", "NOERROR; TXT \"1.1.0\"; -; -");
    check("dns-version A", "NOERROR; -; Z; -");
}

#[test]
fn answer_other_types_is_no_data_and_transfers_are_refused() {
    for rtype in [
        "HTTPS",
        "MX",
        "TYPE65400",
        "CNAME",
        "DS",
        "PTR",
        "TXT",
        "SOA",
        "NS",
    ] {
        check(&format!("web.shop.svc {rtype}"), "NOERROR; -; Z; -");
    }
    check("web.shop.svc ANY", "NOERROR; HINFO \"RFC8482\" \"\"; -; -");
    check("@ AXFR", "REFUSED; -; -; -");
    check("@ IXFR", "REFUSED; -; -; -");
}

#[test]
fn answer_other_classes_is_refused() {
    for class in [3, 4, 254, 255] {
        let question = Question {
            class: Class::from(class),
            ..parse("web.shop.svc A")
        };
        let answer = answer(&fixture::snapshot(), &question, Moment::default());
        assert_eq!(
            (answer.rcode, answer.authoritative),
            (Rcode::Refused, false)
        );
    }
}

#[test]
fn answer_alias_zone_stands_for_the_service_subtree() {
    check("web.shop.svc.local. A", "NOERROR; A 10.96.1.10; -; -");
    check("web.shop.svc.local. AAAA", "NOERROR; -; svc.local.; -");
    check("nosuch.shop.svc.local. A", "NXDOMAIN; -; svc.local.; -");
    check("shop.svc.local. A", "NOERROR; -; svc.local.; -");
    check(
        "svc.local. SOA",
        "NOERROR; SOA ns.dns.svc.local. hostmaster.svc.local. 7 7200 1800 86400 5; -; -",
    );
    check("svc.local. A", "NOERROR; -; svc.local.; -");
    check(
        "svc.local. NS",
        "NOERROR; NS ns.dns.Z; -; ns.dns.Z A 10.96.0.10",
    );
    check("dns-version.svc.local. TXT", "NXDOMAIN; -; svc.local.; -");
    check(
        "_http._tcp.web.shop.svc.local. SRV",
        "NOERROR; SRV 0 100 80 web.shop.svc.local.; -; web.shop.svc.local. A 10.96.1.10",
    );
    check("pg-0.pg.data.svc.local. A", "NOERROR; A 10.1.0.21; -; -");
}

#[test]
fn answer_local_and_other_foreign_names_is_refused() {
    for name in [
        "local.",
        "printer.local.",
        "web.shop.local.",
        "pod.local.",
        "shop.pod.local.",
        "example.net.",
        ".",
    ] {
        for rtype in ["A", "SOA", "ANY"] {
            check(&format!("{name} {rtype}"), "REFUSED; -; -; -");
        }
    }
}

#[test]
fn answer_bare_names_walks_the_search_list() {
    check("web. A", "NOERROR; A 10.96.1.10; -; -");
    check("web. AAAA", "NOERROR; -; Z; -");
    check("web.shop. A", "NOERROR; A 10.96.1.10; -; -");
    check("web.shop.svc. A", "NOERROR; A 10.96.1.10; -; -");
    check("pg.data. A", "NOERROR; A 10.1.0.21, A 10.1.0.22; -; -");
    check("pg-0.pg.data. A", "NOERROR; A 10.1.0.21; -; -");
    check("ext. A", "NOERROR; CNAME db.example.net.; -; -");
    check(
        "_http._tcp.web. SRV",
        "NOERROR; SRV 0 100 80 web.shop.svc.Z; -; web.shop.svc.Z A 10.96.1.10",
    );
    for name in [
        "pg.",
        "shop.",
        "svc.",
        "nosuch.",
        "nosuch.shop.",
        "google.com.",
        "down.data.",
    ] {
        check(&format!("{name} A"), "REFUSED; -; -; -");
    }
}

#[test]
fn answer_bare_names_without_a_search_namespace_is_refused() {
    let mut snapshot = fixture::snapshot();
    Arc::make_mut(&mut snapshot.cluster).search_namespace = None;
    check_in(&snapshot, "web. A", "REFUSED; -; -; -");
    check_in(&snapshot, "web.shop A", "NXDOMAIN; -; Z; -");
}

#[test]
fn answer_before_sync_finds_what_is_there_and_fails_what_is_not() {
    let mut snapshot = fixture::snapshot();
    snapshot.synced = false;
    check_in(&snapshot, "web.shop.svc A", "NOERROR; A 10.96.1.10; -; -");
    check_in(&snapshot, "web.shop.svc AAAA", "NOERROR; -; Z; -");
    check_in(&snapshot, "nosuch.shop.svc A", "SERVFAIL; -; Z; -");
    check_in(
        &snapshot,
        "extgone.shop.svc A",
        "SERVFAIL; CNAME nosuch.shop.svc.Z; Z; -",
    );
    check_in(
        &snapshot,
        "99.1.96.10.in-addr.arpa. PTR",
        "SERVFAIL; -; 96.10.in-addr.arpa.; -",
    );
}

#[test]
fn answer_several_domains_serves_each_and_points_back_to_the_first() {
    let mut snapshot = fixture::snapshot();
    let domains = ["cluster.local", "corp.example", "east.corp.example"].map(Arc::from);
    Arc::make_mut(&mut snapshot.cluster).domains = domains.to_vec();
    check_in(
        &snapshot,
        "web.shop.svc.corp.example. A",
        "NOERROR; A 10.96.1.10; -; -",
    );
    check_in(
        &snapshot,
        "nosuch.shop.svc.corp.example. A",
        "NXDOMAIN; -; corp.example.; -",
    );
    check_in(
        &snapshot,
        "nosuch.shop.svc.east.corp.example. A",
        "NXDOMAIN; -; east.corp.example.; -",
    );
    check_in(
        &snapshot,
        "10.1.96.10.in-addr.arpa. PTR",
        "NOERROR; PTR web.shop.svc.Z; -; -",
    );
    check_in(
        &snapshot,
        "corp.example. NS",
        "NOERROR; NS ns.dns.corp.example.; -; ns.dns.corp.example. A 10.96.0.10",
    );
}

#[test]
fn answer_never_claims_local_even_as_a_domain() {
    let mut snapshot = fixture::snapshot();
    Arc::make_mut(&mut snapshot.cluster).domains =
        vec![Arc::from("local"), Arc::from("cluster.local")];
    check_in(&snapshot, "local. SOA", "REFUSED; -; -; -");
    check_in(&snapshot, "web.shop.svc A", "NOERROR; A 10.96.1.10; -; -");
}

#[test]
fn answer_mixed_case_keeps_it_in_owner_zone_and_target() {
    let ask = |text: &str| answer(&fixture::snapshot(), &parse(text), Moment::default());
    let srv = ask("_HTTP._tCp.WeB.Shop.SVC.ClusTer.LOCAL. SRV");
    let [record] = &srv.answers[..] else {
        panic!("one record: {srv:?}")
    };
    assert_eq!(
        record.to_string(),
        "_HTTP._tCp.WeB.Shop.SVC.ClusTer.LOCAL. 5 IN SRV 0 100 80 web.shop.svc.ClusTer.LOCAL."
    );
    let missing = ask("nosuch.shop.svc.ClusTer.LOCAL. A");
    assert_eq!(missing.authority[0].name.to_string(), "ClusTer.LOCAL.");
}

#[test]
fn answer_address_order_is_uniform_over_seeds() {
    let snapshot = fixture::snapshot();
    for (name, count) in [
        ("pg.data.svc A", 2_usize),
        ("twin.data.svc A", 3),
        ("big.data.svc A", 60),
    ] {
        let rounds = 200 * count;
        let mut first = std::collections::BTreeMap::new();
        for seed in 0..rounds {
            let moment = Moment {
                serial: 1,
                seed: u64::try_from(seed).unwrap(),
            };
            let answer = answer(&snapshot, &parse(name), moment);
            assert_eq!(answer.answers.len(), count);
            *first
                .entry(answer.answers[0].data.to_string())
                .or_insert(0_u32) += 1;
        }
        assert_eq!(first.len(), count, "every address comes first at some time");
        // Chi-square against 200 each: mean count - 1, standard deviation sqrt(2 (count - 1)); five of them allowed.
        let chi: f64 = first
            .values()
            .map(|seen| (f64::from(*seen) - 200.0).powi(2) / 200.0)
            .sum();
        let freedom = f64::from(u32::try_from(count - 1).unwrap());
        assert!(
            chi < freedom + 5.0 * (2.0 * freedom).sqrt(),
            "{name}: chi-square {chi}"
        );
    }
}

#[test]
fn record_type_from_text_knows_mnemonics_and_numbers() {
    assert_eq!("aaaa".parse(), Ok(RecordType::Aaaa));
    assert_eq!("type28".parse(), Ok(RecordType::Aaaa));
    assert_eq!("TYPE65400".parse(), Ok(RecordType::Other(65400)));
    assert_eq!(RecordType::Other(65400).to_string(), "TYPE65400");
    for text in ["", "TYPE", "TYPE65536", "B", "é€x"] {
        assert!(text.parse::<RecordType>().is_err(), "{text}");
    }
}
