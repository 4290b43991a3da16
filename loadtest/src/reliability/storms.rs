//! Storms: connections as fast as they can be made, then as fast as they can be reset. Others are still served, and nothing
//! is left.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream as Blocking},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{net::TcpStream, task::JoinSet};

use super::{
    Run,
    ground::{Echo, Ground, PATIENCE, ms},
    result::Line,
};
use crate::{
    backend,
    client::{self, Load, Stop},
    figure::number,
    report::Counts,
};

const CLIENTS: u16 = 64;
const SERVERS: usize = 4;
/// Between two connections of who is beside.
const EVERY: Duration = Duration::from_millis(10);

pub(super) async fn provoke(run: &Run) -> anyhow::Result<Vec<Line>> {
    let (servers, echo) = (backend::named(SERVERS).await?, Echo::start().await?);
    let ground = Ground::up(
        &run.programs,
        &[("stormed", servers.addrs()), ("unmoved", &[echo.addr])],
    )
    .await?;
    let before = ground.usage()?.private_kib;
    let mut lines = Vec::new();
    for (what, resets) in [
        ("connections", false),
        ("connections that were reset", true),
    ] {
        let until = run.until();
        let (counts, by_portico, direct) = tokio::join!(
            storm(ground.at(0), until, resets),
            beside(ground.at(1), until),
            beside(echo.addr, until),
        );
        let (by_portico, direct) = (by_portico?, direct?);
        let (seconds, times, straight) =
            (run.time.as_secs_f64(), by_portico.times(), direct.times());
        lines.extend(Line::of(what, &counts));
        lines.push(Line::told(
            "… in a second",
            number(counts.answered_total()) / seconds,
        ));
        lines.extend(Line::of("answers beside", &by_portico));
        lines.extend([
            Line::told("… by portico, median, ms", ms(times.median)),
            Line::told("… by portico, p99, ms", ms(times.p99)),
            Line::bounded("… by portico, slowest, ms", ms(times.max), 50.0),
            Line::told("… straight at the endpoint, p99, ms", ms(straight.p99)),
            Line::told("… straight at the endpoint, slowest, ms", ms(straight.max)),
        ]);
    }
    let growth = ground.usage()?.private_kib.saturating_sub(before);
    lines.extend([
        Line::told("memory more than before, MiB", number(growth) / 1024.0),
        ground.left().await?,
    ]);
    Ok(lines)
}

async fn storm(at: SocketAddr, until: Instant, resets: bool) -> Counts {
    if resets {
        return resetting(at, until).await;
    }
    let (load, stop) = (
        Load {
            target: at,
            clients: CLIENTS,
            connections: u64::MAX,
            patience: PATIENCE,
        },
        Stop::default(),
    );
    let end = async {
        tokio::time::sleep_until(until.into()).await;
        stop.stop();
    };
    tokio::join!(client::run(load, &stop), end).0
}

async fn resetting(at: SocketAddr, until: Instant) -> Counts {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(async move {
            let mut counts = Counts::default();
            while Instant::now() < until {
                let began = Instant::now();
                let connected = TcpStream::connect(at).await;
                match connected.and_then(|stream| stream.set_zero_linger()) {
                    Ok(()) => counts.answered("reset".into(), began.elapsed()),
                    Err(error) => counts.failed(&format!("{:?}", error.kind())),
                }
            }
            counts
        });
    }
    let mut all = Counts::default();
    while let Some(counts) = clients.join_next().await {
        match counts {
            Ok(counts) => all.add(counts),
            Err(error) => all.failed(&format!("the client itself: {error}")),
        }
    }
    all
}

/// A thread of its own, which shares no runtime with the storm: connects, asks an echo, closes.
async fn beside(at: SocketAddr, until: Instant) -> anyhow::Result<Counts> {
    let work = move || {
        let mut counts = Counts::default();
        while Instant::now() < until {
            let began = Instant::now();
            match once(at) {
                Ok(()) => counts.answered("echo".into(), began.elapsed()),
                Err(error) => counts.failed(&format!("{:?}", error.kind())),
            }
            thread::park_timeout(EVERY.saturating_sub(began.elapsed()));
        }
        counts
    };
    tokio::task::spawn_blocking(work)
        .await
        .context("the client beside ended")
}

fn once(at: SocketAddr) -> io::Result<()> {
    let mut stream = Blocking::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"ping")?;
    stream.read_exact(&mut [0; 4])
}
