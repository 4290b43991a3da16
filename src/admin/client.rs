//! The client side of the admin socket, for the commands that ask a running program.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;

use crate::{
    instance::{Instance, InstanceDirs},
    settings::InstanceOptions,
};

/// How long a running program may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer that is not a success: what the program says about it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub text: String,
}

/// The body of `GET path`.
///
/// # Errors
/// Nothing runs under this instance name, or its answer is an error ([`Refused`]).
pub fn get(options: &InstanceOptions, path: &str) -> anyhow::Result<Vec<u8>> {
    let request = Request::get(path).body(Full::default())?;
    ask(options, request, PATIENCE)
}

/// As [`get`], for an answer that may be awaited for `wait` before it comes.
///
/// # Errors
/// As for [`get`].
pub fn get_late(options: &InstanceOptions, path: &str, wait: Duration) -> anyhow::Result<Vec<u8>> {
    let request = Request::get(path).body(Full::default())?;
    ask(options, request, PATIENCE.saturating_add(wait))
}

/// As [`get`], all within `patience`: for answers that are worth nothing later.
///
/// # Errors
/// As for [`get`].
pub fn get_within(
    options: &InstanceOptions,
    path: &str,
    patience: Duration,
) -> anyhow::Result<Vec<u8>> {
    let request = Request::get(path).body(Full::default())?;
    ask(options, request, patience)
}

/// Names of this user's instances that have a socket, running or not.
pub fn instances() -> Vec<String> {
    Instance::names()
}

/// The body of the answer to `POST path` with a JSON value.
///
/// # Errors
/// As for [`get`].
pub fn post(
    options: &InstanceOptions,
    path: &str,
    value: &impl serde::Serialize,
) -> anyhow::Result<Vec<u8>> {
    ask(options, posted(path, value)?, PATIENCE)
}

/// As [`post`], for who has a runtime already.
///
/// # Errors
/// As for [`get`].
pub async fn post_async(
    options: &InstanceOptions,
    path: &str,
    value: &impl serde::Serialize,
) -> anyhow::Result<Vec<u8>> {
    ask_async(options, posted(path, value)?, PATIENCE).await
}

fn posted(path: &str, value: &impl serde::Serialize) -> anyhow::Result<Request<Full<Bytes>>> {
    Ok(Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("content-type", "application/json")
        .body(Full::from(serde_json::to_vec(value)?))?)
}

fn ask(
    options: &InstanceOptions,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> anyhow::Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(ask_async(options, request, patience))
}

async fn ask_async(
    options: &InstanceOptions,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> anyhow::Result<Vec<u8>> {
    let socket = socket(options)?;
    let asked = async {
        let stream = tokio::net::UnixStream::connect(&socket)
            .await
            .with_context(|| nobody(options, &socket))?;
        exchange(stream, request).await
    };
    tokio::time::timeout(patience, asked)
        .await
        .context("portico does not answer")?
}

/// Where the running program takes the sockets of `portico run`.
///
/// # Errors
/// Nothing runs under this instance name, or it is of a version that takes none.
pub fn run_socket(options: &InstanceOptions) -> anyhow::Result<PathBuf> {
    get(options, "/v1/generation")?;
    let socket = Instance::find_run_socket(&options.instance, &dirs(options))?;
    if !socket.exists() {
        bail!(
            "the portico that runs as instance '{}' is older than `portico run`; start it anew with `portico up`",
            options.instance
        );
    }
    Ok(socket)
}

fn dirs(options: &InstanceOptions) -> InstanceDirs {
    InstanceDirs {
        runtime_dir: options.runtime_dir.clone(),
        state_dir: options.state_dir.clone(),
    }
}

/// Where a program of this instance listens, running or not.
///
/// # Errors
/// The name is none, or the folder is not ours alone.
pub fn socket(options: &InstanceOptions) -> anyhow::Result<PathBuf> {
    Ok(Instance::find_socket(&options.instance, &dirs(options))?)
}

fn nobody(options: &InstanceOptions, socket: &std::path::Path) -> String {
    format!(
        "no portico runs as instance '{}' (nobody answers at {}); start one with `portico up FOLDER`",
        options.instance,
        socket.display()
    )
}

async fn exchange(
    stream: tokio::net::UnixStream,
    mut request: Request<Full<Bytes>>,
) -> anyhow::Result<Vec<u8>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let host = hyper::header::HeaderValue::from_static("portico");
    request.headers_mut().insert("host", host);
    let ask = async move { read(sender.send_request(request).await?).await };
    let (answer, _) = tokio::join!(ask, connection);
    answer
}

async fn read(response: Response<hyper::body::Incoming>) -> anyhow::Result<Vec<u8>> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes().to_vec();
    if !status.is_success() {
        bail!(refused(status, &body));
    }
    Ok(body)
}

fn refused(status: StatusCode, body: &[u8]) -> Refused {
    Refused {
        status: status.as_u16(),
        text: String::from_utf8_lossy(body).trim_end().to_owned(),
    }
}

/// The body of `GET path` as it comes, until the program ends: no time-out, nothing happens for as long as it likes.
///
/// # Errors
/// Nothing runs under this instance name, or its answer is an error ([`Refused`]).
pub fn stream(options: &InstanceOptions, path: &str) -> anyhow::Result<BufReader<UnixStream>> {
    let socket = socket(options)?;
    let mut stream = UnixStream::connect(&socket).with_context(|| nobody(options, &socket))?;
    // HTTP/1.0 (RFC 1945): the body has no framing and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: portico\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    reader.read_line(&mut head)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse::<u16>().ok());
    let mut line = String::from("-");
    while !line.trim_end().is_empty() {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            break;
        }
    }
    let status = status
        .and_then(|code| StatusCode::from_u16(code).ok())
        .context("portico does not speak HTTP")?;
    if !status.is_success() {
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut body)?;
        bail!(refused(status, &body));
    }
    Ok(reader)
}
