//! What a proxy does to the heads that go through it: fields of one connection stay on it (RFC 9110, section 7.6.1), the endpoint
//! is told who asked (`X-Forwarded-*`, RFC 7239), and what one version of HTTP says in its own way is said in the other's. Reads
//! heads that [`super::framing`] has passed; must not choose anything by them.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA,
    },
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use ipnet::IpNet;

use super::{
    framing::{BadHead, BodyLength},
    trace::{self, TRACEPARENT},
};

/// Client addresses, the nearest last.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `http` or `https`, as the client said it.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `Host`, as the client said it.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Fields that `Connection` cannot take away, though it lists them: framing and routing, who asked, and what access is decided by.
const KEPT: [HeaderName; 8] = [
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    FORWARDED,
    VIA,
    COOKIE,
    http::header::AUTHORIZATION,
    TRACEPARENT,
];

/// What endpoints are told beside what clients say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderRules {
    /// Proxies in front of us, whose word about clients is believed and added to. Others' is replaced.
    pub trusted: Arc<[IpNet]>,
    /// Whether `Forwarded` (RFC 7239) goes with `X-Forwarded-*`.
    pub forwarded: Forwarded,
    /// Whether messages name us in `Via`, in both directions.
    pub via: Via,
    /// Whether a request without a sound `traceparent` gets one.
    pub trace: Trace,
}

/// RFC 7239.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forwarded {
    /// Not written; what a trusted proxy wrote goes through.
    #[default]
    Left,
    /// Written, after what a trusted proxy wrote.
    Written,
}

/// RFC 9110, section 7.6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Via {
    /// A gateway of one machine is no part of the way that anybody asks about.
    #[default]
    Left,
    /// `1.1 portico`.
    Written,
}

/// W3C Trace Context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trace {
    /// What comes goes through.
    #[default]
    Passed,
    /// Begun where none comes.
    Begun,
}

/// Who a connection comes from, in the words of the fields: made once for all of its requests.
#[derive(Debug, Clone)]
pub struct Arrival {
    is_trusted: bool,
    client: HeaderValue,
    forwarded: String,
}

impl Arrival {
    /// From `client`, who a trusted PROXY header names, else the peer. IPv4 in IPv6 is IPv4.
    pub fn new(client: SocketAddr, rules: &HeaderRules) -> Self {
        let addr = client.ip().to_canonical();
        let text = addr.to_string();
        let forwarded = match addr {
            IpAddr::V4(_) => format!("for={text}"),
            IpAddr::V6(_) => format!("for=\"[{text}]\""),
        };
        Self {
            is_trusted: rules.trusted.iter().any(|range| range.contains(&addr)),
            client: HeaderValue::try_from(text)
                .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            forwarded,
        }
    }
}

/// How a request goes on.
#[derive(Debug, Clone, Copy)]
pub struct Onward<'a> {
    /// HTTP/1.1 or HTTP/2: what the endpoint speaks.
    pub version: Version,
    /// What [`super::framing::judge`] found, or [`BodyLength::Empty`] for a stream that was over with its head.
    pub body: BodyLength,
    /// `host:port` for a request that names none, which HTTP/2 needs one for.
    pub service: &'a str,
    /// 24 random bytes, for a trace that begins here.
    pub chance: [u8; 24],
}

/// Makes of a client's head the endpoint's. Once for each request: the head that it
/// leaves is the endpoint's, and what a trusted proxy said is already gone on with.
///
/// # Errors
/// The target cannot be said in the other version.
pub fn to_endpoint(
    head: &mut Parts,
    onward: Onward<'_>,
    arrival: &Arrival,
    rules: &HeaderRules,
) -> Result<(), BadHead> {
    let upgrade = upgrade_of(head, onward);
    let wants_trailers = wants_trailers(&head.headers);
    let received = head.version;
    let host = host_of(head);
    strip(&mut head.headers);
    drop_doubles(&mut head.headers);
    retarget(head, host.as_ref(), onward)?;
    let headers = &mut head.headers;
    frame(headers, onward);
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if onward.version != Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    if onward.version != Version::HTTP_2 {
        join_cookies(headers);
    }
    tell_client(headers, host, arrival, rules);
    if rules.via == Via::Written {
        append(headers, &VIA, via(received));
    }
    if rules.trace == Trace::Begun {
        trace::begin(headers, &onward.chance);
    }
    head.version = onward.version;
    Ok(())
}

