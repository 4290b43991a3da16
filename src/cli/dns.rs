//! `portico dns`: the machine's resolver asks portico, or no longer. Owns what is printed, and what is said to whom is not
//! root; what is written is the resolver's.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use portico_core::dns::{Name, search_list};

use super::{change::Namespace, say};
use crate::{
    admin::client,
    control::status::Status,
    resolver::{self, Preview, Report, Standing, Wanted},
    settings::InstanceOptions,
};

/// What is said where there is nothing to undo.
const NOTHING: &str = "nothing to do: portico has not changed this machine's resolver";

/// Arguments of `portico dns`.
#[derive(Debug, Args)]
pub struct DnsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Let every program of this machine ask the running portico for names; as root
    Install(InstallArgs),
    /// Take that back; as root
    Uninstall(UninstallArgs),
    /// Show whether it is so and whether it works; exit 1 if it is and does not
    Status(StatusArgs),
}

#[derive(Debug, Args)]
struct InstallArgs {
    /// Show each file, its content and each command, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    namespace: Namespace,
}

#[derive(Debug, Args)]
struct UninstallArgs {
    /// Show what would be taken back, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Arguments of the command that asks the operating system's resolver.
#[derive(Debug, Args)]
pub struct LookupArgs {
    name: String,
}

/// Carries it out.
///
/// # Errors
/// What kept it from being done, with what to type.
pub fn run(args: &DnsArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    match &args.what {
        What::Install(args) => install(args, instance),
        What::Uninstall(args) => uninstall(args, instance),
        What::Status(args) => status(args, instance),
    }
}

/// Prints the addresses of a name, a line each, as this machine's resolver has them.
///
/// # Errors
/// In its words.
pub fn look_up(args: &LookupArgs) -> ExitCode {
    match resolver::ask(&args.name) {
        Ok(addresses) => {
            addresses.iter().for_each(say::line);
            ExitCode::SUCCESS
        }
        Err(words) => {
            say::error_line(words);
            ExitCode::FAILURE
        }
    }
}

fn install(args: &InstallArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let namespace = &args.namespace.namespace;
    let wanted = wanted(instance, namespace)?;
    let preview = resolver::preview(&wanted)?;
    if args.dry_run {
        say::text(dry_run(&preview));
        return Ok(ExitCode::SUCCESS);
    }
    let mut words = vec!["install".to_owned()];
    if namespace != "default" {
        words.extend(["-n".to_owned(), namespace.clone()]);
    }
    check_root(&words, instance)?;
    let done = resolver::install(&wanted)?;
    let (path, already) = (done.path.display(), done.already);
    say::line(match done.former.filter(|_| !already) {
        Some(former) => format!("{path}: written; what was there is {}", former.display()),
        None if already => format!("{path}: nothing to do, it is as wanted"),
        None => format!("{path}: written"),
    });
    for lookup in done.lookups {
        say::line(format!("lookup by the system's resolver: {lookup}"));
    }
    for warning in done.warnings {
        say::error_line(format!("warning: {warning}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What of the running program the machine's resolver is to know.
fn wanted(instance: &InstanceOptions, namespace: &str) -> anyhow::Result<Wanted> {
    let status: Status = serde_json::from_slice(&client::get(instance, "/v1/status")?)?;
    let bound: Vec<_> = status.dns.iter().filter_map(|dns| dns.bound).collect();
    let usual = bound.iter().find(|addr| addr.port() == 53);
    let Some(dns) = usual.or(bound.first()).copied() else {
        bail!("portico answers DNS nowhere: `portico status` says why");
    };
    let zones: Vec<String> = status
        .dns_zones
        .iter()
        .map(|zone| plain(zone))
        .collect::<Result<_, _>>()?;
    let domain = zones.first().map_or("", String::as_str);
    let search = search_list(namespace, domain);
    let search = search
        .iter()
        .map(|domain| plain(domain))
        .collect::<Result<_, _>>()?;
    Ok(Wanted { dns, zones, search })
}

/// A domain as it may stand in a file that root writes: the program that says it may be a user's.
fn plain(domain: &str) -> anyhow::Result<String> {
    let name = Name::parse(domain).with_context(|| format!("{domain:?} is no domain"))?;
    let text = name.to_string().trim_end_matches('.').to_owned();
    if ["", "local"].contains(&&*text) || text.contains('\\') {
        bail!("{domain:?} is no domain that portico can be asked for");
    }
    Ok(text)
}

fn dry_run(preview: &Preview) -> String {
    let Preview { plan, undone, .. } = preview;
    let path = plan.path.display();
    let mut text = String::new();
    // Writing to a String cannot fail.
    if preview.is_same {
        let _ = writeln!(text, "{path}: nothing to do, it is as wanted");
        return text;
    }
    for step in undone {
        let _ = writeln!(text, "would first {step}");
    }
    let _ = writeln!(text, "would write {path}, keeping what is there beside it:");
    for line in plan.content.lines() {
        let _ = writeln!(text, "    {line}");
    }
    if let Some(command) = &plan.command {
        let _ = writeln!(text, "would run: {}", command.join(" "));
    }
    for lookup in &preview.lookups {
        let _ = writeln!(text, "would look up {lookup}");
    }
    text.push_str("and would undo all that if a lookup fails\n");
    for warning in &plan.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// An error that says what to type, where it takes root.
fn check_root(words: &[String], instance: &InstanceOptions) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let program = std::env::current_exe().unwrap_or_else(|_| "portico".into());
    let mut line = format!("sudo {} dns {}", program.display(), words.join(" "));
    if instance.instance != "default" {
        let _ = write!(line, " --instance {}", instance.instance);
    }
    // Without it root finds the folder of whoever called sudo(8), where that is the usual one.
    if let Some(folder) = &instance.runtime_dir {
        let _ = write!(line, " --runtime-dir {}", folder.display());
    }
    bail!("the files of this machine's resolver belong to root: type\n  {line}")
}

fn uninstall(args: &UninstallArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    if args.dry_run {
        let steps = resolver::preview_uninstall()?;
        for step in &steps {
            say::line(format!("would {step}"));
        }
        if steps.is_empty() {
            say::line(NOTHING);
        }
        return Ok(ExitCode::SUCCESS);
    }
    check_root(&["uninstall".to_owned()], instance)?;
    let Some(done) = resolver::uninstall()? else {
        say::line(NOTHING);
        return Ok(ExitCode::SUCCESS);
    };
    say::line(format!("{}: {}", done.path.display(), done.file.words()));
    if let Some(warning) = done.warning {
        say::error_line(format!("warning: {warning}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn status(args: &StatusArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    // None may run: then what is installed says what to look up.
    let own = wanted(instance, "default").ok().map(|wanted| wanted.own());
    let report = resolver::report(own)?;
    say::text(match args.output {
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
        Format::Text => status_text(&report),
    });
    let is_wrong = match report.standing {
        Standing::NotInstalled => false,
        Standing::Installed => !report.works,
        _ => true,
    };
    Ok(if is_wrong {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn status_text(report: &Report) -> String {
    let file = report.file.as_ref().map_or_else(
        || "/etc/resolv.conf".to_owned(),
        |file| file.display().to_string(),
    );
    let dns = report.dns.map(|dns| dns.to_string()).unwrap_or_default();
    let undo = "`sudo portico dns uninstall` undoes it";
    let mut text = match report.standing {
        Standing::NotInstalled => {
            "not installed: `portico dns install --dry-run` shows what that would do".to_owned()
        }
        Standing::Installed => format!("installed: {file} leads to portico at {dns}"),
        Standing::HalfDone => format!(
            "half done: {file} was being changed when that was cut off, if it does not run just now; {undo}"
        ),
        Standing::Edited => format!(
            "changed since: {file} was written by portico and then by somebody else; {undo}, or says what to type"
        ),
        Standing::Replaced => format!(
            "gone: somebody has written another {file} since; `sudo portico dns install` again, or {undo}"
        ),
    };
    text.push('\n');
    if let Some(former) = &report.former {
        let _ = writeln!(text, "before: {}", former.display());
    }
    let _ = writeln!(
        text,
        "/etc/resolv.conf without portico is written by {}",
        report.writer
    );
    if let Some(lookup) = &report.lookup {
        let verdict = if report.works {
            "as it should be"
        } else if report.standing == Standing::NotInstalled {
            "so this machine's programs do not know the names of Services"
        } else {
            "which does not lead to portico: does it run?"
        };
        let _ = writeln!(text, "lookup by the system's resolver: {lookup}, {verdict}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_domains_have_nothing_that_files_could_take_for_more() {
        assert_eq!(
            plain("Shop.svc.cluster.local").unwrap(),
            "Shop.svc.cluster.local"
        );
        for hostile in [
            "",
            ".",
            "local",
            "a\nnameserver 192.0.2.1",
            "a b.test",
            "a;b",
            "a\u{0}",
        ] {
            assert!(plain(hostile).is_err(), "{hostile:?}");
        }
    }
}
