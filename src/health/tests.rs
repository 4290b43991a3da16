//! Attempts against real sockets on loopback, in real time: no attempt here waits longer than its own time-out.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::{HeaderMap, Response, body::Bytes};
use portico_core::{
    object::{Probe, ProbeCheck, TargetPort},
    probe::Attempt,
    world::{
        pods::PodUid,
        probes::{ProbeKey, ProbeKind, ProbeOutcome, ProbeSubject, ProbeTarget},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use super::{ask::ask, *};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(50);

fn target(check: ProbeCheck, addr: SocketAddr, timeout: Duration) -> ProbeTarget {
    let probe = Probe {
        check,
        initial_delay: Duration::ZERO,
        timeout,
        period: Duration::from_millis(10),
        success_threshold: 1,
        failure_threshold: 2,
        termination_grace: None,
    };
    let probe = Arc::new(probe);
    ProbeTarget { probe, addr }
}

fn http(path: &str, headers: &[(&str, &str)]) -> ProbeCheck {
    let headers = headers.iter();
    ProbeCheck::HttpGet {
        path: path.into(),
        port: TargetPort::Number(1),
        host: None,
        https: false,
        headers: headers
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
    }
}

fn tcp() -> ProbeCheck {
    ProbeCheck::TcpSocket {
        port: TargetPort::Number(1),
        host: None,
    }
}

fn grpc(service: &str) -> ProbeCheck {
    ProbeCheck::Grpc {
        port: 1,
        service: service.into(),
    }
}

fn declared() -> ProbeSubject {
    ProbeSubject::Declared(("ns".into(), "pod".into()))
}

/// The attempt, with every occurrence of the address as `ADDR`.
async fn asked(check: ProbeCheck, addr: SocketAddr, timeout: Duration) -> Result<(), String> {
    let attempt: Attempt = ask(&declared(), target(check, addr, timeout)).await;
    attempt.map_err(|reason| reason.replace(&addr.to_string(), "ADDR"))
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A port that refuses: bound, so that nobody else has it, and not listening.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// Reads the head of a request.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Answers one connection for each of `answers` and closes it; gives the requests' heads.
async fn server<const N: usize>(answers: [String; N]) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let (listener, addr) = listener().await;
    let task = tokio::spawn(async move {
        let mut heads = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            heads.push(head(&mut stream).await);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        heads
    });
    (addr, task)
}

fn answer(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok")
}

fn redirect(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn http_status_decides() {
    for (status, expected) in [
        ("200 OK", Ok(())),
        ("204 No Content", Ok(())),
        ("304 Not Modified", Ok(())),
        ("302 Found", Ok(())),
        ("404 Not Found", Err("404")),
        ("503 Service Unavailable", Err("503")),
    ] {
        let (addr, _) = server([answer(status)]).await;
        let expected =
            expected.map_err(|code| format!("HTTP probe failed with statuscode: {code}"));
        assert_eq!(
            asked(http("/", &[]), addr, LONG).await,
            expected,
            "{status}"
        );
    }
}

#[tokio::test]
async fn http_request_is_kubelets() {
    let (addr, heads) = server([answer("200 OK")]).await;
    asked(http("/healthz?full", &[("X-Me", "1")]), addr, LONG)
        .await
        .unwrap();
    let head = heads.await.unwrap().remove(0);
    let mut lines: Vec<&str> = head.trim_end().split("\r\n").collect();
    lines[1..].sort_unstable();
    let host = format!("Host: {addr}");
    assert_eq!(
        lines,
        [
            "GET /healthz?full HTTP/1.1",
            "Accept: */*",
            "Connection: close",
            &host,
            "User-Agent: kube-probe/1.35",
            "X-Me: 1",
        ]
    );
    let (addr, heads) = server([answer("200 OK")]).await;
    let given = http("/", &[("Host", "web.test")]);
    asked(given, addr, LONG).await.unwrap();
    assert!(heads.await.unwrap()[0].contains("\r\nHost: web.test\r\n"));
}

#[tokio::test]
async fn http_redirects_are_followed_within_the_host() {
    let (addr, heads) = server([redirect("/b"), answer("503 No")]).await;
    let failed = Err("HTTP probe failed with statuscode: 503".to_owned());
    assert_eq!(asked(http("/a", &[]), addr, LONG).await, failed);
    assert!(heads.await.unwrap()[1].starts_with("GET /b "));
    let (addr, _) = server([redirect("http://127.9.9.9:1/")]).await;
    assert_eq!(asked(http("/", &[]), addr, LONG).await, Ok(()));
    let around = std::array::from_fn::<String, 10, _>(|_| redirect("/x"));
    let (addr, heads) = server(around).await;
    assert_eq!(
        asked(http("/", &[]), addr, LONG).await,
        Err("Get \"http://ADDR/x\": stopped after 10 redirects".into())
    );
    assert_eq!(heads.await.unwrap().len(), 10);
}

#[tokio::test]
async fn http_failures_are_told_in_kubelets_words() {
    let (_held, addr) = refusing();
    assert_eq!(
        asked(http("/a", &[]), addr, LONG).await,
        Err("Get \"http://ADDR/a\": dial tcp ADDR: connect: connection refused".into())
    );
    let (addr, _) = server([String::new()]).await;
    assert_eq!(
        asked(http("/a", &[]), addr, LONG).await,
        Err("Get \"http://ADDR/a\": EOF".into())
    );
    let (addr, _) = server(["hello\r\n\r\n".into()]).await;
    let odd = asked(http("/a", &[]), addr, LONG).await.unwrap_err();
    let broken = "Get \"http://ADDR/a\": net/http: HTTP/1.x transport connection broken: ";
    assert!(odd.starts_with(broken), "{odd}");
    let mute = listener().await;
    assert_eq!(
        asked(http("/a", &[]), mute.1, SHORT).await,
        Err("Get \"http://ADDR/a\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into())
    );
}

/// A server that begins an answer with this text and then says nothing for as long as it is not asked to end.
async fn stalling(text: String) -> (SocketAddr, JoinHandle<()>) {
    let (listener, addr) = listener().await;
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        stream.write_all(text.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    (addr, task)
}

#[tokio::test]
async fn http_body_is_read_to_the_bound_and_no_further() {
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    let (addr, task) = stalling(format!("{begun}{}", "x".repeat(ask::MOST_BODY))).await;
    assert_eq!(asked(http("/", &[]), addr, LONG).await, Ok(()));
    task.abort();
    let (addr, task) = stalling(format!("{begun}xx")).await;
    let stalled = asked(http("/", &[]), addr, SHORT).await.unwrap_err();
    assert!(stalled.ends_with("while reading body)"), "{stalled}");
    task.abort();
}

#[tokio::test]
async fn tcp_connection_is_success_and_leaves_nothing_behind() {
    let (listener, addr) = listener().await;
    assert_eq!(asked(tcp(), addr, LONG).await, Ok(()));
    let (mut stream, _) = listener.accept().await.unwrap();
    let reset = stream.read_u8().await.unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    let (_held, addr) = refusing();
    assert_eq!(
        asked(tcp(), addr, LONG).await,
        Err("dial tcp ADDR: connect: connection refused".into())
    );
}

#[tokio::test]
async fn tcp_host_that_is_a_name_is_looked_up() {
    if let Err(error) = tokio::net::lookup_host(("localhost", 0)).await {
        eprintln!("skipped: this machine does not know localhost: {error}");
        return;
    }
    let (_listener, addr) = listener().await;
    let named = |name: &str| ProbeCheck::TcpSocket {
        port: TargetPort::Number(1),
        host: Some(name.into()),
    };
    // Looked up on this machine alone (RFC 6761 section 6.3), whatever the address of the target says.
    let elsewhere = SocketAddr::new([127, 9, 9, 9].into(), addr.port());
    assert_eq!(asked(named("localhost"), elsewhere, LONG).await, Ok(()));
    let simulated = ProbeSubject::Simulated(PodUid(1));
    let within = target(named("no..name"), addr, LONG);
    assert_eq!(ask(&simulated, within).await, Ok(()), "asked where it is");
    assert_eq!(
        asked(named("no..name"), addr, LONG).await,
        Err("dial tcp: lookup no..name: no such host".into())
    );
}

/// An HTTP/2 server that answers one call with these headers, message and trailers.
async fn grpc_server(
    fields: &'static [(&'static str, &'static str)],
    message: Option<&'static [u8]>,
    trailers: &'static [(&'static str, &'static str)],
) -> SocketAddr {
    let (listener, addr) = listener().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut reply))) = connection.accept().await {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let mut response = Response::new(());
            response.headers_mut().extend(map(fields));
            let Some(message) = message else {
                reply.send_response(response, true).unwrap();
                continue;
            };
            let mut body = reply.send_response(response, false).unwrap();
            body.send_data(Bytes::from_static(message), false).unwrap();
            body.send_trailers(map(trailers)).unwrap();
        }
    });
    addr
}

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let fields = fields.iter();
    fields
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect::<HeaderMap>()
}

