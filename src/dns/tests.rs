//! The server over real sockets, read by a decoder that is not ours.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name as HickoryName, RecordType as HickoryType},
};
use portico_core::{
    dns::Rcode,
    object::{
        AddressType, ClusterIpRequest, Conditions, EndpointSlice, Hints, Origin, Position,
        Protocol, Service, ServicePort, ServiceType, SliceEndpoint, SlicePort, TargetPort, Weight,
    },
    snapshot::{Cluster, NodePortAddresses, ServiceView, assemble::assemble},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use portico_dataplane::Inherited;

use super::*;

mod forward;

/// For what should happen at once.
const DEADLINE: Duration = Duration::from_secs(10);

fn snapshot() -> Snapshot {
    let cluster = Cluster {
        domains: vec![Arc::from("cluster.local")],
        search_namespace: Some(Arc::from("shop")),
        service_cidr: "127.96.0.0/16".parse().unwrap(),
        dynamic_service_cidr: "127.96.16.0/20".parse().unwrap(),
        load_balancer_cidr: "127.97.0.0/16".parse().unwrap(),
        service_cidr_v6: None,
        load_balancer_cidr_v6: None,
        pod_cidr: "127.98.0.0/16".parse().unwrap(),
        node_port_addresses: NodePortAddresses::Listed(Vec::new()),
        dns_address: "127.96.0.10".parse().unwrap(),
        node_name: Arc::from("node"),
        zone: None,
        host_addresses: Vec::new(),
        source_range_reach: portico_core::snapshot::SourceRangeReach::LoadBalancer,
    };
    let mut web = view("web", ClusterIpRequest::Auto);
    web.cluster_ips = vec!["127.96.1.10".parse().unwrap(), "fd00::10".parse().unwrap()];
    let mut alias = view("alias", ClusterIpRequest::Auto);
    let spec = Arc::make_mut(&mut alias.spec);
    spec.service_type = ServiceType::ExternalName;
    spec.external_name = Some(Arc::from("web.shop.svc.cluster.local"));
    let mut big = view("big", ClusterIpRequest::Headless);
    big.slices = vec![Arc::new(slice(60))];
    let mut few = view("few", ClusterIpRequest::Headless);
    few.slices = vec![Arc::new(slice(8))];
    assemble(
        Arc::new(cluster),
        [web, alias, big, few].map(Arc::new).to_vec(),
        &[],
    )
}

fn view(name: &str, cluster_ip: ClusterIpRequest) -> ServiceView {
    let port = ServicePort {
        name: Arc::from("http"),
        protocol: Protocol::Tcp,
        port: 80,
        target_port: TargetPort::Number(80),
        node_port: None,
        app_protocol: None,
    };
    let spec = Service {
        service_type: ServiceType::ClusterIP,
        cluster_ip,
        ports: vec![port],
        ..Service::default()
    };
    ServiceView {
        namespace: Arc::from("shop"),
        name: Arc::from(name),
        origin: Origin {
            file: Arc::from("test"),
            position: Position::default(),
            marks: Arc::from([]),
        },
        spec: Arc::new(spec),
        cluster_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        slices: Vec::new(),
        ports: Vec::new(),
        frontends: Vec::new(),
    }
}

fn slice(count: u8) -> EndpointSlice {
    let endpoint = |last: u8| SliceEndpoint {
        address: Some([127, 98, count, last].into()),
        conditions: Conditions::READY,
        hostname: None,
        node_name: None,
        zone: None,
        pod_name: None,
        hints: Hints::default(),
        weight: Weight::default(),
    };
    let port = SlicePort {
        name: Arc::from("http"),
        protocol: Protocol::Tcp,
        port: Some(8080),
        app_protocol: None,
    };
    EndpointSlice {
        is_for_another_proxy: false,
        service_name: None,
        address_type: AddressType::IPv4,
        ports: vec![port],
        endpoints: (1..=count).map(endpoint).collect(),
    }
}

fn service() -> Arc<DnsService> {
    Arc::new(DnsService::new(
        Arc::new(ArcSwap::from_pointee(snapshot())),
        1000,
        42,
    ))
}

/// A server on a free port, and how to stop it.
struct Running {
    addr: SocketAddr,
    service: Arc<DnsService>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start() -> Self {
        Self::of(service())
    }

    fn of(service: Arc<DnsService>) -> Self {
        let settings = DnsSettings {
            listen: vec![DnsListen::exactly("127.0.0.1:0".parse().unwrap())],
        };
        let listeners = bind(&settings, &Inherited::default());
        let addr = listeners.bound()[0].addr.unwrap();
        let cancel = CancellationToken::new();
        let task = tokio::spawn(serve(listeners, Arc::clone(&service), cancel.clone()));
        Self {
            addr,
            service,
            cancel,
            task,
        }
    }

    async fn stop(self) {
        self.cancel.cancel();
        timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }

    async fn udp(&self, packet: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.addr).await.unwrap();
        socket.send(packet).await.unwrap();
        receive(&socket).await
    }

    async fn ask(&self, query: &Message) -> Message {
        let response = Message::from_vec(&self.udp(&query.to_vec().unwrap()).await).unwrap();
        assert_eq!(response.metadata.id, query.metadata.id);
        assert_eq!(response.metadata.message_type, MessageType::Response);
        assert!(response.metadata.recursion_available);
        response
    }
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65535];
    let length = timeout(DEADLINE, socket.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    buffer.truncate(length);
    buffer
}

