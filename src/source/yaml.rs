//! From text to trees: YAML, and JSON as the part of it that it is. Owns documents, anchors, merge keys and limits;
//! what a tree means belongs to the decoder, how a scalar reads to `scalar`.
//!
//! The stream is cut at its `---` lines before it is parsed, so that a syntax error spoils one document only: a
//! `---` at the start of a line ends even a block scalar (YAML 1.2.2, 9.1.2).

mod build;
mod intern;
mod scalar;
mod split;

use portico_core::object::{meta::Position, tree::Node};
use saphyr_parser::{Event, Parser, ScanError};

use build::Builder;
use intern::Interner;

/// Bounds that no honest manifest reaches.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Size of one file.
    pub bytes: usize,
    /// Documents in one file.
    pub documents: usize,
    /// Nesting of lists and mappings.
    pub depth: usize,
    /// Values of one document that come from aliases and merge keys.
    pub copied_nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            documents: 200_000,
            depth: 64,
            copied_nodes: 100_000,
        }
    }
}

/// One document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its value; with problems, as much of it as could be read.
    pub root: Option<Node>,
    /// Why it cannot be taken. Empty for a good document.
    pub problems: Vec<Problem>,
}

/// A syntax error or a limit that was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` when it concerns the whole file.
    pub position: Option<Position>,
    /// What.
    pub message: String,
}

/// All documents of `text` at once; empty ones are left out.
pub fn parse(text: &str, limits: &Limits) -> Vec<Document> {
    let mut documents = Vec::new();
    for_each(text, limits, |document| documents.push(document));
    documents
}

/// Hands each document of `text` to `visit` as soon as it is read, so that only one tree is in memory.
pub fn for_each(text: &str, limits: &Limits, mut visit: impl FnMut(Document)) {
    if text.len() > limits.bytes {
        let message = format!(
            "file of {} bytes is larger than the limit of {}",
            text.len(),
            limits.bytes
        );
        return visit(Document {
            root: None,
            problems: vec![Problem {
                position: None,
                message,
            }],
        });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut interner = Interner::new();
    for (count, (line, chunk)) in split::chunks(text).enumerate() {
        if count >= limits.documents {
            let position = Some(Position {
                line: line + 1,
                column: 1,
            });
            let message = format!("more than {} documents in one file", limits.documents);
            return visit(Document {
                root: None,
                problems: vec![Problem { position, message }],
            });
        }
        read_chunk(
            chunk,
            line,
            limits,
            &mut Reading {
                interner: &mut interner,
                visit: &mut visit,
            },
        );
    }
}

/// What reading a chunk needs beside its text.
struct Reading<'r, V> {
    interner: &'r mut Interner,
    visit: &'r mut V,
}

/// Reads the documents of one chunk: one, unless `...` lines separate more.
fn read_chunk<V: FnMut(Document)>(
    chunk: &str,
    line: u32,
    limits: &Limits,
    reading: &mut Reading<'_, V>,
) {
    let mut builder = Builder::new(line, limits, reading.interner);
    for event in Parser::new_from_str(chunk) {
        let goes_on = match event {
            Ok((Event::DocumentEnd, _)) => {
                emit(builder.take_document(), reading.visit);
                true
            }
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                builder.problem(*error.marker(), describe(&error));
                builder.keep_within(chunk);
                false
            }
        };
        if !goes_on {
            break;
        }
    }
    emit(builder.take_document(), reading.visit);
}

fn emit(document: Document, visit: &mut impl FnMut(Document)) {
    if document.root.is_some() || !document.problems.is_empty() {
        visit(document);
    }
}

/// The parser's words, with the usual cause where it is known.
fn describe(error: &ScanError) -> String {
    let hint = match error.info() {
        info if info.contains("mapping values are not allowed") => {
            " (the line is indented as if it continued the one before)"
        }
        info if info.contains("did not find expected '-' indicator") => " (check the indentation)",
        info if info.contains("tab") => " (indent with spaces)",
        _ => "",
    };
    format!("yaml: {}{hint}", error.info())
}

#[cfg(test)]
mod tests;
