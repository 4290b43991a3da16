//! Endpoints that fail: who is asked again, who is not, and what the client is told.

use super::*;

#[test]
fn no_endpoint_is_said_with_503() {
    let vip = vip();
    let subject = http(vip, &[]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    for _ in 0..2 {
        let answer = client.get("/").unwrap();
        assert_eq!(
            (answer.status(), answer.field("retry-after")),
            (503, Some("1"))
        );
    }
    subject.assert_reconciled();
}

#[test]
fn endpoints_that_refuse_are_passed_over_and_named_when_none_is_left() {
    let refused: Vec<_> = (0..3).map(|_| dead()).collect();
    let alive = naming("a");
    let vip = vip();
    let mut subject = http(vip, &[refused[0].0, refused[1].0, alive.addr]);
    let bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    for _ in 0..6 {
        let answer = client
            .ask("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi")
            .unwrap();
        assert_eq!(answer.text(), "a");
    }
    subject.assert_reconciled();
    subject.set_endpoints(&[refused[0].0, refused[1].0, refused[2].0]);
    bench.publish(&[&subject]);
    let answer = client.get("/").unwrap();
    assert_eq!(answer.status(), 502);
    for (addr, _) in &refused {
        assert!(
            answer.text().contains(&addr.to_string()),
            "{}",
            answer.text()
        );
    }
}

/// Reads a request and closes without an answer.
fn mute() -> Origins {
    origin(|peer| peer.message().map(drop))
}

#[test]
fn request_that_may_be_repeated_goes_elsewhere_and_another_does_not() {
    let (mute, alive) = (mute(), naming("a"));
    let vip = vip();
    let subject = http(vip, &[mute.addr, alive.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    for _ in 0..4 {
        assert_eq!(client.get("/").unwrap().text(), "a");
    }
    let before = mute.connections();
    let post = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi";
    let statuses = [(); 2].map(|()| client.ask(post).unwrap().status());
    assert!(
        statuses.contains(&502) && statuses.contains(&200),
        "{statuses:?}"
    );
    assert_eq!(mute.connections(), before + 1);
    subject.assert_reconciled();
}

#[test]
fn body_is_sent_again_with_a_request_that_may_be_repeated() {
    let (mute, mirror) = (mute(), mirror());
    let vip = vip();
    let subject = http(vip, &[mute.addr, mirror.addr]);
    let _bench = serving(&[&subject]);
    for request in [
        "PUT / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nhi",
        "PUT / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
    ] {
        for _ in 0..2 {
            let seen = Peer::at(vip).ask(request).unwrap().text();
            assert!(seen.contains("body: [104, 105]"), "{seen}");
        }
    }
}

#[test]
fn body_that_is_longer_than_what_is_kept_is_not_sent_again() {
    let (mute, alive) = (mute(), mirror());
    let vip = vip();
    let subject = http(vip, &[mute.addr, alive.addr]);
    let _bench = serving(&[&subject]);
    let body = "x".repeat(100_000);
    let put = format!("PUT / HTTP/1.1\r\nhost: web\r\ncontent-length: 100000\r\n\r\n{body}");
    let mut statuses = [(); 2].map(|()| Peer::at(vip).ask(&put).unwrap().status());
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    assert_eq!(mute.connections(), 1);
    subject.assert_reconciled();
}

#[test]
fn retries_of_what_was_sent_are_a_part_of_the_requests_in_progress() {
    const REQUESTS: usize = 40;
    // Who comes first is left without an answer, all at once; who comes again is not.
    let all = Arc::new((std::sync::Barrier::new(REQUESTS), AtomicU64::new(0)));
    let origins = [(); 2].map(|()| {
        let all = Arc::clone(&all);
        origin(move |peer| {
            peer.message()?;
            if all.1.fetch_add(1, Relaxed) < u64::try_from(REQUESTS).unwrap() {
                all.0.wait();
                return Ok(());
            }
            peer.send(ok("again"))
        })
    });
    let vip = vip();
    let subject = http(vip, &origins.each_ref().map(|it| it.addr));
    let _bench = serving(&[&subject]);
    let mut clients: Vec<_> = (0..REQUESTS).map(|_| Peer::at(vip)).collect();
    for client in &mut clients {
        client.send(get("/")).unwrap();
    }
    let answers = clients.iter_mut().map(|client| client.message().unwrap());
    let statuses: Vec<u16> = answers.map(|answer| answer.status()).collect();
    for expected in [200, 502] {
        assert!(statuses.contains(&expected), "{statuses:?}");
    }
    assert!(subject.port.retry_budget.refused() > 0);
    subject.assert_reconciled();
}

#[test]
fn answer_that_is_none_is_502() {
    let junk = origin(|peer| {
        peer.message()?;
        peer.send("what?\r\n\r\n")
    });
    let vip = vip();
    let subject = http(vip, &[junk.addr]);
    let _bench = serving(&[&subject]);
    assert_eq!(Peer::at(vip).get("/").unwrap().status(), 502);
}

#[test]
fn connection_that_its_endpoint_closed_is_no_failure() {
    // Closes after every answer, and does not say so.
    let origin = origin(|peer| {
        peer.message()?;
        peer.send(ok("a"))
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    for _ in 0..500 {
        assert_eq!(client.get("/").unwrap().text(), "a");
    }
    assert_eq!(
        subject.port.retries.load(Relaxed),
        0,
        "the endpoint did not fail"
    );
    subject.assert_reconciled();
}

/// After every answer the next request may come for a number of microseconds that differs each time.
#[test]
fn connections_closed_at_any_moment_cost_no_request() {
    let next = AtomicU64::new(1);
    let origin = origin(move |peer| {
        loop {
            peer.message()?;
            let n = next
                .fetch_add(1, Relaxed)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                >> 52;
            peer.stream()
                .set_read_timeout(Some(Duration::from_micros(n + 1)))?;
            peer.send(ok("a"))?;
        }
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Peer::at(vip);
                for _ in 0..1000 {
                    assert_eq!(client.get("/").unwrap().text(), "a");
                }
            });
        }
    });
    assert!(origin.connections() > 4, "{}", origin.connections());
}

#[test]
fn limit_of_an_endpoint_is_one_of_requests() {
    let (origin, was_asked, go) = held("a");
    let vip = vip();
    let mut subject = http(vip, &[origin.addr]);
    subject.set_balance(Balance {
        limit: std::num::NonZeroU32::new(1),
        ..Balance::default()
    });
    let settings = DataSettings {
        connect_timeout: Duration::from_millis(100),
        ..DataSettings::default()
    };
    let _bench = with(&settings, &[&subject]);
    let (mut first, mut second) = (Peer::at(vip), Peer::at(vip));
    first.send(get("/")).unwrap();
    was_asked.recv_timeout(DEADLINE).unwrap();
    assert_eq!(second.get("/").unwrap().status(), 503);
    go.send(()).unwrap();
    assert_eq!(first.message().unwrap().text(), "a");
    go.send(()).unwrap();
    assert_eq!(second.get("/").unwrap().text(), "a");
    subject.assert_reconciled();
}

#[test]
fn request_beyond_the_limit_of_an_endpoint_waits_for_its_turn() {
    let (origin, was_asked, go) = held("a");
    let vip = vip();
    let mut subject = http(vip, &[origin.addr]);
    subject.set_balance(Balance {
        limit: std::num::NonZeroU32::new(2),
        ..Balance::default()
    });
    let settings = DataSettings {
        connect_timeout: DEADLINE,
        ..DataSettings::default()
    };
    let _bench = with(&settings, &[&subject]);
    let mut clients: Vec<Peer> = (0..5).map(|_| Peer::at(vip)).collect();
    for client in &mut clients {
        client.send(get("/")).unwrap();
    }
    wait_until("three to wait", || subject.port.waiting() == 3);
    (0..2).for_each(|_| was_asked.recv_timeout(DEADLINE).unwrap());
    for waiting in [2, 1, 0] {
        assert!(was_asked.try_recv().is_err(), "one more for each answer");
        go.send(()).unwrap();
        was_asked.recv_timeout(DEADLINE).unwrap();
        assert_eq!(subject.port.waiting(), waiting);
    }
    (0..2).for_each(|_| go.send(()).unwrap());
    for client in &mut clients {
        assert_eq!(client.message().unwrap().text(), "a");
    }
    assert_eq!(subject.port.rejected_full.load(Relaxed), 0);
    subject.assert_reconciled();
}
