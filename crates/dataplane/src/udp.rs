//! UDP of one worker: its listening sockets, its flows' sockets, and the datagrams between them. Owns input and output
//! in batches and the worker's share of the counters; which flow a datagram belongs to, where that goes and when it
//! ends is [`portico_core::flow`]'s.
//!
//! A flow's socket is connected to its endpoint. All of them are in one epoll set of the worker's, which the runtime
//! watches as one descriptor: so a flow costs no task, and closing one frees its descriptor at once.

mod sockets;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    ops::Range,
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use portico_core::{
    flow::{FlowCounts, FlowId, FlowKey, FlowTable, Step, routes::SnapshotRoutes},
    snapshot::{Generation, Snapshot, plan::Bind},
    time::Timestamp,
};
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    clock,
    listen::accept::Listening,
    net::{
        self,
        datagrams::{BATCH, Batch, Failure, Target, Wants},
    },
    worker::{Shared, Worker},
};
use sockets::{Ready, Sockets};

/// How often flows are looked at for their time-outs and for a new Snapshot.
const TICK: Duration = Duration::from_secs(1);

/// What a turn of receiving came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing is left.
    Drained,
    /// There may be more, but others wait.
    Used,
}

/// A worker's UDP; not borrowed across an await.
pub(crate) struct Udp {
    plant: RefCell<Plant>,
    /// A flow has begun where there was none.
    begun: Notify,
    answers: RefCell<Option<JoinHandle<()>>>,
}

/// What the tasks of a worker share.
struct Plant {
    table: FlowTable,
    sockets: Option<Sockets>,
    /// Two megabytes, from the first listener on.
    batch: Option<Batch>,
    listeners: BTreeMap<u64, Arc<Listening>>,
    swept: Generation,
    published: Published,
}

/// What the shared totals have of this worker.
#[derive(Default)]
struct Published {
    counts: FlowCounts,
    flows: Cell<usize>,
}

impl Udp {
    pub(crate) fn new(max_attempts: usize) -> Self {
        Self {
            plant: RefCell::new(Plant {
                table: FlowTable::new(1, max_attempts),
                sockets: None,
                batch: None,
                listeners: BTreeMap::new(),
                swept: Generation::default(),
                published: Published::default(),
            }),
            begun: Notify::new(),
            answers: RefCell::new(None),
        }
    }

    fn is_idle(&self) -> bool {
        self.plant.borrow().table.is_empty()
    }
}

/// A listener's membership. Dropped, however its task ends, its flows end.
struct Membership {
    worker: Rc<Worker>,
    id: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let plant = &mut *self.worker.udp.plant.borrow_mut();
        plant.listeners.remove(&self.id);
        plant.table.close_socket(self.id);
        plant.close();
        plant.publish(&self.worker.shared);
    }
}

/// Serves a listening socket until the task is aborted, which it can be at every await.
pub(crate) async fn run(worker: Rc<Worker>, listening: Arc<Listening>) {
    let socket = match enter(&worker, &listening) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(listener = %listening.bound, %error, "a worker cannot watch a UDP listener");
            return;
        }
    };
    let _membership = Membership {
        worker: Rc::clone(&worker),
        id: listening.id,
    };
    while let Ok(mut ready) = socket.readable().await {
        match from_clients(&worker, &listening) {
            Turn::Drained => ready.clear_ready(),
            Turn::Used => tokio::task::yield_now().await,
        }
    }
}

fn enter(
    worker: &Rc<Worker>,
    listening: &Arc<Listening>,
) -> std::io::Result<tokio::io::unix::AsyncFd<net::SharedFd>> {
    let udp = &worker.udp;
    let plant = &mut *udp.plant.borrow_mut();
    if plant.sockets.is_none() {
        let sockets = Sockets::new()?;
        let watched = net::register(sockets.set())?;
        plant.sockets = Some(sockets);
        plant.batch = Some(Batch::new());
        // Ends with the worker's runtime.
        let task = tokio::task::spawn_local(answers(Rc::clone(worker), watched));
        *udp.answers.borrow_mut() = Some(task);
    }
    let socket = net::register(listening.fd.clone())?;
    plant.listeners.insert(listening.id, Arc::clone(listening));
    Ok(socket)
}