/// Makes of an endpoint's head the client's. `received` is the version that the endpoint spoke; of a 101 that answers an upgrade
/// the fields of the upgrade stay.
pub fn to_client(head: &mut http::response::Parts, received: Version, rules: &HeaderRules) {
    let headers = &mut head.headers;
    let is_upgrade = head.status == http::StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = is_upgrade.then(|| headers.remove(UPGRADE)).flatten();
    one_length(headers);
    if is_upgrade || head.status == http::StatusCode::NO_CONTENT {
        // None may stand there (RFC 9110, section 8.6): a client of HTTP/2 would wait for so much, and take the stream for broken.
        headers.remove(CONTENT_LENGTH);
    }
    strip(headers);
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if rules.via == Via::Written {
        append(headers, &VIA, via(received));
    }
}

/// Leaves one length where an answer says more: none beside `Transfer-Encoding` (RFC 9112, section 6.3, rule 3), and one of several
/// that agree, which is what the codec has seen to (RFC 9110, section 8.6). hyper's server would cut the body at the wrong place, or
/// refuse to write the head.
fn one_length(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
        return;
    }
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let first = lines.next().and_then(|line| line.to_str().ok());
    let Some((one, _)) = first.map(|line| line.split_once(',').unwrap_or((line, ""))) else {
        return;
    };
    let is_one = lines.next().is_none() && first == Some(one);
    if let Ok(one) = HeaderValue::from_str(one.trim())
        && !is_one
    {
        headers.insert(CONTENT_LENGTH, one);
    }
}

/// Takes out of trailers what may not stand there: framing, routing and what concerns one connection (RFC 9110, section 6.5.1).
pub fn clean_trailers(trailers: &mut HeaderMap) {
    strip(trailers);
    take(trailers, |name| {
        matches!(
            name.as_str(),
            "authorization"
                | "content-encoding"
                | "content-length"
                | "content-range"
                | "content-type"
                | "cookie"
                | "host"
                | "set-cookie"
                | "trailer"
        )
    });
}

/// Takes away what concerns one connection, and what `Connection` says does. How long a body is, is not among it: codecs write it.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(|name| HeaderName::try_from(name.trim_matches([' ', '\t'])).ok())
            .filter(|name| !KEPT.contains(name) && !name.as_str().starts_with("x-forwarded-"))
            .collect();
        for name in listed {
            headers.remove(name);
        }
    }
    take(headers, is_of_connection);
}

/// Takes fields away by their names.
fn take(headers: &mut HeaderMap, is_meant: impl Fn(&HeaderName) -> bool) {
    // One pass costs less than to look each up, and most heads have none.
    while let Some(name) = headers.keys().find(|name| is_meant(name)).cloned() {
        headers.remove(name);
    }
}

/// Whether [`strip`] takes it away from any head.
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Names that gateways of the CGI kind (RFC 3875, section 4.1.18) take for fields which mean something here: what a proxy decides
/// about one must not be said by the other.
fn drop_doubles(headers: &mut HeaderMap) {
    let is_double = |name: &HeaderName| {
        let name = name.as_str();
        let is_ours = |ours: &str| {
            name.len() == ours.len()
                && name
                    .bytes()
                    .zip(ours.bytes())
                    .all(|(a, b)| a == b || (a == b'_' && b == b'-'))
        };
        name.contains('_')
            && [
                "content-length",
                "transfer-encoding",
                X_FORWARDED_FOR.as_str(),
                X_FORWARDED_PROTO.as_str(),
                X_FORWARDED_HOST.as_str(),
            ]
            .into_iter()
            .any(is_ours)
    };
    take(headers, is_double);
}

/// The protocol that a request wants to go on in, if that is ours to pass: of HTTP/1.1 to HTTP/1.1, without a body that would come
/// before it, and not h2c, whose requests nobody here would see. Otherwise it is an ordinary request (RFC 9110, section 7.8).
fn upgrade_of(head: &Parts, onward: Onward<'_>) -> Option<HeaderValue> {
    let is_http1 = head.version == Version::HTTP_11 && onward.version == Version::HTTP_11;
    if !is_http1
        || onward.body != BodyLength::Empty
        || !lists(&head.headers, &CONNECTION, "upgrade")
    {
        return None;
    }
    let mut lines = head.headers.get_all(UPGRADE).iter();
    let protocol = lines.next().filter(|_| lines.next().is_none())?;
    let text = protocol.to_str().ok()?;
    let mut protocols = text.split(',').map(str::trim);
    let is_h2c = protocols.any(|name| {
        name.get(..3)
            .is_some_and(|it| it.eq_ignore_ascii_case("h2c"))
    });
    (!text.is_empty() && !is_h2c).then(|| protocol.clone())
}

/// Whether [`to_endpoint`] made an upgrade of this head.
pub fn is_upgrade(head: &Parts) -> bool {
    head.headers.contains_key(UPGRADE)
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    lists(headers, &TE, "trailers")
}

