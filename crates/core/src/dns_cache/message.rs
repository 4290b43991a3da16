//! Messages on their way: queries to others as they leave, and what comes back. Owns the check that a response belongs
//! to its query, and how it is fitted to the client that asked: identifier, case of the name, time to live, order and
//! size. Everything else stays as it came, what we do not know included.

use std::{ops::Range, time::Duration};

use super::Key;
use crate::dns::{
    Answer, Name, Rcode, Record, RecordData, RecordType,
    order::shuffle,
    wire::{
        AUTHORITATIVE, HEADER, OPT, OPT_BYTES, PAYLOAD, Query, RECURSION_DESIRED, REPEATED,
        RESPONSE, RawRecord, Reader, Response, TRUNCATED, put, write_opt,
    },
};

/// DNS cookies (RFC 7873): between two hosts, so that they are not handed on.
const COOKIE: u16 = 10;
/// Extended errors (RFC 8914).
const EXTENDED_ERROR: u16 = 15;
/// Bytes of options that are handed on.
const MOST_OPTIONS: usize = 256;
const CHECKING_DISABLED: u16 = 0x0010;
/// The answer was validated (RFC 4035).
const AUTHENTIC: u16 = 0x0020;
const IS_RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
/// The longest that a message is kept, whatever it says: what clusters are configured with (`cache 30` of CoreDNS), so
/// that another network or a new record counts soon.
const LONGEST: Duration = Duration::from_secs(30);
/// How long a failure is kept (RFC 2308 section 7.1: at most five minutes).
const FAILURE: Duration = Duration::from_secs(5);
/// Longer messages are not kept.
const MOST_KEPT: usize = 4096;
/// The time to live of a record that is given although it is too old (RFC 8767 section 4), in seconds.
const STALE_TTL: u32 = 30;

/// A query as it is sent to others: the client's own packet, but for its identifier and the size that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    bytes: Vec<u8>,
    /// Where the question ends.
    question: usize,
    dnssec_ok: bool,
    is_plain: bool,
}

impl Relayed {
    /// Of a packet that [`crate::dns::wire::read`] has read.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: packet };
        let [.., answers, authorities, additionals] = reader.header()?;
        reader.question()?;
        let mut relayed = Self {
            bytes: packet.to_vec(),
            question: packet.len() - reader.rest.len(),
            dnssec_ok: false,
            is_plain: true,
        };
        for _ in 0..u32::from(answers) + u32::from(authorities) + u32::from(additionals) {
            let record = reader.record()?;
            let data = packet.len() - reader.rest.len() - record.data.len();
            if record.rtype == OPT {
                let [_, low] = record.ttl;
                relayed.dnssec_ok = low & 0x8000 != 0;
                relayed.is_plain &= record.options().all(|(code, _)| code == COOKIE);
                // What is longer travels in pieces, which some networks drop.
                put(&mut relayed.bytes, data - 8, record.class.min(PAYLOAD));
            } else {
                relayed.is_plain = false;
            }
        }
        relayed.bytes.truncate(packet.len() - reader.rest.len());
        Some(relayed)
    }

    /// The question for `name` on behalf of `query`, whose name is another one.
    pub fn instead(query: &Query, name: &Name) -> Self {
        let mut bytes = vec![0; HEADER];
        put(
            &mut bytes,
            2,
            query.flags & (RECURSION_DESIRED | CHECKING_DISABLED),
        );
        put(&mut bytes, 4, 1);
        bytes.extend_from_slice(name.as_wire());
        bytes.extend(query.question.rtype.number().to_be_bytes());
        bytes.extend(query.question.class.number().to_be_bytes());
        let question = bytes.len();
        if let Some(edns) = query.edns {
            put(&mut bytes, 10, 1);
            write_opt(&mut bytes, edns, Rcode::NoError);
        }
        Self {
            bytes,
            question,
            dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
            is_plain: true,
        }
    }

    /// What its response can be kept under; `None` if the response may depend on more than that.
    pub fn key(&self) -> Option<Key> {
        let question = self.bytes.get(HEADER..self.question)?;
        let (name, kind) = question.split_at_checked(question.len().checked_sub(4)?)?;
        // Lengths in names are no letters.
        let mut key = name.to_ascii_lowercase();
        key.extend_from_slice(kind);
        let is_unchecked = self.flags() & CHECKING_DISABLED != 0;
        key.extend([u8::from(self.dnssec_ok), u8::from(is_unchecked)]);
        self.is_plain.then(|| Key::new(key))
    }

    /// Whether others may be asked for it.
    pub fn wants_recursion(&self) -> bool {
        self.flags() & RECURSION_DESIRED != 0
    }

    fn flags(&self) -> u16 {
        let header = Reader { rest: &self.bytes }.header();
        header.map_or(0, |[_, flags, ..]| flags)
    }

    /// The packet under an identifier of its own.
    pub fn packet(&self, id: u16) -> Vec<u8> {
        let mut packet = self.bytes.clone();
        put(&mut packet, 0, id);
        packet
    }
}

