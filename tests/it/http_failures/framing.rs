//! Requests that readers could understand differently, sent to the program in front of several origin servers: each of them sees the
//! same request, or none, and never a second one in it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use super::{
    frames::{
        DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, fields, frame, hello,
        next_frame,
    },
    manifest, open,
};
use crate::support::{
    PATIENCE, is_installed,
    namespace::in_namespace,
    peer,
    program::{Program, way},
};

/// What would be smuggled: `N` is the number of the case.
const SECOND: &str = "GET /second-N HTTP/1.1\r\nHost: web\r\n\r\n";

/// Fields of a POST, and all that follows its head. `SECOND` stands for a request that nobody may see.
const POSTS: &[(&str, &str)] = &[
    (
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "0\r\n\r\nSECOND",
    ),
    (
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "0\r\n\r\nSECOND",
    ),
    (
        "Content-Length: 60\r\nTransfer-Encoding: chunked",
        "0\r\n\r\nSECOND",
    ),
    ("Content-Length: 3\r\nContent-Length: 3", "abc"),
    ("Content-Length: 3\r\nContent-Length: 4", "abcSECOND"),
    ("Content-Length: 3, 3", "abcSECOND"),
    ("Content-Length: +3", "abcSECOND"),
    ("Content-Length: 0x3", "abcSECOND"),
    ("Content-Length: 3_0", "abcSECOND"),
    ("Content-Length: ", "SECOND"),
    ("Content-Length: -1", "SECOND"),
    ("Content-Length: 18446744073709551616", "SECOND"),
    ("Content-Length: 18446744073709551619", "abcSECOND"),
    ("Content-Length : 3", "abcSECOND"),
    ("Content-Length: 3\r\n Content-Length: 40", "abcSECOND"),
    ("Transfer-Encoding: xchunked", "0\r\n\r\nSECOND"),
    ("Transfer-Encoding: chunked, identity", "0\r\n\r\nSECOND"),
    ("Transfer-Encoding: identity, chunked", "0\r\n\r\nSECOND"),
    ("Transfer-Encoding: gzip, chunked", "0\r\n\r\nSECOND"),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "0\r\n\r\nSECOND",
    ),
    (
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "0\r\n\r\nSECOND",
    ),
    ("Transfer-Encoding:\tchunked", "3\r\nabc\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked\x0b", "0\r\n\r\nSECOND"),
    ("Transfer-Encoding: \x0bchunked", "0\r\n\r\nSECOND"),
    ("Transfer-Encoding:\r\n chunked", "0\r\n\r\nSECOND"),
    ("Transfer-Encoding : chunked", "0\r\n\r\nSECOND"),
    ("Transfer_Encoding: chunked\r\nContent-Length: 3", "abc"),
    ("Transfer-Encoding: CHUNKED", "3\r\nabc\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "0_2\r\nab\r\n0\r\n\r\nSECOND"),
    ("Transfer-Encoding: chunked", "0x1\r\na\r\n0\r\n\r\nSECOND"),
    ("Transfer-Encoding: chunked", "-1\r\na\r\n0\r\n\r\nSECOND"),
    (
        "Transfer-Encoding: chunked",
        "10000000000000003\r\nabc\r\n0\r\n\r\nSECOND",
    ),
    ("Transfer-Encoding: chunked", "3\nabc\n0\n\nSECOND"),
    (
        "Transfer-Encoding: chunked",
        "3;a\nb=\r\nabc\r\n0\r\n\r\nSECOND",
    ),
    (
        "Transfer-Encoding: chunked",
        "3;a=b;c=\"d\"\r\nabc\r\n0\r\n\r\n",
    ),
    ("Transfer-Encoding: chunked", "3\r\nabcd\r\n0\r\n\r\nSECOND"),
    ("Transfer-Encoding: chunked", "3\r\nabc0\r\n\r\nSECOND"),
    (
        "Transfer-Encoding: chunked",
        "3\r\nabc\r\n0\r\nContent-Length: 60\r\nTransfer-Encoding: x\r\nHost: other\r\n\r\n",
    ),
    (
        "Connection: content-length, host\r\nContent-Length: 3",
        "abc",
    ),
    (
        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
        "3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "Upgrade: x\r\nConnection: upgrade\r\nContent-Length: 40",
        "SECOND",
    ),
    ("Expect: 100-continue\r\nContent-Length: 3", "abc"),
    ("X: a\0b\r\nContent-Length: 3", "abcSECOND"),
    ("X: a\rContent-Length: 40\r\nContent-Length: 3", "abcSECOND"),
    ("X: a\nContent-Length: 3", "abc"),
    ("X y: a\r\nContent-Length: 3", "abcSECOND"),
    (
        "X: a\r\n Content-Length: 40\r\nContent-Length: 3",
        "abcSECOND",
    ),
    (": a\r\nContent-Length: 3", "abcSECOND"),
    ("Host: other\r\nContent-Length: 3", "abcSECOND"),
];

