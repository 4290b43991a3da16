//! Clients with an address of their own choice, and what becomes of their connections.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use rustix::net::{
    AddressFamily, SocketType, bind, connect, socket,
    sockopt::{Timeout, set_socket_timeout},
};

use super::PATIENCE;

/// Whatever address the system chooses.
pub(crate) const ANYWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// How long a client waits for what is not to come: Kubernetes' own tests take 2 s, for other machines.
const IN_VAIN: Duration = Duration::from_millis(400);

/// The body of the answer to one request on a connection of its own, from address `from`.
pub(crate) fn get_from(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<String> {
    let answer = exchange((from, to), &[], PATIENCE)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What a server says to `body`, from any address.
pub(crate) fn post(to: SocketAddr, body: &[u8]) -> std::io::Result<Vec<u8>> {
    exchange((ANYWHERE, to), body, PATIENCE)
}

/// Whether a connection from `from` is refused at once.
pub(crate) fn is_refused(from: Ipv4Addr, to: SocketAddr) -> bool {
    let outcome = exchange((from, to), &[], PATIENCE);
    outcome.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Whether a connection from `from` comes to nothing and is not refused: dropped in silence, or reset once accepted,
/// which stands for that where no filter may be set.
pub(crate) fn is_dropped(from: Ipv4Addr, to: SocketAddr) -> bool {
    let outcome = exchange((from, to), &[], IN_VAIN);
    outcome.is_err_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::TimedOut
                | ErrorKind::WouldBlock
        )
    })
}

/// Whether that happens to five clients, at once for the sake of time.
pub(crate) fn are_five_dropped(from: Ipv4Addr, to: SocketAddr) -> bool {
    std::thread::scope(|scope| {
        let clients = [(); 5].map(|()| scope.spawn(|| is_dropped(from, to)));
        clients.map(|client| client.join().unwrap()) == [true; 5]
    })
}

fn exchange(
    (from, to): (Ipv4Addr, SocketAddr),
    body: &[u8],
    patience: Duration,
) -> std::io::Result<Vec<u8>> {
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    // connect(2) waits no longer than this either (socket(7)).
    set_socket_timeout(&fd, Timeout::Send, Some(patience))?;
    set_socket_timeout(&fd, Timeout::Recv, Some(patience))?;
    bind(&fd, &SocketAddr::from((from, 0)))?;
    connect(&fd, &to).map_err(|error| match error {
        rustix::io::Errno::INPROGRESS => ErrorKind::TimedOut.into(),
        error => std::io::Error::from(error),
    })?;
    let mut stream = TcpStream::from(fd);
    let mut request = b"POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n".to_vec();
    request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    request.extend(body);
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
    match head {
        Some(head) => Ok(answer.split_off(head + 4)),
        None => Err(ErrorKind::ConnectionReset.into()),
    }
}
