//! When to act on a change: at once, then together with what follows within the window. Owns the arithmetic only;
//! the time is an argument.

use std::time::{Duration, Instant};

/// Leading edge first, then at most once a window.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    last: Option<Instant>,
}

impl Pace {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, last: None }
    }

    /// The moment from which a change seen at `now` may be acted on: `now` itself after a quiet window.
    pub(super) fn due(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| now.max(last + self.window))
    }

    /// Something was acted on at `now`.
    pub(super) fn acted(&mut self, now: Instant) {
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_first_change_is_now_then_once_a_window() {
        let window = Duration::from_millis(50);
        let mut pace = Pace::new(window);
        let start = Instant::now();
        assert_eq!(pace.due(start), start);
        pace.acted(start);
        assert_eq!(pace.due(start + Duration::from_millis(1)), start + window);
        assert_eq!(pace.due(start + window), start + window);
        let later = start + Duration::from_secs(1);
        assert_eq!(pace.due(later), later);
    }
}
