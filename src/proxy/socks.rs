//! SOCKS 5 (RFC 1928): CONNECT without authentication, to names and addresses. Owns the bytes of the handshake.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    Client, Door, PATIENCE,
    connect::{NoConnection, connect},
    relay,
};

/// First byte of everything that a client says.
pub(super) const VERSION: u8 = 5;
/// The version before, which knows no names.
pub(super) const VERSION_4: u8 = 4;

/// What a client of version 4 is told: rejected.
const REJECTED_4: [u8; 8] = [0, 0x5b, 0, 0, 0, 0, 0, 0];
/// No method that the client offers is acceptable (section 3).
const NO_METHOD: u8 = 0xff;

/// Replies (section 6).
const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const NO_SUCH_COMMAND: u8 = 7;
const NO_SUCH_ADDRESS_TYPE: u8 = 8;

/// Why a handshake ends early.
#[derive(Debug)]
enum Bad {
    /// The client has gone, or does not speak SOCKS: nothing can be said to it.
    Silent,
    /// To be said.
    Reply(u8),
}

impl From<io::Error> for Bad {
    fn from(_: io::Error) -> Self {
        Self::Silent
    }
}

/// Serves one client from its first byte.
pub(super) async fn serve(mut stream: TcpStream, client: &Client, door: &Door) {
    let said = timeout(PATIENCE, handshake(&mut stream)).await;
    let found = match said.unwrap_or(Err(Bad::Silent)) {
        Ok((host, port)) => connect(door, client, (&host, Some(port)))
            .await
            .map_err(|error| Bad::Reply(reply_to(&error))),
        Err(bad) => Err(bad),
    };
    match found {
        Ok(endpoint) => {
            let bound = endpoint.local_addr().unwrap_or(door.address);
            if stream.write_all(&reply(SUCCEEDED, bound)).await.is_ok() {
                relay(stream, endpoint).await;
            }
        }
        Err(Bad::Reply(code)) => drop(stream.write_all(&reply(code, door.address)).await),
        Err(Bad::Silent) => {}
    }
}

/// Version 4 can name no Service.
pub(super) async fn reject_version_4(mut client: TcpStream) {
    // What is left unread would reset the connection, and the answer with it.
    let _request = timeout(PATIENCE, client.read(&mut [0; 512])).await;
    let _gone = client.write_all(&REJECTED_4).await;
}

/// Agrees on no authentication and reads where the client wants to go.
async fn handshake(client: &mut TcpStream) -> Result<(String, u16), Bad> {
    let [_version, count] = read(client).await?;
    let mut methods = vec![0; usize::from(count)];
    client.read_exact(&mut methods).await?;
    if !methods.contains(&0) {
        client.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(Bad::Silent);
    }
    client.write_all(&[VERSION, 0]).await?;
    request(client).await
}

async fn request(client: &mut (impl AsyncRead + Unpin)) -> Result<(String, u16), Bad> {
    let [version, command, _reserved, kind] = read(client).await?;
    if version != VERSION {
        return Err(Bad::Silent);
    }
    let host = match kind {
        1 => Ipv4Addr::from(read::<4>(client).await?).to_string(),
        3 => {
            let [length] = read(client).await?;
            let mut name = vec![0; usize::from(length)];
            client.read_exact(&mut name).await?;
            String::from_utf8(name).map_err(|_| Bad::Reply(GENERAL_FAILURE))?
        }
        4 => Ipv6Addr::from(read::<16>(client).await?).to_string(),
        _ => return Err(Bad::Reply(NO_SUCH_ADDRESS_TYPE)),
    };
    let port = u16::from_be_bytes(read(client).await?);
    // Listening for somebody (2) and UDP (3) are not offered.
    if command != 1 {
        return Err(Bad::Reply(NO_SUCH_COMMAND));
    }
    Ok((host, port))
}

async fn read<const N: usize>(client: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn reply_to(error: &NoConnection) -> u8 {
    match error {
        NoConnection::Program(_) => GENERAL_FAILURE,
        NoConnection::Forbidden(_) => NOT_ALLOWED,
        NoConnection::Failed(_, _, error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            REFUSED
        }
        NoConnection::Nowhere(_) | NoConnection::Unknown(..) | NoConnection::Failed(..) => {
            HOST_UNREACHABLE
        }
    }
}

fn reply(code: u8, bound: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![VERSION, code, 0];
    match bound {
        SocketAddr::V4(addr) => {
            bytes.push(1);
            bytes.extend(addr.ip().octets());
        }
        SocketAddr::V6(addr) => {
            bytes.push(4);
            bytes.extend(addr.ip().octets());
        }
    }
    bytes.extend(bound.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn requested(mut bytes: &[u8]) -> Result<(String, u16), Bad> {
        request(&mut bytes).await
    }

    #[tokio::test]
    async fn request_of_each_kind_of_address_is_read() {
        let name = requested(b"\x05\x01\x00\x03\x03web\x00\x50").await.unwrap();
        assert_eq!(name, ("web".to_owned(), 80));
        let v4 = requested(b"\x05\x01\x00\x01\x7f\x60\x01\x02\x1f\x90").await;
        assert_eq!(v4.unwrap(), ("127.96.1.2".to_owned(), 8080));
        let v6 = requested(b"\x05\x01\x00\x04\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\x01\xbb").await;
        assert_eq!(v6.unwrap(), ("fd00::10".to_owned(), 443));
    }

    #[tokio::test]
    async fn request_that_cannot_be_served_has_its_reply() {
        for (bytes, code) in [
            (
                &b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50"[..],
                NO_SUCH_COMMAND,
            ),
            (b"\x05\x03\x00\x01\x7f\x00\x00\x01\x00\x50", NO_SUCH_COMMAND),
            (b"\x05\x01\x00\x07", NO_SUCH_ADDRESS_TYPE),
            (b"\x05\x01\x00\x03\x02\xff\xfe\x00\x50", GENERAL_FAILURE),
        ] {
            assert!(matches!(requested(bytes).await, Err(Bad::Reply(found)) if found == code));
        }
        for bytes in [
            &b""[..],
            b"\x05",
            b"\x04\x01\x00\x01",
            b"\x05\x01\x00\x03\x10web",
        ] {
            assert!(matches!(requested(bytes).await, Err(Bad::Silent)));
        }
    }
}
