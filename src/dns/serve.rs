//! The loops around the streams, and the life of all. Owns time-outs and the number of connections; a message goes in
//! and its response out without waiting for anything but the socket. Datagrams are the `responder`'s.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread,
    time::Duration,
};

use portico_core::{dns::packet::Transport, snapshot::ClientPlace};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    DnsListeners, DnsService, connections::Connection, forward::count, listen::Namespace,
    responder::Responders, slow,
};

/// How long a connection may be without a query.
const IDLE: Duration = Duration::from_secs(10);
/// How long the rest of a query may take after its first byte.
const READ: Duration = Duration::from_secs(3);
/// How long a client may take to read responses.
const WRITE: Duration = Duration::from_secs(5);
/// Queries of one connection that others are being asked for; the next one waits in the kernel's buffer.
const MAX_ASKED: usize = 64;
/// Room for what is read at once: some dozens of queries.
const CHUNK: usize = 4096;
/// Bytes of responses that are not held back until all that has arrived is answered.
const ENOUGH: usize = 65_536;
/// How long a socket rests after an error that is no single client's, such as a lack of descriptors.
const REST: Duration = Duration::from_millis(50);

/// Serves `listeners` until `cancel`. Connections that are open then are closed.
pub async fn serve(listeners: DnsListeners, service: Arc<DnsService>, cancel: CancellationToken) {
    let mut loops = JoinSet::new();
    let threads = match listeners.namespace {
        Namespace::Ours => {
            let own = listeners.bound().iter().filter_map(|bound| bound.addr);
            service.forwarder.add_own(own);
            thread::available_parallelism().map_or(1, usize::from)
        }
        // Who is asked is asked from ours, and one thread does for the clients.
        Namespace::Another => 1,
    };
    let (datagrams, streams): (Vec<_>, Vec<_>) = listeners.sockets.into_iter().unzip();
    let (slow, waiting) = slow::queue();
    loops.spawn(slow::answer(waiting, Arc::clone(&service)));
    let responders = Responders::start((datagrams, threads), &service, &slow);
    if let Err(error) = &responders {
        tracing::error!(target: "dns", %error, "cannot answer over UDP");
    }
    for tcp in streams {
        loops.spawn(serve_tcp(tcp, Arc::clone(&service)));
    }
    // Dropping the set ends the loops, and with each its connections; dropping the responders ends their threads.
    cancel.cancelled().await;
}

async fn serve_tcp(listener: TcpListener, service: Arc<DnsService>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, client)) => {
                let service = Arc::clone(&service);
                connections.spawn(async move { serve_stream(stream, client, &service).await });
            }
            Err(error) => {
                tracing::debug!(target: "dns", %error, "cannot accept");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn serve_stream(stream: TcpStream, client: SocketAddr, service: &Arc<DnsService>) {
    let (held, was_full) = service.connections.enter(client.ip());
    if was_full {
        count(&service.counters.displaced);
    }
    let connection = &held.connection;
    let served = async {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?.ip();
        let cluster = Arc::clone(&service.published.load().cluster);
        let place = cluster.place_of(Some(client.ip()), local);
        serve_connection(stream, (client.ip(), place), service, connection).await
    };
    match connection.closing.run_until_cancelled(served).await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(target: "dns", %client, %error, "connection ended"),
        None => tracing::debug!(target: "dns", %client, "connection gave way to another one"),
    }
}

/// Answers queries, all that have arrived at once with one write (RFC 7766 section 8), until the client closes or falls
/// silent, or sends what gets no response. What others have to be asked for holds up nothing else: its response may come
/// after later ones (section 7).
pub(super) async fn serve_connection<S>(
    mut stream: S,
    client: (IpAddr, ClientPlace),
    service: &Arc<DnsService>,
    connection: &Connection,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut frames = Frames::default();
    let (mut reply, mut out) = (Vec::new(), Vec::new());
    // Dropping it ends what is still asked of others.
    let mut asked = JoinSet::new();
    let mut is_open = true;
    loop {
        while asked.len() < MAX_ASKED
            && let Some(message) = frames.next()
        {
            match service.answer_message(message, client, &mut reply) {
                None => return write(&mut stream, &mut out).await,
                Some(said) if said.is_foreign => {
                    asked.spawn(ask_others(
                        Arc::clone(service),
                        Box::from(message),
                        client.1,
                    ));
                }
                Some(_) => push(&mut out, &reply)?,
            }
            if out.len() >= ENOUGH {
                write(&mut stream, &mut out).await?;
            }
        }
        write(&mut stream, &mut out).await?;
        if !is_open && asked.is_empty() {
            return frames.end();
        }
        connection.note(asked.len());
        let deadline = frames.deadline(Instant::now());
        // Both are cancel safe.
        tokio::select! {
            Some(answered) = asked.join_next() => {
                if let Ok(Some(response)) = answered {
                    push(&mut out, &response)?;
                }
            }
            read = timeout_at(deadline, frames.read(&mut stream)), if is_open && asked.len() < MAX_ASKED => match read {
                Ok(read) => is_open = read? > 0,
                Err(elapsed) if !frames.is_empty() => return Err(elapsed.into()),
                Err(_) => is_open = false,
            },
        }
    }
}

/// The response to a name that is not ours, counted.
async fn ask_others(
    service: Arc<DnsService>,
    packet: Box<[u8]>,
    place: ClientPlace,
) -> Option<Vec<u8>> {
    let response = slow::resolve(&service, &packet, (Transport::Tcp, place)).await?;
    service.counters.count_response(&response);
    Some(response.bytes)
}

/// Adds `response` behind its length.
fn push(out: &mut Vec<u8>, response: &[u8]) -> io::Result<()> {
    let length = u16::try_from(response.len()).map_err(io::Error::other)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(response);
    Ok(())
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
    /// When the first byte of a message was seen that has not come whole.
    begun: Option<Instant>,
}

impl Frames {
    /// The next message that is there as a whole.
    fn next(&mut self) -> Option<&[u8]> {
        let (length, rest) = self.bytes.get(self.taken..)?.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let message = rest.get(..length)?;
        self.taken += size_of::<u16>() + length;
        self.begun = None;
        Some(message)
    }

    /// Until when to wait for more.
    fn deadline(&mut self, now: Instant) -> Instant {
        if self.is_empty() {
            now + IDLE
        } else {
            *self.begun.get_or_insert(now) + READ
        }
    }

    /// Whether the client may end here.
    fn end(&self) -> io::Result<()> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
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
