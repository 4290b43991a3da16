//! The server over real sockets, read by a decoder that is not ours.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name as HickoryName, Record as HickoryRecord, RecordType as HickoryType,
        rdata::opt::EdnsOption,
    },
};
use portico_core::dns::Rcode;
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

/// The Services and the table of cases that the core is held to.
#[path = "../../crates/core/src/dns/tests/fixture.rs"]
mod fixture;
const CASES: &str = include_str!("../../crates/core/src/dns/tests/cases.txt");

/// For what should happen at once.
const DEADLINE: Duration = Duration::from_secs(10);

fn service() -> Arc<DnsService> {
    Arc::new(DnsService::new(
        Arc::new(ArcSwap::from_pointee(fixture::snapshot())),
        6,
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
        let response = self.udp(&query.to_vec().unwrap()).await;
        read_response(query.metadata.id, &response)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// The responses to `packet` over UDP and TCP.
    async fn both(&self, packet: &[u8]) -> [Message; 2] {
        let id = u16::from_be_bytes([packet[0], packet[1]]);
        let by_udp = read_response(id, &self.udp(packet).await);
        let mut stream = self.connect().await;
        stream.write_all(&framed_bytes(packet)).await.unwrap();
        [by_udp, read_message(&mut stream).await]
    }
}

fn read_response(id: u16, bytes: &[u8]) -> Message {
    let response = Message::from_vec(bytes).unwrap();
    assert_eq!(response.metadata.id, id);
    assert_eq!(response.metadata.message_type, MessageType::Response);
    assert!(response.metadata.recursion_available);
    response
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
    framed_bytes(&message.to_vec().unwrap())
}

fn framed_bytes(bytes: &[u8]) -> Vec<u8> {
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
async fn serve_every_case_of_the_table_over_udp_and_tcp() {
    let server = Running::start();
    let mut stream = server.connect().await;
    let lines = CASES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let (question, expected) = line.split_once(" | ").unwrap();
        let (names, types) = question.split_once(" : ").unwrap();
        for name in names.split(' ') {
            for rtype in types.split(' ') {
                let mut asked = with_edns(case_query(name, rtype), 1232);
                asked.metadata.recursion_desired = true;
                let by_udp = server.ask(&asked).await;
                stream.write_all(&framed(&asked)).await.unwrap();
                let by_tcp = read_message(&mut stream).await;
                check_case(&asked, &by_udp, expected);
                check_case(&asked, &by_tcp, expected);
            }
        }
    }
    server.stop().await;
}

fn case_query(name: &str, rtype: &str) -> Message {
    let absolute = match name {
        "@" => "cluster.local.".to_owned(),
        _ if name.ends_with('.') => name.to_owned(),
        _ => format!("{name}.cluster.local."),
    };
    let rtype: RecordType = rtype.parse().unwrap();
    query(&absolute, HickoryType::from(rtype.number()))
}

/// Flags, times to live and the OPT record follow rules; all else is in the line.
fn check_case(asked: &Message, response: &Message, expected: &str) {
    let name = asked.queries[0].name();
    let what = format!("{name} {}", asked.queries[0].query_type());
    let flags = &response.metadata;
    assert_eq!(flags.id, asked.metadata.id, "{what}");
    assert_eq!(response.queries, asked.queries, "{what}");
    let code = Rcode::ALL
        .into_iter()
        .find(|code| u16::from(code.number()) == u16::from(flags.response_code))
        .unwrap();
    assert_eq!(flags.authoritative, code != Rcode::Refused, "{what}");
    assert!(
        flags.recursion_available && flags.recursion_desired,
        "{what}"
    );
    assert!(!flags.truncation && !flags.authentic_data, "{what}");
    let edns = response.edns.as_ref().unwrap();
    assert_eq!((edns.max_payload(), edns.version()), (1232, 0), "{what}");
    let mut answers: Vec<_> = response
        .answers
        .iter()
        .map(|record| show(name, record))
        .collect();
    let is_address =
        |record: &HickoryRecord| matches!(record.record_type(), HickoryType::A | HickoryType::AAAA);
    if response.answers.iter().all(is_address) {
        answers.sort();
    }
    let authority = response.authorities.iter().map(|record| {
        assert_eq!(record.record_type(), HickoryType::SOA, "{what}");
        assert_eq!(record.ttl, 5, "{what}");
        record.name.to_string()
    });
    let additional = response.additionals.iter().map(|record| show(name, record));
    let sections = [answers, authority.collect(), additional.collect()].map(|section| {
        if section.is_empty() {
            "-".to_owned()
        } else {
            section.join(", ")
        }
    });
    let shown = format!("{code}; {}", sections.join("; "));
    let shown = without_quotes(&shown.replace("cluster.local.", "Z"));
    assert_eq!(shown, without_quotes(expected), "{what}");
}

fn show(asked: &HickoryName, record: &HickoryRecord) -> String {
    let is_text = record.record_type() == HickoryType::TXT;
    assert_eq!(record.ttl, if is_text { 28_800 } else { 5 }, "{record}");
    let owner = if record.name == *asked {
        String::new()
    } else {
        format!("{} ", record.name)
    };
    format!("{owner}{} {}", record.record_type(), record.data)
}

/// Texts are quoted in one of the two.
fn without_quotes(text: &str) -> String {
    text.replace('"', "")
}

/// Asks over UDP and TCP, and compares code, operation and number of answers.
async fn check_packet(server: &Running, what: &str, packet: &[u8], expected: (u16, OpCode, usize)) {
    for response in server.both(packet).await {
        let (said, count) = (&response.metadata, response.answers.len());
        let said = (u16::from(said.response_code), said.op_code, count);
        assert_eq!(said, expected, "{what}");
    }
}

/// A query for the address of a Service, with one byte changed.
fn changed(at: usize, value: u8) -> Vec<u8> {
    let mut packet = query("web.shop.svc.cluster.local.", HickoryType::A)
        .to_vec()
        .unwrap();
    packet[at] = value;
    packet
}

#[tokio::test]
async fn serve_what_is_not_done_says_so_over_udp_and_tcp() {
    let server = Running::start();
    let web = || query("web.shop.svc.cluster.local.", HickoryType::A);
    let mut chaos = query("version.bind.", HickoryType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut version = with_edns(web(), 1232);
    version.edns.as_mut().unwrap().set_version(1);
    let small = with_edns(web(), 100);
    let last = web().to_vec().unwrap().len() - 1;
    for (what, packet, code, opcode, answers) in [
        ("class CH", chaos.to_vec().unwrap(), 5, OpCode::Query, 0),
        ("class ANY", changed(last, 255), 5, OpCode::Query, 0),
        ("STATUS", changed(2, 2 << 3), 4, OpCode::Status, 0),
        ("NOTIFY", changed(2, 4 << 3), 4, OpCode::Notify, 0),
        ("UPDATE", changed(2, 5 << 3), 4, OpCode::Update, 0),
        ("EDNS 1", version.to_vec().unwrap(), 16, OpCode::Query, 0),
        ("EDNS 100", small.to_vec().unwrap(), 0, OpCode::Query, 1),
    ] {
        check_packet(&server, what, &packet, (code, opcode, answers)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn serve_malformed_queries_says_so_over_udp_and_tcp() {
    let server = Running::start();
    let plain = changed(0, 0);
    let mut long = plain[..12].to_vec();
    for _ in 0..4 {
        long.extend([63; 64]);
    }
    long.extend([0, 0, 1, 0, 1]);
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    let mut two_opts = [&plain[..], &opt, &opt].concat();
    two_opts[11] = 2;
    for (what, packet) in [
        ("no question", changed(5, 0)),
        ("two questions", changed(5, 2)),
        ("a pointer", changed(12, 0xc0)),
        ("a label of 64", changed(12, 64)),
        ("a name of 257", long),
        ("a cut question", plain[..20].to_vec()),
        ("two OPT", two_opts),
    ] {
        check_packet(&server, what, &packet, (1, OpCode::Query, 0)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn serve_cookie_is_not_echoed() {
    let server = Running::start();
    let mut asked = with_edns(query("web.shop.svc.cluster.local.", HickoryType::A), 1232);
    let edns = asked.edns.as_mut().unwrap();
    edns.options_mut()
        .insert(EdnsOption::Unknown(10, vec![7; 8]));
    for response in server.both(&asked.to_vec().unwrap()).await {
        let edns = response.edns.as_ref().unwrap();
        assert!(edns.options().as_ref().is_empty(), "{edns}");
        assert_eq!(response.answers.len(), 1);
    }
    server.stop().await;
}

#[tokio::test]
async fn serve_60_addresses_truncates_over_udp_and_gives_all_over_tcp() {
    let server = Running::start();
    let asked = query("big.data.svc.cluster.local.", HickoryType::A);
    let plain = server.ask(&asked).await;
    assert_eq!(
        (
            plain.answers.len(),
            plain.metadata.truncation,
            plain.edns.is_some()
        ),
        (29, true, false)
    );
    for payload in [100, 512] {
        let small = server.ask(&with_edns(asked.clone(), payload)).await;
        assert_eq!((small.answers.len(), small.metadata.truncation), (28, true));
        assert_eq!(small.edns.map(|edns| edns.max_payload()), Some(1232));
    }
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
        .ask(&query("eight.data.svc.cluster.local.", HickoryType::SRV))
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
            query("big.data.svc.cluster.local.", HickoryType::SRV),
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
    let queries: Vec<_> = [
        "web.shop",
        "big.data",
        "eight.data",
        "nosuch.shop",
        "web.shop",
    ]
    .map(|name| query(&format!("{name}.svc.cluster.local."), HickoryType::A))
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
async fn serve_more_names_of_others_than_wait_at_a_time_answers_all() {
    let server = Running::start();
    let mut stream = server.connect().await;
    let mut waiting = std::collections::BTreeSet::new();
    let mut bytes = Vec::new();
    for id in 0..300 {
        let name = if id % 3 == 0 { "web." } else { "example.net." };
        let mut asked = query(name, HickoryType::A);
        asked.metadata.id = id;
        bytes.extend(framed(&asked));
        waiting.insert(id);
    }
    stream.write_all(&bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    while !waiting.is_empty() {
        let response = read_message(&mut stream).await;
        let id = response.metadata.id;
        assert!(waiting.remove(&id), "{id} twice");
        assert_eq!(response.answers.len(), usize::from(id % 3 == 0));
    }
    let refused = (Some(RecordType::A), Rcode::Refused, 200);
    assert!(
        server
            .service
            .counters()
            .responses()
            .any(|row| row == refused)
    );
    assert_eq!(server.service.counters().tcp_queries.load(Relaxed), 300);
    server.stop().await;
}

#[tokio::test]
async fn serve_names_that_do_not_exist_are_told_with_what_was_meant() {
    let server = Running::start();
    for name in ["wbe.shop", "nothing.like.it", "wbe.shop", "pgal.data"] {
        server
            .both(
                &query(&format!("{name}.svc.cluster.local."), HickoryType::A)
                    .to_vec()
                    .unwrap(),
            )
            .await;
    }
    let missed = server.service.missed();
    let shown: Vec<_> = missed
        .iter()
        .map(|name| (&*name.name, name.count, &*name.meant))
        .collect();
    assert_eq!(
        shown,
        [
            (
                "pgal.data.svc.cluster.local.",
                2,
                "pgall.data.svc.cluster.local."
            ),
            (
                "wbe.shop.svc.cluster.local.",
                4,
                "web.shop.svc.cluster.local."
            ),
        ]
    );
    server.stop().await;
}

#[tokio::test]
async fn serve_query_byte_by_byte_is_answered_as_in_one_piece() {
    let server = Running::start();
    let mut stream = server.connect().await;
    stream.set_nodelay(true).unwrap();
    let asked = query("web.shop.svc.cluster.local.", HickoryType::A);
    for byte in framed(&asked) {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read_message(&mut stream).await.answers.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn serve_longest_message_leaves_the_next_one_in_step() {
    let server = Running::start();
    let mut stream = server.connect().await;
    let asked = query("web.shop.svc.cluster.local.", HickoryType::A);
    let mut longest = asked.to_vec().unwrap();
    longest.resize(usize::from(u16::MAX), 0);
    let both = [framed_bytes(&longest), framed(&asked)].concat();
    stream.write_all(&both).await.unwrap();
    for _ in 0..2 {
        let response = read_message(&mut stream).await;
        assert_eq!(
            (response.metadata.id, response.answers.len()),
            (asked.metadata.id, 1)
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn serve_length_that_is_a_lie_ends_the_connection() {
    let server = Running::start();
    let query = framed(&query("web.", HickoryType::A));
    for (what, bytes) in [
        ("nothing in it", vec![0, 0]),
        ("less than a header", [&[0, 11][..], &[0; 11]].concat()),
        ("more than comes", [&[0xff, 0xff], &query[2..]].concat()),
        ("half a length", vec![0]),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut read = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut read))
            .await
            .unwrap()
            .unwrap();
        assert!(read.is_empty(), "{what}: {read:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn serve_connections_at_the_limit_the_one_silent_longest_makes_room() {
    let few = Arc::into_inner(service()).unwrap().holding(3);
    let server = Running::of(Arc::new(few));
    let asked = framed(&query("web.", HickoryType::A));
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect().await;
        stream.write_all(&asked).await.unwrap();
        assert_eq!(read_message(&mut stream).await.answers.len(), 1);
        open.push(stream);
    }
    let end = open[0].read_u8().await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof);
    open[1].write_all(&asked).await.unwrap();
    assert_eq!(read_message(&mut open[1]).await.answers.len(), 1);
    let displaced = server.service.counters().displaced.load(Relaxed);
    assert_eq!((server.service.connections(), displaced), (3, 1));
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
    assert_eq!(service.connections(), 1);
    server.stop().await;
    let mut read = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut read))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((read.len(), service.connections()), (0, 0));
}

async fn serve_connection(
    stream: tokio::io::DuplexStream,
    service: &Arc<DnsService>,
) -> std::io::Result<()> {
    let client = ([127, 0, 0, 1].into(), ClientPlace::OnNode);
    let (held, _) = service.connections.enter(client.0);
    serve::serve_connection(stream, client, service, &held.connection).await
}

#[tokio::test(start_paused = true)]
async fn serve_connection_silent_or_stuck_ends_after_its_time() {
    let service = service();
    let started = tokio::time::Instant::now();
    let (_idle, stream) = tokio::io::duplex(64);
    assert!(serve_connection(stream, &service).await.is_ok());
    assert_eq!(started.elapsed().as_secs(), 10, "no query");

    let started = tokio::time::Instant::now();
    let (mut slow, stream) = tokio::io::duplex(64);
    slow.write_all(&[0, 30, 1]).await.unwrap();
    let error = serve_connection(stream, &service).await.unwrap_err();
    assert_eq!(
        (started.elapsed().as_secs(), error.kind()),
        (3, std::io::ErrorKind::TimedOut),
        "half a query"
    );

    let started = tokio::time::Instant::now();
    let (mut deaf, stream) = tokio::io::duplex(64);
    deaf.write_all(&framed(&query("big.data.", HickoryType::A)))
        .await
        .unwrap();
    let error = serve_connection(stream, &service).await.unwrap_err();
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
        before.contains(" 7 ") && after.contains(" 8 "),
        "{before} then {after}"
    );
    server.stop().await;
}

#[tokio::test]
async fn serve_before_everything_was_read_fails_only_what_is_missing() {
    let server = Running::start();
    let mut pending = Snapshot::clone(&server.service.published.load());
    pending.synced = false;
    server.service.published.store(Arc::new(pending));
    for (name, code, answers, authorities) in [
        ("web.shop", ResponseCode::NoError, 1, 0),
        ("nosuch.shop", ResponseCode::ServFail, 0, 1),
    ] {
        let asked = query(&format!("{name}.svc.cluster.local."), HickoryType::A);
        for response in server.both(&asked.to_vec().unwrap()).await {
            let sections = (response.answers.len(), response.authorities.len());
            assert_eq!(response.metadata.response_code, code, "{name}");
            assert_eq!(sections, (answers, authorities), "{name}");
        }
    }
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

#[tokio::test]
async fn answer_json_has_the_documented_shape() {
    let asked = answer_json(&service(), "web.default.svc.cluster.local", "A").await;
    let answer = asked.unwrap();
    assert_eq!(answer["rcode"], "NXDOMAIN");
    assert_eq!(answer["didYouMean"], "web.shop.svc.cluster.local.");
    let answer = answer_offline(
        &fixture::snapshot(),
        Name::parse("web").unwrap(),
        RecordType::A,
    );
    assert_eq!(
        answer.unwrap(),
        serde_json::json!({
            "rcode": "NOERROR",
            "authoritative": true,
            "answers": [{"name": "web.", "type": "A", "ttl": 5, "data": "10.96.1.10"}],
            "authority": [],
            "additional": [],
        })
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
