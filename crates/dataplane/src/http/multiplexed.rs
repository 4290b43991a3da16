//! A connection of HTTP/2 to an endpoint. Owns how many streams it carries and sending a request on one. The connection has a task; a
//! stream has none: whoever waits for its answer sends its body, too, and one that goes on after the answer has begun gets a task
//! then, since neither direction may wait for the other. Not by hyper's client, which has two tasks and two channels for each request.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{Reason, client};
use http::{Request, Response};
use hyper::body::{Body as _, Frame};
use portico_core::http::error::Fault;
use tokio::{net::TcpStream, time::Instant};

use super::{
    body::RequestBody,
    transfer::{Receiving, Sending},
    upstream::{BUFFER_BYTES, CONNECTION_WINDOW, STREAM_WINDOW, STREAMS, Tasks, Unanswered},
};
use crate::worker::Numbered;

/// A connection, driven by a task.
pub(super) struct Multiplexed {
    sender: RefCell<client::SendRequest<Bytes>>,
    tasks: Tasks,
    streams: Rc<Cell<usize>>,
    pub(super) idle_since: Rc<Cell<Instant>>,
}

impl Multiplexed {
    pub(super) async fn over(
        stream: TcpStream,
        tasks: &Tasks,
        numbered: Numbered,
    ) -> Result<Rc<Self>, h2::Error> {
        let (sender, conn) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(usize::try_from(STREAMS).unwrap_or(usize::MAX))
            .max_send_buffer_size(BUFFER_BYTES)
            // One client that does not read a stream of small messages must not end all others' streams; the window bounds what it costs.
            .data_frame_budget(usize::MAX)
            .max_header_list_size(u32::try_from(BUFFER_BYTES).unwrap_or(u32::MAX))
            .handshake(stream)
            .await?;
        tasks.execute(async move {
            let _numbered = numbered;
            conn.await
        });
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            tasks: tasks.clone(),
            streams: Rc::default(),
            idle_since: Rc::new(Cell::new(Instant::now())),
        }))
    }

    /// A place for one more stream.
    pub(super) fn stream(&self) -> Option<Stream> {
        let open = self.streams.get();
        if open >= self.sender.borrow().current_max_send_streams() || self.is_closed() {
            return None;
        }
        self.streams.set(open + 1);
        Some(Stream {
            streams: Rc::clone(&self.streams),
            idle_since: Rc::clone(&self.idle_since),
        })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// Whether it is over, or its endpoint said that it takes no more.
    pub(super) fn is_closed(&self) -> bool {
        // It waits for nothing: what sends is a copy, each with the one request that it may have to wait for.
        let ready = (self.sender.borrow_mut()).poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Err(_)))
    }

    /// Sends a request on a stream, and then waits for the head of its answer.
    pub(super) fn send(
        &self,
        request: Request<RequestBody>,
        stream: Stream,
    ) -> impl Future<Output = Result<Response<Download>, Unanswered>> {
        // At once, so that whoever waits keeps no head.
        let sent = self.begin(request);
        async move {
            let (mut answer, mut upload) = sent.map_err(|error| unanswered(&error, false))?;
            let answered = std::future::poll_fn(|cx| {
                if let Some(sending) = &mut upload
                    && Pin::new(sending).poll(cx).is_ready()
                {
                    upload = None;
                }
                Pin::new(&mut answer).poll(cx)
            });
            let response = answered.await.map_err(|error| unanswered(&error, true))?;
            if let Some(sending) = upload {
                self.tasks.execute(sending);
            }
            Ok(response.map(|body| Download {
                received: Receiving::new(body),
                _stream: stream,
            }))
        }
    }

    fn begin(&self, request: Request<RequestBody>) -> Result<Sent, h2::Error> {
        let (parts, body) = request.into_parts();
        let is_whole = body.is_end_stream();
        let mut sender = self.sender.borrow().clone();
        let (answer, stream) = sender.send_request(Request::from_parts(parts, ()), is_whole)?;
        let upload = (!is_whole).then(|| Sending::new(stream, body));
        Ok((answer, upload))
    }
}

/// What the answer comes by, and what of the request is still to be sent.
type Sent = (client::ResponseFuture, Option<Sending<RequestBody>>);

fn unanswered(error: &h2::Error, was_taken: bool) -> Unanswered {
    // What the codec here ended, it ended for what it had read.
    let is_ours = error.reason().is_some() && !error.is_remote();
    Unanswered {
        fault: if is_ours {
            Fault::NoHttp2
        } else {
            Fault::Closed
        },
        was_sent: was_taken && !was_refused(error),
        was_refused: was_refused(error),
    }
}

/// Whether the endpoint said that it did nothing for the request (RFC 9113, sections 6.8 and 8.7).
fn was_refused(error: &h2::Error) -> bool {
    error.reason() == Some(Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR))
}

/// A stream's place.
#[derive(Debug)]
pub(super) struct Stream {
    streams: Rc<Cell<usize>>,
    idle_since: Rc<Cell<Instant>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        self.idle_since.set(Instant::now());
    }
}

/// An answer's body.
pub(super) struct Download {
    received: Receiving,
    /// Its drop gives the place back.
    _stream: Stream,
}

impl Download {
    pub(super) fn is_end_stream(&self) -> bool {
        self.received.is_end_stream()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let polled = ready!(self.received.poll_frame(cx));
        // An endpoint that has answered may say so that it wants no more of the request (RFC 9113, section 8.1).
        Poll::Ready(polled.filter(
            |frame| !matches!(frame, Err(error) if error.reason() == Some(Reason::NO_ERROR)),
        ))
    }
}
