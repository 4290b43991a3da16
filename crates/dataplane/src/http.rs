//! HTTP, request by request. Owns a client's connection from its first byte to its end: which version it speaks, its limits and
//! time-outs, and how it is told to come back elsewhere. What is done with a request belongs to [`exchange`], the streams of a client of
//! HTTP/2 to [`streams`] and floods of it to [`frames`], connections to endpoints to [`upstream`], [`multiplexed`] and [`pool`]. The codecs
//! are hyper's for HTTP/1 and h2's for HTTP/2; all that knows them are these seven, [`body`] and [`transfer`].
//!
//! A connection is one task on its worker. It drives the endpoint's connection, too, as long as it has one of HTTP/1, so that no
//! request crosses from one task to another, let alone to another thread.

mod body;
mod exchange;
mod frames;
mod head;
pub(crate) mod log;
mod multiplexed;
pub(crate) mod pool;
mod progress;
mod refusal;
mod requests;
mod streams;
mod transfer;
mod tunnel;
mod upstream;
mod wire;

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use portico_core::{
    balance::End, http::head as core_head, proxy_protocol::Header, snapshot::Cluster,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, Sleep, timeout},
};

use crate::{
    clock,
    tcp::{
        Resetting,
        connect::{Arrival, Asks, Unit},
        registry::{Live, Registered, waker},
        relay::{Outcome, Patience, Side, relay},
    },
    worker::{Numbered, Shared},
};
use body::Inlet;
use exchange::Errand;
use frames::Framed;
use pool::Pool;
use progress::Progress;
use requests::{LATE, Requests};
use streams::Streams;
use tunnel::Tunnel;
use upstream::BUFFER_BYTES;
use wire::Wire;

/// What a client of HTTP/2 sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of the first read.
const FIRST_BYTES: usize = 8 * 1024;
/// How long what a client still sends is thrown away after it was refused, so that it can read why.
const LINGER: Duration = Duration::from_secs(1);

/// What the requests of one connection share.
pub(crate) struct Session {
    shared: Arc<Shared>,
    pool: Rc<Pool>,
    arrival: Arrival,
    /// What a trusted front end said of the client.
    header: Option<Header>,
    live: Registered,
    /// Who the client is, as endpoints are told.
    told: core_head::Arrival,
    peer: SocketAddr,
    /// What was asked for, where no request says it.
    service: String,
    cluster: Arc<Cluster>,
    progress: Rc<Progress>,
    /// What the connection is to become once its answer has gone.
    tunnel: Cell<Option<Tunnel>>,
}

impl Session {
    /// What is asked of the Snapshot on behalf of its client.
    fn asks<'s>(&'s self, unit: Unit<'s>) -> Asks<'s> {
        Asks {
            shared: &self.shared,
            arrival: &self.arrival,
            header: self.header,
            unit,
        }
    }
}

/// Serves a connection that speaks HTTP to its end.
pub(crate) async fn serve(
    (shared, pool): (Arc<Shared>, Rc<Pool>),
    (arrival, header): (Arrival, Option<Header>),
    mut downstream: Resetting,
    live: Registered,
) {
    let _numbered = Numbered::one(&shared, |shared| &shared.http_clients);
    live.rests(Some(Instant::now()));
    live.serves_requests(waker().await);
    let Some((seen, first)) = look(&shared, &live, &mut downstream).await else {
        return;
    };
    let cluster = Arc::clone(&shared.published.load().cluster);
    let peer = arrival.peer.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let peer = SocketAddr::new(peer, arrival.peer_port);
    let session = Rc::new(Session {
        shared,
        pool,
        arrival,
        header,
        live,
        told: core_head::Arrival::new(peer, &cluster.http.headers),
        peer,
        service: arrival.local.to_string(),
        cluster,
        progress: Progress::new(),
        tunnel: Cell::default(),
    });
    match first {
        First::Http2 => serve_http2(&session, (downstream, seen)).await,
        First::Http1 => serve_http1(&session, (downstream, seen)).await,
        First::Late => {
            session.progress.refuse(LATE);
            serve_http1(&session, (downstream, seen)).await;
        }
    }
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Http1,
    Http2,
    /// Too little, after all the time there was.
    Late,
}

