//! Debian's `dnsperf`, one thread. Owns what it is told and reading what it prints.

use std::{collections::BTreeMap, io::Write as _, net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::Done;
use crate::{
    figure::Figure,
    scenario::Load,
    stage::{self, Core, Pinned, Programs, bound},
};

/// What it asks, and how.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// A line each: name and type.
    pub(super) queries: String,
    /// Sockets.
    pub(super) clients: u16,
    /// Queries without an answer at a time.
    pub(super) outstanding: u16,
    /// Queries in a second; without one as many as are answered.
    pub(super) rate: Option<u32>,
    /// A query without an answer by then is lost.
    pub(super) patience: Duration,
    /// The program is one of these.
    pub(super) programs: &'a Programs,
}

impl<'a> Asked<'a> {
    /// What a load asks; nothing if it has nothing to do with DNS.
    pub(super) fn by(load: &Load, programs: &'a Programs) -> Option<Self> {
        let (clients, outstanding, rate, limit_ms) = match load {
            Load::Dns {
                clients,
                outstanding,
                ..
            } => (*clients, *outstanding, None, 1000),
            Load::DnsReload {
                clients,
                rate,
                limit_ms,
                ..
            } => (*clients, u16::MAX, Some(*rate), *limit_ms),
            _ => return None,
        };
        Some(Self {
            queries: load.fixture(stage::range())?.queries(),
            clients,
            outstanding,
            rate,
            patience: Duration::from_millis(limit_ms.into()),
            programs,
        })
    }
}

/// Runs it for a time, on the last core: the server has the first one.
pub(super) async fn run(
    asked: Asked<'_>,
    target: SocketAddr,
    time: Duration,
) -> anyhow::Result<Done> {
    let program = asked.programs.dnsperf.as_ref();
    let program = program.context("dnsperf is not installed (Debian: apt-get install dnsperf)")?;
    let mut queries = tempfile::NamedTempFile::new().context("cannot make a file")?;
    queries.write_all(asked.queries.as_bytes())?;
    let mut command = Command::from(bound(program));
    command
        .args(["-s", &target.ip().to_string()])
        .args(["-p", &target.port().to_string()])
        .args(["-c", &asked.clients.to_string()])
        .args(["-q", &asked.outstanding.to_string()])
        .args(["-l", &time.as_secs_f64().to_string()])
        .args(["-t", &asked.patience.as_secs_f64().to_string()])
        .args(["-T", "1", "-O", "suppress=timeout", "-d"])
        .arg(queries.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(rate) = asked.rate {
        command.args(["-Q", &rate.to_string()]);
    }
    let pinned = Pinned::to(Core::Last)?;
    let child = command.spawn().context("cannot start dnsperf")?;
    drop(pinned);
    let output = child
        .wait_with_output()
        .await
        .context("cannot run dnsperf")?;
    ensure!(
        output.status.success(),
        "dnsperf failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).with_context(|| format!("dnsperf printed another form:\n{text}"))
}

fn parse(text: &str) -> Option<Done> {
    let mut done = Done::default();
    let mut failures = BTreeMap::new();
    let mut is_found = false;
    for line in text.lines() {
        let Some((label, value)) = line.trim().split_once(':') else {
            continue;
        };
        let first = || value.split_whitespace().next();
        match label {
            "Queries completed" => done.requests = first()?.parse().ok()?,
            "Queries lost" => {
                failures.insert("lost".to_owned(), first()?.parse().ok()?);
            }
            "Response codes" => {
                let counts = value
                    .split(',')
                    .filter_map(|count| count.trim().split_once(' '));
                for (code, count) in counts {
                    if !matches!(code, "NOERROR" | "NXDOMAIN") {
                        let count = count.split_whitespace().next()?.parse().ok()?;
                        failures.insert(code.to_owned(), count);
                    }
                }
            }
            "Run time (s)" => {
                done.elapsed = Duration::try_from_secs_f64(first()?.parse().ok()?).ok()?;
            }
            "Average Latency (s)" => {
                let most = value.split_once("max ")?.1.trim_end_matches(')');
                for (figure, seconds) in
                    [(Figure::LatencyMean, first()?), (Figure::LatencyMost, most)]
                {
                    let micros = seconds.parse::<f64>().ok()? * 1e6;
                    done.figures.insert(figure, micros);
                }
                is_found = true;
            }
            _ => {}
        }
    }
    failures.retain(|_, count: &mut u64| *count > 0);
    done.failures = failures;
    is_found.then_some(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
[Status] Testing complete (time limit)

Statistics:

  Queries sent:         91330
  Queries completed:    91326 (100.00%)
  Queries lost:         4 (0.00%)

  Response codes:       NOERROR 73061 (80.00%), SERVFAIL 7 (0.01%), NXDOMAIN 18258 (19.99%)
  Average packet size:  request 49, response 95
  Run time (s):         1.006109
  Queries per second:   90771.477047

  Average Latency (s):  0.001445 (min 0.000013, max 0.014630)
  Latency StdDev (s):   0.001501
";

    #[test]
    fn parse_of_what_it_prints_gives_counts_times_and_failures() {
        let done = parse(PRINTED).unwrap();
        assert_eq!(done.requests, 91_326);
        assert_eq!(done.elapsed, Duration::from_micros(1_006_109));
        assert!((done.figures[&Figure::LatencyMean] - 1445.0).abs() < 0.1);
        assert!((done.figures[&Figure::LatencyMost] - 14_630.0).abs() < 0.1);
        let failures: Vec<_> = done.failures.into_iter().collect();
        assert_eq!(
            failures,
            [("SERVFAIL".to_owned(), 7), ("lost".to_owned(), 4)]
        );
    }

    #[test]
    fn parse_of_anything_else_is_none() {
        assert!(parse("Error: unable to open file\n").is_none());
    }
}
