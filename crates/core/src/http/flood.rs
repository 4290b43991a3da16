//! How much a client of HTTP/2 sends that asks for nothing. Owns following frames by their heads alone (RFC 9113, section 4.1),
//! counting those that floods are made of, and the limits. Must not read what frames carry, which the codec does, nor end connections.
//!
//! What a client may send at most follows from what it is sent. gRPC clients measure bandwidth with a PING for as little as every
//! answer (<https://github.com/grpc/grpc-java/issues/8260>), which is why gRPC's own servers forgive all PING frames since they last sent
//! HEADERS or DATA (gRFC A8); readers acknowledge as many bytes by one `WINDOW_UPDATE` as they like, and Envoy goes by the DATA frames
//! that it sent. So HEADERS and DATA that are sent pay for some frames that come back, up to a bound, and only the others are counted.

use std::time::Duration;

/// The bytes of a frame's head.
pub const HEAD_BYTES: u8 = 9;
/// See [`Kind::limit`].
const WINDOW: Duration = Duration::from_secs(1);
/// Frames that one of HEADERS or DATA pays for, ...
const PAID: u32 = 8;
/// ... and one more for so many bytes of it.
const PAID_BYTES: u32 = 512;
/// The most that are paid for ahead: a reader that paused over 16 MiB and acknowledges every 4 KiB twice needs 8192.
const MOST_PAID: u32 = 10_000;
/// The same for resets, of which each answer pays for one.
const MOST_RESETS_PAID: u32 = 1000;

// Types and flags (RFC 9113, section 6; RFC 9218, section 7.1).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const PRIORITY_UPDATE: u8 = 16;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes that follow.
    pub length: u32,
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
}

impl Head {
    /// Whether it goes on with the fields of the frame before it.
    pub const fn continues(&self) -> bool {
        self.kind == CONTINUATION
    }

    const fn carries_fields(&self) -> bool {
        self.kind == HEADERS || self.continues()
    }

    /// Whether it begins a request, or ends one by trailers.
    pub const fn opens(&self) -> bool {
        self.kind == HEADERS
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Where in the frames a stream of bytes is, however it is cut.
#[derive(Debug, Clone)]
pub struct Follower {
    /// What came of a head, as one number.
    head: u128,
    /// How many bytes that is.
    seen: u8,
    /// What is to come before the next head.
    rest: usize,
    /// The last head that came.
    latest: Option<Head>,
}

impl Follower {
    /// Frames begin after so many bytes.
    pub const fn after(bytes: usize) -> Self {
        Self {
            head: 0,
            seen: 0,
            rest: bytes,
            latest: None,
        }
    }

    /// The next head that ends in `bytes`, which are taken up to there; `None` once they are used up.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        let skipped = self.rest.min(bytes.len());
        self.rest -= skipped;
        *bytes = bytes.get(skipped..)?;
        while let Some((byte, others)) = bytes.split_first() {
            *bytes = others;
            self.head = self.head << 8 | u128::from(*byte);
            self.seen += 1;
            if self.seen == HEAD_BYTES {
                self.seen = 0;
                let [.., l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.head.to_be_bytes();
                let length = u32::from_be_bytes([0, l0, l1, l2]);
                self.rest = usize::try_from(length).unwrap_or(usize::MAX);
                self.latest = Some(Head {
                    length,
                    kind,
                    flags,
                    // The first bit is reserved.
                    stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
                });
                return self.latest;
            }
        }
        None
    }

    /// Bytes without which a frame would be cut, as far as its head is there to say so: 0 between frames.
    pub fn missing(&self) -> usize {
        match self.seen {
            0 => self.rest,
            seen => usize::from(HEAD_BYTES - seen),
        }
    }

    /// Whether the sender owes the rest of something that it had at hand: of any frame but DATA, of fields that are to be continued;
    /// or its first frame.
    pub fn is_amidst(&self) -> bool {
        self.latest.is_none_or(|head| {
            let is_continued = head.carries_fields() && !head.has(END_HEADERS);
            self.seen > 0 || (self.rest > 0 && head.kind != DATA) || is_continued
        })
    }
}

/// What floods are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `RST_STREAM` (CVE-2023-44487). Streams that the client makes us reset (CVE-2025-8671) are the codec's to count, which knows whose
    /// fault that is.
    Reset,
    /// PING: each must be answered (CVE-2019-9512); those that say to be answers, too, for we hardly ask.
    Ping,
    /// SETTINGS: each must be acknowledged (CVE-2019-9515).
    Settings,
    /// PRIORITY and `PRIORITY_UPDATE` (CVE-2019-9513).
    Priority,
    /// `WINDOW_UPDATE`.
    WindowUpdate,
    /// DATA with nothing in it that ends nothing (CVE-2019-9518).
    EmptyData,
    /// HEADERS and CONTINUATION with nothing in them that end nothing (the same). How many there may be of others follows from the bound
    /// of a head, and the codec's of CONTINUATION frames (CVE-2024-27316).
    EmptyHeaders,
    /// Those that are unknown, and ignored, or not for clients to send.
    Other,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Reset,
        Self::Ping,
        Self::Settings,
        Self::Priority,
        Self::WindowUpdate,
        Self::EmptyData,
        Self::EmptyHeaders,
        Self::Other,
    ];

