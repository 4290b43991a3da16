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
    for (name, report) in [("A", a), ("B", b)] {
        if let Some(why) = &report.generator.invalid {
            let _ = writeln!(text, "{name} says nothing: {why}");
        }
    }
    for difference in unlike(a, b) {
        let _ = writeln!(text, "not alike: {difference}");
    }
    text
}

fn shown(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "none".to_owned())
}

/// What else a run depends on: its name, and how it is told.
type Condition = (&'static str, fn(&Report) -> String);

const CONDITIONS: [Condition; 13] = [
    ("whom", |report| {
        let service = report.run.service.clone();
        service.unwrap_or_else(|| report.run.target.clone())
    }),
    ("protocol", |report| {
        let scheme = report.run.target.split_once("://");
        scheme.map_or("", |(scheme, _)| scheme).to_owned()
    }),
    ("declared", |report| shown(report.run.balance.as_ref())),
    ("endpoints", |report| report.endpoints.len().to_string()),
    ("rate", |report| report.run.rate.to_string()),
    ("clients", |report| report.run.clients.to_string()),
    ("kept connections", |report| {
        report.run.keep_alive.to_string()
    }),
    ("manifests", |report| {
        shown(report.provenance.manifests.as_ref())
    }),
    ("version", |report| report.provenance.version.clone()),
    ("kernel", |report| report.provenance.kernel.clone()),
    ("CPU", |report| report.provenance.cpu.clone()),
    ("cores", |report| report.provenance.cores.to_string()),
    ("descriptors", |report| {
        report.provenance.open_files.to_string()
    }),
];

/// What was not the same of the two.
fn unlike(a: &Report, b: &Report) -> Vec<String> {
    let told = CONDITIONS.iter().filter_map(|(what, of)| {
        let (one, other) = (of(a), of(b));
        (one != other).then(|| format!("{what}: {one} and {other}"))
    });
    told.collect()
}
