//! Bodies on streams of HTTP/2, of clients and of endpoints alike. Owns that what is sent waits for room and what is received makes
//! room; whose stream it is, and what becomes of it, is for others.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use hyper::body::{Body, Frame};

use super::body::BodyError;

/// A body that is sent. It is over when all is sent, or nobody wants more.
pub(super) struct Sending<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// Waits for room.
    waiting: Option<Bytes>,
}

impl<B: Body> Sending<B> {
    pub(super) const fn new(stream: SendStream<Bytes>, body: B) -> Self {
        Self {
            stream,
            body,
            waiting: None,
        }
    }

    /// Whether there is more to send.
    fn give(&mut self, data: Bytes) -> bool {
        let is_last = self.body.is_end_stream();
        self.stream.send_data(data, is_last).is_ok() && !is_last
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Future for Sending<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            // Also has this woken when the other side gives the stream up.
            if !matches!(this.stream.poll_reset(cx), Poll::Pending) {
                return Poll::Ready(());
            }
            if this.waiting.is_some() {
                while this.stream.capacity() == 0 {
                    let Some(Ok(_)) = ready!(this.stream.poll_capacity(cx)) else {
                        return Poll::Ready(());
                    };
                }
            }
            if let Some(data) = this.waiting.take() {
                if !this.give(data) {
                    return Poll::Ready(());
                }
                continue;
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {
                        if !this.give(data) {
                            return Poll::Ready(());
                        }
                    }
                    Ok(data) => {
                        // Room for all of it, kept while it waits, would be lacking to the other streams.
                        this.stream.reserve_capacity(1);
                        this.waiting = Some(data);
                    }
                    Err(frame) => {
                        this.stream.reserve_capacity(0);
                        let trailers = frame.into_trailers().unwrap_or_default();
                        // Where that fails, nobody reads it.
                        let _ = this.stream.send_trailers(trailers);
                        return Poll::Ready(());
                    }
                },
                // Cut, so that nobody takes it for whole.
                Some(Err(error)) => {
                    this.stream.send_reset(error.reason());
                    return Poll::Ready(());
                }
                None => {
                    let _ = this.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(());
                }
            }
        }
    }
}

/// A body that is received.
#[derive(Debug)]
pub(super) struct Receiving {
    stream: RecvStream,
    is_data_over: bool,
}

impl Receiving {
    pub(super) const fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            is_data_over: false,
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.is_data_over {
            if let Some(data) = ready!(self.stream.poll_data(cx)) {
                return Poll::Ready(Some(data.map(|data| {
                    // What fails here fails at the next look, too.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    Frame::data(data)
                })));
            }
            self.is_data_over = true;
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(
            trailers
                .map(|trailers| trailers.map(Frame::trailers))
                .transpose(),
        )
    }
}
