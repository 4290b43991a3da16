//! `-o`: everything but tables of the usual columns. Owns the formats and their messages; must not fetch.

use std::fs;

use serde_json::{Value, json};

use super::{super::Verbatim, columns::Detail, gofmt, jsonpath::Template, yaml};
use crate::cli::table::{TabWriter, escape};

/// What can follow `-o`.
const ALLOWED: &str = "custom-columns,custom-columns-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,wide,yaml";

/// How objects are shown.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    /// The usual columns.
    Table(Detail),
    /// Anything else.
    Format(Format),
}

/// A format that shows objects without knowing their kind.
#[derive(Debug, Clone)]
pub(crate) enum Format {
    Json,
    Yaml,
    Name,
    JsonPath { template: Template, text: String },
    JsonPathAsJson { template: Template, text: String },
    CustomColumns(Vec<(String, Template)>),
}

impl Output {
    /// Reads what followed `-o`, and the file that it may name.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Verbatim> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(Self::Table(Detail::Usual));
        };
        let (name, argument) = match text.split_once('=') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let format = match (name, argument) {
            ("wide", None) => return Ok(Self::Table(Detail::Wide)),
            ("json", None) => Format::Json,
            ("yaml", None) => Format::Yaml,
            ("name", None) => Format::Name,
            ("jsonpath" | "jsonpath-as-json" | "jsonpath-file", None | Some("")) => {
                return error("template format specified but no template given");
            }
            ("jsonpath", Some(text)) => json_path(text.to_owned())?,
            ("jsonpath-as-json", Some(text)) => Format::JsonPathAsJson {
                template: template(text)?,
                text: text.to_owned(),
            },
            ("jsonpath-file", Some(path)) => json_path(read(path, "--template ")?)?,
            ("custom-columns" | "custom-columns-file", None | Some("")) => {
                return error("custom-columns format specified but no custom columns given");
            }
            ("custom-columns", Some(columns)) => custom_columns(columns)?,
            ("custom-columns-file", Some(path)) => {
                custom_columns_of_file(&read(path, "template ")?)?
            }
            ("go-template" | "go-template-file" | "template" | "templatefile", _) => {
                return error(format!(
                    "Go templates are not supported: use -o jsonpath=TEMPLATE instead of -o {name}"
                ));
            }
            _ => {
                return error(format!(
                    "unable to match a printer suitable for the output format \"{text}\", allowed formats are: {ALLOWED}"
                ));
            }
        };
        Ok(Self::Format(format))
    }
}

fn read(path: &str, what: &str) -> Result<String, Verbatim> {
    fs::read_to_string(path).map_err(|problem| {
        let text = problem.to_string().to_lowercase();
        let text = text
            .split(" (os error")
            .next()
            .unwrap_or_default()
            .to_owned();
        Verbatim(format!(
            "error: error reading {what}{path}, open {path}: {text}"
        ))
    })
}

fn json_path(text: String) -> Result<Format, Verbatim> {
    let template = template(&text)?;
    Ok(Format::JsonPath { template, text })
}

fn template(text: &str) -> Result<Template, Verbatim> {
    Template::parse(text)
        .map_err(|problem| Verbatim(format!("error: error parsing jsonpath {text}, {problem}")))
}

fn column(header: &str, path: &str) -> Result<(String, Template), Verbatim> {
    let template =
        Template::parse_relaxed(path).map_err(|problem| Verbatim(format!("error: {problem}")))?;
    Ok((header.to_owned(), template))
}

/// `HEADER:path,HEADER:path`
fn custom_columns(text: &str) -> Result<Format, Verbatim> {
    let columns = text.split(',').map(|part| match part.split_once(':') {
        Some((header, path)) => column(header, path),
        None => error(format!(
            "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
        )),
    });
    Ok(Format::CustomColumns(columns.collect::<Result<_, _>>()?))
}

/// A line of headers and a line of paths.
fn custom_columns_of_file(text: &str) -> Result<Format, Verbatim> {
    let expected = "Expected format is one line of space separated headers, one line of space separated column specs.";
    let mut lines = text.lines();
    let Some(headers) = lines.next() else {
        return error(format!("invalid template, missing header line. {expected}"));
    };
    let Some(paths) = lines.next() else {
        return error(format!("invalid template, missing spec line. {expected}"));
    };
    let headers: Vec<&str> = headers.split_whitespace().collect();
    let paths: Vec<&str> = paths.split_whitespace().collect();
    if headers.len() != paths.len() {
        return error(format!(
            "number of headers ({}) and field specifications ({}) don't match",
            headers.len(),
            paths.len()
        ));
    }
    let columns = headers
        .iter()
        .zip(&paths)
        .map(|(header, path)| column(header, path));
    Ok(Format::CustomColumns(columns.collect::<Result<_, _>>()?))
}

