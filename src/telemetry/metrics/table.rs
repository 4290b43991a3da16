//! The table of all metrics: what `/metrics` says of each, what `docs/metrics.md` shows, and what dashboards and rules
//! may name. Owns names, types and help; a series that is not here does not exist.

use std::fmt::Write as _;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

impl Kind {
    /// As the text format has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of the labels of every series.
    pub labels: &'static [&'static [&'static str]],
    /// What it means.
    pub help: &'static str,
}

/// From a change to its effect, as kube-proxy calls it.
pub const NETWORK_PROGRAMMING: &str = "kubeproxy_network_programming_duration_seconds";
/// One round, as kube-proxy calls it.
pub const SYNC: &str = "kubeproxy_sync_proxy_rules_duration_seconds";

const SERVICE: &[&str] = &["namespace", "service", "port", "protocol", "ip_family"];
const ENDPOINT: &[&str] = &[
    "namespace",
    "service",
    "port",
    "protocol",
    "ip_family",
    "endpoint",
];
const WORKER: &[&str] = &["worker"];
const NONE: &[&str] = &[];

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static [&'static str]],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        help,
    }
}

/// All metrics, by what they are about.
pub const TABLE: &[Metric] = &[
    // Service ports.
    metric(
        "portico_service_connections_total",
        Kind::Counter,
        &[SERVICE, &[]],
        "Connections (for UDP, flows) that a Service port accepted.",
    ),
    metric(
        "portico_service_connections_active",
        Kind::Gauge,
        &[SERVICE, &[]],
        "Connections or flows in progress, those that wait for an endpoint included.",
    ),
    metric(
        "portico_service_connections_limit",
        Kind::Gauge,
        &[SERVICE, &[]],
        "Most connections at a time, as annotation `portico.dev/max-connections` says. Of Services with that annotation.",
    ),
    metric(
        "portico_service_endpoint_connections_limit",
        Kind::Gauge,
        &[SERVICE, &[]],
        "Most connections of each endpoint at a time, as annotation `portico.dev/max-connections-per-endpoint` says. Of Services with that annotation.",
    ),
    metric(
        "portico_service_connections_waiting",
        Kind::Gauge,
        &[SERVICE, &[]],
        "Connections that wait for a place of the Service port or of an endpoint, and listeners that wait with them. Of Services with such limits.",
    ),
    metric(
        "portico_service_connections_established_total",
        Kind::Counter,
        &[SERVICE, &[]],
        "Connections that reached an endpoint.",
    ),
    metric(
        "portico_service_picks_total",
        Kind::Counter,
        &[SERVICE, &[]],
        "Attempts at endpoints, those that have left included: connections + retries - rejections.",
    ),
    metric(
        "portico_service_retries_total",
        Kind::Counter,
        &[SERVICE, &[]],
        "Attempts that failed, the last one of a rejected connection included.",
    ),
    metric(
        "portico_service_rejections_total",
        Kind::Counter,
        &[SERVICE, &["reason"]],
        "Accepted connections that were reset, of HTTP ports requests that portico answered itself, by reason: no_endpoint, policy, source_range, proxy_header, full, all_failed.",
    ),
    metric(
        "portico_service_source_not_kept_total",
        Kind::Counter,
        &[SERVICE, &["reason"]],
        "Connections and flows from our own address though annotation `portico.dev/source-address` says keep, by reason: privilege, hairpin, no_port, no_route, silence. Of Services with that annotation.",
    ),
    metric(
        "portico_service_proxy_header_faults_total",
        Kind::Counter,
        &[SERVICE, &["reason"]],
        "Connections of trusted front ends that were reset for want of a PROXY header, by reason: absent, malformed, late, closed. Of Services with annotation `portico.dev/accept-proxy-protocol-from`.",
    ),
    metric(
        "portico_service_residual",
        Kind::Gauge,
        &[SERVICE, &[]],
        "Connections + retries - rejections - picks: 0, but for what waits or is being counted at this moment.",
    ),
    metric(
        "portico_service_connections_ended_total",
        Kind::Counter,
        &[SERVICE, &["reason"]],
        "Relayed TCP connections that are over, by reason: finished, client_reset, endpoint_reset, idle, cut, endpoint_gone, service_gone.",
    ),
    metric(
        "portico_service_http_requests_total",
        Kind::Counter,
        &[SERVICE, &["code"]],
        "Answers to requests by the class of their status, ours too: 1xx, 2xx, 3xx, 4xx, 5xx. Of HTTP ports, whose other counters count requests instead of connections.",
    ),
    metric(
        "portico_service_connection_duration_seconds",
        Kind::Histogram,
        &[SERVICE, &[]],
        "How long relayed TCP connections lasted; of HTTP ports requests, from the choice of the endpoint to the end of its answer.",
    ),
    metric(
        "portico_service_bytes_total",
        Kind::Counter,
        &[SERVICE, &["direction"]],
        "Bytes written, to_endpoint or to_client; of HTTP ports those of bodies, and all that follows an upgrade.",
    ),
    metric(
        "portico_service_datagrams_total",
        Kind::Counter,
        &[SERVICE, &["direction"]],
        "Datagrams sent, to_endpoint or to_client.",
    ),
    metric(
        "portico_service_datagrams_dropped_total",
        Kind::Counter,
        &[SERVICE, &[]],
        "Datagrams that were dropped.",
    ),
    metric(
        "portico_service_endpoints",
        Kind::Gauge,
        &[SERVICE, &[]],
        "Endpoints that may be chosen.",
    ),
    metric(
        "portico_service_evenness_cov",
        Kind::Gauge,
        &[SERVICE, &["window"]],
        "Coefficient of variation of picks in turn against their expected shares, within the set of endpoints in force; by window: 1s, 10s, 1m, mark, epoch. Absent without picks.",
    ),
    metric(
        "portico_service_evenness_spread",
        Kind::Gauge,
        &[SERVICE, &["window"]],
        "Largest less smallest difference of picks in turn to their expected shares; strict round robin has at most 1 over an epoch.",
    ),
    // Endpoints of Service ports.
    metric(
        "portico_endpoint_picks_total",
        Kind::Counter,
        &[ENDPOINT, &[]],
        "Times that an endpoint was chosen.",
    ),
    metric(
        "portico_endpoint_affine_picks_total",
        Kind::Counter,
        &[ENDPOINT, &[]],
        "Of the picks, those by session affinity, which draw no ticket.",
    ),
    metric(
        "portico_endpoint_connections_total",
        Kind::Counter,
        &[ENDPOINT, &[]],
        "Attempts that reached the endpoint.",
    ),
    metric(
        "portico_endpoint_connections_active",
        Kind::Gauge,
        &[ENDPOINT, &[]],
        "Connections in progress.",
    ),
    metric(
        "portico_endpoint_connect_failures_total",
        Kind::Counter,
        &[ENDPOINT, &["reason"]],
        "Attempts that failed, by reason: refused, timeout, other.",
    ),
    metric(
        "portico_endpoint_bytes_total",
        Kind::Counter,
        &[ENDPOINT, &["direction"]],
        "Bytes written, to_endpoint or to_client.",
    ),
    metric(
        "portico_endpoint_connect_duration_seconds",
        Kind::Histogram,
        &[ENDPOINT, &[]],
        "How long connecting to the endpoint took; of HTTP ports, how long its answer took to begin, on a new connection or a kept one.",
    ),
    metric(
        "portico_endpoint_ready",
        Kind::Gauge,
        &[ENDPOINT, &[]],
        "Endpoints behind the series that may be chosen and do not sit out after failures: 1 or 0, a number for endpoint=\"other\".",
    ),
    metric(
        "portico_endpoint_weight",
        Kind::Gauge,
        &[ENDPOINT, &[]],
        "Share beside the others'.",
    ),
    // Data path.
    metric(
        "portico_worker_connections_active",
        Kind::Gauge,
        &[WORKER, &[]],
        "Connections of each worker thread.",
    ),
    metric(
        "portico_connections_limit",
        Kind::Gauge,
        &[NONE, &[]],
        "Most connections at a time, as the descriptors stand.",
    ),
    metric(
        "portico_connections_handed_over_total",
        Kind::Counter,
        &[NONE, &[]],
        "Connections given to another worker than the one that accepted them.",
    ),
    metric(
        "portico_connections_unmatched_total",
        Kind::Counter,
        &[NONE, &[]],
        "Connections reset because their address is no longer served.",
    ),
    metric(
        "portico_connections_timed_out_total",
        Kind::Counter,
        &[NONE, &[]],
        "Connections reset because nothing moved for too long.",
    ),
    metric(
        "portico_connections_flooded_total",
        Kind::Counter,
        &[NONE, &[]],
        "Connections of HTTP/2 ended with ENHANCE_YOUR_CALM because their clients sent too much that asks for nothing.",
    ),
    metric(
        "portico_connections_drained_total",
        Kind::Counter,
        &[NONE, &["reason"]],
        "Connections, of HTTP ports requests, reset because what they were for was gone and the drain time-out over, by reason: endpoint_gone, service_gone.",
    ),
    metric(
        "portico_http_idle_shed_total",
        Kind::Counter,
        &[NONE, &[]],
        "Idle connections of HTTP, of clients and to endpoints, closed to make room for others when connections or descriptors were used up.",
    ),
    metric(
        "portico_accept_pauses_total",
        Kind::Counter,
        &[NONE, &[]],
        "Times that a worker paused accepting, for want of descriptors or at the limit of connections.",
    ),
    metric(
        "portico_ports_exhausted_total",
        Kind::Counter,
        &[NONE, &[]],
        "Times that one of our addresses had no port left for a connection to an endpoint; another one is tried.",
    ),
    metric(
        "portico_affinity_clients",
        Kind::Gauge,
        &[NONE, &[]],
        "Clients that session affinity remembers.",
    ),
    metric(
        "portico_affinity_shed_total",
        Kind::Counter,
        &[NONE, &[]],
        "Clients forgotten before their time, because there were too many.",
    ),
    metric(
        "portico_access_log_dropped_total",
        Kind::Counter,
        &[NONE, &[]],
        "Lines of the access log that were not written: too many waited, or writing failed.",
    ),
    metric(
        "portico_udp_flows_active",
        Kind::Gauge,
        &[NONE, &[]],
        "UDP flows in progress.",
    ),
    metric(
        "portico_udp_flows_total",
        Kind::Counter,
        &[NONE, &["event"]],
        "UDP flows by what happened: opened, shed, expired, refused.",
    ),
    metric(
        "portico_udp_datagrams_total",
        Kind::Counter,
        &[NONE, &["direction"]],
        "Datagrams sent, to_endpoint or to_client.",
    ),
    metric(
        "portico_udp_datagrams_dropped_total",
        Kind::Counter,
        &[NONE, &[]],
        "Datagrams dropped: nobody to send them to, no descriptor, or a full buffer.",
    ),
    // DNS.
    metric(
        "portico_dns_queries_total",
        Kind::Counter,
        &[NONE, &["qtype", "rcode"]],
        "Queries that got a response, by type (rare ones are other) and response code.",
    ),
    metric(
        "portico_dns_messages_total",
        Kind::Counter,
        &[NONE, &["transport"]],
        "Messages received, udp or tcp.",
    ),
    metric(
        "portico_dns_dropped_total",
        Kind::Counter,
        &[NONE, &[]],
        "Messages met with silence: responses, and what is shorter than a header.",
    ),
    metric(
        "portico_dns_truncated_total",
        Kind::Counter,
        &[NONE, &[]],
        "Responses that lack records of their answer.",
    ),
    metric(
        "portico_dns_withheld_total",
        Kind::Counter,
        &[NONE, &[]],
        "Responses without a record to clients elsewhere, whose own machine every address would have been.",
    ),
    metric(
        "portico_dns_unsent_total",
        Kind::Counter,
        &[NONE, &[]],
        "Responses that could not be sent at once and were given up.",
    ),
    metric(
        "portico_dns_connections_active",
        Kind::Gauge,
        &[NONE, &[]],
        "TCP connections to the DNS server.",
    ),
    metric(
        "portico_dns_connections_displaced_total",
        Kind::Counter,
        &[NONE, &[]],
        "TCP connections to the DNS server that were closed to make room for another one.",
    ),
    metric(
        "portico_dns_response_duration_seconds",
        Kind::Histogram,
        &[NONE, &[]],
        "From a query read to its response written, without the sockets.",
    ),
    // The same under CoreDNS' names, with those of its labels that fit.
    metric(
        "coredns_dns_requests_total",
        Kind::Counter,
        &[NONE, &["type"]],
        "Queries that got a response, by type, as CoreDNS names it.",
    ),
    metric(
        "coredns_dns_responses_total",
        Kind::Counter,
        &[NONE, &["rcode"]],
        "Responses by code, as CoreDNS names it.",
    ),
    metric(
        "coredns_dns_request_duration_seconds",
        Kind::Histogram,
        &[NONE, &[]],
        "portico_dns_response_duration_seconds, as CoreDNS names it.",
    ),
    metric(
        "portico_dns_queue_full_total",
        Kind::Counter,
        &[NONE, &[]],
        "Queries for names of others that got SERVFAIL because too many had come at once.",
    ),
    metric(
        "portico_dns_upstream_failures_total",
        Kind::Counter,
        &[NONE, &["to"]],
        "Times that another DNS server gave no answer, or one later than 800 ms.",
    ),
    metric(
        "coredns_proxy_request_duration_seconds",
        Kind::Histogram,
        &[NONE, &["to"]],
        "How long answers of other DNS servers took; as CoreDNS, without labels proxy_name and rcode.",
    ),
    metric(
        "coredns_forward_max_concurrent_rejects_total",
        Kind::Counter,
        &[NONE, &[]],
        "Queries that were refused because 1000 waited for other DNS servers.",
    ),
    metric(
        "coredns_cache_entries",
        Kind::Gauge,
        &[NONE, &[]],
        "Responses of other DNS servers that are kept.",
    ),
    metric(
        "coredns_cache_hits_total",
        Kind::Counter,
        &[NONE, &["type"]],
        "Queries that were answered from what is kept, by type: success, denial.",
    ),
    metric(
        "coredns_cache_misses_total",
        Kind::Counter,
        &[NONE, &[]],
        "Queries for which nothing was kept, or too long.",
    ),
    metric(
        "coredns_cache_prefetch_total",
        Kind::Counter,
        &[NONE, &[]],
        "Times that what is wanted was asked for again before its time was over.",
    ),
    metric(
        "coredns_cache_served_stale_total",
        Kind::Counter,
        &[NONE, &[]],
        "Queries that were answered with what is too old, because no other DNS server answered in time.",
    ),
    metric(
        "coredns_cache_evictions_total",
        Kind::Counter,
        &[NONE, &[]],
        "Responses that had to make room for others.",
    ),
    // Control.
    metric(
        "portico_generation",
        Kind::Gauge,
        &[NONE, &[]],
        "Number of the snapshot in force.",
    ),
    metric(
        "portico_ready",
        Kind::Gauge,
        &[NONE, &[]],
        "1 once every source has been read and what was read is served.",
    ),
    metric(
        "portico_services",
        Kind::Gauge,
        &[NONE, &[]],
        "Services in the snapshot.",
    ),
    metric(
        "portico_config_reloads_total",
        Kind::Counter,
        &[NONE, &["result"]],
        "Times that manifests were read, by result: success, error (something in them is rejected).",
    ),
    metric(
        "portico_config_last_reload_success_timestamp_seconds",
        Kind::Gauge,
        &[NONE, &[]],
        "When manifests were last read without an error, in seconds since 1970.",
    ),
    metric(
        "portico_manifest_errors",
        Kind::Gauge,
        &[NONE, &[]],
        "Errors in manifests.",
    ),
    metric(
        "portico_listeners",
        Kind::Gauge,
        &[NONE, &["state"]],
        "Sockets by state: listening, refusing, fallback, failed.",
    ),
    metric(
        "portico_runs",
        Kind::Gauge,
        &[NONE],
        "Commands that `portico run` serves Services to.",
    ),
    metric(
        "kubeproxy_network_programming_duration_seconds",
        Kind::Histogram,
        &[NONE, &[]],
        "From the first notice of a change to the publication of the snapshot that has it.",
    ),
    metric(
        "kubeproxy_sync_proxy_rules_duration_seconds",
        Kind::Histogram,
        &[NONE, &[]],
        "One round: what changed is compiled, sockets are bound, the snapshot is published.",
    ),
    metric(
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        Kind::Gauge,
        &[NONE, &[]],
        "When a snapshot was last published, in seconds since 1970.",
    ),
    metric(
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        Kind::Gauge,
        &[NONE, &["ip_family", "traffic_policy"]],
        "Service ports with traffic policy Local and no endpoint on this node, by policy: internal, external.",
    ),
    metric(
        "kubeproxy_proxy_healthz_total",
        Kind::Counter,
        &[NONE, &["code"]],
        "Answers of /healthz on kube-proxy's port, by code.",
    ),
    metric(
        "kubeproxy_proxy_livez_total",
        Kind::Counter,
        &[NONE, &["code"]],
        "Answers of /livez on kube-proxy's port, by code.",
    ),
    // Process.
    metric(
        "portico_build_info",
        Kind::Gauge,
        &[NONE, &["version"]],
        "Always 1.",
    ),
    metric(
        "process_cpu_seconds_total",
        Kind::Counter,
        &[NONE, &[]],
        "User and system CPU time.",
    ),
    metric(
        "process_resident_memory_bytes",
        Kind::Gauge,
        &[NONE, &[]],
        "Resident memory.",
    ),
    metric(
        "process_virtual_memory_bytes",
        Kind::Gauge,
        &[NONE, &[]],
        "Virtual memory.",
    ),
    metric("process_threads", Kind::Gauge, &[NONE, &[]], "Threads."),
    metric(
        "process_open_fds",
        Kind::Gauge,
        &[NONE, &[]],
        "Open descriptors.",
    ),
    metric(
        "process_start_time_seconds",
        Kind::Gauge,
        &[NONE, &[]],
        "When the process started, in seconds since 1970.",
    ),
];

