//! Scenario `distribution`: many connections by parallel clients, counted by who answered. Owns the verdict.

use std::{fmt, time::Duration};

use clap::Args;
use serde::Serialize;

use crate::{
    client::{self, Load, Stop},
    report::{Counts, Times},
    target::Target,
};

/// Arguments of the scenario.
#[derive(Debug, Args)]
pub(crate) struct DistributionArgs {
    /// Where to connect: ADDR:PORT in 127.0.0.0/8
    target: Target,
    /// Connections in all
    #[arg(short = 'n', long, default_value = "3000", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    connections: u64,
    /// Clients in parallel
    #[arg(short, long, default_value = "16", value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// How many pods should have answered; any number if not given
    #[arg(long)]
    pods: Option<usize>,
    /// Most seconds for one connection
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=60))]
    patience: u64,
    /// Most seconds in all; no connection is begun after them
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// The outcome.
#[derive(Debug, Serialize)]
pub(crate) struct DistributionReport {
    /// Every connection was answered, and the counts differ by at most one.
    pub(crate) is_even: bool,
    /// Connections that were asked for.
    asked: u64,
    /// Pods that should have answered.
    pods: Option<usize>,
    #[serde(flatten)]
    counts: Counts,
    times: Times,
}

impl DistributionReport {
    fn new(args: &DistributionArgs, counts: Counts) -> Self {
        let is_complete = counts.answered_total() == args.connections;
        let has_pods = args.pods.is_none_or(|pods| pods == counts.answers.len());
        let is_even = is_complete && has_pods && counts.spread() <= 1;
        Self {
            is_even,
            asked: args.connections,
            pods: args.pods,
            times: counts.times(),
            counts,
        }
    }
}

impl fmt::Display for DistributionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.counts.table())?;
        writeln!(f, "{}", self.times)?;
        let verdict = if self.is_even { "EVEN" } else { "UNEVEN" };
        let answered = self.counts.answered_total();
        write!(
            f,
            "{verdict} n={answered} k={} max-min={} failed={}",
            self.counts.answers.len(),
            self.counts.spread(),
            self.counts.failed_total()
        )?;
        if answered != self.asked {
            write!(f, " asked={}", self.asked)?;
        }
        if let Some(pods) = self.pods.filter(|pods| *pods != self.counts.answers.len()) {
            write!(f, " pods-expected={pods}")?;
        }
        writeln!(f)
    }
}

/// Runs the scenario.
///
/// # Errors
/// None today; the signature is that of every scenario.
pub(crate) async fn run(args: &DistributionArgs) -> anyhow::Result<DistributionReport> {
    let load = Load {
        target: args.target.addr(),
        clients: args.clients,
        connections: args.connections,
        patience: Duration::from_secs(args.patience),
    };
    let stop = Stop::default();
    let clients = client::run(load, &stop);
    tokio::pin!(clients);
    let counts = tokio::select! {
        counts = &mut clients => counts,
        () = tokio::time::sleep(Duration::from_secs(args.seconds)) => {
            stop.stop();
            clients.await
        }
    };
    Ok(DistributionReport::new(args, counts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend;

    fn args(
        target: std::net::SocketAddr,
        connections: u64,
        pods: Option<usize>,
    ) -> DistributionArgs {
        DistributionArgs {
            target: target.to_string().parse().unwrap(),
            connections,
            clients: 4,
            pods,
            patience: 10,
            seconds: 60,
        }
    }

    #[tokio::test]
    async fn distribution_of_one_backend_is_even() {
        let backends = backend::named(1).await.unwrap();
        let report = run(&args(backends.addrs()[0], 50, Some(1))).await.unwrap();
        assert!(report.is_even, "{report}");
        let text = report.to_string();
        assert!(
            text.ends_with("EVEN n=50 k=1 max-min=0 failed=0\n"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn distribution_without_the_expected_pods_is_uneven() {
        let backends = backend::named(1).await.unwrap();
        let report = run(&args(backends.addrs()[0], 5, Some(2))).await.unwrap();
        assert!(!report.is_even);
        assert!(report.to_string().contains("pods-expected=2"));
    }

    #[tokio::test]
    async fn distribution_of_a_closed_port_counts_failures() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = closed.local_addr().unwrap();
        drop(closed);
        let report = run(&args(addr, 5, None)).await.unwrap();
        assert!(!report.is_even);
        let text = report.to_string();
        assert!(
            text.contains("5  FAILED: connect: ConnectionRefused"),
            "{text}"
        );
        assert!(
            text.contains("UNEVEN n=0 k=0 max-min=0 failed=5 asked=5"),
            "{text}"
        );
    }

    #[test]
    fn distribution_report_two_apart_is_uneven() {
        let mut counts = Counts::default();
        for name in ["a", "a", "a", "b"] {
            counts.answered(name.into(), Duration::ZERO);
        }
        let args = args("127.0.0.1:1".parse().unwrap(), 4, None);
        assert!(!DistributionReport::new(&args, counts).is_even);
    }
}
