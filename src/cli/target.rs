//! Which objects a change is about: `deployment web`, `deployment/web`, `pods a b`, `pods -l app=web`. Owns sending the
//! change to the running program.

use std::process::ExitCode;

use clap::Args;

use super::{
    Verbatim,
    cluster::Cluster,
    describe::json::name,
    get::selector::Selector,
    say,
    wanted::{self, Form, Wanted},
};
use crate::{
    admin::client::{self, Refused},
    control::command::{Command, Done, Target},
    objects::Resource,
    settings::InstanceOptions,
};

/// Objects by their kind instead of their names.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Many {
    /// All objects of the kind in the namespace
    #[arg(long)]
    pub(super) all: bool,
    /// Only objects with such labels, as in app=web,tier!=db,version in (1,2)
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(super) selector: Option<String>,
}

impl Many {
    /// Whether objects are chosen by either.
    pub(super) const fn is_used(&self) -> bool {
        self.all || self.selector.is_some()
    }
}

/// The objects that `words` name, and the words that follow them: the first with a `=` or a final `-`.
///
/// # Errors
/// An unknown kind, or none, or no name.
pub(super) fn parse<'w>(
    words: &'w [String],
    namespace: &str,
) -> anyhow::Result<(Vec<Target>, &'w [String])> {
    let (named, rest) = split(words)?;
    let (all, form) = wanted::parse(named)?;
    if form == Form::Kinds {
        return Err(error(
            "resource(s) were provided, but no name was specified",
        ));
    }
    let targets = all.into_iter().filter_map(|one| {
        let name = one.name?;
        Some(target(one.resource, namespace, &name))
    });
    Ok((targets.collect(), rest))
}

/// As [`parse`], where nothing may follow.
///
/// # Errors
/// As for [`parse`].
pub(super) fn parse_alone(words: &[String], namespace: &str) -> anyhow::Result<Vec<Target>> {
    let (targets, rest) = parse(words, namespace)?;
    match rest.first() {
        None => Ok(targets),
        Some(word) => Err(error(&format!("unexpected argument '{word}'"))),
    }
}

/// As [`parse_alone`]; a kind alone means all objects of it in the namespace, as for kubectl's `rollout`.
///
/// # Errors
/// As for [`parse`]; no program runs.
pub(super) fn parse_or_all(
    words: &[String],
    namespace: &str,
    cluster: &Cluster,
) -> anyhow::Result<Vec<Target>> {
    let (named, _) = split(words)?;
    let (_, form) = wanted::parse(named)?;
    if form != Form::Kinds {
        return parse_alone(words, namespace);
    }
    let many = Many {
        all: true,
        selector: None,
    };
    let (targets, _) = parse_many(words, namespace, &many, cluster)?;
    if targets.is_empty() {
        return Err(error("no objects passed to rollout"));
    }
    Ok(targets)
}

/// As [`parse`], with `--all` and `--selector` in the place of names.
///
/// # Errors
/// As for [`parse`]; no program runs.
pub(super) fn parse_many<'w>(
    words: &'w [String],
    namespace: &str,
    many: &Many,
    cluster: &Cluster,
) -> anyhow::Result<(Vec<Target>, &'w [String])> {
    let selector = match (&many.selector, many.all) {
        (None, false) => return parse(words, namespace),
        (Some(_), true) => {
            return Err(error("cannot set --all and --selector at the same time"));
        }
        (Some(text), false) => Some(Selector::parse(text)?),
        (None, true) => None,
    };
    let (kinds, rest) = split(words)?;
    let (kinds, form) = wanted::parse(kinds)?;
    match form {
        Form::Kinds => {}
        Form::Pairs => {
            return Err(error(
                "selectors and the all flag cannot be used when passing resource/name arguments",
            ));
        }
        Form::Names if many.all => {
            return Err(error("name cannot be provided when --all is specified"));
        }
        Form::Names => {
            return Err(error(
                "name cannot be provided when a selector is specified",
            ));
        }
    }
    let mut targets = Vec::new();
    for Wanted { resource, .. } in kinds {
        let objects = cluster.list(resource, Some(namespace))?;
        let chosen = objects
            .iter()
            .filter(|object| selector.as_ref().is_none_or(|one| one.matches(object)));
        targets.extend(chosen.map(|object| target(resource, namespace, name(object))));
    }
    Ok((targets, rest))
}

fn split(words: &[String]) -> anyhow::Result<(&[String], &[String])> {
    let follows = |word: &&String| word.contains('=') || word.ends_with('-');
    let count = words.iter().take_while(|word| !follows(word)).count();
    if count == 0 {
        return Err(error("one or more resources must be specified"));
    }
    Ok(words.split_at(count))
}

fn error(text: &str) -> anyhow::Error {
    Verbatim(format!("error: {text}")).into()
}

/// The resource that people mean by `kind`.
///
/// # Errors
/// There is none.
pub(super) fn resource(kind: &str) -> anyhow::Result<Resource> {
    Ok(wanted::named(kind)?)
}

