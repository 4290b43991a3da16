//! `portico run`: a program in namespaces of its own, in which Services are at their addresses and ports whatever this
//! machine's listeners and privileges are. Owns the processes around that program; what is served inside is the running
//! portico's.

pub(crate) mod namespaces;

use std::{ffi::OsStr, process::ExitCode};

/// This program, also after its file was replaced.
const EXECUTABLE: &str = "/proc/self/exe";

/// What a process does that was started with a hidden argument; `None` for every other argument.
pub fn child(argument: &OsStr) -> Option<ExitCode> {
    if argument == namespaces::PROBE_ARGUMENT {
        let told = serde_json::to_writer(std::io::stdout(), &namespaces::enter());
        return Some(told.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS));
    }
    None
}
