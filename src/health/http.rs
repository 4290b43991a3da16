//! The attempt of an `httpGet` probe: one GET over HTTP/1.1, redirects within the host followed. Owns URLs as far as
//! probes need them. Semantics: kubelet's HTTP prober; RFC 9110.

use std::{error::Error as _, fmt::Write as _, io, net::SocketAddr, sync::Arc};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::ask::{self, MOST_BODY, dial, driven, go_words};

/// Most requests of one attempt: the first and those that redirects lead to, as in Go's client.
const MOST_REQUESTS: usize = 10;

/// Most bytes of an answer's head.
const MOST_HEAD: usize = 64 * 1024;

/// Time-outs as Go's client words them.
const NO_HEADERS: &str =
    "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
const NO_BODY: &str =
    "context deadline exceeded (Client.Timeout or context cancellation while reading body)";

/// An `http` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// Name or address, without brackets.
    host: String,
    port: u16,
    /// Path and query, escaped, from the slash on.
    path: String,
}

/// Where a redirect leads.
#[derive(Debug, PartialEq, Eq)]
enum Redirect {
    /// Within the host; whether the location was absolute.
    Follow(Url, bool),
    /// Elsewhere, or to HTTPS: not followed.
    Elsewhere,
    /// Nowhere.
    Unreadable,
}

impl Url {
    /// The URL that an `httpGet` names.
    pub(super) fn new(host: Option<&str>, addr: SocketAddr, path: &str) -> Self {
        let slash = if path.starts_with('/') { "" } else { "/" };
        Self {
            host: host.map_or_else(|| addr.ip().to_string(), str::to_owned),
            port: addr.port(),
            path: format!("{slash}{}", escaped(path)),
        }
    }

