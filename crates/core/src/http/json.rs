//! The few bytes of JSON that answers and log lines are made of. Owns quoting; what is said belongs to its callers.

use std::fmt::Write as _;

/// `text` as a JSON string (RFC 8259, section 7).
pub(super) fn string(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{0}'..='\u{1f}' | '\u{7f}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            _ => out.push(char),
        }
    }
    out.push('"');
}

/// `"key":`, after a comma unless it is the first.
pub(super) fn key(out: &mut String, key: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    string(out, key);
    out.push(':');
}

/// A key with a text.
pub(super) fn text(out: &mut String, name: &str, value: &str) {
    key(out, name);
    string(out, value);
}

/// A key with a number.
pub(super) fn number(out: &mut String, name: &str, value: u64) {
    key(out, name);
    let _ = write!(out, "{value}");
}
