//! The figures of a report that conditions and comparisons name. Owns the table of names, units and meaning, and the
//! reading of `--fail-if`.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use super::{
    pace::float,
    report::{GateResult, Percentile, Report},
};

/// In what a figure is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// A number.
    Number,
    /// A share between 0 and 1.
    Share,
    /// Milliseconds.
    Millis,
    /// A second.
    Rate,
}

/// One figure.
pub struct Figure {
    /// Its name in a condition.
    pub name: &'static str,
    /// Its unit.
    pub measure: Measure,
    /// What it is.
    pub help: &'static str,
    /// Whether less of it is better.
    pub less_is_better: bool,
    read: fn(&Report) -> Option<f64>,
}

impl Figure {
    /// Its value in `report`.
    pub fn of(&self, report: &Report) -> Option<f64> {
        (self.read)(report)
    }

    /// The figure of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|figure| figure.name == name)
    }

    /// A value for people.
    pub fn show(&self, value: f64) -> String {
        match self.measure {
            Measure::Number if value.fract() == 0.0 => format!("{value:.0}"),
            Measure::Number => format!("{value:.4}"),
            Measure::Share => format!("{:.2} %", value * 100.0),
            Measure::Millis => format!("{value:.3} ms"),
            Measure::Rate => format!("{value:.0}/s"),
        }
    }
}

macro_rules! figures {
    ($($name:literal, $measure:ident, $less:literal, $help:literal, $read:expr;)*) => {
        /// All of them.
        pub const TABLE: &[Figure] = &[$(Figure {
            name: $name,
            measure: Measure::$measure,
            help: $help,
            less_is_better: $less,
            read: $read,
        },)*];
    };
}

fn even(report: &Report) -> Option<portico_core::observe::evenness::Evenness> {
    report.units.first()?.evenness
}

fn at(list: &[Percentile], percentile: f64) -> Option<f64> {
    let found = list
        .iter()
        .find(|entry| (entry.percentile - percentile).abs() < 1e-9);
    Some(found?.millis)
}

figures! {
    "cov", Number, true, "coefficient of variation of the judged unit", |r| even(r).map(|e| e.cov);
    "spread", Number, true, "largest excess less the smallest: most less least where all weigh the same", |r| even(r).map(|e| e.spread);
    "jain", Number, false, "Jain's index of fairness", |r| even(r).map(|e| e.jain);
    "chi2_p", Number, false, "how often chance would be as uneven", |r| even(r).map(|e| e.p);
    "worst_second_cov", Number, true, "coefficient of variation of the worst second", |r| r.order.worst_second_cov;
    "repeat_rate", Share, true, "answers by the same endpoint as the one before", |r| Some(r.order.repeat_rate);
    "errors", Number, true, "failed requests", |r| Some(float(r.run.failed));
    "error_rate", Share, true, "failed requests by all", |r| Some(float(r.run.failed) / float(r.run.requests.max(1)));
    "rps", Rate, false, "answered a second", |r| Some(r.run.achieved_rate);
    "p50", Millis, true, "latency from the intended time", |r| at(&r.latency.corrected, 50.0);
    "p90", Millis, true, "see p50", |r| at(&r.latency.corrected, 90.0);
    "p99", Millis, true, "see p50", |r| at(&r.latency.corrected, 99.0);
    "p999", Millis, true, "see p50", |r| at(&r.latency.corrected, 99.9);
    "max", Millis, true, "see p50", |r| at(&r.latency.corrected, 100.0);
    "uncorrected_p99", Millis, true, "latency from the time of sending", |r| at(&r.latency.uncorrected, 99.0);
    "connect_p99", Millis, true, "time to connect", |r| at(&r.latency.connect, 99.0);
    "overhead_p50", Millis, true, "added at the median over asking the endpoints", |r| r.overhead.as_ref().map(|o| o.p50.median);
    "overhead_p99", Millis, true, "added at the 99th percentile", |r| r.overhead.as_ref().map(|o| o.p99.median);
    "lag_p99", Millis, true, "how late the generator was", |r| Some(r.generator.lag_p99);
    "mismatches", Number, true, "counts that do not agree", |r| Some(float(u64::try_from(r.counts.mismatches.len()).unwrap_or(u64::MAX)));
}

