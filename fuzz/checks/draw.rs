//! Choices out of bytes. Owns nothing else: whatever the bytes, there is a choice, and when they are used up it is
//! the first.

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct Draw<'b> {
    rest: &'b [u8],
}

impl<'b> Draw<'b> {
    pub(crate) const fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    /// One in four.
    pub(crate) fn is_rare(&mut self) -> bool {
        self.byte() % 4 == 3
    }

    pub(crate) fn is_so(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    pub(crate) fn one<'t, T: ?Sized>(&mut self, of: &[&'t T]) -> &'t T {
        of[self.below(of.len())]
    }
}
