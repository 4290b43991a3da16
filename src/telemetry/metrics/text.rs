//! The text format 0.0.4 of Prometheus. Owns escaping and the layout of samples; what they are is the caller's.

use std::fmt::{Display, Write as _};

use portico_core::observe::{histogram::Histogram, real};

use super::table;

/// The content type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of our own histograms, in microseconds: powers of four, at which the buckets of
/// [`Histogram`] begin, so that counts below them are exact.
const BOUNDS: [u64; 12] = [
    1 << 6,
    1 << 8,
    1 << 10,
    1 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
    1 << 28,
    1 << 32,
];

/// Labels as they stand between braces, each escaped.
pub fn labels(pairs: &[(&str, &dyn Display)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push(',');
        }
        label(&mut text, name, value);
    }
    text
}

fn label(text: &mut String, name: &str, value: &dyn Display) {
    text.push_str(name);
    text.push_str("=\"");
    let _ = write!(Escaped(text), "{value}");
    text.push('"');
}

/// Text as it stands between quotes.
struct Escaped<'a>(&'a mut String);

impl std::fmt::Write for Escaped<'_> {
    fn write_str(&mut self, value: &str) -> std::fmt::Result {
        if value.contains(['\\', '"', '\n']) {
            self.0.push_str(&escape(value));
        } else {
            self.0.push_str(value);
        }
        Ok(())
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Writes what stands above the samples of a metric of the table.
pub fn head(text: &mut String, name: &str) {
    if let Some(metric) = table::find(name) {
        let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
        let kind = metric.kind.as_str();
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

/// The samples of one metric with some labels in common.
pub struct Samples<'a> {
    /// Where they are written.
    pub text: &'a mut String,
    /// The metric.
    pub name: &'a str,
    /// Labels that all of them have, as [`labels`] gives them.
    pub common: &'a str,
}

impl Samples<'_> {
    /// One sample.
    pub fn value(&mut self, value: impl Display) {
        self.sample("", None, value);
    }

    /// One sample with one more label.
    pub fn by(&mut self, label: &str, is: &str, value: impl Display) {
        self.sample("", Some((label, &is)), value);
    }

    /// Microseconds as a histogram of seconds. One without values is left out: most endpoints of a large World have
    /// never been connected to.
    pub fn histogram(&mut self, histogram: &Histogram) {
        if histogram.count() == 0 {
            return;
        }
        for bound in BOUNDS {
            let le = real(bound) / 1e6;
            self.sample("_bucket", Some(("le", &le)), histogram.below(bound));
        }
        self.sample("_bucket", Some(("le", &"+Inf")), histogram.count());
        self.sample("_sum", None, real(histogram.sum()) / 1e6);
        self.sample("_count", None, histogram.count());
    }

    /// A large World has tens of thousands of them, so only what needs formatting is formatted.
    fn sample(&mut self, suffix: &str, own: Option<(&str, &dyn Display)>, value: impl Display) {
        let text = &mut *self.text;
        text.push_str(self.name);
        text.push_str(suffix);
        if !self.common.is_empty() || own.is_some() {
            text.push('{');
            text.push_str(self.common);
            if let Some((name, is)) = own {
                if !self.common.is_empty() {
                    text.push(',');
                }
                label(text, name, is);
            }
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use portico_core::observe::histogram::Buckets;

    use super::*;

    #[test]
    fn labels_with_quotes_backslashes_and_newlines_are_escaped() {
        assert_eq!(
            labels(&[("a", &"x\"y\\z\n"), ("b", &7)]),
            r#"a="x\"y\\z\n",b="7""#
        );
    }

    #[test]
    fn sample_with_labels_in_common_of_its_own_both_and_none_is_one_line() {
        let mut text = String::new();
        for common in ["", "a=\"b\""] {
            let mut samples = Samples {
                text: &mut text,
                name: "x",
                common,
            };
            samples.value(1);
            samples.by("c", "d\"", 20);
        }
        let lines = "x 1\nx{c=\"d\\\"\"} 20\nx{a=\"b\"} 1\nx{a=\"b\",c=\"d\\\"\"} 20\n";
        assert_eq!(text, lines);
    }

    #[test]
    fn histogram_is_cumulative_and_in_seconds() {
        let mut histogram = Histogram::new(Buckets::COARSE);
        for value in [10, 100, 2_000_000] {
            histogram.record(value);
        }
        let mut text = String::new();
        let mut samples = Samples {
            text: &mut text,
            name: "x_seconds",
            common: "a=\"b\"",
        };
        samples.histogram(&histogram);
        assert!(text.starts_with("x_seconds_bucket{a=\"b\",le=\"0.000064\"} 1\nx_seconds_bucket{a=\"b\",le=\"0.000256\"} 2\n"), "{text}");
        assert!(text.contains("x_seconds_bucket{a=\"b\",le=\"1.048576\"} 2\nx_seconds_bucket{a=\"b\",le=\"4.194304\"} 3\n"), "{text}");
        assert!(
            text.ends_with(
                "le=\"+Inf\"} 3\nx_seconds_sum{a=\"b\"} 2.00011\nx_seconds_count{a=\"b\"} 3\n"
            ),
            "{text}"
        );
    }
}