/// Whole requests of other shapes.
const HEADS: &[&str] = &[
    "GET /N HTTP/1.1\r\n\r\nSECOND",
    "GET  /N HTTP/1.1\r\nHost: web\r\n\r\nSECOND",
    "GET /N HTTP/1.1 \r\nHost: web\r\n\r\nSECOND",
    "GET /N\r\nHost: web\r\n\r\nSECOND",
    "GET /N HTTP/3.7\r\nHost: web\r\n\r\nSECOND",
    "G(T /N HTTP/1.1\r\nHost: web\r\n\r\nSECOND",
    "GET /N HTTP/1.1\r\n Host: web\r\n\r\nSECOND",
    "GET http://other/N HTTP/1.1\r\nHost: web\r\n\r\nSECOND",
    "GET http://web/N HTTP/1.1\r\nHost: web\r\n\r\n",
    "GET http://user@web/N HTTP/1.1\r\nHost: web\r\n\r\nSECOND",
    "GET N HTTP/1.1\r\nHost: web\r\n\r\nSECOND",
    "GET /N\x0b HTTP/1.1\r\nHost: web\r\n\r\nSECOND",
    "\r\nGET /N HTTP/1.1\r\nHost: web\r\n\r\n",
    "POST /N HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSECOND",
    "POST /N HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    "GET /N HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc",
    "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\nSECOND",
];

type Pairs = &'static [(&'static str, &'static str)];

/// Requests of HTTP/2 that would be two, or another one, in HTTP/1: fields after the usual pseudo ones, and a body.
const STREAMS: &[(Pairs, &str)] = &[
    (&[("x", "a\r\n\r\nGET /second-N HTTP/1.1\r\nhost: web")], ""),
    (&[("x", "a\nb")], ""),
    (&[("x\r\ny", "a")], ""),
    (&[("transfer-encoding", "chunked")], "0\r\n\r\nSECOND"),
    (&[("connection", "close")], ""),
    (&[("content-length", "3")], "abcSECOND"),
    (&[("content-length", "40")], "abc"),
    (&[("content-length", "3")], "abc"),
    (&[("host", "other")], ""),
    (&[(":path", "/second-N")], ""),
    (&[("x", "a"), (":authority", "other")], ""),
    (&[("X", "a")], ""),
    (&[("te", "gzip")], ""),
    (&[("upgrade", "x")], ""),
];

