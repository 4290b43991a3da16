//! The world: every object after merge, with what the controllers made of it. Owns `step`, the one place where
//! desired state (reports) and observations become a new world; everything else reads. Must not do input or output:
//! it returns actions for others to carry out.

pub mod addresses;
pub mod allocate;
pub mod claims;
pub mod events;
mod hints;
mod immutable;
pub mod merge;
mod nodes;
pub mod pods;
pub mod probes;
pub mod report;
pub mod services;
mod step;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
};

pub use addresses::{Addresses, Deviations};
pub use allocate::AddressPool;
pub use events::{Event, EventKind, EventLog, NewEvent};
pub use report::{Layer, Shard, SourceReport, SourceView};
pub use services::ServiceRecord;
pub use step::{Input, Step, compile_once, step};

use ipnet::IpNet;

use crate::{
    object::{
        EndpointSlice, Kind, Object, ObjectKey,
        diagnostic::{Diagnostic, Severity},
        service::IpFamily,
    },
    snapshot::{Cluster, service_path},
};

/// What the world depends on beside reports and observations.
#[derive(Debug, Clone)]
pub struct WorldSettings {
    /// Ranges and domains.
    pub cluster: Arc<Cluster>,
    /// `--service-node-port-range`.
    pub node_ports: RangeInclusive<u16>,
    /// Addresses that the host owns.
    pub host_addresses: Vec<IpAddr>,
    /// Ranges whose addresses the host may be given when a Service asks for one (`--external-ip-cidr`).
    pub external_ranges: Vec<IpNet>,
    /// `--simulate`.
    pub simulation: Simulation,
    /// What deviates under `--strict`.
    pub foreign_addresses: Severity,
    /// Allocations remembered from the last run.
    pub remembered: Deviations,
    /// Seed of names and delays.
    pub seed: u64,
}

/// Whether pods without an address are simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Simulation {
    /// They run in a child process.
    On,
    /// They are known, and have no endpoints.
    Off,
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct World {
    settings: Arc<WorldSettings>,
    merge: merge::Merge,
    /// Slices by Service path, then by their own name.
    slices: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<EndpointSlice>>>,
    /// Services in force by path.
    records: BTreeMap<Arc<str>, Arc<ServiceRecord>>,
    services_by_label: services::LabelIndex,
    pods_by_label: services::LabelIndex,
    claims: claims::Claims,
    pods: pods::PodTable,
    pod_addresses: AddressPool,
    /// Number of objects in each namespace.
    namespaces: Arc<BTreeMap<Arc<str>, usize>>,
    deviations: Deviations,
    allocation_findings: Vec<Diagnostic>,
    /// Findings about edits that a cluster would refuse, by object, until its next edit. Those about Services are of
    /// the allocation.
    edit_notes: BTreeMap<ObjectKey, Diagnostic>,
    /// Slices in force whose newest version is refused.
    last_good_slices: BTreeMap<ObjectKey, Arc<Object>>,
    events: EventLog,
    probe_targets: Arc<probes::ProbeTargets>,
    probes: probes::ProbeTable,
    synced: bool,
}

impl World {
    /// A world that nobody has reported to yet.
    pub fn new(settings: WorldSettings) -> Self {
        let remembered = settings.remembered.clone();
        Self {
            deviations: remembered,
            ..Self::with(Arc::new(settings))
        }
    }

    /// Moves the world out, for [`step`], and leaves an empty one behind.
    pub fn take(&mut self) -> Self {
        let empty = Self::with(Arc::clone(&self.settings));
        std::mem::replace(self, empty)
    }

    fn with(settings: Arc<WorldSettings>) -> Self {
        let pod_addresses = AddressPool::new(settings.cluster.pod_cidr);
        Self {
            deviations: Deviations::default(),
            settings,
            merge: merge::Merge::default(),
            slices: BTreeMap::new(),
            records: BTreeMap::new(),
            services_by_label: services::LabelIndex::default(),
            pods_by_label: services::LabelIndex::default(),
            claims: claims::Claims::default(),
            pods: pods::PodTable::default(),
            pod_addresses,
            namespaces: Arc::default(),
            allocation_findings: Vec::new(),
            edit_notes: BTreeMap::new(),
            last_good_slices: BTreeMap::new(),
            events: EventLog::default(),
            probe_targets: Arc::default(),
            probes: probes::ProbeTable::default(),
            synced: false,
        }
    }

    /// What it depends on beside reports and observations.
    pub fn settings(&self) -> &WorldSettings {
        &self.settings
    }

    /// Services in force, by `namespace/name`.
    pub fn services(&self) -> &BTreeMap<Arc<str>, Arc<ServiceRecord>> {
        &self.records
    }

