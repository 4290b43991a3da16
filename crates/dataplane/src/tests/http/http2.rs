//! HTTP/2 on either side. The peers are hyper's, each on a runtime of its own.

use super::*;

use ::http::{HeaderMap, HeaderValue, Request, Response};
use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::http2::SendRequest,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};

/// A body of these frames.
struct Frames(std::vec::IntoIter<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<Frame<Bytes>>>> {
        std::task::Poll::Ready(self.0.next().map(Ok))
    }
}

fn body(frames: Vec<Frame<Bytes>>) -> Frames {
    Frames(frames.into_iter())
}

fn trailers(name: &'static str, value: &'static str) -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([(
        ::http::HeaderName::from_static(name),
        HeaderValue::from_static(value),
    )]))
}

/// Says what it was asked, and trailers.
async fn reflect(request: Request<Incoming>) -> io::Result<Response<Frames>> {
    let seen = format!(
        "{} {:?} {:?}",
        request.method(),
        request.uri(),
        request.headers()
    );
    let whole = request
        .into_body()
        .collect()
        .await
        .map_err(io::Error::other)?;
    let end = whole.trailers().cloned();
    let text = format!("{seen} {:?} {end:?}", whole.to_bytes());
    Ok(Response::new(body(vec![
        Frame::data(Bytes::from(text)),
        trailers("grpc-status", "0"),
    ])))
}

/// An endpoint of HTTP/2.
fn origin_http2() -> Origins {
    origin_of(|stream| {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service_fn(reflect))
    })
}

/// An endpoint of HTTP/2 that has its streams in its own hands.
fn origin_of_streams<F>(
    answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
) -> Origins
where
    F: Future<Output = ()> + Send + 'static,
{
    origin_of(move |stream| {
        let answer = answer.clone();
        async move {
            let mut conn = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, to))) = conn.accept().await {
                tokio::spawn(answer(request, to));
            }
        }
    })
}

fn origin_of<F>(serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> Origins
where
    F: Future<Output: Send> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&connections);
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Relaxed);
                tokio::spawn(serve(stream));
            }
        });
    });
    Origins {
        addr,
        connections,
        ended: Arc::default(),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(future)
}

