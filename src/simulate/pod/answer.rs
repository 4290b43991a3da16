//! What a simulated pod answers: its name, what its probes are to see, and gRPC's health service (`grpc.health.v1`,
//! gRPC Health Checking Protocol). Owns status and body; connections belong to `serve`.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{CONTENT_TYPE, HeaderValue, USER_AGENT},
    http::request::Parts,
};
use portico_core::world::{
    pods::{Behaviour, Fault, PROBE_HEADER, Served, ServedProbe},
    probes::ProbeKind,
};
use tokio::time::Instant;

use super::log::{ContainerLog, Entry, kept_path};

/// The path of a health check.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Most bytes of a health check's request that are looked at.
const MOST_MESSAGE: usize = 1024;

/// How kubelet's probes call themselves.
const PROBER: &[u8] = b"kube-probe/";

/// Which of its pod's answers this is, from 1 on: whoever counts too can tell that none was lost.
const SERIAL: hyper::header::HeaderName =
    hyper::header::HeaderName::from_static("x-portico-request");

/// `grpc-status` (gRPC, Status codes and their use).
const OK: &str = "0";
const NOT_FOUND: &str = "5";
const UNIMPLEMENTED: &str = "12";

/// What all containers of a pod share. Changed at run time, and read with every request, so without a lock.
#[derive(Debug)]
pub(super) struct Manner {
    pub(super) name: Arc<str>,
    body: Bytes,
    header: Option<HeaderValue>,
    latency_ms: AtomicU64,
    errors_per_10000: AtomicU32,
    /// Requests that may have been made to fail.
    asked: AtomicU64,
    unready: AtomicBool,
    dead: AtomicBool,
    /// Requests that were answered, probes aside.
    served: AtomicU64,
}

impl Manner {
    pub(super) fn new(name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            body: Bytes::from(format!("{name}\n")),
            header: HeaderValue::from_str(name).ok(),
            latency_ms: AtomicU64::new(0),
            errors_per_10000: AtomicU32::new(0),
            asked: AtomicU64::new(0),
            unready: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            served: AtomicU64::new(0),
        }
    }

    pub(super) fn adjust(&self, behaviour: &Behaviour, faults: &BTreeSet<Fault>) {
        self.latency_ms.store(behaviour.latency_ms, Relaxed);
        self.errors_per_10000
            .store(behaviour.errors_per_10000, Relaxed);
        self.unready.store(faults.contains(&Fault::Ready), Relaxed);
        self.dead.store(faults.contains(&Fault::Live), Relaxed);
    }

    /// Whether the next request is one of those that fail. They are spread evenly: the n-th fails when the share of n
    /// requests passes a whole number with it.
    fn next_fails(&self) -> bool {
        let share = u64::from(self.errors_per_10000.load(Relaxed));
        if share == 0 {
            return false;
        }
        let before = self.asked.fetch_add(1, Relaxed);
        let whole = |requests: u64| requests.saturating_mul(share) / 10_000;
        whole(before.saturating_add(1)) > whole(before)
    }

    fn fails(&self, kind: ProbeKind) -> bool {
        match kind {
            ProbeKind::Startup => false,
            ProbeKind::Readiness => self.unready.load(Relaxed),
            ProbeKind::Liveness => self.dead.load(Relaxed),
        }
    }
}

/// What one container answers with.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) manner: Arc<Manner>,
    pub(super) probes: Vec<ServedProbe>,
    pub(super) log: Arc<ContainerLog>,
    /// Logs of the containers that it passes on to what it gets.
    pub(super) backends: Vec<Arc<ContainerLog>>,
}

