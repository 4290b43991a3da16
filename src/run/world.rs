//! The outside world, for a program in a network namespace of its own: pasta(1) or slirp4netns(1), which carry its
//! connections out by sockets of the user. Owns the choice, their start and their end. They carry nothing in, and
//! answer no DNS: that is ours.

use std::{ffi::OsStr, process::Stdio, time::Duration};

use clap::ValueEnum;
use tokio::{
    io::{AsyncReadExt as _, copy},
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use super::exec;

/// How long they may take; it is some hundredths of a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of what they say when they fail.
const MOST_WORDS: u64 = 4096;

/// Who carries connections to the outside world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// Pasta if it is installed, else slirp4netns, else nobody
    Auto,
    /// Nobody: only Services are reached
    None,
    /// Pasta, of the package passt
    Pasta,
    /// Slirp4netns
    Slirp4netns,
}

/// Why there is no outside world.
#[derive(Debug, thiserror::Error)]
pub enum NoWorld {
    /// Nobody to carry it.
    #[error(
        "nothing but Services is reached from inside: for the rest install pasta (package passt) or slirp4netns; names \
         of others resolve all the same (`--network none` to do without)"
    )]
    NotInstalled,
    /// Those who should, cannot, each in its words.
    #[error("the outside world is not reached from inside: {}", .0.join("; "))]
    Failed(Vec<String>),
}

/// A running carrier; it ends with this value, and with this process.
#[derive(Debug)]
pub(super) struct World {
    carrier: Child,
    _hearing: JoinSet<()>,
}

impl World {
    /// Ends it.
    pub(super) async fn close(mut self) {
        // It may be gone already.
        let _gone = self.carrier.kill().await;
    }
}

/// Connects the namespaces of process `inside` to the outside world; `None` when nobody is wanted for it.
///
/// # Errors
/// Nobody can.
pub(super) async fn connect(network: Network, inside: u32) -> Result<Option<World>, NoWorld> {
    let candidates = match network {
        Network::None => return Ok(None),
        Network::Pasta => vec![PASTA],
        Network::Slirp4netns => vec![SLIRP4NETNS],
        Network::Auto => [PASTA, SLIRP4NETNS]
            .into_iter()
            .filter(Carrier::is_installed)
            .collect(),
    };
    let mut failed = Vec::new();
    for carrier in candidates {
        match carrier.start(inside).await {
            Ok(world) => return Ok(Some(world)),
            Err(why) => failed.push(format!("{}: {why}", carrier.program)),
        }
    }
    Err(if failed.is_empty() {
        NoWorld::NotInstalled
    } else {
        NoWorld::Failed(failed)
    })
}

/// A program that carries connections; it writes to its standard output as soon as it does.
#[derive(Debug, Clone, Copy)]
struct Carrier {
    program: &'static str,
    /// Before the number of the process whose namespaces are meant.
    arguments: &'static [&'static str],
    /// After it.
    device: &'static [&'static str],
}

/// With the addresses and routes of the host, so that outbound traffic looks the same; no port of either side is
/// forwarded to the other, which it would do for all of them.
const PASTA: Carrier = Carrier {
    program: "pasta",
    arguments: &[
        "--foreground",
        "--quiet",
        "--config-net",
        "--no-dhcp",
        "--no-dhcpv6",
        "--no-ra",
        "--tcp-ports=none",
        "--udp-ports=none",
        "--tcp-ns=none",
        "--udp-ns=none",
        // Written when all is set up.
        "--pid=/dev/stdout",
    ],
    device: &[],
};

const SLIRP4NETNS: Carrier = Carrier {
    program: "slirp4netns",
    arguments: &[
        "--configure",
        "--disable-dns",
        "--mtu=65520",
        "--ready-fd=1",
    ],
    device: &["tap0"],
};

impl Carrier {
    fn is_installed(&self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(self.program).is_file())
    }

    /// Returns when it carries.
    async fn start(self, inside: u32) -> Result<World, String> {
        let mut command = exec::bound_to_us(OsStr::new(self.program));
        command
            .args(self.arguments)
            .arg(inside.to_string())
            .args(self.device)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut command = Command::from(command);
        // What the terminal sends is for the program.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        match timeout(PATIENCE, self.wait(&mut child)).await {
            Ok(Ok(hearing)) => Ok(World {
                carrier: child,
                _hearing: hearing,
            }),
            Ok(Err(why)) => Err(why),
            Err(_) => Err("it does not get ready".to_owned()),
        }
    }

    /// Waits until it says that it is ready, or why it is not.
    async fn wait(self, child: &mut Child) -> Result<JoinSet<()>, String> {
        let (Some(mut said), Some(mut words)) = (child.stdout.take(), child.stderr.take()) else {
            return Err("its pipes are missing".to_owned());
        };
        let mut hearing = JoinSet::new();
        if said.read_u8().await.is_ok() {
            // It must never wait for us, nor find its pipes closed.
            hearing.spawn(async move {
                let (mut one, mut other) = (tokio::io::sink(), tokio::io::sink());
                let (said, words) = (copy(&mut said, &mut one), copy(&mut words, &mut other));
                let _ended = tokio::join!(said, words);
            });
            return Ok(hearing);
        }
        let mut text = String::new();
        let _whatever_came = words.take(MOST_WORDS).read_to_string(&mut text).await;
        Err(reason(&text))
    }
}

/// The last of `words` that is about the matter.
fn reason(words: &str) -> String {
    let mut lines = words.lines().rev().map(str::trim);
    // Pasta says so of each line where nobody keeps a log.
    let is_about_it = |line: &&str| !line.is_empty() && !line.contains("syslog");
    lines
        .find(is_about_it)
        .unwrap_or("it ended without a word")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_the_last_word_but_those_about_a_log() {
        let words =
            "Outbound interface: eth0\nFailed to open tun\nFailed to send 20 bytes to syslog\n\n";
        assert_eq!(reason(words), "Failed to open tun");
        assert_eq!(reason(""), "it ended without a word");
    }
}
