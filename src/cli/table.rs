//! Text in columns as kubectl's tab writer aligns it. Owns widths and what a cell may hold; must not know what the
//! columns mean.

/// Least width of a column.
const MIN_WIDTH: usize = 6;
/// Spaces behind the widest cell.
const PADDING: usize = 3;

/// Aligns rows; what was once wide stays wide, so that rows that come later stand below the earlier ones.
#[derive(Debug, Default)]
pub(crate) struct TabWriter {
    widths: Vec<usize>,
}

impl TabWriter {
    /// The rows as lines. Every row has the same number of cells.
    pub(crate) fn lines<R: AsRef<[String]>>(&mut self, rows: &[R]) -> String {
        for row in rows {
            let padded = row
                .as_ref()
                .split_last()
                .map_or(&[][..], |(_, padded)| padded);
            for (column, cell) in padded.iter().enumerate() {
                let width = (cell.chars().count() + PADDING).max(MIN_WIDTH);
                match self.widths.get_mut(column) {
                    Some(known) => *known = width.max(*known),
                    None => self.widths.push(width),
                }
            }
        }
        let mut out = String::new();
        for row in rows {
            let Some((last, padded)) = row.as_ref().split_last() else {
                continue;
            };
            for (cell, width) in padded.iter().zip(&self.widths) {
                out.push_str(cell);
                let missing = width.saturating_sub(cell.chars().count());
                out.extend(std::iter::repeat_n(' ', missing));
            }
            out.push_str(last);
            out.push('\n');
        }
        out
    }
}

/// What of `text` fits into a cell: its first line, and nothing that a terminal would obey.
pub(crate) fn cell(text: &str) -> String {
    match text.find(['\n', '\r', '\x0c']) {
        Some(end) => escape(text.get(..end).unwrap_or_default()) + "...",
        None => escape(text),
    }
}

/// `text` without characters that a terminal would obey.
pub(crate) fn escape(text: &str) -> String {
    text.replace('\x1b', "^[").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn lines_are_padded_by_three_and_at_least_six() {
        let rows = [row(&["N", "STATUS", "AGE"]), row(&["ab", "é", "5s"])];
        assert_eq!(
            TabWriter::default().lines(&rows),
            "N     STATUS   AGE\nab    é        5s\n"
        );
    }

    #[test]
    fn lines_later_keep_and_widen_the_columns() {
        let mut writer = TabWriter::default();
        assert_eq!(writer.lines(&[row(&["abcdefgh", "x"])]), "abcdefgh   x\n");
        assert_eq!(writer.lines(&[row(&["a", "x"])]), "a          x\n");
        assert_eq!(
            writer.lines(&[row(&["abcdefghij", "x"])]),
            "abcdefghij   x\n"
        );
        assert_eq!(writer.lines(&[row(&["a", "x"])]), "a            x\n");
    }

    #[test]
    fn cell_of_several_lines_is_the_first() {
        assert_eq!(cell("one\ntwo"), "one...");
        assert_eq!(cell("\x1b[2J"), "^[[2J");
    }
}
