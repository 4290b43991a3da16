//! From counters and windows to [`Stat`]. Owns which counter is which figure.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::http::StatusCode;
use portico_core::{
    balance::{EndpointSet, EndpointState},
    calendar::rfc3339,
    object::Protocol,
    observe::{
        histogram::{AtomicHistogram, Histogram},
        real,
        window::{Span, Totals, Window},
    },
    snapshot::{PortView, ServiceView, Snapshot, service_path},
    time::Timestamp,
};

use super::{
    super::sampler::{self, Sampler, Tracked},
    EndpointStat, EndpointWindow, Epoch, Failures, Latency, PortCounts, PortStat, PortWindow,
    Query, Refusal, Rejections, SCHEMA, Stat, Unit, Units, Verdict,
    causes::{self, Facts, Member},
};
use crate::objects::Resource;

/// What figures are read from.
pub(in crate::admin) struct Source<'a> {
    snapshot: &'a Snapshot,
    sampler: &'a Sampler,
    now: Timestamp,
}

impl<'a> Source<'a> {
    /// The counters of `snapshot`. The sampler looks first, so that it knows the sets in force.
    pub(in crate::admin) fn new(
        snapshot: &'a Snapshot,
        sampler: &'a Sampler,
        now: Timestamp,
    ) -> Self {
        sampler.sample(snapshot, now);
        Self {
            snapshot,
            sampler,
            now,
        }
    }

    fn stat(&self, ports: Vec<PortStat>) -> Stat {
        Stat {
            schema: SCHEMA.to_owned(),
            time: rfc3339(self.now),
            generation: self.snapshot.generation.0,
            ports,
        }
    }

    fn ports(&self, service: &ServiceView, query: &Query) -> Vec<PortStat> {
        let ports = service.ports.iter().filter_map(|port| {
            let look = |tracked: &Tracked| self.port(service, port, tracked, query);
            // A port without frontends, or that was not sampled, has counted nothing.
            self.sampler.look(port, look)
        });
        ports.collect()
    }

    fn port(
        &self,
        service: &ServiceView,
        port: &Arc<PortView>,
        tracked: &Tracked,
        query: &Query,
    ) -> PortStat {
        let windows = Span::ALL.map(|span| (span, tracked.over(span, self.now)));
        let pods = pods(service);
        let is_ready = |state: &EndpointState| !state.ejection.is_ejected(self.now);
        let endpoints = tracked.set.endpoints();
        let ready = endpoints.iter().filter(|one| is_ready(&one.state)).count();
        PortStat {
            namespace: service.namespace.to_string(),
            service: service.name.to_string(),
            port_name: port.name.port.to_string(),
            port: port.number,
            protocol: port.name.protocol.to_string(),
            ip_family: sampler::family(port).to_owned(),
            unit: match port.name.protocol {
                Protocol::Udp => Unit::Flows,
                _ if port.app.protocol.is_http() => Unit::Requests,
                _ => Unit::Connections,
            },
            balance: port.policy().as_str().to_owned(),
            affinity_seconds: port
                .affinity
                .as_ref()
                .map(|affinity| affinity.timeout.as_secs()),
            ready,
            declared: declared(service, port).max(endpoints.len()),
            counts: counts(port, &tracked.set),
            connect: connect(&tracked.set),
            durations: latency(&port.state.durations.load()),
            windows: windows
                .iter()
                .map(|(span, window)| self.window(port, tracked, (*span, window), &pods))
                .collect(),
            epoch: self.epoch(tracked),
            notes: causes::notes(service, port, tracked),
            endpoints: if query.endpoints {
                self.endpoints(tracked, &windows, &pods)
            } else {
                Vec::new()
            },
        }
    }

