//! A worker's part of a listener. Owns accepting: how many at a time, and what to do when there is no room. Must not
//! dial: a slow endpoint must not keep others from being accepted.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed},
    },
    time::Duration,
};

use portico_core::{
    backoff::Backoff,
    balance::PortState,
    object::Protocol,
    snapshot::{
        FrontendKind, Snapshot,
        plan::{Bind, ListenerKey},
    },
};
use tokio::time::timeout;

use crate::{
    clock,
    listen::guard::Guarding,
    net::{self, AcceptFailure, SharedFd},
    tcp::{account::Accepted, connect::Arrival, waiting},
    worker::{Shared, Worker},
};

/// First pause for want of descriptors or at the limit of connections.
const PAUSE_BASE: Duration = Duration::from_millis(10);
/// Longest such pause, and the longest wait for a place of a Service port before the Snapshot is asked again which that is.
const PAUSE_CAP: Duration = Duration::from_millis(100);
/// Pauses are complained about at most this often, in milliseconds.
const COMPLAINT_INTERVAL_MS: u64 = 1000;

/// A socket that takes connections or datagrams, as workers need it.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Unique in the process: a key has two sockets while its declared port takes over from a fallback.
    pub(crate) id: u64,
    pub(crate) key: ListenerKey,
    /// What it is really bound to.
    pub(crate) bound: SocketAddr,
    pub(crate) fd: SharedFd,
    pub(crate) guarding: Guarding,
    /// One of as many as there are sockets.
    pub(crate) _share: Arc<()>,
}

impl Listening {
    /// The next connection of its queue. It has a filter if the socket had one when the kernel made it: that is for
    /// who begins, and costs for every packet.
    pub(crate) fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let (stream, peer) = net::accept(&self.fd)?;
        if self.guarding.is_inherited() {
            net::filter::detach(&stream);
        }
        Ok((stream, peer))
    }

    /// The one worker of `count` that serves a UDP socket: by the key, so that it is the same after a rebind.
    pub(crate) fn owner(&self, count: usize) -> usize {
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        let count = u64::try_from(count.max(1)).unwrap_or(1);
        usize::try_from(hasher.finish() % count).unwrap_or_default()
    }

    /// Whether it is a wildcard socket, of either family: what was asked is told by each datagram.
    pub(crate) fn hears_many(&self) -> bool {
        self.bound.ip().is_unspecified()
    }

    /// The Service port that all its connections are for, if `snapshot` gives it a limit of connections and not of requests. One that hears several addresses has none of
    /// its own: what it accepted waits for its place.
    fn limited(&self, snapshot: &Snapshot) -> Option<Arc<PortState>> {
        if !matches!(self.key.bind, Bind::Address(_)) {
            return None;
        }
        let frontend =
            snapshot.frontend(self.key.scope, self.bound, self.key.port, Protocol::Tcp)?;
        let port = &frontend.port.state;
        let is_limited = frontend.kind != FrontendKind::HealthCheck
            && !frontend.port.app.protocol.is_http()
            && port.limit.get().is_some();
        is_limited.then(|| Arc::clone(port))
    }

    /// Where `stream` came in. A wildcard socket has to ask each connection.
    pub(crate) fn arrival(
        &self,
        stream: &TcpStream,
        peer: Option<SocketAddr>,
    ) -> io::Result<Arrival> {
        let local = match self.key.bind {
            Bind::Address(_) => self.bound,
            // An inherited wildcard socket may be of IPv6 and hear IPv4 too, as ::ffff:a.b.c.d (RFC 4291 2.5.5.2).
            Bind::Any | Bind::AnyLoopback | Bind::AnyV6 => canonical(stream.local_addr()?),
        };
        Ok(Arrival {
            scope: self.key.scope,
            declared_port: self.key.port,
            local,
            peer: peer.map(|peer| peer.ip()),
            peer_port: peer.map_or(0, |peer| peer.port()),
        })
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// The Service port whose places a listener takes before it accepts, as the Snapshot has it: nearly none has a limit, and
/// to look for it at every turn would cost all others.
#[derive(Debug, Default)]
struct Gate {
    /// Which change of [`Shared::changes`] it was looked for after.
    looked_after: Option<u64>,
    port: Option<Arc<PortState>>,
}

impl Gate {
    /// Until it is told of a change, what came to a port that has a limit now takes its place after it was accepted.
    fn port(&mut self, shared: &Shared, listening: &Listening) -> Option<&Arc<PortState>> {
        let changes = shared.changes.load(Acquire);
        if self.looked_after != Some(changes) {
            self.looked_after = Some(changes);
            self.port = listening.limited(&shared.published.load());
        }
        self.port.as_ref()
    }
}

/// What a turn of accepting came to.
#[derive(Debug)]
enum Turn {
    /// The queue is empty.
    Drained,
    /// There may be more, but others wait.
    Used,
    /// No room for another connection.
    Full,
    /// Descriptors or memory are used up.
    Exhausted,
    /// The socket does not listen any more.
    Stopped,
    /// The Service port behind it has as many connections as its limit allows.
    Limited(Arc<PortState>),
}

/// Accepts until the socket stops listening or the task is aborted, which it can be at every await: no connection is
/// ever held across one.
pub(crate) async fn run(worker: Rc<Worker>, listening: Arc<Listening>) {
    let socket = match net::register(listening.fd.clone()) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(listener = %listening.bound, %error, "a worker cannot watch a listener");
            return;
        }
    };
    let mut pause = Backoff::new(PAUSE_BASE, PAUSE_CAP);
    let mut gate = Gate::default();
    while let Ok(mut ready) = socket.readable().await {
        // It refused for a moment at least. A hang-up stays in a registration for good, so that this one would spin
        // once the socket listens again; whoever makes it listen starts another task.
        if ready.ready().is_read_closed() {
            return;
        }
        let turn = take_turn(&worker, &listening, &mut gate);
        match turn {
            Turn::Drained => ready.clear_ready(),
            Turn::Used => tokio::task::yield_now().await,
            Turn::Limited(port) => {
                // What its Service asks for is no cause for complaint.
                let entering = waiting::enter(&worker.shared.changed, &port);
                if timeout(PAUSE_CAP, entering).await.is_ok() {
                    // What it came to, the next turn finds again.
                    let _ = accept_one(&worker, &listening, Some(&port));
                }
            }
            // There is no room, but nobody needs any.
            Turn::Full if !net::has_waiting(&listening.fd) => ready.clear_ready(),
            Turn::Full | Turn::Exhausted if worker.makes_room() => {
                // What was let go closes in a moment.
                tokio::time::sleep(PAUSE_BASE).await;
                continue;
            }
            Turn::Full | Turn::Exhausted => {
                worker.shared.totals.pauses.fetch_add(1, Relaxed);
                complain(&worker.shared, &listening, &turn);
                tokio::time::sleep(pause.next(clock::jitter())).await;
                continue;
            }
            Turn::Stopped => return,
        }
        pause.reset();
    }
}

