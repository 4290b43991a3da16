//! Messages of others, fitted to clients. What whole servers make of them is tested with the program.

use std::time::Duration;

use proptest::prelude::*;

use super::message::{Age, Message, Relayed, is_cut};
use crate::dns::{Answer, Moment, Name, Question, RecordType, wire};

/// A query for `name` and type `rtype` with these flags.
pub(super) fn query(name: &str, rtype: u16, flags: u16) -> Vec<u8> {
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
pub(super) fn record(rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 12];
    record.extend(rtype.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    record.extend(data);
    record
}

/// The response to `query` with these flags and sections.
pub(super) fn response(query: &[u8], flags: u16, sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
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
        let mut answer = Answer::elsewhere(&Name::root());
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
    let mut asked = query("alias.shop.svc.cluster.local", 28, 0x0010);
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
            let mut answer = Answer::elsewhere(&client.question.name);
            message.extend(&mut answer, Age::Fresh, 3);
            wire::write(&client, &answer, limit);
        }
        let _ = Relayed::of(&packet);
    }
}
