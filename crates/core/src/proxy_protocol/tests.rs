//! Headers as they are on the wire, whole, cut, damaged and made by chance. Must not open sockets.

use proptest::prelude::*;

use super::*;

fn route(source: &str, destination: &str) -> Option<Route> {
    Route::new(source.parse().unwrap(), destination.parse().unwrap())
}

/// A header of version 2 with this command, kind and body.
fn v2(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[0x20 | command, kind], &length, body].concat()
}

/// Addresses 10.1.2.3:258 and 10.9.8.7:80, and what follows them.
fn inet(tlvs: &[u8]) -> Vec<u8> {
    [&[10, 1, 2, 3, 10, 9, 8, 7, 1, 2, 0, 80], tlvs].concat()
}

fn check(bytes: &[u8], expected: Result<Option<Route>, HeaderError>) {
    let shown = String::from_utf8_lossy(bytes);
    let found = parse(bytes).map(|header| header.expect("it is whole").route);
    assert_eq!(found, expected, "{shown:?}");
}

fn malformed(bytes: &[u8]) {
    let found = parse(bytes);
    let shown = String::from_utf8_lossy(bytes);
    assert!(
        matches!(found, Err(HeaderError::Malformed(_))),
        "{shown:?}: {found:?}"
    );
}

#[test]
fn parse_of_lines_follows_the_published_form() {
    let v4 = route("192.168.0.1:56324", "192.168.0.11:443");
    check(
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET",
        Ok(v4),
    );
    let v6 = route("[2001:db8::1]:0", "[::1]:65535");
    check(b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", Ok(v6));
    check(
        b"PROXY TCP6 ::ffff:10.0.0.1 ::ffff:10.0.0.2 1 2\r\n",
        Ok(route("10.0.0.1:1", "10.0.0.2:2")),
    );
    check(b"PROXY UNKNOWN\r\n", Ok(None));
    check(b"PROXY UNKNOWN what \xff ever\r\n", Ok(None));
    for text in [
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 \r\n",
        "PROXY TCP4  192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY TCP4 192.168.0.01 192.168.0.11 56324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 +5632 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11  443\r\n",
        "PROXY TCP4 ::1 ::1 56324 443\r\n",
        "PROXY TCP6 10.0.0.1 10.0.0.2 56324 443\r\n",
        "PROXY UDP4 10.0.0.1 10.0.0.2 56324 443\r\n",
        "PROXY TCP4 10.0.0.1 10.0.0.2 \u{661} 443\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY\x20TCP4\r\r\n",
    ] {
        malformed(text.as_bytes());
    }
}

#[test]
fn parse_of_a_line_without_end_stops_at_107_bytes() {
    let longest = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(longest.len(), MAX_V1_BYTES);
    check(longest, Ok(None));
    let mut longer = longest.to_vec();
    longer.insert(20, b'f');
    assert_eq!(parse(&longer[..MAX_V1_BYTES - 1]), Ok(None));
    assert_eq!(parse(&longer[..MAX_V1_BYTES]), Err(HeaderError::TooLong));
    assert_eq!(parse(&longer), Err(HeaderError::TooLong));
}

#[test]
fn parse_of_binary_headers_follows_the_published_form() {
    let v4 = route("10.1.2.3:258", "10.9.8.7:80");
    check(&v2(1, 0x11, &inet(b"")), Ok(v4));
    check(&v2(1, 0x11, &inet(b"\x04\0\0\x02\0\x03a.b")), Ok(v4));
    let body = [&[0x20; 16][..], &[0x30; 16], &[0, 1, 0, 2], b"\xea\0\x01x"].concat();
    let v6 = route(
        "[2020:2020:2020:2020:2020:2020:2020:2020]:1",
        "[3030:3030:3030:3030:3030:3030:3030:3030]:2",
    );
    check(&v2(1, 0x21, &body), Ok(v6));
    for (command, kind, body) in [
        (0, 0, &b""[..]),
        (0, 0xff, b"whatever"),
        (1, 0, b"whatever"),
        (1, 0x10, b""),
        (1, 0x01, b""),
        (1, 0x12, &inet(b"")),
        (1, 0x31, &[b'/'; 216]),
        (1, 0x32, &[&[0; 216][..], b"\x04\0\0"].concat()),
    ] {
        check(&v2(command, kind, body), Ok(None));
    }
    for (command, kind, body) in [
        (2, 0x11, &inet(b"")[..]),
        (15, 0, b""),
        (1, 0x41, &inet(b"")),
        (1, 0x13, &inet(b"")),
        (1, 0x11, &inet(b"")[..11]),
        (1, 0x21, &[0; 35]),
        (1, 0x31, &[0; 215]),
        (1, 0x11, &inet(b"\x04\0")),
        (1, 0x11, &inet(b"\x04\0\x01")),
        (1, 0x11, &inet(b"\x03\0\x03abc")),
    ] {
        malformed(&v2(command, kind, body));
    }
    let mut first = v2(1, 0x11, &inet(b""));
    first[12] = 0x11;
    malformed(&first);
}

#[test]
fn parse_of_a_checksum_holds_the_header_to_it() {
    let unsigned = v2(1, 0x11, &inet(b"\x04\0\x01-\x03\0\x04\0\0\0\0\x04\0\x01+"));
    let sum = crc32c::of(&[&unsigned]).to_be_bytes();
    let at = unsigned.len() - 8;
    let mut signed = unsigned.clone();
    signed[at..at + 4].copy_from_slice(&sum);
    check(&signed, Ok(route("10.1.2.3:258", "10.9.8.7:80")));
    check(&unsigned, Err(HeaderError::Checksum));
    for at in [17, 27, 31, signed.len() - 1] {
        let mut altered = signed.clone();
        altered[at] ^= 1;
        check(&altered, Err(HeaderError::Checksum));
    }
    let mut twice = v2(1, 0x11, &inet(b"\x03\0\x04\0\0\0\0\x03\0\x04once"));
    let sum = crc32c::of(&[&twice]).to_be_bytes();
    twice[31..35].copy_from_slice(&sum);
    malformed(&twice);
}

#[test]
fn parse_of_lengths_beyond_the_bound_refuses_before_it_waits_for_them() {
    let fits = v2(0, 0, &[0; MAX_V2_BYTES - FIXED_BYTES]);
    check(&fits, Ok(None));
    let longer = v2(0, 0, &[0; MAX_V2_BYTES - FIXED_BYTES + 1]);
    assert_eq!(parse(&longer[..16]), Err(HeaderError::TooLong));
}

#[test]
fn parse_of_other_protocols_refuses_at_the_first_byte_that_differs() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x16\x03\x01",
        b"PRI * HTTP/2.0",
        b"PROXY\t",
        b"\r\n\r\n\r\n",
        b"proxy TCP4",
    ] {
        let differs = (1..=bytes.len()).find(|end| parse(&bytes[..*end]) != Ok(None));
        let end = differs.expect("it differs");
        assert_eq!(parse(&bytes[..end]), Err(HeaderError::Absent), "{bytes:?}");
        assert_eq!(parse(bytes), Err(HeaderError::Absent), "{bytes:?}");
    }
}