    /// The objects in force, sorted by key.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Object>)> {
        self.merge.iter()
    }

    /// The object in force.
    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.merge.get(key)
    }

    /// Simulated pods and their owners.
    pub fn pods(&self) -> &pods::PodTable {
        &self.pods
    }

    /// Marks every simulated pod as lost with its host: they start again.
    pub const fn pod_host_lost(&mut self) {
        pods::host_lost(&mut self.pods);
    }

    /// What happened, the newest last.
    pub const fn events(&self) -> &EventLog {
        &self.events
    }

    /// Writes down what happened outside the world: a listener that failed, a change that was rejected.
    pub fn record(&mut self, event: NewEvent, now: crate::time::Timestamp) {
        self.events.record(event, now);
    }

    /// The probes that are to run now; the same `Arc` as before when nothing changed.
    pub const fn probe_targets(&self) -> &Arc<probes::ProbeTargets> {
        &self.probe_targets
    }

    /// The object that sources declare beneath what overrides made of it; the same as [`Self::object`] without one.
    pub fn declared(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.merge.declared(key)
    }

    /// Namespaces with the number of their objects.
    pub fn namespaces(&self) -> &Arc<BTreeMap<Arc<str>, usize>> {
        &self.namespaces
    }

    /// Ranges and domains.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.settings.cluster
    }

    /// Whether pods without an address are simulated.
    pub fn simulation(&self) -> Simulation {
        self.settings.simulation
    }

    /// Whether every required source has reported once.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// What the state file should keep.
    pub fn deviations(&self) -> &Deviations {
        &self.deviations
    }

    /// Every finding about the objects as they are now, sorted by file and position.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut all: Vec<Diagnostic> = self.merge.reported().cloned().collect();
        all.extend(self.merge.duplicates());
        all.extend(self.allocation_findings.iter().cloned());
        all.extend(self.edit_notes.values().cloned());
        all.extend(self.records.values().flat_map(|record| lost_claims(record)));
        let cluster = &self.settings.cluster;
        all.extend(
            self.records
                .values()
                .flat_map(|record| own_externals(record, cluster)),
        );
        all.extend(self.records.values().flat_map(|record| unranged(record)));
        all.extend(self.records.values().flat_map(|record| strangers(record)));
        all.sort();
        all.dedup();
        all
    }

    /// Pods given by manifest that would run only in simulation, counted.
    pub fn pods_without_address(&self) -> usize {
        let owners = self
            .merge
            .iter()
            .filter(|(key, _)| step::OWNERS.contains(&key.kind));
        match self.settings.simulation {
            Simulation::On => 0,
            Simulation::Off => owners
                .filter(|(_, object)| step::owns_simulated_pods(object))
                .count(),
        }
    }

    fn service_key(path: &str) -> ObjectKey {
        let (namespace, name) = path.split_once('/').unwrap_or(("", path));
        ObjectKey {
            kind: Kind::Service,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Paths of the Services whose selector `labels` may satisfy.
    fn services_selecting(
        &self,
        namespace: &Arc<str>,
        labels: &crate::object::Labels,
    ) -> BTreeSet<Arc<str>> {
        let candidates = labels
            .iter()
            .flat_map(|(label, value)| self.services_by_label.get(namespace, label, value));
        candidates
            .map(|name| Arc::from(service_path(namespace, name)))
            .collect()
    }
}

/// A finding for every address and port that an earlier Service keeps.
fn lost_claims(record: &ServiceRecord) -> impl Iterator<Item = Diagnostic> + '_ {
    record.lost.iter().map(|(addr, port, protocol, winner)| {
        let spec = &record.spec;
        let external = spec.external_ips.iter().position(|external| external == addr);
        let balancer = record.addresses.load_balancer_ips.contains(addr);
        let numbers = &record.addresses.node_ports;
        let node_port = numbers.iter().position(|number| *number == Some(*port));
        let path = match (external, balancer, node_port) {
            (Some(index), _, _) => format!("spec.externalIPs[{index}]"),
            (None, false, Some(index)) => format!("spec.ports[{index}].nodePort"),
            _ => "spec.loadBalancerIP".to_owned(),
        };
        let message = format!("{addr}:{port}/{protocol} is already served for Service {winner}, which was declared earlier");
        Diagnostic::about(Severity::Warning, &record.object.key, &record.object.origin, (&path, message))
    })
}

/// A finding for every external address that is not served because it is in a range of our own.
fn own_externals<'a>(
    record: &'a ServiceRecord,
    cluster: &'a Cluster,
) -> impl Iterator<Item = Diagnostic> + 'a {
    let external = record.spec.external_ips.iter().enumerate();
    external.filter(|(_, addr)| cluster.owns(**addr)).map(|(index, addr)| {
        let message = format!("{addr} is in a range that portico gives addresses from: it is not served as an external address");
        let path = format!("spec.externalIPs[{index}]");
        Diagnostic::about(Severity::Warning, &record.object.key, &record.object.origin, (&path, message))
    })
}

/// A finding for every external address of a family that the Service does not have: a proxy ignores it.
fn strangers(record: &ServiceRecord) -> impl Iterator<Item = Diagnostic> + '_ {
    let external = record.spec.external_ips.iter().enumerate();
    let is_strange =
        |addr: &IpAddr| record.spec.has_vip() && !record.addresses.has(IpFamily::of(*addr));
    external
        .filter(move |(_, addr)| is_strange(addr))
        .map(|(index, addr)| {
            let family = IpFamily::of(*addr).as_str();
            let message = format!(
                "{addr} is not served: the Service has no {family} address (see spec.ipFamilies)"
            );
            let path = format!("spec.externalIPs[{index}]");
            Diagnostic::about(
                Severity::Warning,
                &record.object.key,
                &record.object.origin,
                (&path, message),
            )
        })
}

/// A finding for every load-balancer address that `loadBalancerSourceRanges` closes to everybody, since all ranges are
/// of the other family.
fn unranged(record: &ServiceRecord) -> impl Iterator<Item = Diagnostic> + '_ {
    let ranges = &record.spec.load_balancer_source_ranges;
    let has = move |family| {
        ranges
            .iter()
            .any(|range| IpFamily::of(range.addr()) == family)
    };
    let addrs = record.addresses.load_balancer_ips.iter();
    let closed = addrs.filter(move |addr| !ranges.is_empty() && !has(IpFamily::of(**addr)));
    closed.map(|addr| {
        let message = format!("no range is of the family of {addr}: nobody may connect there");
        Diagnostic::about(
            Severity::Warning,
            &record.object.key,
            &record.object.origin,
            ("spec.loadBalancerSourceRanges", message),
        )
    })
}

#[cfg(test)]
mod tests;
