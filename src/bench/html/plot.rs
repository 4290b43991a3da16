//! Plots as SVG, drawn from a report's own figures. Owns axes, scales and colours.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::escape;
use crate::bench::{
    pace::float,
    report::{Percentile, Second, Share},
    text::millis,
};

/// Width of every plot; it is shown as wide as the page.
const WIDTH: f64 = 900.0;

/// Colours of endpoints, in turn; red is kept for failures.
const COLOURS: [&str; 7] = [
    "#4c78a8", "#f58518", "#54a24b", "#b279a2", "#72b7b2", "#eeca3b", "#9d755d",
];

/// Most bars of shares that are drawn: the ones furthest from what was due.
const MOST_BARS: usize = 40;

/// Most endpoints that are told apart second by second.
const MOST_LAYERS: usize = 14;

/// Most bars second by second; of longer runs several seconds are one.
const MOST_SECONDS: usize = 240;

fn colour(place: usize) -> &'static str {
    COLOURS
        .get(place % COLOURS.len())
        .copied()
        .unwrap_or("#888")
}

fn open(height: f64, label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">\n")
}

fn number(place: usize) -> f64 {
    float(u64::try_from(place).unwrap_or(u64::MAX))
}

/// A bar for each endpoint, and a line where what was due ends.
pub(super) fn shares(shares: &[Share]) -> String {
    let (left, row) = (230.0, 22.0);
    let shown = furthest(shares);
    let most = shown
        .iter()
        .map(|share| float(share.observed).max(share.expected))
        .fold(1.0, f64::max);
    let scale = (WIDTH - left - 130.0) / most;
    let mut svg = open(row * number(shown.len()) + 8.0, "shares");
    for (place, share) in shown.iter().enumerate() {
        let top = row * number(place) + 4.0;
        let (got, due) = (float(share.observed) * scale, share.expected * scale);
        let delta = if share.expected > 0.0 {
            format!(
                " ({:+.2} %)",
                (float(share.observed) / share.expected - 1.0) * 100.0
            )
        } else {
            String::new()
        };
        let _ = writeln!(
            svg,
            "<text class=\"ink\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{left}\" y=\"{top:.1}\" width=\"{got:.1}\" height=\"14\" fill=\"{}\"/>\
             <line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"var(--ink)\" stroke-width=\"1.5\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}{delta}</text>",
            left - 8.0,
            top + 11.0,
            escape(&short(&share.name)),
            colour(place),
            top - 2.0,
            top + 16.0,
            left + got.max(due) + 6.0,
            top + 11.0,
            share.observed,
            x = left + due,
        );
    }
    svg += "</svg>\n";
    if shares.len() > shown.len() {
        let _ = writeln!(
            svg,
            "<p class=\"note\">the {} furthest from what was due, of {}</p>",
            shown.len(),
            shares.len()
        );
    }
    svg
}

/// The ones furthest from what was due, in their order.
fn furthest(shares: &[Share]) -> Vec<&Share> {
    let mut order: Vec<usize> = (0..shares.len()).collect();
    let away = |place: &usize| {
        shares.get(*place).map_or(0.0, |share| {
            (float(share.observed) - share.expected).abs() / share.expected.max(1e-9)
        })
    };
    if shares.len() > MOST_BARS {
        order.sort_by(|a, b| away(b).total_cmp(&away(a)));
        order.truncate(MOST_BARS);
        order.sort_unstable();
    }
    order
        .iter()
        .filter_map(|place| shares.get(*place))
        .collect()
}

fn short(name: &str) -> String {
    if name.chars().count() <= 34 {
        return name.to_owned();
    }
    let end: String = name.chars().skip(name.chars().count() - 33).collect();
    format!("…{end}")
}

/// Latency by share of requests that are above it: straight lines are exponential tails.
pub(super) fn percentiles(lines: &[(&str, &[Percentile])]) -> String {
    let (left, bottom, height) = (70.0, 230.0, 260.0);
    let all = || lines.iter().flat_map(|(_, list)| list.iter());
    let most = all().map(|entry| entry.millis).fold(0.001, f64::max) * 1.05;
    // 50 % stands at the left edge, each further nine takes the same room; the most stands behind the last.
    let place = |entry: &Percentile| {
        let above = 1.0 - entry.percentile / 100.0;
        let nines = if above < 1e-9 { 5.0 } else { -(above.log10()) };
        left + (nines - 0.301) / 4.699 * (WIDTH - left - 40.0)
    };
    let level = |value: f64| bottom - value / most * (bottom - 15.0);
    let mut svg = open(height, "latency by percentile");
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"var(--line)\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - 20.0,
            left - 8.0,
            level(value) + 4.0,
            millis(value),
            y = level(value),
        );
    }
    for (which, (name, list)) in lines.iter().enumerate() {
        let points: Vec<String> = list
            .iter()
            .map(|entry| format!("{:.1},{:.1}", place(entry), level(entry.millis)))
            .collect();
        let stroke = if which == 0 {
            "var(--one)"
        } else {
            "var(--two)"
        };
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{stroke}\" stroke-width=\"2\" points=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:{stroke}\">{name}</text>",
            points.join(" "),
            left + 12.0 + 90.0 * number(which),
            24.0
        );
    }
    for entry in lines.first().map_or(&[][..], |(_, list)| list) {
        let name = if entry.percentile >= 100.0 {
            "most".to_owned()
        } else {
            format!("{} %", entry.percentile)
        };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            place(entry),
            bottom + 18.0
        );
    }
    svg + "</svg>\n"
}

