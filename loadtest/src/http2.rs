//! HTTP/2 without TLS, known beforehand (RFC 9113, section 3.3): what is asked, servers that answer it, and one request to see
//! whether somebody does. A call is a unary one of gRPC, whose outcome stands in the trailers.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use h2::{RecvStream, client, server};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::backend::Servers;

/// Fields of a call.
pub(crate) const CALL_FIELDS: [(&str, &str); 2] =
    [("content-type", "application/grpc"), ("te", "trailers")];
/// The trailer that says how a call ended; 0 is well.
const STATUS: &str = "grpc-status";
/// Streams of one connection, as nginx has it by default.
const STREAMS: u32 = 128;
/// Patience with one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// GET of a page.
    Page,
    /// A call with a message of so many bytes, which comes back.
    Call {
        /// Without the five before it.
        bytes: u16,
    },
}

impl Asked {
    /// Where it goes.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Page => "/",
            Self::Call { .. } => "/loadtest.Echo/Call",
        }
    }

    /// Its body: not compressed, a length, a message. Nothing of a page.
    pub(crate) fn body(self) -> Vec<u8> {
        match self {
            Self::Page => Vec::new(),
            Self::Call { bytes } => {
                let mut body = vec![0];
                body.extend_from_slice(&u32::from(bytes).to_be_bytes());
                body.resize(body.len() + usize::from(bytes), b'm');
                body
            }
        }
    }

    fn request(self, target: SocketAddr) -> http::Result<Request<()>> {
        let request = Request::builder().uri(format!("http://{target}{}", self.path()));
        match self {
            Self::Page => request.body(()),
            Self::Call { .. } => {
                let request = request.method("POST");
                let with =
                    |request: http::request::Builder, (name, value)| request.header(name, value);
                CALL_FIELDS.into_iter().fold(request, with).body(())
            }
        }
    }
}

/// Servers that answer pages with their name, and calls with the message of the call.
///
/// # Errors
/// A port cannot be had.
pub(crate) async fn callees(count: usize) -> std::io::Result<Servers> {
    let answering = |number| {
        let name = Bytes::from(format!("backend-{number}\n"));
        move |stream| respond(stream, name.clone())
    };
    Servers::start(count, answering).await
}

async fn respond(stream: TcpStream, name: Bytes) {
    let _ = stream.set_nodelay(true);
    let mut settings = server::Builder::new();
    let handshake = settings.max_concurrent_streams(STREAMS).handshake(stream);
    let Ok(mut connection) = handshake.await else {
        return;
    };
    let mut answers = JoinSet::new();
    loop {
        // Both are cancel safe.
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, answer))) => {
                    // Whoever asked sees that it failed.
                    answers.spawn(answered(request, answer, name.clone()));
                }
                Some(Err(_)) | None => return,
            },
            Some(_) = answers.join_next() => {}
        }
    }
}

async fn answered(
    request: Request<RecvStream>,
    mut answer: server::SendResponse<Bytes>,
    name: Bytes,
) -> Result<(), h2::Error> {
    let (parts, mut body) = request.into_parts();
    let Some(kind) = parts.headers.get(header::CONTENT_TYPE) else {
        return answer
            .send_response(Response::new(()), false)?
            .send_data(name, true);
    };
    let mut response = Response::new(());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, kind.clone());
    let message = received(&mut body).await?;
    let mut answer = answer.send_response(response, false)?;
    answer.send_data(message.into(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    answer.send_trailers(trailers)
}

async fn received(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut whole = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}

/// Connects, asks once, and looks whether the answer is whole.
///
/// # Errors
/// It is not, or does not come in time.
pub(crate) async fn ask(target: SocketAddr, asked: Asked) -> anyhow::Result<()> {
    timeout(PATIENCE, exchange(target, asked))
        .await
        .context("no whole answer in time")?
}

async fn exchange(target: SocketAddr, asked: Asked) -> anyhow::Result<()> {
    let stream = TcpStream::connect(target).await.context("cannot connect")?;
    let (mut sender, connection) = client::handshake(stream).await?;
    let answer = async {
        let body = asked.body();
        let (response, mut upload) =
            sender.send_request(asked.request(target)?, body.is_empty())?;
        if !body.is_empty() {
            upload.send_data(Bytes::from(body.clone()), true)?;
        }
        let response = response.await?;
        ensure!(response.status() == 200, "status {}", response.status());
        let mut answer = response.into_body();
        let message = received(&mut answer).await?;
        match asked {
            Asked::Page => ensure!(message.starts_with(b"backend-"), "another page"),
            Asked::Call { .. } => {
                ensure!(message == body, "another message came back");
                let trailers = answer.trailers().await?.context("no trailers")?;
                ensure!(
                    trailers.get(STATUS).is_some_and(|it| it == "0"),
                    "{trailers:?}"
                );
            }
        }
        Ok(())
    };
    // The answer comes only as long as the connection is driven.
    tokio::select! {
        answered = answer => answered,
        ended = connection => {
            ended?;
            anyhow::bail!("closed without an answer")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn callee_answers_pages_and_calls() {
        let callees = callees(1).await.unwrap();
        for asked in [
            Asked::Page,
            Asked::Call { bytes: 64 },
            Asked::Call { bytes: 0 },
        ] {
            ask(callees.addrs()[0], asked).await.unwrap();
        }
    }

    #[tokio::test]
    async fn ask_of_a_server_that_knows_no_calls_fails() {
        let backends = crate::backend::named(1).await.unwrap();
        assert!(ask(backends.addrs()[0], Asked::Page).await.is_err());
    }

    #[test]
    fn body_of_a_call_is_a_whole_message() {
        assert_eq!(
            Asked::Call { bytes: 258 }.body()[..6],
            [0, 0, 0, 1, 2, b'm']
        );
        assert_eq!(Asked::Call { bytes: 258 }.body().len(), 263);
    }
}
