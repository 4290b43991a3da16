//! Sockets that the process was started with: adopted where they fit, found again, and passed on as they came.

use std::os::fd::OwnedFd;

use super::*;
use crate::{Inherited, InheritedKind, Unused};

impl Bench {
    /// One worker, with these sockets.
    fn inheriting(sockets: Vec<OwnedFd>, subjects: &[&Subject]) -> (Self, Arc<Inherited>) {
        let published = Arc::new(Published::new(snapshot(subjects)));
        let inherited = Arc::new(Inherited::of(sockets));
        let settings = DataSettings {
            workers: 1,
            ..DataSettings::default()
        };
        let (view, sockets) = (Arc::clone(&published), Arc::clone(&inherited));
        let plane = DataPlane::start_with(settings, view, sockets).unwrap();
        (Self { plane, published }, inherited)
    }
}

#[test]
fn inherited_socket_is_adopted_again_after_its_listener_was_closed() {
    let vip = vip();
    let socket = TcpListener::bind((vip, PORT)).unwrap();
    let subject = Subject::at(vip, &[echo()]);
    let (mut bench, inherited) = Bench::inheriting(vec![socket.into()], &[&subject]);
    assert_eq!(inherited.unused().len(), 1);
    for _ in 0..3 {
        bench.bind(&[(at(vip, PORT), Mode::Listening)]);
        assert_eq!(bench.state(at(vip, PORT)), ListenerState::Listening);
        assert_echoes(&mut connect(vip, PORT).unwrap());
        bench.plane.close(&[at(vip, PORT)]);
        assert_eq!(
            kind_of(connect(vip, PORT)),
            io::ErrorKind::ConnectionRefused
        );
    }
    assert_eq!(inherited.unused(), []);
}

#[test]
fn inherited_socket_without_endpoints_refuses_until_it_is_switched() {
    let vip = vip();
    let socket = TcpListener::bind((vip, PORT)).unwrap();
    let subject = Subject::at(vip, &[echo()]);
    let (mut bench, _) = Bench::inheriting(vec![socket.into()], &[&subject]);
    bench.bind(&[(at(vip, PORT), Mode::Refusing)]);
    assert_eq!(bench.state(at(vip, PORT)), ListenerState::Refusing);
    assert_eq!(
        kind_of(connect(vip, PORT)),
        io::ErrorKind::ConnectionRefused
    );
    bench.plane.switch(at(vip, PORT), Mode::Listening);
    assert_echoes(&mut connect(vip, PORT).unwrap());
}

#[test]
fn inherited_socket_listens_for_the_next_process_after_the_end() {
    let vip = vip();
    let socket = TcpListener::bind((vip, PORT)).unwrap();
    let next = socket.try_clone().unwrap();
    let subject = Subject::at(vip, &[echo()]);
    let (mut bench, _) = Bench::inheriting(vec![socket.into()], &[&subject]);
    bench.bind(&[(at(vip, PORT), Mode::Refusing)]);
    drop(bench);
    let _waiting = connect(vip, PORT).unwrap();
    assert!(next.accept().is_ok());
}

#[test]
fn inherited_wildcard_of_both_families_serves_every_address_of_its_port() {
    let port = wildcard_port();
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    socket.set_only_v6(false).unwrap();
    let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, port).into();
    socket.bind(&any.into()).unwrap();
    socket.listen(16).unwrap();
    let addrs = [vip(), vip()];
    let frontends = addrs.map(|addr| (addr, port, FrontendKind::ClusterIP));
    let subject = Subject::new(&frontends, &[echo()]);
    let (mut bench, inherited) = Bench::inheriting(vec![socket.into()], &[&subject]);
    assert_eq!(
        inherited.wildcard_ports().into_iter().collect::<Vec<_>>(),
        [port]
    );
    bench.bind(&[(wildcard(Bind::Any, port), Mode::Listening)]);
    for addr in addrs {
        assert_echoes(&mut connect(addr, port).unwrap());
    }
    assert_eq!(inherited.unused(), []);
}

#[test]
fn inherited_descriptors_that_are_no_listener_are_named() {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = udp.local_addr().unwrap();
    let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let peer = TcpStream::connect(echo()).unwrap();
    let inherited = Inherited::of(vec![udp.into(), unix.into(), peer.into()]);
    let unused = |socket| Unused {
        name: "test".into(),
        socket,
    };
    assert_eq!(
        inherited.unused(),
        [
            unused(Some((InheritedKind::Udp, addr))),
            unused(None),
            unused(None)
        ]
    );
    assert!(inherited.adopt(InheritedKind::Tcp, addr).unwrap().is_none());
    assert!(inherited.adopt(InheritedKind::Udp, addr).unwrap().is_some());
}