/// Answers a second, stacked by endpoint; of many endpoints, all together.
pub(super) fn timeline(seconds: &[Second]) -> String {
    let (left, bottom, height) = (70.0, 190.0, 220.0);
    let last = seconds.last().map_or(0, |second| second.second);
    let known: BTreeSet<&String> = seconds
        .iter()
        .flat_map(|second| second.answers.keys())
        .collect();
    let is_one = known.len() > MOST_LAYERS;
    let (seconds, wide_seconds) = merged(seconds, is_one);
    let names: BTreeSet<&String> = seconds
        .iter()
        .flat_map(|second| second.answers.keys())
        .collect();
    let total = |second: &Second| second.answers.values().sum::<u64>() + second.failed;
    let most = float(seconds.iter().map(total).max().unwrap_or(1).max(1));
    let wide = (WIDTH - left - 20.0) / number(seconds.len().max(1));
    let scale = (bottom - 15.0) / most;
    let mut svg = open(height, "answers second by second");
    for (place, second) in seconds.iter().enumerate() {
        let x = left + wide * number(place);
        let mut y = bottom;
        let mut bar = |count: u64, fill: &str, title: &str| {
            let tall = float(count) * scale;
            y -= tall;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{fill}\"><title>{}: {count}</title></rect>",
                (wide - 1.0).max(0.5),
                escape(title)
            );
        };
        for (which, name) in names.iter().enumerate() {
            if let Some(count) = second.answers.get(*name) {
                bar(*count, colour(which), name);
            }
        }
        if second.failed > 0 {
            bar(second.failed, "var(--bad)", "failed");
        }
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"18\" text-anchor=\"end\">{most:.0}</text>\
         <text x=\"{left}\" y=\"{y:.1}\">0 s</text><text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{} s</text></svg>",
        left - 8.0,
        WIDTH - 20.0,
        last + 1,
        y = bottom + 18.0,
    );
    legend(&mut svg, &names);
    if wide_seconds > 1 {
        let _ = writeln!(svg, "<p class=\"note\">each bar is {wide_seconds} s</p>");
    }
    svg
}

/// At most so many bars: neighbours added up, and on request all endpoints too. With the seconds of a bar.
fn merged(seconds: &[Second], is_one: bool) -> (Vec<Second>, usize) {
    let wide = seconds.len().div_ceil(MOST_SECONDS).max(1);
    let add = |part: &[Second]| {
        let mut all = Second {
            second: part.first().map_or(0, |second| second.second),
            answers: BTreeMap::new(),
            failed: part.iter().map(|second| second.failed).sum(),
        };
        for (name, count) in part.iter().flat_map(|second| &second.answers) {
            let name = if is_one { "all endpoints" } else { name };
            *all.answers.entry(name.to_owned()).or_default() += count;
        }
        all
    };
    (seconds.chunks(wide).map(add).collect(), wide)
}

fn legend(svg: &mut String, names: &BTreeSet<&String>) {
    *svg += "<p class=\"note\">";
    for (place, name) in names.iter().enumerate() {
        let _ = write!(
            svg,
            "<span class=\"key\" style=\"background:{}\"></span>{}",
            colour(place),
            escape(&short(name))
        );
    }
    *svg += "</p>\n";
}

/// How far apart answers of one endpoint are.
pub(super) fn gaps(gaps: &BTreeMap<u64, u64>) -> String {
    let (left, bottom, height) = (70.0, 150.0, 180.0);
    let last = gaps.keys().copied().max().unwrap_or(1).max(1);
    let most = float(gaps.values().copied().max().unwrap_or(1).max(1));
    let wide = (WIDTH - left - 20.0) / float(last);
    let mut svg = open(height, "distance between answers of one endpoint");
    for (distance, count) in gaps {
        let tall = float(*count) / most * (bottom - 20.0);
        let x = left + wide * float(distance - 1);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"var(--one)\"><title>{distance}: {count}</title></rect>",
            bottom - tall,
            (wide - 2.0).max(0.5),
        );
        if last <= 40 {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{distance}</text>",
                x + wide / 2.0,
                bottom + 16.0
            );
        }
    }
    svg + "</svg>\n"
}
