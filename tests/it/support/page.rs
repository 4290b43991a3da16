//! The README as text to be tested: its chapters, and their console blocks as sessions of a terminal.

use std::process::Output;

use crate::transcripts::{Step, all_match, steps, words};

/// All of it.
pub(crate) const README: &str = include_str!("../../../README.md");

/// What stands below a heading, up to the next one.
pub(crate) fn chapter(heading: &str) -> String {
    let lines = README.lines().skip_while(|&line| line != heading).skip(1);
    let chapter: Vec<&str> = lines.take_while(|line| !line.starts_with('#')).collect();
    assert!(!chapter.is_empty(), "the README has no {heading:?}");
    chapter.join("\n")
}

/// The commands in the console blocks of a text, each with what it prints.
pub(crate) fn commands(text: &str) -> Vec<Step> {
    let mut inside = false;
    let mut session = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            session += &pattern(line);
            session.push('\n');
        }
    }
    steps(&session)
}

/// A command's words before its comment.
pub(crate) fn said(step: &Step) -> Vec<&str> {
    let before = step.command.split(" #").next().unwrap_or_default();
    before.split_whitespace().collect()
}

/// The flags of a command that serves `./k8s`, if it is one.
pub(crate) fn serves<'a>(said: &[&'a str]) -> Option<Vec<&'a str>> {
    let flags = said.strip_prefix(&["portico", "up"])?;
    Some(flags.strip_suffix(&["./k8s"])?.to_vec())
}

/// A command must have ended well and printed on both outputs what the page says, if it says anything.
pub(crate) fn check(step: &Step, output: &Output) {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<String> = printed
        .lines()
        .map(words)
        .filter(|line| !line.is_empty())
        .collect();
    assert!(
        output.status.success() && (step.wanted.is_empty() || all_match(&step.wanted, &lines)),
        "$ {}\n--- {}\n{printed}\n--- the page says\n{}",
        step.command,
        output.status,
        step.wanted.join("\n")
    );
}

/// A line of the page with `<>` for what is another with each run: the end of a pod's name, the addresses of pods,
/// process ids and times.
fn pattern(line: &str) -> String {
    if line.starts_with('$') {
        return line.to_owned();
    }
    let word = |word: &str| {
        let end = word.rsplit_once('-');
        if word.contains("127.120.") || word.ends_with("ms") {
            "<>".to_owned()
        } else if let Some((start, _)) = end.filter(|(_, end)| varies(end)) {
            format!("{start}-<>")
        } else {
            word.to_owned()
        }
    };
    line.split_whitespace()
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether this is the random end of a pod's name, or a process id.
fn varies(end: &str) -> bool {
    let is_process = end.len() > 2 && end.bytes().all(|byte| byte.is_ascii_digit());
    let of_a_pod = |byte: u8| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte);
    is_process || (end.len() == 5 && end.bytes().all(of_a_pod))
}