    /// `None` of what carries a request, whose bounds are others.
    fn of(head: &Head) -> Option<Self> {
        Some(match head.kind {
            DATA if head.length == 0 && !head.has(END_STREAM) => Self::EmptyData,
            HEADERS | CONTINUATION if head.length == 0 && !head.has(END_HEADERS) => {
                Self::EmptyHeaders
            }
            DATA | HEADERS | CONTINUATION => return None,
            PRIORITY | PRIORITY_UPDATE => Self::Priority,
            RST_STREAM => Self::Reset,
            SETTINGS => Self::Settings,
            PING => Self::Ping,
            WINDOW_UPDATE => Self::WindowUpdate,
            _ => Self::Other,
        })
    }

    /// How many may come in a second that nothing pays for. Those of PING, resets, SETTINGS and empty HEADERS are sozu's.
    const fn limit(self) -> u32 {
        match self {
            Self::EmptyHeaders => 20,
            Self::Settings => 50,
            Self::Reset | Self::Ping | Self::EmptyData | Self::Other => 100,
            // They cost little, and clients may send several with each of a hundred requests before the first is answered; Envoy lets
            // a hundred PRIORITY come for each stream.
            Self::Priority | Self::WindowUpdate => 1000,
        }
    }

    /// As people call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "RST_STREAM",
            Self::Ping => "PING",
            Self::Settings => "SETTINGS",
            Self::Priority => "PRIORITY",
            Self::WindowUpdate => "WINDOW_UPDATE",
            Self::EmptyData => "empty DATA",
            Self::EmptyHeaders => "empty HEADERS",
            Self::Other => "unknown",
        }
    }
}

/// Counts the frames of one connection. Times are since any moment, the same for all calls.
#[derive(Debug, Clone)]
pub struct Counter {
    /// When the counts begin anew.
    until: Duration,
    counts: [(Kind, u32); Kind::ALL.len()],
    paid: u32,
    resets_paid: u32,
}

impl Default for Counter {
    fn default() -> Self {
        Self {
            until: WINDOW,
            counts: Kind::ALL.map(|kind| (kind, 0)),
            paid: 0,
            resets_paid: 0,
        }
    }
}

impl Counter {
    /// Counts a frame that the client sent; what there are too many of, if so.
    pub fn received(&mut self, head: &Head, now: Duration) -> Option<Kind> {
        let kind = Kind::of(head)?;
        let paid = match kind {
            Kind::Ping | Kind::Priority | Kind::WindowUpdate => &mut self.paid,
            Kind::Reset => &mut self.resets_paid,
            _ => return self.count(kind, now),
        };
        match paid.checked_sub(1) {
            Some(left) => {
                *paid = left;
                None
            }
            None => self.count(kind, now),
        }
    }

    /// Lets a frame that the client is sent pay for some of its own.
    pub fn sent(&mut self, head: &Head) {
        if matches!(head.kind, HEADERS | DATA) {
            let paid = PAID + head.length / PAID_BYTES;
            self.paid = self.paid.saturating_add(paid).min(MOST_PAID);
            let answers = u32::from(head.opens());
            self.resets_paid = (self.resets_paid + answers).min(MOST_RESETS_PAID);
        }
    }

    fn count(&mut self, kind: Kind, now: Duration) -> Option<Kind> {
        if now >= self.until {
            *self = Self {
                until: now + WINDOW,
                paid: self.paid,
                resets_paid: self.resets_paid,
                ..Self::default()
            };
        }
        let mut counts = self.counts.iter_mut();
        let (_, count) = counts.find(|(it, _)| *it == kind)?;
        *count += 1;
        (*count > kind.limit()).then_some(kind)
    }
}

#[cfg(test)]
mod tests;
