//! `portico completion`: functions for shells, and what they ask as a key is pressed. Owns whose names an argument
//! takes; commands, options and their fixed values come from the command line itself.
//!
//! The functions are small and stay as they are: all that can change is behind the hidden `portico __complete`. Names
//! come from the running program, within a time after which a person would notice; whatever fails gives no names.

mod names;

use std::{
    ffi::{OsStr, OsString},
    process::ExitCode,
    sync::Arc,
};

use clap::{Arg, Args, Command, ValueEnum, ValueHint};
use clap_complete::{
    CompletionCandidate,
    engine::{ArgValueCompleter, complete},
};

use super::say;
use names::Situation;

/// Arguments of `portico completion`.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `portico __complete`.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Who asks.
    #[arg(value_enum)]
    shell: Shell,
    /// The command line up to the cursor, its first word included; the last word is the one to complete.
    #[arg(last = true)]
    words: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// GNU bash, from 4.4 on.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl Shell {
    const fn function(self) -> &'static str {
        match self {
            Self::Bash => include_str!("completion/portico.bash"),
            Self::Zsh => include_str!("completion/portico.zsh"),
            Self::Fish => include_str!("completion/portico.fish"),
        }
    }
}

/// Prints the function for a shell.
///
/// # Errors
/// None of its own.
pub fn run(args: &CompletionArgs) -> anyhow::Result<ExitCode> {
    say::text(args.shell.function());
    Ok(ExitCode::SUCCESS)
}

/// Prints what may stand in the place of the last word: one a line, for zsh and fish with a tab and what it means.
///
/// # Errors
/// None: a shell that is told of one would print it into the line that is being typed.
pub fn ask(args: AskArgs, command: Command) -> anyhow::Result<ExitCode> {
    let shell = args.shell;
    for candidate in candidates(command, args.words) {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(ToString::to_string);
        let help = help.as_deref().and_then(|help| help.lines().next());
        match help.filter(|help| shell != Shell::Bash && !help.is_empty()) {
            Some(help) => say::line(format!("{value}\t{help}")),
            None => say::line(value),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn candidates(command: Command, mut words: Vec<OsString>) -> Vec<CompletionCandidate> {
    if words.is_empty() {
        return Vec::new();
    }
    // The program may have been called by any path.
    if let Some(first) = words.first_mut() {
        *first = command.get_name().into();
    }
    let current = words.last().cloned().unwrap_or_default();
    let index = words.len() - 1;
    let situation = Arc::new(Situation::of(&command, &words));
    let mut command = with_names(command, "", &situation);
    let folder = std::env::current_dir().ok();
    let mut found = complete(&mut command, words, index, folder.as_deref()).unwrap_or_default();
    // Who wants an option begins it.
    let is_option = |candidate: &CompletionCandidate| {
        let value = candidate.get_value().to_string_lossy();
        value.starts_with('-') && value != "-"
    };
    if current.is_empty() && found.iter().any(|candidate| !is_option(candidate)) {
        found.retain(|candidate| !is_option(candidate));
    }
    found
}

/// The command with names for every argument that the table knows.
fn with_names(command: Command, path: &str, situation: &Arc<Situation>) -> Command {
    // Not `mut_arg`, which would move it behind the others.
    let command = command.mut_args(|arg| {
        let Some(names) = names::of(path, &arg) else {
            return with_hint(arg);
        };
        let situation = Arc::clone(situation);
        let completer = move |current: &OsStr| {
            let found = situation.candidates(names, &current.to_string_lossy());
            let found = found.into_iter().map(CompletionCandidate::new);
            found.collect::<Vec<_>>()
        };
        arg.add(ArgValueCompleter::new(completer))
    });
    let (path, situation) = (path.to_owned(), Arc::clone(situation));
    command.mut_subcommands(move |sub| {
        let below = format!("{path} {}", sub.get_name());
        with_names(sub, below.trim_start(), &situation)
    })
}

/// Paths, also where they are kept as text.
fn with_hint(arg: Arg) -> Arg {
    let value = arg.get_value_names().and_then(<[_]>::first);
    let hint = match value.map(clap::builder::Str::as_str) {
        Some("PATH") => ValueHint::AnyPath,
        Some("FILE") => ValueHint::FilePath,
        Some("DIR") => ValueHint::DirPath,
        _ => return arg,
    };
    arg.value_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    fn check(line: &str, expected: &[&str]) {
        let words = line.split(' ').map(OsString::from).collect();
        let found = candidates(cli::command(), words);
        let found: Vec<_> = found
            .iter()
            .map(|candidate| candidate.get_value().to_string_lossy().into_owned())
            .collect();
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn candidates_of_commands_and_fixed_values_need_no_program() {
        check("portico stat", &["status", "stat"]);
        check("/usr/bin/portico status --out", &["--output"]);
        check("portico status -o ", &["text", "json"]);
        check("portico up --log-format=log", &["--log-format=logfmt"]);
        check("portico completion ", &["bash", "zsh", "fish"]);
        check(
            "portico validate src/cli/comp",
            &["src/cli/completion.rs", "src/cli/completion/"],
        );
        check("portico up --settings Cargo.t", &["Cargo.toml"]);
    }

    #[test]
    fn candidates_leave_hidden_commands_out() {
        let found = candidates(cli::command(), vec!["portico".into(), "".into()]);
        assert!(found.len() > 5);
        assert!(found.iter().all(|found| found.get_value() != "__complete"));
    }
}
