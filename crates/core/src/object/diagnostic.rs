//! What is wrong with an object, where, and how bad. Owns the finding; rendering it with its source line belongs to
//! the front end that has the text.

use std::{fmt, sync::Arc};

use super::meta::{ObjectKey, Origin, Position};

/// How bad a finding is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is not accepted.
    Error,
    /// Accepted, but probably not what was meant, or not what a cluster would do. `--strict` makes it an error.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// Lower-case word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Diagnostic {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// Where in the file; `None` when it concerns the whole file.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// How bad.
    pub severity: Severity,
    /// `Kind namespace/name`, as far as it could be read.
    pub object: Option<String>,
    /// Field path (`spec.ports[0].port`); empty when it concerns the whole document.
    pub path: String,
    /// The API server's phrase where it has one, else our own: lower case where ours, no full stop.
    pub message: String,
}

impl Diagnostic {
    /// A finding about the field at `path` of a declared object.
    pub fn about(
        severity: Severity,
        key: &ObjectKey,
        origin: &Origin,
        finding: (&str, String),
    ) -> Self {
        let (path, message) = finding;
        Self {
            file: Arc::clone(&origin.file),
            position: Some(origin.position_of(written(origin, path))),
            severity,
            object: Some(key.to_string()),
            path: path.to_owned(),
            message,
        }
    }
}

/// Where the field at `path` is written: the first of `clusterIPs` may be given as `clusterIP` alone.
fn written<'a>(origin: &Origin, path: &'a str) -> &'a str {
    let is_list = origin.marks.iter().any(|(field, _)| &**field == path);
    match path {
        "spec.clusterIPs[0]" if !is_list => "spec.clusterIP",
        _ => path,
    }
}

impl fmt::Display for Diagnostic {
    /// `file:line:col: severity: path: message`; an error carries no severity word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(position) = self.position {
            write!(f, "{}:{}:", position.line, position.column)?;
        }
        if self.severity != Severity::Error {
            write!(f, " {}:", self.severity.as_str())?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.message)
    }
}
