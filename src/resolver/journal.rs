//! What was begun on the machine's resolver, on disk before it is. Owns the record and its lock, so that whoever comes next
//! finds what is to be undone; what was replaced lies beside what replaced it.

use std::{
    fs::{self, File, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{
    ResolverError, Standing, Wanted, change,
    plan::{Plan, Way},
};
use crate::{
    dns,
    durable::{self, Owner},
};

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Something was begun; it is undone by whoever finds it so.
    Changing,
    /// It was done and found good.
    Installed,
}

/// One file that was written, and all that is needed to undo it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) state: State,
    pub(super) way: Way,
    /// Where the resolver is to ask.
    pub(super) dns: SocketAddr,
    /// What was looked up in the end, and leads there.
    pub(super) name: String,
    /// The file.
    pub(super) path: PathBuf,
    /// What was written.
    pub(super) content: String,
    /// Whether something was there, which is kept beside it.
    pub(super) had_former: bool,
    /// Whether its folder was made for it.
    pub(super) made_folder: bool,
    /// What tells a program of it.
    pub(super) command: Option<Vec<String>>,
}

impl Record {
    /// What is about to be done.
    pub(super) fn of(plan: &Plan, wanted: &Wanted) -> Self {
        let folder = plan.path.parent();
        Self {
            state: State::Changing,
            way: plan.way,
            dns: wanted.dns,
            name: wanted.own_name(),
            had_former: plan.path.symlink_metadata().is_ok(),
            made_folder: folder.is_some_and(|folder| !folder.exists()),
            path: plan.path.clone(),
            content: plan.content.clone(),
            command: plan.command.clone(),
        }
    }

    /// The same, so far.
    pub(super) fn in_state(&self, state: State) -> Self {
        Self {
            state,
            ..self.clone()
        }
    }

    /// Where what was there is, if there was anything.
    pub(super) fn former(&self) -> Option<PathBuf> {
        let former = dns::former(&self.path);
        (self.had_former && former.symlink_metadata().is_ok()).then_some(former)
    }

    /// What undoing it means, in words.
    pub(super) fn undoing(&self) -> Vec<String> {
        let path = self.path.display();
        let file = match (change::found(self), self.former()) {
            (change::Found::Ours, Some(former)) => format!("rename {} to {path}", former.display()),
            (change::Found::Ours, None) => format!("remove {path}"),
            _ => format!("leave {path}, which is not as portico wrote it"),
        };
        let command = self.command.iter();
        let command = command.map(|command| format!("run: {}", command.join(" ")));
        std::iter::once(file).chain(command).collect()
    }

    /// Whether it is done, and nothing has changed since.
    pub(super) fn is_whole(&self, plan: &Plan) -> bool {
        self.path == plan.path
            && self.content == plan.content
            && self.standing() == Standing::Installed
    }

    /// What became of it.
    pub(super) fn standing(&self) -> Standing {
        match (self.state, change::found(self)) {
            (State::Changing, _) => Standing::HalfDone,
            (_, change::Found::Ours) => Standing::Installed,
            (_, change::Found::Edited) => Standing::Edited,
            (_, change::Found::Other) => Standing::Replaced,
        }
    }
}

/// The record on disk.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
}

/// That nobody else changes the machine's resolver.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the lock goes with the file")] File);

impl Journal {
    /// The one in `folder`; nothing is read or made.
    pub(super) fn at(folder: &Path) -> Self {
        Self {
            path: folder.join("dns.json"),
        }
    }

    /// What was begun, if anything.
    pub(super) fn load(&self) -> Result<Option<Record>, ResolverError> {
        match fs::read(&self.path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &self.path)(error)),
        }
    }

    /// Writes it down; users may read it.
    pub(super) fn save(&self, record: &Record) -> Result<(), ResolverError> {
        let mut text = serde_json::to_vec_pretty(record).map_err(io::Error::from);
        if let Ok(text) = &mut text {
            text.push(b'\n');
        }
        text.and_then(|text| durable::replace(&self.path, &text, Some(Owner::readable())))
            .map_err(failed("write", &self.path))
    }

    /// Nothing is left to undo.
    pub(super) fn clear(&self) -> Result<(), ResolverError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &self.path)(error))
            }
            _ => {
                durable::sync_folder_of(&self.path);
                Ok(())
            }
        }
    }

    /// Held by whoever changes something: only one may.
    pub(super) fn lock(&self) -> Result<Lock, ResolverError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        if !folder.exists() {
            let made = fs::create_dir_all(folder)
                .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o755)));
            made.map_err(failed("make", folder))?;
        }
        let path = self.path.with_extension("lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            // Who may open it could keep others from it.
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file)),
            Err(Errno::WOULDBLOCK) => Err(ResolverError::Busy),
            Err(error) => Err(failed("lock", &path)(error.into())),
        }
    }
}

/// An error about a file.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ResolverError {
    let path = path.to_owned();
    move |source| ResolverError::Io {
        action,
        path,
        source,
    }
}
