//! What the program in front of the endpoints says of them: before, after, and with every change in between. Owns the
//! shape and the epochs; how it is asked is the caller's.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// One look at a Service port.
#[derive(Debug, Clone)]
pub struct View {
    /// When it was seen.
    pub at: Instant,
    /// Generation in force.
    pub generation: u64,
    /// How an endpoint is chosen.
    pub balance: String,
    /// Time-out of session affinity; `None` without.
    pub affinity_seconds: Option<u64>,
    /// Connections (flows) that were accepted.
    pub accepted: u64,
    /// Attempts that were repeated elsewhere.
    pub retries: u64,
    /// Connections that were turned away.
    pub rejected: u64,
    /// Usable endpoints, sorted by address.
    pub endpoints: Vec<EndpointView>,
}

/// One endpoint of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    /// Where it is.
    pub address: SocketAddr,
    /// Its pod, where one is known.
    pub name: Option<String>,
    /// Its share beside the others'.
    pub weight: u64,
    /// Times that it was chosen.
    pub picks: u64,
    /// Attempts that failed.
    pub failures: u64,
}

impl View {
    /// Whether somebody is chosen at this address.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        let mut endpoints = self.endpoints.iter();
        endpoints.any(|endpoint| endpoint.address == address)
    }
}

impl EndpointView {
    /// Times that it was chosen and reached.
    pub(super) const fn reached(&self) -> u64 {
        self.picks.saturating_sub(self.failures)
    }

    /// What it is called in a report.
    pub(super) fn title(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| self.address.to_string())
    }

    /// Whether an answer signed `name` is its.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
            || self.address.to_string() == name
            || self.address.ip().to_string() == name
    }
}

/// Who was to be chosen from, for a time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Epoch {
    /// Since the run began.
    pub(super) from: Duration,
    /// Since the run began; the last one ends with it.
    pub(super) to: Duration,
    pub(super) members: Vec<Member>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) weight: u64,
}

/// How long a change may take to be seen here: what was asked in this time before is left out of an epoch.
pub(super) const UNSURE: Duration = Duration::from_millis(50);

/// The epochs of a run that began at `began` and took `took`.
pub(super) fn epochs(views: &[View], began: Instant, took: Duration) -> Vec<Epoch> {
    let mut epochs: Vec<Epoch> = Vec::new();
    for view in views {
        let members = view.endpoints.iter().map(|endpoint| Member {
            name: endpoint.title(),
            weight: endpoint.weight,
        });
        let members: Vec<Member> = members.collect();
        let at = view.at.saturating_duration_since(began).min(took);
        if let Some(last) = epochs.last_mut() {
            if last.members == members {
                continue;
            }
            last.to = at.saturating_sub(UNSURE).max(last.from);
        }
        let from = if epochs.is_empty() {
            Duration::ZERO
        } else {
            at
        };
        epochs.push(Epoch {
            from,
            to: took,
            members,
        });
    }
    // What was before the run, or is after it, is none of its epochs.
    epochs.retain(|epoch| epoch.to > epoch.from);
    epochs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(at: Instant, weights: &[u64]) -> View {
        let endpoint = |(place, weight): (usize, &u64)| EndpointView {
            address: SocketAddr::from(([127, 0, 0, 1], u16::try_from(place).unwrap() + 1)),
            name: None,
            weight: *weight,
            picks: 0,
            failures: 0,
        };
        View {
            at,
            generation: 1,
            balance: "round-robin".into(),
            affinity_seconds: None,
            accepted: 0,
            retries: 0,
            rejected: 0,
            endpoints: weights.iter().enumerate().map(endpoint).collect(),
        }
    }

    #[test]
    fn epochs_end_where_the_endpoints_change() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let views = [
            view(began, &[1, 1]),
            view(at(300), &[1, 1]),
            view(at(500), &[1, 1, 1]),
            view(at(2000), &[1]),
        ];
        let found = epochs(&views, began, Duration::from_secs(1));
        let spans: Vec<_> = found
            .iter()
            .map(|epoch| {
                (
                    epoch.from.as_millis(),
                    epoch.to.as_millis(),
                    epoch.members.len(),
                )
            })
            .collect();
        assert_eq!(spans, [(0, 450, 2), (500, 950, 3)]);
    }
}
