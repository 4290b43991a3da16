//! The rules as tables. Owns what is allowed where, and why; every exception carries its reason.

use super::{
    Finding, Weight,
    paths::{self, Path},
    source::Source,
};

/// Most lines of a file outside its tests; more needs a second file.
const HARD_LINES: usize = 800;
/// From here on a file asks to be split.
const SOFT_LINES: usize = 500;

/// Which part of the program may use which. A file of `src/FROM` may use `crate::` only as far as this says; its own
/// module it may always use. Test modules are exempt. The last column says why.
const EDGES: &[(&str, &[&str], &str)] = &[
    (
        "admin",
        &[
            "control::status",
            "control::command",
            "control::way",
            "dns",
            "explain",
            "instance",
            "objects::Resource",
            "objects::connection",
            "settings",
            "clock",
            "telemetry::metrics",
        ],
        "routes read the status, pass commands on and ask the same DNS as everybody; the client finds the socket",
    ),
    ("app", &["*"], "the composition root knows everyone"),
    (
        "bench",
        &[],
        "measures addresses; whoever knows a program tells it through a trait",
    ),
    (
        "cli",
        &[
            "app",
            "bench",
            "settings",
            "telemetry",
            "host::addresses",
            "notify",
            "host::ephemeral_clash",
            "host::no_ipv6",
            "host::listen_near",
            "host::routes::left",
            "control::status",
            "control::command",
            "admin::client",
            "clock",
            "source::render",
            "objects",
            "privilege",
            "proxy",
            "run",
            "words",
        ],
        "commands see the app; they print statuses, objects, findings, the host's addresses and what clashes with them",
    ),
    (
        "cli::demo::check",
        &["app", "bench", "control::status"],
        "its proof asks a real DNS question over UDP, as the bench does",
    ),
    ("cli::get", &["clock"], "ages count from now"),
    ("cli::doctor", &["doctor"], "prints its findings"),
    (
        "cli::explain",
        &["explain"],
        "prints explanations, offline and from the running program",
    ),
    (
        "cli::resolve",
        &["dns"],
        "answers offline what the server would",
    ),
    (
        "cli::dns",
        &["resolver"],
        "carries out what is asked of the machine's resolver",
    ),
    (
        "cli::stat",
        &["admin::stat"],
        "prints the counts that the admin interface answers",
    ),
    (
        "cli::validate",
        &["source"],
        "checks files and nothing else, without an app",
    ),
    (
        "control",
        &["host", "objects::Resource"],
        "reads sockets' holders, and commands name objects; everything else reaches it through traits",
    ),
    ("dns", &["clock"], "reads snapshots"),
    (
        "doctor",
        &[
            "control::holder",
            "control::status",
            "host",
            "instance",
            "resolver::ask",
            "run::namespaces",
            "settings",
        ],
        "looks at the machine as those would who use it, and at what the running program says",
    ),
    (
        "explain",
        &["control::status", "objects", "words"],
        "reads what objects are made from, and the listeners' reports",
    ),
    (
        "instance",
        &["control::holder", "durable"],
        "a second start names the holder; its state outlives a crash",
    ),
    (
        "objects",
        &["control::status", "host"],
        "shows listeners' reports and the machine as the node",
    ),
    (
        "proxy",
        &["admin::client", "control::way", "settings"],
        "asks the running program for the way to each name",
    ),
    (
        "resolver",
        &["dns", "durable"],
        "what it writes over resolv.conf the DNS server must look behind",
    ),
    (
        "run",
        &["host::routes", "handover", "clock"],
        "its namespace needs a loopback device and local routes; sockets are handed over from it",
    ),
    (
        "runs",
        &["clock", "dns", "handover"],
        "speaks with the keepers of `portico run`, and answers DNS at the sockets that they hand over",
    ),
    (
        "settings",
        &["source::yaml", "telemetry", "privilege::Account"],
        "the settings file is YAML; the log format and the user are options",
    ),
    (
        "simulate",
        &["clock", "privilege"],
        "runs in another process, which has no use for privileges",
    ),
    ("source", &["clock"], "reports, and knows nobody"),
];

