//! Connections: who gets them, what they carry, how they end.

use super::*;

#[test]
fn forwarding_sixteen_clients_gives_three_endpoints_exact_thirds() {
    let vip = vip();
    let subject = Subject::at(vip, &[named(0), named(1), named(2)]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let served: [AtomicU64; 3] = Default::default();
    thread::scope(|scope| {
        for client in 0..16 {
            let served = &served;
            scope.spawn(move || {
                for _ in 0..(3000 / 16 + usize::from(client < 3000 % 16)) {
                    let name = read_all(connect(vip, PORT).unwrap()).unwrap();
                    served[usize::from(name[0])].fetch_add(1, Relaxed);
                }
            });
        }
    });
    assert_eq!(served.map(AtomicU64::into_inner), [1000; 3]);
    wait_until("all connections to end", || bench.plane.connections() == 0);
    assert_eq!(subject.port.active.load(Relaxed), 0);
    subject.assert_reconciled();
}

#[test]
fn forwarding_refusing_endpoint_moves_on_to_another_one() {
    let vip = vip();
    let (dead, _guard) = dead();
    let subject = Subject::at(vip, &[dead, named(7)]);
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    for _ in 0..10 {
        assert_eq!(read_all(connect(vip, PORT).unwrap()).unwrap(), [7]);
    }
    let failures = subject.endpoints[0].state.failures.load(Relaxed);
    assert_eq!(
        (failures, subject.endpoints[1].state.connected.load(Relaxed)),
        (5, 10),
        "ejected after five"
    );
    assert_eq!(subject.port.retries.load(Relaxed), failures);
    subject.assert_reconciled();
}

/// Connections that wait for an answer to their SYN from this port (`/proc/net/tcp`, proc(5): state 2).
fn unanswered(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2].ends_with(&format!(":{port:04X}")) && row[3] == "02")
        .count()
}

#[test]
fn forwarding_to_the_only_endpoint_outlasts_a_full_backlog() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let addr = listener.local_addr().unwrap();
    let filler = TcpStream::connect(addr).unwrap();
    let vip = vip();
    let subject = Subject::at(vip, &[addr]);
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    wait_until("its SYN to be dropped", || unanswered(addr.port()) == 1);
    drop(filler);
    serve_on(listener, |stream| {
        drop(io::copy(&mut &stream, &mut &stream));
    });
    assert_echoes(&mut client);
    assert_eq!(subject.endpoints[0].state.failures.load(Relaxed), 0);
    subject.assert_reconciled();
}

#[test]
fn forwarding_every_endpoint_refuses_resets_the_client_after_three() {
    let vip = vip();
    let guards: Vec<_> = (0..4).map(|_| dead()).collect();
    let subject = Subject::at(
        vip,
        &guards.iter().map(|(addr, _)| *addr).collect::<Vec<_>>(),
    );
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    assert_eq!(
        kind_of(connect(vip, PORT).and_then(read_all)),
        io::ErrorKind::ConnectionReset
    );
    wait_until("the connection to end", || bench.plane.connections() == 0);
    assert_eq!(
        [&subject.port.rejected, &subject.port.retries].map(|count| count.load(Relaxed)),
        [1, 3]
    );
    subject.assert_reconciled();
}

