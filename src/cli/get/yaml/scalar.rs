//! One scalar: which style it needs, and its text in that style. Owns libyaml's rules for both.

use serde_json::Number;

use super::super::gofmt;

/// Behind this column a space becomes a line break.
const WIDTH: usize = 80;

/// Where a scalar stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before a colon: never folded, never a block.
    Key,
    Value,
}

/// Text that knows its column.
#[derive(Debug, Default)]
pub(super) struct Line {
    text: String,
    /// Characters since the last line break.
    column: usize,
}

impl Line {
    pub(super) fn push(&mut self, c: char) {
        self.text.push(c);
        self.column = if c == '\n' { 0 } else { self.column + 1 };
    }

    pub(super) fn push_str(&mut self, text: &str) {
        text.chars().for_each(|c| self.push(c));
    }

    pub(super) fn indent(&mut self, indent: usize) {
        (0..indent).for_each(|_| self.push(' '));
    }

    /// Ends the line, if there is one.
    pub(super) fn fresh_line(&mut self) {
        if self.column > 0 {
            self.push('\n');
        }
    }

    fn fold(&mut self, indent: usize) {
        self.push('\n');
        self.indent(indent);
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Whole numbers are written out as far as 64 bits go.
pub(super) fn number(number: &Number) -> String {
    let whole = number
        .as_f64()
        .filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 9.2e18);
    match whole {
        Some(0.0) => "0".to_owned(),
        Some(float) => format!("{float}"),
        None => gofmt::general_number(number),
    }
}

/// `indent` is that of the lines that follow the first one.
pub(super) fn string(text: &str, indent: usize, place: Place, out: &mut Line) {
    let shape = Shape::of(text);
    if text.contains('\n') {
        if place == Place::Value && shape.block {
            return literal(text, indent, out);
        }
        return double_quoted(text, indent, place, out);
    }
    if reads_as_something_else(text) {
        double_quoted(text, indent, place, out);
    } else if shape.plain {
        folded(text, indent, place, out);
    } else if shape.single {
        single_quoted(text, indent, place, out);
    } else {
        double_quoted(text, indent, place, out);
    }
}

/// Which styles a text allows.
#[derive(Debug)]
struct Shape {
    plain: bool,
    single: bool,
    block: bool,
}

impl Shape {
    fn of(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let at = |index: usize| chars.get(index).copied();
        let is_blank = |c: Option<char>| c.is_none_or(|c| c == ' ' || c == '\t' || is_break(c));
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut break_space, mut space_break) = (false, false, false);
        for (index, c) in chars.iter().copied().enumerate() {
            let before = index.checked_sub(1).and_then(at);
            let ends = is_blank(at(index + 1));
            indicators |= match c {
                '#' => index == 0 || is_blank(before),
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%'
                | '@' | '`' => index == 0,
                '?' | '-' => index == 0 && ends,
                ':' => ends,
                _ => false,
            };
            special |= !is_printable(c) || matches!(c, '\u{2028}' | '\u{2029}');
            break_space |= c == ' ' && before.is_some_and(is_break);
            space_break |= is_break(c) && before == Some(' ');
        }
        let is_edge = |c: Option<char>| c.is_some_and(|c| c == ' ' || is_break(c));
        let first = at(0);
        let last = chars.last().copied();
        let broken = space_break || special;
        Self {
            plain: !(indicators
                || broken
                || break_space
                || is_edge(first)
                || is_edge(last)
                || chars.iter().copied().any(is_break)),
            single: !broken && !break_space,
            block: !broken && last != Some(' ') && !text.is_empty(),
        }
    }
}

fn is_break(c: char) -> bool {
    c == '\n'
}

/// libyaml's printable characters end with the basic plane.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{fffd}') && c != '\u{feff}'
}

/// Whether YAML 1.1 takes the bare text for anything but a string.
fn reads_as_something_else(text: &str) -> bool {
    const WORDS: [&str; 13] = [
        "", "~", "null", "y", "n", "yes", "no", "on", "off", "true", "false", ".nan", ".inf",
    ];
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = text.to_ascii_lowercase();
    let capitalised = || {
        let mut c = lower.chars();
        c.next().map_or_else(String::new, |first| {
            first.to_ascii_uppercase().to_string() + c.as_str()
        })
    };
    let is_word = WORDS.contains(&lower.as_str())
        && (text == lower || text == lower.to_ascii_uppercase() || text == capitalised());
    let is_float_word =
        matches!(text, ".NaN" | ".NAN") || matches!(unsigned, ".inf" | ".Inf" | ".INF");
    let starts = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'));
    let bare = text.replace('_', "");
    is_word
        || is_float_word
        || (starts
            && (is_integer(&bare) || is_float(&bare) || is_base_60(text) || is_timestamp(text)))
        || (text.starts_with('.') && is_float(text))
}

fn is_integer(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)];
    let (digits, radix) = radix
        .iter()
        .find_map(|(prefix, radix)| Some((lower.strip_prefix(prefix)?, *radix)))
        .unwrap_or((&lower, 10));
    let is_signed_again = digits.starts_with(['+', '-']);
    !is_signed_again && u64::from_str_radix(digits, radix).is_ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, and not too large.
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let is_digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_mantissa = is_digits(whole) && is_digits(part) && !(whole.is_empty() && part.is_empty());
    let is_exponent = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && is_digits(digits)
    });
    is_mantissa && is_exponent && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// `12:30:45`, a number to the base of 60 (YAML 1.1 types, float and int).
