//! What the program adds: the same load on the endpoints themselves and through it, in blocks that alternate so that
//! whatever else the machine does falls on both. Owns the order of blocks and the difference.

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    drive::{self, Load, Progress},
    exchange::Manner,
    report::{Overhead, spread_of_latency},
    sample::{Outcome, Samples},
    stats::{interval, median},
};

/// Pairs of blocks: each pair one way round, the next the other (ABBA).
const PAIRS: usize = 6;

/// Longest time of one block.
const BLOCK: Duration = Duration::from_secs(1);

/// Median and 99th percentile of a block, in milliseconds, and what failed in it.
struct Block {
    p50: f64,
    p99: f64,
    failed: u64,
}

/// Measures it; `None` when a block had no answers, or the user has had enough.
///
/// # Errors
/// As for [`drive::run`].
pub(super) async fn measure(
    manner: &Manner,
    load: &Load,
    endpoints: &[SocketAddr],
    cancel: &CancellationToken,
) -> io::Result<Option<Overhead>> {
    let pairs = u64::try_from(PAIRS).unwrap_or(1);
    let load = Load {
        requests: (load.requests / (2 * pairs)).clamp(100, 20_000),
        duration: Some(BLOCK),
        ..load.clone()
    };
    let through = [manner.target.addr];
    let (mut direct_blocks, mut through_blocks) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let orders: [bool; 2] = if pair % 2 == 0 {
            [true, false]
        } else {
            [false, true]
        };
        for is_direct in orders {
            let targets = if is_direct { endpoints } else { &through };
            let Some(block) = block(manner, &load, targets, cancel).await? else {
                return Ok(None);
            };
            if is_direct {
                direct_blocks.push(block);
            } else {
                through_blocks.push(block);
            }
        }
    }
    Ok(compare(&direct_blocks, &through_blocks, load.requests))
}

async fn block(
    manner: &Manner,
    load: &Load,
    targets: &[SocketAddr],
    cancel: &CancellationToken,
) -> io::Result<Option<Block>> {
    let progress = Rc::new(Progress::default());
    let driven = drive::run(manner, targets, load, &progress, cancel).await?;
    if cancel.is_cancelled() {
        return Ok(None);
    }
    let failed = failures(&driven.samples);
    Ok(spread_of_latency(&driven.samples).map(|(p50, p99)| Block { p50, p99, failed }))
}

fn failures(samples: &Samples) -> u64 {
    let failed = samples.list.iter();
    let failed = failed.filter(|sample| matches!(sample.outcome, Outcome::Failed(_)));
    u64::try_from(failed.count()).unwrap_or(u64::MAX)
}

fn compare(direct: &[Block], through: &[Block], block_requests: u64) -> Option<Overhead> {
    let differences = |of: fn(&Block) -> f64| {
        let pairs = through.iter().zip(direct);
        interval(
            &pairs
                .map(|(through, direct)| of(through) - of(direct))
                .collect::<Vec<_>>(),
        )
    };
    let middle =
        |blocks: &[Block]| median(&blocks.iter().map(|block| block.p50).collect::<Vec<_>>());
    Some(Overhead {
        pairs: direct.len(),
        block_requests,
        direct_p50: middle(direct)?,
        through_p50: middle(through)?,
        p50: differences(|block| block.p50)?,
        p99: differences(|block| block.p99)?,
        failed: direct.iter().chain(through).map(|block| block.failed).sum(),
    })
}
