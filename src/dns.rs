//! The DNS server: sockets around [`portico_core::dns`]. Owns which addresses it is asked at, the limits of
//! connections and the counters; what a name means, and every byte of a response, is the core's.
//!
//! Answers come from the Snapshot that is published when the query is read, so DNS and the data path agree. None of
//! them is cached. `forward` asks others for names that are not ours.

mod counters;
mod forward;
mod listen;
mod responder;
mod serve;
mod slow;

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
use forward::Forwarder;
pub use forward::{ForwardSettings, ResolvConf, UpstreamSource};
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
    forwarder: Forwarder,
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
            forwarder: Forwarder::new(ForwardSettings::default()),
        }
    }

    /// The same, asking these for names of others; nobody is asked otherwise.
    pub fn forwarding(self, settings: ForwardSettings) -> Self {
        Self {
            forwarder: Forwarder::new(settings),
            ..self
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
            self.moment(&snapshot, 1),
        )
    }

    /// The response to a message over TCP, if it gets one; waits for others where they are to be asked.
    async fn ask(&self, packet: &[u8]) -> Option<Response> {
        let began = Instant::now();
        let response = match self.ordinary(packet, Transport::Tcp) {
            Some(response) if response.elsewhere => {
                slow::resolve(self, packet, Transport::Tcp).await
            }
            response => response,
        };
        self.counters
            .count_message(response.as_ref(), began.elapsed().as_micros());
        response
    }

    /// The response to `packet` by the ordinary way, uncounted.
    fn ordinary(&self, packet: &[u8], transport: Transport) -> Option<Response> {
        let snapshot = self.published.load();
        respond(&snapshot, packet, transport, self.moment(&snapshot, 1))
    }

    /// A moment with as many [next](Moment::next) ones as are wanted, that nobody else has.
    fn moment(&self, snapshot: &Snapshot, wanted: usize) -> Moment {
        let wanted = u64::try_from(wanted).unwrap_or(1);
        let step = Moment::STEP.wrapping_mul(wanted);
        Moment {
            serial: serial(self.first_serial, snapshot),
            seed: self.seeds.fetch_add(step, Relaxed),
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
