//! What is looked at while one Service is explained: its record, where its slices come from, and everything that has
//! labels. Owns finding these in the world; draws no conclusions.

use std::sync::Arc;

use portico_core::{
    object::{
        EndpointSlice, Kind, Labels, Object, Origin, Pod, PodSpec, Service, ServicePort,
        SliceEndpoint, Spec, service::IpFamily, workload::selects,
    },
    snapshot::ServiceView,
    world::{ServiceRecord, Simulation, pods::SimulatedPod},
};

use super::{
    model::{Cause, Problem},
    verdicts,
};
use crate::objects::View;
use portico_core::object::diagnostic::Severity;

/// A Service that is in force.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) view: View<'a>,
    pub(super) record: &'a ServiceRecord,
    pub(super) service: &'a ServiceView,
    /// Pods and templates that the selector matches, in the Service's namespace; none for an empty selector.
    pub(super) matching: &'a [Labelled<'a>],
}

/// A slice and where it comes from.
pub(super) struct Source<'a> {
    /// `EndpointSlice web-1`, `Endpoints web`, `selector`.
    pub(super) name: String,
    pub(super) slice: &'a EndpointSlice,
    pub(super) origin: Option<&'a Origin>,
    pub(super) from: From,
}

/// Who made a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// The user.
    Written,
    /// It mirrors Endpoints.
    Mirrored,
    /// It was derived from pods.
    Pods,
}

/// Something with the labels and containers of pods.
pub(super) struct Labelled<'a> {
    pub(super) kind: Kind,
    pub(super) namespace: &'a Arc<str>,
    pub(super) name: &'a Arc<str>,
    pub(super) labels: &'a Labels,
    pub(super) spec: &'a PodSpec,
    pub(super) origin: Option<&'a Origin>,
    pub(super) run: Run<'a>,
}

/// What runs of it.
#[derive(Clone, Copy)]
pub(super) enum Run<'a> {
    /// A pod of a manifest.
    Declared(&'a Pod),
    /// A simulated pod.
    Simulated(&'a SimulatedPod),
    /// A workload's template, with its `replicas`.
    Template(u32),
}

impl<'a> Subject<'a> {
    pub(super) fn spec(&self) -> &'a Service {
        &self.record.spec
    }

    pub(super) fn namespace(&self) -> &'a Arc<str> {
        &self.record.object.key.namespace
    }

    pub(super) fn name(&self) -> &'a Arc<str> {
        &self.record.object.key.name
    }

    /// `namespace/name`.
    pub(super) fn path(&self) -> String {
        self.service.path()
    }

    pub(super) fn simulates(&self) -> bool {
        self.view.world.settings().simulation == Simulation::On
    }

    /// `file:line` of a field.
    pub(super) fn at(&self, path: &str) -> String {
        place(&self.record.object.origin, path)
    }

    /// `file:line` of a field of entry `index` of `spec.ports`.
    pub(super) fn at_port(&self, index: usize, field: &str) -> String {
        self.at(&format!("spec.ports[{index}].{field}"))
    }

    /// All slices: written ones by name, then those mirrored or derived from pods, as the record has them. Not told by
    /// identity, for a probe's result makes another slice of a written one.
    pub(super) fn sources(&self) -> Vec<Source<'a>> {
        let is_ours = |object: &&Arc<Object>| match &object.spec {
            Spec::EndpointSlice(slice) => slice.service_name.as_ref() == Some(self.name()),
            _ => false,
        };
        let mut written = self.objects(Kind::EndpointSlice).filter(is_ours);
        let slices = self.record.slices.iter();
        slices
            .map(|slice| match written.next() {
                Some(object) => Source {
                    name: format!("EndpointSlice {}", object.key.name),
                    slice,
                    origin: Some(&object.origin),
                    from: From::Written,
                },
                None if self.spec().selector.is_empty() => Source {
                    name: format!("Endpoints {}", self.name()),
                    slice,
                    origin: None,
                    from: From::Mirrored,
                },
                None => Source {
                    name: "selector".to_owned(),
                    slice,
                    origin: None,
                    from: From::Pods,
                },
            })
            .collect()
    }

    /// Objects of a kind in the Service's namespace.
    pub(super) fn objects(&self, kind: Kind) -> impl Iterator<Item = &'a Arc<Object>> {
        let namespace = Arc::clone(self.namespace());
        objects_of(self.view, kind).filter(move |object| object.key.namespace == namespace)
    }
}

