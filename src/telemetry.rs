//! Logs: to standard error, for people or for machines. Owns the subscriber; what is logged belongs to each part.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people; coloured on a terminal unless `NO_COLOR` is set.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `level` takes what `RUST_LOG` would: `info`, `debug`, `portico::control=debug`. A second call
/// changes nothing, so tests may start several programs in one process.
pub fn start(level: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_timer(SystemTime)
        .log_internal_errors(false);
    let _ = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder
            .with_ansi(wants_colour(&std::io::stderr()))
            .with_target(false)
            .try_init(),
    };
}

/// Whether what goes to `stream` should be coloured: a terminal, and `NO_COLOR` (<https://no-color.org>) not set.
pub fn wants_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
