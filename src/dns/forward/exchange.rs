//! One question to one server and its response. Owns sockets and times of one try; every try has a socket of its own,
//! so that the kernel draws the port and nobody can guess it (RFC 5452 section 9.2).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use portico_core::{
    dns::Name,
    dns_cache::message::{self, Message, Relayed},
};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long one try may take in each protocol.
const TRY: Duration = Duration::from_secs(2);
/// Bytes of a datagram that are read: we say that we take 1232.
const LARGEST: usize = 4096;

/// What came over UDP.
enum Heard {
    Whole(Message),
    /// The first part.
    Cut(Vec<u8>),
}

/// The response of the server at `addr` to `query`: over UDP, and once more over TCP if it was cut. If that fails it
/// stays cut.
pub(super) async fn ask(addr: SocketAddr, query: &Relayed) -> io::Result<Message> {
    let [high, low] = random()?;
    let packet = query.packet(u16::from_be_bytes([high, low]));
    let cut = match timeout(TRY, over_udp(addr, &packet)).await?? {
        Heard::Whole(message) => return Ok(message),
        Heard::Cut(bytes) => bytes,
    };
    match timeout(TRY, over_tcp(addr, &packet)).await {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(_)) | Err(_) => Message::read(&cut, &packet).ok_or_else(malformed),
    }
}

/// Whatever is no response to `packet` is not listened to: anybody may have sent it.
async fn over_udp(addr: SocketAddr, packet: &[u8]) -> io::Result<Heard> {
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(addr).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if message::is_cut(bytes, packet) {
            return Ok(Heard::Cut(bytes.to_vec()));
        }
        if let Some(message) = Message::read(bytes, packet) {
            return Ok(Heard::Whole(message));
        }
    }
}

async fn over_tcp(addr: SocketAddr, packet: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(addr).await?;
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(packet);
    stream.write_all(&frame).await?;
    let length = stream.read_u16().await?;
    frame.clear();
    // Only what arrives is stored, whatever the length says.
    stream
        .take(u64::from(length))
        .read_to_end(&mut frame)
        .await?;
    Message::read(&frame, packet).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed response")
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}

/// A name below `domain` that nobody else can know.
pub(super) fn secret_name(domain: &Name) -> Option<Name> {
    let secret = u128::from_be_bytes(random().ok()?);
    // The root is a dot already.
    Name::parse(format!("{secret:032x}.{domain}").trim_end_matches('.')).ok()
}
