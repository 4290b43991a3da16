//! Writing a response from prepared records. Owns its header, its sizes and its compression, which are those of
//! [`wire::write`] to the byte.

use std::net::IpAddr;

use super::{
    Hit,
    prepared::{Located, OWNER},
    question::Asked,
};
use crate::dns::{
    Moment, Rcode, Soa, TTL,
    order::shuffle,
    wire::{self, AUTHORITATIVE, HEADER, OPT_BYTES, REPEATED, RESPONSE, TRUNCATED},
};

const CLASS_IN: [u8; 2] = [0, 1];
const SOA: [u8; 2] = [0, 6];
const PTR: [u8; 2] = [0, 12];
const SRV: [u8; 2] = [0, 33];
/// The longest name in wire form.
const MAX_WIRE: usize = 255;

/// A response that is being written.
pub(super) struct Reply<'a> {
    out: &'a mut Vec<u8>,
    asked: &'a Asked<'a>,
    /// Bytes without the OPT record.
    limit: usize,
    moment: Moment,
}

impl<'a> Reply<'a> {
    pub(super) fn start(
        out: &'a mut Vec<u8>,
        asked: &'a Asked<'a>,
        limit: usize,
        moment: Moment,
    ) -> Self {
        out.clear();
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(asked.question);
        let reserved = if asked.edns.is_some() { OPT_BYTES } else { 0 };
        Self {
            out,
            asked,
            limit: limit.saturating_sub(reserved),
            moment,
        }
    }

    /// As many of `records` as fit, in an order of chance.
    pub(super) fn addresses<const N: usize>(&mut self, records: &[[u8; N]]) -> Hit {
        let before = self.out.len();
        let room = self.limit.saturating_sub(before) / N;
        let fitting = room.min(records.len());
        self.out.extend_from_slice(records.as_flattened());
        let (written, _) = self
            .out
            .get_mut(before..)
            .unwrap_or_default()
            .as_chunks_mut::<N>();
        shuffle(written, self.moment.seed);
        self.out.truncate(before + fitting * N);
        self.finish(Rcode::NoError, [fitting, 0, 0], fitting < records.len())
    }