/// What another thread says, while the tasks of this one go on.
async fn heard<T>(from: &mpsc::Receiver<T>) -> T {
    let began = Instant::now();
    loop {
        if let Ok(said) = from.try_recv() {
            return said;
        }
        assert!(began.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn client(vip: IpAddr) -> SendRequest<Frames> {
    let stream = tokio::net::TcpStream::connect((vip, PORT)).await.unwrap();
    let (sender, conn) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(conn);
    sender
}

/// A request whose body goes on, and the body of its answer, whose head is there.
async fn streaming(vip: IpAddr) -> (SendStream<Bytes>, RecvStream) {
    let (up, answer) = asked(&mut reading(vip, 65_535).await, "POST").await;
    (up, answer.into_body())
}

fn asking(method: &str, frames: Vec<Frame<Bytes>>) -> Request<Frames> {
    Request::builder()
        .method(method)
        .uri("http://web:80/path")
        .header("te", "trailers")
        .body(body(frames))
        .unwrap()
}

#[test]
fn request_that_its_client_cancels_midway_is_no_whole_one() {
    let (end, was_end) = mpsc::channel();
    let origin = origin_of_streams(move |mut request, mut to| {
        let end = end.clone();
        async move {
            let mut answer = to.send_response(Response::new(()), false).unwrap();
            answer.send_data("answer".into(), false).unwrap();
            let mut seen = Vec::new();
            let last = loop {
                match request.body_mut().data().await {
                    Some(Ok(data)) => seen.extend(data),
                    Some(Err(error)) => break Err(error.reason()),
                    None => break Ok(()),
                }
            };
            end.send((seen, last)).unwrap();
        }
    });
    let vip = vip();
    let subject = speaking(AppProtocol::H2c, vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    block_on(async {
        let (mut up, mut down) = streaming(vip).await;
        up.send_data("part".into(), false).unwrap();
        assert_eq!(down.data().await.unwrap().unwrap(), "answer");
        up.send_reset(h2::Reason::CANCEL);
        let (_, last) = heard(&was_end).await;
        assert_eq!(last, Err(Some(h2::Reason::CANCEL)));
    });
}

#[test]
fn streams_of_one_connection_are_exactly_even_over_endpoints_of_http_1() {
    let origins = ["a", "b", "c"].map(naming);
    let vip = vip();
    let subject = http(vip, &origins.each_ref().map(|it| it.addr));
    let _bench = serving(&[&subject]);
    block_on(async {
        let mut sender = client(vip).await;
        for _ in 0..10 {
            let answers = [(); 3].map(|()| sender.send_request(asking("GET", Vec::new())));
            for answer in answers {
                let whole = answer.await.unwrap().into_body().collect().await.unwrap();
                assert_eq!(whole.to_bytes().len(), 1);
            }
        }
    });
    for endpoint in &subject.endpoints {
        assert_eq!(endpoint.state.picks.load(Relaxed), 10);
    }
    subject.assert_reconciled();
}

#[test]
fn request_of_http_2_is_whole_at_an_endpoint_of_http_1() {
    let origin = mirror();
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let seen = block_on(async {
        let mut request = asking("POST", vec![Frame::data("hi".into())]);
        request
            .headers_mut()
            .append("cookie", HeaderValue::from_static("a=1"));
        request
            .headers_mut()
            .append("cookie", HeaderValue::from_static("b=2"));
        let answer = client(vip).await.send_request(request).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    });
    let seen = String::from_utf8(seen.to_vec()).unwrap();
    for part in [
        "POST /path HTTP/1.1",
        "(\"host\", \"web:80\")",
        "(\"cookie\", \"a=1; b=2\")",
        "body: [104, 105]",
    ] {
        assert!(seen.contains(part), "{part} in {seen}");
    }
}

#[test]
fn head_somewhat_beyond_the_limit_is_told_why() {
    let vip = vip();
    let subject = http(vip, &[naming("a").addr]);
    let _bench = serving(&[&subject]);
    block_on(async {
        let mut request = asking("GET", Vec::new());
        let large = HeaderValue::try_from("x".repeat(70_000)).unwrap();
        request.headers_mut().append("x-large", large);
        let answer = client(vip).await.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 431);
        assert!(answer.headers().contains_key("proxy-status"));
    });
}

#[test]
fn request_of_http_1_is_whole_at_an_endpoint_of_http_2() {
    let origin = origin_http2();
    let vip = vip();
    let subject = speaking(AppProtocol::H2c, vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let mut peer = Peer::at(vip);
    for _ in 0..3 {
        let seen = peer
            .ask("POST /path HTTP/1.1\r\nhost: web:80\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi")
            .unwrap()
            .text();
        assert!(seen.starts_with("POST http://web:80/path"), "{seen}");
        assert!(
            seen.contains("b\"hi\"") && !seen.contains("connection"),
            "{seen}"
        );
    }
    assert_eq!(origin.connections(), 1);
    subject.assert_reconciled();
}

#[test]
fn calls_of_grpc_share_a_connection_and_keep_their_trailers() {
    let origins = [origin_http2(), origin_http2()];
    let vip = vip();
    let subject = speaking(
        AppProtocol::Grpc,
        vip,
        &origins.each_ref().map(|it| it.addr),
    );
    let _bench = serving(&[&subject]);
    block_on(async {
        let mut sender = client(vip).await;
        let calls: Vec<_> = (0..60)
            .map(|_| {
                let frames = vec![Frame::data("hi".into()), trailers("x-end", "1")];
                sender.send_request(asking("POST", frames))
            })
            .collect();
        for call in calls {
            let whole = call.await.unwrap().into_body().collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
            let seen = whole.to_bytes();
            assert!(seen.windows(5).any(|part| part == b"x-end"), "{seen:?}");
        }
    });
    for (origin, endpoint) in origins.iter().zip(&subject.endpoints) {
        assert_eq!(origin.connections(), 1);
        assert_eq!(endpoint.state.picks.load(Relaxed), 30);
        assert_eq!(endpoint.state.active.load(Relaxed), 0);
    }
    subject.assert_reconciled();
}

#[test]
fn requests_at_once_get_as_many_connections_as_they_need() {
    const CLIENTS: usize = 4;
    const STREAMS: usize = 90;
    // Answers once all have come.
    let all = Arc::new(tokio::sync::Barrier::new(CLIENTS * STREAMS));
    let origin = origin_of(move |stream| {
        let all = Arc::clone(&all);
        let answer = service_fn(move |_| {
            let all = Arc::clone(&all);
            async move {
                all.wait().await;
                io::Result::Ok(Response::new(body(Vec::new())))
            }
        });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(100)
            .serve_connection(TokioIo::new(stream), answer)
    });
    let vip = vip();
    let subject = speaking(AppProtocol::H2c, vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    block_on(async {
        let mut answers = Vec::new();
        for _ in 0..CLIENTS {
            let mut sender = client(vip).await;
            answers.extend((0..STREAMS).map(|_| sender.send_request(asking("GET", Vec::new()))));
        }
        let mut answers = tokio::task::JoinSet::from_iter(answers);
        let first = tokio::time::timeout(DEADLINE, answers.join_next()).await;
        assert_eq!(first.unwrap().unwrap().unwrap().unwrap().status(), 200);
        for answer in answers.join_all().await {
            assert_eq!(answer.unwrap().status(), 200);
        }
    });
    assert_eq!(origin.connections(), 4);
}

#[test]
fn body_that_breaks_off_resets_its_stream_and_no_other() {
    let broken = origin(|peer| {
        loop {
            let asked = peer.message()?;
            if asked.line.starts_with("GET") {
                peer.send(ok("a"))?;
            } else {
                return peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.");
            }
        }
    });
    let vip = vip();
    let subject = http(vip, &[broken.addr]);
    let _bench = serving(&[&subject]);
    block_on(async {
        let mut sender = client(vip).await;
        // The reset may overtake the head.
        if let Ok(answer) = sender.send_request(asking("POST", Vec::new())).await {
            answer.into_body().collect().await.unwrap_err();
        }
        let answer = sender
            .send_request(asking("GET", Vec::new()))
            .await
            .unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "a");
    });
    subject.assert_reconciled();
}

#[test]
fn answer_that_its_endpoint_cancels_is_no_whole_one() {
    let origin = origin_of_streams(|mut request, mut to| async move {
        let mut answer = to.send_response(Response::new(()), false).unwrap();
        answer.send_data("ten bytes.".into(), false).unwrap();
        while request.body_mut().data().await.is_some() {}
        answer.send_reset(h2::Reason::CANCEL);
    });
    let vip = vip();
    let subject = speaking(AppProtocol::H2c, vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    block_on(async {
        let (mut up, mut down) = streaming(vip).await;
        assert_eq!(down.data().await.unwrap().unwrap(), "ten bytes.");
        up.send_data(Bytes::new(), true).unwrap();
        let end = down.data().await;
        assert!(end.is_some_and(|end| end.is_err_and(|error| error.is_reset())));
    });
    subject.assert_reconciled();
}

#[test]
fn request_goes_on_while_nobody_reads_its_answer() {
    let (whole, was_whole) = mpsc::channel();
    let origin = origin_of_streams(move |mut request, mut to| {
        let whole = whole.clone();
        async move {
            let mut answer = to.send_response(Response::new(()), false).unwrap();
            answer.send_data(vec![0; 1 << 20].into(), true).unwrap();
            let mut bytes = 0;
            while let Some(data) = request.body_mut().data().await {
                bytes += data.unwrap().len();
            }
            whole.send(bytes).unwrap();
        }
    });
    let vip = vip();
    let subject = speaking(AppProtocol::H2c, vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    block_on(async {
        let (mut up, mut down) = streaming(vip).await;
        let began = Instant::now();
        // There is no room for more of the answer.
        while down.flow_control().available_capacity() > 0 {
            assert!(began.elapsed() < DEADLINE);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        up.send_data(vec![0; 40_000].into(), true).unwrap();
        assert_eq!(heard(&was_whole).await, 40_000);
    });
}

/// Messages of gRPC have 5 bytes at least, and a window has room for 13 000 of them.
const SMALL: &[u8] = b"small";
const MESSAGES: usize = 12_000;

/// Answers every request; to a POST it says a lot in small messages. It gives no room to requests.
fn talkative() -> Origins {
    origin_of(|stream| async move {
        let mut settings = h2::server::Builder::new();
        let mut conn = settings
            .initial_window_size(0)
            .handshake::<_, Bytes>(stream)
            .await
            .unwrap();
        let mut held = Vec::new();
        while let Some(Ok((request, mut to))) = conn.accept().await {
            let is_whole = request.method() != "POST";
            let mut answer = to.send_response(Response::new(()), is_whole).unwrap();
            if !is_whole {
                for _ in 0..MESSAGES {
                    answer.send_data(SMALL.into(), false).unwrap();
                }
            }
            held.push((request, answer));
        }
    })
}

/// A client whose window for answers is so large.
async fn reading(vip: IpAddr, window: u32) -> h2::client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect((vip, PORT)).await.unwrap();
    let mut settings = h2::client::Builder::new();
    let handshake = settings.initial_window_size(window).handshake(stream);
    let (sender, conn) = handshake.await.unwrap();
    tokio::spawn(conn);
    sender
}

async fn asked(
    sender: &mut h2::client::SendRequest<Bytes>,
    method: &str,
) -> (SendStream<Bytes>, Response<RecvStream>) {
    let request = asking(method, Vec::new()).map(drop);
    let (answer, up) = sender.send_request(request, method != "POST").unwrap();
    let answer = tokio::time::timeout(DEADLINE, answer).await;
    (up, answer.unwrap().unwrap())
}

#[test]
fn small_messages_that_an_endpoint_does_not_read_yet_are_no_flood() {
    let origin = talkative();
    let vip = vip();
    let subject = speaking(AppProtocol::H2c, vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    block_on(async {
        let mut sender = reading(vip, 0).await;
        let (mut up, _answer) = asked(&mut sender, "POST").await;
        for _ in 0..MESSAGES {
            up.send_data(SMALL.into(), false).unwrap();
        }
        // A head goes before what waits of other streams; all of it is on the way before the next one.
        for _ in 0..2 {
            let (_, answer) = asked(&mut sender, "GET").await;
            assert_eq!(answer.status(), 200);
        }
    });
}

#[test]
fn small_messages_that_a_client_does_not_read_yet_end_nobody_else_s_streams() {
    let origin = talkative();
    let vip = vip();
    let subject = speaking(AppProtocol::H2c, vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    block_on(async {
        let mut idle = reading(vip, 0).await;
        let (_up, mut unread) = asked(&mut idle, "POST").await;
        let mut busy = reading(vip, 65_535).await;
        let (_, answer) = asked(&mut busy, "GET").await;
        assert_eq!(answer.status(), 200);
        let waiting = unread.body_mut().data();
        let waited = tokio::time::timeout(Duration::from_millis(1), waiting);
        assert!(waited.await.is_err(), "it goes on");
    });
    assert_eq!(origin.connections(), 1);
}

#[test]
fn connection_without_requests_is_told_to_go_after_its_idle_time_alone() {
    let origin = naming("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let settings = DataSettings {
        http_head_timeout: Duration::from_millis(10),
        http_idle_timeout: Duration::from_millis(150),
        ..DataSettings::default()
    };
    let _bench = with(&settings, &[&subject]);
    block_on(async {
        let stream = tokio::net::TcpStream::connect((vip, PORT)).await.unwrap();
        let io = TokioIo::new(stream);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, conn) = handshake.await.unwrap();
        let ended = tokio::spawn(conn);
        let answer = sender
            .send_request(asking("GET", Vec::new()))
            .await
            .unwrap();
        answer.into_body().collect().await.unwrap();
        let began = Instant::now();
        // Told, not reset.
        if let Err(error) = ended.await.unwrap() {
            assert!(format!("{error:?}").contains("GoAway"), "{error:?}");
        }
        assert!(
            began.elapsed() > Duration::from_millis(100),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn client_that_asks_only_to_give_up_is_told_to_go() {
    let origin = origin(|peer| peer.message().and_then(|_| peer.is_closed().map(drop)));
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let bench = serving(&[&subject]);
    block_on(async {
        let mut sender = client(vip).await;
        let flood = async {
            while sender.ready().await.is_ok() {
                let given_up = sender.send_request(asking("GET", Vec::new()));
                // Time for the stream to be opened, none for an answer.
                let _ = tokio::time::timeout(Duration::from_micros(200), given_up).await;
            }
        };
        tokio::time::timeout(DEADLINE, flood)
            .await
            .expect("the connection ends");
    });
    wait_until("the connection's end", || bench.plane.connections() == 0);
    wait_until("places to be given back", || {
        subject.port.active.load(Relaxed) == 0
    });
    subject.assert_reconciled();
}

#[test]
fn stream_that_its_client_resets_is_cancelled_at_its_endpoint() {
    let (gone, was_gone) = mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let origin = origin(move |peer| {
        peer.message()?;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.")?;
        gone.lock()
            .unwrap()
            .send(peer.is_closed().unwrap_or(true))
            .unwrap();
        Ok(())
    });
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    block_on(async {
        let mut sender = client(vip).await;
        let answer = sender
            .send_request(asking("GET", Vec::new()))
            .await
            .unwrap();
        drop(answer);
        // The reset is sent by the connection's own task.
        heard(&was_gone).await;
    });
    wait_until("the place to be given back", || {
        subject.port.active.load(Relaxed) == 0
    });
    subject.assert_reconciled();
}

#[test]
fn stream_that_outlives_its_endpoint_is_reset_and_no_other() {
    let origins = [(); 2].map(|()| {
        origin(|peer| {
            peer.message()?;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.")?;
            peer.is_closed().map(drop)
        })
    });
    let vip = vip();
    let mut subject = http(vip, &origins.each_ref().map(|it| it.addr));
    subject.port.drain_timeout.set(Some(Duration::ZERO));
    let mut bench = serving(&[&subject]);
    block_on(async {
        let mut sender = client(vip).await;
        let mut bodies = Vec::new();
        for _ in 0..2 {
            let answer = sender.send_request(asking("GET", Vec::new()));
            let mut body = answer.await.unwrap().into_body();
            assert_eq!(next(&mut body).await.unwrap(), "ten bytes.");
            bodies.push(body);
        }
        subject.set_endpoints(&[origins[1].addr]);
        bench.publish(&[&subject]);
        bench.plane.drain_gone(crate::clock::now());
        let reset = next(&mut bodies[0]).await.unwrap_err();
        assert!(format!("{reset:?}").contains("Reset"), "{reset:?}");
        let other = tokio::time::timeout(Duration::from_millis(20), next(&mut bodies[1]));
        assert!(other.await.is_err(), "it goes on");
        assert!(sender.ready().await.is_ok());
    });
    assert_eq!(bench.plane.counters().drained_endpoint, 1);
}

/// The next bytes of a body.
async fn next(body: &mut Incoming) -> hyper::Result<Bytes> {
    let frame = body.frame().await.unwrap()?;
    Ok(frame.into_data().unwrap())
}

/// What its endpoint says that it did not look at may be asked again, whatever it is (RFC 9113, section 8.7), and not once only: an
/// endpoint that ends connections after so many requests says so of many at a time.
#[test]
fn request_that_its_endpoint_did_not_look_at_is_asked_again() {
    let asked = Arc::new(AtomicU64::new(0));
    let origin = origin_of_streams(move |_, mut to| {
        let number = asked.fetch_add(1, Relaxed);
        async move {
            if number < 2 {
                to.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                to.send_response(Response::new(()), true).unwrap();
            }
        }
    });
    let vip = vip();
    let subject = speaking(AppProtocol::H2c, vip, &[origin.addr]);
    let _bench = serving(&[&subject]);
    let answer = Peer::at(vip).ask("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(answer.unwrap().status(), 200);
}

#[test]
fn connection_of_age_is_told_to_go_and_its_streams_go_on() {
    let origin = origin_of_streams(|mut request, mut to| async move {
        let mut answer = to.send_response(Response::new(()), false).unwrap();
        while request.body_mut().data().await.is_some() {}
        answer.send_data("whole".into(), true).unwrap();
    });
    let vip = vip();
    let subject = speaking(AppProtocol::H2c, vip, &[origin.addr]);
    let settings = DataSettings {
        http_max_age: Some(Duration::from_millis(20)),
        ..DataSettings::default()
    };
    let bench = with(&settings, &[&subject]);
    block_on(async {
        let stream = tokio::net::TcpStream::connect((vip, PORT)).await.unwrap();
        let (mut sender, conn) = h2::client::handshake(stream).await.unwrap();
        let conn = tokio::spawn(conn);
        let streams: Vec<_> = (0..100)
            .map(|_| sender.send_request(asking("POST", Vec::new()).map(drop), false))
            .collect();
        let told = async {
            while std::future::poll_fn(|cx| sender.poll_ready(cx))
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(DEADLINE, told).await.unwrap();
        for stream in streams {
            let (answer, mut up) = stream.unwrap();
            let mut down = answer.await.unwrap().into_body();
            up.send_data(Bytes::new(), true).unwrap();
            assert_eq!(down.data().await.unwrap().unwrap(), "whole");
        }
        conn.await.unwrap().unwrap();
    });
    wait_until("the connection to be gone", || {
        bench.plane.connections() == 0
    });
    subject.assert_reconciled();
}

#[test]
fn clients_of_a_port_that_is_gone_are_told_to_go_after_their_streams() {
    let (origin, was_asked, go) = held("a");
    let vip = vip();
    let subject = http(vip, &[origin.addr]);
    let mut bench = serving(&[&subject]);
    block_on(async {
        let mut sender = client(vip).await;
        let answer = sender.send_request(asking("GET", Vec::new()));
        let answer = tokio::spawn(answer);
        heard(&was_asked).await;
        bench.publish(&[]);
        bench.plane.drain_gone(crate::clock::now());
        go.send(()).unwrap();
        let whole = answer.await.unwrap().unwrap().into_body().collect().await;
        assert_eq!(whole.unwrap().to_bytes(), "a");
        // It would be kept by whoever may ask more.
        let end = async {
            while bench.plane.connections() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, end).await.unwrap();
        assert!(sender.ready().await.is_err());
    });
}
