//! One round of the world. Owns the order of its stages and which Services a change concerns; each stage itself is
//! a module beside this one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Simulation, World,
    addresses::{self, Applicant, Rules},
    claims::Claimed,
    immutable,
    merge::{Change, Rank},
    pods::{self, Owners, PodAction, PodCommand, PodObservation, PodPhase, Round, ServicePorts},
    probes::{ProbeObservation, ProbeTargets, WrittenSlice},
    report::SourceReport,
    services::{PodEndpoint, ServiceRecord, index_pair, mirrored, slices_of_pods, target_ports},
};
use crate::{
    object::{
        EndpointProbe, Kind, Labels, Object, ObjectKey, Service, ServiceType, Spec,
        diagnostic::{Diagnostic, Severity},
        service::IpFamily,
        workload::selects,
    },
    snapshot::{Cluster, NodePortAddresses, Snapshot, compile::compile, service_path},
    time::Timestamp,
};

/// Kinds whose objects have simulated pods.
pub(super) const OWNERS: [Kind; 5] = [
    Kind::Pod,
    Kind::ReplicaSet,
    Kind::Deployment,
    Kind::DaemonSet,
    Kind::StatefulSet,
];

/// What a round is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct Input<'a> {
    /// The newest report of each source, in order of precedence.
    pub reports: &'a [SourceReport],
    /// What was seen of simulated pods since the last round.
    pub observations: &'a [PodObservation],
    /// What probes said since the last round.
    pub probes: &'a [ProbeObservation],
    /// What people asked of simulated pods since the last round.
    pub commands: &'a [PodCommand],
    /// The time.
    pub now: Timestamp,
    /// Whether to serve although a required source is still pending (its deadline has passed).
    pub waited_enough: bool,
}

/// What a round gives.
#[derive(Debug)]
pub struct Step {
    /// The new world.
    pub world: World,
    /// Paths of Services that appeared, changed or went: what has to be compiled again.
    pub changed: BTreeSet<Arc<str>>,
    /// For the pod host, to be carried out after the new snapshot is in force.
    pub actions: Vec<PodAction>,
    /// When to call again even if nothing happens.
    pub deadline: Option<Timestamp>,
}

/// Takes the newest reports and observations and brings the world up to date. Idempotent: the same input again
/// changes nothing.
pub fn step(mut world: World, input: Input<'_>) -> Step {
    let mut changed = BTreeSet::new();
    let edits = world.merge.update(input.reports);
    let mut allocate = false;
    for change in &edits {
        allocate |= change.key.kind == Kind::Service && !world.adopt(change);
        world.note_edit(change);
        let in_force = world.without_refused_slice(change);
        world.index(in_force.as_ref().unwrap_or(change), &mut changed);
    }
    let pending = input.reports.iter().any(|report| report.view().is_none());
    if !world.synced && (!pending || input.waited_enough) {
        world.synced = true;
        allocate = true;
    }
    // Nobody gets an address before all have asked: who comes late may hold or remember one.
    if allocate && world.synced {
        world.allocate(pending, &mut changed);
    }
    let (actions, deadline) = world.run_pods(&input, &mut changed);
    world.take_probes(input.probes, input.now, &mut changed);
    world.rebuild(&mut changed);
    world.collect_probe_targets();
    Step {
        world,
        changed,
        actions,
        deadline,
    }
}

/// One step and its snapshot: what offline commands read.
pub fn compile_once(
    mut world: World,
    reports: &[SourceReport],
    now: Timestamp,
) -> (World, Snapshot) {
    world.probes.is_offline = true;
    let empty = Snapshot::empty(Arc::clone(world.cluster()));
    let stepped = step(
        world,
        Input {
            reports,
            now,
            waited_enough: true,
            ..Input::default()
        },
    );
    let (snapshot, _) = compile(&empty, &stepped.world, &stepped.changed);
    (stepped.world, snapshot)
}

/// Whether an object's pods exist only in simulation.
pub(super) fn owns_simulated_pods(object: &Object) -> bool {
    match &object.spec {
        Spec::Workload(_) => true,
        Spec::Pod(pod) => pod.pod_ips.is_empty() && !pod.finished && !pod.terminating,
        _ => false,
    }
}

