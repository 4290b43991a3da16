//! What the loop answers: status, findings, objects, watches, commands. Owns the wiring to who knows.

use std::hash::{BuildHasher as _, RandomState};

use portico_core::{
    snapshot::{Snapshot, plan::ListenerPlan},
    time::Timestamp,
    world::{EventKind, NewEvent},
};
use tokio::sync::oneshot;

use super::ControlLoop;
use crate::{
    admin::{Findings, Request, checks::Health},
    app::{commands, logs, parts},
    clock,
    control::{
        command::{Command, CommandError, Done, LogPage, LogRequest, OverrideLine},
        status::{self, ListenerReports},
        way::Map,
    },
    explain::{self, Explanation},
    objects::{self, View},
};

impl ControlLoop {
    /// Answers what changes nothing.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Status(reply) => drop(reply.send(Box::new(self.status()))),
            Request::Findings(reply) => drop(reply.send(self.findings())),
            Request::Alive(reply) => drop(reply.send(())),
            Request::Health(reply) => drop(reply.send(self.health())),
            Request::Reload => {
                if let Some(files) = &self.watches.files {
                    files.rescanner().rescan();
                }
            }
            Request::Objects(resource, reply) => {
                let listeners = self.reconciler.listeners().states();
                let snapshot = self.reconciler.snapshot();
                let view = self.view(&snapshot, &listeners, clock::now());
                drop(reply.send(objects::list(view, resource)));
            }
            Request::Watch(resource, lines) => {
                let mut watchers = std::mem::take(&mut self.watchers);
                let listeners = self.reconciler.listeners().states();
                let snapshot = self.reconciler.snapshot();
                let view = self.view(&snapshot, &listeners, clock::now());
                watchers.add(resource, lines, view);
                self.watchers = watchers;
            }
            Request::Explain((namespace, name), reply) => {
                drop(reply.send(self.explain(&namespace, &name)));
            }
            Request::Logs(request, reply) => self.read_logs(request, reply),
            Request::Revisions(target, reply) => {
                let world = self.reconciler.world();
                drop(reply.send(commands::revisions_of(world, &target)));
            }
            Request::Way(wanted, reply) => {
                let map = Map {
                    snapshot: &self.reconciler.snapshot(),
                    listeners: &self.reconciler.listeners().states(),
                    world: self.reconciler.world(),
                    seed: RandomState::new().hash_one(0_u8),
                };
                drop(reply.send(map.way(&wanted)));
            }
            Request::Overrides(reply) => {
                let lines = commands::lines(&self.overrides, self.reconciler.world());
                drop(reply.send(lines));
            }
            // Carried out by the loop itself, because a round follows.
            Request::Command(_, reply) => {
                let text = "error: not carried out".to_owned();
                drop(reply.send(Err(CommandError::Refused(text))));
            }
        }
    }

    /// Why a Service is served as it is, with the changes made at run time to it and to the pods and workloads that it
    /// selects; what to say if there is no such Service.
    fn explain(&self, namespace: &str, name: &str) -> Result<Box<Explanation>, String> {
        let listeners = self.reconciler.listeners().reports();
        let snapshot = self.reconciler.snapshot();
        let view = self.view(&snapshot, &listeners, clock::now());
        let mut explanation = explain::explain(view, namespace, name)
            .ok_or_else(|| explain::not_found(view, namespace, name))?;
        let related = explain::related(view, namespace, name);
        let lines = commands::lines(&self.overrides, self.reconciler.world()).into_iter();
        let concerning = lines.filter(|OverrideLine { target, .. }| {
            related.iter().any(|key| {
                key.kind.as_str() == target.resource.kind()
                    && *key.namespace == target.namespace
                    && *key.name == target.name
            })
        });
        explanation.overrides = concerning
            .map(|line| format!("{}: {}", line.target.display(), line.change))
            .collect();
        Ok(Box::new(explanation))
    }

    /// Lets a reader of its own wait for lines; it ends with who asked.
    fn read_logs(
        &mut self,
        request: LogRequest,
        mut reply: oneshot::Sender<Result<LogPage, CommandError>>,
    ) {
        while self.readers.try_join_next().is_some() {}
        let found = logs::query(
            self.reconciler.world(),
            self.watches.logs.as_ref(),
            &request,
        );
        let (reader, query) = match found {
            Ok(found) => found,
            Err(error) => return drop(reply.send(Err(error))),
        };
        self.readers.spawn(async move {
            tokio::select! {
                () = reply.closed() => {}
                page = reader.read(query) => drop(reply.send(logs::page(page, &request))),
            }
        });
    }

    /// Carries out a command; its effect comes with the next round.
    pub(super) fn carry_out(&mut self, command: Command) -> Result<Done, CommandError> {
        commands::Office {
            world: self.reconciler.world(),
            overrides: &mut self.overrides,
            pod_commands: &mut self.commands,
            simulated: self.watches.pods.is_some(),
            now: clock::now(),
        }
        .carry_out(command)
    }

    /// Takes back overrides of documents that were edited; true if there were any.
    pub(super) fn clear_stale_overrides(&mut self, now: Timestamp) -> bool {
        let world = self.reconciler.world();
        if !world.is_synced() {
            return false;
        }
        let gone = self.overrides.refresh(|key| world.declared(key));
        for key in &gone {
            let event = NewEvent {
                about: key.clone(),
                kind: EventKind::Normal,
                reason: "OverrideCleared",
                message:
                    "the document was edited: what was changed at run time is as declared again"
                        .to_owned(),
                component: "portico",
            };
            self.reconciler.record(event, now);
        }
        !gone.is_empty()
    }

    /// Writes down what happened to sockets and manifests, and tells who watches.
    pub(super) fn tell(&mut self, plan: &ListenerPlan, files: bool, now: Timestamp) {
        let quiet = plan.bind.is_empty() && plan.close.is_empty() && plan.switch.is_empty();
        let looks = !quiet || files || self.happenings.is_troubled();
        if !looks && self.watchers.is_empty() {
            return;
        }
        let listeners = self.reconciler.listeners().states();
        if looks {
            let world = self.reconciler.world();
            let events = self.happenings.look(world, &listeners, files, plan);
            for event in events {
                self.reconciler.record(event, now);
            }
        }
        let mut watchers = std::mem::take(&mut self.watchers);
        let snapshot = self.reconciler.snapshot();
        watchers.update(self.view(&snapshot, &listeners, now));
        self.watchers = watchers;
    }

    /// What objects are made from.
    fn view<'v>(
        &'v self,
        snapshot: &'v Snapshot,
        listeners: &'v ListenerReports,
        now: Timestamp,
    ) -> View<'v> {
        View {
            world: self.reconciler.world(),
            snapshot,
            listeners,
            started: self.began,
            now,
        }
    }

    fn status(&self) -> status::Status {
        let world = self.reconciler.world();
        let sockets = self.reconciler.listeners();
        let (listeners, statuses) = (sockets.reports(), sockets.0.statuses());
        let beyond = statuses.iter().filter(|status| parts::is_beyond(status));
        let snapshot = self.reconciler.snapshot();
        status::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            instance: self.rest.instance.name().to_owned(),
            pid: std::process::id(),
            generation: snapshot.generation,
            domains: snapshot
                .cluster
                .domains
                .iter()
                .map(ToString::to_string)
                .collect(),
            synced: snapshot.synced,
            services: status::services(&snapshot, &listeners, clock::now()),
            listener_count: statuses.len(),
            beyond_descriptors: beyond.count(),
            listeners: listeners.into_values().collect(),
            dns: self.rest.dns.status(),
            dns_zones: portico_core::dns::zones(&snapshot.cluster),
            missed_names: self.rest.dns.missed(),
            dns_upstreams: self.rest.dns.upstreams(),
            runs: sockets.runs(),
            pods: status::pods(world),
            connections: sockets.0.connections(),
            flows: sockets.0.flows(),
            descriptors: parts::descriptors(),
            admin: self.rest.observing.address,
            findings: world.diagnostics(),
        }
    }

    fn health(&self) -> Health {
        let sockets = self.reconciler.listeners();
        let states = sockets.states();
        let missing = states.values().filter(|report| report.state != "refusing");
        let missing = missing.map(|report| {
            let reason = report.reason.as_deref().unwrap_or(&report.state);
            format!("{}: {reason}", report.declared)
        });
        let dns = self.rest.dns.status();
        let dns_missing = dns.iter().filter_map(|status| {
            let problem = status.problem.as_ref()?;
            Some(format!("{}: {problem}", status.wanted))
        });
        Health {
            synced: self.reconciler.world().is_synced(),
            listeners: sockets.0.statuses().len(),
            missing: missing.collect(),
            dns_missing: dns_missing.collect(),
            updated: self.updated,
        }
    }

    /// What is wrong with the manifests, and which kinds in them nothing acts on.
    fn findings(&self) -> Findings {
        let inert = self.watches.files.as_ref();
        Findings {
            diagnostics: self.reconciler.world().diagnostics(),
            inert: inert
                .map(|files| files.inert.borrow().clone())
                .unwrap_or_default(),
        }
    }
}
