//! The short way against the ordinary one, byte for byte, and the evenness of orders.

use std::sync::Arc;

use proptest::prelude::*;

use super::fixture::{self, slice, vip};
use crate::{
    dns::{
        Moment, Rcode,
        fast::{self, Hit},
        packet::{Transport, respond},
    },
    snapshot::{
        ClientPlace, Snapshot,
        assemble::{assemble, index_service, keep_prepared, unindex_service},
    },
};

const MOMENT: Moment = Moment {
    serial: 0x0102_0304,
    seed: 99,
    place: ClientPlace::OnNode,
};

/// What the short way says; checked against the ordinary one where it says something.
fn ask(snapshot: &Snapshot, packet: &[u8], transport: Transport, moment: Moment) -> Option<Hit> {
    let mut out = vec![0xff; 7];
    let hit = fast::respond(snapshot, packet, (transport, moment), &mut out)?;
    let ordinary = respond(snapshot, packet, transport, moment).unwrap();
    assert_eq!(out, ordinary.bytes, "{packet:02x?}");
    assert_eq!(
        (Some(hit.rtype), hit.rcode, hit.truncated),
        (ordinary.rtype, ordinary.rcode, ordinary.truncated)
    );
    Some(hit)
}

fn query(name: &str, rtype: u16, edns: Option<u16>) -> Vec<u8> {
    let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    packet.extend(rtype.to_be_bytes());
    packet.extend([0, 1]);
    if let Some(payload) = edns {
        packet[11] = 1;
        packet.extend([0, 0, 41]);
        packet.extend(payload.to_be_bytes());
        packet.extend([0, 0, 0x80, 0, 0, 0]);
    }
    packet
}

const TYPES: [u16; 11] = [1, 28, 33, 12, 5, 6, 2, 16, 65, 255, 65400];

/// Names of the fixture and near misses.
const NAMES: [&str; 43] = [
    "web.shop.svc",
    "dual.shop.svc",
    "v6only.shop.svc",
    "anon.shop.svc",
    "idle.shop.svc",
    "bare.shop.svc",
    "nosuch.shop.svc",
    "web.hidden.svc",
    "empty.svc",
    "hidden.svc",
    "svc",
    "pod",
    "dns",
    "ns.dns",
    "dns-version",
    "*.shop.svc",
    "google.com.shop.svc",
    "google.com.svc",
    "google.com",
    "10-1-0-11.web.shop.svc",
    "pg-0.pg.data.svc",
    "pg-2.pg.data.svc",
    "10-1-0-21.pgall.data.svc",
    "pg.data.svc",
    "raw.data.svc",
    "twin.data.svc",
    "twin.twin.data.svc",
    "down.data.svc",
    "early.data.svc",
    "big.data.svc",
    "eight.data.svc",
    "_http._tcp.web.shop.svc",
    "_tcp.web.shop.svc",
    "_dns._tcp.dns2.shop.svc",
    "_dns._udp.dns2.shop.svc",
    "_pg._tcp.pg.data.svc",
    "_http._tcp.twin.data.svc",
    "_x._tcp.big.data.svc",
    "ext.shop.svc",
    "extin.shop.svc",
    "x.ext.shop.svc",
    "extip.shop.svc",
    "10-1-0-21.data.pod",
];

fn in_case(name: &str, case: u64) -> String {
    let upper = |at: usize| case >> (at % 61) & 1 == 1;
    let letters = name.chars().enumerate();
    letters
        .map(|(at, letter)| {
            if upper(at) {
                letter.to_ascii_uppercase()
            } else {
                letter
            }
        })
        .collect()
}

/// How many of the questions took the short way.
fn check_all(snapshot: &Snapshot, names: &[String]) -> usize {
    let sizes = [None, Some(100), Some(700), Some(1232), Some(4096)];
    let mut sizes = sizes.into_iter().cycle();
    let mut hits = 0;
    for name in names {
        for rtype in TYPES {
            for case in [0, u64::MAX, 0x5a5a_1234_9876_0f0f, 0xffff_ff00] {
                let transport = if case == 0 {
                    Transport::Tcp
                } else {
                    Transport::Udp
                };
                let packet = query(&in_case(name, case), rtype, sizes.next().unwrap());
                hits += usize::from(ask(snapshot, &packet, transport, MOMENT).is_some());
            }
        }
    }
    hits
}

