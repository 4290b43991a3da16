//! `portico port-forward`: a local port to a pod or a Service. Owns its arguments and the relay; a Service is reached
//! at its own address, so that each connection is balanced, where kubectl would choose one pod for all.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    Verbatim, change::Namespace, cluster::Cluster, describe::json::name as name_of, say, target,
};
use crate::{
    control::status::{ServiceStatus, Status},
    objects::Resource,
    settings::InstanceOptions,
};

/// Arguments of `portico port-forward`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  portico port-forward web-86b68b4c5b-8v4dg 8080:80     a pod
  portico port-forward service/web 8080:80              a Service: every connection is balanced
  portico port-forward deployment/web :80               any free local port")]
pub struct PortForwardArgs {
    /// A pod, or KIND/NAME
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// LOCAL:REMOTE; one number is both, an empty LOCAL is any free port; REMOTE may be a name
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<String>,
    /// Local addresses
    #[arg(
        long,
        default_value = "localhost",
        value_delimiter = ',',
        value_name = "ADDR"
    )]
    address: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    namespace: Namespace,
}

/// One pair of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    local: u16,
    remote: String,
}

/// What connections go to.
#[derive(Debug, Clone)]
struct Forward {
    local: u16,
    /// As the user wrote it.
    remote: String,
    to: SocketAddr,
}

/// `portico port-forward`: until it is interrupted.
///
/// # Errors
/// No such object or port, or the local port is taken.
pub fn run(args: &PortForwardArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let mappings = args
        .ports
        .iter()
        .map(|text| mapping(text))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let cluster = Cluster::Live(instance.clone());
    let status: Status = serde_json::from_slice(&cluster.get("/v1/status")?)?;
    let place = Place {
        args,
        cluster,
        status,
    };
    let forwards = place.forwards(mappings)?;
    let addresses = addresses(&args.address)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(forwards, &addresses))
}

fn mapping(text: &str) -> anyhow::Result<Mapping> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let wrong = || {
        Verbatim(format!(
            "error: error parsing port forward \"{text}\": expected LOCAL:REMOTE"
        ))
    };
    if remote.is_empty() {
        return Err(wrong().into());
    }
    let local = match local {
        "" => 0,
        // A name alone has no number of its own.
        name if name == text && name.parse::<u16>().is_err() => 0,
        number => number.parse().map_err(|_| wrong())?,
    };
    Ok(Mapping {
        local,
        remote: remote.to_owned(),
    })
}

fn addresses(words: &[String]) -> anyhow::Result<Vec<IpAddr>> {
    let mut all = Vec::new();
    for word in words {
        match word.as_str() {
            "localhost" => all.extend([
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ]),
            text => all.push(text.parse().with_context(|| format!("--address {text}"))?),
        }
    }
    Ok(all)
}

/// What is looked up.
struct Place<'a> {
    args: &'a PortForwardArgs,
    cluster: Cluster,
    status: Status,
}

impl Place<'_> {
    fn forwards(&self, mappings: Vec<Mapping>) -> anyhow::Result<Vec<Forward>> {
        let (kind, name) = self
            .args
            .resource
            .split_once('/')
            .unwrap_or(("pod", &self.args.resource));
        let resource = target::resource(kind)?;
        let namespace = &self.args.namespace.namespace;
        let not_found = || Verbatim(resource.not_found(name));
        if resource == Resource::Services {
            let mut services = self.status.services.iter();
            let service = services
                .find(|service| service.namespace == *namespace && service.name == name)
                .ok_or_else(not_found)?;
            return mappings
                .into_iter()
                .map(|mapping| forward(mapping, |remote| service_port(service, remote)))
                .collect();
        }
        let pods = self.cluster.list(Resource::Pods, Some(namespace))?;
        let pod = if resource == Resource::Pods {
            pods.iter()
                .find(|pod| name_of(pod) == name)
                .ok_or_else(not_found)?
        } else {
            let owners = self.cluster.list(resource, Some(namespace))?;
            let owner = owners
                .iter()
                .find(|object| name_of(object) == name)
                .ok_or_else(not_found)?;
            let selector = super::get::selector::Selector::of_object(owner);
            let mut running = pods
                .iter()
                .filter(|pod| selector.matches(pod) && is_running(pod));
            running.next().ok_or_else(|| {
                Verbatim(format!(
                    "error: no running pod of {} is there",
                    self.args.resource
                ))
            })?
        };
        if !is_running(pod) {
            let phase = pod
                .pointer("/status/phase")
                .and_then(Value::as_str)
                .unwrap_or("Unknown");
            let text = format!(
                "error: unable to forward port because pod is not running. Current status={phase}"
            );
            return Err(Verbatim(text).into());
        }
        mappings
            .into_iter()
            .map(|mapping| forward(mapping, |remote| self.pod_port(pod, remote)))
            .collect()
    }

    /// The pod's address, at the number that the port really has.
    fn pod_port(&self, pod: &Value, remote: &str) -> anyhow::Result<SocketAddr> {
        let ip: IpAddr = pod
            .pointer("/status/podIP")
            .and_then(Value::as_str)
            .and_then(|ip| ip.parse().ok())
            .ok_or_else(|| Verbatim(format!("error: pod {} has no address yet", name_of(pod))))?;
        let number = match remote.parse::<u16>() {
            Ok(number) => number,
            Err(_) => container_port(pod, remote).ok_or_else(|| {
                Verbatim(format!(
                    "error: Pod '{}' does not have a named port '{remote}'",
                    name_of(pod)
                ))
            })?,
        };
        let namespace = &self.args.namespace.namespace;
        let mut simulated = self.status.pods.iter();
        let found =
            simulated.find(|known| known.namespace == *namespace && known.name == name_of(pod));
        let moved = found.and_then(|known| {
            let from = format!("{number}->");
            let moved = known
                .moved_ports
                .iter()
                .find_map(|moved| moved.strip_prefix(&from))?;
            moved.strip_suffix("/TCP")?.parse().ok()
        });
        Ok(SocketAddr::new(ip, moved.unwrap_or(number)))
    }
}

