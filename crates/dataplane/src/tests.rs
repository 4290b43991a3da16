//! The data path on real sockets of the loopback device. Owns the bench that the tests share: Services made by hand,
//! endpoints and clients on plain blocking sockets.
//!
//! Listeners need fixed ports, so every test has addresses of its own in 127/8, made from the process and a counter.

mod draining;
mod dropping;
mod forwarding;
mod http;
mod inherited;
mod limits;
mod listening;
mod namespaces;
mod proxy_protocol;
mod shutdown;
mod source;
mod udp;

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use portico_core::{
    affinity::ClientAffinity,
    balance::{Balance, Endpoint, EndpointSet, EndpointState, PortState},
    object::{
        Application, Origin, Protocol, ProxyProtocol, Service, SourceAddress, TrafficPolicy,
        service::{IpFamily, ServiceType},
    },
    snapshot::{
        Cluster, FrontendKey, FrontendKind, PortView, Scope, ServicePortName, ServiceView,
        Snapshot,
        assemble::assemble,
        plan::{Bind, ListenerKey, Mode},
    },
};

use crate::{BindErrorKind, DataPlane, DataSettings, ListenerState, Published, net};

/// Port of the virtual addresses.
const PORT: u16 = 7411;
/// Nothing in these tests takes that long, unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// A virtual address that no other test has.
fn vip() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    let [high, low] = NEXT.fetch_add(1, Relaxed).to_be_bytes();
    assert_eq!(high, 0);
    Ipv4Addr::new(127, 128 | (a & 127), b, low).into()
}

/// A port that no other test listens on; as its fallback, below the ephemeral ones.
fn wildcard_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 400).unwrap();
    18_000 + process * 10 + NEXT.fetch_add(1, Relaxed)
}

fn cluster() -> Arc<Cluster> {
    Arc::new(Cluster {
        service_cidr: "127.128.0.0/9".parse().unwrap(),
        dynamic_service_cidr: "127.128.0.0/9".parse().unwrap(),
        load_balancer_cidr: "127.112.0.0/16".parse().unwrap(),
        pod_cidr: "127.120.0.0/16".parse().unwrap(),
        ..Cluster::default()
    })
}

/// A Service port whose counters outlive its snapshots.
struct Subject {
    protocol: Protocol,
    frontends: Vec<(IpAddr, u16, FrontendKind)>,
    port: Arc<PortState>,
    endpoints: Vec<Endpoint>,
    set: Arc<EndpointSet>,
    affinity: Option<ClientAffinity>,
    source: SourceAddress,
    proxy: ProxyProtocol,
    app: Application,
    ranges: Vec<ipnet::IpNet>,
}

impl Subject {
    fn new(frontends: &[(IpAddr, u16, FrontendKind)], endpoints: &[SocketAddr]) -> Self {
        let mut subject = Self {
            protocol: Protocol::Tcp,
            frontends: frontends.to_vec(),
            port: Arc::default(),
            endpoints: Vec::new(),
            set: Arc::new(EndpointSet::new(Vec::new(), None)),
            affinity: None,
            source: SourceAddress::Ours,
            proxy: ProxyProtocol::default(),
            app: Application::default(),
            ranges: Vec::new(),
        };
        subject.set_endpoints(endpoints);
        subject
    }

    fn at(vip: IpAddr, endpoints: &[SocketAddr]) -> Self {
        Self::new(&[(vip, PORT, FrontendKind::ClusterIP)], endpoints)
    }

    fn set_endpoints(&mut self, addresses: &[SocketAddr]) {
        let endpoint = |addr: &SocketAddr| Endpoint {
            addr: *addr,
            state: Arc::new(EndpointState::default()),
        };
        self.endpoints = addresses.iter().map(endpoint).collect();
        self.set_balance(Balance::default());
    }

    fn set_balance(&mut self, balance: Balance) {
        let endpoints = self.endpoints.clone();
        self.set = Arc::new(EndpointSet::balanced(endpoints, balance, Some(&self.set)));
    }

    fn view(&self, name: &str) -> Arc<ServiceView> {
        let port = PortView {
            name: Arc::new(ServicePortName {
                namespace: Arc::from("default"),
                service: Arc::from(name),
                port: Arc::from(""),
                protocol: self.protocol,
            }),
            family: IpFamily::IPv4,
            number: PORT,
            node_port: None,
            cluster: Some(Arc::clone(&self.set)),
            local: None,
            any: !self.set.is_empty(),
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            affinity: self.affinity,
            source: self.source,
            app: self.app.clone(),
            proxy: self.proxy.clone(),
            state: Arc::clone(&self.port),
        };
        let key = |addr: IpAddr, port| FrontendKey {
            scope: Scope::HOST,
            addr,
            port,
            protocol: self.protocol,
        };
        Arc::new(ServiceView {
            namespace: Arc::from("default"),
            name: Arc::from(name),
            origin: Origin {
                file: Arc::from("test"),
                position: portico_core::object::Position::default(),
                marks: [].into(),
            },
            spec: Arc::new(Service {
                service_type: ServiceType::LoadBalancer,
                load_balancer_source_ranges: self.ranges.clone(),
                ..spec()
            }),
            cluster_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            slices: Vec::new(),
            ports: vec![Arc::new(port)],
            frontends: self
                .frontends
                .iter()
                .map(|(addr, port, kind)| (key(*addr, *port), *kind, 0))
                .collect(),
        })
    }

