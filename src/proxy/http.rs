//! The door for HTTP/1: CONNECT, requests as to a proxy, and requests to names below `svc.localhost`. Owns where each
//! request goes and the door's own answers; each request goes over a connection of its own, so that each is balanced.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HOST, HeaderValue},
    http::uri::{Authority, PathAndQuery},
    server::conn::http1,
    service::service_fn,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{
    Client, Door, End, PATIENCE,
    connect::{NoConnection, connect},
    hop, relay,
};
use crate::control::way::LOCAL_SUFFIX;

type Body = Either<Full<Bytes>, Incoming>;

impl End for TokioIo<Upgraded> {
    fn reset(self) {
        if let Ok(parts) = self.into_inner().downcast::<TokioIo<TcpStream>>() {
            parts.io.into_inner().reset();
        }
    }
}

/// Serves one client until it goes.
pub(super) async fn serve(stream: TcpStream, client: Client, door: Arc<Door>) {
    let _hint = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let (client, door) = (client.clone(), Arc::clone(&door));
        async move { Ok::<_, Infallible>(answer(request, client, &door).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // An error is the client's going, or what it sent.
    let _gone = connection.await;
}

async fn answer(request: Request<Incoming>, client: Client, door: &Door) -> Response<Body> {
    let done = match Asked::of(&request) {
        Asked::Tunnel(host, port) => tunnel(request, client, (door, &host, port)).await,
        Asked::Forward(host, port) => forward(request, client, (door, &host, port)).await,
        Asked::Door => Ok(own(request.uri().path(), door)),
        Asked::Nothing(status, why) => Ok(text(status, why)),
    };
    done.unwrap_or_else(|error| failure(&error))
}

/// What a request is to do.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// To become a pipe (RFC 9110 section 9.3.6).
    Tunnel(String, u16),
    /// To be passed on; without a port, to the one that a browser would mean.
    Forward(String, Option<u16>),
    /// To be answered by the door itself.
    Door,
    /// To be turned away with these words.
    Nothing(StatusCode, String),
}

impl Asked {
    /// A whole URI means a proxy (RFC 9112 section 3.2.2), a path alone a server, which Host names.
    fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        match (uri.authority(), uri.scheme_str()) {
            (Some(to), _) if request.method() == Method::CONNECT => match to.port_u16() {
                Some(port) => Self::Tunnel(to.host().to_owned(), port),
                None => Self::Nothing(
                    StatusCode::BAD_REQUEST,
                    "CONNECT needs HOST:PORT\n".to_owned(),
                ),
            },
            (Some(to), Some("http")) => Self::proxied(to),
            (Some(_), scheme) => Self::Nothing(
                StatusCode::NOT_IMPLEMENTED,
                format!(
                    "{}: is not forwarded; http: and CONNECT are\n",
                    scheme.unwrap_or_default()
                ),
            ),
            (None, _) => Self::served(request.headers().get(HOST)),
        }
    }

    fn proxied(to: &Authority) -> Self {
        let host = to.host().to_owned();
        // The number behind a name for browsers is the door's.
        let port = (!is_local(&host)).then(|| to.port_u16().unwrap_or(80));
        Self::Forward(host, port)
    }

    /// A page can make a browser ask here by a name of its own that leads to this machine (DNS rebinding): such a
    /// name is turned away.
    fn served(host: Option<&HeaderValue>) -> Self {
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let authority = host.parse::<Authority>();
        let name = authority
            .as_ref()
            .map_or(host, Authority::host)
            .to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if is_local(&name) {
            Self::Forward(name, None)
        } else if name == "localhost" || bare.parse::<IpAddr>().is_ok() {
            Self::Door
        } else {
            let text =
                format!("{name} is no name of this door; write NAME.NAMESPACE{LOCAL_SUFFIX}\n");
            Self::Nothing(StatusCode::MISDIRECTED_REQUEST, text)
        }
    }
}

fn is_local(host: &str) -> bool {
    host.to_ascii_lowercase().ends_with(LOCAL_SUFFIX)
}

/// Connects first, so that a failure still has a status.
async fn tunnel(
    request: Request<Incoming>,
    client: Client,
    (door, host, port): (&Door, &str, u16),
) -> Result<Response<Body>, NoConnection> {
    let endpoint = connect(door, &client, (host, Some(port))).await?;
    door.tasks.spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            relay(TokioIo::new(upgraded), endpoint).await;
        }
        drop(client);
    });
    Ok(Response::new(Either::Left(Full::default())))
}

async fn forward(
    mut request: Request<Incoming>,
    client: Client,
    (door, host, port): (&Door, &str, Option<u16>),
) -> Result<Response<Body>, NoConnection> {
    let endpoint = connect(door, &client, (host, port)).await?;
    let there = endpoint.peer_addr().unwrap_or(door.address);
    let failed =
        |error: hyper::Error| NoConnection::Failed(host.to_owned(), there, io::Error::other(error));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(endpoint))
        .await
        .map_err(failed)?;
    // It ends with the answer's body, or becomes the other protocol; its error is the body's.
    door.tasks.spawn(connection.with_upgrades());
    to_origin(&mut request);
    let from_client = hyper::upgrade::on(&mut request);
    let mut response = sender.send_request(request).await.map_err(failed)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let both = (from_client, hyper::upgrade::on(&mut response));
        door.tasks.spawn(async move {
            bridge(both).await;
            drop(client);
        });
    }
    hop::strip(response.headers_mut());
    Ok(response.map(Either::Right))
}

