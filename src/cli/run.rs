//! `portico run`: a program for which Services are at their own addresses, ports and names. Owns the arguments and what
//! is said when it cannot be; everything else belongs to `run`.

use std::{ffi::OsString, process::ExitCode};

use clap::Args;

use super::change::Namespace;
use crate::{
    admin::client,
    run::{Network, Run, RunError},
    settings::InstanceOptions,
};

const AFTER_HELP: &str = "\
A program that listens on 0.0.0.0 or :: at a port number that a Service has, too, is told that it is in use: let it
listen on localhost, or on another number.";

/// Arguments of `portico run`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  portico run -- curl http://echo/        port 80 is port 80, names are a pod's in default
  portico run -- sh                       a shell in which every program reaches Services
  portico run -n shop -- npm test         short names are of shop; the status is the program's
  portico run --network none -- ./test    only Services are reached, nothing else", after_help = AFTER_HELP)]
pub struct RunArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    namespace: Namespace,
    /// Who carries connections to the rest of the world
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        value_name = "HOW",
        env = "PORTICO_NETWORK"
    )]
    network: Network,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// `portico run`: until the program ends, and as it does.
///
/// # Errors
/// No program runs under this instance name, or this machine forbids namespaces.
pub fn run(args: &RunArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let run = Run {
        socket: client::run_socket(instance)?,
        namespace: args.namespace.namespace.clone(),
        command: args.command.clone(),
        network: args.network,
        variables: variables(instance),
    };
    run.run().map_err(|error| match error {
        RunError::Namespaces(_) => anyhow::anyhow!(
            "{error}\n  without it: `portico proxy` opens one port for every Service, `portico env` prints their \
             addresses; `portico doctor` shows every way that this machine has"
        ),
        error => error.into(),
    })
}

/// By which portico's own commands find the same instance inside, and programs that they are inside.
fn variables(instance: &InstanceOptions) -> Vec<(&'static str, OsString)> {
    let name = OsString::from(&instance.instance);
    let mut variables = vec![("PORTICO_RUN", name.clone()), ("PORTICO_INSTANCE", name)];
    let folder = instance.runtime_dir.as_ref();
    variables.extend(folder.map(|folder| ("PORTICO_RUNTIME_DIR", folder.clone().into_os_string())));
    variables
}
