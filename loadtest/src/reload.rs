//! Scenario `reload`: a Service of our own, whose endpoints are edited all the time while clients connect to it. Its
//! servers never close, so any connection that fails was failed by the reload. Owns the edits and the verdict.

use std::{
    fmt::{self, Write as _},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use crate::{
    backend::{self, Servers},
    client::{self, Load, Stop},
    report::{Counts, Times},
    target::Target,
};

/// The manifest that is edited; it is removed at the end.
const FILE: &str = "loadtest-reload.yaml";

/// Arguments of the scenario.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// A free address and port of the running program's service range: the Service will request them
    target: Target,
    /// The folder that `portico up` follows
    #[arg(long)]
    folder: PathBuf,
    /// Edits in all
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    edits: u32,
    /// Seconds over which the edits are spread evenly
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Clients in parallel
    #[arg(short, long, default_value = "4", value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// Servers, all but one of which are endpoints at a time
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u16).range(2..=64))]
    servers: u16,
    /// Most seconds to wait for the first answer
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=60))]
    patience: u64,
    /// Process of portico: its descriptors and threads are compared before and after
    #[arg(long)]
    pid: Option<u32>,
}

/// The outcome.
#[derive(Debug, Serialize)]
pub(crate) struct ReloadReport {
    /// No connection failed, and the process has no more descriptors and threads than before.
    pub(crate) is_clean: bool,
    /// Edits made.
    edits: u32,
    /// Seconds that they took.
    seconds: f64,
    #[serde(flatten)]
    counts: Counts,
    times: Times,
    /// What portico held before and after.
    process: Option<(Footprint, Footprint)>,
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.counts.table())?;
        writeln!(f, "{}", self.times)?;
        if let Some((before, after)) = &self.process {
            writeln!(
                f,
                "descriptors {} -> {}, threads {} -> {}",
                before.descriptors, after.descriptors, before.threads, after.threads
            )?;
        }
        writeln!(
            f,
            "{} edits={} in={:.1}s n={} failed={}",
            if self.is_clean { "CLEAN" } else { "BROKEN" },
            self.edits,
            self.seconds,
            self.counts.answered_total(),
            self.counts.failed_total()
        )
    }
}

/// What a process holds, as proc(5) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Footprint {
    descriptors: usize,
    threads: usize,
}

