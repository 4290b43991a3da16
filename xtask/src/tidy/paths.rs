//! Paths in code: what follows `crate::` or `std::`, also inside the braces of a `use`. Owns the unfolding.

/// A path with the line it begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// Line, from 1.
    pub(crate) line: usize,
    /// Segments without the root, joined by `::`.
    pub(crate) name: String,
}

/// Every path of `code` (without comments and strings) that begins with `root::`.
pub(crate) fn below(root: &str, code: &str) -> Vec<Path> {
    let mark = format!("{root}::");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(&mark) {
        let (before, rest) = code.split_at(at);
        // `other::std::` and `my_std::` are not what is meant; `::std::` is.
        let before =
            before.strip_suffix("::").map_or(
                before,
                |outer| if ends_in_word(outer) { "x" } else { outer },
            );
        if ends_in_word(before) {
            continue;
        }
        let mut reader = Reader {
            rest: rest.get(mark.len()..).unwrap_or_default(),
        };
        let line = code.get(..at).unwrap_or_default().matches('\n').count() + 1;
        reader.tree("", line, &mut found);
    }
    found
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

struct Reader<'c> {
    rest: &'c str,
}

impl Reader<'_> {
    /// Reads `a::b`, `a::{b, c::d}` or `{a, b}`; returns the lines that it went over.
    fn tree(&mut self, prefix: &str, line: usize, found: &mut Vec<Path>) -> usize {
        let mut line = line + self.space();
        if self.eat('{') {
            loop {
                line += self.space();
                if self.rest.is_empty() || self.eat('}') {
                    return line;
                }
                let before = self.rest.len();
                line = self.tree(prefix, line, found);
                line += self.space();
                self.eat(',');
                if self.rest.len() == before {
                    return line;
                }
            }
        }
        let length = self
            .rest
            .find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        if word.is_empty() {
            return line;
        }
        let name = if prefix.is_empty() {
            word.to_owned()
        } else {
            format!("{prefix}::{word}")
        };
        if let Some(rest) = self.rest.strip_prefix("::") {
            self.rest = rest;
            return self.tree(&name, line, found);
        }
        self.alias();
        let name = name.strip_suffix("::self").unwrap_or(&name).to_owned();
        found.push(Path { line, name });
        line
    }

    /// Skips ` as NAME`.
    fn alias(&mut self) {
        if let Some(rest) = self.rest.trim_start().strip_prefix("as ") {
            self.rest = rest
                .trim_start()
                .trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        }
    }

    /// Skips white space; returns the line ends in it.
    fn space(&mut self) -> usize {
        let trimmed = self.rest.trim_start();
        let skipped = self.rest.len() - trimmed.len();
        let lines = self
            .rest
            .get(..skipped)
            .map_or(0, |space| space.matches('\n').count());
        self.rest = trimmed;
        lines
    }

    fn eat(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}
