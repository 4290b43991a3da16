//! Process options: what the command line, the environment, a settings file and the defaults say, in this order of
//! precedence. Owns parsing and bounds; nothing behind it reads the environment.

mod layers;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::Args;
use ipnet::IpNet;
use portico_core::dns::Name;

pub use layers::{Origin, Parsed, Setting, parse};

use crate::privilege::Account;
use crate::telemetry::{ColourChoice, LogFormat, access_log::AccessLogFormat};

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

/// How everything is printed.
#[derive(Debug, Clone, Args)]
pub struct OutputOptions {
    /// `--color`.
    #[arg(
        long,
        env = "PORTICO_COLOR",
        default_value = "auto",
        value_enum,
        value_name = "WHEN",
        global = true,
        hide_possible_values = true,
        help = "Whether to colour what is printed: auto, always or never; auto heeds NO_COLOR and CLICOLOR_FORCE"
    )]
    pub color: ColourChoice,
}

/// Addresses and names; also what offline commands need to agree with a running program.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Addresses and names")]
pub struct ClusterOptions {
    /// Range of cluster IPs [default: 127.96.0.0/12]
    #[arg(long, env = "PORTICO_SERVICE_CIDR", value_name = "CIDR")]
    pub service_cidr: Option<IpNet>,
    /// Range of IPv6 cluster IPs, which a route must make local; without one all Services are IPv4 ones
    #[arg(long, env = "PORTICO_SERVICE_CIDR_V6", value_name = "CIDR")]
    pub service_cidr_v6: Option<IpNet>,
    /// Range of load-balancer addresses [default: 127.112.0.0/16]
    #[arg(long, env = "PORTICO_LOADBALANCER_CIDR", value_name = "CIDR")]
    pub loadbalancer_cidr: Option<IpNet>,
    /// Ranges in which externalIPs and requested load-balancer addresses are made addresses of this host by a route, which
    /// needs `CAP_NET_ADMIN`; may be repeated [default: none]
    #[arg(
        long,
        env = "PORTICO_EXTERNAL_IP_CIDR",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub external_ip_cidr: Vec<IpNet>,
    /// Range of IPv6 load-balancer addresses, which a route must make local
    #[arg(long, env = "PORTICO_LOADBALANCER_CIDR_V6", value_name = "CIDR")]
    pub loadbalancer_cidr_v6: Option<IpNet>,
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
    /// Names of Pods, such as `10-1-0-21.shop.pod.cluster.local`: none, of every address, or of endpoints
    #[arg(
        long,
        env = "PORTICO_DNS_PODS",
        default_value = "verified",
        value_enum,
        value_name = "MODE"
    )]
    pub dns_pods: DnsPods,
    /// Address of this host that DNS gives clients on other machines and in containers for Services with node ports; once for
    /// IPv4 and once for IPv6. They are never given a loopback address
    #[arg(
        long,
        env = "PORTICO_ADVERTISE",
        value_name = "ADDR",
        value_delimiter = ','
    )]
    pub advertise: Vec<IpAddr>,
    /// Name of this node: endpoints with another `nodeName` are elsewhere
    #[arg(long, env = "PORTICO_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Zone of this node [default: label topology.kubernetes.io/zone of the Node manifest with its name]
    #[arg(long, env = "PORTICO_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,
    /// Hold `loadBalancerSourceRanges` against node ports and external addresses too
    #[arg(long, env = "PORTICO_SOURCE_RANGES_EVERYWHERE")]
    pub source_ranges_everywhere: bool,
    /// Forward TCP ports named `http`, `http2`, `h2c` or `grpc`, or such with a suffix (`http-admin`), request by request where
    /// no appProtocol says what is spoken there
    #[arg(long, env = "PORTICO_HTTP_BY_PORT_NAME")]
    pub http_by_port_name: bool,
    /// Proxies in front of HTTP ports whose X-Forwarded-* and Forwarded are believed and added to; others' are replaced
    /// [default: nobody]
    #[arg(
        long,
        env = "PORTICO_HTTP_TRUSTED_PROXIES",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub http_trusted_proxies: Vec<IpNet>,
    /// Headers that HTTP requests get beside X-Forwarded-*; via: responses too
    #[arg(
        long,
        env = "PORTICO_HTTP_HEADERS",
        value_name = "HEADER",
        value_delimiter = ',',
        value_enum
    )]
    pub http_headers: Vec<HttpHeader>,
}

