//! `run SCENARIO`: rounds of measurements in alternating order. Owns the order, the warm-up, and what is measured around a
//! load; what follows from it is `result`'s.

use std::{
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    churn, control,
    figure::{Figure, Figures, number},
    load::{self, Done},
    provenance::{self, Machine, Provenance},
    result::{RunResult, SCHEMA, Sample, Summary},
    scenario::{self, Contestant, Load, Scenario},
    scrape,
    stage::{self, Programs, Proxy, Stage, Usage},
    stats, syscalls,
};

/// A stranger's address and backends, so that a fingerprint of a configuration is the same in each run.
const PLACE: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
/// After many connections were opened, until they are looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// Of the control.
const SHORTEST_SLICE: Duration = Duration::from_millis(500);

/// Arguments of the command.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Names of scenarios (see `list`), or files
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    scenarios: Vec<String>,
    /// Every scenario, one after the other
    #[arg(long)]
    all: bool,
    /// Rounds, instead of the scenario's
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// Seconds of one measurement, instead of the scenario's
    #[arg(long)]
    seconds: Option<f64>,
    /// Where the result of one scenario goes [default: loadtest/results/NAME.json]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "page"])]
    out: Option<PathBuf>,
    /// Also make the page of all results, such as docs/performance.md
    #[arg(long, value_name = "FILE")]
    pub(crate) page: Option<PathBuf>,
    /// The program under test [default: `portico` beside this program]
    #[arg(long, value_name = "FILE")]
    portico: Option<PathBuf>,
}

impl RunArgs {
    /// What is to be run, in this order.
    ///
    /// # Errors
    /// A file cannot be read or makes no sense: nothing is begun then.
    pub(crate) fn scenarios(&self) -> anyhow::Result<Vec<Scenario>> {
        let scenarios = if self.all {
            scenario::all(&scenario::folder())?
        } else {
            let names = self.scenarios.iter();
            names
                .map(|name| Scenario::read(&scenario::file(name)))
                .collect::<anyhow::Result<_>>()?
        };
        ensure!(
            self.out.is_none() || scenarios.len() == 1,
            "--out is for one scenario"
        );
        scenarios
            .into_iter()
            .map(|scenario| self.shaped(scenario))
            .collect()
    }

    fn shaped(&self, mut scenario: Scenario) -> anyhow::Result<Scenario> {
        scenario.rounds = self.rounds.unwrap_or(scenario.rounds);
        scenario.seconds = self.seconds.unwrap_or(scenario.seconds);
        ensure!(
            (0.05..=60.0).contains(&scenario.seconds),
            "--seconds is from 0.05 to 60"
        );
        Ok(scenario)
    }
}

/// Runs a scenario and writes its result.
///
/// # Errors
/// Something cannot be started, or does not answer.
pub(crate) async fn run(args: &RunArgs, scenario: Scenario) -> anyhow::Result<RunResult> {
    let programs = Programs::beside(args.portico.as_deref())?;
    let result = measure(scenario, &programs).await?;
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| results().join(format!("{}.json", result.scenario.name)));
    let text = serde_json::to_string_pretty(&result)?;
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&out, text + "\n").with_context(|| format!("cannot write {}", out.display()))?;
    Ok(result)
}

/// Where results are kept: beside the scenarios.
pub(crate) fn results() -> PathBuf {
    scenario::folder().with_file_name("results")
}

/// All rounds of a scenario: as many as it wants, or until so many were quiet, or it has tried often enough.
///
/// # Errors
/// Something cannot be started, or does not answer.
pub(crate) async fn measure(scenario: Scenario, programs: &Programs) -> anyhow::Result<RunResult> {
    raise_limit()?;
    let (contestants, missing) = present(&scenario, programs);
    let stage = Stage::new(&scenario, programs).await?;
    let provenance = provenance(&scenario, programs, &stage);
    let run = Run {
        scenario: &scenario,
        programs,
        stage: &stage,
    };
    let mut samples = run.rounds(&contestants).await?;
    if scenario.figures.contains(&Figure::SyscallsPerRequest) {
        run.syscalls(&contestants, &mut samples).await?;
    }
    let summary = Summary::new(&scenario, &samples);
    Ok(RunResult {
        schema: SCHEMA,
        scenario,
        provenance,
        missing,
        samples,
        summary,
    })
}

/// Descriptors up to the hard limit, which processes that are started here inherit.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn raise_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of descriptors")
}

/// Who takes part, and why others do not.
fn present(scenario: &Scenario, programs: &Programs) -> (Vec<Contestant>, Vec<String>) {
    let mut present = Vec::new();
    let mut missing = Vec::new();
    for contestant in &scenario.contestants {
        match stage::missing(*contestant, programs) {
            Some(why) => missing.push(format!("{contestant}: {why}")),
            None => present.push(*contestant),
        }
    }
    for line in &missing {
        eprintln!("left out: {line}");
    }
    (present, missing)
}

