//! The end of the data path.

use std::net::UdpSocket;

use tokio_util::sync::CancellationToken;

use super::*;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn drain_connection_that_finishes_is_waited_for() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    assert_echoes(&mut client);
    let draining =
        thread::spawn(move || block_on(bench.plane.drain(DEADLINE, CancellationToken::new())));
    wait_until("accepting to stop", || connect(vip, PORT).is_err());
    assert_echoes(&mut client);
    drop(client);
    let report = draining.join().unwrap();
    assert_eq!(
        report,
        crate::DrainReport {
            waited_for: report.waited_for,
            cut: 0
        }
    );
    assert!(report.waited_for >= 1);
    assert_eq!(subject.port.active.load(Relaxed), 0);
}

#[test]
fn drain_cancelled_resets_what_is_left() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    assert_echoes(&mut client);
    let second_signal = CancellationToken::new();
    second_signal.cancel();
    let report = block_on(bench.plane.drain(DEADLINE, second_signal));
    assert_eq!(
        report,
        crate::DrainReport {
            waited_for: 1,
            cut: 1
        }
    );
    assert_eq!(kind_of(read_all(client)), io::ErrorKind::ConnectionReset);
    assert_eq!(subject.port.active.load(Relaxed), 0);
}

#[test]
fn drain_deadline_passed_resets_what_is_left() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    assert_echoes(&mut client);
    let report = block_on(bench.plane.drain(Duration::ZERO, CancellationToken::new()));
    assert_eq!(report.cut, 1);
    assert_eq!(kind_of(read_all(client)), io::ErrorKind::ConnectionReset);
}

#[test]
fn plane_dropped_ends_its_workers_and_connections() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    assert_echoes(&mut client);
    drop(bench);
    assert_eq!(kind_of(read_all(client)), io::ErrorKind::ConnectionReset);
    assert_eq!(
        kind_of(connect(vip, PORT)),
        io::ErrorKind::ConnectionRefused
    );
}

#[test]
fn drain_lets_flows_go_on_until_they_are_silent_and_begins_none() {
    let vip = vip();
    let idle = IpAddr::from(match vip {
        IpAddr::V4(addr) => Ipv4Addr::from(u32::from(addr) + 0x1_0000),
        IpAddr::V6(_) => unreachable!("only IPv4 here"),
    });
    let pod = UdpSocket::bind("127.0.0.1:0").unwrap();
    pod.set_read_timeout(Some(DEADLINE)).unwrap();
    let endpoint = pod.local_addr().unwrap();
    let subject = Subject {
        protocol: Protocol::Udp,
        ..Subject::new(
            &[vip, idle].map(|addr| (addr, PORT, FrontendKind::ClusterIP)),
            &[endpoint],
        )
    };
    let settings = DataSettings {
        workers: 1,
        ..DataSettings::default()
    };
    let mut bench = Bench::new(settings, &[&subject]);
    let key = |addr| ListenerKey {
        protocol: Protocol::Udp,
        ..at(addr, PORT)
    };
    bench.bind(&[vip, idle].map(|addr| (key(addr), Mode::Listening)));
    let client = |addr: IpAddr| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect((addr, PORT)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    };
    let (old, new) = (client(vip), client(vip));
    let mut bytes = [0; 16];
    old.send(b"1").unwrap();
    let (_, flow) = pod.recv_from(&mut bytes).unwrap();
    let draining =
        thread::spawn(move || block_on(bench.plane.drain(DEADLINE, CancellationToken::new())));
    wait_until("the socket without flows to be closed", || {
        UdpSocket::bind((idle, PORT)).is_ok()
    });
    new.send(b"?").unwrap();
    for _ in 0..10 {
        old.send(b"2").unwrap();
        assert_eq!(
            pod.recv_from(&mut bytes).unwrap(),
            (1, flow),
            "the old one only"
        );
        assert_eq!(bytes[0], b'2');
        pod.send_to(b"3", flow).unwrap();
        assert_eq!(old.recv(&mut bytes).unwrap(), 1);
    }
    let began = Instant::now();
    draining.join().unwrap();
    assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
    assert_eq!(subject.port.active.load(Relaxed), 0);
    UdpSocket::bind((vip, PORT)).unwrap();
}
