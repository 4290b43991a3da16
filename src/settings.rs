//! Process options: what the command line, the environment, a settings file and the defaults say, in this order of
//! precedence. Owns parsing and bounds; nothing behind it reads the environment.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, CommandFactory, FromArgMatches, parser::ValueSource};
use ipnet::IpNet;
use portico_core::object::tree::{Node, Value};

use crate::{source::yaml, telemetry::LogFormat};

/// Options of every command that reads manifests.
#[derive(Debug, Clone, Args)]
pub struct ManifestOptions {
    /// Namespace of objects that name none
    #[arg(
        short,
        long,
        env = "PORTICO_NAMESPACE",
        default_value = "default",
        value_name = "NS"
    )]
    pub namespace: String,
    /// Take warnings for errors: unknown fields, addresses outside our ranges
    #[arg(long, env = "PORTICO_STRICT")]
    pub strict: bool,
}

/// Which of several programs on this machine is meant.
#[derive(Debug, Clone, Args)]
pub struct InstanceOptions {
    /// Name of the instance: owns lock, state, socket and a part of the address ranges
    #[arg(
        long,
        env = "PORTICO_INSTANCE",
        default_value = "default",
        value_name = "NAME",
        global = true
    )]
    pub instance: String,
    /// Folder for what outlives a restart [default: `$XDG_STATE_HOME/portico/NAME`]
    #[arg(long, env = "PORTICO_STATE_DIR", value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// Folder for lock and socket [default: `$XDG_RUNTIME_DIR/portico/NAME`]
    #[arg(long, env = "PORTICO_RUNTIME_DIR", value_name = "DIR", global = true)]
    pub runtime_dir: Option<PathBuf>,
}

/// Addresses and names; also what offline commands need to agree with a running program.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Addresses and names")]
pub struct ClusterOptions {
    /// Range of cluster IPs [default: 127.96.0.0/12]
    #[arg(long, env = "PORTICO_SERVICE_CIDR", value_name = "CIDR")]
    pub service_cidr: Option<IpNet>,
    /// Range of load-balancer addresses [default: 127.112.0.0/16]
    #[arg(long, env = "PORTICO_LOADBALANCER_CIDR", value_name = "CIDR")]
    pub loadbalancer_cidr: Option<IpNet>,
    /// Range of simulated pods' addresses [default: 127.120.0.0/13]
    #[arg(long, env = "PORTICO_POD_CIDR", value_name = "CIDR")]
    pub pod_cidr: Option<IpNet>,
    /// Host addresses that node ports are served on [default: all]
    #[arg(
        long,
        env = "PORTICO_NODEPORT_ADDRESSES",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub nodeport_addresses: Vec<IpNet>,
    /// Range of node ports
    #[arg(long, env = "PORTICO_SERVICE_NODE_PORT_RANGE", default_value = "30000-32767", value_name = "FIRST-LAST", value_parser = parse_ports)]
    pub service_node_port_range: (u16, u16),
    /// Domain that Services are named under; may be repeated, the first is the primary one
    #[arg(
        long,
        env = "PORTICO_CLUSTER_DOMAIN",
        default_value = "cluster.local",
        value_name = "DOMAIN",
        value_delimiter = ','
    )]
    pub cluster_domain: Vec<String>,
    /// Do not answer bare names such as `web` or `web.shop` as if the search list had been walked
    #[arg(long, env = "PORTICO_NO_SERVER_SEARCH")]
    pub no_server_search: bool,
    /// Name of this node: endpoints with another `nodeName` are elsewhere
    #[arg(long, env = "PORTICO_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Zone of this node
    #[arg(long, env = "PORTICO_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,
}

impl Default for ClusterOptions {
    /// What the command line gives without any of these flags.
    fn default() -> Self {
        Self {
            service_cidr: None,
            loadbalancer_cidr: None,
            pod_cidr: None,
            nodeport_addresses: Vec::new(),
            service_node_port_range: (30_000, 32_767),
            cluster_domain: vec!["cluster.local".into()],
            no_server_search: false,
            node_name: None,
            zone: None,
        }
    }
}

/// Options of `portico up` beside the paths.
#[derive(Debug, Clone, Args)]
pub struct UpOptions {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub manifests: ManifestOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: ClusterOptions,
    /// Run the pods of Deployments, `ReplicaSets` and Pods without an address as small local servers
    #[arg(long, env = "PORTICO_SIMULATE")]
    pub simulate: bool,
    /// Also serve a Service for local processes, as in `web:80=127.0.0.1:3000,127.0.0.1:3001`; may be repeated
    #[arg(long, value_name = "MAPPING")]
    pub map: Vec<String>,
    /// Where to answer DNS; may be repeated [default: port 53 of the DNS address, else 10053]
    #[arg(
        long,
        env = "PORTICO_DNS_LISTEN",
        value_name = "ADDR:PORT",
        value_delimiter = ','
    )]
    pub dns_listen: Vec<SocketAddr>,
    /// Worker threads of the data path [default: one a core]
    #[arg(long, env = "PORTICO_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// How long to try one endpoint before another one
    #[arg(long, env = "PORTICO_CONNECT_TIMEOUT", default_value = "1s", value_name = "TIME", value_parser = parse_duration)]
    pub connect_timeout: Duration,
    /// How long connections may go on at the end; a second signal ends at once
    #[arg(long, env = "PORTICO_DRAIN_TIMEOUT", default_value = "30s", value_name = "TIME", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// What to log: error, warn, info, debug, or a filter as in `RUST_LOG`
    #[arg(
        long,
        env = "PORTICO_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: String,
    /// How to log
    #[arg(long, env = "PORTICO_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: LogFormat,
    /// Settings file, one `flag: value` a line [default: `$XDG_CONFIG_HOME/portico/settings.yaml`, /etc/portico/settings.yaml]
    #[arg(long, env = "PORTICO_SETTINGS", value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// `30s`, `500ms`, `5m`, `1h`, or a plain number of seconds.
