//! Many clients that ask on a schedule, in one thread. Owns their number, their sources and the end of a run.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::{
    exchange::{Client, Manner},
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
}

/// How far a run is, for who waits.
#[derive(Debug, Default)]
pub struct Progress {
    /// Exchanges that ended.
    pub done: Cell<u64>,
    /// Of these, failures.
    pub failed: Cell<u64>,
}

/// Asks as `load` says until it is done, or until `cancel`.
///
/// # Errors
/// The kernel has no timer for us.
pub(super) async fn run(
    manner: &Manner,
    load: &Load,
    progress: &Rc<Progress>,
    cancel: &CancellationToken,
) -> io::Result<Driven> {
    let pace = Rc::new(Pace::new(load.rate, load.requests, load.duration)?);
    let samples = Rc::new(RefCell::new(Samples::default()));
    let everything = LocalSet::new().run_until({
        let (pace, samples, progress) = (&pace, &samples, progress);
        async move {
            let mut lanes = JoinSet::new();
            for lane in 0..load.clients {
                let client = Client::new(manner, source(lane, load.sources, manner));
                let (pace, samples) = (Rc::clone(pace), Rc::clone(samples));
                lanes.spawn_local(ask_in_turn(client, pace, samples, Rc::clone(progress)));
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
    Ok(Driven {
        lag: pace.lag(),
        took: pace.started().elapsed(),
        samples: samples.take(),
    })
}

async fn ask_in_turn(
    mut client: Client,
    pace: Rc<Pace>,
    samples: Rc<RefCell<Samples>>,
    progress: Rc<Progress>,
) {
    while let Some(turn) = pace.turn().await {
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
        samples.borrow_mut().add(times, exchange);
    }
}

/// The address that a client asks from: only towards our own machine is there more than one.
fn source(lane: u16, sources: u8, manner: &Manner) -> Option<IpAddr> {
    let target = manner.target.addr.ip();
    if sources <= 1 || !(target.is_ipv4() && target.is_loopback()) {
        return None;
    }
    let [_, last] = (lane % u16::from(sources)).to_be_bytes();
    Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last.saturating_add(1))))
}
