//! Bodies on their way. Owns keeping the first bytes of a request for another attempt, what is counted of both directions, and
//! that a response that breaks never ends cleanly; frames go through as they come, one at a time, so that whoever is slow slows
//! the other side.

use std::{
    cell::{Cell, RefCell},
    error::Error as _,
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::Reason;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use portico_core::{
    balance::End,
    http::{head::clean_trailers, retry::REPLAY_BYTES},
};
use tokio::time::{Instant, Sleep};

use super::{
    log::Entry,
    multiplexed::Download,
    progress::{Progress, Underway},
    transfer::Receiving,
    upstream::Upstream,
    wire::count,
};
use crate::tcp::{account::Exchange, registry::Registered};

/// How long an endpoint may take to say that it wants the body of a request that expects 100-continue: whoever does not know the
/// expectation says nothing (RFC 9110, section 10.1.1).
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("reading the client's body failed")]
    Downstream(#[source] hyper::Error),
    #[error("reading the endpoint's body failed")]
    Upstream(#[source] hyper::Error),
    #[error("the client's stream broke")]
    ClientStream(#[source] h2::Error),
    #[error("the endpoint's stream broke")]
    Stream(#[source] h2::Error),
    #[error("what the request was for is gone, and its time is over")]
    Gone,
}

impl BodyError {
    /// What the stream is reset with that the body was to go on.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Downstream(_) | Self::ClientStream(_) => Reason::CANCEL,
            Self::Stream(error) => error.reason().unwrap_or(Reason::INTERNAL_ERROR),
            Self::Upstream(_) | Self::Gone => Reason::INTERNAL_ERROR,
        }
    }

    /// Whether a body of HTTP/1 is none by its form; connections break with other words.
    fn is_malformed(&self) -> bool {
        use io::ErrorKind::{InvalidData, InvalidInput};
        let Self::Downstream(error) = self else {
            return false;
        };
        let cause = error
            .source()
            .and_then(|cause| cause.downcast_ref::<io::Error>());
        cause.is_some_and(|cause| matches!(cause.kind(), InvalidData | InvalidInput))
    }
}

/// Where the body of a client's request comes from.
#[derive(Debug)]
pub(super) enum Inlet {
    Http1(Incoming),
    Http2(Receiving),
}

impl Inlet {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(receiving) => receiving.is_end_stream(),
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Http1(incoming) => Pin::new(incoming)
                .poll_frame(cx)
                .map_err(BodyError::Downstream),
            Self::Http2(receiving) => receiving.poll_frame(cx).map_err(BodyError::ClientStream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) => incoming.size_hint(),
            // Its head says it.
            Self::Http2(_) => SizeHint::default(),
        }
    }
}

/// The body of a client's request, and what was kept of it.
#[derive(Debug)]
pub(super) struct Upload {
    source: RefCell<Inlet>,
    kept: RefCell<Vec<Bytes>>,
    kept_bytes: Cell<usize>,
    /// Everything that was taken from the source is kept.
    is_whole: Cell<bool>,
    /// Bytes given to the endpoint.
    pub(super) given: Cell<u64>,
    /// The client broke off.
    pub(super) has_failed: Cell<bool>,
    /// What it sent is not a body of the form that its head says.
    pub(super) is_malformed: Cell<bool>,
    /// When it was read to its end.
    pub(super) ended_at: Cell<Option<Instant>>,
    progress: Rc<Progress>,
}

impl Upload {
    /// `None` of a request without a body.
    pub(super) fn of(body: Inlet, progress: &Rc<Progress>) -> Option<Rc<Self>> {
        if body.is_end_stream() {
            return None;
        }
        Some(Rc::new(Self {
            source: RefCell::new(body),
            kept: RefCell::default(),
            kept_bytes: Cell::new(0),
            is_whole: Cell::new(true),
            given: Cell::new(0),
            has_failed: Cell::new(false),
            is_malformed: Cell::new(false),
            ended_at: Cell::new(None),
            progress: Rc::clone(progress),
        }))
    }

