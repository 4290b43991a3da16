//! `portico env`: the variables by which Kubernetes tells containers of Services (Kubernetes, "Environment variables"
//! in "Service"; kubelet's `envvars` package). Owns their names; the addresses are those at which each port is served.

use std::{net::SocketAddr, process::ExitCode};

use clap::Args;

use super::{Verbatim, change::Namespace, cluster, say};
use crate::{
    control::status::{PortStatus, ServiceStatus},
    objects::Resource,
    settings::InstanceOptions,
};

/// Arguments of `portico env`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  portico env                        of all Services of the namespace, as a container there has them
  env $(portico env web) ./program   run a program with them
  portico env -n shop > .env         for Compose and editors")]
pub struct EnvArgs {
    /// A Service; without, all of the namespace
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    namespace: Namespace,
}

/// `portico env`: a line a variable.
///
/// # Errors
/// No program runs, or there is no such Service.
pub fn run(args: &EnvArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let status = cluster::status(instance)?;
    let wanted = args.service.as_deref();
    let wanted = wanted.map(|name| name.strip_prefix("service/").unwrap_or(name));
    let of_namespace = status.services.iter().filter(|service| {
        service.namespace == args.namespace.namespace
            && wanted.is_none_or(|name| service.name == name)
    });
    let mut found = of_namespace.peekable();
    if let (Some(name), None) = (wanted, found.peek()) {
        return Err(Verbatim(Resource::Services.not_found(name)).into());
    }
    found.flat_map(variables).for_each(say::line);
    Ok(ExitCode::SUCCESS)
}

/// Those of one Service; none without an address of its own, as in Kubernetes.
fn variables(service: &ServiceStatus) -> Vec<String> {
    let served: Vec<_> = service
        .ports
        .iter()
        // The number may be another than was declared.
        .filter_map(|port| Some((port, port.served_at("ClusterIP")?)))
        .collect();
    let Some((first, at)) = served.first() else {
        return Vec::new();
    };
    let name = variable(&service.name);
    let mut all = vec![
        format!("{name}_SERVICE_HOST={}", at.ip()),
        format!("{name}_SERVICE_PORT={}", at.port()),
    ];
    for (port, at) in served.iter().filter(|(port, _)| !port.name.is_empty()) {
        all.push(format!(
            "{name}_SERVICE_PORT_{}={}",
            variable(&port.name),
            at.port()
        ));
    }
    all.push(format!("{name}_PORT={}", url(first, *at)));
    for (port, at) in &served {
        let prefix = format!("{name}_PORT_{}_{}", port.port, port.protocol);
        all.extend([
            format!("{prefix}={}", url(port, *at)),
            format!("{prefix}_PROTO={}", port.protocol.to_ascii_lowercase()),
            format!("{prefix}_PORT={}", at.port()),
            format!("{prefix}_ADDR={}", at.ip()),
        ]);
    }
    all
}

fn variable(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

fn url(port: &PortStatus, at: SocketAddr) -> String {
    format!("{}://{at}", port.protocol.to_ascii_lowercase())
}
