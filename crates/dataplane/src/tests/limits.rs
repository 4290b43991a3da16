//! Limits of a Service port and of its endpoints: who waits where, for how long, and what an edit changes.

use std::num::NonZeroU32;

use portico_core::{affinity::AffinePort, object::BalancePolicy, snapshot::Generation};

use super::*;

/// A Service each of whose endpoints takes this many.
fn limited(vip: IpAddr, endpoints: &[SocketAddr], most: u32) -> Subject {
    let mut subject = Subject::at(vip, endpoints);
    subject.set_balance(Balance {
        limit: NonZeroU32::new(most),
        ..Balance::default()
    });
    subject
}

fn impatient(subjects: &[&Subject], patience: Duration) -> Bench {
    let settings = DataSettings {
        workers: 2,
        connect_timeout: patience,
        ..DataSettings::default()
    };
    let mut bench = Bench::new(settings, subjects);
    let addresses = subjects.iter().flat_map(|subject| &subject.frontends);
    let keys = addresses.map(|(addr, port, _)| (at(*addr, *port), Mode::Listening));
    bench.bind(&keys.collect::<Vec<_>>());
    bench
}

/// A connection that reached its endpoint.
fn served(vip: IpAddr) -> TcpStream {
    let mut client = connect(vip, PORT).unwrap();
    assert_echoes(&mut client);
    client
}

fn waiting(subject: &Subject, count: u64) {
    wait_until("a connection to wait", || subject.port.waiting() == count);
}

#[test]
fn limit_of_an_endpoint_lets_the_third_wait_until_one_ends() {
    let (vip, free) = (vip(), vip());
    let subject = limited(vip, &[echo()], 2);
    let other = Subject::at(free, &[echo()]);
    let bench = impatient(&[&subject, &other], DEADLINE);
    let (first, _second) = (served(vip), served(vip));
    let mut third = connect(vip, PORT).unwrap();
    waiting(&subject, 1);
    assert_eq!(subject.endpoints[0].state.active.load(Relaxed), 2);
    assert_eq!(subject.port.active.load(Relaxed), 3);
    served(free);
    drop(first);
    assert_echoes(&mut third);
    // The place of one that ended is free before its task is gone.
    wait_until("two connections", || bench.plane.connections() == 2);
    assert_eq!(subject.port.waiting(), 0);
    assert_eq!(subject.port.rejected_full.load(Relaxed), 0);
}

#[test]
fn limit_of_an_endpoint_rejects_who_waited_for_the_connect_timeout() {
    let vip = vip();
    let subject = limited(vip, &[echo()], 1);
    let _bench = impatient(&[&subject], Duration::from_millis(30));
    let mut first = served(vip);
    let start = Instant::now();
    assert_eq!(
        kind_of(connect(vip, PORT).and_then(read_all)),
        io::ErrorKind::ConnectionReset
    );
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(subject.port.rejected_full.load(Relaxed), 1);
    subject.assert_reconciled();
    assert_echoes(&mut first);
}

#[test]
fn limit_of_endpoints_one_full_leaves_the_others_even() {
    let vip = vip();
    let mut subject = limited(vip, &[echo(), echo(), echo()], 20);
    let bench = impatient(&[&subject], DEADLINE);
    for policy in [BalancePolicy::RoundRobin, BalancePolicy::LeastRequest] {
        subject.set_balance(Balance {
            limit: NonZeroU32::new(20),
            policy,
            ..Balance::default()
        });
        bench.publish(&[&subject]);
        let full = &subject.endpoints[1].state;
        full.active.fetch_add(20, Relaxed);
        let before: Vec<_> = picks(&subject);
        let clients: Vec<_> = (0..40).map(|_| served(vip)).collect();
        let drawn = picks(&subject).into_iter().zip(before);
        let drawn: Vec<_> = drawn.map(|(now, before)| now - before).collect();
        assert_eq!(drawn, [20, 0, 20], "{policy:?}");
        drop(clients);
        full.active.fetch_sub(20, Relaxed);
        wait_until("the end", || subject.port.active.load(Relaxed) == 0);
    }
}

fn picks(subject: &Subject) -> Vec<u64> {
    let states = subject.endpoints.iter().map(|endpoint| &endpoint.state);
    states.map(|state| state.picks.load(Relaxed)).collect()
}

#[test]
fn limit_of_an_endpoint_lets_its_sticky_client_wait_for_it() {
    let vip = vip();
    let mut subject = limited(vip, &[echo(), echo()], 1);
    subject.affinity = Some(ClientAffinity {
        port: AffinePort::new(&subject.view("service-0").ports[0].name, Generation(1)),
        timeout: Duration::from_mins(1),
    });
    let _bench = impatient(&[&subject], DEADLINE);
    let first = served(vip);
    let mut second = connect(vip, PORT).unwrap();
    waiting(&subject, 1);
    drop(first);
    assert_echoes(&mut second);
    assert_eq!(picks(&subject), [2, 0]);
}

