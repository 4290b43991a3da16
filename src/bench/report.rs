//! What a run came to, as one value that is printed, written as JSON, drawn, and compared. Owns the shape, which is
//! versioned; the arithmetic is in `build`.

mod build;
mod counts;

use std::collections::BTreeMap;

use portico_core::observe::evenness::Evenness;
use serde::{Deserialize, Serialize};

use super::{judge::Verdict, stats::Interval, text::millis};
pub(super) use build::{Figures, Input, build, corrected_histogram, spread_of_latency};

/// Version of the shape: changed when a field changes its meaning or goes.
pub const SCHEMA: &str = "portico.dev/bench/v1";

/// The whole report.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Even or not.
    pub verdict: Verdict,
    /// What was asked.
    pub run: Run,
    /// Evenness by unit; the first is the one that is judged.
    pub units: Vec<Unit>,
    /// Times with one set of endpoints each.
    pub epochs: Vec<EpochReport>,
    /// In which order endpoints answered.
    pub order: Order,
    /// Milliseconds.
    pub latency: Latency,
    /// By who answered.
    pub endpoints: Vec<EndpointLatency>,
    /// Second by second.
    pub timeline: Vec<Second>,
    /// Failures by kind.
    pub errors: Vec<ErrorKind>,
    /// Three counts of the same: the client's, the program's, the endpoints'.
    pub counts: Counts,
    /// Against asking the endpoints themselves.
    pub overhead: Option<Overhead>,
    /// Whether the generator kept its times.
    pub generator: Generator,
    /// Where and with what it ran.
    pub provenance: Provenance,
    /// What `--fail-if` said.
    pub gates: Vec<GateResult>,
}

/// What was asked, and how much of it was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Where, and what.
    pub target: String,
    /// The address.
    pub address: String,
    /// The Service, if one was named.
    pub service: Option<String>,
    /// Whether connections were kept.
    pub keep_alive: bool,
    /// Requests a second that were intended.
    pub rate: f64,
    /// Clients at a time.
    pub clients: u16,
    /// Requests that were sent.
    pub requests: u64,
    /// Of these, answered.
    pub answered: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Requests that had fallen due when the time was over, and were not begun for want of a free client.
    pub unsent: u64,
    /// Connections that were made.
    pub connections: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// Answered a second.
    pub achieved_rate: f64,
    /// How the program chooses, where it is known.
    pub balance: Option<String>,
    /// Session affinity, where it is declared.
    pub affinity_seconds: Option<u64>,
}

impl Run {
    /// Whether clearly less was answered than was asked.
    pub(super) fn misses_its_rate(&self) -> bool {
        self.achieved_rate < 0.95 * self.rate
    }

    /// Whether clearly less was sent than was asked, answered or not.
    pub(super) fn falls_behind(&self) -> bool {
        super::pace::float(self.requests) / self.seconds.max(1e-9) < 0.95 * self.rate
    }
}

/// Evenness in one unit of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// `connections`, `requests`, `bytes`.
    pub unit: String,
    /// Over the whole run; null when there was nothing.
    pub evenness: Option<Evenness>,
    /// Who got how much.
    pub shares: Vec<Share>,
}

/// What one endpoint got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Who.
    pub name: String,
    /// How much.
    pub observed: u64,
    /// How much was due, added up over the epochs.
    pub expected: f64,
    /// Standard deviations from it, as independent picks would have them.
    pub z: f64,
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EpochReport {
    /// Seconds since the run began.
    pub from: f64,
    /// Seconds since the run began.
    pub to: f64,
    /// Who was there, with the weight of each.
    pub members: BTreeMap<String, u64>,
    /// By unit, in the order of the report's units; null when nothing was answered in it.
    pub units: BTreeMap<String, Option<Evenness>>,
    /// In which order its endpoints answered.
    pub order: EpochOrder,
    /// Answers by somebody who was no member any more, or not yet.
    pub strangers: u64,
}

/// In which order endpoints answered within one epoch; see [`Order`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EpochOrder {
    /// Share of answers by the same endpoint as the one before.
    pub repeat_rate: f64,
    /// The same within each client.
    pub client_repeat_rate: f64,
    /// How many answers lie between two of one endpoint, most often; null when none answered twice.
    pub usual_gap: Option<u64>,
    /// Share of distances that are as long.
    pub usual_gap_share: f64,
}

/// In which order endpoints answered, by the time of sending.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Share of answers by the same endpoint as the one before: 0 with turns, 1/k by chance.
    pub repeat_rate: f64,
    /// The same within each client.
    pub client_repeat_rate: f64,
    /// What chance would give.
    pub repeat_rate_by_chance: f64,
    /// How many answers lie between two of one endpoint: distance and count, up to 4 times the endpoints.
    pub gaps: BTreeMap<u64, u64>,
    /// Coefficient of variation of the worst second.
    pub worst_second_cov: Option<f64>,
}

