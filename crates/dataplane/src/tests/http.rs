//! HTTP request by request. Owns the peers: an origin that a test writes out, on plain sockets, and a client that reads what
//! comes byte by byte.

mod bodies;
mod draining;
mod failures;
mod hostile;
mod http2;
mod lifetime;
mod requests;
mod timeouts;

use super::*;
use portico_core::object::{AppProtocol, AppReason};
use std::{io::BufReader, sync::mpsc};

fn http(addr: IpAddr, endpoints: &[SocketAddr]) -> Subject {
    speaking(AppProtocol::Http, addr, endpoints)
}

fn speaking(protocol: AppProtocol, addr: IpAddr, endpoints: &[SocketAddr]) -> Subject {
    let mut subject = Subject::at(addr, endpoints);
    subject.app = Application {
        protocol,
        why: AppReason::Annotation,
        ..Application::default()
    };
    subject
}

/// One worker, so that pools are predictable.
fn serving(subjects: &[&Subject]) -> Bench {
    with(&DataSettings::default(), subjects)
}

fn with(settings: &DataSettings, subjects: &[&Subject]) -> Bench {
    let settings = DataSettings {
        workers: 1,
        ..settings.clone()
    };
    let mut bench = Bench::new(settings, subjects);
    let addresses = subjects.iter().flat_map(|subject| &subject.frontends);
    let keys = addresses.map(|(addr, port, _)| (at(*addr, *port), Mode::Listening));
    bench.bind(&keys.collect::<Vec<_>>());
    bench
}

/// A message of HTTP/1 as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Message {
    /// The first line.
    line: String,
    /// Names in small letters.
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

impl Message {
    fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(field, _)| field == name);
        let first = found.next().map(|(_, value)| &**value);
        assert!(found.next().is_none(), "{name} twice in {self:?}");
        first
    }

    fn status(&self) -> u16 {
        self.line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// One end of a connection.
struct Peer(BufReader<TcpStream>);

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn at(addr: IpAddr) -> Self {
        Self::new(connect(addr, PORT).unwrap())
    }

    fn send(&mut self, text: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(text.as_ref())
    }

    fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        io::BufRead::read_line(&mut self.0, &mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, line)),
        }
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else {
                assert_eq!(line, "");
                return Ok(fields);
            };
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    fn head(&mut self) -> io::Result<Message> {
        Ok(Message {
            line: self.line()?,
            fields: self.fields()?,
            ..Message::default()
        })
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// One chunk; empty at the end.
    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = usize::from_str_radix(&self.line()?, 16).unwrap();
        if size == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.exactly(size)?;
        assert_eq!(self.line()?, "");
        Ok(bytes)
    }

    /// The rest of a message that has a body as its head says.
    fn body(&mut self, mut head: Message) -> io::Result<Message> {
        if head.field("transfer-encoding") == Some("chunked") {
            loop {
                let chunk = self.chunk()?;
                if chunk.is_empty() {
                    break;
                }
                head.body.extend(chunk);
            }
            head.trailers = self.fields()?;
        } else if let Some(length) = head.field("content-length") {
            head.body = self.exactly(length.parse().unwrap())?;
        }
        Ok(head)
    }

    fn message(&mut self) -> io::Result<Message> {
        let head = self.head()?;
        self.body(head)
    }

    /// Sends a request and reads its answer.
    fn ask(&mut self, request: impl AsRef<[u8]>) -> io::Result<Message> {
        self.send(request)?;
        self.message()
    }

    fn get(&mut self, path: &str) -> io::Result<Message> {
        self.ask(get(path))
    }

    /// Whether the other side closed, and cleanly.
    fn is_closed(&mut self) -> io::Result<bool> {
        io::BufRead::fill_buf(&mut self.0).map(<[u8]>::is_empty)
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n")
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// An endpoint that serves every connection by `serve`, and counts them.
fn origin(serve: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Origins {
    let connections = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicU64::new(0));
    let (begins, ends) = (Arc::clone(&connections), Arc::clone(&ended));
    let addr = endpoint(move |stream| {
        begins.fetch_add(1, Relaxed);
        // A connection that ended under it is what many tests are about.
        let _ = serve(&mut Peer::new(stream));
        ends.fetch_add(1, Relaxed);
    });
    Origins {
        addr,
        connections,
        ended,
    }
}

/// One that says when it was asked, and answers each request with `text` when it is told to go.
fn held(text: &'static str) -> (Origins, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (asked, was_asked) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let (asked, may_go) = (std::sync::Mutex::new(asked), std::sync::Mutex::new(may_go));
    let origin = origin(move |peer| {
        loop {
            peer.message()?;
            asked.lock().unwrap().send(()).unwrap();
            may_go.lock().unwrap().recv().unwrap();
            peer.send(ok(text))?;
        }
    });
    (origin, was_asked, go)
}

struct Origins {
    addr: SocketAddr,
    connections: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
}

impl Origins {
    fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    fn open(&self) -> u64 {
        let ended = self.ended.load(Relaxed);
        self.connections() - ended
    }
}

/// Answers every request with `name`.
fn naming(name: &'static str) -> Origins {
    origin(move |peer| {
        loop {
            peer.message()?;
            peer.send(ok(name))?;
        }
    })
}

/// Answers every request with what it got.
fn mirror() -> Origins {
    origin(|peer| {
        loop {
            let request = peer.message()?;
            peer.send(ok(&format!("{request:?}")))?;
        }
    })
}
