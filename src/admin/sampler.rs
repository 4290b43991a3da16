//! Windows over the counters: reads them about once a second, away from the data path. Owns the rings and which set of
//! endpoints each belongs to; the arithmetic is the core's.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use portico_core::{
    balance::{EndpointSet, PortState},
    observe::{
        evenness::{self, Evenness},
        window::{Reading, Ring, Span, Totals, Window},
    },
    snapshot::{PortView, Snapshot},
    time::Timestamp,
};
use serde::Serialize;

/// How often counters are read.
pub const PACE: Duration = Duration::from_secs(1);

/// What is known of each Service port's present set of endpoints.
#[derive(Debug, Default)]
pub struct Sampler(Mutex<HashMap<usize, Tracked>>);

/// A Service port with its present set of endpoints.
#[derive(Debug)]
pub(super) struct Tracked {
    /// Kept, so that its address is nobody else's.
    port: Arc<PortState>,
    pub(super) set: Arc<EndpointSet>,
    ring: Ring,
    /// Over the port as a whole: it outlives sets.
    whole: Ring,
    /// The port as a whole when the epoch began.
    whole_before: Reading,
    /// When each endpoint came, in the order of the set.
    pub(super) since: Box<[Timestamp]>,
    /// What the last change of the set was.
    pub(super) change: Change,
    seen: u64,
}

/// Who came and who went when a set became the one in force.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) joined: Vec<SocketAddr>,
    pub(super) left: Vec<SocketAddr>,
}

/// What happened on one Service port over each window.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortWindows {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Service.
    pub service: Arc<str>,
    /// Number.
    pub port: u16,
    /// Protocol.
    pub protocol: String,
    /// Family of its addresses.
    pub ip_family: &'static str,
    /// From the shortest on.
    pub windows: Vec<WindowReport>,
}

/// One window.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowReport {
    /// `1s`, `10s`, `1m`, `mark`, `epoch`.
    pub window: &'static str,
    /// How long it really is.
    pub seconds: f64,
    /// What each endpoint got, in the order of the set.
    pub endpoints: Vec<EndpointShare>,
    /// How even picks in turn are (without those by session affinity); null without any.
    pub picks: Option<Evenness>,
    /// How even connections are.
    pub connections: Option<Evenness>,
    /// How even bytes are, both ways together.
    pub bytes: Option<Evenness>,
}

/// What one endpoint got.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointShare {
    /// Address and port.
    pub address: SocketAddr,
    /// Its share beside the others'.
    pub weight: u16,
    /// What it got.
    #[serde(flatten)]
    pub gained: Totals,
}

impl Sampler {
    /// Reads the counters of every set in force. A set that was not there begins an epoch with what its endpoints had
    /// counted when it was made.
    pub fn sample(&self, snapshot: &Snapshot, now: Timestamp) {
        let mut tracked = self.lock();
        let seen = snapshot.generation.0;
        for view in snapshot.services() {
            for (port, set) in view
                .ports
                .iter()
                .filter_map(|port| Some((port, set_of(port)?)))
            {
                let entry = tracked
                    .entry(key(port))
                    .and_modify(|tracked| tracked.follow(set, now))
                    .or_insert_with(|| Tracked::new(port, set, now));
                entry.seen = seen;
                entry.ring.keep(&reading(set, now));
                entry.whole.keep(&whole(&entry.port, now));
            }
        }
        tracked.retain(|_, tracked| tracked.seen == seen);
    }

    /// Windows since a mark begin now.
    pub fn mark(&self, now: Timestamp) {
        for tracked in self.lock().values_mut() {
            let reading = reading(&tracked.set, now);
            tracked.ring.mark(reading);
            tracked.whole.mark(whole(&tracked.port, now));
        }
    }

    /// How even picks in turn over `span` were, of the set that `port` has now.
    pub(super) fn evenness(&self, port: &PortView, span: Span, now: Timestamp) -> Option<Evenness> {
        let tracked = self.lock();
        let found = tracked.get(&key(port))?;
        found.evenness(&found.over(span, now), |totals| totals.turns)
    }

    /// Looks at what is known of `port`.
    pub(super) fn look<T>(&self, port: &PortView, at: impl FnOnce(&Tracked) -> T) -> Option<T> {
        self.lock().get(&key(port)).map(at)
    }

