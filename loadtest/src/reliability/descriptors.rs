//! More clients than descriptors: those beyond wait, nothing spins meanwhile, and each place that becomes free is taken soon.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{
    Run,
    ground::{Echo, Ground, PATIENCE, ms},
    result::Line,
};
use crate::{figure::number, report::Counts, stage::Programs};

const DESCRIPTORS: u32 = 256;
const CLIENTS: usize = 1000;
/// Clients that go one by one, so that others get their places.
const LEAVE: usize = 100;
/// No client served for so long: no place is free.
const SATURATED: Duration = Duration::from_secs(1);

pub(super) async fn provoke(run: &Run) -> anyhow::Result<Vec<Line>> {
    let folder = TempDir::with_prefix("loadtest-")?;
    let programs = limited(&run.programs, folder.path())?;
    let echo = Echo::start().await?;
    let ground = Ground::up(&programs, &[("web", &[echo.addr])]).await?;
    let mut clients = Clients::open(ground.at(0)).await?;
    let served = clients.saturated().await?;
    let calm = calm(&ground, run.time).await?;
    let places = clients.leave_one_by_one().await;
    drop(clients);
    let (answers, times) = (calm.answers.times(), places.times());
    let mut lines = vec![
        Line::told("clients", number(u64::try_from(CLIENTS)?)),
        Line::told("served at a time", number(u64::try_from(served)?)),
        Line::bounded(
            "CPU while the others wait, per cent of a core",
            calm.cpu,
            5.0,
        ),
        Line::bounded("log lines a second", calm.lines, 1.0),
    ];
    lines.extend(Line::of(
        "answers of the admin socket meanwhile",
        &calm.answers,
    ));
    lines.extend([
        Line::told("… the slowest, ms", ms(answers.max)),
        Line::told("places that became free", number(places.answered_total())),
        Line::none("… and were not taken", places.failed_total()),
        Line::told(
            "from a free place to the next client's answer, median, ms",
            ms(times.median),
        ),
        Line::bounded(
            "from a free place to the next client's answer, slowest, ms",
            ms(times.max),
            100.0,
        ),
        ground.left().await?,
    ]);
    Ok(lines)
}

/// The same portico, by a script that takes descriptors from it.
fn limited(programs: &Programs, folder: &Path) -> anyhow::Result<Programs> {
    let script = folder.join("portico");
    let portico = fs::canonicalize(&programs.portico)?;
    let text = format!(
        "#!/bin/sh\nulimit -n {DESCRIPTORS} && exec '{}' \"$@\"\n",
        portico.display()
    );
    fs::write(&script, text).context("cannot write a script")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
    Programs::find(&script)
}

/// What it did while nothing could be accepted.
struct Calm {
    /// Per cent of one core.
    cpu: f64,
    /// Of the log, in a second.
    lines: f64,
    answers: Counts,
}

async fn calm(ground: &Ground, time: Duration) -> anyhow::Result<Calm> {
    let told = |log: &str| log.matches("accepting is paused").count();
    let (began, before, said) = (Instant::now(), ground.usage()?, told(&ground.log()?));
    let mut answers = Counts::default();
    while began.elapsed() < time {
        let asked = Instant::now();
        match ground.status("connections").await {
            Ok(_) => answers.answered("status".into(), asked.elapsed()),
            Err(error) => answers.failed(&error.to_string()),
        }
        // Rarely, so that answering does not count for much.
        sleep(Duration::from_millis(500)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = ground.usage()?.cpu.saturating_sub(before.cpu);
    let said = told(&ground.log()?).saturating_sub(said);
    Ok(Calm {
        cpu: cpu.as_secs_f64() / seconds * 100.0,
        // Between two of them a second goes by: the first costs none.
        lines: number(u64::try_from(said.saturating_sub(1))?) / seconds,
        answers,
    })
}

/// Each asks once and keeps its connection until it is told to go.
struct Clients {
    tasks: JoinSet<()>,
    handles: Vec<AbortHandle>,
    served: Vec<usize>,
    answers: mpsc::Receiver<usize>,
}

impl Clients {
    async fn open(at: SocketAddr) -> anyhow::Result<Self> {
        let (sender, answers) = mpsc::channel(CLIENTS);
        let mut tasks = JoinSet::new();
        let mut handles = Vec::with_capacity(CLIENTS);
        for number in 0..CLIENTS {
            let stream = timeout(PATIENCE, TcpStream::connect(at)).await??;
            handles.push(tasks.spawn(ask_once(stream, number, sender.clone())));
        }
        Ok(Self {
            tasks,
            handles,
            served: Vec::new(),
            answers,
        })
    }

    /// Waits until nobody else is served; returns how many are.
    async fn saturated(&mut self) -> anyhow::Result<usize> {
        while let Ok(Some(number)) = timeout(SATURATED, self.answers.recv()).await {
            self.served.push(number);
        }
        let served = self.served.len();
        ensure!(
            (1..CLIENTS).contains(&served),
            "{served} clients are served at a time"
        );
        Ok(served)
    }

    /// How long it takes until somebody else has the place of one that goes.
    async fn leave_one_by_one(&mut self) -> Counts {
        let mut counts = Counts::default();
        for _ in 0..LEAVE.min(CLIENTS - self.served.len()) {
            let leaves = self.served.pop().and_then(|place| self.handles.get(place));
            let Some(leaves) = leaves else { break };
            let began = Instant::now();
            leaves.abort();
            match timeout(PATIENCE, self.answers.recv()).await {
                Ok(Some(number)) => {
                    counts.answered("served".into(), began.elapsed());
                    self.served.insert(0, number);
                }
                _ => counts.failed("nobody"),
            }
        }
        self.tasks.try_join_next();
        counts
    }
}

/// Holds the connection after its answer.
async fn ask_once(mut stream: TcpStream, number: usize, answers: mpsc::Sender<usize>) {
    let asked = async {
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut [0; 4]).await
    };
    if asked.await.is_ok() && answers.send(number).await.is_ok() {
        // Until the other side ends it, or the task goes.
        let _ = stream.read(&mut [0]).await;
    }
}