#[test]
fn write_of_the_unknown_says_so() {
    assert_eq!(write(Version::V1, None), b"PROXY UNKNOWN\r\n");
    assert_eq!(write(Version::V2, None), v2(0, 0, b""));
    assert_eq!(route("10.0.0.1:1", "[::1]:2"), None);
}

fn addresses() -> impl Strategy<Value = Route> {
    let v4 = any::<((u32, u16), (u32, u16))>().prop_map(|((a, p), (b, q))| {
        Route::new((Ipv4Addr::from(a), p).into(), (Ipv4Addr::from(b), q).into())
    });
    let v6 = any::<((u128, u16), (u128, u16))>().prop_map(|((a, p), (b, q))| {
        Route::new((Ipv6Addr::from(a), p).into(), (Ipv6Addr::from(b), q).into())
    });
    prop_oneof![v4, v6].prop_filter_map("of one family", |route| route)
}

proptest! {
    #[test]
    fn header_written_is_read_again_at_every_split(
        route in proptest::option::of(addresses()),
        is_binary: bool,
        behind in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let version = if is_binary { Version::V2 } else { Version::V1 };
        let header = write(version, route);
        prop_assert!(header.len() <= MAX_V1_BYTES);
        for end in 0..header.len() {
            prop_assert_eq!(parse(&header[..end]), Ok(None));
        }
        let length = header.len();
        let bytes = [header, behind].concat();
        prop_assert_eq!(parse(&bytes), Ok(Some(Header { version, route, length })));
    }

    #[test]
    fn parse_of_more_bytes_never_changes_a_decision(
        start in prop_oneof![Just(WORD.to_vec()), Just(SIGNATURE.to_vec()), Just(v2(1, 0x11, b"")[..14].to_vec())],
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [start, rest].concat();
        let mut decided = None;
        for end in 0..=bytes.len() {
            let now = parse(&bytes[..end]);
            match decided {
                Some(before) => prop_assert_eq!(now, before),
                None if now != Ok(None) => decided = Some(now),
                None => {}
            }
        }
    }
}
