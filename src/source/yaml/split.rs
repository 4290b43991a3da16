//! Cutting a stream into documents at its `---` lines, and JSON objects that follow one another (what `kubectl get -o
//! json` and `jq` print, and kubectl reads) where one ends. Owns the cut only; a chunk is not parsed here.

/// The chunks of `text`, each with the number of lines before it.
pub(super) fn chunks(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let mut rest = text;
    let mut line = 0_u32;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let start = line;
        let mut end = 0;
        let mut prologue = true;
        let mut json = Json::Before;
        for row in rest.split_inclusive('\n') {
            if json.begins_another(row) {
                break;
            }
            if is_separator(row) {
                if !prologue {
                    break;
                }
                prologue = false;
            } else if !is_prologue(row) {
                prologue = false;
            }
            end += row.len();
            line = line.saturating_add(1);
        }
        let (chunk, after) = rest.split_at(end);
        rest = after;
        Some((start, chunk))
    })
}

/// How far a chunk has come that may be one JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Json {
    /// Nothing was seen yet.
    Before,
    /// It began with a brace; whether the last line with anything in it ended with one.
    Object { closed: bool },
    /// It is something else.
    No,
}

impl Json {
    /// Takes the next line; whether it begins another object. Inside an object there would be a comma between.
    fn begins_another(&mut self, row: &str) -> bool {
        let begins = row.starts_with('{');
        let content = row.trim();
        if content.is_empty() {
            return false;
        }
        let closed = content.ends_with('}');
        match *self {
            Self::Object { closed: true } if begins => return true,
            Self::Object { .. } => *self = Self::Object { closed },
            Self::Before if begins => *self = Self::Object { closed },
            Self::Before if is_prologue(row) || is_separator(row) => {}
            Self::Before => *self = Self::No,
            Self::No => {}
        }
        false
    }
}

/// `---` at the start of a line, alone or followed by white space.
fn is_separator(row: &str) -> bool {
    row.strip_prefix("---")
        .is_some_and(|after| after.is_empty() || after.starts_with([' ', '\t', '\r', '\n']))
}

/// A line that belongs to the document whose `---` follows: a directive, a comment or nothing.
fn is_prologue(row: &str) -> bool {
    let row = row.trim();
    row.is_empty() || row.starts_with(['#', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(u32, &str)]) {
        assert_eq!(chunks(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn chunks_of_several_documents_keep_their_lines() {
        check(
            "a: 1\n---\nb: 2\n--- # c\nc: 3",
            &[(0, "a: 1\n"), (1, "---\nb: 2\n"), (3, "--- # c\nc: 3")],
        );
    }

    #[test]
    fn chunks_keep_directives_and_comments_with_their_document() {
        check(
            "# x\n%YAML 1.2\n---\na: 1\n",
            &[(0, "# x\n%YAML 1.2\n---\na: 1\n")],
        );
        check("---\n---\na: 1\n", &[(0, "---\n"), (1, "---\na: 1\n")]);
    }

    #[test]
    fn chunks_of_json_objects_in_a_row_are_one_each() {
        check(
            "{\"a\":1}\n\n{\n  \"b\": {}\n}\n{\"c\":3}",
            &[
                (0, "{\"a\":1}\n\n"),
                (2, "{\n  \"b\": {}\n}\n"),
                (5, "{\"c\":3}"),
            ],
        );
    }

    #[test]
    fn chunks_of_one_object_with_braces_at_line_starts_stay_whole() {
        for text in ["{a: [\n{b: 1},\n{c: 2}]}\n", "a: >\n  }\n\n{}\n"] {
            check(text, &[(0, text)]);
        }
    }

    #[test]
    fn chunks_ignore_indented_and_longer_dashes() {
        check(
            "a: |\n  ---\n  b\n----\n",
            &[(0, "a: |\n  ---\n  b\n----\n")],
        );
        check(
            "a: 1\r\n---\r\nb: 2\r\n",
            &[(0, "a: 1\r\n"), (1, "---\r\nb: 2\r\n")],
        );
    }
}
