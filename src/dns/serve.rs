//! The loops around the streams, and the life of all. Owns time-outs and the number of connections; a message goes in
//! and its response out without waiting for anything but the socket. Datagrams are the `responder`'s.

use std::{io, net::SocketAddr, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{DnsListeners, DnsService, responder::Responders, slow};

/// The most connections at one time, over all addresses; the next one waits in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// How long a connection may be without a query.
const IDLE: Duration = Duration::from_secs(10);
/// How long the rest of a query may take after its first byte.
const READ: Duration = Duration::from_secs(3);
/// How long a client may take to read a response.
const WRITE: Duration = Duration::from_secs(5);
/// How long a socket rests after an error that is no single client's, such as a lack of descriptors.
const REST: Duration = Duration::from_millis(50);

/// Serves `listeners` until `cancel`. Connections that are open then are closed.
pub async fn serve(listeners: DnsListeners, service: Arc<DnsService>, cancel: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut loops = JoinSet::new();
    let own = listeners.bound().iter().filter_map(|bound| bound.addr);
    service.forwarder.add_own(own);
    let (datagrams, streams): (Vec<_>, Vec<_>) = listeners.sockets.into_iter().unzip();
    let (slow, waiting) = slow::queue();
    loops.spawn(slow::answer(waiting, Arc::clone(&service)));
    let responders = Responders::start(datagrams, &service, &slow);
    if let Err(error) = &responders {
        tracing::error!(target: "dns", %error, "cannot answer over UDP");
    }
    for tcp in streams {
        loops.spawn(serve_tcp(tcp, Arc::clone(&service), Arc::clone(&permits)));
    }
    // Dropping the set ends the loops, and with each its connections; dropping the responders ends their threads.
    cancel.cancelled().await;
}

async fn serve_tcp(listener: TcpListener, service: Arc<DnsService>, permits: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                let service = Arc::clone(&service);
                connections.spawn(async move {
                    let _permit = permit;
                    serve_stream(stream, client, &service).await;
                });
            }
            Err(error) => {
                tracing::debug!(target: "dns", %error, "cannot accept");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn serve_stream(stream: TcpStream, client: SocketAddr, service: &DnsService) {
    service.counters.connections.fetch_add(1, Relaxed);
    let open = Open(service);
    let result = match stream.set_nodelay(true) {
        Ok(()) => serve_connection(stream, service).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::debug!(target: "dns", %client, %error, "connection ended");
    }
    drop(open);
}

/// Counts a connection off, also when its task is dropped.
struct Open<'a>(&'a DnsService);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counters.connections.fetch_sub(1, Relaxed);
    }
}

/// Answers queries in the order in which they come, as many as the client has sent (RFC 7766 section 6.2.1), until it
/// closes or falls silent, or sends what gets no response.
pub(super) async fn serve_connection<S>(stream: S, service: &DnsService) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    let mut frame = Vec::new();
    loop {
        let first = match timeout(IDLE, stream.read_u8()).await {
            Ok(Ok(byte)) => byte,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        timeout(READ, read_frame(&mut stream, first, &mut frame)).await??;
        let Some(response) = service.ask(&frame).await else {
            return Ok(());
        };
        let length = u16::try_from(response.bytes.len()).map_err(io::Error::other)?;
        // One write, or the length alone may travel as a packet of its own.
        frame.clear();
        frame.extend(length.to_be_bytes());
        frame.extend(response.bytes);
        timeout(WRITE, stream.write_all(&frame)).await??;
    }
}

/// Reads the message behind the length that starts with `first` (RFC 1035 section 4.2.2).
async fn read_frame<S: AsyncRead + Unpin>(
    stream: &mut S,
    first: u8,
    frame: &mut Vec<u8>,
) -> io::Result<()> {
    let length = u16::from_be_bytes([first, stream.read_u8().await?]);
    frame.clear();
    // Only what arrives is stored, whatever the length says.
    let read = stream.take(u64::from(length)).read_to_end(frame).await?;
    if read < usize::from(length) {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(())
    }
}
