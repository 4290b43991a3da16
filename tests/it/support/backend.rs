//! Real servers for tests to put behind Services. Each says who it is and gives back what it is sent; they live until
//! the end of the test's process.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

/// The question that a UDP backend answers with its name; everything else it sends back.
pub(crate) const WHO: &[u8] = b"who?";

/// An HTTP server: the body of its answer is its name, or what it was sent with a `Content-Length`.
pub(crate) fn tcp(addr: impl Into<SocketAddr>, name: &str) {
    let listener = TcpListener::bind(addr.into()).unwrap();
    let name = name.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let name = name.clone();
            thread::spawn(move || answer(stream, &name));
        }
    });
}

fn answer(stream: TcpStream, name: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(text) = line.strip_prefix("content-length: ") {
            length = text.parse().unwrap_or_default();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let body = if body.is_empty() {
        name.as_bytes()
    } else {
        &body
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// A UDP server.
pub(crate) fn udp(addr: impl Into<SocketAddr>, name: &str) {
    let socket = UdpSocket::bind(addr.into()).unwrap();
    let name = name.to_owned();
    thread::spawn(move || {
        let mut datagram = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let asked = &datagram[..length];
            let reply = if asked == WHO { name.as_bytes() } else { asked };
            let _ = socket.send_to(reply, from);
        }
    });
}