/// The endpoints' side, and time.
async fn answers(worker: Rc<Worker>, set: tokio::io::unix::AsyncFd<net::SharedFd>) {
    let udp = &worker.udp;
    let mut tick = pin!(tokio::time::sleep(TICK));
    loop {
        let is_idle = udp.is_idle();
        // All are cancel safe: readiness and a notification not taken are kept.
        tokio::select! {
            ready = set.readable() => {
                let Ok(mut ready) = ready else {
                    return;
                };
                match from_endpoints(&worker) {
                    Turn::Drained => ready.clear_ready(),
                    Turn::Used => tokio::task::yield_now().await,
                }
            }
            () = udp.begun.notified() => tick.as_mut().reset(tokio::time::Instant::now() + TICK),
            () = tick.as_mut(), if !is_idle => {
                udp.plant.borrow_mut().tick(&worker.shared);
                tick.as_mut().reset(tokio::time::Instant::now() + TICK);
            }
        }
    }
}

/// One batch from clients.
fn from_clients(worker: &Worker, listening: &Listening) -> Turn {
    let shared = &worker.shared;
    let plant = &mut *worker.udp.plant.borrow_mut();
    let Some(mut batch) = plant.batch.take() else {
        return Turn::Drained;
    };
    let wants = match listening.key.bind {
        Bind::Address(_) => Wants::Source,
        Bind::Any | Bind::AnyLoopback | Bind::AnyV6 => Wants::SourceAndLocal,
    };
    let received = batch.receive(&listening.fd, wants).unwrap_or_default();
    if received > 0 {
        let was_idle = plant.table.is_empty();
        plant.make_room(shared);
        let snapshot = shared.published.load();
        let delivery = Delivery {
            listening,
            routes: routes(&snapshot, listening),
            now: clock::now(),
            batch: &batch,
        };
        let sent = plant.deliver_all(&delivery, received);
        let totals = &shared.totals;
        totals.datagrams_to_upstream.fetch_add(count(sent), Relaxed);
        totals
            .datagrams_dropped
            .fetch_add(count(received - sent), Relaxed);
        plant.publish(shared);
        if was_idle && !plant.table.is_empty() {
            worker.udp.begun.notify_one();
        }
    }
    plant.batch = Some(batch);
    if received < BATCH {
        Turn::Drained
    } else {
        Turn::Used
    }
}

/// One batch from each endpoint that has something.
fn from_endpoints(worker: &Worker) -> Turn {
    let shared = &worker.shared;
    let plant = &mut *worker.udp.plant.borrow_mut();
    let Some(Ready { flows, may_be_more }) = plant.sockets.as_mut().map(Sockets::ready) else {
        return Turn::Drained;
    };
    let Some(mut batch) = plant.batch.take() else {
        return Turn::Drained;
    };
    let now = clock::now();
    let mut turn = if may_be_more {
        Turn::Used
    } else {
        Turn::Drained
    };
    for id in &flows {
        if plant.answers(shared, *id, now, &mut batch) == Turn::Used {
            turn = Turn::Used;
        }
    }
    plant.batch = Some(batch);
    if let Some(sockets) = &mut plant.sockets {
        sockets.reuse(flows);
    }
    plant.publish(shared);
    turn
}

/// A batch on its way to endpoints.
struct Delivery<'a> {
    listening: &'a Listening,
    routes: SnapshotRoutes<'a>,
    now: Timestamp,
    batch: &'a Batch,
}