impl ClusterOptions {
    /// Whether addresses outside 127/8 are to be made local, which takes routes.
    pub fn wants_routes(&self) -> bool {
        let ranges = [
            self.service_cidr,
            self.service_cidr_v6,
            self.loadbalancer_cidr,
            self.loadbalancer_cidr_v6,
            self.pod_cidr,
        ];
        let is_elsewhere = |range: &IpNet| !range.addr().is_loopback();
        ranges.iter().flatten().any(is_elsewhere) || !self.external_ip_cidr.is_empty()
    }
}

impl Default for ClusterOptions {
    /// What the command line gives without any of these flags.
    fn default() -> Self {
        Self {
            service_cidr: None,
            service_cidr_v6: None,
            loadbalancer_cidr: None,
            external_ip_cidr: Vec::new(),
            loadbalancer_cidr_v6: None,
            pod_cidr: None,
            nodeport_addresses: Vec::new(),
            service_node_port_range: (30_000, 32_767),
            cluster_domain: vec!["cluster.local".into()],
            no_server_search: false,
            dns_pods: DnsPods::Verified,
            advertise: Vec::new(),
            node_name: None,
            zone: None,
            source_ranges_everywhere: false,
            http_by_port_name: false,
            http_trusted_proxies: Vec::new(),
            http_headers: Vec::new(),
        }
    }
}

/// One of `--http-headers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum HttpHeader {
    /// The client, host and protocol as RFC 7239 has them
    Forwarded,
    /// Portico's name in requests and responses
    Via,
    /// A new trace (W3C Trace Context) where a request comes without one
    Traceparent,
}

/// `--dns-pods`, as CoreDNS has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DnsPods {
    /// Pods have no names
    Disabled,
    /// Every address has a name in every namespace
    Insecure,
    /// The endpoints that are known have names in their namespace
    Verified,
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
    #[command(flatten)]
    #[allow(missing_docs)]
    pub forward: ForwardOptions,
    /// Worker threads of the data path [default: one a core]
    #[arg(long, env = "PORTICO_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// How long to try one endpoint before another one; five times as long where no other is left
    #[arg(long, env = "PORTICO_CONNECT_TIMEOUT", default_value = "1s", value_name = "TIME", value_parser = parse_duration)]
    pub connect_timeout: Duration,
    /// How long connections may go on at the end; a second signal ends at once
    #[arg(long, env = "PORTICO_DRAIN_TIMEOUT", default_value = "30s", value_name = "TIME", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub tcp: TcpOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access_log: AccessLogOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub metrics: MetricsOptions,
    /// As root: become this user before anything is served, and keep no privilege but what sockets and routes need
    #[arg(long, env = "PORTICO_USER", value_name = "USER[:GROUP]")]
    pub user: Option<Account>,
    /// What to log: error, warn, info, debug, or a filter as in `RUST_LOG`
    #[arg(
        long,
        env = "PORTICO_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: String,
    /// How to log: for people, as JSON, or as key=value
    #[arg(long, env = "PORTICO_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: LogFormat,
    /// Settings file, one `flag: value` a line [default: `$XDG_CONFIG_HOME/portico/settings.yaml`, /etc/portico/settings.yaml]
    #[arg(long, env = "PORTICO_SETTINGS", value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// Options of names of others.