#[test]
fn forwarding_to_an_own_frontend_is_rejected_instead_of_looping() {
    let vip = vip();
    let subject = Subject::at(vip, &[(vip, PORT).into()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    assert_eq!(
        kind_of(connect(vip, PORT).and_then(read_all)),
        io::ErrorKind::ConnectionReset
    );
    wait_until("the connection to end", || bench.plane.connections() == 0);
    assert_eq!(subject.port.accepted.load(Relaxed), 1);
    subject.assert_reconciled();
}

#[test]
fn forwarding_endpoints_gone_before_the_listener_refuses_resets() {
    let vip = vip();
    let subject = Subject::at(vip, &[]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    assert_eq!(
        kind_of(connect(vip, PORT).and_then(read_all)),
        io::ErrorKind::ConnectionReset
    );
    wait_until("the connection to end", || bench.plane.connections() == 0);
    assert_eq!(subject.port.rejected.load(Relaxed), 1);
    subject.assert_reconciled();
}

#[test]
fn forwarding_client_half_closes_still_gets_the_answer() {
    let vip = vip();
    let subject = Subject::at(
        vip,
        &[endpoint(|mut stream| {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).unwrap();
            stream.write_all(&request).unwrap();
        })],
    );
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(client).unwrap(), b"question");
}

#[test]
fn forwarding_endpoint_half_closes_still_gets_the_rest() {
    let vip = vip();
    let (tell, told) = std::sync::mpsc::channel();
    let subject = Subject::at(
        vip,
        &[endpoint(move |mut stream| {
            stream.write_all(b"bye").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            tell.send(read_all(stream).unwrap()).unwrap();
        })],
    );
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    assert_eq!(read_all(client.try_clone().unwrap()).unwrap(), b"bye");
    client.write_all(b"the rest").unwrap();
    drop(client);
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), b"the rest");
}

#[test]
fn forwarding_client_resets_the_endpoint_sees_a_reset() {
    let vip = vip();
    let (tell, told) = std::sync::mpsc::channel();
    let subject = Subject::at(
        vip,
        &[endpoint(move |mut stream| {
            stream.write_all(b"x").unwrap();
            tell.send(kind_of(read_all(stream))).unwrap();
        })],
    );
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    client.read_exact(&mut [0]).unwrap();
    reset(client);
    assert_eq!(
        told.recv_timeout(DEADLINE).unwrap(),
        io::ErrorKind::ConnectionReset
    );
}

#[test]
fn forwarding_endpoint_resets_the_client_sees_a_reset() {
    let vip = vip();
    let subject = Subject::at(
        vip,
        &[endpoint(|mut stream| {
            stream.read_exact(&mut [0]).unwrap();
            reset(stream);
        })],
    );
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut client = connect(vip, PORT).unwrap();
    client.write_all(b"x").unwrap();
    assert_eq!(kind_of(read_all(client)), io::ErrorKind::ConnectionReset);
}

#[test]
fn forwarding_slow_reader_gets_every_byte_in_order() {
    const BYTES: usize = 48 << 20;
    let vip = vip();
    let pattern = |at: usize| u8::try_from(at % 251).unwrap();
    let (go, gone) = std::sync::mpsc::sync_channel::<()>(1);
    let gone = std::sync::Mutex::new(gone);
    let subject = Subject::at(
        vip,
        &[endpoint(move |mut stream| {
            // Reads nothing before the client is stuck.
            gone.lock().unwrap().recv().unwrap();
            let mut at = 0;
            let mut chunk = [0; 10_000];
            while let Ok(count @ 1..) = stream.read(&mut chunk) {
                assert!(
                    chunk[..count]
                        .iter()
                        .zip(at..)
                        .all(|(byte, at)| *byte == pattern(at))
                );
                at += count;
            }
            stream.write_all(&at.to_be_bytes()).unwrap();
        })],
    );
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    let client = connect(vip, PORT).unwrap();
    client.set_nonblocking(true).unwrap();
    socket2::SockRef::from(&client)
        .set_send_buffer_size(64 << 10)
        .unwrap();
    let bytes: Vec<_> = (0..BYTES).map(pattern).collect();
    let mut sent = 0;
    // Stuck: the kernel's buffers and the relay's are full, far below what there is to send.
    while sent < BYTES {
        match (&client).write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(sent < BYTES, "{sent} bytes were taken with nobody reading");
    go.send(()).unwrap();
    client.set_nonblocking(false).unwrap();
    (&client).write_all(&bytes[sent..]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(client).unwrap(), BYTES.to_be_bytes());
}

#[test]
fn forwarding_snapshots_swapped_under_load_loses_nothing() {
    let vip = vip();
    let (first, second) = (named(1), named(2));
    let mut subject = Subject::at(vip, &[first]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                (0..250).for_each(|_| {
                    assert_eq!(read_all(connect(vip, PORT).unwrap()).unwrap().len(), 1);
                });
            })
        })
        .collect();
    let mut swaps = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        swaps += 1;
        subject.set_endpoints(&[if swaps % 2 == 0 { first } else { second }]);
        bench.publish(&[&subject]);
        thread::yield_now();
    }
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(
        [&subject.port.accepted, &subject.port.connected].map(|count| count.load(Relaxed)),
        [1000; 2]
    );
}

