//! Answers that are none, and requests that come to nothing: what the client is told, and what the access log says of each.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::mpsc,
    time::Duration,
};

use rustix::net::{
    AddressFamily, SocketType, bind, getsockname, listen, socket, sockopt::set_socket_linger,
};
use serde_json::Value;

use super::{
    GET, Stream,
    access_log::lines,
    ask, endpoint,
    frames::{SETTINGS, frame},
    head, manifest, open, up, willing,
};
use crate::support::{
    PATIENCE,
    namespace::in_namespace,
    program::{Program, way},
};

const JSON: &[u8] = b"GET /some HTTP/1.1\r\nHost: web\r\nAccept: application/json\r\n\r\n";

/// portico before these endpoints, which notes every request.
struct Noted {
    program: Program,
    web: SocketAddr,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Noted {
    fn up(args: &[&str], protocol: &str, endpoints: &[SocketAddr]) -> Self {
        Self::of(args, &manifest(protocol, endpoints), endpoints.len())
    }

    fn of(args: &[&str], text: &str, endpoints: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        let log = format!("--access-log={}", file.display());
        let args = [args, &[&log, "--access-log-format=json"]].concat();
        let program = Program::up(&args, &[("web.yaml", text)]);
        let web = way(&program.wait_for_endpoints("web", endpoints), "ClusterIP");
        Self {
            program,
            web,
            file,
            _folder: folder,
        }
    }

    /// What was noted of the request with this number.
    fn line(&self, number: usize) -> Value {
        let lines = lines(&self.file, number);
        serde_json::from_str(&lines[number - 1]).unwrap()
    }

    /// Asks the first request; it must be answered with this status and noted as ended like this. The answer's `Proxy-Status` and body.
    fn expect(&self, status: u16, termination: &str) -> (String, Value) {
        let mut client = open(self.web);
        client.get_mut().write_all(JSON).unwrap();
        let head = head(&mut client).unwrap();
        assert_eq!(
            head[0].split(' ').nth(1).unwrap(),
            status.to_string(),
            "{head:?}"
        );
        let field = |name: &str| {
            let mut fields = head.iter().filter_map(|line| line.split_once(": "));
            let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned())
        };
        let length = field("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        client.read_exact(&mut body).unwrap();
        let line = self.line(1);
        assert_eq!(line["termination"], termination, "{line}");
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["service"], "web", "{line}");
        (
            field("proxy-status").unwrap(),
            serde_json::from_slice(&body).unwrap(),
        )
    }
}

/// An endpoint that says this to whoever connects and asks.
fn saying(bytes: impl Into<Vec<u8>>) -> SocketAddr {
    let bytes = bytes.into();
    endpoint(move |mut client| {
        client.read_exact(&mut [0])?;
        client.get_mut().write_all(&bytes)?;
        // Until the other side has enough.
        client.read_to_end(&mut Vec::new()).map(drop)
    })
}