#[derive(Debug, Clone, Args)]
pub struct ForwardOptions {
    /// DNS server to ask for names of others; may be repeated, the next one stands in [default: those of /etc/resolv.conf]
    #[arg(long, env = "PORTICO_DNS_UPSTREAM", value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = parse_dns_server)]
    pub dns_upstream: Vec<SocketAddr>,
    /// DNS server to ask for names in a domain, as in `corp.example=10.0.0.53`; may be repeated, the longest domain counts
    #[arg(
        long,
        env = "PORTICO_DNS_STUB",
        value_name = "DOMAIN=ADDR[:PORT]",
        value_delimiter = ','
    )]
    pub dns_stub: Vec<DnsStub>,
}

/// `--dns-stub`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsStub {
    /// The domain.
    pub domain: Name,
    /// Who is asked.
    pub server: SocketAddr,
}

impl FromStr for DnsStub {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is not a domain and a server, such as corp.example=10.0.0.53");
        let (domain, server) = text.split_once('=').ok_or_else(wrong)?;
        let domain = Name::parse(domain).map_err(|error| format!("'{domain}': {error}"))?;
        if domain.is_empty() {
            return Err(format!("'{text}': --dns-upstream is for all domains"));
        }
        let server = parse_dns_server(server)?;
        Ok(Self { domain, server })
    }
}

/// An address with or without a port, which is 53 then.
fn parse_dns_server(text: &str) -> Result<SocketAddr, String> {
    let wrong = || {
        format!(
            "'{text}' is neither an address such as 10.0.0.53 nor one with a port such as 10.0.0.53:5353"
        )
    };
    let alone = text.parse().map(|addr: IpAddr| (addr, 53).into());
    let server: SocketAddr = alone.or_else(|_| text.parse()).map_err(|_| wrong())?;
    if server.port() == 0 || server.ip().is_unspecified() {
        return Err(wrong());
    }
    Ok(server)
}

/// Options of TCP connections, and of those that carry HTTP.
#[derive(Debug, Clone, Args)]
pub struct TcpOptions {
    /// Connections at a time; more wait in the kernel's queues [default: what the descriptors allow]
    #[arg(long, env = "PORTICO_MAX_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: Option<u32>,
    /// How long a connection may go without a byte in either direction
    #[arg(long, env = "PORTICO_TCP_IDLE_TIMEOUT", default_value = "1h", value_name = "TIME", value_parser = parse_some_time)]
    pub tcp_idle_timeout: Duration,
    /// The same once one side has finished sending
    #[arg(long, env = "PORTICO_TCP_HALF_CLOSED_TIMEOUT", default_value = "5m", value_name = "TIME", value_parser = parse_some_time)]
    pub tcp_half_closed_timeout: Duration,
    /// Silence after which a peer on another machine is asked whether it is still there; 0 never asks
    #[arg(long, env = "PORTICO_TCP_KEEPALIVE", default_value = "60s", value_name = "TIME", value_parser = parse_duration)]
    pub tcp_keepalive: Duration,
    /// How long bytes for a peer on another machine may stay unacknowledged or unread; 0 leaves it to the kernel
    #[arg(long, env = "PORTICO_TCP_USER_TIMEOUT", default_value = "0s", value_name = "TIME", value_parser = parse_duration)]
    pub tcp_user_timeout: Duration,
    /// How long the head of a request may take to come, from its first byte on; then the client is told 408
    #[arg(long, env = "PORTICO_HTTP_HEAD_TIMEOUT", default_value = "10s", value_name = "TIME", value_parser = parse_some_time)]
    pub http_head_timeout: Duration,
    /// How long an endpoint may take to begin its answer once it has the whole request; then the client is told 504; 0 is no limit
    #[arg(long, env = "PORTICO_HTTP_RESPONSE_TIMEOUT", default_value = "0s", value_name = "TIME", value_parser = parse_duration)]
    pub http_response_timeout: Duration,
    /// How long a client's connection of HTTP may go without a request
    #[arg(long, env = "PORTICO_HTTP_IDLE_TIMEOUT", default_value = "75s", value_name = "TIME", value_parser = parse_some_time)]
    pub http_idle_timeout: Duration,
    /// Age at which clients are told to come back on another connection of HTTP, less up to a tenth; 0 never tells them
    #[arg(long, env = "PORTICO_HTTP_MAX_AGE", default_value = "0s", value_name = "TIME", value_parser = parse_duration)]
    pub http_max_age: Duration,
}

