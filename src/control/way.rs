//! The way to a name and a port: which addresses a program is to connect to that cannot ask our DNS, or not use the
//! ports that were declared. Owns what a name means with the search list of a namespace, which port of a Service is
//! meant where none was said, and on which port each is really served; connects to nothing.

use std::net::{IpAddr, SocketAddr};

use portico_core::{
    dns::{Answer, Moment, Name, Question, RecordData, RecordType, search_list},
    object::{Protocol, ServicePort},
    snapshot::{FrontendKey, Scope, ServiceView, Snapshot, service_path},
    world::World,
};
use serde::{Deserialize, Serialize};

use super::status::{ListenerReports, reachable_at};

/// The suffix of names that browsers take for this machine (RFC 6761 section 6.3), whatever stands before it.
pub const LOCAL_SUFFIX: &str = ".svc.localhost";

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// A name, as a pod of `namespace` would write it, or an address. `NAME.NAMESPACE.svc.localhost` is a Service, and
    /// `PORT.NAME.NAMESPACE.svc.localhost` one of its ports by name or number.
    pub host: String,
    /// The port; without, the Service's only one, the one that is named `http`, or 80.
    pub port: Option<u16>,
    /// Where short names are looked for first.
    pub namespace: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    /// Any of these, in this order.
    Addresses(Vec<SocketAddr>),
    /// It is no name of ours: the operating system knows where it is, or nobody.
    Elsewhere(String, u16),
    /// It would be ours, and there is nothing; with the reason.
    Nowhere(String),
}

/// Where things are.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a> {
    /// What names mean.
    pub snapshot: &'a Snapshot,
    /// On which ports Services are served.
    pub listeners: &'a ListenerReports,
    /// On which ports simulated pods are.
    pub world: &'a World,
    /// Start of the order of addresses.
    pub seed: u64,
}

/// What a name leads to.
enum Target {
    Addresses(Vec<IpAddr>),
    /// The last name of a chain of aliases that leaves our zones.
    Alias(String),
}

