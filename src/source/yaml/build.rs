//! From parser events to a tree: nesting, anchors, merge keys, duplicate keys, limits. Owns one document at a time.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use portico_core::object::{
    meta::Position,
    tree::{Entry, Node, Value},
};
use saphyr_parser::{Event, Marker, ScalarStyle, Span, Tag};

use super::{Document, Limits, Problem, intern::Interner, scalar};

/// Mappings up to this size are searched for a duplicate key from end to end.
const SMALL_MAP: usize = 24;

/// See the module's documentation.
pub(super) struct Builder<'b> {
    /// Lines of the file before the text that the parser sees.
    lines_before: u32,
    limits: &'b Limits,
    interner: &'b mut Interner,
    frames: Vec<Frame>,
    root: Option<Node>,
    /// Finished anchored values with their sizes in nodes.
    anchors: BTreeMap<usize, (Node, usize)>,
    copied: usize,
    problems: Vec<Problem>,
}

/// A list or mapping that is still open.
struct Frame {
    position: Position,
    anchor: usize,
    open: Open,
}

enum Open {
    List(Vec<Node>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    key: Option<Key>,
    merged: Vec<Entry>,
    /// Keys of a large mapping.
    seen: HashSet<Arc<str>>,
}

struct Key {
    text: Arc<str>,
    position: Position,
    is_merge: bool,
}

impl<'b> Builder<'b> {
    /// For text that begins after `lines_before` lines of the file.
    pub(super) fn new(lines_before: u32, limits: &'b Limits, interner: &'b mut Interner) -> Self {
        Self {
            lines_before,
            limits,
            interner,
            frames: Vec::new(),
            root: None,
            anchors: BTreeMap::new(),
            copied: 0,
            problems: Vec::new(),
        }
    }

    /// Takes one event; false when a limit forbids to go on.
    pub(super) fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar((&text, style, tag.as_deref()), anchor, span)
            }
            Event::SequenceStart(anchor, _) => self.open(Open::List(Vec::new()), anchor, span),
            Event::MappingStart(anchor, _) => {
                self.open(Open::Map(OpenMap::default()), anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.close();
                true
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => true,
        }
    }

    /// Notes a problem at a place of the parser's text.
    pub(super) fn problem(&mut self, at: Marker, message: String) {
        let position = Some(self.position(at));
        self.problems.push(Problem { position, message });
    }

    /// Moves problems beyond the last line with anything in it, where the parser noticed that something is missing,
    /// to the end of that line.
    pub(super) fn keep_within(&mut self, chunk: &str) {
        let text = chunk.trim_end();
        let lines = text.matches('\n').count() + 1;
        let last = text.rsplit('\n').next().unwrap_or_default();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let end = Position {
            line: self.lines_before.saturating_add(count(lines)),
            column: count(last.chars().count()).saturating_add(1),
        };
        for problem in &mut self.problems {
            problem.position = problem.position.map(|position| {
                if position.line > end.line {
                    end
                } else {
                    position
                }
            });
        }
    }

    /// Ends the document: what is still open after an error is taken as it is.
    pub(super) fn take_document(&mut self) -> Document {
        while !self.frames.is_empty() {
            self.close();
        }
        self.anchors.clear();
        self.copied = 0;
        let root = self.root.take().filter(|root| root.value != Value::Null);
        Document {
            root,
            problems: std::mem::take(&mut self.problems),
        }
    }

    fn position(&self, marker: Marker) -> Position {
        let line = u32::try_from(marker.line()).unwrap_or(u32::MAX);
        let column = u32::try_from(marker.col()).unwrap_or(u32::MAX);
        Position {
            line: line.saturating_add(self.lines_before),
            column: column.saturating_add(1),
        }
    }

    fn scalar(
        &mut self,
        scalar: (&str, ScalarStyle, Option<&Tag>),
        anchor: usize,
        span: Span,
    ) -> bool {
        let (text, style, tag) = scalar;
        let mut position = self.position(span.start);
        let plain = style == ScalarStyle::Plain && !tag.is_some_and(is_text_tag);
        if plain
            && text.is_empty()
            && let Some(Frame {
                open: Open::Map(OpenMap { key: Some(key), .. }),
                ..
            }) = self.frames.last()
        {
            // Nothing is written, so the key is what can be pointed at.
            position = key.position;
        }
        let merge = plain && text == "<<";
        let value = match text {
            "" if plain => Value::Null,
            _ if plain || tag.is_some_and(is_number_tag) => {
                scalar::resolve(text).unwrap_or_else(|| Value::String(self.interner.get(text)))
            }
            _ => Value::String(self.interner.get(text)),
        };
        self.add(Node { position, value }, anchor, merge)
    }

    fn open(&mut self, open: Open, anchor: usize, span: Span) -> bool {
        if self.frames.len() >= self.limits.depth {
            self.problem(
                span.start,
                format!("yaml: nested deeper than {} levels", self.limits.depth),
            );
            return false;
        }
        let position = self.position(span.start);
        self.frames.push(Frame {
            position,
            anchor,
            open,
        });
        true
    }

