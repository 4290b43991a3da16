//! Headers that are for one connection only (RFC 9110 section 7.6.1). Owns which they are.

use hyper::{
    HeaderMap,
    header::{CONNECTION, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE},
};

/// Beside those that `Connection` lists. `Transfer-Encoding` is for whoever writes the body.
const ALWAYS: [HeaderName; 5] = [
    TE,
    TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authorization"),
];

/// Takes away what is not to be passed on, all but the wish for another protocol (WebSocket, RFC 6455 section 4.1).
pub(super) fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    headers.remove(CONNECTION);
    let upgrade = headers
        .remove(UPGRADE)
        .filter(|_| listed.contains(&UPGRADE));
    for name in listed.iter().chain(&ALWAYS) {
        headers.remove(name);
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(headers: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        strip(&mut map);
        let mut left: Vec<_> = map
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        left.sort();
        left
    }

    #[test]
    fn strip_takes_what_connection_lists_and_what_never_passes() {
        let left = stripped(&[
            ("connection", "close, X-Mine"),
            ("connection", "x-other"),
            ("x-mine", "1"),
            ("x-other", "2"),
            ("x-kept", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
        ]);
        assert_eq!(left, ["x-kept: 3"]);
    }

    #[test]
    fn strip_keeps_an_upgrade_that_connection_lists() {
        let left = stripped(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(left, ["connection: upgrade", "upgrade: websocket"]);
    }
}
