//! Logs and colour: to standard error, for people or for machines. Owns the subscriber and the one decision whether
//! output is coloured; what is logged belongs to each part.

pub mod access_log;
mod logfmt;
pub mod metrics;

use std::{io::IsTerminal, sync::OnceLock};

use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
    /// One line of `key=value` an event.
    Logfmt,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColourChoice {
    /// On a terminal, unless `NO_COLOR` says no or `CLICOLOR_FORCE` says yes.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Nowhere.
    Never,
}

/// What the command line says; set before anything is printed.
static COLOUR: OnceLock<ColourChoice> = OnceLock::new();

/// Decides about colour for the whole process. Only the first call counts.
pub fn set_colour(choice: ColourChoice) {
    let _ = COLOUR.set(choice);
}

/// Starts logging. `level` takes what `RUST_LOG` would: `info`, `debug`, `portico::control=debug`. A second call
/// changes nothing, so tests may start several programs in one process.
pub fn start(level: &str, format: LogFormat) {
    // What the codec of HTTP/2 warns of is what clients do, a line for each of their frames: it is logged where that is asked for by name.
    let quiet = |level: &str| format!("h2=error,{level}");
    let filter = EnvFilter::try_new(quiet(level)).unwrap_or_else(|_| EnvFilter::new(quiet("info")));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_timer(SystemTime)
        .log_internal_errors(false);
    let _ = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Logfmt => builder.event_format(logfmt::Logfmt).try_init(),
        LogFormat::Text => builder
            .with_ansi(wants_colour(&std::io::stderr()))
            .with_target(false)
            .try_init(),
    };
}

/// Whether what goes to `stream` should be coloured.
pub fn wants_colour(stream: &impl IsTerminal) -> bool {
    let choice = COLOUR.get().copied().unwrap_or_default();
    let variable = |name: &str| {
        let value = std::env::var_os(name)?;
        Some(value.to_string_lossy().into_owned())
    };
    is_coloured(choice, &variable, stream.is_terminal())
}

/// `NO_COLOR` (<https://no-color.org>) wins over `CLICOLOR_FORCE` and `CLICOLOR`
/// (<https://bixense.com/clicolors/>), the command line over all of them.
fn is_coloured(
    choice: ColourChoice,
    variable: &dyn Fn(&str) -> Option<String>,
    is_terminal: bool,
) -> bool {
    let is_on = |name: &str| variable(name).is_some_and(|value| !value.is_empty() && value != "0");
    match choice {
        ColourChoice::Always => true,
        ColourChoice::Never => false,
        ColourChoice::Auto if variable("NO_COLOR").is_some_and(|value| !value.is_empty()) => false,
        ColourChoice::Auto if is_on("CLICOLOR_FORCE") => true,
        ColourChoice::Auto => {
            let is_plain = variable("TERM").is_some_and(|value| value == "dumb")
                || variable("CLICOLOR").is_some_and(|value| value == "0");
            is_terminal && !is_plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(choice: ColourChoice, set: &[(&str, &str)], is_terminal: bool, expected: bool) {
        let variable = |wanted: &str| {
            let found = set.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        };
        let is = is_coloured(choice, &variable, is_terminal);
        assert_eq!(is, expected, "{choice:?} {set:?} {is_terminal}");
    }

    #[test]
    fn is_coloured_by_flag_then_no_color_then_force_then_terminal() {
        use ColourChoice::{Always, Auto, Never};
        check(Auto, &[], true, true);
        check(Auto, &[], false, false);
        check(
            Auto,
            &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")],
            true,
            false,
        );
        check(Auto, &[("NO_COLOR", "")], true, true);
        check(Auto, &[("CLICOLOR_FORCE", "1")], false, true);
        check(Auto, &[("CLICOLOR_FORCE", "0")], false, false);
        check(Auto, &[("CLICOLOR", "0")], true, false);
        check(Auto, &[("TERM", "dumb")], true, false);
        check(Always, &[("NO_COLOR", "1")], false, true);
        check(Never, &[("CLICOLOR_FORCE", "1")], true, false);
    }
}