impl World {
    /// Enters a changed object into the indexes and marks the Services that it concerns.
    fn index(&mut self, change: &Change, changed: &mut BTreeSet<Arc<str>>) {
        let key = &change.key;
        self.count_namespace(change);
        match key.kind {
            Kind::Service | Kind::Endpoints => {
                changed.insert(service_path(&key.namespace, &key.name).into());
            }
            Kind::EndpointSlice => self.index_slice(change, changed),
            Kind::Pod => {
                self.index_pod_probes(change);
                for (object, enters) in [(&change.before, false), (&change.after, true)] {
                    let Some(object) = object
                        .as_ref()
                        .filter(|object| !owns_simulated_pods(object))
                    else {
                        continue;
                    };
                    let labels = &object.meta.labels;
                    if enters {
                        self.pods_by_label.insert(&key.namespace, labels, &key.name);
                    } else {
                        self.pods_by_label.remove(&key.namespace, labels, &key.name);
                    }
                    changed.extend(self.services_selecting(&key.namespace, labels));
                }
            }
            Kind::Node => self.index_node(change, changed),
            Kind::Namespace
            | Kind::ReplicaSet
            | Kind::Deployment
            | Kind::DaemonSet
            | Kind::StatefulSet => {}
        }
    }

    fn index_slice(&mut self, change: &Change, changed: &mut BTreeSet<Arc<str>>) {
        let key = &change.key;
        for (object, enters) in [(&change.before, false), (&change.after, true)] {
            let Some(object) = object else { continue };
            let Spec::EndpointSlice(slice) = &object.spec else {
                continue;
            };
            let Some(service) = &slice.service_name else {
                continue;
            };
            let path: Arc<str> = service_path(&key.namespace, service).into();
            self.probes.set_slice(&path, object, enters);
            let slices = self.slices.entry(Arc::clone(&path)).or_default();
            if enters {
                slices.insert(Arc::clone(&key.name), Arc::clone(slice));
            } else {
                slices.remove(&key.name);
            }
            if slices.is_empty() {
                self.slices.remove(&path);
            }
            changed.insert(path);
        }
    }

