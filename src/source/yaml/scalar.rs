//! How a plain scalar reads, as kubectl's YAML library reads it: YAML 1.1 booleans without `y` and `n`, integers in
//! base 2, 8, 10 and 16, decimal floats. Owns that table.

use portico_core::object::tree::Value;

/// The value of a plain scalar, `None` when it is a string.
pub(super) fn resolve(text: &str) -> Option<Value> {
    let first = *text.as_bytes().first()?;
    match first {
        b'0'..=b'9' | b'+' | b'-' | b'.' => number(text),
        b'~' | b't' | b'T' | b'f' | b'F' | b'y' | b'Y' | b'n' | b'N' | b'o' | b'O' => word(text),
        _ => None,
    }
}

fn word(text: &str) -> Option<Value> {
    match text {
        "~" | "null" | "Null" | "NULL" => Some(Value::Null),
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            Some(Value::Bool(true))
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            Some(Value::Bool(false))
        }
        _ => None,
    }
}

fn number(text: &str) -> Option<Value> {
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(Value::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Some(Value::Float(f64::INFINITY));
        }
        "-.inf" | "-.Inf" | "-.INF" => return Some(Value::Float(f64::NEG_INFINITY)),
        _ => {}
    }
    if !text.contains('_') {
        return integer(text).map(Value::Int).or_else(|| float(text));
    }
    let plain = text.replace('_', "");
    integer(&plain).map(Value::Int).or_else(|| float(&plain))
}

/// Go's `strconv.ParseInt` with base 0: the prefix decides, and a leading zero means octal.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', _, ..] => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if !digits.bytes().all(|byte| char::from(byte).is_digit(radix)) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, radix).ok()?);
    i64::try_from(if negative { -value } else { value }).ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn float(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)),
        ),
        None => (unsigned, None),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa
        .split_once('.')
        .map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let mantissa_ok = all_digits(whole)
        && fraction.is_none_or(all_digits)
        && (!whole.is_empty() || fraction.is_some_and(|fraction| !fraction.is_empty()));
    let exponent_ok = exponent.is_none_or(|exponent| !exponent.is_empty() && all_digits(exponent));
    if mantissa_ok && exponent_ok {
        text.parse().ok().map(Value::Float)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: impl Into<Option<Value>>) {
        assert_eq!(resolve(text), expected.into(), "{text}");
    }

    #[test]
    fn resolve_of_words_follows_yaml_1_1_without_y_and_n() {
        for text in [
            "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON",
        ] {
            check(text, Some(Value::Bool(true)));
        }
        for text in ["false", "no", "NO", "off", "Off"] {
            check(text, Some(Value::Bool(false)));
        }
        for text in ["y", "n", "Y", "N", "yEs", "tRUE", "nope", "nginx", ""] {
            check(text, None);
        }
        check("~", Some(Value::Null));
        check("Null", Some(Value::Null));
    }

    #[test]
    fn resolve_of_integers_takes_every_base() {
        check("80", Some(Value::Int(80)));
        check("-1", Some(Value::Int(-1)));
        check("0644", Some(Value::Int(420)));
        check("0o644", Some(Value::Int(420)));
        check("0x1F", Some(Value::Int(31)));
        check("0b101", Some(Value::Int(5)));
        check("1_000", Some(Value::Int(1000)));
        check("9223372036854775807", Some(Value::Int(i64::MAX)));
        check("-9223372036854775808", Some(Value::Int(i64::MIN)));
        check("0", Some(Value::Int(0)));
    }

    #[test]
    fn resolve_of_floats_takes_gos_forms() {
        check("1.5", Some(Value::Float(1.5)));
        check(".5", Some(Value::Float(0.5)));
        check("5.", Some(Value::Float(5.0)));
        check("1e3", Some(Value::Float(1000.0)));
        check("089", Some(Value::Float(89.0)));
        check(
            "9223372036854775808",
            Some(Value::Float(9_223_372_036_854_775_808.0)),
        );
        check("-.inf", Some(Value::Float(f64::NEG_INFINITY)));
        assert!(matches!(resolve(".nan"), Some(Value::Float(value)) if value.is_nan()));
    }

    #[test]
    fn resolve_of_addresses_dates_and_fragments_is_a_string() {
        for text in [
            "10.0.0.1",
            "2001-01-01",
            "-",
            "+",
            ".",
            "0x",
            "1e",
            "e5",
            "1.2.3",
            "10.96.0.0/12",
            "--",
            "0xg",
            "20%",
        ] {
            check(text, None);
        }
    }
}