/// Whether `response` is one to `query`: identifier, opcode and question are the same (RFC 5452 section 9.1).
fn belongs(response: &[u8], query: &[u8]) -> bool {
    let read = |packet| {
        let mut reader = Reader { rest: packet };
        let [id, flags, questions, ..] = reader.header()?;
        let before = reader.rest;
        let question = reader.question()?;
        let length = before.len() - reader.rest.len();
        Some((id, flags, questions, length, question))
    };
    let (Some(is), Some(asked)) = (read(response), read(query)) else {
        return false;
    };
    (is.0, is.2, is.3, &is.4) == (asked.0, 1, asked.3, &asked.4)
        && is.1 & IS_RESPONSE != 0
        && is.1 & OPCODE == asked.1 & OPCODE
}

/// Whether `response` is one to `query` and says that the whole of it must be asked for over TCP.
pub fn is_cut(response: &[u8], query: &[u8]) -> bool {
    let flags = Reader { rest: response }
        .header()
        .map(|[_, flags, ..]| flags);
    flags.is_some_and(|flags| flags & TRUNCATED != 0) && belongs(response, query)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placed {
    section: Section,
    rtype: u16,
    ttl: u32,
    start: usize,
    data: Range<usize>,
}

/// How old a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It has just come.
    Fresh,
    /// It was kept for so long.
    Kept(Duration),
    /// It was kept for longer than it should be.
    Stale,
}

impl Age {
    fn left(self, ttl: u32) -> u32 {
        match self {
            Self::Fresh => ttl,
            Self::Kept(age) => ttl.saturating_sub(u32::try_from(age.as_secs()).unwrap_or(ttl)),
            Self::Stale => STALE_TTL,
        }
    }
}

/// A response from others, without its OPT record, which says what was agreed with us and not with the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
    flags: u16,
    rcode: u16,
    /// Where the question ends.
    question: usize,
    records: Vec<Placed>,
    /// Options of the OPT record that may be handed on.
    options: Vec<u8>,
}

impl Message {
    /// Reads a response to `query`; `None` if it is none, or malformed.
    pub fn read(response: &[u8], query: &[u8]) -> Option<Self> {
        if !belongs(response, query) {
            return None;
        }
        let mut reader = Reader { rest: response };
        let [_, flags, _, answers, authorities, additionals] = reader.header()?;
        reader.question()?;
        let question = response.len() - reader.rest.len();
        let mut message = Self {
            bytes: Vec::new(),
            flags,
            rcode: flags & 15,
            question,
            records: Vec::new(),
            options: Vec::new(),
        };
        let sections = [
            (Section::Answer, answers),
            (Section::Authority, authorities),
            (Section::Additional, additionals),
        ];
        for (section, count) in sections {
            for _ in 0..count {
                let start = response.len() - reader.rest.len();
                let record = reader.record()?;
                let end = response.len() - reader.rest.len();
                if record.rtype == OPT {
                    message.take_opt(&record);
                } else {
                    let [high, low] = record.ttl.map(u32::from);
                    message.records.push(Placed {
                        section,
                        rtype: record.rtype,
                        ttl: high << 16 | low,
                        start,
                        data: end - record.data.len()..end,
                    });
                }
            }
        }
        message.keep_what_is_joined();
        let end = message.end_of(message.records.len());
        message.bytes = response.get(..end)?.to_vec();
        Some(message)
    }

