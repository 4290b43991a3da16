//! Who a Service's endpoints would be and why there are none: labels that almost match, other namespaces, slices of
//! another name, pods that nobody runs. Owns the near misses of labels.

use std::{net::IpAddr, sync::Arc};

use portico_core::{
    object::{
        Kind, Labels, Object, Spec, decode::closest, diagnostic::Severity,
        endpoints::SERVICE_NAME_LABEL, service::IpFamily, workload::selects,
    },
    snapshot::service_path,
};

use super::{
    model::{Cause, Problem},
    subject::{Labelled, Run, Source, Subject, few, labelled, objects_of, pairs, place, problem},
};
use crate::words::counted;

/// Why no endpoint belongs to the Service; empty when some does.
pub(super) fn problems(subject: Subject<'_>, sources: &[Source<'_>]) -> Vec<Problem> {
    if sources
        .iter()
        .any(|source| !source.slice.endpoints.is_empty())
    {
        return Vec::new();
    }
    if subject.spec().selector.is_empty() {
        return without_selector(subject, sources);
    }
    let matching = subject.matching;
    if matching.is_empty() {
        return vec![nobody(subject)];
    }
    vec![nobody_runs(subject, matching)]
}

/// Pods or templates match, but there is no endpoint.
fn nobody_runs(subject: Subject<'_>, matching: &[Labelled<'_>]) -> Problem {
    let titles: Vec<String> = matching.iter().map(Labelled::title_at).collect();
    let selector = pairs(&subject.spec().selector);
    let verb = if titles.len() == 1 {
        "matches"
    } else {
        "match"
    };
    let is_idle = |candidate: &Labelled<'_>| match candidate.run {
        Run::Declared(pod) => pod.finished,
        Run::Template(replicas) => replicas == 0 && candidate.kind != Kind::DaemonSet,
        Run::Simulated(_) => false,
    };
    if matching.iter().all(is_idle) {
        let text = format!(
            "{} {verb} {selector}, but {} no pod: replicas is 0, or the phase is Succeeded or Failed",
            few(&titles),
            if titles.len() == 1 { "runs" } else { "run" }
        );
        let fix = matching.iter().find_map(|candidate| {
            let kind = candidate.kind.as_str().to_lowercase();
            matches!(candidate.run, Run::Template(_))
                .then(|| format!("portico scale {kind}/{} --replicas=1", candidate.name))
        });
        return Problem {
            fix,
            ..problem(Severity::Error, Cause::NoPods, text)
        };
    }
    if let Some(missing) = other_family(subject, matching) {
        return missing;
    }
    if subject.simulates() {
        let text = format!(
            "{} {verb} {selector}, but no pod is there yet",
            few(&titles)
        );
        let fix = Some("portico get pods shows how far they are".to_owned());
        return Problem {
            fix,
            ..problem(Severity::Error, Cause::NoPods, text)
        };
    }
    let verb = if titles.len() == 1 {
        "matches"
    } else {
        "match"
    };
    Problem {
        fix: Some(
            "start with `portico up --simulate` to run stand-ins, give the pods a status.podIP, or write an \
             EndpointSlice (`portico map` does)"
                .to_owned(),
        ),
        ..problem(
            Severity::Error,
            Cause::NotSimulated,
            format!("{} {verb} {selector}, but without --simulate nobody runs the pods", few(&titles)),
        )
    }
}

