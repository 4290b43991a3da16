//! One stable read of one manifest file. Owns the decision that a text is whole; must not interpret it.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use super::lease::{Writers, writers};

/// A change younger than this may share its time stamp with a later one: file systems stamp by the kernel's tick.
const STAMP_GRAIN: Duration = Duration::from_millis(100);

/// What stat(2) says about the text of a file. Equal identities mean an equal text, except while the stamp is
/// fresh (see [`Text::settled`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// The identity in `metadata`.
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether both are the same file, whatever its text.
    pub(super) fn is_same_file(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// A whole text.
#[derive(Debug)]
pub(super) struct Text {
    /// What stat said before and after the read.
    pub(super) identity: Identity,
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// Whether the stamp is old enough for the identity to vouch for the text.
    pub(super) settled: bool,
}

/// What reading a path gave.
#[derive(Debug)]
pub(super) enum Reading {
    /// A whole text.
    Whole(Text),
    /// Somebody is writing the file.
    Busy,
    /// Nothing there.
    Missing,
    /// There is a folder.
    Folder,
    /// Neither file nor folder, or not readable.
    Failed(io::Error),
}

/// What the caller has seen of writers of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// A write or creation that no close followed yet.
    Writing,
    /// Nothing of the kind.
    Quiet,
}

/// Reads `path`, unless it is being written.
pub(super) fn read(path: &Path, seen: Seen) -> Reading {
    match try_read(path, seen) {
        Ok(reading) => reading,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Reading::Missing
        }
        Err(error) => Reading::Failed(error),
    }
}

fn try_read(path: &Path, seen: Seen) -> io::Result<Reading> {
    // Asked before opening: opening a FIFO waits for its writer.
    let metadata = path.metadata()?;
    if metadata.is_dir() {
        return Ok(Reading::Folder);
    }
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    if is_being_written(&file, &before, seen) {
        return Ok(Reading::Busy);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.len()).unwrap_or_default());
    file.read_to_end(&mut bytes)?;
    let after = file.metadata()?;
    let identity = Identity::of(&after);
    if identity != Identity::of(&before) || is_being_written(&file, &after, seen) {
        return Ok(Reading::Busy);
    }
    let settled = after.modified().is_ok_and(|modified| {
        SystemTime::now()
            .duration_since(modified)
            .is_ok_and(|age| age > STAMP_GRAIN)
    });
    Ok(Reading::Whole(Text {
        identity,
        bytes,
        settled,
    }))
}

fn is_being_written(file: &File, metadata: &Metadata, seen: Seen) -> bool {
    match writers(file) {
        Writers::Present => true,
        Writers::Unknown => seen == Seen::Writing,
        // open(2) with O_CREAT announces the file before it counts as open for writing.
        Writers::Absent => seen == Seen::Writing && metadata.len() == 0,
    }
}
