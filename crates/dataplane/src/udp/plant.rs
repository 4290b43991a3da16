//! What a worker's UDP tasks share. Owns the flows with their sockets, and the way of a batch from one side to the
//! other; must not wait for anything: the tasks do.

use std::{
    cell::Cell,
    collections::BTreeMap,
    net::SocketAddr,
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use portico_core::{
    flow::{
        FlowCounts, FlowId, FlowKey, FlowTable, Step, Way,
        routes::{Routes as _, SnapshotRoutes},
    },
    snapshot::{Generation, Snapshot},
    time::Timestamp,
};

use super::{Turn, sockets::Sockets};
use crate::{
    clock,
    listen::accept::Listening,
    net::{
        self,
        datagrams::{BATCH, Batch, Failure, Received, Target, Wants},
    },
    unkept,
    worker::Shared,
};

/// A worker complains about sockets that cannot be opened at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// What the tasks of a worker share.
pub(super) struct Plant {
    pub(super) table: FlowTable,
    pub(super) sockets: Option<Sockets>,
    /// Two megabytes, from the first listener on.
    pub(super) batch: Option<Batch>,
    pub(super) listeners: BTreeMap<u64, Arc<Listening>>,
    swept: Generation,
    published: Published,
    complained: Option<Timestamp>,
}

/// What the shared totals have of this worker.
#[derive(Default)]
struct Published {
    counts: FlowCounts,
    flows: Cell<usize>,
}

/// A batch on its way to endpoints.
pub(super) struct Delivery<'a> {
    pub(super) listening: &'a Listening,
    pub(super) routes: SnapshotRoutes<'a>,
    pub(super) now: Timestamp,
    pub(super) batch: &'a Batch,
    pub(super) shared: &'a Shared,
}

impl Delivery<'_> {
    /// Whose the datagram at `place` is; `None` for what no flow can be made of.
    fn key(&self, place: usize) -> Option<FlowKey> {
        let bound = self.listening.bound;
        let local = if self.listening.hears_many() {
            self.batch.local(place)?
        } else {
            bound.ip()
        };
        // What has no source port cannot be answered (RFC 768).
        let client = self
            .batch
            .source(place)
            .filter(|client| client.port() != 0)?;
        Some(FlowKey {
            socket: self.listening.id,
            client,
            local: SocketAddr::new(local, bound.port()),
        })
    }

    /// Datagrams go nowhere, for want of an endpoint or of a descriptor.
    fn dropped(&self, key: &FlowKey, datagrams: usize) {
        if let Some(port) = self.routes.port(key) {
            port.datagrams_dropped.fetch_add(count(datagrams), Relaxed);
        }
    }
}

impl Plant {
    pub(super) fn new(max_attempts: usize) -> Self {
        Self {
            table: FlowTable::new(1, max_attempts),
            sockets: None,
            batch: None,
            listeners: BTreeMap::new(),
            swept: Generation::default(),
            published: Published::default(),
            complained: None,
        }
    }

    /// The bound as descriptors and other workers' flows leave it.
    pub(super) fn make_room(&mut self, shared: &Shared) {
        let room = shared.room_for_flows();
        self.table.set_bound(self.table.len().saturating_add(room));
        self.close();
    }

    /// Delivers runs of datagrams of one flow at a time; returns how many went.
    pub(super) fn deliver_all(&mut self, delivery: &Delivery<'_>, received: usize) -> usize {
        let mut sent = 0;
        let mut place = 0;
        while place < received {
            let key = delivery.key(place);
            let run = (place + 1..received).take_while(|next| delivery.key(*next) == key);
            let end = place + 1 + run.count();
            if let Some(key) = key {
                sent += self.deliver(delivery, key, place..end);
            }
            place = end;
        }
        sent
    }

