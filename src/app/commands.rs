//! Carrying out what people ask for at run time. Owns which object a command concerns and how it refuses, in
//! kubectl's words; what a changed object means is the world's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use portico_core::{
    object::{Kind, Labels, Object, ObjectKey, Spec, validate},
    time::Timestamp,
    world::{
        World,
        pods::{PodCommand, PodKey, Revision, SimulatedPod, replica_sets, revisions},
    },
};

use crate::{
    control::command::{self, Command, CommandError, Done, OverrideLine, Target},
    objects::Resource,
    source::overrides::{Edit, OverrideError, Overrides},
};

/// What a command reads and changes.
pub(super) struct Office<'a> {
    pub(super) world: &'a World,
    pub(super) overrides: &'a mut Overrides,
    pub(super) pod_commands: &'a mut Vec<PodCommand>,
    pub(super) simulated: bool,
    pub(super) now: Timestamp,
}

type Changes = BTreeMap<String, Option<String>>;

/// Labels or annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pairs {
    Labels,
    Annotations,
}

impl Office<'_> {
    /// Carries out `command`; its effect is there after the next round.
    pub(super) fn carry_out(&mut self, command: Command) -> Result<Done, CommandError> {
        match command {
            Command::Scale {
                target,
                replicas,
                current,
            } => self.scale(&target, replicas, current),
            Command::SetImage { target, images } => self.set_image(&target, images),
            Command::Restart { target } => self.restart(&target),
            Command::Pause { target, paused } => self.pause(&target, paused),
            Command::Undo {
                target,
                to_revision,
            } => self.undo(&target, to_revision),
            Command::Label {
                target,
                changes,
                overwrite,
            } => self.write_pairs(&target, Pairs::Labels, changes, overwrite),
            Command::Annotate {
                target,
                changes,
                overwrite,
            } => self.write_pairs(&target, Pairs::Annotations, changes, overwrite),
            Command::DeletePod {
                namespace,
                name,
                grace_seconds,
            } => {
                let pod = self.simulated_pod(&namespace, &name)?;
                let grace = grace_seconds.map(Duration::from_secs);
                self.pod_commands.push(PodCommand::Delete { pod, grace });
                Ok(done("deleted"))
            }
            Command::Fault {
                namespace,
                name,
                fault,
                failing,
            } => {
                let pod = self.simulated_pod(&namespace, &name)?;
                self.pod_commands.push(PodCommand::Fault {
                    pod,
                    fault,
                    failing,
                });
                Ok(done(if failing { "failing" } else { "healed" }))
            }
            Command::Reset { target } => Ok(self.reset(target.as_ref())),
        }
    }

    fn scale(
        &mut self,
        target: &Target,
        replicas: u32,
        current: Option<u32>,
    ) -> Result<Done, CommandError> {
        let scalable = [
            Resource::Deployments,
            Resource::ReplicaSets,
            Resource::StatefulSets,
        ];
        if !scalable.contains(&target.resource) {
            return Err(CommandError::Refused(format!(
                "error: cannot scale a {}: it has no replicas",
                target.resource.singular()
            )));
        }
        let object = self.declared(target)?;
        if let (Some(expected), Some(Spec::Workload(workload))) = (
            current,
            self.in_force(&object.key).map(|object| &object.spec),
        ) && workload.replicas != expected
        {
            return Err(CommandError::Refused(format!(
                "error: Expected replicas to be {expected}, was {}",
                workload.replicas
            )));
        }
        self.write(&object, Edit::Replicas(replicas))?;
        Ok(self.about_pods("scaled"))
    }

    fn set_image(
        &mut self,
        target: &Target,
        images: Vec<(String, String)>,
    ) -> Result<Done, CommandError> {
        let object = self.declared(target)?;
        if !matches!(object.spec, Spec::Workload(_) | Spec::Pod(_)) {
            return Err(CommandError::Refused(format!(
                "error: a {} has no containers",
                target.resource.singular()
            )));
        }
        let before = self
            .in_force(&object.key)
            .map(|object| Arc::clone(&object.manifest));
        let mut after = None;
        for (container, image) in images {
            let changed = self.write(&object, Edit::Image { container, image })?;
            after = Some(spec_text(&changed));
        }
        let before = before.map(|text| spec_part(&text));
        if before == after {
            return Ok(done("image unchanged"));
        }
        Ok(self.about_pods("image updated"))
    }

    fn restart(&mut self, target: &Target) -> Result<Done, CommandError> {
        let object = self.declared(target)?;
        let Some(Spec::Workload(workload)) = self.in_force(&object.key).map(|object| &object.spec)
        else {
            return Err(CommandError::Refused(format!(
                "error: {} \"{}\": restarting is not supported",
                target.resource.plural(),
                target.name
            )));
        };
        if workload.paused {
            return Err(CommandError::Refused(format!(
                "error: {} \"{}\" is paused: resume it first with `portico rollout resume {}`",
                target.resource.plural(),
                target.name,
                target.display()
            )));
        }
        let time = crate::objects::time::rfc3339(self.now);
        self.write(&object, Edit::RestartedAt(time))?;
        Ok(self.about_pods("restarted"))
    }

    fn pause(&mut self, target: &Target, paused: bool) -> Result<Done, CommandError> {
        let object = self.declared(target)?;
        let Some(Spec::Workload(workload)) = self.in_force(&object.key).map(|object| &object.spec)
        else {
            return Err(CommandError::not_found(target));
        };
        let word = if paused { "paused" } else { "resumed" };
        if target.resource != Resource::Deployments {
            return Err(CommandError::Refused(format!(
                "error: {} \"{}\": only a deployment can be {word}",
                target.resource.plural(),
                target.name
            )));
        }
        if workload.paused == paused {
            let already = if paused {
                "already paused"
            } else {
                "not paused"
            };
            return Err(CommandError::Refused(format!(
                "error: deployments.apps \"{}\" is {already}",
                target.name
            )));
        }
        self.write(&object, Edit::Paused(paused))?;
        Ok(done(word))
    }

    /// Writes the template of a former revision over the Deployment; the controller renumbers that revision.
    fn undo(&mut self, target: &Target, to_revision: u64) -> Result<Done, CommandError> {
        let object = self.declared(target)?;
        let Some(Spec::Workload(workload)) = self.in_force(&object.key).map(|object| &object.spec)
        else {
            return Err(CommandError::not_found(target));
        };
        if workload.paused {
            return Err(CommandError::Refused(format!(
                "error: you cannot rollback a paused deployment; resume it first with \
                 `portico rollout resume {}` and try again",
                target.display()
            )));
        }
        let hash = workload.template.hash;
        let revision = self.former_revision(target, to_revision)?;
        if revision.template.hash == hash {
            return Ok(done(&format!(
                "skipped rollback (current template already matches revision {})",
                revision.revision
            )));
        }
        let edit = Edit::Template {
            manifest: Arc::clone(&revision.template.manifest),
            revision: revision.revision,
            change_cause: revision.change_cause,
        };
        self.write(&object, edit)?;
        Ok(self.about_pods("rolled back"))
    }

    fn former_revision(&self, target: &Target, to_revision: u64) -> Result<Revision, CommandError> {
        let key = key_of(target).ok_or_else(|| CommandError::not_found(target))?;
        let revisions = revisions(self.world.pods(), &key);
        let found = match to_revision {
            0 => revisions.into_iter().nth_back(1),
            wanted => revisions.into_iter().find(|set| set.revision == wanted),
        };
        found.ok_or_else(|| {
            CommandError::Refused(match to_revision {
                0 => format!(
                    "error: no rollout history found for {} \"{}\"",
                    target.resource.singular(),
                    target.name
                ),
                wanted => format!("error: unable to find specified revision {wanted} in history"),
            })
        })
    }

    fn write_pairs(
        &mut self,
        target: &Target,
        pairs: Pairs,
        changes: Changes,
        overwrite: bool,
    ) -> Result<Done, CommandError> {
        let simulated = self.owned_pod(target);
        let before = if let Some(pod) = &simulated {
            match pairs {
                Pairs::Labels => pod.labels.clone(),
                Pairs::Annotations => pod.annotations.clone(),
            }
        } else {
            let key = self.declared(target)?.key.clone();
            let meta = self.in_force(&key).map(|object| &object.meta);
            let of = |meta: &portico_core::object::Meta| match pairs {
                Pairs::Labels => meta.labels.clone(),
                Pairs::Annotations => meta.annotations.clone(),
            };
            meta.map(of).unwrap_or_default()
        };
        if let Some(refusal) = overwritten(&before, &changes).filter(|_| !overwrite) {
            return Err(CommandError::Refused(refusal));
        }
        let changes = effective(&before, changes);
        let word = match pairs {
            Pairs::Labels => "labeled",
            Pairs::Annotations => "annotated",
        };
        if changes.is_empty() {
            return Ok(done(&format!("not {word}")));
        }
        let only_removed = changes.values().all(Option::is_none);
        self.write_changes(target, pairs, changes, simulated)?;
        let verb = match pairs {
            Pairs::Labels if only_removed => "unlabeled",
            _ => word,
        };
        Ok(done(verb))
    }

    fn write_changes(
        &mut self,
        target: &Target,
        pairs: Pairs,
        changes: Changes,
        simulated: Option<Arc<SimulatedPod>>,
    ) -> Result<(), CommandError> {
        let Some(pod) = simulated else {
            let object = self.declared(target)?;
            let edit = match pairs {
                Pairs::Labels => Edit::Labels(changes),
                Pairs::Annotations => Edit::Annotations(changes),
            };
            return self.write(&object, edit).map(drop);
        };
        if let Some(refusal) = unacceptable(&pod, pairs, &changes) {
            return Err(CommandError::Refused(refusal));
        }
        let changes = changes
            .into_iter()
            .map(|(key, value)| (key.into(), value.map(Into::into)))
            .collect();
        let pod: PodKey = (Arc::clone(&pod.namespace), Arc::clone(&pod.name));
        self.pod_commands.push(match pairs {
            Pairs::Labels => PodCommand::Label { pod, changes },
            Pairs::Annotations => PodCommand::Annotate { pod, changes },
        });
        Ok(())
    }

    fn reset(&mut self, target: Option<&Target>) -> Done {
        let key = target.and_then(key_of);
        let objects = if target.is_some() && key.is_none() {
            Vec::new()
        } else {
            self.overrides.reset(key.as_ref())
        };
        let mut count = objects.len();
        let pod = target.map(|target| (Arc::from(&*target.namespace), Arc::from(&*target.name)));
        let is_pod = target.is_none_or(|target| target.resource == Resource::Pods);
        if is_pod {
            let changed = super::overrides::of_pods(self.world);
            count += changed
                .iter()
                .filter(|line| target.is_none_or(|target| line.target == *target))
                .map(|line| &line.target)
                .collect::<std::collections::BTreeSet<_>>()
                .len();
            self.pod_commands.push(PodCommand::Reset { pod });
        }
        done(&format!("{count} reset"))
    }

    /// The object as its file declares it: what overrides are written over.
    fn declared(&self, target: &Target) -> Result<Arc<Object>, CommandError> {
        let key = key_of(target).ok_or_else(|| CommandError::not_found(target))?;
        if let Some(object) = self.world.declared(&key) {
            return Ok(Arc::clone(object));
        }
        let owner = self.set_of_deployment(target);
        Err(match owner {
            Some(deployment) => CommandError::Refused(format!(
                "error: {} belongs to deployment.apps/{deployment}, which would undo that: change the deployment",
                target.display()
            )),
            None => CommandError::not_found(target),
        })
    }

    fn set_of_deployment(&self, target: &Target) -> Option<Arc<str>> {
        if target.resource != Resource::ReplicaSets {
            return None;
        }
        let mut sets = replica_sets(self.world.pods(), self.now).into_iter();
        sets.find(|set| *set.namespace == target.namespace && *set.name == target.name)?
            .deployment
    }

    fn in_force(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.world.object(key)
    }

    /// A simulated pod that a controller made: it has no document to write over.
    fn owned_pod(&self, target: &Target) -> Option<Arc<SimulatedPod>> {
        if target.resource != Resource::Pods {
            return None;
        }
        let key: PodKey = (Arc::from(&*target.namespace), Arc::from(&*target.name));
        let declared = key_of(target).and_then(|key| self.world.declared(&key));
        let pod = self.world.pods().pods.get(&key)?;
        declared.is_none().then(|| Arc::clone(pod))
    }

    fn simulated_pod(&self, namespace: &str, name: &str) -> Result<PodKey, CommandError> {
        let key: PodKey = (namespace.into(), name.into());
        if self.world.pods().pods.contains_key(&key) {
            return Ok(key);
        }
        let target = Target {
            resource: Resource::Pods,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let declared = key_of(&target).and_then(|key| self.world.object(&key));
        Err(match declared {
            Some(object) => CommandError::Refused(format!(
                "error: pod \"{name}\" is given by {}:{} and not simulated here; change it there",
                object.origin.file, object.origin.position.line
            )),
            None => CommandError::not_found(&target),
        })
    }

    fn write(&mut self, object: &Arc<Object>, edit: Edit) -> Result<Arc<Object>, CommandError> {
        self.overrides
            .apply(object, edit, self.now)
            .map_err(|error| match error {
                OverrideError::NotThere(text) if text.starts_with("error: ") => {
                    CommandError::Refused(text)
                }
                OverrideError::NotThere(text) | OverrideError::Invalid(text) => {
                    CommandError::Refused(format!("error: {text}"))
                }
            })
    }

    fn about_pods(&self, verb: &str) -> Done {
        let note = "no pods follow: they are not simulated (start portico with --simulate)";
        Done {
            verb: verb.to_owned(),
            warning: (!self.simulated).then(|| note.to_owned()),
        }
    }
}

