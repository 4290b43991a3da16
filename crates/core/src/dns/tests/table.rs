//! Questions and their answers. `Z` stands for `cluster.local`, which is the zone where the question gives none.

use std::sync::Arc;

use super::fixture;
use crate::{
    dns::{
        Answer, Class, Moment, Name, PodNames, Question, Rcode, Record, RecordData, RecordType,
        answer, meant,
    },
    snapshot::{ClientPlace, Snapshot},
};

/// Names, types and what they are answered with; the server is held to the same over its sockets.
const CASES: &str = include_str!("cases.txt");

#[test]
fn answer_every_case_is_as_the_table_says() {
    let snapshot = fixture::snapshot();
    let lines = CASES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let (question, expected) = line.split_once(" | ").expect(line);
        let (names, types) = question.split_once(" : ").expect(line);
        for name in names.split(' ') {
            for rtype in types.split(' ') {
                check_in(&snapshot, &format!("{name} {rtype}"), expected);
            }
        }
    }
}

/// Asks `name type` and compares with the form that the table has.
pub(super) fn check_in(snapshot: &Snapshot, question: &str, expected: &str) {
    check_at(ClientPlace::OnNode, snapshot, question, expected);
}

/// The same for a client at `place`.
pub(super) fn check_at(place: ClientPlace, snapshot: &Snapshot, question: &str, expected: &str) {
    let asked = parse(question);
    let moment = Moment {
        serial: 7,
        seed: 3,
        place,
    };
    let answer = answer(snapshot, &asked, moment);
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
fn answer_pod_names_by_their_mode() {
    let mut snapshot = fixture::snapshot();
    let mut with = |pods| {
        Arc::make_mut(&mut snapshot.cluster).dns.pods = pods;
        snapshot.clone()
    };
    let disabled = with(PodNames::Disabled);
    for name in ["10-1-0-21.data.pod", "data.pod", "pod"] {
        check_in(&disabled, &format!("{name} A"), "NXDOMAIN; -; Z; -");
    }
    let insecure = with(PodNames::Insecure);
    for (question, expected) in [
        ("10-9-9-9.data.pod A", "NOERROR; A 10.9.9.9; -; -"),
        ("10-9-9-9.empty.pod A", "NOERROR; A 10.9.9.9; -; -"),
        ("10-9-9-9.data.pod AAAA", "NOERROR; -; Z; -"),
        (
            "fd00-10-1--9.data.pod AAAA",
            "NOERROR; AAAA fd00:10:1::9; -; -",
        ),
        ("10-9-9-9.hidden.pod A", "NXDOMAIN; -; Z; -"),
        ("10-9-9.data.pod A", "NXDOMAIN; -; Z; -"),
        ("10-9-9-256.data.pod A", "NXDOMAIN; -; Z; -"),
        ("junk.data.pod TXT", "NXDOMAIN; -; Z; -"),
        ("data.pod A", "NOERROR; -; Z; -"),
    ] {
        check_in(&insecure, question, expected);
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
                ..Moment::default()
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
fn meant_is_the_same_name_elsewhere_or_a_near_one() {
    let snapshot = fixture::snapshot();
    let guess = |name: &str| {
        let name = Name::parse(&absolute(name)).unwrap();
        meant(&snapshot, &name).map(|name| short(&name.to_string()))
    };
    for (name, expected) in [
        ("wbe.shop.svc", Some("web.shop.svc.Z")),
        ("web.shopp.svc", Some("web.shop.svc.Z")),
        ("pgg.data.svc.local.", Some("pg.data.svc.local.")),
        ("web.data.svc", Some("web.shop.svc.Z")),
        ("pgal.data.svc.local.", Some("pgall.data.svc.local.")),
        ("web.shop.svc", None),
        ("google.com.svc", None),
        ("web.shop", None),
        ("wbe.shop.pod", None),
        ("x.wbe.shop.svc", None),
        ("example.net.", None),
    ] {
        assert_eq!(guess(name).as_deref(), expected, "{name}");
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
