//! YAML as kubectl prints it: block style, two spaces, keys in natural order, lists not indented below their key,
//! strings quoted only where YAML 1.1 would read something else. Owns writing; reading is the source's.
//!
//! The rules are those of libyaml's emitter and of Go's yaml.v2 in front of it, which differ from YAML 1.2: `y` and
//! `12:30` are quoted, lines are folded behind column 80.

mod scalar;

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::sort;
use scalar::{Line, Place};

/// The document, with its last line break.
pub(crate) fn document(value: &Value) -> String {
    let mut out = Line::default();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(map, 0, &mut out),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut out),
        value => {
            // A scalar by itself hangs at the left edge.
            leaf(value, 0, &mut out);
            out.push('\n');
        }
    }
    out.into_text()
}

/// The entries, the first one where the line stands.
fn mapping(map: &Map<String, Value>, indent: usize, out: &mut Line) {
    let mut entries: Vec<(&String, &Value)> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    let entries = sort::stable(entries, &|left, right| natural_order(left.0, right.0));
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.indent(indent);
        }
        if !is_simple_key(key) {
            out.push_str("? ");
            scalar::string(key, indent + 2, Place::Value, out);
            out.fresh_line();
            out.indent(indent);
            out.push_str(": ");
            item(value, indent, out);
            continue;
        }
        scalar::string(key, indent, Place::Key, out);
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                out.indent(indent + 2);
                mapping(map, indent + 2, out);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                out.indent(indent);
                sequence(items, indent, out);
            }
            value => {
                out.push(' ');
                leaf(value, indent + 2, out);
                out.fresh_line();
            }
        }
    }
}

fn sequence(items: &[Value], indent: usize, out: &mut Line) {
    for (index, value) in items.iter().enumerate() {
        if index > 0 {
            out.indent(indent);
        }
        out.push_str("- ");
        item(value, indent, out);
    }
}

/// What stands behind a dash, or behind the colon of a key with a question mark.
fn item(value: &Value, indent: usize, out: &mut Line) {
    match value {
        Value::Object(map) if !map.is_empty() => mapping(map, indent + 2, out),
        Value::Array(items) if !items.is_empty() => sequence(items, indent + 2, out),
        value => {
            leaf(value, indent + 2, out);
            out.fresh_line();
        }
    }
}

fn leaf(value: &Value, indent: usize, out: &mut Line) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&scalar::number(number)),
        Value::String(text) => scalar::string(text, indent, Place::Value, out),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// Longer keys, and keys of several lines, need a question mark (YAML 1.1, section 10.2.2).
fn is_simple_key(key: &str) -> bool {
    key.len() <= 128 && !key.contains(['\n', '\u{2028}', '\u{2029}'])
}

/// Digits by their number, letters after everything else, as Go's yaml sorts keys. Not a total order: signs and digits
/// can go round in circles.
fn natural_order(left: &str, right: &str) -> Ordering {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let differs = left.iter().zip(&right).position(|(a, b)| a != b);
    let Some(at) = differs else {
        return left.len().cmp(&right.len());
    };
    let (Some(a), Some(b)) = (left.get(at), right.get(at)) else {
        return Ordering::Equal;
    };
    match (a.is_alphabetic(), b.is_alphabetic()) {
        (true, true) => return a.cmp(b),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let within_number = (*a == '0' || *b == '0')
        && left
            .get(..at)
            .unwrap_or_default()
            .iter()
            .rev()
            .take_while(|c| c.is_ascii_digit())
            .any(|c| *c != '0');
    let number = |text: &[char]| {
        let digits = text.get(at..).unwrap_or_default().iter();
        digits.map_while(|c| c.to_digit(10)).fold(
            (i64::from(within_number), at),
            |(number, end), digit| {
                let shifted = number.wrapping_mul(10).wrapping_add(i64::from(digit));
                (shifted, end + 1)
            },
        )
    };
    number(&left).cmp(&number(&right)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests;
