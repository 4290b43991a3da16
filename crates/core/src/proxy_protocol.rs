//! The PROXY protocol, versions 1 and 2: headers from bytes and back (HAProxy, `doc/proxy-protocol.txt`). Owns the form and
//! its bounds; whose headers are believed, and how long to wait for the rest of one, is the data path's. Pure: what arrived
//! so far goes in whole, every time.

mod crc32c;

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Longest header of version 1, its line end included ("2.1. Human-readable header format").
pub const MAX_V1_BYTES: usize = 107;
/// Longest header of version 2 that is read. The form allows 64 KiB more than its 16 fixed bytes; this much holds a client
/// certificate's names many times over, and is what nginx takes as well.
pub const MAX_V2_BYTES: usize = 4096;

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const WORD: &[u8] = b"PROXY ";
/// Signature, version and command, family and transport, length of the rest.
const FIXED_BYTES: usize = 16;
/// Type and length of a TLV.
const TLV_BYTES: usize = 3;
/// `PP2_TYPE_CRC32C`.
const TYPE_CRC32C: u8 = 3;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Version {
    /// As it stands in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// Both ends of a connection as its first proxy saw it, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The client.
    pub source: SocketAddr,
    /// What the client asked for.
    pub destination: SocketAddr,
}

impl Route {
    /// `None` if they are of two families, which no header can say. An IPv4 address in IPv6's clothes is one of IPv4.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Option<Self> {
        let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let (source, destination) = (plain(source), plain(destination));
        (source.is_ipv4() == destination.is_ipv4()).then_some(Self {
            source,
            destination,
        })
    }
}

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How it was written.
    pub version: Version,
    /// Whose connection it is; `None` where the sender speaks for itself (`LOCAL`), does not say (`UNKNOWN`, `AF_UNSPEC`) or
    /// says something that is no TCP over IP (UNIX sockets, datagrams): the connection's own addresses count then.
    pub route: Option<Route>,
    /// Bytes that it took. What follows is the client's.
    pub length: usize,
}

/// Why bytes are no header, whatever follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// They begin like neither version.
    #[error("no PROXY header")]
    Absent,
    /// No line end within [`MAX_V1_BYTES`], or more than [`MAX_V2_BYTES`].
    #[error("PROXY header too long")]
    TooLong,
    /// Not of the form that it begins with.
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
    /// The checksum does not fit.
    #[error("PROXY header with a wrong checksum")]
    Checksum,
}

/// Reads the header that `bytes` begin with; `None` while more is needed. Never looks behind the header's end.
///
/// # Errors
/// These bytes can not become a header.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if begins(bytes, &SIGNATURE) {
        return parse_v2(bytes);
    }
    if begins(bytes, WORD) {
        return parse_v1(bytes);
    }
    Err(HeaderError::Absent)
}

/// Whether `bytes`, as far as they go, are what `start` begins with.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let within = bytes.get(..MAX_V1_BYTES).unwrap_or(bytes);
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() >= MAX_V1_BYTES {
            Err(HeaderError::TooLong)
        } else {
            Ok(None)
        };
    };
    let line = within.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.ok_or(HeaderError::Malformed("a line end without CR"))?;
    Ok(Some(Header {
        version: Version::V1,
        route: route_of_line(line)?,
        length: end + 1,
    }))
}

