//! Where a setting comes from: the command line, the environment, a settings file or a default, in this order of
//! precedence. Owns reading the file, the order, and what is said about names that nobody knows; must not know what a
//! setting means.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use portico_core::object::{
    decode::closest,
    tree::{Node, Value},
};

use crate::source::yaml;

/// Commands that a settings file is read for. The last one only shows what the others would do.
const LAYERED: [&str; 3] = ["up", "demo", SHOW];
/// The command that shows settings: it goes on where the others would not.
const SHOW: &str = "settings";
/// What the variables of all our settings begin with.
const PREFIX: &str = "PORTICO_";
/// Variables of the project's own tests.
const TESTS: [&str; 3] = ["PORTICO_TEST_INSIDE", "PORTICO_BLESS", "PORTICO_PEERS"];

/// A command line that was read, with what a settings file adds to it.
#[derive(Debug)]
pub struct Parsed {
    /// What clap makes of it.
    pub matches: ArgMatches,
    /// What is suspicious, for people: names that nobody knows.
    pub warnings: Vec<String>,
    command: Command,
    from_file: BTreeMap<String, FilePlace>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FilePlace {
    file: PathBuf,
    line: u32,
}

/// One setting with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name: that of the flag and of the key in a file.
    pub name: String,
    /// What it is set to; several if it may be repeated.
    pub values: Vec<String>,
    /// Whether it may be repeated.
    pub is_list: bool,
    /// Who says so.
    pub origin: Origin,
}

/// Who gives a setting its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag(String),
    /// This variable.
    Environment(String),
    /// A line of the settings file.
    File(PathBuf, u32),
    /// Nobody.
    Default,
}

