//! A document as a tree of values with positions: what a YAML or JSON front end hands to the decoder. Owns the
//! shape only; which text gives which tree belongs to the front end, what a tree means to the decoder.

use std::sync::Arc;

use super::meta::Position;

/// A value and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Start of the value.
    pub position: Position,
    /// The value.
    pub value: Value,
}

/// A JSON-shaped value. Scalars follow kubectl's reading of YAML (YAML 1.1 booleans, 1.2 numbers).
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    String(Arc<str>),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the text; the front end has already rejected duplicate keys.
    Map(Vec<Entry>),
}

/// One pair of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Arc<str>,
    /// Where the key starts.
    pub key_position: Position,
    /// The value.
    pub node: Node,
}

impl Node {
    /// The value at `key` if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|entry| &*entry.key == key)
                .map(|entry| &entry.node),
            _ => None,
        }
    }
}
