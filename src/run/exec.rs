//! The last step before another program: a process that ends with its parent, whatever ends that. Owns the step, which
//! is a process of its own since a parent can ask for this in no other way without sharing memory with its child.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The hidden argument of such a process.
pub(super) const EXEC_ARGUMENT: &str = "__run-exec";

/// A program that is killed when the calling thread ends (`PR_SET_PDEATHSIG` in prctl(2)).
pub(super) fn bound_to_us(program: &OsStr) -> Command {
    let mut command = Command::new(super::EXECUTABLE);
    command
        .arg0("portico")
        .args([EXEC_ARGUMENT, &std::process::id().to_string()])
        .arg(program);
    command
}

/// Lets the kernel kill this process when the thread that started it ends.
pub(super) fn end_with_parent() {
    // It knows every signal.
    let _known = set_parent_process_death_signal(Some(Signal::KILL));
}

/// The process of [`EXEC_ARGUMENT`]: becomes the program, or ends as env(1) does.
pub(super) fn exec(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    end_with_parent();
    let parent = words.next().unwrap_or_default();
    let program = words.next().unwrap_or_default();
    let parent = parent.to_str().and_then(|text| text.parse().ok());
    if getppid() != parent.and_then(Pid::from_raw) {
        return ExitCode::FAILURE;
    }
    let error = Command::new(&program).args(words).exec();
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    let why = if is_missing {
        "no such program".to_owned()
    } else {
        error.to_string()
    };
    let name = program.display();
    let _ = writeln!(io::stderr(), "portico: cannot run '{name}': {why}");
    ExitCode::from(if is_missing { 127 } else { 126 })
}
