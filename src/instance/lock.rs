//! The lock that one instance of one user holds while it runs: flock(2), so that it ends with the process however
//! that ends. Owns the lock file and what it says of its holder.

use std::{
    fmt,
    fs::File,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::InstanceError;

/// The process that holds a lock, as far as its file says.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct LockHolder {
    /// Its number, in its own pid namespace.
    pub pid: Option<u32>,
    /// Its command line.
    pub command: String,
    /// When it took the lock: seconds since 1970.
    pub since: u64,
}

impl LockHolder {
    fn this() -> Self {
        let command: Vec<_> = std::env::args_os()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        Self {
            pid: Some(std::process::id()),
            command: command.join(" "),
            since: now_seconds(),
        }
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pid) = self.pid else {
            return f.write_str("by a process that has not said its number yet");
        };
        let seconds = now_seconds().saturating_sub(self.since);
        let (count, unit) = match seconds {
            0..120 => (seconds, "s"),
            120..7200 => (seconds / 60, "min"),
            _ => (seconds / 3600, "h"),
        };
        write!(f, "pid {pid} ({}), for {count} {unit}", self.command)
    }
}

/// The held lock.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of instance `name` in the file at `path`. The file stays when the lock goes: removing it would
    /// let two processes lock two files of one name.
    pub(super) fn take(name: &str, path: &Path) -> Result<Self, InstanceError> {
        let failed = |action| {
            move |source| InstanceError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed("open the lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let holder = read_holder(&mut file);
                return Err(InstanceError::Running {
                    name: name.to_owned(),
                    holder,
                });
            }
            Err(error) => return Err(failed("lock")(error.into())),
        }
        file.set_len(0).map_err(failed("write the lock"))?;
        let text = serde_json::to_string(&LockHolder::this()).unwrap_or_default();
        file.write_all(text.as_bytes())
            .map_err(failed("write the lock"))?;
        Ok(Self { _file: file })
    }
}

/// Empty while the holder has not written yet.
fn read_holder(file: &mut File) -> LockHolder {
    let mut text = String::new();
    let read = file.read_to_string(&mut text);
    read.ok()
        .and_then(|_| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since: Duration| since.as_secs())
}