    fn take_opt(&mut self, opt: &RawRecord<'_>) {
        let [high, _] = opt.ttl;
        self.rcode |= (high >> 8) << 4;
        for (code, content) in opt.options() {
            let fits = self.options.len() + 4 + content.len() <= MOST_OPTIONS;
            if let Some(length) = u16::try_from(content.len()).ok().filter(|_| fits)
                && code != COOKIE
            {
                self.options.extend(code.to_be_bytes());
                self.options.extend(length.to_be_bytes());
                self.options.extend_from_slice(content);
            }
        }
    }

    /// Leaves out what stands behind the OPT record, since nothing can be moved without reading every name.
    fn keep_what_is_joined(&mut self) {
        let mut end = self.question;
        let joined = self.records.iter().take_while(|record| {
            let is_next = record.start == end;
            end = record.data.end;
            is_next
        });
        let joined = joined.count();
        self.records.truncate(joined);
    }

    /// Where the first `count` records end.
    fn end_of(&self, count: usize) -> usize {
        let last = count.checked_sub(1).and_then(|last| self.records.get(last));
        last.map_or(self.question, |record| record.data.end)
    }

    /// Response code, also where it has more than four bits.
    pub fn rcode(&self) -> u16 {
        self.rcode
    }

    /// Whether it says that others have failed.
    pub fn is_failure(&self) -> bool {
        self.known_rcode() == Rcode::ServFail
    }

    /// Whether it has what was asked for.
    pub fn has_answers(&self) -> bool {
        self.rcode == 0 && self.answers().next().is_some()
    }

    /// How long it may be kept; `None` for not at all. That there is nothing may be kept only if the zone says for how
    /// long (RFC 2308 section 5).
    pub fn lifetime(&self) -> Option<Duration> {
        if self.is_truncated() || self.bytes.len() > MOST_KEPT {
            return None;
        }
        match Rcode::from_number(self.rcode)? {
            Rcode::ServFail => return Some(FAILURE),
            Rcode::NoError | Rcode::NxDomain => {}
            _ => return None,
        }
        let minimum = self.minimum();
        if !self.has_answers() && minimum.is_none() {
            return None;
        }
        let ttls = self.records.iter().map(|record| record.ttl);
        let ttls = ttls.chain(minimum);
        // One with the highest bit set counts as nothing (RFC 2181 section 8).
        let least = ttls
            .map(|ttl| i32::try_from(ttl).map_or(0, |_| ttl))
            .min()?;
        let lifetime = Duration::from_secs(least.into()).min(LONGEST);
        (!lifetime.is_zero()).then_some(lifetime)
    }

    /// The last number of the SOA record in the authority section.
    fn minimum(&self) -> Option<u32> {
        let is_soa = |record: &&Placed| {
            record.section == Section::Authority
                && RecordType::from(record.rtype) == RecordType::Soa
        };
        let soa = self.records.iter().find(is_soa)?;
        let minimum = self.bytes.get(soa.data.clone())?.last_chunk()?;
        Some(u32::from_be_bytes(*minimum))
    }

    /// Whether it was cut on its way to us.
    pub fn is_truncated(&self) -> bool {
        self.flags & TRUNCATED != 0
    }

