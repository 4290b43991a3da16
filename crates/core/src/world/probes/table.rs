//! What is to be probed for declared pods and hand-written endpoints, and the results. Owns both tables and what a
//! result means for pods, Services and events. Costs nothing where nothing is probed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use super::{
    ProbeKey, ProbeKind, ProbeObservation, ProbeOutcome, ProbeResult, ProbeSubject, ProbeTarget,
    ProbeTargets, declared::PodProbes,
};
use crate::{
    object::{EndpointProbe, EndpointSlice, Kind, Object, ObjectKey, Pod, Spec},
    time::Timestamp,
    world::{
        EventKind, NewEvent, ServiceRecord, World,
        merge::Change,
        pods::{PodKey, simulated_targets},
    },
};

/// Results by probe.
pub(super) type Results = BTreeMap<ProbeKey, ProbeResult>;

/// A hand-written or mirrored slice with the probe that its endpoints have.
pub(in crate::world) type WrittenSlice = (Option<EndpointProbe>, Arc<EndpointSlice>);

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(in crate::world) struct ProbeTable {
    pods: BTreeMap<PodKey, PodProbes>,
    /// Annotated slices: by Service path, then by their own name.
    slices: BTreeMap<Arc<str>, BTreeMap<Arc<str>, EndpointProbe>>,
    /// Targets of endpoints by Service path; none is empty.
    services: BTreeMap<Arc<str>, ProbeTargets>,
    results: Results,
    /// The targets differ from those that were collected last, or may.
    pub(in crate::world) stale: bool,
    /// Nobody runs probes: what is declared counts.
    pub(in crate::world) is_offline: bool,
}

impl ProbeTable {
    /// Takes over what a changed slice asks for.
    pub(in crate::world) fn set_slice(&mut self, path: &Arc<str>, object: &Object, enters: bool) {
        let name = &object.key.name;
        if let Some(probe) = EndpointProbe::of(&object.meta.annotations).filter(|_| enters) {
            let slices = self.slices.entry(Arc::clone(path)).or_default();
            slices.insert(Arc::clone(name), probe);
        } else if let Some(slices) = self.slices.get_mut(path) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(path);
            }
        }
    }

    /// What an annotated slice asks for itself.
    pub(in crate::world) fn of_slice(&self, path: &str, name: &str) -> Option<&EndpointProbe> {
        self.slices.get(path)?.get(name)
    }

    /// Takes over the probes of a declared pod; `None` when it is none any more.
    fn set_pod(&mut self, key: PodKey, pod: Option<&Pod>) {
        let before = self.pods.remove(&key);
        let runs = before.as_ref().map(|before| before.runs().clone());
        let after = pod.and_then(|pod| PodProbes::of(&key, pod, runs.unwrap_or_default()));
        self.stale |= before != after;
        if let Some(before) = &before {
            let is_kept = |key: &ProbeKey| {
                let after = after.as_ref();
                after.is_some_and(|after| after.asks_the_same(key, before))
            };
            for gone in before.keys().filter(|key| !is_kept(key)) {
                self.results.remove(gone);
            }
        }
        if let Some(after) = after {
            for (key, reason) in after.unaskable() {
                let last = ProbeOutcome::Unhealthy { reason };
                let passing = None;
                self.results
                    .insert(key.clone(), ProbeResult { passing, last });
            }
            self.pods.insert(key, after);
        }
    }

    /// Takes over the endpoints of a Service that are probed.
    pub(in crate::world) fn set_service(&mut self, path: &Arc<str>, targets: ProbeTargets) {
        let before = self.services.get(path);
        if before.unwrap_or(&ProbeTargets::new()) == &targets {
            return;
        }
        self.stale = true;
        let gone = before.into_iter().flat_map(BTreeMap::keys);
        for gone in gone.filter(|key| !targets.contains_key(*key)) {
            self.results.remove(gone);
        }
        if targets.is_empty() {
            self.services.remove(path);
        } else {
            self.services.insert(Arc::clone(path), targets);
        }
    }

    /// Condition `Ready` of a declared pod as its probes have it; `None` when none is run.
    pub(in crate::world) fn readiness(&self, pod: &PodKey) -> Option<bool> {
        if self.is_offline {
            return None;
        }
        Some(self.pods.get(pod)?.is_ready(&self.results))
    }

    /// The slice with the conditions that probes decide; the same one when they change nothing.
    pub(in crate::world) fn with_conditions(
        &self,
        path: &Arc<str>,
        (probe, slice): WrittenSlice,
    ) -> Arc<EndpointSlice> {
        let Some(probe) = probe.filter(|_| !self.is_offline) else {
            return slice;
        };
        let ports = probe.ports(&slice);
        let mut probed = slice;
        for index in 0..probed.endpoints.len() {
            let Some(endpoint) = probed.endpoints.get(index) else {
                break;
            };
            let passes = |port: &u16| {
                let addr = endpoint.address.map(|ip| SocketAddr::new(ip, *port));
                addr.is_none_or(|addr| self.is_passing(&endpoint_key(path, addr)))
            };
            if ports.iter().all(passes)
                || !endpoint.conditions.serving && !endpoint.conditions.ready
            {
                continue;
            }
            let slice = Arc::make_mut(&mut probed);
            if let Some(endpoint) = slice.endpoints.get_mut(index) {
                (endpoint.conditions.ready, endpoint.conditions.serving) = (false, false);
            }
        }
        probed
    }

    /// Whether this probe's last decision was success.
    fn is_passing(&self, key: &ProbeKey) -> bool {
        let result = self.results.get(key);
        result.and_then(|result| result.passing) == Some(true)
    }

    /// All results of one subject with the probes that have none yet.
    fn of_keys<'a>(
        &'a self,
        keys: impl Iterator<Item = &'a ProbeKey> + 'a,
    ) -> impl Iterator<Item = (&'a ProbeKey, Option<&'a ProbeResult>)> + 'a {
        keys.map(|key| (key, self.results.get(key)))
    }

    /// Writes a result down; whether it decided something new.
    fn take(&mut self, key: &ProbeKey, outcome: &ProbeOutcome) -> bool {
        let before = self.results.get(key).and_then(|result| result.passing);
        let passing = match outcome {
            ProbeOutcome::Success => Some(true),
            ProbeOutcome::Failure { .. } => Some(false),
            ProbeOutcome::Unhealthy { .. } => before,
        };
        let last = outcome.clone();
        self.results
            .insert(key.clone(), ProbeResult { passing, last });
        passing != before
    }

    /// A startup probe of a declared pod has failed for good. A cluster would restart the container; here the probe
    /// begins anew, and the pod stays unready until it passes.
    fn restart(&mut self, pod_key: &PodKey, pod: &Pod, container: &Arc<str>) {
        let Some(before) = self.pods.get(pod_key) else {
            return;
        };
        let mut runs = before.runs().clone();
        *runs.entry(Arc::clone(container)).or_default() += 1;
        let failed = before.keys().filter(|key| key.container == *container);
        let failed: Vec<ProbeKey> = failed.cloned().collect();
        for mut key in failed {
            let result = self.results.remove(&key);
            key.run = runs.get(container).copied().unwrap_or_default();
            if let Some(result) = result.filter(|_| key.kind == ProbeKind::Startup) {
                self.results.insert(key, result);
            }
        }
        self.stale = true;
        if let Some(after) = PodProbes::of(pod_key, pod, runs) {
            self.pods.insert(pod_key.clone(), after);
        }
    }

    fn targets(&self) -> impl Iterator<Item = (ProbeKey, ProbeTarget)> + '_ {
        let pods = self
            .pods
            .values()
            .flat_map(|probes| probes.targets(&self.results));
        let endpoints = self.services.values().flatten();
        pods.chain(endpoints.map(|(key, target)| (key.clone(), target.clone())))
    }
}

