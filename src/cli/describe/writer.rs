//! Text in columns. Owns the rules by which tabs become spaces (those of Go's `text/tabwriter` with a padding of two,
//! which kubectl uses, so that our layout is its layout to the space); must not know what is written.

use std::fmt::{Display, Write as _};

use super::{time, zone::Zone};

/// Spaces between a column and the next.
const PADDING: usize = 2;

/// Lines with cells between tabs, at levels of two spaces each.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    text: String,
    zone: Zone,
}

impl Writer {
    /// Nothing yet; times will be shown in `zone`.
    pub(crate) fn new(zone: Zone) -> Self {
        Self {
            text: String::new(),
            zone,
        }
    }

    /// Text as it comes, behind the indentation of `level`. Control characters that a terminal would obey are shown.
    pub(crate) fn write(&mut self, level: usize, text: impl Display) {
        for _ in 0..level {
            self.text.push_str("  ");
        }
        let start = self.text.len();
        let _ = write!(self.text, "{text}");
        let written = self.text.get(start..).unwrap_or_default();
        if written.contains(['\x1b', '\r']) {
            let shown = written.replace('\x1b', "^[").replace('\r', "\\r");
            self.text.truncate(start);
            self.text.push_str(&shown);
        }
    }

    /// A whole line.
    pub(crate) fn line(&mut self, level: usize, text: impl Display) {
        self.write(level, text);
        self.text.push('\n');
    }

    /// `Key:` and its value in the next column.
    pub(crate) fn pair(&mut self, level: usize, key: impl Display, value: impl Display) {
        self.line(level, format_args!("{key}:\t{value}"));
    }

    /// As [`Self::pair`], unless the value is empty.
    pub(crate) fn pair_if(&mut self, level: usize, key: impl Display, value: &str) {
        if !value.is_empty() {
            self.pair(level, key, value);
        }
    }

    /// An RFC 3339 time as people read it.
    pub(crate) fn time(&self, rfc3339: &str) -> String {
        time::rfc1123(rfc3339, &self.zone)
    }

    /// The text with its tabs.
    pub(crate) fn raw(self) -> String {
        self.text
    }

    /// The text with its columns aligned.
    pub(crate) fn tabbed(&self) -> String {
        let rows: Vec<Vec<&str>> = self
            .text
            .split('\n')
            .map(|line| line.split('\t').collect())
            .collect();
        let mut aligned = String::with_capacity(self.text.len() * 2);
        align(&rows, &mut Vec::new(), &mut aligned);
        // The last line ends nothing: splitting made it up.
        aligned.pop();
        aligned
    }
}

/// Writes `rows`, whose columns left of `widths.len()` are known. A cell belongs to a column only if a tab ends it, and
/// a column is as long as consecutive lines have it: that is what makes a paragraph align by itself.
fn align(rows: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
    let column = widths.len();
    let has_column = |row: &Vec<&str>| column + 1 < row.len();
    for block in rows.chunk_by(|one, other| has_column(one) == has_column(other)) {
        if block.first().is_some_and(has_column) {
            let cells = block.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            widths.push(widest + PADDING);
            align(block, widths, out);
            widths.pop();
        } else {
            for row in block {
                write_row(row, widths, out);
            }
        }
    }
}

fn write_row(row: &[&str], widths: &[usize], out: &mut String) {
    for (index, cell) in row.iter().enumerate() {
        out.push_str(cell);
        if let Some(width) = widths.get(index) {
            let missing = width.saturating_sub(cell.chars().count());
            out.extend(std::iter::repeat_n(' ', missing));
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let mut writer = Writer::default();
        writer.write(0, text);
        assert_eq!(writer.tabbed(), expected);
    }

    #[test]
    fn tabbed_aligns_consecutive_lines_only() {
        check(
            "a:\tone\nlonger:\ttwo\nTitle\nb:\tthree\n",
            "a:       one\nlonger:  two\nTitle\nb:  three\n",
        );
        check("x\ty\tz\nlong\tyy\tz\n", "x     y   z\nlong  yy  z\n");
        check("no tab", "no tab");
        check("", "");
    }

    #[test]
    fn tabbed_empty_cell_keeps_its_column() {
        check("Labels:\ta=b\n\tc=d\n", "Labels:  a=b\n         c=d\n");
    }

    #[test]
    fn tabbed_inner_columns_end_with_their_lines() {
        check(
            "Port:\t<unset>\t80/TCP\nTargetPort:\t8080/TCP\nNodePort:\t<unset>\t30080/TCP\n",
            "Port:        <unset>  80/TCP\nTargetPort:  8080/TCP\nNodePort:    <unset>  30080/TCP\n",
        );
    }

    #[test]
    fn write_terminal_control_is_shown() {
        check("a\x1b[31m\rb", "a^[[31m\\rb");
    }
}
