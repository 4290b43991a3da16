//! Readers that keep their window closed for long: nothing ends, and every byte is there in the end.

use std::{io, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{
    Run,
    ground::{Ground, PATIENCE},
    result::Line,
};
use crate::{figure::number, report::Counts};

/// Of each kind.
const PAIRS: usize = 8;
/// Beyond what the kernel's buffers and a pipe hold.
const BYTES: u32 = 32 << 20;

pub(super) async fn provoke(run: &Run) -> anyhow::Result<Vec<Line>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let ground = Ground::up(&run.programs, &[("web", &[listener.local_addr()?])]).await?;
    let mut pairs = JoinSet::new();
    for number in 0..2 * PAIRS {
        let client = TcpStream::connect(ground.at(0)).await?;
        let (endpoint, _) = timeout(PATIENCE, listener.accept())
            .await
            .context("portico does not connect")??;
        let (from, to) = if number < PAIRS {
            (client, endpoint)
        } else {
            (endpoint, client)
        };
        pairs.spawn(closed(from, to, run.time));
    }
    let mut counts = Counts::default();
    while let Some(done) = pairs.join_next().await {
        match done.context("a client panicked")? {
            Ok(true) => counts.answered("whole".into(), Duration::ZERO),
            Ok(false) => counts.failed("other bytes"),
            Err(error) => counts.failed(&format!("{:?}", error.kind())),
        }
    }
    let mut lines = vec![
        Line::told("seconds with a closed window", run.time.as_secs_f64()),
        Line::told("MiB on each connection", number(u64::from(BYTES >> 20))),
    ];
    lines.extend(Line::of("connections with every byte", &counts));
    lines.push(ground.left().await?);
    Ok(lines)
}

/// Whether what arrives after the time is what was sent.
async fn closed(mut from: TcpStream, mut to: TcpStream, time: Duration) -> io::Result<bool> {
    let bytes: Vec<u8> = (0..BYTES)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .step_by(4)
        .collect();
    let expected = xxh3_64(&bytes);
    let send = async {
        from.write_all(&bytes).await?;
        from.shutdown().await
    };
    let receive = async {
        sleep(time).await;
        let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 64 * 1024]);
        loop {
            match to.read(&mut buffer).await? {
                0 => return Ok(hash.digest()),
                count => hash.update(buffer.get(..count).unwrap_or_default()),
            }
        }
    };
    let ((), received) = tokio::try_join!(send, receive)?;
    Ok(expected == received)
}