fn endpoint_key(path: &Arc<str>, addr: SocketAddr) -> ProbeKey {
    ProbeKey {
        subject: ProbeSubject::Endpoint(Arc::clone(path), addr),
        container: Arc::default(),
        kind: ProbeKind::Readiness,
        run: 0,
    }
}

impl World {
    /// What is known of a probe of a declared pod or of an endpoint; `None` before its first result.
    pub fn probe_result(&self, key: &ProbeKey) -> Option<&ProbeResult> {
        self.probes.results.get(key)
    }

    /// The probes of a declared pod that are run, with their results.
    pub fn pod_probes(
        &self,
        pod: &PodKey,
    ) -> impl Iterator<Item = (&ProbeKey, Option<&ProbeResult>)> {
        let probes = self.probes.pods.get(pod).into_iter();
        self.probes.of_keys(probes.flat_map(PodProbes::keys))
    }

    /// The probes of the hand-written endpoints of the Service at `path`, with their results.
    pub fn endpoint_probes(
        &self,
        path: &str,
    ) -> impl Iterator<Item = (&ProbeKey, Option<&ProbeResult>)> {
        let targets = self.probes.services.get(path).into_iter();
        self.probes.of_keys(targets.flat_map(BTreeMap::keys))
    }

    /// Condition `Ready` of a declared pod: what its probes say, else its manifest, else true.
    pub fn declared_pod_ready(&self, key: &PodKey, pod: &Pod) -> bool {
        let probed = self.probes.readiness(key);
        probed.or(pod.ready).unwrap_or(true)
    }

    /// Takes over the probes of a Pod that changed.
    pub(in crate::world) fn index_pod_probes(&mut self, change: &Change) {
        let pod = match change.after.as_ref().map(|object| &object.spec) {
            Some(Spec::Pod(pod)) => Some(&**pod),
            _ => None,
        };
        let key = &change.key;
        let key = (Arc::clone(&key.namespace), Arc::clone(&key.name));
        self.probes.set_pod(key, pod);
    }