#[tokio::test]
async fn grpc_answer_decides() {
    let fine: &[_] = &[("grpc-status", "0")];
    let cases: [(&'static [u8], Result<(), &str>); 3] = [
        (&[0, 0, 0, 0, 2, 8, 1], Ok(())),
        (
            &[0, 0, 0, 0, 2, 8, 2],
            Err("service unhealthy (responded with \"NOT_SERVING\")"),
        ),
        (
            &[0, 0, 0, 0, 0],
            Err("service unhealthy (responded with \"UNKNOWN\")"),
        ),
    ];
    for (message, expected) in cases {
        let addr = grpc_server(&[], Some(message), fine).await;
        let expected = expected.map_err(str::to_owned);
        assert_eq!(asked(grpc("db"), addr, LONG).await, expected);
    }
}

#[tokio::test]
async fn grpc_failures_are_told_in_kubelets_words() {
    let unknown: &[_] = &[("grpc-status", "5"), ("grpc-message", "unknown%20service")];
    let addr = grpc_server(unknown, None, &[]).await;
    assert_eq!(
        asked(grpc("db"), addr, LONG).await,
        Err(
            "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"
                .into()
        )
    );
    let unimplemented: &[_] = &[("grpc-status", "12"), ("grpc-message", "unknown method")];
    let addr = grpc_server(unimplemented, None, &[]).await;
    assert_eq!(
        asked(grpc(""), addr, LONG).await,
        Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown method".into())
    );
    let (_held, addr) = refusing();
    assert_eq!(
        asked(grpc(""), addr, LONG).await,
        Err(
            "timeout: failed to connect service \"ADDR\" within 10s: context deadline exceeded"
                .into()
        )
    );
    let mute = listener().await;
    assert_eq!(
        asked(grpc(""), mute.1, SHORT).await,
        Err("timeout: health rpc did not complete within 50ms".into())
    );
    let (addr, _) = server([answer("400 Bad Request")]).await;
    let odd = asked(grpc(""), addr, LONG).await.unwrap_err();
    assert!(odd.starts_with("error: health rpc probe failed: "), "{odd}");
}

#[tokio::test]
async fn prober_tells_what_becomes_of_an_endpoint() {
    let (mut prober, mut observed) = Prober::start().unwrap();
    let (listener, addr) = listener().await;
    let key = ProbeKey {
        subject: ProbeSubject::Endpoint("ns/s".into(), addr),
        container: "".into(),
        kind: ProbeKind::Readiness,
        run: 0,
    };
    let targets = ProbeTargets::from([(key.clone(), target(tcp(), addr, LONG))]);
    prober.set(Arc::new(targets));
    let told = observed.recv().await.unwrap();
    assert_eq!((told.key, told.outcome), (key, ProbeOutcome::Success));
    assert_eq!(prober.load().probes, 1);
    drop(listener);
    let mut last = observed.recv().await.unwrap().outcome;
    assert!(matches!(last, ProbeOutcome::Unhealthy { .. }), "{last:?}");
    last = observed.recv().await.unwrap().outcome;
    assert!(matches!(last, ProbeOutcome::Failure { .. }), "{last:?}");
    drop(prober);
    while observed.recv().await.is_some() {}
}
