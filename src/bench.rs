//! The load generator behind `portico bench`: open loop, with a verdict on evenness, latencies from the intended time,
//! and what the program costs beside asking its endpoints. Owns the run from the first request to the report; how a
//! running program is asked is the caller's, and so is where the report goes.

pub mod compare;
mod drive;
mod exchange;
pub mod figure;
mod html;
mod judge;
mod log;
mod overhead;
mod pace;
mod provenance;
pub mod report;
mod sample;
pub mod stats;
pub mod target;
mod text;
pub mod view;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

pub use drive::{Load, Progress};
pub use exchange::{Manner, Reuse, ask_name};
pub use html::html;
pub use judge::{Verdict, Word};
pub use log::log;
pub use sample::MOST_REQUESTS;
pub use text::text;

use drive::Driven;
use figure::Gate;
use judge::{Case, judge};
use pace::float;
use report::{Figures, Generator, Input, Provenance, Report, Run, SCHEMA};
use view::View;

/// Above this share of one core, the generator's only one, it is what limits the rate.
const BUSY: f64 = 0.85;

/// Longest time in which endpoints may say how much they have answered.
const TELLING: Duration = Duration::from_secs(2);

/// How many of them are asked at a time.
const AT_A_TIME: usize = 32;

/// Everything that a run depends on.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How it is asked.
    pub manner: Manner,
    /// How much and how fast.
    pub load: Load,
    /// The Service, if one was named.
    pub service: Option<String>,
    /// Shares that are expected of those who answer, by name, where the program does not say.
    pub weights: BTreeMap<String, u64>,
    /// How many endpoints there are, where nobody names them; 0 where that is not known.
    pub endpoints: usize,
    /// Whether the endpoints are asked directly too, to know what the program costs.
    pub overhead: bool,
    /// How late the generator may be at the 99th percentile.
    pub most_lag: Duration,
    /// Conditions under which the run fails.
    pub gates: Vec<Gate>,
    /// What is known of where it runs before it begins.
    pub provenance: Provenance,
}

/// What is in front of the endpoints, where it can be asked.
pub trait Program {
    /// Asks it now.
    fn look(&mut self) -> Option<View>;
    /// What was seen since the run began, in order.
    fn looks(&mut self) -> Vec<View>;
}

/// The outcome of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that is known of it.
    pub report: Report,
    /// Corrected latencies as an `HdrHistogram` log.
    pub log: Vec<u8>,
}

/// Runs it.
///
/// # Errors
/// The kernel has no timers for us.
pub async fn run(
    plan: &Plan,
    program: &mut dyn Program,
    progress: &Rc<Progress>,
    cancel: &CancellationToken,
) -> io::Result<Outcome> {
    let first = program.look();
    let endpoints: Vec<SocketAddr> = first.iter().flat_map(addresses).collect();
    let before = served(&plan.manner, first.as_ref()).await;
    let began = Instant::now();
    let cpu = cpu_time();
    let driven = drive::run(&plan.manner, &[], &plan.load, progress, cancel).await?;
    let cpu = cpu_time().saturating_sub(cpu);
    // The last answer may be here before its connection is counted as ended: what is asked now is later than both.
    let last = program.look();
    let after = served(&plan.manner, last.as_ref()).await;
    let views: Vec<View> = first
        .into_iter()
        .chain(program.looks())
        .chain(last)
        .collect();
    progress.is_overhead.set(true);
    let overhead = if plan.overhead && !endpoints.is_empty() && !cancel.is_cancelled() {
        overhead::measure(&plan.manner, &plan.load, &endpoints, cancel).await?
    } else {
        None
    };
    let was_there = |name: &str| {
        let first = views.first().into_iter();
        let mut endpoints = first.flat_map(|view| &view.endpoints);
        endpoints.any(|endpoint| endpoint.title() == name)
    };
    let served = difference(&before, &after, was_there);
    let run = run_of(plan, &driven, views.last());
    let generator = generator(plan, &run, &driven, cpu);
    let log = log(&report::corrected_histogram(&driven.samples), driven.took);
    let figures = report::build(&Input {
        samples: &driven.samples,
        keep_alive: run.keep_alive,
        began,
        took: driven.took,
        views: &views,
        weights: &plan.weights,
        endpoints: plan.endpoints,
        abandoned: driven.abandoned,
        served: &served,
    });
    let mut report = compose(plan, run, figures, generator);
    report.overhead = overhead;
    report.gates = plan.gates.iter().map(|gate| gate.check(&report)).collect();
    Ok(Outcome { report, log })
}

/// The report without what is measured after the run.
fn compose(plan: &Plan, run: Run, figures: Figures, generator: Generator) -> Report {
    let unit = figures.units.first().map_or("", |unit| &*unit.unit);
    let mut verdict = judge(&Case {
        whole: figures.units.first().and_then(|unit| unit.evenness),
        epochs: figures
            .epochs
            .iter()
            .filter_map(|epoch| epoch.units.get(unit).copied().flatten())
            .collect(),
        order: &figures.order,
        is_known: plan.service.is_some() || plan.endpoints > 0 || !plan.weights.is_empty(),
        silent: &figures.silent,
        has_weights: figures.has_weights,
        is_sticky: run.affinity_seconds.is_some() || run.balance.as_deref() == Some("maglev"),
        asked: run.requests,
        failed: run.failed,
    });
    if let Some(why) = &generator.invalid {
        verdict.word = Word::Invalid;
        verdict.reasons.insert(0, why.clone());
    } else if run.falls_behind() {
        verdict.reasons.push(format!(
            "{:.0} a second were asked for and {:.0} answered: corrected latencies are those of a queue that grew",
            run.rate, run.achieved_rate
        ));
    }
    Report {
        schema: SCHEMA.to_owned(),
        verdict,
        run,
        units: figures.units,
        epochs: figures.epochs,
        order: figures.order,
        latency: figures.latency,
        endpoints: figures.endpoints,
        timeline: figures.timeline,
        errors: figures.errors,
        counts: figures.counts,
        overhead: None,
        generator,
        provenance: provenance::of_this_machine(plan.provenance.clone()),
        gates: Vec::new(),
    }
}

