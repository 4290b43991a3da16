//! Bodies: how they are framed, that they stream, and that what breaks is seen.

use super::*;

#[test]
fn body_streams_chunk_by_chunk_in_both_directions() {
    let origin = origin(|peer| {
        peer.head()?;
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            let chunk = peer.chunk()?;
            peer.send(format!("{:x}\r\n", chunk.len()))?;
            peer.send(&chunk)?;
            peer.send("\r\n")?;
            if chunk.is_empty() {
                return Ok(());
            }
        }
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    client
        .send("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        .unwrap();
    assert_eq!(client.head().unwrap().status(), 200);
    assert_eq!(client.chunk().unwrap(), b"one");
    // Each waits for the one before.
    for _ in 0..3 {
        client.send("4\r\nmore\r\n").unwrap();
        assert_eq!(client.chunk().unwrap(), b"more");
    }
    client.send("0\r\n\r\n").unwrap();
    assert_eq!(client.chunk().unwrap(), b"");
}

#[test]
fn trailers_pass_in_both_directions() {
    let origin = origin(|peer| {
        let asked = peer.message()?;
        assert_eq!(asked.trailers, [("x-sum".to_owned(), "1".to_owned())]);
        assert_eq!(asked.field("te"), Some("trailers"));
        peer.send(
            "HTTP/1.1 200 OK\r\ntrailer: x-end, content-length\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
             x-end: 2\r\ncontent-length: 7\r\n\r\n",
        )
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let answer = Peer::at(vip)
        .ask(
            "POST / HTTP/1.1\r\nhost: web\r\nte: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n\
             0\r\nx-sum: 1\r\n\r\n",
        )
        .unwrap();
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.trailers, [("x-end".to_owned(), "2".to_owned())]);
}

#[test]
fn chunked_get_keeps_its_body() {
    let origin = mirror();
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let request =
        "GET / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let seen = Peer::at(vip).ask(request).unwrap().text();
    assert!(seen.contains("body: [104, 105]"), "{seen}");
}

#[test]
fn head_and_statuses_without_body_have_none_and_the_connection_goes_on() {
    let origin = origin(|peer| {
        loop {
            let asked = peer.message()?;
            let status = asked
                .line
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .replace('/', "");
            peer.send(match &*status {
                "204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
            })?;
        }
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
        let head = client.head().unwrap();
        assert_eq!(
            (head.status(), head.field("content-length")),
            (200, Some("1000"))
        );
        client.send(get("/204")).unwrap();
        assert_eq!(client.head().unwrap().status(), 204);
        client.send(get("/304")).unwrap();
        assert_eq!(client.head().unwrap().status(), 304);
    }
    assert_eq!(origin.connections(), 1);
    subject.assert_reconciled();
}

#[test]
fn expectation_is_the_endpoint_s_to_meet() {
    let (met, may_meet) = mpsc::channel();
    let may_meet = std::sync::Mutex::new(may_meet);
    let origin = origin(move |peer| {
        let head = peer.head()?;
        assert_eq!(head.field("expect"), Some("100-continue"));
        may_meet.lock().unwrap().recv().unwrap();
        peer.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        let asked = peer.body(head)?;
        peer.send(ok(&asked.text()))
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    client
        .send("PUT / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        .unwrap();
    let short = Some(Duration::from_millis(50));
    client.stream().set_read_timeout(short).unwrap();
    assert_eq!(kind_of(client.line()), io::ErrorKind::WouldBlock);
    client.stream().set_read_timeout(Some(DEADLINE)).unwrap();
    met.send(()).unwrap();
    assert_eq!(client.head().unwrap().status(), 100);
    assert_eq!(client.ask("body").unwrap().text(), "body");
}

#[test]
fn expectation_that_is_refused_costs_no_body() {
    let origin = origin(|peer| {
        peer.head()?;
        peer.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    let answer = client
        .ask("PUT / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        .unwrap();
    assert_eq!(answer.status(), 413);
    // Whether what comes next is the body or a request, nobody can tell.
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(client.is_closed().unwrap());
}

/// Clients send a head and a body apart, and another request as soon as they have an answer: if that comes first and says that the
/// connection stays, one that does not is a request lost.
#[test]
fn answer_before_the_body_says_that_the_connection_ends() {
    let origin = origin(|peer| {
        peer.head()?;
        peer.send(ok("early"))?;
        peer.is_closed().map(drop)
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    let answer = client
        .ask("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\n")
        .unwrap();
    assert_eq!(answer.text(), "early");
    assert_eq!(answer.field("connection"), Some("close"));
    client.send("body").unwrap();
    assert!(client.is_closed().unwrap());
}

#[test]
fn large_bodies_arrive_whole_in_both_directions() {
    let origin = origin(|peer| {
        loop {
            let asked = peer.message()?;
            peer.send(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                asked.body.len()
            ))?;
            peer.send(&asked.body)?;
        }
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let body: Vec<_> = (0..6_000_000_u32)
        .map(|n| n.to_le_bytes()[usize::try_from(n % 3).unwrap()])
        .collect();
    let mut client = Peer::at(vip);
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ))
        .unwrap();
    client.send(&body).unwrap();
    assert!(client.message().unwrap().body == body);
    assert_eq!(subject.port.bytes_to.load(Relaxed), 6_000_000);
    assert_eq!(subject.port.bytes_from.load(Relaxed), 6_000_000);
}

#[test]
fn client_that_ends_its_sending_gets_its_answer() {
    let (asked, was_asked) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let (asked, may_go) = (std::sync::Mutex::new(asked), std::sync::Mutex::new(may_go));
    let origin = origin(move |peer| {
        peer.message()?;
        asked.lock().unwrap().send(()).unwrap();
        may_go.lock().unwrap().recv().unwrap();
        peer.send(ok("late"))
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    client.send(get("/")).unwrap();
    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
    was_asked.recv_timeout(DEADLINE).unwrap();
    go.send(()).unwrap();
    assert_eq!(client.message().unwrap().text(), "late");
    assert!(client.is_closed().unwrap());
}

fn broken(head: &'static str, request: &str) -> io::Result<Vec<u8>> {
    let origin = origin(move |peer| {
        peer.message()?;
        peer.send(head)?;
        reset(peer.stream().try_clone()?);
        Ok(())
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    client.send(request).unwrap();
    let mut all = Vec::new();
    client.0.read_to_end(&mut all).map(|_| all)
}

#[test]
fn body_that_breaks_off_resets_the_client() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n",
    ] {
        assert_eq!(
            kind_of(broken(head, &get("/"))),
            io::ErrorKind::ConnectionReset,
            "{head}"
        );
    }
    // Its end is the connection's, so that a clean one would be believed.
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfour\r\n";
    let old = broken(head, "GET / HTTP/1.0\r\n\r\n");
    assert_eq!(kind_of(old), io::ErrorKind::ConnectionReset);
}

#[test]
fn client_that_breaks_off_its_body_ends_the_request_upstream() {
    let (seen, what_was_seen) = mpsc::channel();
    let seen = std::sync::Mutex::new(seen);
    let origin = origin(move |peer| {
        let result = peer.message().map_err(|error| error.kind());
        seen.lock().unwrap().send(result).unwrap();
        Ok(())
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    client
        .send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 9\r\n\r\nfour")
        .unwrap();
    drop(client);
    let kind = what_was_seen.recv_timeout(DEADLINE).unwrap().unwrap_err();
    assert!(matches!(
        kind,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    ));
}

#[test]
fn client_that_resets_while_it_waits_cancels_the_request() {
    let (asked, was_asked) = mpsc::channel();
    let (gone, was_gone) = mpsc::channel();
    let ends = std::sync::Mutex::new((asked, gone));
    let origin = origin(move |peer| {
        peer.message()?;
        ends.lock().unwrap().0.send(()).unwrap();
        let closed = peer.is_closed();
        ends.lock().unwrap().1.send(closed.unwrap_or(true)).unwrap();
        Ok(())
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    client.send(get("/")).unwrap();
    was_asked.recv_timeout(DEADLINE).unwrap();
    reset(client.0.into_inner());
    assert!(was_gone.recv_timeout(DEADLINE).unwrap());
    wait_until("places to be given back", || {
        subject.port.active.load(Relaxed) == 0
    });
    subject.assert_reconciled();
    let port = &subject.port;
    assert_eq!(port.connected.load(Relaxed), 1);
    assert_eq!(port.retries.load(Relaxed), 0, "no failure of the endpoint");
}
