//! From settings to what the parts are started with. Owns the translation and nothing that runs.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use portico_core::{
    dns::{DnsRules, Name, PodNames},
    http::{
        HttpRules,
        head::{Forwarded, HeaderRules, Trace, Via},
    },
    object::{PortNames, Protocol, diagnostic::Severity},
    snapshot::{Cluster, NodePortAddresses, SourceRangeReach},
    world::{
        Deviations, Simulation, SourceReport, SourceView, WorldSettings,
        allocate::{nth, size_of},
    },
};
use portico_dataplane::DataSettings;

use crate::{
    clock,
    dns::{DnsListen, DnsSettings, ForwardSettings, ResolvConf, UpstreamSource},
    host::{self, routes::Routes},
    instance::{Instance, InstanceDirs, Ranges, SlotGuard, State},
    settings::{
        AdminListen, ClusterOptions, DnsPods, ForwardOptions, HttpHeader, InstanceOptions,
        ManifestOptions, UpOptions,
    },
    source::{
        file::{self, FileSource, FileWatch},
        manifest::{self, ManifestSettings, Strictness},
        once,
    },
};

/// Shortest prefix of an IPv6 range, as of the API server's `--service-cluster-ip-range`.
const LARGEST_V6: u8 = 64;

/// The name that mapped processes have in findings.
const MAPPED: &str = "--map";

pub(super) fn instance_dirs(options: &InstanceOptions) -> InstanceDirs {
    InstanceDirs {
        runtime_dir: options.runtime_dir.clone(),
        state_dir: options.state_dir.clone(),
    }
}

/// A range that was given needs no share of the usual one.
pub(super) fn slot_use(cluster: &ClusterOptions) -> SlotGuard {
    if cluster.service_cidr.is_some() {
        SlotGuard::Unguarded
    } else {
        SlotGuard::Exclusive
    }
}

/// Ranges and domains, checked against each other.
pub(super) fn cluster(
    options: &ClusterOptions,
    manifests: &ManifestOptions,
    share: &Ranges,
) -> anyhow::Result<Cluster> {
    let service_cidr = options.service_cidr.unwrap_or(share.service);
    let load_balancer_cidr = options.loadbalancer_cidr.unwrap_or(share.load_balancer);
    let pod_cidr = options.pod_cidr.unwrap_or(share.pods);
    let named = [
        ("--service-cidr", service_cidr),
        ("--loadbalancer-cidr", load_balancer_cidr),
        ("--pod-cidr", pod_cidr),
    ];
    for (index, (flag, range)) in named.iter().enumerate() {
        if size_of(*range) < 16 || !range.addr().is_ipv4() {
            bail!("{flag} {range}: an IPv4 range of at least 16 addresses is needed");
        }
        for (other, with) in named.iter().skip(index + 1) {
            if range.contains(with) || with.contains(range) {
                bail!("{flag} {range} and {other} {with} overlap");
            }
        }
    }
    check_v6(options)?;
    let (dynamic_service_cidr, dns_address) = match options.service_cidr {
        Some(range) => (range, nth(range, 10)),
        None => (share.dynamic_service, share.dns),
    };
    let host_addresses = host::addresses();
    let node_port_addresses =
        host::node_port_addresses(&options.nodeport_addresses, &host_addresses);
    Ok(Cluster {
        domains: domains(&options.cluster_domain)?,
        search_namespace: (!options.no_server_search).then(|| manifests.namespace.as_str().into()),
        service_cidr: service_cidr.trunc(),
        dynamic_service_cidr: dynamic_service_cidr.trunc(),
        service_cidr_v6: options.service_cidr_v6.map(|range| range.trunc()),
        load_balancer_cidr: load_balancer_cidr.trunc(),
        load_balancer_cidr_v6: options.loadbalancer_cidr_v6.map(|range| range.trunc()),
        pod_cidr: pod_cidr.trunc(),
        dns_address,
        node_name: options.node_name.clone().unwrap_or_else(host_name).into(),
        zone: options.zone.as_deref().map(Arc::from),
        source_range_reach: if options.source_ranges_everywhere {
            SourceRangeReach::Everywhere
        } else {
            SourceRangeReach::LoadBalancer
        },
        dns: dns_rules(options, &node_port_addresses, &host_addresses)?,
        http: HttpRules {
            port_names: if options.http_by_port_name {
                PortNames::Honoured
            } else {
                PortNames::Ignored
            },
            headers: header_rules(options),
        },
        node_port_addresses,
        host_addresses,
    })
}

