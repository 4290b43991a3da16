//! The house rules that no linter knows, each with a message that says where, what and why. Owns walking the files
//! and the report; the rules are in `rules`, how Rust text is read in `source`.

mod paths;
mod rules;
mod source;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use source::Source;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path from the root of the workspace.
    pub(crate) file: String,
    /// Line, from 1; 0 for the whole file.
    pub(crate) line: usize,
    /// Whether it only warns.
    pub(crate) weight: Weight,
    /// What is wrong and why it matters.
    pub(crate) message: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// Fails the check.
    Error,
    /// Is printed.
    Warning,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        let weight = match self.weight {
            Weight::Error => "",
            Weight::Warning => "warning: ",
        };
        write!(f, " {weight}{}", self.message)
    }
}

/// Folders that hold no text of ours.
const SKIPPED: [&str; 3] = ["target", ".git", "corpus"];

/// Files that other programs write.
const GENERATED: [&str; 1] = ["Cargo.lock"];

/// Checks every text file below `root`.
///
/// # Errors
/// A rule is broken, or the files cannot be read.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut findings = BTreeSet::new();
    let files = files(root)?;
    let count = files.len();
    for file in files {
        let name = file
            .strip_prefix(root)
            .unwrap_or(&file)
            .to_string_lossy()
            .replace('\\', "/");
        let bytes =
            std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        // What is not text has no rules.
        if let Ok(text) = String::from_utf8(bytes) {
            findings.extend(check(&name, &text));
        }
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    let errors = findings
        .iter()
        .filter(|finding| finding.weight == Weight::Error)
        .count();
    if errors > 0 {
        bail!("{errors} house rules are broken");
    }
    println!("{count} files, {} warnings", findings.len());
    Ok(())
}

/// Every finding in one file.
fn check(name: &str, text: &str) -> Vec<Finding> {
    let mut findings = rules::of_any_text(name, text);
    let is_rust = Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "rs");
    if is_rust {
        let source = Source::read(text);
        findings.extend(rules::of_rust(name, text, &source));
    }
    if name.ends_with("Cargo.toml") {
        findings.extend(rules::of_package(name, text));
    }
    findings
}

fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                folders.push(entry.path());
            } else if kind.is_file() && !GENERATED.contains(&name.as_str()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