    fn deliver(
        &mut self,
        delivery: &Delivery<'_>,
        key: FlowKey,
        mut places: Range<usize>,
    ) -> usize {
        let mut sent = 0;
        // A refusal takes its datagram with it or none; the bound is for sockets that fail in ways of their own.
        for _ in 0..BATCH {
            let step = self.table.datagram(key, delivery.now, &delivery.routes);
            self.close();
            let id = match step {
                Step::Forward(id) => id,
                Step::Open(id, endpoint) => match self.open(id, endpoint, delivery) {
                    Opened::Yes => id,
                    Opened::Again => continue,
                    Opened::No => {
                        delivery.dropped(&key, places.len());
                        return sent;
                    }
                },
                Step::Drop(_) => {
                    delivery.dropped(&key, places.len());
                    return sent;
                }
            };
            let (went, is_refused) = self.forward(id, delivery.batch, &mut places);
            sent += went;
            if !is_refused {
                self.table.lost(id, count(places.len()));
                return sent;
            }
            self.table.refused(id, delivery.now, &delivery.routes);
            self.close();
        }
        sent
    }

    /// Sends `places` through a flow's socket: how many went, and whether the endpoint refused before the rest.
    fn forward(&self, id: FlowId, batch: &Batch, places: &mut Range<usize>) -> (usize, bool) {
        let Some(fd) = self.sockets.as_ref().and_then(|sockets| sockets.get(id)) else {
            return (0, false);
        };
        let mut sent = 0;
        while places.start < places.end {
            match batch.send(fd, places.clone(), None) {
                Ok(went) => {
                    let start = places.start;
                    places.start += went.max(1);
                    sent += went;
                    let bytes = batch.bytes(start..start + went);
                    self.table.moved(id, Way::ToEndpoint, count(went), bytes);
                }
                Err(error) => match Failure::of(&error) {
                    Failure::Refused => return (sent, true),
                    Failure::Later | Failure::Exhausted => return (sent, false),
                    Failure::Unfit => {
                        self.table.lost(id, 1);
                        places.start += 1;
                    }
                },
            }
        }
        (sent, false)
    }

    fn open(&mut self, id: FlowId, endpoint: SocketAddr, delivery: &Delivery<'_>) -> Opened {
        loop {
            let Some(sockets) = &mut self.sockets else {
                return Opened::No;
            };
            let key = self.table.key(id);
            let keeping = key.and_then(|key| {
                let port = delivery.routes.keeping(&key)?;
                Some((key.client.ip().to_canonical(), port))
            });
            let client = keeping.map(|(client, _)| client);
            let error = match sockets.open(id, endpoint, client) {
                Ok(why) => {
                    if let (Some(why), Some((client, port))) = (why, keeping) {
                        unkept::tell(port, client, endpoint, why);
                    }
                    return Opened::Yes;
                }
                Err(error) => error,
            };
            tracing::debug!(%endpoint, %error, "no socket for a flow");
            match Failure::of(&error) {
                Failure::Refused => {
                    self.table.refused(id, delivery.now, &delivery.routes);
                    self.close();
                    return Opened::Again;
                }
                Failure::Exhausted | Failure::Later => {
                    let totals = &delivery.shared.totals;
                    totals.flows_unopened.fetch_add(1, Relaxed);
                    self.complain(&error, delivery.now);
                    if self.shed_for(id) {
                        continue;
                    }
                }
                Failure::Unfit => {}
            }
            self.table.unopened(id);
            self.close();
            return Opened::No;
        }
    }

    /// Sheds the flow used longest ago, unless that is `id`, which needs its descriptor.
    fn shed_for(&mut self, id: FlowId) -> bool {
        let has_shed = self.table.len() > 1 && self.table.shed();
        self.close();
        has_shed && self.table.key(id).is_some()
    }

    /// Says why flows end before their time and what to do, at most once in [`COMPLAINT_INTERVAL`].
    fn complain(&mut self, error: &std::io::Error, now: Timestamp) {
        let last = self.complained;
        if last.is_some_and(|last| now.since(last) < COMPLAINT_INTERVAL) {
            return;
        }
        self.complained = Some(now);
        tracing::warn!(
            %error,
            flows = self.table.len(),
            descriptors = net::descriptor_limit(),
            "no socket for a UDP flow, so that the flow used longest ago ends for it: raise `ulimit -n` (LimitNOFILE= \
             in a systemd unit) and start again"
        );
    }

