//! What a simulated pod does on its ports: HTTP/1.1, HTTP/2 with prior knowledge (RFC 9113, section 3.3) and
//! datagrams. Owns the orderly end of a port: connections that the kernel has accepted are served, those at rest get
//! one more answer, which closes them, the others finish. What is answered belongs to `answer`.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{
    Request, Version,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use portico_core::backoff::Backoff;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

use super::{Wish, answer::Answers, log::Entry};

/// Connections of one port at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;

/// How long a connection may rest, or take for the head of a request.
const REST: Duration = Duration::from_secs(75);

/// How long an ending pod waits for one more request on a connection at rest. Its client may just have been sent here,
/// or be about to use a connection that it knows: closed under it, the request would be lost, while an answer with
/// `Connection: close` tells it (RFC 9112, section 9.6).
const LAST_REQUEST: Duration = Duration::from_secs(2);

/// Most bytes of a datagram (RFC 768: the length is a number of 16 bits).
const LONGEST_DATAGRAM: usize = 65_535;

/// What begins an HTTP/2 connection, and no request of HTTP/1.1.
const HTTP_2: &[u8] = b"PRI";

/// Answers on `listener` until the pod is to end, then closes it and returns when the last connection is done.
pub(super) async fn serve_tcp(
    listener: TcpListener,
    answers: Arc<Answers>,
    mut wishes: watch::Receiver<Wish>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    let ending = wishes.clone();
    let ended = end_of(&mut wishes);
    tokio::pin!(ended);
    loop {
        // `accept` is cancel safe; an ended connection stays in the set until it is taken.
        tokio::select! {
            biased;
            () = &mut ended => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &places) => if let Ok((accepted, place)) = accepted {
                backoff.reset();
                connections.spawn(serve_connection(accepted, place, Arc::clone(&answers), ending.clone()));
            } else {
                // Out of descriptors, or a connection that was gone before it was taken.
                tokio::select! {
                    () = tokio::time::sleep(backoff.next(u16::MAX)) => {}
                    () = &mut ended => break,
                }
            },
        }
    }
    for accepted in take_waiting(listener) {
        let answers = Arc::clone(&answers);
        connections.spawn(serve_connection(accepted, None, answers, ending.clone()));
    }
    while connections.join_next().await.is_some() {}
}

/// A connection and who has opened it.
type Accepted = (TcpStream, SocketAddr);

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(Accepted, Option<OwnedSemaphorePermit>)> {
    // Never closed, so there is always a permit in the end.
    let place = Arc::clone(places).acquire_owned().await.ok();
    Ok((listener.accept().await?, place))
}

/// A port that is not served.
pub(super) async fn wait_for_end(mut wishes: watch::Receiver<Wish>) {
    end_of(&mut wishes).await;
}

/// Waits until the port is to end.
async fn end_of(wishes: &mut watch::Receiver<Wish>) {
    // An error means that the child ends, and the tasks with it.
    let _closed = wishes.wait_for(|wish| wish.deadline().is_some()).await;
}

/// Closes `listener` and returns the connections that the kernel had accepted for it, which would else be reset.
fn take_waiting(listener: TcpListener) -> Vec<Accepted> {
    let mut waiting = Vec::new();
    // Asked of the kernel itself, since what the runtime knows is as old as its last look.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, client)) = listener.accept() {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            waiting.extend(stream.map(|stream| (stream, client)));
        }
    }
    waiting
}

/// Serves one connection to its end. When the pod is to end: a request that is being served finishes and its answer
/// closes the connection, a connection at rest is closed at once.
async fn serve_connection(
    (stream, client): Accepted,
    _place: Option<OwnedSemaphorePermit>,
    answers: Arc<Answers>,
    mut wishes: watch::Receiver<Wish>,
) {
    if !wait_for_first_bytes(&stream, &mut wishes).await {
        return;
    }
    let closing = wishes.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        // HTTP/2 has no such header: there the connection itself is told (RFC 9113, section 8.2.2).
        let says_so = request.version() < Version::HTTP_2;
        let (answers, closing) = (Arc::clone(&answers), closing.clone());
        async move {
            let mut response = answers.respond(request, client).await?;
            if says_so && closing.borrow().deadline().is_some() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut first = [0; HTTP_2.len()];
    let is_http_2 = stream.peek(&mut first).await.is_ok() && first == *HTTP_2;
    let stream = TokioIo::new(stream);
    // The connection comes first, so that it has read what is there before it is told to end; one that has read
    // nothing would be closed unanswered. An error is the client's going, or what it sent.
    if is_http_2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(REST)
            .serve_connection(stream, service);
        tokio::pin!(connection);
        tokio::select! {
            biased;
            _ = &mut connection => return,
            () = end_of(&mut wishes) => connection.as_mut().graceful_shutdown(),
        }
        let _gone = connection.await;
        return;
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REST)
        .serve_connection(stream, service);
    tokio::pin!(connection);
    let quiet = async {
        end_of(&mut wishes).await;
        tokio::time::sleep(LAST_REQUEST).await;
    };
    tokio::select! {
        biased;
        _ = &mut connection => return,
        () = quiet => connection.as_mut().graceful_shutdown(),
    }
    let _gone = connection.await;
}

/// Waits for a client to send something; `false` when it is not worth waiting any longer.
async fn wait_for_first_bytes(stream: &TcpStream, wishes: &mut watch::Receiver<Wish>) -> bool {
    let ending = async {
        end_of(wishes).await;
        tokio::time::sleep(LAST_REQUEST).await;
    };
    tokio::select! {
        biased;
        readable = stream.readable() => readable.is_ok(),
        () = tokio::time::sleep(REST) => false,
        () = ending => false,
    }
}

/// Answers each datagram with the pod's name until the port is to end; those that have arrived by then as well.
pub(super) async fn serve_udp(
    socket: UdpSocket,
    answers: Arc<Answers>,
    mut wishes: watch::Receiver<Wish>,
) {
    let mut datagram = vec![0; LONGEST_DATAGRAM];
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    let name = answers.manner.name.as_bytes();
    let log = |bytes, client| answers.log.write(Entry::Datagram { bytes, client });
    loop {
        // Both are cancel safe.
        tokio::select! {
            biased;
            () = end_of(&mut wishes) => break,
            received = socket.recv_from(&mut datagram) => match received {
                // An answer that finds no room is a datagram lost, as datagrams may be.
                Ok((bytes, client)) => {
                    backoff.reset();
                    let _lost = socket.try_send_to(name, client);
                    log(bytes, client);
                }
                Err(_) => tokio::time::sleep(backoff.next(u16::MAX)).await,
            },
        }
    }
    let Ok(socket) = socket.into_std() else {
        return;
    };
    while let Ok((bytes, client)) = socket.recv_from(&mut datagram) {
        let _lost = socket.send_to(name, client);
        log(bytes, client);
    }
}