impl Map<'_> {
    /// The way to `wanted`.
    pub fn way(self, wanted: &Wanted) -> Way {
        let host = wanted.host.to_ascii_lowercase();
        if let Some(service) = host.strip_suffix(LOCAL_SUFFIX) {
            return self.way_to_service(service, wanted);
        }
        let Some(port) = wanted.port else {
            return Way::Nowhere(format!("{}: no port is named", wanted.host));
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(addr) = bare.parse() {
            return self.served(&[addr], port);
        }
        match self.find(&host, &wanted.namespace) {
            Some(Target::Addresses(found)) => self.served(&found, port),
            Some(Target::Alias(name)) => Way::Elsewhere(name, port),
            None if self.is_ours(&host) => {
                Way::Nowhere(format!("there is no name {}", wanted.host))
            }
            None => Way::Elsewhere(host, port),
        }
    }

    /// `NAME.NAMESPACE` or `PORT.NAME.NAMESPACE`, without the suffix.
    fn way_to_service(self, text: &str, wanted: &Wanted) -> Way {
        let mut labels: Vec<&str> = text.split('.').collect();
        let (Some(namespace), Some(name), label) = (labels.pop(), labels.pop(), labels.pop())
        else {
            return Way::Nowhere(format!(
                "{text}{LOCAL_SUFFIX}: write NAME.NAMESPACE{LOCAL_SUFFIX}"
            ));
        };
        let Some(service) = self.snapshot.service(&service_path(namespace, name)) else {
            return Way::Nowhere(format!(
                "there is no Service {name} in namespace {namespace}"
            ));
        };
        if let Some(external) = &service.spec.external_name {
            let inner = Wanted {
                host: external.to_string(),
                port: label.map_or(Some(80), |label| label.parse().ok()),
                namespace: wanted.namespace.clone(),
            };
            // An alias of such a name again would be one that nobody declared: its suffix is not ours in DNS.
            return if inner.host.ends_with(LOCAL_SUFFIX) {
                Way::Nowhere(format!("{external} is a name for browsers only"))
            } else {
                self.way(&inner)
            };
        }
        let Some(port) = choose_port(&service.spec.ports, label) else {
            return Way::Nowhere(which_port(service, label));
        };
        match service.cluster_ips.first() {
            Some(addr) => self.served(&[*addr], port.port),
            None => self.endpoints(service, port),
        }
    }

    /// A headless Service: its endpoints, at the ports that they have.
    fn endpoints(self, service: &ServiceView, port: &ServicePort) -> Way {
        let mut found = Vec::new();
        for slice in &service.slices {
            let number = slice
                .ports
                .iter()
                .find(|of| of.name == port.name && of.protocol == port.protocol)
                .and_then(|of| of.port);
            let Some(number) = number else { continue };
            let ready = slice.endpoints.iter().filter(|of| of.conditions.ready);
            let declared = ready.filter_map(|of| Some(SocketAddr::new(of.address?, number)));
            found.extend(declared.map(|declared| self.moved(declared)));
        }
        if found.is_empty() {
            return Way::Nowhere(format!("{} has no ready endpoint", describe(service)));
        }
        let start = usize::try_from(self.seed).unwrap_or_default() % found.len();
        found.rotate_left(start);
        Way::Addresses(found)
    }

    /// Addresses of `host` by the search list of a pod (resolv.conf(5), `ndots:5`), else as it stands.
    fn find(self, host: &str, namespace: &str) -> Option<Target> {
        let is_absolute = host.ends_with('.');
        let domains = self.snapshot.cluster.domains.iter();
        let searched = domains
            .flat_map(|domain| search_list(namespace, domain))
            .map(|suffix| format!("{host}.{suffix}"));
        // Names outside of our zones would be searched for once more by DNS, in the namespace of the program.
        let as_it_stands = self.is_in_zone(host).then(|| host.to_owned());
        searched
            .filter(|_| !is_absolute)
            .chain(as_it_stands)
            .find_map(|name| self.lookup(&name))
    }

    fn lookup(self, name: &str) -> Option<Target> {
        let name = Name::parse(name).ok()?;
        let mut found = Vec::new();
        let mut alias = None;
        for rtype in [RecordType::A, RecordType::Aaaa] {
            for record in self.ask(&name, rtype).answers {
                match record.data {
                    RecordData::A(addr) => found.push(addr.into()),
                    RecordData::Aaaa(addr) => found.push(addr.into()),
                    RecordData::Cname(target) => alias = Some(target.to_string()),
                    _ => {}
                }
            }
        }
        match (found.is_empty(), alias) {
            (false, _) => Some(Target::Addresses(found)),
            (true, Some(alias)) => Some(Target::Alias(alias)),
            (true, None) => None,
        }
    }

    fn ask(self, name: &Name, rtype: RecordType) -> Answer {
        let moment = Moment {
            seed: self.seed,
            ..Moment::default()
        };
        portico_core::dns::answer(self.snapshot, &Question::new(name.clone(), rtype), moment)
    }

    /// Whether nobody else can know `host`: it has no dot, or is in a zone of ours.
    fn is_ours(self, host: &str) -> bool {
        (!host.contains('.') && host != "localhost")
            || host.rsplit('.').next() == Some("svc")
            || self.is_in_zone(host)
    }

    fn is_in_zone(self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        let mut zones = self.snapshot.cluster.domains.iter();
        zones.any(|zone| {
            let rest = host.strip_suffix(&**zone);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    /// Where `port` of these addresses is really served.
    fn served(self, addresses: &[IpAddr], port: u16) -> Way {
        let mut found = Vec::new();
        let mut problem = None;
        for addr in addresses {
            match self.real(SocketAddr::new(*addr, port)) {
                Ok(real) => found.push(real),
                Err(why) => problem = Some(why),
            }
        }
        match problem {
            Some(why) if found.is_empty() => Way::Nowhere(why),
            _ => Way::Addresses(found),
        }
    }

    fn real(self, declared: SocketAddr) -> Result<SocketAddr, String> {
        let key = FrontendKey {
            scope: Scope::HOST,
            addr: declared.ip(),
            port: declared.port(),
            protocol: Protocol::Tcp,
        };
        let found = self
            .snapshot
            .frontend(key.scope, declared, key.port, key.protocol)
            // A node port is declared for every address, also for those of other machines.
            .filter(|found| !found.kind.is_on_node_port() || self.is_host(declared.ip()));
        let Some(frontend) = found else {
            let owners = self.snapshot.address_owners(declared.ip());
            return match owners.and_then(|owners| owners.cluster_ip_of.as_ref()) {
                Some(service) => Err(which_port(service, Some(&declared.port().to_string()))),
                None => Ok(self.moved(declared)),
            };
        };
        let reachable = reachable_at(&key, frontend.kind, self.listeners);
        reachable.bound.ok_or_else(|| {
            let why = reachable.problem.unwrap_or_else(|| "not bound".to_owned());
            format!("{declared} of {} is not served: {why}", frontend.port.name)
        })
    }

    fn is_host(self, addr: IpAddr) -> bool {
        addr.is_loopback() || self.snapshot.cluster.host_addresses.contains(&addr)
    }

    /// Where a simulated pod listens in the place of a port that it could not have.
    fn moved(self, declared: SocketAddr) -> SocketAddr {
        let mut pods = self.world.pods().pods.values();
        let pod = pods.find(|pod| pod.ip == declared.ip());
        let moved = pod.and_then(|pod| {
            let mut moved = pod.moved_ports.iter();
            moved.find(|(port, _)| port.number == declared.port() && port.protocol == Protocol::Tcp)
        });
        moved.map_or(declared, |(_, to)| SocketAddr::new(declared.ip(), *to))
    }
}

/// The port that is meant by `label`, a name or a number; without one, the port that a browser would mean.
fn choose_port<'p>(ports: &'p [ServicePort], label: Option<&str>) -> Option<&'p ServicePort> {
    let tcp = || ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    if let Some(label) = label {
        let number = label.parse().ok();
        return tcp().find(|port| *port.name == *label || Some(port.port) == number);
    }
    let mut all = tcp();
    match (all.next(), all.next()) {
        (only, None) => only,
        _ => tcp()
            .find(|port| &*port.name == "http")
            .or_else(|| tcp().find(|port| port.port == 80)),
    }
}

fn describe(service: &ServiceView) -> String {
    format!("Service {}/{}", service.namespace, service.name)
}

/// What to say where no port is meant, or none that there is.
fn which_port(service: &ServiceView, label: Option<&str>) -> String {
    let tcp = service.spec.ports.iter();
    let tcp = tcp.filter(|port| port.protocol == Protocol::Tcp);
    let ports: Vec<String> = tcp
        .map(|port| match &*port.name {
            "" => port.port.to_string(),
            name => format!("{} ({name})", port.port),
        })
        .collect();
    let of = describe(service);
    let has = match &*ports {
        [] => "no TCP port at all".to_owned(),
        ports => ports.join(", "),
    };
    match label {
        Some(label) => format!("{of} has no TCP port {label}; it has {has}"),
        None => format!(
            "{of} has {has}; say which: PORT.{}.{}{LOCAL_SUFFIX}",
            service.name, service.namespace
        ),
    }
}
