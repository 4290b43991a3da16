//! Settings of the data path. Owns their names, units and defaults; where they come from (flags, environment, file)
//! belongs to the program. Must not read anything.

use std::time::Duration;

use crate::net::liveness::Liveness;

/// What the data path can be told. Every field has a default that suits one developer's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSettings {
    /// Worker threads, each with a runtime of its own; at least 1. Default: what the machine runs in parallel.
    pub workers: usize,
    /// Time for one connect attempt, as long as another endpoint is left. Default 1 s: endpoints are near.
    pub connect_timeout: Duration,
    /// Different endpoints tried for one connection; at least 1. Default 3.
    pub max_attempts: usize,
    /// Time without a byte in either direction after which a connection is reset. Default 1 h.
    pub idle_timeout: Duration,
    /// The same once one side has finished sending. Default 5 min.
    pub half_closed_timeout: Duration,
    /// Silence of a peer on another machine after which the kernel asks whether it is still there (`SO_KEEPALIVE`,
    /// `TCP_KEEPIDLE`); three questions without an answer end the connection. Default 60 s; `None` never asks.
    pub keepalive: Option<Duration>,
    /// Time that bytes for such a peer may stay unacknowledged (`TCP_USER_TIMEOUT`). Default `None`, the kernel's own,
    /// about a quarter of an hour (`net.ipv4.tcp_retries2`): since Linux 5.11 it also ends connections to peers that
    /// are there but do not read.
    pub user_timeout: Option<Duration>,
    /// Time in which a trusted front end must have sent its whole PROXY header. Default 3 s: it has it at hand, but the
    /// last packet of it may be lost and sent again.
    pub proxy_header_timeout: Duration,
    /// Time in which the head of a request must be complete, from its first byte on; else the client gets 408. Default 10 s.
    pub http_head_timeout: Duration,
    /// Time in which an endpoint must begin its answer, from when the whole request was sent; else the client gets 504. Default
    /// `None`: as long as it takes.
    pub http_response_timeout: Option<Duration>,
    /// Time without a request after which a connection of HTTP is closed. Default 75 s.
    pub http_idle_timeout: Duration,
    /// Age at which clients are told to come back on another connection of HTTP, less up to a tenth. Default `None`: never.
    pub http_max_age: Option<Duration>,
    /// Upper bound of connections at a time; more wait in the kernel's queue. Default `None`: only descriptors limit.
    pub max_connections: Option<usize>,
    /// Upper bound of UDP flows at a time, above which the oldest are shed; descriptors may limit more. Default 16384:
    /// each takes one of the 28 232 ephemeral ports.
    pub max_flows: usize,
    /// Length of a listener's accept queue in the kernel (which caps it at `net.core.somaxconn`). Default 4096.
    pub backlog: u16,
    /// Connections a worker accepts from one listener before others get their turn; at least 1. Default 16.
    pub accept_burst: usize,
    /// Connections on their way to another worker, for each worker. When full, the accepting worker keeps them.
    /// Default 1024.
    pub handover_queue: usize,
    /// First delay before a port that could not be bound is tried again. Default 100 ms.
    pub rebind_base: Duration,
    /// Longest such delay. Default 30 s.
    pub rebind_cap: Duration,
    /// How long the control side waits for the workers to let go of a closed listener. Default 1 s.
    pub release_timeout: Duration,
}

impl DataSettings {
    /// Time for an attempt at the only endpoint that is left: to give up helps nobody then. A SYN that finds the endpoint's backlog
    /// full is dropped and sent again after 1 s and after 3 s (RFC 6298, section 2, and `tcp_syn_retries` in tcp(7)).
    pub(crate) const fn last_connect_timeout(&self) -> Duration {
        self.connect_timeout.saturating_mul(5)
    }

    pub(crate) const fn liveness(&self) -> Liveness {
        Liveness {
            keepalive: self.keepalive,
            user_timeout: self.user_timeout,
        }
    }
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            connect_timeout: Duration::from_secs(1),
            max_attempts: 3,
            idle_timeout: Duration::from_hours(1),
            half_closed_timeout: Duration::from_mins(5),
            keepalive: Some(Duration::from_mins(1)),
            user_timeout: None,
            proxy_header_timeout: Duration::from_secs(3),
            http_head_timeout: Duration::from_secs(10),
            http_response_timeout: None,
            http_idle_timeout: Duration::from_secs(75),
            http_max_age: None,
            max_connections: None,
            max_flows: 16_384,
            backlog: 4096,
            accept_burst: 16,
            handover_queue: 1024,
            rebind_base: Duration::from_millis(100),
            rebind_cap: Duration::from_secs(30),
            release_timeout: Duration::from_secs(1),
        }
    }
}
