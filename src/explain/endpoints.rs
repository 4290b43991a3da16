//! Every endpoint that anything names for a Service, with why it is chosen or not. Owns the reasons; the choice was
//! made when the Snapshot was compiled and is only read here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use portico_core::{
    object::{AddressType, Kind, Protocol, ServicePort, SliceEndpoint, Spec, service::IpFamily},
    snapshot::{PortView, Scope, Snapshot},
    world::{
        pods::{Fault, PodPhase},
        probes::{ProbeKey, ProbeOutcome, ProbeResult, ProbeSubject},
    },
};

use super::{
    model::EndpointReport,
    subject::{From, Labelled, Run, Source, Subject, family_of, label, place},
    verdicts::family,
};

/// Endpoints of slices in their order, then pods that have none.
pub(super) fn of(subject: Subject<'_>, sources: &[Source<'_>]) -> Vec<EndpointReport> {
    let winners = winners(subject, sources);
    let mut reports = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        for endpoint in &source.slice.endpoints {
            let row = Row {
                subject,
                source,
                at,
                endpoint,
                winners: &winners,
            };
            row.add_to(&mut reports);
        }
    }
    for candidate in subject.matching {
        reports.extend(absent(subject, candidate));
    }
    reports
}

/// Which slice counts for an address that several have.
type Winners = BTreeMap<(String, SocketAddr), usize>;

/// One endpoint of one slice on its way to reports.
struct Row<'r, 'a> {
    subject: Subject<'a>,
    source: &'r Source<'a>,
    at: usize,
    endpoint: &'a SliceEndpoint,
    winners: &'r Winners,
}

impl Row<'_, '_> {
    fn add_to(&self, reports: &mut Vec<EndpointReport>) {
        let service = self.subject.spec();
        if !service.has_vip() {
            let why = self.headless();
            reports.push(self.report(None, self.endpoint.address.map(|ip| ip.to_string()), why));
            return;
        }
        let before = reports.len();
        for port in &service.ports {
            for number in numbers(self.source, port) {
                let address = self.endpoint.address.map(|ip| SocketAddr::new(ip, number));
                let why = self.why(port, address);
                let address = address.map(|address| address.to_string());
                reports.push(self.report(Some(label(port)), address, why));
            }
        }
        if reports.len() > before {
            return;
        }
        let port = self.source.slice.ports.iter().find_map(|port| port.port);
        let address = self.endpoint.address.map(|ip| match port {
            Some(number) => SocketAddr::new(ip, number).to_string(),
            None => ip.to_string(),
        });
        let why = match self.source.from {
            _ if self.source.slice.address_type == AddressType::Fqdn => FQDN.to_owned(),
            From::Pods => "no container has the targetPort".to_owned(),
            _ => format!("{} has none of the Service's ports", self.source.name),
        };
        reports.push(self.report(None, address, (false, why)));
    }

    fn report(
        &self,
        port: Option<String>,
        address: Option<String>,
        (chosen, why): (bool, String),
    ) -> EndpointReport {
        let endpoint = self.endpoint;
        let conditions = endpoint.conditions;
        let ejected = address.as_deref().is_some_and(|of| self.is_ejected(of));
        let why = if ejected {
            format!("{why}; sits out after failures in a row")
        } else {
            why
        };
        EndpointReport {
            port,
            address,
            pod: endpoint.pod_name.as_deref().map(str::to_owned),
            node: endpoint.node_name.as_deref().map(str::to_owned),
            source: self.source.name.clone(),
            ready: conditions.ready,
            serving: conditions.serving,
            terminating: conditions.terminating,
            weight: Some(endpoint.weight.get()),
            ejected,
            chosen,
            why,
        }
    }

    fn is_ejected(&self, address: &str) -> bool {
        let ports = self.subject.service.ports.iter();
        let sets = ports
            .flat_map(|port| [&port.cluster, &port.local])
            .flatten();
        let mut endpoints = sets.flat_map(|set| set.endpoints());
        endpoints.any(|endpoint| {
            endpoint.state.ejection.is_ejected(self.subject.view.now)
                && endpoint.addr.to_string() == address
        })
    }

