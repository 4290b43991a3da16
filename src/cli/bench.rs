//! `portico bench`: is it even, how fast is it, and what does it cost. Owns the options, whom to ask and where the
//! report goes; the run and its figures are the bench's.

mod program;

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use portico_core::calendar;
use tokio_util::sync::CancellationToken;

use super::{change::Namespace, say};
use crate::{
    bench::{
        self, Load, MOST_REQUESTS, Manner, Outcome, Plan, Progress, Reuse, compare,
        figure::Gate,
        report::{Provenance, Report},
        target::{Identity, Protocol, Target},
    },
    clock,
    settings::{InstanceOptions, parse_duration},
};
use program::{Asked, Wanted};

/// Arguments of `portico bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// A Service of the running program: NAME, service/NAME, or with a port NAME:PORT
    #[arg(value_name = "SERVICE", required_unless_present = "target")]
    service: Option<String>,
    /// Any address instead, served by whatever it likes: http://HOST:PORT/PATH, tcp://HOST:PORT, udp://HOST:PORT,
    /// dns://HOST:PORT/NAME?TYPE
    #[arg(long, value_name = "URL", conflicts_with = "service")]
    target: Option<Target>,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    asking: AskOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Compare two reports that were written with `-o json`
    Compare {
        /// The first one
        a: PathBuf,
        /// The second one
        b: PathBuf,
    },
}

/// How much, how fast.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct LoadOptions {
    /// Requests in all [default: as many as fit the duration]
    #[arg(short = 'N', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_REQUESTS))]
    requests: Option<u64>,
    /// Longest time in which requests are begun [default: 10s, or until --requests are done]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Requests a second; each is sent at its own time, whatever became of the one before
    #[arg(short, long, default_value = "1000", value_name = "N", value_parser = parse_rate)]
    rate: f64,
    /// Clients, each with one request at a time
    #[arg(short, long, default_value = "16", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,
    /// Source addresses that clients take in turn, from 127.0.0.1 on (to 127/8 only)
    #[arg(long, default_value = "1", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=250))]
    sources: u8,
}

/// How it is asked, and how answers are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Requests")]
struct AskOptions {
    /// Keep connections (UDP: sockets) instead of a new one for each request
    #[arg(short, long)]
    keep_alive: bool,
    /// How a Service is spoken to [default: udp for UDP ports, else http]
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// How an answer tells who has given it: header:NAME, or body for its first line
    #[arg(long, default_value = "body", value_name = "HOW")]
    identify: Identity,
    /// What is sent over plain TCP and UDP
    #[arg(long, default_value = "bench", value_name = "TEXT")]
    send: String,
    /// Longest wait for a connection, and for an answer
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = parse_duration)]
    timeout: Duration,
    /// Share that is due to who answers by this name, where the Service does not say; may be repeated
    #[arg(long = "weight", value_name = "NAME=N", value_parser = parse_weight)]
    weights: Vec<(String, u64)>,
    /// How many endpoints are behind a --target, so that those who never answer are missed
    #[arg(long, default_value = "0", hide_default_value = true, value_name = "N", value_parser = parse_endpoints, requires = "target")]
    endpoints: usize,
    /// Do not ask the endpoints themselves too, to see what is added
    #[arg(long)]
    no_overhead: bool,
}

/// Where it goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Report")]
struct OutputOptions {
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    /// Write it as one page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write latencies as an `HdrHistogram` log
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Exit with status 1 if this is so, in quotes for the shell: 'cov>0.02', 'p99>5ms', 'errors>0'; may be repeated
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Gate>,
    /// How late the generator may be at the 99th percentile; the run is invalid otherwise, and exits with 3
    #[arg(long, default_value = "5ms", value_name = "TIME", value_parser = parse_duration)]
    max_lag: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// Everything, in a shape with a version.
    Json,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=1e6).contains(&rate) => Ok(rate),
        _ => Err(format!("'{text}' is not a rate between 0.01 and 1000000")),
    }
}

fn parse_endpoints(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=4096) => Ok(number),
        _ if text == "0" => Ok(0),
        _ => Err(format!("'{text}' is not a number from 1 to 4096")),
    }
}

fn parse_weight(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("'{text}' is not NAME=N");
    let (name, weight) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.to_owned(), weight.parse().map_err(|_| wrong())?))
}

/// Runs the command.
///
/// # Errors
/// There is nothing to ask, a file cannot be written, or the program does not answer.
pub fn run(args: &BenchArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    if let Some(Action::Compare { a, b }) = &args.action {
        let (a, b) = (read(a)?, read(b)?);
        say::text(compare::text(&a, &b));
        return Ok(ExitCode::SUCCESS);
    }
    let (plan, mut asked) = plan(args, instance)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Before the run: one that took minutes is not to be lost for the want of a folder.
    let files = Files::create(&args.output)?;
    let outcome = runtime.block_on(measure(&plan, &mut asked))?;
    files.write(&outcome)?;
    let report = &outcome.report;
    match args.output.output {
        Format::Text => say::text(bench::text(report)),
        Format::Json => say::line(serde_json::to_string_pretty(report)?),
    }
    Ok(exit_code(report))
}