/// Pods are there, and none has an address of a family that the Service has.
fn other_family(subject: Subject<'_>, matching: &[Labelled<'_>]) -> Option<Problem> {
    let [family] = subject.record.addresses.families.as_slice() else {
        return None;
    };
    let wanted = family.as_str();
    let is_other = |addr: &IpAddr| IpFamily::of(*addr) != *family;
    let has_address = |candidate: &Labelled<'_>| match candidate.run {
        Run::Declared(pod) => !pod.finished && pod.pod_ips.iter().any(is_other),
        Run::Simulated(pod) => is_other(&pod.ip),
        Run::Template(_) => false,
    };
    matching.iter().any(has_address).then(|| Problem {
        at: Some(subject.at("spec.ipFamilies")),
        fix: Some(
            "write `ipFamilyPolicy: PreferDualStack` instead of one family, or an EndpointSlice; simulated pods have \
             IPv4 addresses only"
                .to_owned(),
        ),
        ..problem(
            Severity::Error,
            Cause::AddressType,
            format!("the pods that it selects have no {wanted} address, and the Service has no other ones"),
        )
    })
}

/// No labels match: the nearest ones.
fn nobody(subject: Subject<'_>) -> Problem {
    let selector = &subject.spec().selector;
    let all = labelled(subject.view);
    let at = Some(subject.at("spec.selector"));
    let here = |candidate: &&Labelled<'_>| candidate.namespace == subject.namespace();
    let near = all
        .iter()
        .filter(here)
        .filter_map(|candidate| Some((miss(selector, candidate.labels)?, candidate)));
    // Of equal misses the first: workloads and pods of manifests come before simulated pods.
    if let Some((miss, candidate)) = near.min_by_key(|(miss, _)| miss.distance) {
        return Problem {
            at,
            fix: Some(miss.fix()),
            ..problem(
                Severity::Error,
                Cause::NoPodMatches,
                format!(
                    "no pod matches {}; {} {}",
                    pairs(selector),
                    candidate.title_at(),
                    miss.text()
                ),
            )
        };
    }
    if let Some(found) = elsewhere(subject, &all) {
        return found;
    }
    let mut labels: Vec<String> = all.iter().filter(here).map(|of| pairs(of.labels)).collect();
    labels.retain(|labels| !labels.is_empty());
    labels.sort_unstable();
    labels.dedup();
    let (have, fix) = if labels.is_empty() {
        let fix = "add pods or a Deployment with these labels, or an EndpointSlice (`portico map` writes one)";
        ("there are no pods at all".to_owned(), fix)
    } else {
        let have = format!("the labels here are {}", few(&labels));
        (have, "change the selector or the labels so that they agree")
    };
    Problem {
        at,
        fix: Some(fix.to_owned()),
        ..problem(
            Severity::Error,
            Cause::NoPodMatches,
            format!(
                "no pod in namespace {} matches {}; {have}",
                subject.namespace(),
                pairs(selector)
            ),
        )
    }
}

/// The labels match, but in another namespace.
fn elsewhere(subject: Subject<'_>, all: &[Labelled<'_>]) -> Option<Problem> {
    let selector = &subject.spec().selector;
    let other = all.iter().find(|candidate| {
        candidate.namespace != subject.namespace() && selects(selector, candidate.labels)
    })?;
    let text = format!(
        "no pod in namespace {} matches {}; {} does, in namespace {}: a Service selects in its own",
        subject.namespace(),
        pairs(selector),
        other.title_at(),
        other.namespace
    );
    let fix = format!(
        "write `namespace: {}` in the Service, or `namespace: {}` in {}",
        other.namespace,
        subject.namespace(),
        other.title()
    );
    Some(Problem {
        at: Some(subject.at("metadata.namespace")),
        fix: Some(fix),
        ..problem(Severity::Error, Cause::NoPodMatches, text)
    })
}

/// One pair of a selector and what stands in its place.
struct Miss<'a> {
    wanted: (&'a str, &'a str),
    found: Option<(&'a str, &'a str)>,
    /// The smaller, the likelier a mistake: letter case, a misspelt key or value, another value, no such label.
    distance: u8,
}

