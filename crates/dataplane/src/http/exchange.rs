//! One request from its head to the head of its answer. Owns the attempts: which endpoint, on which connection, and when another
//! try is safe. Bytes belong to the codecs below, choosing to [`crate::tcp::connect`], counts to [`crate::tcp::account`].

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, SET_COOKIE},
    request::Parts,
    response,
};
use hyper::{body::Incoming, ext::ReasonPhrase};
use portico_core::{
    balance::{End, PortState},
    http::{
        error::{Attempt, Cause, Fault},
        framing::{self, BadHead, BodyLength, HeadLimits},
        head::to_client,
        retry::{self, Connection, Failed, Next, Sent},
    },
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    Session,
    body::{Gate, Inlet, RequestBody, ResponseBody, Source, Upload},
    head::Asked,
    log::Entry,
    multiplexed::{Download, Multiplexed},
    pool::{Home, NotOpened},
    progress::{Refused, Underway},
    refusal::{self, Cut, Refusal},
    tunnel::Tunnel,
    upstream::{Unanswered, Upstream},
};
use crate::{
    clock,
    tcp::{
        account::Accepted,
        connect::{Asks, Chosen, Unit, endpoints},
        dial::DialError,
        registry::{Live, Registered, waker},
    },
    worker::Numbered,
};

/// A request and what was tried for it.
pub(super) struct Errand {
    session: Rc<Session>,
    asked: Asked,
    upload: Option<Rc<Upload>>,
    /// Why it goes to no endpoint.
    unfit: Option<Cause>,
    tried: Vec<Attempt>,
    /// The place of a retry that is under way.
    retry: Option<Retry>,
    /// By which it may be cut while it outlives its endpoint.
    live: Option<Registered>,
    /// What is noted of it, where requests are logged.
    entry: Option<Box<Entry>>,
    underway: Option<Underway>,
}

/// The endpoint whose answer is waited for. Dropped with it: the client gave up, which is the endpoint's failure only where it had
/// not even been reached.
#[derive(Default)]
struct Waiting(Option<Chosen>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(chosen) = self.0.take()
            && !chosen.is_dialling
        {
            chosen.attempt.abandoned(chosen.account, End::Client);
        }
    }
}

/// An endpoint's answer, and what it came by.
struct Answered {
    head: response::Parts,
    by: By,
}

/// The rest of an answer, and its way.
enum By {
    Http1(Incoming, Box<Upstream>),
    Http2(Download),
}

/// Why an attempt came to nothing.
enum Miss {
    /// There is no connection.
    Undialled(DialError),
    /// The connection could not be made ready, or somebody else's attempt, for which it waited, failed.
    Unopened,
    /// The endpoint was reached, and this much of the request was sent.
    Unanswered(Fault, Sent),
    /// There is nothing to send.
    Refused(Refusal),
}

impl Errand {
    /// To be made as soon as the head is there: the codec may read on before it asks for the answer.
    pub(super) fn new(session: &Rc<Session>, parts: Parts, body: Inlet) -> Self {
        let underway = session.progress.begin();
        let refused = session.progress.take_refused();
        let upload = Upload::of(body, &session.progress);
        let log = session.shared.access_log.get();
        let entry = log.map(|log| match refused {
            Some(Refused { is_unread, .. }) if is_unread => Entry::unread(log, session.peer),
            _ => Entry::of(log, &parts, session.peer),
        });
        let judged = match refused {
            Some(Refused { cause, .. }) => Err(cause),
            None => framing::judge(&parts, HeadLimits::default()).map_err(Cause::BadHead),
        };
        let length = judged.ok().filter(|_| upload.is_some());
        let length = length.unwrap_or(BodyLength::Empty);
        Self {
            asked: Asked::new(parts, length, &session.cluster.http.headers),
            session: Rc::clone(session),
            upload,
            unfit: judged.err(),
            tried: Vec::new(),
            retry: None,
            live: None,
            entry,
            underway: Some(underway),
        }
    }

