//! The corpus of ambiguous heads, a row a case, and properties over whatever else a head may be.

use http::Request;
use proptest::prelude::*;

use super::*;

/// A head from text: the request line, then a field a line. What the types do not take, no codec lets through.
fn head(text: &str) -> Parts {
    let mut lines = text.lines();
    let line: Vec<&str> = lines.next().unwrap().splitn(3, ' ').collect();
    let version = match line[2] {
        "HTTP/0.9" => Version::HTTP_09,
        "HTTP/1.0" => Version::HTTP_10,
        "HTTP/1.1" => Version::HTTP_11,
        "HTTP/2" => Version::HTTP_2,
        other => panic!("{other}"),
    };
    let mut request = Request::builder()
        .method(line[0])
        .uri(line[1])
        .version(version);
    for field in lines {
        let (name, value) = field.split_once(':').unwrap();
        // Codecs take spaces and tabs off, and nothing else.
        request = request.header(name, value.trim_matches([' ', '\t']));
    }
    request.body(()).unwrap().into_parts().0
}

fn check(text: &str, expected: Result<BodyLength, BadHead>) {
    assert_eq!(
        judge(&head(text), HeadLimits::default()),
        expected,
        "{text}"
    );
}

#[test]
fn judge_plain_heads_say_how_long_their_body_is() {
    use BodyLength::{Empty, Exactly, Unknown};
    for (text, expected) in [
        ("GET / HTTP/1.1\nhost: a", Empty),
        ("GET / HTTP/1.0", Empty),
        (
            "POST /x?y HTTP/1.1\nhost: a:8080\ncontent-length: 5",
            Exactly(5),
        ),
        ("POST / HTTP/1.0\ncontent-length: 5", Exactly(5)),
        ("POST / HTTP/1.1\nhost: a\ncontent-length: 0", Empty),
        (
            "POST / HTTP/1.1\nhost: a\ncontent-length: 18446744073709551615",
            Exactly(u64::MAX),
        ),
        (
            "POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked",
            Unknown,
        ),
        (
            "POST / HTTP/1.1\nhost: a\nTransfer-Encoding:\tChunked",
            Unknown,
        ),
        ("OPTIONS * HTTP/1.1\nhost: a", Empty),
        ("GET http://a/x HTTP/1.1\nhost: A:80", Empty),
        ("GET http://a:8080/x HTTP/1.1\nhost: a:8080", Empty),
        ("GET / HTTP/1.1\nhost:", Empty),
        ("GET / HTTP/1.1\nhost: [::1]:8080", Empty),
        ("GET / HTTP/1.1\nhost: my_service.shop.svc", Empty),
        ("GET http://a/ HTTP/2", Unknown),
        ("GET https://a:443/ HTTP/2\nhost: a", Unknown),
        ("GET https://a/ HTTP/2\nhost: a", Unknown),
        ("POST http://a/ HTTP/2\ncontent-length: 3", Exactly(3)),
        ("GET / HTTP/2\nhost: a", Unknown),
    ] {
        check(text, Ok(expected));
    }
}

#[test]
fn judge_what_two_readers_may_read_differently_is_refused() {
    use BadHead::{Coding, Length, TwoFramings, UnexpectedCoding, UnknownCoding};
    let post = |fields: &str, expected| {
        check(
            &format!("POST / HTTP/1.1\nhost: a\n{fields}"),
            Err(expected),
        );
    };
    post("content-length: 5\ntransfer-encoding: chunked", TwoFramings);
    post("transfer-encoding: chunked\ncontent-length: 5", TwoFramings);
    for lengths in [
        "content-length: 5\ncontent-length: 5",
        "content-length: 5\ncontent-length: 6",
        "content-length: 5, 5",
        "content-length: +5",
        "content-length: -5",
        "content-length: 0x5",
        "content-length: 5_0",
        "content-length: 5 0",
        "content-length: 05",
        "content-length: 00",
        "content-length: 5.0",
        "content-length:",
        "content-length: 18446744073709551616",
        "content-length: ５",
    ] {
        post(lengths, Length);
    }
    for codings in [
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked\ntransfer-encoding: chunked",
        "transfer-encoding: gzip\ntransfer-encoding: chunked",
        "transfer-encoding: chunked;q=1",
        "transfer-encoding: , chunked",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding:",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked\u{a0}",
    ] {
        post(codings, Coding);
    }
    post("transfer-encoding: gzip, chunked", UnknownCoding);
    check(
        "POST / HTTP/1.0\ntransfer-encoding: chunked",
        Err(UnexpectedCoding),
    );
    check(
        "POST http://a/ HTTP/2\ntransfer-encoding: chunked",
        Err(UnexpectedCoding),
    );
    check(
        "POST http://a/ HTTP/2\ncontent-length: 3\ncontent-length: 3",
        Err(Length),
    );
}