fn all_names() -> Vec<String> {
    let zones = ["cluster.local", "svc.local", "example.org", ""];
    let reverse = [
        "10.1.96.10",
        "010.1.96.10",
        "21.0.1.10",
        "99.1.96.10",
        "1.96.10",
        "256.1.96.10",
    ];
    let forward = zones.iter().flat_map(|zone| {
        let below = move |name: &&str| {
            let name = if *zone == "svc.local" {
                name.trim_end_matches(".svc")
            } else {
                name
            };
            format!("{name}.{zone}")
        };
        NAMES.iter().map(below).chain([
            (*zone).to_owned(),
            format!("dns.hostmaster.{zone}"),
            format!("ns.dns.{zone}"),
        ])
    });
    forward
        .chain(reverse.map(|name| format!("{name}.in-addr.arpa")))
        .collect()
}

#[test]
fn fast_every_name_of_the_fixture_is_the_ordinary_response() {
    let mut snapshot = fixture::snapshot();
    assert!(check_all(&snapshot, &all_names()) > 2000);
    snapshot.synced = false;
    check_all(&snapshot, &all_names());
    Arc::make_mut(&mut snapshot.cluster).domains =
        ["example.org", "cluster.local", "svc.cluster.local"]
            .map(Arc::from)
            .to_vec();
    check_all(&snapshot, &all_names());
    Arc::make_mut(&mut snapshot.cluster).domains = vec![Arc::from("local")];
    check_all(&snapshot, &all_names());
    Arc::make_mut(&mut snapshot.cluster).domains.clear();
    assert_eq!(check_all(&snapshot, &all_names()), 0);
}

#[test]
fn fast_what_people_ask_takes_the_short_way() {
    let snapshot = fixture::snapshot();
    let code = |name: &str, rtype| {
        ask(
            &snapshot,
            &query(name, rtype, Some(1232)),
            Transport::Udp,
            MOMENT,
        )
        .map(|hit| hit.rcode)
    };
    for (name, rtype) in [
        ("web.shop.svc.cluster.local", 1),
        ("WEB.shop.svc.cluster.LOCAL", 1),
        ("web.shop.svc.cluster.local", 28),
        ("web.shop.svc.cluster.local", 65),
        ("web.shop.svc.local", 1),
        ("pg.data.svc.cluster.local", 1),
        ("pg-0.pg.data.svc.cluster.local", 28),
        ("_http._tcp.web.shop.svc.cluster.local", 33),
        ("web.shop.svc.cluster.local", 33),
        ("_pg._tcp.pg.data.svc.cluster.local", 33),
        ("10.1.96.10.in-addr.arpa", 12),
        ("shop.svc.cluster.local", 1),
    ] {
        assert_eq!(code(name, rtype), Some(Rcode::NoError), "{name} {rtype}");
    }
    for name in [
        "nosuch.shop.svc",
        "google.com.shop.svc",
        "google.com.svc",
        "google.com",
        "web.hidden.svc",
    ] {
        let name = format!("{name}.cluster.local");
        assert_eq!(code(&name, 1), Some(Rcode::NxDomain), "{name}");
    }
    for name in [
        "ext.shop.svc.cluster.local",
        "example.org",
        "web",
        "cluster.local",
    ] {
        assert_eq!(code(name, 1), None, "{name} takes the ordinary way");
    }
}