/// Percentiles of one measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentile {
    /// 50, 99.9, 100 for the most.
    pub percentile: f64,
    /// Milliseconds.
    pub millis: f64,
    /// Samples above it.
    pub above: u64,
}

impl Percentile {
    /// What it is called: `p99.9`, and `most` for the last.
    pub(super) fn title(&self) -> String {
        if self.percentile >= 100.0 {
            "most".to_owned()
        } else {
            format!("p{}", self.percentile)
        }
    }

    /// The time at `place` of a list of them for people; `-` where there is none.
    pub(super) fn shown_at(list: &[Self], place: usize) -> String {
        list.get(place)
            .map_or_else(|| "-".to_owned(), |entry| millis(entry.millis))
    }
}

/// Latencies of answered requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// From when a request was to be sent.
    pub corrected: Vec<Percentile>,
    /// From when it was sent.
    pub uncorrected: Vec<Percentile>,
    /// Of connecting.
    pub connect: Vec<Percentile>,
    /// From sending to the first byte.
    pub first_byte: Vec<Percentile>,
    /// Samples.
    pub count: u64,
}

/// Latency by endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointLatency {
    /// Who.
    pub name: String,
    /// Answers.
    pub count: u64,
    /// Milliseconds, corrected.
    pub p50: f64,
    /// Milliseconds, corrected.
    pub p99: f64,
}

/// One second of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Second {
    /// Which.
    pub second: u64,
    /// Answers by endpoint.
    pub answers: BTreeMap<String, u64>,
    /// Failures.
    pub failed: u64,
}

/// One kind of failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorKind {
    /// In words.
    pub error: String,
    /// How many.
    pub count: u64,
}

/// The same counted three times.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// A row for each endpoint.
    pub rows: Vec<CountRow>,
    /// Connections that the client made, answered or not.
    pub client_connections: u64,
    /// Connections that the program accepted meanwhile, whoever made them.
    pub accepted: Option<u64>,
    /// Attempts that the program repeated elsewhere.
    pub retries: Option<u64>,
    /// Connections that it turned away.
    pub rejected: Option<u64>,
    /// What does not agree, a sentence each.
    pub mismatches: Vec<String>,
}

/// What each counted for one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountRow {
    /// Who.
    pub name: String,
    /// Connections that the client made and that this endpoint answered.
    pub client_connections: u64,
    /// Requests that it answered.
    pub client_requests: u64,
    /// Times that the program chose it, less failed attempts; null for one that left during the run: its last ones
    /// are not seen.
    pub program: Option<u64>,
    /// Requests by the endpoint's own count; null for one that left, or that began to count anew.
    pub endpoint: Option<u64>,
}

/// Against asking the endpoints themselves, block by block in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overhead {
    /// Pairs of blocks.
    pub pairs: usize,
    /// Requests of a block.
    pub block_requests: u64,
    /// Milliseconds at the median, directly.
    pub direct_p50: f64,
    /// Milliseconds at the median, through the program.
    pub through_p50: f64,
    /// Difference of the medians, with its interval.
    pub p50: Interval,
    /// Difference of the 99th percentiles, with its interval.
    pub p99: Interval,
    /// Failed requests of all blocks.
    pub failed: u64,
}

/// Whether the generator kept its times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generator {
    /// Milliseconds between when a request was due and when it was released.
    pub lag_p50: f64,
    /// See `lag_p50`.
    pub lag_p99: f64,
    /// See `lag_p50`.
    pub lag_most: f64,
    /// Share of requests that waited for a free client: the other side was too slow for so few clients.
    pub queued: f64,
    /// CPU time of the generator by the time of the run.
    pub cpu: f64,
    /// Why the run says nothing, if it does.
    pub invalid: Option<String>,
}

/// Where and with what it ran.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// The command line.
    pub command: Vec<String>,
    /// Version of the generator.
    pub version: String,
    /// When it began (RFC 3339).
    pub date: String,
    /// Hash of the Services and workloads as they were declared (xxh3).
    pub manifests: Option<String>,
    /// Kernel.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// Cores that it may use.
    pub cores: usize,
    /// Most descriptors.
    pub open_files: u64,
    /// Ports for connections that name none.
    pub port_range: String,
    /// Longest queue of connections that wait to be accepted.
    pub somaxconn: String,
    /// Clock of the kernel.
    pub clock_source: String,
}

/// One `--fail-if`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateResult {
    /// As it was written.
    pub condition: String,
    /// What the figure was; null when there is none.
    pub value: Option<f64>,
    /// Whether the run fails by it.
    pub fails: bool,
}
