//! Sockets: which exist, on which port, and in which state.

use std::rc::Rc;

use portico_core::time::Timestamp;
use tokio::runtime::{Builder, LocalOptions};

use super::*;
use crate::{
    listen::{accept, accept::Listening, guard::Guarding},
    worker::{Worker, Workers},
};

const START: Timestamp = Timestamp::from_millis(1_000_000);

fn later() -> Timestamp {
    START.after(Duration::from_mins(1))
}

#[test]
fn listener_without_endpoints_refuses_and_serves_once_switched() {
    let vip = vip();
    let mut subject = Subject::at(vip, &[]);
    let mut bench = Bench::serving(Mode::Refusing, &[&subject]);
    assert_eq!(bench.state(at(vip, PORT)), ListenerState::Refusing);
    assert_eq!(
        kind_of(connect(vip, PORT)),
        io::ErrorKind::ConnectionRefused
    );
    subject.set_endpoints(&[echo()]);
    bench.publish(&[&subject]);
    bench.plane.switch(at(vip, PORT), Mode::Listening);
    assert_eq!(bench.state(at(vip, PORT)), ListenerState::Listening);
    assert_echoes(&mut connect(vip, PORT).unwrap());
}

#[test]
fn listener_switched_back_and_forth_keeps_established_connections() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let mut bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut established = connect(vip, PORT).unwrap();
    assert_echoes(&mut established);
    for _ in 0..20 {
        bench.plane.switch(at(vip, PORT), Mode::Refusing);
        assert_eq!(
            kind_of(connect(vip, PORT)),
            io::ErrorKind::ConnectionRefused
        );
        assert_echoes(&mut established);
        bench.plane.switch(at(vip, PORT), Mode::Listening);
        assert_echoes(&mut connect(vip, PORT).unwrap());
    }
    assert_echoes(&mut established);
}

/// The order that matters, on one thread: the runtime hears of the hang-up, the socket listens again, and only then
/// the accepting task gets its turn.
#[test]
fn accepting_task_that_wakes_after_the_resume_ends_instead_of_spinning() {
    let vip = vip();
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let settings = DataSettings {
            workers: 1,
            ..DataSettings::default()
        };
        let workers = Workers::start(settings, Arc::new(Published::new(snapshot(&[])))).unwrap();
        let fd = net::bind((vip, PORT).into(), net::Device::Any).unwrap();
        net::listen(&fd, 16).unwrap();
        let listening = Arc::new(Listening {
            id: 1,
            key: at(vip, PORT),
            bound: (vip, PORT).into(),
            fd: fd.clone(),
            guarding: Guarding::default(),
            _share: Arc::default(),
        });
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let worker = Rc::new(Worker::new(0, Arc::clone(&workers.shared)));
            let task = tokio::task::spawn_local(accept::run(worker, listening));
            tokio::task::yield_now().await;
            assert!(!task.is_finished());
            net::refuse(&fd).unwrap();
            tokio::task::yield_now().await;
            assert!(!task.is_finished(), "it has not had its turn");
            net::listen(&fd, 16).unwrap();
            task.await.unwrap();
        });
        tell.send(()).unwrap();
    });
    told.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn listener_port_taken_while_refusing_falls_back_on_resume() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let mut bench = Bench::serving(Mode::Listening, &[&subject]);
    bench.plane.switch(at(vip, PORT), Mode::Refusing);
    let thief = TcpListener::bind((vip, PORT)).unwrap();
    bench.plane.switch(at(vip, PORT), Mode::Listening);
    assert_eq!(
        bench.state(at(vip, PORT)),
        ListenerState::Fallback {
            port: PORT + 10_000
        }
    );
    assert_echoes(&mut connect(vip, PORT + 10_000).unwrap());
    drop(thief);
}

#[test]
fn listener_closed_leaves_established_connections_alone() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let mut bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut established = connect(vip, PORT).unwrap();
    assert_echoes(&mut established);
    bench.publish(&[]);
    bench.plane.close(&[at(vip, PORT)]);
    assert_eq!(
        kind_of(connect(vip, PORT)),
        io::ErrorKind::ConnectionRefused
    );
    assert!(bench.plane.statuses().is_empty());
    assert_echoes(&mut established);
    bench.publish(&[&subject]);
    bench.bind(&[(at(vip, PORT), Mode::Listening)]);
    assert_eq!(
        bench.state(at(vip, PORT)),
        ListenerState::Listening,
        "its port was free on return"
    );
    assert_echoes(&mut connect(vip, PORT).unwrap());
}

