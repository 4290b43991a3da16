//! The clients of a measurement. Owns which generator makes which load and what each of them hands back.

pub(crate) mod bulk;
mod dnsperf;
mod h2load;
mod http;
mod idle;
mod sessions;
mod sweep;
mod wrk;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
pub(crate) use idle::hold;
use serde::{Deserialize, Serialize};
pub(crate) use sessions::Sessions;
pub(crate) use sweep::at_rate;

use crate::{
    figure::{Figure, Figures, number},
    scenario::Load,
    stage::Programs,
    stats, udp,
};

/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;
/// Longer than the load's time by this is a hang.
const OVERTIME: Duration = Duration::from_mins(1);

/// What a load did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Answers.
    pub(crate) requests: u64,
    /// Connections that were opened for them.
    pub(crate) connections: u64,
    /// Bytes that arrived.
    pub(crate) bytes: u64,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// What the client itself saw.
    pub(crate) figures: Figures,
    /// Failures by kind.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Rates that were tried.
    pub(crate) steps: Vec<Step>,
}

/// One rate of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Requests intended in a second; of the first step, which waits for nothing, what was reached.
    pub(crate) rate: f64,
    /// Answers in a second.
    pub(crate) reached: f64,
    /// From the intended time of sending.
    pub(crate) p50_us: f64,
    /// From the intended time of sending.
    pub(crate) p99_us: f64,
    /// From the time of sending, which hides what waited before it was sent.
    pub(crate) p99_uncorrected_us: f64,
}

impl Done {
    /// Adds what every load has: rates, failures.
    fn finish(mut self) -> Self {
        let seconds = self.elapsed.as_secs_f64().max(1e-6);
        let failed = self.failures.values().sum();
        for (figure, value) in [
            (Figure::RequestsPerSecond, number(self.requests) / seconds),
            (
                Figure::ConnectionsPerSecond,
                number(self.connections) / seconds,
            ),
            (
                Figure::GigabytesPerSecond,
                number(self.bytes) / 1e9 / seconds,
            ),
            (Figure::Failed, number(failed)),
        ] {
            self.figures.entry(figure).or_insert(value);
        }
        self
    }

    fn latency(&mut self, latency: &Histogram<u64>) {
        for (figure, share) in [
            (Figure::LatencyP50, 0.5),
            (Figure::LatencyP90, 0.9),
            (Figure::LatencyP99, 0.99),
        ] {
            self.figures
                .insert(figure, number(latency.value_at_quantile(share)));
        }
    }
}

/// A histogram of microseconds.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).context("a histogram with these bounds")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Puts a load on `target` for a time. `Idle` is `hold`, since it is not over when it is measured.
///
/// # Errors
/// The generator fails; failures of what it loads are counted instead.
pub(crate) async fn run(
    load: &Load,
    target: SocketAddr,
    time: Duration,
    programs: &Programs,
) -> anyhow::Result<Done> {
    let done = async {
        let until = Instant::now() + time;
        match load {
            Load::Requests { connections } => match &programs.wrk {
                Some(wrk) => wrk::run(wrk, target, *connections, time).await,
                None => sessions(Sessions::endless(target, *connections), until).await,
            },
            Load::Streams {
                connections,
                streams,
                ..
            } => {
                let asked = load.asked().context("nothing is asked")?;
                h2load::run(programs, (asked, target), (*connections, *streams), time).await
            }
            Load::Sessions { clients, requests } => {
                sessions(Sessions::of(target, *clients, *requests), until).await
            }
            Load::Churn { clients, .. } => sessions(Sessions::of(target, *clients, 1), until).await,
            Load::Bulk {} => bulk::run(target, time).await,
            Load::Sweep {
                connections,
                shares,
                limit_ms,
            } => {
                sweep::run(
                    sweep::Sweep::new(target, *connections, shares, *limit_ms),
                    time,
                )
                .await
            }
            Load::Steady { connections, rate } => {
                let sweep = sweep::Sweep::new(target, *connections, &[], 0);
                sweep::steady(sweep, *rate, time).await
            }
            Load::Udp { clients, window } => {
                let clients = udp::Clients {
                    sockets: *clients,
                    window: *window,
                    bytes: udp::BYTES,
                };
                udp(clients, target, time).await
            }
            Load::Dns { .. } | Load::DnsReload { .. } => {
                let asked = dnsperf::Asked::by(load, programs).context("nothing is asked")?;
                dnsperf::run(asked, target, time).await
            }
            Load::Idle { .. } => anyhow::bail!("idle connections are held, not run"),
        }
    };
    let limit = time * 30 + OVERTIME;
    let done = tokio::time::timeout(limit, done)
        .await
        .context("the load did not come to its end")??;
    Ok(done.finish())
}

async fn udp(clients: udp::Clients, target: SocketAddr, time: Duration) -> anyhow::Result<Done> {
    let began = Instant::now();
    let seen = tokio::task::spawn_blocking(move || udp::load(clients, target, time))
        .await
        .context("the clients ended")??;
    Ok(Done {
        requests: seen.answers,
        elapsed: began.elapsed(),
        failures: (seen.lost > 0)
            .then(|| ("lost".to_owned(), seen.lost))
            .into_iter()
            .collect(),
        ..Done::default()
    })
}

async fn sessions(shape: Sessions, until: Instant) -> anyhow::Result<Done> {
    let began = Instant::now();
    let tally = sessions::run(shape, until).await?;
    let mut done = Done {
        requests: tally.requests.values().sum(),
        connections: tally.connections.values().sum(),
        elapsed: began.elapsed(),
        failures: tally.failures,
        ..Done::default()
    };
    let by_requests: Vec<f64> = tally.requests.values().copied().map(number).collect();
    let (least, most) = (
        tally.connections.values().min(),
        tally.connections.values().max(),
    );
    let spread = most.zip(least).map_or(0, |(most, least)| most - least);
    done.figures.insert(Figure::Spread, number(spread));
    done.figures
        .insert(Figure::Unevenness, stats::variation(&by_requests));
    done.latency(&tally.latency);
    Ok(done)
}
