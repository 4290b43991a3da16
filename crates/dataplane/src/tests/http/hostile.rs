//! What must not reach an endpoint, and who must not keep others from theirs.

use std::net::Shutdown;

use super::*;

/// A bench whose endpoint must never be asked, and what a client gets for `request`.
fn refused(request: &[u8]) -> (u16, u64) {
    let origin = naming("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    client.send(request).unwrap();
    (refusal(&mut client), origin.connections())
}

/// The status of a refusal, which says why in both ways, and ends the connection.
fn refusal(client: &mut Peer) -> u16 {
    let answer = client.message().unwrap();
    let told = answer.field("proxy-status").unwrap();
    assert!(told.contains("; error=http_request_error"), "{told}");
    assert!(answer.text().contains("the request"), "{answer:?}");
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(client.is_closed().unwrap(), "{answer:?}");
    answer.status()
}

#[test]
fn ambiguous_heads_are_refused_and_the_connection_closed() {
    for fields in [
        "content-length: 1\r\ncontent-length: 2",
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 30\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 30",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
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
        "GET /<> HTTP/1.1\r\nhost: web\r\n\r\n",
        "GET /\r\n\r\n",
        "\x16\x03\x01",
        "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(refused(head.as_bytes()), (400, 0), "{head:?}");
    }
    let other = b"GET / HTTP/3.7\r\nhost: web\r\n\r\n";
    assert_eq!(refused(other), (505, 0));
}

#[test]
fn what_follows_a_refused_request_is_no_request() {
    for fields in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "content-length: +4",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: web\r\n{fields}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: web\r\n\r\n"
        );
        assert_eq!(refused(request.as_bytes()), (400, 0));
    }
}

#[test]
fn request_behind_another_is_refused_after_the_answer_to_that() {
    let origin = naming("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    client
        .send(
            "GET / HTTP/1.1\r\nhost: web\r\n\r\nGET / HTTP/1.1\r\nhost: web\r\nhost : web\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.message().unwrap().status(), 200);
    assert_eq!(refusal(&mut client), 400);
}

#[test]
fn head_that_breaks_off_is_told_so() {
    let vip = vip();
    let origin = naming("a");
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    client.send("GET / HTTP/1.1\r\nho").unwrap();
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(refusal(&mut client), 400);
}

#[test]
fn end_of_sending_behind_a_request_is_no_end_of_its_answer() {
    let origin = mirror();
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    for request in [
        "GET / HTTP/1.1\r\nhost: web\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi",
        "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\nhi",
    ] {
        // Two of them: the end comes while the first is under way.
        for count in 1..=2 {
            let mut client = Peer::at(vip);
            client.send(request.repeat(count)).unwrap();
            client.stream().shutdown(Shutdown::Write).unwrap();
            let answers = if request.contains("HTTP/1.0") {
                1
            } else {
                count
            };
            for _ in 0..answers {
                assert_eq!(client.message().unwrap().status(), 200, "{request:?}");
            }
            assert!(client.is_closed().unwrap_or(true), "{request:?}");
        }
    }
}

#[test]
fn heads_beyond_the_limits_are_refused_with_431_and_targets_with_414() {
    let many = "x: y\r\n".repeat(200);
    let long = format!("x: {}\r\n", "y".repeat(70_000));
    for fields in [many, long] {
        let request = format!("GET / HTTP/1.1\r\nhost: web\r\n{fields}\r\n");
        assert_eq!(refused(request.as_bytes()), (431, 0));
    }
    let target = format!("GET /{} HTTP/1.1\r\nhost: web\r\n\r\n", "y".repeat(70_000));
    assert_eq!(refused(target.as_bytes()), (414, 0));
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
fn chunks_that_are_none_are_refused_whether_they_come_with_the_head_or_behind_it() {
    for chunks in [
        "0_2\r\nab\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\na",
        "1\r\nab\r\n0\r\n\r\n",
        "0\r\nx y: z\r\n\r\n",
    ] {
        for is_apart in [false, true] {
            let (say, heads) = mpsc::channel();
            let origin = origin(move |peer| {
                peer.head()?;
                say.send(()).unwrap();
                peer.chunk()?;
                // The rest never comes.
                peer.chunk().map(|_| ())
            });
            let vip = vip();
            let subject = http(vip, &[origin.addr]);
            let _bench = serving(&[&subject]);
            let mut client = Peer::at(vip);
            let head = "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n";
            if is_apart {
                client.send(format!("{head}2\r\nhi\r\n")).unwrap();
                heads.recv().unwrap();
                client.send(chunks).unwrap();
            } else {
                client.send(format!("{head}{chunks}")).unwrap();
            }
            assert_eq!(refusal(&mut client), 400, "{chunks:?} {is_apart}");
        }
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
        client.send(start).unwrap();
        assert_eq!(refusal(&mut client), 408, "{start}");
    }
    let mut client = Peer::at(vip);
    assert_eq!(client.get("/").unwrap().status(), 200);
    client.send("GET").unwrap();
    assert_eq!(refusal(&mut client), 408, "the second one's, too");
}
