//! Tables of Service ports and of endpoints, a row each. Owns columns and orders.

use std::{cmp::Ordering, collections::BTreeMap};

use clap::ValueEnum;
use portico_core::observe::real;

use super::{
    WindowName,
    figures::{self, NONE, bytes, percent, time},
};
use crate::{
    admin::stat::{EndpointStat, PortStat, Unit, Verdict},
    cli::table::{TabWriter, cell},
};

/// Whether the first column is the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    Shown,
    Hidden,
}

/// Over which time figures are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) rates: WindowName,
    pub(crate) shares: WindowName,
}

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortBy {
    /// Connections, requests or flows a second, the most first.
    Conn,
    /// Those in progress, the most first.
    Active,
    /// Bytes a second, the most first.
    Bytes,
    /// Share of failures, the largest first.
    Err,
    /// Time that 99 of 100 do not exceed, the longest first.
    P99,
    /// Namespace and name.
    Name,
}

/// What a row can be sorted by; it came by name.
#[derive(Debug, Default)]
struct Keys {
    conn: f64,
    active: u64,
    bytes: f64,
    err: f64,
    p99: f64,
}

/// Rows under their header.
#[derive(Debug)]
pub(crate) struct Rows {
    header: Vec<String>,
    rows: Vec<(Keys, Vec<String>)>,
}

