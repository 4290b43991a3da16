//! What happened, for people: the Events of a cluster (`kubectl get events`). Owns a bounded log in which the same
//! event again is counted instead of repeated (Kubernetes API reference, Event: `count`, `firstTimestamp`,
//! `lastTimestamp`). Must not decide what is worth an event.

use std::{collections::VecDeque, sync::Arc};

use crate::{object::ObjectKey, time::Timestamp};

/// Most events kept; the oldest goes first.
pub const MOST_EVENTS: usize = 2048;

/// `type` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

impl EventKind {
    /// As the Kubernetes API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique in a run, rising.
    pub id: u64,
    /// `involvedObject`.
    pub about: ObjectKey,
    /// `type`.
    pub kind: EventKind,
    /// `reason`, in CamelCase: `Scheduled`, `Killing`, `ScalingReplicaSet`.
    pub reason: Arc<str>,
    /// `message`.
    pub message: Arc<str>,
    /// `source.component`: `deployment-controller`, `kubelet`, `portico`.
    pub component: &'static str,
    /// `firstTimestamp`.
    pub first: Timestamp,
    /// `lastTimestamp`.
    pub last: Timestamp,
    /// `count`.
    pub count: u32,
}

/// What to write down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// `involvedObject`.
    pub about: ObjectKey,
    /// `type`.
    pub kind: EventKind,
    /// `reason`.
    pub reason: &'static str,
    /// `message`.
    pub message: String,
    /// `source.component`.
    pub component: &'static str,
}

/// The newest [`MOST_EVENTS`] events, the one that happened last at the end.
#[derive(Debug, Clone, Default)]
pub struct EventLog {
    events: VecDeque<Arc<Event>>,
    last_id: u64,
    /// Rises with every change.
    version: u64,
}

impl EventLog {
    /// Writes `new` down as having happened at `now`.
    pub fn record(&mut self, new: NewEvent, now: Timestamp) {
        self.version += 1;
        let same = |event: &Arc<Event>| {
            event.about == new.about
                && *event.reason == *new.reason
                && *event.message == *new.message
                && event.kind == new.kind
        };
        if let Some(index) = self.events.iter().rposition(same)
            && let Some(known) = self.events.remove(index)
        {
            let mut known = Arc::unwrap_or_clone(known);
            known.count = known.count.saturating_add(1);
            known.last = now;
            self.events.push_back(Arc::new(known));
            return;
        }
        if self.events.len() >= MOST_EVENTS {
            self.events.pop_front();
        }
        self.last_id += 1;
        self.events.push_back(Arc::new(Event {
            id: self.last_id,
            about: new.about,
            kind: new.kind,
            reason: new.reason.into(),
            message: new.message.into(),
            component: new.component,
            first: now,
            last: now,
            count: 1,
        }));
    }

    /// All events, the one that happened last at the end.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.events.iter()
    }

    /// Rises with every change.
    pub const fn version(&self) -> u64 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    fn event(message: &str) -> NewEvent {
        NewEvent {
            about: ObjectKey {
                kind: Kind::Pod,
                namespace: "default".into(),
                name: "web-0".into(),
            },
            kind: EventKind::Normal,
            reason: "Killing",
            message: message.to_owned(),
            component: "kubelet",
        }
    }

    #[test]
    fn record_of_the_same_event_counts_it_and_moves_it_to_the_end() {
        let mut log = EventLog::default();
        log.record(event("a"), Timestamp::from_millis(1));
        log.record(event("b"), Timestamp::from_millis(2));
        log.record(event("a"), Timestamp::from_millis(3));
        let seen: Vec<_> = log
            .iter()
            .map(|event| (&*event.message, event.count, event.last.as_millis()))
            .collect();
        assert_eq!(seen, [("b", 1, 2), ("a", 2, 3)]);
    }

    #[test]
    fn record_beyond_the_bound_forgets_the_oldest() {
        let mut log = EventLog::default();
        for number in 0..=MOST_EVENTS {
            log.record(event(&number.to_string()), Timestamp::default());
        }
        assert_eq!(log.iter().count(), MOST_EVENTS);
        assert_eq!(log.iter().next().map(|event| event.id), Some(2));
    }
}
