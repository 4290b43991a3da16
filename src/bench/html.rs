//! A report as one page that needs nothing else: figures, and plots as SVG. Owns the page.

mod plot;

use std::fmt::Write as _;

use super::{
    report::{Percentile, Report, Unit},
    text::{find, millis, text, verdict_line},
};

/// The page.
pub fn html(report: &Report) -> String {
    let mut page = String::with_capacity(64 * 1024);
    let colour = match report.verdict.word.exit_code() {
        0 => "good",
        3 => "doubt",
        _ => "bad",
    };
    let _ = writeln!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}: {}</title>\n<style>{STYLE}</style>\n\
         <main>\n<p class=\"verdict {colour}\"><b>{}</b> <span>{}</span></p>\n<h1>{}</h1>\n<p>{}</p>",
        escape(&title(report)),
        report.verdict.word.as_str(),
        report.verdict.word.as_str(),
        escape(&report.verdict.pattern),
        escape(&title(report)),
        escape(&report.verdict.reasons.join("; ")),
    );
    tiles(&mut page, report);
    for unit in &report.units {
        distribution(&mut page, unit);
    }
    section(
        &mut page,
        "Latency",
        "from the time at which a request was to be sent; each further nine of the requests takes the same room",
    );
    page += &plot::percentiles(&[
        ("corrected", &report.latency.corrected),
        ("uncorrected", &report.latency.uncorrected),
    ]);
    latency_table(&mut page, report);
    section(
        &mut page,
        "Second by second",
        "answers of each endpoint, stacked; failures in red on top",
    );
    page += &plot::timeline(&report.timeline);
    section(
        &mut page,
        "Order",
        "answers between two of one endpoint: with turns all are as far apart as there are endpoints",
    );
    page += &plot::gaps(&report.order.gaps);
    section(&mut page, "All of it as text", "what the terminal showed");
    let _ = writeln!(page, "<pre>{}</pre>", escape(&text(report)));
    section(&mut page, "Where it comes from", "");
    provenance(&mut page, report);
    page += "</main>\n</html>\n";
    page
}

fn title(report: &Report) -> String {
    report
        .run
        .service
        .clone()
        .unwrap_or_else(|| report.run.target.clone())
}

fn section(page: &mut String, title: &str, note: &str) {
    let _ = writeln!(page, "<h2>{title}</h2>\n<p class=\"note\">{note}</p>");
}

fn tiles(page: &mut String, report: &Report) {
    let p =
        |percentile| find(&report.latency.corrected, percentile).map_or_else(|| "-".into(), millis);
    let even = report.units.first().and_then(|unit| unit.evenness);
    let mut tiles: Vec<(&str, String)> = vec![
        ("requests", report.run.requests.to_string()),
        (
            "answered a second",
            format!("{:.0}", report.run.achieved_rate),
        ),
        ("failed", report.run.failed.to_string()),
        ("p50", p(50.0)),
        ("p99", p(99.0)),
    ];
    if let Some(even) = even {
        tiles.push(("most less least", format!("{:.0}", even.spread)));
        tiles.push(("cov", format!("{:.4}", even.cov)));
    }
    if let Some(overhead) = &report.overhead {
        tiles.push(("added at p50", millis(overhead.p50.median)));
    }
    *page += "<dl class=\"tiles\">\n";
    for (name, value) in tiles {
        let _ = writeln!(
            page,
            "<div><dt>{name}</dt><dd>{}</dd></div>",
            escape(&value)
        );
    }
    *page += "</dl>\n";
}

fn distribution(page: &mut String, unit: &Unit) {
    let Some(evenness) = &unit.evenness else {
        return;
    };
    let note = format!(
        "most less least {:.0}, cov {:.4}, Jain {:.5}, chi-square {:.2} of {} degrees, p {:.3}; the line is what was due",
        evenness.spread,
        evenness.cov,
        evenness.jain,
        evenness.chi_square,
        evenness.degrees,
        evenness.p
    );
    section(page, &format!("Shares of {}", unit.unit), &note);
    *page += &plot::shares(&unit.shares);
}

