//! Where an instance keeps its socket and its state (XDG Base Directory Specification). Owns the choice of folders
//! and the check that the runtime folder is ours alone.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::InstanceError;

/// The longest path of a folder that our sockets can be in: theirs have 108 bytes with a zero at the end (unix(7)).
const LONGEST: usize = 107 - "/".len() - super::SOCKET.len();

/// Folders given by the user; each is taken as it is, without the instance's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceDirs {
    /// Of lock and socket; else `$XDG_RUNTIME_DIR/portico/NAME`, else `/tmp/portico-UID/NAME`.
    pub runtime_dir: Option<PathBuf>,
    /// Of the state file (`--state-dir`); else `$XDG_STATE_HOME/portico/NAME`, else `~/.local/state/portico/NAME`,
    /// else the runtime folder.
    pub state_dir: Option<PathBuf>,
}

/// What of the process's surroundings decides about folders and slots.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) dirs: InstanceDirs,
    /// The first of them that is this user's is taken.
    pub(super) runtime_dirs: Vec<PathBuf>,
    pub(super) xdg_state_home: Option<PathBuf>,
    pub(super) home: Option<PathBuf>,
    pub(super) temporary: PathBuf,
    pub(super) uid: u32,
    /// Who called sudo(8), if we are root by it.
    pub(super) caller: Option<u32>,
    /// Begins the names of the slots.
    pub(super) slot_prefix: String,
}

impl Surroundings {
    pub(super) fn of_process(dirs: &InstanceDirs) -> Self {
        // The specification has relative paths ignored.
        let variable = |name| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let uid = rustix::process::geteuid();
        let caller = env::var("SUDO_UID").ok().filter(|_| uid.is_root());
        let usual = usual_runtime_dir(uid.as_raw());
        Self {
            caller: caller.and_then(|uid| uid.parse().ok()),
            dirs: dirs.clone(),
            runtime_dirs: variable("XDG_RUNTIME_DIR")
                .into_iter()
                .chain([usual])
                .collect(),
            xdg_state_home: variable("XDG_STATE_HOME"),
            home: variable("HOME"),
            temporary: PathBuf::from("/tmp"),
            uid: uid.as_raw(),
            slot_prefix: "portico/slot".to_owned(),
        }
    }

    /// Those of whoever called sudo(8), which does not pass the name of their folder on.
    pub(super) fn of_caller(&self) -> Option<Self> {
        let uid = self.caller?;
        Some(Self {
            uid,
            runtime_dirs: vec![usual_runtime_dir(uid)],
            ..self.clone()
        })
    }

    /// The runtime folder, made where it is missing and checked.
    pub(super) fn make_runtime_dir(&self, name: &str) -> Result<PathBuf, InstanceError> {
        let folders = self.runtime_dirs(name);
        for folder in &folders {
            let made = fs::DirBuilder::new().mode(0o700).create(folder);
            if let Err(source) = made
                && source.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(InstanceError::Io {
                    action: "make the folder",
                    path: folder.clone(),
                    source,
                });
            }
            self.check(folder)?;
        }
        Ok(folders.into_iter().next_back().unwrap_or_default())
    }

    /// The runtime folder; its parts are checked as far as they are there.
    pub(super) fn find_runtime_dir(&self, name: &str) -> Result<PathBuf, InstanceError> {
        let folders = self.runtime_dirs(name);
        for folder in &folders {
            match self.check(folder) {
                Err(InstanceError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    break;
                }
                checked => checked?,
            }
        }
        Ok(folders.into_iter().next_back().unwrap_or_default())
    }

    /// Names with a socket in the usual place.
    pub(super) fn names(&self) -> Vec<String> {
        let base = self.runtime_dirs("").into_iter().next().unwrap_or_default();
        let folders = fs::read_dir(base).into_iter().flatten().flatten();
        let with_socket = folders.filter(|folder| folder.path().join(super::SOCKET).exists());
        let name = |folder: fs::DirEntry| folder.file_name().into_string().ok();
        with_socket.filter_map(name).collect()
    }

    /// The folder of the state file.
    pub(super) fn state_dir(&self, name: &str, runtime_dir: &Path) -> PathBuf {
        let by_name = |base: PathBuf| base.join("portico").join(name);
        let xdg = || self.xdg_state_home.clone().map(by_name);
        let home = || {
            self.home
                .as_ref()
                .map(|home| by_name(home.join(".local/state")))
        };
        self.dirs
            .state_dir
            .clone()
            .or_else(xdg)
            .or_else(home)
            .unwrap_or_else(|| runtime_dir.to_owned())
    }

    /// The folders to make, outermost first; the last one is the runtime folder.
    fn runtime_dirs(&self, name: &str) -> Vec<PathBuf> {
        if let Some(given) = &self.dirs.runtime_dir {
            return vec![given.clone()];
        }
        // After `su`, `sudo -E` or `--user` the variable names another user's folder.
        let is_ours =
            |path: &&PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.uid() == self.uid);
        let base = match self.runtime_dirs.iter().find(is_ours) {
            Some(folder) => folder.join("portico"),
            None => self.temporary.join(format!("portico-{}", self.uid)),
        };
        let named = base.join(name);
        vec![base, named]
    }

    /// Whoever could write here could put a socket of their own in the place of ours.
    fn check(&self, folder: &Path) -> Result<(), InstanceError> {
        let metadata = fs::symlink_metadata(folder).map_err(|source| InstanceError::Io {
            action: "look at",
            path: folder.to_owned(),
            source,
        })?;
        let mode = metadata.mode() & 0o777;
        let length = folder.as_os_str().len();
        let reason = if metadata.is_symlink() {
            "it is a symbolic link".to_owned()
        } else if !metadata.is_dir() {
            "it is not a folder".to_owned()
        } else if metadata.uid() != self.uid {
            format!(
                "it belongs to uid {}, not to us (uid {})",
                metadata.uid(),
                self.uid
            )
        } else if mode & 0o077 != 0 {
            format!("others may use it (mode {mode:04o}); chmod 700 it")
        } else if length > LONGEST {
            format!(
                "its path of {length} bytes leaves no room for the name of a socket ({LONGEST} would); give a shorter one \
                 with --runtime-dir"
            )
        } else {
            return Ok(());
        };
        Err(InstanceError::Unsafe {
            path: folder.to_owned(),
            reason,
        })
    }
}

/// Where `pam_systemd(8)` makes it; the variable may be missing.
fn usual_runtime_dir(uid: u32) -> PathBuf {
    PathBuf::from(format!("/run/user/{uid}"))
}
