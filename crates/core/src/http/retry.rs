//! Whether a request that failed is tried again, where, and when. Owns the rules and the budget; must not keep the request, which
//! the data path does, nor choose the endpoint, which the balancer does.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use http::{Method, StatusCode};

use super::error::Fault;

/// Endpoints that a request is tried at, at most: as many as a TCP connection is.
pub const MOST_ENDPOINTS: usize = 3;
/// Times that an endpoint may say of a request that it did not look at it: one that ends its connections after so many requests says
/// so of all that were on their way, and may say it again on the next connection.
pub const MOST_REFUSALS: u32 = 16;
/// Bytes of a body that are kept to be sent again. A longer one is not tried again once it has begun to be sent.
pub const REPLAY_BYTES: usize = 64 << 10;
/// Retries of requests that may have reached an endpoint are at most this part of the requests in progress, in per cent, ...
pub const BUDGET_PER_CENT: u64 = 20;
/// ... or so many, where that is more (Envoy's `min_retry_concurrency`).
pub const LEAST_BUDGET: u64 = 3;
/// The wait before the first retry of a request that may have reached an endpoint is at most this; doubled with each, ...
pub const FIRST_WAIT: Duration = Duration::from_millis(25);
/// ... up to this.
pub const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// What may be done with a request once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The same endpoint on a new connection, at once: the kept one was stale, which says nothing about the endpoint.
    Fresh,
    /// Another endpoint, at once: nothing of the request arrived.
    Another,
    /// Another endpoint after [`wait`], if [`RetryBudget::begin`] allows it.
    Later,
    /// Nothing: the client is told.
    GiveUp,
}

/// How far a request came before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// No byte of it was written.
    Nothing,
    /// Some, and all that was written of its body is kept.
    Kept,
    /// Some that cannot be sent again: the body was longer than [`REPLAY_BYTES`].
    Lost,
}

/// The connection that it failed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Made for it, or not made at all.
    New,
    /// It had served others before: endpoints close such at any time.
    Reused,
}

/// A request that failed before any byte of an answer came. One that fails later is cut, never tried again.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Why.
    pub fault: Fault,
    /// On which connection.
    pub connection: Connection,
    /// How far it came.
    pub sent: Sent,
    /// Endpoints tried so far, this one included.
    pub tried: usize,
    /// Endpoints that may be chosen.
    pub endpoints: usize,
}

impl Failed<'_> {
    /// What may be done. A method is repeated after it was sent only if that changes nothing (RFC 9110, section 9.2.2).
    pub fn next(&self) -> Next {
        let may_repeat = match self.sent {
            Sent::Nothing => true,
            Sent::Kept => self.method.is_idempotent(),
            Sent::Lost => false,
        };
        if !may_repeat {
            return Next::GiveUp;
        }
        if self.connection == Connection::Reused && self.fault == Fault::Closed {
            return Next::Fresh;
        }
        let is_left = self.tried < MOST_ENDPOINTS.min(self.endpoints);
        match self.fault {
            _ if !is_left => Next::GiveUp,
            // It would only double the load on what is slow already, or the wait of whoever waits.
            Fault::AnswerTimeout | Fault::Gone => Next::GiveUp,
            fault if fault.is_before_sending() => Next::Another,
            _ => Next::Later,
        }
    }
}

/// How long [`Next::Later`] waits before retry `retry`, counted from 0: any time up to the bound, by `chance` (full jitter).
pub fn wait(retry: u32, chance: u16) -> Duration {
    let bound = FIRST_WAIT
        .saturating_mul(1_u32 << retry.min(16))
        .min(LONGEST_WAIT);
    bound.mul_f64(f64::from(chance) / f64::from(u16::MAX))
}