    /// The response for a client that asked `query`, in at most `limit` bytes. Its addresses have an order drawn from
    /// `seed`.
    ///
    /// What does not fit is left out from the end; what then is missing from the first two sections is told by the
    /// truncation flag (RFC 2181 section 9).
    pub fn respond(&self, query: &Query, limit: usize, age: Age, seed: u64) -> Response {
        let mut options = &*self.options;
        let mut reserved = query.edns.map_or(0, |_| OPT_BYTES + options.len());
        if self.question + reserved > limit {
            reserved -= options.len();
            options = &[];
        }
        let mut bytes = self.aged(age, seed);
        let fitting = |record: &Placed| record.data.end + reserved <= limit;
        let kept = self
            .records
            .iter()
            .take_while(|record| fitting(record))
            .count();
        let left_out = self.records.iter().skip(kept);
        let is_cut = self.is_truncated()
            || left_out
                .clone()
                .any(|record| record.section != Section::Additional);
        bytes.truncate(self.end_of(kept));
        if let Some(place) = bytes.get_mut(HEADER..) {
            let name = query.question.name.as_wire();
            place
                .iter_mut()
                .zip(name)
                .for_each(|(to, from)| *to = *from);
        }
        self.head(&mut bytes, query, age, (kept, is_cut));
        if let Some(edns) = query.edns {
            let opt = bytes.len();
            write_opt(&mut bytes, edns, Rcode::NoError);
            if let Some(upper) = bytes.get_mut(opt + 5) {
                *upper = u8::try_from(self.rcode >> 4).unwrap_or(u8::MAX);
            }
            add_options(&mut bytes, options);
        }
        Response {
            bytes,
            rcode: self.known_rcode(),
            rtype: Some(query.question.rtype),
            truncated: is_cut,
            is_foreign: false,
        }
    }

    fn head(&self, bytes: &mut [u8], query: &Query, age: Age, (kept, is_cut): (usize, bool)) {
        let handed_on = match age {
            Age::Fresh => AUTHORITATIVE | AUTHENTIC,
            Age::Kept(_) | Age::Stale => AUTHENTIC,
        };
        let mut flags = RESPONSE | (query.flags & REPEATED) | (self.flags & (handed_on | 15));
        flags |= if is_cut { TRUNCATED } else { 0 };
        put(bytes, 0, query.id);
        put(bytes, 2, flags);
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        for (at, section) in (6..).step_by(2).zip(sections) {
            let records = self.records.iter().take(kept);
            let mut count = records.filter(|record| record.section == section).count();
            count += usize::from(section == Section::Additional && query.edns.is_some());
            put(bytes, at, u16::try_from(count).unwrap_or(u16::MAX));
        }
    }

    /// A code of ours where we have it: others are as good as none.
    fn known_rcode(&self) -> Rcode {
        Rcode::from_number(self.rcode).unwrap_or(Rcode::ServFail)
    }

    /// The bytes with times to live of this age, and addresses in another order.
    fn aged(&self, age: Age, seed: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for record in &self.records {
            let [high, low] = [age.left(record.ttl) >> 16, age.left(record.ttl) & 0xffff];
            for (at, word) in [(6, high), (4, low)] {
                put(
                    &mut bytes,
                    record.data.start - at,
                    u16::try_from(word).unwrap_or(u16::MAX),
                );
            }
        }
        let records: Vec<_> = self.answers().collect();
        let owner = |record: &Placed| self.bytes.get(record.start..record.data.start - 10);
        for set in records.chunk_by(|a, b| a.rtype == b.rtype && owner(a) == owner(b)) {
            let is_address = set.iter().all(|record| {
                matches!(
                    RecordType::from(record.rtype),
                    RecordType::A | RecordType::Aaaa
                )
            });
            if !is_address {
                continue;
            }
            let mut from: Vec<_> = set.iter().map(|record| record.data.clone()).collect();
            shuffle(&mut from, seed);
            for (to, from) in set.iter().zip(from) {
                if let (Some(to), Some(from)) =
                    (bytes.get_mut(to.data.clone()), self.bytes.get(from))
                    && to.len() == from.len()
                {
                    to.copy_from_slice(from);
                }
            }
        }
        bytes
    }

    fn answers(&self) -> impl Iterator<Item = &Placed> {
        let is_answer = |record: &&Placed| record.section == Section::Answer;
        self.records.iter().filter(is_answer)
    }

