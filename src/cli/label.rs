//! `portico label` and `portico annotate`: words on objects, set, taken away and listed. Owns their arguments and the
//! reading of KEY=VALUE and KEY-; what is refused is decided by the running program.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    process::ExitCode,
};

use clap::Args;
use serde_json::Value;

use super::{
    Verbatim,
    change::Namespace,
    cluster::Cluster,
    describe::json::{name, pairs},
    say,
    target::{self, Many},
};
use crate::{
    control::command::{Command, Target},
    objects::Resource,
    settings::InstanceOptions,
};

/// Arguments of `portico label`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  portico label pod web-86b68b4c5b-8v4dg release=canary      set a label
  portico label pod web-86b68b4c5b-8v4dg app-                take one away: the pod leaves its Service
  portico label pods -l app=web release=canary               every pod that has a label
  portico label pods --all --list                            what labels there are")]
pub struct LabelArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pairs: PairArgs,
}

/// Arguments of `portico annotate`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  portico annotate deployment web kubernetes.io/change-cause='image updated to 1.13'
  portico annotate deployment web kubernetes.io/change-cause-")]
pub struct AnnotateArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pairs: PairArgs,
}

#[derive(Debug, Args)]
struct PairArgs {
    /// Objects, then KEY=VALUE to set or KEY- to take away
    #[arg(required = true, value_name = "RESOURCE")]
    resource: Vec<String>,
    /// Replace other values
    #[arg(long)]
    overwrite: bool,
    /// Print what there is and change nothing
    #[arg(long, conflicts_with = "overwrite")]
    list: bool,
    #[command(flatten)]
    many: Many,
    #[command(flatten)]
    namespace: Namespace,
}

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Label,
    Annotation,
}

impl Kind {
    const fn path(self) -> &'static str {
        match self {
            Self::Label => "/metadata/labels",
            Self::Annotation => "/metadata/annotations",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Label => "label",
            Self::Annotation => "annotation",
        })
    }
}

/// `portico label`.
///
/// # Errors
/// No program runs, or it refuses.
pub fn label(args: &LabelArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let args = &args.pairs;
    if args.list {
        return list(args, instance, Kind::Label);
    }
    let (targets, changes) = read_pairs(args, instance, Kind::Label)?;
    target::send_each(instance, targets, |target| Command::Label {
        target,
        changes: changes.clone(),
        overwrite: args.overwrite,
    })
}

/// `portico annotate`.
///
/// # Errors
/// No program runs, or it refuses.
pub fn annotate(args: &AnnotateArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let args = &args.pairs;
    if args.list {
        return list(args, instance, Kind::Annotation);
    }
    let (targets, changes) = read_pairs(args, instance, Kind::Annotation)?;
    target::send_each(instance, targets, |target| Command::Annotate {
        target,
        changes: changes.clone(),
        overwrite: args.overwrite,
    })
}

fn list(args: &PairArgs, instance: &InstanceOptions, what: Kind) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::Live(instance.clone());
    let namespace = &args.namespace.namespace;
    let (targets, rest) = target::parse_many(&args.resource, namespace, &args.many, &cluster)?;
    if let Some(word) = rest.first() {
        let text = format!("error: --list changes nothing: unexpected argument '{word}'");
        return Err(Verbatim(text).into());
    }
    let is_one = targets.len() == 1 && !args.many.is_used();
    let mut objects: BTreeMap<Resource, Vec<Value>> = BTreeMap::new();
    for Target {
        resource,
        name: wanted,
        ..
    } in targets
    {
        let all = match objects.entry(resource) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(cluster.list(resource, Some(namespace))?),
        };
        let found = all.iter().find(|object| name(object) == wanted);
        let found = found.ok_or_else(|| Verbatim(resource.not_found(&wanted)))?;
        say::text(listing(resource, found, what, is_one));
    }
    Ok(ExitCode::SUCCESS)
}

/// As kubectl lists them: below a title, unless it was clear which one object is meant.
fn listing(resource: Resource, object: &Value, what: Kind, is_one: bool) -> String {
    let (kind, group) = (resource.kind(), resource.group());
    let title = format!("Listing {what}s for {kind}.{group}/{}:\n", name(object));
    let (title, indent) = if is_one {
        ("", "")
    } else {
        (title.as_str(), " ")
    };
    let lines = pairs(object, what.path());
    lines.iter().fold(title.to_owned(), |text, (key, value)| {
        text + indent + key + "=" + value + "\n"
    })
}

type Changes = BTreeMap<String, Option<String>>;

fn read_pairs(
    args: &PairArgs,
    instance: &InstanceOptions,
    what: Kind,
) -> anyhow::Result<(Vec<Target>, Changes)> {
    let cluster = Cluster::Live(instance.clone());
    let namespace = &args.namespace.namespace;
    let (targets, pairs) = target::parse_many(&args.resource, namespace, &args.many, &cluster)?;
    if pairs.is_empty() {
        return Err(Verbatim(format!("error: at least one {what} update is required")).into());
    }
    if targets.is_empty() {
        say::error_line(format!("No resources found in {namespace} namespace."));
    }
    Ok((targets, changes(pairs, what)?))
}

fn changes(pairs: &[String], what: Kind) -> anyhow::Result<Changes> {
    let mut changes = Changes::new();
    for pair in pairs {
        let change = match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => (key.to_owned(), Some(value.to_owned())),
            None if pair.len() > 1 && pair.ends_with('-') => {
                (pair.trim_end_matches('-').to_owned(), None)
            }
            _ => {
                return Err(
                    Verbatim(format!("error: unknown {what} specification: '{pair}'")).into(),
                );
            }
        };
        if changes
            .get(&change.0)
            .is_some_and(|before| before.is_some() != change.1.is_some())
        {
            let text =
                format!("error: can not both modify and remove a {what} in the same command");
            return Err(Verbatim(text).into());
        }
        changes.insert(change.0, change.1);
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let changes = changes(&words, Kind::Label).map_err(|error| error.to_string())?;
        let shown = changes.iter().map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => format!("{key}-"),
        });
        Ok(shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn changes_set_and_take_away() {
        assert_eq!(read("b=1 a- c="), Ok("a- b=1 c=".into()));
        assert_eq!(read("a=b=c"), Ok("a=b=c".into()));
        let both = "error: can not both modify and remove a label in the same command";
        assert_eq!(read("a=1 a-"), Err(both.into()));
        let unknown = "error: unknown label specification: '=x'";
        assert_eq!(read("=x"), Err(unknown.into()));
    }

    #[test]
    fn listing_has_a_title_when_several_may_be_meant() {
        let object = json!({"metadata": {"name": "web", "labels": {"b": "c", "app": "web"}}});
        let labels = |resource, is_one| listing(resource, &object, Kind::Label, is_one);
        assert_eq!(labels(Resource::Pods, true), "app=web\nb=c\n");
        assert_eq!(
            labels(Resource::Deployments, false),
            "Listing labels for Deployment.apps/web:\n app=web\n b=c\n"
        );
        assert_eq!(
            listing(Resource::Pods, &object, Kind::Annotation, false),
            "Listing annotations for Pod./web:\n"
        );
    }
}