    /// DNS names the ready ones.
    fn headless(&self) -> (bool, String) {
        if self.endpoint.address.is_none() {
            return (false, FQDN.to_owned());
        }
        if self.endpoint.conditions.ready {
            return (true, "ready: in DNS".to_owned());
        }
        (false, format!("not in DNS: {}", self.unready()))
    }

    fn why(&self, port: &ServicePort, address: Option<SocketAddr>) -> (bool, String) {
        let Some(address) = address else {
            return (false, FQDN.to_owned());
        };
        let own = family_of(self.endpoint).unwrap_or(IpFamily::IPv4);
        let Some(view) = view_of(self.subject, port, own) else {
            let why = format!(
                "an {} address; the Service has none of that family",
                family(own)
            );
            return (false, why);
        };
        let winner = self.winners.get(&(label(port), address));
        if winner.is_some_and(|winner| *winner != self.at) {
            return (false, "the same address in another slice counts".to_owned());
        }
        let holds = |set: &Option<std::sync::Arc<portico_core::balance::EndpointSet>>| {
            let mut endpoints = set.iter().flat_map(|set| set.endpoints());
            endpoints.any(|endpoint| endpoint.addr == address)
        };
        let (cluster, local) = (holds(&view.cluster), holds(&view.local));
        let snapshot = self.subject.view.snapshot;
        if !cluster && !local {
            return (false, self.not_chosen(view));
        }
        if let Some(owner) = leads_back(snapshot, address, port.protocol) {
            let why =
                format!("an address of Service {owner}: never connected to, it could be a loop");
            return (false, why);
        }
        (true, self.chosen(view, (cluster, local)))
    }

    fn chosen(&self, view: &PortView, (cluster, local): (bool, bool)) -> String {
        let state = if is_drained(view, self.endpoint) {
            "drained: its weight is 0, and others have more"
        } else if self.endpoint.conditions.ready {
            "ready"
        } else {
            "terminating, but it still serves and no other is ready"
        };
        match (
            cluster,
            local,
            view.cluster.is_some() && view.local.is_some(),
        ) {
            (true, false, true) => format!("{state}; under policy Cluster only"),
            (false, true, true) => format!("{state}; under policy Local only"),
            _ => state.to_owned(),
        }
    }

    fn not_chosen(&self, view: &PortView) -> String {
        let conditions = self.endpoint.conditions;
        let falls_back = conditions.serving && conditions.terminating;
        if !conditions.ready && !falls_back {
            return self.unready();
        }
        let node = &self.subject.view.snapshot.cluster.node_name;
        let elsewhere = self
            .endpoint
            .node_name
            .as_ref()
            .filter(|name| *name != node);
        if !conditions.ready {
            return "terminating: used only while no other is ready".to_owned();
        }
        if let Some(elsewhere) = elsewhere.filter(|_| view.cluster.is_none()) {
            return format!(
                "on node {elsewhere}, and policy Local takes endpoints of this node ({node})"
            );
        }
        let hints = &self.endpoint.hints;
        let mut named: Vec<String> = Vec::new();
        named.extend(hints.nodes.iter().map(|name| format!("node {name}")));
        named.extend(hints.zones.iter().map(|name| format!("zone {name}")));
        format!("its hints name {}, not where this is", named.join(", "))
    }

    /// What the probe of a hand-written endpoint says (`portico.dev/readiness-probe`).
    fn own_probe(&self) -> Option<String> {
        let (world, path) = (self.subject.view.world, self.subject.path());
        let own = self.endpoint.address?;
        let probes = world
            .endpoint_probes(&path)
            .filter(|(key, _)| match &key.subject {
                ProbeSubject::Endpoint(_, addr) => addr.ip() == own,
                ProbeSubject::Simulated(_) | ProbeSubject::Declared(_) => false,
            });
        probes_said(probes)
    }

