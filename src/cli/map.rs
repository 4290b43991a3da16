//! `portico map`: the Service and EndpointSlices for local processes. Owns the mapping's grammar and the text that
//! comes out; `up --map` reads the same text like any manifest.

use std::{
    collections::BTreeMap, fmt::Write as _, net::SocketAddr, process::ExitCode, str::FromStr,
};

use clap::{Args, ValueEnum};

use super::say;

/// Arguments of `portico map`.
#[derive(Debug, Args)]
pub struct MapArgs {
    /// As in `web:80=127.0.0.1:3000,127.0.0.1:3001` or `web.shop=:3000`; without a port the Service has the first process's
    #[arg(required = true, value_name = "MAPPING")]
    mappings: Vec<Mapping>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Documents separated by `---`.
    Yaml,
    /// One List object.
    Json,
}

/// One Service in front of local processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    name: String,
    namespace: Option<String>,
    port: u16,
    processes: Vec<SocketAddr>,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, processes) = text.split_once('=').ok_or_else(|| {
            format!("'{text}' has no '=': expected NAME[:PORT]=ADDR:PORT[,ADDR:PORT...]")
        })?;
        let process = |text: &str| {
            let text = if text.starts_with(':') {
                format!("127.0.0.1{text}")
            } else {
                text.to_owned()
            };
            let text = text.replace("localhost:", "127.0.0.1:");
            text.parse::<SocketAddr>().map_err(|_| {
                format!("'{text}' is not an address with a port such as 127.0.0.1:3000")
            })
        };
        let processes: Vec<SocketAddr> = processes
            .split(',')
            .map(process)
            .collect::<Result<_, _>>()?;
        let first = processes.first().ok_or("no process given")?.port();
        let (name, port) = match service.split_once(':') {
            Some((name, port)) => (
                name,
                port.parse()
                    .map_err(|_| format!("'{port}' is not a port"))?,
            ),
            None => (service, first),
        };
        let (name, namespace) = match name.split_once('.') {
            Some((name, namespace)) => (name, Some(namespace.to_owned())),
            None => (name, None),
        };
        if port == 0 || processes.iter().any(|process| process.port() == 0) {
            return Err("port 0 cannot be served".into());
        }
        Ok(Self {
            name: name.to_owned(),
            namespace,
            port,
            processes,
        })
    }
}

impl Mapping {
    /// The manifests, as documents of one YAML stream. Processes on several port numbers need a slice each.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        let namespace = self
            .namespace
            .as_ref()
            .map(|name| format!("\n  namespace: {name}"))
            .unwrap_or_default();
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {}{namespace}\nspec:\n  ports:\n    - port: {}\n",
            self.name, self.port
        );
        if self.has_ipv6() {
            text.push_str("  ipFamilyPolicy: PreferDualStack\n");
        }
        for (index, ((_, port), addrs)) in self.by_port().into_iter().enumerate() {
            let family = if addrs.iter().all(SocketAddr::is_ipv4) {
                "IPv4"
            } else {
                "IPv6"
            };
            let _ = write!(
                text,
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-{number}{namespace}\n  \
                 labels:\n    kubernetes.io/service-name: {name}\naddressType: {family}\nports:\n  - port: {port}\nendpoints:\n",
                name = self.name,
                number = index + 1,
            );
            for addr in addrs {
                let _ = writeln!(text, "  - addresses: [\"{}\"]", addr.ip());
            }
        }
        text
    }

    fn to_json(&self) -> Vec<serde_json::Value> {
        let namespace = self.namespace.as_deref().unwrap_or("default");
        let mut service = serde_json::json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name, "namespace": namespace},
            "spec": {"ports": [{"port": self.port}]},
        });
        if let Some(spec) = service.pointer_mut("/spec").filter(|_| self.has_ipv6()) {
            *spec = serde_json::json!({
                "ports": [{"port": self.port}], "ipFamilyPolicy": "PreferDualStack",
            });
        }
        let slices = self
            .by_port()
            .into_iter()
            .enumerate()
            .map(|(index, ((_, port), addrs))| {
                let family = if addrs.iter().all(SocketAddr::is_ipv4) {
                    "IPv4"
                } else {
                    "IPv6"
                };
                let endpoints: Vec<_> = addrs
                    .iter()
                    .map(|addr| serde_json::json!({"addresses": [addr.ip()]}))
                    .collect();
                serde_json::json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": {
                        "name": format!("{}-{}", self.name, index + 1), "namespace": namespace,
                        "labels": {"kubernetes.io/service-name": self.name},
                    },
                    "addressType": family, "ports": [{"port": port}], "endpoints": endpoints,
                })
            });
        std::iter::once(service).chain(slices).collect()
    }

    /// Its IPv6 processes are reached by the Service's IPv6 addresses, where it gets one.
    fn has_ipv6(&self) -> bool {
        self.processes.iter().any(SocketAddr::is_ipv6)
    }

    fn by_port(&self) -> BTreeMap<FamilyAndPort, Vec<SocketAddr>> {
        let mut by_port: BTreeMap<FamilyAndPort, Vec<SocketAddr>> = BTreeMap::new();
        for process in &self.processes {
            by_port
                .entry((process.is_ipv6(), process.port()))
                .or_default()
                .push(*process);
        }
        by_port
    }
}

/// Whether it is IPv6, and the port: what one slice can hold.
type FamilyAndPort = (bool, u16);

/// The manifests of several mappings as one YAML stream.
///
/// # Errors
/// Names the mapping that does not parse.
pub fn manifests(mappings: &[String]) -> anyhow::Result<String> {
    let parsed: Result<Vec<Mapping>, String> =
        mappings.iter().map(|mapping| mapping.parse()).collect();
    let parsed = parsed.map_err(|error| anyhow::anyhow!("--map: {error}"))?;
    Ok(parsed
        .iter()
        .map(Mapping::to_yaml)
        .collect::<Vec<_>>()
        .join("---\n"))
}

/// Prints the manifests.
///
/// # Errors
/// None today; the signature is that of every command.
pub fn run(args: &MapArgs) -> anyhow::Result<ExitCode> {
    match args.output {
        Format::Yaml => say::text(
            args.mappings
                .iter()
                .map(Mapping::to_yaml)
                .collect::<Vec<_>>()
                .join("---\n"),
        ),
        Format::Json => {
            let items: Vec<_> = args.mappings.iter().flat_map(Mapping::to_json).collect();
            say::line(format!(
                "{:#}",
                serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items})
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping_without_port_takes_the_first_process() {
        let mapping: Mapping = "web=127.0.0.1:3000,:3001".parse().unwrap();
        assert_eq!((mapping.port, mapping.processes.len()), (3000, 2));
        assert_eq!(mapping.by_port().len(), 2, "two numbers need two slices");
    }

    #[test]
    fn mapping_bad_address_says_what_is_expected() {
        let error = "web:80=nowhere".parse::<Mapping>().unwrap_err();
        assert!(error.contains("127.0.0.1:3000"), "{error}");
        assert!("web".parse::<Mapping>().unwrap_err().contains('='));
    }
}