#[test]
fn limit_of_endpoints_raised_or_one_more_serves_who_waits() {
    let vip = vip();
    let mut subject = limited(vip, &[echo()], 1);
    let mut bench = impatient(&[&subject], DEADLINE);
    let _first = served(vip);
    let mut second = connect(vip, PORT).unwrap();
    waiting(&subject, 1);
    let limit = |most| Balance {
        limit: NonZeroU32::new(most),
        ..Balance::default()
    };
    subject.set_balance(limit(2));
    bench.publish(&[&subject]);
    bench.plane.accept();
    assert_echoes(&mut second);
    let mut third = connect(vip, PORT).unwrap();
    waiting(&subject, 1);
    let known = subject.endpoints.clone();
    subject.set_endpoints(&[echo()]);
    subject.endpoints.extend(known);
    subject.set_balance(limit(1));
    bench.publish(&[&subject]);
    bench.plane.accept();
    assert_echoes(&mut third);
    // Lowered: the two at the old endpoint stay, nobody joins them.
    assert_eq!(subject.endpoints[1].state.active.load(Relaxed), 2);
}

#[test]
fn limit_of_a_service_pauses_its_listener_alone() {
    let (vip, free) = (vip(), vip());
    let subject = Subject::at(vip, &[echo()]);
    subject.port.limit.set(NonZeroU32::new(2));
    let other = Subject::at(free, &[echo()]);
    // Waiting in the kernel's queue has no deadline of ours.
    let bench = impatient(&[&subject, &other], Duration::from_millis(30));
    let (first, _second) = (served(vip), served(vip));
    let mut third = connect(vip, PORT).unwrap();
    for _ in 0..20 {
        served(free);
    }
    assert_eq!(subject.port.accepted.load(Relaxed), 2);
    wait_until("the others to end", || bench.plane.connections() == 2);
    drop(first);
    assert_echoes(&mut third);
    let mut fourth = connect(vip, PORT).unwrap();
    subject.port.limit.set(None);
    assert_echoes(&mut fourth);
    assert_eq!(subject.port.active.load(Relaxed), 3);
    assert_eq!(subject.port.rejected.load(Relaxed), 0);
}

#[test]
fn limit_of_a_service_set_by_an_edit_pauses_its_listener_from_then_on() {
    let (vip, free) = (vip(), vip());
    let subject = Subject::at(vip, &[echo()]);
    let other = Subject::at(free, &[echo()]);
    let mut bench = impatient(&[&subject, &other], Duration::from_millis(30));
    let first = served(vip);
    subject.port.limit.set(NonZeroU32::new(1));
    bench.publish(&[&subject, &other]);
    bench.plane.accept();
    let mut second = connect(vip, PORT).unwrap();
    for _ in 0..20 {
        served(free);
    }
    assert_eq!(subject.port.accepted.load(Relaxed), 1);
    drop(first);
    assert_echoes(&mut second);
}

#[test]
fn limit_of_a_service_behind_a_wildcard_lets_accepted_ones_wait() {
    let vip = vip();
    let port = wildcard_port();
    let subject = Subject::new(&[(vip, port, FrontendKind::ClusterIP)], &[echo()]);
    subject.port.limit.set(NonZeroU32::new(1));
    let settings = DataSettings {
        workers: 2,
        connect_timeout: DEADLINE,
        ..DataSettings::default()
    };
    let mut bench = Bench::new(settings, &[&subject]);
    bench.bind(&[(wildcard(Bind::Any, port), Mode::Listening)]);
    let mut first = connect(vip, port).unwrap();
    assert_echoes(&mut first);
    let mut second = connect(vip, port).unwrap();
    waiting(&subject, 1);
    assert_eq!(bench.plane.connections(), 2);
    drop(first);
    assert_echoes(&mut second);
    drop(second);
    wait_until("the end", || bench.plane.connections() == 0);
    assert_eq!(subject.port.active.load(Relaxed), 0);
    subject.assert_reconciled();
}

#[test]
fn limit_hammered_from_many_clients_is_never_exceeded_and_serves_all() {
    let vip = vip();
    let most = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let seen = Arc::clone(&most);
    let counting = endpoint(move |mut stream| {
        let now = seen.0.fetch_add(1, Relaxed) + 1;
        seen.1.fetch_max(now, Relaxed);
        let _ = stream.read_exact(&mut [0]);
        seen.0.fetch_sub(1, Relaxed);
        let _ = stream.write_all(b"x");
    });
    let subject = limited(vip, &[counting], 3);
    let bench = impatient(&[&subject], DEADLINE);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..100 {
                    let mut client = connect(vip, PORT).unwrap();
                    client.write_all(b"x").unwrap();
                    assert_eq!(read_all(client).unwrap(), b"x");
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    wait_until("the end", || bench.plane.connections() == 0);
    // How many come together is chance.
    assert!((1..=3).contains(&most.1.load(Relaxed)));
    assert_eq!(subject.port.connected.load(Relaxed), 800);
    subject.assert_reconciled();
}
