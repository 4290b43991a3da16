//! `portico top`: the busiest Services or endpoints, again and again. Owns the screen; the table is that of `stat`.
//!
//! On a terminal each table is written over the last one, with nothing but "cursor home" and "clear to the end"
//! (ECMA-48, CUP, EL and ED): no mode is switched, so that nothing has to be restored, and the last one stays when the
//! command is interrupted. Anywhere else the tables come one after another.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, stdout},
    process::ExitCode,
    time::Duration,
};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use rustix::termios::tcgetwinsize;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    say,
    stat::{
        Endpoints, Place, WindowName,
        table::{self, SortBy},
    },
};
use crate::settings::{InstanceOptions, parse_duration};

/// Arguments of `portico top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// What a row is
    #[arg(value_enum, default_value = "services")]
    of: Of,
    #[command(flatten)]
    #[allow(missing_docs)]
    place: Place,
    /// Time between two looks, as in 500ms, 1s
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_duration)]
    interval: Duration,
    /// Over which time rates are
    #[arg(short, long, value_enum, default_value = "1s")]
    window: WindowName,
    /// What comes first
    #[arg(long, value_enum, default_value = "conn")]
    sort_by: SortBy,
    /// Look once
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    /// A Service port.
    Services,
    /// An endpoint of a Service port.
    Endpoints,
}

/// The least time between two looks: a look reads every counter.
const LEAST: Duration = Duration::from_millis(100);

/// Where tables go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Screen {
    rows: usize,
    columns: usize,
}

/// The command. Runs until it is interrupted.
///
/// # Errors
/// No program runs under this instance name, or it has ended.
pub fn run(args: &TopArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    ensure!(
        args.interval >= LEAST,
        "--interval must be at least {}ms",
        LEAST.as_millis()
    );
    if args.once {
        let (rows, _) = look(args, instance)?;
        match rows {
            Some(rows) => say::text(rows.text(usize::MAX)),
            None => say::error_line(args.place.nothing()),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Only this signal: an interrupt ends the process as it ends any.
    let mut resized = {
        let _within = runtime.enter();
        signal(SignalKind::window_change())?
    };
    if stdout().is_terminal() {
        // What was there is scrolled away rather than overwritten.
        say::text("\x1b[2J");
    } else {
        say::end_with_reader();
    }
    loop {
        let (rows, summary) = look(args, instance)?;
        match screen() {
            Some(screen) => say::text(frame(rows.as_ref(), &summary, &args.place, screen)),
            None => match rows {
                Some(rows) => say::text(rows.text(usize::MAX) + "\n"),
                None => say::error_line(args.place.nothing()),
            },
        }
        runtime.block_on(async {
            // Both are cancel safe: a change of size that comes too late is seen with the next look.
            tokio::select! {
                () = tokio::time::sleep(args.interval) => {}
                _ = resized.recv() => {}
            }
        });
    }
}

/// The sorted rows, if there are any, and a line about all of them.
fn look(
    args: &TopArgs,
    instance: &InstanceOptions,
) -> anyhow::Result<(Option<table::Rows>, String)> {
    let detail = match args.of {
        Of::Services => Endpoints::LeftOut,
        Of::Endpoints => Endpoints::Listed,
    };
    let stat = args.place.fetch(instance, detail)?;
    let windows = table::Windows {
        rates: args.window,
        shares: WindowName::Mark,
    };
    let namespace = args.place.column();
    let mut rows = match args.of {
        Of::Services => table::services(&stat.ports, windows, namespace),
        Of::Endpoints => table::endpoints(&stat.ports, windows, namespace),
    };
    rows.sort(args.sort_by);
    let over = args.window.as_str();
    let active: u64 = stat.ports.iter().map(|port| port.counts.active).sum();
    let summary = format!(
        "{}  Service ports: {}, over {over}: {}, active: {active}  (Ctrl-C ends)",
        stat.time,
        stat.ports.len(),
        table::sums(&stat.ports, args.window)
    );
    Ok(((rows.len() > 0).then_some(rows), summary))
}

/// The terminal's size now; `None` where standard output is none. One that does not know its size is taken for the
/// usual one.
fn screen() -> Option<Screen> {
    let out = stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = tcgetwinsize(&out).ok();
    let known = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
    Some(known.map_or(
        Screen {
            rows: 24,
            columns: 80,
        },
        |size| Screen {
            rows: size.ws_row.into(),
            columns: size.ws_col.into(),
        },
    ))
}

/// Lines beside the rows: the summary, the header, what is left out, and where the cursor stays.
const OTHER_LINES: usize = 4;

/// One screen, in one write: from the top, each line cleared to its end, and all below.
fn frame(rows: Option<&table::Rows>, summary: &str, place: &Place, screen: Screen) -> String {
    let room = screen.rows.saturating_sub(OTHER_LINES).max(1);
    let mut text = format!("{summary}\n");
    match rows {
        None => text.push_str(&place.nothing()),
        Some(rows) => {
            // What does not have to be told leaves its line to a row.
            let room = if rows.len() <= room + 1 {
                room + 1
            } else {
                room
            };
            text.push_str(&rows.text(room));
            let left_out = rows.len().saturating_sub(room);
            if left_out > 0 {
                // Writing to a String cannot fail.
                let _ = write!(text, "and {left_out} more, further down by this order");
            }
        }
    }
    let mut out = String::from("\x1b[H");
    for line in text.lines() {
        // A line that wraps would push the first one out.
        out.extend(line.chars().take(screen.columns));
        out.push_str("\x1b[K\n");
    }
    out.push_str("\x1b[J");
    out
}

#[cfg(test)]
mod tests;
