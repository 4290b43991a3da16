//! What `/metrics` answers: our atomics, read while the text is written, and what the facade recorded. Owns which
//! counter is which series and the bound of their number; names and help are the table's.
//!
//! A scrape is written family by family as the client takes it, so that a slow client or ten thousand endpoints cost
//! memory for one piece at a time. Figures of one scrape are read at slightly different moments.

mod process;
mod series;

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame};
use portico_core::{
    balance::Endpoint,
    snapshot::{PortView, Snapshot},
    time::Timestamp,
};

use super::{public::Seen, sampler};
use crate::telemetry::metrics::{
    self,
    text::{Samples, head, labels},
};
use series::{ENDPOINT, PORT};

/// Service ports or endpoints written before others' turn.
const PIECE: usize = 100;
/// Bytes that a piece begins with: as many as most families need.
const PIECE_BYTES: usize = PIECE * 160;

/// A Service port with its labels.
struct Port {
    labels: String,
    view: Arc<PortView>,
}

/// One endpoint of a port, or all of them together.
pub(super) struct Group {
    labels: String,
    /// Each with its weight.
    members: Vec<(Endpoint, u16)>,
}

/// What is still to be written.
enum Step {
    Process,
    Port(usize, usize),
    Endpoint(usize, usize),
}

/// A scrape, as a body.
pub(super) struct Scrape {
    seen: Seen,
    snapshot: Arc<Snapshot>,
    ports: Vec<Port>,
    groups: Vec<Group>,
    now: Timestamp,
    steps: VecDeque<Step>,
}

impl Scrape {
    /// Of the snapshot in force. When all Services have more than `most` endpoints, those of a Service port that would
    /// go beyond are one series, `endpoint="other"`.
    pub(super) fn new(seen: Seen, most: usize, now: Timestamp) -> Self {
        let snapshot = seen.published.load_full();
        let mut ports = Vec::new();
        let mut groups = Vec::new();
        let mut room = most;
        for view in snapshot.services() {
            for port in &view.ports {
                let labels = labels(&[
                    ("namespace", &view.namespace),
                    ("service", &view.name),
                    ("port", &port.number),
                    ("protocol", &port.name.protocol),
                    ("ip_family", &sampler::family(port)),
                ]);
                groups_of(port, &labels, &mut room, &mut groups);
                let view = Arc::clone(port);
                ports.push(Port { labels, view });
            }
        }
        let families = (0..PORT.len()).map(|family| Step::Port(family, 0));
        let of_endpoints = (0..ENDPOINT.len()).map(|family| Step::Endpoint(family, 0));
        Self {
            steps: [Step::Process]
                .into_iter()
                .chain(families)
                .chain(of_endpoints)
                .collect(),
            seen,
            snapshot,
            ports,
            groups,
            now,
        }
    }

    /// The next piece; `None` at the end.
    fn piece(&mut self) -> Option<String> {
        let mut text = String::with_capacity(PIECE_BYTES);
        match self.steps.pop_front()? {
            Step::Process => {
                text.push_str(&metrics::render());
                process::write(&mut text, &self.seen, &self.snapshot);
            }
            Step::Port(family, from) => self.ports_of(family, from, &mut text),
            Step::Endpoint(family, from) => self.endpoints_of(family, from, &mut text),
        }
        Some(text)
    }

    fn ports_of(&mut self, family: usize, from: usize, text: &mut String) {
        let Some((name, write)) = PORT.get(family) else {
            return;
        };
        if from == 0 {
            head(text, name);
        }
        for port in self.ports.iter().skip(from).take(PIECE) {
            let mut samples = Samples {
                text,
                name,
                common: &port.labels,
            };
            write(&mut samples, &port.view, (&self.seen.sampler, self.now));
        }
        if from + PIECE < self.ports.len() {
            self.steps.push_front(Step::Port(family, from + PIECE));
        }
    }

    fn endpoints_of(&mut self, family: usize, from: usize, text: &mut String) {
        let Some((name, write)) = ENDPOINT.get(family) else {
            return;
        };
        if from == 0 {
            head(text, name);
        }
        for group in self.groups.iter().skip(from).take(PIECE) {
            let mut samples = Samples {
                text,
                name,
                common: &group.labels,
            };
            write(&mut samples, group, self.now);
        }
        if from + PIECE < self.groups.len() {
            self.steps.push_front(Step::Endpoint(family, from + PIECE));
        }
    }
}

fn groups_of(port: &PortView, common: &str, room: &mut usize, groups: &mut Vec<Group>) {
    let mut members: Vec<(Endpoint, u16)> = Vec::new();
    for set in [&port.cluster, &port.local].into_iter().flatten() {
        for (index, endpoint) in set.endpoints().iter().enumerate() {
            members.push((endpoint.clone(), set.weight(index).get()));
        }
    }
    members.sort_by_key(|(endpoint, _)| endpoint.addr);
    members.dedup_by_key(|(endpoint, _)| endpoint.addr);
    if members.is_empty() {
        return;
    }
    if members.len() > *room {
        let labels = format!("{common},endpoint=\"other\"");
        groups.push(Group { labels, members });
        return;
    }
    *room -= members.len();
    groups.extend(members.into_iter().map(|member| Group {
        labels: format!("{common},endpoint=\"{}\"", member.0.addr),
        members: vec![member],
    }));
}

impl Body for Scrape {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let scrape = self.get_mut();
        // A scrape of a large World takes milliseconds of a core, and the kernel lets a thread run for as long as that
        // though others woke meanwhile: so a connection waits for one piece at most, and not for one scrape.
        std::thread::yield_now();
        // A family without series has nothing but its head; an empty frame would be none.
        let piece = std::iter::from_fn(|| scrape.piece()).find(|piece| !piece.is_empty());
        Poll::Ready(piece.map(|text| Ok(Frame::data(Bytes::from(text)))))
    }
}

#[cfg(test)]
mod tests;
