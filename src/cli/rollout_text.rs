//! What `rollout status` and `rollout history` say of a workload. Owns kubectl's words, made from Kubernetes JSON; must
//! not fetch or print.

use std::collections::BTreeMap;

use portico_core::world::pods::CHANGE_CAUSE;
use serde_json::Value;

use super::describe::{
    json::{at, items, name, number, pairs, text},
    pod,
    workload::ReplicaSets,
    writer::Writer,
};
use crate::objects::Resource;

#[cfg(test)]
mod tests;

const REVISION: &str = "deployment.kubernetes.io/revision";

/// How far a rollout is, as a line without its line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutState {
    /// It goes on: kubectl prints the line and looks again.
    Waiting(String),
    /// It is through: exit code 0.
    Done(String),
    /// It will not get there: for standard error, exit code 1.
    Failed(String),
}

/// A revision of a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Its number, from 1.
    pub number: i64,
    /// `kubernetes.io/change-cause`; may be empty.
    pub change_cause: String,
    /// Its pod template.
    pub template: Value,
}

/// How far the rollout of a Deployment, DaemonSet or StatefulSet is; `revision` is the one that is wanted, if not just
/// the newest.
pub fn status(resource: Resource, object: &Value, revision: Option<i64>) -> RolloutState {
    match resource {
        Resource::Deployments => deployment(object, revision),
        Resource::DaemonSets => daemon_set(object),
        Resource::StatefulSets => stateful_set(object),
        other => RolloutState::Failed(format!(
            "error: no status viewer has been implemented for {}",
            kind(other)
        )),
    }
}

fn deployment(object: &Value, revision: Option<i64>) -> RolloutState {
    use RolloutState::{Done, Failed, Waiting};
    let of_status = |field: &str| number(object, &format!("/status/{field}"));
    let name = name(object);
    let running = pairs(object, "/metadata/annotations")
        .get(REVISION)
        .and_then(|text| text.parse::<i64>().ok())
        .unwrap_or(0);
    if let Some(wanted) = revision.filter(|wanted| *wanted > 0 && *wanted != running) {
        return Failed(format!(
            "error: desired revision ({wanted}) is different from the running revision ({running})"
        ));
    }
    if number(object, "/metadata/generation") > of_status("observedGeneration") {
        return Waiting("Waiting for deployment spec update to be observed...".into());
    }
    let late = items(object, "/status/conditions").iter().any(|one| {
        text(one, "/type") == "Progressing" && text(one, "/reason") == "ProgressDeadlineExceeded"
    });
    if late {
        return Failed(format!(
            "error: deployment \"{name}\" exceeded its progress deadline"
        ));
    }
    let wanted = at(object, "/spec/replicas").and_then(Value::as_i64);
    let (all, updated) = (of_status("replicas"), of_status("updatedReplicas"));
    let available = of_status("availableReplicas");
    let waiting = |what: String| {
        Waiting(format!(
            "Waiting for deployment \"{name}\" rollout to finish: {what}..."
        ))
    };
    match wanted {
        Some(wanted) if updated < wanted => waiting(format!(
            "{updated} out of {wanted} new replicas have been updated"
        )),
        _ if all > updated => waiting(format!(
            "{} old replicas are pending termination",
            all - updated
        )),
        _ if available < updated => waiting(format!(
            "{available} of {updated} updated replicas are available"
        )),
        _ => Done(format!("deployment \"{name}\" successfully rolled out")),
    }
}

fn daemon_set(object: &Value) -> RolloutState {
    use RolloutState::{Done, Waiting};
    if let Some(refused) = not_rolling(object) {
        return refused;
    }
    let of_status = |field: &str| number(object, &format!("/status/{field}"));
    let name = name(object);
    if number(object, "/metadata/generation") > of_status("observedGeneration") {
        return Waiting("Waiting for daemon set spec update to be observed...".into());
    }
    let desired = of_status("desiredNumberScheduled");
    let (updated, available) = (
        of_status("updatedNumberScheduled"),
        of_status("numberAvailable"),
    );
    if updated < desired {
        Waiting(format!(
            "Waiting for daemon set \"{name}\" rollout to finish: {updated} out of {desired} new pods have been \
             updated..."
        ))
    } else if available < desired {
        Waiting(format!(
            "Waiting for daemon set \"{name}\" rollout to finish: {available} of {desired} updated pods are available..."
        ))
    } else {
        Done(format!("daemon set \"{name}\" successfully rolled out"))
    }
}

fn stateful_set(object: &Value) -> RolloutState {
    use RolloutState::{Done, Waiting};
    if let Some(refused) = not_rolling(object) {
        return refused;
    }
    let of_status = |field: &str| number(object, &format!("/status/{field}"));
    let observed = of_status("observedGeneration");
    if observed == 0 || number(object, "/metadata/generation") > observed {
        return Waiting("Waiting for statefulset spec update to be observed...".into());
    }
    let replicas = number(object, "/spec/replicas");
    let (ready, updated) = (of_status("readyReplicas"), of_status("updatedReplicas"));
    if ready < replicas {
        return Waiting(format!(
            "Waiting for {} pods to be ready...",
            replicas - ready
        ));
    }
    if let Some(rolling) = at(object, "/spec/updateStrategy/rollingUpdate") {
        let wanted = replicas - number(rolling, "/partition");
        return if at(rolling, "/partition").is_some() && updated < wanted {
            Waiting(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {wanted} new pods have been updated..."
            ))
        } else {
            Done(format!(
                "partitioned roll out complete: {updated} new pods have been updated..."
            ))
        };
    }
    let current = text(object, "/status/currentRevision");
    let update = text(object, "/status/updateRevision");
    if update == current {
        Done(format!(
            "statefulset rolling update complete {} pods at revision {current}...",
            of_status("currentReplicas")
        ))
    } else {
        Waiting(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {update}..."
        ))
    }
}