    /// Answers the request, whatever comes of it.
    ///
    /// # Errors
    /// The client is to be cut off.
    pub(super) async fn answer(&mut self) -> Result<Response<ResponseBody>, Cut> {
        let reached = match self.unfit {
            Some(cause) => Err(Refusal::Told(cause, Vec::new())),
            None => self.run().await,
        };
        let mut response = match reached {
            Ok((answered, chosen)) => self.answered(answered, chosen),
            Err(refusal) => {
                let asked = (self.asked.headers(), self.asked.received);
                refusal.answer(&self.session, asked, self.entry.take())?
            }
        };
        let underway = self.underway.take();
        (response.body_mut()).keeps(underway, &self.session.progress);
        Ok(response)
    }

    /// What waits here is small, for every request has it: what most do not come to is boxed, and what is chosen has one place.
    async fn run(&mut self) -> Result<(Answered, Chosen), Refusal> {
        let session = Rc::clone(&self.session);
        let asks = session.asks(Unit::Connection);
        let mut accepted = None;
        let mut give_up_at = None;
        let mut waiting = Waiting::default();
        loop {
            let addresses: Vec<SocketAddr> = self.tried.iter().map(|it| it.addr).collect();
            let asking = session.asks(Unit::Request(self.asked.headers()));
            let choosing = asking.next(&addresses, &mut accepted, &mut give_up_at);
            let chosen = match choosing.await {
                Ok(chosen) => waiting.0.insert(chosen),
                Err(rejection) => {
                    let tried = std::mem::take(&mut self.tried);
                    return Err(Refusal::rejected(&rejection, tried));
                }
            };
            if let Some(entry) = &mut self.entry {
                entry.goes_to(chosen.addr, &chosen.port.name);
            }
            let live = self.entered(chosen).await;
            let outcome = {
                let attempt = pin!(self.attempt(&asks, chosen));
                Live::unless_cut(live.as_deref(), attempt).await
            };
            // Always there: only a future that is dropped does not come to this.
            let Some(chosen) = waiting.0.take() else {
                return Err(Refusal::Cut);
            };
            match outcome {
                Ok(Ok(answered)) => {
                    self.live = live;
                    return Ok((answered, chosen));
                }
                Err(why) => return Err(self.gone(live, chosen, why)),
                Ok(Err(miss)) => {
                    let missed = Box::pin(self.missed(&asks, chosen, miss));
                    accepted = Some(missed.await?);
                }
            }
        }
    }

    /// Its entry among the live connections, where the Service gives a time to what outlives its endpoint.
    async fn entered(&self, chosen: &Chosen) -> Option<Registered> {
        chosen.port.state.drain_timeout.get()?;
        let Session { live, arrival, .. } = &*self.session;
        let to = (chosen.addr, &*chosen.port);
        Some(live.request(arrival, to, waker().await, clock::now()))
    }

    /// That time is over, and there is no answer.
    fn gone(&mut self, live: Option<Registered>, chosen: Chosen, why: End) -> Refusal {
        live.inspect(|live| live.ended(why));
        chosen.attempt.abandoned(chosen.account, why);
        let (addr, fault) = (chosen.addr, Fault::Gone);
        self.tried.push(Attempt { addr, fault });
        Refusal::failed(std::mem::take(&mut self.tried))
    }

    /// Sends the request to the endpoint that was chosen: on a connection that is there, and where that has gone stale, on a fresh
    /// one.
    async fn attempt(&mut self, asks: &Asks<'_>, chosen: &mut Chosen) -> Result<Answered, Miss> {
        let protocol = chosen.port.app.protocol;
        // What is for one client alone is nobody's afterwards.
        let home = if chosen.is_private() {
            Rc::default()
        } else {
            self.session.pool.home(chosen.attempt.endpoint())
        };
        if protocol.is_http2() {
            return self.attempt_http2(asks, chosen, &home).await;
        }
        while let Some(mut upstream) = home.take() {
            let request = self.request(Version::HTTP_11)?;
            let sent = self.in_time(chosen, pin!(upstream.send(request))).await;
            match sent {
                Ok(response) => {
                    return self.answered_by(response, |body| By::Http1(body, upstream));
                }
                Err(failure) if self.is_stale(chosen, failure) => {}
                Err(failure) => return Err(self.unanswered(failure)),
            }
        }
        // Boxed: most requests find a connection.
        let mut upstream = Box::pin(self.open_http1(asks, chosen, home)).await?;
        let request = self.request(Version::HTTP_11)?;
        let response = self.in_time(chosen, pin!(upstream.send(request))).await;
        let response = response.map_err(|failure| self.unanswered(failure))?;
        self.answered_by(response, |body| By::Http1(body, upstream))
    }

