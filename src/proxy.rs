//! A door for programs that cannot ask our DNS: one port that speaks SOCKS 5 with names, HTTP as a proxy, and HTTP to
//! `NAME.NAMESPACE.svc.localhost`. Owns its connections; what a name means is asked of the running program each time,
//! so that edits take effect with the next connection, and every connection is balanced like any other.

mod connect;
mod hop;
mod http;
mod socks;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use tokio_util::task::TaskTracker;

use crate::settings::InstanceOptions;

pub use http::usage;

/// Clients at a time; more wait to be accepted.
const MOST_CLIENTS: usize = 1000;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a failed accept: without descriptors trying at once would only fail again.
const PAUSE: Duration = Duration::from_millis(50);

/// What all clients share.
#[derive(Debug)]
pub struct Door {
    /// The program that knows the names.
    pub instance: InstanceOptions,
    /// Where short names are looked for first.
    pub namespace: String,
    /// Where the door itself is.
    pub address: SocketAddr,
    /// Connections that have left HTTP, or are to endpoints.
    pub tasks: TaskTracker,
}

/// Who asks.
#[derive(Debug, Clone)]
struct Client {
    addr: IpAddr,
    /// Given back when the last of its connections has ended, also those that have left HTTP.
    _place: Arc<OwnedSemaphorePermit>,
}

/// Serves `listener` until it is dropped.
pub async fn serve(listener: TcpListener, door: Arc<Door>) {
    let places = Arc::new(Semaphore::new(MOST_CLIENTS));
    let mut clients = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                let client = Client {
                    addr: from.ip(),
                    _place: Arc::new(place),
                };
                clients.spawn(serve_client(stream, client, Arc::clone(&door)));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        while clients.try_join_next().is_some() {}
    }
}

/// The first byte tells SOCKS from HTTP: no method begins with a control character (RFC 9110 section 9.1).
async fn serve_client(stream: TcpStream, client: Client, door: Arc<Door>) {
    let mut first = [0];
    if !matches!(timeout(PATIENCE, stream.peek(&mut first)).await, Ok(Ok(1))) {
        return;
    }
    match first {
        [socks::VERSION] => socks::serve(stream, &client, &door).await,
        [socks::VERSION_4] => socks::reject_version_4(stream).await,
        _ => http::serve(stream, client, door).await,
    }
}

/// One end of a pipe.
trait End: AsyncRead + AsyncWrite + Unpin {
    /// Ends it so that nobody can take what has come for all there was.
    fn reset(self);
}

impl End for TcpStream {
    fn reset(self) {
        let _gone = self.set_zero_linger();
    }
}

/// Bytes both ways until both ends have said that they are done. If one ends otherwise, both are reset.
async fn relay(mut client: impl End, mut endpoint: impl End) {
    if copy_bidirectional(&mut client, &mut endpoint)
        .await
        .is_err()
    {
        client.reset();
        endpoint.reset();
    }
}
