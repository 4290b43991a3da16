//! Counters of the DNS server. Owns plain atomics that admin reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Said;
use portico_core::{
    dns::{Rcode, RecordType, wire::Response},
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
    /// Responses without a record, since every address would have been the client's own machine.
    pub withheld: AtomicU64,
    /// TCP connections that were closed to make room for another one.
    pub displaced: AtomicU64,
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

    /// Counts a message that came over TCP, and took so many microseconds. What others are asked for is counted when they
    /// have answered.
    pub(super) fn count_message(&self, said: Option<Said>, took: u128) {
        self.tcp_queries.fetch_add(1, Relaxed);
        let mut tally = Tally::default();
        if said.is_none_or(|said| !said.is_foreign) {
            tally.note(said);
        }
        self.add(&tally);
        self.latency.record(u64::try_from(took).unwrap_or(u64::MAX));
    }

    /// Counts a response to what had to wait.
    pub(super) fn count_response(&self, response: &Response) {
        let mut tally = Tally::default();
        tally.count(response.rtype, response.rcode, response.truncated);
        self.add(&tally);
    }

    /// Counts packets that came over UDP, so many of which took so many microseconds together. What was offered
    /// elsewhere is counted there.
    pub(super) fn count_batch(&self, tally: &Tally, (received, took): (usize, u128)) {
        let times = u64::try_from(received).unwrap_or_default();
        self.udp_queries.fetch_add(times, Relaxed);
        self.add(tally);
        let each = u64::try_from(took).unwrap_or(u64::MAX) / times.max(1);
        self.latency.record_many(each, times);
    }

    fn add(&self, tally: &Tally) {
        if tally.dropped > 0 {
            self.dropped.fetch_add(tally.dropped, Relaxed);
        }
        if tally.truncated > 0 {
            self.truncated.fetch_add(tally.truncated, Relaxed);
        }
        let counts = self
            .responses
            .iter()
            .flatten()
            .zip(tally.responses.iter().flatten());
        for (sum, count) in counts.filter(|(_, count)| **count > 0) {
            sum.fetch_add(u64::from(*count), Relaxed);
        }
    }
}

/// What one thread has seen since it last told the others: so that they do not write to the same places for every
/// query.
#[derive(Debug, Default)]
pub(super) struct Tally {
    dropped: u64,
    truncated: u64,
    responses: [[u32; Rcode::ALL.len()]; TYPES.len() + 1],
}

impl Tally {
    /// What was said to a packet.
    pub(super) fn note(&mut self, said: Option<Said>) {
        match said {
            Some(said) => self.count(said.rtype, said.rcode, said.truncated),
            None => self.dropped += 1,
        }
    }

    /// A response.
    pub(super) fn count(&mut self, rtype: Option<RecordType>, rcode: Rcode, truncated: bool) {
        self.truncated += u64::from(truncated);
        let row = TYPES
            .iter()
            .position(|known| rtype == Some(*known))
            .unwrap_or(TYPES.len());
        let column = Rcode::ALL.iter().position(|known| *known == rcode);
        let row = self.responses.get_mut(row);
        if let Some(count) = row.and_then(|row| row.get_mut(column?)) {
            *count += 1;
        }
    }
}
