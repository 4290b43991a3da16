//! Values as Go's `encoding/json` and `fmt` write them, which is what kubectl's output looks like. Owns numbers and
//! escapes; must not know what the values mean.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// JSON without any space.
pub(crate) fn compact_json(value: &Value) -> String {
    let mut out = String::new();
    json(value, None, &mut out);
    out
}

/// JSON with four spaces for each level, as `-o json`; without the last line break.
pub(crate) fn pretty_json(value: &Value) -> String {
    let mut out = String::new();
    json(value, Some(0), &mut out);
    out
}

fn json(value: &Value, level: Option<usize>, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&json_number(number)),
        Value::String(text) => json_string(text, out),
        Value::Array(items) => {
            let items = items.iter().map(|item| (None, item));
            json_block(('[', ']'), items, level, out);
        }
        Value::Object(map) => {
            let items = map.iter().map(|(key, item)| (Some(key.as_str()), item));
            json_block(('{', '}'), items, level, out);
        }
    }
}

fn json_block<'v>(
    (open, close): (char, char),
    items: impl Iterator<Item = (Option<&'v str>, &'v Value)>,
    level: Option<usize>,
    out: &mut String,
) {
    let inner = level.map(|level| level + 1);
    let mut is_empty = true;
    out.push(open);
    for (key, item) in items {
        if !is_empty {
            out.push(',');
        }
        is_empty = false;
        line(inner, out);
        if let Some(key) = key {
            json_string(key, out);
            out.push_str(if level.is_some() { ": " } else { ":" });
        }
        json(item, inner, out);
    }
    if !is_empty {
        line(level, out);
    }
    out.push(close);
}

fn line(level: Option<usize>, out: &mut String) {
    if let Some(level) = level {
        out.push('\n');
        for _ in 0..level {
            out.push_str("    ");
        }
    }
}

/// Go escapes what would be markup in a page, too.
fn json_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A number as `encoding/json` has it: with an exponent below 1e-6 and from 1e21 on.
fn json_number(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        None => number.to_string(),
        Some(0.0) => format!("{}", number.as_f64().unwrap_or_default()),
        Some(float) if float.abs() < 1e-6 || float.abs() >= 1e21 => {
            // `1e-7` in Rust is `1e-7` here, `1e21` is `1e+21`.
            let text = format!("{float:e}");
            match text.split_once('e') {
                Some((digits, power)) if !power.starts_with('-') => format!("{digits}e+{power}"),
                _ => text,
            }
        }
        Some(float) => format!("{float}"),
    }
}

/// A number as `strconv.FormatFloat(x, 'g', -1, 64)` has it: with an exponent below 1e-4 and from a million on, in two
/// digits.
pub(super) fn general_number(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    let text = format!("{float:e}");
    let Some((digits, power)) = text.split_once('e') else {
        return text;
    };
    let power: i32 = power.parse().unwrap_or(0);
    if float == 0.0 || (-4..6).contains(&power) {
        return format!("{float}");
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", power.abs())
}

/// A scalar as `fmt.Print` shows it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => general_number(number),
        other => go_value(other),
    }
}

/// Any value as `fmt.Print` shows it: `map[a:1 b:[x y]]`.
pub(crate) fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => general_number(number),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_value).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let items: Vec<String> = map
                .iter()
                .map(|(key, item)| format!("{key}:{}", go_value(item)))
                .collect();
            format!("map[{}]", items.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_of_numbers_is_as_go_writes_it() {
        let numbers = json!([
            1.0,
            1.5,
            1e21,
            1e20,
            1e-7,
            0.000001,
            5e-324,
            123456789012345678_i64
        ]);
        let expected =
            "[1,1.5,1e+21,100000000000000000000,1e-7,0.000001,5e-324,123456789012345678]";
        assert_eq!(compact_json(&numbers), expected);
    }

    #[test]
    fn json_of_markup_is_escaped() {
        let expected = r#"{"a":"\u003cb\u003e \u0026 \"c\"\n"}"#;
        assert_eq!(compact_json(&json!({"a": "<b> & \"c\"\n"})), expected);
    }

    #[test]
    fn json_of_empty_blocks_stays_on_its_line() {
        let expected = "{\n    \"a\": [],\n    \"b\": {},\n    \"c\": [\n        1\n    ]\n}";
        assert_eq!(pretty_json(&json!({"a": [], "b": {}, "c": [1]})), expected);
    }

    #[test]
    fn go_value_of_nested_blocks_has_no_quotes() {
        let value = json!({"a": [1, "x y", null], "b": {"c": true}});
        assert_eq!(go_value(&value), "map[a:[1 x y <nil>] b:map[c:true]]");
    }
}
