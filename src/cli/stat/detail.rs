//! One Service port in detail: how it is balanced, what it came to, and each endpoint's share beside the expected one.
//! Owns the layout.

use std::fmt::Write as _;

use portico_core::{observe::evenness::Evenness, observe::real, time::Timestamp};

use super::{
    WindowName,
    figures::{NONE, bar, bytes, percent, rate, scale, time},
    table::{pod, state},
};
use crate::{
    admin::stat::{EndpointStat, PortStat, PortWindow, Unit, Verdict},
    cli::{age, table::TabWriter},
    words::counted,
};

/// The port for people.
pub(super) fn text(port: &PortStat, window: WindowName, now: Timestamp) -> String {
    let mut text = String::new();
    head(&mut text, port);
    if let Some(over) = port.window(window.as_str()) {
        judged(&mut text, over, port.unit);
    }
    set(&mut text, port, now);
    totals(&mut text, port);
    text.push('\n');
    text.push_str(&endpoints(port, window, now));
    let because = port.window(window.as_str()).map(|of| &of.uneven_because);
    sentences(
        &mut text,
        "Uneven because",
        because.map_or(&[], Vec::as_slice),
    );
    sentences(&mut text, "Note", &port.notes);
    text
}

fn head(text: &mut String, port: &PortStat) {
    let name = if port.port_name.is_empty() {
        String::new()
    } else {
        format!(" ({})", port.port_name)
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "Service {}/{}, port {}/{}{name}, {}",
        port.namespace, port.service, port.port, port.protocol, port.ip_family
    );
    let affinity = port.affinity_seconds.map_or_else(String::new, |seconds| {
        format!(", session affinity by client address for {seconds} s")
    });
    let _ = writeln!(
        text,
        "Balance:  {} over {} ({}/{} ready){affinity}",
        port.balance,
        counted(port.endpoints.len(), "endpoint"),
        port.ready,
        port.declared
    );
}

fn judged(text: &mut String, over: &PortWindow, unit: Unit) {
    let name = match over.window.as_str() {
        "mark" => "since the mark or the last change",
        "epoch" => "since the last change",
        name => name,
    };
    let verdict = over.verdict.map_or("nothing picked", Verdict::as_str);
    let figures = over.evenness.picks.as_ref().map(evenness);
    let _ = writeln!(
        text,
        "Verdict:  {verdict}{} ({name}, {})",
        figures.map_or_else(String::new, |figures| format!(": {figures}")),
        time(Some(over.set_seconds))
    );
    let _ = writeln!(
        text,
        "Rates:    {} {}s/s, {}/s, {} turned away (over {})",
        rate(over.connections_per_second),
        unit.noun(),
        bytes(over.bytes_per_second),
        over.rejected,
        time(Some(over.seconds))
    );
    units(text, over);
}

/// What is even in one unit need not be so in another: said where it differs.
fn units(text: &mut String, over: &PortWindow) {
    let turns = over.evenness.turns.as_ref();
    if over.evenness.picks.as_ref() != turns {
        let turns = turns.map_or_else(|| "none".to_owned(), evenness);
        let _ = writeln!(text, "In turn:  {turns} (without session affinity)");
    }
    if let Some(bytes) = &over.evenness.bytes {
        let _ = writeln!(text, "Bytes:    cov={:.4}", bytes.cov);
    }
}

fn evenness(found: &Evenness) -> String {
    format!(
        "n={:.0} k={} max-min={:.0} cov={:.4} chi2={:.2} chi2_p={:.3}",
        found.total, found.parts, found.spread, found.cov, found.chi_square, found.p
    )
}

fn set(text: &mut String, port: &PortStat, now: Timestamp) {
    let epoch = &port.epoch;
    let since = age::since(Some(&epoch.since), now);
    let mut changes = Vec::new();
    for (word, who) in [("joined", &epoch.joined), ("left", &epoch.left)] {
        match who.as_slice() {
            [] => {}
            [one] => changes.push(format!("{one} {word}")),
            [first, rest @ ..] => changes.push(format!("{first} and {} more {word}", rest.len())),
        }
    }
    let changes = if changes.is_empty() {
        String::new()
    } else {
        format!(": {}", changes.join(", "))
    };
    let _ = writeln!(text, "Set:      in force for {since}{changes}");
}

fn totals(text: &mut String, port: &PortStat) {
    let counts = &port.counts;
    let _ = writeln!(
        text,
        "Totals:   {} ({} active), {} picks, {} retries, {} rejected, residual {}; {} to endpoints, {} to clients",
        counted(counts.connections, port.unit.noun()),
        counts.active,
        counts.picks,
        counts.retries,
        counts.rejections.total,
        counts.residual,
        bytes(real(counts.bytes_to_endpoints)),
        bytes(real(counts.bytes_to_clients)),
    );
    let reasons = [
        ("no endpoint", counts.rejections.no_endpoint),
        ("traffic policy", counts.rejections.policy),
        ("source range", counts.rejections.source_range),
        ("no PROXY header", counts.rejections.proxy_header),
        ("no place in time", counts.rejections.full),
        ("all attempts failed", counts.rejections.all_failed),
        ("attempts refused", counts.failures.refused),
        ("attempts timed out", counts.failures.timeout),
        ("attempts failed otherwise", counts.failures.other),
    ];
    let some = reasons.iter().filter(|(_, count)| *count > 0);
    let some: Vec<String> = some.map(|(why, count)| format!("{why} {count}")).collect();
    if !some.is_empty() {
        let _ = writeln!(text, "Failures: {}", some.join(", "));
    }
}

fn endpoints(port: &PortStat, window: WindowName, now: Timestamp) -> String {
    let window = window.as_str();
    let deviation = |endpoint: &EndpointStat| endpoint.window(window).and_then(|of| of.deviation);
    let scale = scale(port.endpoints.iter().filter_map(deviation));
    let header = [
        "ENDPOINT".to_owned(),
        "POD".to_owned(),
        "STATE".to_owned(),
        "TOTAL".to_owned(),
        "PICKS".to_owned(),
        "SHARE".to_owned(),
        "EXPECTED".to_owned(),
        format!("DEVIATION(+-{:.0}%)", scale * 100.0),
        "ACTIVE".to_owned(),
        "FAILED".to_owned(),
        "P50".to_owned(),
        "P99".to_owned(),
        "AGE".to_owned(),
    ];
    let mut rows = vec![header];
    rows.extend(port.endpoints.iter().map(|endpoint| {
        let over = endpoint.window(window);
        [
            endpoint.address.to_string(),
            pod(endpoint),
            state(endpoint).to_owned(),
            endpoint.picks.to_string(),
            over.map_or(0, |of| of.picks).to_string(),
            percent(over.and_then(|of| of.share)),
            percent(Some(endpoint.expected)),
            deviation(endpoint).map_or_else(
                || NONE.to_owned(),
                |off| format!("{} {:+.1}%", bar(off, scale), off * 100.0),
            ),
            endpoint.active.to_string(),
            over.map_or(0, |of| of.failures).to_string(),
            time(endpoint.connect.p50),
            time(endpoint.connect.p99),
            age::since(Some(&endpoint.since), now),
        ]
    }));
    TabWriter::default().lines(&rows)
}

fn sentences(text: &mut String, title: &str, sentences: &[String]) {
    if sentences.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for sentence in sentences {
        let _ = writeln!(text, "  {sentence}");
    }
}
