//! Which objects the arguments mean. Owns kubectl's rules for the beginnings of names and for what goes together, and
//! its words when nothing fits; must not print.

use serde_json::Value;

use super::{
    DescribeArgs, Objects,
    json::{controller, name, namespace},
};
use crate::{
    cli::{
        Verbatim,
        get::selector::Selector,
        wanted::{self, Form},
    },
    objects::Resource,
};

/// What was found.
pub(super) struct Found {
    /// In the order in which they are printed.
    pub(super) objects: Vec<(Resource, Value)>,
    /// What was not found, in kubectl's words.
    pub(super) errors: Vec<String>,
    /// How texts are set apart.
    pub(super) layout: Layout,
}

/// How texts are set apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Two empty lines between them.
    Named,
    /// One empty line after each.
    Prefixed,
}

/// What the arguments say, before anything is looked up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// All objects of these kinds.
    Kinds(Vec<Resource>),
    /// Objects by name; `Some` if the one name may also be the beginning of others.
    Names(Vec<(Resource, String)>, Option<Prefix>),
    /// What the files of `-f` declare.
    Files,
}

/// A name that may be the beginning of others: of one kind only.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// May be looked for.
    Of(Resource, String),
    /// Several kinds: kubectl refuses to.
    Ambiguous,
}

/// Finds what `args` mean.
pub(super) fn objects(source: &impl Objects, args: &DescribeArgs) -> anyhow::Result<Found> {
    let request = request(&args.objects, !args.scope.filename.is_empty())?;
    let selector = args.selector.as_deref().map(Selector::parse).transpose()?;
    let mut found = Found {
        objects: Vec::new(),
        errors: Vec::new(),
        layout: Layout::Named,
    };
    let scope = (!args.all_namespaces).then_some(args.scope.namespace.as_str());
    match request {
        Request::Kinds(resources) => {
            for resource in resources {
                let list = source.list(resource, scope)?;
                let chosen = list
                    .into_iter()
                    .filter(|object| selector.as_ref().is_none_or(|one| one.matches(object)));
                found
                    .objects
                    .extend(chosen.map(|object| (resource, object)));
            }
        }
        Request::Names(..) if selector.is_some() => {
            return Err(error("name cannot be provided when a selector is specified").into());
        }
        Request::Names(names, _)
            if scope.is_none() && names.iter().any(|(r, _)| r.is_namespaced()) =>
        {
            return Err(
                error("a resource cannot be retrieved by name across all namespaces").into(),
            );
        }
        Request::Names(names, prefix) => {
            for (resource, called) in names {
                let list = source.list(resource, scope)?;
                match list.into_iter().find(|object| name(object) == called) {
                    Some(object) => found.objects.push((resource, object)),
                    None => found.errors.push(resource.not_found(&called)),
                }
            }
            if let (Some(prefix), 1) = (prefix, found.errors.len()) {
                found = with_prefix(source, scope, prefix, found)?;
            }
        }
        Request::Files => {
            for resource in wanted::ALL {
                let list = source.list(resource, None)?;
                let declared = list.into_iter().filter(|object| {
                    let is_api = name(object) == "kubernetes" && namespace(object) == "default";
                    controller(object).is_none() && !is_api
                });
                found
                    .objects
                    .extend(declared.map(|object| (resource, object)));
            }
        }
    }
    Ok(found)
}

/// Replaces what was found by the objects whose names begin with the one that was not, if there are any.
fn with_prefix(
    source: &impl Objects,
    scope: Option<&str>,
    prefix: Prefix,
    found: Found,
) -> anyhow::Result<Found> {
    let Prefix::Of(resource, prefix) = prefix else {
        return Err(error("you may only specify a single resource type").into());
    };
    let list = source.list(resource, scope)?.into_iter();
    let objects: Vec<(Resource, Value)> = list
        .filter(|object| name(object).starts_with(&prefix))
        .map(|object| (resource, object))
        .collect();
    if objects.is_empty() {
        return Ok(found);
    }
    Ok(Found {
        objects,
        errors: Vec::new(),
        layout: Layout::Prefixed,
    })
}

fn error(text: &str) -> Verbatim {
    Verbatim(format!("error: {text}"))
}

/// Reads the arguments as kubectl does.
fn request(arguments: &[String], has_files: bool) -> Result<Request, Verbatim> {
    if arguments.is_empty() {
        return if has_files {
            Ok(Request::Files)
        } else {
            Err(error(
                "You must specify the type of resource to describe. Use \"portico describe --help\" for the kinds.",
            ))
        };
    }
    let (wanted, form) = wanted::parse(arguments)?;
    let prefix = match (form, wanted.as_slice(), arguments) {
        (Form::Names, [only], _) => {
            let name = only.name.clone().unwrap_or_default();
            Some(Prefix::Of(only.resource, name))
        }
        (Form::Names, _, [_, _]) => Some(Prefix::Ambiguous),
        _ => None,
    };
    if form == Form::Kinds {
        let kinds = wanted.into_iter().map(|one| one.resource);
        return Ok(Request::Kinds(kinds.collect()));
    }
    let names = wanted.into_iter();
    let names = names.filter_map(|one| Some((one.resource, one.name?)));
    Ok(Request::Names(names.collect(), prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn request_reads_kinds_and_names_as_kubectl() {
        let check = |text: &str, expected| {
            assert_eq!(
                request(&words(text), false).map_err(|error| error.0),
                expected,
                "{text}"
            );
        };
        let pod = |name: &str| (Resource::Pods, name.to_owned());
        check("pods", Ok(Request::Kinds(vec![Resource::Pods])));
        check(
            "po,svc",
            Ok(Request::Kinds(vec![Resource::Pods, Resource::Services])),
        );
        check(
            "pod web",
            Ok(Request::Names(
                vec![pod("web")],
                Some(Prefix::Of(Resource::Pods, "web".into())),
            )),
        );
        check(
            "pod a b",
            Ok(Request::Names(vec![pod("a"), pod("b")], None)),
        );
        check("pod/a", Ok(Request::Names(vec![pod("a")], None)));
        let refused = |text: &str, part: &str| {
            let error = request(&words(text), false).unwrap_err().0;
            assert!(error.contains(part), "{error}");
        };
        refused("", "You must specify the type");
        refused("foo", "the server doesn't have a resource type \"foo\"");
        refused("svc/web pod", "there is no need to specify");
        refused("pod/", "must have a single resource and name");
        assert_eq!(request(&[], true).unwrap(), Request::Files);
    }
}
