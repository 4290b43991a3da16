//! Three counts of the same: the client's, the program's, the endpoints'. Owns what must agree with what, and what
//! excuses a difference.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CountRow, Counts,
    build::{Input, answered, is_answered},
};
use crate::bench::{
    sample::Sample,
    view::{EndpointView, View},
};

/// The client's counts beside the program's and the endpoints'.
pub(super) fn counts(input: &Input<'_>, sorted: &[&Sample], names: &[String]) -> Counts {
    let mut rows: BTreeMap<String, CountRow> = BTreeMap::new();
    let row = |name: &str| CountRow {
        name: name.to_owned(),
        client_connections: 0,
        client_requests: 0,
        program: None,
        endpoint: None,
    };
    for (sample, name) in answered(sorted, names) {
        let row = rows.entry(name.to_owned()).or_insert_with(|| row(name));
        row.client_requests += 1;
        row.client_connections += u64::from(sample.connect.is_some());
    }
    for (name, picks) in picks(input.views) {
        rows.entry(name.clone())
            .or_insert_with(|| row(&name))
            .program = picks;
    }
    let again = came_back(input.views);
    // One that was away may have begun to count anew.
    for (name, served) in input
        .served
        .iter()
        .filter(|(name, _)| !again.contains(*name))
    {
        rows.entry(name.clone())
            .or_insert_with(|| row(name))
            .endpoint = Some(*served);
    }
    let rows: Vec<CountRow> = rows.into_values().collect();
    let grown = |of: fn(&View) -> u64| match input.views {
        [first, .., last] => Some(of(last).saturating_sub(of(first))),
        _ => None,
    };
    let connections = sorted.iter().filter(|sample| sample.connect.is_some());
    let mut counts = Counts {
        client_connections: u64::try_from(connections.count()).unwrap_or(u64::MAX),
        accepted: grown(|view| view.accepted),
        retries: grown(|view| view.retries),
        rejected: grown(|view| view.rejected),
        mismatches: Vec::new(),
        rows,
    };
    counts.mismatches = mismatches(&counts, input, sorted);
    counts
}

/// How often the program chose each and reached it; `None` of who is gone at the end.
fn picks(views: &[View]) -> BTreeMap<String, Option<u64>> {
    let [first, .., last] = views else {
        return BTreeMap::new();
    };
    // Who was not there at first began with nothing.
    let before: BTreeMap<_, u64> = first
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.address, endpoint.reached()))
        .collect();
    let seen = views.iter().flat_map(|view| &view.endpoints);
    let gone = seen.map(|endpoint| (endpoint.title(), None));
    let mut picks: BTreeMap<String, Option<u64>> = gone.collect();
    let again = came_back(views);
    for endpoint in &last.endpoints {
        let before = before.get(&endpoint.address).copied().unwrap_or_default();
        // One that went and came back counts from there on, so that nothing can be said of what it had before.
        let grown = endpoint.reached().checked_sub(before);
        let is_steady = !again.contains(&endpoint.title());
        picks.insert(endpoint.title(), grown.filter(|_| is_steady));
    }
    picks
}

/// Those who were there, went, and are there at the end.
fn came_back(views: &[View]) -> BTreeSet<String> {
    let at_the_end = views.last().into_iter().flat_map(|view| &view.endpoints);
    let was_away = |address| {
        let mut since = views.iter().skip_while(|view| !view.has(address));
        since.any(|view| !view.has(address))
    };
    let again = at_the_end.filter(|endpoint| was_away(endpoint.address));
    again.map(EndpointView::title).collect()
}

fn mismatches(counts: &Counts, input: &Input<'_>, sorted: &[&Sample]) -> Vec<String> {
    let failed = sorted.iter().filter(|sample| !is_answered(sample)).count();
    // Failed requests may have got as far as an endpoint: so many may be counted there and not here.
    let failed = u64::try_from(failed).unwrap_or(u64::MAX);
    let excused = failed.saturating_add(input.abandoned);
    let agrees = |there: u64, here: u64| there >= here && there - here <= excused;
    let mut told = Vec::new();
    if let Some(accepted) = counts.accepted {
        let here = counts.client_connections;
        if !agrees(accepted, here) {
            told.push(format!(
                "{here} connections here, {accepted} accepted by the program (others may use the Service too)"
            ));
        }
    }
    for row in &counts.rows {
        let program = row.program;
        if let Some(program) = program.filter(|there| !agrees(*there, row.client_connections)) {
            told.push(format!(
                "{}: {} connections here, {program} by the program's count (others may use the Service too)",
                row.name, row.client_connections
            ));
        }
        let endpoint = row.endpoint;
        if let Some(endpoint) = endpoint.filter(|there| !agrees(*there, row.client_requests)) {
            told.push(format!(
                "{}: {} requests here, {endpoint} by its own count",
                row.name, row.client_requests
            ));
        }
    }
    told
}
