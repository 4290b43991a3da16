//! The DNS server: sockets around [`portico_core::dns`]. Owns which addresses it is asked at, the limits of
//! connections and the counters; what a name means, and every byte of a response, is the core's.
//!
//! Answers come from the Snapshot that is published when the query is read, so DNS and the data path agree. Nothing
//! is cached.

mod counters;
mod listen;
mod serve;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use portico_core::{
    dns::{
        Answer, Moment, Name, Question, RecordType,
        packet::{Transport, respond},
        wire::Response,
    },
    snapshot::Snapshot,
};

pub use counters::DnsCounters;
pub use listen::{DnsBound, DnsFailure, DnsListen, DnsListeners, DnsSettings, DnsTransport, bind};
pub use serve::serve;

/// What all listeners share: where answers come from, and what is counted.
#[derive(Debug)]
pub struct DnsService {
    published: Arc<ArcSwap<Snapshot>>,
    /// Serial that generation 0 has.
    first_serial: u32,
    /// Start of the row of seeds for the order of addresses.
    seeds: AtomicU64,
    counters: DnsCounters,
}

impl DnsService {
    /// A service over `published`. `started` is the time in seconds since the Unix epoch: serials count generations
    /// from there, so they grow with every Snapshot and over restarts.
    pub fn new(published: Arc<ArcSwap<Snapshot>>, started: u32, seed: u64) -> Self {
        Self {
            published,
            first_serial: started,
            seeds: AtomicU64::new(seed),
            counters: DnsCounters::default(),
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> &DnsCounters {
        &self.counters
    }

    /// The answer to a question that came another way than as a packet.
    pub fn answer(&self, name: Name, rtype: RecordType) -> Answer {
        let snapshot = self.published.load();
        portico_core::dns::answer(
            &snapshot,
            &Question::new(name, rtype),
            self.moment(&snapshot),
        )
    }

    /// The response to `packet`, if it gets one.
    fn respond(&self, packet: &[u8], transport: Transport) -> Option<Response> {
        let began = Instant::now();
        let snapshot = self.published.load();
        let response = respond(&snapshot, packet, transport, self.moment(&snapshot));
        self.counters.count(transport, response.as_ref());
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.latency.record(took);
        response
    }

    fn moment(&self, snapshot: &Snapshot) -> Moment {
        // An odd step of this size makes neighbours differ in most bits.
        let seed = self.seeds.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        Moment {
            serial: serial(self.first_serial, snapshot),
            seed,
        }
    }
}

/// The JSON form of the answer to `name` and `rtype`, as the admin interface gives it to `portico resolve`.
///
/// # Errors
/// If the text is no name or no type, or the answer cannot be serialised.
pub fn answer_json(
    service: &DnsService,
    name: &str,
    rtype: &str,
) -> Result<serde_json::Value, AskError> {
    let (name, rtype) = parse_question(name, Some(rtype))?;
    Ok(serde_json::to_value(service.answer(name, rtype))?)
}

/// The answer from one snapshot, without a server.
pub fn answer_offline(snapshot: &Snapshot, name: Name, rtype: RecordType) -> Answer {
    let moment = Moment {
        serial: serial(0, snapshot),
        seed: 0,
    };
    portico_core::dns::answer(snapshot, &Question::new(name, rtype), moment)
}

/// Reads a question as people type it: an address alone asks for its names, a name alone for type A.
///
/// # Errors
/// If the text is no name or no type.
pub fn parse_question(name: &str, rtype: Option<&str>) -> Result<(Name, RecordType), AskError> {
    let rtype = rtype
        .map(|text| text.parse().map_err(AskError::Type))
        .transpose()?;
    if let Ok(addr) = name.parse()
        && matches!(rtype, None | Some(RecordType::Ptr))
    {
        return Ok((Name::reverse(addr), RecordType::Ptr));
    }
    let parsed = Name::parse(name).map_err(|source| AskError::Name {
        name: name.to_owned(),
        source,
    })?;
    Ok((parsed, rtype.unwrap_or(RecordType::A)))
}

/// Why a question could not be put.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Not a domain name.
    #[error("cannot ask for {name:?}")]
    Name {
        /// What was given.
        name: String,
        /// Why not.
        source: portico_core::dns::NameError,
    },
    /// Not a record type.
    #[error(transparent)]
    Type(portico_core::dns::UnknownType),
    /// The answer has no JSON form.
    #[error("cannot write the answer as JSON")]
    Json(#[from] serde_json::Error),
}

/// Serials compare in a circle (RFC 1982), so wrapping is right.
fn serial(first: u32, snapshot: &Snapshot) -> u32 {
    let [.., a, b, c, d] = snapshot.generation.0.to_be_bytes();
    first.wrapping_add(u32::from_be_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests;