#[test]
fn fast_response_to_the_same_record_set_has_any_order_equally_often() {
    for (count, trials) in [(2_u8, 2000_u32), (3, 3000), (15, 6000), (60, 9000)] {
        let endpoints: Vec<_> = (1..=count).map(|last| format!("10.1.9.{last}")).collect();
        let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
        let mut set = vip("set", &[], &[]);
        Arc::make_mut(&mut set.spec).cluster_ip = crate::object::ClusterIpRequest::Headless;
        set.slices.push(Arc::new(slice(&[], &endpoints)));
        let snapshot = assemble(Arc::new(fixture::cluster()), vec![Arc::new(set)], &[]);
        let packet = query("set.shop.svc.cluster.local", 1, Some(1232));
        let mut out = Vec::new();
        // How often each address is first, and how often the first one is at each place.
        let (mut first, mut place) = (vec![0_u32; count.into()], vec![0_u32; count.into()]);
        for trial in 0..trials {
            // The program's seeds go in these steps.
            let seed = u64::from(trial).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            fast::respond(
                &snapshot,
                &packet,
                (
                    Transport::Udp,
                    Moment {
                        serial: 1,
                        seed,
                        ..Moment::default()
                    },
                ),
                &mut out,
            )
            .unwrap();
            let records = &out[packet.len() - 11..out.len() - 11];
            let order: Vec<u8> = records.chunks_exact(16).map(|record| record[15]).collect();
            assert_eq!(order.len(), usize::from(count));
            first[usize::from(order[0]) - 1] += 1;
            place[order.iter().position(|last| *last == 1).unwrap()] += 1;
        }
        for counts in [first, place] {
            let expected = f64::from(trials) / f64::from(count);
            let chi: f64 = counts
                .iter()
                .map(|seen| (f64::from(*seen) - expected).powi(2) / expected)
                .sum();
            // Mean of the distribution and five of its deviations.
            let free = f64::from(count) - 1.0;
            assert!(
                chi < free + 5.0 * (2.0 * free).sqrt(),
                "{count}: {chi} {counts:?}"
            );
        }
    }
}

#[test]
fn fast_service_that_answers_the_same_keeps_its_answers() {
    let mut snapshot = fixture::snapshot();
    let before = Arc::clone(snapshot.service("shop/web").unwrap());
    let prepared = snapshot.prepared_of(&before);
    unindex_service(&mut snapshot, &before);
    assert_eq!(snapshot.prepared_of(&before), None);
    index_service(&mut snapshot, &before);
    assert!(!Arc::ptr_eq(
        &snapshot.prepared_of(&before).unwrap(),
        prepared.as_ref().unwrap()
    ));
    keep_prepared(&mut snapshot, &before, prepared.clone());
    assert!(Arc::ptr_eq(
        &snapshot.prepared_of(&before).unwrap(),
        prepared.as_ref().unwrap()
    ));
    let other = Arc::new(vip("web", &["10.96.1.11"], &["http/80"]));
    unindex_service(&mut snapshot, &before);
    index_service(&mut snapshot, &other);
    keep_prepared(&mut snapshot, &other, prepared.clone());
    assert_ne!(snapshot.prepared_of(&other), prepared);
}

