//! A finding as people read it: one line in the form of compilers, the source line under it, a caret. Owns the form;
//! finding the text belongs to the caller.

use std::fmt::Write as _;

use portico_core::object::diagnostic::{Diagnostic, Severity};

/// Columns of source that are shown.
const WIDTH: usize = 100;
/// Of these, columns before the caret when the line is longer.
const LEAD: usize = 60;
/// Columns that a tab takes.
const TAB: &str = "    ";

/// Renders `diagnostic`; with the `text` of its file also the source line. Ends with a line break.
pub fn render(diagnostic: &Diagnostic, text: Option<&str>, colour: bool) -> String {
    let mut out = String::new();
    if colour {
        let code = match diagnostic.severity {
            Severity::Error => "31",
            Severity::Warning => "33",
            Severity::Note => "36",
        };
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            out,
            "\x1b[{code}m{}\x1b[0m",
            printable(&diagnostic.to_string())
        );
    } else {
        let _ = writeln!(out, "{}", printable(&diagnostic.to_string()));
    }
    let Some(position) = diagnostic.position else {
        return out;
    };
    let index = usize::try_from(position.line)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let Some(line) = text.and_then(|text| text.lines().nth(index)) else {
        return out;
    };
    let column = usize::try_from(position.column)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let (shown, offset) = clip(line.strip_prefix('\u{feff}').unwrap_or(line), column);
    let _ = writeln!(out, "{:>5} | {shown}", position.line);
    let (on, off) = if colour {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    };
    let _ = writeln!(out, "      | {:offset$}{on}^{off}", "");
    out
}

/// The part of `line` around `column` (from 0, in characters) and the caret's offset in it.
fn clip(line: &str, column: usize) -> (String, usize) {
    let start = if line.chars().count() > WIDTH {
        column.saturating_sub(LEAD)
    } else {
        0
    };
    let mut shown = String::new();
    let mut width = 0;
    if start > 0 {
        shown.push_str("...");
        width += 3;
    }
    let mut offset = None;
    for (index, c) in line.chars().enumerate().skip(start) {
        if index == column {
            offset = Some(width);
        }
        if index >= start + WIDTH {
            shown.push_str("...");
            break;
        }
        if c == '\t' {
            shown.push_str(TAB);
            width += TAB.len();
        } else {
            shown.push(visible(c));
            width += 1;
        }
    }
    // Past the end of the line: where something is missing.
    (shown.trim_end().to_owned(), offset.unwrap_or(width))
}

/// A file may hold anything; a terminal must not obey it.
fn visible(c: char) -> char {
    if c.is_control() {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portico_core::object::Position;

    use super::*;

    fn finding(line: u32, column: u32) -> Diagnostic {
        Diagnostic {
            file: Arc::from("web.yaml"),
            position: Some(Position { line, column }),
            severity: Severity::Error,
            object: None,
            path: "spec.ports[0].port".into(),
            message: "Invalid value: 0: must be between 1 and 65535, inclusive".into(),
        }
    }

    #[test]
    fn render_with_text_points_at_the_column() {
        let expected = "web.yaml:2:9: spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive\n    \
                        2 | - port: 0\n      |         ^\n";
        assert_eq!(
            render(&finding(2, 9), Some("ports:\n- port: 0\n"), false),
            expected
        );
    }

    #[test]
    fn render_of_a_warning_without_text_is_one_line() {
        let warning = Diagnostic {
            severity: Severity::Warning,
            path: String::new(),
            ..finding(1, 1)
        };
        let expected =
            "web.yaml:1:1: warning: Invalid value: 0: must be between 1 and 65535, inclusive\n";
        assert_eq!(render(&warning, None, false), expected);
    }

    #[test]
    fn render_of_a_tab_keeps_the_caret_below_its_character() {
        let rendered = render(&finding(1, 3), Some("\ta: 0"), false);
        assert_eq!(rendered.lines().nth(1), Some("    1 |     a: 0"));
        assert_eq!(rendered.lines().nth(2), Some("      |      ^"));
    }

    #[test]
    fn render_of_a_long_line_clips_it_around_the_caret() {
        let line = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let rendered = render(&finding(1, 501), Some(&line), false);
        let (shown, caret) = (
            rendered.lines().nth(1).unwrap(),
            rendered.lines().nth(2).unwrap(),
        );
        assert!(shown.len() < 130, "{shown}");
        assert_eq!(shown.find('X'), caret.find('^'));
    }

    #[test]
    fn render_with_colour_marks_the_severity() {
        assert!(render(&finding(1, 1), Some("x"), true).starts_with("\x1b[31mweb.yaml:1:1:"));
    }

    #[test]
    fn render_of_control_characters_hides_them() {
        assert!(!render(&finding(1, 1), Some("a\x1b[2Jb"), false).contains('\x1b'));
    }
}