    /// Waits for the head of an answer no longer than the endpoint may take, from when it was sent the whole request. A connection
    /// of HTTP/1 is no good afterwards; a stream of HTTP/2 is reset.
    async fn in_time<B, F>(
        &self,
        chosen: &Chosen,
        mut sending: Pin<&mut F>,
    ) -> Result<Response<B>, Unanswered>
    where
        F: Future<Output = Result<Response<B>, Unanswered>>,
    {
        let settings = &self.session.shared.settings;
        let patience = chosen.port.app.response_timeout;
        let patience = patience.or(settings.http_response_timeout);
        let Some(patience) = patience.filter(|patience| !patience.is_zero()) else {
            return sending.await;
        };
        let began = Instant::now();
        let sent_at = || match &self.upload {
            Some(upload) => upload.ended_at.get().map(|ended| ended.max(began)),
            None => Some(began),
        };
        // Boxed: most have no timer.
        Box::pin(async {
            let mut due = began + patience;
            loop {
                if let Ok(sent) = timeout_at(due, sending.as_mut()).await {
                    return sent;
                }
                // What is still being sent has all its time before it.
                let next = sent_at().unwrap_or_else(Instant::now) + patience;
                if next <= due {
                    return Err(Unanswered {
                        fault: Fault::AnswerTimeout,
                        was_sent: true,
                        was_refused: false,
                    });
                }
                due = next;
            }
        })
        .await
    }

    async fn open_http1(
        &mut self,
        asks: &Asks<'_>,
        chosen: &mut Chosen,
        home: Rc<Home>,
    ) -> Result<Box<Upstream>, Miss> {
        let stream = self.dial(asks, chosen).await?;
        let opened = Upstream::over(stream, home, self.numbered()).await;
        opened.map_err(|_| Miss::Unopened)
    }

    async fn open_http2(
        &mut self,
        asks: &Asks<'_>,
        chosen: &mut Chosen,
    ) -> Result<Rc<Multiplexed>, Miss> {
        let stream = self.dial(asks, chosen).await?;
        let tasks = &self.session.pool.tasks;
        let opened = Multiplexed::over(stream, tasks, self.numbered()).await;
        opened.map_err(|_| Miss::Unopened)
    }

