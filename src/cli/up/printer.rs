//! What `portico up` says. Owns the words and what has been said already; findings go to standard error, the rest to
//! standard output.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use portico_core::object::diagnostic::{Diagnostic, Severity};

use super::Hint;
use crate::{
    app::{App, AppSettings, Notice},
    cli::{say, status},
    control::status::{ServiceStatus, Status, descriptors_fix},
    source::render::render,
    telemetry,
};

/// Remembers what has been said, so that each finding is printed once while it lasts.
pub(super) struct Printer<'a> {
    settings: &'a AppSettings,
    hint: Hint<'a>,
    seen: BTreeSet<Diagnostic>,
    inert: BTreeSet<Arc<str>>,
    ready: bool,
}

impl<'a> Printer<'a> {
    pub(super) fn new(settings: &'a AppSettings, hint: Hint<'a>) -> Self {
        Self {
            settings,
            hint,
            seen: BTreeSet::new(),
            inert: BTreeSet::new(),
            ready: false,
        }
    }

    /// Whether the first table has been printed.
    pub(super) const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Says what a round changed.
    pub(super) async fn notice(&mut self, app: &App, notice: &Notice) {
        if notice.files {
            self.findings(app).await;
        }
        if !self.ready {
            if notice.starting == 0 {
                self.ready(app).await;
            }
        } else if notice.services > 0 {
            say::line(changed(notice));
        }
    }

    /// The first table, and what to do next.
    pub(super) async fn ready(&mut self, app: &App) {
        let Ok(status) = app.status().await else {
            return;
        };
        self.ready = true;
        say::text(status::text(&status));
        say::line(from_outside(&status));
        let node_ports = self.settings.up.cluster.service_node_port_range;
        if let Some(clash) = crate::host::ephemeral_clash(node_ports) {
            say::error_line(format!("warning: {clash}"));
        }
        let is_dual = self.settings.up.cluster.service_cidr_v6.is_some();
        let no_ipv6 = || crate::host::no_ipv6(&crate::host::addresses());
        if let Some(why) = is_dual.then(no_ipv6).flatten() {
            say::error_line(format!("warning: {why}"));
        }
        if status.beyond_descriptors > 0 {
            say::error_line(format!(
                "warning: {} of {} listeners are not served for want of descriptors; {} serves all; `portico status` \
                 lists them",
                status.beyond_descriptors,
                status.listener_count,
                descriptors_fix(status.listener_count)
            ));
        }
        if let Some(missing) = missing_pods(&status, self.settings) {
            say::line(missing);
        }
        say::line(format!(
            "portico {} is ready: instance {}, {}, generation {}",
            status.version,
            status.instance,
            services(status.services.len()),
            status.generation
        ));
        let hint = (self.hint)(&status);
        if !hint.is_empty() {
            say::line(format!("\n{hint}"));
        }
    }

    /// New findings with their source lines; those that are gone may come back.
    async fn findings(&mut self, app: &App) {
        let Ok(findings) = app.findings().await else {
            return;
        };
        for (kind, count) in &findings.inert {
            if self.inert.insert(Arc::clone(kind)) {
                say::error_line(format!(
                    "note: {kind}: kept, but nothing acts on it ({count} in these files)"
                ));
            }
        }
        let now: BTreeSet<Diagnostic> = findings.diagnostics.into_iter().collect();
        let mut texts: BTreeMap<Arc<str>, Option<String>> = BTreeMap::new();
        let mut notes: BTreeSet<&str> = self.seen.iter().map(|seen| &*seen.message).collect();
        for finding in now.iter().filter(|finding| !self.seen.contains(finding)) {
            // A note says something about this program, which is as true the second time.
            if finding.severity == Severity::Note && !notes.insert(&finding.message) {
                continue;
            }
            let text = texts.entry(Arc::clone(&finding.file));
            let text = text.or_insert_with(|| std::fs::read_to_string(&*finding.file).ok());
            say::error_text(render(
                finding,
                text.as_deref(),
                telemetry::wants_colour(&std::io::stderr()),
            ));
        }
        let errors = |findings: &BTreeSet<Diagnostic>| {
            findings
                .iter()
                .filter(|finding| finding.severity == Severity::Error)
                .count()
        };
        if errors(&self.seen) > 0 && errors(&now) == 0 {
            say::error_line("no errors left in the manifests");
        }
        self.seen = now;
    }
}

fn services(count: usize) -> String {
    if count == 1 {
        "1 Service".into()
    } else {
        format!("{count} Services")
    }
}

fn changed(notice: &Notice) -> String {
    let (bound, closed, switched) = notice.sockets;
    let mut what = format!(
        "generation {}: {} changed",
        notice.generation,
        services(notice.services)
    );
    for (count, verb) in [(bound, "bound"), (closed, "closed"), (switched, "switched")] {
        if count > 0 {
            let noun = if count == 1 { "socket" } else { "sockets" };
            what = format!("{what}, {count} {noun} {verb}");
        }
    }
    what
}

/// Which of the addresses other machines can use.
fn from_outside(status: &Status) -> String {
    let is_outside = |addr: &&std::net::IpAddr| !addr.is_loopback() && addr.is_ipv4();
    let host = crate::host::addresses();
    let host: Vec<_> = host.iter().filter(is_outside).collect();
    let ports = status.services.iter().flat_map(|service| &service.ports);
    let mut outside: BTreeSet<String> = BTreeSet::new();
    for bound in ports
        .flat_map(|port| &port.reachable)
        .filter_map(|way| way.bound)
    {
        if bound.ip().is_unspecified() {
            outside.extend(host.iter().map(|addr| format!("{addr}:{}", bound.port())));
        } else if !bound.ip().is_loopback() {
            outside.insert(bound.to_string());
        }
    }
    if outside.is_empty() {
        return "Reachable from other machines: nothing (addresses in 127/8 are this machine's own)".into();
    }
    let outside: Vec<String> = outside.into_iter().collect();
    format!("Reachable from other machines: {}", outside.join(", "))
}

/// What to say when manifests bring pods that nobody runs.
fn missing_pods(status: &Status, settings: &AppSettings) -> Option<String> {
    let waiting = |service: &&ServiceStatus| {
        let first = service.ports.first();
        !service.selector.is_empty() && first.is_some_and(|port| port.endpoints.is_empty())
    };
    let count = status.services.iter().filter(waiting).count();
    (count > 0 && !settings.up.simulate).then(|| {
        format!(
            "{} with a selector that no running pod matches. Give the pods an address (EndpointSlices, Pods with \
             status.podIP, `portico map`), or start stand-ins with --simulate",
            services(count)
        )
    })
}
