//! What is left while the program ends. Owns when it is said and in which words; closing is the data path's.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use portico_dataplane::{Connection, Phase};
use tokio::time::{Interval, MissedTickBehavior};

use crate::words::counted;

/// How often it is looked at.
const PACE: Duration = Duration::from_secs(2);
/// Most Services that are named.
const MOST: usize = 5;

/// Says what is left, whenever that has changed.
#[derive(Default)]
pub(super) struct DrainReporter {
    ticks: Option<Interval>,
    said: String,
}

impl DrainReporter {
    /// The end has begun: the first report is due at once.
    pub(super) fn begin(&mut self) {
        let mut ticks = tokio::time::interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.ticks.get_or_insert(ticks);
    }

    /// Waits until it is time to look; for ever before the end has begun.
    ///
    /// # Cancel safety
    /// Cancel safe: when the next look is due is kept.
    pub(super) async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }

    /// What to say of `connections`; `None` if that has been said.
    pub(super) fn report(&mut self, connections: &[Connection]) -> Option<String> {
        let text = left(connections);
        if text == self.said {
            return None;
        }
        self.said.clone_from(&text);
        (!text.is_empty()).then_some(text)
    }
}

/// `3 connections are left: 2 of default/web, 1 of default/db; 1 half-closed`; nothing when none is left.
fn left(connections: &[Connection]) -> String {
    if connections.is_empty() {
        return String::new();
    }
    let mut services: BTreeMap<String, usize> = BTreeMap::new();
    for connection in connections {
        let name = connection.service.as_ref().map_or_else(
            || "no Service".to_owned(),
            |name| format!("{}/{}", name.namespace, name.service),
        );
        *services.entry(name).or_default() += 1;
    }
    let mut by_count: Vec<_> = services.into_iter().collect();
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more = by_count.len().saturating_sub(MOST);
    let named = by_count.iter().take(MOST);
    let mut parts: Vec<String> = named
        .map(|(name, count)| format!("{count} of {name}"))
        .collect();
    if more > 0 {
        parts.push(format!("the rest of {}", counted(more, "more Service")));
    }
    let count = |wanted: fn(&Phase) -> bool| {
        let phases = connections.iter().map(|connection| &connection.phase);
        phases.filter(|phase| wanted(phase)).count()
    };
    let half_closed = count(|phase| matches!(phase, Phase::HalfClosed(_)));
    let connecting = count(|phase| matches!(phase, Phase::Connecting));
    let mut text = match connections.len() {
        1 => "1 connection is left: ".to_owned(),
        count => format!("{count} connections are left: "),
    };
    text.push_str(&parts.join(", "));
    for (count, word) in [(half_closed, "half-closed"), (connecting, "connecting")] {
        if count > 0 {
            let _ = write!(text, "; {count} {word}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use portico_core::{object::Protocol, snapshot::ServicePortName, time::Timestamp};
    use portico_dataplane::Side;

    use super::*;

    fn connection(id: u64, service: &str, phase: Phase) -> Connection {
        Connection {
            id,
            since: Timestamp::from_millis(0),
            client: None,
            local: "127.96.0.7:80".parse().unwrap(),
            service: Some(ServicePortName {
                namespace: "default".into(),
                service: service.into(),
                port: "".into(),
                protocol: Protocol::Tcp,
            }),
            endpoint: None,
            phase,
            draining: None,
            to_endpoint: 0,
            to_client: 0,
        }
    }

    #[test]
    fn report_names_the_services_with_most_first_and_says_nothing_twice() {
        let mut reporter = DrainReporter::default();
        let all = [
            connection(1, "db", Phase::Open),
            connection(2, "web", Phase::Open),
            connection(3, "web", Phase::HalfClosed(Side::Downstream)),
        ];
        assert_eq!(
            reporter.report(&all).as_deref(),
            Some("3 connections are left: 2 of default/web, 1 of default/db; 1 half-closed")
        );
        assert_eq!(reporter.report(&all), None);
        assert_eq!(
            reporter.report(&all[..1]).as_deref(),
            Some("1 connection is left: 1 of default/db")
        );
        assert_eq!(reporter.report(&[]), None);
    }

    #[test]
    fn report_of_many_services_is_short() {
        let all: Vec<_> = (0..9)
            .map(|n| connection(n, &format!("s{n}"), Phase::Connecting))
            .collect();
        let text = left(&all);
        assert!(text.contains("the rest of 4 more Services"), "{text}");
        assert!(text.ends_with("; 9 connecting"), "{text}");
    }
}
