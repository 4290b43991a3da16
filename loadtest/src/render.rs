//! `render RESULTS PAGE`: the page of all results. Owns its words and tables; judges nothing.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::{
    control::Control,
    figure::Figure,
    provenance::{Machine, Provenance},
    result::{RunResult, SCHEMA, Verdict},
    scenario::Contestant,
    stats::Estimate,
};

/// What stands below this line is written by hand and stays.
const BY_HAND: &str = "<!-- Below this line the page is written by hand; `render` keeps it. -->";

const HEAD: &str = "\
# Performance

What portico costs, beside programs that do the same, measured side by side on one machine. Made by `loadtest` from
`loadtest/results`; nothing above the last line of dashes is written by hand.

How it is measured: the same backends, the same clients and the same number of threads for everybody, all on loopback. Each
round measures everyone once, each freshly started and warmed up; the order turns around from round to round. CPU time is
that of the proxy's processes alone (`/proc/PID/stat`), user and system. A figure is the median of the rounds; a ratio is the
median of the ratios within the rounds, in brackets the interval in which 95 of 100 medians of rounds drawn anew lie. A client
straight at a backend runs in short slices before and after each: a round with a slice more than 10 per cent off the median of
all slices is thrown away and repeated, whatever it measured, and the rounds that count lie within 10 per cent. A run that does
not find enough of them in three times the rounds is marked as refused: the machine was not quiet. Client, proxy and backends share the same cores, so rates say little and ratios
and CPU times more.
";

/// Arguments of the command.
#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// Folder with results
    results: PathBuf,
    /// The page, such as docs/performance.md
    page: PathBuf,
}

/// Renders the page.
///
/// # Errors
/// A result cannot be read, or the page not be written.
pub(crate) fn run(args: &RenderArgs) -> anyhow::Result<usize> {
    to(&args.results, &args.page)
}

/// Makes `file` of the results in a folder; says how many there are.
///
/// # Errors
/// A result cannot be read, or the page not be written.
pub(crate) fn to(results: &Path, file: &Path) -> anyhow::Result<usize> {
    let results = read(results)?;
    let before = std::fs::read_to_string(file).unwrap_or_default();
    let by_hand = before.split_once(BY_HAND).map_or("\n", |(_, rest)| rest);
    let text = format!("{}\n---\n{BY_HAND}{by_hand}", page(&results));
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(results.len())
}

fn read(folder: &Path) -> anyhow::Result<Vec<RunResult>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|file| file.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    let mut results = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let result: RunResult = serde_json::from_str(&text)
            .with_context(|| format!("{} is no result", file.display()))?;
        ensure!(
            result.schema == SCHEMA,
            "{} has schema {}, this program reads {SCHEMA}",
            file.display(),
            result.schema
        );
        results.push(result);
    }
    Ok(results)
}

/// One result for a terminal: its promises and its section of the page.
pub(crate) fn text(result: &RunResult) -> String {
    let mut text = String::new();
    section(&mut text, result);
    for verdict in &result.summary.bars {
        let measured = verdict.measured.map_or("not measured".into(), ratio);
        let _ = writeln!(
            text,
            "{}: {}, {measured}",
            word(result, verdict).replace("**", ""),
            verdict.bar
        );
    }
    text
}

/// The page without what is written by hand.
fn page(results: &[RunResult]) -> String {
    let mut text = HEAD.to_owned();
    overview(&mut text, results);
    for result in results {
        section(&mut text, result);
    }
    machines(&mut text, results);
    text
}

/// All promises at a glance.
fn overview(text: &mut String, results: &[RunResult]) {
    let rows: Vec<String> = results
        .iter()
        .flat_map(|result| {
            let refused = result.summary.refused.as_ref();
            let note = refused.map_or("", |_| " (refused)");
            let bars = result.summary.bars.iter();
            bars.map(move |verdict| {
                format!(
                    "| {}{note} | {} | {} | {} |",
                    result.scenario.name,
                    verdict.bar,
                    verdict.measured.map_or("not measured".into(), ratio),
                    word(result, verdict)
                )
            })
        })
        .collect();
    if !rows.is_empty() {
        let _ = writeln!(
            text,
            "\n## Promises\n\n| scenario | promise | measured | |\n|---|---|---|---|\n{}",
            rows.join("\n")
        );
    }
}