/// An origin server that says what it took.
struct Origin {
    name: &'static str,
    child: Child,
    addr: SocketAddr,
    took: Receiver<String>,
    /// Whether it says bodies, and only requests that came whole.
    is_exact: bool,
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Origin {
    /// `addr` is known, or the first line of what it says.
    fn start(name: &'static str, command: &mut Command, addr: Option<SocketAddr>) -> Option<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().ok()?;
        let mut lines = BufReader::new(child.stdout.take()?).lines();
        let is_exact = addr.is_none();
        let addr = addr.or_else(|| {
            let port: u16 = lines.next()?.ok()?.parse().ok()?;
            Some(([127, 0, 0, 1], port).into())
        });
        let (say, took) = channel();
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| say.send(line))
        });
        Some(Self {
            name,
            child,
            addr: addr?,
            took,
            is_exact,
        })
    }

    fn python(name: &'static str, module: &str) -> Option<Self> {
        let python = peer::python(&[module])?;
        let mut command = peer::script(&python, "origins.py");
        command.arg(name).stderr(Stdio::null());
        Self::start(name, &mut command, None)
    }

    fn nginx(folder: &std::path::Path) -> Option<Self> {
        let text = "daemon off; master_process off; user root root; pid nginx.pid; error_log stderr crit; events {}\n\
             http { log_format took '$request_method $request_uri'; access_log /dev/stdout took;\n\
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
             server { listen 127.0.0.1:19081; location / { return 200 ok; } } }\n";
        let file = folder.join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(file)
            .stderr(Stdio::null());
        is_installed("nginx")
            .then(|| Self::start("nginx", &mut command, Some(([127, 0, 0, 1], 19_081).into())))?
    }

    fn haproxy(folder: &std::path::Path) -> Option<Self> {
        let text = "global\n log stdout format raw local0\ndefaults\n mode http\n log global\n timeout client 10s\n timeout http-keep-alive 10s\n\
             frontend f\n bind 127.0.0.1:19082\n log-format \"%HM %HU\"\n http-request return status 200 content-type text/plain string ok\n";
        let file = folder.join("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-f").arg(file).stderr(Stdio::null());
        is_installed("haproxy").then(|| {
            Self::start(
                "haproxy",
                &mut command,
                Some(([127, 0, 0, 1], 19_082).into()),
            )
        })?
    }

    /// What it took up to the request for `/last`, by cases: `/7` and `/second-7` are of case 7.
    fn took(&self, cases: usize) -> Vec<Vec<String>> {
        let mut took = vec![Vec::new(); cases];
        loop {
            let line = self.took.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("{} took no last request", self.name));
            if line.contains("/last") {
                return took;
            }
            assert!(!line.contains("second"), "{}: {line}", self.name);
            let digits = line.split('/').nth(1).unwrap_or_default();
            let digits = digits.split(|c: char| !c.is_ascii_digit()).next();
            match digits.unwrap_or_default().parse::<usize>() {
                Ok(case) => took[case].push(line),
                // What a server says of a connection that ended early.
                Err(_) => assert!(!self.is_exact, "{}: {line}", self.name),
            }
        }
    }
}

fn numbered(text: &str, number: usize) -> String {
    text.replace("SECOND", SECOND)
        .replace("-N", &format!("-{number}"))
        .replace("/N", &format!("/{number}"))
}

/// Every case as its client sends it, all at once.
fn corpus() -> Vec<Vec<u8>> {
    let posts = POSTS
        .iter()
        .map(|(fields, rest)| format!("POST /N HTTP/1.1\r\nHost: web\r\n{fields}\r\n\r\n{rest}"));
    let heads = HEADS.iter().map(|&head| head.to_owned());
    let mut cases: Vec<Vec<u8>> = Vec::new();
    for text in posts.chain(heads) {
        let text = numbered(&text, cases.len());
        cases.push(text.into_bytes());
    }
    for (more, body) in STREAMS {
        let number = cases.len();
        let path = format!("/{number}");
        let mut head = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":path", &*path),
            (":authority", "web"),
        ];
        let more: Vec<_> = more
            .iter()
            .map(|(name, value)| (*name, numbered(value, number)))
            .collect();
        head.extend(more.iter().map(|(name, value)| (*name, &**value)));
        let body = numbered(body, number);
        let (headers, data) = if body.is_empty() {
            (END_HEADERS | END_STREAM, Vec::new())
        } else {
            (END_HEADERS, frame(DATA, END_STREAM, 1, body.as_bytes()))
        };
        cases.push([hello(), frame(HEADERS, headers, 1, &fields(&head)), data].concat());
    }
    cases
}

