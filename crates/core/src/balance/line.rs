//! Connections that wait for a place, in the order in which they came. Owns whose turn it is to look for one; must not know
//! what there is.
//!
//! Whoever makes room calls the first in line. It looks, and calls the one behind it if there is more, even if it found
//! nothing for itself: those in line may want different things (their own endpoint, one that they have not tried). So the
//! call goes on to whom it is for, and no further than there is room.
//!
//! A line may be served before another one: those who wait for one endpoint alone stand before those to whom any will do,
//! and whatever the last of them leaves is for the others.
//!
//! The lock is for those who wait, and for whoever makes room for them. Where nobody does, a call is a load.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Line {
    /// Changed under the lock, read without.
    length: AtomicU64,
    /// Who stands in lines that are served before this one.
    before: AtomicU64,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    next: u64,
    by_number: BTreeMap<u64, Waiter>,
}

#[derive(Debug, Default)]
struct Waiter {
    is_called: bool,
    waker: Option<Waker>,
}

/// A stay in a line, which ends with this.
#[derive(Debug)]
pub struct Place<'l> {
    line: &'l Line,
    behind: Option<&'l Line>,
    number: u64,
}

/// Whose turn it is to look for a place.
#[derive(Debug, Clone, Copy)]
pub enum Turn<'l> {
    /// If nobody waits for one.
    Newcomer,
    /// It was called, in this line.
    Called(&'l Line),
}

impl Turn<'_> {
    /// Whether those in `line` do not come first.
    pub fn is_before(self, line: &Line) -> bool {
        line.is_empty() || matches!(self, Self::Called(own) if std::ptr::eq(own, line))
    }
}

impl Line {
    /// How many wait.
    pub fn len(&self) -> u64 {
        self.length.load(SeqCst)
    }

    /// How many wait in it and in the lines that are served before it.
    pub fn len_of_all(&self) -> u64 {
        self.len() + self.before.load(SeqCst)
    }

    /// Whether nobody waits: only then whoever comes may look at once.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// To the end of the line, which is served before that `behind` it, if any. The first is called: what became free since
    /// the caller looked is not overlooked.
    pub fn join<'l>(&'l self, behind: Option<&'l Self>) -> Place<'l> {
        let mut waiters = self.lock();
        let number = waiters.next;
        waiters.next += 1;
        waiters.by_number.insert(number, Waiter::default());
        self.length.fetch_add(1, SeqCst);
        drop(waiters);
        if let Some(behind) = behind {
            behind.before.fetch_add(1, SeqCst);
        }
        self.call();
        Place {
            line: self,
            behind,
            number,
        }
    }

    /// There may be room: the first may look.
    pub fn call(&self) {
        if !self.is_empty() {
            self.call_from(0);
        }
    }

    fn call_from(&self, number: u64) {
        let mut waiters = self.lock();
        let Some((_, waiter)) = waiters.by_number.range_mut(number..).next() else {
            return;
        };
        waiter.is_called = true;
        let waker = waiter.waker.take();
        drop(waiters);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A panic under the lock is a broken invariant of one connection, which must not take the others with it.
    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Its turn to look.
    ///
    /// # Cancel safety
    /// Cancel safe: a call stays until it is taken, and goes on to the next one if the place is left before.
    pub async fn called(&mut self) {
        poll_fn(|waking| self.poll_called(waking)).await;
    }

    fn poll_called(&self, waking: &Context<'_>) -> Poll<()> {
        let mut waiters = self.line.lock();
        let Some(waiter) = waiters.by_number.get_mut(&self.number) else {
            debug_assert!(false, "a place is in its line");
            return Poll::Ready(());
        };
        if std::mem::take(&mut waiter.is_called) {
            return Poll::Ready(());
        }
        waiter.waker = Some(waking.waker().clone());
        Poll::Pending
    }

    /// There may be room for the one behind it, too.
    pub fn call_next(&self) {
        self.line.call_from(self.number + 1);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let left = self.line.lock().by_number.remove(&self.number);
        self.line.length.fetch_sub(1, SeqCst);
        if left.is_some_and(|waiter| waiter.is_called) {
            self.call_next();
        }
        if let Some(behind) = self.behind {
            behind.before.fetch_sub(1, SeqCst);
            if self.line.is_empty() {
                behind.call();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_called(place: &Place<'_>) -> bool {
        let waking = Context::from_waker(Waker::noop());
        place.poll_called(&waking).is_ready()
    }

    #[test]
    fn call_goes_to_the_first_and_on_from_there_only_when_it_says_so() {
        let line = Line::default();
        let places = [(); 3].map(|()| line.join(None));
        assert!(is_called(&places[0]), "by joining");
        line.call();
        assert_eq!(
            [0, 1, 2].map(|n| is_called(&places[n])),
            [true, false, false]
        );
        places[0].call_next();
        assert_eq!(
            [0, 1, 2].map(|n| is_called(&places[n])),
            [false, true, false]
        );
        places[2].call_next();
        assert_eq!(line.len(), 3);
    }

    #[test]
    fn call_of_one_that_leaves_before_it_looked_goes_on_to_the_next() {
        let line = Line::default();
        let first = line.join(None);
        let second = line.join(None);
        assert!(is_called(&first) && !is_called(&second));
        line.call();
        drop(first);
        assert!(is_called(&second));
        drop(second);
        assert!(line.is_empty());
        line.call();
    }

    #[test]
    fn last_of_a_line_leaves_its_call_to_the_line_behind() {
        let (line, others) = (Line::default(), Line::default());
        let other = others.join(None);
        assert!(is_called(&other), "by joining");
        let first = line.join(Some(&others));
        let second = line.join(Some(&others));
        assert_eq!((others.len(), others.len_of_all()), (1, 3));
        drop(first);
        assert!(is_called(&second) && !is_called(&other));
        drop(second);
        assert!(is_called(&other));
        assert_eq!(others.len_of_all(), 1);
    }

    #[test]
    fn call_wakes_the_one_that_polled() {
        use std::sync::{Arc, atomic::AtomicBool};
        struct Flag(AtomicBool);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, SeqCst);
            }
        }
        let line = Line::default();
        let place = line.join(None);
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&flag));
        let waking = Context::from_waker(&waker);
        assert!(place.poll_called(&waking).is_ready());
        assert!(place.poll_called(&waking).is_pending());
        line.call();
        assert!(flag.0.load(SeqCst));
    }
}
