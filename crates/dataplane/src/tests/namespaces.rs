//! Sockets that somebody in another network namespace opens: asked for, awaited, refused, given up. Here he is in the
//! same one, and answers when a test says so.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard},
};

use super::*;
use crate::{Opener, clock, open_for_another};

/// Whoever opens sockets.
#[derive(Debug, Default, Clone)]
struct Desk(Arc<Mutex<Requests>>);

#[derive(Debug, Default)]
struct Requests {
    asked: BTreeMap<ListenerKey, SocketAddr>,
    answers: BTreeMap<ListenerKey, io::Result<OwnedFd>>,
}

impl Opener for Desk {
    fn open(&mut self, key: ListenerKey, addr: SocketAddr) -> io::Result<OwnedFd> {
        let mut requests = self.lock();
        if let Some(answer) = requests.answers.remove(&key) {
            return answer;
        }
        requests.asked.insert(key, addr);
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn forget(&mut self, key: ListenerKey) {
        let mut requests = self.lock();
        requests.asked.remove(&key);
        requests.answers.remove(&key);
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.0.lock().unwrap()
    }

    fn asked(&self) -> usize {
        self.lock().asked.len()
    }

    /// Opens what was asked for.
    fn answer(&self) {
        let requests = &mut *self.lock();
        for (key, addr) in std::mem::take(&mut requests.asked) {
            let lo = key.bind == Bind::AnyLoopback;
            let answer = open_for_another(key.protocol, addr, lo);
            requests.answers.insert(key, answer);
        }
    }

    fn fail(&self, code: i32) {
        let requests = &mut *self.lock();
        for (key, _) in std::mem::take(&mut requests.asked) {
            let error = io::Error::from_raw_os_error(code);
            requests.answers.insert(key, Err(error));
        }
    }
}

fn inside(key: ListenerKey) -> ListenerKey {
    ListenerKey {
        scope: Scope(1),
        ..key
    }
}

/// A data path that serves `subject` at this key of another scope, once the desk has answered.
fn bench(subject: &Subject, key: ListenerKey) -> (Bench, Desk) {
    let settings = DataSettings {
        workers: 2,
        ..DataSettings::default()
    };
    let mut bench = Bench::new(settings, &[subject]);
    let desk = Desk::default();
    bench.plane.open_by(Box::new(desk.clone()));
    bench.bind(&[(key, Mode::Listening)]);
    (bench, desk)
}

/// The state of the one listener inside, and why it is not on its port.
fn state(bench: &Bench) -> (ListenerState, Option<BindErrorKind>) {
    assert!(bench.plane.statuses().is_empty(), "the host has none");
    let status = bench.plane.statuses_in(Scope(1)).remove(0);
    (status.state, status.error.map(|error| error.kind))
}

const PENDING: (ListenerState, Option<BindErrorKind>) =
    (ListenerState::Failed, Some(BindErrorKind::Pending));

#[test]
fn socket_of_a_scope_begins_when_it_comes_and_refuses_and_listens_again() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let key = inside(at(vip, PORT));
    let (mut bench, desk) = bench(&subject, key);
    assert_eq!(state(&bench), PENDING);
    assert_eq!(
        bench.plane.retry(clock::now()),
        None,
        "no need to ask again"
    );
    assert_eq!((state(&bench), desk.asked()), (PENDING, 1));

    desk.answer();
    assert_eq!(bench.plane.retry(clock::now()), None);
    assert_eq!(state(&bench), (ListenerState::Listening, None));
    let mut client = connect(vip, PORT).unwrap();
    assert_echoes(&mut client);
    assert!(bench.plane.descriptors_used() >= 3, "socket and connection");

    bench.plane.switch(key, Mode::Refusing);
    assert_eq!(
        kind_of(connect(vip, PORT)),
        io::ErrorKind::ConnectionRefused
    );
    bench.plane.switch(key, Mode::Listening);
    assert_echoes(&mut connect(vip, PORT).unwrap());

    bench.plane.close(&[key]);
    assert_eq!(
        kind_of(connect(vip, PORT)),
        io::ErrorKind::ConnectionRefused
    );
    assert_echoes(&mut client);
    assert!(TcpListener::bind((vip, PORT)).is_ok(), "nobody has it");
    subject.assert_reconciled();
}

