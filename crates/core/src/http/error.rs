//! What portico answers by itself, and how it says why: status, `Proxy-Status` (RFC 9209), a body for people or programs, or a
//! status of gRPC. Owns the words; which cause it is, the data path knows.

use std::{cmp::Reverse, fmt::Write as _, net::SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};

use super::{framing::BadHead, json};
use crate::{object::Application, snapshot::ServicePortName};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Attempts that a body names; there are never more unless retries are made so.
const MOST_ATTEMPTS: usize = 16;

/// Why one endpoint did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It refused the connection.
    Refused,
    /// No way leads to it.
    Unreachable,
    /// Connecting took too long.
    ConnectTimeout,
    /// It is an address of a Service here.
    Loop,
    /// There is nothing left of this host to connect with: descriptors or ports.
    Exhausted,
    /// The connection ended before an answer began.
    Closed,
    /// What it sent is no answer.
    NoHttp,
    /// The same, where HTTP/2 is spoken with it: most such endpoints speak HTTP/1.1.
    NoHttp2,
    /// The head of its answer is too large.
    LargeHead,
    /// No answer began in time.
    AnswerTimeout,
    /// It was taken away, and no answer began in the time that its Service gives to requests then.
    Gone,
}

impl Fault {
    /// In words that follow an address.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused the connection",
            Self::Unreachable => "is unreachable",
            Self::ConnectTimeout => "did not accept the connection in time",
            Self::Loop => {
                "was not tried: it is an address of a Service here, which could be a loop"
            }
            Self::Exhausted => "was not tried: no descriptor or port left on this host",
            Self::Closed => "closed the connection before it answered",
            Self::NoHttp => "sent something that is not a sound answer",
            Self::NoHttp2 => "sent something that is not HTTP/2",
            Self::LargeHead => "answered with a head that is too large",
            Self::AnswerTimeout => "did not answer in time",
            Self::Gone => "was taken away before it answered",
        }
    }

    /// As a key of reports and logs.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::Loop => "loop",
            Self::Exhausted => "exhausted",
            Self::Closed => "closed",
            Self::NoHttp => "no_http",
            Self::NoHttp2 => "no_http2",
            Self::LargeHead => "large_head",
            Self::AnswerTimeout => "answer_timeout",
            Self::Gone => "gone",
        }
    }

    /// Whether no byte of the request can have arrived.
    pub const fn is_before_sending(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::Unreachable | Self::ConnectTimeout | Self::Loop | Self::Exhausted
        )
    }
}

/// One endpoint that was tried, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Where.
    pub addr: SocketAddr,
    /// Why it is not the answer.
    pub fault: Fault,
}

/// Why portico answers instead of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The head of the request is not passed on.
    BadHead(BadHead),
    /// The head did not come in time.
    SlowHead,
    /// No Service has the address any more.
    NoService,
    /// The Service has no usable endpoint anywhere.
    NoEndpoint,
    /// It has, but its traffic policy is Local, and none is on this node.
    NoneLocal,
    /// Waited in vain for a place that a limit keeps back.
    Full,
    /// The last endpoint tried failed like this.
    Endpoint(Fault),
    /// A mistake of ours.
    Internal,
}

