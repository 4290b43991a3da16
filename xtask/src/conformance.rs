//! `docs/conformance.md`: which behaviour of Kubernetes' suites which test holds, and with which result. Owns the
//! document; a row's tests are all tests `row_NN_...` of the integration binary, in any module.

mod rows;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, bail};

use rows::{Level, ROWS, Row, State};

/// Where the document is.
const DOCUMENT: &str = "docs/conformance.md";

const HEAD: &str = "\
# Conformance: what Kubernetes' own tests demand of Services

Kubernetes proves its Services by the end-to-end tests in
[test/e2e/network](https://github.com/kubernetes/kubernetes/tree/master/test/e2e/network); those that every cluster must pass
are listed in
[conformance.yaml](https://github.com/kubernetes/kubernetes/blob/master/test/conformance/testdata/conformance.yaml). Here is
each behaviour that they demand, in our words, with the tests that hold it in portico: the real program and real clients, in
a network namespace of their own, with another machine at the end of a virtual cable where one is needed. What Kubernetes
drops may be reset instead: both count as dropped, a refusal does not.

This file is written by `cargo xtask conformance`, which runs these tests. One row: `cargo test --test it row_07_`.

| row | behaviour | level | in Kubernetes | tests | result |
|---|---|---|---|---|---|
";

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Passed,
    /// It could not run here, or is ignored.
    Skipped,
    Failed,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Passed, Self::Skipped, Self::Failed];

    const fn word(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Skipped => "skipped",
            Self::Failed => "FAILED",
        }
    }
}

/// Tests by their full names.
type Outcomes = BTreeMap<String, Outcome>;

/// Runs the tests of all rows and writes the document.
///
/// # Errors
/// A test fails, which the document says too; or a test belongs to no row.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    let listed = list(root)?;
    // What a test that passes has to say is shown too: that it could not run, above all.
    let output = it(root, &["row_", "--show-output"])
        .output()
        .context("cannot start cargo test")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let outcomes = outcomes(&listed, &said)?;
    let path = root.join(DOCUMENT);
    std::fs::write(&path, render(&outcomes)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("{DOCUMENT}: {} tests", outcomes.len());
    if let Err(error) = all_passed(&outcomes) {
        print!("{said}");
        return Err(error);
    }
    Ok(())
}

/// Compares the document with the table of rows and with the tests that there are, without running them.
///
/// # Errors
/// The document is not what `write` would write, or is about tests that did not pass.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let path = root.join(DOCUMENT);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    compare(&text, &list(root)?)
}

/// The document against the names of the tests that there are.
fn compare(document: &str, listed: &BTreeSet<String>) -> anyhow::Result<()> {
    let outcomes = recorded(document);
    let in_document: BTreeSet<String> = outcomes.keys().cloned().collect();
    let mut differences = String::new();
    for name in listed.difference(&in_document) {
        write!(differences, "\n  not in it: {name}")?;
    }
    for name in in_document.difference(listed) {
        write!(differences, "\n  no such test: {name}")?;
    }
    if !differences.is_empty() {
        bail!("{DOCUMENT} is out of date, run `cargo xtask conformance`:{differences}");
    }
    all_passed(&outcomes)?;
    if render(&outcomes)? != document {
        bail!("{DOCUMENT} differs from the table of rows: run `cargo xtask conformance`");
    }
    Ok(())
}

/// A run of the integration tests. With the whole workspace, for that is how `cargo xtask test` has built them.
fn it(root: &Path, arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["test", "--workspace", "--test", "it", "--"])
        .args(arguments)
        .current_dir(root);
    command
}

