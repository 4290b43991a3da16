//! Listeners that come, move and go: what is gone refuses soon, and nobody else notices.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::{net::TcpStream, time::sleep};

use super::{
    Run,
    ground::{Echo, Ground, Kept, PATIENCE, QUIET, fresh, ms, service},
    result::Line,
};
use crate::{backend, figure::number, report::Counts};

const BESIDE: usize = 50;
/// Between two looks at a port.
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub(super) async fn provoke(run: &Run) -> anyhow::Result<Vec<Line>> {
    let (servers, echo) = (backend::named(1).await?, Echo::start().await?);
    let ground = Ground::up(
        &run.programs,
        &[("beside", servers.addrs()), ("kept", &[echo.addr])],
    )
    .await?;
    let mut kept = Kept::open(ground.at(1), BESIDE).await?;
    let until = run.until();
    let (fresh, beside, moved) = tokio::join!(
        fresh(ground.at(0), until),
        kept.check_until(until),
        moves(&ground, echo.addr, until),
    );
    let mut moved = moved?;
    let established = moved.established.check().await;
    let (comes, goes) = (moved.comes.times(), moved.goes.times());
    drop((kept, moved.established));
    let mut lines = vec![
        Line::told("listeners that went", number(moved.goes.answered_total())),
        Line::told("from an edit to a connection, median, ms", ms(comes.median)),
        Line::told("from an edit to a refusal, median, ms", ms(goes.median)),
        Line::bounded(
            "from an edit to a refusal, slowest, ms",
            ms(goes.max),
            100.0,
        ),
    ];
    lines.extend(Line::of(
        "connections that had been made to them",
        &established,
    ));
    lines.extend(Line::of("new connections beside", &fresh));
    lines.extend(Line::of("connections beside that stayed", &beside));
    lines.push(ground.left().await?);
    Ok(lines)
}

/// What came of the one that moves.
struct Moves {
    comes: Counts,
    goes: Counts,
    /// One connection for each of its ports.
    established: Kept,
}

async fn moves(ground: &Ground, endpoint: SocketAddr, until: Instant) -> anyhow::Result<Moves> {
    let mut seen = Moves {
        comes: Counts::default(),
        goes: Counts::default(),
        established: Kept::open(ground.at(1), 0).await?,
    };
    let first = ground.at(2);
    let mut second = first;
    second.set_port(first.port() + 1);
    while Instant::now() < until {
        let mut last = None;
        for at in [first, second] {
            sleep(QUIET).await;
            ground.write("moves", &service("moves", at, &[endpoint]))?;
            let began = Instant::now();
            wait_for(at, true).await?;
            seen.comes.answered("comes".into(), began.elapsed());
            if let Some(last) = last.replace(at) {
                wait_for(last, false).await?;
                seen.goes.answered("moves".into(), began.elapsed());
            }
            seen.established.add(Kept::open(at, 1).await?);
        }
        sleep(QUIET).await;
        ground.write("moves", "")?;
        let began = Instant::now();
        wait_for(second, false).await?;
        seen.goes.answered("goes".into(), began.elapsed());
    }
    Ok(seen)
}

/// Looks until the port is served, or until it refuses.
async fn wait_for(at: SocketAddr, served: bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(at).await {
            Ok(_) if served => return Ok(()),
            Err(error) if !served && error.kind() == ErrorKind::ConnectionRefused => return Ok(()),
            _ => {}
        }
        ensure!(
            Instant::now() < deadline,
            "{at} is not as declared; served: {served} was waited for"
        );
        sleep(LOOK_EVERY).await;
    }
}
