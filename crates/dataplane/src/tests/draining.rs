//! Live connections as reports see them, and those whose endpoint or Service is gone. Time is what the tests say it is.

use portico_core::{balance::End, time::Timestamp};

use super::*;
use crate::{Connection, Draining, Phase, Side};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Far from what the wall clock says, so that only the tests' time closes anything.
fn start() -> Timestamp {
    Timestamp::from_millis(1_000_000)
}

fn live(bench: &Bench) -> Vec<Connection> {
    bench.plane.observer().connections()
}

fn draining(bench: &Bench) -> Option<(Draining, Option<Timestamp>)> {
    let all = live(bench);
    assert_eq!(all.len(), 1);
    all[0].draining
}

/// A Service with one endpoint, and a client that is connected.
fn connected() -> (Bench, Subject, TcpStream) {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    assert_echoes(&mut client);
    (bench, subject, client)
}

#[test]
fn connections_two_of_one_client_are_two_with_their_bytes_and_ends() {
    let (bench, subject, first) = connected();
    let mut second = connect(first.peer_addr().unwrap().ip(), PORT).unwrap();
    assert_echoes(&mut second);
    assert_echoes(&mut second);
    wait_until("the bytes to be seen", || {
        live(&bench).iter().map(|one| one.to_client).sum::<u64>() == 12
    });
    let all = live(&bench);
    assert_eq!(all.len(), 2);
    assert_ne!(all[0].id, all[1].id);
    let of = |client: &TcpStream| {
        let addr = client.local_addr().unwrap();
        let mut found = all.iter().filter(|one| one.client == Some(addr));
        let one = found.next().unwrap().clone();
        assert!(found.next().is_none());
        one
    };
    let (one, other) = (of(&first), of(&second));
    assert_eq!((one.to_endpoint, one.to_client), (4, 4));
    assert_eq!((other.to_endpoint, other.to_client), (8, 8));
    assert_eq!(one.local, first.peer_addr().unwrap());
    assert_eq!(one.endpoint, Some(subject.endpoints[0].addr));
    assert_eq!(&*one.service.clone().unwrap().service, "service-0");
    assert_eq!((one.phase, one.draining), (Phase::Open, None));
    drop(first);
    wait_until("the first to leave", || live(&bench).len() == 1);
    assert_eq!(live(&bench)[0].id, other.id);
}

#[test]
fn connections_half_closed_by_the_client_say_so() {
    let vip = vip();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let holding = endpoint(move |stream| {
        let _ = wait.lock().unwrap().recv();
        drop(stream);
    });
    let subject = Subject::at(vip, &[holding]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let client = connect(vip, PORT).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    wait_until("the half-close to be seen", || {
        live(&bench)
            .first()
            .is_some_and(|one| one.phase == Phase::HalfClosed(Side::Downstream))
    });
    drop(release);
    assert_eq!(read_all(client).unwrap(), b"");
    wait_until("it to leave", || live(&bench).is_empty());
}

#[test]
fn connections_after_churn_are_as_many_as_the_counters_say() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo(), echo()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut kept = Vec::new();
    for n in 0..120 {
        let mut client = connect(vip, PORT).unwrap();
        assert_echoes(&mut client);
        match n % 4 {
            0 => kept.push(client),
            1 => reset(client),
            _ => drop(client),
        }
    }
    let active = || usize::try_from(subject.port.active.load(Relaxed)).unwrap();
    wait_until("the others to end", || live(&bench).len() == kept.len());
    wait_until("the counters to agree", || {
        active() == kept.len() && bench.plane.connections() == kept.len()
    });
    drop(kept);
    wait_until("all to end", || live(&bench).is_empty());
    wait_until("the counters to be zero", || {
        active() == 0 && bench.plane.connections() == 0
    });
    subject.assert_reconciled();
}

#[test]
fn endpoint_gone_without_a_timeout_keeps_its_connections() {
    let (mut bench, mut subject, mut client) = connected();
    subject.set_endpoints(&[echo()]);
    bench.publish(&[&subject]);
    assert_eq!(bench.plane.drain_gone(start()), None);
    assert_eq!(draining(&bench), Some((Draining::EndpointGone, None)));
    assert_eq!(
        bench
            .plane
            .drain_gone(start().after(Duration::from_hours(48))),
        None
    );
    assert_echoes(&mut client);
}

