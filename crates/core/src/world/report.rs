//! What a Source says: its complete current view, in shards (one a file), so that an unchanged file costs one
//! pointer comparison. Owns the shapes only.

use std::{collections::BTreeMap, sync::Arc};

use crate::object::{Object, diagnostic::Diagnostic};

/// The state of one Source.
#[derive(Debug, Clone)]
pub enum SourceReport {
    /// It has not seen everything once.
    Pending,
    /// Its complete view.
    Synced(SourceView),
    /// It cannot see at the moment; its last view stays in force.
    Failing {
        /// The last complete view, if there was one.
        view: Option<SourceView>,
        /// Why.
        error: Arc<str>,
    },
}

impl SourceReport {
    /// The view in force.
    pub fn view(&self) -> Option<&SourceView> {
        match self {
            Self::Pending => None,
            Self::Synced(view) => Some(view),
            Self::Failing { view, .. } => view.as_ref(),
        }
    }
}

/// A complete view: shards by name (the file), in the order in which "the earlier object" is decided.
#[derive(Debug, Clone, Default)]
pub struct SourceView {
    /// Shards. An unchanged shard is the same `Arc` as in the view before.
    pub shards: BTreeMap<Arc<str>, Arc<Shard>>,
    /// What its objects are to those of other sources.
    pub layer: Layer,
}

/// What a source's objects are to those of other sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layer {
    /// Declarations: the same object twice is a mistake.
    #[default]
    Declared,
    /// Changed versions of what others declare: they are in force, and nobody is told of two.
    Override,
}

/// The objects of one file in document order, with what was found wrong there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shard {
    /// Objects in force: the file's good ones, and last good versions of the others.
    pub objects: Vec<Arc<Object>>,
    /// Findings of the newest text, also where an older version stays in force.
    pub diagnostics: Vec<Diagnostic>,
}