    /// One batch of an endpoint's answers. A refusal is told before what was answered earlier, which still counts.
    pub(super) fn answers(
        &mut self,
        shared: &Shared,
        id: FlowId,
        now: Timestamp,
        batch: &mut Batch,
    ) -> Turn {
        let Some(fd) = self.sockets.as_ref().and_then(|sockets| sockets.get(id)) else {
            return Turn::Drained;
        };
        let mut is_refused = false;
        let Received {
            count: received,
            is_all,
        } = match batch.receive(fd, Wants::Bytes) {
            Err(error) if Failure::of(&error) == Failure::Refused => {
                is_refused = true;
                batch.receive(fd, Wants::Bytes).unwrap_or_default()
            }
            received => received.unwrap_or_default(),
        };
        if received > 0 && self.table.answer(id, now) {
            let sent = self.to_client(id, batch, received);
            let totals = &shared.totals;
            totals
                .datagrams_to_downstream
                .fetch_add(count(sent), Relaxed);
            totals
                .datagrams_dropped
                .fetch_add(count(received - sent), Relaxed);
            if received > sent {
                self.table.lost(id, count(received - sent));
            }
        }
        if is_refused {
            self.refused(shared, id, now);
        }
        if is_all { Turn::Drained } else { Turn::Used }
    }

    /// An endpoint refused between two datagrams.
    fn refused(&mut self, shared: &Shared, id: FlowId, now: Timestamp) {
        let key = self.table.key(id);
        let listening = key.and_then(|key| self.listeners.get(&key.socket));
        if let Some(listening) = listening {
            let snapshot = shared.published.load();
            let routes = routes(shared, &snapshot, listening);
            self.table.refused(id, now, &routes);
            self.close();
        }
    }

    /// Sends answers to the client of a flow from the address that it asked.
    fn to_client(&self, id: FlowId, batch: &Batch, received: usize) -> usize {
        let Some((key, listening)) = self
            .table
            .key(id)
            .and_then(|key| Some((key, self.listeners.get(&key.socket)?)))
        else {
            return 0;
        };
        let from = listening.hears_many().then(|| key.local.ip());
        let target = Target::new(key.client, from);
        let (mut sent, mut place) = (0, 0);
        while place < received {
            match batch.send(&listening.fd, place..received, Some(&target)) {
                Ok(went) => {
                    let bytes = batch.bytes(place..place + went);
                    self.table.moved(id, Way::ToClient, count(went), bytes);
                    sent += went;
                    place += went.max(1);
                }
                Err(error) if Failure::of(&error) == Failure::Later => break,
                Err(_) => place += 1,
            }
        }
        sent
    }

    pub(super) fn tick(&mut self, shared: &Shared) {
        self.table.tick(clock::now());
        let snapshot = shared.published.load();
        if snapshot.generation != self.swept {
            self.swept = snapshot.generation;
            for listening in self.listeners.values() {
                self.table
                    .sweep(listening.id, &routes(shared, &snapshot, listening));
            }
        }
        self.close();
        self.publish(shared);
    }

    /// Closes the sockets of what the table has ended.
    pub(super) fn close(&mut self) {
        while let Some(id) = self.table.closed() {
            if let Some(sockets) = &mut self.sockets {
                sockets.close(id);
            }
        }
    }

    /// Adds to the totals what has changed since the last time.
    pub(super) fn publish(&mut self, shared: &Shared) {
        let flows = self.table.len();
        let before = self.published.flows.replace(flows);
        if flows != before {
            shared.flows.fetch_add(flows.wrapping_sub(before), Relaxed);
        }
        let counts = self.table.counts();
        let before = std::mem::replace(&mut self.published.counts, counts);
        if counts != before {
            let totals = &shared.totals;
            for (total, now, before) in [
                (&totals.flows_opened, counts.opened, before.opened),
                (&totals.flows_shed, counts.shed, before.shed),
                (&totals.flows_expired, counts.expired, before.expired),
                (&totals.flows_refused, counts.refused, before.refused),
            ] {
                total.fetch_add(now - before, Relaxed);
            }
        }
    }
}

/// Whether a flow has its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opened {
    Yes,
    /// No, but another try may do.
    Again,
    No,
}

pub(super) fn routes<'a>(
    shared: &'a Shared,
    snapshot: &'a Snapshot,
    listening: &Listening,
) -> SnapshotRoutes<'a> {
    SnapshotRoutes {
        snapshot,
        scope: listening.key.scope,
        declared_port: listening.key.port,
        affinity: &shared.affinity,
    }
}

pub(super) fn count(datagrams: usize) -> u64 {
    u64::try_from(datagrams).unwrap_or_default()
}