fn take_turn(worker: &Worker, listening: &Listening, gate: &mut Gate) -> Turn {
    let limited = gate.port(&worker.shared, listening);
    for _ in 0..worker.shared.settings.accept_burst.max(1) {
        if let Some(port) = limited
            && !port.enter_as_newcomer()
        {
            return Turn::Limited(Arc::clone(port));
        }
        if let Some(turn) = accept_one(worker, listening, limited) {
            return turn;
        }
    }
    Turn::Used
}

/// Accepts one, for whom a place of `entered` was taken; what ends the turn, if anything.
fn accept_one(
    worker: &Worker,
    listening: &Listening,
    entered: Option<&Arc<PortState>>,
) -> Option<Turn> {
    let admission = worker.shared.admit();
    let failure = if admission.is_none() {
        Turn::Full
    } else {
        match listening.accept() {
            Ok((stream, peer)) => {
                let accepted = entered.map(Accepted::entered);
                // A connection without a local address is gone already.
                if let Ok(arrival) = listening.arrival(&stream, peer) {
                    worker.dispatch(stream, arrival, accepted);
                }
                return None;
            }
            Err(error) => match AcceptFailure::of(&error) {
                AcceptFailure::Empty => Turn::Drained,
                AcceptFailure::Stopped => Turn::Stopped,
                AcceptFailure::Exhausted => Turn::Exhausted,
                AcceptFailure::Gone => Turn::Used,
            },
        }
    };
    if let Some(port) = entered {
        port.leave();
    }
    Some(failure)
}

/// Says what the limit is and how to raise it, at most once in [`COMPLAINT_INTERVAL_MS`] however many listeners and workers
/// meet it.
fn complain(shared: &Shared, listening: &Listening, turn: &Turn) {
    let (now, last) = (clock::now(), &shared.complained_at);
    let before = last.load(Relaxed);
    // A clock that was set back is no reason to be silent.
    let is_due = now.as_millis().abs_diff(before) >= COMPLAINT_INTERVAL_MS;
    let is_first = || last.compare_exchange(before, now.as_millis(), Relaxed, Relaxed);
    if !is_due || is_first().is_err() {
        return;
    }
    let (limit, descriptors) = (shared.limit(), net::descriptor_limit());
    let listener = listening.bound;
    if matches!(turn, Turn::Exhausted) {
        tracing::warn!(
            %listener,
            descriptors,
            "accepting is paused: the process has no descriptor or memory left; raise `ulimit -n` (LimitNOFILE= in a \
             systemd unit) and start again"
        );
    } else if shared.settings.max_connections == Some(limit) {
        tracing::warn!(%listener, limit, "accepting is paused: as many connections are open as the settings allow");
    } else {
        tracing::warn!(
            %listener,
            limit,
            descriptors,
            "accepting is paused: as many connections are open as the descriptors allow; raise `ulimit -n` \
             (LimitNOFILE= in a systemd unit) and start again"
        );
    }
}
