//! The command line. Owns arguments and what is printed; must not know how anything is done: it sees the app and the
//! settings only.

mod age;
pub mod bench;
pub mod change;
pub mod cluster;
pub mod completion;
pub mod delete;
pub mod demo;
pub mod describe;
pub mod dns;
pub mod doctor;
mod draining;
pub mod env;
pub mod explain;
pub mod get;
mod help;
pub mod label;
pub mod logs;
pub mod man;
pub mod map;
pub mod port_forward;
pub mod proxy;
pub mod resolve;
pub mod rollout;
pub mod rollout_text;
pub mod run;
pub(crate) mod say;
pub mod settings_cmd;
pub mod stat;
pub mod status;
mod table;
mod target;
pub mod top;
pub mod up;
pub mod url;
pub mod validate;
mod wanted;

use std::{ffi::OsString, process::ExitCode};

use clap::{Command as Grammar, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{
    settings::{self, InstanceOptions, OutputOptions},
    telemetry,
};

/// Kubernetes Services without the cluster: forwarding, load balancing and names from a folder of manifests.
#[derive(Debug, Parser)]
#[command(name = "portico", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    instance: InstanceOptions,
    #[command(flatten)]
    output: OutputOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the Services of manifests: files, folders, or `-` for standard input
    Up(Box<up::UpArgs>),
    /// Report every problem of manifests, as the API server would; exit 1 if there is an error
    Validate(validate::ValidateArgs),
    /// Answer a DNS question from the running program, or offline from manifests
    Resolve(Box<resolve::ResolveArgs>),
    /// Show Services, Pods and all other objects as kubectl does
    Get(Box<get::GetArgs>),
    /// Show Services, endpoints and sockets of the running program
    Status(status::StatusArgs),
    /// Show what Services got: rates, failures, shares by endpoint and why they are not even
    Stat(stat::StatArgs),
    /// Show the busiest Services or endpoints, again and again
    Top(top::TopArgs),
    /// Show objects in detail, with what belongs to them: `describe svc web`, `describe pods`
    Describe(Box<describe::DescribeArgs>),
    /// Set the number of pods of a workload
    Scale(change::ScaleArgs),
    /// Set the image of containers
    Set(change::SetArgs),
    /// Follow, list, undo, restart, pause and resume rollouts
    Rollout(rollout::RolloutArgs),
    /// Delete simulated pods
    Delete(delete::DeleteArgs),
    /// Set and take away labels
    Label(label::LabelArgs),
    /// Set and take away annotations
    Annotate(label::AnnotateArgs),
    /// Print what simulated pods were asked
    Logs(logs::LogsArgs),
    /// Forward a local port to a pod or a Service
    PortForward(port_forward::PortForwardArgs),
    /// Run a program for which Services are at their own addresses, ports and names; needs no root
    Run(run::RunArgs),
    /// Open one port by which any program reaches Services by name: SOCKS, HTTP proxy, `NAME.NS.svc.localhost`
    Proxy(proxy::ProxyArgs),
    /// Let every program of this machine ask portico for names, take that back, or show whether it works
    Dns(dns::DnsArgs),
    /// Print the variables that Kubernetes gives to containers: `WEB_SERVICE_HOST`, `WEB_SERVICE_PORT`
    Env(env::EnvArgs),
    /// Make a simulated pod fail, and heal it
    Pod(change::PodArgs),
    /// List what was changed at run time
    Overrides(change::OverridesArgs),
    /// Take back what was changed at run time
    Reset(change::ResetArgs),
    /// Print where a Service is reached
    Url(url::UrlArgs),
    /// Say why a Service is served as it is, what is wrong with it and what to do about it
    Explain(Box<explain::ExplainArgs>),
    /// Measure a Service or any address: evenness, latency, and what the program adds
    Bench(Box<bench::BenchArgs>),
    /// Print the Service and EndpointSlice for local processes
    Map(map::MapArgs),
    /// Write a small folder, serve it and say what to try; `--check` proves it instead
    Demo(Box<demo::DemoArgs>),
    /// Say of each way in whether it works on this machine, why not, and what to type
    Doctor(doctor::DoctorArgs),
    /// Show what `up` would run with, and which flag, variable or line of a file says so
    Settings(Box<settings_cmd::SettingsArgs>),
    /// Print the completion for a shell, with the names of the running program
    Completion(completion::CompletionArgs),
    /// Print a manual page, or write all of them
    Man(man::ManArgs),
    /// What the functions of shells ask.
    #[command(name = "__complete", hide = true)]
    Complete(completion::AskArgs),
    /// What `dns` asks the operating system's resolver by, in a process of its own.
    #[command(name = "__lookup", hide = true)]
    Lookup(dns::LookupArgs),
}

