//! PROXY headers on sockets: from trusted front ends before anything else is done, and to endpoints before the client's
//! first byte. Owns waiting for one, its bound in time, and that not one byte behind it is taken; the form is
//! [`portico_core::proxy_protocol`]'s. From anybody else nothing is read: whoever is not trusted has no say in who it is.

use std::{net::SocketAddr, time::Duration};

use portico_core::{
    balance::HeaderFault,
    proxy_protocol::{Header, HeaderError, Route, Version, parse, write},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{connect::Arrival, dial::DialError};

/// Bytes looked at in one call; a usual header is at most 107.
const CHUNK_BYTES: usize = 256;

/// Both ends as the client sees them, by what a front end said of it or else by its own connection; `None` when it is gone and
/// nobody can say.
fn route(header: Option<Header>, arrival: &Arrival) -> Option<Route> {
    let own = || {
        let peer = SocketAddr::new(arrival.peer?, arrival.peer_port);
        Route::new(peer, arrival.local)
    };
    header.and_then(|header| header.route).or_else(own)
}

/// Reads a header and nothing else.
pub(super) async fn receive(
    stream: &mut TcpStream,
    patience: Duration,
) -> Result<Header, HeaderFault> {
    let in_time = timeout(patience, read(stream)).await;
    in_time.unwrap_or(Err(HeaderFault::Late))
}

async fn read(stream: &mut TcpStream) -> Result<Header, HeaderFault> {
    let mut bytes = Vec::new();
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        // Only looked at: how much of it is the header shows behind its last byte.
        let count = stream.peek(&mut chunk).await.unwrap_or(0);
        let seen = chunk.get(..count).filter(|seen| !seen.is_empty());
        let before = bytes.len();
        bytes.extend_from_slice(seen.ok_or(HeaderFault::Closed)?);
        let header = parse(&bytes).map_err(|error| match error {
            HeaderError::Absent => HeaderFault::Absent,
            _ => HeaderFault::Malformed,
        })?;
        let ours = header.map_or(count, |header| header.length - before);
        let taken = chunk.get_mut(..ours).ok_or(HeaderFault::Malformed)?;
        // It is there: this does not wait.
        let read = stream.read_exact(taken).await;
        read.map_err(|_| HeaderFault::Closed)?;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}

/// Sends the header on a fresh connection, where it finds room: a failure is one of the attempt.
pub(super) async fn greet(
    mut upstream: TcpStream,
    (version, header): (Version, Option<Header>),
    arrival: &Arrival,
    patience: Duration,
) -> Result<TcpStream, DialError> {
    let bytes = write(version, route(header, arrival));
    match timeout(patience, upstream.write_all(&bytes)).await {
        Ok(written) => written.map_err(DialError::Failed).map(|()| upstream),
        Err(_) => Err(DialError::TimedOut),
    }
}
