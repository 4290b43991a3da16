//! Names for arguments: which argument takes whose, and where they come from. Owns the table and the time that a
//! look-up may take; must not fail: no names are an answer too.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use crate::{admin::client, objects::Resource, settings::InstanceOptions};

/// All look-ups for one key together. Only a program that is stuck takes it all: where none runs is known at once, and one
/// on a busy machine needs more than a moment.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whose names an argument takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Instances of this user.
    Instances,
    /// Objects of one resource.
    Of(Resource),
    /// `KIND`, then names; or `KIND/NAME`.
    Objects,
    /// A pod's name, or `KIND/NAME` of whatever has pods.
    PodOrObject,
    /// A Service's name, or `service/NAME`.
    ServiceOrObject,
    /// Containers of the pod that was named.
    Containers,
    /// Services as names in DNS: `web.shop`.
    Domains,
}

/// By command (any, when empty) and id of the argument; the first row that fits counts.
#[rustfmt::skip]
const TABLE: &[(&str, &str, Names)] = &[
    ("resolve", "name", Names::Domains),
    ("logs", "pod", Names::PodOrObject),
    ("port-forward", "resource", Names::PodOrObject),
    ("url", "service", Names::ServiceOrObject),
    ("stat", "service", Names::ServiceOrObject),
    ("", "instance", Names::Instances),
    ("", "namespace", Names::Of(Resource::Namespaces)),
    ("", "node", Names::Of(Resource::Nodes)),
    ("", "pod", Names::Of(Resource::Pods)),
    ("", "pods", Names::Of(Resource::Pods)),
    ("", "service", Names::Of(Resource::Services)),
    ("", "deployment", Names::Of(Resource::Deployments)),
    ("", "container", Names::Containers),
    ("", "kind", Names::Objects),
    ("", "kinds", Names::Objects),
    ("", "object", Names::Objects),
    ("", "objects", Names::Objects),
    ("", "resource", Names::Objects),
    ("", "resources", Names::Objects),
    ("", "target", Names::Objects),
    ("", "targets", Names::Objects),
    ("", "what", Names::Objects),
];

/// Commands that take some kinds only.
#[rustfmt::skip]
const KINDS: &[(&str, &[Resource])] = &[
    ("explain", &[Resource::Services]),
    ("url", &[Resource::Services]),
    ("stat", &[Resource::Services]),
    ("scale", &[Resource::Deployments, Resource::ReplicaSets, Resource::StatefulSets]),
    ("rollout", &[Resource::Deployments, Resource::DaemonSets, Resource::StatefulSets]),
    ("set", &[Resource::Deployments, Resource::DaemonSets, Resource::StatefulSets, Resource::ReplicaSets]),
    ("logs", &[Resource::Pods, Resource::Deployments, Resource::ReplicaSets, Resource::DaemonSets, Resource::StatefulSets, Resource::Services]),
    ("port-forward", &[Resource::Pods, Resource::Services, Resource::Deployments, Resource::ReplicaSets]),
    ("reset", &[Resource::Deployments, Resource::ReplicaSets, Resource::StatefulSets, Resource::DaemonSets, Resource::Pods]),
];

/// Whose names `arg` of the command at `path` takes.
pub(super) fn of(path: &str, arg: &Arg) -> Option<Names> {
    let id = arg.get_id().as_str();
    // `__complete` has words of its own.
    let fits = |(command, of, _): &&(&str, &str, Names)| {
        *of == id && (command.is_empty() || *command == path) && !path.starts_with("__")
    };
    // A switch takes no name.
    let takes_values = arg.get_action().takes_values();
    TABLE
        .iter()
        .find(fits)
        .filter(|_| takes_values)
        .map(|(.., names)| *names)
}

/// What the line says already.
#[derive(Debug)]
pub(super) struct Situation {
    command: String,
    /// `None` when the line does not tell.
    instance: Option<InstanceOptions>,
    /// `None` for all.
    namespace: Option<String>,
    /// Words without an option before the one to complete.
    before: Vec<String>,
    until: Instant,
}

