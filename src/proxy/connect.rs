//! From a name and a port to a connection. Owns who may go where and the words for what fails.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use super::{Client, Door};
use crate::{
    admin::client::post_async,
    control::way::{Wanted, Way},
};

/// Longest wait for one address; then the next one is tried.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no connection, in words for the user.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoConnection {
    /// The running program does not answer.
    #[error("{0:#}")]
    Program(anyhow::Error),
    /// It says that there is nothing.
    #[error("{0}")]
    Nowhere(String),
    /// A neighbour asks for what is not ours.
    #[error("{0} is no Service, and only programs of this machine are let out")]
    Forbidden(String),
    /// The operating system knows no such name.
    #[error("cannot find {0}: {1}")]
    Unknown(String, io::Error),
    /// Nobody there; the address that was tried last.
    #[error("cannot reach {0} at {1}: {2}")]
    Failed(String, SocketAddr, io::Error),
}

/// Connects `client` to `host`; without a port, to the one that a browser would mean.
pub(super) async fn connect(
    door: &Door,
    client: &Client,
    (host, port): (&str, Option<u16>),
) -> Result<TcpStream, NoConnection> {
    let wanted = Wanted {
        host: host.to_owned(),
        port,
        namespace: door.namespace.clone(),
    };
    let addresses = match ask(door, &wanted).await.map_err(NoConnection::Program)? {
        Way::Addresses(addresses) => addresses,
        Way::Nowhere(why) => return Err(NoConnection::Nowhere(why)),
        // Else the door would be an open proxy for its neighbours.
        Way::Elsewhere(name, _) if !client.addr.to_canonical().is_loopback() => {
            return Err(NoConnection::Forbidden(name));
        }
        Way::Elsewhere(name, port) => {
            let found = tokio::net::lookup_host((name.as_str(), port)).await;
            let unknown = |error| NoConnection::Unknown(name.clone(), error);
            found.map_err(unknown)?.collect()
        }
    };
    let mut last = NoConnection::Nowhere(format!("{host} has no address"));
    for address in addresses {
        let error = match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _hint = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        last = NoConnection::Failed(host.to_owned(), address, error);
    }
    Err(last)
}

async fn ask(door: &Door, wanted: &Wanted) -> anyhow::Result<Way> {
    let answer = post_async(&door.instance, "/v1/way", wanted).await?;
    Ok(serde_json::from_slice(&answer)?)
}
