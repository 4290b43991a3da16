//! Answers of HTTP by the class of their status (RFC 9110, section 15). Owns the five counters; which answers they count, their
//! holder says.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Names of the classes, as labels have them.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Answers so far.
#[derive(Debug, Default)]
pub struct Statuses([AtomicU64; CLASSES.len()]);

impl Statuses {
    /// Counts an answer. What is no status counts for nothing.
    pub fn count(&self, status: u16) {
        let place = usize::from(status / 100).checked_sub(1);
        if let Some(count) = place.and_then(|place| self.0.get(place)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// How many of each class.
    pub fn load(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.0.iter().map(|count| count.load(Relaxed));
        CLASSES.into_iter().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_of_a_status_is_one_more_in_its_class() {
        let statuses = Statuses::default();
        for status in [101, 200, 204, 404, 599, 600, 99, 0] {
            statuses.count(status);
        }
        let counts: Vec<_> = statuses.load().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 2, 0, 1, 1]);
        assert_eq!(statuses.load().last(), Some(("5xx", 1)));
    }
}