/// Both sides have agreed on another protocol.
async fn bridge((client, endpoint): (OnUpgrade, OnUpgrade)) {
    if let (Ok(client), Ok(endpoint)) = tokio::join!(client, endpoint) {
        relay(TokioIo::new(client), TokioIo::new(endpoint)).await;
    }
}

/// Makes of a request to a proxy one to a server: a path alone, and Host as the URI says (RFC 9112 section 3.2.2).
fn to_origin(request: &mut Request<Incoming>) {
    let uri = std::mem::take(request.uri_mut()).into_parts();
    let path = uri
        .path_and_query
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    hop::strip(request.headers_mut());
    let host = uri.authority.as_ref().map(Authority::as_str);
    if let Some(Ok(host)) = host.map(HeaderValue::from_str) {
        request.headers_mut().insert(HOST, host);
    }
}

/// What the door answers itself.
fn own(path: &str, door: &Door) -> Response<Body> {
    match path {
        "/" => text(StatusCode::OK, usage(door.address)),
        "/proxy.pac" => {
            let mut response = text(StatusCode::OK, configuration(door.address));
            let kind = HeaderValue::from_static("application/x-ns-proxy-autoconfig");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => text(StatusCode::NOT_FOUND, usage(door.address)),
    }
}

/// A proxy configuration for browsers: names as in a cluster go through the door, all others do not.
fn configuration(door: SocketAddr) -> String {
    format!(
        "function FindProxyForURL(url, host) {{\n  \
           var ours = /\\.svc(\\.|$)/.test(host) && !/\\.localhost$/.test(host);\n  \
           return ours || (isPlainHostName(host) && host !== 'localhost') ? 'PROXY {door}' : 'DIRECT';\n}}\n"
    )
}

/// What can be done with a door at `at`.
pub fn usage(at: SocketAddr) -> String {
    let port = at.port();
    format!(
        "HTTP by name:      curl http://NAME.NAMESPACE{LOCAL_SUFFIX}:{port}/\n                   \
                            curl http://PORT.NAME.NAMESPACE{LOCAL_SUFFIX}:{port}/   one of several ports\n\
         as a SOCKS proxy:  curl --proxy socks5h://{at} http://NAME/\n\
         as an HTTP proxy:  curl --proxy http://{at} http://NAME/\n\
         in a browser:      set http://{at}/proxy.pac as its automatic proxy configuration\n"
    )
}

fn failure(error: &NoConnection) -> Response<Body> {
    let status = match error {
        NoConnection::Program(_) => StatusCode::SERVICE_UNAVAILABLE,
        NoConnection::Nowhere(_) => StatusCode::NOT_FOUND,
        NoConnection::Forbidden(_) => StatusCode::FORBIDDEN,
        NoConnection::Unknown(..) | NoConnection::Failed(..) => StatusCode::BAD_GATEWAY,
    };
    text(status, format!("portico: {error}\n"))
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, uri: &str, host: Option<&str>) -> Asked {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        Asked::of(&request.body(()).unwrap())
    }

    fn forward(host: &str, port: Option<u16>) -> Asked {
        Asked::Forward(host.to_owned(), port)
    }

    #[test]
    fn asked_of_a_whole_uri_is_what_a_proxy_is_asked() {
        assert_eq!(
            asked("GET", "http://web/x?y", None),
            forward("web", Some(80))
        );
        assert_eq!(
            asked("GET", "http://web.shop:8080/", Some("other")),
            forward("web.shop", Some(8080))
        );
        assert_eq!(
            asked("GET", "http://web.shop.svc.localhost:7080/", None),
            forward("web.shop.svc.localhost", None)
        );
        let tunnel = Asked::Tunnel("web".to_owned(), 443);
        assert_eq!(asked("CONNECT", "web:443", None), tunnel);
        for (method, uri, status) in [
            ("CONNECT", "web", StatusCode::BAD_REQUEST),
            ("GET", "https://web/", StatusCode::NOT_IMPLEMENTED),
        ] {
            let found = asked(method, uri, None);
            assert!(
                matches!(found, Asked::Nothing(of, _) if of == status),
                "{found:?}"
            );
        }
    }

    #[test]
    fn asked_of_a_path_goes_by_host_and_strangers_are_told() {
        for host in ["web.shop.svc.localhost:7080", "WEB.shop.SVC.localhost"] {
            let found = asked("GET", "/", Some(host));
            assert_eq!(found, forward("web.shop.svc.localhost", None));
        }
        for host in ["localhost:7080", "127.0.0.1:7080", "[::1]:7080"] {
            assert_eq!(asked("GET", "/", Some(host)), Asked::Door);
        }
        for host in [None, Some(""), Some("evil.example:7080"), Some("a b")] {
            let found = asked("GET", "/", host);
            assert!(matches!(
                found,
                Asked::Nothing(StatusCode::MISDIRECTED_REQUEST, _)
            ));
        }
    }
}