fn done(verb: &str) -> Done {
    Done {
        verb: verb.to_owned(),
        warning: None,
    }
}

/// The first key that has another value already, as kubectl refuses it.
fn overwritten(before: &Labels, changes: &Changes) -> Option<String> {
    changes.iter().find_map(|(key, value)| {
        let (now, value) = (before.get(&**key)?, value.as_ref()?);
        (**now != **value).then(|| {
            format!("error: '{key}' already has a value ({now}), and --overwrite is false")
        })
    })
}

/// The first label or annotation that the API server would refuse, in its words.
fn unacceptable(pod: &SimulatedPod, pairs: Pairs, changes: &Changes) -> Option<String> {
    let given = changes
        .iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?)));
    let mut faults = given.filter_map(|(key, value)| match pairs {
        Pairs::Labels => validate::pair_fault(key, Some(value)),
        Pairs::Annotations => validate::pair_fault(key, None),
    });
    let (text, why) = faults.next()?;
    let field = match pairs {
        Pairs::Labels => "labels",
        Pairs::Annotations => "annotations",
    };
    Some(format!(
        "error: The Pod \"{}\" is invalid: metadata.{field}: Invalid value: \"{text}\": {why}",
        pod.name
    ))
}

/// Changes that change something.
fn effective(before: &Labels, changes: Changes) -> Changes {
    changes
        .into_iter()
        .filter(|(key, value)| before.get(&**key).map(AsRef::as_ref) != value.as_deref())
        .collect()
}

