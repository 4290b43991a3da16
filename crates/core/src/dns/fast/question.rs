//! Reading a plain query in place. Owns which queries are plain; never allocates, and reads no byte twice.

use std::ops::Range;

use crate::dns::{
    RecordType,
    wire::{self, Edns, HEADER},
};

/// The longest name in wire form and the most labels that it can have.
const MAX_WIRE: usize = 255;
const MAX_LABELS: usize = 128;

/// A query of one question of class IN, and nothing beside it but an OPT record.
pub(super) struct Asked<'a> {
    pub(super) id: [u8; 2],
    pub(super) flags: u16,
    /// As it came, with type and class.
    pub(super) question: &'a [u8],
    pub(super) rtype: RecordType,
    pub(super) edns: Option<Edns>,
    /// The name in lower case.
    folded: [u8; MAX_WIRE],
    /// Where each label begins, and behind them where the root does.
    starts: [u8; MAX_LABELS],
    labels: usize,
}

impl<'a> Asked<'a> {
    pub(super) fn read(packet: &'a [u8]) -> Option<Self> {
        let (header, rest) = packet.split_first_chunk::<HEADER>()?;
        let [id @ .., flags_high, flags_low, 0, 1, 0, 0, 0, 0, 0, more] = *header else {
            return None;
        };
        let id: [u8; 2] = id;
        let flags = u16::from_be_bytes([flags_high, flags_low]);
        // A response, or another operation than a query.
        if flags & 0xf800 != 0 || more > 1 {
            return None;
        }
        let mut asked = Self {
            id,
            flags,
            question: &[],
            rtype: RecordType::A,
            edns: None,
            folded: [0; MAX_WIRE],
            starts: [0; MAX_LABELS],
            labels: 0,
        };
        let length = asked.read_name(rest)?;
        let (question, rest) = rest.split_at_checked(length + 4)?;
        let (name, &[type_high, type_low, 0, 1]) = question.split_last_chunk::<4>()? else {
            return None;
        };
        let folded = asked.folded.get_mut(..length)?;
        folded.copy_from_slice(name);
        // Length bytes are below 64 and capitals above.
        folded.make_ascii_lowercase();
        asked.question = question;
        asked.rtype = RecordType::from(u16::from_be_bytes([type_high, type_low]));
        if matches!(
            asked.rtype,
            RecordType::Any | RecordType::Axfr | RecordType::Ixfr
        ) {
            return None;
        }
        if more > 0 {
            asked.edns = wire::read_edns(rest, 1).ok()?;
        }
        // An unknown version has an answer of its own.
        let is_known = asked.edns.is_none_or(|edns| edns.version == 0);
        is_known.then_some(asked)
    }

    /// Notes where labels begin; returns the length of the name.
    fn read_name(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let length = *bytes.get(at)?;
            *self.starts.get_mut(self.labels)? = u8::try_from(at).ok()?;
            match length {
                0 => break,
                1..=63 => at += usize::from(length) + 1,
                _ => return None,
            }
            self.labels += 1;
        }
        (at < MAX_WIRE).then_some(at + 1)
    }

    /// Where the label at `place` begins in the name; behind the last one, where the root does.
    pub(super) fn start(&self, place: usize) -> Option<usize> {
        let is_there = place <= self.labels;
        self.starts
            .get(place)
            .filter(|_| is_there)
            .map(|start| usize::from(*start))
    }

    /// The label at `place` in lower case.
    pub(super) fn label(&self, place: usize) -> Option<&[u8]> {
        self.folded(self.start(place)? + 1..self.start(place + 1)?)
    }

    /// A part of the name in lower case.
    pub(super) fn folded(&self, range: Range<usize>) -> Option<&[u8]> {
        self.folded.get(range)
    }

    /// The name in the client's case, with type and class behind it.
    pub(super) fn name_from(&self, at: usize) -> Option<&'a [u8]> {
        self.question.get(at..self.question.len().checked_sub(4)?)
    }

    /// How many labels the name has in front of `zone`, if it lies in that.
    pub(super) fn labels_before(&self, zone: &str) -> Option<usize> {
        let dots = zone.bytes().filter(|byte| *byte == b'.').count();
        let last = self.labels.checked_sub(1)?;
        let front = last.checked_sub(dots)?;
        let mut rest = zone.as_bytes();
        for place in front..last {
            rest = rest.strip_prefix(self.label(place)?)?.strip_prefix(b".")?;
        }
        (rest == self.label(last)?).then_some(front)
    }
}
