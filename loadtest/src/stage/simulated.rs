//! portico alone, with the pods that it simulates, over a folder that is edited while it runs. Owns the folder and how its
//! counters are asked for; what the manifests say is the scenario's.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use super::{PATIENCE, Programs, Usage, free_port, process::Running, programs, target};
use crate::scenario::Contestant;

/// It runs; ends with the value.
pub(crate) struct Simulated {
    // The order matters: it ends before its folder goes.
    process: Option<Running>,
    folder: TempDir,
    target: SocketAddr,
}

impl Simulated {
    /// An empty folder of manifests, and an address and port that a Service of them can have.
    ///
    /// # Errors
    /// The folder cannot be made, or there is no free port.
    pub(crate) fn prepare() -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("loadtest-").context("cannot make a folder")?;
        programs::portico_folders(folder.path())?;
        Ok(Self {
            process: None,
            target: target(Contestant::Portico)?,
            folder,
        })
    }

    /// Where the Service is to be.
    pub(crate) fn target(&self) -> SocketAddr {
        self.target
    }

    /// Writes a manifest beside the one that it replaces and renames it, as careful editors do.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let manifests: PathBuf = self.folder.path().join("manifests");
        let file = manifests.join(name);
        let temporary = manifests.join(format!(".{name}.new"));
        std::fs::write(&temporary, text)
            .and_then(|()| std::fs::rename(&temporary, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Starts portico and waits until the only Service port has `endpoints`: without a connection to it, which would
    /// count.
    ///
    /// # Errors
    /// It does not start, or they do not come.
    pub(crate) async fn start(
        &mut self,
        programs: &Programs,
        threads: u8,
        endpoints: u64,
    ) -> anyhow::Result<()> {
        let folder = self.folder.path();
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let at = (self.target, admin);
        let process = programs.portico(folder, at, threads, &["--simulate"])?;
        let process = self.process.insert(process);
        let socket = folder.join("run/api.sock");
        let deadline = Instant::now() + PATIENCE;
        loop {
            process.check()?;
            let port = port(&socket).await;
            if port.as_ref().is_ok_and(|port| port["ready"] == endpoints) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = process.log_tail();
                bail!("the Service does not get {endpoints} endpoints: {port:?}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What portico says of the only Service port.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn port(&self) -> anyhow::Result<Value> {
        port(&self.folder.path().join("run/api.sock")).await
    }

    /// What the status says of the whole program.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn status(&self) -> anyhow::Result<Value> {
        ask(&self.folder.path().join("run/api.sock"), "/v1/status").await
    }

    /// What it and its pods have used.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let process = self.process.as_ref().context("portico does not run")?;
        Usage::of_group(process.group())
    }

    /// All that it has logged.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        let file = self.folder.path().join("portico.log");
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }
}

async fn port(socket: &std::path::Path) -> anyhow::Result<Value> {
    let mut stat = ask(socket, "/v1/stat").await?;
    let port = stat.pointer_mut("/ports/0").context("no Service port")?;
    Ok(port.take())
}

async fn ask(socket: &std::path::Path, path: &str) -> anyhow::Result<Value> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: portico\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(PATIENCE, exchange)
        .await
        .context("portico does not answer in time")??;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .context("portico's answer is cut")?;
    serde_json::from_str(body).context("portico's answer is not JSON")
}
