//! A DNS question as a packet, and who an answer's first record names (RFC 1035 section 4). Owns no socket.

use std::net::{Ipv4Addr, Ipv6Addr};

use portico_core::dns::{Name, RecordType};

/// Length of the header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;

/// What a packet is to the one who asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The answer: its first address, else what it says of the name.
    Answer(String),
    /// The error with this code.
    Error(u8),
    /// To another question.
    Another,
    /// Not a DNS answer.
    Broken,
}

/// The packet that asks for `/NAME?TYPE`.
pub(super) fn query(path: &str, id: u16) -> Option<Vec<u8>> {
    let text = path.trim_start_matches('/');
    let (name, rtype) = text.split_once('?').unwrap_or((text, "A"));
    let name = Name::parse(name).ok()?;
    let rtype: RecordType = rtype.parse().ok()?;
    // Recursion desired, one question.
    let mut packet = Vec::with_capacity(HEADER + name.len() + 4);
    packet.extend(id.to_be_bytes());
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    packet.extend(name.as_wire());
    packet.extend(rtype.number().to_be_bytes());
    packet.extend([0, 1]);
    Some(packet)
}

/// Reads the answer to question `id`.
pub(super) fn read(packet: &[u8], id: u16) -> Read {
    let Some((header, rest)) = packet.split_first_chunk::<HEADER>() else {
        return Read::Broken;
    };
    let [high, low, flags, more, _, _, many, few, ..] = *header;
    if u16::from_be_bytes([high, low]) != id {
        return Read::Another;
    }
    if flags & 0x80 == 0 {
        return Read::Broken;
    }
    let answers = u16::from_be_bytes([many, few]);
    match more & 0x0f {
        0 if answers == 0 => Read::Answer("NODATA".to_owned()),
        0 => first(rest, answers).map_or(Read::Broken, Read::Answer),
        code => Read::Error(code),
    }
}

/// The first address among the answers, else how many there are.
fn first(rest: &[u8], answers: u16) -> Option<String> {
    let mut rest = after_name(rest)?.get(4..)?;
    for _ in 0..answers {
        let (fixed, data) = after_name(rest)?.split_at_checked(10)?;
        let [_, rtype, .., high, low] = *fixed else {
            return None;
        };
        let (data, after) = data.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        if let (1, Ok(octets)) = (rtype, <[u8; 4]>::try_from(data)) {
            return Some(Ipv4Addr::from(octets).to_string());
        }
        if let (28, Ok(octets)) = (rtype, <[u8; 16]>::try_from(data)) {
            return Some(Ipv6Addr::from(octets).to_string());
        }
        rest = after;
    }
    Some(format!("{answers} records"))
}

/// What follows a name: labels up to an empty one, or a pointer (RFC 1035 section 4.1.4).
fn after_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = bytes.split_first()?;
        bytes = match length {
            0 => return Some(rest),
            192.. => return rest.get(1..),
            _ => rest.get(usize::from(*length)..)?,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_first_address_of_an_answer() {
        let mut packet = query("/web.example?A", 7).unwrap();
        assert_eq!(&packet[..4], [0, 7, 1, 0]);
        packet[2] = 0x81;
        assert_eq!(read(&packet, 7), Read::Answer("NODATA".into()));
        packet[7] = 1;
        packet.extend([192, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 9]);
        assert_eq!(read(&packet, 7), Read::Answer("127.0.0.9".into()));
        assert_eq!(read(&packet, 8), Read::Another);
        packet.pop();
        assert_eq!(read(&packet, 7), Read::Broken);
        packet[3] = 3;
        assert_eq!(read(&packet, 7), Read::Error(3));
        assert_eq!(query("/web?WHAT", 1), None);
    }
}
