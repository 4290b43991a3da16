//! Clients that hardly read: what portico keeps for each is bounded, and their endpoints wait.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Run,
    ground::{Ground, PATIENCE, fresh, ms},
    result::Line,
};
use crate::{backend, figure::number};

const READERS: u32 = 500;
const CHUNK: usize = 64 * 1024;

pub(super) async fn provoke(run: &Run) -> anyhow::Result<Vec<Line>> {
    let (servers, springs) = (backend::named(1).await?, Springs::start()?);
    let ground = Ground::up(
        &run.programs,
        &[("beside", servers.addrs()), ("endless", &[springs.addr])],
    )
    .await?;
    let before = ground.usage()?.private_kib;
    let mut readers = JoinSet::new();
    let read = Arc::new(AtomicU64::new(0));
    for _ in 0..READERS {
        readers.spawn(sip(open(ground.at(1)).await?, Arc::clone(&read)));
    }
    let until = run.until();
    let (beside, sent) = tokio::join!(fresh(ground.at(0), until), async {
        sleep(run.time / 2).await;
        springs.sent.load(Relaxed)
    });
    let later = springs.sent.load(Relaxed).saturating_sub(sent);
    let each = |count: u64| number(count) / f64::from(READERS) / 1024.0;
    let growth = ground.usage()?.private_kib.saturating_sub(before);
    let ended = std::iter::from_fn(|| readers.try_join_next()).count();
    drop(readers);
    let times = beside.times();
    let mut lines = vec![
        Line::told("readers", f64::from(READERS)),
        Line::none("… whose connection ended", u64::try_from(ended)?),
        Line::told(
            "read by each, bytes",
            number(read.load(Relaxed)) / f64::from(READERS),
        ),
        Line::bounded(
            "memory for each, KiB",
            number(growth) / f64::from(READERS),
            256.0,
        ),
        Line::told("sent by an endpoint until it had to wait, KiB", each(sent)),
        Line::bounded(
            "… and in the second half of the time, KiB",
            each(later),
            64.0,
        ),
    ];
    lines.extend(Line::of("new connections beside", &beside));
    lines.extend([
        Line::bounded("… of which p99 took, ms", ms(times.p99), 100.0),
        ground.left().await?,
    ]);
    Ok(lines)
}

/// One whose first byte has come: an endpoint that is busy sending is slow to accept, which is not what is measured.
async fn open(at: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(at).await?;
    timeout(PATIENCE, stream.read_exact(&mut [0]))
        .await
        .context("nothing is sent")??;
    Ok(stream)
}

/// Reads one byte a second; ends only with the connection.
async fn sip(mut stream: TcpStream, read: Arc<AtomicU64>) {
    while stream.read_exact(&mut [0]).await.is_ok() {
        read.fetch_add(1, Relaxed);
        sleep(Duration::from_secs(1)).await;
    }
}

/// An endpoint that sends to each as long as it is listened to.
struct Springs {
    addr: SocketAddr,
    sent: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Springs {
    fn start() -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Its own buffer would only hide how much portico and the kernel take; accepted sockets have the same.
        socket.set_send_buffer_size(64 * 1024)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(READERS)?;
        let addr = listener.local_addr()?;
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let mut tasks = JoinSet::new();
        tasks.spawn(backend::serve(listener, move |stream| {
            gush(stream, Arc::clone(&counter))
        }));
        Ok(Self {
            addr,
            sent,
            _tasks: tasks,
        })
    }
}

async fn gush(mut stream: TcpStream, sent: Arc<AtomicU64>) {
    let chunk = vec![0x5a; CHUNK];
    while let Ok(count) = stream.write(&chunk).await {
        sent.fetch_add(u64::try_from(count).unwrap_or_default(), Relaxed);
    }
}
