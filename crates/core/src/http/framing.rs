//! Whether the head of a request means one thing only: how long its body is, whom it is for, and how large it may be. What two
//! readers could understand differently is refused, for one of them is behind us (RFC 9112, section 11.2: request smuggling).
//! Reads parsed heads; what bytes never become one, the codec says. Must not change anything: that is [`super::head`]'s.
//!
//! Of HTTP/1, [`super::message`] looks at the bytes before, and at what no parsed head shows any more. What h2 0.4 refuses before:
//! names in capitals, fields of the connection, pseudo-fields late, twice or missing, `te` other than `trailers`, a body of another
//! length than `content-length`. A bare LF ends a line of a head as CRLF does (RFC 9112, section 2.2); what goes on has CRLF.

use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request::Parts,
};

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Most fields.
    pub fields: usize,
    /// Most bytes: method, target, names and values, and four a field for what separates them.
    pub bytes: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            fields: 100,
            bytes: 64 << 10,
        }
    }
}

/// The body that a request says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// None.
    Empty,
    /// So many bytes.
    Exactly(u64),
    /// Its end is told when it comes: `chunked`, or a stream of HTTP/2 that is open still. Whether that is over with its head, only
    /// the codec knows.
    Unknown,
}

/// Why a request is answered before it goes anywhere. The connection of HTTP/1 is closed with it, for where the next request would
/// begin is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// Any that has no parser here.
    #[error("version of HTTP is not 1.0, 1.1 or 2")]
    Version,
    /// Nobody behind us is a proxy.
    #[error("CONNECT is not served: this is no forward proxy")]
    Connect,
    /// See [`HeadLimits::fields`].
    #[error("too many header fields")]
    TooManyFields,
    /// See [`HeadLimits::bytes`].
    #[error("header fields are too large")]
    TooLarge,
    /// In HTTP/1.0.
    #[error("Transfer-Encoding in a version of HTTP that has none")]
    UnexpectedCoding,
    /// RFC 9112, section 6.1.
    #[error("Transfer-Encoding is not chunked, said once")]
    Coding,
    /// A coding that nobody here undoes.
    #[error("Transfer-Encoding other than chunked")]
    UnknownCoding,
    /// RFC 9112, section 6.1: it may be refused, and nobody sends it in good faith.
    #[error("Content-Length and Transfer-Encoding at once")]
    TwoFramings,
    /// RFC 9112, section 6.3.
    #[error("Content-Length is not one plain number")]
    Length,
    /// RFC 9112, section 3.2.
    #[error("Host is missing")]
    NoHost,
    /// The same.
    #[error("Host is given more than once")]
    TwoHosts,
    /// The same.
    #[error("Host is no host with an optional port")]
    Host,
    /// The request names two hosts.
    #[error("Host is not the one that the target names")]
    OtherHost,
    /// RFC 9112, section 3.2.1 to 3.2.4.
    #[error("target has what must be percent-encoded, or is not of a form that this method has")]
    Target,
    /// See [`HeadLimits::bytes`]: not even the first line is complete.
    #[error("target is too long")]
    LongTarget,
    /// Not of the form of RFC 9112, sections 3 and 5: folded lines, blanks before a colon, control characters, names and methods that
    /// are no tokens.
    #[error("what came is no head of a request")]
    NoRequest,
    /// The client ended its sending in it.
    #[error("head of the request breaks off")]
    BrokenOff,
    /// RFC 9112, section 7.1.
    #[error("body is not chunked as it says")]
    Chunk,
}

impl BadHead {
    /// What it is answered with.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            // Known, and served for no resource at all (RFC 9110, section 15.6.2).
            Self::Connect | Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::LongTarget => StatusCode::URI_TOO_LONG,
            Self::TooManyFields | Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Judges the head of a request: how long its body is.
///
/// # Errors
/// It is ambiguous, too large, or asks for what is never served.
pub fn judge(head: &Parts, limits: HeadLimits) -> Result<BodyLength, BadHead> {
    if !matches!(
        head.version,
        Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2
    ) {
        return Err(BadHead::Version);
    }
    check_size(head, limits)?;
    if head.method == Method::CONNECT {
        return Err(BadHead::Connect);
    }
    check_target(head)?;
    check_host(head)?;
    body_length(head.version, &head.headers)
}

fn check_size(head: &Parts, limits: HeadLimits) -> Result<(), BadHead> {
    if head.headers.len() > limits.fields {
        return Err(BadHead::TooManyFields);
    }
    let fields = head.headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let uri = &head.uri;
    let target = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let authority = uri.authority().map_or(0, |it| it.as_str().len());
    if fields + target + authority + head.method.as_str().len() > limits.bytes {
        return Err(BadHead::TooLarge);
    }
    Ok(())
}

/// Origin form, absolute form with a scheme that we may stand for, or `*` with OPTIONS.
fn check_target(head: &Parts) -> Result<(), BadHead> {
    let uri = &head.uri;
    let is_form = match (uri.scheme_str(), uri.authority()) {
        (None, None) => uri.path().starts_with('/') || is_asterisk(head),
        // TLS may have ended in front of us, where clients still say https.
        (Some("http" | "https"), Some(_)) => uri.path().starts_with('/') || is_asterisk(head),
        // The form of CONNECT, or another scheme.
        _ => false,
    };
    if is_form {
        Ok(())
    } else {
        Err(BadHead::Target)
    }
}

fn is_asterisk(head: &Parts) -> bool {
    head.uri.path() == "*" && head.method == Method::OPTIONS
}

fn check_host(head: &Parts) -> Result<(), BadHead> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadHead::TwoHosts);
    }
    let named = authority(&head.uri)?;
    let Some(host) = host else {
        // HTTP/1.0 has none, HTTP/2 has :authority instead (RFC 9113, section 8.3.1).
        let is_needed = head.version == Version::HTTP_11
            || (head.version == Version::HTTP_2 && named.is_none());
        return if is_needed {
            Err(BadHead::NoHost)
        } else {
            Ok(())
        };
    };
    let host = host.to_str().map_err(|_| BadHead::Host)?;
    if !is_host(host) {
        return Err(BadHead::Host);
    }
    let default = match head.uri.scheme_str() {
        Some("https") => "443",
        _ => "80",
    };
    match named {
        Some(named) if !is_same(named, host, default) => Err(BadHead::OtherHost),
        _ => Ok(()),
    }
}

