//! Round robin: over any number of connections, most minus least is at most one.

use super::{
    Run,
    ground::{Ground, PATIENCE},
    result::Line,
};
use crate::{
    backend,
    client::{self, Load, Stop},
    figure::number,
    report::Counts,
};

const CONNECTIONS: u64 = 10_000;
const CLIENTS: u16 = 64;

pub(super) async fn provoke(run: &Run) -> anyhow::Result<Vec<Line>> {
    let (mut all, mut spreads, mut idle) = (Counts::default(), Vec::new(), 0);
    for endpoints in [1, 2, 3, 5, 7, 100] {
        let servers = backend::named(endpoints).await?;
        let ground = Ground::up(&run.programs, &[("web", servers.addrs())]).await?;
        let load = Load {
            target: ground.at(0),
            clients: CLIENTS,
            connections: CONNECTIONS,
            patience: PATIENCE,
        };
        let counts = client::run(load, &Stop::default()).await;
        idle += endpoints.saturating_sub(counts.answers.len());
        let what = format!("most minus least of {endpoints}");
        spreads.push(Line::bounded(what, number(counts.spread()), 1.0));
        all.add(counts);
    }
    let mut lines = Line::of("connections", &all).to_vec();
    lines.push(Line::none("endpoints without one", u64::try_from(idle)?));
    lines.extend(spreads);
    Ok(lines)
}
