//! Requests that outlive their endpoints or Services. Time is what the tests say it is.

use portico_core::{balance::End, time::Timestamp};

use super::*;
use crate::{Connection, Draining, Phase};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Far from what the wall clock says, so that only the tests' time ends anything.
fn start() -> Timestamp {
    Timestamp::from_millis(1_000_000)
}

/// Streams at `/stream`, echoes behind an upgrade, and never answers at any other path; says when it was asked.
fn lasting() -> (Origins, mpsc::Receiver<()>) {
    let (asked, was_asked) = mpsc::channel();
    let asked = std::sync::Mutex::new(asked);
    let origin = origin(move |peer| {
        let request = peer.message()?;
        asked.lock().unwrap().send(()).unwrap();
        if request.field("upgrade").is_some() {
            peer.send(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            )?;
            let mut back = peer.stream().try_clone()?;
            return io::copy(&mut peer.0, &mut back).map(drop);
        }
        if request.line.contains("/stream") {
            peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        }
        peer.is_closed().map(drop)
    });
    (origin, was_asked)
}

/// A Service of one such endpoint that gives [`TIMEOUT`] to what outlives it.
fn bounded() -> (Bench, Subject, IpAddr, mpsc::Receiver<()>) {
    let (origin, was_asked) = lasting();
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    subject.port.drain_timeout.set(Some(TIMEOUT));
    (serving(&[&subject]), subject, vip, was_asked)
}

/// The endpoint leaves, another one comes, and the time of what outlived it passes: what was said of that before.
fn leaves(bench: &mut Bench, subject: &mut Subject) -> Vec<Connection> {
    let before = subject.endpoints[0].addr;
    let (began, deadline) = (start(), start().after(TIMEOUT));
    assert_eq!(bench.plane.drain_gone(began), None);
    subject.set_endpoints(&[naming("b").addr]);
    bench.publish(&[subject]);
    assert_eq!(bench.plane.drain_gone(began), Some(deadline));
    let mut listed = bench.plane.observer().connections();
    listed.retain(|one| one.draining == Some((Draining::EndpointGone, Some(deadline))));
    assert!(listed.iter().all(|one| one.endpoint == Some(before)));
    assert_eq!(bench.plane.drain_gone(deadline), None);
    listed
}

/// What was cut is counted, and nothing twice.
fn assert_cut(bench: &Bench, port: &PortState, count: u64) {
    wait_until("the end to be counted", || {
        bench.plane.counters().drained_endpoint == count
    });
    wait_until("places to be given back", || port.active.load(Relaxed) == 0);
    assert_eq!(port.ends.of(End::EndpointGone), count);
    assert_eq!(port.residual(), 0);
}

#[test]
fn stream_that_outlives_its_endpoint_is_reset_when_its_time_is_over() {
    let (mut bench, mut subject, vip, _was_asked) = bounded();
    let mut client = Peer::at(vip);
    client.send(get("/stream")).unwrap();
    assert_eq!(client.head().unwrap().status(), 200);
    assert_eq!(client.chunk().unwrap(), b"first");
    let listed = leaves(&mut bench, &mut subject);
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].phase, listed[0].to_client), (Phase::Request, 5));
    assert_eq!(kind_of(client.chunk()), io::ErrorKind::ConnectionReset);
    assert_cut(&bench, &subject.port, 1);
    assert_eq!(Peer::at(vip).get("/").unwrap().text(), "b");
}

#[test]
fn request_without_an_answer_is_told_that_its_endpoint_is_gone() {
    let (mut bench, mut subject, vip, was_asked) = bounded();
    let mut client = Peer::at(vip);
    client.send(get("/")).unwrap();
    was_asked.recv_timeout(DEADLINE).unwrap();
    let gone = subject.endpoints[0].addr;
    assert_eq!(leaves(&mut bench, &mut subject).len(), 1);
    let answer = client.message().unwrap();
    assert_eq!(answer.status(), 502);
    let expected = format!("{gone} was taken away before it answered");
    assert!(answer.text().contains(&expected), "{}", answer.text());
    assert_cut(&bench, &subject.port, 1);
    assert_eq!(client.get("/").unwrap().text(), "b");
}

#[test]
fn tunnel_that_outlives_its_endpoint_is_reset_and_counted_once() {
    let (mut bench, mut subject, vip, _was_asked) = bounded();
    let (log, lines) = crate::AccessLog::new(portico_core::http::log::LogFormat::Text);
    bench.plane.log_requests(log);
    let mut client = Peer::at(vip);
    client
        .send("GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
        .unwrap();
    assert_eq!(client.head().unwrap().status(), 101);
    client.send("ping").unwrap();
    assert_eq!(client.exactly(4).unwrap(), b"ping");
    let listed = leaves(&mut bench, &mut subject);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].phase, Phase::Open);
    assert_eq!(kind_of(client.line()), io::ErrorKind::ConnectionReset);
    assert_cut(&bench, &subject.port, 1);
    let line = lines.recv_timeout(DEADLINE).unwrap();
    assert!(
        line.contains(" 101 DD ") && line.ends_with(" 4/4 0\n"),
        "{line}"
    );
}

#[test]
fn streams_of_endpoints_that_are_kept_or_whose_service_sets_no_time_go_on() {
    let ((leaving, _asked), (staying, _of_other)) = (lasting(), lasting());
    let vip = vip();
    let mut subject = http(vip, &[leaving.addr, staying.addr]);
    let mut bench = serving(&[&subject]);
    let mut streams: Vec<Peer> = (0..3)
        .map(|turn| {
            if turn == 1 {
                // The first, of the endpoint that leaves, began without.
                subject.port.drain_timeout.set(Some(TIMEOUT));
            }
            let mut client = Peer::at(vip);
            client.send(get("/stream")).unwrap();
            assert_eq!(client.head().unwrap().status(), 200);
            client
        })
        .collect();
    subject.set_endpoints(&[staying.addr]);
    bench.publish(&[&subject]);
    let deadline = start().after(TIMEOUT);
    assert_eq!(bench.plane.drain_gone(start()), Some(deadline));
    assert_eq!(bench.plane.drain_gone(deadline), None);
    assert_eq!(streams[2].chunk().unwrap(), b"first");
    assert!(streams[2].chunk().is_err());
    for client in &mut streams[..2] {
        assert_eq!(client.chunk().unwrap(), b"first");
        client
            .stream()
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        assert_eq!(kind_of(client.line()), io::ErrorKind::WouldBlock);
    }
    assert_eq!(bench.plane.counters().drained_endpoint, 1);
}
