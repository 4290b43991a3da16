//! Namespaces, and kinds without a layout of their own: there kubectl shows every field by its name. Owns that.

use serde_json::Value;

use super::{
    Related, events,
    json::{items, name, scalar, text},
    meta,
    writer::Writer,
};
use crate::objects::Resource;

/// Fields that are shown elsewhere, or to nobody.
const SHOWN: [&str; 5] = [
    ".metadata.managedFields",
    ".metadata.name",
    ".metadata.namespace",
    ".metadata.labels",
    ".metadata.annotations",
];
/// Words that stay capitals.
const ACRONYMS: [&str; 5] = ["API", "URL", "UID", "OSB", "GUID"];

/// A Namespace. Quotas and limit ranges are not served here: an API server without any says so in these words.
pub(super) fn namespace(out: &mut Writer, namespace: &Value) {
    out.pair(0, "Name", name(namespace));
    meta::labels_and_annotations(out, namespace);
    out.pair(0, "Status", text(namespace, "/status/phase"));
    let conditions = items(namespace, "/status/conditions");
    if !conditions.is_empty() {
        out.line(0, "Conditions:");
        out.line(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
        out.line(1, "----\t------\t------------------\t------\t-------");
    }
    for one in conditions {
        let transition = out.time(text(one, "/lastTransitionTime"));
        out.line(
            1,
            format_args!(
                "{}\t{}\t{}\t{}\t{}",
                text(one, "/type"),
                text(one, "/status"),
                transition,
                text(one, "/reason"),
                text(one, "/message")
            ),
        );
    }
    out.line(0, "");
    out.line(0, "No resource quota.");
    out.line(0, "");
    out.line(0, "No LimitRange resource.");
}

/// An object of any other kind.
pub(super) fn generic(out: &mut Writer, resource: Resource, object: &Value, related: &Related) {
    meta::name(out, object);
    meta::labels_and_annotations(out, object);
    fields(out, 0, object, "");
    events::write(out, resource, object, related);
}

fn fields(out: &mut Writer, level: usize, object: &Value, path: &str) {
    let Some(object) = object.as_object() else {
        return;
    };
    let mut all: Vec<(&String, &Value)> = object.iter().collect();
    all.sort_unstable_by_key(|(key, _)| *key);
    for (key, value) in all {
        let path = format!("{path}.{key}");
        if SHOWN.contains(&path.as_str()) {
            continue;
        }
        let title = title(key);
        match value {
            Value::Object(_) => {
                out.line(level, format_args!("{title}:"));
                fields(out, level + 1, value, &path);
            }
            Value::Array(items) => {
                out.line(level, format_args!("{title}:"));
                for item in items {
                    if item.is_object() {
                        fields(out, level + 1, item, &path);
                    } else {
                        out.line(level + 1, scalar(item, ""));
                    }
                }
            }
            Value::Null => out.pair(level, title, "<nil>"),
            value => out.pair(level, title, scalar(value, "")),
        }
    }
}

/// `involvedObject` is `Involved Object`; what has more than letters stays.
fn title(field: &str) -> String {
    if field.contains(|c: char| !c.is_alphabetic() && c != '-') {
        return field.to_owned();
    }
    let words = words(field);
    let words = words.iter().map(|word| {
        let capitals = word.to_uppercase();
        if ACRONYMS.contains(&capitals.as_str()) {
            return capitals;
        }
        let mut letters = word.chars();
        let first = letters.next().map(char::to_uppercase);
        first
            .into_iter()
            .flatten()
            .chain(letters)
            .collect::<String>()
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Splits camel case: a word begins where a capital follows a small letter, and at the last capital of a row of them.
fn words(field: &str) -> Vec<String> {
    let letters: Vec<char> = field.chars().collect();
    let mut words: Vec<String> = Vec::new();
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| letters.get(index));
        let after = letters.get(index + 1);
        let begins = match before {
            None => true,
            Some(before) if before.is_uppercase() => {
                letter.is_uppercase() && after.is_some_and(|after| after.is_lowercase())
            }
            Some(before) => letter.is_uppercase() || (*before == '-') != (*letter == '-'),
        };
        match words.last_mut() {
            Some(word) if !begins => word.push(*letter),
            _ => words.push(letter.to_string()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_splits_camel_case() {
        let check = |field, expected| assert_eq!(title(field), expected);
        check("apiVersion", "API Version");
        check("involvedObject", "Involved Object");
        check("uid", "UID");
        check("reportingComponent", "Reporting Component");
        check("HTTPServer", "HTTP Server");
        check("f:spec", "f:spec");
    }
}
