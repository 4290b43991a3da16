//! `portico.dev/proxy-protocol` and `portico.dev/accept-proxy-protocol-from`: PROXY headers to endpoints, and from trusted
//! front ends. Owns the values; acting on them belongs to the data path.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    annotations::{ACCEPT_PROXY_PROTOCOL_FROM, PROXY_PROTOCOL},
    meta::Labels,
};
use crate::proxy_protocol::Version;

/// What the value of `portico.dev/proxy-protocol` must look like.
pub const VERSIONS: &str = "must be v1 or v2";
/// What the value of `portico.dev/accept-proxy-protocol-from` must look like.
pub const FRONT_ENDS: &str =
    "must be addresses or CIDR ranges separated by commas, such as 10.0.0.0/8,fd00::1";

/// The PROXY protocol of a Service port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyProtocol {
    /// The header that endpoints get before the client's first byte.
    pub send: Option<Version>,
    /// Who has to send one, and is believed.
    pub accept_from: Arc<[IpNet]>,
}

impl ProxyProtocol {
    /// What these annotations of a Service ask for; nothing as far as they do not do so readably.
    pub fn of(annotations: &Labels) -> Self {
        let text = |key| annotations.get(key).map(|text| &**text);
        let accept_from = text(ACCEPT_PROXY_PROTOCOL_FROM).and_then(parse_front_ends);
        Self {
            send: text(PROXY_PROTOCOL).and_then(parse_version),
            accept_from: accept_from.unwrap_or_default().into(),
        }
    }

    /// Whether whoever connects from here speaks for others.
    pub fn trusts(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.accept_from.iter().any(|range| range.contains(&source))
    }
}

/// Reads a version; `None` when it is none of [`VERSIONS`].
pub fn parse_version(text: &str) -> Option<Version> {
    [Version::V1, Version::V2]
        .into_iter()
        .find(|version| version.as_str() == text)
}

/// Reads the front ends, all or none: half a list would take the other half's headers for a client's bytes. `None` when
/// it is not [`FRONT_ENDS`].
pub fn parse_front_ends(text: &str) -> Option<Vec<IpNet>> {
    let range = |text: &str| {
        let text = text.trim();
        let range = text.parse().ok();
        range.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
    };
    text.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&[&str]>) {
        let found = parse_front_ends(text);
        let found: Option<Vec<String>> =
            found.map(|ranges| ranges.iter().map(ToString::to_string).collect());
        let expected: Option<Vec<String>> =
            expected.map(|ranges| ranges.iter().map(|&range| range.to_owned()).collect());
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn parse_front_ends_takes_ranges_and_addresses_or_nothing() {
        check("10.0.0.0/8, fd00::1", Some(&["10.0.0.0/8", "fd00::1/128"]));
        check("127.0.0.9", Some(&["127.0.0.9/32"]));
        check("", None);
        check("10.0.0.0/8,", None);
        check("10.0.0.0/33", None);
        check("10.0.0.0/8,web", None);
    }

    #[test]
    fn trusts_those_of_the_ranges_in_either_form() {
        let annotations = [(ACCEPT_PROXY_PROTOCOL_FROM, "10.0.0.0/8")];
        let annotations = annotations.map(|(key, text)| (key.into(), text.into()));
        let proxy = ProxyProtocol::of(&annotations.into_iter().collect());
        for (source, expected) in [
            ("10.9.9.9", true),
            ("::ffff:10.9.9.9", true),
            ("11.0.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(proxy.trusts(source.parse().unwrap()), expected, "{source}");
        }
        assert_eq!(
            ProxyProtocol::of(&Labels::default()),
            ProxyProtocol::default()
        );
    }
}