impl Origin {
    /// One word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Flag(_) => "flag",
            Self::Environment(_) => "environment",
            Self::File(..) => "file",
            Self::Default => "default",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag --{flag}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File(file, line) => write!(f, "file {}:{line}", file.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Reads the command line of `command`, and a settings file for flags that neither it nor the environment gives.
/// Errors of the command line itself end the process as clap does.
///
/// # Errors
/// A settings file that cannot be read or, but for `portico settings`, has a name that nobody knows.
pub fn parse(mut command: Command, arguments: Vec<OsString>) -> anyhow::Result<Parsed> {
    command.build();
    let matches = command.clone().get_matches_from(&arguments);
    let mut parsed = Parsed {
        matches,
        warnings: Vec::new(),
        command,
        from_file: BTreeMap::new(),
    };
    let Some(name) = parsed.layered() else {
        return Ok(parsed);
    };
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    parsed.warnings = unknown_variables(&parsed.command, variables);
    let leaf = parsed.matches.subcommand_matches(&name);
    let asked = leaf.and_then(|leaf| leaf.try_get_one::<PathBuf>("settings").ok().flatten());
    if let Some((file, text)) = settings_text(asked.map(PathBuf::as_path))? {
        let extended = parsed.with_file(&name, (&file, &text), arguments)?;
        parsed.matches = parsed.command.clone().get_matches_from(extended);
    }
    Ok(parsed)
}

impl Parsed {
    /// The command that settings are for, if it is one.
    fn layered(&self) -> Option<String> {
        let name = self.matches.subcommand_name()?;
        LAYERED.contains(&name).then(|| name.to_owned())
    }

    /// The arguments with what the file says for flags that nobody gives.
    fn with_file(
        &mut self,
        name: &str,
        (file, text): (&Path, &str),
        mut arguments: Vec<OsString>,
    ) -> anyhow::Result<Vec<OsString>> {
        let command = self.command.find_subcommand(name);
        let flags: Vec<&str> = command
            .into_iter()
            .flat_map(Command::get_arguments)
            .filter_map(Arg::get_long)
            .collect();
        let leaf = self.matches.subcommand_matches(name);
        for Entry { flag, line, value } in entries(file, text)? {
            if !flags.contains(&&*flag) {
                let message = unknown_key(&flags, file, line, &flag);
                if name != SHOW {
                    bail!(message);
                }
                self.warnings.push(message);
                continue;
            }
            let given = leaf.and_then(|leaf| leaf.value_source(&flag.replace('-', "_")));
            let is_given = matches!(
                given,
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            );
            if is_given {
                continue;
            }
            arguments.extend(value.arguments(&flag));
            let file = file.to_owned();
            self.from_file.insert(flag, FilePlace { file, line });
        }
        Ok(arguments)
    }

    /// Every setting of `portico up`, as `portico settings` was asked for them.
    pub fn settings(&self) -> Vec<Setting> {
        let command = self.command.find_subcommand(SHOW);
        let leaf = self.matches.subcommand_matches(SHOW);
        let (Some(command), Some(leaf)) = (command, leaf) else {
            return Vec::new();
        };
        let is_setting = |arg: &&Arg| {
            let not_settings = ["help", "version", "output"];
            arg.get_long().is_some() && !not_settings.contains(&arg.get_id().as_str())
        };
        let settings = command.get_arguments().filter(is_setting);
        settings.map(|arg| self.setting(arg, leaf)).collect()
    }

    fn setting(&self, arg: &Arg, leaf: &ArgMatches) -> Setting {
        let name = arg.get_long().unwrap_or_default().to_owned();
        let id = arg.get_id().as_str();
        let is_list =
            matches!(arg.get_action(), ArgAction::Append) || arg.get_value_delimiter().is_some();
        let raw = leaf.get_raw(id).into_iter().flatten();
        let mut values: Vec<String> = raw
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        if values.is_empty() {
            values.extend(default_in_help(arg));
        }
        let origin = match (self.from_file.get(&name), leaf.value_source(id)) {
            (Some(place), _) => Origin::File(place.file.clone(), place.line),
            (None, Some(ValueSource::CommandLine)) => Origin::Flag(name.clone()),
            (None, Some(ValueSource::EnvVariable)) => {
                let variable = arg
                    .get_env()
                    .map(|name| name.to_string_lossy().into_owned());
                Origin::Environment(variable.unwrap_or_default())
            }
            (None, _) => Origin::Default,
        };
        Setting {
            name,
            values,
            is_list,
            origin,
        }
    }
}

/// What the help says about a default that is worked out later: `... [default: one a core]`.
fn default_in_help(arg: &Arg) -> Option<String> {
    let help = arg.get_help()?.to_string();
    let (_, default) = help.split_once("[default: ")?;
    let (default, _) = default.rsplit_once(']')?;
    Some(default.replace('`', ""))
}

/// A warning for each variable with our prefix that no option reads.
fn unknown_variables(command: &Command, variables: impl Iterator<Item = String>) -> Vec<String> {
    let mut known: Vec<String> = Vec::new();
    let commands = std::iter::once(command).chain(command.get_subcommands());
    for arg in commands.flat_map(Command::get_arguments) {
        known.extend(
            arg.get_env()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    let ours = variables.filter(|name| {
        name.starts_with(PREFIX) && !known.contains(name) && !TESTS.contains(&&**name)
    });
    let mut warnings: Vec<String> = ours
        .map(|name| {
            let bare = name.strip_prefix(PREFIX).unwrap_or_default();
            let names = known.iter().filter_map(|known| known.strip_prefix(PREFIX));
            match closest(bare, names) {
                Some(meant) => format!(
                    "environment variable {name} is not known, did you mean {PREFIX}{meant}?"
                ),
                None => format!("environment variable {name} is not known: nothing reads it"),
            }
        })
        .collect();
    warnings.sort();
    warnings
}

fn unknown_key(flags: &[&str], file: &Path, line: u32, key: &str) -> String {
    let near = closest(key, flags.iter().copied());
    let near = near.map(|meant| format!(", did you mean '{meant}'?"));
    format!(
        "{}:{line}: unknown setting '{key}'{}",
        file.display(),
        near.unwrap_or_default()
    )
}

fn settings_text(asked: Option<&Path>) -> anyhow::Result<Option<(PathBuf, String)>> {
    if let Some(file) = asked {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read settings file {}", file.display()))?;
        return Ok(Some((file.to_owned(), text)));
    }
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let usual = home
        .into_iter()
        .chain([PathBuf::from("/etc")])
        .map(|folder| folder.join("portico/settings.yaml"));
    let mut readable =
        usual.filter_map(|file| std::fs::read_to_string(&file).ok().map(|text| (file, text)));
    Ok(readable.next())
}

/// One line of a settings file.
struct Entry {
    flag: String,
    line: u32,
    value: Written,
}

enum Written {
    Switch(bool),
    Values(Vec<String>),
}

impl Written {
    fn arguments(self, flag: &str) -> Vec<OsString> {
        match self {
            Self::Switch(true) => vec![format!("--{flag}").into()],
            Self::Switch(false) => Vec::new(),
            Self::Values(values) => values
                .iter()
                .map(|value| format!("--{flag}={value}").into())
                .collect(),
        }
    }
}

fn entries(file: &Path, text: &str) -> anyhow::Result<Vec<Entry>> {
    let name = file.display();
    let mut documents = yaml::parse(text, &yaml::Limits::default());
    if let Some(problem) = documents
        .iter()
        .find_map(|document| document.problems.first())
    {
        let line = problem.position.map_or(0, |position| position.line);
        bail!("{name}:{line}: {}", problem.message);
    }
    let node = documents.pop().and_then(|document| document.root);
    let Some(Node {
        value: Value::Map(entries),
        ..
    }) = node
    else {
        if node.is_none() {
            return Ok(Vec::new());
        }
        bail!("{name}: expected one mapping of flags to values");
    };
    let entry = |entry: &portico_core::object::tree::Entry| Entry {
        flag: entry.key.to_string(),
        line: entry.key_position.line,
        value: match &entry.node.value {
            Value::Bool(on) => Written::Switch(*on),
            Value::List(items) => Written::Values(
                items
                    .iter()
                    .filter_map(|item| scalar(&item.value))
                    .collect(),
            ),
            value => Written::Values(scalar(value).into_iter().collect()),
        },
    };
    Ok(entries.iter().map(entry).collect())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.to_string()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_variables_name_the_near_miss() {
        let command = Command::new("portico").subcommand(
            Command::new("up").arg(
                Arg::new("drain_timeout")
                    .long("drain-timeout")
                    .env("PORTICO_DRAIN_TIMEOUT"),
            ),
        );
        let set = [
            "PORTICO_DRAIN_TIMEUOT",
            "PORTICO_DRAIN_TIMEOUT",
            "PATH",
            "PORTICO_X",
        ];
        let warnings = unknown_variables(&command, set.into_iter().map(str::to_owned));
        assert_eq!(
            warnings,
            [
                "environment variable PORTICO_DRAIN_TIMEUOT is not known, did you mean PORTICO_DRAIN_TIMEOUT?",
                "environment variable PORTICO_X is not known: nothing reads it",
            ]
        );
    }

    #[test]
    fn unknown_key_says_where_and_what_was_meant() {
        let said = unknown_key(&["log-level", "workers"], Path::new("a.yaml"), 3, "worker");
        assert_eq!(
            said,
            "a.yaml:3: unknown setting 'worker', did you mean 'workers'?"
        );
    }

    #[test]
    fn default_in_help_is_what_the_brackets_hold() {
        let arg = Arg::new("a").help("Folder [default: `$HOME/x`]");
        assert_eq!(default_in_help(&arg).as_deref(), Some("$HOME/x"));
        assert_eq!(default_in_help(&Arg::new("a").help("Folder")), None);
    }
}
