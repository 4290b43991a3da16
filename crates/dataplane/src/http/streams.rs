//! A client's connection of HTTP/2. Owns its streams: each is answered as soon as its head is there, by this connection's task, whatever
//! the others wait for. Floods belong to [`super::frames`], answers to [`super::exchange`].

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{Method, Request, Response};
use hyper::body::Body as _;

use super::{
    Session,
    body::Inlet,
    exchange::Errand,
    frames::Framed,
    transfer::{Receiving, Sending},
    upstream::{BUFFER_BYTES, CONNECTION_WINDOW, STREAM_WINDOW, STREAMS},
};

/// Streams that a client may reset before they are looked at, before its connection is ended.
const RESET_STREAMS: usize = 20;
/// Streams of a connection that its client may break so that we reset them (CVE-2025-8671), in all of its life: what honest clients send
/// of a body while its answer is on its way may be such.
const BROKEN_STREAMS: usize = 1024;

/// What small DATA frames may cost that came and could not go on yet, as the codec counts it: 256 bytes for each, less what is in it. So it
/// is some 16 000 frames, for a whole window of the smallest messages of gRPC, which have 5 bytes, is no flood.
const SMALL_FRAMES: usize = 4 << 20;

/// A connection, from its preface to its end.
pub(super) struct Streams {
    session: Rc<Session>,
    conn: Conn,
    /// Its client was told to come back on another connection, or will be as soon as it can be told.
    is_retired: bool,
    /// They end with the connection.
    answers: FuturesUnordered<Pin<Box<dyn Future<Output = ()>>>>,
}

enum Conn {
    Opening(server::Handshake<Framed, Bytes>),
    Open(server::Connection<Framed, Bytes>),
}

impl Streams {
    pub(super) fn over(frames: Framed, session: &Rc<Session>) -> Self {
        let opening = server::Builder::new()
            .max_concurrent_streams(STREAMS)
            .max_pending_accept_reset_streams(RESET_STREAMS)
            .max_local_error_reset_streams(Some(BROKEN_STREAMS))
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(BUFFER_BYTES)
            .data_frame_budget(SMALL_FRAMES)
            // Twice what is served, so that who sends somewhat more is told why: the codec would only reset the stream.
            .max_header_list_size(u32::try_from(2 * BUFFER_BYTES).unwrap_or(u32::MAX))
            .handshake(frames);
        Self {
            session: Rc::clone(session),
            conn: Conn::Opening(opening),
            is_retired: false,
            answers: FuturesUnordered::new(),
        }
    }

    /// Tells the client to come back on another connection; the streams that it has opened are served.
    pub(super) fn retire(mut self: Pin<&mut Self>) {
        self.is_retired = true;
        if let Conn::Open(conn) = &mut self.conn {
            conn.graceful_shutdown();
        }
    }
}

impl Future for Streams {
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.conn {
                Conn::Opening(opening) => {
                    let mut conn = ready!(Pin::new(opening).poll(cx))?;
                    if this.is_retired {
                        conn.graceful_shutdown();
                    }
                    this.conn = Conn::Open(conn);
                }
                Conn::Open(conn) => {
                    while let Poll::Ready(accepted) = conn.poll_accept(cx) {
                        let Some(accepted) = accepted else {
                            return Poll::Ready(Ok(()));
                        };
                        let (request, reply) = accepted?;
                        this.answers.push(begin(&this.session, request, reply));
                    }
                    // What they send has this polled once more.
                    while let Poll::Ready(Some(())) = this.answers.poll_next_unpin(cx) {}
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Begins to answer a request on its stream.
fn begin(
    session: &Rc<Session>,
    request: Request<RecvStream>,
    mut reply: SendResponse<Bytes>,
) -> Pin<Box<dyn Future<Output = ()>>> {
    let (parts, body) = request.into_parts();
    let is_head = parts.method == Method::HEAD;
    let mut errand = Errand::new(session, parts, Inlet::Http2(Receiving::new(body)));
    Box::pin(async move {
        let response = {
            let mut answering = pin!(errand.answer());
            poll_fn(|cx| match answering.as_mut().poll(cx) {
                Poll::Ready(answered) => Poll::Ready(answered.ok()),
                // Nobody waits for the answer to a stream that was reset.
                Poll::Pending => reply.poll_reset(cx).map(|_| None),
            })
            .await
        };
        let Some(response) = response else {
            reply.send_reset(Reason::INTERNAL_ERROR);
            return;
        };
        let (head, body) = response.into_parts();
        let is_whole = is_head || body.is_end_stream();
        match reply.send_response(Response::from_parts(head, ()), is_whole) {
            Ok(_) if is_whole => {}
            Ok(stream) => Sending::new(stream, body).await,
            Err(error) => {
                tracing::debug!(%error, "answer could not be sent");
                reply.send_reset(Reason::INTERNAL_ERROR);
            }
        }
    })
}