#[test]
fn listener_closed_before_it_accepts_serves_what_is_queued() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let mut bench = Bench::new(DataSettings::default(), &[&subject]);
    bench.plane.bind(
        &[(at(vip, PORT), Mode::Listening, Arc::from("default/echo"))],
        &|_, _| false,
    );
    let mut queued = connect(vip, PORT).unwrap();
    bench.plane.close(&[at(vip, PORT)]);
    assert_echoes(&mut queued);
}

#[test]
fn listener_of_a_second_plane_on_the_same_address_falls_back() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let _first = Bench::serving(Mode::Listening, &[&subject]);
    let second = Bench::serving(Mode::Listening, &[&subject]);
    assert_eq!(
        second.state(at(vip, PORT)),
        ListenerState::Fallback {
            port: PORT + 10_000
        }
    );
}

#[test]
fn listener_port_taken_serves_a_fallback_and_returns_when_it_is_free() {
    let vip = vip();
    let holder = TcpListener::bind((vip, PORT)).unwrap();
    let subject = Subject::at(vip, &[echo()]);
    let mut bench = Bench::serving(Mode::Listening, &[&subject]);
    let status = bench.plane.statuses().remove(0);
    assert_eq!(
        status.state,
        ListenerState::Fallback {
            port: PORT + 10_000
        }
    );
    assert_eq!(status.bound, Some((vip, PORT + 10_000).into()));
    let error = status.error.unwrap();
    assert_eq!(error.kind, BindErrorKind::InUse);
    assert_eq!(
        error.to_string(),
        format!("binding {vip}:{PORT}: Address already in use (os error 98)")
    );

    let mut established = connect(vip, PORT + 10_000).unwrap();
    assert_echoes(&mut established);
    let due = bench.plane.retry(START).unwrap();
    assert!(due > START && due <= START.after(Duration::from_millis(100)));
    let next = bench.plane.retry(due).unwrap();
    assert!(
        next.since(due) >= Duration::from_millis(100),
        "the port is still taken, the delay doubles"
    );
    assert_eq!(bench.plane.statuses()[0].attempts, 2);

    drop(holder);
    assert_eq!(bench.plane.retry(later()), None);
    assert_eq!(bench.state(at(vip, PORT)), ListenerState::Listening);
    assert_echoes(&mut connect(vip, PORT).unwrap());
    assert_eq!(
        kind_of(connect(vip, PORT + 10_000)),
        io::ErrorKind::ConnectionRefused
    );
    assert_echoes(&mut established);
}

#[test]
fn listener_behind_its_own_backend_on_the_wildcard_serves_a_fallback() {
    let (vip, port) = (vip(), wildcard_port());
    let backend = TcpListener::bind(("0.0.0.0", port)).unwrap();
    serve_on(backend, |stream| drop(io::copy(&mut &stream, &mut &stream)));
    let subject = Subject::new(
        &[(vip, port, FrontendKind::ClusterIP)],
        &[([127, 0, 0, 1], port).into()],
    );
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    assert_eq!(
        bench.state(at(vip, port)),
        ListenerState::Fallback {
            port: port + 10_000
        }
    );
    assert_echoes(&mut connect(vip, port + 10_000).unwrap());
    assert_eq!(subject.port.connected.load(Relaxed), 1);
}

#[test]
fn listener_fallback_leaves_declared_ports_free() {
    let vip = vip();
    let _holder = TcpListener::bind((vip, PORT)).unwrap();
    let subject = Subject::at(vip, &[echo()]);
    let mut bench = Bench::new(DataSettings::default(), &[&subject]);
    let wanted = [(at(vip, PORT), Mode::Listening, Arc::from("default/echo"))];
    bench
        .plane
        .bind(&wanted, &|addr, port| addr == vip && port == PORT + 10_000);
    assert_eq!(
        bench.state(at(vip, PORT)),
        ListenerState::Fallback {
            port: PORT + 10_001
        }
    );
    bench.bind(&[(at(vip, PORT + 10_001), Mode::Listening)]);
    assert_eq!(
        bench.state(at(vip, PORT + 10_001)),
        ListenerState::Listening,
        "a declared port drives a fallback out"
    );
    assert_eq!(
        bench.state(at(vip, PORT)),
        ListenerState::Fallback {
            port: PORT + 10_000
        }
    );
}

