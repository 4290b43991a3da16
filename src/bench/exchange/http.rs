//! HTTP/1.1 requests. Owns the connection and the reading of an answer.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1::{Connection, SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{
    Answered, Exchange, Failure, LONGEST_NAME, Manner, Reuse, connect, first_line, name_of,
};
use crate::bench::target::Identity;

/// How simulated pods number their answers.
const SERIAL: &str = "x-portico-request";

struct Open {
    sender: SendRequest<Empty<Bytes>>,
    connection: Pin<Box<Connection<TokioIo<TcpStream>, Empty<Bytes>>>>,
}

pub(in crate::bench) struct Client {
    manner: Manner,
    local: Option<SocketAddr>,
    open: Option<Open>,
}

impl Client {
    pub(super) fn new(manner: Manner, local: Option<SocketAddr>) -> Self {
        Self {
            manner,
            local,
            open: None,
        }
    }

    pub(super) async fn ask(&mut self) -> Exchange {
        let (connect, mut open) = match self.take().await {
            Ok(taken) => taken,
            Err(failure) => {
                return Exchange {
                    connect: None,
                    first: Duration::ZERO,
                    result: Err(failure),
                };
            }
        };
        let mut first = Duration::ZERO;
        let asked = exchange(&self.manner, &mut open, &mut first);
        let result = timeout(self.manner.patience, asked)
            .await
            .unwrap_or(Err(Failure::Timeout));
        if result.is_ok() && self.manner.reuse == Reuse::KeepAlive && !open.sender.is_closed() {
            self.open = Some(open);
        }
        Exchange {
            connect,
            first,
            result,
        }
    }

    /// The connection that is kept, or a new one.
    async fn take(&mut self) -> Result<(Option<Duration>, Open), Failure> {
        if let Some(mut open) = self.open.take() {
            // What the other side has done in the meantime is read first: a connection that it has closed is none.
            let closed = turn_once(open.connection.as_mut()).await;
            if !closed && !open.sender.is_closed() {
                return Ok((None, open));
            }
        }
        let (stream, took) = connect(&self.manner, self.local).await?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Failure::Protocol)?;
        let connection = Box::pin(connection);
        Ok((Some(took), Open { sender, connection }))
    }
}

/// Lets the connection do what can be done at once; whether it is over.
async fn turn_once(mut connection: Pin<&mut Connection<TokioIo<TcpStream>, Empty<Bytes>>>) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(connection.as_mut().poll(context).is_ready())
    })
    .await
}

async fn exchange(
    manner: &Manner,
    open: &mut Open,
    first: &mut Duration,
) -> Result<Answered, Failure> {
    let mut request = Request::get(&*manner.target.path).header("host", &*manner.target.host);
    if manner.reuse == Reuse::Never {
        // Whoever closes first keeps the port for a while (TIME-WAIT, RFC 9293): not us, who need many.
        request = request.header("connection", "close");
    }
    let request = request.body(Empty::new()).map_err(|_| Failure::Protocol)?;
    let began = Instant::now();
    let Open { sender, connection } = open;
    let mut answer = pin!(async {
        let response = sender.send_request(request).await?;
        *first = began.elapsed();
        read(response, &manner.identity).await
    });
    tokio::select! {
        biased;
        answered = &mut answer => answered.map_err(|error| failure(&error))?,
        // The end of the connection also ends the answer, with what there is of it.
        _ = connection => answer.await.map_err(|error| failure(&error))?,
    }
}

async fn read(
    response: Response<Incoming>,
    identity: &Identity,
) -> Result<Result<Answered, Failure>, hyper::Error> {
    let (parts, mut body) = response.into_parts();
    let (mut start, mut bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            let room = (4 * LONGEST_NAME).saturating_sub(start.len());
            start.extend(data.iter().take(room));
            bytes += u64::try_from(data.len()).unwrap_or_default();
        }
    }
    if parts.status.as_u16() >= 400 {
        return Ok(Err(Failure::Status(parts.status.as_u16())));
    }
    let text = |name: &str| Some(parts.headers.get(name)?.to_str().ok()?.to_owned());
    let who = match identity {
        Identity::Header(name) => name_of(&text(name).unwrap_or_default()),
        Identity::Body => first_line(&start),
    };
    Ok(Ok(Answered {
        who,
        bytes,
        serial: serial(&parts.headers),
    }))
}

fn serial(headers: &HeaderMap) -> Option<u64> {
    headers.get(SERIAL)?.to_str().ok()?.parse().ok()
}

fn failure(error: &hyper::Error) -> Failure {
    let source = std::error::Error::source(error);
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    match io {
        Some(io) => Failure::broken(io),
        None if error.is_parse() => Failure::Protocol,
        None => Failure::Cut,
    }
}
