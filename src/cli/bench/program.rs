//! The running program as the bench sees it: where a Service is reached, who is behind it, and what changed meanwhile.
//! Owns the questions; reads the admin socket.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::mpsc::{Receiver, sync_channel},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    admin::client,
    bench::{
        Program,
        target::{Protocol, Target},
        view::{EndpointView, View},
    },
    cli::{Verbatim, cluster, target},
    control::status::{PortStatus, Status},
    objects::Resource,
    settings::InstanceOptions,
};

/// How long one look may take; a program that is slower is not looked at.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longer than the program makes a question for the next generation wait.
const LONG: Duration = Duration::from_secs(40);

/// Changes that are remembered; more are not told apart.
const MOST_LOOKS: usize = 4096;

/// Which Service port is meant.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    namespace: String,
    name: String,
    /// Number or name; the first one without.
    port: Option<String>,
}

impl Wanted {
    /// Reads `NAME`, `service/NAME`, `NAME:PORT`.
    pub(super) fn parse(text: &str, namespace: &str) -> anyhow::Result<Self> {
        let (kind, name) = text.split_once('/').unwrap_or(("service", text));
        if target::resource(kind)? != Resource::Services {
            return Err(Verbatim(format!("error: {kind}/{name} is no Service")).into());
        }
        let (name, port) = match name.split_once(':') {
            Some((name, port)) => (name, Some(port.to_owned())),
            None => (name, None),
        };
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port,
        })
    }

    fn is(&self, port: &PortStatus) -> bool {
        self.port
            .as_ref()
            .is_none_or(|wanted| *wanted == port.name || *wanted == port.port.to_string())
    }
}

/// The program, if there is one.
pub(super) struct Asked {
    program: Option<(InstanceOptions, Wanted)>,
    looks: Option<Receiver<View>>,
}

impl Asked {
    /// Nobody to ask.
    pub(super) const fn nobody() -> Self {
        Self {
            program: None,
            looks: None,
        }
    }

    /// The program of this instance.
    pub(super) const fn new(instance: InstanceOptions, wanted: Wanted) -> Self {
        Self {
            program: Some((instance, wanted)),
            looks: None,
        }
    }

    /// What the Service is called in a report.
    pub(super) fn title(&self) -> String {
        let title = |(_, wanted): &(InstanceOptions, Wanted)| {
            let port = wanted.port.as_ref();
            let port = port.map_or_else(String::new, |port| format!(":{port}"));
            format!("{}/{}{port}", wanted.namespace, wanted.name)
        };
        self.program.as_ref().map_or_else(String::new, title)
    }

    /// Where the Service is reached.
    ///
    /// # Errors
    /// No program, no such Service, or it has no address.
    pub(super) fn target(&self, protocol: Option<Protocol>) -> anyhow::Result<Target> {
        let (instance, wanted) = self
            .program
            .as_ref()
            .context("there is no program to ask")?;
        let status = cluster::status(instance)?;
        let mut services = status.services.iter();
        let service = services
            .find(|service| service.namespace == wanted.namespace && service.name == wanted.name)
            .ok_or_else(|| Verbatim(Resource::Services.not_found(&wanted.name)))?;
        let mut ports = service.ports.iter().filter(|port| wanted.is(port));
        let port = ports.next().ok_or_else(|| {
            Verbatim(format!(
                "error: service \"{}\" has no such port with an address of its own",
                wanted.name
            ))
        })?;
        let nowhere = || {
            Verbatim(format!(
                "error: no address of service \"{}\" could be bound",
                wanted.name
            ))
        };
        let addr = reachable(port).ok_or_else(nowhere)?;
        let usual = match port.protocol.as_str() {
            "UDP" => Protocol::Udp,
            _ => Protocol::Http,
        };
        let mut target = Target::at(protocol.unwrap_or(usual), addr);
        target.host = format!("{}.{}", wanted.name, wanted.namespace);
        Ok(target)
    }

