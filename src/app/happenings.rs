//! What happened to sockets and manifests, as events of the Services concerned. Owns the comparison with what was
//! told last and the words (`kubectl get events`: reason, message).

use std::collections::{BTreeMap, BTreeSet};

use portico_core::{
    object::{
        Kind, ObjectKey,
        diagnostic::{Diagnostic, Severity},
    },
    snapshot::plan::{Bind, ListenerKey, ListenerPlan},
    world::{EventKind, NewEvent, World},
};

use crate::control::status::{ListenerReport, ListenerReports};

/// Most listeners of one round that are told one by one; of more, those that failed.
const MOST_BOUND: usize = 256;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Happenings {
    /// Listeners that are not where they were declared.
    odd: BTreeMap<ListenerKey, ListenerReport>,
    rejected: BTreeSet<Diagnostic>,
}

impl Happenings {
    /// Whether a listener was not where it was declared when last looked at.
    pub(super) fn is_troubled(&self) -> bool {
        !self.odd.is_empty()
    }

    /// Events since the last look.
    pub(super) fn look(
        &mut self,
        world: &World,
        listeners: &ListenerReports,
        files: bool,
        plan: &ListenerPlan,
    ) -> Vec<NewEvent> {
        let mut events = self.sockets(world, listeners, plan);
        if files {
            events.extend(self.rejections(world));
        }
        events
    }

    fn sockets(
        &mut self,
        world: &World,
        listeners: &ListenerReports,
        plan: &ListenerPlan,
    ) -> Vec<NewEvent> {
        let odd: ListenerReports = listeners
            .iter()
            .filter(|(_, report)| matches!(&*report.state, "fallback" | "failed"))
            .map(|(key, report)| {
                let report = report.clone();
                // A count that grows is no news.
                (
                    *key,
                    ListenerReport {
                        dropped_by_filter: None,
                        ..report
                    },
                )
            })
            .collect();
        let mut events = Vec::new();
        for (key, report) in odd
            .iter()
            .filter(|(key, report)| self.odd.get(*key) != Some(report))
        {
            let purpose = purpose(world, key, &report.services);
            let of = |about| trouble(about, key, (report, purpose));
            events.extend(service_of(&report.services).map(of));
        }
        for (key, report) in self.odd.iter().filter(|(key, _)| !odd.contains_key(*key)) {
            if !plan.close.contains(key) {
                events.extend(service_of(&report.services).map(|about| bound(about, key)));
            }
        }
        if plan.bind.len() <= MOST_BOUND {
            for (key, _, services) in plan.bind.iter().filter(|(key, ..)| !odd.contains_key(key)) {
                events.extend(service_of(services).map(|about| bound(about, key)));
            }
        }
        self.odd = odd;
        events
    }

    /// Errors in manifests that were not there before: the last good version stays in force.
    fn rejections(&mut self, world: &World) -> Vec<NewEvent> {
        let errors: BTreeSet<Diagnostic> = world
            .diagnostics()
            .into_iter()
            .filter(|finding| finding.severity == Severity::Error)
            .collect();
        let fresh = errors.difference(&self.rejected).filter_map(|finding| {
            let about = object_of(finding.object.as_deref()?)?;
            let stays = if world.object(&about).is_some() {
                "; the last good version stays in force"
            } else {
                ""
            };
            Some(NewEvent {
                about,
                kind: EventKind::Warning,
                reason: "Rejected",
                message: format!("{finding}{stays}"),
                component: "portico",
            })
        });
        let events = fresh.collect();
        self.rejected = errors;
        events
    }
}

/// What a listener is for, as far as its events differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Traffic,
    HealthCheck,
}

fn purpose(world: &World, key: &ListenerKey, service: &str) -> Purpose {
    let record = world.services().get(service);
    let number = record.and_then(|record| record.addresses.health_check_node_port);
    if number == Some(key.port) {
        Purpose::HealthCheck
    } else {
        Purpose::Traffic
    }
}

fn trouble(
    about: ObjectKey,
    key: &ListenerKey,
    (report, purpose): (&ListenerReport, Purpose),
) -> NewEvent {
    let mut message = format!("{} cannot be bound", address(key));
    let reason = report.reason.iter().map(|reason| format!(": {reason}"));
    let bound = report
        .bound
        .iter()
        .map(|bound| format!("; served on {bound} meanwhile"));
    message.extend(reason.chain(bound));
    NewEvent {
        about,
        kind: EventKind::Warning,
        reason: match (purpose, report.bound) {
            (Purpose::HealthCheck, _) => "FailedToStartServiceHealthcheck",
            (Purpose::Traffic, Some(_)) => "BoundElsewhere",
            (Purpose::Traffic, None) => "FailedToBind",
        },
        message,
        component: "portico",
    }
}

fn bound(about: ObjectKey, key: &ListenerKey) -> NewEvent {
    NewEvent {
        about,
        kind: EventKind::Normal,
        reason: "Bound",
        message: format!("Bound {}", address(key)),
        component: "portico",
    }
}

fn address(key: &ListenerKey) -> String {
    let (port, protocol) = (key.port, key.protocol);
    match key.bind {
        Bind::Address(addr) => format!("{}/{protocol}", std::net::SocketAddr::new(addr, port)),
        Bind::Any | Bind::AnyLoopback => format!("*:{port}/{protocol}"),
        Bind::AnyV6 => format!("[::]:{port}/{protocol}"),
    }
}

/// The Service of a listener that is for one Service alone.
fn service_of(services: &str) -> Option<ObjectKey> {
    let (namespace, name) = services.split_once('/')?;
    (!name.contains([' ', ','])).then(|| ObjectKey {
        kind: Kind::Service,
        namespace: namespace.into(),
        name: name.into(),
    })
}

/// `Service default/web`, as findings name objects.
fn object_of(text: &str) -> Option<ObjectKey> {
    let (kind, path) = text.split_once(' ')?;
    let (namespace, name) = path.split_once('/').unwrap_or(("", path));
    Some(ObjectKey {
        kind: Kind::named(kind)?,
        namespace: namespace.into(),
        name: name.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_of_a_shared_listener_is_none() {
        assert!(service_of("default/web").is_some_and(|key| &*key.name == "web"));
        assert!(service_of("default/a, default/b").is_none());
        assert!(service_of("").is_none());
    }

    #[test]
    fn object_of_a_finding_is_the_object_it_names() {
        let key = object_of("Deployment shop/web").unwrap();
        assert_eq!(
            (key.kind, &*key.namespace, &*key.name),
            (Kind::Deployment, "shop", "web")
        );
        assert_eq!(object_of("Node one").unwrap().kind, Kind::Node);
        assert!(object_of("Secret a/b").is_none());
    }
}