fn not_rolling(object: &Value) -> Option<RolloutState> {
    let is_rolling = text(object, "/spec/updateStrategy/type") == "RollingUpdate";
    (!is_rolling).then(|| {
        let text = "error: rollout status is only available for RollingUpdate strategy type";
        RolloutState::Failed(text.into())
    })
}

/// The revisions of a Deployment: those of its ReplicaSets.
pub fn revisions(deployment: &Value, replica_sets: &[Value]) -> Vec<Revision> {
    let sets = ReplicaSets::of(deployment, replica_sets);
    let all = sets.old.into_iter().chain(sets.new);
    let revisions: BTreeMap<i64, Revision> = all
        .filter_map(|set| {
            let annotations = pairs(set, "/metadata/annotations");
            let number = annotations.get(REVISION).map_or(Ok(0), |text| text.parse());
            let number = number.ok()?;
            let template = at(set, "/spec/template")?;
            let cause = annotations.get(CHANGE_CAUSE).copied().unwrap_or_default();
            Some((number, revision(number, cause, template)))
        })
        .collect();
    revisions.into_values().collect()
}

/// A revision whose template carries the cause too, as kubectl shows it; a cause that is only there counts as well.
fn revision(number: i64, cause: &str, template: &Value) -> Revision {
    let mut template = template.clone();
    let of_template = || {
        pairs(&template, "/metadata/annotations")
            .get(CHANGE_CAUSE)
            .map(|it| (*it).to_owned())
    };
    let change_cause = if cause.is_empty() {
        of_template().unwrap_or_default()
    } else {
        cause.to_owned()
    };
    if !cause.is_empty()
        && let Some(template) = template.as_object_mut()
    {
        let metadata = template.entry("metadata").or_insert_with(empty);
        if let Some(metadata) = metadata.as_object_mut() {
            let annotations = metadata.entry("annotations").or_insert_with(empty);
            if let Some(annotations) = annotations.as_object_mut() {
                annotations.insert(CHANGE_CAUSE.to_owned(), cause.into());
            }
        }
    }
    Revision {
        number,
        change_cause,
        template,
    }
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

/// All that `rollout history` prints of a Deployment, line breaks included.
///
/// # Errors
/// The revision that is wanted does not exist, in kubectl's words.
pub fn history(
    deployment: &Value,
    replica_sets: &[Value],
    wanted: Option<i64>,
) -> Result<String, String> {
    let revisions = revisions(deployment, replica_sets);
    history_of(Resource::Deployments, name(deployment), &revisions, wanted)
}

/// As [`history`], for any workload whose revisions are known; in any order.
///
/// # Errors
/// The revision that is wanted does not exist, or the kind has no history, in kubectl's words.
pub fn history_of(
    resource: Resource,
    name: &str,
    revisions: &[Revision],
    wanted: Option<i64>,
) -> Result<String, String> {
    let has_causes = match resource {
        Resource::Deployments | Resource::DaemonSets => true,
        Resource::StatefulSets => false,
        other => {
            let kind = kind(other);
            return Err(format!(
                "error: no history viewer has been implemented for \"{kind}\""
            ));
        }
    };
    let wanted = wanted.filter(|wanted| *wanted != 0);
    if let Some(wanted) = wanted.filter(|wanted| *wanted < 0) {
        return Err(format!(
            "error: revision must be a positive integer: {wanted}"
        ));
    }
    let of_wanted = wanted.map(|wanted| format!("with revision #{wanted}"));
    let header = format!(
        "{}/{name} {}",
        resource.qualified_singular(),
        of_wanted.unwrap_or_default()
    );
    let body = match wanted {
        _ if revisions.is_empty() => "No rollout history found.".to_owned(),
        Some(wanted) => {
            let found = revisions.iter().find(|one| one.number == wanted);
            let found = found.ok_or("error: unable to find the specified revision")?;
            let mut out = Writer::default();
            pod::template(&mut out, Some(&found.template));
            // kubectl does not align this one: the tabs are part of what it prints.
            out.raw()
        }
        None => table(revisions, has_causes),
    };
    Ok(format!("{header}\n{body}\n"))
}

fn table(revisions: &[Revision], has_causes: bool) -> String {
    let mut sorted: Vec<&Revision> = revisions.iter().collect();
    sorted.sort_by_key(|revision| revision.number);
    let mut out = Writer::default();
    out.line(
        0,
        if has_causes {
            "REVISION\tCHANGE-CAUSE"
        } else {
            "REVISION"
        },
    );
    for revision in sorted {
        let cause = match revision.change_cause.as_str() {
            "" => "<none>",
            cause => cause,
        };
        if has_causes {
            out.line(0, format_args!("{}\t{cause}", revision.number));
        } else {
            out.line(0, revision.number);
        }
    }
    out.tabbed()
}

/// `ReplicaSet.apps`, `Pod`.
fn kind(resource: Resource) -> String {
    match resource.group() {
        "" => resource.kind().to_owned(),
        group => format!("{}.{group}", resource.kind()),
    }
}