/// Options of the access log.
#[derive(Debug, Clone, Args)]
pub struct AccessLogOptions {
    /// File that gets a line for every request of HTTP ports, `-` for standard output; SIGHUP opens it anew [default: none]
    #[arg(long, env = "PORTICO_ACCESS_LOG", value_name = "PATH")]
    pub access_log: Option<PathBuf>,
    /// How these lines are written: for people, or as JSON
    #[arg(
        long,
        env = "PORTICO_ACCESS_LOG_FORMAT",
        default_value = "text",
        value_enum
    )]
    pub access_log_format: AccessLogFormat,
}

/// Options of metrics and health.
#[derive(Debug, Clone, Args)]
pub struct MetricsOptions {
    /// Where to answer /metrics, /livez, /readyz and /healthz, or the next free port after it; `off` for nowhere
    #[arg(
        long,
        env = "PORTICO_ADMIN_LISTEN",
        default_value = "127.0.0.1:7070",
        value_name = "ADDR:PORT"
    )]
    pub admin_listen: AdminListen,
    /// Endpoints with metrics of their own; beyond, those of a Service are summed as endpoint="other"
    #[arg(
        long,
        env = "PORTICO_METRICS_MAX_ENDPOINTS",
        default_value = "10000",
        value_name = "N"
    )]
    pub metrics_max_endpoints: usize,
    /// Also answer kube-proxy's health checks and metrics on ports 10256 and 10249
    #[arg(long, env = "PORTICO_KUBE_PROXY_PORTS")]
    pub kube_proxy_ports: bool,
}

/// `--admin-listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminListen {
    /// Only on the unix socket.
    Off,
    /// There, or at the next free port.
    At(SocketAddr),
}

impl FromStr for AdminListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let wrong = |_| format!("'{text}' is neither an address such as 127.0.0.1:7070 nor off");
        text.parse().map(Self::At).map_err(wrong)
    }
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

fn parse_some_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time.is_zero() {
        return Err(format!("'{text}' is too short: nothing could be sent"));
    }
    Ok(time)
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
    fn parse_some_time_of_nothing_is_refused() {
        assert_eq!(parse_some_time("1ms"), Ok(Duration::from_millis(1)));
        assert!(parse_some_time("0s").unwrap_err().contains("too short"));
    }

    #[test]
    fn admin_listen_is_an_address_or_off() {
        let loopback = AdminListen::At(([127, 0, 0, 1], 9).into());
        assert_eq!("127.0.0.1:9".parse(), Ok(loopback));
        assert_eq!("off".parse(), Ok(AdminListen::Off));
        assert!("localhost".parse::<AdminListen>().is_err());
    }

    #[test]
    fn dns_stub_is_a_domain_and_a_server() {
        let stub: DnsStub = "Corp.example.=10.0.0.53".parse().unwrap();
        assert_eq!(
            (stub.domain.to_string(), stub.server),
            ("Corp.example.".into(), ([10, 0, 0, 53], 53).into())
        );
        let with_port: DnsStub = "corp=[::1]:5353".parse().unwrap();
        assert_eq!(with_port.server.to_string(), "[::1]:5353");
        for wrong in [
            "corp",
            "corp=",
            "corp=localhost",
            "a..b=10.0.0.1",
            ".=10.0.0.1",
            "corp=0.0.0.0",
            "corp=10.0.0.1:0",
        ] {
            assert!(wrong.parse::<DnsStub>().is_err(), "{wrong}");
        }
        assert_eq!(
            parse_dns_server("::1").map(|addr| addr.to_string()),
            Ok("[::1]:53".into())
        );
    }

    #[test]
    fn parse_ports_reversed_range_is_refused() {
        assert_eq!(parse_ports("30000-32767"), Ok((30000, 32767)));
        assert!(parse_ports("32767-30000").is_err());
        assert!(parse_ports("30000").is_err());
    }
}
