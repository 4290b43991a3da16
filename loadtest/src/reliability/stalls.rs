//! How long the machine itself keeps a thread waiting that has nothing but a timer: what no time beside it can be judged
//! without, where clients, portico and endpoints share a few cores with others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{ground::ms, result::Line};

/// What the thread asks for.
const NAP: Duration = Duration::from_millis(1);

/// A thread that naps until this is dropped.
pub(super) struct Stalls {
    longest_us: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stalls {
    pub(super) fn watch() -> Self {
        let (longest_us, is_over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (longest, over) = (Arc::clone(&longest_us), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            while !over.load(Relaxed) {
                let began = Instant::now();
                thread::park_timeout(NAP);
                let late = began.elapsed().saturating_sub(NAP).as_micros();
                longest.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Relaxed);
            }
        });
        Self {
            longest_us,
            is_over,
            thread: Some(thread),
        }
    }

    /// Later than it asked for, at most.
    pub(super) fn longest(&self) -> Line {
        let longest = self.longest_us.load(Relaxed);
        Line::told("the machine's own longest stall, ms", ms(longest.into()))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within a nap.
            let _ = thread.join();
        }
    }
}
