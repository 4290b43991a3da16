//! The DNS server: sockets around [`portico_core::dns`]. Owns which addresses it is asked at, the limits of
//! connections and the counters; what a name means, and every byte of a response, is the core's.
//!
//! Answers come from the Snapshot that is published when the query is read, so DNS and the data path agree. None of
//! them is cached. What is prepared answers this host; clients elsewhere take the ordinary way, over UDP and TCP alike.
//! `forward` asks others for names that are not ours, and keeps what they say for a while.

mod connections;
mod counters;
mod forward;
mod listen;
mod missed;
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
use connections::Connections;
use missed::Missed;
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
pub use forward::{
    ForwardCounters, ForwardSettings, INSTALLED, KeptReport, ResolvConf, UpstreamReport,
    UpstreamSource, former,
};
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
    connections: Connections,
    withheld: Withheld,
    missed: Missed,
}

/// A name that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissedName {
    /// As it was asked for.
    pub name: String,
    /// How often, as far as that is known.
    pub count: u64,
    /// The name of a Service that it may stand for.
    pub meant: String,
}

/// The most connections at one time, over all addresses.
const MAX_CONNECTIONS: usize = 256;
/// Names that people are told of: each costs a walk over all Services.
const MAX_MISSED: usize = 5;

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
            is_foreign: response.is_foreign,
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
            connections: Connections::new(MAX_CONNECTIONS),
            withheld: Withheld::default(),
            missed: Missed::default(),
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

    /// The same, with no more than `most` connections over TCP at a time.
    pub fn holding(self, most: usize) -> Self {
        Self {
            connections: Connections::new(most.min(MAX_CONNECTIONS)),
            ..self
        }
    }

    /// Connections over TCP that are open.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// What was counted so far.
    pub fn counters(&self) -> &DnsCounters {
        &self.counters
    }

    /// What was counted of names of others so far.
    pub fn forward_counters(&self) -> &ForwardCounters {
        self.forwarder.counters()
    }

    /// What is kept of what others said.
    pub fn kept(&self) -> KeptReport {
        self.forwarder.kept_report()
    }

    /// The servers that are asked for names of others.
    pub fn upstreams(&self) -> Vec<UpstreamReport> {
        self.forwarder.upstreams()
    }

    /// Writes the response to the packet of `client` into `reply`, by the prepared way or else the ordinary one; `None`
    /// is silence. What is kept from clients elsewhere is counted here, all else by whoever calls.
    fn respond(
        &self,
        snapshot: &Snapshot,
        (packet, client): (&[u8], IpAddr),
        (transport, moment): (Transport, Moment),
        reply: &mut Vec<u8>,
    ) -> Option<Said> {
        let said = match fast::respond(snapshot, packet, (transport, moment), reply) {
            Some(hit) => Said {
                rtype: Some(hit.rtype),
                rcode: hit.rcode,
                truncated: hit.truncated,
                is_foreign: false,
            },
            None => {
                self.respond_ordinarily(snapshot, (packet, client), (transport, moment), reply)?
            }
        };
        if said.rcode == Rcode::NxDomain {
            self.missed.note(packet);
        }
        Some(said)
    }

    fn respond_ordinarily(
        &self,
        snapshot: &Snapshot,
        (packet, client): (&[u8], IpAddr),
        (transport, moment): (Transport, Moment),
        reply: &mut Vec<u8>,
    ) -> Option<Said> {
        reply.clear();
        let response = packet::respond(snapshot, packet, transport, moment)?;
        if let Some(withheld) = packet::withheld(snapshot, packet, &response, moment) {
            self.counters.withheld.fetch_add(1, Relaxed);
            self.withheld.tell(&withheld, client);
        }
        reply.extend_from_slice(&response.bytes);
        Some(Said::of(&response))
    }

    /// Writes the response to a message over TCP into `reply` and counts it, but for one that others are to be asked
    /// for.
    fn answer_message(
        &self,
        packet: &[u8],
        (client, place): (IpAddr, ClientPlace),
        reply: &mut Vec<u8>,
    ) -> Option<Said> {
        let began = Instant::now();
        let snapshot = self.published.load();
        let moment = Moment {
            place,
            ..self.moment(&snapshot, 1)
        };
        let said = self.respond(&snapshot, (packet, client), (Transport::Tcp, moment), reply);
        self.counters
            .count_message(said, began.elapsed().as_micros());
        said
    }

    /// Names that were asked for lately and do not exist, the last one first, where another one may have been meant.
    pub fn missed(&self) -> Vec<MissedName> {
        let snapshot = self.published.load();
        let latest = self.missed.latest().into_iter();
        let named = latest.filter_map(|(name, count)| {
            let meant = portico_core::dns::meant(&snapshot, &name)?.to_string();
            Some(MissedName {
                name: name.to_string(),
                count,
                meant,
            })
        });
        named.take(MAX_MISSED).collect()
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

/// The JSON form of what a client of this host gets for `name` and `rtype`, as the admin interface gives it to `portico
/// resolve`: with `byOthers` where other servers said it, and `reason` where they were to be asked and could not.
///
/// # Errors
/// If the text is no name or no type, or the answer cannot be serialised.
pub async fn answer_json(
    service: &DnsService,
    name: &str,
    rtype: &str,
) -> Result<serde_json::Value, AskError> {
    let (name, rtype) = parse_question(name, Some(rtype))?;
    let question = Question::new(name.clone(), rtype);
    let (answer, source) = slow::answer_for_people(service, question).await;
    let mut json = with_guess(&answer, &service.published.load(), &name)?;
    let more = match source {
        slow::Source::Ours => None,
        slow::Source::Others => Some(("byOthers", true.into())),
        slow::Source::Nobody(reason) => Some(("reason", reason.into())),
    };
    if let (Some((field, value)), Some(fields)) = (more, json.as_object_mut()) {
        fields.insert(field.to_owned(), value);
    }
    Ok(json)
}

/// The same from one snapshot, without a server.
///
/// # Errors
/// If the answer cannot be serialised.
pub fn answer_offline(
    snapshot: &Snapshot,
    name: Name,
    rtype: RecordType,
) -> Result<serde_json::Value, AskError> {
    let moment = Moment {
        serial: serial(0, snapshot),
        ..Moment::default()
    };
    let question = Question::new(name, rtype);
    let answer = portico_core::dns::answer(snapshot, &question, moment);
    Ok(with_guess(&answer, snapshot, &question.name)?)
}

/// An answer as JSON; where the name does not exist, with what may have been meant.
fn with_guess(
    answer: &Answer,
    snapshot: &Snapshot,
    name: &Name,
) -> serde_json::Result<serde_json::Value> {
    let mut json = serde_json::to_value(answer)?;
    let guess = || portico_core::dns::meant(snapshot, name);
    if answer.rcode == Rcode::NxDomain
        && let (Some(meant), Some(fields)) = (guess(), json.as_object_mut())
    {
        fields.insert("didYouMean".into(), meant.to_string().into());
    }
    Ok(json)
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
