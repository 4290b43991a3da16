//! One attempt of any kind within its timeout, and the words for how it failed: kubelet's, which are Go's. Owns
//! connecting.
//!
//! Every connection is closed with `SO_LINGER` zero: by then everything has been read or given up, and the reset
//! leaves no TIME-WAIT behind on either side (socket(7), tcp(7)). kubelet lingers for a second instead, which would
//! make `close` wait in the prober's only thread.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use portico_core::{
    object::ProbeCheck,
    probe::Attempt,
    world::probes::{ProbeSubject, ProbeTarget},
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};

use super::{grpc, http};

/// `User-Agent` of HTTP and gRPC probes.
pub(super) const USER_AGENT: &str = "kube-probe/1.35";

/// Most that is read of an answer's body, as kubelet does.
pub(super) const MOST_BODY: usize = 10 * 1024;

/// Asks once. Ends within the probe's timeout. A simulated pod is asked where it is, whatever `host` says: it stands in
/// for something that may be elsewhere.
pub(super) fn ask(
    subject: &ProbeSubject,
    target: ProbeTarget,
) -> impl Future<Output = Attempt> + Send + use<> {
    let is_simulated = matches!(subject, ProbeSubject::Simulated(_));
    async move {
        let answer = answer(&target, is_simulated).await;
        answer.map_err(Arc::from)
    }
}

async fn answer(target: &ProbeTarget, is_simulated: bool) -> Result<(), String> {
    let within = target.probe.timeout.max(Duration::from_millis(1));
    let deadline = Instant::now() + within;
    let addr = target.addr;
    match &target.probe.check {
        // Not asked for: both count as passing.
        ProbeCheck::Exec | ProbeCheck::HttpGet { https: true, .. } => Ok(()),
        ProbeCheck::HttpGet {
            path,
            host,
            headers,
            ..
        } => {
            let host = host.as_deref().filter(|_| !is_simulated);
            http::get(http::Url::new(host, addr, path), addr, headers, deadline).await
        }
        ProbeCheck::TcpSocket { host, .. } => {
            let host = host.as_deref().filter(|_| !is_simulated);
            let dialled = dial(host, addr, deadline).await;
            dialled.map(drop).map_err(|error| error.to_string())
        }
        ProbeCheck::Grpc { service, .. } => grpc::check(addr, service, (deadline, within)).await,
    }
}

/// Why there is no connection, in Go's words.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("dial tcp: lookup {0}: no such host")]
    NoSuchHost(String),
    #[error("dial tcp {0}: i/o timeout")]
    TimedOut(SocketAddr),
    #[error("dial tcp {0}: connect: {words}", words = go_words(.1))]
    Failed(SocketAddr, #[source] io::Error),
}

/// Connects to `addr`, or to its port at `host` when that is a name: to the first of its addresses that takes it.
pub(super) async fn dial(
    host: Option<&str>,
    addr: SocketAddr,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let Some(name) = host.filter(|host| host.parse::<IpAddr>().is_err()) else {
        return connect(addr, deadline).await;
    };
    let found = timeout_at(deadline, lookup_host((name, addr.port()))).await;
    let found = found.map_err(|_late| DialError::TimedOut(addr))?;
    let mut last = DialError::NoSuchHost(name.to_owned());
    for addr in found.into_iter().flatten() {
        match connect(addr, deadline).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect(addr: SocketAddr, deadline: Instant) -> Result<TcpStream, DialError> {
    let connected = timeout_at(deadline, TcpStream::connect(addr)).await;
    let stream = connected
        .map_err(|_late| DialError::TimedOut(addr))?
        .map_err(|error| DialError::Failed(addr, error))?;
    // A port that nobody listens on may be the one that the kernel chose for this end: then it met itself.
    if stream.local_addr().is_ok_and(|own| own == addr) {
        let refused = rustix::io::Errno::CONNREFUSED.into();
        return Err(DialError::Failed(addr, refused));
    }
    // Without it the connection ends in its own time, no worse.
    let _kept = stream.set_zero_linger();
    Ok(stream)
}

/// An error of the operating system as Go prints it: `connection refused`.
pub(super) fn go_words(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// A whole number of seconds as Go prints a duration: `1s`, `1m30s`.
pub(super) fn go_duration(duration: Duration) -> String {
    let (hours, minutes, seconds) = (
        duration.as_secs() / 3600,
        duration.as_secs() / 60 % 60,
        duration.as_secs() % 60,
    );
    match (hours, minutes, seconds) {
        (0, 0, 0) => format!("{}ms", duration.as_millis()),
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Lets `connection` work until `exchange` has what it wants. The connection may end first: what it has read by then
/// is still there.
pub(super) async fn driven<T>(
    connection: impl Future<Output: Sized>,
    exchange: impl Future<Output = T>,
) -> T {
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => return answer,
        _ended = &mut connection => {}
    }
    exchange.await
}