impl Delivery<'_> {
    /// Whose the datagram at `place` is; `None` for what no flow can be made of.
    fn key(&self, place: usize) -> Option<FlowKey> {
        let bound = self.listening.bound;
        let local = match self.listening.key.bind {
            Bind::Address(_) => bound.ip(),
            Bind::Any | Bind::AnyLoopback | Bind::AnyV6 => self.batch.local(place)?,
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
}

impl Plant {
    /// The bound as descriptors and other workers' flows leave it.
    fn make_room(&mut self, shared: &Shared) {
        let room = shared.room_for_flows();
        self.table.set_bound(self.table.len().saturating_add(room));
        self.close();
    }

    /// Delivers runs of datagrams of one flow at a time; returns how many went.
    fn deliver_all(&mut self, delivery: &Delivery<'_>, received: usize) -> usize {
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
                Step::Open(id, endpoint) => match self.open(id, endpoint, delivery.now) {
                    Opened::Yes => id,
                    Opened::Again => continue,
                    Opened::No => return sent,
                },
                Step::Drop(_) => return sent,
            };
            let (went, is_refused) = self.forward(id, delivery.batch, &mut places);
            sent += went;
            if !is_refused {
                return sent;
            }
            self.table.refused(id, delivery.now);
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
                    sent += went;
                    places.start += went.max(1);
                }
                Err(error) => match Failure::of(&error) {
                    Failure::Refused => return (sent, true),
                    Failure::Later | Failure::Exhausted => return (sent, false),
                    Failure::Unfit => places.start += 1,
                },
            }
        }
        (sent, false)
    }

    fn open(&mut self, id: FlowId, endpoint: SocketAddr, now: Timestamp) -> Opened {
        let Some(sockets) = &mut self.sockets else {
            return Opened::No;
        };
        let Err(error) = sockets.open(id, endpoint) else {
            return Opened::Yes;
        };
        tracing::debug!(%endpoint, %error, "no socket for a flow");
        match Failure::of(&error) {
            Failure::Refused => {
                self.table.refused(id, now);
                self.close();
                Opened::Again
            }
            Failure::Exhausted | Failure::Later => {
                self.table.unopened(id);
                let has_room = self.table.shed();
                self.close();
                if has_room { Opened::Again } else { Opened::No }
            }
            Failure::Unfit => {
                self.table.unopened(id);
                self.close();
                Opened::No
            }
        }
    }

    /// One batch of an endpoint's answers. A refusal is told before what was answered earlier, which still counts.
    fn answers(&mut self, shared: &Shared, id: FlowId, now: Timestamp, batch: &mut Batch) -> Turn {
        let Some(fd) = self.sockets.as_ref().and_then(|sockets| sockets.get(id)) else {
            return Turn::Drained;
        };
        let mut is_refused = false;
        let received = match batch.receive(fd, Wants::Bytes) {
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
        }
        if is_refused {
            self.table.refused(id, now);
            self.close();
        }
        if received < BATCH {
            Turn::Drained
        } else {
            Turn::Used
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
        let from = match (listening.key.bind, key.local) {
            (Bind::Any | Bind::AnyLoopback, SocketAddr::V4(local)) => Some(*local.ip()),
            _ => None,
        };
        let target = Target::new(key.client, from);
        let (mut sent, mut place) = (0, 0);
        while place < received {
            match batch.send(&listening.fd, place..received, Some(&target)) {
                Ok(went) => {
                    sent += went;
                    place += went.max(1);
                }
                Err(error) if Failure::of(&error) == Failure::Later => break,
                Err(_) => place += 1,
            }
        }
        sent
    }

    fn tick(&mut self, shared: &Shared) {
        self.table.tick(clock::now());
        let snapshot = shared.published.load();
        if snapshot.generation != self.swept {
            self.swept = snapshot.generation;
            for listening in self.listeners.values() {
                self.table
                    .sweep(listening.id, &routes(&snapshot, listening));
            }
        }
        self.close();
        self.publish(shared);
    }

    /// Closes the sockets of what the table has ended.
    fn close(&mut self) {
        while let Some(id) = self.table.closed() {
            if let Some(sockets) = &mut self.sockets {
                sockets.close(id);
            }
        }
    }

    /// Adds to the totals what has changed since the last time.
    fn publish(&mut self, shared: &Shared) {
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

fn routes<'a>(snapshot: &'a Snapshot, listening: &Listening) -> SnapshotRoutes<'a> {
    SnapshotRoutes {
        snapshot,
        scope: listening.key.scope,
        declared_port: listening.key.port,
    }
}

fn count(datagrams: usize) -> u64 {
    u64::try_from(datagrams).unwrap_or_default()
}