    /// A namespace exists while it is declared or something is in it.
    fn count_namespace(&mut self, change: &Change) {
        let namespace = if change.key.kind == Kind::Namespace {
            &change.key.name
        } else {
            &change.key.namespace
        };
        if namespace.is_empty() || change.before.is_some() == change.after.is_some() {
            return;
        }
        let namespaces = Arc::make_mut(&mut self.namespaces);
        if change.after.is_some() {
            *namespaces.entry(Arc::clone(namespace)).or_default() += 1;
        } else if let Some(count) = namespaces.get_mut(namespace) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                namespaces.remove(namespace);
            }
        }
    }

    /// An edit of a workload that a cluster would refuse as an update is taken as delete and create; the user is told.
    fn note_edit(&mut self, change: &Change) {
        if is_same_text(change) {
            return;
        }
        self.edit_notes.remove(&change.key);
        let (Some(before), Some(after)) = (&change.before, &change.after) else {
            return;
        };
        if let Some((path, what)) = forbidden_edit(before, after) {
            let message =
                format!("{what} cannot be changed in a cluster; taken as delete and create");
            let note =
                Diagnostic::about(Severity::Note, &after.key, &after.origin, (path, message));
            self.edit_notes.insert(change.key.clone(), note);
        }
    }

    /// What an edit of a slice changes of what is in force, where that is not what the texts say: an edit that a
    /// cluster would refuse leaves the last good version in force.
    fn without_refused_slice(&mut self, change: &Change) -> Option<Change> {
        if change.key.kind != Kind::EndpointSlice {
            return None;
        }
        let last_good = self.last_good_slices.remove(&change.key);
        let was_refused = last_good.is_some();
        let before = last_good.or_else(|| change.before.clone());
        let mut after = change.after.clone();
        if let (Some(held), Some(newest)) = (&before, &change.after)
            && let (Spec::EndpointSlice(old), Spec::EndpointSlice(new)) = (&held.spec, &newest.spec)
            && let Some((path, message)) = immutable::of_slice(old, new)
        {
            let about = (path.as_str(), message);
            let refusal = Diagnostic::about(Severity::Error, &newest.key, &newest.origin, about);
            self.edit_notes.insert(change.key.clone(), refusal);
            let kept = Arc::clone(held);
            self.last_good_slices
                .insert(change.key.clone(), Arc::clone(&kept));
            after = Some(kept);
        } else if !was_refused {
            return None;
        }
        let key = change.key.clone();
        Some(Change { key, before, after })
    }

    /// Allocates for all Services; those whose grant changed are marked. What absent Services had is forgotten unless
    /// a source is still pending.
    fn allocate(&mut self, pending: bool, changed: &mut BTreeSet<Arc<str>>) {
        let applicants = self.applicants();
        let rules = Rules {
            cluster: &self.settings.cluster,
            node_ports: self.settings.node_ports.clone(),
            host_addresses: &self.settings.host_addresses,
            external_ranges: &self.settings.external_ranges,
            foreign: self.settings.foreign_addresses,
            remembered: &self.deviations,
        };
        let allocation = addresses::allocate(&applicants, &rules);
        self.allocation_findings = allocation.diagnostics;
        let before = std::mem::replace(&mut self.deviations, allocation.deviations);
        if pending {
            // A source whose deadline has passed may still come with its Services.
            let is_absent = |path: &str| !allocation.granted.contains_key(path);
            self.deviations.keep(before, is_absent);
        }
        let is_gone = |path: &&Arc<str>| !allocation.granted.contains_key(*path);
        let gone: Vec<Arc<str>> = self.records.keys().filter(is_gone).cloned().collect();
        for path in gone {
            if let Some(record) = self.records.remove(&path) {
                self.index_selector(&record, false);
            }
            changed.extend(self.claims.set(&path, None, BTreeSet::new()));
            changed.insert(path);
        }
        for (path, grant) in allocation.granted {
            let is_same = |held: &Arc<ServiceRecord>| {
                Arc::ptr_eq(&held.object, &grant.object) && held.addresses == grant.addresses
            };
            if !self.records.get(&path).is_some_and(is_same) {
                let record = ServiceRecord {
                    object: grant.object,
                    spec: grant.spec,
                    addresses: grant.addresses,
                    slices: Vec::new(),
                    lost: Vec::new(),
                };
                if let Some(before) = self.records.remove(&path) {
                    self.index_selector(&before, false);
                }
                self.index_selector(&record, true);
                self.records.insert(Arc::clone(&path), Arc::new(record));
                changed.insert(path);
            }
        }
    }

    /// Takes over an edit that asks for no other addresses than the Service holds, while nothing is contended; false
    /// when allocation has to look at all Services.
    fn adopt(&mut self, change: &Change) -> bool {
        let (Some(before), Some(after)) = (&change.before, &change.after) else {
            return false;
        };
        let Spec::Service(spec) = &after.spec else {
            return false;
        };
        let path: Arc<str> = service_path(&change.key.namespace, &change.key.name).into();
        let held = self.records.get(&path).filter(|held| {
            self.allocation_findings.is_empty()
                && Arc::ptr_eq(&held.object, before)
                && addresses::asks_the_same(&held.spec, spec)
        });
        let Some(held) = held.cloned() else {
            return false;
        };
        let record = ServiceRecord {
            object: Arc::clone(after),
            spec: Arc::clone(spec),
            addresses: held.addresses.clone(),
            slices: Vec::new(),
            lost: Vec::new(),
        };
        self.index_selector(&held, false);
        self.index_selector(&record, true);
        self.records.insert(path, Arc::new(record));
        true
    }

    /// Enters the selector of a version in force, which need not be the newest one, or takes it out.
    fn index_selector(&mut self, record: &ServiceRecord, enters: bool) {
        let (key, pair) = (&record.object.key, index_pair(&record.spec.selector));
        let index = &mut self.services_by_label;
        if enters {
            index.insert(&key.namespace, &pair, &key.name);
        } else {
            index.remove(&key.namespace, &pair, &key.name);
        }
    }

    /// All Services in the order of their declaration, each with what it holds.
    fn applicants(&self) -> Vec<Applicant> {
        let services = self.merge.iter_kind(Kind::Service);
        let mut applicants: Vec<(Option<&Rank>, Applicant)> = services
            .filter_map(|(key, object)| {
                let Spec::Service(spec) = &object.spec else {
                    return None;
                };
                let path: Arc<str> = service_path(&key.namespace, &key.name).into();
                let holds = self.records.get(&path).map(|held| {
                    let (object, spec) = (Arc::clone(&held.object), Arc::clone(&held.spec));
                    (object, spec, held.addresses.clone())
                });
                let (object, spec) = (Arc::clone(object), Arc::clone(spec));
                let applicant = Applicant {
                    path,
                    object,
                    spec,
                    holds,
                };
                Some((self.merge.rank(key), applicant))
            })
            .collect();
        applicants.sort_by_key(|(rank, _)| *rank);
        applicants
            .into_iter()
            .map(|(_, applicant)| applicant)
            .collect()
    }

    fn run_pods(
        &mut self,
        input: &Input<'_>,
        changed: &mut BTreeSet<Arc<str>>,
    ) -> (Vec<PodAction>, Option<Timestamp>) {
        if self.settings.simulation == Simulation::Off {
            return (Vec::new(), None);
        }
        let mut owners = Owners::new();
        for kind in OWNERS {
            let of_kind = self
                .merge
                .iter_kind(kind)
                .filter(|(_, object)| owns_simulated_pods(object));
            owners.extend(of_kind.map(|(key, object)| (key.clone(), Arc::clone(object))));
        }
        let nodes = self.pod_nodes();
        let edited: BTreeSet<Arc<str>> = changed
            .iter()
            .filter_map(|path| path.split('/').next().map(Arc::from))
            .collect();
        let (services, records) = (&self.services_by_label, &self.records);
        let service_ports = |namespace: &Arc<str>, labels: &Labels| {
            target_ports(services, records, namespace, labels)
        };
        let round = Round {
            observations: input.observations,
            addresses: &mut self.pod_addresses,
            now: input.now,
            seed: self.settings.seed,
            node: Arc::clone(&self.settings.cluster.node_name),
            nodes: &nodes,
            probes: input.probes,
            commands: input.commands,
            service_ports: ServicePorts(&service_ports),
            edited: &edited,
            events: &mut self.events,
        };
        let reconciled = pods::reconcile(&mut self.pods, &owners, round);
        // What a container does inside a pod may change its probes and nothing else.
        self.probes.stale |= !self.pods.pods.is_empty() || !reconciled.changed.is_empty();
        for (namespace, labels) in &reconciled.changed {
            changed.extend(self.services_selecting(namespace, labels));
        }
        (reconciled.actions, reconciled.deadline)
    }

    /// Joins the marked Services with their endpoints again. Marking may spread once: a claim that changes hands
    /// concerns the loser too.
    fn rebuild(&mut self, changed: &mut BTreeSet<Arc<str>>) {
        let mut queue: Vec<Arc<str>> = changed.iter().cloned().collect();
        for path in &queue {
            let wanted = self
                .records
                .get(path)
                .map(|record| shared_addresses(record, &self.settings.cluster))
                .unwrap_or_default();
            let rank = self.merge.rank(&Self::service_key(path)).cloned();
            changed.extend(self.claims.set(path, rank.as_ref(), wanted));
        }
        queue = changed.iter().cloned().collect();
        for path in queue {
            let Some(record) = self.records.get(&path).cloned() else {
                self.probes.set_service(&path, ProbeTargets::new());
                continue;
            };
            self.probe_endpoints(&path, &record);
            let slices = self.slices_of(&path, &record);
            let shared = shared_addresses(&record, &self.settings.cluster);
            let lost = shared.into_iter().filter_map(|claimed| {
                let winner = self
                    .claims
                    .winner(&claimed)
                    .filter(|winner| **winner != path)?;
                Some((claimed.0, claimed.1, claimed.2, Arc::clone(winner)))
            });
            let rebuilt = ServiceRecord {
                slices,
                lost: lost.collect(),
                ..ServiceRecord::clone(&record)
            };
            self.records.insert(path, Arc::new(rebuilt));
        }
    }

    fn slices_of(
        &self,
        path: &Arc<str>,
        record: &ServiceRecord,
    ) -> Vec<Arc<crate::object::EndpointSlice>> {
        let written = self.written_slices(path, record).into_iter();
        let mut slices: Vec<_> = written
            .map(|written| self.probes.with_conditions(path, written))
            .collect();
        let key = &record.object.key;
        let is_alias = record.spec.service_type == ServiceType::ExternalName;
        if !is_alias && !record.spec.selector.is_empty() {
            slices.extend(slices_of_pods(
                &key.name,
                (&record.spec, &record.addresses.families),
                &self.selected_pods(&key.namespace, &record.spec),
            ));
        }
        // Those by hand come first and stay as they are; of the others we are the controller.
        let by_hand = self.slices.get(path).map_or(0, BTreeMap::len);
        let made = slices.iter_mut().skip(by_hand).filter(|_| !is_alias);
        let mut zones = None;
        for slice in made {
            let zones = zones.get_or_insert_with(|| self.zones());
            *slice = zones.complete(slice, record.spec.traffic_distribution);
        }
        slices
    }

    /// Slices that were written by hand, by name, then those mirrored from Endpoints, each with the probe that its own
    /// annotation asks for, else the Service's.
    pub(super) fn written_slices(
        &self,
        path: &Arc<str>,
        record: &ServiceRecord,
    ) -> Vec<WrittenSlice> {
        if record.spec.service_type == ServiceType::ExternalName {
            return Vec::new();
        }
        let of_service = EndpointProbe::of(&record.object.meta.annotations);
        let named = self.slices.get(path).into_iter().flatten();
        let mut written: Vec<WrittenSlice> = named
            .map(|(name, slice)| {
                let own = self.probes.of_slice(path, name);
                (own.or(of_service.as_ref()).cloned(), Arc::clone(slice))
            })
            .collect();
        let endpoints = ObjectKey {
            kind: Kind::Endpoints,
            ..record.object.key.clone()
        };
        if record.spec.selector.is_empty()
            && let Some(object) = self.merge.get(&endpoints)
            && let Spec::Endpoints(endpoints) = &object.spec
        {
            let probe = EndpointProbe::of(&object.meta.annotations).or(of_service);
            let mirrored = mirrored(&record.object.key.name, endpoints).into_iter();
            written.extend(mirrored.map(|slice| (probe.clone(), slice)));
        }
        written
    }

    fn selected_pods<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        service: &Service,
    ) -> Vec<PodEndpoint<'a>> {
        let Some((label, value)) = service.selector.iter().next() else {
            return Vec::new();
        };
        let declared = self
            .pods_by_label
            .get(namespace, label, value)
            .filter_map(|name| {
                let key = ObjectKey {
                    kind: Kind::Pod,
                    namespace: Arc::clone(namespace),
                    name: Arc::clone(name),
                };
                let object = self.merge.get(&key)?;
                let Spec::Pod(pod) = &object.spec else {
                    return None;
                };
                let pod_key = (Arc::clone(namespace), Arc::clone(name));
                let probed = self.probes.readiness(&pod_key);
                let endpoint = PodEndpoint::declared(&object.key.name, pod, probed)?
                    .weighed_by(&object.meta.annotations);
                selects(&service.selector, &object.meta.labels).then_some(endpoint)
            });
        let first = (Arc::clone(namespace), Arc::from(""));
        let in_namespace = self
            .pods
            .pods
            .range(first..)
            .take_while(|((of, _), _)| of == namespace);
        // A pod that is not scheduled has no address yet.
        let simulated = in_namespace.filter(|(_, pod)| {
            pod.phase != PodPhase::Pending
                && pod.unschedulable.is_none()
                && selects(&service.selector, &pod.labels)
        });
        let simulated = simulated.map(|(_, pod)| PodEndpoint::simulated(pod));
        declared.chain(simulated).collect()
    }
}

