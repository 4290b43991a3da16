//! Where findings about one document are collected, and how a place in it is named. Owns paths and the API server's
//! phrasing of findings; must not know any kind.

use std::{
    cell::{Cell, RefCell},
    fmt::{self, Write as _},
    sync::Arc,
};

use crate::object::{
    diagnostic::{Diagnostic, Severity},
    meta::Position,
};

/// Findings about one document, in the order in which they were made.
#[derive(Debug)]
pub(crate) struct Findings {
    file: Arc<str>,
    found: RefCell<Vec<Diagnostic>>,
    errors: Cell<usize>,
}

impl Findings {
    /// None so far.
    pub(crate) const fn new(file: Arc<str>) -> Self {
        Self {
            file,
            found: RefCell::new(Vec::new()),
            errors: Cell::new(0),
        }
    }

    /// Adds one.
    pub(crate) fn add(
        &self,
        severity: Severity,
        position: Position,
        path: String,
        message: String,
    ) {
        if severity == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        let file = Arc::clone(&self.file);
        self.found.borrow_mut().push(Diagnostic {
            file,
            position: Some(position),
            severity,
            object: None,
            path,
            message,
        });
    }

    /// Number of errors so far.
    pub(crate) const fn errors(&self) -> usize {
        self.errors.get()
    }

    /// Number of findings so far.
    pub(crate) fn len(&self) -> usize {
        self.found.borrow().len()
    }

    /// Takes back findings from number `from` on that only repeat an error before: about the same place, or one in it
    /// or around it.
    pub(crate) fn forget_consequences(&self, from: usize) {
        let mut found = self.found.borrow_mut();
        let from = from.min(found.len());
        let later = found.split_off(from);
        let errors = found.iter().filter(|one| one.severity == Severity::Error);
        let wrong: Vec<String> = errors.map(|one| one.path.clone()).collect();
        let is_within = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| {
                outer.is_empty() || rest.is_empty() || rest.starts_with(['.', '['])
            })
        };
        let own = later.into_iter().filter(|finding| {
            finding.severity == Severity::Error
                && !wrong
                    .iter()
                    .any(|path| is_within(&finding.path, path) || is_within(path, &finding.path))
        });
        found.extend(own);
    }

    /// Moves everything to `diagnostics`, said about `object`.
    pub(crate) fn drain_into(
        self,
        diagnostics: &mut Vec<Diagnostic>,
        object: impl FnOnce() -> Option<String>,
    ) {
        let found = self.found.into_inner();
        if found.is_empty() {
            return;
        }
        let object = object();
        diagnostics.extend(found.into_iter().map(|finding| Diagnostic {
            object: object.clone(),
            ..finding
        }));
    }
}

/// A field path, linked upwards so that it costs nothing until somebody complains.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The document itself.
    pub(crate) const ROOT: Self = Self {
        parent: None,
        step: Step::Root,
    };

    /// A field of a mapping with fixed fields.
    pub(crate) const fn field(&'a self, name: &'a str) -> Self {
        Self {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    /// An entry of a list.
    pub(crate) const fn index(&'a self, index: usize) -> Self {
        Self {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// An entry of a mapping with free keys.
    pub(crate) const fn key(&'a self, key: &'a str) -> Self {
        Self {
            parent: Some(self),
            step: Step::Key(key),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rendered = String::new();
        if let Some(parent) = self.parent {
            write!(rendered, "{parent}")?;
        }
        f.write_str(&rendered)?;
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if rendered.is_empty() => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_of_mixed_steps_renders_as_the_api_server_does() {
        let spec = Path::ROOT.field("spec");
        let ports = spec.field("ports");
        let first = ports.index(0);
        assert_eq!(first.field("port").to_string(), "spec.ports[0].port");
        assert_eq!(Path::ROOT.to_string(), "");
    }
}