fn latency_table(page: &mut String, report: &Report) {
    let latency = &report.latency;
    *page += "<table><tr><th></th><th>corrected</th><th>uncorrected</th><th>connect</th><th>first byte</th><th>samples above</th></tr>\n";
    for (place, entry) in latency.corrected.iter().enumerate() {
        let at = |list: &[Percentile]| {
            list.get(place)
                .map_or_else(|| "-".into(), |entry| millis(entry.millis))
        };
        let name = if entry.percentile >= 100.0 {
            "most".to_owned()
        } else {
            format!("p{}", entry.percentile)
        };
        let _ = writeln!(
            page,
            "<tr><th>{name}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            at(&latency.corrected),
            at(&latency.uncorrected),
            at(&latency.connect),
            at(&latency.first_byte),
            entry.above
        );
    }
    *page +=
        "</table>\n<table><tr><th>endpoint</th><th>answers</th><th>p50</th><th>p99</th></tr>\n";
    for row in &report.endpoints {
        let _ = writeln!(
            page,
            "<tr><th>{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&row.name),
            row.count,
            millis(row.p50),
            millis(row.p99)
        );
    }
    *page += "</table>\n";
}

fn provenance(page: &mut String, report: &Report) {
    let from = &report.provenance;
    let rows = [
        ("command", from.command.join(" ")),
        ("portico", from.version.clone()),
        ("date", from.date.clone()),
        ("manifests", from.manifests.clone().unwrap_or_default()),
        ("kernel", from.kernel.clone()),
        ("CPU", format!("{} x {}", from.cores, from.cpu)),
        ("descriptors", from.open_files.to_string()),
        ("port range", from.port_range.clone()),
        ("somaxconn", from.somaxconn.clone()),
        ("clock", from.clock_source.clone()),
    ];
    *page += "<table>\n";
    for (name, value) in rows {
        let _ = writeln!(
            page,
            "<tr><th>{name}</th><td class=\"left\">{}</td></tr>",
            escape(&value)
        );
    }
    let _ = writeln!(
        page,
        "</table>\n<p class=\"note\">{}</p>",
        escape(&verdict_line(report))
    );
}

/// Text within a page (HTML, section 13.1.2).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c => escaped.push(c),
        }
    }
    escaped
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#6b7480;--line:#d8dde3;--one:#2f6fb3;--two:#d98324;--bad:#c0392b;--good:#22863a;--doubt:#b08800}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--paper:#14171b;--soft:#98a2ae;--line:#333a42;--one:#6ba6e0;--two:#f0a34d;--bad:#ec7063;--good:#57c774;--doubt:#e3b93c}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem}
h1{font-size:1.5rem;margin:.2rem 0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:2rem 0 0}
.note{color:var(--soft);margin:.1rem 0 .6rem}
.verdict{display:inline-block;margin:0;padding:.2rem .7rem;border-radius:.4rem;color:#fff;font-size:1.1rem}
.good{background:#22863a}.bad{background:#b03a2e}.doubt{background:#8a6d00}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin:1rem 0}
.tiles div{border:1px solid var(--line);border-radius:.4rem;padding:.4rem .8rem;min-width:6.5rem}
dt{color:var(--soft);font-size:.8rem}dd{margin:0;font-size:1.2rem;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums}
td,th{padding:.15rem .8rem;border-bottom:1px solid var(--line);text-align:right;font-weight:400}
th{color:var(--soft)}tr>th:first-child,td.left{text-align:left}td.left{overflow-wrap:anywhere}
pre{overflow-x:auto;border:1px solid var(--line);border-radius:.4rem;padding:.8rem;font-size:12px;line-height:1.4}
svg{display:block;width:100%;height:auto;margin:.4rem 0}
svg text{fill:var(--soft);font:11px system-ui,sans-serif}svg text.ink{fill:var(--ink)}
";