    /// Whether it can be sent once more from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole.get() && !self.has_failed.get()
    }

    fn ended(&self) {
        if self.ended_at.get().is_none() {
            self.ended_at.set(Some(Instant::now()));
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut source = self.source.borrow_mut();
        let polled = ready!(source.poll_frame(cx));
        let over = source.is_end_stream();
        Poll::Ready(match polled {
            Some(Ok(frame)) => {
                if over {
                    self.ended();
                }
                Some(Ok(self.keep(frame)))
            }
            Some(Err(error)) => {
                self.has_failed.set(true);
                self.is_malformed.set(error.is_malformed());
                self.ended();
                Some(Err(error))
            }
            None => {
                self.ended();
                None
            }
        })
    }

    fn keep(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let Some(bytes) = frame.data_ref() else {
            // Trailers are the end of it: not kept, they make it end without them.
            self.is_whole.set(false);
            return trimmed(frame);
        };
        self.given.set(self.given.get() + count(bytes.len()));
        let total = self.kept_bytes.get() + bytes.len();
        let fits = self.is_whole.get() && total <= REPLAY_BYTES;
        self.is_whole.set(fits);
        self.kept_bytes.set(total);
        let mut kept = self.kept.borrow_mut();
        if fits {
            kept.push(bytes.clone());
        } else {
            *kept = Vec::new();
        }
        frame
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.ended_at.get().is_none() {
            self.progress.was_cut_short.set(true);
        }
    }
}

