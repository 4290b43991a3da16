//! A worker's connections to endpoints that wait for another request. Owns how many, for how long, and whose they are: of an
//! endpoint that has left every Snapshot none stays. One worker's alone, so that nobody waits for a lock.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

use portico_core::balance::EndpointState;
use tokio::{sync::Notify, time::Instant};

use super::{
    multiplexed::{Multiplexed, Stream},
    upstream::{IDLE, Tasks, Upstream},
};

/// Idle connections of HTTP/1 that are kept of one endpoint.
const MOST_IDLE: usize = 64;
/// How often those are looked for that have waited long enough.
const SWEEP: Duration = Duration::from_secs(1);

/// All of them.
#[derive(Default)]
pub(crate) struct Pool {
    homes: RefCell<HashMap<*const EndpointState, Rc<Home>>>,
    pub(super) tasks: Tasks,
    swept_at: Cell<Option<Instant>>,
    filled: Notify,
}

/// Those of one endpoint behind one Service port.
#[derive(Default)]
pub(super) struct Home {
    /// Its allocation stays while this does, so that its address is nobody else's.
    endpoint: Weak<EndpointState>,
    idle: RefCell<Vec<(Box<Upstream>, Instant)>>,
    multiplexed: RefCell<Vec<Rc<Multiplexed>>>,
    opening: RefCell<Option<Rc<Coming>>>,
}

/// Somebody connects, for all who came since.
#[derive(Default)]
struct Coming {
    over: Notify,
    has_opened: Cell<bool>,
}

impl Pool {
    pub(super) fn home(&self, endpoint: &Arc<EndpointState>) -> Rc<Home> {
        let mut homes = self.homes.borrow_mut();
        if homes.is_empty() {
            self.filled.notify_one();
        }
        let home = homes.entry(Arc::as_ptr(endpoint)).or_insert_with(|| {
            Rc::new(Home {
                endpoint: Arc::downgrade(endpoint),
                idle: RefCell::default(),
                multiplexed: RefCell::default(),
                opening: RefCell::default(),
            })
        });
        Rc::clone(home)
    }

    /// Lets go of all idle connections: so many.
    pub(crate) fn shed(&self) -> usize {
        let homes = self.homes.borrow();
        homes.values().map(|home| home.shed()).sum()
    }

    /// Lets go, every second, of what has waited long enough, was closed, or whose endpoint is gone, and of all that is idle when
    /// descriptors are `short`. Never ends.
    ///
    /// # Cancel safety
    /// Cancel safe: the next look keeps its time.
    pub(crate) async fn tend(&self, short: &Notify) {
        loop {
            if self.homes.borrow().is_empty() {
                self.filled.notified().await;
            }
            let at = self.swept_at.get().unwrap_or_else(Instant::now) + SWEEP;
            // Both are cancel safe.
            tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = short.notified() => {
                    self.shed();
                    continue;
                }
            }
            let now = Instant::now();
            self.swept_at.set(Some(now));
            // Dropped last: a connection's end may wake others.
            let mut homes = self.homes.borrow_mut();
            homes.retain(|_, home| {
                let is_used = Rc::strong_count(home) > 1;
                home.endpoint.strong_count() > 0 && (home.sweep(now) || is_used)
            });
        }
    }
}

impl Home {
    /// The connection of HTTP/1 that was used last.
    pub(super) fn take(self: &Rc<Self>) -> Option<Box<Upstream>> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        while let Some((mut upstream, since)) = idle.pop() {
            if now.duration_since(since) < upstream.patience && upstream.is_idle() {
                upstream.leaves(Rc::clone(self));
                return Some(upstream);
            }
        }
        None
    }

    pub(super) fn keep(&self, upstream: Box<Upstream>) {
        let mut idle = self.idle.borrow_mut();
        // The one that waits longest is the likeliest to be closed.
        let given_up = (idle.len() >= MOST_IDLE).then(|| idle.remove(0));
        idle.push((upstream, Instant::now()));
        drop(idle);
        drop(given_up);
    }

    /// A stream of a connection of HTTP/2 that has room for it.
    pub(super) fn stream(&self) -> Option<(Rc<Multiplexed>, Stream)> {
        let multiplexed = self.multiplexed.borrow();
        let mut found = multiplexed.iter();
        found.find_map(|it| it.stream().map(|stream| (Rc::clone(it), stream)))
    }

    pub(super) fn share(&self, multiplexed: Rc<Multiplexed>) {
        if let Some(coming) = &*self.opening.borrow() {
            coming.has_opened.set(true);
        }
        self.multiplexed.borrow_mut().push(multiplexed);
    }

    /// No more streams on this one.
    pub(super) fn forget(&self, multiplexed: &Rc<Multiplexed>) {
        let mut all = self.multiplexed.borrow_mut();
        all.retain(|it| !Rc::ptr_eq(it, multiplexed));
    }

    /// The right to connect for all who want a stream; `None` once there is room that somebody else made.
    ///
    /// # Errors
    /// Who had it failed.
    pub(super) async fn open(&self) -> Result<Option<Opening<'_>>, NotOpened> {
        loop {
            let coming = self.opening.borrow().clone();
            let Some(coming) = coming else {
                *self.opening.borrow_mut() = Some(Rc::default());
                return Ok(Some(Opening(self)));
            };
            coming.over.notified().await;
            // What one connection has room for may be fewer than all who waited for it.
            if !coming.has_opened.get() {
                return Err(NotOpened);
            }
            if self.stream().is_some() {
                return Ok(None);
            }
        }
    }

    fn shed(&self) -> usize {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        let mut multiplexed = self.multiplexed.borrow_mut();
        let before = multiplexed.len();
        multiplexed.retain(|it| !it.is_idle());
        idle.len() + before - multiplexed.len()
    }

    /// Whether anything is left.
    fn sweep(&self, now: Instant) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|(upstream, since)| {
            now.duration_since(*since) < upstream.patience && !upstream.is_closed()
        });
        let mut multiplexed = self.multiplexed.borrow_mut();
        multiplexed.retain(|it| {
            let is_late = it.is_idle() && now.duration_since(it.idle_since.get()) >= IDLE;
            !is_late && !it.is_closed()
        });
        !(idle.is_empty() && multiplexed.is_empty())
    }
}

/// Nobody could connect.
pub(super) struct NotOpened;

/// Somebody connects.
pub(super) struct Opening<'h>(&'h Home);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(opening) = self.0.opening.borrow_mut().take() {
            opening.over.notify_waiters();
        }
    }
}
