//! What was counted of names of others. Owns the figures that admin reads while they are being counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use portico_core::{dns::Name, observe::histogram::Histogram};

use super::{Forwarder, upstream::Upstream};

/// Since the start of the program.
#[derive(Debug, Default)]
pub struct ForwardCounters {
    /// Queries that were answered from what was kept, with records.
    pub hits: AtomicU64,
    /// The same, without records: there is no such name, or no such record.
    pub denials: AtomicU64,
    /// Queries for which nothing was kept.
    pub misses: AtomicU64,
    /// Queries that were sent because what was kept was wanted and nearly too old.
    pub prefetched: AtomicU64,
    /// Queries that were answered with what was too old.
    pub stale: AtomicU64,
    /// Queries that were refused because too many were waiting.
    pub rejected: AtomicU64,
    /// Queries that found no room in the queue.
    pub overflowed: AtomicU64,
}

/// One more.
pub(in crate::dns) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptReport {
    /// Number of responses.
    pub entries: usize,
    /// Those that had to make room.
    pub evicted: u64,
}

/// One server that is asked.
#[derive(Debug)]
pub struct UpstreamReport {
    /// Where.
    pub addr: SocketAddr,
    /// Names in this domain alone.
    pub domain: Option<String>,
    /// Why it is not asked, or not in its turn.
    pub problem: Option<&'static str>,
    /// Times that were no answer, or a late one.
    pub failures: u64,
    /// How long its answers took, in microseconds.
    pub latency: Histogram,
}

impl Forwarder {
    /// What was counted so far.
    pub(in crate::dns) fn counters(&self) -> &ForwardCounters {
        &self.counters
    }

    /// What is kept now.
    pub(in crate::dns) fn kept_report(&self) -> KeptReport {
        let kept = self.kept();
        KeptReport {
            entries: kept.cache.len(),
            evicted: kept.cache.evicted(),
        }
    }

    /// The servers that are asked now, those for all names first.
    pub(in crate::dns) fn upstreams(&self) -> Vec<UpstreamReport> {
        let all = self.all_upstreams().into_iter();
        all.map(|(domain, upstream)| report(&domain, &upstream))
            .collect()
    }
}

fn report(domain: &Name, upstream: &Arc<Upstream>) -> UpstreamReport {
    UpstreamReport {
        addr: upstream.addr,
        domain: (!domain.is_empty()).then(|| domain.to_string()),
        problem: upstream.problem(),
        failures: upstream.failures.load(Relaxed),
        latency: upstream.latency.load(),
    }
}
