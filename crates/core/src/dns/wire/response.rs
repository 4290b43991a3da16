//! Writing responses. Owns compression and what is left out of a response that is too long.

use std::collections::HashMap;

use super::{Edns, HEADER, OPT, OPT_BYTES, PAYLOAD, Query};
use crate::dns::{Answer, Name, Rcode, Record, RecordData, RecordType, Soa};

/// Flags of a response: it is one, and it was meant to be recursive. Without the latter, stub resolvers take an
/// empty answer for that of a misconfigured server and ask the next one.
pub(crate) const RESPONSE: u16 = 0x8080;
pub(crate) const AUTHORITATIVE: u16 = 0x0400;
pub(crate) const TRUNCATED: u16 = 0x0200;
/// Recursion desired and checking disabled, repeated from the query.
pub(crate) const REPEATED: u16 = 0x0110;
const OPCODE: u16 = 0x7800;
/// The offsets that a compression pointer can hold.
const POINTERS: usize = 0x4000;

/// A response on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The message.
    pub bytes: Vec<u8>,
    /// Its code.
    pub rcode: Rcode,
    /// What was asked for, as far as the query could be read.
    pub rtype: Option<RecordType>,
    /// Whether records of the answer had to be left out.
    pub truncated: bool,
    /// Whether others are still to be asked.
    pub is_foreign: bool,
}

impl Response {
    /// Whether it has a record of an answer.
    pub(in crate::dns) fn has_answers(&self) -> bool {
        self.bytes.get(6..8).is_some_and(|count| count != [0, 0])
    }
}

/// A response of a header alone.
pub fn write_error(id: u16, flags: u16, rcode: Rcode) -> Response {
    let mut bytes = vec![0; HEADER];
    let flags = RESPONSE | (flags & (OPCODE | REPEATED)) | u16::from(rcode.number() & 15);
    put(&mut bytes, 0, id);
    put(&mut bytes, 2, flags);
    Response {
        bytes,
        rcode,
        rtype: None,
        truncated: false,
        is_foreign: false,
    }
}

/// Writes `answer` in at most `limit` bytes.
///
/// What does not fit is left out in this order: sets of the additional section, which nobody needs (RFC 2181
/// section 9); then records of the answer, one by one, which is told by the truncation flag. The OPT record stays.
pub fn write(query: &Query, answer: &Answer, limit: usize) -> Response {
    let reserved = if query.edns.is_some() { OPT_BYTES } else { 0 };
    let limit = limit.min(usize::from(u16::MAX)).saturating_sub(reserved);
    let mut writer = Writer {
        bytes: vec![0; HEADER],
        seen: HashMap::new(),
        limit,
    };
    writer.name(&query.question.name);
    writer.word(query.question.rtype.number());
    writer.word(query.question.class.number());
    let answers = writer.records(&answer.answers);
    let complete = answers == answer.answers.len();
    let authority = if complete {
        writer.records(&answer.authority)
    } else {
        0
    };
    let complete = complete && authority == answer.authority.len();
    let additional = if complete {
        writer.sets(&answer.additional)
    } else {
        0
    };
    let mut bytes = writer.bytes;
    if let Some(edns) = query.edns {
        write_opt(&mut bytes, edns, answer.rcode);
    }
    let mut flags = RESPONSE | (query.flags & REPEATED) | u16::from(answer.rcode.number() & 15);
    flags |= if answer.authoritative {
        AUTHORITATIVE
    } else {
        0
    };
    flags |= if complete { 0 } else { TRUNCATED };
    let counts = [
        1,
        answers,
        authority,
        additional + usize::from(query.edns.is_some()),
    ];
    put(&mut bytes, 0, query.id);
    put(&mut bytes, 2, flags);
    for (at, count) in (4..).step_by(2).zip(counts) {
        put(&mut bytes, at, u16::try_from(count).unwrap_or(u16::MAX));
    }
    Response {
        rtype: Some(query.question.rtype),
        bytes,
        rcode: answer.rcode,
        truncated: !complete,
        is_foreign: answer.foreign.is_some(),
    }
}