    /// Takes over which endpoints of this Service are probed.
    pub(in crate::world) fn probe_endpoints(&mut self, path: &Arc<str>, record: &ServiceRecord) {
        let mut targets = ProbeTargets::new();
        for (probe, slice) in self.written_slices(path, record) {
            let Some(probe) = probe else { continue };
            let addrs = slice.endpoints.iter().filter_map(|end| end.address);
            let ports = probe.ports(&slice);
            for addr in addrs.flat_map(|ip| ports.iter().map(move |port| (ip, *port))) {
                let addr = SocketAddr::from(addr);
                targets
                    .entry(endpoint_key(path, addr))
                    .or_insert_with(|| ProbeTarget {
                        probe: Arc::new(probe.probe(addr.port())),
                        addr,
                    });
            }
        }
        self.probes.set_service(path, targets);
    }

    /// Takes what probes said; marks the Services whose endpoints it changes.
    pub(in crate::world) fn take_probes(
        &mut self,
        observations: &[ProbeObservation],
        now: Timestamp,
        changed: &mut BTreeSet<Arc<str>>,
    ) {
        for observation in observations {
            let key = &observation.key;
            match &key.subject {
                // The controllers take these.
                ProbeSubject::Simulated(_) => {}
                ProbeSubject::Declared(pod) => {
                    self.take_pod_probe(pod, observation, now, changed);
                }
                ProbeSubject::Endpoint(path, addr) => {
                    let targets = self.probes.services.get(path);
                    if targets.is_some_and(|targets| targets.contains_key(key)) {
                        let was_passing = self.probes.is_passing(key);
                        self.probes.take(key, &observation.outcome);
                        let event = endpoint_event(path, *addr, &observation.outcome);
                        self.events.record(event, now);
                        if self.probes.is_passing(key) != was_passing {
                            changed.insert(Arc::clone(path));
                        }
                    }
                }
            }
        }
    }

    fn take_pod_probe(
        &mut self,
        pod_key: &PodKey,
        observation: &ProbeObservation,
        now: Timestamp,
        changed: &mut BTreeSet<Arc<str>>,
    ) {
        let ProbeObservation { key, outcome } = observation;
        let probes = self.probes.pods.get(pod_key);
        // What is said of a pod that went, or of a former run, concerns nobody.
        if !probes.is_some_and(|probes| probes.keys().any(|known| known == key)) {
            return;
        }
        let about = ObjectKey {
            kind: Kind::Pod,
            namespace: Arc::clone(&pod_key.0),
            name: Arc::clone(&pod_key.1),
        };
        let Some(object) = self.merge.get(&about).cloned() else {
            return;
        };
        let was_ready = self.probes.readiness(pod_key);
        let is_news = self.probes.take(key, outcome);
        if key.kind == ProbeKind::Startup && is_news {
            self.probes.stale = true;
        }
        if key.kind == ProbeKind::Startup
            && matches!(outcome, ProbeOutcome::Failure { .. })
            && let Spec::Pod(pod) = &object.spec
        {
            self.probes.restart(pod_key, pod, &key.container);
        }
        if let ProbeOutcome::Failure { reason } | ProbeOutcome::Unhealthy { reason } = outcome {
            let message = format!("{} probe failed: {reason}", key.kind.as_str());
            let event = NewEvent {
                about,
                kind: EventKind::Warning,
                reason: "Unhealthy",
                message,
                component: "kubelet",
            };
            self.events.record(event, now);
        }
        if self.probes.readiness(pod_key) != was_ready {
            changed.extend(self.services_selecting(&pod_key.0, &object.meta.labels));
        }
    }

    /// Brings the targets up to date; they stay the same `Arc` unless one changed.
    pub(in crate::world) fn collect_probe_targets(&mut self) {
        if !std::mem::take(&mut self.probes.stale) {
            return;
        }
        let simulated = simulated_targets(&self.pods);
        let targets: ProbeTargets = simulated.chain(self.probes.targets()).collect();
        if targets != *self.probe_targets {
            self.probe_targets = Arc::new(targets);
        }
    }
}

fn endpoint_event(path: &str, addr: SocketAddr, outcome: &ProbeOutcome) -> NewEvent {
    let (kind, reason, message) = match outcome {
        ProbeOutcome::Success => (
            EventKind::Normal,
            "EndpointHealthy",
            format!("Readiness probe of {addr} succeeded"),
        ),
        ProbeOutcome::Failure { reason } | ProbeOutcome::Unhealthy { reason } => (
            EventKind::Warning,
            "EndpointUnhealthy",
            format!("Readiness probe of {addr} failed: {reason}"),
        ),
    };
    NewEvent {
        about: World::service_key(path),
        kind,
        reason,
        message,
        component: "portico",
    }
}