impl Labelled<'_> {
    /// `Deployment web`; with the namespace where that is another one.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    /// `Deployment web (web.yaml:12)`.
    pub(super) fn title_at(&self) -> String {
        match self.origin {
            Some(origin) => format!("{} ({})", self.title(), place(origin, "")),
            None => self.title(),
        }
    }
}

/// All objects of a kind.
pub(super) fn objects_of(view: View<'_>, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
    let all = view.world.objects().map(|(_, object)| object);
    all.filter(move |object| object.key.kind == kind)
}

/// Everything with labels of pods: what manifests declare first, then simulated pods that no manifest names.
pub(super) fn labelled(view: View<'_>) -> Vec<Labelled<'_>> {
    let table = &view.world.pods().pods;
    let mut all: Vec<Labelled<'_>> = Vec::new();
    for (key, object) in view.world.objects() {
        let (labels, spec, run) = match &object.spec {
            Spec::Pod(pod) => (&object.meta.labels, &pod.spec, Run::Declared(pod)),
            Spec::Workload(workload) => {
                let template = &workload.template;
                let run = Run::Template(workload.replicas);
                (&template.labels, &template.spec, run)
            }
            _ => continue,
        };
        // A simulated pod has the labels that people gave it since.
        if key.kind == Kind::Pod
            && table.contains_key(&(Arc::clone(&key.namespace), Arc::clone(&key.name)))
        {
            continue;
        }
        all.push(Labelled {
            kind: key.kind,
            namespace: &key.namespace,
            name: &key.name,
            labels,
            spec,
            origin: Some(&object.origin),
            run,
        });
    }
    all.extend(table.values().map(|pod| Labelled {
        kind: Kind::Pod,
        namespace: &pod.namespace,
        name: &pod.name,
        labels: &pod.labels,
        spec: &pod.spec,
        origin: None,
        run: Run::Simulated(pod),
    }));
    all
}

/// What the selector of a Service matches.
pub(super) fn matching<'a>(view: View<'a>, record: &ServiceRecord) -> Vec<Labelled<'a>> {
    let selector = &record.spec.selector;
    if selector.is_empty() {
        return Vec::new();
    }
    let mut found = labelled(view);
    found.retain(|candidate| {
        *candidate.namespace == record.object.key.namespace && selects(selector, candidate.labels)
    });
    found
}

/// `file:line` of a field.
pub(super) fn place(origin: &Origin, path: &str) -> String {
    format!("{}:{}", origin.file, origin.position_of(path).line)
}

/// Labels as selectors are written: `app=web,tier=front`.
pub(super) fn pairs(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

/// A Service port in words.
pub(super) fn label(port: &ServicePort) -> String {
    verdicts::label(&port.name, port.port, port.protocol)
}

/// The family of an endpoint's address.
pub(super) fn family_of(endpoint: &SliceEndpoint) -> Option<IpFamily> {
    endpoint.address.map(IpFamily::of)
}

/// At most three of `items`, the rest counted.
pub(super) fn few(items: &[String]) -> String {
    match items {
        [first, second, third, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third} and {} more", rest.len())
        }
        few => few.join(", "),
    }
}

/// A problem without a place.
pub(super) fn problem(severity: Severity, cause: Cause, text: String) -> Problem {
    Problem {
        severity,
        cause,
        text,
        at: None,
        fix: None,
    }
}
