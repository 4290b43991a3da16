//! Frames of HTTP/2 written and read byte by byte, for what no library sends.

use std::io::Read;

/// A frame of HTTP/2 (RFC 9113, section 4.1).
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Kind, flags, stream and payload of the next one.
pub(super) fn next_frame(stream: &mut impl Read) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let length = u32::from_be_bytes([0, a, b, c]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload)?;
    Ok((kind, flags, u32::from_be_bytes(id), payload))
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// An error code (RFC 9113, section 7).
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// A head of these fields, each as it stands and not to be indexed (RFC 7541, section 6.2.2); shorter than 127 bytes.
pub(super) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// Fields of a request to `web`.
pub(super) fn request(method: &str) -> Vec<u8> {
    fields(&[
        (":method", method),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "web"),
    ])
}

/// The error code of a GOAWAY frame, and what it says beside (RFC 9113, section 6.8).
pub(super) fn goodbye(payload: &[u8]) -> (u32, String) {
    let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
    let text = String::from_utf8(payload[8..].to_vec()).unwrap();
    (code, text)
}

/// What every client begins with.
pub(super) fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()
}

/// What a client begins with that wants as much of an answer as there is, in stream 1.
pub(super) fn asking_for_all() -> Vec<u8> {
    let whole = END_HEADERS | END_STREAM;
    [
        hello(),
        // INITIAL_WINDOW_SIZE (RFC 9113, section 6.5.2), and the connection's.
        frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]),
        frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]),
        frame(HEADERS, whole, 1, &request("GET")),
    ]
    .concat()
}