fn exit_code(report: &Report) -> ExitCode {
    let verdict = report.verdict.word.exit_code();
    let fails = report.gates.iter().any(|gate| gate.fails);
    ExitCode::from(if verdict == 0 && fails { 1 } else { verdict })
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    compare::read(&text).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))
}

fn plan(args: &BenchArgs, instance: &InstanceOptions) -> anyhow::Result<(Plan, Asked)> {
    let (target, service, asked) = match (&args.service, &args.target) {
        (_, Some(target)) => (target.clone(), None, Asked::nobody()),
        (Some(service), None) => {
            let wanted = Wanted::parse(service, &args.namespace.namespace)?;
            let asked = Asked::new(instance.clone(), wanted);
            let target = asked.target(args.asking.protocol)?;
            (target, Some(asked.title()), asked)
        }
        (None, None) => bail!("name a Service, or --target URL"),
    };
    let duration = match (args.load.duration, args.load.requests) {
        (None, None) => Some(Duration::from_secs(10)),
        (duration, _) => duration,
    };
    let manner = Manner {
        target,
        identity: args.asking.identify.clone(),
        reuse: if args.asking.keep_alive {
            Reuse::KeepAlive
        } else {
            Reuse::Never
        },
        send: format!("{}\n", args.asking.send).into_bytes(),
        patience: args.asking.timeout,
    };
    let load = Load {
        rate: args.load.rate,
        requests: args.load.requests.unwrap_or(MOST_REQUESTS),
        duration,
        clients: args.load.clients,
        sources: args.load.sources,
    };
    let provenance = Provenance {
        command: std::env::args().collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: calendar::rfc3339(clock::now()),
        manifests: asked.manifests(),
        ..Provenance::default()
    };
    let plan = Plan {
        manner,
        load,
        service,
        weights: args
            .asking
            .weights
            .iter()
            .cloned()
            .collect::<BTreeMap<_, _>>(),
        endpoints: args.asking.endpoints,
        overhead: !args.asking.no_overhead,
        most_lag: args.output.max_lag,
        gates: args.output.fail_if.clone(),
        provenance,
    };
    Ok((plan, asked))
}

/// Runs it, and says how far it is while somebody looks on.
async fn measure(plan: &Plan, asked: &mut Asked) -> anyhow::Result<Outcome> {
    let progress = Rc::new(Progress::default());
    let cancel = CancellationToken::new();
    asked.begin();
    let run = bench::run(plan, asked, &progress, &cancel);
    tokio::pin!(run);
    let is_seen = std::io::stderr().is_terminal();
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let began = tokio::time::Instant::now();
    let mut interrupted = false;
    let outcome = loop {
        tokio::select! {
            outcome = &mut run => break outcome,
            _ = tick.tick(), if is_seen => show(plan, &progress, began),
            _ = tokio::signal::ctrl_c() => {
                // What is there is still a report, unless somebody cannot wait for it.
                if interrupted {
                    bail!("interrupted");
                }
                interrupted = true;
                cancel.cancel();
            }
        }
    };
    if is_seen {
        say::error_text("\r\x1b[K");
    }
    Ok(outcome?)
}

fn show(plan: &Plan, progress: &Progress, began: tokio::time::Instant) {
    let (done, failed) = (progress.done.get(), progress.failed.get());
    if progress.is_overhead.get() && plan.overhead {
        say::error_text("\r\x1b[Kmeasuring what it adds, against the endpoints themselves");
        return;
    }
    let of = match plan.load.duration {
        None => format!(" of {}", plan.load.requests),
        Some(_) => String::new(),
    };
    let time = plan.load.duration.map_or_else(String::new, |duration| {
        format!(
            ", {} of {} s",
            began.elapsed().as_secs(),
            duration.as_secs()
        )
    });
    say::error_text(format!(
        "\r\x1b[K{}: {done}{of} requests, {failed} failed{time}",
        plan.manner.target
    ));
}

/// The files of a report.
struct Files<'a> {
    html: Option<(&'a Path, std::fs::File)>,
    log: Option<(&'a Path, std::fs::File)>,
}

impl<'a> Files<'a> {
    fn create(options: &'a OutputOptions) -> anyhow::Result<Self> {
        let create = |path: &'a Option<PathBuf>| {
            let Some(path) = path else { return Ok(None) };
            let file = std::fs::File::create(path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(Some((path.as_path(), file)))
        };
        Ok(Self {
            html: create(&options.html)?,
            log: create(&options.log)?,
        })
    }

    fn write(self, outcome: &Outcome) -> anyhow::Result<()> {
        let page = self
            .html
            .map(|file| (file, bench::html(&outcome.report).into_bytes()));
        let log = self.log.map(|file| (file, outcome.log.clone()));
        for ((path, mut file), content) in page.into_iter().chain(log) {
            file.write_all(&content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}
