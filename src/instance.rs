//! One running portico among several: its name, its folders, its lock and its share of the address ranges. Owns that
//! two runs or two users do not collide; must not know what is served.

mod folders;
mod lock;
mod ranges;
mod slot;
mod state;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing::warn;

pub use folders::InstanceDirs;
pub use lock::LockHolder;
pub use ranges::{Ranges, ranges};
pub use slot::{SLOTS, SlotGuard, SlotHolder};
pub use state::{State, StateFile};

use folders::Surroundings;
use lock::Lock;
use slot::Claim;

/// The name of the instance when none is given.
pub const DEFAULT_NAME: &str = "default";

/// Why an instance cannot run.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The name is no DNS label (RFC 1123): it becomes part of paths.
    #[error(
        "instance name {0:?} is not a DNS label: lower case letters, digits and '-', at most 63, \
         beginning and ending with a letter or digit"
    )]
    Name(String),
    /// The same instance of the same user runs.
    #[error("instance {name:?} is already running: {holder}; another one needs --instance NAME")]
    Running {
        /// Its name.
        name: String,
        /// Its process.
        holder: LockHolder,
    },
    /// The addresses of this instance are in use, by another user or under another runtime folder.
    #[error(
        "the addresses of instance {name:?} are in use by {holder}; run with --instance NAME to get others"
    )]
    Addresses {
        /// Its name.
        name: String,
        /// Who has them.
        holder: SlotHolder,
    },
    /// All shares of the address ranges are in use.
    #[error(
        "all {SLOTS} shares of the address ranges are in use; end another instance or give --service-cidr"
    )]
    NoSlot,
    /// A folder is not ours alone, so that others could put their own socket there, or cannot have sockets at all.
    #[error("will not use the folder {}: {reason}", path.display())]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A claimed instance: while this value lives, no other process has its name (for this user) nor its addresses.
#[derive(Debug)]
pub struct Instance {
    name: String,
    slot: u8,
    runtime_dir: PathBuf,
    state_dir: PathBuf,
    _lock: Lock,
    _claim: Option<Claim>,
}

impl Instance {
    /// Claims the instance `name`: makes its runtime folder, takes its lock, chooses its slot, removes a socket that
    /// a killed run left.
    ///
    /// # Errors
    /// When it runs already, its addresses are in use, or its folder is not safe; the text names who and where.
    pub fn acquire(
        name: &str,
        dirs: &InstanceDirs,
        guard: SlotGuard,
    ) -> Result<Self, InstanceError> {
        Self::acquire_in(name, &Surroundings::of_process(dirs), guard)
    }

    fn acquire_in(
        name: &str,
        around: &Surroundings,
        guard: SlotGuard,
    ) -> Result<Self, InstanceError> {
        check_name(name)?;
        let runtime_dir = around.make_runtime_dir(name)?;
        let state_dir = around.state_dir(name, &runtime_dir);
        let lock = Lock::take(name, &runtime_dir.join("lock"))?;
        let mut file = StateFile::new(&state_dir);
        let state = file.load();
        let wanted = state.slot;
        let (slot, claim) = slot::claim(name, around, guard, wanted)?;
        if wanted.unwrap_or_default() != slot {
            // Addresses of another share of the ranges are somebody else's now.
            let kept = if wanted.is_none() {
                state
            } else {
                State::default()
            };
            let chosen = State {
                slot: Some(slot),
                ..kept
            };
            if let Err(error) = file.save(&chosen) {
                warn!(folder = %state_dir.display(), %error, "the choice of addresses is not remembered");
            }
        }
        let instance = Self {
            name: name.to_owned(),
            slot,
            runtime_dir,
            state_dir,
            _lock: lock,
            _claim: claim,
        };
        instance.remove_sockets()?;
        Ok(instance)
    }

