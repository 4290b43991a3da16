//! Heads before and after, as text.

use http::{Request, Response, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::http::framing::{HeadLimits, judge};

const CHANCE: [u8; 24] = [7; 24];

fn request(text: &str) -> Parts {
    let mut lines = text.lines();
    let line: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let version = match line[2] {
        "1.0" => Version::HTTP_10,
        "1.1" => Version::HTTP_11,
        _ => Version::HTTP_2,
    };
    let mut request = Request::builder()
        .method(line[0])
        .uri(line[1])
        .version(version);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    request.body(()).unwrap().into_parts().0
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

fn onward(version: Version, body: BodyLength) -> Onward<'static> {
    Onward {
        version,
        body,
        service: "web.shop:80",
        chance: CHANCE,
    }
}

fn sent(text: &str, onward: Onward<'_>, rules: &HeaderRules) -> (String, Vec<String>) {
    let mut head = request(text);
    let arrival = Arrival::new("192.0.2.7:4000".parse().unwrap(), rules);
    to_endpoint(&mut head, onward, &arrival, rules).unwrap();
    assert_eq!(head.version, onward.version);
    let lines = shown(&head.headers);
    (head.uri.to_string(), lines)
}

/// Without what every head gets.
fn check(text: &str, body: BodyLength, expected: &[&str]) {
    let (_, lines) = sent(
        text,
        onward(Version::HTTP_11, body),
        &HeaderRules::default(),
    );
    let told = [
        "host: a",
        "x-forwarded-for: 192.0.2.7",
        "x-forwarded-host: a",
        "x-forwarded-proto: http",
    ];
    for line in told {
        assert!(lines.iter().any(|found| found == line), "{text}: {lines:?}");
    }
    let rest: Vec<&str> = lines
        .iter()
        .map(|line| &**line)
        .filter(|line| !told.contains(line))
        .collect();
    assert_eq!(rest, expected, "{text}");
}

#[test]
fn to_endpoint_what_concerns_the_connection_stays_there() {
    let empty = BodyLength::Empty;
    check(
        "GET / 1.1\nhost: a\nconnection: close, x-secret\nx-secret: 1\nkeep-alive: timeout=5\nproxy-connection: x\nx-kept: 2",
        empty,
        &["x-kept: 2"],
    );
    check(
        "GET / 1.1\nhost: a\nconnection: host, content-length, authorization\nconnection: X-Forwarded-For, , @\nauthorization: me",
        empty,
        &["authorization: me"],
    );
    check("GET / 1.1\nhost: a\nte: gzip", empty, &[]);
    check(
        "GET / 1.1\nhost: a\nte: gzip, trailers;q=1, Trailers",
        empty,
        &["connection: te", "te: trailers"],
    );
}

#[test]
fn to_endpoint_says_the_length_in_one_way() {
    check(
        "POST / 1.1\nhost: a\ncontent-length: 5",
        BodyLength::Exactly(5),
        &["content-length: 5"],
    );
    check(
        "GET / 1.1\nhost: a\ntransfer-encoding: Chunked",
        BodyLength::Unknown,
        &["transfer-encoding: chunked"],
    );
    check(
        "POST / 1.1\nhost: a\ncontent-length: 0",
        BodyLength::Empty,
        &["content-length: 0"],
    );
    check(
        "POST / 1.1\nhost: a\ncontent_length: 7",
        BodyLength::Empty,
        &[],
    );
    check(
        "POST / 1.1\nhost: a\ntransfer-encoding_: x",
        BodyLength::Empty,
        &["transfer-encoding_: x"],
    );
}

#[test]
fn to_endpoint_upgrades_only_what_can_be_upgraded() {
    let empty = BodyLength::Empty;
    let asked = "GET / 1.1\nhost: a\nconnection: keep-alive, Upgrade\nupgrade: websocket";
    check(asked, empty, &["connection: upgrade", "upgrade: websocket"]);
    check("GET / 1.1\nhost: a\nupgrade: websocket", empty, &[]);
    check(
        "GET / 1.0\nhost: a\nconnection: upgrade\nupgrade: websocket",
        empty,
        &[],
    );
    check(
        "GET / 1.1\nhost: a\nconnection: upgrade, http2-settings\nupgrade: h2c\nhttp2-settings: AAMAAABk",
        empty,
        &[],
    );
    check(asked, BodyLength::Exactly(1), &["content-length: 1"]);
    let (_, lines) = sent(
        asked,
        onward(Version::HTTP_2, empty),
        &HeaderRules::default(),
    );
    assert!(
        !lines.iter().any(|line| line.contains("upgrade")),
        "{lines:?}"
    );
}

#[test]
fn to_endpoint_says_the_target_as_the_version_does() {
    let check = |text: &str, version, expected_uri: &str, expected_host: Option<&str>| {
        let rules = HeaderRules::default();
        let (uri, lines) = sent(text, onward(version, BodyLength::Empty), &rules);
        let host = lines.iter().find_map(|line| line.strip_prefix("host: "));
        assert_eq!((&*uri, host), (expected_uri, expected_host), "{text}");
    };
    let (h1, h2) = (Version::HTTP_11, Version::HTTP_2);
    check("GET /x?y 1.1\nhost: a:1", h1, "/x?y", Some("a:1"));
    check("GET http://a:1/x?y 1.1\nhost: a:1", h1, "/x?y", Some("a:1"));
    check("GET https://a/x 2", h1, "/x", Some("a"));
    check("GET /x 2\nhost: a", h1, "/x", Some("a"));
    check("GET /x 1.0", h1, "/x", Some("web.shop:80"));
    check("GET /x 1.1\nhost: ", h1, "/x", Some(""));
    check("OPTIONS * 1.1\nhost: a", h1, "*", Some("a"));
    check("GET /x 1.1\nhost: a:1", h2, "http://a:1/x", None);
    check("GET https://a/x 2\nhost: a", h2, "https://a/x", None);
    check("GET /x 1.0", h2, "http://web.shop:80/x", None);
}

#[test]
fn to_endpoint_trusted_proxies_are_gone_on_with_and_others_replaced() {
    let text = "GET / 1.1\nhost: a:80\nx-forwarded-for: 198.51.100.1\nx-forwarded-for: 198.51.100.2\nx-forwarded-proto: https\n\
                x-forwarded-host: shop.example\nforwarded: for=198.51.100.1\nx_forwarded_for: 1";
    let find = |rules: &HeaderRules| {
        let (_, mut lines) = sent(text, onward(Version::HTTP_11, BodyLength::Empty), rules);
        lines.retain(|line| !line.starts_with("host"));
        lines
    };
    let strangers = HeaderRules {
        forwarded: Forwarded::Written,
        ..HeaderRules::default()
    };
    assert_eq!(
        find(&strangers),
        [
            "forwarded: for=192.0.2.7;host=\"a:80\";proto=http",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: a:80",
            "x-forwarded-proto: http",
        ]
    );
    let trusted = HeaderRules {
        trusted: ["192.0.2.0/24".parse().unwrap()].into(),
        via: Via::Written,
        ..strangers
    };
    assert_eq!(
        find(&trusted),
        [
            "forwarded: for=198.51.100.1, for=192.0.2.7;host=\"a:80\";proto=http",
            "via: 1.1 portico",
            "x-forwarded-for: 198.51.100.1, 198.51.100.2, 192.0.2.7",
            "x-forwarded-host: shop.example",
            "x-forwarded-proto: https",
        ]
    );
}

#[test]
fn arrival_over_ipv6_is_quoted_in_forwarded_alone() {
    let rules = HeaderRules::default();
    let arrival = |text: &str| Arrival::new(text.parse().unwrap(), &rules);
    let v6 = arrival("[2001:db8::1]:9");
    assert_eq!(v6.forwarded, "for=\"[2001:db8::1]\"");
    assert_eq!(v6.client, "2001:db8::1");
    assert_eq!(arrival("[::ffff:192.0.2.1]:9").forwarded, "for=192.0.2.1");
}

#[test]
fn to_endpoint_cookies_in_pieces_are_one_line_in_http1() {
    let text = "GET http://a/ 2\ncookie: x=1\ncookie: y=2";
    let lines = |version| {
        let onward = onward(version, BodyLength::Empty);
        let (_, mut lines) = sent(text, onward, &HeaderRules::default());
        lines.retain(|line| line.starts_with("cookie"));
        lines
    };
    assert_eq!(lines(Version::HTTP_11), ["cookie: x=1; y=2"]);
    assert_eq!(lines(Version::HTTP_2), ["cookie: x=1", "cookie: y=2"]);
}

#[test]
fn to_endpoint_begins_a_trace_only_where_no_sound_one_comes() {
    let rules = HeaderRules {
        trace: Trace::Begun,
        ..HeaderRules::default()
    };
    let sound = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let begun = format!("00-{}-{}-01", "07".repeat(16), "07".repeat(8));
    for (given, expected) in [
        (sound, sound),
        (
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more",
        ),
        (
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            &*begun,
        ),
        (
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-00",
            &begun,
        ),
        (
            "00-00000000000000000000000000000000-00f067aa0ba902b7-00",
            &begun,
        ),
        (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-x",
            &begun,
        ),
        ("x", &begun),
    ] {
        let text = format!("GET / 1.1\nhost: a\ntraceparent: {given}\ntracestate: v=1");
        let (_, lines) = sent(&text, onward(Version::HTTP_11, BodyLength::Empty), &rules);
        let line = format!("traceparent: {expected}");
        assert!(lines.contains(&line), "{given}: {lines:?}");
        let has_state = lines.iter().any(|line| line.starts_with("tracestate"));
        assert_eq!(has_state, expected == given, "{given}");
    }
}

#[test]
fn to_client_keeps_an_upgrade_and_nothing_else_of_the_connection() {
    let answer = |status: u16| {
        let response = Response::builder()
            .status(StatusCode::from_u16(status).unwrap())
            .header("connection", "upgrade, x-hop")
            .header("upgrade", "websocket")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("content-length", "3");
        let mut head = response.body(()).unwrap().into_parts().0;
        to_client(&mut head, Version::HTTP_11, &HeaderRules::default());
        shown(&head.headers)
    };
    assert_eq!(answer(101), ["connection: upgrade", "upgrade: websocket"]);
    assert_eq!(answer(200), ["content-length: 3"]);
    assert_eq!(answer(304), ["content-length: 3"]);
    assert!(answer(204).is_empty(), "it has no body");
}

#[test]
fn to_client_says_one_length() {
    let answer = |fields: &[(&'static str, &'static str)]| {
        let mut response = Response::builder();
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let mut head = response.body(()).unwrap().into_parts().0;
        to_client(&mut head, Version::HTTP_11, &HeaderRules::default());
        shown(&head.headers)
    };
    let length = ("content-length", "5");
    let five = ["content-length: 5"];
    assert_eq!(answer(&[length]), five);
    assert_eq!(answer(&[length, length]), five);
    assert_eq!(answer(&[("content-length", "5, 5")]), five);
    assert!(answer(&[length, ("transfer-encoding", "chunked")]).is_empty());
    assert!(answer(&[]).is_empty());
}

#[test]
fn clean_trailers_leaves_nothing_that_frames_or_routes() {
    let mut trailers: HeaderMap = [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "grpc-status",
    ]
    .into_iter()
    .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")))
    .collect();
    clean_trailers(&mut trailers);
    assert_eq!(shown(&trailers), ["grpc-status: 1"]);
}

/// Fields that a hostile client may send, as far as a head with them is not refused.
const FIELDS: [(&str, &str); 20] = [
    ("connection", "close, x-a"),
    ("connection", "host, content-length, te, x-forwarded-for"),
    ("connection", "upgrade, keep-alive"),
    ("connection", "transfer-encoding, connection"),
    ("content-length", "0"),
    ("content-length", "7"),
    ("content_length", "9"),
    ("transfer-encoding", "chunked"),
    ("transfer_encoding", "chunked"),
    ("te", "trailers, gzip"),
    ("upgrade", "websocket"),
    ("upgrade", "h2c"),
    ("keep-alive", "timeout=1"),
    ("proxy-connection", "keep-alive"),
    ("http2-settings", "AAMAAABk"),
    ("x-a", "1"),
    ("x-forwarded-for", "198.51.100.9"),
    ("x_forwarded_for", "198.51.100.9"),
    ("cookie", "a=b"),
    ("trailer", "x"),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    /// What goes on passes the judgement that the request passed, with the same length, and has nothing of the connection it came by.
    #[test]
    fn to_endpoint_of_any_sound_head_is_sound_and_as_long(
        fields in prop::collection::vec(prop::sample::select(&FIELDS[..]), 0..8),
        line in prop::sample::select(vec![
            "GET / 1.1", "POST /x 1.1", "GET http://a/ 1.1", "GET / 1.0", "OPTIONS * 1.1", "POST http://a/ 2", "GET / 2",
        ]),
        is_http2 in any::<bool>(),
    ) {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\n{name}: {value}")).collect();
        let text = format!("{line}\nhost: a{}", fields.concat());
        let mut head = request(&text);
        let limits = HeadLimits::default();
        let Ok(body) = judge(&head, limits) else { return Ok(()) };
        let version = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let rules = HeaderRules::default();
        let arrival = Arrival::new("192.0.2.7:4000".parse().unwrap(), &rules);
        to_endpoint(&mut head, onward(version, body), &arrival, &rules).unwrap();
        match judge(&head, limits) {
            // Where no length is said, HTTP/2 may have a body.
            Ok(BodyLength::Unknown) if is_http2 => prop_assert_ne!(body, BodyLength::Exactly(7)),
            found => prop_assert_eq!(found, Ok(body)),
        }
        let headers = &head.headers;
        for gone in ["keep-alive", "proxy-connection", "http2-settings", "content_length", "transfer_encoding", "x_forwarded_for"] {
            prop_assert!(!headers.contains_key(gone), "{gone}");
        }
        prop_assert_eq!(headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>(), ["192.0.2.7"]);
        let connection = headers.get(CONNECTION);
        let expected: Option<&str> = match (headers.get(UPGRADE), headers.get(TE)) {
            (Some(_), None) => Some("upgrade"),
            (None, Some(_)) if !is_http2 => Some("te"),
            (None, _) => None,
            (Some(_), Some(_)) => Some("never both"),
        };
        prop_assert_eq!(connection.map(|it| it.to_str().unwrap()), expected);
        prop_assert!(headers.get(UPGRADE).is_none_or(|it| it == "websocket" && body == BodyLength::Empty));
    }
}
