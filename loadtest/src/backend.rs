//! Small servers of our own on 127.0.0.1: HTTP ones, each of which answers with its name, and ones that count bytes. Owns
//! their tasks: they end when the value is dropped.

use std::{future::Future, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Most bytes of a request that are read.
const REQUEST_BYTES: usize = 8 * 1024;
/// Read at a time by a sink.
const SINK_BYTES: usize = 256 * 1024;

/// Servers of one kind that never close their ports: a connection to one of them that fails was failed by somebody else.
pub(crate) struct Servers {
    addrs: Vec<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Servers {
    /// Starts `count` servers on free ports, each of which answers connections in the way that its number gets.
    ///
    /// # Errors
    /// A port cannot be had.
    pub(crate) async fn start<A, F>(
        count: usize,
        answering: impl Fn(usize) -> A,
    ) -> std::io::Result<Self>
    where
        A: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut addrs = Vec::with_capacity(count);
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addrs.push(listener.local_addr()?);
            tasks.spawn(serve(listener, answering(number)));
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

/// Servers of HTTP/1, each of which answers with its name.
///
/// # Errors
/// A port cannot be had.
pub(crate) async fn named(count: usize) -> std::io::Result<Servers> {
    let answering = |number| {
        let name = format!("backend-{number}");
        move |stream| respond(stream, name.clone())
    };
    Servers::start(count, answering).await
}

/// Servers that read to the end and then say how many bytes came.
///
/// # Errors
/// A port cannot be had.
pub(crate) async fn sinks(count: usize) -> std::io::Result<Servers> {
    Servers::start(count, |_| swallow).await
}

/// Accepts for ever, with a task for each connection.
pub(crate) async fn serve<F>(listener: TcpListener, answer: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        // Both are cancel safe.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(answer(stream));
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

/// Answers requests, as long as the client keeps the connection, and waits for it to close, so that nothing is reset.
async fn respond(mut stream: TcpStream, name: String) {
    let _ = stream.set_nodelay(true);
    let mut received = Vec::new();
    let length = name.len() + 1;
    loop {
        let Some(head) = head(&mut stream, &mut received).await else {
            return;
        };
        let is_kept = head.contains("HTTP/1.1") && !head.contains("connection: close");
        let connection = if is_kept { "keep-alive" } else { "close" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{name}\n"
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if !is_kept {
            break;
        }
    }
    if stream.shutdown().await.is_ok() {
        let mut rest = [0; 64];
        while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    }
}

/// The next request's head with header names in lower case, taken out of `received`.
async fn head(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..end + 4).collect();
            let text = String::from_utf8_lossy(&head);
            return Some(text.replace("Connection:", "connection:"));
        }
        let read = stream.read_buf(received).await.ok()?;
        if read == 0 || received.len() > REQUEST_BYTES {
            return None;
        }
    }
}

async fn swallow(mut stream: TcpStream) {
    let mut buffer = vec![0; SINK_BYTES];
    let mut count: u64 = 0;
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => count += u64::try_from(read).unwrap_or_default(),
            Err(_) => return,
        }
    }
    let _ = stream.write_all(format!("{count}\n").as_bytes()).await;
    let _ = stream.shutdown().await;
}
