//! A place in a document: a value that may be absent, its path, and where to point when it is wrong. Owns reading
//! and the API server's phrases (`Required value`, `Invalid value: 0: ...`); must not know any kind.

use std::{fmt::Write as _, sync::Arc};

use super::{
    canonical,
    findings::{Findings, Path},
};
use crate::object::{
    diagnostic::Severity,
    meta::{Labels, Position},
    tree::{Entry, Node, Value},
};

/// See the module's documentation. `null` counts as absent, as everywhere in the Kubernetes API.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    node: Option<&'a Node>,
    /// Where to point when the value is wrong.
    at: Position,
    /// Where to point when something in it is missing: its key.
    anchor: Position,
    path: Path<'a>,
    findings: &'a Findings,
}

impl<'a> Cursor<'a> {
    /// At the document.
    pub(crate) fn root(node: &'a Node, findings: &'a Findings) -> Self {
        Self {
            node: Some(node),
            at: node.position,
            anchor: node.position,
            path: Path::ROOT,
            findings,
        }
    }

    /// At a field of this mapping.
    pub(crate) fn field<'s>(&'s self, name: &'s str) -> Cursor<'s> {
        self.entry(name, self.path.field(name))
    }

    /// At a key of this mapping with free keys.
    pub(crate) fn key<'s>(&'s self, name: &'s str) -> Cursor<'s> {
        self.entry(name, self.path.key(name))
    }

    fn entry<'s>(&'s self, name: &str, path: Path<'s>) -> Cursor<'s> {
        match self.entries().iter().find(|entry| &*entry.key == name) {
            Some(Entry {
                node, key_position, ..
            }) => Cursor {
                node: Some(node).filter(|node| node.value != Value::Null),
                at: node.position,
                anchor: *key_position,
                path,
                findings: self.findings,
            },
            None => Cursor {
                node: None,
                at: self.anchor,
                anchor: self.anchor,
                path,
                findings: self.findings,
            },
        }
    }

    /// At each entry of this list.
    pub(crate) fn items(&self) -> impl Iterator<Item = Cursor<'_>> {
        let items: &[Node] = match self.node {
            Some(Node {
                value: Value::List(items),
                ..
            }) => items,
            _ => &[],
        };
        items.iter().enumerate().map(|(index, node)| Cursor {
            node: Some(node).filter(|node| node.value != Value::Null),
            at: node.position,
            anchor: node.position,
            path: self.path.index(index),
            findings: self.findings,
        })
    }

    /// At the value of each pair of this mapping, whose path keeps the mapping's name, with key and key position.
    pub(crate) fn pairs<'s>(
        &'s self,
    ) -> impl Iterator<Item = (&'a Arc<str>, Cursor<'s>, Cursor<'s>)> {
        self.entries().iter().map(|entry| {
            let value = Cursor {
                node: Some(&entry.node),
                at: entry.node.position,
                anchor: entry.key_position,
                ..*self
            };
            (
                &entry.key,
                Cursor {
                    at: entry.key_position,
                    ..value
                },
                value,
            )
        })
    }

    /// Number of entries of this list.
    pub(crate) const fn len(&self) -> usize {
        match self.node {
            Some(Node {
                value: Value::List(items),
                ..
            }) => items.len(),
            _ => 0,
        }
    }

    /// Whether there is a value.
    pub(crate) const fn is_present(&self) -> bool {
        self.node.is_some()
    }

    /// The value.
    pub(crate) const fn node(&self) -> Option<&'a Node> {
        self.node
    }

    /// The value as text.
    pub(crate) const fn text(&self) -> Option<&'a Arc<str>> {
        match self.node {
            Some(Node {
                value: Value::String(text),
                ..
            }) => Some(text),
            _ => None,
        }
    }

    /// The value as text, absent when empty: how Go's `string` fields read.
    pub(crate) fn non_empty(&self) -> Option<&'a Arc<str>> {
        self.text().filter(|text| !text.is_empty())
    }

    /// The value as an integer.
    pub(crate) fn int(&self) -> Option<i64> {
        self.node.and_then(integer)
    }

    /// The value as a boolean.
    pub(crate) const fn boolean(&self) -> Option<bool> {
        match self.node {
            Some(Node {
                value: Value::Bool(value),
                ..
            }) => Some(*value),
            _ => None,
        }
    }

    /// The value as a mapping of text to text.
    pub(crate) fn labels(&self) -> Labels {
        let pairs = self.entries().iter().map(|entry| {
            let value = match &entry.node.value {
                Value::String(text) => Arc::clone(text),
                _ => Arc::default(),
            };
            (Arc::clone(&entry.key), value)
        });
        pairs.collect()
    }

    /// The value as a list of texts.
    pub(crate) fn texts(&self) -> Vec<Arc<str>> {
        self.items()
            .filter_map(|item| item.text().cloned())
            .collect()
    }

    /// Where the value is, if there is one.
    pub(crate) fn mark(&self) -> Option<(Box<str>, Position)> {
        self.node
            .map(|_| (self.path.to_string().into_boxed_str(), self.at))
    }

    /// The value as findings show it: text in quotes, numbers bare, mappings as JSON.
    pub(crate) fn shown(&self) -> String {
        self.node.map_or_else(|| "null".to_owned(), canonical::json)
    }

    /// `Required value`, with `why` if that says more.
    pub(crate) fn required(&self, why: &str) {
        let separator = if why.is_empty() { "" } else { ": " };
        self.error(format!("Required value{separator}{why}"));
    }

    /// `Invalid value: VALUE: why`.
    pub(crate) fn invalid(&self, why: &str) {
        self.error(format!("Invalid value: {}: {why}", self.shown()));
    }

    /// `Unsupported value: VALUE: supported values: ...`.
    pub(crate) fn unsupported(&self, supported: &[&str]) {
        let mut message = format!("Unsupported value: {}: supported values: ", self.shown());
        for (index, value) in supported.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(message, "{separator}{value:?}");
        }
        self.error(message);
    }

    /// `Duplicate value: shown`.
    pub(crate) fn duplicate(&self, shown: &str) {
        self.error(format!("Duplicate value: {shown}"));
    }

    /// `Forbidden: why`.
    pub(crate) fn forbidden(&self, why: &str) {
        self.error(format!("Forbidden: {why}"));
    }

    /// `Too many: ...`, if the list is longer than `most`.
    pub(crate) fn at_most(&self, most: usize) {
        if self.len() > most {
            self.error(format!(
                "Too many: {}: must have at most {most} items",
                self.len()
            ));
        }
    }

    /// An error in these words.
    pub(crate) fn error(&self, message: String) {
        self.findings
            .add(Severity::Error, self.at, self.path.to_string(), message);
    }

    /// A warning in these words.
    pub(crate) fn warn(&self, message: &str) {
        self.findings.add(
            Severity::Warning,
            self.at,
            self.path.to_string(),
            message.to_owned(),
        );
    }

    /// A note about the file rather than this place in particular: it carries no path.
    pub(crate) fn note(&self, message: &str) {
        self.findings
            .add(Severity::Note, self.at, String::new(), message.to_owned());
    }

    fn entries(&self) -> &'a [Entry] {
        match self.node {
            Some(Node {
                value: Value::Map(entries),
                ..
            }) => entries,
            _ => &[],
        }
    }
}

/// An integer, also one that was written as `80.0`: on its way through JSON it becomes `80`.
pub(crate) fn integer(node: &Node) -> Option<i64> {
    match node.value {
        Value::Int(value) => Some(value),
        Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => {
            format!("{value:.0}").parse().ok()
        }
        _ => None,
    }
}