#[test]
fn endpoint_gone_with_a_timeout_is_reset_when_it_is_over() {
    let (mut bench, mut subject, mut client) = connected();
    subject.port.drain_timeout.set(Some(TIMEOUT));
    assert_eq!(bench.plane.drain_gone(start()), None);
    subject.set_endpoints(&[echo()]);
    bench.publish(&[&subject]);
    let deadline = start().after(TIMEOUT);
    assert_eq!(bench.plane.drain_gone(start()), Some(deadline));
    assert_eq!(
        draining(&bench),
        Some((Draining::EndpointGone, Some(deadline)))
    );
    assert_echoes(&mut client);
    // New ones go to the endpoint that is there, and stay.
    let mut other = connect(client.peer_addr().unwrap().ip(), PORT).unwrap();
    assert_echoes(&mut other);
    assert_eq!(bench.plane.drain_gone(deadline), None);
    assert_eq!(kind_of(read_all(client)), io::ErrorKind::ConnectionReset);
    assert_eq!(subject.port.ends.of(End::EndpointGone), 1);
    let counters = bench.plane.counters();
    assert_eq!(
        (counters.drained_endpoint, counters.drained_service),
        (1, 0)
    );
    assert_echoes(&mut other);
    assert_eq!(draining(&bench), None);
}

#[test]
fn endpoint_that_comes_back_in_time_keeps_its_connections() {
    let (mut bench, mut subject, mut client) = connected();
    let (old, other) = (subject.endpoints[0].addr, echo());
    subject.port.drain_timeout.set(Some(TIMEOUT));
    let deadline = start().after(TIMEOUT);
    subject.set_endpoints(&[other]);
    bench.publish(&[&subject]);
    assert_eq!(bench.plane.drain_gone(start()), Some(deadline));
    subject.set_endpoints(&[other, old]);
    bench.publish(&[&subject]);
    assert_eq!(bench.plane.drain_gone(start()), None);
    assert_eq!(draining(&bench), None);
    // The next time counts from its own beginning.
    subject.set_endpoints(&[other]);
    bench.publish(&[&subject]);
    assert_eq!(
        bench.plane.drain_gone(deadline),
        Some(deadline.after(TIMEOUT))
    );
    assert_echoes(&mut client);
}

#[test]
fn service_gone_with_a_timeout_is_reset_when_it_is_over_and_without_goes_on() {
    let (mut bench, limited, mut client) = connected();
    let vip = vip();
    let free = Subject::at(vip, &[echo()]);
    bench.publish(&[&limited, &free]);
    bench.bind(&[(at(vip, PORT), Mode::Listening)]);
    let mut unhurried = connect(vip, PORT).unwrap();
    assert_echoes(&mut unhurried);
    limited.port.drain_timeout.set(Some(TIMEOUT));
    bench.publish(&[]);
    let limited_vip = client.peer_addr().unwrap().ip();
    bench.plane.close(&[at(limited_vip, PORT), at(vip, PORT)]);
    assert_eq!(
        bench.plane.drain_gone(start()),
        Some(start().after(TIMEOUT))
    );
    assert!(connect(limited_vip, PORT).is_err());
    assert_echoes(&mut client);
    assert_eq!(bench.plane.drain_gone(start().after(TIMEOUT)), None);
    assert_eq!(kind_of(read_all(client)), io::ErrorKind::ConnectionReset);
    assert_eq!(limited.port.ends.of(End::ServiceGone), 1);
    assert_eq!(bench.plane.counters().drained_service, 1);
    assert_echoes(&mut unhurried);
    assert_eq!(draining(&bench), Some((Draining::ServiceGone, None)));
    // Without its Service a connection keeps its name.
    let all = live(&bench);
    assert_eq!(&*all[0].service.clone().unwrap().service, "service-1");
}

#[test]
fn shutdown_says_why_and_until_when() {
    let (bench, _subject, mut client) = connected();
    let observer = bench.plane.observer();
    let cancel = tokio_util::sync::CancellationToken::new();
    let hurry = cancel.clone();
    let end = thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(bench.plane.drain(DEADLINE, hurry))
    });
    wait_until("the drain to begin", || {
        observer
            .connections()
            .first()
            .is_some_and(|one| matches!(one.draining, Some((Draining::Shutdown, Some(_)))))
    });
    assert_echoes(&mut client);
    cancel.cancel();
    assert_eq!(end.join().unwrap().cut, 1);
    assert_eq!(kind_of(read_all(client)), io::ErrorKind::ConnectionReset);
    assert!(observer.connections().is_empty());
}