/// What the target names, without a user's name (RFC 9110, section 4.2.4: an error at a recipient like us).
fn authority(uri: &Uri) -> Result<Option<&str>, BadHead> {
    let Some(named) = uri.authority() else {
        return Ok(None);
    };
    if is_host(named.as_str()) {
        Ok(Some(named.as_str()))
    } else {
        Err(BadHead::Host)
    }
}

/// `uri-host [ ":" port ]`; empty where a target has no authority (RFC 9110, section 7.2).
fn is_host(text: &str) -> bool {
    let (host, port) = split_port(text);
    let is_port = port.is_none_or(|port| {
        port.is_empty() || (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
    });
    let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let is_host = match bracketed {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        // `reg-name` of RFC 3986 without what no host has in practice but confuses readers: sub-delims, user information.
        None => host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'%')),
    };
    is_host && is_port
}

fn split_port(text: &str) -> (&str, Option<&str>) {
    let end = text.rfind(']').map_or(0, |at| at + 1);
    match text.get(end..).and_then(|rest| rest.find(':')) {
        Some(at) => (
            text.get(..end + at).unwrap_or_default(),
            text.get(end + at + 1..),
        ),
        None => (text, None),
    }
}

/// Letters of either case, and the port that the scheme has without saying so.
fn is_same(one: &str, other: &str, default: &str) -> bool {
    let of = |text| {
        let (host, port): (&str, _) = split_port(text);
        (
            host,
            port.filter(|port| !port.is_empty() && *port != default),
        )
    };
    let ((host, port), (other_host, other_port)) = (of(one), of(other));
    host.eq_ignore_ascii_case(other_host) && port == other_port
}

/// Whether the fields of an answer say in one way where its body ends. hyper's client takes `Transfer-Encoding` for chunked if
/// that is the last coding, and leaves the others undone; what it says of `Content-Length` beside it, [`super::head::to_client`]
/// takes away.
pub fn is_sound_answer(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(TRANSFER_ENCODING).iter();
    has_coding(Version::HTTP_11, lines.map(HeaderValue::as_bytes)).is_ok()
}

/// How long the body of a message with these fields is.
fn body_length(version: Version, headers: &HeaderMap) -> Result<BodyLength, BadHead> {
    let lines = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    body_of(version, lines(TRANSFER_ENCODING), lines(CONTENT_LENGTH))
}

/// How long the body of a message is, by the lines of its `Transfer-Encoding` and of its `Content-Length`.
///
/// # Errors
/// They are unsound, or say it in two ways.
pub fn body_of<'a>(
    version: Version,
    codings: impl Iterator<Item = &'a [u8]>,
    lengths: impl Iterator<Item = &'a [u8]>,
) -> Result<BodyLength, BadHead> {
    let is_coded = has_coding(version, codings)?;
    let length = length_of(lengths)?;
    match (is_coded, length) {
        (true, Some(_)) => Err(BadHead::TwoFramings),
        (true, None) => Ok(BodyLength::Unknown),
        (false, Some(0)) => Ok(BodyLength::Empty),
        (false, Some(length)) => Ok(BodyLength::Exactly(length)),
        (false, None) if version == Version::HTTP_2 => Ok(BodyLength::Unknown),
        (false, None) => Ok(BodyLength::Empty),
    }
}

fn has_coding<'a>(
    version: Version,
    mut lines: impl Iterator<Item = &'a [u8]>,
) -> Result<bool, BadHead> {
    let Some(line) = lines.next() else {
        return Ok(false);
    };
    if version != Version::HTTP_11 {
        return Err(BadHead::UnexpectedCoding);
    }
    let text = str::from_utf8(line).map_err(|_| BadHead::Coding)?;
    if lines.next().is_some() {
        return Err(BadHead::Coding);
    }
    if text.eq_ignore_ascii_case("chunked") {
        return Ok(true);
    }
    let mut codings = text
        .split(',')
        .map(|coding| coding.trim_matches([' ', '\t']));
    let last = codings.next_back().unwrap_or_default();
    let is_list = text.contains(',');
    // RFC 9112, section 6.1: what is not understood is answered with 501, if it is at least well formed.
    let is_known_kind = |coding: &str| {
        ["gzip", "x-gzip", "compress", "x-compress", "deflate"]
            .iter()
            .any(|known| coding.eq_ignore_ascii_case(known))
    };
    if is_list && last.eq_ignore_ascii_case("chunked") && codings.all(is_known_kind) {
        Err(BadHead::UnknownCoding)
    } else {
        Err(BadHead::Coding)
    }
}

/// The one `Content-Length`. A list is legal if its members agree (RFC 9110, section 8.6), but nobody sends one in good faith;
/// nor a leading zero, which some take for octal.
fn length_of<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<u64>, BadHead> {
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err(BadHead::Length);
    }
    number(line).map(Some).ok_or(BadHead::Length)
}

fn number(value: &[u8]) -> Option<u64> {
    let is_plain = value.iter().all(u8::is_ascii_digit);
    let is_canonical = value == b"0" || !value.starts_with(b"0");
    let text = str::from_utf8(value).ok()?;
    (is_plain && is_canonical).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