/// An error whose text is printed as it is, without the program's name: the words that people know from kubectl.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Verbatim(pub String);

/// The whole command line, with its examples.
pub(crate) fn command() -> Grammar {
    help::dress(Cli::command())
}

/// What `--color` says, for clap's own messages: those come before the command line is understood.
fn colour(arguments: &[OsString]) -> clap::ColorChoice {
    let mut choice = clap::ColorChoice::Auto;
    let mut words = arguments.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let value = match word.split_once('=') {
            Some(("--color", value)) => value.to_owned(),
            _ if word == "--color" => words.next().unwrap_or_default().into_owned(),
            _ => continue,
        };
        choice = match &*value {
            "always" => clap::ColorChoice::Always,
            "never" => clap::ColorChoice::Never,
            _ => clap::ColorChoice::Auto,
        };
    }
    choice
}

/// Runs the command that `arguments` name.
///
/// # Errors
/// What keeps the command from doing its work; to be shown to the user.
pub fn run(arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let grammar = command().color(colour(&arguments));
    let parsed = settings::parse(grammar, arguments)?;
    let cli = Cli::from_arg_matches(&parsed.matches)?;
    telemetry::set_colour(cli.output.color);
    if matches!(cli.command, Command::Up(_) | Command::Demo(_)) {
        for warning in &parsed.warnings {
            say::error_line(format!("warning: {warning}"));
        }
    }
    match cli.command {
        Command::Settings(args) => settings_cmd::run(&args, &parsed),
        Command::Completion(args) => completion::run(&args),
        Command::Man(args) => man::run(&args, command()),
        Command::Complete(args) => completion::ask(args, command()),
        Command::Up(args) => up::run(*args, cli.instance),
        Command::Validate(args) => validate::command(&args, &cli.instance),
        Command::Resolve(args) => resolve::command(&args, &cli.instance),
        Command::Get(args) => get::run(&args, &cli.instance),
        Command::Status(args) => status::run(&args, &cli.instance),
        Command::Stat(args) => stat::run(&args, &cli.instance),
        Command::Top(args) => top::run(&args, &cli.instance),
        Command::Describe(args) => describe::command(&args, &cli.instance),
        Command::Scale(args) => change::scale(&args, &cli.instance),
        Command::Set(args) => change::set(&args, &cli.instance),
        Command::Rollout(args) => rollout::run(&args, &cli.instance),
        Command::Delete(args) => delete::run(&args, &cli.instance),
        Command::Label(args) => label::label(&args, &cli.instance),
        Command::Annotate(args) => label::annotate(&args, &cli.instance),
        Command::Logs(args) => logs::run(&args, &cli.instance),
        Command::PortForward(args) => port_forward::run(&args, &cli.instance),
        Command::Run(args) => run::run(&args, &cli.instance),
        Command::Proxy(args) => proxy::run(&args, &cli.instance),
        Command::Dns(args) => dns::run(&args, &cli.instance),
        Command::Lookup(args) => Ok(dns::look_up(&args)),
        Command::Env(args) => env::run(&args, &cli.instance),
        Command::Pod(args) => change::pod(&args, &cli.instance),
        Command::Overrides(args) => change::overrides(&args, &cli.instance),
        Command::Reset(args) => change::reset(&args, &cli.instance),
        Command::Url(args) => url::run(&args, &cli.instance),
        Command::Explain(args) => explain::run(&args, &cli.instance),
        Command::Doctor(args) => doctor::run(&args, &cli.instance),
        Command::Bench(args) => bench::run(&args, &cli.instance),
        Command::Map(args) => map::run(&args),
        Command::Demo(args) => demo::run(*args, cli.instance),
    }
}
