//! The status of Services and pods, from the snapshot, the world and the listeners' reports. Owns nothing that is
//! printed; the shape is the parent's.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use portico_core::{
    balance::EndpointSet,
    object::{AppReason, service::IpFamily},
    snapshot::{
        FrontendKey, FrontendKind, PortView, Scope, ServiceView, Snapshot,
        plan::{Bind, ListenerKey},
    },
    world::World,
};

use super::{
    EndpointStatus, ListenerReport, ListenerReports, PodStatus, PortStatus, Reachable,
    ServiceStatus,
};

/// Services of a snapshot with where they are reachable.
pub fn services(
    snapshot: &Snapshot,
    listeners: &ListenerReports,
    now: portico_core::time::Timestamp,
) -> Vec<ServiceStatus> {
    snapshot
        .services()
        .into_iter()
        .map(|view| service(view, listeners, now))
        .collect()
}

fn service(
    view: &ServiceView,
    listeners: &ListenerReports,
    now: portico_core::time::Timestamp,
) -> ServiceStatus {
    let spec = &view.spec;
    let cluster_ip = match view.cluster_ips.first() {
        Some(addr) => addr.to_string(),
        None if spec.external_name.is_some() => String::new(),
        None => "None".into(),
    };
    let desired = spec
        .load_balancer_ip
        .filter(|addr| !view.load_balancer_ips.contains(addr));
    let port = |index: usize, port: &PortView| {
        let reachable = view.frontends.iter().filter(|(_, _, of)| *of == index);
        let reachable = reachable
            .map(|(key, kind, _)| reachable_at(key, *kind, listeners))
            .collect();
        port_status(port, reachable, now)
    };
    ServiceStatus {
        namespace: view.namespace.to_string(),
        name: view.name.to_string(),
        service_type: spec.service_type.as_str().into(),
        cluster_ip,
        external_name: spec.external_name.as_deref().map(str::to_owned),
        external_ips: spec
            .external_ips
            .iter()
            .chain(&view.load_balancer_ips)
            .copied()
            .collect(),
        desired_load_balancer_ip: desired,
        port_list: port_list(view),
        headless_addresses: headless_addresses(view),
        ports: view
            .ports
            .iter()
            .enumerate()
            .map(|(index, view)| port(index, view))
            .collect(),
        origin: format!("{}:{}", view.origin.file, view.origin.position.line),
        selector: spec
            .selector
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
    }
}

/// Ports of the manifest with the node ports that they got.
fn port_list(view: &ServiceView) -> Vec<String> {
    let ports = view
        .spec
        .ports
        .iter()
        .filter(|_| view.spec.external_name.is_none());
    ports
        .map(|port| {
            let same = |live: &&std::sync::Arc<PortView>| {
                live.number == port.port && live.name.protocol == port.protocol
            };
            match view.ports.iter().find(same).and_then(|live| live.node_port) {
                Some(node_port) => format!("{}:{node_port}/{}", port.port, port.protocol),
                None => format!("{}/{}", port.port, port.protocol),
            }
        })
        .collect()
}