/// The names of all tests of rows.
fn list(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let output = it(root, &["--list"])
        .output()
        .context("cannot start cargo test")?;
    if !output.status.success() {
        bail!(
            "cannot list the tests:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names
        .filter(|name| row_of(name).is_some())
        .map(str::to_owned)
        .collect())
}

/// The row that a test is for, by its name.
fn row_of(test: &str) -> Option<u8> {
    let name = test.rsplit("::").next()?;
    let (number, _) = name.strip_prefix("row_")?.split_once('_')?;
    number.parse().ok()
}

/// What became of each test, from what the test runner says.
fn outcomes(listed: &BTreeSet<String>, said: &str) -> anyhow::Result<Outcomes> {
    let mut found = Outcomes::new();
    for line in said.lines() {
        let said = outcome(line).filter(|(name, _)| listed.contains(*name));
        if let Some((name, outcome)) = said {
            note(&mut found, name, outcome);
        }
    }
    if let Some(lost) = listed.iter().find(|name| !found.contains_key(*name)) {
        bail!("the tests did not say what became of {lost}:\n{said}");
    }
    Ok(found)
}

/// A line of the test runner about one test, or of a test that says that it cannot run here.
fn outcome(line: &str) -> Option<(&str, Outcome)> {
    if let Some(skipped) = line.strip_prefix("skipped ") {
        let (name, _) = skipped.split_once(": ")?;
        return Some((name, Outcome::Skipped));
    }
    let (name, word) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let outcome = match word.split(',').next()? {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        "ignored" => Outcome::Skipped,
        _ => return None,
    };
    Some((name, outcome))
}

/// The worst that is said of a test counts.
fn note(outcomes: &mut Outcomes, name: &str, outcome: Outcome) {
    let known = outcomes.entry(name.to_owned()).or_insert(outcome);
    *known = outcome.max(*known);
}

/// The tests that a document has, with their results.
fn recorded(document: &str) -> Outcomes {
    let mut found = Outcomes::new();
    // Names are between backquotes: every second piece.
    let pieces: Vec<&str> = document.split('`').collect();
    for pair in pieces.windows(2) {
        let [name, after] = pair else { continue };
        let outcome = Outcome::ALL
            .into_iter()
            .find(|outcome| after.starts_with(&format!(": {}", outcome.word())));
        if let Some(outcome) = outcome.filter(|_| row_of(name).is_some()) {
            note(&mut found, name, outcome);
        }
    }
    found
}

fn all_passed(outcomes: &Outcomes) -> anyhow::Result<()> {
    let others: Vec<String> = outcomes
        .iter()
        .filter(|(_, outcome)| **outcome != Outcome::Passed)
        .map(|(name, outcome)| format!("{name}: {}", outcome.word()))
        .collect();
    if !others.is_empty() {
        bail!("not all rows are held:\n  {}", others.join("\n  "));
    }
    Ok(())
}

/// The document. Every row has a test or a reason why not, and every test a row.
fn render(outcomes: &Outcomes) -> anyhow::Result<String> {
    let mut of_rows: BTreeMap<u8, Vec<(&str, Outcome)>> = BTreeMap::new();
    for (name, outcome) in outcomes {
        let row = row_of(name).filter(|row| ROWS.iter().any(|of| of.number == *row));
        let row = row.with_context(|| format!("{name} is the test of a row that is not there"))?;
        of_rows.entry(row).or_default().push((name, *outcome));
    }
    let mut text = HEAD.to_owned();
    for row in ROWS {
        let tests = of_rows.remove(&row.number).unwrap_or_default();
        writeln!(text, "{}", line(row, &tests)?)?;
    }
    Ok(text)
}

fn line(row: &Row, tests: &[(&str, Outcome)]) -> anyhow::Result<String> {
    let level = match row.level {
        Level::Conformance => "Conformance",
        Level::EndToEnd => "e2e",
    };
    let worst = tests.iter().map(|(_, outcome)| *outcome).max();
    let result = match (worst, row.state) {
        (Some(_), State::Foreign(_)) => bail!("row {} has tests and is foreign", row.number),
        (None, State::Foreign(why)) => format!("does not apply: {why}"),
        (None, State::Whole | State::Partly(_)) => bail!("row {} has no test", row.number),
        (Some(Outcome::Passed), State::Partly(what)) => format!("passes in part: {what}"),
        (Some(Outcome::Passed), _) => "passes".to_owned(),
        (Some(Outcome::Skipped), _) => "not tried".to_owned(),
        (Some(Outcome::Failed), _) => "FAILS".to_owned(),
    };
    let tests: Vec<String> = tests
        .iter()
        .map(|(name, outcome)| format!("`{name}`: {}", outcome.word()))
        .collect();
    let files: Vec<String> = row.files.iter().map(|file| format!("`{file}`")).collect();
    Ok(format!(
        "| {} | {} | {level} | {} | {} | {result} |",
        row.number,
        row.behaviour,
        files.join(", "),
        tests.join("<br>")
    ))
}
