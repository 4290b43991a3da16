//! The series of the process, the data path and DNS. Owns which figure is which metric; process figures are read from
//! `/proc/self` (proc(5)) and missing without it.

use std::{collections::BTreeMap, fmt::Display, sync::atomic::Ordering::Relaxed};

use portico_core::snapshot::{PortView, Snapshot};

use crate::{
    admin::public::Seen,
    dns::DnsCounters,
    telemetry::metrics::text::{Samples, head, labels},
};

/// Writes families one by one.
struct Families<'a>(&'a mut String);

impl Families<'_> {
    fn one(&mut self, name: &str, value: impl Display) {
        self.of(name).value(value);
    }

    fn by<V: Display>(&mut self, name: &str, label: &str, values: &[(&str, V)]) {
        let mut samples = self.of(name);
        for (is, value) in values {
            samples.by(label, is, value);
        }
    }

    fn of<'f>(&'f mut self, name: &'f str) -> Samples<'f> {
        head(self.0, name);
        Samples {
            text: self.0,
            name,
            common: "",
        }
    }
}

pub(super) fn write(text: &mut String, seen: &Seen, snapshot: &Snapshot) {
    let mut to = Families(text);
    control(&mut to, snapshot);
    data_path(&mut to, seen);
    to.one(
        "portico_access_log_dropped_total",
        seen.data_path.counters().log_lines_dropped,
    );
    dns(&mut to, seen);
    dns_of_others(&mut to, seen);
    process(&mut to);
}

fn control(to: &mut Families<'_>, snapshot: &Snapshot) {
    to.by(
        "portico_build_info",
        "version",
        &[(env!("CARGO_PKG_VERSION"), 1)],
    );
    to.one("portico_generation", snapshot.generation.0);
    to.one("portico_ready", u8::from(snapshot.synced));
    let services = snapshot.services();
    to.one("portico_services", services.len());
    let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
    let ports = || services.iter().flat_map(|view| &view.ports);
    let mut samples = to.of(name);
    for family in ["IPv4", "IPv6"] {
        for policy in ["internal", "external"] {
            let lacks = |port: &PortView| {
                let wanted = match policy {
                    "internal" => port.internal_policy,
                    _ => port.external_policy,
                };
                wanted == portico_core::object::TrafficPolicy::Local
                    && crate::admin::sampler::family(port) == family
                    && port.local.as_ref().is_some_and(|set| set.is_empty())
            };
            let count = ports().filter(|port| lacks(port)).count();
            samples.common = if family == "IPv4" {
                "ip_family=\"IPv4\""
            } else {
                "ip_family=\"IPv6\""
            };
            samples.by("traffic_policy", policy, count);
        }
    }
}

fn data_path(to: &mut Families<'_>, seen: &Seen) {
    let counters = seen.data_path.counters();
    let loads = seen.data_path.worker_loads();
    let workers: Vec<(String, usize)> = loads
        .into_iter()
        .enumerate()
        .map(|(worker, load)| (worker.to_string(), load))
        .collect();
    let workers: Vec<(&str, usize)> = workers
        .iter()
        .map(|(name, load)| (name.as_str(), *load))
        .collect();
    to.by("portico_worker_connections_active", "worker", &workers);
    to.one(
        "portico_connections_limit",
        seen.data_path.connection_limit(),
    );
    to.one(
        "portico_connections_handed_over_total",
        counters.handed_over,
    );
    to.one("portico_connections_unmatched_total", counters.unmatched);
    to.one("portico_connections_timed_out_total", counters.timed_out);
    to.one("portico_connections_flooded_total", counters.flooded);
    to.by(
        "portico_connections_drained_total",
        "reason",
        &[
            ("endpoint_gone", counters.drained_endpoint),
            ("service_gone", counters.drained_service),
        ],
    );
    to.one("portico_accept_pauses_total", counters.pauses);
    to.one("portico_http_idle_shed_total", counters.idle_shed);
    to.one("portico_ports_exhausted_total", counters.ports_exhausted);
    to.one("portico_affinity_clients", counters.affinity_clients);
    to.one("portico_affinity_shed_total", counters.affinity_shed);
    to.one("portico_udp_flows_active", seen.data_path.flows());
    to.by(
        "portico_udp_flows_total",
        "event",
        &[
            ("opened", counters.flows_opened),
            ("shed", counters.flows_shed),
            ("expired", counters.flows_expired),
            ("refused", counters.flows_refused),
        ],
    );
    to.by(
        "portico_udp_datagrams_total",
        "direction",
        &[
            ("to_endpoint", counters.datagrams_to_upstream),
            ("to_client", counters.datagrams_to_downstream),
        ],
    );
    to.one(
        "portico_udp_datagrams_dropped_total",
        counters.datagrams_dropped,
    );
}

