//! Bytes of clients in pieces, sound and unsound.

use proptest::prelude::*;

use super::*;

/// What passes of a connection's bytes that come in pieces cut at `cuts`, as a codec would get it: requests, and why no more.
fn passed(bytes: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Option<BadHead>) {
    let mut messages = Messages::new(HeadLimits::default());
    let (mut requests, mut request) = (Vec::new(), Vec::new());
    let (mut held, mut known) = (Vec::new(), 0);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut at = 0;
    for end in ends {
        held.extend_from_slice(&bytes[at..end]);
        at = end;
        while held.len() > known {
            let count = match messages.pass(&held, known) {
                Ok(count) => count,
                Err(fault) => return (requests, Some(fault)),
            };
            request.extend(held.drain(..count));
            known = if count == 0 { held.len() } else { 0 };
            if messages.is_between() {
                requests.push(std::mem::take(&mut request));
                messages.begin();
            }
        }
    }
    (requests, None)
}

fn fault(text: &str) -> Option<BadHead> {
    passed(text.as_bytes(), &[]).1
}

const WHOLE: [&str; 5] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "POST /c HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3;x=\"y\"\r\nabc\r\nA \r\n0123456789\r\n0\r\nT: u\r\n\r\n",
    "HEAD /d HTTP/1.0\nContent-Length: 0\n\n",
    "PUT /e HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n00\r\n\r\n",
];

proptest! {
    #[test]
    fn pass_of_any_pieces_ends_requests_where_they_end(cuts in prop::collection::vec(any::<usize>(), 0..40)) {
        let (requests, fault) = passed(WHOLE.concat().as_bytes(), &cuts);
        prop_assert_eq!(fault, None);
        let expected: Vec<_> = WHOLE.iter().map(|text| text.as_bytes().to_vec()).collect();
        prop_assert_eq!(requests, expected);
    }

    #[test]
    fn pass_of_anything_never_panics_and_goes_the_same_way_in_pieces(
        parts in prop::collection::vec(prop_oneof![
            prop::sample::select(WHOLE.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
            prop::sample::select(vec!["Content-Length: 3\r\n", "\r\n", "\n", "0\r\n", "5\r\n", "GET / HTTP/1.1\r\n", "Transfer-Encoding: chunked\r\n"])
                .prop_map(|text| text.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..8),
        ], 0..12),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes = parts.concat();
        let (whole, whole_fault) = passed(&bytes, &[]);
        let (requests, fault) = passed(&bytes, &cuts);
        // In pieces what is wrong may be found later, never earlier, and no other requests.
        prop_assert_eq!(&requests, &whole);
        prop_assert!(fault.is_none() || whole_fault.is_some());
    }
}

#[test]
fn pass_behind_a_request_waits_until_the_next_begins() {
    let mut messages = Messages::new(HeadLimits::default());
    let text = WHOLE[0].repeat(2);
    assert_eq!(messages.pass(text.as_bytes(), 0), Ok(WHOLE[0].len()));
    assert!(messages.is_between());
    assert_eq!(messages.pass(WHOLE[0].as_bytes(), 0), Ok(0));
    messages.begin();
    assert_eq!(messages.pass(WHOLE[0].as_bytes(), 0), Ok(WHOLE[0].len()));
}

#[test]
fn pass_of_what_the_codec_would_settle_in_silence_is_refused() {
    let post = |fields: &str| fault(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
    let both = Some(BadHead::TwoFramings);
    assert_eq!(
        post("Content-Length: 5\r\nTransfer-Encoding: chunked"),
        both
    );
    assert_eq!(
        post("Transfer-Encoding: chunked\r\nCONTENT-LENGTH: 0"),
        both
    );
    let length = Some(BadHead::Length);
    assert_eq!(post("Content-Length: 3\r\nContent-Length: 3"), length);
    assert_eq!(post("Content-Length: 3\r\nContent-Length: 4"), length);
    assert_eq!(
        post("Transfer-Encoding: gzip, chunked"),
        Some(BadHead::UnknownCoding)
    );
}

#[test]
fn pass_of_no_request_says_why() {
    let long = "a".repeat(70_000);
    for (text, expected) in [
        ("GET  / HTTP/1.1\r\n\r\n", BadHead::NoRequest),
        ("GET /\r\n\r\n", BadHead::NoRequest),
        ("GET / HTTP/x\r\n\r\n", BadHead::NoRequest),
        ("GET / HTTP/3.7\r\nHost: a\r\n\r\n", BadHead::Version),
        ("\r\nGET / HTTP/2.0\r\n\r\n", BadHead::Version),
        ("G(T / HTTP/1.1\r\n\r\n", BadHead::NoRequest),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n", BadHead::NoRequest),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", BadHead::NoRequest),
        ("GET / HTTP/1.1\r\nA: b\0\r\n\r\n", BadHead::NoRequest),
        ("GET /<> HTTP/1.1\r\n\r\n", BadHead::Target),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", BadHead::Target),
        ("\u{16}\u{3}\u{1}", BadHead::NoRequest),
        (&format!("GET /{long}"), BadHead::LongTarget),
        (&format!("GET / HTTP/1.1\r\nA: {long}"), BadHead::TooLarge),
        (
            &format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101)),
            BadHead::TooManyFields,
        ),
    ] {
        assert_eq!(fault(text), Some(expected), "{text:.40}");
    }
}

#[test]
fn pass_of_chunks_is_as_strict_as_the_grammar() {
    let body = |text: &str| {
        fault(&format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{text}"
        ))
    };
    let long = format!("1;{}\r\n", "x".repeat(17_000));
    for text in [
        "\r\n",
        "x",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        "0_2\r\n",
        "3\nabc",
        " 3\r\nabc",
        "3 3\r\n",
        ";a\r\n",
        "3;a\nb\r\n",
        "3;a\u{7f}\r\n",
        "3\rabc",
        "3\r\nabcd\r\n",
        "3\r\nabc0\r\n",
        "3\r\nabc\n0\r\n",
        "10000000000000000\r\n",
        "00000000000000003\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA: \0\r\n",
        "0\r\n\rx",
        "0\n",
        &long,
    ] {
        assert_eq!(body(text), Some(BadHead::Chunk), "{text:.40}");
    }
    assert_eq!(body("ffffffffffffffff\r\nabc"), None);
}

#[test]
fn stand_in_says_what_was_asked_for_and_has_no_body() {
    let head = "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nAccept:application/json\r\nConnection: x\r\nExpect: 100-continue\r\n\r\n0\r\n";
    let made = stand_in(head.as_bytes(), BadHead::TwoFramings).unwrap();
    let expected = "POST /a?b HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n";
    assert_eq!(String::from_utf8(made).unwrap(), expected);
    assert_eq!(
        stand_in(b"GET  / HTTP/1.1\r\n\r\n", BadHead::NoRequest),
        None
    );
    assert_eq!(
        stand_in(
            b"CONNECT a:1 HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            BadHead::Length
        ),
        None
    );
}