fn addresses(view: &View) -> impl Iterator<Item = SocketAddr> {
    view.endpoints.iter().map(|endpoint| endpoint.address)
}

fn run_of(plan: &Plan, driven: &Driven, view: Option<&View>) -> Run {
    let list = &driven.samples.list;
    let count = |is: &dyn Fn(&sample::Sample) -> bool| {
        u64::try_from(list.iter().filter(|sample| is(sample)).count()).unwrap_or(u64::MAX)
    };
    let answered = count(&|sample| matches!(sample.outcome, sample::Outcome::By(_)));
    let requests = count(&|_| true);
    let seconds = driven.took.as_secs_f64();
    Run {
        target: plan.manner.target.to_string(),
        address: plan.manner.target.addr.to_string(),
        service: plan.service.clone(),
        keep_alive: plan.manner.reuse == Reuse::KeepAlive,
        rate: plan.load.rate,
        clients: plan.load.clients,
        requests,
        answered,
        failed: requests - answered,
        unsent: driven.unsent,
        connections: count(&|sample| sample.connect.is_some()),
        seconds,
        achieved_rate: float(answered) / seconds.max(1e-9),
        balance: view.map(|view| view.balance.clone()),
        affinity_seconds: view.and_then(|view| view.affinity_seconds),
    }
}

fn generator(plan: &Plan, run: &Run, driven: &Driven, cpu: Duration) -> Generator {
    let lag = |percentile| float(driven.lag.value_at_percentile(percentile)) / 1e6;
    let most = plan.most_lag.as_secs_f64() * 1e3;
    let late = |sample: &&sample::Sample| sample.sent.saturating_sub(sample.intended) > 1_000_000;
    let queued = driven.samples.list.iter().filter(late).count();
    let lag_p99 = lag(99.0);
    let busy = cpu.as_secs_f64() / driven.took.as_secs_f64().max(1e-9);
    let invalid = if lag_p99 > most {
        Some(format!(
            "the generator was {lag_p99:.1} ms late at the 99th percentile, {most:.1} ms are allowed: ask less \
             (--rate), or on a machine with less else to do"
        ))
    } else if run.falls_behind() && busy > BUSY {
        Some(format!(
            "the generator itself could not send as fast: it took {:.0} % of a core and reached {:.0} of {:.0} a \
             second: ask less (--rate)",
            busy * 100.0,
            run.achieved_rate,
            run.rate
        ))
    } else {
        None
    };
    Generator {
        lag_p50: lag(50.0),
        lag_p99,
        lag_most: lag(100.0),
        queued: float(u64::try_from(queued).unwrap_or(u64::MAX))
            / float(u64::try_from(driven.samples.list.len()).unwrap_or(1).max(1)),
        cpu: busy,
        invalid,
    }
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

/// How many requests each endpoint has answered by its own count, asking them directly; those that do not count, or
/// do not answer soon, are not in it. The question counts too, so that one is taken off.
async fn served(manner: &Manner, view: Option<&View>) -> BTreeMap<String, u64> {
    let mut served = BTreeMap::new();
    if manner.target.protocol != target::Protocol::Http {
        return served;
    }
    let ask = |endpoint: &view::EndpointView| {
        let own = Manner {
            target: manner.target.moved_to(endpoint.address),
            reuse: Reuse::Never,
            ..manner.clone()
        };
        let name = endpoint.title();
        async move {
            let answer = exchange::Client::new(&own, None, &exchange::Ports::default())
                .ask()
                .await
                .result;
            let serial = answer.ok().and_then(|answered| answered.serial)?;
            Some((name, serial.saturating_sub(1)))
        }
    };
    let all = async {
        let mut asked = tokio::task::JoinSet::new();
        for endpoint in view.iter().flat_map(|view| &view.endpoints) {
            asked.spawn(ask(endpoint));
            if asked.len() >= AT_A_TIME {
                served.extend(asked.join_next().await.and_then(Result::ok).flatten());
            }
        }
        while let Some(answer) = asked.join_next().await {
            served.extend(answer.ok().flatten());
        }
    };
    // What has not come by then is left out.
    let _ = tokio::time::timeout(TELLING, all).await;
    served
}

/// What was added for those who counted at the end; the first question is among it. One that did not answer the first
/// question although it was there, or that began anew meanwhile, is left out.
fn difference(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    was_there: impl Fn(&str) -> bool,
) -> BTreeMap<String, u64> {
    let grown = after.iter().filter_map(|(name, after)| {
        let before = match before.get(name) {
            Some(before) => before + 1,
            None if was_there(name) => return None,
            None => 0,
        };
        Some((name.clone(), after.checked_sub(before)?))
    });
    grown.collect()
}
