//! What the readers of the tutorials type, and what they see: every `session.txt` under `tests/fixtures/transcripts`
//! is played in a shell whose folder is the one that the program serves.
//!
//! A line `$ COMMAND` is run; the lines that follow are what it prints on both outputs. Runs of spaces count as one
//! (columns are checked elsewhere); `<>` stands for one word, `<...>` for any text, and a line `...` for any lines.
//! A line `# TEXT` is a comment.

use std::{fmt::Write as _, path::Path, process::Command};

use crate::support::{namespace::in_namespace, program::Program};

/// One command with what it should print.
pub(crate) struct Step {
    line: usize,
    pub(crate) command: String,
    pub(crate) wanted: Vec<String>,
}

/// The commands of a session.
pub(crate) fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                line: number + 1,
                command: command.to_owned(),
                wanted: Vec::new(),
            });
        } else if !line.starts_with("# ") && !line.trim().is_empty() {
            let step = steps.last_mut().expect("a command comes first");
            step.wanted.push(words(line));
        }
    }
    steps
}

/// A line with single spaces.
pub(crate) fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether `line` is as `pattern` says.
fn matches(pattern: &str, line: &str) -> bool {
    let Some(start) = pattern.find('<') else {
        return pattern == line;
    };
    let (before, rest) = pattern.split_at(start);
    let Some(line) = line.strip_prefix(before) else {
        return false;
    };
    if let Some(rest) = rest.strip_prefix("<...>") {
        return (0..=line.len())
            .any(|end| line.is_char_boundary(end) && matches(rest, &line[end..]));
    }
    if let Some(rest) = rest.strip_prefix("<>") {
        let word = line.find(' ').unwrap_or(line.len());
        return (1..=word).any(|end| line.is_char_boundary(end) && matches(rest, &line[end..]));
    }
    let (Some(rest), Some(line)) = (rest.strip_prefix('<'), line.strip_prefix('<')) else {
        return false;
    };
    matches(rest, line)
}

/// Whether all of `lines` are as `patterns` say.
pub(crate) fn all_match(patterns: &[String], lines: &[String]) -> bool {
    match (patterns, lines) {
        ([], lines) => lines.is_empty(),
        ([pattern, rest @ ..], lines) if pattern == "..." => {
            (0..=lines.len()).any(|skipped| all_match(rest, &lines[skipped..]))
        }
        ([pattern, rest @ ..], [line, more @ ..]) => {
            matches(pattern, line) && all_match(rest, more)
        }
        (_, []) => false,
    }
}

fn play(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/transcripts")
        .join(name);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    files.sort();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    // The name of the machine could be the first or the last of the nodes.
    let program = Program::up(&["--simulate", "--node-name", "workshop"], &files);
    let text = std::fs::read_to_string(folder.join("session.txt")).unwrap();
    let mut failures = String::new();
    for step in steps(&text) {
        let output = program
            .shell(&format!("exec 2>&1\n{}", step.command))
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<String> = printed
            .lines()
            .map(words)
            .filter(|line| !line.is_empty())
            .collect();
        if !all_match(&step.wanted, &lines) {
            let _ = writeln!(
                failures,
                "{name}/session.txt:{}: $ {}\n--- wanted\n{}\n--- printed\n{printed}",
                step.line,
                step.command,
                step.wanted.join("\n"),
            );
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// Whether a command is installed, which some lines need.
fn has(command: &str) -> bool {
    Command::new(command).arg("--version").output().is_ok()
}

macro_rules! transcript {
    ($test:ident, $name:literal) => {
        #[test]
        fn $test() {
            if !has("curl") {
                eprintln!("skipped: curl is not installed");
                return;
            }
            in_namespace!(Root);
            play($name);
        }
    };
}

transcript!(deployment_and_service_as_typed, "deployment-service");
transcript!(pods_probes_and_rollouts_as_typed, "rollouts");
transcript!(services_by_label_as_typed, "two-labels");
transcript!(workshop_as_typed, "workshop");

#[test]
fn matches_words_and_any_text() {
    assert!(matches(
        "pod/web-<>-<> 1/1 Running 0 <>",
        "pod/web-86b68-8v4dg 1/1 Running 0 5s"
    ));
    assert!(!matches("pod/web-<>-<> 1/1", "pod/web-86b68 1/1"));
    assert!(matches(
        "Endpoints: <...>:80",
        "Endpoints: 1.2.3.4:80,1.2.3.5:80"
    ));
    assert!(!matches("a", "ab"));
    assert!(matches("Labels: <none>", "Labels: <none>"));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(all_match(&lines("a\n...\nd"), &lines("a\nb\nc\nd")));
    assert!(!all_match(&lines("a\n...\nd"), &lines("a\nb")));
}
