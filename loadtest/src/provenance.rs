//! Where a result comes from: the command, the machine, the programs. Owns what is told, and that no name or path of the
//! machine is.

use std::{collections::BTreeMap, fs, time::SystemTime};

use portico_core::{calendar::rfc3339, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::scenario::Contestant;

/// What somebody needs to repeat a run, and to doubt it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Provenance {
    /// What to type.
    pub(crate) command: String,
    /// When it began, RFC 3339.
    pub(crate) began: String,
    /// Rounds that were run.
    pub(crate) rounds: u16,
    /// Milliseconds of one measurement.
    pub(crate) measured_ms: u64,
    /// What answers behind the proxies.
    pub(crate) backends: String,
    /// What made the load.
    pub(crate) generator: String,
    /// The machine.
    pub(crate) machine: Machine,
    /// Programs by name.
    pub(crate) versions: BTreeMap<String, String>,
    /// xxh3 of what each was told, with the ports of backends and proxies replaced by fixed ones.
    pub(crate) configurations: BTreeMap<Contestant, String>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// `uname -sr`.
    pub(crate) kernel: String,
    /// Of the processor.
    pub(crate) cpu: String,
    /// That this program may use.
    pub(crate) cores: usize,
    /// `ulimit -n`, for all of them.
    pub(crate) descriptors: Option<u64>,
    /// `net.ipv4.ip_local_port_range`.
    pub(crate) port_range: String,
    /// `net.core.somaxconn`.
    pub(crate) somaxconn: String,
    /// Of processor 0, where the machine tells.
    pub(crate) governor: Option<String>,
    /// Waiting and running processes of the last minute, before it began.
    pub(crate) load_average: String,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let uname = rustix::system::uname();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            kernel: format!(
                "{} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy()
            ),
            cpu: cpu(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            descriptors: limit.current,
            port_range: words(&read("/proc/sys/net/ipv4/ip_local_port_range")).replace(' ', "-"),
            somaxconn: words(&read("/proc/sys/net/core/somaxconn")),
            governor: Some(words(&read(
                "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            )))
            .filter(|governor| !governor.is_empty()),
            load_average: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// What the kernel tells, or nothing.
fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cpu(text: &str) -> String {
    let name = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| words(value))
    });
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The time as RFC 3339 has it.
pub(crate) fn now() -> String {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    rfc3339(Timestamp::from_millis(ms))
}

/// A short fingerprint of a text.
pub(crate) fn hash(text: &str) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Provenance {
        /// One that says the same everywhere.
        pub(crate) fn example() -> Self {
            Self {
                command: "cargo run --release -p loadtest -- run example".into(),
                began: "2026-01-02T03:04:05Z".into(),
                rounds: 3,
                measured_ms: 3000,
                backends: "nginx".into(),
                generator: "wrk".into(),
                machine: Machine {
                    kernel: "Linux 6.1".into(),
                    cpu: "A processor".into(),
                    cores: 2,
                    descriptors: Some(20_000),
                    port_range: "32768-60999".into(),
                    somaxconn: "4096".into(),
                    governor: None,
                    load_average: "0.10".into(),
                },
                versions: BTreeMap::from([("portico".into(), "portico 0.1.0".into())]),
                configurations: BTreeMap::from([(Contestant::Portico, "00ff".into())]),
            }
        }
    }

    #[test]
    fn cpu_is_the_first_model_name() {
        let text = "processor\t: 0\nmodel name\t: A  CPU @ 2 GHz\nmodel name\t: B\n";
        assert_eq!(cpu(text), "A CPU @ 2 GHz");
    }

    #[test]
    fn machine_here_has_a_kernel_and_cores() {
        let here = Machine::here();
        assert!(here.kernel.starts_with("Linux ") && here.cores > 0);
    }
}
