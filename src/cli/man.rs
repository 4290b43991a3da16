//! `portico man`: manual pages, made from the same text as the help. Owns the sections that help does not have.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::{Args, Command};
use clap_mangen::{
    Man,
    roff::{Roff, bold, italic, roman},
};

use super::say;

/// Arguments of `portico man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command whose page is printed; the main page without it
    #[arg(value_name = "COMMAND")]
    page: Vec<String>,
    /// Write the pages of all commands into this folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "page")]
    dir: Option<PathBuf>,
}

/// Status and when, for every command.
const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Success."),
    (
        "1",
        "The command could not do its work, or found what it was to find wrong; standard error says why.",
    ),
    ("2", "The command line is wrong."),
];

/// Variables that every command heeds, beside those of its options.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "CLICOLOR_FORCE",
        "When set and not 0, output is coloured also where it is no terminal.",
    ),
    (
        "NO_COLOR",
        "When set and not empty, nothing is coloured. --color comes before both.",
    ),
    (
        "XDG_CONFIG_HOME",
        "Where the settings file is looked for; default ~/.config.",
    ),
    (
        "XDG_RUNTIME_DIR",
        "Where lock and socket of an instance are; default /tmp/portico-UID.",
    ),
    (
        "XDG_STATE_HOME",
        "Where the state of an instance is; default ~/.local/state.",
    ),
];

/// Variables of the service manager, which `portico up` heeds.
const MANAGER: &[(&str, &str)] = &[
    (
        "LISTEN_FDS",
        "With LISTEN_PID and LISTEN_FDNAMES: sockets to serve on, see sd_listen_fds(3).",
    ),
    (
        "NOTIFY_SOCKET",
        "Who is told of readiness, reloads and the end, see sd_notify(3).",
    ),
    (
        "WATCHDOG_USEC",
        "How often to give a sign of life, see sd_watchdog_enabled(3).",
    ),
];

const FILES: &[(&str, &str)] = &[
    (
        "$XDG_CONFIG_HOME/portico/settings.yaml",
        "Settings of the user: one flag and its value a line.",
    ),
    (
        "/etc/portico/settings.yaml",
        "Settings of the machine, where the user has none.",
    ),
    (
        "$XDG_RUNTIME_DIR/portico/NAME/",
        "Lock and admin socket (api.sock) of instance NAME.",
    ),
    (
        "$XDG_STATE_HOME/portico/NAME/",
        "What outlives a restart: addresses that were given.",
    ),
];

/// Prints one page or writes all of them.
///
/// # Errors
/// No such command; a file cannot be written.
pub fn run(args: &ManArgs, mut root: Command) -> anyhow::Result<ExitCode> {
    root.build();
    if let Some(dir) = &args.dir {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write_all(&root, &root, dir)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut command = &root;
    for name in &args.page {
        let Some(found) = command.find_subcommand(name) else {
            bail!("there is no command 'portico {}'", args.page.join(" "));
        };
        command = found;
    }
    say::text(String::from_utf8_lossy(&page(&root, command)?));
    Ok(ExitCode::SUCCESS)
}

fn write_all(root: &Command, command: &Command, dir: &Path) -> anyhow::Result<()> {
    let file = dir.join(format!("{}.1", title(command)));
    std::fs::write(&file, page(root, command)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_all(root, sub, dir)?;
    }
    Ok(())
}

/// `portico-rollout-status`.
fn title(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    name.replace(' ', "-")
}

fn page(root: &Command, command: &Command) -> io::Result<Vec<u8>> {
    let version = root.get_version().unwrap_or_default();
    let man = Man::new(command.clone());
    // Without a date: a page is the same whenever it is made.
    let title = title(command).to_uppercase();
    let mut out = format!(".TH \"{title}\" \"1\" \"\" \"portico {version}\" \"Portico Manual\"\n")
        .into_bytes();
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    examples(command).to_writer(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(&mut out)?;
    }
    table("EXIT STATUS", EXIT_STATUS.iter().copied()).to_writer(&mut out)?;
    let variables = variables(command);
    let variables = variables.iter().map(|(name, text)| (&**name, &**text));
    table("ENVIRONMENT", variables).to_writer(&mut out)?;
    table("FILES", FILES.iter().copied()).to_writer(&mut out)?;
    see_also(root, command).to_writer(&mut out)?;
    Ok(out)
}

/// The examples of the help, as they are typed.
fn examples(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let text = command.get_before_help().map(ToString::to_string);
    let lines = text.iter().flat_map(|text| text.lines());
    let lines: Vec<&str> = lines
        .filter(|line| line.starts_with(' '))
        .map(str::trim)
        .collect();
    if lines.is_empty() {
        return roff;
    }
    roff.control("SH", ["EXAMPLES"]);
    for line in lines {
        let (typed, meaning) = line.split_once("  ").unwrap_or((line, ""));
        roff.control("TP", []);
        roff.text([bold(typed)]);
        roff.text([roman(meaning.trim())]);
    }
    roff
}

/// What each variable of the command does, with those that every command heeds.
fn variables(command: &Command) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for arg in command.get_arguments() {
        let (Some(name), Some(flag)) = (arg.get_env(), arg.get_long()) else {
            continue;
        };
        let text = format!("The value of --{flag}, unless that is given.");
        variables.insert(name.to_string_lossy().into_owned(), text);
    }
    let serves = matches!(command.get_name(), "up" | "demo" | "portico");
    let manager = MANAGER.iter().filter(|_| serves);
    for (name, text) in ENVIRONMENT.iter().chain(manager) {
        variables.insert((*name).to_owned(), (*text).to_owned());
    }
    variables
}

fn table<'a>(title: &str, rows: impl Iterator<Item = (&'a str, &'a str)>) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for (name, text) in rows {
        roff.control("TP", []);
        roff.text([bold(name)]);
        roff.text([roman(text)]);
    }
    roff
}

fn see_also(root: &Command, command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let subs = root.get_subcommands().filter(|sub| !sub.is_hide_set());
    let mut titles: Vec<String> = std::iter::once(root).chain(subs).map(title).collect();
    titles.retain(|other| *other != title(command));
    let mut text = Vec::new();
    for (index, title) in titles.into_iter().enumerate() {
        if index > 0 {
            text.push(roman(", "));
        }
        text.push(italic(title));
        text.push(roman("(1)"));
    }
    roff.text(text);
    roff
}
