//! Endpoints that take long to begin their answers, answers that outlive their endpoints, and connections that outlive what their
//! ports speak.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    sync::{Mutex, mpsc},
};

use super::{
    GET, Stream, ask, endpoint,
    frames::{END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, next_frame},
    head, manifest, open, up,
};
use crate::{
    metrics::{admin, scrape},
    support::{
        PATIENCE,
        namespace::in_namespace,
        program::{Program, way},
    },
};

/// An endpoint that says how each connection of a request without an answer ended.
fn silent<T: Send + 'static>(
    serve: impl Fn(Stream) -> std::io::Result<T> + Send + Sync + 'static,
) -> (SocketAddr, mpsc::Receiver<T>) {
    let (say, said) = mpsc::channel();
    let say = Mutex::new(say);
    let addr = endpoint(move |stream| {
        let seen = serve(stream)?;
        say.lock().unwrap().send(seen).unwrap();
        Ok(())
    });
    (addr, said)
}

/// portico with a Service whose endpoint may take half a second, which logs requests into a file, and where it is.
fn hurried(protocol: &str, endpoint: SocketAddr) -> (Program, SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let log = format!("--access-log={}", folder.path().join("log").display());
    let annotated = "{name: web, annotations: {portico.dev/http-response-timeout: 500ms}}";
    let text = manifest(protocol, &[endpoint]).replacen("{name: web}", annotated, 1);
    let program = Program::up(
        &[&log, "--http-response-timeout=1h"],
        &[("web.yaml", &text)],
    );
    let web = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    (program, web, folder)
}

/// The line of the access log, once it is there.
fn logged(folder: &tempfile::TempDir) -> String {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        if text.ends_with('\n') {
            return text;
        }
        assert!(std::time::Instant::now() < deadline, "no line");
        std::thread::yield_now();
    }
}

#[test]
fn endpoint_that_does_not_answer_in_time_is_504_in_the_log_too() {
    in_namespace!(Unprivileged);
    let (endpoint, ended) = silent(|mut stream| {
        head(&mut stream)?;
        stream.read(&mut [0])
    });
    let (_program, web, folder) = hurried("http", endpoint);
    let mut client = open(web);
    client.get_mut().write_all(GET).unwrap();
    let told = head(&mut client).unwrap().join("\n");
    assert!(told.starts_with("HTTP/1.1 504 "), "{told}");
    assert!(told.contains("error=http_response_timeout"), "{told}");
    assert_eq!(ended.recv_timeout(PATIENCE), Ok(0), "it is closed cleanly");
    let line = logged(&folder);
    let expected = format!("default/web:p {endpoint} \"GET web /some?x=y HTTP/1.1\" 504 sH ");
    assert!(line.contains(&expected), "{line}");
}

#[test]
fn call_that_is_not_answered_in_time_has_its_stream_reset_and_a_status_of_grpc() {
    in_namespace!(Unprivileged);
    let (endpoint, ended) = silent(|mut stream| {
        stream.read_exact(&mut [0; PREFACE.len()])?;
        stream.get_mut().write_all(&frame(SETTINGS, 0, 0, b""))?;
        let (mut asked, mut resets) = (Vec::new(), Vec::new());
        // The second is answered, on the same connection.
        while asked.len() < 2 {
            match next_frame(&mut stream)? {
                (HEADERS, _, id, _) => asked.push(id),
                (RST_STREAM, _, id, payload) => resets.push((id, payload)),
                _ => {}
            }
        }
        // 0x88 is `:status: 200` in the static table (RFC 7541, appendix A).
        let answer = frame(HEADERS, END_HEADERS | END_STREAM, asked[1], b"\x88");
        stream.get_mut().write_all(&answer)?;
        Ok((asked[0], resets))
    });
    let (_program, web, _folder) = hurried("grpc", endpoint);
    let mut client = open(web);
    let mut call = || {
        let call = b"POST /a.B/C HTTP/1.1\r\nHost: web\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
        client.get_mut().write_all(call).unwrap();
        head(&mut client).unwrap().join("\n").to_ascii_lowercase()
    };
    let told = call();
    assert!(told.starts_with("http/1.1 200 "), "{told}");
    assert!(told.contains("\ngrpc-status: 4"), "{told}");
    assert!(!call().contains("grpc-status"));
    // CANCEL (RFC 9113, section 7).
    let (first, resets) = ended.recv_timeout(PATIENCE).unwrap();
    assert_eq!(resets, [(first, 8_u32.to_be_bytes().to_vec())]);
}

#[test]
fn events_of_an_endpoint_that_left_end_with_the_drain_timeout() {
    in_namespace!(Unprivileged);
    let (endpoint, ended) = silent(|mut stream| {
        head(&mut stream)?;
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
        stream.get_mut().write_all(answer)?;
        Ok(stream.read(&mut [0]).unwrap_or_default())
    });
    let annotated = "{name: web, annotations: {portico.dev/drain-timeout: 50ms}}";
    let text = |endpoints: &[SocketAddr]| {
        manifest("http", endpoints).replacen("{name: web}", annotated, 1)
    };
    let folder = tempfile::tempdir().unwrap();
    let log = format!("--access-log={}", folder.path().join("log").display());
    let program = Program::up(&[&log], &[("web.yaml", &text(&[endpoint]))]);
    let web = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let mut client = open(web);
    client.get_mut().write_all(GET).unwrap();
    assert!(head(&mut client).unwrap()[0].ends_with(" 200 OK"));
    client.read_exact(&mut [0; 14]).unwrap();
    program.write("web.yaml", &text(&[]));
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(ended.recv_timeout(PATIENCE), Ok(0));
    let line = logged(&folder);
    assert!(line.contains(" 200 DD "), "{line}");
    let metrics = scrape(admin(&program));
    let drained = "portico_connections_drained_total{reason=\"endpoint_gone\"}";
    assert!(metrics[drained] > 0.0);
}

#[test]
fn client_that_keeps_its_connection_comes_back_when_its_port_is_not_http_any_more() {
    in_namespace!(Unprivileged);
    // Answers a request with its head.
    let endpoint = endpoint(|mut stream| {
        loop {
            let head = head(&mut stream)?.join("\n").to_ascii_lowercase();
            let length = head.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}");
            stream.get_mut().write_all(answer.as_bytes())?;
        }
    });
    let told = |client: &mut Stream| {
        let (status, body) = ask(client, GET).unwrap();
        assert_eq!(status, 200);
        String::from_utf8(body).unwrap().contains("x-forwarded-for")
    };
    let (program, web) = up(&[], "http", &[endpoint]);
    let mut client = open(web);
    assert!(told(&mut client));
    program.write("web.yaml", &manifest("tcp", &[endpoint]));
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "it is closed cleanly");
    assert!(!told(&mut open(web)));
    program.write("web.yaml", &manifest("http", &[endpoint]));
    let deadline = std::time::Instant::now() + PATIENCE;
    while !told(&mut open(web)) {
        assert!(std::time::Instant::now() < deadline, "it is not HTTP again");
    }
    let mut client = open(web);
    assert!(told(&mut client));
    std::fs::remove_file(program.manifests().join("web.yaml")).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "it is closed cleanly");
}
