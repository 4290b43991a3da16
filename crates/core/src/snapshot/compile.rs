//! From the world to a Snapshot. Owns the building; reads the previous one to keep what did not change by identity:
//! an equal set of endpoints keeps its tickets, an endpoint its live state, an untouched Service everything.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
};

use super::{
    Cluster, FrontendKey, FrontendKind, Generation, PortView, Scope, ServicePortName, ServiceView,
    Snapshot,
    assemble::{index_service, keep_prepared, unindex_service},
    selection::{Candidate, Here, Needs, Place, Selected, select},
};
use crate::{
    affinity::{AffinePort, ClientAffinity},
    balance::{Balance, Endpoint, EndpointSet, EndpointState, PortState},
    object::{
        AddressType, Application, BalancePolicy, EndpointSlice, Labels, Protocol, ProxyProtocol,
        ServicePort, SourceAddress, Weight,
        annotations::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ENDPOINT},
        draining::timeout_of,
        limits,
        service::IpFamily,
    },
    world::{ServiceRecord, World},
};

/// A Service before and after; both `Some` means that it changed.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The view of the previous snapshot.
    pub before: Option<Arc<ServiceView>>,
    /// The view of the new one.
    pub after: Option<Arc<ServiceView>>,
}

/// Compiles the Services at `changed` anew and takes everything else over from `previous`.
pub fn compile(
    previous: &Snapshot,
    world: &World,
    changed: &BTreeSet<Arc<str>>,
) -> (Snapshot, Vec<Transition>) {
    let mut next = previous.clone();
    next.generation = Generation(previous.generation.0 + 1);
    next.synced = world.is_synced();
    next.namespaces = Arc::clone(world.namespaces());
    let zone = world.zone();
    if zone != next.cluster.zone {
        let cluster = Cluster::clone(&next.cluster);
        next.cluster = Arc::new(Cluster { zone, ..cluster });
    }
    let cluster = Arc::clone(&next.cluster);
    let mut transitions = Vec::with_capacity(changed.len());
    for path in changed {
        let before = next.services.get(&**path).cloned();
        let prepared = before.as_ref().and_then(|before| next.prepared_of(before));
        if let Some(before) = &before {
            unindex_service(&mut next, before);
        }
        transitions.push((before, prepared, path));
    }
    // All old entries leave before new ones enter: an address may move from one Service to another.
    let transitions = transitions
        .into_iter()
        .map(|(before, prepared, path)| {
            let record = world.services().get(path);
            let setting = Setting {
                cluster: &cluster,
                generation: next.generation,
            };
            let after = record.map(|record| Arc::new(view(record, before.as_deref(), setting)));
            if let Some(after) = &after {
                index_service(&mut next, after);
                keep_prepared(&mut next, after, prepared);
            }
            Transition { before, after }
        })
        .collect();
    (next, transitions)
}

/// What views are built in.
#[derive(Clone, Copy)]
struct Setting<'a> {
    cluster: &'a Cluster,
    /// The number of the Snapshot that is being built.
    generation: Generation,
}

