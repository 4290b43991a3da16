//! What records of others hold, as people write it (RFC 1035 section 5.1). Owns the form of the types that people ask for;
//! for others there is the one of RFC 3597.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{Name, RecordType};

/// The text of `data`, in which no name is compressed; `None` for another type, or if it is not what its type demands.
pub(super) fn text(rtype: RecordType, data: &[u8]) -> Option<String> {
    let mut rest = data;
    let text = match rtype {
        RecordType::A => Ipv4Addr::from(take(&mut rest)?).to_string(),
        RecordType::Aaaa => Ipv6Addr::from(take::<16>(&mut rest)?).to_string(),
        RecordType::Cname | RecordType::Ns | RecordType::Ptr => name(&mut rest)?.to_string(),
        RecordType::Mx => format!("{} {}", number(&mut rest)?, name(&mut rest)?),
        RecordType::Srv => {
            let numbers = [(); 3].map(|()| number(&mut rest));
            let [priority, weight, port] = numbers;
            format!("{} {} {} {}", priority?, weight?, port?, name(&mut rest)?)
        }
        RecordType::Soa => {
            let mut text = format!("{} {}", name(&mut rest)?, name(&mut rest)?);
            for _ in 0..5 {
                let number = u32::from_be_bytes(take(&mut rest)?);
                write!(text, " {number}").ok()?;
            }
            text
        }
        RecordType::Txt => {
            let mut strings = Vec::new();
            while let Some((length, tail)) = rest.split_first() {
                let (string, tail) = tail.split_at_checked(usize::from(*length))?;
                strings.push(format!("\"{}\"", string.escape_ascii()));
                rest = tail;
            }
            strings.join(" ")
        }
        _ => return None,
    };
    rest.is_empty().then_some(text)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*taken)
}

fn number(rest: &mut &[u8]) -> Option<u16> {
    take(rest).map(u16::from_be_bytes)
}

fn name(rest: &mut &[u8]) -> Option<Name> {
    let mut labels = Vec::new();
    loop {
        let (length, tail) = rest.split_first()?;
        let (label, tail) = tail.split_at_checked(usize::from(*length))?;
        *rest = tail;
        if label.is_empty() {
            return Name::from_labels(labels).ok();
        }
        labels.push(label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_dig_shows_and_nothing_for_what_is_malformed() {
        for (rtype, data, expected) in [
            (RecordType::A, &b"\xc0\0\x02\x01"[..], Some("192.0.2.1")),
            (RecordType::A, b"\xc0\0\x02", None),
            (RecordType::A, b"\xc0\0\x02\x01\0", None),
            (
                RecordType::Aaaa,
                b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
                Some("2001:db8::1"),
            ),
            (RecordType::Cname, b"\x01a\x02bc\0", Some("a.bc.")),
            (RecordType::Cname, b"\x01a\x05bc\0", None),
            (RecordType::Mx, b"\0\x0a\x01m\0", Some("10 m.")),
            (
                RecordType::Srv,
                b"\0\x01\0\x02\0\x50\x01s\0",
                Some("1 2 80 s."),
            ),
            (
                RecordType::Soa,
                b"\x01n\0\x01h\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\x01\0",
                Some("n. h. 1 2 3 4 256"),
            ),
            (RecordType::Txt, b"\x03a\"b\x01c", Some("\"a\\\"b\" \"c\"")),
            (RecordType::Other(65400), b"\x01", None),
        ] {
            assert_eq!(text(rtype, data).as_deref(), expected, "{rtype} {data:?}");
        }
    }
}
