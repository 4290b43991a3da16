//! Endpoints that take long to begin their answers.

use super::*;
use portico_core::object::BalancePolicy;

const SHORT: Duration = Duration::from_millis(400);

/// Reads a request and says, once its connection is closed, that it was.
fn silent() -> (Origins, mpsc::Receiver<bool>) {
    let (closed, was_closed) = mpsc::channel();
    let closed = std::sync::Mutex::new(closed);
    let origin = origin(move |peer| {
        peer.message()?;
        let is_closed = peer.is_closed()?;
        closed.lock().unwrap().send(is_closed).unwrap();
        Ok(())
    });
    (origin, was_closed)
}

fn in_time(response: Duration) -> DataSettings {
    DataSettings {
        http_response_timeout: Some(response),
        ..DataSettings::default()
    }
}

#[test]
fn answer_that_does_not_begin_in_time_is_504_and_nobody_else_is_asked() {
    let ((silent, was_closed), other) = (silent(), naming("b"));
    let vip = vip();
    let subject = http(vip, &[silent.addr, other.addr]);
    let _bench = with(&in_time(SHORT), &[&subject]);
    let mut client = Peer::at(vip);
    for _ in 0..2 {
        let began = Instant::now();
        let late = client.get("/").unwrap();
        assert!(began.elapsed() >= SHORT);
        assert_eq!(late.status(), 504);
        let said = late.field("proxy-status").unwrap();
        assert!(said.contains("error=http_response_timeout"), "{said}");
        let expected = format!("{} did not answer in time", silent.addr);
        assert!(late.text().contains(&expected), "{}", late.text());
        assert!(was_closed.recv_timeout(DEADLINE).unwrap());
        // The client's connection goes on.
        assert_eq!(client.get("/").unwrap().text(), "b");
    }
    assert_eq!(silent.connections(), 2);
    subject.assert_reconciled();
}

#[test]
fn service_says_for_itself_how_long_answers_may_take() {
    let (origin, was_asked, go) = held("a");
    let (vip, unhurried_vip) = (vip(), vip());
    let mut subject = http(vip, &[origin.addr]);
    subject.app.response_timeout = Some(SHORT);
    let mut unhurried = http(unhurried_vip, &[origin.addr]);
    unhurried.app.response_timeout = Some(Duration::ZERO);
    for settings in [DataSettings::default(), in_time(SHORT / 2)] {
        let _bench = with(&settings, &[&subject, &unhurried]);
        let mut waiting = Peer::at(unhurried_vip);
        waiting.send(get("/")).unwrap();
        was_asked.recv_timeout(DEADLINE).unwrap();
        let began = Instant::now();
        assert_eq!(Peer::at(vip).get("/").unwrap().status(), 504);
        assert!(began.elapsed() >= SHORT);
        was_asked.recv_timeout(DEADLINE).unwrap();
        (0..2).for_each(|_| go.send(()).unwrap());
        assert_eq!(waiting.message().unwrap().text(), "a");
    }
}

#[test]
fn time_of_an_answer_begins_when_the_whole_request_was_sent() {
    let (patient, hurried) = (origin_that_reads(), silent().0);
    let (vip, other_vip) = (vip(), vip());
    let subject = http(vip, &[patient.addr]);
    let other = http(other_vip, &[hurried.addr]);
    let _bench = with(&in_time(SHORT), &[&subject, &other]);
    let mut slow = Peer::at(vip);
    slow.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\na")
        .unwrap();
    // Twice the time, measured by requests that began later.
    for _ in 0..2 {
        assert_eq!(Peer::at(other_vip).get("/").unwrap().status(), 504);
    }
    slow.send("b").unwrap();
    assert_eq!(slow.message().unwrap().text(), "ab");
    subject.assert_reconciled();
}

/// Answers with the body that it got.
fn origin_that_reads() -> Origins {
    origin(|peer| {
        loop {
            let asked = peer.message()?;
            peer.send(ok(&asked.text()))?;
        }
    })
}

#[test]
fn endpoint_that_is_too_late_five_times_in_a_row_sits_out() {
    let ((silent, _was_closed), other) = (silent(), naming("b"));
    let vip = vip();
    let subject = http(vip, &[silent.addr, other.addr]);
    let _bench = with(&in_time(SHORT), &[&subject]);
    let mut clients: Vec<Peer> = (0..10).map(|_| Peer::at(vip)).collect();
    for client in &mut clients {
        client.send(get("/")).unwrap();
    }
    let statuses = clients.iter_mut().map(|it| it.message().unwrap().status());
    assert_eq!(statuses.filter(|status| *status == 504).count(), 5);
    let ejection = &subject.endpoints[0].state.ejection;
    assert!(ejection.is_ejected(crate::clock::now()));
    let mut client = Peer::at(vip);
    for _ in 0..4 {
        assert_eq!(client.get("/").unwrap().text(), "b");
    }
    subject.assert_reconciled();
}

#[test]
fn peak_ewma_takes_an_answer_that_is_too_late_for_a_slow_one() {
    let ((silent, _was_closed), other) = (silent(), naming("b"));
    let vip = vip();
    let mut subject = http(vip, &[silent.addr, other.addr]);
    subject.set_balance(Balance {
        policy: BalancePolicy::PeakEwma,
        ..Balance::default()
    });
    let _bench = with(&in_time(SHORT), &[&subject]);
    let mut client = Peer::at(vip);
    let statuses: Vec<u16> = (0..10).map(|_| client.get("/").unwrap().status()).collect();
    // Each was tried while nothing was known of it, the one that is late never again.
    assert_eq!(statuses.iter().filter(|it| **it == 504).count(), 1);
    subject.assert_reconciled();
}
