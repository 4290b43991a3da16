//! `wrk`, one thread. Owns reading what it prints.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::Done;
use crate::{figure::Figure, stage::bound};

/// Runs it for a time.
pub(super) async fn run(
    program: &Path,
    target: SocketAddr,
    connections: u16,
    time: Duration,
) -> anyhow::Result<Done> {
    // It takes whole seconds.
    let seconds = time.as_secs_f64().round().max(1.0);
    let output = Command::from(bound(program))
        .args(["-t1", "--latency", "--timeout", "10s"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{seconds}s"))
        .arg(format!("http://{target}/"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "wrk failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut done = parse(&text).with_context(|| format!("wrk printed another form:\n{text}"))?;
    done.connections = u64::from(connections);
    Ok(done)
}

fn parse(text: &str) -> Option<Done> {
    let mut done = Done::default();
    let mut failures = BTreeMap::new();
    let mut is_found = false;
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", time] => {
                done.figures.insert(Figure::LatencyP50, micros(time)?);
            }
            ["99%", time] => {
                done.figures.insert(Figure::LatencyP99, micros(time)?);
            }
            [count, "requests", "in", time, ..] => {
                done.requests = count.parse().ok()?;
                done.elapsed = Duration::from_secs_f64(micros(time.trim_end_matches(','))? / 1e6);
                is_found = true;
            }
            ["Socket", "errors:", pairs @ ..] => {
                for pair in pairs.chunks_exact(2) {
                    let [kind, count] = pair else { return None };
                    let count = count.trim_end_matches(',').parse().ok()?;
                    failures.insert((*kind).to_owned(), count);
                }
            }
            ["Non-2xx", .., count] => {
                failures.insert("status".into(), count.parse().ok()?);
            }
            _ => {}
        }
    }
    failures.retain(|_, count: &mut u64| *count > 0);
    done.failures = failures;
    is_found.then_some(done)
}

/// A time as it and its like print them, such as `1.23ms`.
pub(super) fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)];
    let (number, factor) = units
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running 3s test @ http://127.0.0.1:20001/
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.01ms    1.00ms  20.00ms   90.00%
    Req/Sec    16.70k     1.20k   18.00k    70.00%
  Latency Distribution
     50%    2.90ms
     75%    3.20ms
     90%    3.90ms
     99%  950.00us
  50127 requests in 3.02s, 8.13MB read
  Socket errors: connect 0, read 3, write 0, timeout 1
  Non-2xx or 3xx responses: 7
Requests/sec:  16600.00
Transfer/sec:      2.69MB
";

    #[test]
    fn parse_of_what_it_prints_gives_counts_times_and_failures() {
        let done = parse(PRINTED).unwrap();
        assert_eq!(done.requests, 50127);
        assert_eq!(done.elapsed, Duration::from_millis(3020));
        assert_eq!(done.figures.get(&Figure::LatencyP50), Some(&2900.0));
        assert_eq!(done.figures.get(&Figure::LatencyP99), Some(&950.0));
        let failures: Vec<_> = done.failures.into_iter().collect();
        let expected = [("read", 3), ("status", 7), ("timeout", 1)];
        assert_eq!(
            failures,
            expected.map(|(kind, count)| (kind.to_owned(), count))
        );
    }

    #[test]
    fn parse_of_anything_else_is_none() {
        assert!(parse("unable to connect to 127.0.0.1:1 Connection refused\n").is_none());
    }
}
