//! Affinity by cookie: which endpoint a request's cookie names, and the cookie that names one. Owns the annotation's form and the
//! cookie's value, which tells a client no address; whether the endpoint may still be used is asked of its set.

use std::{fmt::Write as _, net::SocketAddr};

use http::{HeaderMap, HeaderValue, header::COOKIE};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::balance::EndpointSet;

/// What the value of `portico.dev/affinity-cookie` must look like.
pub const COOKIES: &str = "must be a cookie's name, with attributes Max-Age, Path, Domain, SameSite or Secure after semicolons as \
                           in SHOP; Max-Age=3600";

/// A cookie that keeps clients of an HTTP port at their endpoints (RFC 6265).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffinityCookie {
    name: Box<str>,
    /// What stands behind the value.
    attributes: Box<str>,
}

impl AffinityCookie {
    /// Reads a value; `None` when it is none of [`COOKIES`].
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().filter(|name| is_token(name))?;
        let (mut path, mut same_site, mut rest) = ("/", "Lax", String::new());
        for attribute in parts {
            let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let is = |known: &str| key.eq_ignore_ascii_case(known);
            let is_plain = value.bytes().all(|b| matches!(b, b'!'..=b'~')) && !value.is_empty();
            if is("path") && value.starts_with('/') && is_plain {
                path = value;
            } else if is("samesite") && matches!(value, "Lax" | "Strict" | "None") {
                same_site = value;
            } else if is("max-age") && is_plain && value.parse::<u32>().is_ok_and(|age| age > 0) {
                let _ = write!(rest, "; Max-Age={value}");
            } else if is("domain") && is_plain {
                let _ = write!(rest, "; Domain={value}");
            } else if is("secure") && value.is_empty() {
                rest.push_str("; Secure");
            } else {
                return None;
            }
        }
        Some(Self {
            name: name.into(),
            attributes: format!("; Path={path}; HttpOnly; SameSite={same_site}{rest}").into(),
        })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The endpoint of `set` that a request with these fields is to go to; `None` without the cookie, or if it names none.
    pub fn endpoint_of(&self, headers: &HeaderMap, set: &EndpointSet) -> Option<SocketAddr> {
        let lines = headers.get_all(COOKIE).iter();
        let mut pairs = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = pairs.find(|(name, _)| **name == *self.name)?;
        let wanted = u64::from_str_radix(value, 16).ok()?;
        let mut endpoints = set.endpoints().iter().map(|endpoint| endpoint.addr);
        endpoints.find(|addr| value_of(*addr) == wanted)
    }

    /// `Set-Cookie` for a client that went to `endpoint` without being told to by its cookie.
    pub fn set_cookie(&self, endpoint: SocketAddr) -> Option<HeaderValue> {
        let value = value_of(endpoint);
        let text = format!("{}={value:016x}{}", self.name, self.attributes);
        HeaderValue::try_from(text).ok()
    }
}

/// What an endpoint is called in cookies: the same after a restart, and beside other endpoints.
fn value_of(endpoint: SocketAddr) -> u64 {
    xxh3_64_with_seed(endpoint.to_string().as_bytes(), 4)
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::balance::Endpoint;

    fn endpoint(last: u8) -> Endpoint {
        Endpoint {
            addr: ([127, 120, 0, last], 8080).into(),
            state: Arc::default(),
        }
    }

    #[test]
    fn set_cookie_comes_back_to_the_same_endpoint_while_it_is_there() {
        let cookie = AffinityCookie::parse("SHOP").unwrap();
        let set = EndpointSet::new(vec![endpoint(1), endpoint(2)], None);
        let addr = set.endpoints()[1].addr;
        let given = cookie.set_cookie(addr).unwrap();
        let given = given.to_str().unwrap();
        let (pair, attributes) = given.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        assert!(!pair.contains("127"), "{pair}");
        let asked = |lines: &[&str]| {
            let line = |text: &&str| (COOKIE, HeaderValue::from_str(text).unwrap());
            let headers: HeaderMap = lines.iter().map(line).collect();
            cookie.endpoint_of(&headers, &set)
        };
        assert_eq!(asked(&[pair]), Some(addr));
        assert_eq!(asked(&[&format!("a=b; {pair}; c=d")]), Some(addr));
        for other in ["SHOP=0", "SHOP=x", "SHOP=", "SHOP", "shop=1", "XSHOP=1", ""] {
            assert_eq!(asked(&[other]), None, "{other}");
        }
        let rest = EndpointSet::new(vec![endpoint(1)], Some(&set));
        let headers = [(COOKIE, HeaderValue::from_str(pair).unwrap())];
        assert_eq!(
            cookie.endpoint_of(&headers.into_iter().collect(), &rest),
            None
        );
    }

    #[test]
    fn parse_takes_a_name_with_known_attributes_or_nothing() {
        let attributes =
            |text| AffinityCookie::parse(text).map(|cookie| cookie.attributes.to_string());
        let all = "id; max-age=60; Path=/shop; Domain=example.com; Secure; SameSite=None";
        assert_eq!(
            attributes(all).as_deref(),
            Some("; Path=/shop; HttpOnly; SameSite=None; Max-Age=60; Domain=example.com; Secure")
        );
        for text in [
            "",
            "a b",
            "a=b",
            "id;",
            "id; Max-Age=0",
            "id; Max-Age=-1",
            "id; Path=shop",
            "id; Path=/\r\nX: y",
            "id; Expires=never",
            "id; SameSite=lax",
        ] {
            assert_eq!(attributes(text), None, "{text:?}");
        }
    }
}
