//! The data path's end of the access log. Owns what is noted of a request on its way and that nobody waits for whoever writes the
//! lines: when too many wait, a line is dropped and counted. What a line says is [`portico_core::http::log`]'s.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use http::{HeaderMap, Method, Version, header, request::Parts};
use portico_core::{
    balance::End,
    http::{
        error::{Cause, Fault},
        framing::BadHead,
        log::{EndedBy, EndedIn, LogFormat, Record, Termination},
    },
    snapshot::ServicePortName,
    time::Timestamp,
};
use tokio::time::Instant;

use crate::clock;

/// Lines that may wait to be written.
const LINES: usize = 8192;
/// What a client that has gone is logged to have been told, as nginx has it.
const GONE: u16 = 499;
/// Status of a call of gRPC.
const GRPC_STATUS: &str = "grpc-status";

/// Where lines go.
#[derive(Debug)]
pub struct AccessLog {
    lines: SyncSender<String>,
    format: LogFormat,
    dropped: AtomicU64,
}

impl AccessLog {
    /// One in this format, and its lines, each with its end.
    pub fn new(format: LogFormat) -> (Arc<Self>, Receiver<String>) {
        let (lines, written) = sync_channel(LINES);
        let log = Self {
            lines,
            format,
            dropped: AtomicU64::new(0),
        };
        (Arc::new(log), written)
    }

    /// Lines that were dropped because too many waited, or [lost](Self::lost).
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// So many lines could not be written.
    pub fn lost(&self, lines: u64) {
        self.dropped.fetch_add(lines, Relaxed);
    }

    /// An empty line, behind those that wait, tells whoever writes them that no more is to come.
    pub fn end(&self) {
        let _ = self.lines.try_send(String::new());
    }

    fn write(&self, record: &Record<'_>) {
        let mut line = String::with_capacity(256);
        record.write(&mut line, self.format);
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// What is noted of one request. Dropped: it is over, and its line is written.
#[derive(Debug)]
pub(super) struct Entry {
    log: Arc<AccessLog>,
    at: Timestamp,
    began: Instant,
    client: SocketAddr,
    /// `None`: it could not be read, nor can the next three.
    method: Option<Method>,
    host: Box<str>,
    path: Box<str>,
    version: Version,
    pub(super) service: Option<Arc<ServicePortName>>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) status: u16,
    grpc_status: Option<u16>,
    pub(super) connect: Option<Duration>,
    first_byte: Option<Duration>,
    pub(super) retries: u32,
    /// Bytes of bodies to the endpoint and to the client.
    pub(super) bytes: (u64, u64),
    pub(super) termination: Termination,
}

impl Entry {
    /// Of a request whose head has come from `client`.
    pub(super) fn of(log: &Arc<AccessLog>, parts: &Parts, client: SocketAddr) -> Box<Self> {
        let said = parts.headers.get(header::HOST);
        let said = said.and_then(|host| host.to_str().ok());
        let named = parts.uri.authority().map(http::uri::Authority::as_str);
        let path = parts.uri.path_and_query();
        let mut entry = Self::unread(log, client);
        entry.method = Some(parts.method.clone());
        entry.host = named.or(said).unwrap_or_default().into();
        entry.path = path.map_or("", |path| path.as_str()).into();
        entry.version = parts.version;
        entry
    }

    /// Of what could not be read.
    pub(super) fn unread(log: &Arc<AccessLog>, client: SocketAddr) -> Box<Self> {
        Box::new(Self {
            log: Arc::clone(log),
            at: clock::now(),
            began: Instant::now(),
            client,
            method: None,
            host: Box::default(),
            path: Box::default(),
            version: Version::HTTP_11,
            service: None,
            endpoint: None,
            status: GONE,
            grpc_status: None,
            connect: None,
            first_byte: None,
            retries: 0,
            bytes: (0, 0),
            termination: Termination(EndedBy::Client, EndedIn::Queue),
        })
    }

    /// It goes to `endpoint` of this Service port.
    pub(super) fn goes_to(&mut self, endpoint: SocketAddr, service: &Arc<ServicePortName>) {
        self.endpoint = Some(endpoint);
        self.service = Some(Arc::clone(service));
        // Unless an answer begins.
        self.termination = Termination(EndedBy::Client, EndedIn::Head);
    }

    /// The client is answered with this status and these fields.
    pub(super) fn answered(&mut self, status: u16, fields: &HeaderMap) {
        self.status = status;
        self.first_byte = Some(self.began.elapsed());
        // Unless it comes to its end.
        self.termination = Termination(EndedBy::Client, EndedIn::Body);
        self.trailers(fields);
    }

    /// What trailers, or a head that has them, say of a call.
    pub(super) fn trailers(&mut self, fields: &HeaderMap) {
        let said = fields.get(GRPC_STATUS).and_then(|said| said.to_str().ok());
        self.grpc_status = said.and_then(|said| said.parse().ok()).or(self.grpc_status);
    }

    /// It is complete.
    pub(super) fn finished(&mut self) {
        self.termination = Termination::NORMAL;
    }

    /// Its body was broken off, for this reason.
    pub(super) fn broke(&mut self, why: End) {
        let by = match why {
            End::EndpointGone | End::ServiceGone => EndedBy::Down,
            _ => EndedBy::Endpoint,
        };
        self.termination = Termination(by, EndedIn::Body);
    }

    /// The client is told of this instead.
    pub(super) fn refused(&mut self, cause: Cause, status: u16) {
        self.status = status;
        self.termination = match cause {
            Cause::BadHead(BadHead::BrokenOff) => Termination(EndedBy::Client, EndedIn::Request),
            Cause::BadHead(_) | Cause::Internal | Cause::NoService => {
                Termination(EndedBy::Proxy, EndedIn::Request)
            }
            Cause::SlowHead => Termination(EndedBy::ClientTimeout, EndedIn::Request),
            Cause::Full => Termination(EndedBy::Resource, EndedIn::Queue),
            Cause::NoEndpoint | Cause::NoneLocal => {
                Termination(EndedBy::Endpoint, EndedIn::Connect)
            }
            Cause::Endpoint(Fault::Exhausted) => Termination(EndedBy::Resource, EndedIn::Connect),
            Cause::Endpoint(Fault::ConnectTimeout) => {
                Termination(EndedBy::EndpointTimeout, EndedIn::Connect)
            }
            Cause::Endpoint(Fault::AnswerTimeout) => {
                Termination(EndedBy::EndpointTimeout, EndedIn::Head)
            }
            Cause::Endpoint(Fault::Refused | Fault::Unreachable | Fault::Loop) => {
                Termination(EndedBy::Endpoint, EndedIn::Connect)
            }
            Cause::Endpoint(Fault::Closed) => Termination(EndedBy::Endpoint, EndedIn::Head),
            Cause::Endpoint(Fault::Gone) => Termination(EndedBy::Down, EndedIn::Head),
            Cause::Endpoint(Fault::NoHttp | Fault::NoHttp2 | Fault::LargeHead) => {
                Termination(EndedBy::Proxy, EndedIn::Head)
            }
        };
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.log.write(&Record {
            at: self.at,
            client: self.client,
            service: self.service.as_deref(),
            endpoint: self.endpoint,
            method: self.method.as_ref(),
            host: &self.host,
            path: &self.path,
            version: self.version,
            status: self.status,
            grpc_status: self.grpc_status,
            connect: self.connect,
            first_byte: self.first_byte,
            total: self.began.elapsed(),
            bytes: self.bytes,
            retries: self.retries,
            termination: self.termination,
        });
    }
}