/// Builds the view of one Service.
fn view(record: &ServiceRecord, before: Option<&ServiceView>, setting: Setting<'_>) -> ServiceView {
    let key = &record.object.key;
    let mut view = ServiceView {
        namespace: Arc::clone(&key.namespace),
        name: Arc::clone(&key.name),
        origin: record.object.origin.clone(),
        spec: Arc::clone(&record.spec),
        cluster_ips: record.addresses.cluster_ips.clone(),
        load_balancer_ips: record.addresses.load_balancer_ips.clone(),
        slices: record.slices.clone(),
        ports: Vec::new(),
        frontends: Vec::new(),
    };
    if record.is_left_to_another_proxy() || !record.spec.has_vip() {
        return view;
    }
    for (index, port) in record.spec.ports.iter().enumerate() {
        let node_port = record.addresses.node_ports.get(index).copied().flatten();
        let frontends = frontends(record, port, node_port, setting.cluster);
        for family in [IpFamily::IPv4, IpFamily::IPv6] {
            let of_family: Vec<_> = frontends
                .iter()
                .filter(|(key, _)| IpFamily::of(key.addr) == family)
                .copied()
                .collect();
            if of_family.is_empty() {
                continue;
            }
            let place = view.ports.len();
            let external = of_family.iter().any(|(_, kind)| kind.is_external());
            let draft = PortDraft {
                port,
                family,
                node_port,
                external,
            };
            view.ports
                .push(Arc::new(port_view(record, before, &draft, setting)));
            view.frontends
                .extend(of_family.into_iter().map(|(key, kind)| (key, kind, place)));
        }
    }
    if let Some(number) = record.addresses.health_check_node_port
        && !view.ports.is_empty()
    {
        let keys = node_port_addresses(record, setting.cluster)
            .into_iter()
            .map(|addr| FrontendKey {
                scope: Scope::HOST,
                addr,
                port: number,
                protocol: Protocol::Tcp,
            });
        // It belongs to the Service as a whole, and to its first port as far as a frontend needs one.
        view.frontends
            .extend(keys.map(|key| (key, FrontendKind::HealthCheck, 0)));
    }
    keep_last(&mut view.frontends);
    view
}

/// Of an address that a Service names twice (an external IP that is also its load-balancer address, say) the last
/// meaning counts: source ranges guard it.
fn keep_last(frontends: &mut Vec<(FrontendKey, FrontendKind, usize)>) {
    let mut seen = BTreeSet::new();
    frontends.reverse();
    frontends.retain(|(key, _, _)| seen.insert(*key));
    frontends.reverse();
}

/// Host addresses of the Service's own families.
fn node_port_addresses(record: &ServiceRecord, cluster: &Cluster) -> Vec<IpAddr> {
    let families = record.addresses.families.iter();
    families
        .flat_map(|family| cluster.node_port_addresses_of(*family))
        .collect()
}

fn frontends(
    record: &ServiceRecord,
    port: &ServicePort,
    node_port: Option<u16>,
    cluster: &Cluster,
) -> Vec<(FrontendKey, FrontendKind)> {
    let key = |addr, number| FrontendKey {
        scope: Scope::HOST,
        addr,
        port: number,
        protocol: port.protocol,
    };
    let lost_at = |addr: IpAddr, number: u16| {
        record
            .lost
            .iter()
            .any(|lost| (lost.0, lost.1, lost.2) == (addr, number, port.protocol))
    };
    let lost = |addr: IpAddr| lost_at(addr, port.port);
    let mut all: Vec<(FrontendKey, FrontendKind)> = Vec::new();
    let cluster_ips = record
        .addresses
        .cluster_ips
        .iter()
        .filter(|addr| **addr != cluster.dns_address);
    all.extend(cluster_ips.map(|addr| (key(*addr, port.port), FrontendKind::ClusterIP)));
    if let Some(number) = node_port {
        all.extend(
            node_port_addresses(record, cluster)
                .into_iter()
                .filter(|addr| !lost_at(*addr, number))
                .map(|addr| (key(addr, number), FrontendKind::NodePort)),
        );
    }
    let external = record
        .spec
        .external_ips
        .iter()
        .filter(|addr| record.addresses.has(IpFamily::of(**addr)))
        .filter(|addr| !cluster.owns(**addr) && !lost(**addr));
    all.extend(external.map(|addr| (key(*addr, port.port), FrontendKind::ExternalIP)));
    let balancer = record
        .addresses
        .load_balancer_ips
        .iter()
        .filter(|addr| !lost(**addr));
    all.extend(balancer.map(|addr| (key(*addr, port.port), FrontendKind::LoadBalancer)));
    all
}

struct PortDraft<'a> {
    port: &'a ServicePort,
    family: IpFamily,
    node_port: Option<u16>,
    external: bool,
}