    fn unready(&self) -> String {
        let conditions = self.endpoint.conditions;
        let ending = if conditions.serving {
            "terminating: used only while no other is ready"
        } else {
            "terminating, and no longer serving"
        };
        if conditions.terminating {
            return ending.to_owned();
        }
        let why = self
            .endpoint
            .pod_name
            .as_deref()
            .and_then(|pod| pod_state(self.subject, pod));
        let why = why.or_else(|| self.own_probe());
        match (why, self.source.from) {
            (Some(why), _) => format!("not ready: {why}"),
            (None, From::Mirrored) => "not ready: under notReadyAddresses".to_owned(),
            (None, _) => "not ready: conditions.ready is false".to_owned(),
        }
    }
}

const FQDN: &str =
    "a name (addressType FQDN): Kubernetes gives it no meaning, an address is needed";

/// Whether new connections pass an endpoint over for its weight.
fn is_drained(view: &PortView, endpoint: &SliceEndpoint) -> bool {
    let sets = [&view.cluster, &view.local].into_iter().flatten();
    let mut weights = sets.flat_map(|set| &set.balance().weights);
    endpoint.weight.get() == 0 && weights.any(|weight| weight.get() > 0)
}

/// Numbers that a slice has for a Service port.
pub(super) fn numbers(source: &Source<'_>, port: &ServicePort) -> Vec<u16> {
    let ports = source.slice.ports.iter();
    ports
        .filter(|of| of.name == port.name && of.protocol == port.protocol)
        .filter_map(|of| of.port)
        .collect()
}

/// The compiled port.
pub(super) fn view_of<'a>(
    subject: Subject<'a>,
    port: &ServicePort,
    family: IpFamily,
) -> Option<&'a PortView> {
    let mut views = subject.service.ports.iter();
    let found = views.find(|view| {
        view.name.port == port.name
            && view.name.protocol == port.protocol
            && view.number == port.port
            && view.family == family
    });
    found.map(AsRef::as_ref)
}

/// The Service whose address an endpoint is, where this host is sure to answer there.
fn leads_back(snapshot: &Snapshot, endpoint: SocketAddr, protocol: Protocol) -> Option<String> {
    let frontend = snapshot.frontend(Scope::HOST, endpoint, endpoint.port(), protocol)?;
    let is_ours = !frontend.kind.is_on_node_port() || endpoint.ip().is_loopback();
    is_ours.then(|| {
        format!(
            "{}/{}",
            frontend.port.name.namespace, frontend.port.name.service
        )
    })
}

/// Here, ready, serving.
type Rank = (bool, bool, bool);

/// As compilation chooses: the one here, ready and serving, of equal ones the first.
fn winners(subject: Subject<'_>, sources: &[Source<'_>]) -> Winners {
    let node = &subject.view.snapshot.cluster.node_name;
    let mut best: BTreeMap<(String, SocketAddr), (Rank, usize)> = BTreeMap::new();
    for (at, source) in sources.iter().enumerate() {
        for port in &subject.spec().ports {
            for number in numbers(source, port) {
                for endpoint in &source.slice.endpoints {
                    let Some(ip) = endpoint.address else { continue };
                    let here = endpoint.node_name.as_ref().is_none_or(|name| name == node);
                    let conditions = endpoint.conditions;
                    let rank = (here, conditions.ready, conditions.serving);
                    let entry = best.entry((label(port), SocketAddr::new(ip, number)));
                    let kept = entry.or_insert((rank, at));
                    if rank > kept.0 {
                        *kept = (rank, at);
                    }
                }
            }
        }
    }
    best.into_iter().map(|(key, (_, at))| (key, at)).collect()
}

/// A pod or template that matches and has no endpoint.
fn absent(subject: Subject<'_>, candidate: &Labelled<'_>) -> Option<EndpointReport> {
    let (why, terminating) = match candidate.run {
        Run::Declared(pod) if pod.finished => (
            "it has finished (phase Succeeded or Failed)".to_owned(),
            false,
        ),
        Run::Declared(pod) if pod.pod_ips.is_empty() && !subject.simulates() => (
            "it has no address: without --simulate nobody runs it".to_owned(),
            pod.terminating,
        ),
        Run::Declared(pod) if pod.pod_ips.is_empty() => {
            ("it has no address yet".to_owned(), pod.terminating)
        }
        Run::Template(_) if !subject.simulates() => {
            ("without --simulate nobody runs its pods".to_owned(), false)
        }
        Run::Declared(_) | Run::Template(_) | Run::Simulated(_) => return None,
    };
    let is_pod = candidate.kind == Kind::Pod;
    Some(EndpointReport {
        port: None,
        address: None,
        pod: is_pod.then(|| candidate.name.to_string()),
        node: candidate.spec.node_name.as_deref().map(str::to_owned),
        source: if is_pod {
            "selector".to_owned()
        } else {
            candidate.title()
        },
        ready: false,
        serving: false,
        terminating,
        weight: None,
        ejected: false,
        chosen: false,
        why,
    })
}

