//! Reading queries. Owns what is dropped, what is malformed and what is understood; never follows a pointer, so its
//! work is bounded by the bytes it gets.

use super::{HEADER, MIN_PAYLOAD, OPT, PAYLOAD};
use crate::dns::{Class, Name, Question, Rcode, RecordType};

/// A query that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Identifier, to be repeated.
    pub id: u16,
    /// The header's second word, of which recursion-desired and checking-disabled are repeated.
    pub flags: u16,
    /// What is asked.
    pub question: Question,
    /// OPT record, if the client sent one.
    pub edns: Option<Edns>,
}

/// What a client's OPT record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// Bytes that the client takes over UDP.
    pub payload: u16,
    /// Version.
    pub version: u8,
    /// Whether the client wants DNSSEC records; repeated, though there are none.
    pub dnssec_ok: bool,
}

impl Query {
    /// The most bytes of a response over UDP.
    pub fn udp_limit(&self) -> usize {
        udp_limit(self.edns)
    }
}

/// The most bytes of a response over UDP to a client that says this.
pub(in crate::dns) fn udp_limit(edns: Option<Edns>) -> usize {
    usize::from(edns.map_or(MIN_PAYLOAD, |edns| edns.payload.clamp(MIN_PAYLOAD, PAYLOAD)))
}

/// Why a packet is no query to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A response, or shorter than a header: to be met with silence, or two servers talk for ever.
    Drop,
    /// To be answered with a header alone.
    Reject {
        /// Identifier.
        id: u16,
        /// The header's second word.
        flags: u16,
        /// Why.
        rcode: Rcode,
    },
}

/// Reads `packet`.
pub fn read(packet: &[u8]) -> Result<Query, Malformed> {
    let mut reader = Reader { rest: packet };
    let Some([id, flags, questions, answers, authorities, additionals]) = reader.header() else {
        return Err(Malformed::Drop);
    };
    if flags & 0x8000 != 0 {
        return Err(Malformed::Drop);
    }
    let reject = |rcode| Malformed::Reject { id, flags, rcode };
    if flags & 0x7800 != 0 {
        return Err(reject(Rcode::NotImp));
    }
    // A query has nothing but its question, an OPT record and perhaps a signature.
    if questions != 1 || answers > 1 || authorities > 1 || additionals > 2 {
        return Err(reject(Rcode::FormErr));
    }
    let question = reader.question().ok_or(reject(Rcode::FormErr))?;
    for _ in 0..(answers + authorities) {
        reader.record().ok_or(reject(Rcode::FormErr))?;
    }
    let edns = reader.edns(additionals).map_err(reject)?;
    Ok(Query {
        id,
        flags,
        question,
        edns,
    })
}

/// The OPT record among the `count` additional records that `bytes` starts with, or that there is none; an error if
/// they are malformed.
pub(in crate::dns) fn read_edns(bytes: &[u8], count: u16) -> Result<Option<Edns>, Rcode> {
    Reader { rest: bytes }.edns(count)
}

/// A record without its owner.
pub(crate) struct RawRecord<'a> {
    is_root: bool,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: [u16; 2],
    pub(crate) data: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// The options of an OPT record, as far as they are whole: code and content.
    pub(crate) fn options(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let mut options = Reader { rest: self.data };
        std::iter::from_fn(move || {
            let (code, length) = (options.word()?, options.word()?);
            Some((code, options.take(usize::from(length))?))
        })
    }

    /// What it says as an OPT record (RFC 6891 section 6.1). Options are not used, but must be whole.
    fn edns(&self) -> Option<Edns> {
        let mut options = Reader { rest: self.data };
        while !options.rest.is_empty() {
            options.word()?;
            let length = options.word()?;
            options.take(usize::from(length))?;
        }
        let [high, low] = self.ttl;
        let [_, version] = high.to_be_bytes();
        self.is_root.then_some(Edns {
            payload: self.class,
            version,
            dnssec_ok: low & 0x8000 != 0,
        })
    }
}

/// What is left to be read of a message.
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    pub(crate) fn header(&mut self) -> Option<[u16; HEADER / 2]> {
        let mut words = [0; HEADER / 2];
        for word in &mut words {
            *word = self.word()?;
        }
        Some(words)
    }

    pub(crate) fn question(&mut self) -> Option<Question> {
        let mut labels = Vec::new();
        // Nothing stands before the question that a pointer could point to, so a length is all a byte can be; that
        // it is too long, and that the name is, `Name` tells.
        loop {
            match self.byte()? {
                0 => break,
                length => labels.push(self.take(usize::from(length))?),
            }
        }
        let name = Name::from_labels(labels).ok()?;
        let rtype = RecordType::from(self.word()?);
        Some(Question {
            name,
            rtype,
            class: Class::from(self.word()?),
        })
    }

    /// The one OPT record among `count` records, if there is one.
    fn edns(&mut self, count: u16) -> Result<Option<Edns>, Rcode> {
        let mut edns = None;
        for _ in 0..count {
            let record = self.record().ok_or(Rcode::FormErr)?;
            if record.rtype == OPT {
                let read = record.edns().ok_or(Rcode::FormErr)?;
                if edns.replace(read).is_some() {
                    return Err(Rcode::FormErr);
                }
            }
        }
        Ok(edns)
    }

    pub(crate) fn record(&mut self) -> Option<RawRecord<'a>> {
        let before = self.rest.len();
        loop {
            match self.byte()? {
                0 => break,
                length @ 1..=63 => {
                    self.take(usize::from(length))?;
                }
                192..=255 => {
                    self.byte()?;
                    break;
                }
                _ => return None,
            }
        }
        let is_root = before - self.rest.len() == 1;
        let (rtype, class) = (self.word()?, self.word()?);
        let ttl = [self.word()?, self.word()?];
        let length = self.word()?;
        Some(RawRecord {
            is_root,
            rtype,
            class,
            ttl,
            data: self.take(usize::from(length))?,
        })
    }
}