impl Answers {
    /// Answers one request. Its body is taken first, so that the connection can be kept.
    pub(super) async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: SocketAddr,
    ) -> Result<Response<Answer>, Infallible> {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let agent = parts.headers.get(USER_AGENT);
        let probe = agent.is_some_and(|agent| agent.as_bytes().starts_with(PROBER));
        let response = if is_grpc(&parts) {
            self.grpc(&parts, message(body).await.as_deref())
        } else {
            drain(body).await;
            self.http(&parts, probe).await
        };
        let entry = Entry::Request {
            method: parts.method,
            path: kept_path(&parts.uri),
            client,
            status: response.status().as_u16(),
            took: began.elapsed(),
            probe,
        };
        for backend in self.backends.iter().filter(|_| !probe) {
            backend.write(entry.clone());
        }
        self.log.write(entry);
        Ok(response)
    }

    async fn http(&self, parts: &Parts, probe: bool) -> Response<Answer> {
        let path =
            |served: &Served| matches!(served, Served::Path(path) if **path == *parts.uri.path());
        let mut status = StatusCode::OK;
        if self.refuses(parts, path) {
            status = StatusCode::SERVICE_UNAVAILABLE;
        } else if !probe {
            let latency = self.manner.latency_ms.load(Relaxed);
            if latency > 0 {
                tokio::time::sleep(Duration::from_millis(latency)).await;
            }
            if self.manner.next_fails() {
                status = StatusCode::INTERNAL_SERVER_ERROR;
            }
        }
        let mut response = Response::new(Answer {
            bytes: Some(self.manner.body.clone()),
            trailers: None,
        });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        self.sign(headers);
        if !probe {
            let number = self.manner.served.fetch_add(1, Relaxed).saturating_add(1);
            headers.insert(SERIAL, HeaderValue::from(number));
        }
        response
    }

    /// Whether a probe that is recognised in this way is to fail.
    fn refuses(&self, parts: &Parts, is_asked: impl Fn(&Served) -> bool) -> bool {
        let asked = self.probes.iter().filter(|probe| is_asked(&probe.served));
        let failing = asked.filter(|probe| self.manner.fails(probe.kind));
        let said = || parts.headers.get(PROBE_HEADER)?.to_str().ok();
        let means = |kind| said().is_none_or(|said| said == title(kind));
        failing.into_iter().any(|probe| means(probe.kind))
    }

    fn grpc(&self, parts: &Parts, message: Option<&[u8]>) -> Response<Answer> {
        let service = message.and_then(service_of);
        let (status, serving) = match service {
            _ if parts.uri.path() != CHECK => (UNIMPLEMENTED, None),
            None => (UNIMPLEMENTED, None),
            Some(service) => {
                let asked =
                    |served: &Served| matches!(served, Served::Grpc(name) if **name == *service);
                let known = self.probes.iter().any(|probe| asked(&probe.served));
                if known || service.is_empty() {
                    (OK, Some(!self.refuses(parts, asked)))
                } else {
                    (NOT_FOUND, None)
                }
            }
        };
        let status = HeaderValue::from_static(status);
        // A message after its prefix of five bytes: field 1, SERVING or NOT_SERVING.
        let bytes = serving.map(|serving| {
            let state = if serving { 1 } else { 2 };
            Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 0x08, state])
        });
        let trailers = HeaderMap::from_iter([(GRPC_STATUS, status)]);
        let trailers = Some(trailers);
        let mut response = Response::new(Answer { bytes, trailers });
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        self.sign(headers);
        response
    }

    fn sign(&self, headers: &mut HeaderMap) {
        if let Some(name) = &self.manner.header {
            headers.insert("x-portico-pod", name.clone());
        }
    }
}

const GRPC_STATUS: hyper::header::HeaderName =
    hyper::header::HeaderName::from_static("grpc-status");

const fn title(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "startup",
        ProbeKind::Readiness => "readiness",
        ProbeKind::Liveness => "liveness",
    }
}

fn is_grpc(parts: &Parts) -> bool {
    let kind = parts.headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

async fn drain(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// The whole body, if it is as short as it should be.
async fn message(mut body: Incoming) -> Option<Bytes> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(part) = frame.ok()?.data_ref() {
            whole.extend_from_slice(part);
        }
        if whole.len() > MOST_MESSAGE {
            drain(body).await;
            return None;
        }
    }
    Some(whole.into())
}

/// The service that a health check asks for: field 1 of `HealthCheckRequest`, absent when empty.
fn service_of(message: &[u8]) -> Option<&str> {
    // No compression, and a length of four bytes.
    let message = message.strip_prefix(&[0])?.get(4..)?;
    match message {
        [] => Some(""),
        [0x0a, length, name @ ..] if usize::from(*length) == name.len() && *length < 0x80 => {
            std::str::from_utf8(name).ok()
        }
        _ => None,
    }
}

/// At most one piece, and trailers where gRPC wants them.
#[derive(Debug)]
pub(super) struct Answer {
    bytes: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.bytes.take().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.trailers.is_some() {
            return SizeHint::default();
        }
        let length = self.bytes.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_fails_for_the_share_spread_evenly() {
        let failing = |share| {
            let manner = Manner::new(&"web-1".into());
            let behaviour = Behaviour {
                errors_per_10000: share,
                ..Behaviour::default()
            };
            manner.adjust(&behaviour, &BTreeSet::new());
            let numbers = (1..=20).filter(|_| manner.next_fails());
            numbers.collect::<Vec<u32>>()
        };
        assert_eq!(failing(1000), [10, 20]);
        assert_eq!(failing(0), [0; 0]);
        assert_eq!(failing(2500), [4, 8, 12, 16, 20]);
        assert_eq!(failing(10_000).len(), 20);
    }

    #[test]
    fn service_of_reads_the_first_field() {
        assert_eq!(service_of(&[0, 0, 0, 0, 0]), Some(""));
        assert_eq!(service_of(b"\0\0\0\0\x03\x0a\x01s"), Some("s"));
        assert_eq!(service_of(b"\x01\0\0\0\0"), None);
        assert_eq!(service_of(b"\0\0\0\0\x03\x0a\x02s"), None);
        assert_eq!(service_of(b""), None);
    }
}