fn header_rules(options: &ClusterOptions) -> HeaderRules {
    let mut rules = HeaderRules {
        trusted: options.http_trusted_proxies.clone().into(),
        ..HeaderRules::default()
    };
    for header in &options.http_headers {
        match header {
            HttpHeader::Forwarded => rules.forwarded = Forwarded::Written,
            HttpHeader::Via => rules.via = Via::Written,
            HttpHeader::Traceparent => rules.trace = Trace::Begun,
        }
    }
    rules
}

/// The zones of Services, each once.
fn domains(wanted: &[String]) -> anyhow::Result<Vec<Arc<str>>> {
    let mut domains: Vec<Arc<str>> = Vec::new();
    for text in wanted {
        let domain = text.trim_matches('.').to_ascii_lowercase();
        let wrong = format!("--cluster-domain {text}");
        let name = Name::parse(&domain).with_context(|| wrong.clone())?;
        if name.is_empty() {
            bail!("{wrong}: the root cannot be a zone of Services");
        }
        if domain == "local" {
            bail!("{wrong}: names of hosts on the link end so (RFC 6762); take one below it");
        }
        if !domains.iter().any(|known| **known == domain) {
            domains.push(domain.into());
        }
    }
    Ok(domains)
}

fn dns_rules(
    options: &ClusterOptions,
    node_ports: &NodePortAddresses,
    host: &[IpAddr],
) -> anyhow::Result<DnsRules> {
    for (place, addr) in options.advertise.iter().enumerate() {
        if addr.is_loopback() || addr.is_unspecified() || addr.is_multicast() {
            bail!("--advertise {addr}: no other machine reaches this one there");
        }
        let mut before = options.advertise.iter().take(place);
        if let Some(other) = before.find(|other| other.is_ipv4() == addr.is_ipv4()) {
            bail!("--advertise {other} and {addr}: one address a family is given to clients");
        }
        // An address that is not the host's own may be translated to one that is.
        if let NodePortAddresses::Listed(served) = node_ports
            && host.contains(addr)
            && !served.contains(addr)
        {
            bail!(
                "--advertise {addr}: --nodeport-addresses leaves it out, so no node port is there"
            );
        }
    }
    Ok(DnsRules {
        pods: match options.dns_pods {
            DnsPods::Disabled => PodNames::Disabled,
            DnsPods::Insecure => PodNames::Insecure,
            DnsPods::Verified => PodNames::Verified,
        },
        advertised: options.advertise.clone(),
        listened: Vec::new(),
    })
}

/// What the routes of an instance are known by: the same for every run of it. Its runtime folder holds its lock, so
/// that no two processes that see one folder have it at once.
pub(super) fn route_owner(instance: &Instance) -> String {
    let uid = rustix::process::getuid().as_raw();
    format!(
        "{uid} {} {}",
        instance.name(),
        instance.runtime_dir().display()
    )
}

/// Makes the ranges that are not in 127/8 addresses of this host, and lets single ones be made so.
pub(super) fn make_local(
    routes: &mut Routes,
    options: &ClusterOptions,
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let ranges: Vec<ipnet::IpNet> = cluster.ranges().collect();
    let done = routes.make_local(&ranges);
    done.and_then(|_| routes.allow(&options.external_ip_cidr))
        .map_err(|error| {
            let program = std::env::current_exe().unwrap_or_else(|_| "portico".into());
            match error.fix(&program.display().to_string()) {
                Some(fix) => anyhow!("{:#}\n  fix: {fix}", anyhow::Error::new(error)),
                None => error.into(),
            }
        })
}