impl Cause {
    /// What it is answered with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadHead(fault) => fault.status(),
            Self::SlowHead => StatusCode::REQUEST_TIMEOUT,
            Self::NoService => StatusCode::NOT_FOUND,
            Self::NoEndpoint | Self::NoneLocal | Self::Full | Self::Endpoint(Fault::Exhausted) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Endpoint(Fault::ConnectTimeout | Fault::AnswerTimeout) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Endpoint(_) => StatusCode::BAD_GATEWAY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The type of error in RFC 9209, section 2.3.
    pub const fn error_type(self) -> &'static str {
        match self {
            Self::BadHead(_) | Self::SlowHead => "http_request_error",
            Self::NoService => "destination_not_found",
            Self::NoEndpoint | Self::NoneLocal => "destination_unavailable",
            Self::Full => "connection_limit_reached",
            Self::Endpoint(fault) => match fault {
                Fault::Refused => "connection_refused",
                Fault::Unreachable => "destination_ip_unroutable",
                Fault::ConnectTimeout => "connection_timeout",
                Fault::Loop => "proxy_loop_detected",
                Fault::Exhausted => "connection_limit_reached",
                Fault::Closed | Fault::Gone => "connection_terminated",
                Fault::NoHttp | Fault::NoHttp2 => "http_protocol_error",
                Fault::LargeHead => "http_response_header_section_size",
                Fault::AnswerTimeout => "http_response_timeout",
            },
            Self::Internal => "proxy_internal_error",
        }
    }

    /// The code of gRPC (`doc/statuscodes.md`). What may be tried again at once is UNAVAILABLE, as gRPC's own clients take it.
    const fn grpc_status(self) -> &'static str {
        match self {
            // INTERNAL, as of the statuses 400 and 431 (`doc/http-grpc-status-mapping.md`).
            Self::BadHead(_)
            | Self::Internal
            | Self::Endpoint(Fault::NoHttp | Fault::NoHttp2 | Fault::LargeHead) => "13",
            // DEADLINE_EXCEEDED
            Self::SlowHead | Self::Endpoint(Fault::AnswerTimeout) => "4",
            // UNIMPLEMENTED
            Self::NoService => "12",
            // RESOURCE_EXHAUSTED
            Self::Full | Self::Endpoint(Fault::Exhausted) => "8",
            Self::NoEndpoint | Self::NoneLocal | Self::Endpoint(_) => "14",
        }
    }

    /// Whether the client's connection cannot go on: where its next request would begin is not known, or nothing is left to ask on it.
    /// Streams of HTTP/2 can.
    pub const fn closes(self, version: Version) -> bool {
        let is_http2 = matches!(version, Version::HTTP_2);
        !is_http2 && matches!(self, Self::BadHead(_) | Self::SlowHead | Self::NoService)
    }

    /// In words.
    fn sentence(self, service: &str) -> String {
        match self {
            Self::BadHead(fault) => format!("the request is not passed on: {fault}"),
            Self::SlowHead => "the head of the request did not come in time".to_owned(),
            Self::NoService => "no Service is served at this address any more".to_owned(),
            Self::NoEndpoint => format!("Service {service} has no endpoint that is ready"),
            Self::NoneLocal => format!(
                "Service {service} has no endpoint on this node, and its traffic policy is Local"
            ),
            Self::Full => format!(
                "Service {service} has as many requests as its limits allow, and none ended in time"
            ),
            Self::Endpoint(fault) => match fault {
                _ if fault.is_before_sending() => {
                    format!("no endpoint of Service {service} could be reached")
                }
                _ => format!("the endpoint of Service {service} {}", fault.as_str()),
            },
            Self::Internal => "a mistake of portico's own".to_owned(),
        }
    }
}

/// A request that failed.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// Whose request; `None` where that is not known.
    pub service: Option<&'a ServicePortName>,
    /// What its endpoints are said to speak, and by what; `None` with the former.
    pub app: Option<&'a Application>,
    /// Why.
    pub cause: Cause,
    /// What was tried, in order.
    pub attempts: &'a [Attempt],
    /// Endpoints that may be chosen, tried or not.
    pub endpoints: usize,
}

/// What the client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain`.
    Text,
    /// `application/json`.
    Json,
    /// Status 200 with `grpc-status`, and nothing behind it ("Trailers-Only" of gRPC over HTTP/2).
    Grpc,
}