#[test]
fn what_is_no_answer_is_502_and_says_what_came_instead() {
    in_namespace!(Unprivileged);
    let ok = "HTTP/1.1 200 OK\r\n";
    let (no_http, large) = (
        "sent something that is not a sound answer",
        "answered with a head that is too large",
    );
    let cases = [
        ("http", b"what?\r\n\r\n".to_vec(), no_http, "no_http"),
        // An endpoint of HTTP/2 that is said to speak HTTP/1.1, and the other way round.
        ("http", frame(SETTINGS, 0, 0, &[0; 6]), no_http, "no_http"),
        (
            "kubernetes.io/h2c",
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "sent something that is not HTTP/2",
            "no_http2",
        ),
        (
            "http",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
                .to_vec(),
            no_http,
            "no_http",
        ),
        (
            "http",
            format!("{ok}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n").into(),
            no_http,
            "no_http",
        ),
        (
            "http",
            format!("{ok}Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc").into(),
            no_http,
            "no_http",
        ),
        (
            "http",
            format!("{ok}{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(150)).into(),
            large,
            "large_head",
        ),
        (
            "http",
            format!(
                "{ok}X: {}\r\nContent-Length: 0\r\n\r\n",
                "y".repeat(1 << 20)
            )
            .into(),
            large,
            "large_head",
        ),
    ];
    for (protocol, bytes, words, reason) in cases {
        let pod = saying(bytes);
        let noted = Noted::up(&[], protocol, &[pod]);
        let (status, body) = noted.expect(502, "PH");
        let error = match reason {
            "large_head" => "http_response_header_section_size",
            _ => "http_protocol_error",
        };
        let expected = format!(
            "portico; error={error}; next-hop=\"{pod}\"; details=\"the endpoint of Service default/web:p {words}\""
        );
        assert_eq!(status, expected);
        assert_eq!(body["error"], error);
        assert_eq!(body["service"], "default/web:p");
        assert_eq!(body["tried"][0]["endpoint"], pod.to_string());
        assert_eq!(body["tried"][0]["reason"], reason, "{body}");
        assert_eq!(noted.line(1)["endpoint"], pod.to_string());
    }
}

#[test]
fn answer_framed_in_two_ways_goes_on_in_one() {
    in_namespace!(Unprivileged);
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let (_program, web) = up(&[], "http", &[saying(both)]);
    let mut client = open(web);
    client.get_mut().write_all(GET).unwrap();
    let head = head(&mut client).unwrap().join("\n").to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    let mut body = [0; 15];
    client.read_exact(&mut body).unwrap();
    assert_eq!(&body, b"5\r\nhello\r\n0\r\n\r\n");
}

#[test]
fn answer_keeps_the_words_behind_its_status() {
    in_namespace!(Unprivileged);
    let own = "HTTP/1.1 599 Out Of Tea\r\nContent-Length: 0\r\n\r\n";
    let (_program, web) = up(&[], "http", &[saying(own)]);
    let mut client = open(web);
    client.get_mut().write_all(GET).unwrap();
    assert_eq!(head(&mut client).unwrap()[0], "HTTP/1.1 599 Out Of Tea");
}

/// Somewhere nobody listens: bound, so that nobody will.
fn refusing() -> (SocketAddr, rustix::fd::OwnedFd) {
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&fd, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let addr = getsockname(&fd).unwrap();
    (addr.try_into().unwrap(), fd)
}

/// Somewhere whose queue is full, so that a connection to it is neither made nor refused (listen(2)).
fn silent() -> (SocketAddr, Vec<Stream>, rustix::fd::OwnedFd) {
    let (addr, fd) = refusing();
    listen(&fd, 0).unwrap();
    (addr, vec![open(addr)], fd)
}

/// The one endpoint is tried, to no avail.
fn expect_failure(args: &[&str], endpoint: SocketAddr, told: (u16, &str), noted: (&str, &str)) {
    let (status, body) = Noted::up(args, "http", &[endpoint]).expect(told.0, noted.0);
    let error = format!("error={}; next-hop=\"{endpoint}\"", told.1);
    assert!(status.contains(&error), "{status}");
    assert_eq!(body["tried"][0]["endpoint"], endpoint.to_string());
    assert_eq!(body["tried"][0]["reason"], noted.1);
}

#[test]
fn endpoints_that_cannot_be_reached_are_noted_as_what_they_are() {
    in_namespace!(Unprivileged);
    let (addr, _refusing) = refusing();
    expect_failure(&[], addr, (502, "connection_refused"), ("SC", "refused"));

    let (addr, _waiting, _silent) = silent();
    let soon = ["--connect-timeout=200ms"];
    let noted = ("sC", "connect_timeout");
    expect_failure(&soon, addr, (504, "connection_timeout"), noted);

    let closing = endpoint(|mut client| head(&mut client).map(drop));
    expect_failure(
        &[],
        closing,
        (502, "connection_terminated"),
        ("SH", "closed"),
    );

    let (status, body) = Noted::up(&[], "http", &[]).expect(503, "SC");
    assert!(status.contains("error=destination_unavailable"), "{status}");
    assert_eq!(body["tried"], Value::Array(Vec::new()));
}

#[test]
fn endpoint_that_is_a_service_is_not_connected_to() {
    in_namespace!(Unprivileged);
    let noted = Noted::up(&[], "http", &[willing()]);
    let web = noted.program.status().services[0].ports[0].reachable[0].declared;
    let other = manifest("http", &[web]).replace("web", "other");
    noted.program.write("other.yaml", &other);
    let other = Noted {
        web: way(&noted.program.wait_for_endpoints("other", 1), "ClusterIP"),
        ..noted
    };
    let mut client = open(other.web);
    let (status, body) = ask(&mut client, JSON).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status, &body["error"]),
        (502, &Value::from("proxy_loop_detected"))
    );
    assert_eq!(body["tried"][0]["endpoint"], web.to_string());
    assert_eq!(body["tried"][0]["reason"], "loop");
    assert_eq!(other.line(1)["termination"], "SC");
    assert_eq!(other.line(1)["service"], "other");
}

/// An endpoint that says when it was asked, and then sends this and waits.
fn waiting(bytes: &'static [u8]) -> (SocketAddr, mpsc::Receiver<()>) {
    let (asked, was_asked) = mpsc::channel();
    let addr = endpoint(move |mut client| {
        head(&mut client)?;
        client.get_mut().write_all(bytes)?;
        let _ = asked.send(());
        client.read_to_end(&mut Vec::new()).map(drop)
    });
    (addr, was_asked)
}

