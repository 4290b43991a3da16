//! The canonical JSON text of a value (sorted keys, no spaces), and a hash of it. Owns the text's form, which must
//! not change between versions: the names of pods depend on it.

use std::fmt;

use crate::object::tree::{Entry, Node, Value};

/// Canonical JSON.
pub(crate) fn json(node: &Node) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_value(&mut text, node);
    text
}

/// FNV-1a, 32 bits, of the canonical JSON: the hash function behind Kubernetes' `pod-template-hash` (its input there
/// is another rendering, so the values differ).
pub(crate) fn hash(node: Option<&Node>) -> u32 {
    let mut sink = Fnv(0x811c_9dc5);
    if let Some(node) = node {
        // The sink does not fail.
        let _ = write_value(&mut sink, node);
    }
    sink.0
}

struct Fnv(u32);

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = text.bytes().fold(self.0, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        Ok(())
    }
}

fn write_value(out: &mut impl fmt::Write, node: &Node) -> fmt::Result {
    match &node.value {
        Value::Null => out.write_str("null"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Float(value) => write!(out, "{value}"),
        Value::String(text) => write_text(out, text),
        Value::List(items) => {
            out.write_char('[')?;
            for (index, item) in items.iter().enumerate() {
                separate(out, index)?;
                write_value(out, item)?;
            }
            out.write_char(']')
        }
        Value::Map(entries) => {
            let mut sorted: Vec<&Entry> = entries.iter().collect();
            sorted.sort_by(|a, b| a.key.cmp(&b.key));
            out.write_char('{')?;
            for (index, entry) in sorted.into_iter().enumerate() {
                separate(out, index)?;
                write_text(out, &entry.key)?;
                out.write_char(':')?;
                write_value(out, &entry.node)?;
            }
            out.write_char('}')
        }
    }
}

fn separate(out: &mut impl fmt::Write, index: usize) -> fmt::Result {
    if index == 0 {
        Ok(())
    } else {
        out.write_char(',')
    }
}

fn write_text(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\t' => out.write_str("\\t")?,
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::meta::Position;

    fn node(value: Value) -> Node {
        Node {
            position: Position::default(),
            value,
        }
    }

    fn entry(key: &str, value: Value) -> Entry {
        Entry {
            key: key.into(),
            key_position: Position::default(),
            node: node(value),
        }
    }

    #[test]
    fn json_of_a_mapping_sorts_keys_and_escapes_text() {
        let map = node(Value::Map(vec![
            entry(
                "b",
                Value::List(vec![node(Value::Int(1)), node(Value::Null)]),
            ),
            entry("a", Value::String("x\"\n".into())),
        ]));
        assert_eq!(json(&map), r#"{"a":"x\"\n","b":[1,null]}"#);
    }

    #[test]
    fn hash_of_known_text_is_fnv_1a() {
        // FNV-1a of the two characters `""`, by the algorithm's definition applied by hand.
        let mut expected = 0x811c_9dc5_u32;
        for byte in [b'"', b'"'] {
            expected = (expected ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        assert_eq!(hash(Some(&node(Value::String("".into())))), expected);
        assert_eq!(hash(None), 0x811c_9dc5);
    }
}
