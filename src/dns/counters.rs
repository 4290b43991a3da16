//! Counters of the DNS server. Owns plain atomics that admin reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portico_core::dns::{Rcode, packet::Transport, wire::Response};

/// Since the start of the program.
#[derive(Debug, Default)]
pub struct DnsCounters {
    /// Packets that came over UDP.
    pub udp_queries: AtomicU64,
    /// Messages that came over TCP.
    pub tcp_queries: AtomicU64,
    /// Packets met with silence: responses, and what is shorter than a header.
    pub dropped: AtomicU64,
    /// Responses that could not be sent at once and were given up.
    pub unsent: AtomicU64,
    /// Responses that lack records of their answer.
    pub truncated: AtomicU64,
    /// TCP connections that are open.
    pub connections: AtomicU64,
    responses: [AtomicU64; Rcode::ALL.len()],
}

impl DnsCounters {
    /// Responses by their code.
    pub fn responses(&self) -> impl Iterator<Item = (Rcode, u64)> {
        Rcode::ALL
            .into_iter()
            .zip(&self.responses)
            .map(|(rcode, count)| (rcode, count.load(Relaxed)))
    }

    pub(super) fn count(&self, transport: Transport, response: Option<&Response>) {
        let queries = match transport {
            Transport::Udp => &self.udp_queries,
            Transport::Tcp => &self.tcp_queries,
        };
        queries.fetch_add(1, Relaxed);
        let Some(response) = response else {
            self.dropped.fetch_add(1, Relaxed);
            return;
        };
        if response.truncated {
            self.truncated.fetch_add(1, Relaxed);
        }
        let by_rcode = Rcode::ALL.into_iter().zip(&self.responses);
        if let Some((_, count)) = by_rcode
            .into_iter()
            .find(|(rcode, _)| *rcode == response.rcode)
        {
            count.fetch_add(1, Relaxed);
        }
    }
}