/// The order of a round: forth in odd ones, back in even ones, so that a drift of the machine meets all alike; the
/// control comes before and after each.
fn order(round: u16, contestants: &[Contestant], has_control: bool) -> Vec<Contestant> {
    let mut order = contestants.to_vec();
    if round.is_multiple_of(2) {
        order.reverse();
    }
    if has_control {
        let pairs = order.into_iter().flat_map(|who| [who, Contestant::Direct]);
        order = std::iter::once(Contestant::Direct).chain(pairs).collect();
    }
    order
}

fn progress(scenario: &Scenario, sample: &Sample) -> String {
    let figures = scenario.figures.iter().filter_map(|figure| {
        let value = sample.figures.get(figure)?;
        Some(format!("{} {value:.2}", figure.name()))
    });
    let figures: Vec<String> = figures.collect();
    let failures = if sample.failures.is_empty() {
        String::new()
    } else {
        format!("  {:?}", sample.failures)
    };
    format!(
        "{:>2}  {:<16} {}{failures}",
        sample.round,
        sample.contestant.to_string(),
        figures.join("  ")
    )
}

fn provenance(scenario: &Scenario, programs: &Programs, stage: &Stage) -> Provenance {
    let generator = match scenario.load {
        Load::Requests { .. } if programs.wrk.is_some() => "wrk, one thread",
        Load::Dns { .. } | Load::DnsReload { .. } => "dnsperf, one thread",
        Load::Streams { .. } => "h2load, one thread",
        _ => "its own",
    };
    let backends = vec![PLACE; usize::from(scenario.backends)];
    let place = stage::Place {
        target: PLACE,
        backends: &backends,
        range: [127, 0],
    };
    let configurations = scenario.contestants.iter().map(|contestant| {
        let text = stage::configuration(*contestant, scenario, place);
        (*contestant, provenance::hash(&text))
    });
    let mut command = format!(
        "cargo run --release -p loadtest -- run {} --rounds {} --seconds {}",
        scenario.name, scenario.rounds, scenario.seconds
    );
    // Another build than the one beside this program; where it lies on this machine is nobody's business.
    if programs.portico.is_relative() {
        let _ = write!(command, " --portico {}", programs.portico.display());
    }
    Provenance {
        command,
        began: provenance::now(),
        rounds: scenario.rounds,
        measured_ms: u64::try_from(time(scenario).as_millis()).unwrap_or(u64::MAX),
        backends: stage.served_by(),
        generator: generator.to_owned(),
        machine: Machine::here(),
        versions: programs.versions().into_iter().collect(),
        configurations: configurations.collect(),
    }
}

fn time(scenario: &Scenario) -> Duration {
    Duration::from_secs_f64(scenario.seconds)
}

/// Of the control: a third of a measurement, since there are so many, and no less than half a second if that is not
/// longer, since what is shorter moves by itself.
fn slice(scenario: &Scenario) -> Duration {
    let time = time(scenario);
    (time / 3).max(SHORTEST_SLICE).min(time)
}

/// One run of a scenario.
struct Run<'a> {
    scenario: &'a Scenario,
    programs: &'a Programs,
    stage: &'a Stage,
}