fn port_view(
    record: &ServiceRecord,
    before: Option<&ServiceView>,
    draft: &PortDraft<'_>,
    setting: Setting<'_>,
) -> PortView {
    let (spec, cluster) = (&record.spec, setting.cluster);
    let before = before.and_then(|view| {
        view.ports.iter().find(|old| {
            old.name.port == draft.port.name
                && old.name.protocol == draft.port.protocol
                && old.family == draft.family
        })
    });
    let policies = (spec.internal_traffic_policy, spec.external_traffic_policy);
    let needs = Needs::of(policies.0, policies.1, draft.external);
    let (candidates, weights) = candidates(&record.slices, draft, cluster);
    let here = Here {
        node: &cluster.node_name,
        zone: cluster.zone.as_deref(),
    };
    let annotations = &record.object.meta.annotations;
    let style = Style {
        policy: BalancePolicy::of(annotations),
        weights: &weights,
        limit: limit_of(draft, annotations, MAX_CONNECTIONS_PER_ENDPOINT),
    };
    let selected = select(&candidates, needs, here);
    let (cluster_set, local_set, any) = keep_sets(selected, before, style);
    let key = &record.object.key;
    let name = ServicePortName {
        namespace: Arc::clone(&key.namespace),
        service: Arc::clone(&key.name),
        port: Arc::clone(&draft.port.name),
        protocol: draft.port.protocol,
    };
    let kept = before.and_then(|before| before.affinity);
    PortView {
        affinity: spec.client_ip_affinity.map(|timeout| ClientAffinity {
            port: kept.map_or_else(|| AffinePort::new(&name, setting.generation), |it| it.port),
            timeout,
        }),
        name: Arc::new(name),
        family: draft.family,
        number: draft.port.port,
        node_port: draft.node_port,
        cluster: cluster_set,
        local: local_set,
        any,
        internal_policy: spec.internal_traffic_policy,
        external_policy: spec.external_traffic_policy,
        source: SourceAddress::of(annotations),
        app: Application::of(
            draft.port,
            &record.slices,
            annotations,
            cluster.http.port_names,
        ),
        proxy: if draft.port.protocol == Protocol::Tcp {
            ProxyProtocol::of(annotations)
        } else {
            ProxyProtocol::default()
        },
        state: keep_state(before, draft, annotations),
    }
}

/// The live state of a Service port. What its Service says of connections stands beside the counters, because it holds for
/// those that outlive their Service, and for those of Snapshots before.
fn keep_state(
    before: Option<&Arc<PortView>>,
    draft: &PortDraft<'_>,
    annotations: &Labels,
) -> Arc<PortState> {
    let state = before.map_or_else(Arc::default, |before| Arc::clone(&before.state));
    state.drain_timeout.set(timeout_of(annotations));
    state
        .limit
        .set(limit_of(draft, annotations, MAX_CONNECTIONS));
    state
}

/// A limit on connections, which only TCP has.
fn limit_of(draft: &PortDraft<'_>, annotations: &Labels, key: &str) -> Option<NonZeroU32> {
    limits::limit_of(annotations, key).filter(|_| draft.port.protocol == Protocol::Tcp)
}

/// Endpoints of one Service port and family over all slices, sorted by address. Of an address that is in several
/// slices (it is moving between them) the one that is here, ready and serving counts. Beside them, the weights that
/// are not the default.
fn candidates(
    slices: &[Arc<EndpointSlice>],
    draft: &PortDraft<'_>,
    cluster: &Cluster,
) -> (Vec<Candidate>, Weights) {
    let wanted = match draft.family {
        IpFamily::IPv4 => AddressType::IPv4,
        IpFamily::IPv6 => AddressType::IPv6,
    };
    let mut found: BTreeMap<SocketAddr, (Candidate, Weight)> = BTreeMap::new();
    for slice in slices
        .iter()
        .filter(|slice| slice.address_type == wanted && !slice.is_for_another_proxy)
    {
        let joins = |port: &&crate::object::SlicePort| {
            port.name == draft.port.name && port.protocol == draft.port.protocol
        };
        for number in slice
            .ports
            .iter()
            .filter(joins)
            .filter_map(|port| port.port)
        {
            for endpoint in &slice.endpoints {
                let Some(address) = endpoint
                    .address
                    .filter(|address| IpFamily::of(*address) == draft.family)
                else {
                    continue;
                };
                // Without a cluster an endpoint that names no node can only be here.
                let here = endpoint
                    .node_name
                    .as_deref()
                    .is_none_or(|node| node == &*cluster.node_name);
                let candidate = Candidate {
                    addr: SocketAddr::new(address, number),
                    conditions: endpoint.conditions,
                    place: if here { Place::Here } else { Place::Elsewhere },
                    hints: endpoint.hints.clone(),
                };
                let rank = |c: &Candidate| (c.place, c.conditions.ready, c.conditions.serving);
                match found.get(&candidate.addr) {
                    Some((kept, _)) if rank(kept) >= rank(&candidate) => {}
                    _ => {
                        found.insert(candidate.addr, (candidate, endpoint.weight));
                    }
                }
            }
        }
    }
    let mut weights = Weights::new();
    let candidates = found.into_values().map(|(candidate, weight)| {
        if weight != Weight::default() {
            weights.insert(candidate.addr, weight);
        }
        candidate
    });
    (candidates.collect(), weights)
}