    /// `host:port`, an IPv6 address in brackets.
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The URL that `location` means here (RFC 3986 section 5.2, without dot segments).
    fn redirect(&self, location: &str) -> Redirect {
        let location = escaped(location);
        let absolute = match location.strip_prefix("//") {
            Some(rest) => format!("http://{rest}"),
            None => location.clone(),
        };
        if !absolute.contains("://") {
            let path = match location.chars().next() {
                Some('/') => location,
                Some('?') => format!("{}{location}", self.path_alone()),
                _ => {
                    let folder = self.path_alone().rsplit_once('/');
                    format!("{}/{location}", folder.map_or("", |(folder, _)| folder))
                }
            };
            let url = Self {
                path,
                ..self.clone()
            };
            return Redirect::Follow(url, false);
        }
        let Ok(uri) = absolute.parse::<Uri>() else {
            return Redirect::Unreadable;
        };
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if uri.scheme_str() != Some("http") || !host.eq_ignore_ascii_case(&self.host) {
            return Redirect::Elsewhere;
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let url = Self {
            host: self.host.clone(),
            port: uri.port_u16().unwrap_or(80),
            path: path.to_owned(),
        };
        Redirect::Follow(url, true)
    }

    fn path_alone(&self) -> &str {
        self.path
            .split_once('?')
            .map_or(&self.path, |(path, _)| path)
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

/// Without fragment, and with every byte that may not stand in a URI escaped (RFC 3986 section 2.1).
fn escaped(path: &str) -> String {
    let path = path.split_once('#').map_or(path, |(path, _)| path);
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Gets `url` from `addr`: 200 to 399 is success. An answer that breaks off in its body is a failure.
pub(super) async fn get(
    mut url: Url,
    mut addr: SocketAddr,
    headers: &[(Arc<str>, Arc<str>)],
    deadline: Instant,
) -> Result<(), String> {
    let mut fields = fields(headers)?;
    for _ in 0..MOST_REQUESTS {
        let failed = |why: String| format!("Get \"{url}\": {why}");
        let stream = dial(Some(&url.host), addr, deadline)
            .await
            .map_err(|error| match error {
                ask::DialError::TimedOut(_) => failed(format!(
                    "{error} (Client.Timeout exceeded while awaiting headers)"
                )),
                _ => failed(error.to_string()),
            })?;
        let request = request(&url, &fields).map_err(failed)?;
        let (status, location) = exchange(stream, request, deadline).await.map_err(failed)?;
        let location = location.filter(|_| is_redirect(status));
        let Some(location) = location else {
            return judge(status);
        };
        match url.redirect(&location) {
            // kubelet warns and counts it as success.
            Redirect::Elsewhere => return Ok(()),
            Redirect::Unreadable => {
                let why = format!("failed to parse Location header {location:?}");
                return Err(failed(why));
            }
            Redirect::Follow(next, is_absolute) => {
                if is_absolute {
                    fields.remove(HOST);
                }
                addr.set_port(next.port);
                url = next;
            }
        }
    }
    Err(format!(
        "Get \"{url}\": stopped after {MOST_REQUESTS} redirects"
    ))
}

/// The redirects that a GET follows (RFC 9110 section 15.4).
const fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn judge(status: StatusCode) -> Result<(), String> {
    if (200..400).contains(&status.as_u16()) {
        return Ok(());
    }
    let code = status.as_u16();
    Err(format!("HTTP probe failed with statuscode: {code}"))
}

/// `httpHeaders` with kubelet's own: an empty `Accept` takes that one away.
fn fields(headers: &[(Arc<str>, Arc<str>)]) -> Result<HeaderMap, String> {
    let mut fields = HeaderMap::new();
    for (name, value) in headers {
        let read = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value.as_bytes()),
        );
        let (Ok(name), Ok(value)) = read else {
            return Err(format!("net/http: invalid header field {name:?}"));
        };
        fields.append(name, value);
    }
    fields
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(ask::USER_AGENT));
    let accept = fields.entry(ACCEPT);
    if accept.or_insert(HeaderValue::from_static("*/*")).is_empty() {
        fields.remove(ACCEPT);
    }
    fields.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(fields)
}

fn request(url: &Url, fields: &HeaderMap) -> Result<Request<Empty<Bytes>>, String> {
    let mut request = Request::get(&url.path)
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let authority = HeaderValue::try_from(url.authority()).map_err(|error| error.to_string())?;
    request.headers_mut().extend(fields.clone());
    request.headers_mut().entry(HOST).or_insert(authority);
    Ok(request)
}

/// Sends the request and reads the answer, of its body no more than [`MOST_BODY`].
async fn exchange(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
    deadline: Instant,
) -> Result<(StatusCode, Option<String>), String> {
    let ends = stream.local_addr().ok().zip(stream.peer_addr().ok());
    let words = |error: hyper::Error| go_error(&error, ends);
    let handshake = http1::Builder::new()
        .max_buf_size(MOST_HEAD)
        // As Go writes them, for servers that look.
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = handshake.map_err(words)?;
    let talk = async move {
        let answer = timeout_at(deadline, sender.send_request(request)).await;
        let answer = answer.map_err(|_late| NO_HEADERS.to_owned())?;
        let mut answer: Response<Incoming> = answer.map_err(words)?;
        let read = timeout_at(deadline, read_body(answer.body_mut())).await;
        read.map_err(|_late| NO_BODY.to_owned())?.map_err(words)?;
        let location = answer.headers().get(LOCATION);
        let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok((answer.status(), location))
    };
    driven(connection, talk).await
}

async fn read_body(body: &mut Incoming) -> Result<(), hyper::Error> {
    let mut bytes = 0;
    while bytes < MOST_BODY
        && let Some(frame) = body.frame().await
    {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}

/// What Go's client says of a connection that broke.
fn go_error(error: &hyper::Error, ends: Option<(SocketAddr, SocketAddr)>) -> String {
    let cause = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    match (cause, ends) {
        (Some(cause), Some((own, peer))) => {
            format!("read tcp {own}->{peer}: read: {}", go_words(cause))
        }
        _ if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            "EOF".into()
        }
        _ => format!("net/http: HTTP/1.x transport connection broken: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        let uri: Uri = text.parse().unwrap();
        let host = uri.host().unwrap().trim_matches(['[', ']']);
        Url {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            path: uri.path_and_query().unwrap().to_string(),
        }
    }

    #[test]
    fn url_new_escapes_what_a_request_line_cannot_carry() {
        let addr = "127.0.0.1:80".parse().unwrap();
        let cases = [
            ("/healthz", "http://127.0.0.1:80/healthz"),
            ("healthz?a=1", "http://127.0.0.1:80/healthz?a=1"),
            ("/a b\"c#d", "http://127.0.0.1:80/a%20b%22c"),
            ("/ü%20", "http://127.0.0.1:80/%C3%BC%20"),
            ("", "http://127.0.0.1:80/"),
        ];
        for (path, expected) in cases {
            assert_eq!(Url::new(None, addr, path).to_string(), expected, "{path}");
        }
        let v6 = Url::new(None, "[::1]:80".parse().unwrap(), "/");
        assert_eq!(v6.to_string(), "http://[::1]:80/");
    }

    #[test]
    fn redirect_follows_within_the_host_only() {
        let base = url("http://127.0.0.1:8080/a/b?c=1");
        let follow = |text, is_absolute| Redirect::Follow(url(text), is_absolute);
        let cases = [
            ("/x?y", follow("http://127.0.0.1:8080/x?y", false)),
            ("x", follow("http://127.0.0.1:8080/a/x", false)),
            ("?d", follow("http://127.0.0.1:8080/a/b?d", false)),
            ("http://127.0.0.1/", follow("http://127.0.0.1/", true)),
            ("//127.0.0.1:9/z", follow("http://127.0.0.1:9/z", true)),
            ("http://127.0.0.2:8080/", Redirect::Elsewhere),
            ("https://127.0.0.1/", Redirect::Elsewhere),
            ("http://:x:/", Redirect::Unreadable),
        ];
        for (location, expected) in cases {
            assert_eq!(base.redirect(location), expected, "{location}");
        }
    }

    #[test]
    fn fields_own_headers_give_way_to_those_of_the_probe() {
        let field = |name: &str, value: &str| (Arc::from(name), Arc::from(value));
        let plain = fields(&[]).unwrap();
        assert_eq!(plain[USER_AGENT], ask::USER_AGENT);
        assert_eq!(plain[ACCEPT], "*/*");
        let given = [field("user-agent", "me"), field("Accept", "")];
        let given = fields(&given).unwrap();
        assert_eq!(given[USER_AGENT], "me");
        assert!(!given.contains_key(ACCEPT));
        assert!(fields(&[field("a b", "c")]).is_err());
        assert!(fields(&[field("a", "b\r\nc: d")]).is_err());
    }
}
