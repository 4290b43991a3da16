//! Failures and hostile input on HTTP ports of the real program: what clients are told, and what is written of it. Owns the
//! manifests and a client that keeps its connection.

mod access_log;
mod answers;
mod endings;
mod frames;
mod framing;
mod honest;
mod hostile;
mod stalls;
mod timeouts;

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use crate::support::{PATIENCE, program::Program, program::way};

/// Service `web` with such an `appProtocol`, and its endpoints.
fn manifest(protocol: &str, endpoints: &[SocketAddr]) -> String {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  ports: [{{name: p, port: 80, appProtocol: {protocol}}}]\n"
    );
    let slices = endpoints.iter().enumerate().map(|(index, endpoint)| {
        let (ip, port) = (endpoint.ip(), endpoint.port());
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-{index}\n  labels: \
             {{kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{{name: p, port: {port}}}]\nendpoints:\n  - addresses: ['{ip}']\n"
        )
    });
    service + &slices.collect::<String>()
}

/// portico with that Service, and where it is.
fn up(args: &[&str], protocol: &str, endpoints: &[SocketAddr]) -> (Program, SocketAddr) {
    let program = Program::up(args, &[("web.yaml", &manifest(protocol, endpoints))]);
    let web = way(
        &program.wait_for_endpoints("web", endpoints.len()),
        "ClusterIP",
    );
    (program, web)
}

type Stream = BufReader<TcpStream>;

fn stream(stream: TcpStream) -> Stream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

fn open(addr: SocketAddr) -> Stream {
    stream(TcpStream::connect_timeout(&addr, PATIENCE).unwrap())
}

/// An endpoint that serves every connection on a thread; it lives until the end of the test's process.
fn endpoint(serve: impl Fn(Stream) -> std::io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // The standard library's queue of 128 is full when as many streams begin while this thread does not run, and who does not
    // fit comes again after a second, when connecting has taken too long.
    rustix::net::listen(&listener, 1024).unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for accepted in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            // A connection that ends under it is what these tests are about.
            thread::spawn(move || serve(stream(accepted)));
        }
    });
    addr
}

/// An endpoint that answers every request of a connection with 200 and `ok`.
fn willing() -> SocketAddr {
    sending(2)
}

/// An endpoint that answers every request of a connection with 200 and so many bytes: `okok...`.
fn sending(length: usize) -> SocketAddr {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    answer.extend(b"ok".iter().cycle().take(length));
    endpoint(move |mut client| {
        while head(&mut client).is_ok() {
            client.get_mut().write_all(&answer)?;
        }
        Ok(())
    })
}

/// More than all buffers between two processes hold.
const LARGE: usize = 32 << 20;

/// Waits until portico can write no more to a client that does not read: what it wrote ends anywhere in a frame then.
fn wait_until_full(program: &Program, client: &Stream) {
    let port = client.get_ref().local_addr().unwrap().port();
    let (mut queued, mut looks) = (0, 0);
    while looks < 20 {
        let now = unacknowledged(port);
        looks = if now > 0 && now == queued {
            looks + 1
        } else {
            0
        };
        queued = now;
        program.status();
    }
}

/// Bytes on their way to this port, those in the buffer of the sender's kernel included (`/proc/net/tcp`, proc(5)).
fn unacknowledged(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    let mut queues = rows.filter(|row| row[2].ends_with(&format!(":{port:04X}")));
    let queue = queues.next().and_then(|row| row[4].split_once(':'));
    queue.map_or(0, |(sent, _)| u64::from_str_radix(sent, 16).unwrap())
}

/// The lines of a head, without the empty one.
fn head(stream: &mut Stream) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            None => return Err(ErrorKind::UnexpectedEof.into()),
            Some("") => return Ok(lines),
            Some(line) => lines.push(line.to_owned()),
        }
    }
}

/// Sends a request and reads the answer, whose body must be whole: its status and body.
fn ask(stream: &mut Stream, request: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
    stream.get_mut().write_all(request)?;
    answer(stream)
}

fn answer(stream: &mut Stream) -> std::io::Result<(u16, Vec<u8>)> {
    let head = head(stream)?;
    let status = head.first().and_then(|line| line.split(' ').nth(1));
    let status = status.unwrap().parse().unwrap();
    let field = |name: &str| {
        let mut fields = head.iter().filter_map(|line| line.split_once(": "));
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    };
    let mut body = Vec::new();
    if let Some(length) = field("content-length") {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body)?;
    } else if field("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim_end(), 16);
            let Ok(size) = size else {
                return Err(ErrorKind::UnexpectedEof.into());
            };
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            body.extend(&chunk[..size]);
        }
    }
    Ok((status, body))
}

const GET: &[u8] = b"GET /some?x=y HTTP/1.1\r\nHost: web\r\n\r\n";
