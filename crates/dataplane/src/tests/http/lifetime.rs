//! How long clients' connections last.

use super::*;
use crate::Phase;

#[test]
fn connection_without_requests_is_closed_cleanly() {
    let origin = naming("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let settings = DataSettings {
        http_idle_timeout: Duration::from_millis(60),
        ..DataSettings::default()
    };
    let bench = with(&settings, &[&subject]);
    assert!(Peer::at(vip).is_closed().unwrap(), "it never asked");
    let mut client = Peer::at(vip);
    assert_eq!(client.get("/").unwrap().status(), 200);
    assert!(client.is_closed().unwrap());
    wait_until("connections to be gone", || bench.plane.connections() == 0);
}

/// One that is asked nothing when its time comes may have a request on its way: it is told with the answer to that.
#[test]
fn connection_of_age_is_told_to_come_back_with_an_answer() {
    let age = Duration::from_millis(20);
    let origin = naming("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let settings = DataSettings {
        http_max_age: Some(age),
        ..DataSettings::default()
    };
    let _bench = with(&settings, &[&subject]);
    let mut client = Peer::at(vip);
    assert_eq!(client.get("/").unwrap().status(), 200);
    thread::park_timeout(2 * age);
    let answer = client.get("/").unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(client.is_closed().unwrap());
}

#[test]
fn drain_answers_what_was_asked_and_keeps_no_idle_connection() {
    let (origin, was_asked, go) = held("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let bench = serving(&[&subject]);
    let (mut silent, mut idle, mut busy) = (Peer::at(vip), Peer::at(vip), Peer::at(vip));
    go.send(()).unwrap();
    assert_eq!(idle.get("/").unwrap().status(), 200);
    was_asked.recv().unwrap();
    busy.send(get("/")).unwrap();
    was_asked.recv_timeout(DEADLINE).unwrap();
    wait_until("all three", || bench.plane.connections() == 3);
    let drained = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(
            bench
                .plane
                .drain(DEADLINE, tokio_util::sync::CancellationToken::new()),
        )
    });
    assert!(silent.is_closed().unwrap());
    assert!(idle.is_closed().unwrap());
    go.send(()).unwrap();
    let answer = busy.message().unwrap();
    assert_eq!(
        (answer.status(), answer.field("connection")),
        (200, Some("close"))
    );
    assert!(busy.is_closed().unwrap());
    let report = drained.join().unwrap();
    assert_eq!((report.waited_for, report.cut), (3, 0));
}

#[test]
fn connection_is_kept_no_longer_than_its_endpoint_says() {
    let said = |timeout: u32| {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nkeep-alive: timeout={timeout}, max=100\r\ncontent-length: 0\r\n\r\n"
        );
        origin(move |peer| {
            loop {
                peer.message()?;
                peer.send(&answer)?;
            }
        })
    };
    // A second is taken off: the endpoint counts from earlier than we do.
    for (timeout, connections) in [(1, 3), (60, 1)] {
        let origin = said(timeout);
        let vip = vip();
        let subject = http(vip, &[origin.addr]);
        let _bench = serving(&[&subject]);
        let mut client = Peer::at(vip);
        for _ in 0..3 {
            assert_eq!(client.get("/").unwrap().field("keep-alive"), None);
        }
        assert_eq!(origin.connections(), connections, "{timeout} s");
    }
}

#[test]
fn connections_of_an_endpoint_that_left_are_retired() {
    let (gone, was_gone) = mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let leaving = origin(move |peer| {
        peer.message()?;
        peer.send(ok("a"))?;
        gone.lock().unwrap().send(peer.is_closed()?).unwrap();
        Ok(())
    });
    let staying = naming("b");
    let vip = vip();
    let mut subject = http(vip, &[leaving.addr]);
    let bench = serving(&[&subject]);
    assert_eq!(Peer::at(vip).get("/").unwrap().text(), "a");
    subject.set_endpoints(&[staying.addr]);
    bench.publish(&[&subject]);
    assert_eq!(Peer::at(vip).get("/").unwrap().text(), "b");
    // Well before its idle time is over.
    assert!(was_gone.recv_timeout(Duration::from_secs(3)).unwrap());
}