fn forward(
    mapping: Mapping,
    to: impl Fn(&str) -> anyhow::Result<SocketAddr>,
) -> anyhow::Result<Forward> {
    Ok(Forward {
        to: to(&mapping.remote)?,
        local: mapping.local,
        remote: mapping.remote,
    })
}

/// Where the Service's port is really served.
fn service_port(service: &ServiceStatus, remote: &str) -> anyhow::Result<SocketAddr> {
    let name = &service.name;
    let number = remote.parse::<u16>().ok();
    let port = service
        .ports
        .iter()
        .find(|port| port.protocol == "TCP" && (Some(port.port) == number || port.name == remote));
    let Some(port) = port else {
        let text = match number {
            Some(number) => format!("error: Service {name} does not have a service port {number}"),
            None => format!("error: Service '{name}' does not have a named port '{remote}'"),
        };
        return Err(Verbatim(text).into());
    };
    let found = port.reachable.iter().find_map(|place| place.bound);
    found.ok_or_else(|| {
        Verbatim(format!("error: Service {name} is not served at any address; see `portico describe service {name}`"))
            .into()
    })
}

fn container_port(pod: &Value, name: &str) -> Option<u16> {
    let containers = pod.pointer("/spec/containers")?.as_array()?;
    let mut ports = containers
        .iter()
        .filter_map(|container| container.get("ports")?.as_array())
        .flatten();
    let port = ports.find(|port| port.get("name").and_then(Value::as_str) == Some(name))?;
    u16::try_from(port.get("containerPort")?.as_u64()?).ok()
}

fn is_running(pod: &Value) -> bool {
    pod.pointer("/status/phase").and_then(Value::as_str) == Some("Running")
        && pod.pointer("/metadata/deletionTimestamp").is_none()
}

async fn serve(forwards: Vec<Forward>, addresses: &[IpAddr]) -> anyhow::Result<ExitCode> {
    let mut listeners = JoinSet::new();
    for forward in forwards {
        let forward = Arc::new(forward);
        let mut local = forward.local;
        let mut bound = 0;
        let mut problem = None;
        for address in addresses {
            match TcpListener::bind(SocketAddr::new(*address, local)).await {
                Ok(listener) => {
                    let here = listener.local_addr()?;
                    // The second address gets the number that the first one found.
                    local = here.port();
                    bound += 1;
                    say::line(format!("Forwarding from {here} -> {}", forward.remote));
                    listeners.spawn(accept(listener, Arc::clone(&forward)));
                }
                Err(error) => problem = Some((SocketAddr::new(*address, local), error)),
            }
        }
        if let Some((address, error)) = problem.filter(|_| bound == 0) {
            let text = format!(
                "error: unable to listen on port {}: {address}: {error}",
                forward.local
            );
            return Err(Verbatim(text).into());
        }
    }
    tokio::select! {
        _ = listeners.join_next() => Ok(ExitCode::FAILURE),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
    }
}

/// Accepts until it is cancelled.
async fn accept(listener: TcpListener, forward: Arc<Forward>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors: those in use are given back in time.
                    tokio::task::yield_now().await;
                    continue;
                };
                if let Ok(local) = stream.local_addr() {
                    say::line(format!("Handling connection for {}", local.port()));
                }
                connections.spawn(relay(stream, Arc::clone(&forward)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut client: TcpStream, forward: Arc<Forward>) {
    let mut endpoint = match TcpStream::connect(forward.to).await {
        Ok(endpoint) => endpoint,
        Err(error) => {
            let text = format!(
                "error: forwarding to {} ({}): {error}",
                forward.remote, forward.to
            );
            return say::error_line(text);
        }
    };
    // An error is the going of either side, which both have seen.
    let _gone = tokio::io::copy_bidirectional(&mut client, &mut endpoint).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping_of_kubectls_forms_is_read() {
        let read = |text: &str| {
            mapping(text)
                .map(|mapping| (mapping.local, mapping.remote))
                .ok()
        };
        assert_eq!(read("8080:80"), Some((8080, "80".into())));
        assert_eq!(read("80"), Some((80, "80".into())));
        assert_eq!(read(":80"), Some((0, "80".into())));
        assert_eq!(read("8080:http"), Some((8080, "http".into())));
        assert_eq!(read("http"), Some((0, "http".into())));
        assert_eq!(read("8080:"), None);
        assert_eq!(read("x:80"), None);
    }
}
