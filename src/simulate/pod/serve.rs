//! What a simulated pod does on its ports: HTTP/1.1 and datagrams, answered with its name. Owns the orderly end of
//! a port: connections that the kernel has accepted are served, those at rest are closed, the others finish.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use portico_core::backoff::Backoff;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};

use super::Wish;

/// Connections of one port at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;

/// How long a connection may rest, or take for the head of a request.
const REST: Duration = Duration::from_secs(75);

/// How long an ending pod waits for the first request of a connection that has not sent anything yet: its client
/// may just have been sent here.
const FIRST_REQUEST: Duration = Duration::from_secs(2);

/// Answers on `listener` until the pod is to end, then closes it and returns when the last connection is done.
pub(super) async fn serve_tcp(
    listener: TcpListener,
    name: Arc<str>,
    mut wishes: watch::Receiver<Wish>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    let answer = answer_of(&name);
    let ending = wishes.clone();
    let ended = end_of(&mut wishes);
    tokio::pin!(ended);
    loop {
        // `accept` is cancel safe; an ended connection stays in the set until it is taken.
        tokio::select! {
            biased;
            () = &mut ended => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &places) => if let Ok((stream, place)) = accepted {
                backoff.reset();
                connections.spawn(serve_connection(stream, place, answer.clone(), ending.clone()));
            } else {
                // Out of descriptors, or a connection that was gone before it was taken.
                tokio::select! {
                    () = tokio::time::sleep(backoff.next(u16::MAX)) => {}
                    () = &mut ended => break,
                }
            },
        }
    }
    for stream in take_waiting(listener) {
        connections.spawn(serve_connection(
            stream,
            None,
            answer.clone(),
            ending.clone(),
        ));
    }
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Option<OwnedSemaphorePermit>)> {
    // Never closed, so there is always a permit in the end.
    let place = Arc::clone(places).acquire_owned().await.ok();
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// The body of every answer.
fn answer_of(name: &str) -> Bytes {
    Bytes::from(format!("{name}\n"))
}

/// Waits until the pod is to end.
async fn end_of(wishes: &mut watch::Receiver<Wish>) {
    // An error means that the child ends, and the tasks with it.
    let _closed = wishes.wait_for(|wish| wish.deadline().is_some()).await;
}

/// Closes `listener` and returns the connections that the kernel had accepted for it, which would else be reset.
fn take_waiting(listener: TcpListener) -> Vec<TcpStream> {
    let mut waiting = Vec::new();
    // Asked of the kernel itself, since what the runtime knows is as old as its last look.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, _)) = listener.accept() {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            waiting.extend(stream);
        }
    }
    waiting
}

/// Serves one connection to its end. When the pod is to end: a request that is being served finishes and its answer
/// closes the connection, a connection at rest is closed at once.
async fn serve_connection(
    stream: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
    answer: Bytes,
    mut wishes: watch::Receiver<Wish>,
) {
    if !wait_for_first_bytes(&stream, &mut wishes).await {
        return;
    }
    let service = service_fn(move |request| respond(request, answer.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REST)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // The connection comes first, so that it has read what is there before it is told to end; one that has read
    // nothing would be closed unanswered.
    tokio::select! {
        biased;
        _ = &mut connection => return,
        () = end_of(&mut wishes) => connection.as_mut().graceful_shutdown(),
    }
    // An error is the client's going, or what it sent.
    let _gone = connection.await;
}

/// Waits for a client to send something; `false` when it is not worth waiting any longer.
async fn wait_for_first_bytes(stream: &TcpStream, wishes: &mut watch::Receiver<Wish>) -> bool {
    let ending = async {
        end_of(wishes).await;
        tokio::time::sleep(FIRST_REQUEST).await;
    };
    tokio::select! {
        biased;
        readable = stream.readable() => readable.is_ok(),
        () = tokio::time::sleep(REST) => false,
        () = ending => false,
    }
}

/// The pod's name, whatever is asked; the body of the request is taken first, so that the connection can be kept.
async fn respond(
    request: Request<Incoming>,
    answer: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let mut response = Response::new(Full::new(answer));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Answers each datagram with the pod's name until the pod is to end; those that have arrived by then as well.
pub(super) async fn serve_udp(
    socket: UdpSocket,
    name: Arc<str>,
    mut wishes: watch::Receiver<Wish>,
) {
    // What a datagram says does not matter, so the rest of a longer one may be cut.
    let mut datagram = [0; 16];
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    loop {
        // Both are cancel safe.
        tokio::select! {
            biased;
            () = end_of(&mut wishes) => break,
            received = socket.recv_from(&mut datagram) => match received {
                // An answer that finds no room is a datagram lost, as datagrams may be.
                Ok((_, client)) => {
                    backoff.reset();
                    let _lost = socket.try_send_to(name.as_bytes(), client);
                }
                Err(_) => tokio::time::sleep(backoff.next(u16::MAX)).await,
            },
        }
    }
    let Ok(socket) = socket.into_std() else {
        return;
    };
    while let Ok((_, client)) = socket.recv_from(&mut datagram) {
        let _lost = socket.send_to(name.as_bytes(), client);
    }
}
