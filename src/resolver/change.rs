//! Doing what was planned, and undoing it. Owns the order of steps, each of which leaves something that [`undo`] knows
//! from what is on disk: it may be cut off, and done again, anywhere.
//!
//! 1. the journal says what is about to happen
//! 2. what is there gets a second name: the very file, so that its owner, its attributes and the way of a relative link
//!    come back with it
//! 3. the new file takes its place, at once
//! 4. the command that tells of it

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    ResolverError, Uninstalled,
    journal::{Journal, Record, State, failed},
};
use crate::{
    dns::{self, INSTALLED, ResolvConf},
    durable::{self, Owner},
};

/// What is where we wrote, or are about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// What we wrote, byte for byte.
    Ours,
    /// What we wrote, and somebody has changed it.
    Edited,
    /// Something else, or nothing.
    Other,
}

/// What became of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// What was there is there again.
    Restored,
    /// Nothing was there, and nothing is.
    Removed,
    /// It had not been changed yet, or was brought back by somebody.
    Untouched,
    /// Somebody has written another one since, which stays; where the former one still is.
    Theirs(PathBuf),
}

impl Undone {
    /// For a line about the file.
    pub fn words(&self) -> String {
        match self {
            Self::Restored => "as it was before".to_owned(),
            Self::Removed => "removed".to_owned(),
            Self::Untouched => "was as before already".to_owned(),
            Self::Theirs(former) => format!(
                "somebody has written another one since, which stays; the one before portico's is {}",
                former.display()
            ),
        }
    }
}

/// Looks.
pub(super) fn found(record: &Record) -> Found {
    let is_file = fs::symlink_metadata(&record.path).is_ok_and(|file| file.is_file());
    let text = fs::read(&record.path).unwrap_or_default();
    if !is_file || !text.starts_with(INSTALLED.as_bytes()) {
        Found::Other
    } else if text == record.content.as_bytes() {
        Found::Ours
    } else {
        Found::Edited
    }
}

/// Ends the process as a crash would, in a debug build that was told after which step: for tests of what comes then.
pub(super) fn passed(step: &str) {
    let wanted = || std::env::var("PORTICO_TEST_CRASH_AFTER");
    if cfg!(debug_assertions) && wanted().is_ok_and(|wanted| wanted == step) {
        std::process::abort();
    }
}

/// Does it. On an error it is for the caller to undo.
pub(super) fn begin(journal: &Journal, record: &Record) -> Result<(), ResolverError> {
    journal.save(&record.in_state(State::Changing))?;
    passed("journal");
    if record.made_folder
        && let Some(folder) = record.path.parent()
    {
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        passed("folder");
    }
    // Through a link: its target's.
    let owner =
        fs::metadata(&record.path).map_or_else(|_| Owner::readable(), |file| Owner::of(&file));
    if record.had_former {
        keep(record)?;
    }
    passed("keep");
    durable::replace(&record.path, record.content.as_bytes(), Some(owner))
        .map_err(failed("write", &record.path))?;
    passed("write");
    tell(record)?;
    passed("command");
    Ok(())
}

/// Gives what is there its second name. One that has it already was left by somebody who replaced our file.
fn keep(record: &Record) -> Result<(), ResolverError> {
    let former = dns::former(&record.path);
    remove(&former)?;
    fs::hard_link(&record.path, &former).map_err(failed("keep a second name of", &record.path))?;
    durable::sync_folder_of(&former);
    Ok(())
}

/// Undoes whatever was done of it.
pub(super) fn undo(journal: &Journal, record: &Record) -> Result<Uninstalled, ResolverError> {
    if record.state != State::Changing {
        journal.save(&record.in_state(State::Changing))?;
        passed("undo journal");
    }
    let file = match put_back(record) {
        Err(error @ ResolverError::Edited { .. }) => {
            // It stays as it is, which is no longer being changed.
            journal.save(record)?;
            return Err(error);
        }
        file => file?,
    };
    durable::sync_folder_of(&record.path);
    passed("undo file");
    if record.made_folder
        && let Some(folder) = record.path.parent()
    {
        // It may hold files of others by now.
        let _ = fs::remove_dir(folder);
    }
    let told = tell(record);
    passed("undo command");
    journal.clear()?;
    Ok(Uninstalled {
        path: record.path.clone(),
        file,
        warning: told.err().map(|error| error.to_string()),
    })
}

fn put_back(record: &Record) -> Result<Undone, ResolverError> {
    remove(&durable::temporary(&record.path))?;
    let former = dns::former(&record.path);
    let kept = fs::symlink_metadata(&former).ok();
    match (found(record), kept) {
        (Found::Edited, _) => Err(edited(&record.path, record.command.as_deref())),
        (Found::Ours, Some(_)) => {
            let renamed = fs::rename(&former, &record.path);
            renamed.map_err(failed("bring back", &record.path))?;
            Ok(Undone::Restored)
        }
        (Found::Ours, None) if record.had_former => {
            Err(failed("find", &former)(io::ErrorKind::NotFound.into()))
        }
        (Found::Ours, None) => {
            remove(&record.path)?;
            Ok(Undone::Removed)
        }
        (Found::Other, Some(kept)) => {
            let now = fs::symlink_metadata(&record.path).ok();
            let is_same = |file: fs::Metadata| (file.dev(), file.ino()) == (kept.dev(), kept.ino());
            if now.is_some_and(is_same) {
                remove(&former)?;
                Ok(Undone::Untouched)
            } else {
                Ok(Undone::Theirs(former))
            }
        }
        (Found::Other, None) => Ok(Undone::Untouched),
    }
}

/// A file of ours with changes of somebody's, of which no record may be left.
fn edited(path: &Path, command: Option<&[String]>) -> ResolverError {
    let former = dns::former(path);
    let mut fix = if former.symlink_metadata().is_ok() {
        format!("sudo mv {} {}", former.display(), path.display())
    } else {
        format!("sudo rm {}", path.display())
    };
    if let Some(command) = command {
        fix = format!("{fix} && sudo {}", command.join(" "));
    }
    ResolverError::Edited {
        path: path.to_owned(),
        fix: format!("{fix}; and `sudo portico dns uninstall` again"),
    }
}

/// An error if `/etc/resolv.conf` is ours, for whoever has no record of it.
pub(super) fn check_unrecorded() -> Result<(), ResolverError> {
    let path = ResolvConf::default().path;
    let text = fs::read(&path).unwrap_or_default();
    if text.starts_with(INSTALLED.as_bytes()) {
        return Err(edited(&path, None));
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), ResolverError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn tell(record: &Record) -> Result<(), ResolverError> {
    let Some((program, arguments)) = record.command.as_deref().and_then(<[String]>::split_first)
    else {
        return Ok(());
    };
    let error = |said: String| ResolverError::Command {
        command: format!("{program} {}", arguments.join(" ")),
        said,
    };
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|source| error(source.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(error(if said.is_empty() {
        output.status.to_string()
    } else {
        said
    }))
}

#[cfg(test)]
mod tests;