impl Situation {
    /// What `words` say before the last one, as far as that can be understood: the line is not finished.
    pub(super) fn of(command: &Command, words: &[OsString]) -> Self {
        let until = Instant::now() + PATIENCE;
        let before = words
            .get(..words.len().saturating_sub(1))
            .unwrap_or_default();
        let lenient = command.clone().ignore_errors(true);
        let matches = lenient.try_get_matches_from(before).ok();
        let mut situation = Self {
            command: String::new(),
            instance: None,
            namespace: None,
            before: Vec::new(),
            until,
        };
        let Some(root) = matches else {
            return situation;
        };
        situation.instance = instance(&root);
        let (mut leaf, mut of) = (&root, command);
        while let Some((name, below)) = leaf.subcommand() {
            let Some(sub) = of.find_subcommand(name) else {
                break;
            };
            let path = format!("{} {name}", situation.command);
            path.trim_start().clone_into(&mut situation.command);
            (leaf, of) = (below, sub);
        }
        let all = matches!(leaf.try_get_one::<bool>("all_namespaces"), Ok(Some(true)));
        let given = leaf.try_get_one::<String>("namespace").ok().flatten();
        situation.namespace = given.filter(|_| !all).cloned();
        // Manifests are not read for a key press.
        let is_offline = leaf.try_get_raw("filename").ok().flatten().is_some();
        situation.instance = situation.instance.filter(|_| !is_offline);
        for arg in of.get_positionals() {
            let values = leaf.try_get_raw(arg.get_id().as_str()).ok().flatten();
            let values = values.into_iter().flatten();
            situation
                .before
                .extend(values.map(|value| value.to_string_lossy().into_owned()));
        }
        situation
    }

    /// What may stand in the place of `current`.
    pub(super) fn candidates(&self, names: Names, current: &str) -> Vec<String> {
        let mut found = match names {
            Names::Instances => client::instances(),
            Names::Of(resource) => self.names(resource),
            Names::Objects => self.objects(current),
            Names::PodOrObject => self.named_or_object(Resource::Pods, current),
            Names::ServiceOrObject => self.named_or_object(Resource::Services, current),
            Names::Containers => self.containers(),
            Names::Domains => self.domains(),
        };
        found.retain(|name| name.starts_with(current));
        found
    }

    fn objects(&self, current: &str) -> Vec<String> {
        if let Some((kind, _)) = current.split_once('/') {
            return self.below(kind);
        }
        match self.before.first() {
            Some(first) if first.contains('/') => self.kinds("/"),
            Some(first) => {
                let kind = first.split(',').next().unwrap_or_default();
                let names = Resource::named(kind).map(|kind| self.names(kind));
                let mut names = names.unwrap_or_default();
                names.retain(|name| !self.before.contains(name));
                names
            }
            None => {
                let (head, last) = match current.rsplit_once(',') {
                    Some((head, last)) => (format!("{head},"), last),
                    None => (String::new(), current),
                };
                // One that is whole already is left as it is typed.
                let is_whole = Resource::named(last).is_some_and(|kind| kind.plural() != last);
                let kinds = if is_whole {
                    vec![last.to_owned()]
                } else {
                    self.kinds("")
                };
                kinds
                    .into_iter()
                    .map(|kind| format!("{head}{kind}"))
                    .collect()
            }
        }
    }

    fn named_or_object(&self, resource: Resource, current: &str) -> Vec<String> {
        match current.split_once('/') {
            Some((kind, _)) => self.below(kind),
            None if !self.before.is_empty() => Vec::new(),
            None => {
                let mut found = self.names(resource);
                found.extend(self.kinds("/"));
                found
            }
        }
    }

    /// `kind/NAME` of each object.
    fn below(&self, kind: &str) -> Vec<String> {
        let names = Resource::named(kind).map(|resource| self.names(resource));
        let names = names.unwrap_or_default().into_iter();
        names.map(|name| format!("{kind}/{name}")).collect()
    }

    /// The kinds that the command takes: as they are listed, or before a slash as one is named.
    fn kinds(&self, end: &str) -> Vec<String> {
        let first = self.command.split(' ').next().unwrap_or_default();
        let some = KINDS.iter().find(|(command, _)| *command == first);
        let kinds: Vec<Resource> = match some {
            Some((_, kinds)) => kinds.to_vec(),
            None => Resource::known().collect(),
        };
        let is_one = some.is_some() || !end.is_empty();
        let name = |kind: Resource| {
            if is_one {
                kind.singular()
            } else {
                kind.plural()
            }
        };
        kinds
            .into_iter()
            .map(|kind| format!("{}{end}", name(kind)))
            .collect()
    }

