//! Columns of connections, which are ours.

use portico_core::time::Timestamp;
use serde_json::Value;

use super::{
    Column,
    Detail::{Usual, Wide},
    NONE, age, name, number, text, text_or,
};
use crate::cli::age as ages;

pub(super) const COLUMNS: &[Column] = &[
    ("NAME", Usual),
    ("CLIENT", Usual),
    ("SERVICE", Usual),
    ("PORT", Usual),
    ("ENDPOINT", Usual),
    ("AGE", Usual),
    ("STATE", Usual),
    ("IN", Usual),
    ("OUT", Usual),
    ("ADDRESS", Wide),
    ("FINISHED", Wide),
    ("REASON", Wide),
    ("CLOSED IN", Wide),
];

pub(super) fn cells(object: &Value, now: Timestamp) -> Vec<String> {
    let deadline = object.pointer("/status/deadline").and_then(Value::as_str);
    vec![
        name(object),
        text_or(object, "/spec/client", "<unknown>"),
        text(object, "/spec/service"),
        text(object, "/spec/port"),
        text_or(object, "/spec/endpoint", NONE),
        age(object, now),
        text(object, "/status/state"),
        bytes(number(object, "/status/bytesIn")),
        bytes(number(object, "/status/bytesOut")),
        text(object, "/spec/address"),
        text_or(object, "/status/finished", NONE),
        text_or(object, "/status/reason", NONE),
        deadline.map_or_else(|| NONE.to_owned(), |deadline| ages::until(deadline, now)),
    ]
}

/// `812`, `12Ki`, `3.4Mi`: two digits at least, rounded down.
fn bytes(count: i64) -> String {
    const UNITS: [&str; 5] = ["Ki", "Mi", "Gi", "Ti", "Pi"];
    if count < 1024 {
        return count.to_string();
    }
    let mut whole = count;
    let mut tenths = 0;
    let mut unit = "";
    for next in UNITS {
        if whole < 1024 {
            break;
        }
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = next;
    }
    if whole < 10 {
        format!("{whole}.{tenths}{unit}")
    } else {
        format!("{whole}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        for (count, expected) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0Ki"),
            (1536, "1.5Ki"),
            (20_000, "19Ki"),
            (5_000_000, "4.7Mi"),
            (i64::MAX, "8191Pi"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }
}