/// The first bytes of a connection and what they say; `None` of one that is over before.
async fn look(
    shared: &Shared,
    live: &Live,
    downstream: &mut Resetting,
) -> Option<(BytesMut, First)> {
    let settings = &shared.settings;
    let mut seen = BytesMut::with_capacity(FIRST_BYTES);
    let mut patience = settings.http_idle_timeout;
    loop {
        let mut ending = pin!(shared.ending.notified());
        ending.as_mut().enable();
        let is_ending = || shared.ends_at.load(Relaxed) != 0 || live.is_dismissed();
        if is_ending() && seen.is_empty() {
            downstream.disarm();
            return None;
        }
        // All are cancel safe. Whoever dismisses it wakes this task.
        let dismissed = poll_fn(|_| {
            if live.is_dismissed() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        let read = tokio::select! {
            read = timeout(patience, downstream.stream.read_buf(&mut seen)) => read,
            () = ending, if seen.is_empty() => continue,
            () = dismissed, if seen.is_empty() => continue,
        };
        match read {
            Ok(Ok(0)) if seen.is_empty() => {
                downstream.disarm();
                return None;
            }
            Ok(Ok(0)) => return Some((seen, First::Http1)),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return None,
            Err(_) if seen.is_empty() => {
                downstream.disarm();
                return None;
            }
            Err(_) => return Some((seen, First::Late)),
        }
        let length = seen.len().min(PREFACE.len());
        if seen.get(..length) != PREFACE.get(..length) {
            return Some((seen, First::Http1));
        }
        if seen.len() >= PREFACE.len() {
            return Some((seen, First::Http2));
        }
        patience = settings.http_head_timeout;
    }
}

async fn serve_http1(session: &Rc<Session>, begun: (Resetting, BytesMut)) {
    session.progress.awaits_head();
    let wire = Wire::new(begun, Rc::clone(&session.progress), Some(Requests::new()));
    let served = Rc::clone(session);
    let service = service_fn(move |request| {
        let (parts, body) = request.into_parts();
        let mut errand = Errand::new(&served, parts, Inlet::Http1(body));
        async move { errand.answer().await }
    });
    // Of fields its bound is 100, unless it is told, which costs.
    let mut conn = http1::Builder::new()
        .half_close(false)
        .auto_date_header(false)
        .max_buf_size(BUFFER_BYTES)
        .max_header_size(BUFFER_BYTES)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(wire), service);
    let retire = |conn: Pin<&mut http1::Connection<_, _>>| conn.graceful_shutdown();
    // Its next answer says so: a request may be on its way, which nobody would answer.
    let of_age = |_: Pin<&mut _>| session.progress.is_of_age.set(true);
    let over = watched(session, Pin::new(&mut conn), (retire, of_age)).await;
    let parts = conn.into_parts();
    let (downstream, held) = parts.io.into_inner().into_parts();
    match over {
        Over::Ended(Ok(())) => match session.tunnel.take() {
            Some(tunnel) => {
                let early = [&parts.read_buf[..], &held[..]].concat();
                tunnelled(session, (downstream, early), tunnel).await;
            }
            None if session.progress.was_cut_short.get() => linger(downstream).await,
            None => downstream.let_go(),
        },
        Over::Ended(Err(error)) if error.is_parse() => linger(downstream).await,
        Over::Ended(Err(error)) => {
            tracing::debug!(local = %session.arrival.local, %error, "connection of HTTP/1 broke");
        }
        Over::Due(Due::Idle) => downstream.let_go(),
        Over::Due(Due::Late | Due::Stalled | Due::Retire) => {}
    }
}

async fn serve_http2(session: &Rc<Session>, begun: (Resetting, BytesMut)) {
    let wire = Wire::new(begun, Rc::clone(&session.progress), None);
    let frames = Framed::new(wire);
    let over = {
        let conn = pin!(Streams::over(frames.clone(), session));
        tokio::select! {
            biased;
            over = watched(session, conn, (Streams::retire, Streams::retire)) => Ok(over),
            cause = frames.over(session.shared.settings.http_head_timeout) => Err(cause),
        }
    };
    frames.end(session, over).await;
}

/// How a connection came to its end.
enum Over<E> {
    /// The codec is done with it.
    Ended(Result<(), E>),
    /// Its time is over.
    Due(Due),
}

/// Drives a connection until it is over, and tells it when to finish.
async fn watched<C, E>(
    session: &Session,
    mut conn: Pin<&mut C>,
    (retire, of_age): (impl Fn(Pin<&mut C>), impl Fn(Pin<&mut C>)),
) -> Over<E>
where
    C: Future<Output = Result<(), E>>,
{
    let mut ending = pin!(session.shared.ending.notified());
    let mut watch = Watch::new(session);
    let mut timer = pin!(tokio::time::sleep_until(watch.next().0));
    let mut is_told = false;
    poll_fn(|cx| {
        if !is_told {
            is_told = true;
            // Wakes this task, which then looks at the time that is stored.
            let _ = ending.as_mut().poll(cx);
        } else if watch.is_ending() {
            // Before an answer that may be there goes without saying so, but not before a first request was read.
            retire(conn.as_mut());
        }
        loop {
            if let Poll::Ready(ended) = conn.as_mut().poll(cx) {
                return Poll::Ready(Over::Ended(ended));
            }
            if watch.is_ending() {
                retire(conn.as_mut());
                continue;
            }
            match ready!(watch.poll(cx, timer.as_mut())) {
                Due::Retire => of_age(conn.as_mut()),
                // It is refused once; if it cannot even be told, it is cut off.
                Due::Late if !session.progress.is_refused() => session.progress.refuse(LATE),
                Due::Idle if !watch.is_dismissed => {
                    // It may say goodbye, in as much time again.
                    watch.is_dismissed = true;
                    session.progress.last.set(Instant::now());
                    retire(conn.as_mut());
                }
                due => return Poll::Ready(Over::Due(due)),
            }
        }
    })
    .await
}

/// What time has come for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Its client is to come back on another connection.
    Retire,
    /// A head is not complete in time.
    Late,
    /// No request came.
    Idle,
    /// A request is under way, and nothing moves.
    Stalled,
}