pub(super) fn target(resource: Resource, namespace: &str, name: &str) -> Target {
    Target {
        resource,
        namespace: if resource.is_namespaced() {
            namespace.to_owned()
        } else {
            String::new()
        },
        name: name.to_owned(),
    }
}

/// Asks the running program to carry out `command`. What it refuses is said in its own words.
///
/// # Errors
/// No program runs, or it refuses.
pub(super) fn send(instance: &InstanceOptions, command: &Command) -> anyhow::Result<Done> {
    match client::post(instance, "/v1/command", command) {
        Ok(body) => Ok(serde_json::from_slice(&body)?),
        Err(error) => match error.downcast::<Refused>() {
            Ok(refused) => Err(Verbatim(refused.text).into()),
            Err(error) => Err(error),
        },
    }
}

/// Sends a change for each target and prints what became of it.
///
/// # Errors
/// As for [`send`].
pub(super) fn send_each(
    instance: &InstanceOptions,
    targets: Vec<Target>,
    command: impl Fn(Target) -> Command,
) -> anyhow::Result<ExitCode> {
    let mut warned = String::new();
    for target in targets {
        let name = target.display();
        let done = send(instance, &command(target))?;
        say::line(format!("{name} {}", done.verb));
        if let Some(warning) = done.warning.filter(|warning| *warning != warned) {
            say::error_line(format!("Warning: {warning}"));
            warned = warning;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::cluster::ScopeOptions;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn check(text: &str, targets: &[&str], pairs: &str) {
        let words = words(text);
        let (found, rest) = parse(&words, "default").unwrap();
        let found: Vec<String> = found.iter().map(Target::display).collect();
        assert_eq!(found, targets, "{text}");
        assert_eq!(rest.join(" "), pairs, "{text}");
    }

    #[test]
    fn parse_takes_both_ways_of_naming() {
        check("deploy web", &["deployment.apps/web"], "");
        check(
            "deployment/web svc/db",
            &["deployment.apps/web", "service/db"],
            "",
        );
        check(
            "pods a b release=summer app-",
            &["pod/a", "pod/b"],
            "release=summer app-",
        );
    }

    #[test]
    fn parse_says_what_is_missing() {
        let error = |text: &str| parse(&words(text), "default").unwrap_err().to_string();
        assert!(error("").contains("must be specified"));
        assert!(error("pods").contains("no name"));
        assert!(error("job x").contains("doesn't have a resource type \"job\""));
        assert!(error("a=b").contains("must be specified"));
    }

    /// Objects of two pods and a Service, read from a manifest as `-f` reads it.
    fn cluster(folder: &std::path::Path) -> Cluster {
        let pod = |name: &str, app: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {app}}}}}\n\
                 spec: {{containers: [{{name: c, image: i}}]}}\n---\n"
            )
        };
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {app: web}}\n\
                       spec: {ports: [{port: 80}]}\n";
        let text = [pod("a", "web"), pod("b", "db"), service.to_owned()].concat();
        let path = folder.join("all.yaml");
        std::fs::write(&path, text).unwrap();
        let scope = ScopeOptions {
            namespace: "default".into(),
            filename: vec![path],
        };
        let instance = InstanceOptions {
            instance: "default".into(),
            state_dir: Some(folder.to_owned()),
            runtime_dir: Some(folder.to_owned()),
        };
        Cluster::new(&scope, &instance).unwrap()
    }

    #[test]
    fn parse_many_takes_kinds_with_a_selector_or_all() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = cluster(folder.path());
        let find = |text: &str, selector: Option<&str>, all| {
            let many = Many {
                all,
                selector: selector.map(str::to_owned),
            };
            let words = words(text);
            let found = parse_many(&words, "default", &many, &cluster);
            let (targets, rest) = found.map_err(|error| error.to_string())?;
            let targets: Vec<String> = targets.iter().map(Target::display).collect();
            Ok::<_, String>(format!("{} | {}", targets.join(" "), rest.join(" ")))
        };
        assert_eq!(
            find("pods,svc x=1", Some("app=web"), false),
            Ok("pod/a service/web | x=1".into())
        );
        assert_eq!(find("pods x-", None, true), Ok("pod/a pod/b | x-".into()));
        assert_eq!(find("pods", Some("app=x"), false), Ok(" | ".into()));
        assert_eq!(find("pods a", None, false), Ok("pod/a | ".into()));
        let refused = [
            ("pods", Some("a"), true, "cannot set --all and --selector"),
            (
                "pods a",
                Some("app"),
                false,
                "name cannot be provided when a selector",
            ),
            ("pods a", None, true, "name cannot be provided when --all"),
            (
                "pod/a",
                Some("app"),
                false,
                "selectors and the all flag cannot be used",
            ),
            ("pods", Some("a b"), false, "unable to parse requirement"),
        ];
        for (text, selector, all, part) in refused {
            let error = find(text, selector, all).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