/// Weights that are not the default.
type Weights = HashMap<SocketAddr, Weight>;

/// How the sets of a Service port are balanced.
#[derive(Clone, Copy)]
struct Style<'a> {
    policy: BalancePolicy,
    weights: &'a Weights,
    limit: Option<NonZeroU32>,
}

impl Style<'_> {
    fn balance(self, addrs: &[SocketAddr]) -> Balance {
        let mut weights = Vec::new();
        if addrs.iter().any(|addr| self.weights.contains_key(addr)) {
            let weight = |addr| self.weights.get(addr).copied().unwrap_or_default();
            weights = addrs.iter().map(weight).collect();
        }
        Balance {
            policy: self.policy,
            weights,
            limit: self.limit,
        }
    }
}

type Sets = (Option<Arc<EndpointSet>>, Option<Arc<EndpointSet>>, bool);

/// Turns addresses into sets: an equal one is kept with its tickets, a changed one goes on after its predecessor,
/// and two equal ones are one.
fn keep_sets(selected: Selected, before: Option<&Arc<PortView>>, style: Style<'_>) -> Sets {
    let old_cluster = before.and_then(|before| before.cluster.as_ref());
    let old_local = before.and_then(|before| before.local.as_ref());
    let cluster = selected
        .cluster
        .map(|addrs| keep_set(&addrs, style, old_cluster, &[old_local]));
    let local = selected.local.map(|addrs| match &cluster {
        Some(cluster) if has_addrs(cluster, &addrs) => Arc::clone(cluster),
        // An endpoint in both sets has one live state: what is new in both was made for the first.
        _ => keep_set(&addrs, style, old_local, &[old_cluster, cluster.as_ref()]),
    });
    (cluster, local, selected.any)
}

fn keep_set(
    addrs: &[SocketAddr],
    style: Style<'_>,
    old: Option<&Arc<EndpointSet>>,
    others: &[Option<&Arc<EndpointSet>>],
) -> Arc<EndpointSet> {
    let balance = style.balance(addrs);
    let is_equal = |old: &&Arc<EndpointSet>| has_addrs(old, addrs) && *old.balance() == balance;
    if let Some(old) = old.filter(is_equal) {
        return Arc::clone(old);
    }
    let states: HashMap<SocketAddr, &Arc<EndpointState>> = [old]
        .iter()
        .chain(others)
        .flatten()
        .flat_map(|set| set.endpoints())
        .map(|e| (e.addr, &e.state))
        .collect();
    let state = |addr: &SocketAddr| {
        states
            .get(addr)
            .map(|state| Arc::clone(state))
            .unwrap_or_default()
    };
    let endpoints = addrs
        .iter()
        .map(|addr| Endpoint {
            addr: *addr,
            state: state(addr),
        })
        .collect();
    Arc::new(EndpointSet::balanced(
        endpoints,
        balance,
        old.map(|old| &**old),
    ))
}

fn has_addrs(set: &EndpointSet, addrs: &[SocketAddr]) -> bool {
    set.len() == addrs.len()
        && set
            .endpoints()
            .iter()
            .zip(addrs)
            .all(|(endpoint, addr)| endpoint.addr == *addr)
}