///
/// # Errors
/// Says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("'{text}' is not a time such as 30s, 500ms or 5m"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(format!(
            "unknown unit '{unit}' in '{text}': use ms, s, m or h"
        )),
    }
}

fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("'{text}' is not a range such as 30000-32767");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let (first, last) = (
        first.parse::<u16>().map_err(|_| wrong())?,
        last.parse::<u16>().map_err(|_| wrong())?,
    );
    if first == 0 || first > last {
        Err(wrong())
    } else {
        Ok((first, last))
    }
}

/// Parses the command line of a program `P` with what a settings file says for flags that neither the command line
/// nor the environment gives.
///
/// # Errors
/// A file that cannot be read or names an unknown flag. Errors of the command line itself end the process as clap
/// does.
pub fn parse_with_file<P: CommandFactory + FromArgMatches>(
    arguments: Vec<std::ffi::OsString>,
) -> anyhow::Result<P> {
    let matches = P::command().get_matches_from(&arguments);
    let leaf = matches.subcommand();
    let Some((name, leaf)) = leaf.filter(|(name, _)| matches!(*name, "up" | "demo")) else {
        return Ok(P::from_arg_matches(&matches)?);
    };
    let asked = leaf.try_get_one::<PathBuf>("settings").ok().flatten();
    let Some((file, text)) = settings_text(asked.map(PathBuf::as_path))? else {
        return Ok(P::from_arg_matches(&matches)?);
    };
    let command = P::command();
    let flags = command.find_subcommand(name).map(|command| {
        command
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .map(str::to_owned)
            .collect::<BTreeSet<String>>()
    });
    let mut extended = arguments;
    for (flag, value) in entries(&file, &text)? {
        if !flags.as_ref().is_some_and(|flags| flags.contains(&flag)) {
            bail!("{}: unknown setting '{flag}'", file.display());
        }
        let id = flag.replace('-', "_");
        let given = leaf.value_source(&id);
        if matches!(
            given,
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        ) {
            continue;
        }
        match value {
            Setting::Switch(true) => extended.push(format!("--{flag}").into()),
            Setting::Switch(false) => {}
            Setting::Values(values) => extended.extend(
                values
                    .iter()
                    .map(|value| format!("--{flag}={value}").into()),
            ),
        }
    }
    Ok(P::from_arg_matches(
        &P::command().get_matches_from(extended),
    )?)
}

fn settings_text(asked: Option<&Path>) -> anyhow::Result<Option<(PathBuf, String)>> {
    if let Some(file) = asked {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read settings file {}", file.display()))?;
        return Ok(Some((file.to_owned(), text)));
    }
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let usual = home
        .into_iter()
        .chain([PathBuf::from("/etc")])
        .map(|folder| folder.join("portico/settings.yaml"));
    let mut readable =
        usual.filter_map(|file| std::fs::read_to_string(&file).ok().map(|text| (file, text)));
    Ok(readable.next())
}

enum Setting {
    Switch(bool),
    Values(Vec<String>),
}

fn entries(file: &Path, text: &str) -> anyhow::Result<Vec<(String, Setting)>> {
    let name = file.display();
    let mut documents = yaml::parse(text, &yaml::Limits::default());
    if let Some(problem) = documents
        .iter()
        .find_map(|document| document.problems.first())
    {
        let line = problem.position.map_or(0, |position| position.line);
        bail!("{name}:{line}: {}", problem.message);
    }
    let node = documents.pop().and_then(|document| document.root);
    let Some(Node {
        value: Value::Map(entries),
        ..
    }) = node
    else {
        if node.is_none() {
            return Ok(Vec::new());
        }
        bail!("{name}: expected one mapping of flags to values");
    };
    entries
        .iter()
        .map(|entry| {
            let setting = match &entry.node.value {
                Value::Bool(on) => Setting::Switch(*on),
                Value::List(items) => Setting::Values(
                    items
                        .iter()
                        .filter_map(|item| scalar(&item.value))
                        .collect(),
                ),
                value => Setting::Values(scalar(value).into_iter().collect()),
            };
            Ok((entry.key.to_string(), setting))
        })
        .collect()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.to_string()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_duration_units_are_told_apart() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("3d").unwrap_err().contains("unknown unit"));
    }

    #[test]
    fn parse_ports_reversed_range_is_refused() {
        assert_eq!(parse_ports("30000-32767"), Ok((30000, 32767)));
        assert!(parse_ports("32767-30000").is_err());
        assert!(parse_ports("30000").is_err());
    }
}
