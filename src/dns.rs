//! The DNS server: sockets around [`portico_core::dns`]. Owns which addresses it is asked at, the limits of
//! connections and the counters; what a name means, and every byte of a response, is the core's.
//!
//! Answers come from the Snapshot that is published when the query is read, so DNS and the data path agree. None of
//! them is cached. What is prepared answers this host; clients elsewhere take the ordinary way, over UDP and TCP alike.
//! `forward` asks others for names that are not ours, and keeps what they say for a while.

mod counters;
mod forward;
mod listen;
mod responder;
mod serve;
mod slow;
mod withheld;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use portico_core::{
    dns::{
        Answer, Moment, Name, Question, Rcode, RecordType, fast,
        packet::{self, Transport},
        wire::Response,
    },
    snapshot::{ClientPlace, Snapshot},
};
use withheld::Withheld;

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
    forwarder: Arc<Forwarder>,
    withheld: Withheld,
}

/// What a response says, for the counters.
#[derive(Debug, Clone, Copy)]
struct Said {
    rtype: Option<RecordType>,
    rcode: Rcode,
    truncated: bool,
    /// It is not all: others know the name, or what it is an alias of.
    is_foreign: bool,
}

impl Said {
    const fn of(response: &Response) -> Self {
        Self {
            rtype: response.rtype,
            rcode: response.rcode,
            truncated: response.truncated,
            is_foreign: response.elsewhere,
        }
    }
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
            withheld: Withheld::default(),
            forwarder: Arc::new(Forwarder::new(ForwardSettings::default())),
        }
    }

    /// The same, asking these for names of others; nobody is asked otherwise.
    pub fn forwarding(self, settings: ForwardSettings) -> Self {
        Self {
            forwarder: Arc::new(Forwarder::new(settings)),
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

    /// Writes the response to the packet of `client` into `reply`, by the prepared way or else the ordinary one; `None`
    /// is silence. Counts nothing but what is kept from clients elsewhere.
    fn respond(
        &self,
        snapshot: &Snapshot,
        (packet, client): (&[u8], IpAddr),
        (transport, moment): (Transport, Moment),
        reply: &mut Vec<u8>,
    ) -> Option<Said> {
        if let Some(hit) = fast::respond(snapshot, packet, (transport, moment), reply) {
            return Some(Said {
                rtype: Some(hit.rtype),
                rcode: hit.rcode,
                truncated: hit.truncated,
                is_foreign: false,
            });
        }
        reply.clear();
        let response = packet::respond(snapshot, packet, transport, moment)?;
        if let Some(name) = packet::withheld(snapshot, packet, &response, moment) {
            self.counters.withheld.fetch_add(1, Relaxed);
            self.withheld.tell(&name, client);
        }
        reply.extend_from_slice(&response.bytes);
        Some(Said::of(&response))
    }

    /// Writes the response to a message over TCP into `reply` and counts it; `false` is silence. Waits for others where
    /// they are to be asked.
    async fn answer_message(
        &self,
        packet: &[u8],
        (client, place): (IpAddr, ClientPlace),
        reply: &mut Vec<u8>,
    ) -> bool {
        let began = Instant::now();
        let mut said = {
            let snapshot = self.published.load();
            let moment = Moment {
                place,
                ..self.moment(&snapshot, 1)
            };
            self.respond(&snapshot, (packet, client), (Transport::Tcp, moment), reply)
        };
        if said.is_some_and(|said| said.is_foreign) {
            let response = slow::resolve(self, packet, (Transport::Tcp, place)).await;
            said = response.map(|response| {
                reply.clear();
                reply.extend_from_slice(&response.bytes);
                Said::of(&response)
            });
        }
        self.counters
            .count_message(said, began.elapsed().as_micros());
        said.is_some()
    }

    /// A moment with as many [next](Moment::next) ones as are wanted, that nobody else has.
    fn moment(&self, snapshot: &Snapshot, wanted: usize) -> Moment {
        let wanted = u64::try_from(wanted).unwrap_or(1);
        let step = Moment::STEP.wrapping_mul(wanted);
        Moment {
            serial: serial(self.first_serial, snapshot),
            seed: self.seeds.fetch_add(step, Relaxed),
            place: ClientPlace::OnNode,
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
        ..Moment::default()
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