/// A frame as it may go on.
fn trimmed(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            clean_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// The endpoint's word that it wants the body.
pub(super) struct Gate {
    is_open: Arc<AtomicBool>,
    patience: Pin<Box<Sleep>>,
}

impl Gate {
    /// Closed until 100 is told to `request`, or for a second.
    pub(super) fn before<B>(request: &mut http::Request<B>) -> Self {
        let is_open = Arc::new(AtomicBool::new(false));
        let opened = Arc::clone(&is_open);
        hyper::ext::on_informational(request, move |response| {
            if response.status() == http::StatusCode::CONTINUE {
                opened.store(true, Relaxed);
            }
        });
        Self {
            is_open,
            patience: Box::pin(tokio::time::sleep(EXPECT_PATIENCE)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_open.load(Relaxed) {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(cx)
    }
}

/// A request's body as one attempt sends it.
pub(super) struct RequestBody {
    upload: Option<Rc<Upload>>,
    /// What was sent of what is kept.
    position: usize,
    pub(super) gate: Option<Gate>,
}

impl RequestBody {
    pub(super) fn of(upload: Option<&Rc<Upload>>) -> Self {
        Self {
            upload: upload.cloned(),
            position: 0,
            gate: None,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.poll(cx));
            self.gate = None;
        }
        let Some(upload) = self.upload.clone() else {
            return Poll::Ready(None);
        };
        let kept = upload.kept.borrow().get(self.position).cloned();
        if let Some(bytes) = kept {
            self.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if upload.ended_at.get().is_some() {
            return Poll::Ready(None);
        }
        let polled = upload.poll(cx);
        self.position = upload.kept.borrow().len();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| {
            upload.ended_at.get().is_some() && self.position >= upload.kept.borrow().len()
        })
    }

    fn size_hint(&self) -> SizeHint {
        match &self.upload {
            None => SizeHint::with_exact(0),
            // Of a first attempt it is what the head says; another one is framed by the same head.
            Some(upload) if upload.given.get() == 0 => upload.source.borrow().size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

/// Where a response's body comes from.
pub(super) enum Source {
    /// Ourselves.
    Ours(Option<Bytes>),
    /// A connection that this body drives, and gives back at its end.
    Http1(Incoming, Option<Box<Upstream>>),
    /// A stream of a connection that a task of its own drives.
    Http2(Download),
}

/// The body of an answer to a client.
pub(super) struct ResponseBody {
    source: Source,
    exchange: Option<Exchange>,
    upload: Option<Rc<Upload>>,
    entry: Option<Box<Entry>>,
    /// By which it may be cut.
    live: Option<Registered>,
    underway: Option<Underway>,
    progress: Option<Rc<Progress>>,
}

impl ResponseBody {
    /// One of ours.
    pub(super) fn ours(text: Bytes) -> Self {
        let text = (!text.is_empty()).then_some(text);
        Self {
            source: Source::Ours(text),
            exchange: None,
            upload: None,
            entry: None,
            live: None,
            underway: None,
            progress: None,
        }
    }

    /// An endpoint's.
    pub(super) fn of(
        source: Source,
        exchange: Exchange,
        upload: Option<Rc<Upload>>,
        (entry, live): (Option<Box<Entry>>, Option<Registered>),
    ) -> Self {
        let mut body = Self {
            source,
            exchange: Some(exchange),
            upload,
            entry,
            live,
            underway: None,
            progress: None,
        };
        if body.is_end_stream() {
            body.finished();
        }
        body
    }

    /// Until it is dropped, its request is under way.
    pub(super) fn keeps(&mut self, underway: Option<Underway>, progress: &Rc<Progress>) {
        self.underway = underway;
        self.progress = Some(Rc::clone(progress));
    }

    fn finished(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.ends(End::Finished);
        }
        if let Some(entry) = &mut self.entry {
            entry.finished();
        }
        if let Source::Http1(_, upstream) = &mut self.source
            && let Some(upstream) = upstream.take()
        {
            upstream.give_back();
        }
    }

    /// It is not to be ended cleanly, for this reason.
    fn broke(&mut self, why: End) {
        if let Some(exchange) = &mut self.exchange {
            exchange.ends(why);
        }
        if let Some(entry) = &mut self.entry {
            entry.broke(why);
        }
        if let Some(progress) = &self.progress {
            progress.is_broken.set(true);
        }
    }

    fn passed(&mut self, bytes: usize) {
        let to_upstream = self.upload.as_ref().map_or(0, |upload| upload.given.get());
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        let given = exchange.gave(count(bytes), to_upstream);
        if let Some(entry) = &mut self.entry {
            entry.bytes = given;
        }
        if let Some(live) = &self.live {
            live.moved(given.0, given.1);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(live) = &self.live
            && let Some(why) = live.cut_because()
        {
            live.ended(why);
            self.broke(why);
            return Poll::Ready(Some(Err(BodyError::Gone)));
        }
        let polled = match &mut self.source {
            Source::Ours(text) => {
                return Poll::Ready(text.take().map(|text| Ok(Frame::data(text))));
            }
            Source::Http1(incoming, upstream) => {
                let mut polled = Pin::new(&mut *incoming).poll_frame(cx);
                if polled.is_pending()
                    && let Some(driven) = upstream
                {
                    driven.drive(cx);
                    if driven.is_over {
                        *upstream = None;
                    }
                    polled = Pin::new(incoming).poll_frame(cx);
                }
                polled.map_err(BodyError::Upstream)
            }
            Source::Http2(download) => download.poll_frame(cx).map_err(BodyError::Stream),
        };
        let frame = match ready!(polled) {
            Some(Ok(frame)) => trimmed(frame),
            Some(Err(error)) => {
                self.broke(End::Endpoint);
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                self.finished();
                return Poll::Ready(None);
            }
        };
        if let (Some(entry), Some(trailers)) = (&mut self.entry, frame.trailers_ref()) {
            entry.trailers(trailers);
        }
        self.passed(frame.data_ref().map_or(0, Bytes::len));
        if self.is_end_stream() || frame.is_trailers() {
            self.finished();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Ours(text) => text.is_none(),
            Source::Http1(incoming, _) => incoming.is_end_stream(),
            Source::Http2(download) => download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ours(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| count(text.len())))
            }
            Source::Http1(incoming, _) => incoming.size_hint(),
            // Its head says it.
            Source::Http2(_) => SizeHint::default(),
        }
    }
}
