//! Changes that people make at run time: a number of replicas, an image, a former template, labels. Owns them as a
//! Source of its own that lies over the declarations, each until its document is edited, until it is reset, or until
//! the end of the run; nothing is written to the user's files.
//!
//! An override keeps the text it was made over. A declaration with another text (positions and comments do not count)
//! is an edit, and the override goes.

use std::{collections::BTreeMap, sync::Arc};

use portico_core::{
    object::{Object, ObjectKey, annotations::OVERRIDES, diagnostic::Severity},
    time::Timestamp,
    world::{Layer, Shard, SourceReport, SourceView, pods::CHANGE_CAUSE},
};
use serde_json::{Map, Value};

use super::manifest::{self, ManifestSettings, Strictness};

/// Where the pod template of a workload is.
const TEMPLATE: &str = "/spec/template";

/// What `rollout restart` writes into the template, as kubectl does.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// What to write over a declaration.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// `spec.replicas`.
    Replicas(u32),
    /// The image of a container.
    Image {
        /// Its name.
        container: String,
        /// Its new image.
        image: String,
    },
    /// `spec.template` as it was in a revision.
    Template {
        /// The template as JSON.
        manifest: Arc<str>,
        /// Which revision that was.
        revision: u64,
        /// Its change cause.
        change_cause: Option<Arc<str>>,
    },
    /// A new revision of the same template.
    RestartedAt(String),
    /// `spec.paused`.
    Paused(bool),
    /// Labels of the object: `None` takes one away.
    Labels(BTreeMap<String, Option<String>>),
    /// Annotations of the object: `None` takes one away.
    Annotations(BTreeMap<String, Option<String>>),
}

/// Why an edit is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// The object's kind has no such field, or no such container.
    #[error("{0}")]
    NotThere(String),
    /// The result breaks a rule of the API.
    #[error("{0}")]
    Invalid(String),
}

/// One object with what was written over it.
#[derive(Debug)]
struct Held {
    /// The declaration's text.
    base: Arc<str>,
    edits: Vec<(Edit, Timestamp)>,
    object: Arc<Object>,
}

/// One line of the list of overrides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The object.
    pub key: ObjectKey,
    /// What was changed, as in `replicas=5`.
    pub change: String,
    /// When.
    pub since: Timestamp,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Overrides {
    held: BTreeMap<ObjectKey, Held>,
    view: SourceView,
}

impl Overrides {
    /// None yet.
    pub fn new() -> Self {
        Self {
            held: BTreeMap::new(),
            view: SourceView {
                layer: Layer::Override,
                ..SourceView::default()
            },
        }
    }

    /// Writes `edit` over `declared`, on top of what was written over it before.
    ///
    /// # Errors
    /// Says what of the object does not allow it; nothing changes then.
    pub fn apply(
        &mut self,
        declared: &Arc<Object>,
        edit: Edit,
        now: Timestamp,
    ) -> Result<Arc<Object>, OverrideError> {
        let mut edits = self
            .held
            .get(&declared.key)
            .filter(|held| held.base == declared.manifest)
            .map(|held| held.edits.clone())
            .unwrap_or_default();
        edits.retain(|(before, _)| !edit.replaces(before));
        edits.push((edit, now));
        let object = over(declared, &edits)?;
        let held = Held {
            base: Arc::clone(&declared.manifest),
            edits,
            object: Arc::clone(&object),
        };
        self.held.insert(declared.key.clone(), held);
        self.renew();
        Ok(object)
    }

