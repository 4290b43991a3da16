//! One question and its answer, on a connection of its own or on one that is kept. Owns what counts as an answer and
//! as a failure; retries nothing, so that no failure is hidden. When to ask belongs to `drive`.

mod datagram;
mod http;
mod question;
mod stream;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::target::{Identity, Protocol, Target};

/// Longest name of who answered that is kept; what is longer is cut.
const LONGEST_NAME: usize = 64;

/// Most bytes of an answer over plain TCP that are looked at, and of a datagram (RFC 768).
const MOST_BYTES: usize = 64 * 1024;

pub(super) use datagram::Ports;

/// How it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    /// Where and what.
    pub target: Target,
    /// How an answer tells who has given it.
    pub identity: Identity,
    /// Whether a connection (or socket) serves many requests.
    pub reuse: Reuse,
    /// What is sent over plain TCP and UDP.
    pub send: Vec<u8>,
    /// Longest wait for a connection, and for an answer.
    pub patience: Duration,
}

/// How long a connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// For one request.
    Never,
    /// For as long as the other side keeps it.
    KeepAlive,
}

/// What one exchange came to.
#[derive(Debug)]
pub(super) struct Exchange {
    /// How long connecting took, if that was needed.
    pub(super) connect: Option<Duration>,
    /// From sending to the first byte of the answer.
    pub(super) first: Duration,
    /// The answer, or what went wrong.
    pub(super) result: Result<Answered, Failure>,
}

/// Who answered and how much.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) who: String,
    pub(super) bytes: u64,
    /// The answer's number by the count of who gave it, where it says so.
    pub(super) serial: Option<u64>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    /// The connection could not be made.
    Connect(io::ErrorKind),
    /// It could not be made in time.
    ConnectTimeout,
    /// It broke.
    Broken(io::ErrorKind),
    /// No whole answer came in time.
    Timeout,
    /// It ended without an answer.
    Cut,
    /// An answer that is an error by itself: an HTTP status of 400 and more.
    Status(u16),
    /// A DNS answer that is an error by itself: its code (RFC 1035 section 4.1.1).
    Rcode(u8),
    /// What came is not of the protocol.
    Protocol,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(io::ErrorKind::ConnectionRefused) => f.write_str("connection refused"),
            Self::Connect(io::ErrorKind::AddrNotAvailable) => {
                f.write_str("no local port left (see --sources)")
            }
            Self::Connect(kind) => write!(f, "connect: {kind}"),
            Self::ConnectTimeout => f.write_str("connect: no connection in time"),
            Self::Broken(io::ErrorKind::ConnectionReset) => f.write_str("reset"),
            Self::Broken(kind) => write!(f, "broken: {kind}"),
            Self::Timeout => f.write_str("no whole answer in time"),
            Self::Cut => f.write_str("closed without an answer"),
            Self::Status(status) => write!(f, "HTTP status {status}"),
            Self::Rcode(2) => f.write_str("DNS SERVFAIL"),
            Self::Rcode(3) => f.write_str("DNS NXDOMAIN"),
            Self::Rcode(5) => f.write_str("DNS REFUSED"),
            Self::Rcode(code) => write!(f, "DNS error {code}"),
            Self::Protocol => f.write_str("not an answer of this protocol"),
        }
    }
}

impl Failure {
    fn broken(error: &io::Error) -> Self {
        Self::Broken(error.kind())
    }
}

/// One client: at most one connection, and one question at a time.
pub(super) enum Client {
    Http(http::Client),
    Stream(stream::Client),
    Datagram(datagram::Client),
}

impl Client {
    /// A client that asks from `source`, or from wherever the kernel says; datagrams not from what is `used`.
    pub(super) fn new(manner: &Manner, source: Option<IpAddr>, used: &Ports) -> Self {
        let local = source.map(|source| SocketAddr::new(source, 0));
        match manner.target.protocol {
            Protocol::Http => Self::Http(http::Client::new(manner.clone(), local)),
            Protocol::Tcp => Self::Stream(stream::Client::new(manner.clone(), local)),
            Protocol::Udp | Protocol::Dns => {
                Self::Datagram(datagram::Client::new(manner.clone(), local, used.clone()))
            }
        }
    }

    /// Asks once.
    pub(super) async fn ask(&mut self) -> Exchange {
        match self {
            Self::Http(client) => client.ask().await,
            Self::Stream(client) => client.ask().await,
            Self::Datagram(client) => client.ask().await,
        }
    }
}

/// What a DNS server answers of the addresses of `name`: the first one, else what became of the question.
///
/// # Errors
/// No answer came.
pub async fn ask_name(server: SocketAddr, name: &str, patience: Duration) -> io::Result<String> {
    let manner = Manner {
        target: Target {
            path: format!("/{name}?A"),
            ..Target::at(Protocol::Dns, server)
        },
        identity: Identity::Body,
        reuse: Reuse::Never,
        send: Vec::new(),
        patience,
    };
    let exchange = Client::new(&manner, None, &Ports::default()).ask().await;
    let answered = exchange
        .result
        .map_err(|failure| io::Error::other(format!("{server} was asked for {name}: {failure}")))?;
    Ok(answered.who)
}

/// A connection to the target, and how long it took.
async fn connect(
    manner: &Manner,
    local: Option<SocketAddr>,
) -> Result<(TcpStream, Duration), Failure> {
    let began = Instant::now();
    let addr = manner.target.addr;
    let connecting = async {
        let socket = if addr.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if let Some(local) = local {
            socket.bind(local)?;
        }
        let stream = socket.connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    };
    match timeout(manner.patience, connecting).await {
        Err(_) => Err(Failure::ConnectTimeout),
        Ok(Err(error)) => Err(Failure::Connect(error.kind())),
        Ok(Ok(stream)) => Ok((stream, began.elapsed())),
    }
}

/// The first line of what came, as a name.
fn first_line(bytes: &[u8]) -> String {
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    name_of(&String::from_utf8_lossy(line))
}

/// A name that can be printed.
fn name_of(text: &str) -> String {
    let visible = text.trim().chars().filter(|c| !c.is_control());
    visible.take(LONGEST_NAME).collect()
}
