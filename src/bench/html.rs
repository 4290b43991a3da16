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
    let judged = report.units.first().and_then(|unit| unit.evenness);
    for (place, unit) in report.units.iter().enumerate() {
        let is_same = match (judged, unit.evenness) {
            (Some(judged), Some(own)) => (judged.cov - own.cov).abs() < 0.001,
            _ => false,
        };
        distribution(&mut page, unit, place > 0 && is_same);
    }
    epochs(&mut page, report);
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
    let _ = writeln!(
        page,
        "<details><summary>show</summary><pre>{}</pre></details>",
        escape(&text(report))
    );
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

/// The shares of a unit; without a plot where it would be the one before again.
fn distribution(page: &mut String, unit: &Unit, is_same: bool) {
    let Some(evenness) = &unit.evenness else {
        return;
    };
    let note = format!(
        "most less least {:.0}, cov {:.4}, Jain {:.5}, chi-square {:.2} of {} degrees, p {:.3}{}",
        evenness.spread,
        evenness.cov,
        evenness.jain,
        evenness.chi_square,
        evenness.degrees,
        evenness.p,
        if is_same {
            ": the same shares"
        } else {
            "; the line is what was due"
        }
    );
    section(page, &format!("Shares of {}", unit.unit), &note);
    if !is_same {
        *page += &plot::shares(&unit.shares);
    }
}

/// Most epochs that the page shows; the JSON has all.
const MOST_EPOCHS: usize = 100;

fn epochs(page: &mut String, report: &Report) {
    if report.epochs.len() < 2 {
        return;
    }
    let note = format!(
        "times with one set of endpoints each: {}; what was asked within 50 ms before a change is in none",
        report.epochs.len()
    );
    section(page, "Epochs", &note);
    *page += "<table><tr><th>from</th><th>to</th><th>endpoints</th><th>unit</th><th>in all</th><th>most less least</th>\
              <th>cov</th><th>p</th><th>twice running</th></tr>\n";
    for epoch in report.epochs.iter().take(MOST_EPOCHS) {
        for (place, unit) in report.units.iter().enumerate() {
            let when = if place == 0 {
                format!(
                    "<th>{:.2} s</th><td>{:.2} s</td><td>{}</td>",
                    epoch.from,
                    epoch.to,
                    epoch.members.len()
                )
            } else {
                "<th></th><td></td><td></td>".to_owned()
            };
            let figures = match epoch.units.get(&unit.unit).copied().flatten() {
                Some(even) => format!(
                    "<td>{:.0}</td><td>{:.0}</td><td>{:.4}</td><td>{:.3}</td>",
                    even.total, even.spread, even.cov, even.p
                ),
                None => "<td>0</td><td>-</td><td>-</td><td>-</td>".to_owned(),
            };
            let order = if place == 0 {
                format!("{:.1} %", epoch.order.repeat_rate * 100.0)
            } else {
                String::new()
            };
            let _ = writeln!(
                page,
                "<tr>{when}<td>{}</td>{figures}<td>{order}</td></tr>",
                unit.unit
            );
        }
    }
    *page += "</table>\n";
}

fn latency_table(page: &mut String, report: &Report) {
    let latency = &report.latency;
    *page += "<table><tr><th></th><th>corrected</th><th>uncorrected</th><th>connect</th><th>first byte</th><th>samples above</th></tr>\n";
    for (place, entry) in latency.corrected.iter().enumerate() {
        let at = |list| Percentile::shown_at(list, place);
        let name = entry.title();
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
    let open = if report.endpoints.len() > 12 {
        ""
    } else {
        " open"
    };
    let _ = writeln!(
        page,
        "</table>\n<details{open}><summary>{} endpoints</summary>",
        report.endpoints.len()
    );
    *page += "<table><tr><th>endpoint</th><th>answers</th><th>p50</th><th>p99</th></tr>\n";
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
    *page += "</table></details>\n";
    if report.errors.is_empty() {
        return;
    }
    section(page, "Failures", "by kind");
    *page += "<table>\n";
    for error in &report.errors {
        let _ = writeln!(
            page,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(&error.error),
            error.count
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
summary{cursor:pointer;color:var(--soft)}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}
svg{display:block;width:100%;height:auto;margin:.4rem 0}
svg text{fill:var(--soft);font:11px system-ui,sans-serif}svg text.ink{fill:var(--ink)}
";
