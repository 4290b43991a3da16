//! Requests at intended times, at rising rates. Owns the open loop: latency counts from when a request should have been
//! sent, so that a stall is seen by all that it held up (coordinated omission), and the generator's own lag is told.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;

use super::{Done, Step, histogram, http, micros};
use crate::figure::{Figure, number};

/// Patience with one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the time of a step, how long answers that are late already are waited for.
const BACKLOG: Duration = Duration::from_millis(300);
/// Share of the intended rate that must be reached.
const REACHED: f64 = 0.98;

/// The rates and what holds.
#[derive(Debug, Clone)]
pub(super) struct Sweep {
    target: SocketAddr,
    connections: u16,
    shares: Vec<u16>,
    limit_us: f64,
}

impl Sweep {
    /// `shares` in per cent of the highest rate, `limit_ms` for the 99th percentile.
    pub(super) fn new(target: SocketAddr, connections: u16, shares: &[u16], limit_ms: u32) -> Self {
        Self {
            target,
            connections,
            shares: shares.to_vec(),
            limit_us: f64::from(limit_ms) * 1000.0,
        }
    }
}

/// Each rate for `time`: first as fast as answers come, then the shares of that, at last half of the knee.
pub(super) async fn run(sweep: Sweep, time: Duration) -> anyhow::Result<Done> {
    // Threads that block, one a connection: a sleep in the kernel is true to 0.1 ms, a runtime's timer to 1 ms.
    tokio::task::spawn_blocking(move || sweep_now(&sweep, time))
        .await
        .context("the generator ended")?
}

/// As fast as answers come for `time`, then at one rate for `time`, of which latency is told.
pub(super) async fn steady(sweep: Sweep, rate: u32, time: Duration) -> anyhow::Result<Done> {
    tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let mut done = Done::default();
        let (highest, _) = part(&sweep, None, time, &mut done)?;
        done.figures
            .insert(Figure::RequestsPerSecond, highest.reached);
        let (_, latency) = part(&sweep, Some(f64::from(rate)), time, &mut done)?;
        done.latency(&latency);
        done.elapsed = began.elapsed();
        Ok(done)
    })
    .await
    .context("the generator ended")?
}

/// At one rate for `time`: latency from the intended time of sending, and what failed.
///
/// # Errors
/// The generator fails.
pub(crate) async fn at_rate(
    target: SocketAddr,
    connections: u16,
    rate: u32,
    time: Duration,
) -> anyhow::Result<Done> {
    let sweep = Sweep::new(target, connections, &[], 0);
    tokio::task::spawn_blocking(move || {
        let mut done = Done::default();
        let (_, latency) = part(&sweep, Some(f64::from(rate)), time, &mut done)?;
        done.latency(&latency);
        Ok(done)
    })
    .await
    .context("the generator ended")?
}

fn sweep_now(sweep: &Sweep, time: Duration) -> anyhow::Result<Done> {
    let began = Instant::now();
    let mut done = Done::default();
    let (highest, _) = part(sweep, None, time, &mut done)?;
    let mut knee = None;
    for share in &sweep.shares {
        let rate = highest.reached * f64::from(*share) / 100.0;
        let (step, _) = part(sweep, Some(rate), time, &mut done)?;
        if step.p99_us > sweep.limit_us || step.reached < REACHED * rate {
            break;
        }
        knee = Some(rate);
    }
    done.figures
        .insert(Figure::RequestsPerSecond, highest.reached);
    // Without a rate that holds there is no knee, and the figure is missing.
    if let Some(knee) = knee {
        let (half, _) = part(sweep, Some(knee / 2.0), time, &mut done)?;
        done.figures.insert(Figure::KneeRate, knee);
        done.figures
            .insert(Figure::LatencyP50AtHalfKnee, half.p50_us);
        done.figures
            .insert(Figure::LatencyP99AtHalfKnee, half.p99_us);
    }
    done.elapsed = began.elapsed();
    Ok(done)
}

/// What the threads of one step saw.
struct Seen {
    corrected: Histogram<u64>,
    uncorrected: Histogram<u64>,
    lag: Histogram<u64>,
    answers: u64,
    failed: Option<io::Error>,
}

/// One rate, and latency from the intended time of sending.
fn part(
    sweep: &Sweep,
    rate: Option<f64>,
    time: Duration,
    done: &mut Done,
) -> anyhow::Result<(Step, Histogram<u64>)> {
    let start = Instant::now() + Duration::from_millis(20);
    let seen: Vec<anyhow::Result<Seen>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..sweep.connections)
            .map(|number| scope.spawn(move || client(sweep, rate, number, (start, time))))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))
            })
            .collect()
    });
    let mut all = Seen::new()?;
    for part in seen {
        let part = part?;
        all.corrected.add(part.corrected)?;
        all.uncorrected.add(part.uncorrected)?;
        all.lag.add(part.lag)?;
        all.answers += part.answers;
        if let Some(error) = part.failed {
            *done
                .failures
                .entry(format!("{:?}", error.kind()))
                .or_default() += 1;
        }
    }
    let reached = number(all.answers) / start.elapsed().as_secs_f64().max(time.as_secs_f64());
    let step = Step {
        rate: rate.unwrap_or(reached),
        reached,
        p50_us: number(all.corrected.value_at_quantile(0.5)),
        p99_us: number(all.corrected.value_at_quantile(0.99)),
        p99_uncorrected_us: number(all.uncorrected.value_at_quantile(0.99)),
    };
    if rate.is_some() {
        let lag = number(all.lag.value_at_quantile(0.99));
        let worst = done.figures.entry(Figure::GeneratorLag).or_default();
        *worst = worst.max(lag);
    }
    done.requests += all.answers;
    done.steps.push(step.clone());
    Ok((step, all.corrected))
}

impl Seen {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            corrected: histogram()?,
            uncorrected: histogram()?,
            lag: histogram()?,
            answers: 0,
            failed: None,
        })
    }
}

/// Every n-th request of a rate, n being the number of connections.
fn client(
    sweep: &Sweep,
    rate: Option<f64>,
    number: u16,
    (start, time): (Instant, Duration),
) -> anyhow::Result<Seen> {
    let mut seen = Seen::new()?;
    let mut work = || -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&sweep.target, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = http::request(sweep.target, false);
        let mut received = Vec::with_capacity(4096);
        let pause = rate.map(|rate| Duration::from_secs_f64(f64::from(sweep.connections) / rate));
        let first = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(f64::from(number) / rate)
        });
        let mut due = start + first;
        loop {
            let is_free = wait(due);
            let sent = Instant::now();
            let end = start + time;
            if due >= end || sent >= end + BACKLOG {
                return Ok(());
            }
            if is_free {
                seen.lag.saturating_record(micros(sent - due));
            }
            exchange(&mut stream, &request, &mut received)?;
            let now = Instant::now();
            seen.answers += 1;
            seen.corrected.saturating_record(micros(now - due));
            seen.uncorrected.saturating_record(micros(now - sent));
            due = pause.map_or(now, |pause| due + pause);
        }
    };
    seen.failed = work().err();
    Ok(seen)
}

/// Waits until `due`; false if it was over already.
fn wait(due: Instant) -> bool {
    let mut has_waited = false;
    while let Some(left) = due
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        has_waited = true;
        thread::park_timeout(left);
    }
    has_waited
}

fn exchange(stream: &mut TcpStream, request: &[u8], received: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(request)?;
    received.clear();
    let mut buffer = [0; 4096];
    while http::answer(received).map_err(io::Error::other)?.is_none() {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    Ok(())
}
