//! A report for people. Owns the layout; the first line is for `grep`.

use std::fmt::Write as _;

use super::report::{Order, Percentile, Report, Unit};

/// The report as text.
pub fn text(report: &Report) -> String {
    let mut text = verdict_line(report) + "\n";
    for reason in &report.verdict.reasons {
        let _ = writeln!(text, "  {reason}");
    }
    run(&mut text, report);
    let units = report.units.iter().enumerate();
    let judged = report.units.first().and_then(|unit| unit.evenness);
    let judged = judged.map_or(0.0, |evenness| evenness.cov);
    units.for_each(|(place, unit)| shares(&mut text, unit, judged, place == 0));
    epochs(&mut text, report);
    order(&mut text, &report.order);
    latency(&mut text, report);
    errors(&mut text, report);
    counts(&mut text, report);
    overhead(&mut text, report);
    generator(&mut text, report);
    for gate in &report.gates {
        let word = if gate.fails { "FAILS" } else { "holds" };
        let value = gate
            .value
            .map_or_else(|| "not measured".to_owned(), |value| format!("{value:.4}"));
        let _ = writeln!(text, "fail-if {}: {word} ({value})", gate.condition);
    }
    text
}

/// The verdict with its figures in one line.
pub(super) fn verdict_line(report: &Report) -> String {
    let verdict = &report.verdict;
    let mut line = format!("{} {}", verdict.word.as_str(), verdict.pattern);
    let _ = write!(line, "  n={}", report.run.requests);
    if let Some(evenness) = report.units.first().and_then(|unit| unit.evenness) {
        let _ = write!(
            line,
            " k={} max-min={:.0} cov={:.4} chi2_p={:.3}",
            evenness.parts, evenness.spread, evenness.cov, evenness.p
        );
    }
    if let Some(p99) = find(&report.latency.corrected, 99.0) {
        let _ = write!(line, " | p99 {} @ {:.0}/s", millis(p99), report.run.rate);
        line += if report.run.misses_its_rate() {
            " (not met)"
        } else {
            " (met)"
        };
    }
    let _ = write!(line, " | {} errors", report.run.failed);
    line
}

fn run(text: &mut String, report: &Report) {
    let run = &report.run;
    let kind = if run.keep_alive {
        "kept connections"
    } else {
        "a connection a request"
    };
    let _ = writeln!(
        text,
        "\n{}{}{}, {kind}, {} clients: {} requests in {:.2} s, {:.0}/s answered of {:.0}/s asked, {} connections",
        run.service
            .as_ref()
            .map_or_else(String::new, |service| format!("{service} at ")),
        run.target,
        if run.target.contains(&run.address) {
            String::new()
        } else {
            format!(" ({})", run.address)
        },
        run.clients,
        run.requests,
        run.seconds,
        run.achieved_rate,
        run.rate,
        run.connections
    );
    if run.unsent > 0 {
        let _ = writeln!(
            text,
            "{} more had fallen due and found no free client (--clients)",
            run.unsent
        );
    }
    if let Some(balance) = &run.balance {
        let affinity = run.affinity_seconds;
        let affinity = affinity.map_or_else(String::new, |seconds| {
            format!(", affinity of clients for {seconds} s")
        });
        let _ = writeln!(text, "declared: {balance}{affinity}");
    }
}

/// Widest column of names.
fn width<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(str::len).max().unwrap_or(0).max(12)
}

