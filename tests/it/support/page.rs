//! The README as text to be tested: its chapters, and their console blocks as sessions of a terminal.

use std::{collections::BTreeSet, path::Path, process::Output, sync::LazyLock};

use crate::transcripts::{Step, all_match, steps, words};

/// All of it, as it is now: nothing is built again for a word.
static README: LazyLock<String> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(file).unwrap()
});

/// Its first page.
pub(crate) fn first_page() -> &'static str {
    let (page, _) = README.split_once("\n## Beyond the first page\n").unwrap();
    page
}

/// What a text says, sentence by sentence; a row of a table is one. Code and headings are none.
pub(crate) fn sentences(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut paragraphs = vec![String::new()];
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        if line.is_empty() || line.starts_with(['#', '|', '-']) || line.starts_with("```") {
            paragraphs.push(String::new());
        }
        let is_prose = !is_code
            && !["```", "#", "    "]
                .iter()
                .any(|start| line.starts_with(start));
        if let Some(paragraph) = paragraphs.last_mut().filter(|_| is_prose) {
            *paragraph += line;
            paragraph.push(' ');
        }
    }
    paragraphs
        .iter()
        .flat_map(|paragraph| split(&words(paragraph)))
        .collect()
}

/// At full stops with a space behind them.
fn split(paragraph: &str) -> Vec<String> {
    let mut sentences: Vec<String> = paragraph.split(". ").map(str::to_owned).collect();
    let last = sentences.len() - 1;
    sentences[..last]
        .iter_mut()
        .for_each(|sentence| sentence.push('.'));
    sentences.retain(|sentence| !sentence.is_empty() && !sentence.starts_with("|---"));
    sentences
}

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

/// Whether the lines of a program are what the page says, if it says anything. Lines that differ only in what is another
/// with each run, as of pods in turn, differ really.
pub(crate) fn is_said(step: &Step, printed: &[String]) -> bool {
    let lines: Vec<String> = printed
        .iter()
        .map(|line| words(line))
        .filter(|line| !line.is_empty())
        .collect();
    let are_in_turn = step.wanted.windows(2).all(|pair| pair[0] == pair[1]);
    let distinct = lines.iter().collect::<BTreeSet<_>>().len();
    step.wanted.is_empty()
        || all_match(&step.wanted, &lines) && (!are_in_turn || distinct == lines.len())
}

/// The flags of a command that serves `./k8s`, if it is one.
pub(crate) fn serves<'a>(said: &[&'a str]) -> Option<Vec<&'a str>> {
    let flags = said.strip_prefix(&["portico", "up"])?;
    Some(flags.strip_suffix(&["./k8s"])?.to_vec())
}

/// A command must have ended well (or found mistakes, where the page says so) and printed on both outputs what the page
/// says, if it says anything.
pub(crate) fn check(step: &Step, output: &Output) {
    let finds_mistakes = step
        .wanted
        .last()
        .is_some_and(|line| line.starts_with("invalid: "));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<String> = printed.lines().map(str::to_owned).collect();
    assert!(
        output.status.success() != finds_mistakes && is_said(step, &lines),
        "$ {}\n--- {}\n{printed}\n--- the page says\n{}",
        step.command,
        output.status,
        step.wanted.join("\n")
    );
}

/// A line of the page with `<>` for what is another with each run: the end of a pod's name, the addresses of pods,
/// process ids, generations, times and rates.
fn pattern(line: &str) -> String {
    if line.starts_with('$') {
        return line.to_owned();
    }
    let word = |word: &str| {
        let end = word.rsplit_once('-');
        if word.contains("127.120.")
            || word.starts_with("n=")
            || word.ends_with("ms")
            || word.ends_with("/s")
        {
            "<>".to_owned()
        } else if let Some((start, _)) = end.filter(|(_, end)| varies(end)) {
            format!("{start}-<>")
        } else {
            word.to_owned()
        }
    };
    let line: Vec<String> = line.split_whitespace().map(word).collect();
    let line = line.join(" ");
    match line.split_once(", generation ") {
        Some((before, _)) => format!("{before}, generation <>"),
        None => line,
    }
}

/// Whether this is the random end of a pod's name, or a process id.
fn varies(end: &str) -> bool {
    let is_process = end.len() > 2 && end.bytes().all(|byte| byte.is_ascii_digit());
    let of_a_pod = |byte: u8| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte);
    is_process || (end.len() == 5 && end.bytes().all(of_a_pod))
}