fn spec_text(object: &Object) -> Option<String> {
    spec_part(&object.manifest)
}

fn spec_part(manifest: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(manifest).ok()?;
    Some(document.get("spec")?.to_string())
}

/// The identity of a declared object; events have none.
pub(super) fn key_of(target: &Target) -> Option<ObjectKey> {
    let namespace = if target.resource.is_namespaced() {
        &*target.namespace
    } else {
        ""
    };
    Some(ObjectKey {
        kind: Kind::named(target.resource.kind())?,
        namespace: namespace.into(),
        name: target.name.as_str().into(),
    })
}

/// All overrides: those over declarations, then those of simulated pods.
pub(super) fn lines(overrides: &Overrides, world: &World) -> Vec<OverrideLine> {
    let declared = overrides.lines().into_iter().filter_map(|line| {
        let resource = Resource::named(line.key.kind.plural())?;
        Some(OverrideLine {
            target: Target {
                resource,
                namespace: line.key.namespace.to_string(),
                name: line.key.name.to_string(),
            },
            change: line.change,
            since_ms: Some(line.since.as_millis()),
        })
    });
    declared.chain(super::overrides::of_pods(world)).collect()
}

/// The revisions of a workload, oldest first.
pub(super) fn revisions_of(world: &World, target: &Target) -> Vec<command::Revision> {
    let found = key_of(target).map(|key| revisions(world.pods(), &key));
    let revision = |one: Revision| command::Revision {
        revision: i64::try_from(one.revision).unwrap_or(i64::MAX),
        change_cause: one.change_cause.as_deref().unwrap_or_default().to_owned(),
        template: serde_json::from_str(&one.template.manifest).unwrap_or_default(),
    };
    found.into_iter().flatten().map(revision).collect()
}