impl Format {
    /// By the request's fields: a request of gRPC by its `Content-Type`, others by `Accept`, text where both are as welcome.
    pub fn of(headers: &HeaderMap) -> Self {
        let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        if content_type.is_some_and(is_grpc) {
            return Self::Grpc;
        }
        let lines = headers.get_all(ACCEPT).iter();
        let accepted: Vec<&str> = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .collect();
        if welcome(&accepted, "application", "json") > welcome(&accepted, "text", "plain") {
            Self::Json
        } else {
            Self::Text
        }
    }
}

/// `application/grpc`, with a suffix such as `+proto` or parameters; `application/grpc-web` is a protocol of its own.
fn is_grpc(content_type: &[u8]) -> bool {
    let name = b"application/grpc";
    let prefix = content_type.get(..name.len());
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(name))
        && matches!(
            content_type.get(name.len()),
            None | Some(b'+' | b';' | b' ')
        )
}

/// See [`welcome`].
type Welcome = (u16, u8, Reverse<usize>);

const UNNAMED: Welcome = (0, 0, Reverse(usize::MAX));

/// How welcome a media type is: its quality in thousandths, then how precisely it is named, then how early (RFC 9110, section
/// 12.5.1; the order among equals is ours).
fn welcome(accepted: &[&str], kind: &str, subtype: &str) -> Welcome {
    let mut best = (0_u8, UNNAMED);
    for (at, range) in accepted.iter().enumerate() {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let precision = match name.split_once('/') {
            Some(("*", "*")) => 1,
            Some((of, "*")) if of.eq_ignore_ascii_case(kind) => 2,
            Some((of, sub))
                if of.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) =>
            {
                3
            }
            _ => continue,
        };
        let quality = parts.find_map(|it| it.strip_prefix("q=").or_else(|| it.strip_prefix("Q=")));
        let quality = quality.map_or(1000, thousandths);
        if precision > best.0 {
            // What is not welcome is no more so for being named.
            let rank = if quality == 0 {
                UNNAMED
            } else {
                (quality, precision, Reverse(at))
            };
            best = (precision, rank);
        }
    }
    best.1
}

/// `0.8` in thousandths; what is no number is not welcome.
fn thousandths(quality: &str) -> u16 {
    let (whole, part) = quality.split_once('.').unwrap_or((quality, ""));
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if part.len() > 3 || !is_digits(part) {
        return 0;
    }
    let part: u16 = format!("{part:0<3}").parse().unwrap_or_default();
    match whole {
        "1" => 1000,
        "0" => part,
        _ => 0,
    }
}

/// The answer, whole. `Content-Length`, and that HEAD has no body, are the codec's.
pub fn answer(failure: &Failure<'_>, format: Format) -> Response<String> {
    let name = failure.service.map(ToString::to_string).unwrap_or_default();
    let sentence = failure.cause.sentence(&name);
    let mut response = match format {
        Format::Grpc => grpc(failure, &sentence),
        Format::Text => plain("text/plain; charset=utf-8", text(failure, &sentence)),
        Format::Json => plain("application/json", object(failure, &name, &sentence)),
    };
    if format != Format::Grpc {
        *response.status_mut() = failure.cause.status();
        let length = response.body().len().into();
        response.headers_mut().insert(CONTENT_LENGTH, length);
        // Endpoints that come up are there within a second or so.
        if matches!(
            failure.cause,
            Cause::NoEndpoint | Cause::NoneLocal | Cause::Full
        ) {
            let second = HeaderValue::from_static("1");
            response.headers_mut().insert(RETRY_AFTER, second);
        }
    }
    if let Some(status) = proxy_status(failure, &sentence) {
        response.headers_mut().insert(PROXY_STATUS, status);
    }
    response
}

