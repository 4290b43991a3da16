//! Whether somebody has a file open for writing, asked by taking a read lease (fcntl(2), "Leases") and giving it
//! back at once. Owns the only unsafe call of the program; must not keep a lease, because a held one makes writers
//! wait.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
};

/// The same number on every architecture of Linux (asm-generic/fcntl.h).
const F_SETSIG: libc::c_int = 10;

/// What is known about writers of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writers {
    /// Nobody has it open for writing.
    Absent,
    /// Somebody has.
    Present,
    /// The kernel does not say: a lease needs the file's owner or `CAP_LEASE`, and a file system that has leases.
    Unknown,
}

/// Asks whether anybody has `file` open for writing. `file` must be a regular file opened read-only.
pub(super) fn writers(file: &File) -> Writers {
    let fd = file.as_raw_fd();
    // A writer that opens the file while the lease is held makes the kernel send a signal: SIGIO by default, which
    // would end this process. SIGURG is ignored by default.
    if fcntl(fd, F_SETSIG, libc::SIGURG).is_err() {
        return Writers::Unknown;
    }
    match fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => {
            // Closing the descriptor gives the lease back as well, so an error here changes nothing.
            let _ = fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
            Writers::Absent
        }
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Writers::Present,
        Err(_) => Writers::Unknown,
    }
}

#[expect(unsafe_code, reason = "neither std nor rustix offers F_SETLEASE")]
fn fcntl(fd: RawFd, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: `fd` is open for the whole call (the only caller borrows the File), and both commands take one integer
    // by value, so that the kernel reads and writes no memory of ours.
    match unsafe { libc::fcntl(fd, command, argument) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_file_open_for_writing_is_present_until_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, "a").unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(writers(&reader), Writers::Absent);

        let writer = File::options().append(true).open(&path).unwrap();
        assert_eq!(writers(&reader), Writers::Present);

        drop(writer);
        assert_eq!(writers(&reader), Writers::Absent);
    }
}
