//! Namespaces for `portico run`: whether they can be made, and what the inside reaches.

use super::super::{Finding, facts::Facts};

/// `portico run`.
pub(in super::super) fn run(facts: &Facts) -> Finding {
    const CHECK: &str = "run";
    let namespaces = &facts.namespaces;
    if let Some(refusal) = &namespaces.refused {
        return Finding::no(CHECK, &*refusal.why)
            .fix(refusal.fix.as_deref().unwrap_or_default())
            .fix("portico proxy  # names and ports without namespaces");
    }
    let text = "a program can have namespaces of its own";
    if let Some(program) = namespaces.outside {
        let text = format!("{text}, and reaches other machines through {program}");
        return Finding::ok(CHECK, text);
    }
    let installer = if facts.is_debian { "apt-get" } else { "dnf" };
    let (why, package) = if namespaces.is_root {
        let why = "slirp4netns is not installed, and pasta does not serve root";
        (why, "slirp4netns")
    } else {
        ("neither pasta nor slirp4netns is installed", "passt")
    };
    let text = format!("{text}, but reaches no other machine from there: {why}");
    Finding::warn(CHECK, text).fix(format!("sudo {installer} install {package}"))
}
