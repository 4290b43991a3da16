//! Counters of the DNS server. Owns plain atomics that admin reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portico_core::{
    dns::{Rcode, RecordType, packet::Transport, wire::Response},
    observe::histogram::AtomicHistogram,
};

/// Types of questions that are counted on their own: those that people and resolvers ask. A client could ask for all
/// 65 536, so that the others share one counter.
const TYPES: [RecordType; 9] = [
    RecordType::A,
    RecordType::Aaaa,
    RecordType::Srv,
    RecordType::Ptr,
    RecordType::Cname,
    RecordType::Txt,
    RecordType::Ns,
    RecordType::Soa,
    RecordType::Https,
];

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
    /// From a query read to its response written, in microseconds, without the sockets.
    pub latency: AtomicHistogram,
    /// By type, the last row for all others, and by code.
    responses: [[AtomicU64; Rcode::ALL.len()]; TYPES.len() + 1],
}

impl DnsCounters {
    /// Responses by the type asked for (`None`: another one, or the query could not be read) and by their code.
    pub fn responses(&self) -> impl Iterator<Item = (Option<RecordType>, Rcode, u64)> {
        let types = TYPES.into_iter().map(Some).chain([None]);
        types.zip(&self.responses).flat_map(|(rtype, row)| {
            let row = Rcode::ALL.into_iter().zip(row);
            row.map(move |(rcode, count)| (rtype, rcode, count.load(Relaxed)))
        })
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
        let is_it = |known: &RecordType| response.rtype == Some(*known);
        let row = TYPES.iter().position(is_it).unwrap_or(TYPES.len());
        let column = Rcode::ALL.iter().position(|rcode| *rcode == response.rcode);
        let row = self.responses.get(row);
        if let Some(count) = row.and_then(|row| row.get(column?)) {
            count.fetch_add(1, Relaxed);
        }
    }
}
