//! `portico url`: where a Service is reached, for a script or a browser. Owns the choice of the address.

use std::process::ExitCode;

use clap::Args;

use super::{Verbatim, change::Namespace, cluster, say, target};
use crate::{
    control::status::{PortStatus, ServiceStatus},
    objects::Resource,
    settings::InstanceOptions,
};

/// Arguments of `portico url`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  portico url service/web
  curl \"$(portico url web)\"")]
pub struct UrlArgs {
    /// A Service: NAME or service/NAME
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    namespace: Namespace,
}

/// `portico url`: a line a port.
///
/// # Errors
/// No program runs, there is no such Service, or it has no address.
pub fn run(args: &UrlArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let (kind, name) = args
        .service
        .split_once('/')
        .unwrap_or(("service", &args.service));
    if target::resource(kind)? != Resource::Services {
        return Err(Verbatim(format!("error: {kind}/{name} is no Service")).into());
    }
    let status = cluster::status(instance)?;
    let namespace = &args.namespace.namespace;
    let mut services = status.services.iter();
    let service = services.find(|service| service.namespace == *namespace && service.name == name);
    let Some(service) = service else {
        return Err(Verbatim(Resource::Services.not_found(name)).into());
    };
    let urls: Vec<String> = service.ports.iter().filter_map(url).collect();
    if urls.is_empty() {
        return Err(Verbatim(nowhere(service)).into());
    }
    urls.into_iter().for_each(say::line);
    Ok(ExitCode::SUCCESS)
}

/// From outside inwards: whoever can reach the first kind can reach it without knowing of a cluster.
const KINDS: [&str; 4] = ["LoadBalancer", "ExternalIP", "ClusterIP", "NodePort"];

fn url(port: &PortStatus) -> Option<String> {
    let bound = KINDS.iter().find_map(|kind| port.served_at(kind))?;
    let named = port.name.starts_with("https") || port.port == 443;
    let (scheme, usual) = match port.protocol.as_str() {
        "UDP" => ("udp", 0),
        "SCTP" => ("sctp", 0),
        _ if named => ("https", 443),
        _ => ("http", 80),
    };
    Some(if bound.port() == usual {
        match bound {
            std::net::SocketAddr::V4(addr) => format!("{scheme}://{}", addr.ip()),
            std::net::SocketAddr::V6(addr) => format!("{scheme}://[{}]", addr.ip()),
        }
    } else {
        format!("{scheme}://{bound}")
    })
}

fn nowhere(service: &ServiceStatus) -> String {
    let (name, why) = (
        &service.name,
        match &service.external_name {
            Some(external) => format!("it is another name of {external}"),
            None if service.cluster_ip == "None" => {
                "it is headless: its names lead to its endpoints".to_owned()
            }
            None => "no address of it could be bound".to_owned(),
        },
    );
    format!("error: service \"{name}\" has no address of its own: {why}")
}
