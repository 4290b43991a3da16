//! nghttp2's `h2load`, one thread. Owns what it is told and reading what it prints.

use std::{collections::BTreeMap, io::Write as _, net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::{Done, wrk::micros};
use crate::{
    figure::Figure,
    http2::{Asked, CALL_FIELDS},
    stage::{Programs, bound},
};

/// Runs it for a time, with a number of streams on each of the connections.
pub(super) async fn run(
    programs: &Programs,
    (asked, target): (Asked, SocketAddr),
    (connections, streams): (u16, u16),
    time: Duration,
) -> anyhow::Result<Done> {
    let program = programs.h2load.as_ref();
    let program =
        program.context("h2load is not installed (Debian: apt-get install nghttp2-client)")?;
    let mut command = Command::from(bound(program));
    command
        .args(["-t1", &format!("-c{connections}"), &format!("-m{streams}")])
        .arg(format!("--duration={}ms", time.as_millis()))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let mut body = tempfile::NamedTempFile::new().context("cannot make a file")?;
    if let Asked::Call { .. } = asked {
        body.write_all(&asked.body())?;
        command.arg("-d").arg(body.path());
        for (name, value) in CALL_FIELDS {
            command.arg("-H").arg(format!("{name}: {value}"));
        }
    }
    let output = command
        .arg(format!("http://{target}{}", asked.path()))
        .output()
        .await
        .context("cannot run h2load")?;
    ensure!(
        output.status.success(),
        "h2load failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let done = parse(&text).with_context(|| format!("h2load printed another form:\n{text}"))?;
    Ok(Done {
        connections: connections.into(),
        // Of what was under way when the time was over it counts nothing.
        elapsed: time,
        ..done
    })
}

fn parse(text: &str) -> Option<Done> {
    let mut done = Done::default();
    let mut is_found = false;
    for line in text.lines() {
        let Some((label, rest)) = line.split_once(':') else {
            continue;
        };
        match label {
            "requests" => {
                let counts: BTreeMap<&str, u64> = rest
                    .split(',')
                    .filter_map(|count| {
                        let (count, kind) = count.trim().split_once(' ')?;
                        Some((kind, count.parse().ok()?))
                    })
                    .collect();
                done.requests = *counts.get("succeeded")?;
                // Those with an error are among the failed ones, those out of time among these.
                let [failed, broken] = ["failed", "errored"].map(|kind| counts.get(kind).copied());
                let (failed, broken) = (failed?, broken?);
                let failures = [("status", failed.checked_sub(broken)?), ("broken", broken)];
                let failures = failures.into_iter().filter(|(_, count)| *count > 0);
                done.failures = failures
                    .map(|(kind, count)| (kind.to_owned(), count))
                    .collect();
            }
            "time for request" => {
                let mut times = rest.split_whitespace().skip(1);
                for figure in [Figure::LatencyMost, Figure::LatencyMean] {
                    done.figures.insert(figure, micros(times.next()?)?);
                }
                is_found = true;
            }
            _ => {}
        }
    }
    is_found.then_some(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
Stopped all clients for thread #0

finished in 1.03s, 7074.00 req/s, 594.93KB/s
requests: 7091 total, 7251 started, 7091 done, 7074 succeeded, 17 failed, 4 errored, 1 timeout
status codes: 7075 2xx, 0 3xx, 0 4xx, 13 5xx
traffic: 594.93KB (609206) total, 338.55KB (346675) headers (space savings 50.51%), 69.08KB (70740) data
                     min         max         mean         sd        +/- sd
time for request:       87us     92.75ms     21.81ms     11.23ms    77.17%
time for connect:       69us       277us       179us        63us    62.50%
";

    #[test]
    fn parse_of_what_it_prints_gives_counts_times_and_failures() {
        let done = parse(PRINTED).unwrap();
        assert_eq!(done.requests, 7074);
        assert_eq!(done.figures.get(&Figure::LatencyMean), Some(&21_810.0));
        assert_eq!(done.figures.get(&Figure::LatencyMost), Some(&92_750.0));
        let failures: Vec<_> = done.failures.into_iter().collect();
        let expected = [("broken", 4), ("status", 13)];
        assert_eq!(
            failures,
            expected.map(|(kind, count)| (kind.to_owned(), count))
        );
    }

    #[test]
    fn parse_of_anything_else_is_none() {
        assert!(parse("starting benchmark...\n").is_none());
    }
}