    /// Where a running instance `name` listens for commands; makes nothing. Root by sudo(8), which has none of its own,
    /// means that of whoever called it.
    ///
    /// # Errors
    /// When the name is none, or the folder is not ours alone.
    pub fn find_socket(name: &str, dirs: &InstanceDirs) -> Result<PathBuf, InstanceError> {
        check_name(name)?;
        Self::find_socket_in(name, &Surroundings::of_process(dirs))
    }

    fn find_socket_in(name: &str, around: &Surroundings) -> Result<PathBuf, InstanceError> {
        let socket = |around: &Surroundings| Ok(around.find_runtime_dir(name)?.join(SOCKET));
        let own = socket(around);
        match around.of_caller() {
            Some(caller) if !own.as_ref().is_ok_and(|path| path.exists()) => socket(&caller),
            _ => own,
        }
    }

    /// Where a running instance `name` takes the sockets of `portico run`; makes nothing.
    ///
    /// # Errors
    /// As for [`find_socket`](Self::find_socket).
    pub fn find_run_socket(name: &str, dirs: &InstanceDirs) -> Result<PathBuf, InstanceError> {
        Ok(Self::find_socket(name, dirs)?.with_file_name(RUN_SOCKET))
    }

    /// Names of this user's instances that have a socket, in order; one that was killed has left its own.
    pub fn names() -> Vec<String> {
        let mut names = Surroundings::of_process(&InstanceDirs::default()).names();
        names.sort();
        names
    }

    /// What an instance `name` would serve under, whether or not it runs: what its state file says, else the first
    /// choice of its name.
    ///
    /// # Errors
    /// When the name is none.
    pub fn look_up(name: &str, dirs: &InstanceDirs) -> Result<(State, Ranges), InstanceError> {
        check_name(name)?;
        let around = Surroundings::of_process(dirs);
        let runtime_dir = dirs.runtime_dir.clone().unwrap_or_default();
        let state = StateFile::new(&around.state_dir(name, &runtime_dir)).peek();
        let slot = slot::preferred(name, around.uid, state.slot);
        Ok((state, ranges(slot)))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its share of the address ranges, 0 for `default`.
    pub fn slot(&self) -> u8 {
        self.slot
    }

    /// The folder of its lock and socket: mode 0700.
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// The folder of its state file; made when it is first saved.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The path of its admin socket; nothing is there.
    pub fn socket_path(&self) -> PathBuf {
        self.runtime_dir.join(SOCKET)
    }

    /// The path of the socket for `portico run`; nothing is there.
    pub fn run_socket_path(&self) -> PathBuf {
        self.runtime_dir.join(RUN_SOCKET)
    }

    /// Its addresses.
    pub fn ranges(&self) -> Ranges {
        ranges(self.slot)
    }

    /// Its state file.
    pub fn state_file(&self) -> StateFile {
        StateFile::new(&self.state_dir)
    }

    /// Removes sockets of a former run, or our own. Safe because the lock is held: whoever else bound them is gone.
    fn remove_sockets(&self) -> Result<(), InstanceError> {
        for path in [self.socket_path(), self.run_socket_path()] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(InstanceError::Io {
                        action: "remove the old socket",
                        path,
                        source,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What is left is of a run that was killed: nobody is told that of one that ended.
impl Drop for Instance {
    fn drop(&mut self) {
        // The next run tries again.
        let _left = self.remove_sockets();
    }
}

/// The admin socket in the runtime folder.
const SOCKET: &str = "api.sock";
/// The socket for `portico run` beside it.
const RUN_SOCKET: &str = "run.sock";

fn check_name(name: &str) -> Result<(), InstanceError> {
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let bytes = name.as_bytes();
    let is_label = (1..=63).contains(&bytes.len())
        && bytes.iter().all(is_inner)
        && !bytes.starts_with(b"-")
        && !bytes.ends_with(b"-");
    if is_label {
        Ok(())
    } else {
        Err(InstanceError::Name(name.to_owned()))
    }
}

#[cfg(test)]
mod tests;