/// The ranges of the second family, which is bound to addresses that some route makes local.
fn check_v6(options: &ClusterOptions) -> anyhow::Result<()> {
    let named = [
        ("--service-cidr-v6", options.service_cidr_v6),
        ("--loadbalancer-cidr-v6", options.loadbalancer_cidr_v6),
    ];
    for (flag, range) in named {
        let Some(range) = range else { continue };
        if size_of(range) < 16 || range.addr().is_ipv4() {
            bail!("{flag} {range}: an IPv6 range of at least 16 addresses is needed");
        }
        if range.prefix_len() < LARGEST_V6 {
            bail!(
                "specified {flag} {range} is too large; for 128-bit addresses, the mask must be >= {LARGEST_V6}"
            );
        }
    }
    match named.map(|(_, range)| range) {
        [None, Some(balancers)] => {
            bail!("--loadbalancer-cidr-v6 {balancers}: IPv6 Services need --service-cidr-v6 too")
        }
        [Some(services), Some(balancers)]
            if services.contains(&balancers) || balancers.contains(&services) =>
        {
            bail!("--service-cidr-v6 {services} and --loadbalancer-cidr-v6 {balancers} overlap")
        }
        _ => Ok(()),
    }
}

/// As uname(2) has it.
fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase()
}

pub(super) fn deviations(state: &State) -> Deviations {
    Deviations {
        cluster_ips: state.cluster_ips.clone(),
        node_ports: state.node_ports.clone(),
        load_balancer_ips: state.load_balancer_ips.clone(),
    }
}

pub(super) fn world_settings(
    up: &UpOptions,
    cluster: &Arc<Cluster>,
    state: &State,
) -> WorldSettings {
    let simulation = if up.simulate {
        Simulation::On
    } else {
        Simulation::Off
    };
    settings_of(&up.manifests, &up.cluster, (cluster, state), simulation)
}

/// Pods are not counted as missing offline: nobody runs them, and nobody promised to.
pub(super) fn offline_settings(
    manifests: &ManifestOptions,
    options: &ClusterOptions,
    cluster: &Arc<Cluster>,
    state: &State,
) -> WorldSettings {
    settings_of(manifests, options, (cluster, state), Simulation::Off)
}

fn settings_of(
    manifests: &ManifestOptions,
    options: &ClusterOptions,
    (cluster, state): (&Arc<Cluster>, &State),
    simulation: Simulation,
) -> WorldSettings {
    let (first, last) = options.service_node_port_range;
    WorldSettings {
        cluster: Arc::clone(cluster),
        node_ports: first..=last,
        host_addresses: host::addresses(),
        external_ranges: options.external_ip_cidr.clone(),
        simulation,
        foreign_addresses: if manifests.strict {
            Severity::Error
        } else {
            Severity::Warning
        },
        remembered: deviations(state),
        // Pods of two runs should not have the same names; pods of one run never do.
        seed: clock::now().as_millis(),
    }
}

pub(super) fn data_settings(up: &UpOptions) -> DataSettings {
    let default = DataSettings::default();
    let unless_zero = |time: Duration| (!time.is_zero()).then_some(time);
    let most = up.tcp.max_connections;
    DataSettings {
        workers: up.workers.map_or(default.workers, usize::from),
        connect_timeout: up.connect_timeout,
        max_connections: most.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        idle_timeout: up.tcp.tcp_idle_timeout,
        half_closed_timeout: up.tcp.tcp_half_closed_timeout,
        keepalive: unless_zero(up.tcp.tcp_keepalive),
        user_timeout: unless_zero(up.tcp.tcp_user_timeout),
        http_head_timeout: up.tcp.http_head_timeout,
        http_response_timeout: unless_zero(up.tcp.http_response_timeout),
        http_idle_timeout: up.tcp.http_idle_timeout,
        http_max_age: unless_zero(up.tcp.http_max_age),
        ..default
    }
}

pub(super) fn dns_settings(up: &UpOptions, cluster: &Cluster) -> DnsSettings {
    if up.dns_listen.is_empty() {
        return DnsSettings {
            listen: vec![DnsListen::standard(cluster.dns_address)],
        };
    }
    DnsSettings {
        listen: up
            .dns_listen
            .iter()
            .copied()
            .map(DnsListen::exactly)
            .collect(),
    }
}

