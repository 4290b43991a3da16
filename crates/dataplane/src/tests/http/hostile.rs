//! What must not reach an endpoint, and who must not keep others from theirs.

use super::*;

/// A bench whose endpoint must never be asked, and what a client gets for `request`.
fn refused(request: &[u8]) -> (u16, u64) {
    let origin = naming("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    client.send(request).unwrap();
    let answer = client.head().unwrap();
    let status = answer.status();
    let answer = client.body(answer);
    assert!(answer.is_ok(), "{answer:?}");
    assert!(
        client.is_closed().unwrap(),
        "{}",
        String::from_utf8_lossy(request)
    );
    (status, origin.connections())
}

#[test]
fn ambiguous_heads_are_refused_and_the_connection_closed() {
    for fields in [
        "content-length: 1\r\ncontent-length: 2",
        "content-length: 5, 5",
        "content-length: +5",
        "content-length: 0x5",
        "content-length: 5_0",
        "content-length:",
        "content-length: -1",
        "content-length: 18446744073709551616",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: \x0bchunked",
        "transfer-encoding : chunked",
        "x: a\r\n b",
        "x: a\0b",
        " x: a",
        "x y: a",
        "host: other",
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: web\r\n{fields}\r\n\r\n");
        assert_eq!(refused(request.as_bytes()), (400, 0), "{fields:?}");
    }
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: web\r\n\r\n",
        "G(T / HTTP/1.1\r\nhost: web\r\n\r\n",
        "GET http://other/ HTTP/1.1\r\nhost: web\r\n\r\n",
        "GET / HTTP/3.7\r\nhost: web\r\n\r\n",
        "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(refused(head.as_bytes()), (400, 0), "{head:?}");
    }
}

#[test]
fn heads_beyond_the_limits_are_refused_with_431() {
    let many = "x: y\r\n".repeat(200);
    let long = format!("x: {}\r\n", "y".repeat(70_000));
    for fields in [many, long] {
        let request = format!("GET / HTTP/1.1\r\nhost: web\r\n{fields}\r\n");
        assert_eq!(refused(request.as_bytes()), (431, 0));
    }
}

#[test]
fn connect_is_refused() {
    let origin = naming("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let answer = Peer::at(vip)
        .ask("CONNECT web:80 HTTP/1.1\r\nhost: web:80\r\n\r\n")
        .unwrap();
    assert_eq!((answer.status(), origin.connections()), (501, 0));
}

#[test]
fn lengths_beside_chunks_are_dropped_and_the_connection_closed() {
    let origin = mirror();
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    for fields in [
        "content-length: 30\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 30",
    ] {
        let mut client = Peer::at(vip);
        let request = format!(
            "POST / HTTP/1.1\r\nhost: web\r\n{fields}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
        );
        let answer = client.ask(request).unwrap();
        if answer.status() == 200 {
            assert!(
                !answer.text().contains("content-length"),
                "{}",
                answer.text()
            );
            assert!(!answer.text().contains("smuggled"), "{}", answer.text());
        }
        // Closed, or reset over what was sent behind it.
        assert!(client.is_closed().unwrap_or(true));
    }
}

#[test]
fn chunks_that_are_none_break_the_request() {
    for chunks in [
        "0_2\r\nab\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\na",
        "1\r\nab\r\n0\r\n\r\n",
    ] {
        let origin = mirror();
        let vip = vip();
        let subject = http(vip, &[origin.addr]);
        let _bench = serving(&[&subject]);
        let mut client = Peer::at(vip);
        client
            .send(format!(
                "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"
            ))
            .unwrap();
        let answer = client.message().map(|answer| answer.status());
        assert!(!matches!(answer, Ok(200)), "{chunks:?}: {answer:?}");
    }
}

#[test]
fn fields_that_the_connection_names_cannot_take_away_what_frames_a_message() {
    let origin = mirror();
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let request = "POST / HTTP/1.1\r\nhost: web\r\nconnection: content-length, host\r\ncontent-length: 2\r\n\r\nhi";
    let seen = Peer::at(vip).ask(request).unwrap().text();
    assert!(
        seen.contains("(\"host\", \"web\")") && seen.contains("body: [104, 105]"),
        "{seen}"
    );
}

#[test]
fn upgrade_with_a_body_is_none() {
    let origin = mirror();
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let request = "GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: x\r\ncontent-length: 2\r\n\r\nhi";
    let seen = Peer::at(vip).ask(request).unwrap().text();
    assert!(!seen.contains("upgrade"), "{seen}");
}

#[test]
fn head_that_does_not_come_in_time_is_told_408() {
    let origin = naming("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let settings = DataSettings {
        http_head_timeout: Duration::from_millis(60),
        ..DataSettings::default()
    };
    let _bench = with(&settings, &[&subject]);
    for start in ["GET / HTTP/1.1\r\nho", "PRI * HT", "G"] {
        let mut client = Peer::at(vip);
        let answer = client.ask(start).unwrap();
        assert_eq!(answer.status(), 408, "{start}");
        assert!(client.is_closed().unwrap());
    }
    let mut client = Peer::at(vip);
    assert_eq!(client.get("/").unwrap().status(), 200);
    assert_eq!(
        client.ask("GET").unwrap().status(),
        408,
        "the second one's, too"
    );
}
