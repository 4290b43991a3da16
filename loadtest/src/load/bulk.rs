//! One stream to a backend that says how many bytes came. Owns the comparison: what was sent must have arrived.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::Done;
use crate::client::Failure;

/// Written at a time.
const CHUNK: usize = 256 * 1024;
/// Patience with one write and with the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends for a time.
pub(super) async fn run(target: SocketAddr, time: Duration) -> anyhow::Result<Done> {
    // A thread of its own: nothing of the client's side shall wait for a timer or a wake-up.
    let work = tokio::task::spawn_blocking(move || send(target, time));
    let began = Instant::now();
    let (sent, arrived) = work.await?.context("the stream broke")?;
    ensure!(
        sent == arrived,
        "{sent} bytes were sent and {arrived} arrived"
    );
    Ok(Done {
        bytes: arrived,
        connections: 1,
        elapsed: began.elapsed(),
        ..Done::default()
    })
}

/// Whether the way to a backend is open.
pub(crate) async fn probe(target: SocketAddr) -> Result<(), Failure> {
    let work = tokio::task::spawn_blocking(move || send(target, Duration::ZERO));
    match work.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Failure::Broken(error)),
        Err(_) => Err(Failure::Cut),
    }
}

fn send(target: SocketAddr, time: Duration) -> io::Result<(u64, u64)> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let chunk = vec![0x5a; CHUNK];
    let length = u64::try_from(CHUNK).unwrap_or_default();
    let until = Instant::now() + time;
    let mut sent = 0;
    while Instant::now() < until {
        stream.write_all(&chunk)?;
        sent += length;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let arrived = answer.trim().parse().map_err(io::Error::other)?;
    Ok((sent, arrived))
}