/// Sends a case and waits for the end of it; the statuses of HTTP/1 that came back.
fn send(web: SocketAddr, case: &[u8]) -> Vec<String> {
    let mut client = open(web);
    // It may be cut off before all is sent.
    let _ = client.get_mut().write_all(case);
    if case.starts_with(b"PRI") {
        while let Ok((kind, flags, ..)) = next_frame(&mut client) {
            let is_end = (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0;
            if is_end || kind == RST_STREAM || kind == GOAWAY {
                break;
            }
        }
        return Vec::new();
    }
    // One that is to be continued is given up.
    let patience = Some(Duration::from_millis(200));
    client.get_ref().set_read_timeout(patience).unwrap();
    let _ = client.fill_buf().map(<[u8]>::len);
    let _ = client.get_ref().shutdown(Shutdown::Write);
    client.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    let mut got = Vec::new();
    let _ = client.read_to_end(&mut got);
    let text = String::from_utf8_lossy(&got).into_owned();
    let statuses = text
        .lines()
        .filter_map(|line| line.split("HTTP/1.1 ").nth(1));
    // Interim ones are no answers.
    let finals = statuses.filter(|status| !status.starts_with('1'));
    finals.map(|status| status[..3].to_owned()).collect()
}

#[test]
fn ambiguous_requests_are_the_same_one_or_none_to_every_origin_server() {
    in_namespace!(Unprivileged);
    let folder = tempfile::tempdir().unwrap();
    let origins: Vec<Origin> = [
        Origin::python("http.server", "http.server"),
        Origin::python("h11", "h11"),
        Origin::python("aiohttp", "aiohttp"),
        Origin::nginx(folder.path()),
        Origin::haproxy(folder.path()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let files: Vec<(String, String)> = origins
        .iter()
        .map(|origin| {
            let name = origin.name.replace('.', "-");
            let text = manifest("http", &[origin.addr]).replace("web", &name);
            (format!("{name}.yaml"), text)
        })
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    let program = Program::up(&["--workers=1"], &files);
    let cases = corpus();
    let mut exact: Option<(&str, Vec<Vec<String>>)> = None;
    for origin in &origins {
        let name = origin.name.replace('.', "-");
        let web = way(&program.wait_for_endpoints(&name, 1), "ClusterIP");
        let statuses: Vec<_> = cases.iter().map(|case| send(web, case)).collect();
        // On connections that the cases left behind.
        send(web, b"GET /last HTTP/1.1\r\nHost: web\r\n\r\n");
        let took = origin.took(cases.len());
        for ((case, statuses), took) in cases.iter().zip(&statuses).zip(&took) {
            let case = String::from_utf8_lossy(case);
            assert!(took.len() <= 1, "{name} took {took:?} for {case:?}");
            assert!(
                statuses.len() <= 1,
                "{name}: answers {statuses:?} to {case:?}"
            );
            let is_refused = statuses
                .first()
                .is_some_and(|status| !status.starts_with('2'));
            assert!(
                !is_refused || took.is_empty() || !origin.is_exact,
                "{name} took {took:?} for {case:?}, refused with {statuses:?}"
            );
        }
        println!("{name}: {} of {} taken", took.concat().len(), took.len());
        if !origin.is_exact {
            continue;
        }
        let (first, same) = exact.get_or_insert_with(|| (origin.name, took.clone()));
        for ((case, one), other) in cases.iter().zip(&*same).zip(&took) {
            let case = String::from_utf8_lossy(case);
            assert_eq!(
                one, other,
                "{first} and {} differ over {case:?}",
                origin.name
            );
        }
    }
}
