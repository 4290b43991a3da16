//! Which fields a type has and of which shape, and the check of a whole document against it: wrong types are errors,
//! unknown fields warnings. Owns the check; the tables are in `fields`.

use super::{
    cursor::integer,
    findings::{Findings, Path},
};
use crate::object::{
    diagnostic::Severity,
    tree::{Entry, Node, Value},
};

/// The shape of a value. `null` fits everywhere.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Not looked into.
    Any,
    /// A string.
    Text,
    /// An integer.
    Int,
    /// A boolean.
    Bool,
    /// An integer or a string: ports, percentages.
    IntOrText,
    /// A number or a string: amounts of memory.
    Quantity,
    /// A mapping with known fields.
    Object(&'static Schema),
    /// A list.
    List(&'static Self),
    /// A mapping with free keys.
    Map(&'static Self),
}

/// The fields of a type.
#[derive(Debug)]
pub(crate) struct Schema {
    /// The type as the Kubernetes API reference calls it.
    pub(crate) name: &'static str,
    /// Its fields.
    pub(crate) fields: &'static [(&'static str, Shape)],
}

/// Checks `node` and everything below it.
pub(crate) fn check(node: &Node, shape: Shape, path: &Path<'_>, findings: &Findings) {
    match (&node.value, shape) {
        (Value::Null, _) | (_, Shape::Any) => {}
        (Value::Map(entries), Shape::Object(schema)) => {
            check_fields(entries, schema, path, findings);
        }
        (Value::Map(entries), Shape::Map(values)) => {
            for entry in entries {
                check(&entry.node, *values, &path.key(&entry.key), findings);
            }
        }
        (Value::List(items), Shape::List(values)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, *values, &path.index(index), findings);
            }
        }
        (Value::String(_), Shape::Text | Shape::IntOrText | Shape::Quantity)
        | (Value::Bool(_), Shape::Bool)
        | (Value::Int(_) | Value::Float(_), Shape::Quantity) => {}
        (Value::Int(_) | Value::Float(_), Shape::Int | Shape::IntOrText)
            if integer(node).is_some() => {}
        _ => findings.add(
            Severity::Error,
            node.position,
            path.to_string(),
            mismatch(node, shape),
        ),
    }
}

fn check_fields(entries: &[Entry], schema: &Schema, path: &Path<'_>, findings: &Findings) {
    for entry in entries {
        let field = path.field(&entry.key);
        if let Some((_, shape)) = schema.fields.iter().find(|(name, _)| *name == &*entry.key) {
            check(&entry.node, *shape, &field, findings);
        } else {
            let names = schema.fields.iter().map(|(name, _)| *name);
            let hint = closest(&entry.key, names)
                .map_or_else(String::new, |name| format!(", did you mean \"{name}\"?"));
            let message = format!("unknown field \"{}\"{hint}", entry.key);
            findings.add(
                Severity::Warning,
                entry.key_position,
                field.to_string(),
                message,
            );
        }
    }
}

/// kubectl's words for a value of the wrong type, with the usual remedy.
fn mismatch(node: &Node, shape: Shape) -> String {
    let got = match &node.value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Int(_) => "integer",
        Value::Float(_) => "number",
        Value::String(_) => "string",
        Value::List(_) => "array",
        Value::Map(_) => "map",
    };
    let expected = match shape {
        Shape::Any => "anything",
        Shape::Text => "string",
        Shape::Int => "integer",
        Shape::Bool => "boolean",
        Shape::IntOrText => "integer or string",
        Shape::Quantity => "number or string",
        Shape::Object(_) | Shape::Map(_) => "map",
        Shape::List(_) => "array",
    };
    let of = if let Shape::Object(schema) = shape {
        format!(" for {}", schema.name)
    } else {
        String::new()
    };
    let remedy = remedy(&node.value, shape);
    format!("invalid type{of}: got \"{got}\", expected \"{expected}\"{remedy}")
}

fn remedy(value: &Value, shape: Shape) -> &'static str {
    match (value, shape) {
        (Value::List(_), Shape::Object(_) | Shape::Map(_)) => {
            " (write its fields without a leading \"-\")"
        }
        (Value::Map(_), Shape::List(_)) => " (begin each entry with \"-\")",
        (Value::Bool(_) | Value::Int(_) | Value::Float(_), Shape::Text) => {
            " (put the value in quotes)"
        }
        (Value::String(text), Shape::Int) if text.parse::<i64>().is_ok() => " (remove the quotes)",
        (Value::String(text), Shape::Bool) if matches!(&**text, "true" | "false") => {
            " (remove the quotes)"
        }
        _ => "",
    }
}

/// The name nearest to `wanted`, if it is near enough to be what was meant.
pub fn closest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // A misspelt name keeps most of its letters; beyond this length nobody misspells, and the cost is quadratic.
    if wanted.len() > 64 {
        return None;
    }
    let allowed = (wanted.chars().count() / 3).clamp(1, 3);
    let lower = wanted.to_lowercase();
    let distances = names.map(|name| (distance(&lower, &name.to_lowercase()), name));
    distances
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut last_char = None;
    for (i, c) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, d) in b.iter().copied().enumerate() {
            let at =
                |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&row, j) + usize::from(c != d))
                .min(at(&row, j + 1) + 1)
                .min(at(&next, j) + 1);
            let swapped = j > 0 && b.get(j - 1) == Some(&c) && last_char == Some(d);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
        last_char = Some(c);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_closest(wanted: &str, expected: Option<&str>) {
        let names = [
            "containers",
            "initContainers",
            "failureThreshold",
            "name",
            "ports",
            "tty",
        ];
        assert_eq!(closest(wanted, names.into_iter()), expected, "{wanted}");
    }

    #[test]
    fn closest_of_misspelt_names_is_the_meant_one() {
        check_closest("containres", Some("containers"));
        check_closest("failuerThreshold", Some("failureThreshold"));
        check_closest("Name", Some("name"));
        check_closest("port", Some("ports"));
    }

    #[test]
    fn closest_of_another_word_is_none() {
        check_closest("volumes", None);
        check_closest("x", None);
    }

    #[test]
    fn distance_counts_a_swap_of_neighbours_as_one() {
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
