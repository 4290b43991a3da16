//! `--watch`: a line for each change. Owns what counts as a change of what is shown; must not know where changes come
//! from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Objects, Terminal,
    request::{Request, Sink},
    rows::Rows,
};
use crate::{
    cli::{Verbatim, cluster::WatchEvent},
    objects::Resource,
};

const ADDED: &str = "ADDED";
const MODIFIED: &str = "MODIFIED";
const DELETED: &str = "DELETED";

/// Namespace and name.
type Key = (String, String);

/// Shows what is there, unless only changes are asked for, and then every change until the program ends or nobody
/// reads any longer.
pub(super) fn run(
    request: &Request,
    objects: &impl Objects,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<()> {
    let resource = only_resource(request)?;
    let (groups, problems) = request.collect(objects)?;
    if !problems.is_empty() {
        return Err(Verbatim(problems.join("\n")).into());
    }
    let listed: Vec<Value> = groups.into_iter().flat_map(|group| group.items).collect();
    let mut sink = request.sink(resource);
    if !request.watch_only {
        let shown: Vec<(&str, &Value)> = listed.iter().map(|object| (ADDED, object)).collect();
        if terminal
            .put(&lines(&mut sink, request, &shown, terminal)?)
            .is_err()
        {
            return Ok(());
        }
    }
    let mut shown = Shown::new(&listed);
    for event in objects.watch(resource, request.namespace.as_deref())? {
        let mut event = event?;
        event.object.sort_all_objects();
        let Some(kind) = shown.take(request, &event) else {
            continue;
        };
        let text = lines(&mut sink, request, &[(kind, &event.object)], terminal)?;
        if terminal.put(&text).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn only_resource(request: &Request) -> Result<Resource, Verbatim> {
    let error = |text: &str| Err(Verbatim(format!("error: {text}")));
    let mut targets = request.targets.iter();
    let Some(first) = targets.next() else {
        return error("Required resource not specified.");
    };
    if targets
        .clone()
        .any(|target| target.resource != first.resource)
    {
        return error("you may only specify a single resource type");
    }
    if targets.next().is_some() {
        return error(
            "watch is only supported on individual resources and resource collections - more than 1 resource was found",
        );
    }
    Ok(first.resource)
}

fn lines(
    sink: &mut Sink,
    request: &Request,
    objects: &[(&str, &Value)],
    terminal: &Terminal<'_>,
) -> Result<String, Verbatim> {
    match sink {
        Sink::Table(rows) => {
            let event = |kind| request.output_watch_events.then_some(kind);
            let objects: Vec<_> = objects
                .iter()
                .map(|(kind, object)| (event(*kind), *object))
                .collect();
            Ok(Rows::lines(rows, &objects, (terminal.now)()))
        }
        Sink::Printer(printer) => objects
            .iter()
            .map(|(kind, object)| {
                if request.output_watch_events {
                    printer.event(kind, object)
                } else {
                    printer.object(object)
                }
            })
            .collect(),
    }
}

/// What the reader has seen.
struct Shown {
    /// Objects as they were last.
    objects: BTreeMap<Key, Value>,
    /// Of those that were listed, the ones that the watch has not repeated yet.
    unrepeated: BTreeSet<Key>,
}

impl Shown {
    fn new(listed: &[Value]) -> Self {
        let keyed = listed.iter().map(|object| (key(object), object.clone()));
        let objects: BTreeMap<Key, Value> = keyed.collect();
        let unrepeated = objects.keys().cloned().collect();
        Self {
            objects,
            unrepeated,
        }
    }

    /// What the event means to somebody who sees only what is asked for; `None` if nothing.
    fn take(&mut self, request: &Request, event: &WatchEvent) -> Option<&'static str> {
        let key = key(&event.object);
        let is_repetition = self.unrepeated.remove(&key) && event.kind == ADDED;
        if event.kind == DELETED || !request.selects(&event.object) {
            return self.objects.remove(&key).map(|_| DELETED);
        }
        let before = self.objects.insert(key, event.object.clone());
        match before {
            Some(before) if is_repetition && before == event.object => None,
            Some(_) => Some(MODIFIED),
            None => Some(ADDED),
        }
    }
}

fn key(object: &Value) -> Key {
    let text = |path: &str| {
        let found = object.pointer(path).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    (text("/metadata/namespace"), text("/metadata/name"))
}
