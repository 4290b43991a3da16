//! One connection with one request, and many of them at a time. Owns what counts as a failure; retries nothing, so
//! that no failure is hidden.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::report::Counts;

/// Most bytes of an answer that are read.
const ANSWER_BYTES: u64 = 64 * 1024;

/// How the load is shaped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Where to.
    pub(crate) target: SocketAddr,
    /// Connections that are open at a time.
    pub(crate) clients: u16,
    /// Connections to make; they may end earlier by `Stop`.
    pub(crate) connections: u64,
    /// Patience with one connection, from connecting to the last byte.
    pub(crate) patience: Duration,
}

/// Ends a load early.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// No connection is begun after this.
    pub(crate) fn stop(&self) {
        self.0.store(true, Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Why a connection failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be made.
    Connect(io::Error),
    /// It broke.
    Broken(io::Error),
    /// It took too long.
    Late,
    /// It ended without a whole answer.
    Cut,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "connect: {:?}", error.kind()),
            Self::Broken(error) => write!(f, "broken: {:?}", error.kind()),
            Self::Late => f.write_str("no whole answer in time"),
            Self::Cut => f.write_str("closed without an answer"),
        }
    }
}

/// Makes the connections of `load` and counts the answers.
pub(crate) async fn run(load: Load, stop: &Stop) -> Counts {
    let drawn = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..load.clients {
        clients.spawn(client(load, stop.clone(), Arc::clone(&drawn)));
    }
    let mut counts = Counts::default();
    while let Some(result) = clients.join_next().await {
        match result {
            Ok(part) => counts.add(part),
            Err(error) => counts.failed(&format!("the client itself: {error}")),
        }
    }
    counts
}

async fn client(load: Load, stop: Stop, drawn: Arc<AtomicU64>) -> Counts {
    let mut counts = Counts::default();
    while !stop.is_stopped() && drawn.fetch_add(1, Relaxed) < load.connections {
        let began = Instant::now();
        match ask(load.target, load.patience).await {
            Ok(name) => counts.answered(name, began.elapsed()),
            Err(failure) => counts.failed(&failure.to_string()),
        }
    }
    counts
}

/// Connects, asks, and returns the first line of the answer's body.
pub(crate) async fn ask(target: SocketAddr, patience: Duration) -> Result<String, Failure> {
    let answer = fetch(target, patience).await?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body)
        .unwrap_or_default();
    let name = body.lines().next().unwrap_or_default().trim();
    if name.is_empty() {
        Err(Failure::Cut)
    } else {
        Ok(name.to_owned())
    }
}

/// Connects, asks, and returns the whole answer.
pub(crate) async fn fetch(target: SocketAddr, patience: Duration) -> Result<String, Failure> {
    timeout(patience, exchange(target))
        .await
        .unwrap_or(Err(Failure::Late))
}

async fn exchange(target: SocketAddr) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(target).await.map_err(Failure::Connect)?;
    let request = format!("GET / HTTP/1.0\r\nHost: {target}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(Failure::Broken)?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES)
        .read_to_end(&mut answer)
        .await
        .map_err(Failure::Broken)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
