//! Domain names. Owns their limits (RFC 1035 section 2.3.4), their text form and how they compare; must not know any
//! zone.

use std::{fmt, net::IpAddr};

/// The longest label, in bytes.
const MAX_LABEL: usize = 63;
/// The longest name in wire form, in bytes, with the length bytes and the root's.
const MAX_WIRE: usize = 255;

/// A domain name, always absolute. It keeps the case that it was made with and compares without it (RFC 4343).
#[derive(Clone)]
pub struct Name {
    /// Labels behind their length bytes, closed by the root's zero: never compressed, at most 255 bytes.
    wire: Box<[u8]>,
}

/// Why something is no domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two dots in a row, or one at the start.
    #[error("name has an empty label")]
    EmptyLabel,
    /// More than 63 bytes between two dots.
    #[error("name has a label of more than 63 bytes")]
    LabelTooLong,
    /// More than 255 bytes in wire form.
    #[error("name has more than 255 bytes")]
    TooLong,
    /// A backslash with neither a character nor three digits up to 255 behind it.
    #[error("name has an incomplete escape")]
    Escape,
}

impl Name {
    /// The root.
    pub fn root() -> Self {
        Self {
            wire: Box::from([0]),
        }
    }

    /// A name of these labels, the leftmost first.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(64);
        for label in labels {
            push_label(&mut wire, label)?;
        }
        Self::close(wire)
    }

    /// `labels` in front of `parent`.
    pub(crate) fn under(parent: &Self, labels: &[&str]) -> Result<Self, NameError> {
        let front = labels.iter().map(|label| label.as_bytes());
        Self::from_labels(front.chain(parent.labels()))
    }

    /// Reads the text form (RFC 1035 section 5.1), with or without the final dot.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "." || text.is_empty() {
            return Ok(Self::root());
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut label = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'.' => {
                    push_label(&mut wire, &label)?;
                    label.clear();
                }
                b'\\' => label.push(unescape(&mut bytes)?),
                _ => label.push(byte),
            }
        }
        if !label.is_empty() {
            push_label(&mut wire, &label)?;
        }
        Self::close(wire)
    }

    /// The name at which the PTR records of `addr` are (RFC 1035 section 3.5, RFC 3596 section 2.5).
    pub fn reverse(addr: IpAddr) -> Self {
        let text = match addr {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            IpAddr::V6(v6) => {
                let mut text = String::with_capacity(72);
                for byte in v6.octets().into_iter().rev() {
                    for nibble in [byte & 15, byte >> 4] {
                        text.extend(char::from_digit(u32::from(nibble), 16));
                        text.push('.');
                    }
                }
                text + "ip6.arpa"
            }
        };
        Self::parse(&text).unwrap_or_else(|_| Self::root())
    }

    /// The labels, the leftmost first, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.wire;
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at_checked(usize::from(*length))?;
            rest = tail;
            (!label.is_empty()).then_some(label)
        })
    }

    /// The labels in lower case as text. A byte that is no ASCII becomes a character that no Kubernetes name has.
    pub(crate) fn lower_labels(&self) -> Vec<String> {
        self.labels()
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect()
    }

    /// Number of labels without the root.
    pub fn len(&self) -> usize {
        self.labels().count()
    }

    /// Whether it is the root.
    pub fn is_empty(&self) -> bool {
        self.wire.len() == 1
    }

    /// The last `count` labels of it, in its case.
    pub(crate) fn tail(&self, count: usize) -> Self {
        let skipped = self
            .labels()
            .take(self.len().saturating_sub(count))
            .map(|label| label.len() + 1)
            .sum();
        Self {
            wire: self
                .wire
                .get(skipped..)
                .map_or_else(|| Box::from([0]), Box::from),
        }
    }

    /// Whether it is `zone` or lies below it.
    pub fn is_within(&self, zone: &Self) -> bool {
        self.len() >= zone.len() && self.tail(zone.len()) == *zone
    }

    /// The wire form without compression.
    pub fn as_wire(&self) -> &[u8] {
        &self.wire
    }

    fn close(mut wire: Vec<u8>) -> Result<Self, NameError> {
        wire.push(0);
        if wire.len() > MAX_WIRE {
            Err(NameError::TooLong)
        } else {
            Ok(Self { wire: wire.into() })
        }
    }
}

fn push_label(wire: &mut Vec<u8>, label: &[u8]) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::EmptyLabel);
    }
    let length = u8::try_from(label.len())
        .ok()
        .filter(|length| usize::from(*length) <= MAX_LABEL);
    wire.push(length.ok_or(NameError::LabelTooLong)?);
    wire.extend_from_slice(label);
    if wire.len() >= MAX_WIRE {
        Err(NameError::TooLong)
    } else {
        Ok(())
    }
}

/// What follows a backslash: three digits of a byte's value, or the character itself.
fn unescape(bytes: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = bytes.next().ok_or(NameError::Escape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes
            .next()
            .filter(u8::is_ascii_digit)
            .ok_or(NameError::Escape)?;
        value = value * 10 + u32::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| NameError::Escape)
}

/// Length bytes are below 64 and letters above, so the wire form compares as a whole.
impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.wire.eq_ignore_ascii_case(&other.wire)
    }
}

impl Eq for Name {}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(*byte))?;
                    }
                    b'!'..=b'~' => write!(f, "{}", char::from(*byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
