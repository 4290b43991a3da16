//! A name, asked as every program of the machine asks: getaddrinfo(3) in a process of its own, so that nothing that this
//! one has read or kept counts. Owns the time that it may take.

use std::{
    fmt,
    net::{IpAddr, ToSocketAddrs as _},
    process::{Output, Stdio},
    time::Duration,
};

/// As long as glibc waits for one server of resolv.conf(5).
const DEADLINE: Duration = Duration::from_secs(5);
/// The command of this program that is the other process.
const COMMAND: &str = "__lookup";

/// What the resolver said.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lookup {
    /// The name.
    pub name: String,
    /// Its addresses, each once.
    pub addresses: Vec<IpAddr>,
    /// Why there is none.
    pub problem: Option<String>,
}

impl Lookup {
    /// Whether there is an address.
    pub fn is_found(&self) -> bool {
        !self.addresses.is_empty()
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(problem) = &self.problem {
            return write!(f, "{}: {problem}", self.name);
        }
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        write!(f, "{} is {}", self.name, addresses.join(", "))
    }
}

/// Asks in another process, for no longer than 5 s.
pub fn look_up(name: &str) -> Lookup {
    let (addresses, problem) = match run(name) {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let addresses = text.lines().filter_map(|line| line.parse().ok()).collect();
            (addresses, None)
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            (Vec::new(), Some(text))
        }
        Err(problem) => (Vec::new(), Some(problem)),
    };
    Lookup {
        name: name.to_owned(),
        addresses,
        problem,
    }
}

fn run(name: &str) -> Result<Output, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        // Not the path of the binary: that may have been replaced since. No variable of ours changes what a resolver
        // does (resolv.conf(5), RES_OPTIONS).
        let output = tokio::process::Command::new("/proc/self/exe")
            .args([COMMAND, name])
            .env_clear()
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(DEADLINE, output).await {
            Ok(output) => output.map_err(|error| format!("cannot ask: {error}")),
            Err(_) => Err(format!("no answer within {DEADLINE:?}")),
        }
    })
}

/// Asks in this process: what the other one does.
///
/// # Errors
/// In the words of the C library.
pub fn ask(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| {
        let text = error.to_string();
        let words = text.strip_prefix("failed to lookup address information: ");
        words.unwrap_or(&text).to_owned()
    })?;
    let mut addresses: Vec<IpAddr> = found.map(|addr| addr.ip()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}
