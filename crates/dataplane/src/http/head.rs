//! A request's head between its client and its endpoints. Owns when the core's rules are asked, and what an attempt sends; the rules
//! are [`portico_core::http`]'s.

use std::cell::Cell;

use http::{HeaderMap, Method, Request, Version, header, request::Parts};
use portico_core::http::{
    framing::{BadHead, BodyLength},
    head::{self, HeaderRules, Onward, Trace},
};

use super::{Session, body::RequestBody};
use crate::clock;

/// A request that may go on.
pub(super) struct Asked {
    /// As it came: another attempt may be in another protocol, and what is told of the client is told once.
    parts: Parts,
    body: BodyLength,
    /// For a trace that begins here, the same in each attempt.
    chance: [u8; 24],
    /// Whether the last attempt may be answered by another protocol.
    is_upgrade: Cell<bool>,
    /// What the client speaks.
    pub(super) received: Version,
    /// Whether the client waits for 100 before it sends the body.
    pub(super) expects: bool,
}

impl Asked {
    /// One whose head was judged to have such a body.
    pub(super) fn new(mut parts: Parts, body: BodyLength, rules: &HeaderRules) -> Self {
        parts.extensions.clear();
        Self {
            body,
            chance: if rules.trace == Trace::Begun {
                clock::chance()
            } else {
                [0; 24]
            },
            is_upgrade: Cell::new(false),
            received: parts.version,
            expects: body != BodyLength::Empty && is_expectation(&parts),
            parts,
        }
    }

    pub(super) const fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    pub(super) const fn method(&self) -> &Method {
        &self.parts.method
    }

    /// Whether the endpoint may answer by another protocol.
    pub(super) fn is_upgrade(&self) -> bool {
        self.is_upgrade.get()
    }

    /// What an attempt sends to an endpoint that speaks `version`.
    ///
    /// # Errors
    /// The target cannot be said in that version.
    pub(super) fn request(
        &self,
        version: Version,
        session: &Session,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, BadHead> {
        let mut parts = self.parts.clone();
        let onward = Onward {
            version,
            body: self.body,
            service: &session.service,
            chance: self.chance,
        };
        head::to_endpoint(
            &mut parts,
            onward,
            &session.told,
            &session.cluster.http.headers,
        )?;
        self.is_upgrade.set(head::is_upgrade(&parts));
        Ok(Request::from_parts(parts, body))
    }
}

/// Whether 100 is what a client expects, and may be told (RFC 9110, section 10.1.1).
fn is_expectation(parts: &Parts) -> bool {
    let mut expected = parts.headers.get_all(header::EXPECT).iter();
    parts.version != Version::HTTP_10
        && expected.any(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_expects_100_where_it_is_asked_for_and_can_be_told() {
        let expects = |version, value| {
            let request = Request::put("/").version(version).header("expect", value);
            let (parts, ()) = request.body(()).unwrap().into_parts();
            Asked::new(parts, BodyLength::Exactly(4), &HeaderRules::default()).expects
        };
        assert!(expects(Version::HTTP_11, "100-Continue"));
        assert!(expects(Version::HTTP_2, "100-continue"));
        assert!(!expects(Version::HTTP_10, "100-continue"));
        assert!(!expects(Version::HTTP_11, "200-ok"));
    }
}