    fn window(
        &self,
        port: &PortView,
        tracked: &Tracked,
        (span, window): (Span, &Window),
        pods: &Pods<'_>,
    ) -> PortWindow {
        let whole = tracked.whole_over(span, self.now);
        let seconds = whole.to.since(whole.from).as_secs_f64();
        let gained = whole.gained.first().copied().unwrap_or_default();
        // What a port counts in its first moments may have begun up to a pace before it was seen.
        let rate = |count: u64| real(count) / seconds.max(sampler::PACE.as_secs_f64());
        let evenness = Units {
            picks: tracked.evenness(window, |totals| totals.picks),
            turns: tracked.evenness(window, |totals| totals.turns),
            connections: tracked.evenness(window, |totals| totals.connections),
            bytes: tracked.evenness(window, |totals| totals.bytes_to + totals.bytes_from),
        };
        let verdict = evenness.picks.as_ref().map(Verdict::of);
        PortWindow {
            window: span.as_str().to_owned(),
            seconds,
            connections: gained.connections,
            picks: gained.picks,
            rejected: gained.failures,
            bytes_to_endpoints: gained.bytes_to,
            bytes_to_clients: gained.bytes_from,
            connections_per_second: rate(gained.connections),
            bytes_per_second: rate(gained.bytes_to.saturating_add(gained.bytes_from)),
            error_share: (gained.connections > 0)
                .then(|| real(gained.failures) / real(gained.connections)),
            set_seconds: window.to.since(window.from).as_secs_f64(),
            verdict,
            uneven_because: if verdict == Some(Verdict::Uneven) {
                causes::of(&self.facts(port, tracked, window, pods))
            } else {
                Vec::new()
            },
            evenness,
        }
    }

    fn facts(&self, port: &PortView, tracked: &Tracked, window: &Window, pods: &Pods<'_>) -> Facts {
        let endpoints = tracked.set.endpoints().iter().zip(&window.gained);
        let member = |(endpoint, gained): (&portico_core::balance::Endpoint, &Totals)| Member {
            name: pods
                .get(&endpoint.addr.ip())
                .map_or_else(|| endpoint.addr.to_string(), |pod| (*pod).to_owned()),
            is_ejected: endpoint.state.ejection.is_ejected(self.now),
            active: endpoint.state.active.load(Relaxed),
            gained: *gained,
        };
        Facts {
            balance: port.policy(),
            affinity_seconds: port
                .affinity
                .as_ref()
                .map(|affinity| affinity.timeout.as_secs()),
            has_both_policies: causes::has_both_policies(port),
            members: endpoints.map(member).collect(),
        }
    }

    fn epoch(&self, tracked: &Tracked) -> Epoch {
        Epoch {
            since: rfc3339(tracked.began()),
            seconds: self.now.since(tracked.began()).as_secs_f64(),
            joined: tracked.change.joined.clone(),
            left: tracked.change.left.clone(),
        }
    }

    fn endpoints(
        &self,
        tracked: &Tracked,
        windows: &[(Span, Window)],
        pods: &Pods<'_>,
    ) -> Vec<EndpointStat> {
        let shares = shares(&tracked.weights());
        let endpoints = tracked.set.endpoints().iter().zip(&tracked.since);
        let rows = endpoints.zip(shares).enumerate();
        rows.map(|(index, ((endpoint, since), expected))| {
            let state = &endpoint.state;
            EndpointStat {
                address: endpoint.addr,
                pod: pods.get(&endpoint.addr.ip()).map(|pod| (*pod).to_owned()),
                weight: tracked.set.weight(index).get(),
                expected,
                ejected: state.ejection.is_ejected(self.now),
                ejected_until: state.ejection.until().map(rfc3339),
                since: rfc3339(*since),
                picks: of(&state.picks),
                affine: of(&state.affine),
                connections: of(&state.connected),
                active: of(&state.active),
                failures: failures([&**state].into_iter()),
                bytes_to_endpoint: of(&state.bytes_to),
                bytes_to_clients: of(&state.bytes_from),
                connect: latency(&state.connect_latency.load()),
                windows: windows
                    .iter()
                    .map(|(span, window)| endpoint_window(*span, window, index, expected))
                    .collect(),
            }
        })
        .collect()
    }
}

/// Every Service port, or those of one namespace.
pub(in crate::admin) fn all(source: &Source<'_>, query: &Query) -> Stat {
    let services = source.snapshot.services().into_iter();
    let ports = services.flat_map(|service| source.ports(service, query));
    source.stat(ports.collect())
}

/// The ports of one Service.
pub(in crate::admin) fn of_service(
    source: &Source<'_>,
    (namespace, name): (&str, &str),
    query: &Query,
) -> Result<Stat, Refusal> {
    let path = service_path(namespace, name);
    let Some(service) = source.snapshot.service(&path) else {
        let text = Resource::Services.not_found(name);
        return Err((StatusCode::NOT_FOUND, text));
    };
    Ok(source.stat(source.ports(service, query)))
}

