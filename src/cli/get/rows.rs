//! Tables of the usual columns: what stands before and behind them. Owns `NAMESPACE`, `EVENT`, labels and
//! `kind/name`; the columns themselves belong to [`super::columns`].

use portico_core::time::Timestamp;
use serde_json::Value;

use super::{
    columns::{self, Detail},
    output::Headers,
};
use crate::{
    cli::table::{TabWriter, cell},
    objects::Resource,
};

/// What is added to the columns of a kind.
#[derive(Debug, Clone)]
pub(crate) struct Decoration {
    pub(crate) detail: Detail,
    pub(crate) headers: Headers,
    pub(crate) kind: Kind,
    pub(crate) namespace: Namespace,
    /// `-L`
    pub(crate) label_columns: Vec<String>,
    pub(crate) labels: Labels,
}

/// Whether names are `kind/name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Shown,
    Hidden,
}

/// Whether `NAMESPACE` is the first column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    Shown,
    Hidden,
}

/// Whether `LABELS` is the last column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Labels {
    Shown,
    Hidden,
}

/// The table of one kind, which may go on.
#[derive(Debug)]
pub(crate) struct Rows {
    resource: Resource,
    decoration: Decoration,
    writer: TabWriter,
}

impl Rows {
    pub(crate) fn new(resource: Resource, decoration: Decoration) -> Self {
        Self {
            resource,
            decoration,
            writer: TabWriter::default(),
        }
    }

    /// Lines for objects, with what happened to them if that is to be shown; headers before the first of all.
    pub(crate) fn lines(&mut self, objects: &[(Option<&str>, &Value)], now: Timestamp) -> String {
        let Some((event, _)) = objects.first() else {
            return String::new();
        };
        let mut rows = Vec::new();
        if self.decoration.headers == Headers::Shown {
            rows.push(self.headers(event.is_some()));
            self.decoration.headers = Headers::Hidden;
        }
        rows.extend(
            objects
                .iter()
                .map(|(event, object)| self.row(*event, object, now)),
        );
        self.writer.lines(&rows)
    }

    fn shows_namespace(&self) -> bool {
        self.decoration.namespace == Namespace::Shown && self.resource.is_namespaced()
    }

    fn headers(&self, has_event: bool) -> Vec<String> {
        let mut row = Vec::new();
        if has_event {
            row.push("EVENT".to_owned());
        }
        if self.shows_namespace() {
            row.push("NAMESPACE".to_owned());
        }
        row.extend(columns::headers(self.resource, self.decoration.detail));
        let labels = self.decoration.label_columns.iter();
        row.extend(labels.map(|key| key.rsplit('/').next().unwrap_or(key).to_uppercase()));
        if self.decoration.labels == Labels::Shown {
            row.push("LABELS".to_owned());
        }
        row
    }

    fn row(&self, event: Option<&str>, object: &Value, now: Timestamp) -> Vec<String> {
        let detail = self.decoration.detail;
        let text = |path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let mut row: Vec<String> = event
            .map(|event| format!("{event:<8}"))
            .into_iter()
            .collect();
        if self.shows_namespace() {
            row.push(cell(text("/metadata/namespace")));
        }
        let mut cells = columns::cells(self.resource, object, detail, now);
        if self.decoration.kind == Kind::Shown
            && let Some(at) = columns::name_column(self.resource, detail)
            && let Some(name) = cells.get_mut(at)
        {
            *name = format!("{}/{name}", self.qualified_kind());
        }
        row.extend(cells.iter().map(|text| cell(text)));
        let labels = object.pointer("/metadata/labels");
        for key in &self.decoration.label_columns {
            let value = labels.and_then(|labels| labels.get(key));
            row.push(cell(value.and_then(Value::as_str).unwrap_or_default()));
        }
        if self.decoration.labels == Labels::Shown {
            row.push(cell(&columns::labels(labels)));
        }
        row
    }

    /// `deployment.apps`
    fn qualified_kind(&self) -> String {
        let kind = self.resource.kind().to_lowercase();
        match self.resource.group() {
            "" => kind,
            group => format!("{kind}.{group}"),
        }
    }
}