impl Run<'_> {
    /// Measures rounds until enough of them count. Whether a round counts is the control's alone to say.
    async fn rounds(&self, contestants: &[Contestant]) -> anyhow::Result<Vec<Sample>> {
        let needed = self.scenario.rounds;
        let Some(control) = self.scenario.control else {
            let mut samples = Vec::new();
            for round in 1..=needed {
                self.round(round, contestants, &mut samples).await?;
            }
            return Ok(samples);
        };
        self.warm_up_backends().await?;
        let mut samples = Vec::new();
        for round in 1..=needed * control::MOST_TRIES {
            self.round(round, contestants, &mut samples).await?;
            let quiet = control::quiet_rounds(control, &samples);
            if !quiet.contains(&round) {
                eprintln!(
                    "{round:>2}  not quiet: {} of {needed} rounds count",
                    quiet.len()
                );
            }
            if quiet.len() >= usize::from(needed) {
                break;
            }
        }
        Ok(samples)
    }

    async fn round(
        &self,
        round: u16,
        contestants: &[Contestant],
        samples: &mut Vec<Sample>,
    ) -> anyhow::Result<()> {
        for contestant in order(round, contestants, self.scenario.control.is_some()) {
            let sample = self
                .sample(round, contestant)
                .await
                .with_context(|| format!("round {round}, {contestant}"))?;
            eprintln!("{}", progress(self.scenario, &sample));
            samples.push(sample);
        }
        Ok(())
    }

    /// The backends live as long as the run: what their first load costs is not the first slice's.
    async fn warm_up_backends(&self) -> anyhow::Result<()> {
        let direct = (self.stage)
            .proxy(Contestant::Direct, self.scenario, self.programs)
            .await?;
        self.load(&direct, slice(self.scenario)).await?;
        Ok(())
    }

    /// Starts a contestant, warms it up, measures it, and ends it.
    async fn sample(&self, round: u16, contestant: Contestant) -> anyhow::Result<Sample> {
        let proxy = self
            .stage
            .proxy(contestant, self.scenario, self.programs)
            .await?;
        let done = match &self.scenario.load {
            Load::Idle { connections } => self.idle(&proxy, *connections).await?,
            Load::Churn {
                edits_per_second,
                edits,
                ..
            } if contestant != Contestant::Direct => {
                self.warm_up(&proxy).await?;
                let plan = churn::plan(self.stage.addrs().len(), edits);
                self.churn(&proxy, &plan, *edits_per_second).await?
            }
            Load::DnsReload { .. } if contestant != Contestant::Direct => {
                self.reload(&proxy).await?
            }
            _ if contestant == Contestant::Direct => {
                self.load(&proxy, slice(self.scenario)).await?
            }
            _ => {
                self.warm_up(&proxy).await?;
                let before = proxy.usage()?;
                let mut done = self.load(&proxy, time(self.scenario)).await?;
                costs(&mut done, before, proxy.usage()?);
                done
            }
        };
        let mut figures = done.figures;
        // Every load counts everything; a scenario keeps what it is about, and what its control needs.
        figures.retain(|figure, _| {
            self.scenario.figures.contains(figure) || self.scenario.control == Some(*figure)
        });
        for value in figures.values_mut() {
            *value = stats::rounded(*value);
        }
        Ok(Sample {
            round,
            contestant,
            figures,
            failures: done.failures,
            steps: done.steps,
        })
    }

    async fn load(&self, proxy: &Proxy, time: Duration) -> anyhow::Result<Done> {
        let load = load::run(&self.scenario.load, proxy.target, time, self.programs);
        match proxy.scraped {
            Some(admin) => scrape::beside(admin, load).await,
            None => load.await,
        }
    }

    /// The same for a tenth of the time; nothing of it counts. What begins as fast as it can warms up by itself.
    async fn warm_up(&self, proxy: &Proxy) -> anyhow::Result<()> {
        if !matches!(self.scenario.load, Load::Sweep { .. } | Load::Steady { .. }) {
            self.load(proxy, time(self.scenario) / 10).await?;
        }
        Ok(())
    }

    async fn churn(
        &self,
        proxy: &Proxy,
        plan: &[Vec<usize>],
        per_second: u16,
    ) -> anyhow::Result<Done> {
        let before = proxy.usage()?;
        let until = Instant::now() + time(self.scenario);
        let backends = self.stage.addrs();
        let write = |served: &[usize]| {
            let served: Vec<_> = served
                .iter()
                .filter_map(|number| backends.get(*number).copied())
                .collect();
            let protocol = self.scenario.load.protocol();
            proxy.declare(&stage::manifests(proxy.target, &served, protocol, None))
        };
        let edits = churn::run(plan, per_second, until, write);
        let (edits, done) = tokio::join!(edits, self.load(proxy, time(self.scenario)));
        let mut done = done?;
        done.figures.insert(Figure::Edits, number(edits?));
        costs(&mut done, before, proxy.usage()?);
        Ok(done)
    }

    /// Everything is declared anew in the middle, and is in force at the end.
    async fn reload(&self, proxy: &Proxy) -> anyhow::Result<Done> {
        let names = self.scenario.load.fixture(stage::range());
        let edited = names.context("there are no names")?.edited();
        let text = edited.manifests();
        let before = proxy.usage()?;
        let edit = async {
            tokio::time::sleep(time(self.scenario) / 2).await;
            proxy.declare(&text)
        };
        let (declared, done) = tokio::join!(edit, self.load(proxy, time(self.scenario)));
        declared?;
        let mut done = done?;
        costs(&mut done, before, proxy.usage()?);
        let checked = edited.check(proxy.target).await;
        checked.context("what was declared is not in force: more --seconds")?;
        Ok(done)
    }

    /// Memory of a fresh process before and after, and what it does while nothing is sent.
    async fn idle(&self, proxy: &Proxy, connections: u32) -> anyhow::Result<Done> {
        // What the first connections make for all later ones is not the connections'.
        drop(load::hold(proxy.target, 16).await?);
        let before = proxy.usage()?;
        let held = load::hold(proxy.target, connections).await?;
        tokio::time::sleep(SETTLE).await;
        let opened = proxy.usage()?;
        tokio::time::sleep(time(self.scenario)).await;
        let after = proxy.usage()?;
        let open = u64::try_from(held.streams.len())?;
        let mut figures = Figures::from([
            (Figure::OpenConnections, number(open)),
            (
                Figure::Failed,
                number(held.failures.values().copied().sum()),
            ),
        ]);
        if let (Some(before), Some(opened), Some(after)) = (before, opened, after) {
            let grown = number(opened.private_kib) - number(before.private_kib);
            figures.insert(Figure::MemoryPerConnection, grown / number(open.max(1)));
            let switches = after.switches.saturating_sub(opened.switches);
            figures.insert(
                Figure::WakeupsWhileIdle,
                number(switches) / self.scenario.seconds,
            );
        }
        Ok(Done {
            connections: open,
            elapsed: held.took,
            figures,
            failures: held.failures,
            ..Done::default()
        })
    }

    /// One run of each under strace, after all others; it stands in the last round that counts.
    async fn syscalls(
        &self,
        contestants: &[Contestant],
        samples: &mut [Sample],
    ) -> anyhow::Result<()> {
        let Some(strace) = &self.programs.strace else {
            eprintln!(
                "left out: system calls: strace is not installed (Debian: apt-get install strace)"
            );
            return Ok(());
        };
        let control = self.scenario.control;
        let quiet = control.map(|figure| control::quiet_rounds(figure, samples));
        let counts = |round| {
            let quiet = quiet.as_ref().filter(|quiet| !quiet.is_empty());
            quiet.is_none_or(|quiet| quiet.contains(&round))
        };
        for contestant in contestants {
            let proxy = self
                .stage
                .proxy(*contestant, self.scenario, self.programs)
                .await?;
            self.warm_up(&proxy).await?;
            let work = self.load(&proxy, Duration::from_secs(1));
            let (calls, done) = syscalls::count(strace, &proxy.pids()?, work).await?;
            let last = samples
                .iter_mut()
                .rfind(|s| s.contestant == *contestant && counts(s.round));
            if let Some(sample) = last.filter(|_| done.requests > 0) {
                let figure = Figure::SyscallsPerRequest;
                sample
                    .figures
                    .insert(figure, stats::rounded(calls / number(done.requests)));
            }
        }
        Ok(())
    }
}