    /// Invariant 9, and the parts that it is made of.
    fn assert_reconciled(&self) {
        let sum = |count: fn(&EndpointState) -> &AtomicU64| -> u64 {
            self.endpoints
                .iter()
                .map(|endpoint| count(&endpoint.state).load(Relaxed))
                .sum()
        };
        let [accepted, connected, rejected, retries] = [
            &self.port.accepted,
            &self.port.connected,
            &self.port.rejected,
            &self.port.retries,
        ]
        .map(|count| count.load(Relaxed));
        assert_eq!(accepted, connected + rejected);
        assert_eq!(sum(|state| &state.picks), accepted + retries - rejected);
        assert_eq!(
            sum(|state| &state.picks),
            sum(|state| &state.connected) + sum(|state| &state.failures)
        );
        assert_eq!(self.port.picked.load(Relaxed), sum(|state| &state.picks));
        assert_eq!(self.port.residual(), 0);
    }
}

fn spec() -> Service {
    Service::default()
}

fn snapshot(subjects: &[&Subject]) -> Arc<Snapshot> {
    let views = subjects
        .iter()
        .enumerate()
        .map(|(n, subject)| subject.view(&format!("service-{n}")))
        .collect();
    Arc::new(assemble(cluster(), views, &[]))
}

/// A data path under test.
struct Bench {
    plane: DataPlane,
    published: Arc<Published>,
}

impl Bench {
    fn new(settings: DataSettings, subjects: &[&Subject]) -> Self {
        let published = Arc::new(Published::new(snapshot(subjects)));
        Self {
            plane: DataPlane::start(settings, Arc::clone(&published)).unwrap(),
            published,
        }
    }

    /// Two workers, and listeners in `mode` at the cluster IPs of `subjects`.
    fn serving(mode: Mode, subjects: &[&Subject]) -> Self {
        let mut bench = Self::new(
            DataSettings {
                workers: 2,
                ..DataSettings::default()
            },
            subjects,
        );
        let addresses = subjects.iter().flat_map(|subject| &subject.frontends);
        bench.bind(
            &addresses
                .map(|(addr, port, _)| (at(*addr, *port), mode))
                .collect::<Vec<_>>(),
        );
        bench
    }

    fn bind(&mut self, keys: &[(ListenerKey, Mode)]) {
        let wanted: Vec<_> = keys
            .iter()
            .map(|(key, mode)| (*key, *mode, Arc::from("default/echo")))
            .collect();
        self.plane.bind(&wanted, &|_, _| false);
        self.plane.accept();
    }

    fn publish(&self, subjects: &[&Subject]) {
        let mut next = Snapshot::clone(&snapshot(subjects));
        next.generation.0 = self.published.load().generation.0 + 1;
        self.published.store(Arc::new(next));
    }

    fn state(&self, key: ListenerKey) -> ListenerState {
        self.plane
            .statuses()
            .iter()
            .find(|status| status.key == key)
            .unwrap()
            .state
    }
}

fn at(addr: IpAddr, port: u16) -> ListenerKey {
    ListenerKey {
        scope: Scope::HOST,
        bind: Bind::Address(addr),
        port,
        protocol: Protocol::Tcp,
    }
}

fn wildcard(bind: Bind, port: u16) -> ListenerKey {
    ListenerKey {
        scope: Scope::HOST,
        bind,
        port,
        protocol: Protocol::Tcp,
    }
}

/// An endpoint that serves every connection on a thread of its own. It ends with the process.
fn endpoint(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    serve_on(listener, serve);
    addr
}

fn serve_on(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) {
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), Arc::clone(&serve));
            thread::spawn(move || serve(stream));
        }
    });
}

/// Sends back what it gets.
fn echo() -> SocketAddr {
    endpoint(|stream| drop(io::copy(&mut &stream, &mut &stream)))
}

/// Says `name` and closes.
fn named(name: u8) -> SocketAddr {
    endpoint(move |mut stream| drop(stream.write_all(&[name])))
}

/// An address that refuses for as long as the guard lives.
fn dead() -> (SocketAddr, net::SharedFd) {
    let fd = net::bind("127.0.0.1:0".parse().unwrap(), net::Device::Any).unwrap();
    let addr = SocketAddr::try_from(rustix::net::getsockname(&fd).unwrap()).unwrap();
    (addr, fd)
}

fn connect(addr: IpAddr, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&(addr, port).into(), DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// All that the other side sends.
fn read_all(mut stream: TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

fn assert_echoes(stream: &mut TcpStream) {
    stream.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping");
}

fn kind_of<T: std::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
    result.unwrap_err().kind()
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for: {what}");
        thread::yield_now();
    }
}