impl Miss<'_> {
    fn text(&self) -> String {
        let (key, value) = self.wanted;
        match self.found {
            Some((found, with)) => {
                format!("has {found}={with} where the selector has {key}={value}")
            }
            None => format!("matches but for {key}={value}, a label that it does not have"),
        }
    }

    fn fix(&self) -> String {
        let (key, value) = self.wanted;
        match self.found {
            Some((found, with)) => {
                format!(
                    "write `{found}: {with}` in the selector, or `{key}: {value}` in the pods' labels"
                )
            }
            None => {
                format!("add `{key}: {value}` to the pods' labels, or take it out of the selector")
            }
        }
    }
}

/// What keeps `labels` from matching, if it is one pair only.
fn miss<'a>(selector: &'a Labels, labels: &'a Labels) -> Option<Miss<'a>> {
    let mut missing = selector
        .iter()
        .filter(|(key, value)| labels.get(*key) != Some(value));
    let (key, value) = missing.next()?;
    if missing.next().is_some() {
        return None;
    }
    let wanted: (&str, &str) = (key, value);
    if let Some(other) = labels.get(key) {
        let is_alone = selector.len() == 1;
        let distance = if other.eq_ignore_ascii_case(value) {
            0
        } else if closest(value, std::iter::once(&**other)).is_some() {
            2
        } else if is_alone {
            // Another value of the only key is another application, not a mistake.
            return None;
        } else {
            3
        };
        let found = Some((&**key, &**other));
        return Some(Miss {
            wanted,
            found,
            distance,
        });
    }
    // Keys that the selector has itself are right where they are.
    let free = labels
        .iter()
        .filter(|(other, _)| !selector.contains_key(*other));
    for (other, of) in free {
        let similar = closest(key, std::iter::once(&**other)).is_some();
        if of == value && (similar || other.rsplit('/').next() == key.rsplit('/').next()) {
            let found = Some((&**other, &**of));
            return Some(Miss {
                wanted,
                found,
                distance: 1,
            });
        }
    }
    (selector.len() > 1).then_some(Miss {
        wanted,
        found: None,
        distance: 4,
    })
}

/// The user supplies the slices, and none has endpoints.
fn without_selector(subject: Subject<'_>, sources: &[Source<'_>]) -> Vec<Problem> {
    if let Some(source) = sources.first() {
        let text = format!("{} lists no endpoints", source.name);
        return vec![Problem {
            at: source.origin.map(|origin| place(origin, "endpoints")),
            fix: Some("add the endpoints' addresses to it".to_owned()),
            ..problem(Severity::Error, Cause::NoSlice, text)
        }];
    }
    let mut problems: Vec<Problem> = rejected_slices(subject);
    problems.extend(slices_apart(subject));
    if problems.is_empty() {
        let has_pods = labelled(subject.view)
            .iter()
            .any(|candidate| candidate.namespace == subject.namespace());
        let text = "it has no selector, and no EndpointSlice belongs to it".to_owned();
        let name = subject.name();
        let fix = if has_pods {
            "add spec.selector with the labels of its pods".to_owned()
        } else {
            format!(
                "add spec.selector, or an EndpointSlice (`portico map {name}=:PORT` writes one for a local process)"
            )
        };
        problems.push(Problem {
            at: Some(subject.at("spec")),
            fix: Some(fix),
            ..problem(Severity::Error, Cause::NoSlice, text)
        });
    }
    problems
}