fn headless_addresses(view: &ServiceView) -> Vec<IpAddr> {
    if view.spec.has_vip() {
        return Vec::new();
    }
    let endpoints = view.slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.conditions.ready);
    let mut addresses: Vec<IpAddr> = ready.filter_map(|endpoint| endpoint.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn port_status(
    port: &PortView,
    reachable: Vec<Reachable>,
    now: portico_core::time::Timestamp,
) -> PortStatus {
    use std::sync::atomic::Ordering::Relaxed;
    let sets: Vec<&EndpointSet> = [&port.cluster, &port.local]
        .into_iter()
        .flatten()
        .map(AsRef::as_ref)
        .collect();
    let mut endpoints: BTreeMap<SocketAddr, EndpointStatus> = BTreeMap::new();
    let all = sets.iter().flat_map(|set| {
        let weights = (0..).map(|index| set.weight(index));
        set.endpoints().iter().zip(weights)
    });
    for (endpoint, weight) in all {
        let state = &endpoint.state;
        endpoints.insert(
            endpoint.addr,
            EndpointStatus {
                address: endpoint.addr,
                weight: weight.get(),
                picks: state.picks.load(Relaxed),
                affine: state.affine.load(Relaxed),
                connected: state.connected.load(Relaxed),
                failures: state.failures.load(Relaxed),
                active: state.active.load(Relaxed),
                ejected: state.ejection.is_ejected(now),
            },
        );
    }
    PortStatus {
        name: port.name.port.to_string(),
        protocol: port.name.protocol.to_string(),
        port: port.number,
        node_port: port.node_port,
        endpoints: endpoints.into_values().collect(),
        speaks: (port.app.why != AppReason::Unsaid).then(|| port.app.to_string()),
        balance: port.policy().as_str().into(),
        affinity_seconds: port.affinity.map(|affinity| affinity.timeout.as_secs()),
        reachable,
        accepted: port.state.accepted.load(Relaxed),
        connected: port.state.connected.load(Relaxed),
        retries: port.state.retries.load(Relaxed),
        rejected: port.state.rejected.load(Relaxed),
        picks: port.state.picked.load(Relaxed),
        residual: port.state.residual(),
        bytes_to_endpoints: port.state.bytes_to.load(Relaxed),
        bytes_to_clients: port.state.bytes_from.load(Relaxed),
        refused_no_endpoints: port.state.refused_no_endpoints.load(Relaxed),
        dropped_policy: port.state.dropped_policy.load(Relaxed),
        dropped_source_range: port.state.dropped_source_range.load(Relaxed),
        proxy_header_faults: port.state.header_faults.total(),
        rejected_full: port.state.rejected_full.load(Relaxed),
        active: port.state.active.load(Relaxed),
        max_connections: port.state.limit.get().map(NonZeroU32::get),
        max_connections_per_endpoint: port.endpoint_limit().map(NonZeroU32::get),
        waiting: port.state.waiting(),
        source_not_kept: port.state.source_not_kept.total(),
    }
}

/// The report about the socket behind a frontend; `None` when it simply listens.
pub fn report_of<'r>(
    key: &FrontendKey,
    listeners: &'r ListenerReports,
) -> Option<&'r ListenerReport> {
    let any = Bind::any(IpFamily::of(key.addr));
    let own = if key.addr.is_unspecified() {
        any
    } else {
        Bind::Address(key.addr)
    };
    let of = |bind| {
        listeners.get(&ListenerKey {
            scope: Scope::HOST,
            bind,
            port: key.port,
            protocol: key.protocol,
        })
    };
    let collapsed = key.addr.is_ipv4().then_some(Bind::AnyLoopback);
    [own, any].into_iter().chain(collapsed).find_map(of)
}

/// Where a frontend is really reachable.
pub fn reachable_at(
    key: &FrontendKey,
    kind: FrontendKind,
    listeners: &ListenerReports,
) -> Reachable {
    let declared = SocketAddr::new(key.addr, key.port);
    let report = report_of(key, listeners);
    let kind = match kind {
        FrontendKind::ClusterIP => "ClusterIP",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::ExternalIP => "ExternalIP",
        FrontendKind::LoadBalancer => "LoadBalancer",
        FrontendKind::HealthCheck => "HealthCheck",
    };
    let bound = match report {
        None => Some(declared),
        Some(report) => report
            .bound
            .map(|bound| SocketAddr::new(declared.ip(), bound.port())),
    };
    let problem = report
        .filter(|report| report.state != "refusing")
        .and_then(|report| report.reason.clone());
    Reachable {
        kind: kind.into(),
        declared,
        bound,
        problem,
    }
}

/// Simulated pods, sorted by namespace and name.
pub fn pods(world: &World) -> Vec<PodStatus> {
    use portico_core::world::pods::PodPhase;
    world
        .pods()
        .pods
        .values()
        .map(|pod| PodStatus {
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            ip: pod.ip,
            phase: match &pod.phase {
                PodPhase::Pending => "Pending".into(),
                PodPhase::Starting => "ContainerCreating".into(),
                PodPhase::Running { .. } => {
                    let waiting = pod
                        .containers
                        .iter()
                        .find_map(|state| state.waiting.clone());
                    waiting.map_or_else(|| "Running".into(), |why| why.to_string())
                }
                PodPhase::Waiting { reason, .. } => format!("Waiting: {reason}"),
                PodPhase::Terminating { .. } => "Terminating".into(),
            },
            moved_ports: pod
                .moved_ports
                .iter()
                .map(|(port, to)| format!("{}->{to}/{}", port.number, port.protocol))
                .collect(),
        })
        .collect()
}

/// Simulated pods that were asked to start and have not said anything yet.
pub fn starting(world: &World) -> usize {
    use portico_core::world::pods::PodPhase;
    let pods = world.pods().pods.values();
    pods.filter(|pod| matches!(pod.phase, PodPhase::Pending | PodPhase::Starting))
        .count()
}