/// The addresses of `--dns-listen`, each once.
pub(super) fn listened(up: &UpOptions) -> Vec<IpAddr> {
    let mut addrs: Vec<_> = up.dns_listen.iter().map(SocketAddr::ip).collect();
    let mut seen = BTreeSet::new();
    addrs.retain(|addr| seen.insert(*addr));
    addrs
}

/// Whom to ask for names of others: what was given, else whom this machine asks.
/// Half of the descriptors that are kept back may be sockets towards them.
pub(super) fn forward_settings(options: &ForwardOptions, kept_back: usize) -> ForwardSettings {
    let given = options.dns_upstream.clone();
    let upstreams = if given.is_empty() {
        UpstreamSource::Machine(ResolvConf::default())
    } else {
        UpstreamSource::Given(given)
    };
    let stubs = options.dns_stub.iter().cloned();
    ForwardSettings {
        upstreams,
        stubs: stubs.map(|stub| (stub.domain, stub.server)).collect(),
        sockets: kept_back / 2,
    }
}

/// DNS over TCP may have a quarter of the descriptors that are kept back.
pub(super) const fn dns_connections(kept_back: usize) -> usize {
    kept_back / 4
}

/// Ports where sockets of ours that are for no Service, or may come to be, have single addresses, which the shared
/// socket of a port number could not be bound beside.
pub(super) fn own_ports(up: &UpOptions, dns: &DnsSettings) -> BTreeSet<(Protocol, u16)> {
    let dns = dns.listen.iter();
    let dns = dns.flat_map(|listen| [Some(listen.addr.port()), listen.fallback_port]);
    let both = |port| [(Protocol::Tcp, port), (Protocol::Udp, port)];
    let mut ports: BTreeSet<_> = dns.flatten().flat_map(both).collect();
    // Resolvers of the host have it on single loopback addresses, too (127.0.0.53 of systemd-resolved(8)).
    ports.extend(both(53));
    if let AdminListen::At(addr) = up.metrics.admin_listen {
        ports.insert((Protocol::Tcp, addr.port()));
    }
    ports
}

fn manifest_settings(options: &ManifestOptions) -> ManifestSettings {
    ManifestSettings {
        namespace: options.namespace.as_str().into(),
        strictness: if options.strict {
            Strictness::Strict
        } else {
            Strictness::Lenient
        },
    }
}

/// The files, followed live; `None` when only mappings were given.
pub(super) fn files(
    paths: &[PathBuf],
    manifests: &ManifestOptions,
) -> anyhow::Result<Option<FileWatch>> {
    if paths.is_empty() {
        return Ok(None);
    }
    let load = file::manifests(manifest_settings(manifests));
    Ok(Some(FileSource::open(paths, load)?.spawn()?))
}

/// The files, read once.
pub(super) fn read_once(
    paths: &[PathBuf],
    manifests: &ManifestOptions,
) -> anyhow::Result<SourceReport> {
    let read =
        once::read(paths, &manifest_settings(manifests)).context("cannot read the manifests")?;
    Ok(SourceReport::Synced(read.view))
}

/// What `--map` says, which never changes.
pub(super) fn mapped_report(text: &str, manifests: &ManifestOptions) -> Vec<SourceReport> {
    if text.is_empty() {
        return Vec::new();
    }
    let file: Arc<str> = MAPPED.into();
    let loaded = manifest::load(&file, text, &manifest_settings(manifests), None);
    let shards = [(file, Arc::new(loaded.shard))].into();
    vec![SourceReport::Synced(SourceView {
        shards,
        ..SourceView::default()
    })]
}

/// What an instance that may or may not run would use: what its state file says, else the natural choice.
pub(super) struct Remembered {
    pub(super) ranges: Ranges,
    pub(super) state: State,
}

pub(super) fn remembered(options: &InstanceOptions) -> anyhow::Result<Remembered> {
    let (state, ranges) = Instance::look_up(&options.instance, &instance_dirs(options))?;
    Ok(Remembered { ranges, state })
}
