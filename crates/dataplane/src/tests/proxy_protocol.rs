//! PROXY headers to endpoints and from trusted front ends.

use std::net::Shutdown;

use portico_core::{
    balance::HeaderFault,
    object::proxy_protocol::parse_front_ends,
    proxy_protocol::{Route, Version, write},
};

use super::*;

const CLIENT: &str = "10.1.2.3:258";
const ASKED: &str = "10.9.8.7:80";

fn route() -> Route {
    Route::new(CLIENT.parse().unwrap(), ASKED.parse().unwrap()).unwrap()
}

/// A Service port with an endpoint that sends back all that it gets.
fn subject(vip: IpAddr, send: Option<Version>, trusted: &[&str]) -> Subject {
    let ranges = parse_front_ends(&trusted.join(","));
    Subject {
        proxy: ProxyProtocol {
            send,
            accept_from: ranges.unwrap_or_default().into(),
        },
        ..Subject::at(vip, &[echo()])
    }
}

/// What comes back of these pieces, each written by itself.
fn echoed(vip: IpAddr, pieces: &[&[u8]]) -> io::Result<Vec<u8>> {
    let mut stream = connect(vip, PORT)?;
    stream.set_nodelay(true)?;
    for piece in pieces {
        stream.write_all(piece)?;
    }
    stream.shutdown(Shutdown::Write)?;
    read_all(stream)
}

fn faults(subject: &Subject) -> Vec<u64> {
    subject
        .port
        .header_faults
        .load()
        .map(|(_, count)| count)
        .collect()
}

#[test]
fn header_comes_before_the_clients_first_byte_with_both_addresses() {
    for version in [Version::V1, Version::V2] {
        let vip = vip();
        let subject = subject(vip, Some(version), &[]);
        let _bench = Bench::serving(Mode::Listening, &[&subject]);
        let mut stream = connect(vip, PORT).unwrap();
        let own = Route::new(stream.local_addr().unwrap(), (vip, PORT).into());
        // Before the client has said anything.
        let mut header = vec![0; write(version, own).len()];
        stream.read_exact(&mut header).unwrap();
        assert_eq!(header, write(version, own));
        assert_echoes(&mut stream);
        drop(stream);
        wait_until("the end", || subject.port.active.load(Relaxed) == 0);
        assert_eq!(subject.port.bytes_to.load(Relaxed), 4, "the client's alone");
        subject.assert_reconciled();
    }
}

#[test]
fn header_goes_to_the_endpoint_that_answers_after_another_has_refused() {
    let vip = vip();
    let (dead, _guard) = dead();
    let mut subject = subject(vip, Some(Version::V1), &[]);
    let alive = subject.endpoints[0].addr;
    subject.set_endpoints(&[dead, alive]);
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    for _ in 0..4 {
        let mut stream = connect(vip, PORT).unwrap();
        let own = Route::new(stream.local_addr().unwrap(), (vip, PORT).into());
        let mut header = vec![0; write(Version::V1, own).len()];
        stream.read_exact(&mut header).unwrap();
        assert_eq!(header, write(Version::V1, own));
        assert_echoes(&mut stream);
    }
    assert!(subject.port.retries.load(Relaxed) > 0);
}

#[test]
fn header_of_a_front_end_split_anywhere_loses_no_byte_behind_it() {
    let vip = vip();
    let subject = subject(vip, Some(Version::V2), &["127.0.0.1"]);
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    let expected = [&write(Version::V2, Some(route()))[..], b"behind"].concat();
    // A long one too: `PP2_TYPE_NOOP` fills it to several looks.
    let mut long = write(Version::V2, Some(route()));
    long[15] = 12 + 203;
    long.extend([4, 0, 200]);
    long.extend([0; 200]);
    for header in [
        write(Version::V1, Some(route())),
        write(Version::V2, Some(route())),
        long,
    ] {
        let bytes = [&header[..], b"behind"].concat();
        for at in 1..bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(echoed(vip, &[first, second]).unwrap(), expected, "at {at}");
        }
        let singly: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(echoed(vip, &singly).unwrap(), expected, "byte by byte");
    }
    assert_eq!(faults(&subject), [0; 4]);
    subject.assert_reconciled();
}