/// Our OPT record: the size is our own, not the client's again (RFC 6891 section 6.2.4).
pub(crate) fn write_opt(bytes: &mut Vec<u8>, edns: Edns, rcode: Rcode) {
    let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
    let [[a, b], [c, d]] = [OPT.to_be_bytes(), PAYLOAD.to_be_bytes()];
    let upper = rcode.number() >> 4;
    bytes.extend_from_slice(&[0, a, b, c, d, upper, 0, dnssec_ok, 0, 0, 0]);
}

pub(crate) fn put(bytes: &mut [u8], at: usize, word: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

struct Writer<'a> {
    bytes: Vec<u8>,
    /// Where each name, by its wire form in its case, was written: pointers keep the case.
    seen: HashMap<&'a [u8], u16>,
    limit: usize,
}

impl<'a> Writer<'a> {
    fn word(&mut self, word: u16) {
        self.bytes.extend(word.to_be_bytes());
    }

    fn long(&mut self, long: u32) {
        self.bytes.extend(long.to_be_bytes());
    }

    /// As many of `records` as fit; returns how many.
    fn records(&mut self, records: &'a [Record]) -> usize {
        records
            .iter()
            .take_while(|record| self.fits(std::slice::from_ref(*record)))
            .count()
    }

    /// As many sets (records of one owner and type) as fit; returns the number of records.
    fn sets(&mut self, records: &'a [Record]) -> usize {
        let sets = records.chunk_by(|a, b| a.name == b.name && a.data.rtype() == b.data.rtype());
        sets.take_while(|set| self.fits(set))
            .map(<[Record]>::len)
            .sum()
    }

    /// Writes `records`, or nothing if they do not fit.
    fn fits(&mut self, records: &'a [Record]) -> bool {
        let before = self.bytes.len();
        for record in records {
            self.record(record);
        }
        if self.bytes.len() <= self.limit {
            return true;
        }
        self.bytes.truncate(before);
        self.seen.retain(|_, at| usize::from(*at) < before);
        false
    }

    fn record(&mut self, record: &'a Record) {
        self.name(&record.name);
        self.word(record.data.rtype().number());
        self.word(1);
        self.long(record.ttl);
        let at = self.bytes.len();
        self.word(0);
        self.data(&record.data);
        let length = u16::try_from(self.bytes.len() - at - 2).unwrap_or(u16::MAX);
        put(&mut self.bytes, at, length);
    }

    fn data(&mut self, data: &'a RecordData) {
        match data {
            RecordData::A(addr) => self.bytes.extend(addr.octets()),
            RecordData::Aaaa(addr) => self.bytes.extend(addr.octets()),
            RecordData::Cname(name) | RecordData::Ns(name) | RecordData::Ptr(name) => {
                self.name(name);
            }
            RecordData::Srv {
                weight,
                port,
                target,
            } => {
                self.word(0);
                self.word(*weight);
                self.word(*port);
                // RFC 2782: never compressed.
                self.bytes.extend(target.as_wire());
            }
            RecordData::Other(_, data) => self.bytes.extend(data),
            RecordData::Txt(text) => self.text(text),
            RecordData::Hinfo(cpu, os) => {
                self.text(cpu);
                self.text(os);
            }
            RecordData::Soa(soa) => {
                self.name(&soa.mname);
                self.name(&soa.rname);
                self.long(soa.serial);
                for time in Soa::TIMES {
                    self.long(time);
                }
            }
        }
    }

    fn text(&mut self, text: &str) {
        let text = text.as_bytes().get(..255).unwrap_or(text.as_bytes());
        self.bytes.push(u8::try_from(text.len()).unwrap_or(0));
        self.bytes.extend(text);
    }

    /// Writes a name, its longest tail that was written before as a pointer (RFC 1035 section 4.1.4).
    fn name(&mut self, name: &'a Name) {
        let mut rest = name.as_wire();
        while let Some((&length, tail)) = rest.split_first().filter(|(length, _)| **length > 0) {
            if let Some(at) = self.seen.get(rest) {
                return self.word(0xc000 | *at);
            }
            if let Some(at) = u16::try_from(self.bytes.len())
                .ok()
                .filter(|at| usize::from(*at) < POINTERS)
            {
                self.seen.insert(rest, at);
            }
            let Some((label, next)) = tail.split_at_checked(usize::from(length)) else {
                break;
            };
            self.bytes.push(length);
            self.bytes.extend(label);
            rest = next;
        }
        self.bytes.push(0);
    }
}