/// The clock of a connection. As in a relay, the timer is corrected when it fires, and set anew only for what comes earlier.
struct Watch<'s> {
    session: &'s Session,
    /// When it is to be retired, unless it was.
    retires_at: Option<Instant>,
    knows_end: bool,
    /// It was retired because no request came.
    is_dismissed: bool,
}

impl<'s> Watch<'s> {
    fn new(session: &'s Session) -> Self {
        let age = session.shared.settings.http_max_age;
        Self {
            session,
            retires_at: age.map(|age| Instant::now() + spread(age)),
            knows_end: false,
            is_dismissed: false,
        }
    }

    /// What comes next, and when.
    fn next(&self) -> (Instant, Due) {
        let (settings, progress) = (&self.session.shared.settings, &self.session.progress);
        let next = if progress.requests.get() > 0 {
            (progress.last.get() + settings.idle_timeout, Due::Stalled)
        } else if let Some(since) = progress.head_since.get() {
            (since + settings.http_head_timeout, Due::Late)
        } else {
            (progress.last.get() + settings.http_idle_timeout, Due::Idle)
        };
        match self.retires_at {
            Some(at) if at < next.0 => (at, Due::Retire),
            _ => next,
        }
    }

    /// Whether the program ends, or its client is to come back on another connection; told once.
    fn is_ending(&mut self) -> bool {
        let Session { shared, live, .. } = self.session;
        let is_ending = || shared.ends_at.load(Relaxed) != 0 || live.is_dismissed();
        let is_new = !self.knows_end && is_ending();
        self.knows_end = self.knows_end || is_new;
        is_new
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Due> {
        let session = self.session;
        let (read, written) = session.progress.bytes.get();
        session.live.moved(read, written);
        session.live.rests(session.progress.idle_since());
        let (at, _) = self.next();
        if at < timer.deadline() {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            match self.next() {
                (at, _) if at > Instant::now() => timer.as_mut().reset(at),
                (_, due) => {
                    if due == Due::Retire {
                        self.retires_at = None;
                    }
                    return Poll::Ready(due);
                }
            }
        }
    }
}

/// Nine to ten tenths of it, so that connections that began together do not end together.
fn spread(age: Duration) -> Duration {
    let part = u32::from(clock::jitter());
    age.saturating_sub(age / 10 * part / u32::from(u16::MAX))
}

/// Ends the sending and throws away what still comes: closing over unread bytes would reset the connection, and the client might
/// never see its answer (RFC 9112, section 9.6).
async fn linger(mut downstream: Resetting) {
    let ending = async {
        downstream.stream.shutdown().await?;
        let mut rest = [0; 4096];
        while downstream.stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    if matches!(timeout(LINGER, ending).await, Ok(Ok(()))) {
        downstream.let_go();
    }
}

/// Relays what both sides agreed to speak, as a connection of TCP.
async fn tunnelled(
    session: &Session,
    (mut downstream, early): (Resetting, Vec<u8>),
    tunnel: Tunnel,
) {
    let (upstream, mut tally) = tunnel.split(session);
    let Some((stream, first, _numbered)) = upstream.into_socket().await else {
        return;
    };
    let mut upstream = Resetting::new(stream);
    let patience = Patience {
        idle: session.shared.settings.idle_timeout,
        half_closed: session.shared.settings.half_closed_timeout,
    };
    // What came with the heads.
    let begun = async {
        upstream.stream.write_all(&early).await?;
        downstream.stream.write_all(&first).await
    };
    if !matches!(timeout(patience.half_closed, begun).await, Ok(Ok(()))) {
        return;
    }
    let halves = (downstream.stream.split(), upstream.stream.split());
    let relayed = relay(halves.0, halves.1, patience, &mut tally).await;
    if let Some(entry) = &mut tally.entry {
        match relayed.outcome {
            Outcome::Finished => entry.finished(),
            Outcome::Broken(Side::Upstream, _) => entry.broke(End::Endpoint),
            Outcome::TimedOut | Outcome::Broken(Side::Downstream, _) => {}
        }
    }
    tally.exchange.ends(match relayed.outcome {
        Outcome::Finished => End::Finished,
        Outcome::TimedOut => End::Idle,
        Outcome::Broken(Side::Downstream, _) => End::Client,
        Outcome::Broken(Side::Upstream, _) => End::Endpoint,
    });
    drop(tally);
    if matches!(relayed.outcome, Outcome::Finished) {
        downstream.let_go();
        upstream.let_go();
    }
}
