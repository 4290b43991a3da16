//! Load scenarios for portico: bounded in number and time, only towards this machine, with a verdict and an exit code.
//! Owns the command line; each scenario is a module.

mod backend;
mod churn;
mod client;
mod compare;
mod control;
mod distribution;
mod dns;
mod figure;
mod http2;
mod load;
mod provenance;
mod reconcile;
mod reliability;
mod reload;
mod render;
mod report;
mod result;
mod scenario;
mod scrape;
mod stage;
mod stats;
mod syscalls;
mod target;
mod udp;

use std::{fmt, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  loadtest distribution 127.0.0.1:30080                       3000 connections by NodePort, counted by pod
  loadtest distribution 127.96.12.34:80 -n 10000 -c 64 --pods 3
  loadtest reload 127.96.0.77:8080 --folder ./k8s --edits 10000 --seconds 60 --pid $(pgrep -ox portico)
  loadtest reconcile --connections 1000000                    do all counters agree, whatever came and went meanwhile
  loadtest reliability --page docs/reliability.md             edits, storms, resets, closed windows: figures and their bounds
  loadtest list                                               scenarios that compare portico with others
  loadtest run tcp-versus-haproxy                             exit 1: a promise is broken, 3: the machine was not quiet
  loadtest run --all --page docs/performance.md               every scenario, and the page of their results
  loadtest render loadtest/results docs/performance.md        the page of all results";

/// Load scenarios for portico: bounded, on loopback, with a verdict.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, before_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    /// How to print the outcome
    #[arg(short, long, value_enum, default_value = "text", global = true)]
    output: Format,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table and a verdict line.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Connect many times and count which pod answers: exit 0 if the counts differ by at most one
    Distribution(distribution::DistributionArgs),
    /// Edit a manifests folder all the time while connecting: exit 0 if no connection fails
    Reload(reload::ReloadArgs),
    /// Connect many times while pods come and go: exit 0 if what clients, portico and the pods counted agrees
    Reconcile(reconcile::ReconcileArgs),
    /// Provoke what a proxy must not get wrong: exit 0 if every bound is kept
    Reliability(reliability::ReliabilityArgs),
    /// Send datagrams to an echo and back: exit 0 if none is lost
    Udp(udp::UdpArgs),
    /// Measure portico and its peers by scenario files, one beside the other, and write the results
    Run(compare::RunArgs),
    /// Make a page of results
    Render(render::RenderArgs),
    /// List the scenario files
    List,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (text, json, is_good) = match &cli.scenario {
        Scenario::Distribution(args) => {
            let report = runtime.block_on(distribution::run(args))?;
            told(&report, report.is_even)?
        }
        Scenario::Reload(args) => {
            let report = runtime.block_on(reload::run(args))?;
            told(&report, report.is_clean)?
        }
        Scenario::Reconcile(args) => {
            let report = runtime.block_on(until_ended(reconcile::run(args)))?;
            told(&report, report.reconciles)?
        }
        Scenario::Reliability(args) => {
            let report = runtime.block_on(until_ended(reliability::run(args)))?;
            told(&report, report.is_kept())?
        }
        Scenario::Udp(args) => {
            let report = udp::run(args)?;
            told(&report, report.is_clean)?
        }
        Scenario::Run(args) => {
            return runtime.block_on(Box::pin(until_ended(compared(args, cli.output))));
        }
        Scenario::Render(args) => {
            println!("{} results", render::run(args)?);
            return Ok(ExitCode::SUCCESS);
        }
        Scenario::List => return list(),
    };
    match cli.output {
        Format::Text => print!("{text}"),
        Format::Json => println!("{json}"),
    }
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A report as text and as JSON, with its verdict.
fn told(
    report: &(impl fmt::Display + Serialize),
    is_good: bool,
) -> anyhow::Result<(String, String, bool)> {
    let json = serde_json::to_string_pretty(report)?;
    Ok((report.to_string(), json, is_good))
}

/// Runs until it is done or somebody ends it: either way all that was started goes with the future.
async fn until_ended<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
        _ = hang_up.recv() => anyhow::bail!("hung up"),
    }
}

/// Runs each scenario that is asked for. One that cannot be run does not keep the others from it.
async fn compared(args: &compare::RunArgs, output: Format) -> anyhow::Result<ExitCode> {
    let mut outcome = Outcome::Kept;
    let mut results = Vec::new();
    for scenario in args.scenarios()? {
        let name = scenario.name.clone();
        let result = Box::pin(compare::run(args, scenario)).await;
        let result = result.with_context(|| format!("scenario {name}"));
        outcome = outcome.max(Outcome::of(&result));
        match result {
            Ok(result) if output == Format::Text => print!("{}", render::text(&result)),
            Ok(result) => results.push(result),
            Err(error) => eprintln!("loadtest: {error:#}"),
        }
    }
    match results.as_slice() {
        [] => {}
        [one] => println!("{}", serde_json::to_string_pretty(one)?),
        many => println!("{}", serde_json::to_string_pretty(many)?),
    }
    if let Some(page) = &args.page {
        eprintln!("{} results", render::to(&compare::results(), page)?);
    }
    Ok(outcome.into())
}

/// How a run ended, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Every promise that could be measured is kept.
    Kept,
    /// The machine was not quiet.
    Refused,
    /// A promise is broken.
    Missed,
    /// Something could not be started, or did not answer.
    Failed,
}

impl Outcome {
    fn of(result: &anyhow::Result<result::RunResult>) -> Self {
        match result {
            Err(_) => Self::Failed,
            Ok(result) if result.summary.refused.is_some() => Self::Refused,
            Ok(result) if result.summary.has_missed() => Self::Missed,
            Ok(_) => Self::Kept,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Kept => 0,
            Outcome::Missed => 1,
            Outcome::Failed => 2,
            Outcome::Refused => 3,
        })
    }
}

fn list() -> anyhow::Result<ExitCode> {
    for scenario in scenario::all(&scenario::folder())? {
        println!("{:<28} {}", scenario.name, scenario.about);
        for bar in &scenario.bars {
            println!("{:<28}   promise: {bar}", "");
        }
    }
    Ok(ExitCode::SUCCESS)
}