fn dns(to: &mut Families<'_>, seen: &Seen) {
    let counters = seen.dns.counters();
    let queries: Vec<(String, u64)> = counters
        .responses()
        .filter(|(_, _, count)| *count > 0)
        .map(|(rtype, rcode, count)| {
            let qtype = rtype.map_or_else(|| "other".to_owned(), |rtype| rtype.to_string());
            (labels(&[("qtype", &qtype), ("rcode", &rcode)]), count)
        })
        .collect();
    head(to.0, "portico_dns_queries_total");
    for (labels, count) in &queries {
        let mut samples = Samples {
            text: to.0,
            name: "portico_dns_queries_total",
            common: labels,
        };
        samples.value(count);
    }
    to.by(
        "portico_dns_messages_total",
        "transport",
        &[
            ("udp", counters.udp_queries.load(Relaxed)),
            ("tcp", counters.tcp_queries.load(Relaxed)),
        ],
    );
    to.one("portico_dns_dropped_total", counters.dropped.load(Relaxed));
    to.one(
        "portico_dns_truncated_total",
        counters.truncated.load(Relaxed),
    );
    to.one(
        "portico_dns_withheld_total",
        counters.withheld.load(Relaxed),
    );
    to.one("portico_dns_unsent_total", counters.unsent.load(Relaxed));
    to.one("portico_dns_connections_active", seen.dns.connections());
    to.one(
        "portico_dns_connections_displaced_total",
        counters.displaced.load(Relaxed),
    );
    let latency = counters.latency.load();
    to.of("portico_dns_response_duration_seconds")
        .histogram(&latency);
    core_dns(to, counters);
    to.of("coredns_dns_request_duration_seconds")
        .histogram(&latency);
}

/// What dashboards for CoreDNS look for.
fn core_dns(to: &mut Families<'_>, counters: &DnsCounters) {
    let (mut types, mut codes) = (BTreeMap::new(), BTreeMap::new());
    for (rtype, rcode, count) in counters.responses().filter(|(_, _, count)| *count > 0) {
        let rtype = rtype.map_or_else(|| "other".to_owned(), |rtype| rtype.to_string());
        *types.entry(rtype).or_insert(0) += count;
        *codes.entry(rcode.as_str()).or_insert(0) += count;
    }
    let mut requests = to.of("coredns_dns_requests_total");
    for (rtype, count) in &types {
        requests.by("type", rtype, count);
    }
    let mut responses = to.of("coredns_dns_responses_total");
    for (rcode, count) in &codes {
        responses.by("rcode", rcode, count);
    }
}

/// What other DNS servers are asked, and what is kept of it.
fn dns_of_others(to: &mut Families<'_>, seen: &Seen) {
    let counters = seen.dns.forward_counters();
    let one = [
        ("portico_dns_queue_full_total", &counters.overflowed),
        (
            "coredns_forward_max_concurrent_rejects_total",
            &counters.rejected,
        ),
        ("coredns_cache_misses_total", &counters.misses),
        ("coredns_cache_prefetch_total", &counters.prefetched),
        ("coredns_cache_served_stale_total", &counters.stale),
    ];
    for (name, counter) in one {
        to.one(name, counter.load(Relaxed));
    }
    let hits = [
        ("success", counters.hits.load(Relaxed)),
        ("denial", counters.denials.load(Relaxed)),
    ];
    to.by("coredns_cache_hits_total", "type", &hits);
    let kept = seen.dns.kept();
    to.one("coredns_cache_entries", kept.entries);
    to.one("coredns_cache_evictions_total", kept.evicted);
    let mut upstreams = seen.dns.upstreams();
    // One may be for several domains, but is the same.
    upstreams.sort_by_key(|upstream| upstream.addr);
    upstreams.dedup_by_key(|upstream| upstream.addr);
    let failures = upstreams
        .iter()
        .map(|upstream| (upstream.addr.to_string(), upstream.failures));
    let failures: Vec<_> = failures.collect();
    let failures: Vec<_> = failures
        .iter()
        .map(|(addr, count)| (addr.as_str(), *count))
        .collect();
    to.by("portico_dns_upstream_failures_total", "to", &failures);
    let name = "coredns_proxy_request_duration_seconds";
    head(to.0, name);
    for upstream in &upstreams {
        let mut samples = Samples {
            text: to.0,
            name,
            common: &labels(&[("to", &upstream.addr)]),
        };
        samples.histogram(&upstream.latency);
    }
}

fn process(to: &mut Families<'_>) {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // The name in brackets may hold anything; field 3 comes after it.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = after.split_whitespace().collect();
    let field = |number: usize| {
        fields
            .get(number - 3)
            .and_then(|text| text.parse::<f64>().ok())
    };
    let ticks = f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100));
    let page = f64::from(u32::try_from(rustix::param::page_size()).unwrap_or(4096));
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        to.one("process_cpu_seconds_total", (user + system) / ticks);
    }
    if let Some(threads) = field(20) {
        to.one("process_threads", threads);
    }
    let boot = read("/proc/stat")
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
    if let (Some(began), Some(boot)) = (field(22), boot) {
        to.one("process_start_time_seconds", boot + began / ticks);
    }
    if let (Some(virtual_bytes), Some(pages)) = (field(23), field(24)) {
        to.one("process_virtual_memory_bytes", virtual_bytes);
        to.one("process_resident_memory_bytes", pages * page);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        to.one("process_open_fds", open.count().saturating_sub(1));
    }
}
