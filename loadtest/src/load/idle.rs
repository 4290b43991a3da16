//! Connections that were used once and stay open. Owns how many there can be.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::http;

/// Patience with one connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are opened at a time.
const AT_A_TIME: usize = 64;
/// Descriptors that a proxy and this program need beside connections.
const RESERVED: u64 = 2000;

/// They are open as long as this lives.
pub(crate) struct Held {
    /// The connections.
    pub(crate) streams: Vec<TcpStream>,
    /// Failures by kind.
    pub(crate) failures: BTreeMap<String, u64>,
    /// How long opening took.
    pub(crate) took: Duration,
}

/// Opens `wanted` connections, or as many as two descriptors each allow, and has each answer once.
///
/// # Errors
/// The generator fails.
pub(crate) async fn hold(target: SocketAddr, wanted: u32) -> anyhow::Result<Held> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let room = limit.current.unwrap_or(u64::MAX).saturating_sub(RESERVED) / 2;
    let number = u64::from(wanted).min(room);
    let permits = std::sync::Arc::new(Semaphore::new(AT_A_TIME));
    let began = Instant::now();
    let mut opening = JoinSet::new();
    for _ in 0..number {
        let permit = std::sync::Arc::clone(&permits).acquire_owned().await?;
        opening.spawn(async move {
            let stream = timeout(PATIENCE, open(target)).await;
            drop(permit);
            stream.unwrap_or_else(|_| Err("took too long".into()))
        });
    }
    let mut held = Held {
        streams: Vec::new(),
        failures: BTreeMap::new(),
        took: Duration::ZERO,
    };
    while let Some(opened) = opening.join_next().await {
        match opened.context("the client itself")? {
            Ok(stream) => held.streams.push(stream),
            Err(failure) => *held.failures.entry(failure).or_default() += 1,
        }
    }
    held.took = began.elapsed();
    Ok(held)
}

async fn open(target: SocketAddr) -> Result<TcpStream, String> {
    let broken = |error: std::io::Error| format!("{:?}", error.kind());
    let mut stream = TcpStream::connect(target).await.map_err(broken)?;
    let request = http::request(target, false);
    stream.write_all(&request).await.map_err(broken)?;
    let mut received = Vec::new();
    while http::answer(&received)?.is_none() {
        if stream.read_buf(&mut received).await.map_err(broken)? == 0 {
            return Err("closed without an answer".into());
        }
    }
    Ok(stream)
}
