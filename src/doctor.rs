//! Why a way in works on this machine or does not, and what to type. Owns the findings and their words: each check is a
//! function of [`Facts`] alone, which `facts` reads in one place. Changes nothing, and starts nothing that could.

mod checks;
pub mod facts;

use serde::Serialize;

pub use facts::Facts;

/// How a way in fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It works as it should.
    Ok,
    /// It works in part, or another way stands in for it.
    Warn,
    /// It does not work.
    No,
}

impl Verdict {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::No => "no",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The way in, or what bounds it.
    pub check: &'static str,
    /// Whether it works.
    pub result: Verdict,
    /// What was tried, and what came of it.
    pub text: String,
    /// What to type; where there are several, one of them is enough.
    pub fix: Vec<String>,
}

impl Finding {
    fn new(check: &'static str, result: Verdict, text: impl Into<String>) -> Self {
        Self {
            check,
            result,
            text: text.into(),
            fix: Vec::new(),
        }
    }

    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, text)
    }

    fn warn(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warn, text)
    }

    fn no(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Verdict::No, text)
    }

    /// With one more thing to type, unless nothing is known to help. `ONE (or: OTHER)`, as on a single line of `status`, is
    /// two things.
    fn fix(mut self, fix: impl Into<String>) -> Self {
        let fix = fix.into();
        let other = fix.strip_suffix(')');
        match other.and_then(|text| text.split_once(" (or: ")) {
            Some((one, other)) => self.fix.extend([one.to_owned(), other.to_owned()]),
            None if fix.is_empty() => {}
            None => self.fix.push(fix),
        }
        self
    }
}

/// Everything that is to be said of `facts`, in the order in which it matters.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        checks::program::program(facts),
        checks::ports::addresses(facts),
        checks::ports::low_ports(facts),
    ];
    findings.extend(checks::ports::ports(facts));
    findings.extend(checks::names::dns(facts));
    findings.extend(checks::names::names(facts));
    findings.extend([
        checks::names::localhost(facts),
        checks::run::run(facts),
        checks::reach::proxy(facts),
        checks::reach::containers(facts),
        checks::reach::ipv6(facts),
        checks::limits::files(facts),
        checks::limits::pipes(facts),
        checks::limits::edits(facts),
        checks::limits::local_ports(facts),
        checks::limits::queue(facts),
    ]);
    findings.extend(checks::program::left_over(facts));
    findings
}

#[cfg(test)]
mod tests;