/// What a promise came to in a run.
const fn word(result: &RunResult, verdict: &Verdict) -> &'static str {
    if result.summary.refused.is_some() {
        return "does not count";
    }
    if verdict.bar.includes.is_some() {
        return match verdict.is_met {
            None => "?",
            Some(true) => "holds",
            Some(false) => "**does not hold**",
        };
    }
    match (verdict.is_met, verdict.is_close) {
        (None, _) => "?",
        (Some(true), false) => "kept",
        (Some(true), true) => "kept, but within the interval",
        (Some(false), false) => "**missed**",
        (Some(false), true) => "**missed**, but within the interval",
    }
}

fn section(text: &mut String, result: &RunResult) {
    let Provenance {
        command,
        began,
        rounds,
        backends,
        generator,
        ..
    } = &result.provenance;
    let scenario = &result.scenario;
    let _ = writeln!(text, "\n## {}\n\n{}\n", scenario.name, scenario.about);
    if let Some(refused) = &result.summary.refused {
        let _ = writeln!(text, "**Refused**: {refused}.\n");
    }
    medians(text, result);
    ratios(text, result);
    for missing in &result.missing {
        let _ = writeln!(text, "Left out: {missing}.\n");
    }
    let control = result.summary.control.as_ref();
    let moved = control.and_then(moved);
    let _ = writeln!(
        text,
        "{rounds} rounds of {} s on {began}, backends: {backends}; {} threads a proxy, load by {generator}{}. Again: `{command}`",
        scenario.seconds,
        scenario.threads,
        moved.unwrap_or_default()
    );
}

/// How steady the machine was, and what that cost.
fn moved(control: &Control) -> Option<String> {
    let thrown = match control.thrown.len() {
        0 => "no round".to_owned(),
        1 => "1 round".to_owned(),
        many => format!("{many} rounds"),
    };
    let moved = control.moved? * 100.0;
    Some(format!(
        "; the direct client moved by {moved:.1} per cent, {thrown} thrown away"
    ))
}

/// Everybody's figures, one line each.
fn medians(text: &mut String, result: &RunResult) {
    let figures = &result.scenario.figures;
    let titles: Vec<&str> = figures.iter().map(|figure| figure.title()).collect();
    let _ = writeln!(text, "| | {} |", titles.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(figures.len()));
    for (who, medians) in &result.summary.medians {
        let cells: Vec<String> = figures
            .iter()
            .map(|figure| {
                let median = medians.get(figure).map(|estimate| estimate.median);
                median.map_or_else(String::new, digits)
            })
            .collect();
        let _ = writeln!(text, "| {who} | {} |", cells.join(" | "));
    }
    text.push('\n');
}