/// Whether an answer speaks against its endpoint, as a failed connection does: what gateways say of a server behind them.
pub const fn is_failure(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Retries of one Service port in progress.
#[derive(Debug, Default)]
pub struct RetryBudget {
    retrying: AtomicU64,
    /// Retries that it did not allow.
    refused: AtomicU64,
}

impl RetryBudget {
    /// Takes a place for a retry, beside `active` requests in progress; whoever got it gives it back by [`Self::end`].
    pub fn begin(&self, active: u64) -> bool {
        let most = LEAST_BUDGET.max(active.saturating_mul(BUDGET_PER_CENT) / 100);
        let next = |retrying| (retrying < most).then_some(retrying + 1);
        let is_allowed = self.retrying.fetch_update(Relaxed, Relaxed, next).is_ok();
        if !is_allowed {
            self.refused.fetch_add(1, Relaxed);
        }
        is_allowed
    }

    /// Gives a place back: the retry has its answer, or failed.
    pub fn end(&self) {
        self.retrying.fetch_sub(1, Relaxed);
    }

    /// Retries that were not made for want of a place, since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(method: &Method, fault: Fault, sent: Sent) -> Failed<'_> {
        Failed {
            method,
            fault,
            connection: Connection::New,
            sent,
            tried: 1,
            endpoints: 3,
        }
    }

    #[test]
    fn next_after_a_failed_connection_is_another_endpoint_while_there_is_one() {
        for fault in [Fault::Refused, Fault::Unreachable, Fault::ConnectTimeout] {
            let failed = failed(&Method::POST, fault, Sent::Nothing);
            assert_eq!(failed.next(), Next::Another);
            let last = Failed { tried: 3, ..failed };
            assert_eq!(last.next(), Next::GiveUp);
            let only = Failed {
                endpoints: 1,
                ..failed
            };
            assert_eq!(only.next(), Next::GiveUp);
        }
    }

    #[test]
    fn next_after_sending_goes_by_the_method_and_by_what_is_kept() {
        use Next::{GiveUp, Later};
        for (method, sent, expected) in [
            (Method::GET, Sent::Kept, Later),
            (Method::PUT, Sent::Kept, Later),
            (Method::DELETE, Sent::Kept, Later),
            (Method::PUT, Sent::Lost, GiveUp),
            (Method::POST, Sent::Kept, GiveUp),
            (Method::PATCH, Sent::Kept, GiveUp),
            (Method::POST, Sent::Nothing, Later),
        ] {
            let next = failed(&method, Fault::Closed, sent).next();
            assert_eq!(next, expected, "{method} {sent:?}");
        }
        let slow = failed(&Method::GET, Fault::AnswerTimeout, Sent::Kept);
        assert_eq!(slow.next(), GiveUp);
    }

    #[test]
    fn next_on_a_stale_connection_is_a_fresh_one_to_the_same_endpoint() {
        let stale = |method, sent| Failed {
            connection: Connection::Reused,
            endpoints: 1,
            ..failed(method, Fault::Closed, sent)
        };
        assert_eq!(stale(&Method::POST, Sent::Nothing).next(), Next::Fresh);
        assert_eq!(stale(&Method::GET, Sent::Kept).next(), Next::Fresh);
        assert_eq!(stale(&Method::POST, Sent::Kept).next(), Next::GiveUp);
        assert_eq!(stale(&Method::PUT, Sent::Lost).next(), Next::GiveUp);
    }

    #[test]
    fn wait_is_any_time_up_to_a_bound_that_doubles_and_is_capped() {
        let bounds = [0, 1, 2, 3, 4, 40].map(|retry| wait(retry, u16::MAX).as_millis());
        assert_eq!(bounds, [25, 50, 100, 200, 250, 250]);
        assert_eq!(wait(4, 0), Duration::ZERO);
    }

    #[test]
    fn budget_is_a_fifth_of_the_requests_and_three_at_least() {
        let budget = RetryBudget::default();
        let take = |active| (0..100).filter(|_| budget.begin(active)).count();
        assert_eq!(take(0), 3);
        assert_eq!(take(100), 17, "20 with the three before");
        budget.end();
        assert_eq!(take(100), 1);
        assert_eq!(budget.refused(), 97 + 83 + 99);
    }
}
