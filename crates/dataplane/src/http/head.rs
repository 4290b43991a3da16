//! A request's head between its client and its endpoints. Owns when the core's rules are asked, and what an attempt sends; the rules
//! are [`portico_core::http`]'s.

use http::{HeaderMap, Method, Request, Version, header, request::Parts};
use portico_core::{
    http::{
        framing::{BadHead, BodyLength},
        head::{self, Onward, Trace},
    },
    object::AppProtocol,
};

use super::{Session, body::RequestBody};
use crate::clock;

/// A request that may go on.
pub(super) struct Asked {
    parts: Parts,
    body: BodyLength,
    /// The version that its head is written for, once it is.
    prepared: Option<Version>,
    /// What the client speaks.
    pub(super) received: Version,
    /// Whether the client waits for 100 before it sends the body.
    pub(super) expects: bool,
}

impl Asked {
    /// One whose head was judged to have such a body.
    pub(super) fn new(mut parts: Parts, body: BodyLength) -> Self {
        parts.extensions.clear();
        Self {
            body,
            prepared: None,
            received: parts.version,
            expects: body != BodyLength::Empty && parts.headers.contains_key(header::EXPECT),
            parts,
        }
    }

    /// Writes the head for an endpoint that speaks `protocol`, unless it is.
    pub(super) fn prepare(
        &mut self,
        protocol: AppProtocol,
        session: &Session,
    ) -> Result<(), BadHead> {
        let version = if protocol.is_http2() {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        if self.prepared == Some(version) {
            return Ok(());
        }
        let rules = &session.cluster.http.headers;
        let onward = Onward {
            version,
            body: self.body,
            service: &session.service,
            chance: if rules.trace == Trace::Begun {
                clock::chance()
            } else {
                [0; 24]
            },
        };
        head::to_endpoint(&mut self.parts, onward, &session.told, rules)?;
        self.prepared = Some(version);
        Ok(())
    }

    pub(super) const fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    pub(super) const fn method(&self) -> &Method {
        &self.parts.method
    }

    /// Whether the endpoint may answer by another protocol.
    pub(super) fn is_upgrade(&self) -> bool {
        head::is_upgrade(&self.parts)
    }

    /// What an attempt sends.
    pub(super) fn request(&self, body: RequestBody) -> Request<RequestBody> {
        Request::from_parts(self.parts.clone(), body)
    }
}