/// portico by the others, one line each.
fn ratios(text: &mut String, result: &RunResult) {
    let ratios = &result.summary.ratios;
    let others: BTreeSet<Contestant> = ratios.iter().map(|ratio| ratio.against).collect();
    let compared: BTreeSet<Figure> = ratios.iter().map(|ratio| ratio.figure).collect();
    let mut figures = result.scenario.figures.clone();
    figures.retain(|figure| compared.contains(figure));
    if figures.is_empty() {
        return;
    }
    let names: Vec<String> = figures.iter().map(|figure| figure.name()).collect();
    let _ = writeln!(text, "| portico by | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(figures.len()));
    for other in others {
        let cells: Vec<String> = figures
            .iter()
            .map(|figure| {
                let found = ratios
                    .iter()
                    .find(|ratio| ratio.against == other && ratio.figure == *figure);
                found.map_or_else(String::new, |found| ratio(found.estimate))
            })
            .collect();
        let _ = writeln!(text, "| {other} | {} |", cells.join(" | "));
    }
    text.push('\n');
}

/// The machines of the results, each once, with the programs.
fn machines(text: &mut String, results: &[RunResult]) {
    let mut facts = BTreeSet::new();
    let mut programs = BTreeSet::new();
    for result in results {
        facts.insert(machine(&result.provenance.machine));
        programs.extend(result.provenance.versions.values().cloned());
    }
    if facts.is_empty() {
        return;
    }
    text.push_str("\n## Machine and programs\n\n");
    for fact in facts.into_iter().chain(programs) {
        let _ = writeln!(text, "- {fact}");
    }
    text.push_str(
        "\nTo repeat it: `cargo build --release`, the commands above on a quiet machine, then\n\
         `cargo run --release -p loadtest -- render loadtest/results docs/performance.md`.\n",
    );
}

/// A machine in a line.
pub(crate) fn machine(machine: &Machine) -> String {
    let descriptors = machine
        .descriptors
        .map_or("no limit of".into(), |limit| limit.to_string());
    let governor = machine
        .governor
        .as_ref()
        .map_or(String::new(), |governor| format!(", governor {governor}"));
    format!(
        "{} cores of {}{governor}, {}; {descriptors} descriptors, ports {}, somaxconn {}",
        machine.cores, machine.cpu, machine.kernel, machine.port_range, machine.somaxconn
    )
}

fn ratio(estimate: Estimate) -> String {
    let Estimate { median, low, high } = estimate;
    format!("{} ({} to {})", digits(median), digits(low), digits(high))
}

/// Three digits that count.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Summary, tests::example};

    #[test]
    fn page_of_a_run_is_as_the_golden_one() {
        let page = page(&[example([100.0, 104.0, 109.0])]);
        let golden = include_str!("render/golden.md");
        assert_eq!(page.strip_prefix(HEAD).unwrap(), golden, "\n{page}");
    }

    #[test]
    fn page_of_a_bar_that_includes_a_value_says_whether_it_holds() {
        let mut result = example([100.0; 3]);
        // Rounds of 28, 29 and 30 by 30.
        for (value, word) in [(0.95, "| holds |"), (1.1, "| **does not hold** |")] {
            let bar = &mut result.scenario.bars[0];
            (bar.at_most, bar.includes) = (None, Some(value));
            result.summary = Summary::new(&result.scenario, &result.samples);
            let page = page(std::slice::from_ref(&result));
            assert!(page.contains(word), "{page}");
        }
    }

    #[test]
    fn page_of_a_refused_run_says_so_in_both_places() {
        let page = page(&[example([100.0, 104.0, 111.0])]);
        assert!(page.contains("| example (refused) |"), "{page}");
        assert!(page.contains("| does not count |"), "{page}");
        assert!(page.contains("1 round thrown away"), "{page}");
        assert!(
            page.contains("**Refused**: requests-per-second of the direct"),
            "{page}"
        );
    }

    #[test]
    fn text_of_a_refused_run_says_of_no_promise_that_it_is_kept() {
        let kept = text(&example([100.0, 104.0, 109.0]));
        assert!(kept.contains("\nkept: "), "{kept}");
        let refused = text(&example([100.0, 104.0, 111.0]));
        assert!(
            refused.contains("\ndoes not count: ") && !refused.contains("kept"),
            "{refused}"
        );
    }

    #[test]
    fn render_keeps_what_is_written_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let results = folder.path().join("results");
        std::fs::create_dir(&results).unwrap();
        let text = serde_json::to_string(&example([100.0; 3])).unwrap();
        std::fs::write(results.join("example.json"), text).unwrap();
        let args = RenderArgs {
            results,
            page: folder.path().join("page.md"),
        };
        assert_eq!(run(&args).unwrap(), 1);
        let first = std::fs::read_to_string(&args.page).unwrap();
        std::fs::write(&args.page, format!("{first}\nMine.\n")).unwrap();
        run(&args).unwrap();
        let second = std::fs::read_to_string(&args.page).unwrap();
        assert_eq!(second, format!("{first}\nMine.\n"));
    }
}
