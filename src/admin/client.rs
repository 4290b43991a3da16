//! The client side of the admin socket, for the commands that ask a running program.

use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;

use crate::{
    instance::{Instance, InstanceDirs},
    settings::InstanceOptions,
};

/// How long a running program may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The body of `GET path`.
///
/// # Errors
/// Nothing runs under this instance name, or its answer is an error.
pub fn get(options: &InstanceOptions, path: &str) -> anyhow::Result<Vec<u8>> {
    let dirs = InstanceDirs {
        runtime_dir: options.runtime_dir.clone(),
        state_dir: options.state_dir.clone(),
    };
    let socket = Instance::find_socket(&options.instance, &dirs)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stream = tokio::net::UnixStream::connect(&socket).await.with_context(|| {
            format!(
                "no portico runs as instance '{}' (nobody answers at {}); start one with `portico up FOLDER`",
                options.instance,
                socket.display()
            )
        })?;
        tokio::time::timeout(PATIENCE, exchange(stream, path)).await.context("portico does not answer")?
    })
}

async fn exchange(stream: tokio::net::UnixStream, path: &str) -> anyhow::Result<Vec<u8>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get(path)
        .header("host", "portico")
        .body(Empty::<Bytes>::new())?;
    let ask = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes().to_vec();
        if !status.is_success() {
            bail!("{}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    };
    let (answer, _) = tokio::join!(ask, connection);
    answer
}
