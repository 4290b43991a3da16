//! `reliability [ITEM...]`: what a proxy must not get wrong, provoked for longer than a test may last, each item with its
//! figures and what they must not exceed. Owns the list of items and the command; every item is a module.

mod descriptors;
mod edits;
mod endings;
mod ground;
mod listeners;
mod readers;
mod requests;
mod result;
mod stalls;
mod storms;
mod turns;
mod windows;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{
    compare,
    provenance::{self, Machine},
    stage::Programs,
};
use result::{ItemResult, Line};
use stalls::Stalls;

/// Arguments of the command.
#[derive(Debug, Args)]
pub(crate) struct ReliabilityArgs {
    /// What to provoke [default: everything]
    items: Vec<Item>,
    /// Seconds of one item, instead of its own
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Also make the tables at the end of the page, such as docs/reliability.md
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// The program under test [default: `portico` beside this program]
    #[arg(long, value_name = "FILE")]
    portico: Option<PathBuf>,
}

/// One thing that is provoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Item {
    /// Edits of endpoints and weights under load
    Edits,
    /// Listeners that come, move and go
    Listeners,
    /// Turns of round robin
    Turns,
    /// Clients that hardly read
    SlowReaders,
    /// More clients than descriptors
    Descriptors,
    /// Resets, from either side to the other
    Resets,
    /// Connections as fast as they can be made, then resets
    Storms,
    /// Readers that keep their window closed
    ZeroWindows,
    /// Endpoints of HTTP that close idle connections under requests
    HttpStale,
    /// Endpoints of HTTP that end in the midst of an answer
    HttpEndings,
}

impl Item {
    /// What is done, for the page.
    const fn about(self) -> &'static str {
        match self {
            Self::Edits => {
                "167 edits a second add, remove and weigh endpoints of a Service that answers 5000 requests a second on \
                 connections that stay, beside 500 connections, 200 UDP flows and a new connection every 5 ms; before that \
                 the same without edits, and single edits of a quiet table."
            }
            Self::Listeners => {
                "A Service comes at one port, moves to another and goes, again and again, each edit by itself (those within 50 ms are taken together), beside connections that stay and a \
                 new one every 5 ms."
            }
            Self::Turns => {
                "10 000 connections from 64 clients to 1, 2, 3, 5, 7 and 100 endpoints each, by two workers."
            }
            Self::SlowReaders => {
                "500 clients that read one byte a second of an endless answer, beside a new connection every 5 ms."
            }
            Self::Descriptors => {
                "1000 clients of a portico with 256 descriptors; once nothing more is accepted, those that are served go one \
                 by one."
            }
            Self::Resets => {
                "One side resets (SO_LINGER 0), and the other waits for it: connections that are idle, and those that have \
                 carried 1 MiB each way."
            }
            Self::Storms => {
                "64 clients that connect, ask and close without a pause, then 64 that connect and reset; beside them a client \
                 that connects every 10 ms by portico, and one that does so straight at the endpoint: the cores are shared."
            }
            Self::ZeroWindows => {
                "Connections with 32 MiB on their way to a side that reads nothing for the time, either way; then it reads all."
            }
            Self::HttpStale => {
                "100 000 GETs of 128 clients that wait up to 50 ms between two, behind an endpoint that closes each connection once \
                 nothing came for up to 50 ms."
            }
            Self::HttpEndings => {
                "1000 answers each of HTTP/1 with a length, in chunks, and of HTTP/2, whose endpoint closes or resets in the midst; \
                 the client speaks HTTP/1."
            }
        }
    }

    /// Unless the command line says otherwise.
    const fn seconds(self) -> u64 {
        match self {
            Self::Edits => 60,
            Self::Listeners | Self::SlowReaders => 20,
            Self::Turns | Self::Descriptors | Self::Resets => 10,
            Self::Storms | Self::HttpStale | Self::HttpEndings => 30,
            Self::ZeroWindows => 300,
        }
    }

    async fn provoke(self, run: &Run) -> anyhow::Result<Vec<Line>> {
        match self {
            Self::Edits => edits::provoke(run).await,
            Self::Listeners => listeners::provoke(run).await,
            Self::Turns => turns::provoke(run).await,
            Self::SlowReaders => readers::provoke(run).await,
            Self::Descriptors => descriptors::provoke(run).await,
            Self::Resets => endings::provoke(run).await,
            Self::Storms => storms::provoke(run).await,
            Self::ZeroWindows => windows::provoke(run).await,
            Self::HttpStale => requests::stale(run).await,
            Self::HttpEndings => requests::endings(run).await,
        }
    }

    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// One item's run.
struct Run {
    programs: Programs,
    time: Duration,
}

impl Run {
    /// When it is over, if it begins now.
    fn until(&self) -> Instant {
        Instant::now() + self.time
    }
}

/// What was run.
#[derive(Debug, Serialize)]
pub(crate) struct Report(Vec<ItemResult>);

impl Report {
    /// Whether every bound of every item is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.iter().all(ItemResult::is_kept)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|result| result.fmt(f))
    }
}

/// Runs the items one after the other and writes a result each.
///
/// # Errors
/// Something cannot be started, or does not answer.
pub(crate) async fn run(args: &ReliabilityArgs) -> anyhow::Result<Report> {
    compare::raise_limit()?;
    let items = match args.items.as_slice() {
        [] => Item::value_variants(),
        some => some,
    };
    let folder = folder();
    let mut results = Vec::new();
    for item in items {
        let result = one(*item, args).await?;
        result.write(&folder)?;
        results.push(result);
    }
    if let Some(page) = &args.page {
        result::page(&folder, page)?;
    }
    Ok(Report(results))
}

async fn one(item: Item, args: &ReliabilityArgs) -> anyhow::Result<ItemResult> {
    let run = Run {
        programs: Programs::beside(args.portico.as_deref())?,
        time: Duration::from_secs(args.seconds.unwrap_or(item.seconds())),
    };
    eprintln!("{}: {} s", item.name(), run.time.as_secs());
    let versions = run.programs.versions();
    let portico = versions.into_iter().find(|(name, _)| name == "portico");
    let (began, machine) = (provenance::now(), Machine::here());
    let stalls = Stalls::watch();
    let mut lines = item.provoke(&run).await?;
    lines.push(stalls.longest());
    Ok(ItemResult {
        schema: result::SCHEMA,
        item,
        seconds: run.time.as_secs(),
        began,
        machine,
        portico: portico.map(|(_, version)| version).unwrap_or_default(),
        lines,
    })
}

/// Where results are kept.
fn folder() -> PathBuf {
    compare::results().join("reliability")
}

/// Where the result of an item is.
fn file(folder: &Path, item: Item) -> PathBuf {
    folder.join(format!("{}.json", item.name()))
}
