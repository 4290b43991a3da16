//! UDP of one worker: its listening sockets, its flows' sockets, and the datagrams between them. Owns input and output
//! in batches and the worker's share of the counters; which flow a datagram belongs to, where that goes and when it
//! ends is [`portico_core::flow`]'s.
//!
//! A flow's socket is connected to its endpoint. All of them are in one epoll set of the worker's, which the runtime
//! watches as one descriptor: so a flow costs no task, and closing one frees its descriptor at once.

mod plant;
mod sockets;

use std::{
    cell::RefCell,
    collections::HashMap,
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    clock,
    listen::accept::Listening,
    net::{
        self,
        datagrams::{Batch, Received, Wants},
    },
    worker::Worker,
};
use plant::{Delivery, Plant, count, routes};
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

impl Udp {
    pub(crate) fn new(max_attempts: usize) -> Self {
        Self {
            plant: RefCell::new(Plant::new(max_attempts)),
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
    let wants = if listening.hears_many() {
        Wants::SourceAndLocal
    } else {
        Wants::Source
    };
    let Received {
        count: received,
        is_all,
    } = batch.receive(&listening.fd, wants).unwrap_or_default();
    if received > 0 {
        let was_idle = plant.table.is_empty();
        plant.make_room(shared);
        let snapshot = shared.published.load();
        let delivery = Delivery {
            listening,
            routes: routes(shared, &snapshot, listening),
            now: clock::now(),
            batch: &batch,
            shared,
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
    if is_all { Turn::Drained } else { Turn::Used }
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

/// Ends the worker's UDP in peace: no flow begins any more, those that there are go on until idle for
/// [`portico_core::flow::DRAINED`]. Listeners without any close at once, so that whoever comes is refused.
///
/// # Cancel safety
/// Cancel safe: what has ended stays ended, what has not goes on.
pub(crate) async fn drain(worker: &Worker, serving: &mut HashMap<u64, JoinHandle<()>>) {
    let busy = {
        let plant = &mut *worker.udp.plant.borrow_mut();
        plant.table.drain();
        plant.tick(&worker.shared);
        plant.table.sockets()
    };
    serving.retain(|id, task| {
        let stays = busy.contains(id);
        if !stays {
            task.abort();
        }
        stays
    });
    loop {
        let next = {
            let plant = &mut *worker.udp.plant.borrow_mut();
            plant.tick(&worker.shared);
            plant.table.deadline()
        };
        let Some(next) = next else { return };
        tokio::time::sleep(next.since(clock::now())).await;
    }
}