#[derive(Debug, Clone)]
struct Drawn {
    name: String,
    namespace: String,
    is_headless: bool,
    ports: Vec<String>,
    endpoints: Vec<String>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let label = "[a-z]([a-z0-9-]{0,10}[a-z0-9])?";
    let port = ("[a-z]{0,3}", 1_u16..9, any::<bool>())
        .prop_map(|(name, port, udp)| format!("{name}/{port}{}", if udp { "/udp" } else { "" }));
    let endpoint = (1_u8..30, prop::option::of("[a-cA-C]{1,2}"), any::<bool>()).prop_map(
        |(last, host, ready)| {
            let host = host.map_or_else(String::new, |host| format!("@{host}"));
            format!("10.1.7.{last}{}{host}", if ready { "" } else { "!" })
        },
    );
    (
        label,
        "(shop|data|dns|hostmaster|svc)",
        any::<bool>(),
        prop::collection::vec(port, 0..4),
        prop::collection::vec(endpoint, 0..20),
    )
        .prop_map(|(name, namespace, is_headless, ports, endpoints)| Drawn {
            name,
            namespace,
            is_headless,
            ports,
            endpoints,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn fast_arbitrary_worlds_and_questions_is_the_ordinary_response(
        services in prop::collection::vec(drawn(), 1..6),
        asked in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..6, any::<prop::sample::Index>(), any::<u64>(), any::<u16>(), any::<u64>()), 60
        ),
    ) {
        // A namespace has a name once: what merges Sources sees to that.
        let mut services = services;
        services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        services.dedup_by(|a, b| (&a.namespace, &a.name) == (&b.namespace, &b.name));
        let views = services.iter().enumerate().map(|(at, drawn)| {
            let addr = format!("10.96.3.{}", at + 1);
            let ports: Vec<_> = drawn.ports.iter().map(String::as_str).collect();
            let mut view = vip(&drawn.name, if drawn.is_headless { &[] } else { std::slice::from_ref(&addr) }.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), &ports);
            view.namespace = Arc::from(&*drawn.namespace);
            if drawn.is_headless {
                Arc::make_mut(&mut view.spec).cluster_ip = crate::object::ClusterIpRequest::Headless;
            }
            if !drawn.endpoints.is_empty() {
                let endpoints: Vec<_> = drawn.endpoints.iter().map(String::as_str).collect();
                view.slices.push(Arc::new(slice(&ports, &endpoints)));
            }
            Arc::new(view)
        });
        let snapshot = assemble(Arc::new(fixture::cluster()), views.collect(), &["empty"]);
        for (service, front, detail, case, payload, seed) in asked {
            let drawn = service.get(&services);
            let own = format!("{}.{}.svc", drawn.name, drawn.namespace);
            let port = drawn.ports.get(detail.index(4));
            let port = port.and_then(|port| port.split_once('/')).map_or("x", |(name, _)| name);
            let endpoint = drawn.endpoints.get(detail.index(20)).map_or("x", String::as_str).trim_end_matches('!');
            let endpoint = endpoint.split_once('@').map_or(endpoint.replace('.', "-"), |(_, host)| host.to_owned());
            let name = match front {
                0 | 1 => own,
                2 => format!("_{port}._tcp.{own}"),
                3 => format!("_{port}._udp.{own}"),
                4 => format!("{endpoint}.{own}"),
                _ => format!("_tcp.{own}"),
            };
            let name = if detail.index(3) == 0 { format!("{name}.local") } else { format!("{name}.cluster.local") };
            let case = if case % 3 == 0 { 0 } else { case };
            let rtype = TYPES[usize::try_from(seed % 11).unwrap()];
            let edns = (payload % 5 > 0).then_some(payload % 2000);
            let packet = query(&in_case(&name, case), rtype, edns);
            let _ = ask(&snapshot, &packet, Transport::Udp, Moment { serial: 5, seed, ..Moment::default() });
        }
    }

    #[test]
    fn fast_damaged_queries_is_the_ordinary_response_or_left_to_it(
        name in prop::sample::select(&NAMES),
        rtype in prop::sample::select(&TYPES),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        keep in any::<bool>(),
    ) {
        let mut packet = query(&format!("{name}.cluster.local"), rtype, Some(900));
        for (at, value) in damage {
            let at = at.index(packet.len());
            packet[at] = value;
        }
        if !keep {
            packet.truncate(cut.index(packet.len()));
        }
        let mut out = Vec::new();
        if fast::respond(&fixture::snapshot(), &packet, (Transport::Udp, MOMENT), &mut out).is_some() {
            let ordinary = respond(&fixture::snapshot(), &packet, Transport::Udp, MOMENT);
            prop_assert_eq!(Some(out), ordinary.map(|response| response.bytes));
        }
    }
}

#[test]
fn fast_other_queries_are_left_to_the_ordinary_way() {
    let snapshot = fixture::snapshot();
    let web = query("web.shop.svc.cluster.local", 1, None);
    assert!(ask(&snapshot, &web, Transport::Udp, MOMENT).is_some());
    let changed = |at: usize, value: u8| {
        let mut packet = web.clone();
        packet[at] = value;
        packet
    };
    let class = web.len() - 1;
    for packet in [
        changed(2, 0x81),
        changed(2, 0x29),
        changed(5, 0),
        changed(5, 2),
        changed(7, 1),
        changed(9, 1),
        changed(11, 1),
        changed(11, 2),
        changed(12, 0xc0),
        changed(12, 64),
        changed(class, 3),
        web[..20].to_vec(),
        web[..11].to_vec(),
    ] {
        assert_eq!(
            ask(&snapshot, &packet, Transport::Udp, MOMENT),
            None,
            "{packet:02x?}"
        );
    }
}
