//! A response body that is written as lines come. Owns the adapter between a channel and HTTP.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::mpsc;

/// Lines as they come; the end of the channel is the end of the body.
pub(super) struct Lines(mpsc::Receiver<String>);

impl Lines {
    pub(super) const fn new(lines: mpsc::Receiver<String>) -> Self {
        Self(lines)
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |text: String| Ok(Frame::data(Bytes::from(text)));
        self.get_mut().0.poll_recv(cx).map(|text| text.map(frame))
    }
}
