//! `portico run`: a program in namespaces of its own, in which Services are at their addresses and ports whatever this
//! machine's listeners and privileges are. Owns the processes around that program; what is served inside is the running
//! portico's.
//!
//! ```text
//! parent (outside) ──┬── inside: namespaces, keeper ◄── run.sock ──► the running portico
//!                    │      └── the program
//!                    └── pasta or slirp4netns, outside: the rest of the world
//! ```
//!
//! Each is a process because it must be: making a user namespace wants a process with one thread, and what carries
//! connections out must be outside. Each ends with its parent, whatever ends that.

mod exec;
mod files;
mod inside;
mod keeper;
mod link;
pub(crate) mod namespaces;
mod parent;
mod signals;
mod world;

use std::{ffi::OsString, process::ExitCode};

pub use parent::{Run, RunError};
pub use world::Network;

/// This program, also after its file was replaced.
const EXECUTABLE: &str = "/proc/self/exe";

/// What a process does that was started with a hidden argument and these words after it; `None` for every other
/// argument.
pub fn child(argument: &OsString, mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    match argument.to_str()? {
        inside::INSIDE_ARGUMENT => Some(inside::main(words)),
        exec::EXEC_ARGUMENT => Some(exec::exec(words)),
        signals::DIE_ARGUMENT => {
            let signal = words.next().and_then(|word| word.into_string().ok());
            Some(signals::die(signal))
        }
        namespaces::PROBE_ARGUMENT => {
            let told = serde_json::to_writer(std::io::stdout(), &namespaces::enter());
            Some(told.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
        }
        _ => None,
    }
}
