//! What every item stands on: a portico of its own with Services by name, echoes behind them, and clients beside what is
//! provoked, who must not notice. Owns when a client was failed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use portico_core::object::Protocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::{interval, timeout},
};

use super::result::Line;
use crate::{
    backend, client,
    figure::number,
    report::Counts,
    stage::{Programs, Simulated, Usage, manifests},
};

/// Patience with one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than edits are taken together (50 ms), so that the next one is a single one.
pub(super) const QUIET: Duration = Duration::from_millis(120);
/// Threads of portico.
const WORKERS: u8 = 2;
/// Between the addresses of two Services: the tenth of a range is the DNS's.
const APART: u8 = 8;
/// What pools of pipes may keep for the next stream: 8 pipes for each of portico's threads.
const POOLED: u64 = 32;
/// Between two new connections beside.
const FRESH_EVERY: Duration = Duration::from_millis(5);

/// A portico; ends with the value.
pub(super) struct Ground {
    stage: Simulated,
    descriptors: u64,
}

impl Ground {
    /// One with these Services, whose names are in the order of the alphabet: the first is at `at(0)` and so on.
    pub(super) async fn up(
        programs: &Programs,
        services: &[(&str, &[SocketAddr])],
    ) -> anyhow::Result<Self> {
        let ground = Self {
            stage: Simulated::prepare()?,
            descriptors: 0,
        };
        for (place, (name, endpoints)) in (0..).zip(services) {
            ground.declare(place, name, endpoints)?;
        }
        let (_, first) = services.first().context("no Service")?;
        ground.start(programs, u64::try_from(first.len())?).await
    }

    /// One whose only Service speaks this (annotation `portico.dev/protocol`).
    pub(super) async fn speaking(
        programs: &Programs,
        protocol: &str,
        endpoint: SocketAddr,
    ) -> anyhow::Result<Self> {
        let ground = Self {
            stage: Simulated::prepare()?,
            descriptors: 0,
        };
        let annotation = format!("portico.dev/protocol: {protocol}");
        let text = manifests(ground.at(0), &[endpoint], Protocol::Tcp, Some(&annotation));
        ground.write("web", &text)?;
        ground.start(programs, 1).await
    }

    async fn start(mut self, programs: &Programs, ready: u64) -> anyhow::Result<Self> {
        self.stage.start(programs, WORKERS, ready).await?;
        self.descriptors = self.status("descriptors").await?;
        Ok(self)
    }

    /// Where the Service with this place in the alphabet is.
    pub(super) fn at(&self, place: u8) -> SocketAddr {
        let mut at = self.stage.target();
        if let std::net::IpAddr::V4(ip) = at.ip() {
            let [a, b, c, d] = ip.octets();
            at.set_ip(Ipv4Addr::new(a, b, c, d.saturating_add(APART * place)).into());
        }
        at
    }

    /// Says which endpoints a Service has.
    pub(super) fn declare(
        &self,
        place: u8,
        name: &str,
        endpoints: &[SocketAddr],
    ) -> anyhow::Result<()> {
        self.write(name, &service(name, self.at(place), endpoints))
    }

    /// Writes the manifest of a Service. An edit's time counts from then on: a busy disk keeps rename(2) long after the file
    /// is in its place, for the sake of the old one.
    pub(super) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        self.stage.write(&format!("{name}.yaml"), text)
    }

    /// A number of the status.
    pub(super) async fn status(&self, name: &str) -> anyhow::Result<u64> {
        let status = self.stage.status().await?;
        let number = status.get(name).and_then(serde_json::Value::as_u64);
        number.with_context(|| format!("the status has no {name}"))
    }

    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        self.stage.usage()
    }

    pub(super) fn log(&self) -> anyhow::Result<String> {
        self.stage.log()
    }

    /// Descriptors beyond those of the beginning, once connections have ended or patience has.
    pub(super) async fn left(&self) -> anyhow::Result<Line> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A flow lasts until nothing has come for its time: longer than this waits.
            let known = self.descriptors + self.status("flows").await?;
            let left = self.status("descriptors").await?.saturating_sub(known);
            if left <= POOLED || Instant::now() > deadline {
                let what = "descriptors more than before (pools of pipes may keep some)";
                return Ok(Line::bounded(what, number(left), number(POOLED)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A Service and a slice for each endpoint.
pub(super) fn service(name: &str, at: SocketAddr, endpoints: &[SocketAddr]) -> String {
    manifests(at, endpoints, Protocol::Tcp, None).replace("loadtest", name)
}

/// An endpoint that gives back what it gets, by TCP and by UDP.
pub(super) struct Echo {
    pub(super) addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Echo {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let socket = UdpSocket::bind(addr).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(backend::serve(listener, |mut stream| async move {
            let (mut from, mut to) = stream.split();
            // However it ends: who asked sees it.
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }));
        tasks.spawn(async move {
            let mut datagram = [0; 2048];
            loop {
                // A refusal of an earlier answer is not ours.
                if let Ok((length, from)) = socket.recv_from(&mut datagram).await {
                    let answer = datagram.get(..length).unwrap_or_default();
                    let _ = socket.send_to(answer, from).await;
                }
            }
        });
        Ok(Self {
            addr,
            _tasks: tasks,
        })
    }
}

/// A new connection with one request every now and then.
pub(super) async fn fresh(at: SocketAddr, until: Instant) -> Counts {
    let mut counts = Counts::default();
    let mut pace = interval(FRESH_EVERY);
    while Instant::now() < until {
        pace.tick().await;
        let began = Instant::now();
        match client::ask(at, PATIENCE).await {
            Ok(name) => counts.answered(name, began.elapsed()),
            Err(failure) => counts.failed(&failure.to_string()),
        }
    }
    counts
}

/// Connections to an echo that stay.
pub(super) struct Kept {
    streams: Vec<TcpStream>,
}

impl Kept {
    pub(super) async fn open(at: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            streams.push(TcpStream::connect(at).await?);
        }
        let mut kept = Self { streams };
        let counts = kept.check().await;
        if counts.failed_total() > 0 {
            bail!("connections fail before anything is done: {counts:?}");
        }
        Ok(kept)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.streams.extend(other.streams);
    }

    /// Whether each of them still works.
    pub(super) async fn check(&mut self) -> Counts {
        let mut counts = Counts::default();
        for stream in &mut self.streams {
            let began = Instant::now();
            match timeout(PATIENCE, ping(stream)).await {
                Ok(Ok(())) => counts.answered("echo".into(), began.elapsed()),
                Ok(Err(error)) => counts.failed(&format!("{:?}", error.kind())),
                Err(_) => counts.failed("no answer"),
            }
        }
        counts
    }

    /// Asks them all once a second, and once more in the end, of which it tells.
    pub(super) async fn check_until(&mut self, until: Instant) -> Counts {
        let mut pace = interval(Duration::from_secs(1));
        while Instant::now() < until {
            pace.tick().await;
            self.check().await;
        }
        self.check().await
    }
}

/// There and back.
pub(super) async fn ping(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"ping").await?;
    stream.read_exact(&mut [0; 4]).await?;
    Ok(())
}

/// Microseconds in milliseconds.
pub(super) fn ms(micros: u128) -> f64 {
    number(u64::try_from(micros).unwrap_or(u64::MAX)) / 1000.0
}