    fn containers(&self) -> Vec<String> {
        let Some(pod) = self.before.first() else {
            return Vec::new();
        };
        let pods = self.list(Resource::Pods);
        let meant = pods.iter().find(|object| name_of(object) == Some(pod));
        let containers = meant
            .and_then(|object| object.pointer("/spec/containers"))
            .and_then(Value::as_array);
        let names = containers
            .into_iter()
            .flatten()
            .filter_map(|container| container.get("name")?.as_str());
        names.map(str::to_owned).collect()
    }

    fn domains(&self) -> Vec<String> {
        let everywhere = self.fetch(Resource::Services);
        let domain =
            |object: &Value| Some(format!("{}.{}", name_of(object)?, namespace_of(object)?));
        everywhere.iter().filter_map(domain).collect()
    }

    fn names(&self, resource: Resource) -> Vec<String> {
        let objects = self.list(resource);
        let mut names: Vec<String> = objects
            .iter()
            .filter_map(name_of)
            .map(str::to_owned)
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn list(&self, resource: Resource) -> Vec<Value> {
        let mut objects = self.fetch(resource);
        if let Some(namespace) = self
            .namespace
            .as_deref()
            .filter(|_| resource.is_namespaced())
        {
            objects.retain(|object| namespace_of(object) == Some(namespace));
        }
        objects
    }

    fn fetch(&self, resource: Resource) -> Vec<Value> {
        let Some(instance) = &self.instance else {
            return Vec::new();
        };
        let path = format!("/v1/objects/{}", resource.plural());
        let left = self.until.saturating_duration_since(Instant::now());
        let body = client::get_within(instance, &path, left).unwrap_or_default();
        serde_json::from_slice(&body).unwrap_or_default()
    }
}

fn name_of(object: &Value) -> Option<&str> {
    object.pointer("/metadata/name")?.as_str()
}

fn namespace_of(object: &Value) -> Option<&str> {
    object.pointer("/metadata/namespace")?.as_str()
}

fn instance(root: &ArgMatches) -> Option<InstanceOptions> {
    let folder = |id| root.try_get_one(id).ok().flatten().cloned();
    Some(InstanceOptions {
        instance: root.try_get_one("instance").ok().flatten().cloned()?,
        state_dir: folder("state_dir"),
        runtime_dir: folder("runtime_dir"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command line as `get` and `logs` have it.
    fn command() -> Command {
        let objects = || Arg::new("objects").num_args(0..);
        let namespace = || {
            Arg::new("namespace")
                .short('n')
                .long("namespace")
                .default_value("default")
        };
        let instance = Arg::new("instance")
            .long("instance")
            .default_value("default")
            .global(true);
        let image = Command::new("image").arg(objects());
        Command::new("portico")
            .arg(instance)
            .subcommand(Command::new("get").arg(objects()).arg(namespace()))
            .subcommand(Command::new("set").subcommand(image))
    }

    fn situation(line: &str) -> Situation {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut situation = Situation::of(&command(), &words);
        // Nobody is asked.
        situation.instance = None;
        situation
    }

    fn check(line: &str, expected: &[&str]) {
        let current = line.rsplit(' ').next().unwrap();
        let found = situation(line).candidates(Names::Objects, current);
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn objects_begin_with_a_kind_that_the_command_takes() {
        check("portico get se", &["services"]);
        check("portico get svc", &["svc"]);
        check("portico get services,pod", &["services,pod"]);
        check("portico get services,po", &["services,po"]);
        check(
            "portico get services,end",
            &["services,endpoints", "services,endpointslices"],
        );
        check("portico set image d", &["deployment", "daemonset"]);
        check("portico get pod/a no", &["node/"]);
    }

    #[test]
    fn situation_of_an_unfinished_line_is_read_as_far_as_it_goes() {
        let words = "portico get -n shop --instance blue pods a --unknown b";
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let situation = Situation::of(&command(), &words);
        assert_eq!(situation.command, "get");
        assert_eq!(situation.namespace.as_deref(), Some("shop"));
        assert_eq!(situation.before, ["pods", "a"]);
        assert_eq!(situation.instance.unwrap().instance, "blue");
    }

    #[test]
    fn table_has_no_row_that_an_earlier_one_hides() {
        for (index, (command, id, _)) in TABLE.iter().enumerate() {
            let hides = |(other, of, _): &&(&str, &str, Names)| {
                of == id && (other == command || other.is_empty())
            };
            assert!(
                !TABLE[..index].iter().any(|row| hides(&row)),
                "{command} {id}"
            );
        }
    }
}
