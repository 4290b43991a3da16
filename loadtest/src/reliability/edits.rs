//! Edits of endpoints and weights: nobody who is being served notices, and the next connection goes by what is declared.

use std::{
    cell::Cell,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use portico_core::object::Protocol;
use tokio::{net::UdpSocket, time::timeout};

use super::{
    Run,
    ground::{Echo, Ground, Kept, PATIENCE, QUIET, fresh, ms, service},
    result::Line,
};
use crate::{
    backend,
    churn::{self, Edit},
    client,
    figure::{Figure, number},
    load::{self, Done},
    report::Counts,
    stage::manifests,
    stats,
};

const SERVERS: usize = 4;
const KEPT: usize = 500;
const FLOWS: usize = 200;
const CONNECTIONS: u16 = 32;
const REQUESTS_PER_SECOND: u32 = 5000;
const EDITS_PER_SECOND: u16 = 167;
/// Edits of a quiet table, for the time from one to its first pick.
const SINGLE_EDITS: usize = 200;
const WEIGHT: &str = "name: edited-0\n  annotations: {portico.dev/weight: \"3\"}\n";

pub(super) async fn provoke(run: &Run) -> anyhow::Result<Vec<Line>> {
    let (servers, pair) = (backend::named(SERVERS).await?, backend::named(2).await?);
    let echo = Echo::start().await?;
    let one = pair.addrs().get(..1).context("no server")?;
    let ground = Ground::up(
        &run.programs,
        &[
            ("edited", servers.addrs()),
            ("flips", one),
            ("kept", &[echo.addr]),
        ],
    )
    .await?;
    let over_udp = manifests(ground.at(3), &[echo.addr], Protocol::Udp, None);
    ground.write("over-udp", &over_udp.replace("loadtest", "over-udp"))?;
    let picks = first_picks(&ground, pair.addrs()).await?;
    let mut kept = Kept::open(ground.at(2), KEPT).await?;
    let flows = Flows::open(ground.at(3)).await?;
    let at_rest = paced(&ground, run.time / 4).await?;
    let until = run.until();
    let (requests, edits, fresh, kept_counts, datagrams) = tokio::join!(
        paced(&ground, run.time),
        edit(&ground, servers.addrs(), until),
        fresh(ground.at(0), until),
        kept.check_until(until),
        flows.check_until(until),
    );
    let (requests, edits) = (requests?, edits?);
    drop((kept, flows));
    let mut lines = vec![
        Line::told("edits", number(edits)),
        Line::told("requests", number(requests.requests)),
        Line::none("… that failed", requests.failures.values().sum()),
    ];
    lines.extend(Line::of("new connections", &fresh));
    lines.extend(Line::of("connections that stayed", &kept_counts));
    lines.extend(Line::of("datagrams there and back", &datagrams));
    lines.extend(latencies(&at_rest, &requests));
    let times = picks.times();
    lines.extend([
        Line::none("edits without a first pick", picks.failed_total()),
        Line::told(
            "from an edit to its first pick, median, ms",
            ms(times.median),
        ),
        Line::bounded(
            "from an edit to its first pick, p99, ms",
            ms(times.p99),
            5.0,
        ),
        ground.left().await?,
    ]);
    Ok(lines)
}

/// Requests at the rate on connections that stay.
async fn paced(ground: &Ground, time: Duration) -> anyhow::Result<Done> {
    load::at_rate(ground.at(0), CONNECTIONS, REQUESTS_PER_SECOND, time).await
}

fn latencies(at_rest: &Done, edited: &Done) -> Vec<Line> {
    let p99 = |done: &Done| {
        let micros = done.figures.get(&Figure::LatencyP99).copied();
        micros.unwrap_or(f64::INFINITY)
    };
    let (rest, edited) = (p99(at_rest), p99(edited));
    vec![
        Line::told("p99 at rest, ms", rest / 1000.0),
        Line::told("p99 while edited, ms", edited / 1000.0),
        Line::bounded(
            "p99 while edited by p99 at rest",
            stats::rounded(edited / rest),
            1.5,
        ),
    ]
}

/// Adds, removes and weighs endpoints.
async fn edit(ground: &Ground, servers: &[SocketAddr], until: Instant) -> anyhow::Result<u64> {
    let plan = churn::plan(
        servers.len(),
        &[Edit::Add, Edit::Remove, Edit::Flap, Edit::Roll],
    );
    let edits = Cell::new(0_u64);
    churn::run(&plan, EDITS_PER_SECOND, until, |places| {
        let chosen = places.iter().filter_map(|place| servers.get(*place));
        let chosen: Vec<SocketAddr> = chosen.copied().collect();
        let mut text = service("edited", ground.at(0), &chosen);
        if edits.replace(edits.get() + 1).is_multiple_of(3) {
            text = text.replace("name: edited-0\n", WEIGHT);
        }
        ground.write("edited", &text)
    })
    .await
}

/// The time from an edit that leaves only the other server to the first connection that it gets.
async fn first_picks(ground: &Ground, pair: &[SocketAddr]) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    for (place, server) in (0..2).zip(pair).cycle().skip(1).take(SINGLE_EDITS) {
        tokio::time::sleep(QUIET).await;
        let wanted = format!("backend-{place}");
        ground.declare(1, "flips", &[*server])?;
        let began = Instant::now();
        loop {
            let answer = client::ask(ground.at(1), PATIENCE).await;
            let elapsed = began.elapsed();
            match answer {
                Ok(name) if name == wanted => {
                    counts.answered(name, elapsed);
                    break;
                }
                _ if elapsed > PATIENCE => {
                    counts.failed("none");
                    break;
                }
                _ => {}
            }
        }
    }
    Ok(counts)
}

/// UDP flows to an echo.
struct Flows(Vec<UdpSocket>);

impl Flows {
    async fn open(at: SocketAddr) -> anyhow::Result<Self> {
        let mut sockets = Vec::with_capacity(FLOWS);
        for _ in 0..FLOWS {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            socket.connect(at).await?;
            sockets.push(socket);
        }
        Ok(Self(sockets))
    }

    /// A datagram on each twice a second.
    async fn check_until(&self, until: Instant) -> Counts {
        let mut counts = Counts::default();
        let mut pace = tokio::time::interval(Duration::from_millis(500));
        while Instant::now() < until {
            pace.tick().await;
            for socket in &self.0 {
                let began = Instant::now();
                match timeout(Duration::from_secs(1), there_and_back(socket)).await {
                    Ok(Ok(_)) => counts.answered("echo".into(), began.elapsed()),
                    Ok(Err(error)) => counts.failed(&format!("{:?}", error.kind())),
                    Err(_) => counts.failed("lost"),
                }
            }
        }
        counts
    }
}

async fn there_and_back(socket: &UdpSocket) -> std::io::Result<usize> {
    socket.send(b"ping").await?;
    socket.recv(&mut [0; 8]).await
}