fn is_base_60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = unsigned.split(':');
    let first = parts.next().unwrap_or_default();
    let is_first = first.starts_with(|c: char| c.is_ascii_digit())
        && first.chars().all(|c| c.is_ascii_digit() || c == '_');
    let rest: Vec<&str> = parts.collect();
    let is_part = |(index, part): (usize, &&str)| {
        let (part, tail) = match part.split_once('.') {
            Some((part, tail)) if index + 1 == rest.len() => (part, tail),
            Some(_) => return false,
            None => (*part, ""),
        };
        let is_tail = tail.chars().all(|c| c.is_ascii_digit() || c == '_');
        let is_number = part.chars().all(|c| c.is_ascii_digit());
        is_tail && is_number && part.len() <= 2 && part.parse::<u8>().is_ok_and(|n| n < 60)
    };
    is_first && !rest.is_empty() && rest.iter().enumerate().all(is_part)
}

/// A date, or a date and a time.
fn is_timestamp(text: &str) -> bool {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => {
            let (date, rest) = text.split_at(at);
            (date, Some(rest))
        }
        None => (text, None),
    };
    let parts: Vec<&str> = date.split('-').collect();
    let &[year, month, day] = parts.as_slice() else {
        return false;
    };
    let within = |part: &str, most: u8| {
        (1..=2).contains(&part.len())
            && part.chars().all(|c| c.is_ascii_digit())
            && part.parse::<u8>().is_ok_and(|n| (1..=most).contains(&n))
    };
    let is_date = year.len() == 4
        && year.chars().all(|c| c.is_ascii_digit())
        && within(month, 12)
        && within(day, 31);
    let is_time = time.is_none_or(|time| {
        let has_zone = time.starts_with(['T', 't']);
        let clock = time.get(1..).unwrap_or_default();
        let end = clock
            .find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'))
            .unwrap_or(clock.len());
        let (clock, zone) = clock.split_at(end);
        let is_clock =
            clock.split(':').count() == 3 && clock.split(':').all(|part| !part.is_empty());
        let is_zone = zone == "Z" || (zone.len() == 6 && zone.starts_with(['+', '-']));
        is_clock && if has_zone { is_zone } else { zone.is_empty() }
    });
    is_date && is_time
}

/// A plain scalar.
fn folded(text: &str, indent: usize, place: Place, out: &mut Line) {
    let mut rest = text.chars().peekable();
    let mut spaces = false;
    while let Some(c) = rest.next() {
        let may_fold = place == Place::Value && !spaces && out.column > WIDTH;
        if c == ' ' && may_fold && rest.peek() != Some(&' ') {
            out.fold(indent);
        } else {
            out.push(c);
        }
        spaces = c == ' ';
    }
}

fn single_quoted(text: &str, indent: usize, place: Place, out: &mut Line) {
    out.push('\'');
    let mut rest = text.chars().enumerate().peekable();
    let mut spaces = false;
    while let Some((index, c)) = rest.next() {
        let may_fold = place == Place::Value && !spaces && out.column > WIDTH && index > 0;
        let next = rest.peek().map(|(_, c)| *c);
        match c {
            ' ' if may_fold && next.is_some_and(|next| next != ' ') => out.fold(indent),
            '\'' => out.push_str("''"),
            c => out.push(c),
        }
        spaces = c == ' ';
    }
    out.push('\'');
}

fn double_quoted(text: &str, indent: usize, place: Place, out: &mut Line) {
    out.push('"');
    // libyaml looks for a byte order mark at the start of the text, whichever character it is at.
    let escapes_all = text.starts_with('\u{feff}');
    let mut rest = text.chars().enumerate().peekable();
    let mut spaces = false;
    while let Some((index, c)) = rest.next() {
        let next = rest.peek().map(|(_, c)| *c);
        if escapes_all
            || !is_printable(c)
            || matches!(c, '"' | '\\' | '\n' | '\u{2028}' | '\u{2029}')
        {
            out.push_str(&escaped(c));
            spaces = false;
        } else if c == ' ' {
            let may_fold = place == Place::Value && !spaces && out.column > WIDTH && index > 0;
            if may_fold && next.is_some() {
                out.fold(indent);
                if next == Some(' ') {
                    out.push('\\');
                }
            } else {
                out.push(' ');
            }
            spaces = true;
        } else {
            out.push(c);
            spaces = false;
        }
    }
    out.push('"');
}

fn escaped(c: char) -> String {
    let short = match c {
        '\0' => "\\0",
        '\x07' => "\\a",
        '\x08' => "\\b",
        '\t' => "\\t",
        '\n' => "\\n",
        '\x0b' => "\\v",
        '\x0c' => "\\f",
        '\r' => "\\r",
        '\x1b' => "\\e",
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{85}' => "\\N",
        '\u{a0}' => "\\_",
        '\u{2028}' => "\\L",
        '\u{2029}' => "\\P",
        _ => "",
    };
    match (short, u32::from(c)) {
        ("", code @ ..=0xff) => format!("\\x{code:02X}"),
        ("", code @ ..=0xffff) => format!("\\u{code:04X}"),
        ("", code) => format!("\\U{code:08X}"),
        (short, _) => short.to_owned(),
    }
}

/// A block that keeps its line breaks.
fn literal(text: &str, indent: usize, out: &mut Line) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    match text.strip_suffix('\n') {
        None => out.push('-'),
        Some(before) if before.is_empty() || before.ends_with('\n') => out.push('+'),
        Some(_) => {}
    }
    out.push('\n');
    for (index, line) in text
        .strip_suffix('\n')
        .unwrap_or(text)
        .split('\n')
        .enumerate()
    {
        if index > 0 {
            out.push('\n');
        }
        if !line.is_empty() {
            out.indent(indent);
            out.push_str(line);
        }
    }
    if text.ends_with('\n') {
        out.push('\n');
    }
}