/// The table for people, as Markdown.
pub fn markdown() -> String {
    let mut text =
        "| figure | unit in a condition | better | meaning |\n|---|---|---|---|\n".to_owned();
    for figure in TABLE {
        let unit = match figure.measure {
            Measure::Number | Measure::Share => "none, `%`",
            Measure::Millis => "`us`, `ms`, `s`",
            Measure::Rate => "none, `k`",
        };
        let better = if figure.less_is_better {
            "less"
        } else {
            "more"
        };
        let _ = writeln!(
            text,
            "| `{}` | {unit} | {better} | {} |",
            figure.name, figure.help
        );
    }
    text
}

/// A condition under which a run fails.
#[derive(Clone)]
pub struct Gate {
    text: String,
    figure: &'static Figure,
    relation: Relation,
    bound: f64,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.text).finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let relations = [
            (">=", Relation::AtLeast),
            ("<=", Relation::AtMost),
            (">", Relation::Above),
            ("<", Relation::Below),
        ];
        let mut split = relations
            .iter()
            .filter_map(|(sign, relation)| Some((text.split_once(sign)?, *relation)));
        let ((name, bound), relation) = split.next().ok_or_else(|| {
            format!("'{text}' is no condition such as cov>0.02, p99>5ms or errors>0")
        })?;
        let figure = Figure::named(name.trim()).ok_or_else(|| {
            let names: Vec<&str> = TABLE.iter().map(|figure| figure.name).collect();
            format!(
                "no figure is called '{}'; there are {}",
                name.trim(),
                names.join(", ")
            )
        })?;
        Ok(Self {
            text: text.to_owned(),
            figure,
            relation,
            bound: bound_of(bound.trim(), figure.measure)?,
        })
    }
}

/// A number with the unit of what it bounds: `5ms`, `200us`, `1s`, `2%`.
fn bound_of(text: &str, measure: Measure) -> Result<f64, String> {
    let letters = text
        .find(|c: char| c.is_ascii_alphabetic() || c == '%')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(letters);
    let number: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("'{text}' is no number"))?;
    let factor = match (measure, unit.trim()) {
        (Measure::Millis, "ms") | (Measure::Number | Measure::Share | Measure::Rate, "") => 1.0,
        (Measure::Millis, "us") => 0.001,
        (Measure::Millis, "s") => 1000.0,
        (Measure::Number | Measure::Share, "%") => 0.01,
        (Measure::Rate, "k") => 1000.0,
        (Measure::Millis, _) => return Err(format!("'{text}' needs a unit: us, ms or s")),
        (_, unit) => return Err(format!("'{unit}' does not fit here")),
    };
    Ok(number * factor)
}

impl Gate {
    /// Holds it against a report. A figure that the report does not have fails it: nothing was proved.
    pub fn check(&self, report: &Report) -> GateResult {
        let value = self.figure.of(report);
        let fails = value.is_none_or(|value| match self.relation {
            Relation::Above => value > self.bound,
            Relation::AtLeast => value >= self.bound,
            Relation::Below => value < self.bound,
            Relation::AtMost => value <= self.bound,
        });
        GateResult {
            condition: self.text.clone(),
            value,
            fails,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_reads_figure_relation_and_unit() {
        let gate: Gate = "p99 > 5ms".parse().unwrap();
        assert_eq!((gate.figure.name, gate.relation), ("p99", Relation::Above));
        assert!((gate.bound - 5.0).abs() < 1e-9);
        let bound = |text: &str| text.parse::<Gate>().unwrap().bound;
        assert!((bound("p50>=200us") - 0.2).abs() < 1e-9);
        assert!((bound("error_rate>1%") - 0.01).abs() < 1e-9);
        assert!((bound("rps<20k") - 20_000.0).abs() < 1e-9);
        for (text, words) in [
            ("p99", "is no condition"),
            ("p98>1ms", "no figure is called 'p98'; there are cov"),
            ("p99>5", "needs a unit"),
            ("cov>5ms", "does not fit"),
            ("cov>x", "is no number"),
        ] {
            let error = text.parse::<Gate>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