#[test]
fn judge_hosts_and_targets_name_one_host() {
    use BadHead::{Connect, Host, NoHost, OtherHost, Target, TwoHosts, Version};
    for (text, expected) in [
        ("GET / HTTP/1.1\naccept: */*", NoHost),
        ("GET http://a/ HTTP/1.1\naccept: */*", NoHost),
        ("GET / HTTP/2\naccept: */*", NoHost),
        ("GET / HTTP/1.1\nhost: a\nhost: a", TwoHosts),
        ("GET / HTTP/1.0\nhost: a\nhost: b", TwoHosts),
        ("GET http://a/ HTTP/1.1\nhost: b", OtherHost),
        ("GET http://a:81/ HTTP/1.1\nhost: a", OtherHost),
        ("GET http://a/ HTTP/1.1\nhost:", OtherHost),
        ("GET https://a/ HTTP/1.1\nhost: a:80", OtherHost),
        ("GET http://a/ HTTP/2\nhost: b", OtherHost),
        ("GET / HTTP/1.1\nhost: a b", Host),
        ("GET / HTTP/1.1\nhost: a, b", Host),
        ("GET / HTTP/1.1\nhost: a@b", Host),
        ("GET / HTTP/1.1\nhost: a/b", Host),
        ("GET / HTTP/1.1\nhost: http://a", Host),
        ("GET / HTTP/1.1\nhost: a:b", Host),
        ("GET / HTTP/1.1\nhost: a:99999", Host),
        ("GET / HTTP/1.1\nhost: [::g]", Host),
        ("GET / HTTP/1.1\nhost: ::1", Host),
        ("GET http://u:p@a/ HTTP/1.1\nhost: a", Host),
        ("GET a:80 HTTP/1.1\nhost: a", Target),
        ("GET * HTTP/1.1\nhost: a", Target),
        ("GET ftp://a/ HTTP/1.1\nhost: a", Target),
        ("CONNECT a:80 HTTP/1.1\nhost: a:80", Connect),
        ("CONNECT http://a/ HTTP/2\nhost: a", Connect),
        ("GET / HTTP/0.9\nhost: a", Version),
    ] {
        check(text, Err(expected));
    }
}

#[test]
fn judge_heads_up_to_the_limits_and_not_beyond() {
    let limits = HeadLimits::default();
    let with = |count: usize, length: usize| {
        let mut parts = head("GET / HTTP/1.1\nhost: a");
        for n in 1..count {
            let name = http::HeaderName::try_from(format!("x{n}")).unwrap();
            parts.headers.insert(name, HeaderValue::from_static("1"));
        }
        let value = HeaderValue::try_from("v".repeat(length)).unwrap();
        parts.headers.insert(HOST, HeaderValue::from_static("a"));
        if length > 0 {
            parts.headers.insert("long", value);
        }
        judge(&parts, limits)
    };
    assert_eq!(with(100, 0), Ok(BodyLength::Empty));
    assert_eq!(with(101, 0), Err(BadHead::TooManyFields));
    // `GET`, `/`, `host: a` and `long: ` with what separates them.
    let rest = 3 + 1 + 9 + 8;
    assert_eq!(with(1, limits.bytes - rest), Ok(BodyLength::Empty));
    assert_eq!(with(1, limits.bytes - rest + 1), Err(BadHead::TooLarge));
}

#[test]
fn answer_is_sound_with_no_coding_or_chunked_alone() {
    for (coding, expected) in [
        (None, true),
        (Some("Chunked"), true),
        (Some("gzip, chunked"), false),
        (Some("gzip"), false),
        (Some("chunked, chunked"), false),
    ] {
        let coding = coding.map(|it| (TRANSFER_ENCODING, HeaderValue::from_static(it)));
        let headers: HeaderMap = coding.into_iter().collect();
        assert_eq!(is_sound_answer(&headers), expected, "{headers:?}");
    }
}

#[test]
fn status_tells_bad_from_large_and_from_not_served() {
    for (fault, status) in [
        (BadHead::NoHost, 400),
        (BadHead::TooLarge, 431),
        (BadHead::TooManyFields, 431),
        (BadHead::UnknownCoding, 501),
        (BadHead::Connect, 501),
        (BadHead::Version, 505),
    ] {
        assert_eq!(fault.status(), status, "{fault}");
    }
}

fn text_of(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).unwrap_or_else(|_| HeaderValue::from_static("x"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    /// Whatever lines stand there: a length is given only by one plain number alone, and `chunked` alone is the other way.
    #[test]
    fn judge_any_framing_fields_have_one_meaning_or_none(
        lengths in prop::collection::vec("[0-9+x, -]{0,4}", 0..3),
        codings in prop::collection::vec("(chunked|gzip|identity|[a-z, \t]{0,4}){0,2}", 0..3),
        version in prop::sample::select(vec![Version::HTTP_10, Version::HTTP_11, Version::HTTP_2]),
    ) {
        let mut parts = head("POST http://a/ HTTP/1.1\nhost: a");
        parts.version = version;
        for length in &lengths {
            parts.headers.append(CONTENT_LENGTH, text_of(length.as_bytes()));
        }
        for coding in &codings {
            parts.headers.append(TRANSFER_ENCODING, text_of(coding.as_bytes()));
        }
        match judge(&parts, HeadLimits::default()) {
            Ok(BodyLength::Exactly(length)) => {
                prop_assert!(codings.is_empty());
                prop_assert_eq!(lengths, [length.to_string()]);
            }
            Ok(BodyLength::Unknown) if version == Version::HTTP_11 => {
                prop_assert!(lengths.is_empty());
                prop_assert_eq!(codings.len(), 1);
                prop_assert!(codings[0].eq_ignore_ascii_case("chunked"));
            }
            Ok(_) => {
                prop_assert!(codings.is_empty());
                prop_assert!(lengths.is_empty() || lengths == ["0"]);
            }
            Err(fault) => prop_assert!(fault.status().is_client_error() || fault.status() == 501),
        }
    }

    /// Any bytes that a value may have: a `Host` that passes is a name or address with a port.
    #[test]
    fn judge_any_host_that_passes_is_plain(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        let mut parts = head("GET / HTTP/1.1\nhost: a");
        let value = text_of(&bytes);
        parts.headers.insert(HOST, value.clone());
        if judge(&parts, HeadLimits::default()).is_ok() {
            let text = value.to_str().unwrap();
            prop_assert!(!text.contains(['@', '/', ' ', ',', '?', '#', '\\']), "{}", text);
        }
    }
}