    /// No records: the SOA record of the zone that begins at `zone` of the name (RFC 2308 section 3).
    #[expect(
        clippy::unnecessary_wraps,
        reason = "so that every way through ends alike"
    )]
    pub(super) fn negative(&mut self, rcode: Rcode, zone: usize) -> Option<Hit> {
        /// `ns.dns` and `hostmaster`, each with a pointer to the zone; a serial and four times.
        const LENGTH: u16 = 9 + 13 + 20;
        let origin = pointer(HEADER + zone);
        for part in [
            &origin[..],
            &SOA,
            &CLASS_IN,
            &TTL.to_be_bytes(),
            &LENGTH.to_be_bytes(),
        ] {
            self.out.extend_from_slice(part);
        }
        self.out.extend_from_slice(b"\x02ns\x03dns");
        self.out.extend_from_slice(&origin);
        self.out.extend_from_slice(b"\x0ahostmaster");
        self.out.extend_from_slice(&origin);
        self.out
            .extend_from_slice(&self.moment.serial.to_be_bytes());
        for time in Soa::TIMES {
            self.out.extend_from_slice(&time.to_be_bytes());
        }
        Some(self.finish(rcode, [0, 1, 0], false))
    }

    /// The one name of an address; `None` if it is too long.
    pub(super) fn pointer<'z>(&mut self, labels: impl Iterator<Item = &'z str>) -> Option<Hit> {
        for part in [&OWNER[..], &PTR, &CLASS_IN, &TTL.to_be_bytes(), &[0, 0]] {
            self.out.extend_from_slice(part);
        }
        let at = self.out.len();
        for label in labels {
            self.out.push(
                u8::try_from(label.len())
                    .ok()
                    .filter(|length| *length < 64)?,
            );
            self.out.extend_from_slice(label.as_bytes());
        }
        self.out.push(0);
        let length = self.out.len() - at;
        if length > MAX_WIRE || self.out.len() > self.limit {
            return None;
        }
        put(self.out, at - 2, u16::try_from(length).ok()?);
        Some(self.finish(Rcode::NoError, [1, 0, 0], false))
    }

    /// SRV records and the addresses of their targets; `None` if not all of that fits. `places` are where the
    /// Service's name, `svc` and the zone begin.
    pub(super) fn services(
        &mut self,
        located: &Located,
        [service, svc, zone]: [usize; 3],
    ) -> Option<Hit> {
        let own = self.asked.folded(service..svc)?;
        // Targets are in lower case up to the zone, which is in the client's case. Where another name stands for
        // `svc`, the zone begins in its place.
        let below: &[u8] = if zone > svc { b"\x03svc" } else { b"" };
        let origin = self.asked.name_from(zone)?;
        for srv in &located.answers {
            let target = located.target(srv.target)?;
            let length = target.len() + own.len() + below.len() + origin.len();
            let data = u16::try_from(length + 6)
                .ok()
                .filter(|_| length <= MAX_WIRE)?;
            self.out.extend_from_slice(&OWNER);
            self.out.extend_from_slice(&SRV);
            self.out.extend_from_slice(&CLASS_IN);
            self.out.extend_from_slice(&TTL.to_be_bytes());
            for word in [data, 0, srv.weight, srv.port] {
                self.out.extend_from_slice(&word.to_be_bytes());
            }
            for part in [target, own, below, origin] {
                self.out.extend_from_slice(part);
            }
            if self.out.len() > self.limit {
                return None;
            }
        }
        self.additional(located, [service, svc, zone])?;
        let counts = [located.answers.len(), 0, located.additional.len()];
        Some(self.finish(Rcode::NoError, counts, false))
    }

    fn additional(&mut self, located: &Located, places: [usize; 3]) -> Option<()> {
        let mut tail = Tail::of(self.asked, places)?;
        let mut last = None;
        for (place, addr) in &located.additional {
            match last {
                Some((same, at)) if same == *place => self.out.extend_from_slice(&pointer(at)),
                _ => {
                    let label = located.target(*place)?;
                    let at = self.out.len();
                    self.out.extend_from_slice(label);
                    let own = tail.write(self.out);
                    // The Service itself may be the question, which later records then point to.
                    last = Some((*place, if label.is_empty() { own } else { at }));
                }
            }
            let (rtype, length): (u16, u16) = if addr.is_ipv4() { (1, 4) } else { (28, 16) };
            self.out.extend_from_slice(&rtype.to_be_bytes());
            self.out.extend_from_slice(&CLASS_IN);
            self.out.extend_from_slice(&TTL.to_be_bytes());
            self.out.extend_from_slice(&length.to_be_bytes());
            match addr {
                IpAddr::V4(addr) => self.out.extend_from_slice(&addr.octets()),
                IpAddr::V6(addr) => self.out.extend_from_slice(&addr.octets()),
            }
            if self.out.len() > self.limit {
                return None;
            }
        }
        Some(())
    }

    /// Counts: answers, authorities, additional records beside OPT.
    fn finish(&mut self, rcode: Rcode, counts: [usize; 3], truncated: bool) -> Hit {
        if let Some(edns) = self.asked.edns {
            wire::write_opt(self.out, edns, rcode);
        }
        let repeated = self.asked.flags & REPEATED;
        let truncation = if truncated { TRUNCATED } else { 0 };
        let code = u16::from(rcode.number());
        let flags = RESPONSE | AUTHORITATIVE | repeated | truncation | code;
        let [answers, authorities, additional] = counts;
        let additional = additional + usize::from(self.asked.edns.is_some());
        if let Some(id) = self.out.get_mut(..2) {
            id.copy_from_slice(&self.asked.id);
        }
        put(self.out, 2, flags);
        put(self.out, 4, 1);
        for (at, count) in [(6, answers), (8, authorities), (10, additional)] {
            put(self.out, at, u16::try_from(count).unwrap_or(u16::MAX));
        }
        Hit {
            rtype: self.asked.rtype,
            rcode,
            truncated,
        }
    }
}

/// The end that all targets of a Service share, as it is written: as far as the question has it in the same bytes, it
/// is pointed to, and once written, that is.
struct Tail<'a> {
    /// In front of what is pointed to.
    written: [&'a [u8]; 3],
    at: usize,
}

impl<'a> Tail<'a> {
    fn of(asked: &'a Asked<'_>, [service, svc, zone]: [usize; 3]) -> Option<Self> {
        let has = |from: usize, to: usize| asked.question.get(from..to) == asked.folded(from..to);
        let namespace = service + 1 + usize::from(*asked.folded(service..service + 1)?.first()?);
        let parts = [(service, namespace), (namespace, svc), (svc, zone)];
        let mut written = [&[][..]; 3];
        let mut at = zone;
        let mut is_same = true;
        for (place, (from, to)) in parts.into_iter().enumerate().rev() {
            is_same &= has(from, to);
            if is_same {
                at = from;
            } else {
                *written.get_mut(place)? = asked.folded(from..to)?;
            }
        }
        Some(Self {
            written,
            at: HEADER + at,
        })
    }

    /// Writes it; returns where a pointer to it leads.
    fn write(&mut self, out: &mut Vec<u8>) -> usize {
        let at = out.len();
        for part in std::mem::take(&mut self.written) {
            out.extend_from_slice(part);
        }
        let start = if out.len() > at { at } else { self.at };
        out.extend_from_slice(&pointer(self.at));
        self.at = start;
        start
    }
}

impl Located {
    fn target(&self, place: u32) -> Option<&[u8]> {
        let target = self.targets.get(usize::try_from(place).ok()?)?;
        Some(target)
    }
}

/// A compression pointer; names of a question end long before the offsets that it can hold do.
fn pointer(at: usize) -> [u8; 2] {
    (0xc000 | u16::try_from(at).unwrap_or_default()).to_be_bytes()
}

fn put(bytes: &mut [u8], at: usize, word: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}
