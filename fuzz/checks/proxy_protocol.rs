//! What a front end sends first: read the same in one piece as byte by byte, never beyond its bounds, and what it says is
//! said again by a header of ours.

use portico_core::proxy_protocol::{
    Header, HeaderError, MAX_V1_BYTES, MAX_V2_BYTES, Version, parse, write,
};

pub(crate) fn check(bytes: &[u8]) {
    let whole = parse(bytes);
    let decided = (0..=bytes.len().min(MAX_V2_BYTES))
        .map(|end| (end, parse(&bytes[..end])))
        .find(|(_, found)| *found != Ok(None));
    let Some((end, first)) = decided else {
        assert_eq!(whole, Ok(None), "undecided");
        assert!(bytes.len() < MAX_V2_BYTES, "waits for more than its bound");
        return;
    };
    assert_eq!(whole, first, "more bytes change nothing");
    match first {
        Ok(Some(header)) => check_header(&header, end),
        Ok(None) => unreachable!("decided"),
        Err(HeaderError::TooLong) => assert!(end <= MAX_V1_BYTES, "as soon as it shows"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_header(header: &Header, end: usize) {
    assert_eq!(header.length, end, "complete with its last byte");
    let bound = match header.version {
        Version::V1 => MAX_V1_BYTES,
        Version::V2 => MAX_V2_BYTES,
    };
    assert!(header.length <= bound);
    for version in [Version::V1, Version::V2] {
        let written = write(version, header.route);
        assert!(written.len() <= MAX_V1_BYTES);
        let expected = Header {
            version,
            route: header.route,
            length: written.len(),
        };
        assert_eq!(parse(&written), Ok(Some(expected)));
    }
}
