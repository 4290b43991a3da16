//! kubectl's dialect of `JSONPath` (Kubernetes documentation, "`JSONPath` Support"): text with expressions in braces.
//! Owns the two steps, parsing and evaluation, and how results are written; must not know Kubernetes' kinds.

mod eval;
mod parse;

use std::borrow::Cow;

use serde_json::Value;

use super::gofmt;

/// Longest template; nobody types more, and a file may hold anything.
const MAX_LENGTH: usize = 64 * 1024;

/// What is wrong with a template, or with an object for it, in kubectl's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PathError(pub(crate) String);

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

/// What one expression, or one piece of text, stands for.
pub(crate) type Results<'a> = Vec<Cow<'a, Value>>;

/// A step of an expression.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// What stands in one pair of braces.
    List(Vec<Node>),
    Text(String),
    Field(String),
    /// From, to, step; a missing `to` in `[n]` is `n + 1`.
    Slice(Slice),
    Filter(Box<Filter>),
    Number(serde_json::Number),
    Bool(bool),
    Wildcard,
    Recursive,
    Union(Vec<Vec<Node>>),
    Identifier(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Slice {
    from: Option<i64>,
    to: Option<i64>,
    step: Option<i64>,
    /// `[n]`, where `to` follows from `from`.
    single: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    left: Vec<Node>,
    right: Vec<Node>,
    operator: String,
}

impl Template {
    /// Reads a template as `-o jsonpath=` has it.
    pub(crate) fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_LENGTH {
            return Err(PathError(format!(
                "template is longer than {MAX_LENGTH} bytes"
            )));
        }
        let nodes = parse::template(text, 0)?;
        Ok(Self { nodes })
    }

    /// Reads a path as `--sort-by` and `custom-columns` have it: braces and the first dot may be missing.
    pub(crate) fn parse_relaxed(text: &str) -> Result<Self, PathError> {
        Self::parse(&relaxed(text)?)
    }

    /// What each piece of the template stands for in `object`.
    pub(crate) fn find<'a>(&self, object: &'a Value) -> Result<Vec<Results<'a>>, PathError> {
        eval::find(&self.nodes, object)
    }

    /// The text that `-o jsonpath=` prints.
    pub(crate) fn text(&self, object: &Value) -> Result<String, PathError> {
        let mut out = String::new();
        for results in self.find(object)? {
            for (index, value) in results.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(&match &**value {
                    Value::Array(_) | Value::Object(_) => gofmt::compact_json(value),
                    Value::Null => "null".to_owned(),
                    value => gofmt::plain(value),
                });
            }
        }
        Ok(out)
    }

    /// The text that `-o jsonpath-as-json=` prints: an array for each piece of the template.
    pub(crate) fn json(&self, object: &Value) -> Result<String, PathError> {
        let mut out = String::new();
        for results in self.find(object)? {
            let array = Value::Array(results.into_iter().map(Cow::into_owned).collect());
            out.push_str(&gofmt::pretty_json(&array));
            out.push('\n');
        }
        Ok(out)
    }
}

/// `metadata.name`, `.metadata.name`, `{metadata.name}` and `{.metadata.name}` are all `{.metadata.name}`.
pub(crate) fn relaxed(text: &str) -> Result<String, PathError> {
    let inner = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .unwrap_or(text);
    let inner = match inner.strip_prefix('.') {
        Some("") | None => inner,
        Some(rest) => rest,
    };
    if inner.is_empty() || inner.contains(['{', '}']) {
        return Err(PathError(
            "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{name1.name2}' or \
             '{.name1.name2}'"
                .to_owned(),
        ));
    }
    Ok(format!("{{.{inner}}}"))
}

fn error<T>(message: impl Into<String>) -> Result<T, PathError> {
    Err(PathError(message.into()))
}

#[cfg(test)]
mod tests;
