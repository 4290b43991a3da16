//! Packets in, packets out. What an independent decoder reads in them is tested with the server.

use proptest::prelude::*;

use super::fixture;
use crate::dns::{
    Moment, Name,
    packet::{Transport, respond},
};

/// A query for `name` and type `rtype` with recursion desired.
fn query(name: &str, rtype: u16) -> Vec<u8> {
    let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend(Name::parse(name).unwrap().as_wire());
    packet.extend(rtype.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

fn with_opt(mut packet: Vec<u8>, payload: u16, version: u8, options: &[u8]) -> Vec<u8> {
    packet[11] += 1;
    packet.push(0);
    packet.extend(41_u16.to_be_bytes());
    packet.extend(payload.to_be_bytes());
    packet.extend([0, version, 0x80, 0]);
    packet.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    packet.extend(options);
    packet
}

fn udp(packet: &[u8]) -> Option<Vec<u8>> {
    respond(
        &fixture::snapshot(),
        packet,
        Transport::Udp,
        Moment::default(),
    )
    .map(|response| response.bytes)
}

/// Flags, and the counts of the four sections.
fn header(bytes: &[u8]) -> (u16, [u16; 4]) {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    assert_eq!(word(0), 0xabcd, "the identifier is repeated");
    (word(2), [word(4), word(6), word(8), word(10)])
}

#[test]
fn respond_headless_of_60_without_edns_gives_29_addresses_in_508_bytes() {
    let response = udp(&query("big.data.svc.cluster.local", 1)).unwrap();
    assert_eq!(
        (response.len(), header(&response)),
        (508, (0x8780, [1, 29, 0, 0]))
    );
}

#[test]
fn respond_with_edns_fills_the_agreed_size_and_keeps_opt() {
    let big = query("big.data.svc.cluster.local", 1);
    for (payload, answers) in [
        (0, 28),
        (100, 28),
        (512, 28),
        (600, 34),
        (1232, 60),
        (65535, 60),
    ] {
        let response = udp(&with_opt(big.clone(), payload, 0, &[])).unwrap();
        let (flags, counts) = header(&response);
        assert_eq!(counts, [1, answers, 0, 1], "payload {payload}");
        assert_eq!(flags & 0x0200 != 0, answers < 60, "payload {payload}");
        assert_eq!(
            response[response.len() - 11..],
            [0, 0, 41, 4, 208, 0, 0, 128, 0, 0, 0]
        );
    }
}

#[test]
fn respond_over_tcp_gives_all() {
    let packet = query("big.data.svc.cluster.local", 1);
    let response = respond(
        &fixture::snapshot(),
        &packet,
        Transport::Tcp,
        Moment::default(),
    )
    .unwrap();
    assert_eq!(header(&response.bytes), (0x8580, [1, 60, 0, 0]));
    assert!(!response.truncated);
}

#[test]
fn respond_srv_too_long_drops_additional_without_truncation() {
    let srv = |payload| {
        header(
            &udp(&with_opt(
                query("eight.data.svc.cluster.local", 33),
                payload,
                0,
                &[],
            ))
            .unwrap(),
        )
    };
    assert_eq!(srv(1232), (0x8580, [1, 8, 0, 9]));
    assert_eq!(
        srv(520),
        (0x8580, [1, 8, 0, 1]),
        "the names that were asked for are all there"
    );
    let response = udp(&with_opt(
        query("big.data.svc.cluster.local", 33),
        1232,
        0,
        &[],
    ))
    .unwrap();
    let (flags, counts) = header(&response);
    assert_eq!(
        (flags, counts[2], counts[3]),
        (0x8780, 0, 1),
        "answers alone are too long, OPT stays"
    );
    assert!(response.len() <= 1232);
}

#[test]
fn respond_headers_that_are_no_query_says_why() {
    let web = query("web.shop.svc.cluster.local", 1);
    let changed = |at: usize, value: u8| {
        let mut packet = web.clone();
        packet[at] = value;
        udp(&packet).map(|response| header(&response))
    };
    assert_eq!(changed(2, 0x81), None, "a response is dropped");
    assert_eq!(udp(&web[..11]), None, "less than a header is dropped");
    for opcode in [1_u8, 2, 4, 5, 6, 15] {
        let expected = 0x8184 | (u16::from(opcode) << 11);
        assert_eq!(
            changed(2, 1 | (opcode << 3)),
            Some((expected, [0; 4])),
            "opcode {opcode}"
        );
    }
    let malformed = Some((0x8181, [0; 4]));
    assert_eq!(changed(5, 0), malformed, "no question");
    assert_eq!(changed(5, 2), malformed, "two questions");
    assert_eq!(changed(7, 2), malformed, "two answers");
    assert_eq!(changed(9, 2), malformed, "two authorities");
    assert_eq!(changed(11, 3), malformed, "three additionals");
    assert_eq!(
        changed(11, 1),
        malformed,
        "an additional record that is not there"
    );
    assert_eq!(changed(12, 0xc0), malformed, "a pointer in the question");
    assert_eq!(changed(12, 64), malformed, "a long label");
    assert_eq!(
        udp(&web[..20]).map(|response| header(&response)),
        malformed,
        "a cut question"
    );
    assert_eq!(
        changed(3, 0x10),
        Some((0x8590, [1, 1, 0, 0])),
        "checking disabled is repeated"
    );
    assert_eq!(
        changed(3, 0x20),
        Some((0x8580, [1, 1, 0, 0])),
        "authentic data is not"
    );
    assert_eq!(
        changed(2, 0),
        Some((0x8480, [1, 1, 0, 0])),
        "recursion desired is repeated"
    );
}

#[test]
fn respond_opt_out_of_order_is_malformed_or_bad_version() {
    let web = query("web.shop.svc.cluster.local", 1);
    let rcode = |packet: &[u8]| header(&udp(packet).unwrap());
    let twice = with_opt(with_opt(web.clone(), 1232, 0, &[]), 1232, 0, &[]);
    assert_eq!(rcode(&twice), (0x8181, [0; 4]));
    let mut owned = with_opt(web.clone(), 1232, 0, &[]);
    owned.splice(web.len()..=web.len(), [1, b'a', 0]);
    assert_eq!(rcode(&owned), (0x8181, [0; 4]));
    assert_eq!(
        rcode(&with_opt(web.clone(), 1232, 0, &[0, 10, 0, 9, 1])),
        (0x8181, [0; 4]),
        "a cut option"
    );
    assert_eq!(
        rcode(&with_opt(web.clone(), 1232, 0, &[0, 10, 0, 1, 1])),
        (0x8580, [1, 1, 0, 1]),
        "a cookie"
    );
    let version = udp(&with_opt(web, 1232, 1, &[])).unwrap();
    assert_eq!(header(&version), (0x8180, [1, 0, 0, 1]));
    assert_eq!(
        version[version.len() - 6],
        1,
        "BADVERS is 16: one in the upper bits"
    );
}

#[test]
fn respond_name_of_256_bytes_is_malformed() {
    let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for _ in 0..4 {
        packet.push(63);
        packet.extend([b'a'; 63]);
    }
    packet.extend([0, 0, 1, 0, 1]);
    assert_eq!(header(&udp(&packet).unwrap()), (0x8181, [0; 4]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn respond_arbitrary_bytes_is_bounded_and_meets_responses_with_silence(
        bytes in prop::collection::vec(any::<u8>(), 0..600)
    ) {
        check_arbitrary(&bytes)?;
    }

    #[test]
    fn respond_damaged_queries_is_bounded_and_meets_responses_with_silence(
        name in prop::sample::select(&["pg.data.svc.cluster.local", "web", "10.1.96.10.in-addr.arpa", "exa.shop.svc.local"]),
        rtype in prop::sample::select(&[1_u16, 5, 6, 12, 28, 33, 255, 999]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        keep in any::<bool>(),
    ) {
        let mut packet = with_opt(query(name, rtype), 700, 0, &[0, 3, 0, 0]);
        for (at, value) in damage {
            let at = at.index(packet.len());
            packet[at] = value;
        }
        if !keep {
            packet.truncate(cut.index(packet.len()));
        }
        check_arbitrary(&packet)?;
    }
}

fn check_arbitrary(packet: &[u8]) -> Result<(), TestCaseError> {
    let response = udp(packet);
    let is_query = packet.len() >= 12 && packet[2] & 0x80 == 0;
    prop_assert_eq!(response.is_some(), is_query);
    if let Some(response) = response {
        prop_assert!(response.len() <= 1232);
        prop_assert_eq!(&response[..2], &packet[..2]);
        prop_assert!(response[2] & 0x80 != 0);
        prop_assert_eq!(udp(&response), None, "a response to a response");
    }
    Ok(())
}
