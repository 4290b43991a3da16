//! Texts that occur again and again in a file (field names, `TCP`, `default`), kept once. Owns a cache of fixed size:
//! a collision costs an allocation, nothing else.

use std::sync::Arc;

const SLOTS: usize = 1024;
/// Longer texts seldom repeat.
const LONGEST: usize = 40;

/// See the module's documentation.
pub(super) struct Interner {
    slots: Vec<Option<Arc<str>>>,
}

impl Interner {
    /// Empty.
    pub(super) fn new() -> Self {
        Self {
            slots: vec![None; SLOTS],
        }
    }

    /// `text` as a shared string.
    pub(super) fn get(&mut self, text: &str) -> Arc<str> {
        if text.len() > LONGEST {
            return Arc::from(text);
        }
        let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let index = usize::try_from(hash ^ (hash >> 15)).unwrap_or_default() % SLOTS;
        match self.slots.get_mut(index) {
            Some(Some(known)) if **known == *text => Arc::clone(known),
            Some(slot) => {
                let fresh: Arc<str> = Arc::from(text);
                *slot = Some(Arc::clone(&fresh));
                fresh
            }
            None => Arc::from(text),
        }
    }
}