/// What the pure core must not name, and why.
const IMPURE: &[(&str, &str)] = &[
    ("fs", "the core has no files"),
    ("env", "the core has no environment"),
    ("thread", "the core has no threads"),
    ("process", "the core has no processes"),
    ("os", "the core has no descriptors"),
    ("net::Tcp*", "the core has no sockets"),
    ("net::Udp*", "the core has no sockets"),
    ("time::Instant", "time is an argument in the core"),
    ("time::SystemTime", "time is an argument in the core"),
    ("hash::RandomState", "chance is an argument in the core"),
    (
        "collections::hash_map::RandomState",
        "chance is an argument in the core",
    ),
];

/// Crates that a package must not depend on, tests aside.
const FOREIGN: &[(&str, &[&str], &str)] = &[
    (
        "crates/core/Cargo.toml",
        &[
            "tokio",
            "rustix",
            "socket2",
            "libc",
            "rand",
            "saphyr-parser",
            "notify",
            "serde_json",
            "tracing",
            "anyhow",
        ],
        "the core is pure",
    ),
    (
        "crates/dataplane/Cargo.toml",
        &["serde", "serde_json", "axum", "clap", "anyhow"],
        "the data path knows neither formats nor command lines",
    ),
];

/// Files that may say `unsafe`.
const UNSAFE: &[&str] = &[
    "crates/dataplane/src/net.rs",
    "crates/dataplane/src/net/datagrams.rs",
    "src/source/file/lease.rs",
    // counts allocations, in a test program of its own
    "tests/allocations.rs",
];

/// Calls that need a reason, and the files that have one.
const CALLS: &[(&str, &[&str], &str)] = &[
    (
        "thread::sleep",
        &[],
        "wait for an event with a deadline instead",
    ),
    (
        "unbounded_channel",
        &[],
        "a queue needs a bound and a metric for hitting it",
    ),
    (
        "tokio::spawn",
        &[
            "src/app.rs",
            "src/app/parts.rs",
            "src/simulate/host.rs",
            "loadtest/src/main.rs",
        ],
        "a task needs an owner that awaits it: use a JoinSet or a TaskTracker",
    ),
    (
        "SystemTime::now",
        &[
            "src/clock.rs",
            "crates/dataplane/src/clock.rs",
            "src/instance/lock.rs",
            "src/source/file/read.rs",
            "loadtest/src/provenance.rs",
        ],
        "the wall clock is read in `clock` only, elsewhere `now` is an argument",
    ),
    (
        "env::set_var",
        &[],
        "the environment is shared by all threads",
    ),
];

/// Words that no file may contain: they tie the project to one machine.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("/ho", "me/"), "a path of one machine"),
    (concat!("/Us", "ers/"), "a path of one machine"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (
        concat!("deb.deb", "ian.org"),
        "package hosts are the machine's business",
    ),
    (
        concat!("static.cra", "tes.io"),
        "package hosts are the machine's business",
    ),
    (
        concat!("index.cra", "tes.io"),
        "package hosts are the machine's business",
    ),
];

/// Rules of every text file.
pub(crate) fn of_any_text(name: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (word, why) in FORBIDDEN.iter().filter(|(word, _)| line.contains(word)) {
            findings.push(error(name, number + 1, format!("'{word}': {why}")));
        }
    }
    findings
}

/// Rules of Rust files.
pub(crate) fn of_rust(name: &str, text: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//! ") {
        findings.push(error(
            name,
            1,
            "a file opens with `//!`: what it owns and what it must not do".into(),
        ));
    }
    findings.extend(todos(name, &source.comments));
    if is_test(name) {
        return findings;
    }
    findings.extend(length(name, source.lines));
    findings.extend(imports(name, &source.code));
    if name.starts_with("crates/core/src/") {
        findings.extend(impurities(name, &source.code));
    }
    findings.extend(calls(name, &source.code));
    findings
}

/// Rules of a package's manifest.
pub(crate) fn of_package(name: &str, text: &str) -> Vec<Finding> {
    let Some((_, banned, why)) = FOREIGN.iter().find(|(package, ..)| *package == name) else {
        return Vec::new();
    };
    let mut section = "";
    let mut findings = Vec::new();
    for (number, line) in text.lines().map(str::trim).enumerate() {
        if line.starts_with('[') {
            section = line;
        }
        let dependency = line.split(['=', '.', ' ']).next().unwrap_or_default();
        if section == "[dependencies]" && banned.contains(&dependency) {
            findings.push(error(
                name,
                number + 1,
                format!("must not depend on {dependency}: {why}"),
            ));
        }
    }
    findings
}