#[test]
fn forwarding_four_long_connections_spread_evenly_over_two_workers() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    let mut clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = connect(vip, PORT).unwrap();
            assert_echoes(&mut client);
            client
        })
        .collect();
    assert_eq!(bench.plane.worker_loads(), [2, 2]);
    clients.iter_mut().for_each(assert_echoes);
    drop(clients);
    wait_until("all connections to end", || bench.plane.connections() == 0);
}

#[test]
fn forwarding_at_the_limit_of_connections_lets_the_next_one_wait() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let settings = DataSettings {
        workers: 2,
        max_connections: Some(1),
        ..DataSettings::default()
    };
    let mut bench = Bench::new(settings, &[&subject]);
    bench.bind(&[(at(vip, PORT), Mode::Listening)]);
    let mut first = connect(vip, PORT).unwrap();
    assert_echoes(&mut first);
    let mut second = connect(vip, PORT).unwrap();
    wait_until("accepting to pause", || bench.plane.counters().pauses > 0);
    assert_eq!(
        (bench.plane.connections(), bench.plane.connection_limit()),
        (1, 1)
    );
    drop(first);
    assert_echoes(&mut second);
}

#[test]
fn forwarding_nothing_moves_for_the_idle_time_resets_both() {
    let vip = vip();
    let subject = Subject::at(vip, &[echo()]);
    let settings = DataSettings {
        idle_timeout: Duration::from_millis(1),
        ..DataSettings::default()
    };
    let mut bench = Bench::new(settings, &[&subject]);
    bench.bind(&[(at(vip, PORT), Mode::Listening)]);
    assert_eq!(
        kind_of(connect(vip, PORT).and_then(read_all)),
        io::ErrorKind::ConnectionReset
    );
    assert_eq!(bench.plane.counters().timed_out, 1);
}

#[test]
fn forwarding_counts_bytes_ends_and_times_of_every_connection() {
    let vip = vip();
    let (dead, _guard) = dead();
    let subject = Subject::at(vip, &[named(7), dead]);
    let bench = Bench::serving(Mode::Listening, &[&subject]);
    for _ in 0..10 {
        assert_eq!(read_all(connect(vip, PORT).unwrap()).unwrap(), [7]);
    }
    wait_until("all connections to end", || bench.plane.connections() == 0);
    let (alive, dead) = (&subject.endpoints[0].state, &subject.endpoints[1].state);
    assert_eq!(subject.port.bytes_from.load(Relaxed), 10);
    assert_eq!(alive.bytes_from.load(Relaxed), 10);
    assert_eq!(subject.port.bytes_to.load(Relaxed), 0);
    let ends: u64 = subject.port.ends.load().map(|(_, count)| count).sum();
    assert_eq!(ends, 10);
    assert_eq!(subject.port.durations.load().count(), 10);
    assert_eq!(alive.connect_latency.load().count(), 10);
    assert_eq!(dead.connect_latency.load().count(), 0);
    assert_eq!(dead.refused.load(Relaxed), dead.failures.load(Relaxed));
    assert!(dead.refused.load(Relaxed) > 0);
    subject.assert_reconciled();
}