fn query(name: &str, rtype: HickoryType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(HickoryName::from_ascii(name).unwrap(), rtype));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().unwrap();
    let mut frame = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(bytes);
    frame
}

async fn read_message(stream: &mut TcpStream) -> Message {
    let length = timeout(DEADLINE, stream.read_u16()).await.unwrap().unwrap();
    let mut bytes = vec![0; usize::from(length)];
    timeout(DEADLINE, stream.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    Message::from_vec(&bytes).unwrap()
}

#[tokio::test]
async fn serve_every_type_of_record_reads_back_as_the_answer() {
    let server = Running::start();
    for (name, rtype) in [
        ("web.shop.svc.cluster.local.", HickoryType::A),
        ("web.shop.svc.cluster.local.", HickoryType::AAAA),
        ("web.shop.svc.cluster.local.", HickoryType::SRV),
        ("web.shop.svc.cluster.local.", HickoryType::TXT),
        ("_http._tcp.few.shop.svc.cluster.local.", HickoryType::SRV),
        ("alias.shop.svc.cluster.local.", HickoryType::A),
        ("nosuch.shop.svc.cluster.local.", HickoryType::A),
        ("cluster.local.", HickoryType::SOA),
        ("cluster.local.", HickoryType::NS),
        ("cluster.local.", HickoryType::ANY),
        ("10.1.96.127.in-addr.arpa.", HickoryType::PTR),
        ("web.", HickoryType::A),
        ("example.net.", HickoryType::A),
    ] {
        let (asked, asked_type) = parse_question(name, Some(&rtype.to_string())).unwrap();
        let expected = server.service.answer(asked, asked_type);
        let response = server.ask(&with_edns(query(name, rtype), 1232)).await;
        assert_eq!(
            response.metadata.response_code.to_string(),
            code_text(expected.rcode),
            "{name} {rtype}"
        );
        assert_eq!(response.metadata.authoritative, expected.authoritative);
        assert!(!response.metadata.truncation);
        for (read, written) in [
            (&response.answers, &expected.answers),
            (&response.authorities, &expected.authority),
            (&response.additionals, &expected.additional),
        ] {
            let read: Vec<_> = read
                .iter()
                .map(|record| without_quotes(&record.to_string()))
                .collect();
            let written: Vec<_> = written
                .iter()
                .map(|record| without_quotes(&record.to_string()))
                .collect();
            assert_eq!(read, written, "{name} {rtype}");
        }
    }
    server.stop().await;
}

/// How hickory words the codes.
fn code_text(rcode: Rcode) -> String {
    let code = ResponseCode::from(0, rcode.number());
    code.to_string()
}

/// Texts are quoted in one of the two.
fn without_quotes(text: &str) -> String {
    text.replace('"', "").trim_end().to_owned()
}

#[tokio::test]
async fn serve_60_addresses_truncates_over_udp_and_gives_all_over_tcp() {
    let server = Running::start();
    let asked = query("big.shop.svc.cluster.local.", HickoryType::A);
    let plain = server.ask(&asked).await;
    assert_eq!(
        (
            plain.answers.len(),
            plain.metadata.truncation,
            plain.edns.is_some()
        ),
        (29, true, false)
    );
    let small = server.ask(&with_edns(asked.clone(), 512)).await;
    assert_eq!((small.answers.len(), small.metadata.truncation), (28, true));
    assert_eq!(small.edns.map(|edns| edns.max_payload()), Some(1232));
    let large = server.ask(&with_edns(asked.clone(), 4096)).await;
    assert_eq!(
        (large.answers.len(), large.metadata.truncation),
        (60, false)
    );

    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(&framed(&asked)).await.unwrap();
    let full = read_message(&mut stream).await;
    assert_eq!((full.answers.len(), full.metadata.truncation), (60, false));
    let mut addresses: Vec<_> = full
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 60);
    server.stop().await;
}