    fn close(&mut self) {
        let Some(Frame {
            position,
            anchor,
            open,
        }) = self.frames.pop()
        else {
            return;
        };
        let value = match open {
            Open::List(items) => Value::List(items),
            Open::Map(map) => Value::Map(map.finish()),
        };
        self.add(Node { position, value }, anchor, false);
    }

    fn alias(&mut self, anchor: usize, span: Span) -> bool {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            self.problem(
                span.start,
                "yaml: anchor refers to the value that contains it".to_owned(),
            );
            return false;
        };
        self.copied = self.copied.saturating_add(*size);
        if self.copied > self.limits.copied_nodes {
            let message = format!(
                "yaml: aliases expand to more than {} values",
                self.limits.copied_nodes
            );
            self.problem(span.start, message);
            return false;
        }
        let node = node.clone();
        self.add(node, 0, false)
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, node: Node, anchor: usize, is_merge_key: bool) -> bool {
        if anchor > 0 {
            let size = count(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return true;
        };
        let position = node.position;
        let problem = match &mut frame.open {
            Open::List(items) => {
                items.push(node);
                None
            }
            Open::Map(map) => match map.key.take() {
                Some(key) => map.insert(key, node),
                None => map.begin(node, is_merge_key, self.interner),
            },
        };
        if let Some(message) = problem {
            self.problems.push(Problem {
                position: Some(position),
                message,
            });
        }
        true
    }
}

impl OpenMap {
    /// Takes a key; what is wrong with it, if anything.
    fn begin(&mut self, node: Node, is_merge: bool, interner: &mut Interner) -> Option<String> {
        let position = node.position;
        let text = match node.value {
            Value::String(text) => text,
            Value::Bool(value) => interner.get(if value { "true" } else { "false" }),
            Value::Int(value) => interner.get(&value.to_string()),
            Value::Float(value) => interner.get(&value.to_string()),
            Value::Null => interner.get("null"),
            Value::List(_) | Value::Map(_) => {
                self.key = Some(Key {
                    text: interner.get("?"),
                    position,
                    is_merge: false,
                });
                return Some(
                    "yaml: a key must be a single value, not a list or a mapping".to_owned(),
                );
            }
        };
        let earlier = if is_merge {
            None
        } else {
            self.position_of(&text)
        };
        let problem = earlier.map(|Position { line, column }| {
            format!(
                "yaml: key {text:?} is already set in this mapping at line {line}, column {column}"
            )
        });
        self.key = Some(Key {
            text,
            position,
            is_merge,
        });
        problem
    }

    /// Takes a value; what is wrong with it, if anything.
    fn insert(&mut self, key: Key, node: Node) -> Option<String> {
        if !key.is_merge {
            if self.entries.len() >= SMALL_MAP {
                self.remember(&key.text);
            }
            self.entries.push(Entry {
                key: key.text,
                key_position: key.position,
                node,
            });
            return None;
        }
        let sources = match node.value {
            Value::Map(entries) => vec![entries],
            Value::List(items) => items.into_iter().filter_map(entries_of).collect(),
            _ => Vec::new(),
        };
        if sources.is_empty() {
            return Some(
                "yaml: map merge requires map or sequence of maps as the value".to_owned(),
            );
        }
        self.merged.extend(sources.into_iter().flatten());
        None
    }

    fn remember(&mut self, fresh: &Arc<str>) {
        if self.seen.is_empty() {
            self.seen
                .extend(self.entries.iter().map(|entry| Arc::clone(&entry.key)));
        }
        self.seen.insert(Arc::clone(fresh));
    }

    fn position_of(&self, text: &str) -> Option<Position> {
        if !self.seen.is_empty() && !self.seen.contains(text) {
            return None;
        }
        self.entries
            .iter()
            .find(|entry| *entry.key == *text)
            .map(|entry| entry.key_position)
    }

    /// The entries, then those of merged mappings that are not set yet: the earlier merged one wins.
    fn finish(self) -> Vec<Entry> {
        let Self {
            mut entries,
            merged,
            ..
        } = self;
        if merged.is_empty() {
            return entries;
        }
        let mut known: HashSet<Arc<str>> =
            entries.iter().map(|entry| Arc::clone(&entry.key)).collect();
        entries.extend(
            merged
                .into_iter()
                .filter(|entry| known.insert(Arc::clone(&entry.key))),
        );
        entries
    }
}

fn entries_of(node: Node) -> Option<Vec<Entry>> {
    match node.value {
        Value::Map(entries) => Some(entries),
        _ => None,
    }
}

/// Number of values in a tree.
fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|entry| count(&entry.node)).sum(),
        _ => 0,
    }
}

fn is_text_tag(tag: &Tag) -> bool {
    (tag.is_yaml_core_schema() && matches!(tag.suffix.as_str(), "str" | "binary"))
        || (tag.handle == "!" && tag.suffix.is_empty())
}

fn is_number_tag(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() && matches!(tag.suffix.as_str(), "int" | "float" | "bool" | "null")
}