#[test]
fn clients_of_a_port_that_is_not_http_any_more_come_back_to_what_it_is() {
    let (origin, was_asked, go) = held("a");
    let vip = vip();
    let mut subject = http(vip, &[origin.addr]);
    let mut bench = serving(&[&subject]);
    let (mut silent, mut idle, mut busy) = (Peer::at(vip), Peer::at(vip), Peer::at(vip));
    go.send(()).unwrap();
    assert_eq!(idle.get("/").unwrap().status(), 200);
    was_asked.recv().unwrap();
    busy.send(get("/")).unwrap();
    was_asked.recv_timeout(DEADLINE).unwrap();
    wait_until("all three to be served", || {
        let all = bench.plane.observer().connections();
        all.iter().filter(|it| it.phase == Phase::Requests).count() == 3
    });
    subject.app = Application::default();
    subject.set_endpoints(&[echo()]);
    bench.publish(&[&subject]);
    bench.plane.drain_gone(crate::clock::now());
    assert!(silent.is_closed().unwrap());
    assert!(idle.is_closed().unwrap());
    go.send(()).unwrap();
    let answer = busy.message().unwrap();
    let said = (answer.status(), answer.field("connection"));
    assert_eq!(said, (200, Some("close")));
    assert!(busy.is_closed().unwrap());
    assert_echoes(&mut connect(vip, PORT).unwrap());
}

#[test]
fn request_in_progress_at_a_port_that_is_gone_lasts_no_longer_than_the_drain_timeout() {
    let (origin, was_asked, _go) = held("a");
    let vip = vip();
    let mut subject = http(vip, &[origin.addr]);
    subject.port.drain_timeout.set(Some(Duration::ZERO));
    let mut bench = serving(&[&subject]);
    let [mut of_tcp, mut of_none] = [(); 2].map(|()| {
        let mut client = Peer::at(vip);
        client.send(get("/")).unwrap();
        was_asked.recv_timeout(DEADLINE).unwrap();
        client
    });
    // As long as it is HTTP it may last.
    bench.plane.drain_gone(crate::clock::now());
    subject.app = Application::default();
    bench.publish(&[&subject]);
    bench.plane.drain_gone(crate::clock::now());
    assert_eq!(of_tcp.message().unwrap().status(), 502);
    assert!(of_tcp.is_closed().unwrap());
    assert_eq!(of_none.message().unwrap().status(), 502);
    wait_until("both to be counted", || {
        bench.plane.counters().drained_service == 2
    });
}

#[test]
fn request_for_a_service_that_is_gone_gets_404_and_the_end() {
    let origin = naming("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let bench = serving(&[&subject]);
    let mut client = Peer::at(vip);
    assert_eq!(client.get("/").unwrap().text(), "a");
    bench.publish(&[]);
    // Before the control side has looked.
    let answer = client.get("/").unwrap();
    let said = (answer.status(), answer.field("connection"));
    assert_eq!(said, (404, Some("close")));
    assert!(client.is_closed().unwrap());
}

#[test]
fn connections_to_an_endpoint_are_kept_up_to_a_bound() {
    const REQUESTS: usize = 80;
    let (origin, was_asked, go) = held("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    for _ in 0..2 {
        let mut clients: Vec<Peer> = (0..REQUESTS).map(|_| Peer::at(vip)).collect();
        for client in &mut clients {
            client.send(get("/")).unwrap();
        }
        (0..REQUESTS).for_each(|_| was_asked.recv_timeout(DEADLINE).unwrap());
        assert_eq!(origin.open(), 80);
        (0..REQUESTS).for_each(|_| go.send(()).unwrap());
        for client in &mut clients {
            assert_eq!(client.message().unwrap().text(), "a");
        }
        wait_until("the others to be closed", || origin.open() == 64);
    }
    // Those that are kept were used again.
    assert_eq!(origin.connections(), 80 + 16);
}
