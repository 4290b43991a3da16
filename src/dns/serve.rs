//! The loops around the streams, and the life of all. Owns time-outs and the number of connections; a message goes in
//! and its response out without waiting for anything but the socket. Datagrams are the `responder`'s.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use portico_core::snapshot::ClientPlace;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{DnsListeners, DnsService, responder::Responders, slow};

/// The most connections at one time, over all addresses; the next one waits in the kernel's queue.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// How long a connection may be without a query.
const IDLE: Duration = Duration::from_secs(10);
/// How long the rest of a query may take after its first byte.
const READ: Duration = Duration::from_secs(3);
/// How long a client may take to read responses.
const WRITE: Duration = Duration::from_secs(5);
/// Room for what is read at once: some dozens of queries.
const CHUNK: usize = 4096;
/// Bytes of responses that are not held back until all that has arrived is answered.
const ENOUGH: usize = 65_536;
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
    let served = async {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?.ip();
        let cluster = Arc::clone(&service.published.load().cluster);
        let place = cluster.place_of(Some(client.ip()), local);
        serve_connection(stream, (client.ip(), place), service).await
    };
    if let Err(error) = served.await {
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

/// Answers queries in the order in which they come, all that have arrived at once with one write (RFC 7766 sections
/// 6.2.1 and 8), until the client closes or falls silent, or sends what gets no response.
pub(super) async fn serve_connection<S>(
    mut stream: S,
    client: (IpAddr, ClientPlace),
    service: &DnsService,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frames = Frames::default();
    let (mut reply, mut out) = (Vec::new(), Vec::new());
    // When the first byte of a query came that has not come whole.
    let mut begun = None;
    loop {
        while let Some(message) = frames.next() {
            begun = None;
            if !service.answer_message(message, client, &mut reply).await {
                return write(&mut stream, &mut out).await;
            }
            let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&reply);
            if out.len() >= ENOUGH {
                write(&mut stream, &mut out).await?;
            }
        }
        write(&mut stream, &mut out).await?;
        let now = Instant::now();
        let is_idle = frames.is_empty();
        let deadline = if is_idle {
            now + IDLE
        } else {
            *begun.get_or_insert(now) + READ
        };
        match timeout_at(deadline, frames.read(&mut stream)).await {
            Ok(Ok(0)) if !is_idle => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(0)) => return Ok(()),
            Ok(read) => read?,
            Err(_) if is_idle => return Ok(()),
            Err(elapsed) => return Err(elapsed.into()),
        };
    }
}

/// Sends `out` and empties it.
async fn write<S: AsyncWrite + Unpin>(stream: &mut S, out: &mut Vec<u8>) -> io::Result<()> {
    if !out.is_empty() {
        timeout(WRITE, stream.write_all(out)).await??;
        out.clear();
    }
    Ok(())
}

/// Messages behind their lengths (RFC 1035 section 4.2.2), as they arrive. Only what has arrived is stored, whatever a
/// length says.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    taken: usize,
}

impl Frames {
    /// The next message that is there as a whole.
    fn next(&mut self) -> Option<&[u8]> {
        let (length, rest) = self.bytes.get(self.taken..)?.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let message = rest.get(..length)?;
        self.taken += size_of::<u16>() + length;
        Some(message)
    }

    /// Whether nothing has arrived of another message.
    const fn is_empty(&self) -> bool {
        self.bytes.len() == self.taken
    }

    /// Waits for more; 0 bytes are the end.
    ///
    /// # Cancel safety
    /// Nothing that was read is lost.
    async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<usize> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.reserve(CHUNK);
        stream.read_buf(&mut self.bytes).await
    }
}