/// Whether a field lists a token.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut tokens = lines.flat_map(|line| line.split(','));
    tokens.any(|of| of.trim().eq_ignore_ascii_case(token))
}

/// What the request is for: what the target names, else `Host`.
fn host_of(head: &Parts) -> Option<HeaderValue> {
    let named = head.uri.authority();
    let named = named.and_then(|it| HeaderValue::from_str(it.as_str()).ok());
    named
        .or_else(|| head.headers.get(HOST).cloned())
        .filter(|host| !host.is_empty())
}

/// Origin form with `Host` for HTTP/1.1; scheme and authority for HTTP/2.
fn retarget(
    head: &mut Parts,
    host: Option<&HeaderValue>,
    onward: Onward<'_>,
) -> Result<(), BadHead> {
    if onward.version == Version::HTTP_2 {
        let named = || host.and_then(|host| host.to_str().ok());
        let mut uri = std::mem::take(&mut head.uri).into_parts();
        let authority = uri.authority;
        uri.authority = authority.or_else(|| named().unwrap_or(onward.service).parse().ok());
        uri.scheme = Some(uri.scheme.unwrap_or(Scheme::HTTP));
        uri.path_and_query = Some(uri.path_and_query.unwrap_or_else(root));
        head.uri = Uri::from_parts(uri).map_err(|_| BadHead::Target)?;
        head.headers.remove(HOST);
        return Ok(());
    }
    if head.uri.scheme().is_some() {
        let path = head.uri.path_and_query().cloned().unwrap_or_else(root);
        head.uri = Uri::from(path);
    }
    let service = || HeaderValue::from_str(onward.service).ok();
    let is_without = head.version == Version::HTTP_10 && !head.headers.contains_key(HOST);
    match host.cloned().or_else(|| service().filter(|_| is_without)) {
        Some(host) => drop(head.headers.insert(HOST, host)),
        // HTTP/1.1 demands one, an empty one too (RFC 9112, section 3.2).
        None => drop(head.headers.insert(HOST, HeaderValue::from_static(""))),
    }
    Ok(())
}

fn root() -> PathAndQuery {
    PathAndQuery::from_static("/")
}

/// Says how long the body is, in one way. HTTP/1.1 has to be told of a body whose end is not known also where hyper would think
/// that the method has none.
fn frame(headers: &mut HeaderMap, onward: Onward<'_>) {
    match onward.body {
        BodyLength::Exactly(length) => drop(headers.insert(CONTENT_LENGTH, length.into())),
        // `0` is what tells an empty POST from one that was forgotten: it stays as it is.
        BodyLength::Empty => {}
        BodyLength::Unknown => {
            headers.remove(CONTENT_LENGTH);
            if onward.version != Version::HTTP_2 {
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
    }
}

/// HTTP/2 has cookies in pieces, HTTP/1.1 in one line (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    join(headers, &COOKIE, b"; ");
}

/// Makes one line of several.
fn join(headers: &mut HeaderMap, name: &HeaderName, between: &[u8]) {
    if headers.get_all(name).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(between)) {
        headers.insert(name, joined);
    }
}

/// Adds to a list that may be in several lines.
fn append(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    if headers.append(name, value) {
        join(headers, name, b", ");
    }
}

/// Whether only trusted proxies may say it.
fn is_about_client(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto"
    )
}

/// Who asked, for whom, and how: what a trusted proxy said is gone on with, what anybody else said is not.
fn tell_client(
    headers: &mut HeaderMap,
    host: Option<HeaderValue>,
    arrival: &Arrival,
    rules: &HeaderRules,
) {
    let http = HeaderValue::from_static("http");
    if !arrival.is_trusted {
        take(headers, is_about_client);
    }
    if rules.forwarded == Forwarded::Written {
        let mut element = arrival.forwarded.clone();
        if let Some(host) = host.as_ref().and_then(|host| host.to_str().ok()) {
            // A port makes it more than a token; checked hosts have nothing that would need a backslash.
            let _ = write!(element, ";host=\"{host}\"");
        }
        element.push_str(";proto=http");
        if let Ok(element) = HeaderValue::try_from(element) {
            append(headers, &FORWARDED, element);
        }
    }
    append(headers, &X_FORWARDED_FOR, arrival.client.clone());
    headers.entry(X_FORWARDED_PROTO).or_insert(http);
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

const fn via(received: Version) -> HeaderValue {
    HeaderValue::from_static(match received {
        Version::HTTP_2 => "2 portico",
        Version::HTTP_10 => "1.0 portico",
        _ => "1.1 portico",
    })
}

#[cfg(test)]
mod tests;
