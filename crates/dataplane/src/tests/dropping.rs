//! Clients that are to be dropped, with the kernel's own filter: their SYN is never answered.

use portico_core::snapshot::filter::{Filter, Guard};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::Filtering;

/// The filter that admits `ranges` to `vip`.
fn only(vip: IpAddr, ranges: &[&str]) -> Arc<Filter> {
    let ranges: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    let subject = Subject::at(vip, &["127.0.0.1:1".parse().unwrap()]);
    let view = subject.view("any");
    let frontend = (vip, FrontendKind::LoadBalancer);
    let guard = Guard::of(&view.ports[0], frontend, Some(&ranges), &cluster());
    Arc::new(Filter::of([(vip, &guard)].into_iter(), &cluster()).unwrap())
}

/// A client at `source` that does not wait.
fn begin(source: &str, target: (IpAddr, u16)) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
    let source: IpAddr = source.parse().unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    let error = socket
        .connect(&SocketAddr::from(target).into())
        .err()
        .and_then(|error| error.raw_os_error());
    assert!(matches!(error, None | Some(libc::EINPROGRESS)), "{error:?}");
    socket
}

/// Whether the kernel has heard anything of the other side: on the loopback device that is within `connect`.
fn is_answered(client: &Socket) -> bool {
    let mut poll = [rustix::event::PollFd::new(
        client,
        rustix::event::PollFlags::OUT | rustix::event::PollFlags::HUP,
    )];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut poll, Some(&now)).unwrap() > 0
}

/// Whether the kernel takes a filter from this user; says so if not.
fn can_filter() -> bool {
    let fd = net::bind((vip(), PORT).into(), net::Device::Any).unwrap();
    let taken = net::filter::attach(&fd, &only(vip(), &["127.0.0.1/32"]));
    if let Err(error) = &taken {
        eprintln!("skipped: {error}");
    }
    taken.is_ok()
}

fn dropped(bench: &Bench, key: ListenerKey) -> u32 {
    let statuses = bench.plane.statuses();
    let status = statuses.iter().find(|status| status.key == key).unwrap();
    match &status.filtering {
        Filtering::Dropping { dropped } => dropped.unwrap(),
        other => panic!("{other:?}"),
    }
}

fn serve_at(client: Socket) -> TcpStream {
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.into()
}

#[test]
fn filter_drops_by_source_follows_edits_and_leaves_the_established_alone() {
    if !can_filter() {
        return;
    }
    let vip = vip();
    let key = at(vip, PORT);
    let subject = Subject::at(vip, &[echo()]);
    let mut bench = Bench::new(DataSettings::default(), &[&subject]);
    // Before the socket: it never listens without.
    let first = only(vip, &["127.0.0.1/32"]);
    bench.plane.filter(key, Some(&first));
    bench.bind(&[(key, Mode::Listening)]);

    let stranger = begin("127.0.0.9", (vip, PORT));
    wait_until("a drop", || dropped(&bench, key) > 0);
    assert!(!is_answered(&stranger));
    let mut established = connect(vip, PORT).unwrap();
    assert_echoes(&mut established);

    let other = only(vip, &["127.0.0.9/32"]);
    bench.plane.filter(key, Some(&other));
    let mut admitted = serve_at(begin("127.0.0.9", (vip, PORT)));
    assert_echoes(&mut admitted);
    let before = dropped(&bench, key);
    let stranger = begin("127.0.0.1", (vip, PORT));
    wait_until("another drop", || dropped(&bench, key) > before);
    assert!(!is_answered(&stranger));
    assert_echoes(&mut established);

    bench.plane.filter(key, None);
    assert_echoes(&mut connect(vip, PORT).unwrap());
    assert_echoes(&mut admitted);
}

#[test]
fn filter_stays_over_a_refusal_and_goes_with_its_listener() {
    if !can_filter() {
        return;
    }
    let vip = vip();
    let key = at(vip, PORT);
    let subject = Subject::at(vip, &[echo()]);
    let mut bench = Bench::serving(Mode::Listening, &[&subject]);
    bench.plane.filter(key, Some(&only(vip, &["127.0.0.8/32"])));
    bench.plane.switch(key, Mode::Refusing);
    assert_eq!(
        kind_of(connect(vip, PORT)),
        io::ErrorKind::ConnectionRefused
    );
    bench.plane.switch(key, Mode::Listening);
    let before = dropped(&bench, key);
    let stranger = begin("127.0.0.9", (vip, PORT));
    wait_until("a drop", || dropped(&bench, key) > before);
    assert!(!is_answered(&stranger));

    bench.plane.filter(key, None);
    bench.plane.close(&[key]);
    bench.bind(&[(key, Mode::Listening)]);
    assert_echoes(&mut connect(vip, PORT).unwrap());
}

#[test]
fn accepted_connection_has_no_filter_of_its_own() {
    if !can_filter() {
        return;
    }
    let vip = vip();
    let key = at(vip, PORT);
    let fd = net::bind((vip, PORT).into(), net::Device::Any).unwrap();
    let listening = crate::listen::accept::Listening {
        id: 1,
        key,
        bound: (vip, PORT).into(),
        fd,
        guarding: crate::listen::guard::Guarding::default(),
        _share: Arc::default(),
    };
    let filter = only(vip, &["127.0.0.9/32"]);
    listening
        .guarding
        .set(&listening.fd, Some(&filter))
        .unwrap();
    net::listen(&listening.fd, 16).unwrap();
    let _clients = [0; 2].map(|_| begin("127.0.0.9", (vip, PORT)));
    let (plain, _) = net::accept(&listening.fd).unwrap();
    let (taken_off, _) = listening.accept().unwrap();
    let has_filter = |stream: &TcpStream| socket2::SockRef::from(stream).detach_filter().is_ok();
    assert!(has_filter(&plain), "the kernel copies it");
    assert!(!has_filter(&taken_off));
}

#[test]
fn filter_that_is_too_long_is_stood_in_for_and_never_left_half_done() {
    let vip = vip();
    let key = at(vip, PORT);
    let subject = Subject::at(vip, &[echo()]);
    let mut bench = Bench::serving(Mode::Listening, &[&subject]);
    bench.plane.filter(key, Some(&only(vip, &["127.0.0.8/32"])));
    let hosts: Vec<String> = (0..2000_u32)
        .map(|n| format!("{}/32", Ipv4Addr::from_bits(0x0a00_0000 + 2 * n)))
        .collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    bench.plane.filter(key, Some(&only(vip, &hosts)));
    let statuses = bench.plane.statuses();
    assert!(
        matches!(&statuses[0].filtering, Filtering::Resetting { reason } if reason.contains("4096")),
        "{statuses:?}"
    );
    // The Snapshot of this test admits everybody: what is left is its verdict alone.
    assert_echoes(&mut connect(vip, PORT).unwrap());
}
