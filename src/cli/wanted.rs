//! What is asked for: kinds and names from the arguments, the same for every command. Owns kubectl's forms and its
//! messages; must not fetch.

use super::Verbatim;
use crate::objects::Resource;

/// What `all` stands for, in the order in which an API server lists it.
pub(crate) const ALL: [Resource; 6] = [
    Resource::Pods,
    Resource::Services,
    Resource::DaemonSets,
    Resource::Deployments,
    Resource::ReplicaSets,
    Resource::StatefulSets,
];

/// All objects of a kind, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) resource: Resource,
    pub(crate) name: Option<String>,
}

/// How the targets were written, which decides what may stand beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `pods,services`
    Kinds,
    /// `pod a b`
    Names,
    /// `pod/a service/b`
    Pairs,
}

/// Reads `KIND[,KIND...] [NAME...]` or `KIND/NAME...`.
pub(crate) fn parse(arguments: &[String]) -> Result<(Vec<Wanted>, Form), Verbatim> {
    let pairs = arguments.iter().filter(|text| text.contains('/')).count();
    if pairs > 0 {
        if pairs < arguments.len() {
            return error(
                "there is no need to specify a resource type as a separate argument when passing arguments in \
                 resource/name form (e.g. 'portico get resource/<resource_name>' instead of 'portico get resource \
                 resource/<resource_name>'",
            );
        }
        let targets = arguments
            .iter()
            .map(|text| pair(text))
            .collect::<Result<_, _>>()?;
        return Ok((targets, Form::Pairs));
    }
    let Some((kinds, names)) = arguments.split_first() else {
        return Ok((Vec::new(), Form::Kinds));
    };
    let kinds = kinds_of(kinds)?;
    if names.is_empty() {
        let all = kinds.into_iter();
        let targets = all.map(|resource| Wanted {
            resource,
            name: None,
        });
        return Ok((targets.collect(), Form::Kinds));
    }
    if names.iter().any(String::is_empty) {
        return error("resource name may not be empty");
    }
    let targets = kinds.into_iter().flat_map(|resource| {
        names.iter().map(move |name| Wanted {
            resource,
            name: Some(name.clone()),
        })
    });
    Ok((targets.collect(), Form::Names))
}

fn pair(text: &str) -> Result<Wanted, Verbatim> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        [kind, name] if !kind.is_empty() && !name.is_empty() && !kind.contains(',') => Ok(Wanted {
            resource: named(kind)?,
            name: Some((*name).to_owned()),
        }),
        [_, _] => error("arguments in resource/name form must have a single resource and name"),
        _ => error("arguments in resource/name form may not have more than one slash"),
    }
}

fn kinds_of(text: &str) -> Result<Vec<Resource>, Verbatim> {
    let mut kinds = Vec::new();
    for name in text.split(',') {
        let meant = if name == "all" {
            ALL.to_vec()
        } else {
            vec![named(name)?]
        };
        for resource in meant {
            if !kinds.contains(&resource) {
                kinds.push(resource);
            }
        }
    }
    Ok(kinds)
}

/// The resource that people mean by `name`.
pub(crate) fn named(name: &str) -> Result<Resource, Verbatim> {
    Resource::named(name).ok_or_else(|| {
        let meant =
            closest(name).map_or_else(String::new, |meant| format!("\ndid you mean \"{meant}\"?"));
        Verbatim(format!(
            "error: the server doesn't have a resource type \"{name}\"{meant}"
        ))
    })
}

/// The plural that `name` was probably meant to be.
fn closest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let most = match name.chars().count() {
        0..=3 => return None,
        4..=6 => 1,
        _ => 2,
    };
    let distances = Resource::known().flat_map(|resource| {
        [resource.plural(), resource.singular()]
            .map(|known| (distance(&name, known), resource.plural()))
    });
    let nearest = distances.min_by_key(|(distance, _)| *distance);
    nearest
        .filter(|(distance, _)| *distance <= most)
        .map(|(_, plural)| plural)
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, a) in left.chars().enumerate() {
        let mut before = index;
        let mut last = index + 1;
        let mut next = vec![last];
        for (b, above) in right.iter().zip(row.iter().skip(1)) {
            let changed = before + usize::from(a != *b);
            before = *above;
            last = changed.min(*above + 1).min(last + 1);
            next.push(last);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn error<T>(message: &str) -> Result<T, Verbatim> {
    Err(Verbatim(format!("error: {message}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], expected: &[&str]) {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let shown = |target: &Wanted| match &target.name {
            Some(name) => format!("{}/{name}", target.resource.plural()),
            None => target.resource.plural().to_owned(),
        };
        let found: Vec<String> = match parse(&arguments) {
            Ok((targets, _)) => targets.iter().map(shown).collect(),
            Err(error) => vec![error.to_string()],
        };
        assert_eq!(found, expected, "{arguments:?}");
    }

    #[test]
    fn parse_takes_every_form() {
        check(&["svc"], &["services"]);
        check(&["po,svc,pods"], &["pods", "services"]);
        check(
            &["po,svc", "a", "b"],
            &["pods/a", "pods/b", "services/a", "services/b"],
        );
        check(&["po/a", "deployment.apps/b"], &["pods/a", "deployments/b"]);
        let all = [
            "pods",
            "services",
            "daemonsets",
            "deployments",
            "replicasets",
            "statefulsets",
        ];
        check(&["all"], &all);
        check(&[], &[]);
    }

    #[test]
    fn parse_refuses_in_kubectls_words() {
        let form = "error: arguments in resource/name form";
        let single = format!("{form} must have a single resource and name");
        for wrong in ["/a", "po/", "po,svc/a"] {
            check(&[wrong], &[&single]);
        }
        let slash = format!("{form} may not have more than one slash");
        check(&["po/a/b"], &[&slash]);
        check(&["po/a,svc/b"], &[&slash]);
        check(&["po", ""], &["error: resource name may not be empty"]);
        check(
            &["po,"],
            &["error: the server doesn't have a resource type \"\""],
        );
        let (targets, mixed) = (["po", "svc/a"], "error: there is no need to specify");
        let arguments = targets.map(str::to_owned);
        assert!(parse(&arguments).unwrap_err().0.starts_with(mixed));
    }

    #[test]
    fn parse_of_a_misspelt_kind_names_the_right_one() {
        let unknown = "error: the server doesn't have a resource type";
        check(
            &["servics"],
            &[&format!(
                "{unknown} \"servics\"\ndid you mean \"services\"?"
            )],
        );
        check(
            &["depolyment"],
            &[&format!(
                "{unknown} \"depolyment\"\ndid you mean \"deployments\"?"
            )],
        );
        check(&["jobs"], &[&format!("{unknown} \"jobs\"")]);
    }
}
