//! Names of others, with servers on loopback that answer, lie, cut and keep silent.

use std::{net::Ipv4Addr, sync::atomic::AtomicUsize};

use hickory_proto::rr::{
    RData, Record as HickoryRecord,
    rdata::{
        A, CNAME, NULL, SOA,
        opt::{EdnsCode, EdnsOption},
    },
};

use portico_core::snapshot::assemble::assemble;

use super::*;

/// How a server is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Udp,
    Tcp,
}

/// A server of others.
struct Fake {
    addr: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Fake {
    /// One that sends what `answer` makes of each query, in this order.
    fn new(answer: impl Fn(&Message, By) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let settings = DnsSettings {
            listen: vec![DnsListen::exactly("127.0.0.1:0".parse().unwrap())],
        };
        let mut listeners = bind(&settings, &Inherited::default());
        let addr = listeners.bound()[0].addr.unwrap();
        let (udp, tcp) = listeners.sockets.pop().unwrap();
        let udp = UdpSocket::from_std(udp).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                tokio::select! {
                    got = udp.recv_from(&mut buffer) => {
                        let (length, client) = got.unwrap();
                        let query = Message::from_vec(&buffer[..length]).unwrap();
                        // Looks for loops.
                        if query.queries[0].query_type() == HickoryType::HINFO {
                            continue;
                        }
                        count.fetch_add(1, Relaxed);
                        for reply in answer(&query, By::Udp) {
                            udp.send_to(&reply, client).await.unwrap();
                        }
                    }
                    got = tcp.accept() => {
                        let mut stream = got.unwrap().0;
                        let query = read_message(&mut stream).await;
                        for reply in answer(&query, By::Tcp) {
                            let length = u16::try_from(reply.len()).unwrap();
                            stream.write_all(&length.to_be_bytes()).await.unwrap();
                            stream.write_all(&reply).await.unwrap();
                        }
                    }
                }
            }
        });
        Self { addr, asked }
    }

    /// One that has this address for every name.
    fn having(address: [u8; 4]) -> Self {
        Self::new(move |query, _| vec![with_addresses(query, [address]).to_vec().unwrap()])
    }

    /// One that says nothing but `code`.
    fn saying(code: ResponseCode) -> Self {
        Self::new(move |query, _| {
            let mut response = reply(query);
            response.metadata.response_code = code;
            vec![response.to_vec().unwrap()]
        })
    }

    /// One that never answers.
    fn silent() -> Self {
        Self::new(|_, _| Vec::new())
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

fn reply(query: &Message) -> Message {
    let mut response = Message::response(query.metadata.id, OpCode::Query);
    response.add_query(query.queries[0].clone());
    response
}

fn with_addresses(query: &Message, addresses: impl IntoIterator<Item = [u8; 4]>) -> Message {
    let mut response = reply(query);
    let name = query.queries[0].name();
    for address in addresses {
        let data = RData::A(A(address.into()));
        response.add_answer(HickoryRecord::from_rdata(name.clone(), 300, data));
    }
    response
}

fn sixty(query: &Message) -> Vec<u8> {
    let all = (1..=60).map(|last| [192, 0, 2, last]);
    with_addresses(query, all).to_vec().unwrap()
}

/// A port that nobody listens at.
fn closed() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

fn asking(upstreams: &[SocketAddr]) -> Arc<DnsService> {
    asking_with(upstreams, &[])
}

fn asking_with(upstreams: &[SocketAddr], stubs: &[(&str, SocketAddr)]) -> Arc<DnsService> {
    let stub = |(domain, addr): &(&str, SocketAddr)| (Name::parse(domain).unwrap(), *addr);
    let settings = ForwardSettings {
        upstreams: UpstreamSource::Given(upstreams.to_vec()),
        stubs: stubs.iter().map(stub).collect(),
        sockets: 64,
    };
    set(settings)
}

/// A service with aliases that lead outside.
fn set(settings: ForwardSettings) -> Arc<DnsService> {
    let aliases = [
        ("db", "db.example.net"),
        ("gone", "gone.example.net"),
        ("here", "localhost"),
    ];
    let aliases = aliases.map(|(name, target)| Arc::new(fixture::external(name, target)));
    let usual = fixture::snapshot();
    let services = usual
        .services()
        .into_iter()
        .cloned()
        .chain(aliases)
        .collect();
    let snapshot = assemble(Arc::clone(&usual.cluster), services, &[]);
    let service = DnsService::new(Arc::new(ArcSwap::from_pointee(snapshot)), 1000, 42);
    let service = service.forwarding(settings);
    service.forwarder.add_own([]);
    Arc::new(service)
}

/// What `service` says to `query` over TCP.
async fn ask(service: &DnsService, query: &Message) -> Message {
    let (client, mut reply) = (
        (Ipv4Addr::LOCALHOST.into(), ClientPlace::OnNode),
        Vec::new(),
    );
    let packet = query.to_vec().unwrap();
    let said = service.answer_message(&packet, client, &mut reply).unwrap();
    if said.is_foreign {
        let response = slow::resolve(service, &packet, (Transport::Tcp, client.1)).await;
        reply = response.unwrap().bytes;
    }
    Message::from_vec(&reply).unwrap()
}

async fn code(service: &DnsService, name: &str) -> ResponseCode {
    let response = ask(service, &asked(name, HickoryType::A)).await;
    response.metadata.response_code
}

/// A query as stub resolvers make it.
fn asked(name: &str, rtype: HickoryType) -> Message {
    let mut message = query(name, rtype);
    message.metadata.recursion_desired = true;
    message
}

fn addresses(message: &Message) -> Vec<String> {
    let answers = message.answers.iter();
    let mut addresses: Vec<_> = answers.map(|record| record.data.to_string()).collect();
    addresses.sort();
    addresses
}

/// The text of the extended error.
fn explanation(message: &Message) -> String {
    let options = message.edns.as_ref().unwrap().options();
    match options.get(EdnsCode::Unknown(15)) {
        Some(EdnsOption::Unknown(_, bytes)) => String::from_utf8(bytes[2..].to_vec()).unwrap(),
        other => panic!("no extended error: {other:?}"),
    }
}

#[tokio::test]
async fn forward_unknown_types_and_options_come_through_over_udp_and_tcp() {
    let upstream = Fake::new(|query, _| {
        let options = query.edns.as_ref().unwrap().options();
        let sent = options.get(EdnsCode::Unknown(65001));
        assert_eq!(sent, Some(&EdnsOption::Unknown(65001, b"to".to_vec())));
        assert_eq!(query.max_payload(), 1232);
        assert!(query.metadata.checking_disabled && query.metadata.recursion_desired);
        let mut response = reply(query);
        let data = RData::Unknown {
            code: HickoryType::Unknown(65400),
            rdata: NULL::with(vec![7; 9]),
        };
        let name = query.queries[0].name().to_lowercase();
        response.add_answer(HickoryRecord::from_rdata(name, 300, data));
        let mut edns = Edns::new();
        let back = EdnsOption::Unknown(65002, b"back".to_vec());
        edns.options_mut().insert(back);
        response.set_edns(edns);
        vec![response.to_vec().unwrap()]
    });
    let server = Running::of(asking(&[upstream.addr]));
    let mut query = with_edns(asked("WwW.Example.ORG.", HickoryType::Unknown(65400)), 4096);
    query.metadata.checking_disabled = true;
    let to = EdnsOption::Unknown(65001, b"to".to_vec());
    query.edns.as_mut().unwrap().options_mut().insert(to);
    let over_udp = server.ask(&query).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(&framed(&query)).await.unwrap();
    let over_tcp = read_message(&mut stream).await;
    for response in [over_udp, over_tcp] {
        assert_eq!(response.metadata.id, query.metadata.id);
        let name = response.queries[0].name();
        assert_eq!(name.to_string(), "WwW.Example.ORG.");
        let data = &response.answers[0].data;
        assert!(matches!(data, RData::Unknown { rdata, .. } if rdata.anything == [7; 9]));
        let options = response.edns.as_ref().unwrap().options();
        let back = options.get(EdnsCode::Unknown(65002));
        assert_eq!(back, Some(&EdnsOption::Unknown(65002, b"back".to_vec())));
        assert!(response.metadata.checking_disabled && response.metadata.recursion_desired);
    }
    let counted = server.service.counters().responses();
    let counted: Vec<_> = counted.filter(|(_, _, count)| *count > 0).collect();
    assert_eq!(counted, [(None, Rcode::NoError, 2)]);
    server.stop().await;
}

#[tokio::test]
async fn forward_only_the_response_to_the_query_is_heard() {
    let upstream = Fake::new(|query, _| {
        let truth = with_addresses(query, [[192, 0, 2, 1]]).to_vec().unwrap();
        let lie = |change: &dyn Fn(&mut Message)| {
            let mut lie = with_addresses(query, [[6, 6, 6, 6]]);
            change(&mut lie);
            lie.to_vec().unwrap()
        };
        let other = HickoryName::from_ascii("evil.example.").unwrap();
        let name = query.queries[0].name();
        vec![
            lie(&|lie| lie.metadata.id ^= 1),
            lie(&|lie| lie.queries[0] = Query::query(other.clone(), HickoryType::A)),
            lie(&|lie| lie.queries[0] = Query::query(name.clone(), HickoryType::NS)),
            lie(&|lie| lie.queries.clear()),
            lie(&|lie| lie.metadata.message_type = MessageType::Query),
            truth[..truth.len() - 1].to_vec(),
            vec![0; 5],
            truth,
        ]
    });
    let service = asking(&[upstream.addr]);
    let response = ask(&service, &asked("example.org.", HickoryType::A)).await;
    assert_eq!(
        (addresses(&response), upstream.asked()),
        (vec!["192.0.2.1".to_owned()], 1)
    );
}

#[tokio::test]
async fn forward_cut_is_asked_for_over_tcp_and_cut_for_each_client() {
    let upstream = Fake::new(|query, by| {
        let mut cut = reply(query);
        cut.metadata.truncation = true;
        vec![match by {
            By::Udp => cut.to_vec().unwrap(),
            By::Tcp => sixty(query),
        }]
    });
    let server = Running::of(asking(&[upstream.addr]));
    let query = asked("example.org.", HickoryType::A);
    let counts = |response: Message| (response.answers.len(), response.metadata.truncation);
    assert_eq!(counts(server.ask(&query).await), (30, true));
    let large = with_edns(query.clone(), 1232);
    assert_eq!(counts(server.ask(&large).await), (60, false));
    assert_eq!(counts(ask(&server.service, &query).await), (60, false));
    server.stop().await;

    let without_tcp = Fake::new(|query, by| {
        let mut cut = with_addresses(query, [[192, 0, 2, 1]]);
        cut.metadata.truncation = true;
        let reply = (by == By::Udp).then(|| cut.to_vec().unwrap());
        reply.into_iter().collect()
    });
    let service = asking(&[without_tcp.addr]);
    assert_eq!(counts(ask(&service, &query).await), (1, true));
    let alias = asked("db.shop.svc.cluster.local.", HickoryType::A);
    assert_eq!(counts(ask(&service, &alias).await), (2, true));
}

#[tokio::test]
async fn forward_next_server_is_asked_where_one_cannot_help() {
    let good = Fake::having([192, 0, 2, 1]);
    for (first, expected) in [
        (closed(), ResponseCode::NoError),
        (
            Fake::saying(ResponseCode::ServFail).addr,
            ResponseCode::NoError,
        ),
        (
            Fake::saying(ResponseCode::Refused).addr,
            ResponseCode::NoError,
        ),
        (
            Fake::saying(ResponseCode::NXDomain).addr,
            ResponseCode::NXDomain,
        ),
    ] {
        let service = asking(&[first, good.addr]);
        assert_eq!(code(&service, "example.org.").await, expected);
    }
    let [poor, poorer] = [ResponseCode::Refused, ResponseCode::ServFail].map(Fake::saying);
    let service = asking(&[closed(), poor.addr, poorer.addr]);
    assert_eq!(code(&service, "example.org.").await, ResponseCode::Refused);
    assert_eq!((poor.asked(), poorer.asked()), (1, 1), "each says it once");
}

#[tokio::test]
async fn forward_silent_server_has_another_beside_it_and_then_behind_it() {
    let (silent, good) = (Fake::silent(), Fake::having([192, 0, 2, 1]));
    let service = asking(&[silent.addr, good.addr]);
    let began = Instant::now();
    let codes = tokio::join!(code(&service, "a.example."), code(&service, "b.example."));
    assert_eq!(codes, (ResponseCode::NoError, ResponseCode::NoError));
    assert!(began.elapsed() >= Duration::from_millis(800));
    assert_eq!((silent.asked(), good.asked()), (2, 2));
    assert_eq!(code(&service, "c.example.").await, ResponseCode::NoError);
    assert_eq!(
        (silent.asked(), good.asked()),
        (2, 3),
        "the order has changed"
    );
}

// Nothing ever comes, so that only times pass.
#[tokio::test(start_paused = true)]
async fn forward_nobody_answers_is_told_within_five_seconds() {
    let [a, b] = [Fake::silent(), Fake::silent()];
    let service = asking(&[a.addr, b.addr]);
    let began = tokio::time::Instant::now();
    let query = with_edns(asked("example.org.", HickoryType::A), 1232);
    let response = ask(&service, &query).await;
    assert_eq!(response.metadata.response_code, ResponseCode::ServFail);
    let who = format!("no answer from {}, {}", a.addr, b.addr);
    assert_eq!(explanation(&response), who);
    // Two tries each; the last one begins when the first one is over.
    assert_eq!(began.elapsed().as_secs(), 4);
}

#[tokio::test]
async fn forward_stub_domains_by_the_longest_suffix() {
    let [all, corp, deep] = [1, 2, 3].map(|last| Fake::having([192, 0, 2, last]));
    let stubs = [
        ("corp.example", corp.addr),
        ("deep.Corp.example", closed()),
        ("deep.corp.example", deep.addr),
    ];
    let service = asking_with(&[all.addr], &stubs);
    for (name, expected) in [
        ("example.", "192.0.2.1"),
        ("notcorp.example.", "192.0.2.1"),
        ("CORP.example.", "192.0.2.2"),
        ("a.b.corp.example.", "192.0.2.2"),
        ("a.DEEP.corp.example.", "192.0.2.3"),
    ] {
        let response = ask(&service, &asked(name, HickoryType::A)).await;
        assert_eq!(addresses(&response), [expected], "{name}");
    }
}

#[tokio::test]
async fn forward_our_own_address_is_not_asked_and_nobody_left_is_explained() {
    let own: SocketAddr = "127.96.0.10:53".parse().unwrap();
    let service = asking(&[own]);
    service.forwarder.add_own([own]);
    let query = with_edns(asked("example.org.", HickoryType::A), 1232);
    let response = ask(&service, &query).await;
    assert_eq!(response.metadata.response_code, ResponseCode::Refused);
    let upstreams = service.upstreams();
    assert_eq!(
        (upstreams.len(), upstreams[0].problem),
        (1, Some("it is portico itself"))
    );
    let why = "portico has no DNS server to ask: --dns-upstream names none but portico itself";
    assert_eq!(explanation(&response), why);
    let alias = ask(
        &service,
        &asked("db.shop.svc.cluster.local.", HickoryType::A),
    )
    .await;
    assert_eq!(alias.metadata.response_code, ResponseCode::NoError);
    assert_eq!(alias.answers.len(), 1);
}

#[tokio::test]
async fn forward_too_many_at_a_time_are_refused() {
    let good = Fake::having([192, 0, 2, 1]);
    let service = asking(&[good.addr]);
    let all = service.forwarder.permits.acquire_many(1000).await.unwrap();
    assert_eq!(code(&service, "example.org.").await, ResponseCode::Refused);
    let ours = "web.shop.svc.cluster.local.";
    assert_eq!(code(&service, ours).await, ResponseCode::NoError);
    drop(all);
    assert_eq!(code(&service, "example.org.").await, ResponseCode::NoError);
}

#[tokio::test(start_paused = true)]
async fn forward_without_a_socket_nobody_is_asked_and_the_time_ends() {
    let good = Fake::having([192, 0, 2, 1]);
    let service = set(ForwardSettings {
        upstreams: UpstreamSource::Given(vec![good.addr]),
        stubs: Vec::new(),
        sockets: 0,
    });
    assert_eq!(code(&service, "example.org.").await, ResponseCode::ServFail);
    let upstreams = service.upstreams();
    let failed = (upstreams[0].failures, upstreams[0].problem);
    assert_eq!(
        (good.asked(), failed),
        (0, (0, None)),
        "it is not its fault"
    );
}

#[tokio::test]
async fn answer_json_of_names_of_others_is_what_they_say_or_why_not() {
    let good = Fake::having([192, 0, 2, 1]);
    let service = asking(&[good.addr]);
    let ask = async |name| answer_json(&service, name, "A").await.unwrap();
    let answer = ask("db.shop.svc.cluster.local").await;
    let data: Vec<_> = answer["answers"].as_array().unwrap().iter().collect();
    assert_eq!(
        (data.len(), &data[1]["data"]),
        (2, &"192.0.2.1".into()),
        "{answer}"
    );
    let answer = ask("example.org").await;
    assert_eq!(
        (&answer["rcode"], &answer["byOthers"]),
        (&"NOERROR".into(), &true.into())
    );
    assert_eq!(answer["answers"][0]["data"], "192.0.2.1");
    assert_eq!(ask("localhost").await["answers"][0]["data"], "127.0.0.1");
    let nobody = asking(&[]);
    let answer = answer_json(&nobody, "example.org", "A").await.unwrap();
    assert_eq!(answer["rcode"], "REFUSED");
    let why = "portico has no DNS server to ask: --dns-upstream names none";
    assert_eq!(answer["reason"], why);
}

#[tokio::test]
async fn forward_alias_goes_on_with_what_others_say_and_has_its_code() {
    let upstream = Fake::new(|query, _| {
        let name = query.queries[0].name().clone();
        let under = |label: &str| HickoryName::from_ascii(format!("{label}.{name}")).unwrap();
        let mut response = reply(query);
        if name.to_ascii().starts_with("gone") {
            response.metadata.response_code = ResponseCode::NXDomain;
            let soa = RData::SOA(SOA::new(under("ns"), under("admin"), 7, 1, 2, 3, 60));
            response.add_authority(HickoryRecord::from_rdata(name.clone(), 60, soa));
        } else {
            let alias = RData::CNAME(CNAME(under("real")));
            response.add_answer(HickoryRecord::from_rdata(name.clone(), 60, alias));
            let data = RData::A(A([192, 0, 2, 1].into()));
            response.add_answer(HickoryRecord::from_rdata(under("real"), 60, data));
        }
        vec![response.to_vec().unwrap()]
    });
    let service = asking(&[upstream.addr]);
    let texts = |records: &[HickoryRecord]| {
        let text = |record: &HickoryRecord| format!("{} {}", record.name, record.data);
        records.iter().map(text).collect::<Vec<_>>()
    };
    let db = asked("db.shop.svc.cluster.local.", HickoryType::A);
    let found = ask(&service, &with_edns(db.clone(), 1232)).await;
    assert_eq!(found.metadata.response_code, ResponseCode::NoError);
    assert_eq!(
        texts(&found.answers),
        [
            "db.shop.svc.cluster.local. db.example.net.",
            "db.example.net. real.db.example.net.",
            "real.db.example.net. 192.0.2.1",
        ]
    );
    let gone = ask(
        &service,
        &asked("gone.shop.svc.cluster.local.", HickoryType::AAAA),
    )
    .await;
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(
        texts(&gone.answers),
        ["gone.shop.svc.cluster.local. gone.example.net."]
    );
    assert_eq!(
        texts(&gone.authorities),
        ["gone.example.net. ns.gone.example.net. admin.gone.example.net. 7 1 2 3 60"]
    );
    let itself = asked("db.shop.svc.cluster.local.", HickoryType::CNAME);
    assert_eq!(ask(&service, &itself).await.answers.len(), 1);

    let failed = ask(&asking(&[closed()]), &db).await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(failed.answers.len(), 1);
}

/// Lets `seconds` pass for what is kept.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// Asks until what is kept of example.org has been asked for again.
async fn until_new(service: &DnsService) {
    let query = asked("example.org.", HickoryType::A);
    let asking = async {
        while ask(service, &query).await.answers[0].ttl != 300 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, asking).await.unwrap();
}

#[tokio::test]
async fn forward_equal_questions_are_asked_once_and_kept() {
    let upstream = Fake::having([192, 0, 2, 1]);
    let service = asking(&[upstream.addr]);
    let query = asked("example.org.", HickoryType::A);
    let mut other = with_edns(asked("EXAMPLE.org.", HickoryType::A), 1232);
    other.metadata.id ^= 1;
    let (first, second) = tokio::join!(ask(&service, &query), ask(&service, &other));
    let third = ask(&service, &other).await;
    assert_eq!(upstream.asked(), 1);
    for (response, query) in [(first, &query), (second, &other), (third, &other)] {
        assert_eq!(addresses(&response), ["192.0.2.1"]);
        assert_eq!(response.metadata.id, query.metadata.id);
        assert_eq!(
            response.queries[0].name().to_string(),
            query.queries[0].name().to_string()
        );
        assert_eq!(response.edns.is_some(), query.edns.is_some());
    }
    pass(12).await;
    let aged = ask(&service, &query).await;
    assert_eq!((aged.answers[0].ttl, upstream.asked()), (288, 1));
    let mut special = other.clone();
    let option = EdnsOption::Unknown(65001, vec![1]);
    special.edns.as_mut().unwrap().options_mut().insert(option);
    ask(&service, &special).await;
    assert_eq!(upstream.asked(), 2, "what an option means is not known");
}

#[tokio::test]
async fn forward_wanted_name_is_asked_again_before_its_time_is_over() {
    let upstream = Fake::having([192, 0, 2, 1]);
    let service = asking(&[upstream.addr]);
    for _ in 0..2 {
        code(&service, "example.org.").await;
    }
    pass(28).await;
    until_new(&service).await;
    assert_eq!(upstream.asked(), 2);
}

#[tokio::test]
async fn forward_old_answer_stands_in_while_nobody_answers() {
    let is_silent = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let silence = Arc::clone(&is_silent);
    let upstream = Fake::new(move |query, _| {
        let reply = with_addresses(query, [[192, 0, 2, 1]]).to_vec().unwrap();
        (!silence.load(Relaxed))
            .then_some(reply)
            .into_iter()
            .collect()
    });
    let service = asking(&[upstream.addr]);
    let query = asked("example.org.", HickoryType::A);
    assert_eq!(ask(&service, &query).await.answers[0].ttl, 300);
    is_silent.store(true, Relaxed);
    pass(31).await;
    for _ in 0..2 {
        let stale = ask(&service, &query).await;
        assert_eq!(
            (addresses(&stale), stale.answers[0].ttl),
            (vec!["192.0.2.1".into()], 30)
        );
    }
    assert_eq!(upstream.asked(), 2, "the second one is not kept waiting");
    // The query goes on, and the next try of it is answered.
    is_silent.store(false, Relaxed);
    until_new(&service).await;
}

#[tokio::test]
async fn forward_special_names_are_answered_here() {
    let upstream = Fake::having([192, 0, 2, 1]);
    let service = asking(&[upstream.addr]);
    for (name, expected) in [
        ("localhost.", vec!["127.0.0.1"]),
        (
            "here.shop.svc.cluster.local.",
            vec!["127.0.0.1", "localhost."],
        ),
        ("_dns.resolver.arpa.", Vec::new()),
    ] {
        let response = ask(&service, &asked(name, HickoryType::A)).await;
        assert_eq!(response.metadata.response_code, ResponseCode::NoError);
        assert_eq!(addresses(&response), expected, "{name}");
        assert_eq!(response.authorities.is_empty(), !expected.is_empty());
    }
    for name in ["hidden.onion.", "any.invalid."] {
        assert_eq!(code(&service, name).await, ResponseCode::NXDomain, "{name}");
    }
    assert_eq!(upstream.asked(), 0);
}

#[tokio::test]
async fn forward_without_recursion_desired_has_only_what_is_kept() {
    let upstream = Fake::having([192, 0, 2, 1]);
    let service = asking(&[upstream.addr]);
    let kept_only = query("example.org.", HickoryType::A);
    let refused = ask(&service, &kept_only).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
    assert_eq!(code(&service, "example.org.").await, ResponseCode::NoError);
    let kept = ask(&service, &kept_only).await;
    assert_eq!(
        (addresses(&kept), upstream.asked()),
        (vec!["192.0.2.1".to_owned()], 1)
    );
    assert!(!kept.metadata.recursion_desired && kept.metadata.recursion_available);
    let alias = ask(
        &service,
        &query("gone.shop.svc.cluster.local.", HickoryType::A),
    )
    .await;
    assert_eq!(
        (alias.metadata.response_code, alias.answers.len()),
        (ResponseCode::NoError, 1)
    );
}

#[tokio::test]
async fn forward_server_that_leads_back_is_named_and_no_longer_asked() {
    let settings = DnsSettings {
        listen: vec![DnsListen::exactly("127.0.0.1:0".parse().unwrap())],
    };
    let listeners = [(); 2].map(|()| bind(&settings, &Inherited::default()));
    let [a, b] = [0, 1].map(|place: usize| listeners[place].bound()[0].addr.unwrap());
    let services = [asking(&[b]), asking(&[a])];
    let cancel = CancellationToken::new();
    let mut tasks = Vec::new();
    for (listeners, service) in listeners.into_iter().zip(&services) {
        tasks.push(tokio::spawn(serve(
            listeners,
            Arc::clone(service),
            cancel.clone(),
        )));
    }
    // One of them may find it before the other one could.
    let leads_back = |service: &&Arc<DnsService>| {
        service.upstreams()[0].problem == Some("it leads back to portico")
    };
    let found = async {
        loop {
            match services.iter().find(leads_back) {
                Some(service) => return service,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let service = timeout(DEADLINE, found).await.unwrap();
    let query = with_edns(asked("example.org.", HickoryType::A), 1232);
    let response = ask(service, &query).await;
    assert_eq!(response.metadata.response_code, ResponseCode::Refused);
    let why = "portico has no DNS server to ask: it leads back to portico";
    assert_eq!(explanation(&response), why);
    cancel.cancel();
    for task in tasks {
        timeout(DEADLINE, task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn forward_counts_what_is_kept_and_who_was_asked() {
    let good = Fake::having([192, 0, 2, 1]);
    let service = asking(&[closed(), good.addr]);
    for _ in 0..3 {
        code(&service, "example.org.").await;
    }
    let counters = service.forward_counters();
    let counts = [
        &counters.hits,
        &counters.denials,
        &counters.misses,
        &counters.stale,
    ];
    assert_eq!(counts.map(|count| count.load(Relaxed)), [2, 0, 1, 0]);
    assert_eq!(
        service.kept(),
        KeptReport {
            entries: 1,
            evicted: 0
        }
    );
    let upstreams = service.upstreams();
    let asked: Vec<_> = upstreams
        .iter()
        .map(|one| (one.failures, one.latency.count()))
        .collect();
    assert_eq!(asked, [(1, 0), (0, 1)]);
}

#[test]
fn slow_queue_that_is_full_takes_no_more() {
    let (slow, mut waiting) = slow::queue();
    let socket = Arc::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let offer = || {
        let addr = socket.local_addr().unwrap();
        let socket = Arc::clone(&socket);
        slow.offer(
            &[0; 12],
            slow::Client {
                addr,
                place: ClientPlace::OnNode,
                socket,
            },
        )
    };
    assert!((0..1024).all(|_| offer().is_ok()));
    assert!(offer().is_err());
    waiting.try_recv().unwrap();
    assert!(offer().is_ok());
}

#[tokio::test]
async fn forward_resolv_conf_is_followed_live() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    let files = ResolvConf {
        path: path.clone(),
        behind_systemd: folder.path().join("none"),
    };
    let service = set(ForwardSettings {
        upstreams: UpstreamSource::Machine(files),
        stubs: Vec::new(),
        sockets: 64,
    });
    let own = "127.0.0.99:53".parse().unwrap();
    service.forwarder.add_own([own]);
    let unasked = query("example.org.", HickoryType::A);
    for (text, expected) in [
        ("nameserver 127.0.0.98\n", &["127.0.0.98:53"][..]),
        (
            "nameserver 127.0.0.97\nnameserver 127.0.0.99\n",
            &["127.0.0.97:53"],
        ),
        ("nameserver 127.0.0.99\n", &[]),
        ("", &[]),
    ] {
        std::fs::write(&path, text).unwrap();
        pass(2).await;
        ask(&service, &unasked).await;
        let upstreams = service.upstreams();
        let asked = upstreams.iter().filter(|one| one.problem.is_none());
        let addrs: Vec<_> = asked.map(|one| one.addr.to_string()).collect();
        assert_eq!(addrs, expected, "{text:?}");
    }
    let query = with_edns(asked("example.org.", HickoryType::A), 1232);
    let why = explanation(&ask(&service, &query).await);
    assert!(why.ends_with("resolv.conf names none"), "{why}");
}
