//! Scenario `udp`: clients that keep a window of datagrams on their way to an echo, by a Service or any other proxy, and
//! count what comes back. Owns the generator, a small echo server and the arithmetic of the processor time that the
//! process between them took; load goes to the [`Target`] only.

use std::{
    fmt,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use crate::target::Target;

/// A datagram that is not back by then is lost.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often the echo looks whether it is to end.
const ECHO_PATIENCE: Duration = Duration::from_millis(50);
/// `USER_HZ`: what proc(5) counts processor time in, 100 on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;
/// More than any datagram.
const LARGEST: usize = 64 * 1024;
/// Of a datagram, unless somebody says otherwise.
pub(crate) const BYTES: u16 = 64;
/// A datagram begins with its number.
const NUMBER: usize = size_of::<u64>();

/// Arguments of the scenario.
#[derive(Debug, Args)]
pub(crate) struct UdpArgs {
    /// Where the datagrams go; without it only the echo runs
    #[arg(required_unless_present = "backend")]
    target: Option<Target>,
    /// Also be the echo behind it, at this address
    #[arg(long)]
    backend: Option<Target>,
    /// Client sockets, each with a thread
    #[arg(short, long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// Datagrams of a client that are on their way at a time
    #[arg(short, long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    window: u16,
    /// Seconds that it lasts
    #[arg(short, long, default_value = "2", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Bytes of a datagram
    #[arg(long, default_value_t = BYTES, value_parser = clap::value_parser!(u16).range(8..=65_507))]
    bytes: u16,
    /// Process between the clients and the echo: its processor time is counted
    #[arg(long)]
    pid: Option<u32>,
}

/// The outcome.
#[derive(Debug, Serialize)]
pub(crate) struct UdpReport {
    /// Something was answered, and nothing was lost.
    pub(crate) is_clean: bool,
    /// Round trips.
    answers: u64,
    /// Datagrams that were not answered in time.
    lost: u64,
    /// Round trips a second.
    per_second: f64,
    /// Processor time of the process for each round trip (two datagrams), in microseconds.
    cpu_us: Option<f64>,
}

impl fmt::Display for UdpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} answers, {:.0} a second, {} lost",
            self.answers, self.per_second, self.lost
        )?;
        if let Some(cpu) = self.cpu_us {
            writeln!(f, "{cpu:.3} us of processor time a round trip")?;
        }
        Ok(())
    }
}

/// Who sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clients {
    /// Sockets, each with a thread.
    pub(crate) sockets: u16,
    /// Datagrams of each that are on their way at a time.
    pub(crate) window: u16,
    /// Of a datagram.
    pub(crate) bytes: u16,
}

/// What one client or all of them saw.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Round trips.
    pub(crate) answers: u64,
    /// Datagrams that were not answered in time.
    pub(crate) lost: u64,
}

/// Runs the scenario.
///
/// # Errors
/// A socket or the process cannot be had.
pub(crate) fn run(args: &UdpArgs) -> anyhow::Result<UdpReport> {
    let time = Duration::from_secs(args.seconds);
    let echo = args.backend.map(|addr| Echo::start(addr.addr()));
    let _echo = echo.transpose()?;
    let before = args.pid.map(cpu_ticks).transpose()?;
    let began = Instant::now();
    let seen = if let Some(target) = args.target {
        let clients = Clients {
            sockets: args.clients,
            window: args.window,
            bytes: args.bytes,
        };
        load(clients, target.addr(), time)?
    } else {
        while began.elapsed() < time {
            thread::park_timeout(time.saturating_sub(began.elapsed()));
        }
        Seen::default()
    };
    let seconds = began.elapsed().as_secs_f64();
    let after = args.pid.map(cpu_ticks).transpose()?;
    let answers = number(seen.answers);
    Ok(UdpReport {
        is_clean: seen.lost == 0 && (seen.answers > 0 || args.target.is_none()),
        answers: seen.answers,
        lost: seen.lost,
        per_second: answers / seconds,
        cpu_us: before
            .zip(after)
            .map(|(before, after)| (after - before) / TICKS_PER_SECOND * 1e6 / answers.max(1.0)),
    })
}

fn number(count: u64) -> f64 {
    // More than four billion of anything are not counted in ten minutes.
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Sends for a time, and waits for the last answers.
///
/// # Errors
/// A socket cannot be had.
pub(crate) fn load(clients: Clients, target: SocketAddr, time: Duration) -> anyhow::Result<Seen> {
    let end = Instant::now() + time;
    let clients: Vec<_> = (0..clients.sockets)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(target)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let (window, bytes) = (u64::from(clients.window), usize::from(clients.bytes));
            Ok(thread::spawn(move || client(&socket, window, bytes, end)))
        })
        .collect::<std::io::Result<_>>()
        .context("opening client sockets")?;
    let mut all = Seen::default();
    for client in clients {
        let Ok(seen) = client.join() else {
            bail!("a client panicked");
        };
        all.answers += seen.answers;
        all.lost += seen.lost;
    }
    Ok(all)
}

