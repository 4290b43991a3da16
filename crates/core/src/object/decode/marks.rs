//! Positions that are kept with an object. Owns their collection.

use std::sync::Arc;

use super::cursor::Cursor;
use crate::object::meta::Position;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Marks(Vec<(Box<str>, Position)>);

impl Marks {
    /// Keeps where this value is, if it is there.
    pub(super) fn add(&mut self, cursor: &Cursor<'_>) {
        self.0.extend(cursor.mark());
    }

    /// For the object's origin.
    pub(super) fn finish(self) -> Arc<[(Box<str>, Position)]> {
        self.0.into()
    }
}
