//! Connections of HTTP/1 to endpoints. Owns sending a request on one and whether it may carry another; what is idle lies in the
//! [pool](super::pool). It has no task: whoever waits for its answer drives it.

use std::{
    cell::{Cell, RefCell},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header::HeaderName};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use portico_core::http::error::Fault;
use tokio::{net::TcpStream, task::JoinSet};

use super::{body::RequestBody, pool::Home, wire::Counted};
use crate::worker::Numbered;

/// Bytes of a head, and what is read or written at a time.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;
/// How long a connection of HTTP/1 is kept when its endpoint does not say: the shortest default among common servers is 5 s, and a
/// connection that closes under a request is a failure for nothing.
const IDLE_HTTP1: Duration = Duration::from_secs(4);
/// The longest that any is kept.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// What is taken off an endpoint's own time.
const MARGIN: Duration = Duration::from_secs(1);

/// Windows and limits of HTTP/2, of either side.
pub(super) const STREAM_WINDOW: u32 = 64 * 1024;
pub(super) const CONNECTION_WINDOW: u32 = 1024 * 1024;
pub(super) const STREAMS: u32 = 100;

/// A request that got no answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unanswered {
    pub(super) fault: Fault,
    /// Whether the endpoint may have seen some of it.
    pub(super) was_sent: bool,
    /// The endpoint says that it did not look at it.
    pub(super) was_refused: bool,
}

/// A connection of HTTP/1.
pub(super) struct Upstream {
    sender: http1::SendRequest<RequestBody>,
    /// Dropped when it is over, so that whoever waits for something of it is told.
    conn: Option<http1::Connection<TokioIo<Counted>, RequestBody>>,
    written: Rc<Cell<bool>>,
    pub(super) is_over: bool,
    /// How long it may lie idle.
    pub(super) patience: Duration,
    numbered: Numbered,
    /// Where it lies then; `None` while it does.
    home: Option<Rc<Home>>,
}

impl Upstream {
    pub(super) async fn over(
        stream: TcpStream,
        home: Rc<Home>,
        numbered: Numbered,
    ) -> hyper::Result<Box<Self>> {
        let written = Rc::new(Cell::new(false));
        let io = TokioIo::new(Counted {
            stream,
            written: Rc::clone(&written),
        });
        let (sender, conn) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .handshake(io)
            .await?;
        Ok(Box::new(Self {
            sender,
            conn: Some(conn),
            written,
            is_over: false,
            patience: IDLE_HTTP1,
            numbered,
            home: Some(home),
        }))
    }

    /// Sends a request, and then waits for the head of its answer.
    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, Unanswered>> {
        self.written.set(false);
        // At once, so that whoever waits keeps no head.
        let sending = self.sender.try_send_request(request);
        async move {
            let mut sending = pin!(sending);
            let sent = std::future::poll_fn(|cx| {
                self.drive(cx);
                let polled = sending.as_mut().poll(cx);
                if polled.is_pending() && self.is_over {
                    self.conn = None;
                    return sending.as_mut().poll(cx);
                }
                polled
            });
            let response = sent.await.map_err(|mut unsent| {
                let was_taken = unsent.take_message().is_none();
                Unanswered {
                    fault: of_answer(unsent.error()),
                    was_sent: was_taken && self.written.get(),
                    was_refused: false,
                }
            })?;
            if let Some(said) = keep_alive(response.headers()) {
                self.patience = said.saturating_sub(MARGIN).min(IDLE);
            }
            Ok(response)
        }
    }

    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        // What went wrong is told to whoever waits for an answer or a body.
        if let Some(conn) = self.conn.as_mut().filter(|_| !self.is_over) {
            self.is_over = Pin::new(conn).poll(cx).is_ready();
        }
    }

    /// Its answer is complete: it is kept for another request, if it can carry one.
    pub(super) fn give_back(mut self: Box<Self>) {
        let Some(home) = self.home.take() else {
            return;
        };
        if self.is_idle() {
            home.keep(self);
        }
    }

    /// It carries another request, and comes back to `home` then.
    pub(super) fn leaves(&mut self, home: Rc<Home>) {
        self.home = Some(home);
    }

    /// Whether it can carry another request, as far as is known.
    pub(super) fn is_idle(&mut self) -> bool {
        if !self.is_over && !self.sender.is_ready() {
            self.drive(&mut Context::from_waker(Waker::noop()));
        }
        !self.is_over && self.sender.is_ready()
    }

    /// Looks whether its endpoint has closed it.
    pub(super) fn is_closed(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.is_over
    }

    /// The socket and what was read of it, once both sides have agreed on another protocol.
    pub(super) async fn into_socket(mut self: Box<Self>) -> Option<(TcpStream, Bytes, Numbered)> {
        std::future::poll_fn(|cx| {
            self.drive(cx);
            if self.is_over {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        let Self { conn, numbered, .. } = *self;
        let parts = conn?.into_parts();
        Some((parts.io.into_inner().stream, parts.read_buf, numbered))
    }
}

/// What no answer on a connection is called.
fn of_answer(error: &hyper::Error) -> Fault {
    if error.is_parse_too_large() {
        Fault::LargeHead
    } else if error.is_parse() {
        Fault::NoHttp
    } else {
        Fault::Closed
    }
}

/// The time that an endpoint says it keeps an idle connection (RFC 2068, section 19.7.1.1).
fn keep_alive(fields: &HeaderMap) -> Option<Duration> {
    let name = HeaderName::from_static("keep-alive");
    let said = fields.get(name)?.to_str().ok()?;
    let mut parameters = said.split(',').map(str::trim);
    let seconds = parameters.find_map(|parameter| parameter.strip_prefix("timeout="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// The tasks of connections of HTTP/2 and of their streams; they end with this.
#[derive(Clone, Default)]
pub(super) struct Tasks(Rc<RefCell<JoinSet<()>>>);

impl Tasks {
    pub(super) fn execute(&self, task: impl Future + 'static) {
        let mut tasks = self.0.borrow_mut();
        while tasks.try_join_next().is_some() {}
        // What is spawned moves several times, at its end too, and a connection's weighs kilobytes.
        let task = Box::pin(task);
        tasks.spawn_local(async move { drop(task.await) });
    }
}