/// Addresses that a Service would serve and that another one may name too.
fn shared_addresses(record: &ServiceRecord, cluster: &Cluster) -> BTreeSet<Claimed> {
    let spec = &record.spec;
    if !spec.has_vip() || record.is_left_to_another_proxy() {
        return BTreeSet::new();
    }
    let external = spec
        .external_ips
        .iter()
        .filter(|addr| record.addresses.has(IpFamily::of(**addr)) && !cluster.owns(**addr));
    let addrs: Vec<IpAddr> = external
        .chain(&record.addresses.load_balancer_ips)
        .copied()
        .collect();
    let ports = || spec.ports.iter().map(|port| (port.port, port.protocol));
    let mut shared: BTreeSet<Claimed> = addrs
        .iter()
        .flat_map(|addr| ports().map(|(port, protocol)| (*addr, port, protocol)))
        .collect();
    // A wildcard gives way to any address; a listed one may be an external address of another Service.
    if let NodePortAddresses::Listed(_) = &cluster.node_port_addresses {
        let families = record.addresses.families.iter();
        let listed: Vec<IpAddr> = families
            .flat_map(|family| cluster.node_port_addresses_of(*family))
            .collect();
        for (port, number) in spec.ports.iter().zip(&record.addresses.node_ports) {
            let claims = |number: u16| {
                listed
                    .iter()
                    .map(move |addr| (*addr, number, port.protocol))
            };
            shared.extend(number.iter().copied().flat_map(claims));
        }
    }
    shared
}

/// Whether an object only changed its place.
fn is_same_text(change: &Change) -> bool {
    let (before, after) = (&change.before, &change.after);
    matches!((before, after), (Some(before), Some(after)) if Arc::ptr_eq(before, after))
}

/// The field of a workload that a cluster would not let change, if this edit changes one.
fn forbidden_edit(before: &Object, after: &Object) -> Option<(&'static str, &'static str)> {
    match (&before.spec, &after.spec) {
        (Spec::Workload(before), Spec::Workload(after)) => {
            let named = before.service_name != after.service_name;
            let named = named.then_some(("spec.serviceName", "the name of the Service"));
            let selects = before.selector != after.selector;
            selects
                .then_some(("spec.selector", "the selector"))
                .or(named)
        }
        _ => None,
    }
}
