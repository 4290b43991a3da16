//! Two reports beside each other. Owns what is compared and what is said when they were not measured alike.

use std::fmt::Write as _;

use super::{
    figure::TABLE,
    report::{Report, SCHEMA},
};

/// Reads a report that was written as JSON.
///
/// # Errors
/// It is not a report, or of another version.
pub fn read(text: &[u8]) -> Result<Report, String> {
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
    let schema = value.get("schema").and_then(serde_json::Value::as_str);
    match schema {
        Some(SCHEMA) => {
            serde_json::from_value(value).map_err(|error| format!("not a report: {error}"))
        }
        Some(other) => Err(format!("a report of version {other}; this reads {SCHEMA}")),
        None => Err("no report of `portico bench`".to_owned()),
    }
}

/// The figures of `a` and `b` in a table, with the change from one to the other.
pub fn text(a: &Report, b: &Report) -> String {
    let mut text = format!(
        "A  {}\nB  {}\n\n{:18} {:>14} {:>14} {:>9}\n",
        super::text::verdict_line(a),
        super::text::verdict_line(b),
        "",
        "A",
        "B",
        "CHANGE"
    );
    for figure in TABLE {
        let (Some(one), Some(other)) = (figure.of(a), figure.of(b)) else {
            continue;
        };
        let change = if (one - other).abs() < f64::EPSILON {
            "=".to_owned()
        } else if one.abs() < 1e-12 {
            "-".to_owned()
        } else {
            let better = (other < one) == figure.less_is_better;
            let word = if better { "better" } else { "worse" };
            format!("{:+.1}% {word}", (other / one - 1.0) * 100.0)
        };
        let _ = writeln!(
            text,
            "{:18} {:>14} {:>14}   {change}",
            figure.name,
            figure.show(one),
            figure.show(other)
        );
    }
    for difference in unlike(a, b) {
        let _ = writeln!(text, "not alike: {difference}");
    }
    text
}

/// What else differs between the two.
fn unlike(a: &Report, b: &Report) -> Vec<String> {
    let mut told = Vec::new();
    let mut tell = |what: &str, one: String, other: String| {
        if one != other {
            told.push(format!("{what}: {one} and {other}"));
        }
    };
    tell("rate", a.run.rate.to_string(), b.run.rate.to_string());
    tell(
        "clients",
        a.run.clients.to_string(),
        b.run.clients.to_string(),
    );
    tell(
        "kept connections",
        a.run.keep_alive.to_string(),
        b.run.keep_alive.to_string(),
    );
    tell(
        "kernel",
        a.provenance.kernel.clone(),
        b.provenance.kernel.clone(),
    );
    tell("CPU", a.provenance.cpu.clone(), b.provenance.cpu.clone());
    tell(
        "cores",
        a.provenance.cores.to_string(),
        b.provenance.cores.to_string(),
    );
    told
}
