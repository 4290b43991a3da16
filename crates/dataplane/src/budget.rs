//! How the descriptors of the process are shared out. Owns the arithmetic; must not open or count any.

use crate::net::pipe;

/// A connection has a socket to the client and one to the endpoint.
pub(crate) const DESCRIPTORS_PER_CONNECTION: usize = 2;
/// Descriptors kept for everything else: sources, DNS, the admin interface, the runtimes themselves. A sixteenth of the
/// limit, no fewer than these
const RESERVED_DESCRIPTORS: usize = 256;
/// and no more than these.
const MOST_RESERVED_DESCRIPTORS: usize = 1024;
/// The two ends of a pipe.
const DESCRIPTORS_PER_PIPE: usize = 2;

/// Listeners' share of the descriptors: half.
pub(crate) const fn most_listeners(limit: usize) -> usize {
    limit / 2
}

/// What is left of `limit` for connections and flows together.
pub(crate) fn spare(limit: usize, workers: usize, listeners: usize) -> usize {
    let pipes = pipe::most_pipes(limit) * DESCRIPTORS_PER_PIPE;
    limit.saturating_sub(listeners + reserved(limit) + workers * pipes)
}

/// Descriptors kept back: under a small limit no more than half of it, so that connections have their share.
pub(crate) fn reserved(limit: usize) -> usize {
    let share = (limit / 16).clamp(RESERVED_DESCRIPTORS, MOST_RESERVED_DESCRIPTORS);
    share.min(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_small_limit_leaves_half_for_connections() {
        assert_eq!(
            [100_000, 8000, 1024, 512, 100].map(reserved),
            [1024, 500, 256, 256, 50]
        );
    }

    #[test]
    fn spare_never_reaches_what_is_kept_back() {
        for limit in [0, 3, 48, 100, 256, 1024, 20_000] {
            for workers in [1, 2, 16] {
                let pipes = pipe::most_pipes(limit) * DESCRIPTORS_PER_PIPE * workers;
                let spare = spare(limit, workers, 7);
                assert!(spare == 0 || spare + pipes + 7 + reserved(limit) <= limit);
            }
        }
    }
}
