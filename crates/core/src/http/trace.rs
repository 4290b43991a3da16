//! Traces of requests as W3C Trace Context has them (level 1). Owns when one begins here and what it is called; chance is an argument.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Which trace a request belongs to, and which part of it.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A trace begins here unless one comes along. It says "sampled": whoever asks for traces of local requests wants them all, and
/// tracers that go by their parent would record nothing otherwise.
pub(super) fn begin(headers: &mut HeaderMap, chance: &[u8; 24]) {
    let mut given = headers.get_all(TRACEPARENT).iter();
    if given.next().is_some_and(is_traceparent) && given.next().is_none() {
        return;
    }
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    for (at, byte) in chance.iter().enumerate() {
        if at == 16 {
            text.push('-');
        }
        // All zeros are no identifier: the first byte of each is odd.
        let byte = if at == 0 || at == 16 { byte | 1 } else { *byte };
        let _ = write!(text, "{byte:02x}");
    }
    text.push_str("-01");
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(TRACEPARENT, value);
        // It belongs to the parent that did not come.
        headers.remove(TRACESTATE);
    }
}

/// `version-traceid-parentid-flags` in small hexadecimal digits; later versions may have more behind.
fn is_traceparent(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else {
        return false;
    };
    let mut parts = text.split('-');
    let mut is_hex = |length: usize| {
        let part = parts.next().unwrap_or_default();
        let digits = part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == length && digits).then(|| part.bytes().all(|b| b == b'0'))
    };
    let found = [2, 32, 16, 2].map(&mut is_hex);
    let is_sound = matches!(found, [Some(_), Some(false), Some(false), Some(_)]);
    is_sound && !text.starts_with("ff") && (!text.starts_with("00") || text.len() == 55)
}
