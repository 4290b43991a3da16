//! What an item measured, as it is kept and as the page shows it. Owns the form of the files and the tables; judges by the
//! bounds that the lines have.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    fs,
    path::Path,
};

use anyhow::{Context as _, ensure};
use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use super::{Item, file};
use crate::{
    figure::number,
    provenance::Machine,
    render::{digits, machine},
    report::Counts,
};

/// Version of the form.
pub(super) const SCHEMA: u32 = 1;

/// What stands above this line is written by hand.
const MADE: &str = "<!-- What follows is made by `loadtest reliability --page` from loadtest/results/reliability. -->";

/// One file of `results/reliability/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ItemResult {
    /// `SCHEMA`.
    pub(super) schema: u32,
    /// What was provoked.
    pub(super) item: Item,
    /// How long, of what has a length.
    pub(super) seconds: u64,
    /// When, RFC 3339.
    pub(super) began: String,
    /// Where.
    pub(super) machine: Machine,
    /// What says its version.
    pub(super) portico: String,
    /// What was measured.
    pub(super) lines: Vec<Line>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Of what, with its unit.
    what: String,
    /// How much.
    value: f64,
    /// How much it may be; a line without a bound tells the size of what was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<f64>,
}

impl Line {
    /// One that tells how much was done.
    pub(super) fn told(what: impl Into<String>, value: f64) -> Self {
        Self {
            what: what.into(),
            value,
            at_most: None,
        }
    }

    /// One that is bounded.
    pub(super) fn bounded(what: impl Into<String>, value: f64, at_most: f64) -> Self {
        Self {
            at_most: Some(at_most),
            ..Self::told(what, value)
        }
    }

    /// One that must be zero.
    pub(super) fn none(what: impl Into<String>, count: u64) -> Self {
        Self::bounded(what, number(count), 0.0)
    }

    /// Two of connections or requests: how many, and that none of them failed.
    pub(super) fn of(what: &str, counts: &Counts) -> [Self; 2] {
        let failures: Vec<&str> = counts.failures.keys().map(String::as_str).collect();
        let why = if failures.is_empty() {
            String::new()
        } else {
            format!(" ({})", failures.join(", "))
        };
        [
            Self::told(what, number(counts.answered_total())),
            Self::none(format!("… that failed{why}"), counts.failed_total()),
        ]
    }

    fn holds(&self) -> Option<bool> {
        self.at_most.map(|bound| self.value <= bound)
    }

    fn word(&self) -> &'static str {
        match self.holds() {
            None => "",
            Some(true) => "kept",
            Some(false) => "**missed**",
        }
    }
}

impl ItemResult {
    /// Whether every bound is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.lines.iter().all(|line| line.holds() != Some(false))
    }

    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder)?;
        let file = file(folder, self.item);
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The result of an item, if it was ever run.
    fn read(folder: &Path, item: Item) -> anyhow::Result<Option<Self>> {
        let file = file(folder, item);
        let Ok(text) = fs::read_to_string(&file) else {
            return Ok(None);
        };
        let result: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no result", file.display()))?;
        ensure!(
            result.schema == SCHEMA,
            "{} has another schema",
            file.display()
        );
        Ok(Some(result))
    }
}

/// For a terminal.
impl fmt::Display for ItemResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.item.name())?;
        for line in &self.lines {
            let bound = line.at_most.map_or(String::new(), |bound| {
                format!("<= {} {}", digits(bound), line.word().trim_matches('*'))
            });
            writeln!(f, "{:>12}  {:<60} {bound}", digits(line.value), line.what)?;
        }
        Ok(())
    }
}

/// Makes the end of the page of all results there are.
///
/// # Errors
/// A result cannot be read, or the page not be written.
pub(super) fn page(folder: &Path, page: &Path) -> anyhow::Result<()> {
    let mut results = Vec::new();
    for item in Item::value_variants() {
        results.extend(ItemResult::read(folder, *item)?);
    }
    let before =
        fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let by_hand = before.split(MADE).next().unwrap_or_default().trim_end();
    let text = format!("{by_hand}\n\n{MADE}\n\n## Measured\n{}", tables(&results));
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

fn tables(results: &[ItemResult]) -> String {
    let mut text = String::new();
    for result in results {
        let _ = writeln!(
            text,
            "\n### {}\n\n{} {} s on {}.\n\n| | measured | at most | |\n|---|---:|---:|---|",
            result.item.name(),
            result.item.about(),
            result.seconds,
            result.began
        );
        for line in &result.lines {
            let bound = line.at_most.map_or(String::new(), digits);
            let _ = writeln!(
                text,
                "| {} | {} | {bound} | {} |",
                line.what,
                digits(line.value),
                line.word()
            );
        }
    }
    let facts: BTreeSet<String> = results
        .iter()
        .flat_map(|result| [machine(&result.machine), result.portico.clone()])
        .collect();
    if !facts.is_empty() {
        text.push_str("\n### Machine and program\n\n");
        for fact in facts {
            let _ = writeln!(text, "- {fact}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ItemResult {
        let mut counts = Counts::default();
        counts.failed("late");
        let mut lines = vec![Line::bounded("p99, ms", 3.5, 50.0)];
        lines.extend(Line::of("connections", &counts));
        ItemResult {
            schema: SCHEMA,
            item: Item::Resets,
            seconds: 10,
            began: "2026-01-02T03:04:05Z".into(),
            machine: Machine::here(),
            portico: "portico 0.1.0".into(),
            lines,
        }
    }

    #[test]
    fn result_with_a_bound_exceeded_is_not_kept_and_says_which() {
        let mut result = example();
        assert!(!result.is_kept());
        let text = result.to_string();
        assert!(text.contains("… that failed (late)"), "{text}");
        assert!(text.contains("<= 0 missed"), "{text}");
        result.lines.pop();
        assert!(result.is_kept());
    }

    #[test]
    fn page_keeps_what_is_above_and_makes_the_tables_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("page.md");
        fs::write(&file, "By hand.\n").unwrap();
        example().write(folder.path()).unwrap();
        page(folder.path(), &file).unwrap();
        let once = fs::read_to_string(&file).unwrap();
        assert!(once.starts_with("By hand.\n\n<!--"), "{once}");
        assert!(once.contains("| p99, ms | 3.50 | 50.0 | kept |"), "{once}");
        assert!(once.contains("| 1.00 | 0 | **missed** |"), "{once}");
        page(folder.path(), &file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), once);
    }
}
