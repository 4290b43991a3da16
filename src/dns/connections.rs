//! Who has a connection to DNS over TCP. Owns their bound and who gives way to a newcomer at it (RFC 7766 section 6.2.3);
//! must neither read nor write them.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Those that are open.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    open: Mutex<Vec<Arc<Connection>>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Connection {
    client: IpAddr,
    activity: Mutex<Activity>,
    /// It is to give way.
    pub(super) closing: CancellationToken,
}

/// The least one gives way: a query of it that others are asked for counts more than how long ago it was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Activity {
    is_waiting: bool,
    heard: Instant,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    all: &'a Connections,
    pub(super) connection: Arc<Connection>,
}

impl Connections {
    /// Room for `most`, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            open: Mutex::default(),
        }
    }

    /// A place for a connection of `client`. If all are taken, the client address that has most of them gives up the one
    /// that has been silent longest: so none can keep the others out. Returns whether that was so.
    pub(super) fn enter(&self, client: IpAddr) -> (Held<'_>, bool) {
        let connection = Arc::new(Connection {
            client,
            activity: Mutex::new(Activity {
                is_waiting: false,
                heard: Instant::now(),
            }),
            closing: CancellationToken::new(),
        });
        let mut open = self.lock();
        let is_full = open.len() >= self.most;
        if is_full && let Some(at) = least(&open) {
            open.swap_remove(at).closing.cancel();
        }
        open.push(Arc::clone(&connection));
        drop(open);
        let held = Held {
            all: self,
            connection,
        };
        (held, is_full)
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which one gives way.
fn least(open: &[Arc<Connection>]) -> Option<usize> {
    let number = |client| open.iter().filter(|other| other.client == client).count();
    let greediest = open.iter().map(|connection| connection.client);
    let greediest = greediest.max_by_key(|client| number(*client))?;
    let theirs = open.iter().enumerate();
    let theirs = theirs.filter(|(_, connection)| connection.client == greediest);
    let least = theirs.min_by_key(|(_, connection)| *connection.activity());
    least.map(|(at, _)| at)
}

impl Connection {
    /// Something has come or gone, and others are being asked for `waiting` queries of it.
    pub(super) fn note(&self, waiting: usize) {
        *self.activity() = Activity {
            is_waiting: waiting > 0,
            heard: Instant::now(),
        };
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut open = self.all.lock();
        open.retain(|other| !Arc::ptr_eq(other, &self.connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn is_closing(held: &Held<'_>) -> bool {
        held.connection.closing.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn enter_when_full_the_one_silent_longest_gives_way_and_one_that_waits_last() {
        let all = Connections::new(3);
        let mut held = Vec::new();
        for _ in 0..3 {
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
            held.push(all.enter(client(1)).0);
        }
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        held[1].connection.note(0);
        let closing = |held: &[Held<'_>]| held.iter().map(is_closing).collect::<Vec<_>>();
        held[0].connection.note(1);
        held.push(all.enter(client(1)).0);
        assert_eq!(closing(&held), [false, false, true, false]);
        held[3].connection.note(2);
        held.push(all.enter(client(1)).0);
        assert_eq!(closing(&held), [false, true, true, false, false]);
        assert_eq!(all.len(), 3);
        drop(held);
        assert_eq!(all.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn enter_when_full_the_client_with_most_gives_way() {
        let all = Connections::new(3);
        let (quiet, _) = all.enter(client(1));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let many: Vec<_> = (0..20).map(|_| all.enter(client(2)).0).collect();
        let (other, _) = all.enter(client(3));
        assert!(!is_closing(&quiet) && !is_closing(&other));
        assert_eq!(many.iter().filter(|held| !is_closing(held)).count(), 1);
    }
}