#[test]
fn listener_address_the_host_lacks_fails_without_fallback() {
    // TEST-NET-3 (RFC 5737).
    let addr: IpAddr = "203.0.113.7".parse().unwrap();
    let subject = Subject::new(&[(addr, PORT, FrontendKind::ExternalIP)], &[echo()]);
    let mut bench = Bench::serving(Mode::Listening, &[&subject]);
    let due = bench.plane.retry(START);
    let status = bench.plane.statuses().remove(0);
    assert_eq!((status.state, status.bound), (ListenerState::Failed, None));
    assert_eq!(status.error.unwrap().kind, BindErrorKind::NotAvailable);
    assert_eq!(status.retry_at, due);
    assert!(due.is_some());
}

#[test]
fn listener_on_the_wildcard_serves_node_port_and_vips_and_resets_unknown_ones() {
    let (first, unknown, port) = (vip(), vip(), wildcard_port());
    let node_port = Subject::new(
        &[(Ipv4Addr::UNSPECIFIED.into(), port, FrontendKind::NodePort)],
        &[named(1)],
    );
    let cluster_ip = Subject::new(&[(first, port, FrontendKind::ClusterIP)], &[named(2)]);
    let mut bench = Bench::new(DataSettings::default(), &[&node_port, &cluster_ip]);
    bench.bind(&[(wildcard(Bind::Any, port), Mode::Listening)]);
    assert_eq!(
        read_all(connect([127, 0, 0, 1].into(), port).unwrap()).unwrap(),
        [1]
    );
    assert_eq!(read_all(connect(first, port).unwrap()).unwrap(), [2]);
    assert_eq!(
        kind_of(connect(unknown, port).and_then(read_all)),
        io::ErrorKind::ConnectionReset
    );
    wait_until("the stray to be counted", || {
        bench.plane.counters().unmatched == 1
    });
}

#[test]
fn listener_on_the_loopback_device_serves_many_vips_with_one_socket() {
    let (first, second, port) = (vip(), vip(), wildcard_port());
    let one = Subject::new(&[(first, port, FrontendKind::ClusterIP)], &[named(1)]);
    let two = Subject::new(&[(second, port, FrontendKind::ClusterIP)], &[named(2)]);
    let mut bench = Bench::new(DataSettings::default(), &[&one, &two]);
    bench.bind(&[(wildcard(Bind::AnyLoopback, port), Mode::Listening)]);
    assert_eq!(read_all(connect(first, port).unwrap()).unwrap(), [1]);
    assert_eq!(read_all(connect(second, port).unwrap()).unwrap(), [2]);
    assert_eq!(
        bench.plane.descriptors_used() - 2 * bench.plane.connections(),
        1
    );
}

#[test]
fn listener_kept_off_its_port_by_an_own_one_gets_it_when_that_closes() {
    let (vip, port) = (vip(), wildcard_port());
    let subject = Subject::new(&[(vip, port, FrontendKind::ClusterIP)], &[echo()]);
    let mut bench = Bench::serving(Mode::Listening, &[&subject]);
    bench.bind(&[(wildcard(Bind::Any, port), Mode::Listening)]);
    assert_eq!(
        bench.state(wildcard(Bind::Any, port)),
        ListenerState::Fallback {
            port: port + 10_000
        }
    );
    bench.plane.close(&[at(vip, port)]);
    assert_eq!(
        bench.state(wildcard(Bind::Any, port)),
        ListenerState::Listening
    );
    assert_echoes(&mut connect(vip, port).unwrap());
}

#[test]
fn listener_of_another_protocol_or_namespace_fails_by_name() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let mut bench = Bench::new(DataSettings::default(), &[&subject]);
    let sctp = ListenerKey {
        protocol: Protocol::Sctp,
        ..at(vip, PORT)
    };
    let elsewhere = ListenerKey {
        scope: Scope(1),
        ..at(vip, PORT)
    };
    bench.bind(&[(sctp, Mode::Listening), (elsewhere, Mode::Listening)]);
    for scope in [Scope::HOST, Scope(1)] {
        let states: Vec<_> = bench
            .plane
            .statuses_in(scope)
            .into_iter()
            .map(|status| (status.state, status.bound))
            .collect();
        assert_eq!(states, [(ListenerState::Failed, None)]);
    }
}
