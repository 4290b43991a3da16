//! One server of others. Owns how it has done lately, and what follows for its turn.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use portico_core::dns_cache::message::{Message, Relayed};
use tokio::time::{Instant, timeout};

use super::exchange;

/// Failures in a row after which others are asked first.
const MOST_FAILURES: u32 = 2;
/// How long that lasts; then one query tries it in its turn.
const BEHIND: Duration = Duration::from_secs(10);

/// A server.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) addr: SocketAddr,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    behind_until: Option<Instant>,
}

impl Upstream {
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            health: Mutex::default(),
        }
    }

    /// Its response to `query`. If it takes longer than `patience` that is a failure already, since then another one
    /// is asked and this one perhaps no longer waited for.
    pub(super) async fn ask(&self, query: &Relayed, patience: Duration) -> io::Result<Message> {
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
            Ok(_) => *self.health() = Health::default(),
            // That says nothing of the server.
            Err(error) if is_ours(error) => {}
            Err(_) if is_late => {}
            Err(_) => self.failed(),
        }
        asked
    }

    fn failed(&self) {
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

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `upstreams` in their order, those that fail behind the others.
pub(super) fn in_order(upstreams: &[Arc<Upstream>], now: Instant) -> Vec<Arc<Upstream>> {
    let all = upstreams.iter().cloned();
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