    async fn dial(&mut self, asks: &Asks<'_>, chosen: &mut Chosen) -> Result<TcpStream, Miss> {
        if self.session.shared.is_short() {
            // What nobody uses has descriptors that are needed now.
            self.session.pool.shed();
        }
        let began = Instant::now();
        chosen.is_dialling = true;
        let dialled = chosen.dial(asks).await;
        chosen.is_dialling = false;
        if let Some(entry) = &mut self.entry {
            entry.connect = Some(entry.connect.unwrap_or_default() + began.elapsed());
        }
        let stream = dialled.map_err(Miss::Undialled)?;
        // Delays small messages if it fails, which is no reason to refuse them.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// One more connection to an endpoint.
    fn numbered(&self) -> Numbered {
        Numbered::one(&self.session.shared, |shared| &shared.http_endpoints)
    }

    /// One that changes the protocol though nobody asked for it is none (RFC 9110, section 15.2.2), nor is one whose end is said in
    /// two ways.
    fn answered_by<B>(
        &self,
        response: Response<B>,
        by: impl FnOnce(B) -> By,
    ) -> Result<Answered, Miss> {
        let is_change = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if (is_change && !self.asked.is_upgrade()) || !framing::is_sound_answer(response.headers())
        {
            return Err(Miss::Unanswered(Fault::NoHttp, Sent::Lost));
        }
        let (head, body) = response.into_parts();
        Ok(Answered { head, by: by(body) })
    }

    fn unanswered(&self, failure: Unanswered) -> Miss {
        match &self.upload {
            Some(upload) if upload.is_malformed.get() => {
                return Miss::Refused(BadHead::Chunk.into());
            }
            Some(upload) if upload.has_failed.get() => return Miss::Refused(Refusal::Cut),
            _ => {}
        }
        Miss::Unanswered(failure.fault, self.sent(failure))
    }

    async fn attempt_http2(
        &mut self,
        asks: &Asks<'_>,
        chosen: &mut Chosen,
        home: &Rc<Home>,
    ) -> Result<Answered, Miss> {
        let (mut is_fresh, mut has_waited, mut refusals) = (false, false, 0);
        loop {
            if let Some((multiplexed, stream)) = home.stream() {
                let request = self.request(Version::HTTP_2)?;
                let sending = pin!(multiplexed.send(request, stream));
                match self.in_time(chosen, sending).await {
                    Ok(response) => return self.answered_by(response, By::Http2),
                    Err(failure) if refusals < retry::MOST_REFUSALS && self.is_refused(failure) => {
                        refusals += 1;
                        home.forget(&multiplexed);
                        continue;
                    }
                    Err(failure) if !is_fresh && self.is_stale(chosen, failure) => {
                        is_fresh = true;
                        home.forget(&multiplexed);
                        continue;
                    }
                    Err(failure) => return Err(self.unanswered(failure)),
                }
            }
            match home.open().await {
                Err(NotOpened) if has_waited => return Err(Miss::Unopened),
                Err(NotOpened) => has_waited = true,
                Ok(None) => {}
                Ok(Some(_opening)) => {
                    home.share(Box::pin(self.open_http2(asks, chosen)).await?);
                    is_fresh = true;
                }
            }
        }
    }

    fn request(&self, version: Version) -> Result<Request<RequestBody>, Miss> {
        let body = RequestBody::of(self.upload.as_ref());
        let request = self.asked.request(version, &self.session, body);
        let mut request = request.map_err(|fault| Miss::Refused(fault.into()))?;
        if self.asked.expects && version != Version::HTTP_2 {
            let gate = Gate::before(&mut request);
            request.body_mut().gate = Some(gate);
        }
        Ok(request)
    }

    /// Whether a connection that had served others was closed by its endpoint, which another one may make good.
    fn is_stale(&self, chosen: &Chosen, failure: Unanswered) -> bool {
        let sent = self.sent(failure);
        self.next(chosen, (failure.fault, Connection::Reused, sent)) == Next::Fresh
    }

    /// Whether its endpoint did not look at it, and it can be sent once more from its beginning.
    fn is_refused(&self, failure: Unanswered) -> bool {
        failure.was_refused && self.sent(failure) == Sent::Nothing
    }

    fn sent(&self, failure: Unanswered) -> Sent {
        let is_whole = self.upload.as_ref().is_none_or(|upload| upload.is_whole());
        match (failure.was_sent, is_whole) {
            (_, false) => Sent::Lost,
            (true, true) => Sent::Kept,
            (false, true) => Sent::Nothing,
        }
    }

    fn next(&self, chosen: &Chosen, (fault, connection, sent): (Fault, Connection, Sent)) -> Next {
        let failed = Failed {
            method: self.asked.method(),
            fault,
            connection,
            sent,
            tried: self.tried.len() + 1,
            endpoints: endpoints(&chosen.port),
        };
        failed.next()
    }

    /// What a failed attempt means for the next one.
    async fn missed(
        &mut self,
        asks: &Asks<'_>,
        chosen: Chosen,
        miss: Miss,
    ) -> Result<Accepted, Refusal> {
        let (fault, sent) = match miss {
            Miss::Refused(refusal) => return Err(refusal),
            Miss::Undialled(error) => {
                chosen.undialled(asks, &error);
                (refusal::of_dial(&error), Sent::Nothing)
            }
            Miss::Unopened => (Fault::Unreachable, Sent::Nothing),
            Miss::Unanswered(fault, sent) => {
                chosen.unanswered(asks);
                if fault == Fault::AnswerTimeout {
                    chosen.took_so_long();
                }
                (fault, sent)
            }
        };
        tracing::debug!(endpoint = %chosen.addr, ?fault, "request not answered");
        if fault == Fault::Exhausted {
            // Connections that nobody uses have descriptors and ports that others need.
            self.session.pool.shed();
        }
        let next = self.next(&chosen, (fault, Connection::New, sent));
        let Chosen {
            addr,
            account,
            attempt,
            port,
            ..
        } = chosen;
        drop(attempt);
        self.tried.push(Attempt { addr, fault });
        let is_given_up = match next {
            Next::Another | Next::Fresh => false,
            Next::Later => !self.wait(&port.state).await,
            Next::GiveUp => true,
        };
        if is_given_up {
            return Err(Refusal::failed(std::mem::take(&mut self.tried)));
        }
        Ok(account)
    }

    /// Waits before a retry, if the budget of its port has room for it.
    async fn wait(&mut self, port: &Arc<PortState>) -> bool {
        self.retry = None;
        self.retry = Retry::begin(port);
        if self.retry.is_none() {
            return false;
        }
        let retry = u32::try_from(self.tried.len()).unwrap_or(u32::MAX) - 1;
        tokio::time::sleep(retry::wait(retry, clock::jitter())).await;
        true
    }

    /// Whether the client's connection ends with the answer: it is of age, or some of the body is still to come, which nobody reads.
    fn is_last(&self) -> bool {
        let body = self.upload.as_ref();
        let is_unread = body.is_some_and(|body| body.ended_at.get().is_none());
        self.asked.received != Version::HTTP_2
            && (is_unread || self.session.progress.is_of_age.get())
    }

    fn answered(&mut self, answered: Answered, chosen: Chosen) -> Response<ResponseBody> {
        let Answered {
            head: mut parts,
            by,
        } = answered;
        // Of what the codec left there only the endpoint's own words go on.
        let reason = parts.extensions.remove::<ReasonPhrase>();
        parts.extensions.clear();
        if let Some(reason) = reason {
            parts.extensions.insert(reason);
        }
        let received = parts.version;
        to_client(&mut parts, received, &self.session.cluster.http.headers);
        parts.version = Version::HTTP_11;
        if parts.status != StatusCode::SWITCHING_PROTOCOLS && self.is_last() {
            let close = HeaderValue::from_static("close");
            parts.headers.insert(CONNECTION, close);
        }
        if let Some(cookie) = chosen.cookie() {
            parts.headers.append(SET_COOKIE, cookie);
        }
        if retry::is_failure(parts.status) {
            chosen.held_against();
        } else {
            chosen.attempt.endpoint().ejection.succeeded();
        }
        chosen.took_so_long();
        if let Some(entry) = &mut self.entry {
            entry.retries = u32::try_from(self.tried.len()).unwrap_or(u32::MAX);
            entry.answered(parts.status.as_u16(), &parts.headers);
        }
        let exchange = chosen
            .attempt
            .answered(chosen.account, parts.status.as_u16());
        let source = match by {
            By::Http1(_, upstream) if parts.status == StatusCode::SWITCHING_PROTOCOLS => {
                (self.session.live).becomes_tunnel(chosen.addr, &chosen.port);
                self.session.tunnel.set(Some(Tunnel {
                    upstream,
                    exchange,
                    entry: self.entry.take(),
                }));
                return Response::from_parts(parts, ResponseBody::ours(Bytes::new()));
            }
            By::Http1(body, upstream) => Source::Http1(body, Some(upstream)),
            By::Http2(download) => Source::Http2(download),
        };
        let noted = (self.entry.take(), self.live.take());
        let body = ResponseBody::of(source, exchange, self.upload.take(), noted);
        Response::from_parts(parts, body)
    }
}

/// A place in the budget of retries.
struct Retry(Arc<PortState>);

impl Retry {
    fn begin(port: &Arc<PortState>) -> Option<Self> {
        let active = port.active.load(Relaxed);
        port.retry_budget
            .begin(active)
            .then(|| Self(Arc::clone(port)))
    }
}

impl Drop for Retry {
    fn drop(&mut self) {
        self.0.retry_budget.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_future_of_a_request_stays_small() {
        fn size_of_future<'e, F: Future>(_: fn(&'e mut Errand) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_future(Errand::answer);
        // 32 of them as in the test of a connection.
        assert!(size <= 1456, "{size} bytes for every request");
        assert!(size_of::<Errand>() <= 368);
    }
}