fn route_of_line(line: &[u8]) -> Result<Option<Route>, HeaderError> {
    let rest = line.strip_prefix(WORD);
    let rest = rest.ok_or(HeaderError::Malformed("no protocol"))?;
    // "the receiver must ignore anything presented before the CRLF".
    if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let text = std::str::from_utf8(rest).map_err(|_| HeaderError::Malformed("not ASCII"))?;
    let mut words = text.split(' ');
    let mut next = || words.next().ok_or(HeaderError::Malformed("too few fields"));
    let (protocol, source, destination) = (next()?, next()?, next()?);
    let (source_port, destination_port) = (next()?, next()?);
    if words.next().is_some() {
        return Err(HeaderError::Malformed("too many fields"));
    }
    let address = |text: &str| match protocol {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let end = |text, port| {
        let ip = address(text).ok_or(HeaderError::Malformed("an address"))?;
        Ok(SocketAddr::new(ip, port_of(port)?))
    };
    let (source, destination) = (
        end(source, source_port)?,
        end(destination, destination_port)?,
    );
    Ok(Route::new(source, destination))
}

/// Decimal, without sign or leading zeros.
fn port_of(text: &str) -> Result<u16, HeaderError> {
    let is_canonical = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    let port = is_canonical.then(|| text.parse().ok()).flatten();
    port.ok_or(HeaderError::Malformed("a port"))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    // Refused as early as it shows.
    let command = match bytes.get(SIGNATURE.len()) {
        None => return Ok(None),
        Some(byte) if byte >> 4 != 2 => return Err(HeaderError::Malformed("a version")),
        Some(byte) if byte & 15 > 1 => return Err(HeaderError::Malformed("a command")),
        Some(byte) => byte & 15,
    };
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_BYTES) else {
        return Ok(None);
    };
    let &[.., kind, high, low] = fixed else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED_BYTES + length > MAX_V2_BYTES {
        return Err(HeaderError::TooLong);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    Ok(Some(Header {
        version: Version::V2,
        // LOCAL: "discard the protocol block including the family which is ignored".
        route: if command == 0 {
            None
        } else {
            route_of_body(kind, body, fixed)?
        },
        length: FIXED_BYTES + length,
    }))
}

fn route_of_body(kind: u8, body: &[u8], fixed: &[u8]) -> Result<Option<Route>, HeaderError> {
    const SHORT: HeaderError = HeaderError::Malformed("too short for its addresses");
    let (family, transport) = (kind >> 4, kind & 15);
    if family > 3 || transport > 2 {
        return Err(HeaderError::Malformed("a family or transport"));
    }
    if family == 0 || transport == 0 {
        // Nothing is said of what follows.
        return Ok(None);
    }
    let (route, tlvs) = match family {
        1 => {
            let (source, rest) = body.split_first_chunk::<4>().ok_or(SHORT)?;
            let (destination, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
            let (&[p, q, r, s], tlvs) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
            let source = (Ipv4Addr::from(*source), u16::from_be_bytes([p, q]));
            let destination = (Ipv4Addr::from(*destination), u16::from_be_bytes([r, s]));
            (Route::new(source.into(), destination.into()), tlvs)
        }
        2 => {
            let (source, rest) = body.split_first_chunk::<16>().ok_or(SHORT)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
            let (&[p, q, r, s], tlvs) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
            let source = (Ipv6Addr::from(*source), u16::from_be_bytes([p, q]));
            let destination = (Ipv6Addr::from(*destination), u16::from_be_bytes([r, s]));
            (Route::new(source.into(), destination.into()), tlvs)
        }
        _ => (None, body.get(216..).ok_or(SHORT)?),
    };
    check_tlvs(fixed, body, tlvs)?;
    Ok(route.filter(|_| transport == 1))
}

/// Skips all but a checksum, which must fit.
fn check_tlvs(fixed: &[u8], body: &[u8], mut tlvs: &[u8]) -> Result<(), HeaderError> {
    const BROKEN: HeaderError = HeaderError::Malformed("a TLV");
    let mut is_checked = false;
    while !tlvs.is_empty() {
        let (&[kind, high, low], rest) = tlvs.split_first_chunk::<TLV_BYTES>().ok_or(BROKEN)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, behind) = rest.split_at_checked(length).ok_or(BROKEN)?;
        if kind == TYPE_CRC32C {
            let told = <[u8; 4]>::try_from(value).map_err(|_| BROKEN)?;
            // Each would have to be computed with the others at zero or not: nobody says which.
            if std::mem::replace(&mut is_checked, true) {
                return Err(BROKEN);
            }
            let before = body.get(..body.len() - rest.len()).ok_or(BROKEN)?;
            if crc32c::of(&[fixed, before, &[0; 4], behind]) != u32::from_be_bytes(told) {
                return Err(HeaderError::Checksum);
            }
        }
        tlvs = behind;
    }
    Ok(())
}

/// The header for a connection; without `route` one that says that it is not known (`UNKNOWN`), or that we speak for
/// ourselves (`LOCAL`).
pub fn write(version: Version, route: Option<Route>) -> Vec<u8> {
    match version {
        Version::V1 => line(route),
        Version::V2 => binary(route),
    }
}

fn line(route: Option<Route>) -> Vec<u8> {
    let Some(Route {
        source,
        destination,
    }) = route
    else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let protocol = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let mut bytes = Vec::with_capacity(MAX_V1_BYTES);
    // Writing to a Vec cannot fail.
    let _ = write!(
        bytes,
        "PROXY {protocol} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
    bytes
}

fn binary(route: Option<Route>) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    match route.map(|route| (route.source, route.destination)) {
        Some((SocketAddr::V4(source), SocketAddr::V4(destination))) => {
            bytes.extend([0x21, 0x11, 0, 12]);
            bytes.extend(source.ip().octets());
            bytes.extend(destination.ip().octets());
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
        }
        Some((SocketAddr::V6(source), SocketAddr::V6(destination))) => {
            bytes.extend([0x21, 0x21, 0, 36]);
            bytes.extend(source.ip().octets());
            bytes.extend(destination.ip().octets());
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
        }
        // No header can say two families (`Route::new`).
        _ => bytes.extend([0x20, 0, 0, 0]),
    }
    bytes
}

#[cfg(test)]
mod tests;