/// Resets the connection: an end of sending alone may be that of a client who still wants its answer.
fn leave(client: Stream) {
    set_socket_linger(client.get_ref(), Some(Duration::ZERO)).unwrap();
    drop(client);
}

#[test]
fn client_that_leaves_before_an_answer_is_noted_with_499() {
    in_namespace!(Unprivileged);
    let (pod, was_asked) = waiting(b"");
    let noted = Noted::up(&[], "http", &[pod]);
    let mut client = open(noted.web);
    client.get_mut().write_all(GET).unwrap();
    was_asked.recv_timeout(PATIENCE).unwrap();
    leave(client);
    let line = noted.line(1);
    assert_eq!(line["termination"], "CH", "{line}");
    assert_eq!(line["status"], 499, "{line}");
    assert_eq!(line["service"], "web", "{line}");
    assert_eq!(line["endpoint"], pod.to_string(), "{line}");
}

#[test]
fn body_that_breaks_is_noted_by_who_broke_it() {
    in_namespace!(Unprivileged);
    let pod = endpoint(|mut client| {
        let asked = head(&mut client)?;
        client
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour")?;
        if asked[0].contains("/stay") {
            client.read_to_end(&mut Vec::new())?;
        }
        Ok(())
    });
    let noted = Noted::up(&[], "http", &[pod]);
    let mut client = open(noted.web);
    client
        .get_mut()
        .write_all(b"GET /stay HTTP/1.1\r\nHost: web\r\n\r\n")
        .unwrap();
    head(&mut client).unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    leave(client);
    let line = noted.line(1);
    assert_eq!(line["termination"], "CD", "{line}");
    assert_eq!(line["status"], 200, "{line}");
    assert_eq!(line["bytes_to"], 0, "{line}");
    assert_eq!(line["bytes_from"], 4, "{line}");

    assert!(ask(&mut open(noted.web), GET).is_err());
    let line = noted.line(2);
    assert_eq!(line["termination"], "SD", "{line}");
    assert_eq!(line["status"], 200, "{line}");
}

#[test]
fn request_that_is_not_passed_on_is_noted_as_portico_s_doing() {
    in_namespace!(Unprivileged);
    let noted = Noted::up(&[], "http", &[willing()]);
    let connect = b"CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n";
    assert_eq!(ask(&mut open(noted.web), connect).unwrap().0, 501);
    let line = noted.line(1);
    assert_eq!(line["termination"], "PR", "{line}");
    assert_eq!(line["status"], 501, "{line}");
}

#[test]
fn call_that_nobody_answers_is_noted_with_the_status_that_its_client_gets() {
    in_namespace!(Unprivileged);
    let noted = Noted::up(&[], "grpc", &[]);
    let call = b"POST /a.B/C HTTP/1.1\r\nHost: web\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(&mut open(noted.web), call).unwrap().0, 200);
    let line = noted.line(1);
    assert_eq!(line["termination"], "SC", "{line}");
    assert_eq!(line["grpc_status"], 14, "{line}");
}

#[test]
fn client_that_a_front_end_names_is_noted_as_named() {
    in_namespace!(Unprivileged);
    let trusts =
        "metadata: {name: web, annotations: {portico.dev/accept-proxy-protocol-from: 127.0.0.0/8}}";
    let text = manifest("http", &[willing()]).replace("metadata: {name: web}", trusts);
    let noted = Noted::of(&[], &text, 1);
    let request = [
        b"PROXY TCP4 192.0.2.5 192.0.2.6 1234 80\r\n".as_slice(),
        GET,
    ]
    .concat();
    assert_eq!(ask(&mut open(noted.web), &request).unwrap().0, 200);
    let line = noted.line(1);
    assert_eq!(line["client"], "192.0.2.5:1234", "{line}");
}

#[test]
fn requests_beyond_the_limit_are_noted_as_waiting_in_vain() {
    in_namespace!(Unprivileged);
    let (pod, was_asked) = waiting(b"");
    let limit =
        "metadata: {name: web, annotations: {portico.dev/max-connections-per-endpoint: '1'}}";
    let text = manifest("http", &[pod]).replace("metadata: {name: web}", limit);
    let noted = Noted::of(&["--connect-timeout=200ms"], &text, 1);
    let mut first = open(noted.web);
    first.get_mut().write_all(GET).unwrap();
    was_asked.recv_timeout(PATIENCE).unwrap();
    let (status, _) = noted.expect(503, "RQ");
    assert!(
        status.contains("error=connection_limit_reached"),
        "{status}"
    );
}