#[tokio::test]
async fn serve_60_services_drops_glue_before_answers() {
    let server = Running::start();
    let few = server
        .ask(&query("few.shop.svc.cluster.local.", HickoryType::SRV))
        .await;
    assert_eq!(
        (
            few.answers.len(),
            few.additionals.len(),
            few.metadata.truncation
        ),
        (8, 0, false)
    );
    let big = server
        .ask(&with_edns(
            query("big.shop.svc.cluster.local.", HickoryType::SRV),
            1232,
        ))
        .await;
    assert!(big.metadata.truncation && big.additionals.is_empty() && big.edns.is_some());
    assert!(
        big.answers.len() > 10,
        "what fits is there: {}",
        big.answers.len()
    );
    server.stop().await;
}

#[tokio::test]
async fn serve_mixed_case_comes_back_byte_for_byte() {
    let server = Running::start();
    let mut asked = query("wEb.ShoP.svC.CLUSTER.locaL.", HickoryType::A);
    asked.metadata.recursion_desired = true;
    let response = server.ask(&asked).await;
    assert_eq!(
        response.queries[0].name().to_string(),
        "wEb.ShoP.svC.CLUSTER.locaL."
    );
    assert_eq!(
        response.answers[0].name.to_string(),
        "wEb.ShoP.svC.CLUSTER.locaL."
    );
    assert!(response.metadata.recursion_desired);
    server.stop().await;
}

#[tokio::test]
async fn serve_malformed_packets_goes_on_and_counts_them() {
    let server = Running::start();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.addr).await.unwrap();
    let web = query("web.shop.svc.cluster.local.", HickoryType::A);
    let mut response = web.to_vec().unwrap();
    response[2] |= 0x80;
    for silent in [&response[..], &[0; 11], &[]] {
        socket.send(silent).await.unwrap();
    }
    let mut pointer = web.to_vec().unwrap();
    pointer[12] = 0xc0;
    socket.send(&pointer).await.unwrap();
    let rejected = Message::from_vec(&receive(&socket).await).unwrap();
    assert_eq!(
        rejected.metadata.response_code,
        ResponseCode::FormErr,
        "the first reply is to the last packet"
    );
    assert_eq!(rejected.metadata.id, web.metadata.id);
    let mut update = web.to_vec().unwrap();
    update[2] = (update[2] & 0x87) | (5 << 3);
    let rejected = Message::from_vec(&server.udp(&update).await).unwrap();
    assert_eq!(
        (rejected.metadata.response_code, rejected.metadata.op_code),
        (ResponseCode::NotImp, OpCode::Update)
    );
    let mut version = with_edns(web, 1232);
    version.edns.as_mut().unwrap().set_version(1);
    let rejected = server.ask(&version).await;
    assert_eq!(
        (
            u16::from(rejected.metadata.response_code),
            rejected.answers.len()
        ),
        (16, 0)
    );

    let counters = server.service.counters();
    assert_eq!(
        (
            counters.udp_queries.load(Relaxed),
            counters.dropped.load(Relaxed)
        ),
        (6, 3)
    );
    let responses: Vec<_> = counters
        .responses()
        .filter(|(_, _, count)| *count > 0)
        .collect();
    assert_eq!(
        responses,
        [
            (Some(RecordType::A), Rcode::BadVers, 1),
            (None, Rcode::FormErr, 1),
            (None, Rcode::NotImp, 1)
        ]
    );
    assert_eq!(counters.latency.load().count(), 6);
    server.stop().await;
}

