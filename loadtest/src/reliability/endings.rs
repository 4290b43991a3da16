//! Resets: what one side does shows on the other as the same, and soon.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Instant,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    Run,
    ground::{Ground, PATIENCE, ms},
    result::Line,
};
use crate::report::Counts;

/// Beyond where the relay splices.
const BYTES: usize = 1 << 20;

#[derive(Debug, Clone, Copy)]
enum Side {
    Client,
    Endpoint,
}

pub(super) async fn provoke(run: &Run) -> anyhow::Result<Vec<Line>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let ground = Ground::up(&run.programs, &[("web", &[listener.local_addr()?])]).await?;
    let mut lines = Vec::new();
    for (resets, what) in [(Side::Client, "clients"), (Side::Endpoint, "endpoints")] {
        let mut counts = Counts::default();
        let until = Instant::now() + run.time / 2;
        for bytes in [0, BYTES].into_iter().cycle() {
            if Instant::now() > until {
                break;
            }
            let pair = pair(&listener, ground.at(0)).await?;
            one(pair, resets, bytes, &mut counts).await?;
        }
        let times = counts.times();
        lines.extend(Line::of(&format!("resets by {what}"), &counts));
        lines.extend([
            Line::told(
                "… until the other side saw one, median, ms",
                ms(times.median),
            ),
            Line::told("… p99, ms", ms(times.p99)),
            Line::bounded("… slowest, ms", ms(times.max), 50.0),
        ]);
    }
    lines.push(ground.left().await?);
    Ok(lines)
}

/// Both ends of a connection by portico.
async fn pair(listener: &TcpListener, at: SocketAddr) -> anyhow::Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(at).await?;
    let (endpoint, _) = timeout(PATIENCE, listener.accept())
        .await
        .context("portico does not connect")??;
    Ok((client, endpoint))
}

/// Carries bytes each way, resets, and waits for the other side to notice.
async fn one(
    (mut client, mut endpoint): (TcpStream, TcpStream),
    resets: Side,
    bytes: usize,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    carry(&mut client, &mut endpoint, bytes).await?;
    carry(&mut endpoint, &mut client, bytes).await?;
    let (resets, mut other) = match resets {
        Side::Client => (client, endpoint),
        Side::Endpoint => (endpoint, client),
    };
    resets.set_zero_linger()?;
    let began = Instant::now();
    drop(resets);
    match timeout(PATIENCE, other.read(&mut [0])).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => {
            counts.answered("reset".into(), began.elapsed());
        }
        Ok(Ok(0)) => counts.failed("a clean end"),
        Ok(other) => counts.failed(&format!("{other:?}")),
        Err(_) => counts.failed("never"),
    }
    Ok(())
}

async fn carry(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) -> io::Result<()> {
    let (sent, mut received) = (vec![0x5a; bytes], vec![0; bytes]);
    let (sent, received) = tokio::join!(from.write_all(&sent), to.read_exact(&mut received));
    sent?;
    received.map(|_| ())
}
