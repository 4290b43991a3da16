//! Clients that open a connection, ask a number of times, and open the next one. Owns who is counted how: a connection
//! by who answers first on it, every request by who answers it. Retries nothing.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::{histogram, http, micros};

/// Patience with one connection and with one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How they go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sessions {
    target: SocketAddr,
    clients: u16,
    requests: Option<u32>,
}

impl Sessions {
    /// A number of requests on each connection; the time ends between two connections.
    pub(crate) const fn of(target: SocketAddr, clients: u16, requests: u32) -> Self {
        Self {
            target,
            clients,
            requests: Some(requests),
        }
    }

    /// One connection a client; the time ends between two requests.
    pub(crate) const fn endless(target: SocketAddr, clients: u16) -> Self {
        Self {
            target,
            clients,
            requests: None,
        }
    }
}

/// Who answered and how long it took.
pub(super) struct Tally {
    pub(super) connections: BTreeMap<String, u64>,
    pub(super) requests: BTreeMap<String, u64>,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) latency: Histogram<u64>,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            connections: BTreeMap::new(),
            requests: BTreeMap::new(),
            failures: BTreeMap::new(),
            latency: histogram()?,
        })
    }

    fn add(&mut self, part: Self) -> anyhow::Result<()> {
        for (into, from) in [
            (&mut self.connections, part.connections),
            (&mut self.requests, part.requests),
            (&mut self.failures, part.failures),
        ] {
            for (name, number) in from {
                *into.entry(name).or_default() += number;
            }
        }
        self.latency.add(part.latency)?;
        Ok(())
    }
}

/// Adds one without making a name that is there.
fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

/// Lets the clients go on until the time is over.
pub(super) async fn run(shape: Sessions, until: Instant) -> anyhow::Result<Tally> {
    let mut clients = JoinSet::new();
    for _ in 0..shape.clients {
        clients.spawn(client(shape, until));
    }
    let mut tally = Tally::new()?;
    while let Some(part) = clients.join_next().await {
        tally.add(part??)?;
    }
    Ok(tally)
}

async fn client(shape: Sessions, until: Instant) -> anyhow::Result<Tally> {
    let mut tally = Tally::new()?;
    let mut received = Vec::with_capacity(4096);
    while Instant::now() < until {
        if let Err(failure) = session(shape, until, &mut tally, &mut received).await {
            count(&mut tally.failures, &failure);
        }
    }
    Ok(tally)
}

async fn session(
    shape: Sessions,
    until: Instant,
    tally: &mut Tally,
    received: &mut Vec<u8>,
) -> Result<(), String> {
    let mut began = Instant::now();
    let mut stream = patient("connect", TcpStream::connect(shape.target)).await?;
    // Small requests must not wait for each other's acknowledgement.
    let _ = stream.set_nodelay(true);
    received.clear();
    for number in 1..=shape.requests.unwrap_or(u32::MAX) {
        let is_last = shape.requests == Some(number);
        let request = http::request(shape.target, is_last);
        patient("send", stream.write_all(&request)).await?;
        let length = loop {
            if let Some(answer) = http::answer(received)? {
                if number == 1 {
                    count(&mut tally.connections, answer.name);
                }
                count(&mut tally.requests, answer.name);
                break answer.length;
            }
            if patient("receive", stream.read_buf(received)).await? == 0 {
                return Err("closed without an answer".into());
            }
        };
        received.drain(..length);
        tally.latency.saturating_record(micros(began.elapsed()));
        began = Instant::now();
        if shape.requests.is_none() && began >= until {
            return Ok(());
        }
    }
    // The server closes first, so that the client's port is free at once.
    if patient("close", stream.read_buf(received)).await? > 0 {
        return Err("more than was asked for".into());
    }
    Ok(())
}

async fn patient<T>(what: &str, work: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{what}: {:?}", error.kind())),
        Err(_) => Err(format!("{what}: took too long")),
    }
}
