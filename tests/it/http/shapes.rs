//! Requests and answers of every shape, by each version to each: statuses without a body, trailers, answers that come early or of
//! no length that is told, the oldest clients, and senders who are held up by who does not read.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{ONE, Origins, VERSIONS, curl, curl_times, parsed, service};
use crate::support::{PATIENCE, namespace::in_namespace, program::Program, program::way};

#[test]
fn curl_asking_for_what_has_no_body_goes_on_with_its_connection() {
    in_namespace!(Root);
    let Some(origins) = Origins::up() else { return };
    for (version, name) in VERSIONS {
        for door in origins.doors {
            for status in ["204", "304"] {
                let flags = [
                    version,
                    "-w",
                    "%{http_code} %{size_download} %{num_connects}\n",
                ];
                let said = curl_times(&flags, &format!("http://{door}/{status}"), 2);
                let last = u8::from(name == "2");
                let expected = format!("{status} 0 1\n{status} 0 {last}\n");
                assert_eq!(said, expected, "{version} {door}");
            }
        }
    }
}

#[test]
fn curl_gets_trailers_and_answers_that_come_after_others() {
    in_namespace!(Root);
    let Some(origins) = Origins::up() else { return };
    let wants = ["-i", "-H", "TE: trailers", "-H", "Connection: TE"];
    for (version, name) in VERSIONS {
        for door in origins.doors {
            let url = format!("http://{door}/trailers");
            let wants = wants.get(..if name == "2" { 3 } else { 5 }).unwrap();
            let said = curl(&[wants, &[version, &url]].concat());
            let said = said.to_ascii_lowercase();
            assert!(said.contains("trailer: x-sum"), "{version} {door}: {said}");
            assert!(said.contains("x-sum: 1"), "{version} {door}: {said}");
            assert!(!said.contains("content-length"), "{version} {door}: {said}");
            // Nobody can tell clients of a 103 here; they must not take it for the answer either.
            let said = curl(&["-i", version, &format!("http://{door}/early")]);
            assert!(said.starts_with(&format!("HTTP/{name} 200")), "{said}");
            assert!(said.contains("\"path\": \"/early\""), "{said}");
        }
    }
}

#[test]
fn curl_of_http_1_0_that_keeps_its_connection_may_where_the_length_is_told() {
    in_namespace!(Root);
    let Some(origins) = Origins::up() else { return };
    let flags = [
        "--http1.0",
        "-H",
        "Connection: keep-alive",
        "-w",
        "%{http_version} %{http_code} %{num_connects}\n",
    ];
    for door in origins.doors {
        for (path, connects) in [("kept/[1-2]", ["1", "0"]), ("trailers/[1-2]", ["1", "1"])] {
            let said = curl(&[flags.as_slice(), &[&format!("http://{door}/{path}")]].concat());
            let lines: Vec<&str> = said.lines().collect();
            let expected = connects.map(|connects| format!("1 200 {connects}"));
            assert_eq!([lines[1], lines[3]], expected, "{door}/{path}");
            assert_eq!(parsed(lines[0])["method"], "GET");
        }
    }
}

#[test]
fn curl_with_too_many_fields_is_told_so_in_every_version() {
    in_namespace!(Root);
    let Some(origins) = Origins::up() else { return };
    let fields: Vec<String> = (0..101).map(|n| format!("X-{n}: y")).collect();
    let fields: Vec<&str> = fields.iter().flat_map(|field| ["-H", field]).collect();
    for (version, _) in VERSIONS {
        let flags = [version, "-o", "/dev/null", "-w", "%{http_code}"];
        let url = format!("http://{}/", origins.doors[0]);
        let said = curl(&[flags.as_slice(), &fields, &[&url]].concat());
        assert_eq!(said, "431", "{version}");
    }
}

/// Bytes that are to go through; many times what the kernel and portico may hold between two who do not read.
const MUCH: usize = 256 << 20;
/// What they may hold: on each of two connections a send and a receive buffer, of 6 MiB at most as `tcp_rmem` in tcp(7) stands.
const HELD: usize = 32 << 20;
/// A sender that gets rid of nothing for this long is held up.
const HELD_UP: Duration = Duration::from_millis(300);

/// Sends [`MUCH`], and says once how far it came before it was held up.
fn send_much(mut to: &TcpStream, held_up: &mpsc::Sender<usize>) {
    let chunk = vec![b'x'; 64 << 10];
    let mut sent = 0;
    to.set_write_timeout(Some(HELD_UP)).unwrap();
    while sent < MUCH {
        match to.write(&chunk[..chunk.len().min(MUCH - sent)]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                held_up.send(sent).unwrap();
                to.set_write_timeout(Some(PATIENCE)).unwrap();
            }
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
    }
}

/// Reads a head, byte by byte.
fn read_head(mut from: &TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn read_much(mut from: &TcpStream) {
    let mut chunk = vec![0; 64 << 10];
    let mut left = MUCH;
    while left > 0 {
        let room = chunk.len().min(left);
        let count = from.read(&mut chunk[..room]).unwrap();
        assert_ne!(count, 0, "{left} bytes are missing");
        left -= count;
    }
}

/// portico before an endpoint of our own.
fn before_one() -> (Program, SocketAddr, TcpListener) {
    let pod = TcpListener::bind(("127.1.0.1", ONE + 1000)).unwrap();
    let text = service("web", &[("http", ONE)], &["127.1.0.1"]);
    let program = Program::up(&[], &[("web.yaml", &text)]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    (program, door, pod)
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn expect_held_up(held_up: &mpsc::Receiver<usize>, program: &Program) {
    let sent = held_up.recv_timeout(PATIENCE).unwrap();
    assert!(sent < HELD, "{sent} bytes were taken from the sender");
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    let peak: usize = peak.parse().unwrap();
    assert!(peak << 10 < MUCH / 2, "{peak} KiB of memory");
}

#[test]
fn endpoint_is_held_up_by_a_client_that_does_not_read() {
    in_namespace!(Root);
    let (program, door, pod) = before_one();
    let (held_up, was_held_up) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let client = patient(pod.accept().unwrap().0);
            read_head(&client);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n");
            (&client).write_all(head.as_bytes()).unwrap();
            send_much(&client, &held_up);
        });
        let client = patient(TcpStream::connect(door).unwrap());
        (&client)
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            .unwrap();
        assert!(read_head(&client).starts_with("HTTP/1.1 200 OK"));
        expect_held_up(&was_held_up, &program);
        read_much(&client);
    });
    program.wait_for_connections_to_end();
}

#[test]
fn client_is_held_up_by_an_endpoint_that_does_not_read() {
    in_namespace!(Root);
    let (program, door, pod) = before_one();
    let (held_up, was_held_up) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let client = patient(TcpStream::connect(door).unwrap());
            let head = format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {MUCH}\r\n\r\n");
            (&client).write_all(head.as_bytes()).unwrap();
            send_much(&client, &held_up);
            assert!(read_head(&client).starts_with("HTTP/1.1 200 OK"));
        });
        let client = patient(pod.accept().unwrap().0);
        read_head(&client);
        expect_held_up(&was_held_up, &program);
        read_much(&client);
        (&client)
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    });
    program.wait_for_connections_to_end();
}