/// Slices that look as if they were meant: labelled with another name, without the label, or in another namespace.
fn slices_apart(subject: Subject<'_>) -> Option<Problem> {
    let name = subject.name();
    let mut here: Vec<&Object> = subject
        .objects(Kind::EndpointSlice)
        .map(AsRef::as_ref)
        .collect();
    here.sort_by_key(|object| !is_named_alike(object, name));
    if let Some(found) = here.iter().find_map(|object| misnamed(subject, object)) {
        return Some(found);
    }
    let apart = |object: &Object, path: &str, fix: String, what: &str| Problem {
        at: Some(place(&object.origin, path)),
        fix: Some(fix),
        ..problem(
            Severity::Error,
            Cause::NoSlice,
            format!("EndpointSlice {} {what}", object.key.name),
        )
    };
    if let Some(object) = here.iter().find(|object| service_of(object).is_none()) {
        let fix = format!("add `{SERVICE_NAME_LABEL}: {name}` to its labels");
        let what = format!("has no label {SERVICE_NAME_LABEL}, so it belongs to no Service");
        return Some(apart(object, "metadata.labels", fix, &what));
    }
    let mut all = objects_of(subject.view, Kind::EndpointSlice);
    let object = all.find(|object| service_of(object) == Some(name))?;
    let fix = format!("write `namespace: {}` in it", subject.namespace());
    let there = &object.key.namespace;
    let what = format!("names this Service, but is in namespace {there}");
    Some(apart(object, "metadata.namespace", fix, &what))
}

/// A slice whose label says another name than its own name, or one almost like the Service's that nobody has.
fn misnamed(subject: Subject<'_>, object: &Object) -> Option<Problem> {
    let name = subject.name();
    let other = service_of(object)?;
    let path = service_path(subject.namespace(), other);
    let is_orphan = !subject.view.world.services().contains_key(&*path);
    let is_near = is_orphan && closest(name, std::iter::once(&**other)).is_some();
    let is_stray = is_named_alike(object, name) && !is_named_alike(object, other);
    if !is_near && !is_stray {
        return None;
    }
    let missing = if is_orphan {
        ", which does not exist"
    } else {
        ""
    };
    let text = format!(
        "EndpointSlice {} belongs to Service \"{other}\"{missing}, by its label {SERVICE_NAME_LABEL}",
        object.key.name
    );
    Some(Problem {
        at: Some(place(&object.origin, "metadata.labels")),
        fix: Some(format!(
            "write `{SERVICE_NAME_LABEL}: {name}` in its labels"
        )),
        ..problem(Severity::Error, Cause::NoSlice, text)
    })
}

/// `web` and `web-1` for Service `web`.
fn is_named_alike(object: &Object, service: &str) -> bool {
    let rest = object.key.name.strip_prefix(service);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn service_of(object: &Object) -> Option<&Arc<str>> {
    match &object.spec {
        Spec::EndpointSlice(slice) => slice.service_name.as_ref(),
        _ => None,
    }
}

/// Slices of about this name that are not accepted.
fn rejected_slices(subject: Subject<'_>) -> Vec<Problem> {
    let path = subject.path();
    let slices = format!("{} {path}", Kind::EndpointSlice);
    let endpoints = format!("{} {path}", Kind::Endpoints);
    let findings = subject.view.world.diagnostics();
    let found = findings.into_iter().filter(|finding| {
        let about = finding.object.as_deref().unwrap_or_default();
        finding.severity == Severity::Error && (about.starts_with(&slices) || about == endpoints)
    });
    found
        .map(|finding| Problem {
            at: finding
                .position
                .map(|position| format!("{}:{}", finding.file, position.line)),
            fix: Some(format!(
                "correct it; `portico validate {}` shows the line",
                finding.file
            )),
            ..problem(
                Severity::Error,
                Cause::NoSlice,
                format!(
                    "{} is rejected: {}: {}",
                    finding.object.as_deref().unwrap_or_default(),
                    finding.path,
                    finding.message
                ),
            )
        })
        .collect()
}

/// How many pods and templates match, for the selector's line.
pub(super) fn summary(subject: Subject<'_>) -> String {
    let matching = subject.matching;
    let pods = matching.iter().filter(|of| of.kind == Kind::Pod).count();
    let workloads: Vec<String> = matching
        .iter()
        .filter(|of| of.kind != Kind::Pod)
        .map(Labelled::title)
        .collect();
    match workloads.as_slice() {
        [] => counted(pods, "pod"),
        some => format!("{}, {}", counted(pods, "pod"), few(some)),
    }
}
