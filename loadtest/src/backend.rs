//! Small HTTP servers of our own on 127.0.0.1, each of which answers with its name. Owns their tasks: they end when
//! the value is dropped.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Most bytes of a request that are read.
const REQUEST_BYTES: u64 = 8 * 1024;

/// Servers that never close their ports: a connection to one of them that fails was failed by somebody else.
pub(crate) struct Backends {
    addrs: Vec<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Backends {
    /// Starts `count` servers on free ports.
    ///
    /// # Errors
    /// A port cannot be had.
    pub(crate) async fn start(count: usize) -> std::io::Result<Self> {
        let mut addrs = Vec::with_capacity(count);
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addrs.push(listener.local_addr()?);
            tasks.spawn(serve(listener, format!("backend-{number}")));
        }
        Ok(Self {
            addrs,
            _tasks: tasks,
        })
    }

    /// Where they listen.
    pub(crate) fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }
}

async fn serve(listener: TcpListener, name: String) {
    let answer = format!(
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{name}\n",
        name.len() + 1
    );
    let mut connections = JoinSet::new();
    loop {
        // Both are cancel safe.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(respond(stream, answer.clone()));
                }
                // Out of descriptors: one becomes free when a connection ends.
                Err(_) => {
                    connections.join_next().await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Reads the head of a request, answers, and waits for the client to close, so that nothing is reset.
async fn respond(mut stream: TcpStream, answer: String) {
    let mut request = Vec::new();
    let mut head = (&mut stream).take(REQUEST_BYTES);
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        if !matches!(head.read_buf(&mut request).await, Ok(read) if read > 0) {
            return;
        }
    }
    if stream.write_all(answer.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
        let mut rest = [0; 64];
        while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    }
}
