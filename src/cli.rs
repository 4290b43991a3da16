//! The command line. Owns arguments and what is printed; must not know how anything is done: it sees the app and the
//! settings only.

pub mod demo;
pub mod map;
pub mod resolve;
pub(crate) mod say;
pub mod status;
pub mod up;
pub mod validate;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::settings::{self, InstanceOptions};

const EXAMPLES: &str = "\
Examples:
  portico demo                                   three minutes, no files of your own needed
  portico up ./k8s                               serve the Services of a folder of manifests
  portico up --simulate ./k8s                    and run stand-ins for their pods
  portico up --map web:80=127.0.0.1:3000         a Service for a local process
  portico validate ./k8s                         what the API server would say, offline
  portico resolve web.default.svc.cluster.local  ask the running program's DNS
  portico status                                 addresses, endpoints and sockets of the running program";

/// Kubernetes Services without the cluster: forwarding, load balancing and names from a folder of manifests.
#[derive(Debug, Parser)]
#[command(name = "portico", version, before_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    instance: InstanceOptions,
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
    /// Show Services, endpoints and sockets of the running program
    Status(status::StatusArgs),
    /// Print the Service and EndpointSlice for local processes
    Map(map::MapArgs),
    /// Write a small folder, serve it and say what to try; `--check` proves it instead
    Demo(Box<demo::DemoArgs>),
}

/// Runs the command that `arguments` name.
///
/// # Errors
/// What keeps the command from doing its work; to be shown to the user.
pub fn run(arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let cli: Cli = settings::parse_with_file(arguments)?;
    match cli.command {
        Command::Up(args) => up::run(*args, cli.instance),
        Command::Validate(args) => validate::command(&args, &cli.instance),
        Command::Resolve(args) => resolve::command(&args, &cli.instance),
        Command::Status(args) => status::run(&args, &cli.instance),
        Command::Map(args) => map::run(&args),
        Command::Demo(args) => demo::run(*args, cli.instance),
    }
}