/// Why a pod is not ready, as far as anybody said.
fn pod_state(subject: Subject<'_>, pod: &str) -> Option<String> {
    let world = subject.view.world;
    let key = (subject.namespace().clone(), pod.into());
    if let Some(simulated) = world.pods().pods.get(&key) {
        match &simulated.phase {
            PodPhase::Pending | PodPhase::Starting => return Some("it is starting".to_owned()),
            PodPhase::Waiting { reason, .. } => return Some(format!("it waits: {reason}")),
            PodPhase::Terminating { .. } => return Some("it is terminating".to_owned()),
            PodPhase::Running { .. } if simulated.faults.contains(&Fault::Ready) => {
                return Some("it was made to fail".to_owned());
            }
            PodPhase::Running { .. } => return probe_event(subject, pod),
        }
    }
    if let Some(said) = probes_said(world.pod_probes(&key)) {
        return Some(said);
    }
    let mut pods = subject.objects(Kind::Pod);
    let object = pods.find(|object| &*object.key.name == pod)?;
    match &object.spec {
        Spec::Pod(declared) if declared.ready == Some(false) => Some(format!(
            "its condition Ready is not True ({})",
            place(&object.origin, "")
        )),
        _ => None,
    }
}

/// The first probe that does not pass, in kubelet's words.
fn probes_said<'a>(
    probes: impl Iterator<Item = (&'a ProbeKey, Option<&'a ProbeResult>)>,
) -> Option<String> {
    let mut failing =
        probes.filter(|(_, result)| result.and_then(|result| result.passing) != Some(true));
    let (key, result) = failing.next()?;
    let kind = key.kind.as_str();
    Some(match result.map(|result| &result.last) {
        Some(ProbeOutcome::Failure { reason } | ProbeOutcome::Unhealthy { reason }) => {
            format!("{kind} probe failed: {reason}")
        }
        Some(ProbeOutcome::Success) | None => {
            format!("its {} probe has not passed yet", kind.to_lowercase())
        }
    })
}

/// The newest event about a failed probe of a pod (`reason: Unhealthy`), but for liveness, which restarts it.
fn probe_event(subject: Subject<'_>, pod: &str) -> Option<String> {
    let events = subject.view.world.events().iter();
    let about = events.filter(|event| {
        event.about.kind == Kind::Pod
            && &event.about.namespace == subject.namespace()
            && &*event.about.name == pod
            && &*event.reason == "Unhealthy"
            && !event.message.starts_with("Liveness")
    });
    about.last().map(|event| event.message.to_string())
}

/// Counts what is chosen: distinct endpoints that some client may reach, and all distinct ones.
pub(super) fn count(reports: &[EndpointReport]) -> (usize, usize) {
    let identity = |report: &EndpointReport| match (&report.pod, &report.address) {
        (Some(pod), _) => Some(pod.clone()),
        // An endpoint with several ports is one: its slice and IP address tell it.
        (None, Some(address)) => {
            let ip = address.parse::<SocketAddr>().map(|address| address.ip());
            let ip = ip.map_or_else(|_| address.clone(), |ip| ip.to_string());
            Some(format!("{} {ip}", report.source))
        }
        (None, None) => None,
    };
    let distinct = |chosen: bool| {
        let reports = reports.iter().filter(|report| !chosen || report.chosen);
        reports.filter_map(identity).collect::<BTreeSet<_>>().len()
    };
    (distinct(true), distinct(false))
}