/// Pods by address.
type Pods<'a> = BTreeMap<IpAddr, &'a str>;

fn pods(service: &ServiceView) -> Pods<'_> {
    let endpoints = service.slices.iter().flat_map(|slice| &slice.endpoints);
    let named = endpoints.filter_map(|one| Some((one.address?, one.pod_name.as_deref()?)));
    named.collect()
}

/// Endpoints of the port's family that its slices have, usable or not; those that end are none any more.
fn declared(service: &ServiceView, port: &PortView) -> usize {
    let is_it = |slice: &&Arc<portico_core::object::endpoints::EndpointSlice>| {
        let mut ports = slice.ports.iter();
        ports.any(|of| of.name == port.name.port && of.protocol == port.name.protocol)
    };
    let slices = service.slices.iter().filter(is_it);
    let addresses = slices
        .flat_map(|slice| &slice.endpoints)
        .filter(|one| !one.conditions.terminating)
        .filter_map(|one| one.address)
        .filter(|addr| portico_core::object::service::IpFamily::of(*addr) == port.family);
    addresses.collect::<std::collections::BTreeSet<_>>().len()
}

fn counts(port: &PortView, set: &EndpointSet) -> PortCounts {
    let state = &port.state;
    let (no_endpoint, policy, source_range, proxy_header, full) = (
        of(&state.refused_no_endpoints),
        of(&state.dropped_policy),
        of(&state.dropped_source_range),
        state.header_faults.total(),
        of(&state.rejected_full),
    );
    let told = no_endpoint + policy + source_range + proxy_header + full;
    let total = of(&state.rejected);
    PortCounts {
        connections: of(&state.accepted),
        active: of(&state.active),
        established: of(&state.connected),
        picks: of(&state.picked),
        retries: of(&state.retries),
        rejections: Rejections {
            total,
            no_endpoint,
            policy,
            source_range,
            proxy_header,
            full,
            all_failed: total.saturating_sub(told),
        },
        residual: state.residual(),
        bytes_to_endpoints: of(&state.bytes_to),
        bytes_to_clients: of(&state.bytes_from),
        failures: failures(set.endpoints().iter().map(|endpoint| &*endpoint.state)),
    }
}

fn failures<'a>(states: impl Iterator<Item = &'a EndpointState>) -> Failures {
    states.fold(Failures::default(), |sum, state| {
        let (total, refused, timeout) = (
            of(&state.failures),
            of(&state.refused),
            of(&state.timed_out),
        );
        Failures {
            total: sum.total + total,
            refused: sum.refused + refused,
            timeout: sum.timeout + timeout,
            other: sum.other + total.saturating_sub(refused + timeout),
        }
    })
}

fn connect(set: &EndpointSet) -> Latency {
    let mut all = Histogram::new(AtomicHistogram::BUCKETS);
    for endpoint in set.endpoints() {
        all.merge(&endpoint.state.connect_latency.load());
    }
    latency(&all)
}

fn latency(histogram: &Histogram) -> Latency {
    let at = |quantile| Some(real(histogram.quantile(quantile)?) / 1e6);
    Latency {
        count: histogram.count(),
        p50: at(0.5),
        p99: at(0.99),
    }
}

/// What each is to get of 1. Where all have weight 0, weights say nothing.
fn shares(weights: &[u64]) -> Vec<f64> {
    let total: u64 = weights.iter().sum();
    let each = |weight: &u64| match total {
        0 => 1.0 / real(u64::try_from(weights.len()).unwrap_or(u64::MAX)),
        _ => real(*weight) / real(total),
    };
    weights.iter().map(each).collect()
}

fn endpoint_window(span: Span, window: &Window, index: usize, expected: f64) -> EndpointWindow {
    let gained = window.gained.get(index).copied().unwrap_or_default();
    let all: u64 = window.gained.iter().map(|totals| totals.picks).sum();
    let share = (all > 0).then(|| real(gained.picks) / real(all));
    EndpointWindow {
        window: span.as_str().to_owned(),
        picks: gained.picks,
        turns: gained.turns,
        connections: gained.connections,
        failures: gained.failures,
        bytes_to_endpoint: gained.bytes_to,
        bytes_to_clients: gained.bytes_from,
        share,
        deviation: share
            .filter(|_| expected > 0.0)
            .map(|share| share / expected - 1.0),
    }
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}
