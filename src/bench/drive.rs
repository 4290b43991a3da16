//! Many clients that ask on a schedule, in one thread. Owns their number, their sources and the end of a run.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::{
    exchange::{Client, Manner, Ports, Reuse},
    pace::Pace,
    sample::{Samples, Times},
};

/// How much is asked, how fast, by how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Requests a second, as they are intended.
    pub rate: f64,
    /// Most requests.
    pub requests: u64,
    /// Longest time in which requests are begun.
    pub duration: Option<Duration>,
    /// Clients, each with one request at a time.
    pub clients: u16,
    /// Source addresses of clients in turn, beginning with 127.0.0.1; with one of them the kernel chooses.
    pub sources: u8,
}

/// What a run gave.
pub(super) struct Driven {
    pub(super) samples: Samples,
    /// How late the generator itself was, in nanoseconds.
    pub(super) lag: Histogram<u64>,
    pub(super) took: Duration,
    /// Exchanges that were broken off by the end.
    pub(super) abandoned: u64,
    /// Requests that had fallen due and were not begun, for want of a free client.
    pub(super) unsent: u64,
}

/// How far a run is, for who waits.
#[derive(Debug, Default)]
pub struct Progress {
    /// Exchanges that ended.
    pub done: Cell<u64>,
    /// Of these, failures.
    pub failed: Cell<u64>,
    /// Whether the run is over and its overhead is being measured.
    pub is_overhead: Cell<bool>,
}

/// Asks as `load` says until it is done, or until `cancel`: client by client one of `targets` in turn.
///
/// # Errors
/// The kernel has no timer for us.
pub(super) async fn run(
    manner: &Manner,
    targets: &[SocketAddr],
    load: &Load,
    progress: &Rc<Progress>,
    cancel: &CancellationToken,
) -> io::Result<Driven> {
    let pace = Rc::new(Pace::new(load.rate, load.requests, load.duration)?);
    let samples = Rc::new(RefCell::new(Samples::default()));
    let local = LocalSet::new();
    let everything = local.run_until({
        let (pace, samples, progress) = (&pace, &samples, progress);
        async move {
            let mut lanes = JoinSet::new();
            let clients = Rc::new(Clients::new(manner, targets, load));
            for _ in 0..load.clients {
                let (pace, samples) = (Rc::clone(pace), Rc::clone(samples));
                let clients = Rc::clone(&clients);
                lanes.spawn_local(ask_in_turn(clients, pace, samples, Rc::clone(progress)));
            }
            let ended = async { while lanes.join_next().await.is_some() {} };
            let (released, ()) = tokio::join!(pace.run(), ended);
            released
        }
    });
    tokio::select! {
        released = everything => released?,
        () = cancel.cancelled() => {}
    }
    let samples = samples.take();
    Ok(Driven {
        lag: pace.lag(),
        unsent: pace.unsent(),
        took: pace.started().elapsed(),
        abandoned: pace.taken().saturating_sub(samples.count()),
        samples,
    })
}

async fn ask_in_turn(
    clients: Rc<Clients>,
    pace: Rc<Pace>,
    samples: Rc<RefCell<Samples>>,
    progress: Rc<Progress>,
) {
    while let Some(turn) = pace.turn().await {
        let (number, mut client) = clients.take();
        let sent = Instant::now();
        let exchange = client.ask().await;
        let done = Instant::now();
        let began = pace.started();
        progress.done.set(progress.done.get() + 1);
        if exchange.result.is_err() {
            progress.failed.set(progress.failed.get() + 1);
        }
        let times = Times {
            intended: turn.intended.saturating_duration_since(began),
            sent: sent.saturating_duration_since(began),
            done: done.saturating_duration_since(began),
        };
        samples.borrow_mut().add(number, times, exchange);
        clients.give_back(number, client);
    }
}

/// Clients that have nothing to do. Each request takes any of them: in turn, they would fall in step with whoever
/// chooses endpoints in turn, and each would meet the same endpoint again and again.
struct Clients {
    idle: RefCell<Vec<(u16, Client)>>,
    /// Marsaglia's xorshift: chance that repeats.
    chance: Cell<u64>,
    manner: Manner,
}

impl Clients {
    fn new(manner: &Manner, targets: &[SocketAddr], load: &Load) -> Self {
        let used = Ports::default();
        let client = |number: u16| {
            let own = of_client(manner, targets, number);
            let source = source(number, load.sources, &own);
            (number, Client::new(&own, source, &used))
        };
        // Where a client is no more than a number there are some to spare: also while all that may ask do, the next to
        // ask is not the one that has just been answered.
        let spare = match manner.reuse {
            Reuse::Never => load.clients / 2 + 1,
            Reuse::KeepAlive => 0,
        };
        let numbers = 0..load.clients.saturating_add(spare);
        Self {
            idle: RefCell::new(numbers.map(client).collect()),
            chance: Cell::new(0x9e37_79b9_7f4a_7c15),
            manner: manner.clone(),
        }
    }

    fn take(&self) -> (u16, Client) {
        let mut chance = self.chance.get();
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        self.chance.set(chance);
        let mut idle = self.idle.borrow_mut();
        let place = usize::try_from(chance >> 33)
            .unwrap_or(0)
            .checked_rem(idle.len());
        // There are as many clients as may ask at a time, so there is one.
        place.map_or_else(
            || (0, Client::new(&self.manner, None, &Ports::default())),
            |place| idle.swap_remove(place),
        )
    }

    fn give_back(&self, number: u16, client: Client) {
        self.idle.borrow_mut().push((number, client));
    }
}

/// The manner of a client.
fn of_client(manner: &Manner, targets: &[SocketAddr], number: u16) -> Manner {
    let place = usize::from(number).checked_rem(targets.len()).unwrap_or(0);
    let mut own = manner.clone();
    if let Some(addr) = targets.get(place) {
        own.target = own.target.moved_to(*addr);
    }
    own
}

/// The address that a client asks from: only towards our own machine is there more than one.
fn source(number: u16, sources: u8, manner: &Manner) -> Option<IpAddr> {
    let target = manner.target.addr.ip();
    if sources <= 1 || !(target.is_ipv4() && target.is_loopback()) {
        return None;
    }
    let [_, last] = (number % u16::from(sources)).to_be_bytes();
    Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last.saturating_add(1))))
}
