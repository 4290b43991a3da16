//! Replacing a file as a whole or not at all, also if the power fails. Owns that order of steps; what is in the file, and
//! who may write it at the same time, is the caller's.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// Whose a file is and who may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Owner {
    /// Ours, for everybody to read, whatever umask(2) says.
    pub(crate) fn readable() -> Self {
        Self {
            mode: 0o644,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    /// As that file has it.
    pub(crate) fn of(file: &fs::Metadata) -> Self {
        Self {
            mode: file.mode() & 0o7777,
            uid: file.uid(),
            gid: file.gid(),
        }
    }
}

/// Where the new content of `path` is until it is complete. A crash leaves it, and nobody reads it.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.portico"))
}

/// Writes `bytes` to `path`, for `owner` or as umask(2) has it. One writer at a time.
///
/// # Errors
/// The file is as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8], owner: Option<Owner>) -> io::Result<()> {
    let temporary = temporary(path);
    let written = write(&temporary, bytes, owner).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // It may not exist; the first error is the one that counts.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder_of(path);
    Ok(())
}

/// A name that was given or taken survives a crash only when its folder is on disk; some file systems cannot sync one.
pub(crate) fn sync_folder_of(path: &Path) {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

fn write(path: &Path, bytes: &[u8], owner: Option<Owner>) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    if let Some(Owner { mode, uid, gid }) = owner {
        let now = file.metadata()?;
        if (now.uid(), now.gid()) != (uid, gid) {
            fchown(&file, Some(uid), Some(gid))?;
        }
        // After the owner, since a change of that takes bits away (chown(2)).
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_keeps_the_mode_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let owner = Owner::of(&fs::metadata(&path).unwrap());
        // As a crash left it.
        fs::write(temporary(&path), "half").unwrap();
        replace(&path, b"new", Some(owner)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(Owner::of(&fs::metadata(&path).unwrap()), owner);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