    /// Every Service port with its windows.
    pub fn report(&self, snapshot: &Snapshot, now: Timestamp) -> Vec<PortWindows> {
        let tracked = self.lock();
        let mut reports = Vec::new();
        for view in snapshot.services() {
            for port in &view.ports {
                let Some(found) = tracked.get(&key(port)) else {
                    continue;
                };
                reports.push(PortWindows {
                    namespace: Arc::clone(&view.namespace),
                    service: Arc::clone(&view.name),
                    port: port.number,
                    protocol: port.name.protocol.to_string(),
                    ip_family: family(port),
                    windows: Span::ALL.map(|span| found.report(span, now)).into(),
                });
            }
        }
        reports
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Tracked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracked {
    fn new(port: &PortView, set: &Arc<EndpointSet>, now: Timestamp) -> Self {
        let nothing = Reading {
            at: now,
            totals: [Totals::default()].into(),
        };
        Self {
            port: Arc::clone(&port.state),
            set: Arc::clone(set),
            ring: begin(set, now),
            whole: Ring::new(nothing.clone()),
            whole_before: nothing,
            since: vec![now; set.len()].into(),
            change: Change::default(),
            seen: 0,
        }
    }

    fn follow(&mut self, set: &Arc<EndpointSet>, now: Timestamp) {
        if Arc::ptr_eq(&self.set, set) {
            return;
        }
        let before = self.set.endpoints().iter().zip(&self.since);
        let mut gone: HashMap<SocketAddr, Timestamp> = before
            .map(|(endpoint, since)| (endpoint.addr, *since))
            .collect();
        let mut joined = Vec::new();
        let addresses = set.endpoints().iter().map(|endpoint| endpoint.addr);
        let since = addresses.map(|addr| {
            gone.remove(&addr).unwrap_or_else(|| {
                joined.push(addr);
                now
            })
        });
        self.since = since.collect();
        let mut left: Vec<SocketAddr> = gone.into_keys().collect();
        left.sort_unstable();
        self.change = Change { joined, left };
        self.set = Arc::clone(set);
        self.ring = begin(set, now);
        self.whole_before = self.whole_at_the_beginning(now);
    }

    /// The port when its set was made, which may be up to [`PACE`] before it is seen: without what the endpoints have
    /// got in it since.
    fn whole_at_the_beginning(&self, now: Timestamp) -> Reading {
        let gained = self.over(Span::Epoch, now).gained;
        let sum = |of: fn(&Totals) -> u64| gained.iter().map(of).sum::<u64>();
        let since = Totals {
            turns: sum(|of| of.picks),
            picks: sum(|of| of.picks),
            connections: sum(|of| of.connections),
            // Of the port these are something else: connections that were turned away.
            failures: 0,
            bytes_to: sum(|of| of.bytes_to),
            bytes_from: sum(|of| of.bytes_from),
        };
        let mut reading = whole(&self.port, now);
        for totals in &mut reading.totals {
            *totals = *totals - since;
        }
        reading
    }

    /// When the set came into force, as far as the sampler saw.
    pub(super) fn began(&self) -> Timestamp {
        self.ring.first().at
    }

    /// What each endpoint got, within the epoch.
    pub(super) fn over(&self, span: Span, now: Timestamp) -> Window {
        self.ring.over(span, &reading(&self.set, now))
    }

    /// What the port as a whole got: one element.
    pub(super) fn whole_over(&self, span: Span, now: Timestamp) -> Window {
        let now = whole(&self.port, now);
        match span {
            Span::Epoch => Ring::new(self.whole_before.clone()).over(span, &now),
            _ => self.whole.over(span, &now),
        }
    }

    pub(super) fn weights(&self) -> Vec<u64> {
        let weights = (0..self.set.len()).map(|index| self.set.weight(index).get());
        weights.map(u64::from).collect()
    }

    pub(super) fn evenness(
        &self,
        window: &Window,
        what: impl Fn(&Totals) -> u64,
    ) -> Option<Evenness> {
        let counts: Vec<u64> = window.gained.iter().map(what).collect();
        evenness::by_weight(&counts, &self.weights())
    }

    fn report(&self, span: Span, now: Timestamp) -> WindowReport {
        let window = self.over(span, now);
        let endpoints = self.set.endpoints().iter().zip(&window.gained).enumerate();
        WindowReport {
            window: span.as_str(),
            seconds: window.to.since(window.from).as_secs_f64(),
            endpoints: endpoints
                .map(|(index, (endpoint, gained))| EndpointShare {
                    address: endpoint.addr,
                    weight: self.set.weight(index).get(),
                    gained: *gained,
                })
                .collect(),
            picks: self.evenness(&window, |totals| totals.turns),
            connections: self.evenness(&window, |totals| totals.connections),
            bytes: self.evenness(&window, |totals| totals.bytes_to + totals.bytes_from),
        }
    }
}

/// The set that most clients of a port get.
fn set_of(port: &PortView) -> Option<&Arc<EndpointSet>> {
    port.cluster.as_ref().or(port.local.as_ref())
}

/// A port's counters outlive its views.
fn key(port: &PortView) -> usize {
    Arc::as_ptr(&port.state).addr()
}

/// As kube-proxy names families in labels.
pub(super) fn family(port: &PortView) -> &'static str {
    match port.family {
        portico_core::object::service::IpFamily::IPv4 => "IPv4",
        portico_core::object::service::IpFamily::IPv6 => "IPv6",
    }
}

fn reading(set: &EndpointSet, now: Timestamp) -> Reading {
    let totals = set
        .endpoints()
        .iter()
        .map(|endpoint| endpoint.state.totals());
    Reading {
        at: now,
        totals: totals.collect(),
    }
}

fn begin(set: &EndpointSet, now: Timestamp) -> Ring {
    Ring::new(Reading {
        at: now,
        totals: set.first_totals().into(),
    })
}

fn whole(port: &PortState, now: Timestamp) -> Reading {
    Reading {
        at: now,
        totals: [port.totals()].into(),
    }
}