/// Tests may look at everything and be as long as they need.
fn is_test(name: &str) -> bool {
    name.ends_with("/tests.rs")
        || name
            .split('/')
            .rev()
            .skip(1)
            .any(|folder| folder == "tests")
}

fn length(name: &str, lines: usize) -> Option<Finding> {
    let message = format!(
        "{lines} lines without tests; {SOFT_LINES} is the aim, {HARD_LINES} the end: split it by purpose"
    );
    match lines {
        0..=SOFT_LINES => None,
        _ if lines <= HARD_LINES => Some(Finding {
            weight: Weight::Warning,
            ..error(name, 0, message)
        }),
        _ => Some(error(name, 0, message)),
    }
}

fn todos(name: &str, comments: &str) -> Vec<Finding> {
    let has_number = |rest: &str| {
        rest.strip_prefix("(#")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let mut findings = Vec::new();
    for (number, line) in comments.lines().enumerate() {
        for word in ["TODO", "FIXME", "XXX"] {
            if line
                .match_indices(word)
                .any(|(at, _)| !line.get(at + word.len()..).is_some_and(has_number))
            {
                findings.push(error(
                    name,
                    number + 1,
                    format!("{word} without an issue: write {word}(#NUMBER)"),
                ));
            }
        }
    }
    findings
}

/// `src/cli/demo/check.rs` is `cli::demo::check`. Entry points have no rules of their own.
fn module(name: &str) -> Option<String> {
    let inside = name.strip_prefix("src/")?.strip_suffix(".rs")?;
    Some(inside.replace('/', "::"))
}

fn imports(name: &str, code: &str) -> Vec<Finding> {
    let Some(module) = module(name) else {
        return Vec::new();
    };
    let own = module.split("::").next().unwrap_or_default();
    let rules: Vec<_> = EDGES
        .iter()
        .filter(|(from, ..)| is_below(&module, from))
        .collect();
    let is_allowed = |path: &Path| {
        let mut allowed = rules.iter().flat_map(|(_, to, _)| to.iter());
        is_below(&path.name, own) || allowed.any(|to| *to == "*" || is_below(&path.name, to))
    };
    let paths = paths::below("crate", code)
        .into_iter()
        .filter(|path| !is_allowed(path));
    paths
        .map(|path| {
            let may: Vec<&str> = rules
                .iter()
                .flat_map(|(_, to, _)| to.iter().copied())
                .collect();
            let may = if may.is_empty() {
                "nothing".to_owned()
            } else {
                may.join(", ")
            };
            let message = format!(
                "{module} must not use crate::{}: of the program it may use {may}",
                path.name
            );
            error(name, path.line, message)
        })
        .collect()
}

/// Whether `path` is `prefix` or lies below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn impurities(name: &str, code: &str) -> Vec<Finding> {
    let matches = |path: &str, banned: &str| match banned.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => is_below(path, banned),
    };
    let mut findings = Vec::new();
    for path in paths::below("std", code) {
        for (banned, why) in IMPURE
            .iter()
            .filter(|(banned, _)| matches(&path.name, banned))
        {
            findings.push(error(
                name,
                path.line,
                format!("std::{} is std::{banned}: {why}", path.name),
            ));
        }
    }
    findings
}

fn calls(name: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for (call, files, why) in CALLS.iter().filter(|(call, ..)| has_word(line, call)) {
            if !files.contains(&name) {
                findings.push(error(name, number + 1, format!("{call}: {why}")));
            }
        }
        if has_word(line, "unsafe") && !UNSAFE.contains(&name) {
            findings.push(error(
                name,
                number + 1,
                format!("unsafe belongs to {} only", UNSAFE.join(" and ")),
            ));
        }
    }
    findings
}

/// Whether `word` stands in `line` as a whole.
fn has_word(line: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line
            .get(..at)
            .is_some_and(|before| before.ends_with(in_word));
        let after = line
            .get(at + word.len()..)
            .is_some_and(|after| after.starts_with(in_word));
        !before && !after
    })
}

fn error(name: &str, line: usize, message: String) -> Finding {
    Finding {
        file: name.to_owned(),
        line,
        weight: Weight::Error,
        message,
    }
}