    /// Drops the overrides of objects that were edited or are gone; says which.
    pub fn refresh<'w>(
        &mut self,
        declared: impl Fn(&ObjectKey) -> Option<&'w Arc<Object>>,
    ) -> Vec<ObjectKey> {
        let stale = |(key, held): (&ObjectKey, &Held)| {
            let same = declared(key).is_some_and(|object| object.manifest == held.base);
            (!same).then(|| key.clone())
        };
        let gone: Vec<ObjectKey> = self.held.iter().filter_map(stale).collect();
        for key in &gone {
            self.held.remove(key);
        }
        if !gone.is_empty() {
            self.renew();
        }
        gone
    }

    /// Takes back what was written over one object, or over all; says over which.
    pub fn reset(&mut self, only: Option<&ObjectKey>) -> Vec<ObjectKey> {
        let keys = self
            .held
            .keys()
            .filter(|key| only.is_none_or(|only| only == *key));
        let gone: Vec<ObjectKey> = keys.cloned().collect();
        for key in &gone {
            self.held.remove(key);
        }
        if !gone.is_empty() {
            self.renew();
        }
        gone
    }

    /// The newest view.
    pub fn report(&self) -> SourceReport {
        SourceReport::Synced(self.view.clone())
    }

    /// What is written over what, sorted by object.
    pub fn lines(&self) -> Vec<Line> {
        let lines = self.held.iter().flat_map(|(key, held)| {
            held.edits.iter().map(|(edit, since)| Line {
                key: key.clone(),
                change: edit.to_string(),
                since: *since,
            })
        });
        lines.collect()
    }

    /// A shard an object, so that an unchanged one is the same `Arc`.
    fn renew(&mut self) {
        let before = std::mem::take(&mut self.view.shards);
        for (key, held) in &self.held {
            let name: Arc<str> = key.to_string().into();
            let same = before.get(&name).filter(|shard| {
                let mut objects = shard.objects.iter();
                objects
                    .next()
                    .is_some_and(|object| Arc::ptr_eq(object, &held.object))
            });
            let shard = same.cloned().unwrap_or_else(|| {
                Arc::new(Shard {
                    objects: vec![Arc::clone(&held.object)],
                    diagnostics: Vec::new(),
                })
            });
            self.view.shards.insert(name, shard);
        }
    }
}

/// `declared` with `edits` written over it, decoded and validated as any manifest.
fn over(declared: &Arc<Object>, edits: &[(Edit, Timestamp)]) -> Result<Arc<Object>, OverrideError> {
    let unreadable = |error: serde_json::Error| OverrideError::Invalid(error.to_string());
    let mut document: Value = serde_json::from_str(&declared.manifest).map_err(unreadable)?;
    for (edit, _) in edits {
        edit.write(declared, &mut document)?;
    }
    let said: Vec<String> = edits.iter().map(|(edit, _)| edit.to_string()).collect();
    let note = BTreeMap::from([(OVERRIDES.to_owned(), Some(said.join(", ")))]);
    write_pairs(&mut document, "/metadata", "annotations", &note)?;
    let settings = ManifestSettings {
        namespace: Arc::clone(&declared.key.namespace),
        strictness: Strictness::Lenient,
    };
    let loaded = manifest::load(
        &Arc::from("overrides"),
        &document.to_string(),
        &settings,
        None,
    );
    let errors: Vec<String> = loaded
        .shard
        .diagnostics
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| format!("{}: {}", finding.path, finding.message))
        .collect();
    match loaded.shard.objects.first() {
        Some(object) if errors.is_empty() => {
            let mut object = Object::clone(object);
            // Findings about what is left of the declaration belong to its file.
            object.origin = declared.origin.clone();
            Ok(Arc::new(object))
        }
        _ => Err(OverrideError::Invalid(format!(
            "The {} \"{}\" is invalid: {}",
            declared.key.kind,
            declared.key.name,
            errors.join(", ")
        ))),
    }
}

impl Edit {
    /// Whether this edit makes an earlier one meaningless.
    fn replaces(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Replicas(_), Self::Replicas(_))
            | (Self::Paused(_), Self::Paused(_))
            | (Self::RestartedAt(_), Self::RestartedAt(_))
            | (
                Self::Template { .. },
                Self::Template { .. } | Self::Image { .. } | Self::RestartedAt(_),
            ) => true,
            (
                Self::Image { container, .. },
                Self::Image {
                    container: other, ..
                },
            ) => container == other,
            (Self::Labels(now), Self::Labels(then))
            | (Self::Annotations(now), Self::Annotations(then)) => {
                then.keys().all(|key| now.contains_key(key))
            }
            _ => false,
        }
    }

    fn write(&self, declared: &Object, document: &mut Value) -> Result<(), OverrideError> {
        match self {
            Self::Replicas(replicas) => set(document, "/spec", "replicas", Value::from(*replicas)),
            Self::Paused(paused) => set(document, "/spec", "paused", Value::from(*paused)),
            Self::Image { container, image } => write_image(declared, document, container, image),
            Self::Template {
                manifest,
                change_cause,
                ..
            } => {
                let template = serde_json::from_str(manifest)
                    .map_err(|error| OverrideError::Invalid(error.to_string()))?;
                set(document, "/spec", "template", template)?;
                let cause = change_cause.as_deref().map(str::to_owned);
                let pairs = BTreeMap::from([(CHANGE_CAUSE.to_owned(), cause)]);
                write_pairs(document, "/metadata", "annotations", &pairs)
            }
            Self::RestartedAt(time) => {
                let pairs = BTreeMap::from([(RESTARTED_AT.to_owned(), Some(time.clone()))]);
                if document.pointer("/spec/template/metadata").is_none() {
                    set(document, TEMPLATE, "metadata", Value::Object(Map::new()))?;
                }
                write_pairs(document, "/spec/template/metadata", "annotations", &pairs)
            }
            Self::Labels(pairs) => write_pairs(document, "/metadata", "labels", pairs),
            Self::Annotations(pairs) => write_pairs(document, "/metadata", "annotations", pairs),
        }
    }
}