/// Keeps `window` datagrams on their way until `end`, then waits for the last ones.
fn client(socket: &UdpSocket, window: u64, bytes: usize, end: Instant) -> Seen {
    let mut datagram = vec![0; bytes];
    let mut answer = vec![0; LARGEST];
    let mut seen = Seen::default();
    let (mut sent, mut oldest, mut open) = (0, 0, 0);
    loop {
        while open < window && Instant::now() < end {
            stamp(&mut datagram, sent);
            sent += 1;
            // A refusal of an earlier one is told here, too: it counts as lost when nothing answers.
            let _ = socket.send(&datagram);
            open += 1;
        }
        if open == 0 {
            return seen;
        }
        match socket.recv(&mut answer) {
            // What was given up for lost and still comes is not counted again.
            Ok(length) if stamped(answer.get(..length)) >= Some(oldest) => {
                seen.answers += 1;
                open -= 1;
            }
            Ok(_) => {}
            Err(error) if is_timeout(error.kind()) => {
                seen.lost += open;
                (open, oldest) = (0, sent);
            }
            Err(_) => {}
        }
    }
}

fn stamp(datagram: &mut [u8], number: u64) {
    if let Some(head) = datagram.get_mut(..NUMBER) {
        head.copy_from_slice(&number.to_le_bytes());
    }
}

fn stamped(datagram: Option<&[u8]>) -> Option<u64> {
    let head = datagram?.get(..NUMBER)?;
    head.try_into().ok().map(u64::from_le_bytes)
}

const fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Waits for one round trip, as long as for any.
///
/// # Errors
/// There is none.
pub(crate) async fn probe(target: SocketAddr) -> anyhow::Result<()> {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(target).await?;
    socket.send(&[0; NUMBER]).await?;
    let answered = tokio::time::timeout(PATIENCE, socket.recv(&mut [0; NUMBER])).await;
    answered.context("nothing comes back")??;
    Ok(())
}

/// An echo on a thread of its own, which ends with the value.
pub(crate) struct Echo {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Begins at an address.
    ///
    /// # Errors
    /// It cannot be had.
    pub(crate) fn start(addr: SocketAddr) -> anyhow::Result<Self> {
        let socket =
            UdpSocket::bind(addr).with_context(|| format!("binding the echo to {addr}"))?;
        socket.set_read_timeout(Some(ECHO_PATIENCE))?;
        let stop = Arc::new(AtomicBool::new(false));
        Ok(Self {
            addr: socket.local_addr()?,
            stop: Arc::clone(&stop),
            thread: Some(thread::spawn(move || echo(&socket, &stop))),
        })
    }

    /// Where it is.
    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut bytes = vec![0; LARGEST];
    while !stop.load(Relaxed) {
        // A time-out, or a refusal of an earlier answer.
        let Ok((length, from)) = socket.recv_from(&mut bytes) else {
            continue;
        };
        let _ = socket.send_to(bytes.get(..length).unwrap_or_default(), from);
    }
}

/// Processor time of a process in ticks: `utime` and `stime` of proc(5), of all its threads.
fn cpu_ticks(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    ticks_of(&stat).with_context(|| format!("{path} has no processor time"))
}

/// The fields 14 and 15; the name before them is in brackets and may contain blanks.
fn ticks_of(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let mut next = || times.next()?.parse::<f64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_a_process_with_a_strange_name_are_the_sum_of_user_and_system() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 12 30 5 6 20 0 1 0 9 0";
        assert_eq!(ticks_of(stat), Some(42.0));
        assert_eq!(ticks_of("7 (a) S 1"), None);
    }

    #[test]
    fn load_to_an_echo_loses_nothing_and_to_nobody_loses_all() {
        let spare = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = spare.local_addr().unwrap();
        let end = || Instant::now() + Duration::from_millis(20);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let seen = client(&socket, 4, 64, end());
        assert!(seen.answers == 0 && seen.lost >= 4, "{seen:?}");
        drop(spare);
        let echo = Echo::start(addr).unwrap();
        let seen = client(&socket, 4, 64, end());
        assert!(seen.answers >= 4 && seen.lost == 0, "{seen:?}");
        drop(echo);
        // Not by binding its address again: a process that another test starts has a copy of the socket for a moment.
        let seen = client(&socket, 4, 64, end());
        assert!(seen.answers == 0 && seen.lost >= 4, "{seen:?}");
    }
}
