//! What is measured: a protocol, an address and what is asked there. Owns the reading of `--target`; must not connect.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// How a target is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 without TLS.
    Http,
    /// A connection, a line, and what comes back first.
    Tcp,
    /// A datagram and its answer.
    Udp,
    /// A DNS question over UDP.
    Dns,
}

impl Protocol {
    const fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Dns => "dns",
        }
    }
}

/// One address with what is asked there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// How.
    pub protocol: Protocol,
    /// Where.
    pub addr: SocketAddr,
    /// The `Host` of requests.
    pub host: String,
    /// Path with query of a request; the name and type of a question: `web.default.svc.cluster.local?A`.
    pub path: String,
}

impl Target {
    /// A target at an address that is known.
    pub fn at(protocol: Protocol, addr: SocketAddr) -> Self {
        Self {
            protocol,
            addr,
            host: addr.to_string(),
            path: "/".to_owned(),
        }
    }

    /// The same questions asked at another address.
    pub fn moved_to(&self, addr: SocketAddr) -> Self {
        Self {
            addr,
            ..self.clone()
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.protocol.scheme();
        match self.protocol {
            Protocol::Http => write!(f, "{scheme}://{}{}", self.host, self.path),
            Protocol::Dns => write!(f, "{scheme}://{}{}", self.addr, self.path),
            Protocol::Tcp | Protocol::Udp => write!(f, "{scheme}://{}", self.addr),
        }
    }
}

/// Why a target cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The scheme is missing or not one of ours.
    #[error(
        "'{0}' is no target: use http://HOST:PORT/PATH, tcp://HOST:PORT, udp://HOST:PORT or dns://HOST:PORT/NAME"
    )]
    Scheme(String),
    /// There is no port, and none that is usual.
    #[error("'{0}' names no port")]
    Port(String),
    /// The name leads nowhere.
    #[error("cannot resolve '{0}': {1}")]
    Name(String, String),
    /// A question without a name.
    #[error("'{0}' names nothing to ask for: dns://HOST:PORT/NAME")]
    Question(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let no_scheme = || TargetError::Scheme(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(no_scheme)?;
        let (protocol, usual) = match scheme {
            "http" => (Protocol::Http, Some(80)),
            "tcp" => (Protocol::Tcp, None),
            "udp" => (Protocol::Udp, None),
            "dns" => (Protocol::Dns, Some(53)),
            _ => return Err(no_scheme()),
        };
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if protocol == Protocol::Dns && path.len() < 2 {
            return Err(TargetError::Question(text.to_owned()));
        }
        Ok(Self {
            protocol,
            addr: resolve(text, host, usual)?,
            host: host.to_owned(),
            path: path.to_owned(),
        })
    }
}

/// The first address that a host and port stand for.
fn resolve(text: &str, host: &str, usual: Option<u16>) -> Result<SocketAddr, TargetError> {
    if let Ok(addr) = host.parse() {
        return Ok(addr);
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        let port = usual.ok_or_else(|| TargetError::Port(text.to_owned()))?;
        return Ok(SocketAddr::new(ip, port));
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()),
        None => (host, usual),
    };
    let port = port.ok_or_else(|| TargetError::Port(text.to_owned()))?;
    let wrong = |why: String| TargetError::Name(name.to_owned(), why);
    let mut found = (name, port)
        .to_socket_addrs()
        .map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("no address".to_owned()))
}

/// How an answer tells who has given it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Identity {
    /// A header of the answer.
    Header(String),
    /// The first line of the body, or of what came.
    Body,
}

impl FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "body" => Ok(Self::Body),
            Some(("header", name)) if !name.trim().is_empty() => {
                Ok(Self::Header(name.trim().to_ascii_lowercase()))
            }
            _ => Err(format!("'{text}' is neither 'body' nor 'header:NAME'")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(&str, Protocol, &str), &str>) {
        let got = text.parse::<Target>();
        match expected {
            Ok((addr, protocol, path)) => {
                let target = got.unwrap();
                assert_eq!(target.addr, addr.parse().unwrap(), "{text}");
                assert_eq!((target.protocol, &*target.path), (protocol, path), "{text}");
            }
            Err(words) => {
                let error = got.unwrap_err().to_string();
                assert!(error.contains(words), "{text}: {error}");
            }
        }
    }

    #[test]
    fn target_of_a_text_has_address_protocol_and_path() {
        use Protocol::{Dns, Http, Tcp, Udp};
        check(
            "http://127.0.0.1:8080/a?b",
            Ok(("127.0.0.1:8080", Http, "/a?b")),
        );
        check("http://127.0.0.1", Ok(("127.0.0.1:80", Http, "/")));
        check("http://[::1]/x", Ok(("[::1]:80", Http, "/x")));
        check("tcp://127.0.0.1:9", Ok(("127.0.0.1:9", Tcp, "/")));
        check("udp://[::1]:9", Ok(("[::1]:9", Udp, "/")));
        check("dns://127.0.0.1/web?A", Ok(("127.0.0.1:53", Dns, "/web?A")));
        check("127.0.0.1:80", Err("is no target"));
        check("https://127.0.0.1", Err("is no target"));
        check("tcp://127.0.0.1", Err("names no port"));
        check("dns://127.0.0.1", Err("names nothing to ask for"));
    }

    #[test]
    fn identity_is_a_header_or_the_body() {
        assert_eq!("body".parse(), Ok(Identity::Body));
        assert_eq!("header:X-Pod".parse(), Ok(Identity::Header("x-pod".into())));
        assert!("header:".parse::<Identity>().is_err());
        assert!("cookie".parse::<Identity>().is_err());
    }
}