/// Shows one object after the other, and remembers what has to stand between them.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    headers: Headers,
    /// Of custom columns.
    writer: TabWriter,
    documents: usize,
}

/// Whether a table begins with the names of its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Headers {
    /// It does, unless they were shown before.
    Shown,
    /// `--no-headers`
    Hidden,
}

impl Printer {
    pub(crate) fn new(format: Format, headers: Headers) -> Self {
        Self {
            format,
            headers,
            writer: TabWriter::default(),
            documents: 0,
        }
    }

    /// One object, or a `List`.
    pub(crate) fn object(&mut self, object: &Value) -> Result<String, Verbatim> {
        let items = object
            .get("items")
            .and_then(Value::as_array)
            .map_or(std::slice::from_ref(object), Vec::as_slice);
        match &self.format {
            Format::Name => Ok(items.iter().map(|item| name(item) + "\n").collect()),
            Format::CustomColumns(_) => self.custom(items),
            Format::Json => Ok(gofmt::pretty_json(object) + "\n"),
            _ => self.document(object),
        }
    }

    /// One line of a watch with what happened.
    pub(crate) fn event(&mut self, kind: &str, object: &Value) -> Result<String, Verbatim> {
        match &self.format {
            Format::Name => Ok(format!("{kind} {}\n", name(object))),
            Format::Json => {
                let kind = gofmt::compact_json(&Value::String(kind.to_owned()));
                let object = gofmt::compact_json(object);
                Ok(format!("{{\"type\":{kind},\"object\":{object}}}\n"))
            }
            Format::CustomColumns(_) => self.custom(&[json!({"object": object, "type": kind})]),
            _ => self.document(&json!({"object": object, "type": kind})),
        }
    }

    fn document(&mut self, object: &Value) -> Result<String, Verbatim> {
        self.documents += 1;
        let failed = |text: &str, problem: &dyn std::fmt::Display| {
            Verbatim(format!(
                "error: error executing jsonpath {text:?}: Error executing template: {problem}"
            ))
        };
        match &self.format {
            Format::JsonPath { template, text } => template
                .text(object)
                .map_err(|problem| failed(text, &problem)),
            Format::JsonPathAsJson { template, text } => template
                .json(object)
                .map_err(|problem| failed(text, &problem)),
            _ => {
                let separator = if self.documents > 1 { "---\n" } else { "" };
                Ok(separator.to_owned() + &yaml::document(object))
            }
        }
    }

    fn custom(&mut self, objects: &[Value]) -> Result<String, Verbatim> {
        let Format::CustomColumns(columns) = &self.format else {
            return Ok(String::new());
        };
        let mut rows = Vec::new();
        if self.headers == Headers::Shown {
            rows.push(columns.iter().map(|(header, _)| header.clone()).collect());
            self.headers = Headers::Hidden;
        }
        for object in objects {
            let cells = columns
                .iter()
                .map(|(_, template)| custom_cell(template, object));
            rows.push(cells.collect::<Result<Vec<String>, _>>()?);
        }
        Ok(self.writer.lines(&rows))
    }
}

fn custom_cell(template: &Template, object: &Value) -> Result<String, Verbatim> {
    let found = template
        .find(object)
        .map_err(|problem| Verbatim(format!("error: {problem}")))?;
    let mut values: Vec<String> = Vec::new();
    if found.first().is_none_or(Vec::is_empty) {
        values.push("<none>".to_owned());
    }
    let shown = found.iter().flatten();
    values.extend(shown.map(|value| escape(&gofmt::go_value(value))));
    Ok(values.join(","))
}

/// `deployment.apps/web`
fn name(object: &Value) -> String {
    let text = |path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let kind = text("/kind").to_lowercase();
    let name = text("/metadata/name");
    match text("/apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

fn error<T>(message: impl std::fmt::Display) -> Result<T, Verbatim> {
    Err(Verbatim(format!("error: {message}")))
}