impl Footprint {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let count = |folder: &str| {
            let folder = format!("/proc/{pid}/{folder}");
            let entries =
                std::fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
            anyhow::Ok(entries.count())
        };
        Ok(Self {
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }

    fn is_within(self, before: Self) -> bool {
        self.descriptors <= before.descriptors && self.threads <= before.threads
    }
}

/// Runs the scenario.
///
/// # Errors
/// The folder cannot be written, or the program does not follow it.
pub(crate) async fn run(args: &ReloadArgs) -> anyhow::Result<ReloadReport> {
    if !args.folder.is_dir() {
        bail!("{} is not a folder", args.folder.display());
    }
    let manifest = Manifest::new(args);
    let backends = backend::named(usize::from(args.servers))
        .await
        .context("cannot start the servers")?;
    manifest.write(backends.addrs(), 0)?;
    first_answer(args).await?;
    let before = args.pid.map(Footprint::of).transpose()?;
    let stop = Stop::default();
    let load = Load {
        target: args.target.addr(),
        clients: args.clients,
        connections: u64::MAX,
        patience: Duration::from_secs(args.patience),
    };
    let began = Instant::now();
    let edits = async {
        let outcome = edit(args, &manifest, &backends).await;
        stop.stop();
        outcome
    };
    let (edits, counts) = tokio::join!(edits, client::run(load, &stop));
    edits?;
    let seconds = began.elapsed().as_secs_f64();
    let process = match (before, args.pid) {
        (Some(before), Some(pid)) => Some((before, settled(pid, before).await?)),
        _ => None,
    };
    let is_settled = process.is_none_or(|(before, after)| after.is_within(before));
    Ok(ReloadReport {
        is_clean: counts.failed_total() == 0 && counts.answered_total() > 0 && is_settled,
        edits: args.edits,
        seconds,
        times: counts.times(),
        counts,
        process,
    })
}

/// Waits until the Service answers, which tells that the folder is followed.
async fn first_answer(args: &ReloadArgs) -> anyhow::Result<()> {
    let patience = Duration::from_secs(args.patience);
    let deadline = Instant::now() + patience;
    loop {
        match client::ask(args.target.addr(), patience).await {
            Ok(name) if name.starts_with("backend-") => return Ok(()),
            Ok(name) => bail!(
                "'{name}' answers at {}: choose a free address",
                args.target.addr()
            ),
            Err(failure) if Instant::now() > deadline => bail!(
                "nobody answers at {} ({failure}): does `portico up {}` run, and is the address in its range?",
                args.target.addr(),
                args.folder.display()
            ),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Makes the edits at an even pace.
async fn edit(args: &ReloadArgs, manifest: &Manifest, backends: &Servers) -> anyhow::Result<()> {
    let pause = Duration::from_secs(args.seconds.into()) / args.edits;
    let mut pace = tokio::time::interval(pause.max(Duration::from_micros(1)));
    for number in 1..=args.edits {
        pace.tick().await;
        manifest.write(backends.addrs(), number)?;
    }
    Ok(())
}

/// What the process holds once its last relays have ended.
async fn settled(pid: u32, before: Footprint) -> anyhow::Result<Footprint> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let after = Footprint::of(pid)?;
        if after.is_within(before) || Instant::now() > deadline {
            return Ok(after);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The manifest; goes with the value.
struct Manifest {
    folder: PathBuf,
    target: SocketAddr,
}

impl Manifest {
    fn new(args: &ReloadArgs) -> Self {
        Self {
            folder: args.folder.clone(),
            target: args.target.addr(),
        }
    }

    /// Writes beside it and renames, as careful editors do.
    fn write(&self, servers: &[SocketAddr], edit: u32) -> anyhow::Result<()> {
        let temporary = self.folder.join(format!(".{FILE}.new"));
        let write = || -> io::Result<()> {
            std::fs::write(&temporary, text(self.target, servers, edit))?;
            std::fs::rename(&temporary, self.file())
        };
        write().with_context(|| format!("cannot write {}", self.file().display()))
    }

    fn file(&self) -> PathBuf {
        Path::new(&self.folder).join(FILE)
    }
}

impl Drop for Manifest {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.file());
    }
}

/// The Service and a slice for each server but one: another one with each edit.
fn text(target: SocketAddr, servers: &[SocketAddr], edit: u32) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: loadtest-reload\n  annotations:\n    edit: \"{edit}\"\nspec:\n  \
         clusterIP: {}\n  ports:\n    - port: {}\n",
        target.ip(),
        target.port()
    );
    let left_out = usize::try_from(edit).unwrap_or_default() % servers.len().max(1);
    for (number, server) in servers
        .iter()
        .enumerate()
        .filter(|(number, _)| *number != left_out)
    {
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: loadtest-reload-{number}\n  \
             labels:\n    kubernetes.io/service-name: loadtest-reload\naddressType: IPv4\nports:\n  - port: {}\n\
             endpoints:\n  - addresses: [\"{}\"]\n",
            server.port(),
            server.ip()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_leaves_another_server_out_with_each_edit() {
        let servers: Vec<SocketAddr> = (1..=3)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect();
        let target = "127.96.0.77:8080".parse().unwrap();
        for edit in 0..6 {
            let text = text(target, &servers, edit);
            assert_eq!(text.matches("kind: EndpointSlice").count(), 2);
            assert!(!text.contains(&format!("name: loadtest-reload-{}", edit % 3)));
            assert!(text.contains("clusterIP: 127.96.0.77"));
        }
    }

    #[test]
    fn footprint_of_this_process_has_descriptors_and_threads() {
        let here = Footprint::of(std::process::id()).unwrap();
        assert!(here.descriptors > 0 && here.threads > 0);
        assert!(here.is_within(here));
    }
}