fn shares(text: &mut String, unit: &Unit, judged: f64, is_judged: bool) {
    let Some(evenness) = &unit.evenness else {
        return;
    };
    let wide = width(unit.shares.iter().map(|share| &*share.name));
    let (before, mark) = if is_judged {
        ("\n", " (judged)")
    } else {
        ("", "")
    };
    let _ = writeln!(
        text,
        "{before}{}{mark}: max-min={:.0} cov={:.4} jain={:.5} chi2={:.2} df={} p={:.3} max/mean={:.3} min/mean={:.3}",
        unit.unit,
        evenness.spread,
        evenness.cov,
        evenness.jain,
        evenness.chi_square,
        evenness.degrees,
        evenness.p,
        evenness.most,
        evenness.least
    );
    if !is_judged && (evenness.cov - judged).abs() < 0.001 {
        // The same shares once more.
        return;
    }
    let _ = writeln!(
        text,
        "  {:wide$} {:>10} {:>12} {:>8} {:>7}",
        "ENDPOINT", "OBSERVED", "EXPECTED", "DELTA", "Z"
    );
    for share in &unit.shares {
        let delta = if share.expected > 0.0 {
            format!(
                "{:+.2}%",
                (super::pace::float(share.observed) / share.expected - 1.0) * 100.0
            )
        } else {
            "-".to_owned()
        };
        let _ = writeln!(
            text,
            "  {:wide$} {:>10} {:>12.1} {delta:>8} {:>+7.2}",
            share.name, share.observed, share.expected, share.z
        );
    }
}

fn epochs(text: &mut String, report: &Report) {
    if report.epochs.len() < 2 {
        return;
    }
    let _ = writeln!(
        text,
        "\nepochs (the endpoints changed {} times):",
        report.epochs.len() - 1
    );
    for epoch in &report.epochs {
        let _ = write!(
            text,
            "  {:7.2} s to {:7.2} s: {} endpoints",
            epoch.from,
            epoch.to,
            epoch.members.len()
        );
        let _ = match epoch.strangers {
            0 => writeln!(text),
            strangers => writeln!(text, ", {strangers} answers by others"),
        };
        for unit in report.units.iter().map(|unit| &unit.unit) {
            let _ = match epoch.units.get(unit).copied().flatten() {
                Some(evenness) => writeln!(
                    text,
                    "    {unit:12} n={:.0} max-min={:.0} cov={:.4} p={:.3}",
                    evenness.total, evenness.spread, evenness.cov, evenness.p
                ),
                None => writeln!(text, "    {unit:12} none"),
            };
        }
        if let Some(gap) = epoch.order.usual_gap {
            let _ = writeln!(
                text,
                "    order        twice running {:.2} %, distance {gap} in {:.1} %",
                epoch.order.repeat_rate * 100.0,
                epoch.order.usual_gap_share * 100.0
            );
        }
    }
}

fn order(text: &mut String, order: &Order) {
    let _ = writeln!(
        text,
        "\norder: the same endpoint twice running {:.2} % of the time (chance {:.2} %), for one client {:.2} %",
        order.repeat_rate * 100.0,
        order.repeat_rate_by_chance * 100.0,
        order.client_repeat_rate * 100.0
    );
    let total: u64 = order.gaps.values().sum();
    let mut gaps: Vec<(&u64, &u64)> = order.gaps.iter().collect();
    gaps.sort_by_key(|(distance, count)| (std::cmp::Reverse(**count), **distance));
    let most: Vec<String> = gaps
        .iter()
        .take(3)
        .map(|(distance, count)| {
            let share = super::pace::float(**count) / super::pace::float(total.max(1));
            format!("{distance} ({:.1} %)", share * 100.0)
        })
        .collect();
    if !most.is_empty() {
        let _ = writeln!(
            text,
            "  distance between two answers of one endpoint: {}",
            most.join(", ")
        );
    }
    if let Some(cov) = order.worst_second_cov {
        let _ = writeln!(text, "  worst second: cov={cov:.4}");
    }
}

fn latency(text: &mut String, report: &Report) {
    let latency = &report.latency;
    if latency.corrected.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "\nlatency of {} answers  {:>10} {:>12} {:>10} {:>10} {:>10}",
        latency.count, "CORRECTED", "UNCORRECTED", "CONNECT", "FIRST BYTE", "ABOVE"
    );
    for (place, entry) in latency.corrected.iter().enumerate() {
        let at = |list| Percentile::shown_at(list, place);
        let name = entry.title();
        let wide = format!("latency of {} answers", latency.count).len();
        let _ = writeln!(
            text,
            "{name:>wide$}  {:>10} {:>12} {:>10} {:>10} {:>10}",
            at(&latency.corrected),
            at(&latency.uncorrected),
            at(&latency.connect),
            at(&latency.first_byte),
            entry.above
        );
    }
}

