//! One packet in, at most one out. Owns the order of the checks; never panics on what it gets and never answers a
//! response.

use super::{
    Answer, Moment, Name, Rcode, answer,
    wire::{self, Malformed, Query, Response},
    zone::{self, Place},
};
use crate::snapshot::{ClientPlace, Snapshot};

/// What carries a packet, which decides how long the response may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Up to what the client takes.
    Udp,
    /// Up to 65 535 bytes.
    Tcp,
}

/// The response to `packet`, if it gets one.
pub fn respond(
    snapshot: &Snapshot,
    packet: &[u8],
    transport: Transport,
    moment: Moment,
) -> Option<Response> {
    let query = match wire::read(packet) {
        Ok(query) => query,
        Err(Malformed::Drop) => return None,
        Err(Malformed::Reject { id, flags, rcode }) => {
            return Some(wire::write_error(id, flags, rcode));
        }
    };
    let limit = limit(&query, transport);
    let answer = if query.edns.is_some_and(|edns| edns.version > 0) {
        Answer::empty(Rcode::BadVers, false)
    } else {
        answer(snapshot, &query.question, moment)
    };
    Some(wire::write(&query, &answer, limit))
}

/// A name that has no records for its client alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// As it was asked for.
    pub name: Name,
    /// Whether it is the zone's name server, whose addresses are those that DNS is answered at.
    pub is_name_server: bool,
}

/// The name in `packet` if `response` has no records only because its client is elsewhere.
pub fn withheld(
    snapshot: &Snapshot,
    packet: &[u8],
    response: &Response,
    moment: Moment,
) -> Option<Withheld> {
    let is_elsewhere = moment.place == ClientPlace::Elsewhere;
    if !is_elsewhere || response.rcode != Rcode::NoError || response.has_answers() {
        return None;
    }
    let question = wire::read(packet).ok()?.question;
    let here = Moment {
        place: ClientPlace::OnNode,
        ..moment
    };
    let has_records = !answer(snapshot, &question, here).answers.is_empty();
    let name = question.name;
    let is_name_server = match zone::place(&snapshot.cluster, &name) {
        Place::Forward(zone) => zone.name_server(&snapshot.cluster).as_ref() == Some(&name),
        _ => false,
    };
    has_records.then_some(Withheld {
        name,
        is_name_server,
    })
}

/// The most bytes of the response to `query`.
pub fn limit(query: &Query, transport: Transport) -> usize {
    match transport {
        Transport::Udp => query.udp_limit(),
        Transport::Tcp => usize::from(u16::MAX),
    }
}

/// The response to `packet` that says `rcode` and nothing else, if it gets one.
pub fn refuse(packet: &[u8], rcode: Rcode) -> Option<Response> {
    let query = wire::read(packet).ok()?;
    let limit = query.udp_limit();
    Some(wire::write(&query, &Answer::empty(rcode, false), limit))
}
