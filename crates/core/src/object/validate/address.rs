//! Addresses and ranges as the API server reads them since it is strict about them (KEP-4858, gate
//! `StrictIPCIDRValidation`): no form that two programs would read differently. Owns their phrases; where an address
//! may point is `syntax`'s.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::object::decode::cursor::Cursor;

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is nothing like one.
    NoAddress,
    /// `010.0.0.1`: octal to some, decimal to others.
    LeadingZeros,
    /// `::ffff:10.0.0.1`: IPv4 to some, IPv6 to others.
    Mapped,
}

impl Fault {
    /// The API server's words.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NoAddress => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            Self::LeadingZeros => "must not have leading 0s",
            Self::Mapped => "must not be an IPv4-mapped IPv6 address",
        }
    }
}

/// The address that `text` is.
pub(crate) fn parse(text: &str) -> Result<IpAddr, Fault> {
    match text.parse() {
        Ok(IpAddr::V6(addr)) if addr.to_ipv4_mapped().is_some() => Err(Fault::Mapped),
        Ok(addr) => Ok(addr),
        Err(_) if without_zeros(text).parse::<Ipv4Addr>().is_ok() => Err(Fault::LeadingZeros),
        Err(_) => Err(Fault::NoAddress),
    }
}

fn without_zeros(text: &str) -> String {
    let parts = text.split('.').map(|part| {
        let rest = part.trim_start_matches('0');
        if rest.is_empty() && !part.is_empty() {
            "0"
        } else {
            rest
        }
    });
    parts.collect::<Vec<_>>().join(".")
}

/// The range that `text` is, or the API server's words for why it is none.
pub(crate) fn parse_range(text: &str) -> Result<IpNet, &'static str> {
    const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    const ZEROS: &str = "must not have leading 0s in IP or prefix length";
    let (addr, prefix) = text.split_once('/').ok_or(NO_RANGE)?;
    let is_number = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let length: u8 = prefix.parse().map_err(|_| NO_RANGE)?;
    let addr = match parse(addr) {
        Ok(addr) if is_number => addr,
        Err(Fault::LeadingZeros) if is_number && length <= 32 => return Err(ZEROS),
        Err(Fault::Mapped) if is_number && length <= 128 => {
            return Err("must not have an IPv4-mapped IPv6 address");
        }
        _ => return Err(NO_RANGE),
    };
    let range = IpNet::new(addr, length).map_err(|_| NO_RANGE)?;
    if prefix.len() > 1 && prefix.starts_with('0') {
        Err(ZEROS)
    } else if range.trunc() != range {
        Err("must not have bits set beyond the prefix length")
    } else {
        Ok(range)
    }
}

impl Cursor<'_> {
    /// An address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let text = self.text()?;
        match parse(text) {
            Ok(addr) => {
                self.prefer("IPv6 address", text, &addr.to_string());
                Some(addr)
            }
            Err(fault) => {
                self.invalid(fault.as_str());
                None
            }
        }
    }

    /// A range. White space around it is tolerated, as in Kubernetes.
    pub(crate) fn range(&self) -> Option<IpNet> {
        let text = self.text()?.trim();
        match parse_range(text) {
            Ok(range) => {
                self.prefer("IPv6 CIDR value", text, &range.to_string());
                Some(range)
            }
            Err(why) => {
                self.error(format!("Invalid value: {text:?}: {why}"));
                None
            }
        }
    }

    /// Every text of IPv4 that is accepted is canonical already.
    fn prefer(&self, what: &str, text: &str, canonical: &str) {
        if text != canonical {
            self.warn(&format!(
                "{what} {text:?} should be in RFC 5952 canonical format ({canonical:?})"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_takes_what_everybody_reads_alike() {
        for good in [
            "10.0.0.1",
            "0.0.0.0",
            "2001:db8::1",
            "2001:0DB8::0001",
            "::1.2.3.4",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (bad, fault) in [
            ("010.0.0.1", Fault::LeadingZeros),
            ("10.0.0.00", Fault::LeadingZeros),
            ("10.0.0.0256", Fault::NoAddress),
            ("::ffff:10.0.0.1", Fault::Mapped),
            ("::ffff:a00:1", Fault::Mapped),
            ("10.0.0", Fault::NoAddress),
            ("10..0.1", Fault::NoAddress),
            ("fe80::1%eth0", Fault::NoAddress),
            (" 10.0.0.1", Fault::NoAddress),
            ("", Fault::NoAddress),
        ] {
            assert_eq!(parse(bad), Err(fault), "{bad}");
        }
    }

    #[test]
    fn parse_range_takes_networks_only() {
        for good in ["10.0.0.0/8", "10.0.0.1/32", "0.0.0.0/0", "fd00::/8", "::/0"] {
            assert!(parse_range(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            (
                "10.0.0.1/8",
                "must not have bits set beyond the prefix length",
            ),
            (
                "fd00::1/8",
                "must not have bits set beyond the prefix length",
            ),
            (
                "10.0.0.0/08",
                "must not have leading 0s in IP or prefix length",
            ),
            (
                "010.0.0.0/8",
                "must not have leading 0s in IP or prefix length",
            ),
            (
                "::ffff:10.0.0.0/104",
                "must not have an IPv4-mapped IPv6 address",
            ),
        ] {
            assert_eq!(parse_range(bad), Err(why), "{bad}");
        }
        for bad in [
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "fd00::/129",
            "x/8",
            "/8",
        ] {
            assert!(
                parse_range(bad).unwrap_err().contains("valid CIDR"),
                "{bad}"
            );
        }
    }
}
