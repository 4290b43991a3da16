//! Round robin: over any number of connections, most minus least is at most one.

use super::{Run, ground::Ground, result::Line};
use crate::{
    backend::Backends,
    client::{self, Load, Stop},
    figure::number,
};

const CONNECTIONS: u64 = 10_000;
const CLIENTS: u16 = 64;

pub(super) async fn provoke(run: &Run) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for endpoints in [1, 2, 3, 5, 7, 100] {
        let servers = Backends::start(endpoints).await?;
        let ground = Ground::up(&run.programs, &[("web", servers.addrs())]).await?;
        let load = Load {
            target: ground.at(0),
            clients: CLIENTS,
            connections: CONNECTIONS,
            patience: super::ground::PATIENCE,
        };
        let counts = client::run(load, &Stop::default()).await;
        let of = |what: &str| format!("{what}, {endpoints} endpoints");
        lines.extend([
            Line::told(of("connections"), number(counts.answered_total())),
            Line::none(of("failed"), counts.failed_total()),
            Line::none(
                of("endpoints without one"),
                u64::try_from(endpoints.saturating_sub(counts.answers.len()))?,
            ),
            Line::bounded(of("most minus least"), number(counts.spread()), 1.0),
        ]);
    }
    Ok(lines)
}