impl Rows {
    /// Sorts them; equal ones stay in the order of their names.
    pub(crate) fn sort(&mut self, by: SortBy) {
        self.rows.sort_by(|(left, _), (right, _)| match by {
            SortBy::Conn => right.conn.total_cmp(&left.conn),
            SortBy::Active => right.active.cmp(&left.active),
            SortBy::Bytes => right.bytes.total_cmp(&left.bytes),
            SortBy::Err => right.err.total_cmp(&left.err),
            SortBy::P99 => right.p99.total_cmp(&left.p99),
            SortBy::Name => Ordering::Equal,
        });
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The header and the first `most` rows.
    pub(crate) fn text(&self, most: usize) -> String {
        let shown = self.rows.iter().take(most).map(|(_, cells)| cells.clone());
        let all: Vec<Vec<String>> = std::iter::once(self.header.clone()).chain(shown).collect();
        let text = TabWriter::default().lines(&all);
        text.lines()
            .fold(String::new(), |text, line| text + line.trim_end() + "\n")
    }
}

fn titles(namespace: Namespace, family: bool, columns: &[&str]) -> Vec<String> {
    let mut header: Vec<&str> = columns.to_vec();
    if family {
        // Behind the name and the port.
        header.insert(2, "FAMILY");
    }
    if namespace == Namespace::Shown {
        header.insert(0, "NAMESPACE");
    }
    header.into_iter().map(str::to_owned).collect()
}

fn lead(port: &PortStat, namespace: Namespace, family: bool) -> Vec<String> {
    let mut cells = Vec::new();
    if namespace == Namespace::Shown {
        cells.push(port.namespace.clone());
    }
    cells.push(port.service.clone());
    cells.push(format!("{}/{}", port.port, port.protocol));
    if family {
        cells.push(port.ip_family.clone());
    }
    cells
}

fn has_families(ports: &[PortStat]) -> bool {
    ports.iter().any(|port| port.ip_family != "IPv4")
}

/// A row a Service port.
pub(crate) fn services(ports: &[PortStat], windows: Windows, namespace: Namespace) -> Rows {
    let family = has_families(ports);
    let columns = [
        "NAME", "PORT", "READY", "RATE", "ACTIVE", "BYTES/S", "ERR%", "P50", "P99", "EVEN",
    ];
    let row = |port: &PortStat| {
        let window = port.window(windows.rates.as_str());
        let verdict = port
            .window(windows.shares.as_str())
            .and_then(|of| of.verdict);
        let per_second = window.map_or(0.0, |of| of.connections_per_second);
        let flow = window.map_or(0.0, |of| of.bytes_per_second);
        let errors = window.and_then(|of| of.error_share);
        let mut cells = lead(port, namespace, family);
        cells.extend([
            format!("{}/{}", port.ready, port.declared),
            figures::per_second(per_second, port.unit),
            port.counts.active.to_string(),
            bytes(flow),
            percent(errors),
            time(port.durations.p50),
            time(port.durations.p99),
            verdict.map_or(NONE, Verdict::as_str).to_owned(),
        ]);
        let keys = Keys {
            conn: per_second,
            active: port.counts.active,
            bytes: flow,
            err: errors.unwrap_or(0.0),
            p99: port.durations.p99.unwrap_or(0.0),
        };
        (keys, cells)
    };
    Rows {
        header: titles(namespace, family, &columns),
        rows: ports.iter().map(row).collect(),
    }
}

/// What all of them got together, unit by unit: `3conn/s 12req/s`.
pub(crate) fn sums(ports: &[PortStat], window: WindowName) -> String {
    let mut sums: BTreeMap<Unit, f64> = BTreeMap::new();
    for port in ports {
        let over = port.window(window.as_str());
        *sums.entry(port.unit).or_default() += over.map_or(0.0, |of| of.connections_per_second);
    }
    let cells = sums
        .into_iter()
        .map(|(unit, sum)| figures::per_second(sum, unit));
    cells.collect::<Vec<_>>().join(" ")
}

/// A row an endpoint of a Service port.
pub(crate) fn endpoints(ports: &[PortStat], windows: Windows, namespace: Namespace) -> Rows {
    let family = has_families(ports);
    let columns = [
        "SERVICE", "PORT", "ENDPOINT", "POD", "RATE", "ACTIVE", "BYTES/S", "ERR%", "SHARE",
        "EXPECTED", "P50", "P99", "STATE",
    ];
    let rows = ports.iter().flat_map(|port| {
        let members = port.endpoints.iter();
        members.map(move |endpoint| row_of(port, endpoint, windows, (namespace, family)))
    });
    Rows {
        header: titles(namespace, family, &columns),
        rows: rows.collect(),
    }
}

fn row_of(
    port: &PortStat,
    endpoint: &EndpointStat,
    windows: Windows,
    (namespace, family): (Namespace, bool),
) -> (Keys, Vec<String>) {
    let name = windows.rates.as_str();
    let window = endpoint.window(name);
    let seconds = port.window(name).map_or(0.0, |of| of.set_seconds);
    // As of ports: a set may be as much older than it is known to be.
    let per_second = |count: u64| real(count) / seconds.max(1.0);
    let (picks, failures, carried) = window.map_or((0, 0, 0), |of| {
        let carried = of.bytes_to_endpoint.saturating_add(of.bytes_to_clients);
        (of.picks, of.failures, carried)
    });
    let errors = (picks > 0).then(|| real(failures) / real(picks));
    let share = endpoint.window(windows.shares.as_str());
    let mut cells = lead(port, namespace, family);
    cells.extend([
        endpoint.address.to_string(),
        pod(endpoint),
        figures::per_second(per_second(picks), port.unit),
        endpoint.active.to_string(),
        bytes(per_second(carried)),
        percent(errors),
        percent(share.and_then(|of| of.share)),
        percent(Some(endpoint.expected)),
        time(endpoint.connect.p50),
        time(endpoint.connect.p99),
        state(endpoint).to_owned(),
    ]);
    let keys = Keys {
        conn: per_second(picks),
        active: endpoint.active,
        bytes: per_second(carried),
        err: errors.unwrap_or(0.0),
        p99: endpoint.connect.p99.unwrap_or(0.0),
    };
    (keys, cells)
}

/// The pod's name as a cell.
pub(super) fn pod(endpoint: &EndpointStat) -> String {
    endpoint
        .pod
        .as_deref()
        .map_or_else(|| NONE.to_owned(), cell)
}

/// Whether it is chosen, in a word.
pub(super) fn state(endpoint: &EndpointStat) -> &'static str {
    match endpoint {
        endpoint if endpoint.ejected => "ejected",
        endpoint if endpoint.expected <= 0.0 => "drained",
        _ => "ready",
    }
}