#[test]
fn header_of_a_front_end_is_waited_for_and_that_of_others_is_no_header() {
    let vip = vip();
    let subject = subject(vip, None, &["127.0.0.9"]);
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    let claimed = write(Version::V1, Some(route()));
    assert_eq!(
        echoed(vip, &[&claimed, b"x"]).unwrap(),
        [&claimed[..], b"x"].concat()
    );
    assert_eq!(echoed(vip, &[b"plain"]).unwrap(), b"plain");
    assert_eq!(faults(&subject), [0; 4]);
}

#[test]
fn header_that_is_none_resets_and_counts_the_reason() {
    let vip = vip();
    let subject = subject(vip, None, &["127.0.0.0/8"]);
    let settings = DataSettings {
        proxy_header_timeout: Duration::from_millis(50),
        ..DataSettings::default()
    };
    let mut bench = Bench::new(settings, &[&subject]);
    bench.bind(&[(at(vip, PORT), Mode::Listening)]);
    let says = |bytes: &[u8]| {
        let mut stream = connect(vip, PORT).unwrap();
        stream.write_all(bytes).unwrap();
        kind_of(read_all(stream))
    };
    let reset = io::ErrorKind::ConnectionReset;
    assert_eq!(says(b"GET / HTTP/1.1\r\n"), reset);
    assert_eq!(says(b"PROXY TCP4 1.2.3.4 1.2.3.4 x 80\r\n"), reset);
    assert_eq!(says(b"PROXY TCP4 1.2.3.4"), reset, "and no more");
    assert_eq!(kind_of(echoed(vip, &[b"\r\n\r\n"])), reset, "and the end");
    let counted: Vec<_> = subject.port.header_faults.load().collect();
    assert_eq!(counted, HeaderFault::ALL.map(|fault| (fault, 1)));
    wait_until("the end", || bench.plane.connections() == 0);
    assert_eq!(subject.port.rejected.load(Relaxed), 4);
    subject.assert_reconciled();
}

#[test]
fn client_of_the_header_is_the_one_for_source_ranges() {
    let vip = vip();
    let mut subject = subject(vip, None, &["127.0.0.1"]);
    subject.frontends = vec![(vip, PORT, FrontendKind::LoadBalancer)];
    subject.ranges = vec!["10.0.0.0/8".parse().unwrap()];
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    let claimed = |source: &str| {
        let route = Route::new(source.parse().unwrap(), route().destination);
        echoed(vip, &[&write(Version::V2, route), b"x"])
    };
    assert_eq!(claimed(CLIENT).unwrap(), b"x");
    let reset = io::ErrorKind::ConnectionReset;
    assert_eq!(kind_of(claimed("11.1.2.3:258")), reset);
    assert_eq!(subject.port.dropped_source_range.load(Relaxed), 1);
    // It speaks for itself, and is in no range.
    let local = write(Version::V2, None);
    assert_eq!(kind_of(echoed(vip, &[&local, b"x"])), reset);
    assert_eq!(subject.port.dropped_source_range.load(Relaxed), 2);
    subject.assert_reconciled();
}

#[test]
fn front_end_that_speaks_for_itself_is_the_client() {
    let vip = vip();
    let subject = subject(vip, Some(Version::V1), &["127.0.0.1"]);
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    for header in [&write(Version::V2, None)[..], b"PROXY UNKNOWN a b\r\n"] {
        let mut stream = connect(vip, PORT).unwrap();
        let own = Route::new(stream.local_addr().unwrap(), (vip, PORT).into());
        stream.write_all(header).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(stream).unwrap(), write(Version::V1, own));
    }
}

#[test]
fn client_of_the_header_is_the_one_whose_address_is_kept() {
    let vip = vip();
    let endpoint = endpoint(|mut stream| {
        let seen = stream.peer_addr().unwrap().ip().to_string();
        drop(stream.write_all(seen.as_bytes()));
    });
    let mut subject = subject(vip, None, &["127.0.0.1"]);
    subject.set_endpoints(&[endpoint]);
    subject.source = SourceAddress::Keep;
    let _bench = Bench::serving(Mode::Listening, &[&subject]);
    let route = Route::new("127.0.0.77:9".parse().unwrap(), route().destination);
    let seen = echoed(vip, &[&write(Version::V1, route)]).unwrap();
    assert_eq!(seen, b"127.0.0.77");
}
