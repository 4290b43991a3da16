//! Requests that no endpoint answers. Owns which cause it is; what is said of it belongs to [`portico_core::http::error`].

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, Version, header};
use portico_core::http::{
    error::{Attempt, Cause, Failure, Fault, Format, answer},
    framing::BadHead,
};

use super::{Session, body::ResponseBody, log::Entry};
use crate::{
    net,
    tcp::{
        connect::{Rejection, endpoints},
        dial::DialError,
    },
};

/// Why an exchange has no answer of an endpoint.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The client is told why, after these attempts.
    Told(Cause, Vec<Attempt>),
    /// The client is cut off: it is gone, or what a connection of TCP would be reset for.
    Cut,
}

impl From<BadHead> for Refusal {
    fn from(fault: BadHead) -> Self {
        Self::Told(Cause::BadHead(fault), Vec::new())
    }
}

/// The client is cut off without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the client gets no answer")]
pub(super) struct Cut;

impl Refusal {
    /// No endpoint is left.
    pub(super) fn rejected(rejection: &Rejection, attempts: Vec<Attempt>) -> Self {
        let cause = match rejection {
            Rejection::SourceRange | Rejection::Unheaded(_) => return Self::Cut,
            _ if !attempts.is_empty() => return Self::failed(attempts),
            Rejection::NoEndpoint | Rejection::AllFailed => Cause::NoEndpoint,
            Rejection::Policy => Cause::NoneLocal,
            Rejection::Full(_) => Cause::Full,
            Rejection::Unmatched | Rejection::HealthCheck(_) | Rejection::SpeaksHttp => {
                Cause::NoService
            }
        };
        Self::Told(cause, attempts)
    }

    /// None of these answered.
    pub(super) fn failed(attempts: Vec<Attempt>) -> Self {
        let last = attempts.last();
        let cause = last.map_or(Cause::Internal, |last| Cause::Endpoint(last.fault));
        Self::Told(cause, attempts)
    }

    /// The answer to a request with these fields.
    pub(super) fn answer(
        &self,
        session: &Session,
        (headers, version): (&HeaderMap, Version),
        entry: Option<Box<Entry>>,
    ) -> Result<Response<ResponseBody>, Cut> {
        let Self::Told(cause, attempts) = self else {
            return Err(Cut);
        };
        let snapshot = session.shared.published.load();
        let frontend = snapshot.asked(&session.arrival.asked());
        let port = frontend.map(|frontend| &frontend.port);
        let failure = Failure {
            service: port.map(|port| &*port.name),
            app: port.map(|port| &port.app),
            cause: *cause,
            attempts,
            endpoints: port.map_or(0, |port| endpoints(port)),
        };
        let mut response = answer(&failure, Format::of(headers));
        if let Some(port) = port {
            port.state.statuses.count(response.status().as_u16());
        }
        if let Some(mut entry) = entry {
            entry.service = port.map(|port| Arc::clone(&port.name));
            entry.endpoint = attempts.last().map(|last| last.addr);
            entry.retries = u32::try_from(attempts.len().saturating_sub(1)).unwrap_or(u32::MAX);
            entry.refused(*cause, response.status().as_u16());
            entry.trailers(response.headers());
        }
        if cause.closes(version) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
            session.progress.was_cut_short.set(true);
        }
        Ok(response.map(|text| ResponseBody::ours(Bytes::from(text))))
    }
}

/// What a failed connect is called.
pub(super) fn of_dial(error: &DialError) -> Fault {
    match error {
        DialError::TimedOut => Fault::ConnectTimeout,
        DialError::Failed(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => {
            Fault::Refused
        }
        DialError::Failed(cause) if net::is_own_fault(cause) => Fault::Exhausted,
        DialError::Failed(_) => Fault::Unreachable,
        DialError::Loop => Fault::Loop,
    }
}
