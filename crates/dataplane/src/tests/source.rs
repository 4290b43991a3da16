//! Which address endpoints see their clients at.

use std::net::UdpSocket;

use super::*;

/// Tells every client by TCP its address.
fn telling() -> SocketAddr {
    endpoint(|mut stream| {
        let seen = stream.peer_addr().unwrap().ip().to_string();
        drop(stream.write_all(seen.as_bytes()));
    })
}

/// The same by UDP.
fn telling_by_udp() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
            let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
    addr
}

fn keeping(vip: IpAddr, endpoint: SocketAddr) -> Subject {
    Subject {
        source: SourceAddress::Keep,
        ..Subject::at(vip, &[endpoint])
    }
}

/// What the endpoint says to a client at `from`.
fn seen_of(from: &str, vip: IpAddr) -> String {
    let connecting = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0))?;
        socket.connect((vip, PORT).into()).await?.into_std()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stream = runtime.block_on(connecting).unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    String::from_utf8(read_all(stream).unwrap()).unwrap()
}

#[test]
fn source_of_a_client_here_is_kept_where_asked_for_and_ours_otherwise() {
    let [vip, plain] = [vip(), vip()];
    let endpoint = telling();
    let kept = keeping(vip, endpoint);
    let ours = Subject::at(plain, &[endpoint]);
    let _bench = Bench::serving(Mode::Listening, &[&kept, &ours]);
    for client in ["127.0.0.9", "127.3.2.1", "127.0.0.1"] {
        assert_eq!(seen_of(client, vip), client);
    }
    assert_eq!(seen_of("127.0.0.9", plain), "127.0.0.1");
    assert_eq!(kept.port.source_not_kept.total(), 0);
    kept.assert_reconciled();
}

#[test]
fn source_kept_many_times_has_a_port_for_each() {
    let vip = vip();
    let subject = keeping(vip, echo());
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    // One after the other, lest the endpoint's queue overflows.
    let mut open = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(vip, PORT).unwrap();
        assert_echoes(&mut stream);
        open.push(stream);
    }
    drop(open);
    wait_until("all connections to end", || bench.plane.connections() == 0);
    assert_eq!(subject.port.source_not_kept.total(), 0);
    subject.assert_reconciled();
}

#[test]
fn source_kept_towards_an_endpoint_that_refuses_counts_against_the_endpoint() {
    let vip = vip();
    let (dead, _guard) = dead();
    let subject = keeping(vip, dead);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    assert_eq!(
        kind_of(connect(vip, PORT).and_then(read_all)),
        io::ErrorKind::ConnectionReset
    );
    wait_until("the connection to end", || bench.plane.connections() == 0);
    assert_eq!(subject.endpoints[0].state.refused.load(Relaxed), 1);
    assert_eq!(subject.port.source_not_kept.total(), 0);
    subject.assert_reconciled();
}

#[test]
fn source_of_flows_is_kept_where_asked_for_and_follows_a_change_with_the_next_flow() {
    let vip = vip();
    let mut subject = Subject {
        protocol: Protocol::Udp,
        ..keeping(vip, telling_by_udp())
    };
    let mut bench = Bench::new(DataSettings::default(), &[&subject]);
    let key = ListenerKey {
        protocol: Protocol::Udp,
        ..at(vip, PORT)
    };
    bench.bind(&[(key, Mode::Listening)]);
    let client = |from: &str| {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.connect((vip, PORT)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    };
    let seen_by = |socket: &UdpSocket| {
        socket.send(b"who?").unwrap();
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let [one, other] = [client("127.0.0.9"), client("127.0.0.9")];
    assert_eq!(seen_by(&one), "127.0.0.9");
    assert_eq!(
        seen_by(&other),
        "127.0.0.9",
        "beside a flow of the same address"
    );
    subject.source = SourceAddress::Ours;
    bench.publish(&[&subject]);
    assert_eq!(seen_by(&one), "127.0.0.9", "a flow goes on as it began");
    assert_eq!(seen_by(&client("127.0.0.9")), "127.0.0.1");
    assert_eq!(subject.port.source_not_kept.total(), 0);
}