    /// Goes on with `answer`, which ends with an alias of what was asked here. Its code is that of this message
    /// (RFC 6604 section 2.1). What cannot be read is left out, and the code then says that something is wrong.
    pub fn extend(&self, answer: &mut Answer, age: Age, seed: u64) {
        let bytes = self.aged(age, seed);
        answer.rcode = self.known_rcode();
        for record in &self.records {
            let to = match record.section {
                Section::Answer => &mut answer.answers,
                Section::Authority => &mut answer.authority,
                Section::Additional => continue,
            };
            match read_record(&bytes, record) {
                Some(read) => to.push(read),
                None => answer.rcode = Rcode::ServFail,
            }
        }
    }
}

fn read_record(bytes: &[u8], placed: &Placed) -> Option<Record> {
    let (name, _) = read_name(bytes, placed.start)?;
    let ttl = bytes.get(placed.data.start - 6..placed.data.start - 2)?;
    let rtype = RecordType::from(placed.rtype);
    // The types in which names may be compressed (RFC 3597 section 4), SRV because some do it all the same.
    let (before, names) = match rtype {
        RecordType::Ns | RecordType::Cname | RecordType::Ptr => (0, 1),
        RecordType::Mx => (2, 1),
        RecordType::Srv => (6, 1),
        RecordType::Soa => (0, 2),
        _ => (0, 0),
    };
    let mut at = placed.data.start + before;
    let mut data = bytes.get(placed.data.start..at)?.to_vec();
    for _ in 0..names {
        let (name, end) = read_name(bytes, at)?;
        data.extend_from_slice(name.as_wire());
        at = end;
    }
    data.extend_from_slice(bytes.get(at..placed.data.end)?);
    Some(Record {
        name,
        ttl: u32::from_be_bytes(ttl.try_into().ok()?),
        data: RecordData::Other(rtype, data.into()),
    })
}

/// The name at `at`, and where it ends there. Pointers lead backwards only, so that it is read in bounded time.
fn read_name(bytes: &[u8], mut at: usize) -> Option<(Name, usize)> {
    let (mut labels, mut length) = (Vec::new(), 0);
    let (mut end, mut floor) = (None, at);
    loop {
        match *bytes.get(at)? {
            0 => return Some((Name::from_labels(labels).ok()?, end.unwrap_or(at + 1))),
            size @ 1..=63 => {
                let next = at + 1 + usize::from(size);
                labels.push(bytes.get(at + 1..next)?);
                length += next - at;
                at = next;
            }
            high @ 192..=255 => {
                end.get_or_insert(at + 2);
                at = usize::from(high & 63) << 8 | usize::from(*bytes.get(at + 1)?);
                if at >= floor {
                    return None;
                }
                floor = at;
            }
            _ => return None,
        }
        // Longer than any name.
        if length > 255 {
            return None;
        }
    }
}

/// Adds `options` to the OPT record without options that `bytes` ends with.
fn add_options(bytes: &mut Vec<u8>, options: &[u8]) {
    let length = bytes.len().saturating_sub(2);
    put(bytes, length, u16::try_from(options.len()).unwrap_or(0));
    bytes.extend_from_slice(options);
}

/// Says why in `response` (RFC 8914), if `query` has an OPT record to say it in and takes so much: a code and a text for
/// people, in ASCII.
pub fn explain(query: &Query, response: &mut Response, (code, text): (u16, &str)) {
    let text = text.get(..text.len().min(160)).unwrap_or_default();
    let Ok(length) = u16::try_from(text.len() + 2) else {
        return;
    };
    let mut option = Vec::with_capacity(text.len() + 6);
    for word in [EXTENDED_ERROR, length, code] {
        option.extend(word.to_be_bytes());
    }
    option.extend_from_slice(text.as_bytes());
    let fits = response.bytes.len() + option.len() <= query.udp_limit();
    if fits && query.edns.is_some() {
        add_options(&mut response.bytes, &option);
    }
}

/// Says in `response` that what it was made of had been cut.
pub fn cut(response: &mut Response) {
    response.truncated = true;
    if let Some(flags) = response.bytes.get_mut(2) {
        *flags |= 2;
    }
}
