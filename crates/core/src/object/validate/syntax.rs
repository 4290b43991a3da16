//! The syntax of names, labels and addresses, each with the API server's explanation (`k8s.io/apimachinery`
//! `util/validation`). Owns the rules for texts; where a text stands is not known here.

use std::{borrow::Cow, net::IpAddr};

/// Why a text is not acceptable: one explanation for each rule that it breaks.
pub(crate) type Broken = Vec<&'static str>;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
    used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
    with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const PREFIX_PART: &str = "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used \
    for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start \
    and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation \
    is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. \
    'example.com/MyName')";
const HEADER_NAME: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', \
    regex used for validation is '[-A-Za-z0-9]+')";
const TOO_LONG_63: &str = "must be no more than 63 bytes";

/// RFC 1123 label: names of Services, namespaces, ports.
pub(crate) fn label(text: &str) -> Broken {
    let mut broken = Broken::new();
    if text.len() > 63 {
        broken.push(TOO_LONG_63);
    }
    if !is_label(text) {
        broken.push(LABEL);
    }
    broken
}

/// RFC 1123 subdomain: names of most objects.
pub(crate) fn subdomain(text: &str) -> Broken {
    let mut broken = Broken::new();
    if text.len() > 253 {
        broken.push("must be no more than 253 bytes");
    }
    if !is_subdomain(text) {
        broken.push(SUBDOMAIN);
    }
    broken
}

/// Name of a container port or a named `targetPort` (RFC 6335, section 5.1).
pub(crate) fn port_name(text: &str) -> Broken {
    let mut broken = Broken::new();
    if text.len() > 15 {
        broken.push("must be no more than 15 bytes");
    }
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        broken.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        broken.push("must contain at least one letter (a-z)");
    }
    if text.contains("--") {
        broken.push("must not contain consecutive hyphens");
    }
    if text.starts_with('-') || text.ends_with('-') {
        broken.push("must not begin or end with a hyphen");
    }
    broken
}

/// Value of a label.
pub(crate) fn label_value(text: &str) -> Broken {
    let mut broken = Broken::new();
    if text.len() > 63 {
        broken.push(TOO_LONG_63);
    }
    if !text.is_empty() && !is_name_part(text) {
        broken.push(LABEL_VALUE);
    }
    broken
}

/// Key of a label or annotation, `appProtocol`, `loadBalancerClass`: `[prefix/]name`.
pub(crate) fn qualified_name(text: &str) -> Broken {
    let (prefix, name) = match text.split_once('/') {
        Some((_, rest)) if rest.contains('/') => return vec![QUALIFIED],
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let mut broken = Broken::new();
    match prefix {
        Some("") => broken.push("prefix part must be non-empty"),
        Some(prefix) if prefix.len() > 253 => {
            broken.push("prefix part must be no more than 253 bytes");
        }
        Some(prefix) if !is_subdomain(prefix) => broken.push(PREFIX_PART),
        _ => {}
    }
    if name.is_empty() {
        broken.push("name part must be non-empty");
    } else if name.len() > 63 {
        broken.push("name part must be no more than 63 bytes");
    }
    if !is_name_part(name) {
        broken.push(NAME_PART);
    }
    broken
}

/// Name of an HTTP header.
pub(crate) fn header_name(text: &str) -> Broken {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !text.is_empty() && text.bytes().all(is_part) {
        Vec::new()
    } else {
        vec![HEADER_NAME]
    }
}

/// Why `addr` can be no endpoint and no external address. Loopback, which Kubernetes forbids, is allowed: it is what
/// runs on one machine.
pub(crate) fn special_address(addr: IpAddr) -> Option<Cow<'static, str>> {
    let (link_local, link_local_multicast) = match addr {
        IpAddr::V4(v4) => (v4.is_link_local(), matches!(v4.octets(), [224, 0, 0, _])),
        IpAddr::V6(v6) => (
            v6.is_unicast_link_local(),
            v6.segments().first() == Some(&0xff02),
        ),
    };
    let why = if addr.is_unspecified() {
        return Some(format!("may not be unspecified ({addr})").into());
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    } else if link_local_multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
    } else if addr.is_multicast() {
        "may not be a multicast address"
    } else {
        return None;
    };
    Some(why.into())
}

fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_name_part(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.bytes().all(inside) && edge(text.bytes().next()) && edge(text.bytes().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Broken, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(text), Broken::new(), "{text}");
        }
        for text in bad {
            assert!(!rule(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn label_takes_rfc_1123_labels() {
        let long = "a".repeat(64);
        check(
            label,
            &["a", "1a", "a-b", "0"],
            &["", "A", "a_b", "-a", "a-", "a.b", &long],
        );
    }

    #[test]
    fn subdomain_takes_dotted_labels() {
        check(
            subdomain,
            &["a", "a.b", "1.2.3.4"],
            &["", "a..b", ".a", "a.", "a_b.c"],
        );
    }

    #[test]
    fn port_name_takes_iana_names() {
        check(
            port_name,
            &["http", "p1", "web-2"],
            &["80", "a--b", "-a", "a-", "HTTP", "abcdefghijklmnop"],
        );
    }

    #[test]
    fn label_value_and_qualified_name_follow_their_rules() {
        check(label_value, &["", "a", "A_b.c-1"], &["-a", "a b", "a."]);
        check(
            qualified_name,
            &["a", "example.com/a", "kubernetes.io/h2c"],
            &["", "/a", "a/", "a/b/c", "A_/b", "a b"],
        );
    }

    #[test]
    fn special_address_allows_loopback_only_among_the_special_ones() {
        for good in ["127.0.0.1", "::1", "10.0.0.1", "fd00::1"] {
            assert_eq!(special_address(good.parse().unwrap()), None, "{good}");
        }
        for bad in [
            "0.0.0.0",
            "::",
            "169.254.1.1",
            "fe80::1",
            "224.0.0.1",
            "239.1.1.1",
            "ff02::1",
            "ff05::2",
        ] {
            assert!(special_address(bad.parse().unwrap()).is_some(), "{bad}");
        }
    }
}
