//! HTTP ports before endpoints that end connections: idle ones under a request, which must not show, and those in the midst of an answer,
//! which must.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Run,
    ground::{Ground, PATIENCE},
    result::Line,
};
use crate::{backend, figure::number, report::Counts};

const REQUESTS: u64 = 100_000;
const CLIENTS: u64 = 128;
/// A client waits for less than this between its requests, and the endpoint before it closes.
const MOST_IDLE: u64 = 50_000;
const ENDINGS: usize = 1000;
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

type Stream = BufReader<TcpStream>;

/// Less than [`MOST_IDLE`] microseconds, the same in every run.
fn idle(drawn: u64) -> Duration {
    Duration::from_micros(xxh3_64(&drawn.to_le_bytes()) % MOST_IDLE)
}

/// Endpoints that close idle connections at random moments.
pub(super) async fn stale(run: &Run) -> anyhow::Result<Vec<Line>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let ground = Ground::speaking(&run.programs, "http", listener.local_addr()?).await?;
    let connections = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&connections);
    let mut endpoint = JoinSet::new();
    endpoint.spawn(backend::serve(listener, move |stream| {
        let number = counted.fetch_add(1, Relaxed);
        // Its client sees how it ends.
        async move { drop(answer_a_while(BufReader::new(stream), number << 32).await) }
    }));
    let mut clients = JoinSet::new();
    let at = ground.at(0);
    for client in 0..CLIENTS {
        clients.spawn(async move { ask_now_and_then(at, client).await });
    }
    let mut counts = Counts::default();
    while let Some(part) = clients.join_next().await {
        counts.add(part?);
    }
    let mut lines = Line::of("requests", &counts).to_vec();
    lines.push(Line::told(
        "connections that the endpoint closed",
        number(connections.load(Relaxed)),
    ));
    lines.push(ground.left().await?);
    Ok(lines)
}

async fn answer_a_while(mut stream: Stream, mut drawn: u64) -> io::Result<()> {
    // A new connection is not idle yet: one that ends before its first answer is an endpoint that fails.
    head(&mut stream).await?;
    loop {
        stream.write_all(OK).await?;
        drawn += 1;
        let Ok(asked) = timeout(idle(drawn), head(&mut stream)).await else {
            return Ok(());
        };
        asked?;
    }
}

async fn ask_now_and_then(at: SocketAddr, client: u64) -> Counts {
    let mut counts = Counts::default();
    let mut kept = None;
    for number in 0..REQUESTS.div_ceil(CLIENTS) {
        sleep(idle(client << 32 | number)).await;
        let began = Instant::now();
        match timeout(PATIENCE, ask(&mut kept, at)).await {
            Ok(Ok(())) => counts.answered("endpoint".into(), began.elapsed()),
            Ok(Err(error)) => {
                kept = None;
                counts.failed(&error.to_string());
            }
            Err(_) => {
                kept = None;
                counts.failed("no answer");
            }
        }
    }
    counts
}

async fn ask(kept: &mut Option<Stream>, at: SocketAddr) -> io::Result<()> {
    let stream = match kept {
        Some(stream) => stream,
        None => kept.insert(BufReader::new(TcpStream::connect(at).await?)),
    };
    stream.write_all(GET).await?;
    let line = head(stream).await?;
    if !line.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(line));
    }
    stream.read_exact(&mut [0; 2]).await.map(|_| ())
}

/// The first line of a head, once all of it is there.
async fn head(stream: &mut Stream) -> io::Result<String> {
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    let mut line = first.clone();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(first.trim_end().to_owned())
}

/// An endpoint's answer, up to where it ends.
#[derive(Debug, Clone, Copy)]
enum Half {
    Length,
    Chunked,
    Http2,
}

/// Endpoints that end in the midst of an answer, every other time by a reset.
pub(super) async fn endings(run: &Run) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let kinds = [
        (Half::Length, "http", "with a Content-Length"),
        (Half::Chunked, "http", "in chunks"),
        (Half::Http2, "h2c", "of HTTP/2"),
    ];
    for (half, protocol, what) in kinds {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let ground = Ground::speaking(&run.programs, protocol, listener.local_addr()?).await?;
        let mut counts = Counts::default();
        for round in 0..ENDINGS {
            let began = Instant::now();
            match one_ending(&listener, ground.at(0), (half, round % 2 == 1)).await? {
                None => counts.answered("broken".into(), began.elapsed()),
                Some(whole) => counts.failed(&whole),
            }
        }
        lines.extend(Line::of(&format!("answers {what} that broke off"), &counts));
        lines.push(ground.left().await?);
    }
    Ok(lines)
}

/// What the client takes for whole of an answer of which half comes.
async fn one_ending(
    listener: &TcpListener,
    at: SocketAddr,
    (half, is_reset): (Half, bool),
) -> anyhow::Result<Option<String>> {
    let client = async {
        let mut stream = TcpStream::connect(at).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            .await?;
        let mut got = String::new();
        let end = stream.read_to_string(&mut got).await;
        // An end that is no reset may still be too early.
        let is_whole = end.is_ok() && is_whole(&got);
        io::Result::Ok(is_whole.then_some(got))
    };
    let endpoint = async {
        let (stream, _) = listener.accept().await?;
        let mut stream = BufReader::new(stream);
        answer_half(&mut stream, half).await?;
        if is_reset {
            stream.get_ref().set_zero_linger()?;
        }
        drop(stream);
        io::Result::Ok(())
    };
    let both = timeout(PATIENCE, async { tokio::try_join!(client, endpoint) });
    let (whole, ()) = both
        .await
        .context("an answer that broke off never ends")??;
    Ok(whole)
}

/// Whether an answer of HTTP/1 ends where it says.
fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) => length.parse() == Ok(body.len()),
        None if head.contains("transfer-encoding: chunked") => body.ends_with("0\r\n\r\n"),
        None => true,
    }
}

async fn answer_half(stream: &mut Stream, half: Half) -> io::Result<()> {
    let answer: &[u8] = match half {
        Half::Length => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
        Half::Chunked => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        // Frames of SETTINGS, of HEADERS with `:status: 200` by its index, and of DATA that do not end stream 1 (RFC 9113, section 6).
        Half::Http2 => {
            b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x04\0\0\0\0\0\x01half"
        }
    };
    match half {
        Half::Length | Half::Chunked => drop(head(stream).await?),
        Half::Http2 => {
            // The preface.
            stream.read_exact(&mut [0; 24]).await?;
            while frame(stream).await? != 1 {}
        }
    }
    stream.write_all(answer).await
}

/// Reads a frame of HTTP/2; its kind.
async fn frame(stream: &mut Stream) -> io::Result<u8> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let [a, b, c, kind, ..] = head;
    let length = u64::from(u32::from_be_bytes([0, a, b, c]));
    let mut payload = Vec::new();
    stream.take(length).read_to_end(&mut payload).await?;
    Ok(kind)
}