#[tokio::test]
async fn serve_pipelined_queries_answers_each_on_one_connection() {
    let server = Running::start();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let queries: Vec<_> = ["web", "big", "few", "nosuch", "web"]
        .map(|name| query(&format!("{name}.shop.svc.cluster.local."), HickoryType::A))
        .to_vec();
    let mut bytes: Vec<u8> = queries.iter().flat_map(framed).collect();
    let rest = bytes.split_off(bytes.len() - 9);
    stream.write_all(&bytes).await.unwrap();
    let mut answers = Vec::new();
    for asked in &queries[..4] {
        let response = read_message(&mut stream).await;
        assert_eq!(response.metadata.id, asked.metadata.id);
        answers.push(response.answers.len());
    }
    stream.write_all(&rest).await.unwrap();
    answers.push(read_message(&mut stream).await.answers.len());
    assert_eq!(answers, [1, 60, 8, 0, 1]);
    assert_eq!(server.service.counters().tcp_queries.load(Relaxed), 5);
    server.stop().await;
}

#[tokio::test]
async fn serve_a_response_over_tcp_ends_the_connection_in_silence() {
    let server = Running::start();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let mut frame = framed(&query("web.", HickoryType::A));
    frame[4] |= 0x80;
    stream.write_all(&frame).await.unwrap();
    let mut read = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut read))
        .await
        .unwrap()
        .unwrap();
    assert!(read.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn serve_cancelled_closes_open_connections() {
    let server = Running::start();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream
        .write_all(&framed(&query("web.", HickoryType::A)))
        .await
        .unwrap();
    read_message(&mut stream).await;
    let service = Arc::clone(&server.service);
    assert_eq!(service.counters().connections.load(Relaxed), 1);
    server.stop().await;
    let mut read = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut read))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (read.len(), service.counters().connections.load(Relaxed)),
        (0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn serve_connection_silent_or_stuck_ends_after_its_time() {
    let service = service();
    let started = tokio::time::Instant::now();
    let (_idle, stream) = tokio::io::duplex(64);
    assert!(serve::serve_connection(stream, &service).await.is_ok());
    assert_eq!(started.elapsed().as_secs(), 10, "no query");

    let started = tokio::time::Instant::now();
    let (mut slow, stream) = tokio::io::duplex(64);
    slow.write_all(&[0, 30, 1]).await.unwrap();
    let error = serve::serve_connection(stream, &service).await.unwrap_err();
    assert_eq!(
        (started.elapsed().as_secs(), error.kind()),
        (3, std::io::ErrorKind::TimedOut),
        "half a query"
    );

    let started = tokio::time::Instant::now();
    let (mut deaf, stream) = tokio::io::duplex(64);
    deaf.write_all(&framed(&query("big.", HickoryType::A)))
        .await
        .unwrap();
    let error = serve::serve_connection(stream, &service).await.unwrap_err();
    assert_eq!(
        (started.elapsed().as_secs(), error.kind()),
        (5, std::io::ErrorKind::TimedOut),
        "no reader"
    );
}

#[tokio::test]
async fn serve_new_snapshot_is_answered_from_at_once_with_a_higher_serial() {
    let server = Running::start();
    let before = server
        .ask(&query("cluster.local.", HickoryType::SOA))
        .await
        .answers[0]
        .data
        .to_string();
    let mut next = Snapshot::clone(&server.service.published.load());
    next.generation.0 += 1;
    server.service.published.store(Arc::new(next));
    let after = server
        .ask(&query("cluster.local.", HickoryType::SOA))
        .await
        .answers[0]
        .data
        .to_string();
    assert!(
        before.contains(" 1001 ") && after.contains(" 1002 "),
        "{before} then {after}"
    );
    server.stop().await;
}

#[tokio::test]
async fn bind_taken_port_tells_why_and_uses_the_fallback() {
    let free = |listeners: &DnsListeners| listeners.bound()[0].addr.unwrap();
    let any = DnsSettings {
        listen: vec![DnsListen::exactly("127.0.0.1:0".parse().unwrap())],
    };
    let first = bind(&any, &Inherited::default());
    let second = bind(&any, &Inherited::default());
    let fallback_port = free(&second).port();
    let wanted = DnsListen {
        addr: free(&first),
        fallback_port: Some(fallback_port),
    };
    let exact = DnsListen::exactly(free(&first));

    let both_taken = bind(
        &DnsSettings {
            listen: vec![wanted, exact],
        },
        &Inherited::default(),
    );
    let failed: Vec<_> = both_taken
        .bound()
        .iter()
        .map(|bound| (bound.addr, bound.failures.len()))
        .collect();
    assert_eq!(failed, [(None, 2), (None, 1)]);
    let failure = &both_taken.bound()[0].failures[0];
    assert_eq!(failure.source.kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(
        failure.to_string(),
        format!("cannot bind UDP {}", free(&first))
    );

    drop(second);
    let fallen_back = bind(
        &DnsSettings {
            listen: vec![wanted],
        },
        &Inherited::default(),
    );
    let bound = &fallen_back.bound()[0];
    assert_eq!(
        (bound.addr.map(|addr| addr.port()), bound.failures.len()),
        (Some(fallback_port), 1)
    );
}

#[tokio::test]
async fn bind_unspecified_address_is_refused_with_the_reason() {
    let settings = DnsSettings {
        listen: vec![DnsListen::exactly("0.0.0.0:0".parse().unwrap())],
    };
    let listeners = bind(&settings, &Inherited::default());
    let [bound] = listeners.bound() else {
        panic!("one account: {listeners:?}")
    };
    let kinds: Vec<_> = bound
        .failures
        .iter()
        .map(|failure| failure.source.kind())
        .collect();
    assert_eq!(
        (bound.addr, kinds),
        (None, vec![std::io::ErrorKind::InvalidInput])
    );
}

#[test]
fn answer_json_has_the_documented_shape() {
    let answer = answer_json(&service(), "echo.default.svc.cluster.local", "A").unwrap();
    assert_eq!(answer["rcode"], "NXDOMAIN");
    let answer = serde_json::to_string(&answer_offline(
        &snapshot(),
        Name::parse("web").unwrap(),
        RecordType::A,
    ))
    .unwrap();
    assert_eq!(
        answer,
        "{\"rcode\":\"NOERROR\",\"authoritative\":true,\
         \"answers\":[{\"name\":\"web.\",\"type\":\"A\",\"ttl\":5,\"data\":\"127.96.1.10\"}],\
         \"authority\":[],\"additional\":[]}"
    );
}

#[test]
fn parse_question_reads_addresses_names_and_types() {
    let parse =
        |name, rtype| parse_question(name, rtype).map(|(name, rtype)| format!("{name} {rtype}"));
    assert_eq!(parse("echo", None).unwrap(), "echo. A");
    assert_eq!(parse("echo", Some("aaaa")).unwrap(), "echo. AAAA");
    assert_eq!(
        parse("127.96.1.10", None).unwrap(),
        "10.1.96.127.in-addr.arpa. PTR"
    );
    assert_eq!(parse("127.96.1.10", Some("A")).unwrap(), "127.96.1.10. A");
    assert!(matches!(parse("a..b", None), Err(AskError::Name { .. })));
    assert!(matches!(
        parse("a", Some("nonsense")),
        Err(AskError::Type(_))
    ));
}
