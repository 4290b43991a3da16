//! Messages of others, fitted to clients. What whole servers make of them is tested with the program.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{
    Cache, Found, Prefetch,
    message::{Age, Message, Relayed, explain, is_cut},
    special,
};
use crate::{
    dns::{Answer, Moment, Name, Question, RecordType, wire},
    time::Timestamp,
};

/// A query for `name` and type `rtype` with these flags.
fn query(name: &str, rtype: u16, flags: u16) -> Vec<u8> {
    let [high, low] = flags.to_be_bytes();
    let mut packet = vec![0xab, 0xcd, high, low, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend(Name::parse(name).unwrap().as_wire());
    packet.extend(rtype.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

/// An OPT record with these options.
fn opt(options: &[u8]) -> Vec<u8> {
    let mut opt = vec![0, 0, 41, 0xff, 0xff, 0, 0, 0x80, 0, 0];
    opt.push(u8::try_from(options.len()).unwrap());
    opt.extend(options);
    opt
}

/// A record whose owner is the name of the question.
fn record(rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 12];
    record.extend(rtype.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    record.extend(data);
    record
}

/// The response to `query` with these flags and sections.
fn response(query: &[u8], flags: u16, sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
    let mut packet = query.to_vec();
    packet[2..4].copy_from_slice(&(0x8000 | flags).to_be_bytes());
    for (at, section) in (6..).step_by(2).zip(sections) {
        packet[at..at + 2].copy_from_slice(&u16::try_from(section.len()).unwrap().to_be_bytes());
        packet.extend(section.concat());
    }
    packet
}

#[test]
fn relayed_is_the_packet_but_for_its_identifier_and_size() {
    let mut packet = query("Example.org", 1, 0x0110);
    let length = packet.len();
    packet[11] = 1;
    packet.extend(opt(&[0xfd, 0xe9, 0, 2, 7, 7]));
    let relayed = Relayed::of(&packet).unwrap().packet(0x1234);
    let mut expected = packet.clone();
    expected[..2].copy_from_slice(&[0x12, 0x34]);
    expected[length + 3..length + 5].copy_from_slice(&1232_u16.to_be_bytes());
    assert_eq!(relayed, expected);
}

#[test]
fn read_needs_identifier_question_and_opcode_of_the_query() {
    let asked = query("Example.org", 65, 0x0100);
    let good = response(&asked, 0, [&[], &[], &[]]);
    let changed = |at: usize, to: u8| {
        let mut changed = good.clone();
        changed[at] = to;
        changed
    };
    // The name may come back in another case, the type 65 not as 97, which differs in the same bit.
    for (packet, is_heard) in [
        (good.clone(), true),
        (changed(13, b'e'), true),
        (changed(13, b'f'), false),
        (changed(good.len() - 3, 97), false),
        (changed(good.len() - 1, 3), false),
        (changed(0, 0), false),
        (changed(2, 1), false),
        (changed(2, 0xa1), false),
        (changed(5, 0), false),
        (changed(7, 1), false),
    ] {
        assert_eq!(
            Message::read(&packet, &asked).is_some(),
            is_heard,
            "{packet:?}"
        );
    }
    assert!(is_cut(&changed(2, 0x82), &asked) && !is_cut(&good, &asked));
}

#[test]
fn respond_has_the_clients_identifier_case_options_and_its_age() {
    let upstream_asked = query("example.org", 1, 0x0100);
    let cookie = [0, 10, 0, 8, 1, 1, 1, 1, 1, 1, 1, 1];
    let reason = [0, 15, 0, 3, 0, 3, b'x'];
    let records = [record(1, 100, &[192, 0, 2, 1])];
    let extra = [
        opt(&[cookie.as_slice(), &reason].concat()),
        record(1, 9, &[1, 1, 1, 1]),
    ];
    // Authoritative, authentic, recursion available.
    let packet = response(&upstream_asked, 0x04a0, [&records, &[], &extra]);
    let message = Message::read(&packet, &upstream_asked).unwrap();

    let mut asked = query("eXample.ORG", 1, 0x0110);
    let plain = wire::read(&asked).unwrap();
    let fresh = message.respond(&plain, 512, Age::Fresh, 0).bytes;
    let expected = response(
        &asked,
        0x05b0,
        [&[record(1, 100, &[192, 0, 2, 1])], &[], &[]],
    );
    assert_eq!(fresh, expected);
    let kept = message.respond(&plain, 512, Age::Kept(Duration::from_millis(30_999)), 0);
    let expected = response(
        &asked,
        0x01b0,
        [&[record(1, 70, &[192, 0, 2, 1])], &[], &[]],
    );
    assert_eq!(kept.bytes, expected);
    let stale = message.respond(&plain, 512, Age::Stale, 0);
    let expected = response(
        &asked,
        0x01b0,
        [&[record(1, 30, &[192, 0, 2, 1])], &[], &[]],
    );
    assert_eq!(stale.bytes, expected);

    asked[11] = 1;
    asked.extend(opt(&[]));
    let with_opt = message
        .respond(&wire::read(&asked).unwrap(), 512, Age::Fresh, 0)
        .bytes;
    let mut ending = opt(&reason);
    ending[3..5].copy_from_slice(&1232_u16.to_be_bytes());
    assert!(with_opt.ends_with(&ending) && with_opt[11] == 1);
}

#[test]
fn respond_longer_than_the_client_takes_is_cut_from_the_end() {
    let asked = query("example.org", 16, 0x0100);
    let text = record(16, 9, &[60; 100]);
    let records: Vec<_> = (0..3).map(|_| text.clone()).collect();
    let packet = response(&asked, 0, [&records, &records[..1], &records[..1]]);
    let message = Message::read(&packet, &asked).unwrap();
    let query = wire::read(&asked).unwrap();
    let head = asked.len();
    for (limit, counts, truncated) in [
        (usize::from(u16::MAX), [3, 1, 1], false),
        (head + 5 * text.len(), [3, 1, 1], false),
        (head + 5 * text.len() - 1, [3, 1, 0], false),
        (head + 4 * text.len() - 1, [3, 0, 0], true),
        (head + 3 * text.len() - 1, [2, 0, 0], true),
        (head, [0, 0, 0], true),
    ] {
        let response = message.respond(&query, limit, Age::Fresh, 0);
        assert!(response.bytes.len() <= limit);
        assert_eq!([7, 9, 11].map(|at| response.bytes[at]), counts, "{limit}");
        assert_eq!(
            (response.truncated, response.bytes[2] & 2 != 0),
            (truncated, truncated)
        );
    }
}

#[test]
fn respond_addresses_have_any_order_and_stay_complete() {
    let asked = query("example.org", 1, 0x0100);
    let records: Vec<_> = (1..=3)
        .map(|last| record(1, 60, &[192, 0, 2, last]))
        .collect();
    let packet = response(&asked, 0, [&records, &[], &[]]);
    let message = Message::read(&packet, &asked).unwrap();
    let query = wire::read(&asked).unwrap();
    let mut first = [0; 3];
    let mut moment = Moment::default();
    for _ in 0..300 {
        moment = moment.next();
        let bytes = message.respond(&query, 512, Age::Fresh, moment.seed).bytes;
        let last = |place: usize| bytes[asked.len() + place * 16 + 15];
        let mut all = [0, 1, 2].map(last);
        first[usize::from(all[0]) - 1] += 1;
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
    }
    assert!(
        first.iter().all(|count| (70..130).contains(count)),
        "{first:?}"
    );
}

#[test]
fn extend_reads_names_behind_pointers_and_stops_at_loops() {
    let asked = query("example.org", 15, 0x0100);
    let at = u8::try_from(asked.len() + 12).unwrap();
    let mail = |name: &[u8]| record(15, 60, &[&[0, 10], name].concat());
    let check = |name: &[u8], expected: Option<&str>| {
        let packet = response(&asked, 0, [&[mail(name)], &[], &[]]);
        let message = Message::read(&packet, &asked).unwrap();
        let mut answer = Answer::foreign(&Name::root());
        message.extend(&mut answer, Age::Fresh, 0);
        let data = answer.answers.first().map(|record| {
            let wire::Response { bytes, .. } =
                wire::write(&wire::read(&asked).unwrap(), &answer, 512);
            assert!(bytes.ends_with(Name::parse(expected.unwrap()).unwrap().as_wire()));
            record.data.rtype()
        });
        assert_eq!(data, expected.map(|_| RecordType::Mx), "{name:?}");
        assert_eq!(answer.rcode.number() == 0, expected.is_some());
    };
    check(
        &[4, b'm', b'a', b'i', b'l', 0xc0, 12],
        Some("mail.example.org"),
    );
    check(&[0xc0, 20], Some("org"));
    check(&[0], Some("."));
    check(&[0xc0, at + 2], None);
    check(&[1, b'a', 0xc0, at + 2], None);
    check(&[0xc0, 0xff], None);
    check(&[0x40, 0], None);
    check(&[9, b'a'], None);
}

#[test]
fn instead_asks_for_the_other_name_with_what_the_client_wants() {
    let mut asked = query("alias.shop.svc.cluster.local", 28, 0x0130);
    asked[11] = 1;
    asked.extend(opt(&[]));
    let other = Name::parse("db.example.net").unwrap();
    let packet = Relayed::instead(&wire::read(&asked).unwrap(), &other).packet(7);
    let read = wire::read(&packet).unwrap();
    let expected = Question::new(other, RecordType::Aaaa);
    assert_eq!((read.id, read.flags, read.question), (7, 0x0110, expected));
    assert!(
        read.edns
            .is_some_and(|edns| edns.dnssec_ok && edns.payload == 1232)
    );
}

#[test]
fn explain_is_said_only_to_who_takes_it() {
    let plain = query("example.org", 1, 0x0100);
    let mut with_opt = plain.clone();
    with_opt[11] = 1;
    with_opt.extend(opt(&[]));
    let refused = |packet: &[u8], filler: usize| {
        let query = wire::read(packet).unwrap();
        let mut response = wire::write(&query, &Answer::foreign(&Name::root()), 512);
        response.bytes.splice(..0, std::iter::repeat_n(0, filler));
        let before = response.bytes.len();
        explain(&query, &mut response, (23, "why"));
        response.bytes.split_off(before - 2)
    };
    let said = [0, 9, 0, 15, 0, 5, 0, 23, b'w', b'h', b'y'];
    assert_eq!(refused(&with_opt, 0), said);
    assert_eq!(refused(&with_opt, 1232), [0, 0], "no room");
    assert_eq!(refused(&plain, 0), [0, 1], "the end of the question");
}

#[test]
fn key_is_the_question_without_case_and_what_changes_the_response() {
    let plain = query("Example.org", 1, 0x0100);
    let with_opt = |options: &[u8], high: u8| {
        let mut packet = plain.clone();
        packet[11] = 1;
        packet.extend(opt(options));
        let flags = packet.len() - options.len() - 4;
        packet[flags] = high;
        packet
    };
    let key = |packet: &[u8]| Relayed::of(packet).unwrap().key();
    let same = [
        query("eXAMPLE.org", 1, 0x0120),
        with_opt(&[], 0),
        with_opt(&[0, 10, 0, 1, 7], 0),
    ];
    assert!(same.iter().all(|packet| key(packet) == key(&plain)));
    let mut class = plain.clone();
    *class.last_mut().unwrap() = 3;
    let others = [
        query("example.com", 1, 0x0100),
        query("example.org", 65, 0x0100),
        query("example.org", 97, 0x0100),
        query("example.org", 1, 0x0110),
        with_opt(&[], 0x80),
        class,
        plain.clone(),
    ];
    let keys: std::collections::HashSet<_> =
        others.iter().filter_map(|packet| key(packet)).collect();
    assert_eq!(keys.len(), others.len());
    assert_eq!(
        key(&with_opt(&[0, 8, 0, 1, 7], 0)),
        None,
        "the client's network"
    );
}

/// A message with these flags and sections.
fn message(flags: u16, sections: [&[Vec<u8>]; 3]) -> Arc<Message> {
    let asked = query("example.org", 1, 0x0100);
    Arc::new(Message::read(&response(&asked, flags, sections), &asked).unwrap())
}

/// An address with this time to live.
fn address(ttl: u32) -> Arc<Message> {
    message(0, [&[record(1, ttl, &[192, 0, 2, 1])], &[], &[]])
}

#[test]
fn lifetime_is_the_least_of_its_records_and_at_most_30_seconds() {
    let a = |ttl| record(1, ttl, &[192, 0, 2, 1]);
    let soa = |ttl: u32, minimum: u32| {
        let times = [1, 2, 3, 4, minimum].map(u32::to_be_bytes).concat();
        record(6, ttl, &[vec![0, 0], times].concat())
    };
    let alias = record(5, 9, &[0xc0, 12]);
    let check = |flags, sections: [&[Vec<u8>]; 3], expected: Option<u64>| {
        let lifetime = message(flags, sections).lifetime();
        assert_eq!(
            lifetime,
            expected.map(Duration::from_secs),
            "{flags} {sections:?}"
        );
    };
    check(0, [&[a(300)], &[], &[]], Some(30));
    check(0, [&[a(300), a(7)], &[], &[]], Some(7));
    check(0, [&[a(300)], &[], &[a(8)]], Some(8));
    check(0, [&[a(0)], &[], &[]], None);
    check(0, [&[a(0x8000_0001)], &[], &[]], None);
    check(0x0200, [&[a(300)], &[], &[]], None);
    check(0, [&[], &[soa(20, 10)], &[]], Some(10));
    check(3, [&[], &[soa(10, 20)], &[]], Some(10));
    let alias = std::slice::from_ref(&alias);
    check(3, [alias, &[soa(20, 20)], &[]], Some(9));
    check(3, [alias, &[], &[]], None);
    check(3, [&[], &[], &[]], None);
    check(0, [&[], &[], &[]], None);
    check(2, [&[], &[], &[]], Some(5));
    check(5, [&[], &[], &[]], None);
    check(0, [&[record(16, 9, &[1; 5000])], &[], &[]], None);
}

#[test]
fn special_names_are_answered_and_no_others() {
    let check = |name: &str, rtype: &str, expected: &str| {
        let question = Question::new(Name::parse(name).unwrap(), rtype.parse().unwrap());
        let text = match special::answer(&question, Moment::default()) {
            None => "asked".to_owned(),
            Some(answer) => {
                let records = answer.answers.iter().chain(&answer.authority);
                let records = records.map(|record| format!("{} {}", record.name, record.data));
                let records = records.collect::<Vec<_>>().join(", ");
                let (all, _) = records.split_once(" ns.dns.").unwrap_or((&records, ""));
                format!("{} {all}", answer.rcode)
            }
        };
        assert_eq!(text, expected, "{name} {rtype}");
    };
    check("localhost", "A", "NOERROR localhost. 127.0.0.1");
    check("LocalHost", "AAAA", "NOERROR LocalHost. ::1");
    check("a.B.localhost", "A", "NOERROR a.B.localhost. 127.0.0.1");
    check("localhost", "MX", "NOERROR localhost.");
    check(
        "1.0.0.127.in-addr.arpa",
        "PTR",
        "NOERROR 1.0.0.127.in-addr.arpa. localhost.",
    );
    let v6 = Name::reverse("::1".parse().unwrap()).to_string();
    check(&v6, "PTR", &format!("NOERROR {v6} localhost."));
    check("2.0.0.127.in-addr.arpa", "PTR", "asked");
    check("invalid", "A", "NXDOMAIN invalid.");
    check("a.INVALID", "TXT", "NXDOMAIN INVALID.");
    check("x.onion", "A", "NXDOMAIN onion.");
    check("_dns.resolver.arpa", "SVCB", "NOERROR resolver.arpa.");
    check("arpa", "NS", "asked");
    check("notlocalhost", "A", "asked");
    check("localhost.example", "A", "asked");
    check("printer.local", "A", "asked");
    check(".", "NS", "asked");
}

/// The key of a name.
fn key(name: &str) -> super::Key {
    let relayed = Relayed::of(&query(name, 1, 0x0100)).unwrap();
    relayed.key().unwrap()
}

/// A cache and what it says, by time in seconds.
struct Table(Cache);

impl Table {
    fn store(&mut self, at: u64, message: &Arc<Message>) {
        let now = Timestamp::from_millis(at * 1000);
        self.0.store(&key("a"), message, now);
    }

    fn failed(&mut self, at: u64) {
        let now = Timestamp::from_millis(at * 1000);
        self.0.failed(&key("a"), now);
    }

    fn check(&mut self, at: u64, expected: &str) {
        let found = self.0.find(&key("a"), Timestamp::from_millis(at * 1000));
        let text = match found {
            Found::Kept(_, age, Prefetch::NotYet) => format!("kept {}", age.as_secs()),
            Found::Kept(_, age, Prefetch::Now) => format!("due {}", age.as_secs()),
            Found::Stale(_) => "stale".into(),
            Found::StandIn(_) => "stand-in".into(),
            Found::Nothing => "nothing".into(),
        };
        assert_eq!(text, expected, "at {at}");
    }
}

#[test]
fn cache_message_is_kept_then_due_then_stale_then_gone() {
    let mut table = Table(Cache::new(9));
    table.check(0, "nothing");
    table.store(100, &address(300));
    table.check(126, "kept 26");
    table.check(127, "due 27");
    table.check(129, "due 29");
    table.check(130, "stale");
    table.check(130 + 3600, "stale");
    table.check(131 + 3600, "nothing");
    table.store(4000, &address(300));
    table.check(4029, "kept 29");
}

#[test]
fn cache_failure_lets_the_old_one_stand_in_and_is_kept_where_there_is_none() {
    let failure = message(2, [&[], &[], &[]]);
    let mut table = Table(Cache::new(9));
    table.store(0, &failure);
    table.check(4, "kept 4");
    table.check(5, "nothing");
    table.store(10, &address(10));
    table.store(11, &failure);
    table.check(19, "kept 9");
    table.check(20, "stand-in");
    table.check(41, "stale");
    table.failed(41);
    table.check(70, "stand-in");
    table.check(71, "stale");
    table.store(72, &address(10));
    table.check(82, "stale");
    table.0.clear();
    table.check(82, "nothing");
}

#[test]
fn cache_without_room_lets_go_of_what_nobody_asked_for() {
    let mut cache = Cache::new(3);
    let now = Timestamp::default();
    for name in ["a", "b", "c", "a"] {
        cache.store(&key(name), &address(300), now);
    }
    assert_eq!((cache.len(), cache.evicted()), (3, 0));
    cache.find(&key("a"), now);
    for name in ["d", "e"] {
        cache.store(&key(name), &address(300), now);
    }
    let left = ["a", "b", "c", "d", "e"].map(|name| cache.find(&key(name), now) != Found::Nothing);
    assert_eq!(left, [true, false, false, true, true]);
    assert_eq!((cache.len(), cache.evicted()), (3, 2));
}

proptest! {
    #[test]
    fn message_of_any_bytes_neither_panics_nor_grows(
        flags: u16,
        counts in proptest::array::uniform3(0_u8..4),
        tail in proptest::collection::vec(prop_oneof![Just(0_u8), Just(0xc0), Just(12), any::<u8>()], 0..200),
        limit in 40_usize..600,
    ) {
        let mut asked = query("example.org", 1, 0x0100);
        let mut packet = response(&asked, flags & 0x87ff, [&[], &[], &[]]);
        for (at, count) in [7, 9, 11].into_iter().zip(counts) {
            packet[at] = count;
        }
        packet.extend(tail);
        asked[11] = 1;
        asked.extend(opt(&[]));
        let client = wire::read(&asked).unwrap();
        if let Some(message) = Message::read(&packet, &query("example.org", 1, 0x0100)) {
            let response = message.respond(&client, limit, Age::Stale, 3);
            prop_assert!(response.bytes.len() <= limit.max(query("example.org", 1, 0).len() + 11));
            let mut answer = Answer::foreign(&client.question.name);
            message.extend(&mut answer, Age::Fresh, 3);
            wire::write(&client, &answer, limit);
        }
        let _ = Relayed::of(&packet);
    }
}