fn errors(text: &mut String, report: &Report) {
    if report.errors.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nerrors:");
    for error in &report.errors {
        let _ = writeln!(text, "  {:>8}  {}", error.count, error.error);
    }
}

fn counts(text: &mut String, report: &Report) {
    let counts = &report.counts;
    let known = |row: &super::report::CountRow| row.program.is_some() || row.endpoint.is_some();
    if !counts.rows.iter().any(known) {
        return;
    }
    let wide = width(counts.rows.iter().map(|row| &*row.name));
    let _ = writeln!(
        text,
        "\ncounts: {:pad$} {:>12} {:>12} {:>12} {:>12}",
        "",
        "CONNECTIONS",
        "PROGRAM",
        "REQUESTS",
        "ENDPOINT",
        pad = wide.saturating_sub(6)
    );
    let shown =
        |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    for row in &counts.rows {
        let _ = writeln!(
            text,
            "  {:wide$} {:>12} {:>12} {:>12} {:>12}",
            row.name,
            row.client_connections,
            shown(row.program),
            row.client_requests,
            shown(row.endpoint)
        );
    }
    if let (Some(retries), Some(rejected)) = (counts.retries, counts.rejected) {
        let accepted = shown(counts.accepted);
        let _ = writeln!(
            text,
            "  {} connections here, {accepted} accepted by the program, retries {retries}, turned away {rejected}",
            counts.client_connections
        );
    }
    if counts.mismatches.is_empty() {
        let _ = writeln!(text, "  all counts agree");
    }
    for mismatch in &counts.mismatches {
        let _ = writeln!(text, "  MISMATCH {mismatch}");
    }
}

fn overhead(text: &mut String, report: &Report) {
    let Some(overhead) = &report.overhead else {
        return;
    };
    let _ = writeln!(
        text,
        "\noverhead over the endpoints themselves, {} pairs of {} requests: p50 {} [{} .. {}] ({} directly, {} through), \
         p99 {} [{} .. {}]",
        overhead.pairs,
        overhead.block_requests,
        millis(overhead.p50.median),
        millis(overhead.p50.low),
        millis(overhead.p50.high),
        millis(overhead.direct_p50),
        millis(overhead.through_p50),
        millis(overhead.p99.median),
        millis(overhead.p99.low),
        millis(overhead.p99.high),
    );
    if overhead.failed > 0 {
        let _ = writeln!(text, "  {} of its requests failed", overhead.failed);
    }
}

fn generator(text: &mut String, report: &Report) {
    let generator = &report.generator;
    let _ = writeln!(
        text,
        "\ngenerator: late by {} (p50), {} (p99), {} at most; {:.1} % of requests waited for a free client; {:.0} % of a core",
        millis(generator.lag_p50),
        millis(generator.lag_p99),
        millis(generator.lag_most),
        generator.queued * 100.0,
        generator.cpu * 100.0
    );
    let from = &report.provenance;
    let _ = writeln!(
        text,
        "{}, {} cores ({}), {} descriptors, portico {}{}",
        from.kernel,
        from.cores,
        from.cpu,
        from.open_files,
        from.version,
        from.manifests
            .as_ref()
            .map_or_else(String::new, |hash| format!(", manifests {hash}"))
    );
}

pub(super) fn find(list: &[Percentile], percentile: f64) -> Option<f64> {
    let entry = list
        .iter()
        .find(|entry| (entry.percentile - percentile).abs() < 1e-9);
    entry.map(|entry| entry.millis)
}

/// A time of so many milliseconds, to three digits or so.
pub(super) fn millis(millis: f64) -> String {
    if millis.abs() >= 1000.0 {
        format!("{:.2}s", millis / 1000.0)
    } else if millis.abs() >= 1.0 {
        format!("{millis:.2}ms")
    } else {
        format!("{:.0}us", millis * 1000.0)
    }
}