/// What the proxy spent on what was done.
fn costs(done: &mut Done, before: Option<Usage>, after: Option<Usage>) {
    let Some((before, after)) = before.zip(after) else {
        return;
    };
    let mib = number(after.private_kib) / 1024.0;
    done.figures.insert(Figure::PrivateMemory, mib);
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    let switches = after.switches.saturating_sub(before.switches);
    if done.requests > 0 {
        let requests = number(done.requests);
        done.figures
            .insert(Figure::CpuPerRequest, cpu * 1e6 / requests);
        done.figures
            .insert(Figure::SwitchesPerRequest, number(switches) / requests);
    }
    if done.connections > 0 {
        let each = cpu * 1e6 / number(done.connections);
        done.figures.insert(Figure::CpuPerConnection, each);
    }
    if done.bytes > 0 {
        let each = cpu / (number(done.bytes) / 1e9);
        done.figures.insert(Figure::CpuPerGigabyte, each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_alternates_with_a_control_around_each() {
        use Contestant::{Direct, Haproxy, Portico};
        let both = [Portico, Haproxy];
        let forth = [Direct, Portico, Direct, Haproxy, Direct];
        let back = [Direct, Haproxy, Direct, Portico, Direct];
        assert_eq!(order(1, &both, true), forth);
        assert_eq!(order(2, &both, true), back);
        assert_eq!(order(2, &both, false), [Haproxy, Portico]);
    }

    #[test]
    fn costs_are_by_what_was_done() {
        let mut done = Done {
            requests: 1000,
            connections: 10,
            ..Done::default()
        };
        let before = Usage::default();
        let after = Usage {
            cpu: Duration::from_millis(30),
            switches: 500,
            private_kib: 0,
        };
        costs(&mut done, Some(before), Some(after));
        assert!((done.figures[&Figure::CpuPerRequest] - 30.0).abs() < 1e-9);
        assert!((done.figures[&Figure::CpuPerConnection] - 3000.0).abs() < 1e-9);
        let switches = done.figures.get(&Figure::SwitchesPerRequest);
        assert_eq!(switches, Some(&0.5));
        assert!(!done.figures.contains_key(&Figure::CpuPerGigabyte));
    }
}