    /// What is declared, in short: the same for the same Services and workloads.
    pub(super) fn manifests(&self) -> Option<String> {
        let (instance, _) = self.program.as_ref()?;
        let cluster = cluster::Cluster::Live(instance.clone());
        let mut hash = Xxh3::new();
        for resource in [
            Resource::Services,
            Resource::Deployments,
            Resource::StatefulSets,
            Resource::DaemonSets,
        ] {
            for object in cluster.list(resource, None).ok()? {
                for part in ["/metadata/namespace", "/metadata/name", "/spec"] {
                    let part = object.pointer(part)?;
                    hash.update(part.to_string().as_bytes());
                }
            }
        }
        Some(format!("{:016x}", hash.digest()))
    }

    /// From now on, every change is looked at.
    pub(super) fn begin(&mut self) {
        // Before the run looks for the first time, so that no change falls between the two.
        let Some(mut last) = self.look().map(|view| view.generation) else {
            return;
        };
        let Some((instance, wanted)) = self.program.clone() else {
            return;
        };
        let (sender, looks) = sync_channel(MOST_LOOKS);
        self.looks = Some(looks);
        // Ends with the process at the latest: its question may wait for longer than the run.
        std::thread::spawn(move || {
            while let Ok(answer) =
                client::get_within(&instance, &format!("/v1/generation?after={last}"), LONG)
            {
                let now = serde_json::from_slice::<u64>(&answer).unwrap_or(last);
                if now > last {
                    last = now;
                    // A Service that is away may come back.
                    let Some(view) = look(&instance, &wanted) else {
                        continue;
                    };
                    if sender.try_send(view).is_err() {
                        return;
                    }
                }
            }
        });
    }
}

impl Program for Asked {
    fn look(&mut self) -> Option<View> {
        let (instance, wanted) = self.program.as_ref()?;
        // A question of its own runtime cannot be asked from within one.
        let (instance, wanted) = (instance.clone(), wanted.clone());
        std::thread::spawn(move || look(&instance, &wanted))
            .join()
            .ok()?
    }

    fn looks(&mut self) -> Vec<View> {
        self.looks
            .as_ref()
            .map_or_else(Vec::new, |looks| looks.try_iter().collect())
    }
}

/// From inside outwards: what most clients of a Service use comes first.
const KINDS: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalIP"];

fn reachable(port: &PortStatus) -> Option<SocketAddr> {
    let mut bound = KINDS.iter().find_map(|kind| port.served_at(kind))?;
    if bound.ip().is_unspecified() {
        let loopback = if bound.is_ipv4() {
            IpAddr::from([127, 0, 0, 1])
        } else {
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])
        };
        bound.set_ip(loopback);
    }
    Some(bound)
}

fn look(instance: &InstanceOptions, wanted: &Wanted) -> Option<View> {
    let answer = client::get_within(instance, "/v1/status", PATIENCE).ok()?;
    let at = Instant::now();
    let status: Status = serde_json::from_slice(&answer).ok()?;
    let mut services = status.services.iter();
    let service = services
        .find(|service| service.namespace == wanted.namespace && service.name == wanted.name)?;
    let port = service.ports.iter().find(|port| wanted.is(port))?;
    let pods: BTreeMap<IpAddr, &str> = status.pods.iter().map(|pod| (pod.ip, &*pod.name)).collect();
    let endpoint = |endpoint: &crate::control::status::EndpointStatus| EndpointView {
        address: endpoint.address,
        name: pods
            .get(&endpoint.address.ip())
            .map(|name| (*name).to_owned()),
        weight: endpoint.weight.into(),
        picks: endpoint.picks,
        failures: endpoint.failures,
    };
    Some(View {
        at,
        generation: status.generation.0,
        balance: port.balance.clone(),
        affinity_seconds: port.affinity_seconds,
        accepted: port.accepted,
        retries: port.retries,
        rejected: port.rejected,
        endpoints: port.endpoints.iter().map(endpoint).collect(),
    })
}
