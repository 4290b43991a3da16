//! One server of others. Owns how it has done lately, and what follows for its turn.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use portico_core::{
    dns_cache::message::{Message, Relayed},
    observe::histogram::AtomicHistogram,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{exchange, report::count};

/// Failures in a row after which others are asked first.
const MOST_FAILURES: u32 = 2;
/// How long that lasts; then one query tries it in its turn.
const BEHIND: Duration = Duration::from_secs(10);
/// How long one is not asked again whether it closes a loop.
const PROBED: Duration = Duration::from_secs(30);

/// A server.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) addr: SocketAddr,
    /// Times that were no answer, or a late one.
    pub(super) failures: AtomicU64,
    /// How long its answers took, in microseconds.
    pub(super) latency: AtomicHistogram,
    /// Why it is never asked.
    barred: OnceLock<&'static str>,
    health: Mutex<Health>,
    sockets: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    behind_until: Option<Instant>,
    probed: Option<Instant>,
}

impl Upstream {
    /// The server at `addr`; its tries take their places in `sockets`.
    pub(super) fn new(addr: SocketAddr, sockets: Arc<Semaphore>) -> Self {
        Self {
            addr,
            failures: AtomicU64::new(0),
            latency: AtomicHistogram::default(),
            barred: OnceLock::new(),
            sockets,
            health: Mutex::default(),
        }
    }

    /// Its response to `query`. If it takes longer than `patience` that is a failure already, since then another one
    /// is asked and this one perhaps no longer waited for.
    pub(super) async fn ask(&self, query: &Relayed, patience: Duration) -> io::Result<Message> {
        // It is never closed.
        let _place = self.sockets.acquire().await.ok();
        let began = Instant::now();
        let mut exchange = std::pin::pin!(exchange::ask(self.addr, query));
        let in_time = timeout(patience, &mut exchange).await;
        let is_late = in_time.is_err();
        if is_late {
            self.failed();
        }
        let asked = match in_time {
            Ok(asked) => asked,
            Err(_) => exchange.await,
        };
        match &asked {
            Ok(_) => {
                let took = u64::try_from(began.elapsed().as_micros());
                self.latency.record(took.unwrap_or(u64::MAX));
                let mut health = self.health();
                (health.failures, health.behind_until) = (0, None);
            }
            // That says nothing of the server.
            Err(error) if is_ours(error) => {}
            Err(_) if is_late => {}
            Err(_) => self.failed(),
        }
        asked
    }

    fn failed(&self) {
        count(&self.failures);
        let mut health = self.health();
        health.failures = health.failures.saturating_add(1);
        if health.failures >= MOST_FAILURES {
            health.behind_until = Some(Instant::now() + BEHIND);
        }
    }

    /// Whether it has its turn; the first one to ask after a time behind others finds that it has.
    fn has_its_turn(&self, now: Instant) -> bool {
        let mut health = self.health();
        match &mut health.behind_until {
            Some(until) if now < *until => false,
            Some(until) => {
                *until = now + BEHIND;
                true
            }
            None => true,
        }
    }

    /// Whether it is to be asked now whether it closes a loop.
    pub(super) fn is_probe_due(&self, now: Instant) -> bool {
        let mut health = self.health();
        let is_due = health.probed.is_none_or(|probed| now >= probed + PROBED);
        if is_due {
            health.probed = Some(now);
        }
        is_due
    }

    /// It is never asked again, for this reason; returns whether that is news.
    pub(super) fn bar(&self, reason: &'static str) -> bool {
        self.barred.set(reason).is_ok()
    }

    pub(super) fn is_barred(&self) -> bool {
        self.barred.get().is_some()
    }

    /// Why it is not asked, or not in its turn.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let behind = || {
            let until = self.health().behind_until;
            until.map(|_| "it has failed or been slow lately, others come first")
        };
        self.barred.get().copied().or_else(behind)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `upstreams` in their order, those that fail behind the others, and none that is never asked.
pub(super) fn in_order(upstreams: &[Arc<Upstream>], now: Instant) -> Vec<Arc<Upstream>> {
    let all = upstreams.iter().filter(|upstream| !upstream.is_barred());
    let all = all.cloned();
    let (mut order, behind): (Vec<_>, Vec<_>) =
        all.partition(|upstream| upstream.has_its_turn(now));
    order.extend(behind);
    order
}

/// Descriptors or memory are used up here.
fn is_ours(error: &io::Error) -> bool {
    let errors = [
        rustix::io::Errno::MFILE,
        rustix::io::Errno::NFILE,
        rustix::io::Errno::NOMEM,
        rustix::io::Errno::NOBUFS,
    ];
    let errno = rustix::io::Errno::from_io_error(error);
    errno.is_some_and(|errno| errors.contains(&errno))
}