/// The metric of this name.
pub fn find(name: &str) -> Option<&'static Metric> {
    TABLE.iter().find(|metric| metric.name == name)
}

/// Whether a series of this name exists: a metric, or a part of a histogram.
pub fn has_series(name: &str) -> bool {
    let part = |suffix| {
        let base = name.strip_suffix(suffix).and_then(find);
        base.is_some_and(|metric| metric.kind == Kind::Histogram)
    };
    find(name).is_some_and(|metric| metric.kind != Kind::Histogram)
        || ["_bucket", "_sum", "_count"].into_iter().any(part)
}

/// The buckets of kube-proxy's `network_programming_duration_seconds`.
pub fn network_programming_buckets() -> impl Iterator<Item = f64> {
    let seconds = (1..60)
        .chain((60..120).step_by(5))
        .chain((120..=300).step_by(30));
    [0.25, 0.5].into_iter().chain(seconds.map(f64::from))
}

/// The buckets of kube-proxy's `sync_proxy_rules_duration_seconds`.
pub fn sync_buckets() -> impl Iterator<Item = f64> {
    (0..15).map(|power| 0.001 * f64::from(1_u16 << power))
}

/// The table as Markdown, for `docs/metrics.md`.
pub fn markdown() -> String {
    let mut text = "| metric | type | labels | what it says |\n|---|---|---|---|\n".to_owned();
    for metric in TABLE {
        let labels: Vec<&str> = metric.labels.iter().copied().flatten().copied().collect();
        let kind = metric.kind.as_str();
        let labels = labels.join(", ");
        let _ = writeln!(
            text,
            "| `{}` | {kind} | {labels} | {} |",
            metric.name, metric.help
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_follows_the_conventions_of_names() {
        let mut names: Vec<&str> = TABLE.iter().map(|metric| metric.name).collect();
        for metric in TABLE {
            let name = metric.name;
            let is_total = name.ends_with("_total");
            // kube-proxy's gauge is called so.
            let exempt = name == "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
            assert!(
                exempt || is_total == (metric.kind == Kind::Counter),
                "{name}"
            );
            if metric.kind == Kind::Histogram {
                assert!(name.ends_with("_seconds"), "{name}");
            }
            assert!(
                metric.help.ends_with('.') && !metric.help.contains('|'),
                "{name}"
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }

    #[test]
    fn buckets_are_those_of_kube_proxy() {
        let network: Vec<f64> = network_programming_buckets().collect();
        assert_eq!(network.len(), 2 + 59 + 12 + 7);
        assert_eq!(
            (network[2], network[60], network[61], network[79]),
            (1.0, 59.0, 60.0, 300.0)
        );
        let sync: Vec<f64> = sync_buckets().collect();
        assert_eq!((sync.len(), sync[0], sync[14]), (15, 0.001, 16.384));
    }
}