fn plain(content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn grpc(failure: &Failure<'_>, sentence: &str) -> Response<String> {
    let mut message = sentence.to_owned();
    for attempt in failure.attempts.iter().take(MOST_ATTEMPTS) {
        let _ = write!(message, "; {} {}", attempt.addr, attempt.fault.as_str());
    }
    if let Some(app) = spoken(failure) {
        let _ = write!(message, "; spoken to as {app}");
    }
    let mut response = plain("application/grpc", String::new());
    let headers = response.headers_mut();
    let status = failure.cause.grpc_status();
    headers.insert(GRPC_STATUS, HeaderValue::from_static(status));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(&message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

/// `grpc-message`: everything but printable ASCII, and `%` (gRPC over HTTP/2, "Percent-Encoded").
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

/// A list of structured fields (RFC 8941) with one member, us. A string there is printable ASCII.
fn proxy_status(failure: &Failure<'_>, sentence: &str) -> Option<HeaderValue> {
    let mut text = format!("portico; error={}", failure.cause.error_type());
    if let Some(last) = failure.attempts.last() {
        let _ = write!(text, "; next-hop=\"{}\"", last.addr);
    }
    text.push_str("; details=\"");
    for byte in sentence.bytes().filter(|byte| matches!(byte, b' '..=b'~')) {
        if matches!(byte, b'"' | b'\\') {
            text.push('\\');
        }
        text.push(char::from(byte));
    }
    text.push('"');
    HeaderValue::try_from(text).ok()
}

fn text(failure: &Failure<'_>, sentence: &str) -> String {
    let mut text = format!("{}: {sentence}\n", failure.cause.status());
    for attempt in failure.attempts.iter().take(MOST_ATTEMPTS) {
        let _ = writeln!(text, "  {} {}", attempt.addr, attempt.fault.as_str());
    }
    if let Some(app) = spoken(failure) {
        let _ = writeln!(text, "Spoken to as {app}.");
    }
    if let Some(rest) = untried(failure) {
        let _ = writeln!(text, "{rest}");
    }
    if let Some(command) = command(failure) {
        let _ = writeln!(text, "`{command}` says more.");
    }
    text
}

/// What was spoken to an endpoint that was reached and gave no answer: most of them were taken for what they are not.
fn spoken<'a>(failure: &Failure<'a>) -> Option<&'a Application> {
    let is_odd = matches!(
        failure.cause,
        Cause::Endpoint(Fault::Closed | Fault::NoHttp | Fault::NoHttp2)
    );
    failure.app.filter(|_| is_odd)
}

/// What of the endpoints was left untried, where some were tried.
fn untried(failure: &Failure<'_>) -> Option<String> {
    let tried = failure.attempts.len();
    (tried > 0 && failure.endpoints > tried)
        .then(|| format!("{tried} of {} endpoints were tried.", failure.endpoints))
}

/// What to type.
fn command(failure: &Failure<'_>) -> Option<String> {
    let service = failure.service?;
    let name = format!("portico explain service/{}", service.service);
    (!matches!(
        failure.cause,
        Cause::BadHead(_) | Cause::SlowHead | Cause::Internal
    ))
    .then(|| format!("{name} -n {}", service.namespace))
}

fn object(failure: &Failure<'_>, name: &str, sentence: &str) -> String {
    let mut out = String::from("{");
    let status = failure.cause.status();
    json::number(&mut out, "status", status.as_u16().into());
    json::text(&mut out, "error", failure.cause.error_type());
    json::text(&mut out, "message", sentence);
    if !name.is_empty() {
        json::text(&mut out, "service", name);
    }
    json::number(&mut out, "endpoints", failure.endpoints as u64);
    json::key(&mut out, "tried");
    out.push('[');
    for attempt in failure.attempts.iter().take(MOST_ATTEMPTS) {
        out.push_str(if out.ends_with('[') { "{" } else { ",{" });
        json::text(&mut out, "endpoint", &attempt.addr.to_string());
        json::text(&mut out, "reason", attempt.fault.key());
        out.push('}');
    }
    out.push(']');
    if let Some(app) = spoken(failure) {
        json::text(&mut out, "speaks", &app.to_string());
    }
    if let Some(command) = command(failure) {
        json::text(&mut out, "try", &command);
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests;