#[test]
fn socket_of_a_scope_that_is_to_refuse_when_it_comes_refuses() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let key = inside(at(vip, PORT));
    let (mut bench, desk) = bench(&subject, key);
    bench.plane.switch(key, Mode::Refusing);
    desk.answer();
    bench.plane.retry(clock::now());
    assert_eq!(state(&bench), (ListenerState::Refusing, None));
    assert_eq!(
        kind_of(connect(vip, PORT)),
        io::ErrorKind::ConnectionRefused
    );
    bench.plane.switch(key, Mode::Listening);
    assert_echoes(&mut connect(vip, PORT).unwrap());
}

#[test]
fn socket_of_a_scope_that_cannot_be_had_has_no_fallback_and_is_asked_for_again() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let (mut bench, desk) = bench(&subject, inside(at(vip, PORT)));
    desk.fail(libc::EADDRINUSE);
    let in_use = (ListenerState::Failed, Some(BindErrorKind::InUse));
    let again = bench.plane.retry(clock::now()).unwrap();
    assert_eq!((state(&bench), desk.asked()), (in_use, 0));
    bench.plane.retry(again);
    assert_eq!((state(&bench), desk.asked()), (PENDING, 1));
    desk.answer();
    bench.plane.retry(again);
    assert_eq!(state(&bench), (ListenerState::Listening, None));
    assert_echoes(&mut connect(vip, PORT).unwrap());
}

#[test]
fn socket_of_a_scope_nobody_waits_for_any_more_is_forgotten() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let key = inside(at(vip, PORT));
    let (mut bench, desk) = bench(&subject, key);
    bench.plane.close(&[key]);
    assert_eq!(desk.asked(), 0);
    bench.bind(&[(key, Mode::Listening)]);
    desk.answer();
    bench.plane.close(&[key]);
    assert!(desk.lock().answers.is_empty());
    assert!(TcpListener::bind((vip, PORT)).is_ok(), "nobody has it");
}

#[test]
fn socket_of_a_scope_for_many_addresses_tells_them_apart() {
    let (one, other) = (vip(), vip());
    let port = wildcard_port();
    let at = |vip| [(vip, port, FrontendKind::ClusterIP)];
    let (a, b) = (named(b'a'), named(b'b'));
    let (first, second) = (Subject::new(&at(one), &[a]), Subject::new(&at(other), &[b]));
    let (mut bench, desk) = bench(&first, inside(wildcard(Bind::AnyLoopback, port)));
    bench.publish(&[&first, &second]);
    desk.answer();
    bench.plane.retry(clock::now());
    assert_eq!(read_all(connect(one, port).unwrap()).unwrap(), b"a");
    assert_eq!(read_all(connect(other, port).unwrap()).unwrap(), b"b");
}

#[test]
fn udp_socket_of_a_scope_is_closed_to_refuse_and_asked_for_to_listen() {
    let vip = vip();
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = echo.local_addr().unwrap();
    thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((length, from)) = echo.recv_from(&mut datagram) {
            let _ = echo.send_to(datagram.get(..length).unwrap(), from);
        }
    });
    let mut subject = Subject::at(vip, &[endpoint]);
    subject.protocol = Protocol::Udp;
    let key = ListenerKey {
        protocol: Protocol::Udp,
        ..inside(at(vip, PORT))
    };
    let (mut bench, desk) = bench(&subject, key);
    let ask = || {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.connect((vip, PORT)).unwrap();
        client.send(b"ping").unwrap();
        client.recv(&mut [0; 64])
    };
    for _ in 0..2 {
        desk.answer();
        bench.plane.retry(clock::now());
        assert_eq!(ask().unwrap(), 4);
        bench.plane.switch(key, Mode::Refusing);
        assert_eq!(kind_of(ask()), io::ErrorKind::ConnectionRefused);
        bench.plane.switch(key, Mode::Listening);
        assert_eq!((state(&bench), desk.asked()), (PENDING, 1));
    }
    bench.plane.switch(key, Mode::Refusing);
    assert_eq!(desk.asked(), 0, "nobody waits for it");
}
