//! The series of Service ports and endpoints. Owns which counter is which metric.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portico_core::{
    balance::EndpointState,
    object::SourceAddress,
    observe::{
        evenness::Evenness,
        histogram::{AtomicHistogram, Histogram},
        window::Span,
    },
    snapshot::PortView,
    time::Timestamp,
};

use super::{super::sampler::Sampler, Group};
use crate::telemetry::metrics::text::Samples;

type Windows<'a> = (&'a Sampler, Timestamp);
/// Writes the series of one Service port.
type OfPort = fn(&mut Samples<'_>, &PortView, Windows<'_>);
/// Writes the series of one endpoint.
type OfEndpoint = fn(&mut Samples<'_>, &Group, Timestamp);

/// Each metric of a Service port with what writes its series.
pub(super) const PORT: &[(&str, OfPort)] = &[
    ("portico_service_connections_total", |to, port, _| {
        to.value(of(&port.state.accepted));
    }),
    ("portico_service_connections_active", |to, port, _| {
        to.value(of(&port.state.active));
    }),
    ("portico_service_connections_limit", |to, port, _| {
        if let Some(most) = port.state.limit.get() {
            to.value(most.get());
        }
    }),
    (
        "portico_service_endpoint_connections_limit",
        |to, port, _| {
            if let Some(most) = port.endpoint_limit() {
                to.value(most.get());
            }
        },
    ),
    ("portico_service_connections_waiting", |to, port, _| {
        if port.state.limit.get().or(port.endpoint_limit()).is_some() {
            to.value(port.state.waiting());
        }
    }),
    (
        "portico_service_connections_established_total",
        |to, port, _| {
            to.value(of(&port.state.connected));
        },
    ),
    ("portico_service_picks_total", |to, port, _| {
        to.value(of(&port.state.picked));
    }),
    ("portico_service_retries_total", |to, port, _| {
        to.value(of(&port.state.retries));
    }),
    ("portico_service_rejections_total", |to, port, _| {
        rejections(to, port);
    }),
    ("portico_service_source_not_kept_total", |to, port, _| {
        if port.source == SourceAddress::Keep {
            for (why, count) in port.state.source_not_kept.load() {
                to.by("reason", why.as_str(), count);
            }
        }
    }),
    (
        "portico_service_proxy_header_faults_total",
        |to, port, _| {
            if !port.proxy.accept_from.is_empty() {
                for (why, count) in port.state.header_faults.load() {
                    to.by("reason", why.as_str(), count);
                }
            }
        },
    ),
    ("portico_service_residual", |to, port, _| {
        to.value(port.state.residual());
    }),
    ("portico_service_connections_ended_total", |to, port, _| {
        for (end, count) in port.state.ends.load() {
            to.by("reason", end.as_str(), count);
        }
    }),
    ("portico_service_http_requests_total", |to, port, _| {
        if port.app.protocol.is_http() {
            for (class, count) in port.state.statuses.load() {
                to.by("code", class, count);
            }
        }
    }),
    (
        "portico_service_connection_duration_seconds",
        |to, port, _| {
            to.histogram(&port.state.durations.load());
        },
    ),
    ("portico_service_bytes_total", |to, port, _| {
        directions(to, of(&port.state.bytes_to), of(&port.state.bytes_from));
    }),
    ("portico_service_datagrams_total", |to, port, _| {
        directions(
            to,
            of(&port.state.datagrams_to),
            of(&port.state.datagrams_from),
        );
    }),
    ("portico_service_datagrams_dropped_total", |to, port, _| {
        to.value(of(&port.state.datagrams_dropped));
    }),
    ("portico_service_endpoints", |to, port, _| {
        let sets = [&port.cluster, &port.local].into_iter().flatten();
        to.value(sets.map(|set| set.len()).max().unwrap_or_default());
    }),
    ("portico_service_evenness_cov", |to, port, windows| {
        evenness(to, port, windows, |found| found.cov);
    }),
    ("portico_service_evenness_spread", |to, port, windows| {
        evenness(to, port, windows, |found| found.spread);
    }),
];

/// Each metric of an endpoint with what writes its series.
pub(super) const ENDPOINT: &[(&str, OfEndpoint)] = &[
    ("portico_endpoint_picks_total", |to, group, _| {
        to.value(group.sum(|state| &state.picks));
    }),
    ("portico_endpoint_affine_picks_total", |to, group, _| {
        to.value(group.sum(|state| &state.affine));
    }),
    ("portico_endpoint_connections_total", |to, group, _| {
        to.value(group.sum(|state| &state.connected));
    }),
    ("portico_endpoint_connections_active", |to, group, _| {
        to.value(group.sum(|state| &state.active));
    }),
    ("portico_endpoint_connect_failures_total", |to, group, _| {
        failures(to, group);
    }),
    ("portico_endpoint_bytes_total", |to, group, _| {
        let (sent, received) = (
            |state: &EndpointState| of(&state.bytes_to),
            |state: &EndpointState| of(&state.bytes_from),
        );
        directions(to, group.total(sent), group.total(received));
    }),
    (
        "portico_endpoint_connect_duration_seconds",
        |to, group, _| {
            let mut all = Histogram::new(AtomicHistogram::BUCKETS);
            for (endpoint, _) in &group.members {
                all.merge(&endpoint.state.connect_latency.load());
            }
            to.histogram(&all);
        },
    ),
    ("portico_endpoint_ready", |to, group, now| {
        let usable = |state: &EndpointState| u64::from(!state.ejection.is_ejected(now));
        to.value(group.total(usable));
    }),
    ("portico_endpoint_weight", |to, group, _| {
        let weights = group.members.iter().map(|(_, weight)| u64::from(*weight));
        to.value(weights.sum::<u64>());
    }),
];

impl Group {
    fn sum(&self, counter: impl Fn(&EndpointState) -> &AtomicU64) -> u64 {
        self.total(|state| of(counter(state)))
    }

    fn total(&self, value: impl Fn(&EndpointState) -> u64) -> u64 {
        let members = self.members.iter();
        members.map(|(endpoint, _)| value(&endpoint.state)).sum()
    }
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

fn directions(to: &mut Samples<'_>, sent: u64, received: u64) {
    to.by("direction", "to_endpoint", sent);
    to.by("direction", "to_client", received);
}

fn rejections(to: &mut Samples<'_>, port: &PortView) {
    let state = &port.state;
    let reasons = [
        ("no_endpoint", of(&state.refused_no_endpoints)),
        ("policy", of(&state.dropped_policy)),
        ("source_range", of(&state.dropped_source_range)),
        ("proxy_header", state.header_faults.total()),
        ("full", of(&state.rejected_full)),
    ];
    let told: u64 = reasons.iter().map(|(_, count)| count).sum();
    for (reason, count) in reasons {
        to.by("reason", reason, count);
    }
    to.by(
        "reason",
        "all_failed",
        of(&state.rejected).saturating_sub(told),
    );
}

fn failures(to: &mut Samples<'_>, group: &Group) {
    let (refused, late) = (
        group.sum(|state| &state.refused),
        group.sum(|state| &state.timed_out),
    );
    let all = group.sum(|state| &state.failures);
    to.by("reason", "refused", refused);
    to.by("reason", "timeout", late);
    to.by("reason", "other", all.saturating_sub(refused + late));
}

fn evenness(
    to: &mut Samples<'_>,
    port: &PortView,
    (sampler, now): Windows<'_>,
    figure: fn(&Evenness) -> f64,
) {
    for span in Span::ALL {
        if let Some(found) = sampler.evenness(port, span, now) {
            to.by("window", span.as_str(), figure(&found));
        }
    }
}
