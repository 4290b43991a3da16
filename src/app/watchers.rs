//! Who watches objects, and what they were told last. Owns the comparison; must not make objects.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::objects::{self, Resource, View};

/// Namespace and name.
type Key = (String, String);

/// One watch of one resource.
#[derive(Debug)]
struct Watcher {
    resource: Resource,
    told: BTreeMap<Key, Value>,
    lines: mpsc::Sender<String>,
}

/// Everybody who watches. Who does not read is dropped: a watch must not make control wait.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    watchers: Vec<Watcher>,
}

impl Watchers {
    /// Whether nobody watches.
    pub(super) const fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Tells `lines` of every object, and from then on of every change, one JSON value a line.
    pub(super) fn add(&mut self, resource: Resource, lines: mpsc::Sender<String>, view: View<'_>) {
        let mut watcher = Watcher {
            resource,
            told: BTreeMap::new(),
            lines,
        };
        // An empty text says at least that the watch has begun.
        let begun = watcher.lines.try_send(String::new()).is_ok();
        if begun && watcher.tell(&objects::list(view, resource)) {
            self.watchers.push(watcher);
        }
    }

    /// Tells everybody what changed.
    pub(super) fn update(&mut self, view: View<'_>) {
        if self.watchers.is_empty() {
            return;
        }
        let mut listed: BTreeMap<Resource, Vec<Value>> = BTreeMap::new();
        self.watchers.retain_mut(|watcher| {
            let resource = watcher.resource;
            let objects = listed
                .entry(resource)
                .or_insert_with(|| objects::list(view, resource));
            watcher.tell(objects)
        });
    }
}

impl Watcher {
    /// False when nobody listens any more.
    fn tell(&mut self, objects: &[Value]) -> bool {
        let mut text = String::new();
        let mut gone = std::mem::take(&mut self.told);
        for object in objects {
            let Some(key) = key_of(object) else { continue };
            match gone.remove(&key) {
                None => write_event(&mut text, "ADDED", object),
                Some(before) if is_same(&before, object) => {}
                Some(_) => write_event(&mut text, "MODIFIED", object),
            }
            self.told.insert(key, object.clone());
        }
        for object in gone.values() {
            write_event(&mut text, "DELETED", object);
        }
        if text.is_empty() {
            return !self.lines.is_closed();
        }
        self.lines.try_send(text).is_ok()
    }
}

fn key_of(object: &Value) -> Option<Key> {
    let meta = object.get("metadata")?;
    let text = |field: &str| meta.get(field).and_then(Value::as_str);
    // Pods of the same name are different pods.
    let name = format!("{}/{}", text("name")?, text("uid").unwrap_or_default());
    Some((text("namespace").unwrap_or_default().to_owned(), name))
}

/// Whether nothing but the version differs, which rises with every generation.
fn is_same(before: &Value, after: &Value) -> bool {
    fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
        value.as_object().into_iter().flatten()
    }
    fields(before)
        .map(|(key, _)| key)
        .eq(fields(after).map(|(key, _)| key))
        && fields(before)
            .zip(fields(after))
            .all(|((key, before), (_, after))| {
                if key != "metadata" {
                    return before == after;
                }
                let counts = |(field, _): &(&String, &Value)| *field != "resourceVersion";
                fields(before)
                    .filter(counts)
                    .eq(fields(after).filter(counts))
            })
}

fn write_event(text: &mut String, kind: &str, object: &Value) {
    text.push_str(&json!({"type": kind, "object": object}).to_string());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, version: &str, phase: &str) -> Value {
        json!({"metadata": {"namespace": "default", "name": name, "uid": name, "resourceVersion": version}, "phase": phase})
    }

    fn kinds(lines: &mut mpsc::Receiver<String>) -> Vec<(String, String)> {
        let Ok(text) = lines.try_recv() else {
            return Vec::new();
        };
        let event = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap();
            let text = |pointer| {
                value
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap()
                    .to_owned()
            };
            (text("/type"), text("/object/metadata/name"))
        };
        text.lines().map(event).collect()
    }

    #[test]
    fn tell_says_what_came_changed_and_went_and_a_new_version_is_no_change() {
        let (sender, mut lines) = mpsc::channel(8);
        let mut watcher = Watcher {
            resource: Resource::Pods,
            told: BTreeMap::new(),
            lines: sender,
        };
        let said = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
        assert!(watcher.tell(&[pod("a", "1", "Pending"), pod("b", "1", "Pending")]));
        assert_eq!(kinds(&mut lines), [said("ADDED", "a"), said("ADDED", "b")]);
        assert!(watcher.tell(&[pod("a", "2", "Running"), pod("b", "2", "Pending")]));
        assert_eq!(kinds(&mut lines), [said("MODIFIED", "a")]);
        assert!(watcher.tell(&[pod("a", "3", "Running")]));
        assert_eq!(kinds(&mut lines), [said("DELETED", "b")]);
        assert!(watcher.tell(&[pod("a", "4", "Running")]));
        assert!(kinds(&mut lines).is_empty());
        drop(lines);
        assert!(!watcher.tell(&[pod("a", "5", "Running")]));
    }
}
