//! Which request goes where, on which connection, and what is changed of it.

use super::*;

#[test]
fn requests_of_one_connection_are_exactly_even() {
    let origins = ["a", "b", "c"].map(naming);
    let vip = vip();
    let subject = http(vip, &origins.each_ref().map(|it| it.addr));
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..300 {
        *counts.entry(client.get("/").unwrap().text()).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [100, 100, 100]);
    for origin in &origins {
        assert_eq!(origin.connections(), 1, "each is asked on one connection");
    }
    assert_eq!(
        subject.port.accepted.load(Relaxed),
        300,
        "requests are counted"
    );
    assert_eq!(
        subject.port.ends.of(portico_core::balance::End::Finished),
        300
    );
    subject.assert_reconciled();
}

#[test]
fn requests_of_sixteen_clients_are_exactly_even_over_two_workers() {
    let origins = ["a", "b", "c"].map(naming);
    let vip = vip();
    let subject = http(vip, &origins.each_ref().map(|it| it.addr));
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = Peer::at(vip);
                for _ in 0..60 {
                    assert_eq!(client.get("/").unwrap().status(), 200);
                }
            });
        }
    });
    for endpoint in &subject.endpoints {
        assert_eq!(endpoint.state.picks.load(Relaxed), 320);
        assert_eq!(endpoint.state.active.load(Relaxed), 0);
    }
    subject.assert_reconciled();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origins = ["a", "b", "c"].map(naming);
    let vip = vip();
    let subject = http(vip, &origins.each_ref().map(|it| it.addr));
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    client.send(get("/").repeat(6)).unwrap();
    let names: String = (0..6).map(|_| client.message().unwrap().text()).collect();
    assert_eq!(names, "abcabc");
}

#[test]
fn fields_between_neighbours_do_not_pass_and_the_client_is_told_of() {
    let origin = mirror();
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    let seen = client
        .ask(
            "GET /a%20b?c=d HTTP/1.1\r\nHost: web:80\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
             Proxy-Connection: x\r\nTE: gzip\r\nUpgrade: h2c\r\nX-Forwarded-For: 10.0.0.1\r\nX-Kept: 1\r\n\r\n",
        )
        .unwrap()
        .text();
    assert!(seen.contains("line: \"GET /a%20b?c=d HTTP/1.1\""), "{seen}");
    for (name, value) in [
        ("host", "web:80"),
        ("x-kept", "1"),
        ("x-forwarded-proto", "http"),
    ] {
        assert!(seen.contains(&format!("({name:?}, {value:?})")), "{seen}");
    }
    for name in [
        "x-hop",
        "connection",
        "keep-alive",
        "proxy-connection",
        "\"te\"",
        "upgrade",
    ] {
        assert!(!seen.contains(name), "{name} in {seen}");
    }
    assert!(seen.contains("127.0.0.1"), "{seen}");
}

#[test]
fn request_of_http_1_0_is_answered_and_closed() {
    let origin = naming("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    let answer = client.ask("GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!((answer.status(), answer.text()), (200, "a".to_owned()));
    assert!(client.is_closed().unwrap());
    let mut client = Peer::at(vip);
    for _ in 0..2 {
        let answer = client
            .ask("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            .unwrap();
        assert_eq!(answer.field("connection"), Some("keep-alive"));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn upgrade_both_sides_agree_bytes_are_relayed() {
    let origin = origin(|peer| {
        let asked = peer.message()?;
        assert_eq!(asked.field("upgrade"), Some("websocket"));
        assert_eq!(asked.field("connection"), Some("upgrade"));
        peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx: y\r\n\r\nfirst")?;
        let mut back = peer.stream().try_clone()?;
        io::copy(&mut peer.0, &mut back)?;
        Ok(())
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    let asked = "GET / HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    client.send(asked).unwrap();
    let head = client.head().unwrap();
    assert_eq!((head.status(), head.field("x")), (101, Some("y")));
    assert_eq!(head.field("upgrade"), Some("websocket"));
    assert_eq!(client.exactly(5).unwrap(), b"first");
    for _ in 0..3 {
        client.send("ping").unwrap();
        assert_eq!(client.exactly(4).unwrap(), b"ping");
    }
    assert_eq!(bench.plane.connections(), 1);
    let row = || bench.plane.observer().connections().remove(0);
    assert_eq!(row().endpoint, Some(origin.addr));
    let sent = u64::try_from(asked.len()).unwrap() + 12;
    wait_until("its bytes to be seen", || {
        row().to_endpoint == sent && row().to_client > 12
    });
    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.is_closed().unwrap());
    wait_until("the tunnel's end", || bench.plane.connections() == 0);
    assert_eq!(subject.port.bytes_to.load(Relaxed), 12);
    subject.assert_reconciled();
}

#[test]
fn upgrade_nobody_asked_for_is_no_answer() {
    let origin = origin(|peer| {
        peer.message()?;
        peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    assert_eq!(Peer::at(vip).get("/").unwrap().status(), 502);
}

#[test]
fn log_has_a_line_for_every_request_and_drops_what_nobody_reads() {
    let origin = naming("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let bench = serving(&[&subject]);
    let (log, lines) = crate::AccessLog::new(portico_core::http::log::LogFormat::Json);
    bench.plane.log_requests(Arc::clone(&log));
    let mut client = Peer::at(vip);
    assert_eq!(client.get("/some?x=y").unwrap().status(), 200);
    let line = lines.recv_timeout(DEADLINE).unwrap();
    for part in [
        "\"/some?x=y\"",
        "200",
        "\"--\"",
        &origin.addr.to_string(),
        "service-0",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(line.ends_with("}\n"), "{line}");
    client
        .ask("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n")
        .unwrap();
    let line = lines.recv_timeout(DEADLINE).unwrap();
    assert!(line.contains("501") && line.contains("\"PR\""), "{line}");
    drop(lines);
    assert_eq!(Peer::at(vip).get("/").unwrap().status(), 200);
    wait_until("a line to be dropped", || log.dropped() == 1);
}

#[test]
fn log_that_nobody_reads_holds_up_no_request() {
    let vip = vip();
    let subject = http(vip, &[naming("a").addr]);
    let bench = serving(&[&subject]);
    let (log, _lines) = crate::AccessLog::new(portico_core::http::log::LogFormat::Text);
    bench.plane.log_requests(Arc::clone(&log));
    let mut client = Peer::at(vip);
    // More than may wait.
    for _ in 0..90 {
        client.send(get("/").repeat(100)).unwrap();
        for _ in 0..100 {
            assert_eq!(client.message().unwrap().status(), 200);
        }
    }
    assert!(log.dropped() > 0);
}

#[test]
fn snapshot_between_two_requests_changes_the_second_one_s_endpoint() {
    let (first, second) = (naming("a"), naming("b"));
    let vip = vip();
    let mut subject = http(vip, &[first.addr]);
    let bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    assert_eq!(client.get("/").unwrap().text(), "a");
    subject.set_endpoints(&[second.addr]);
    bench.publish(&[&subject]);
    assert_eq!(client.get("/").unwrap().text(), "b");
}