impl std::fmt::Display for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Replicas(replicas) => write!(f, "replicas={replicas}"),
            Self::Image { container, image } => write!(f, "image {container}={image}"),
            Self::Template { revision, .. } => write!(f, "template of revision {revision}"),
            Self::RestartedAt(time) => write!(f, "restarted at {time}"),
            Self::Paused(paused) => write!(f, "paused={paused}"),
            Self::Labels(pairs) => write_changes(f, "label", pairs),
            Self::Annotations(pairs) => write_changes(f, "annotation", pairs),
        }
    }
}

fn write_changes(
    f: &mut std::fmt::Formatter<'_>,
    what: &str,
    pairs: &BTreeMap<String, Option<String>>,
) -> std::fmt::Result {
    for (index, (key, value)) in pairs.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        match value {
            Some(value) => write!(f, "{separator}{what} {key}={value}")?,
            None => write!(f, "{separator}{what} {key}-")?,
        }
    }
    Ok(())
}

fn set(document: &mut Value, at: &str, field: &str, value: Value) -> Result<(), OverrideError> {
    let Some(Value::Object(fields)) = document.pointer_mut(at) else {
        return Err(OverrideError::NotThere(format!(
            "the object has no {}",
            path(at)
        )));
    };
    fields.insert(field.to_owned(), value);
    Ok(())
}

/// Sets and takes away entries of a map of texts, which is made if it is not there.
fn write_pairs(
    document: &mut Value,
    at: &str,
    field: &str,
    pairs: &BTreeMap<String, Option<String>>,
) -> Result<(), OverrideError> {
    let Some(Value::Object(fields)) = document.pointer_mut(at) else {
        return Err(OverrideError::NotThere(format!(
            "the object has no {}",
            path(at)
        )));
    };
    let map = fields
        .entry(field)
        .or_insert_with(|| Value::Object(Map::new()));
    if !map.is_object() {
        *map = Value::Object(Map::new());
    }
    if let Value::Object(map) = map {
        for (key, value) in pairs {
            match value {
                Some(value) => drop(map.insert(key.clone(), Value::from(value.clone()))),
                None => drop(map.shift_remove(key)),
            }
        }
    }
    Ok(())
}

/// `*` means every container, as for `kubectl set image`.
fn write_image(
    declared: &Object,
    document: &mut Value,
    container: &str,
    image: &str,
) -> Result<(), OverrideError> {
    let pod = if document.pointer(TEMPLATE).is_some() {
        "/spec/template/spec"
    } else {
        "/spec"
    };
    let mut found = false;
    for list in ["containers", "initContainers"] {
        let Some(Value::Array(items)) = document.pointer_mut(&format!("{pod}/{list}")) else {
            continue;
        };
        for item in items {
            let is_meant =
                container == "*" || item.get("name").and_then(Value::as_str) == Some(container);
            if let (true, Value::Object(fields)) = (is_meant, item) {
                fields.insert("image".into(), image.into());
                found = true;
            }
        }
    }
    if found {
        return Ok(());
    }
    Err(OverrideError::NotThere(format!(
        "error: unable to find container named \"{container}\" in {} \"{}\"",
        declared.key.kind.as_str().to_lowercase(),
        declared.key.name
    )))
}

fn path(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

#[cfg(test)]
mod tests;
