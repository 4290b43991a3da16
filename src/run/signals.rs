//! Signals around a program (signal(7)). Owns which are passed on and how this process ends as the program did; what
//! is done with each belongs to who hears it.
//!
//! The terminal sends its signals to the program as well, which is in the same process group: they are passed on only
//! where the process inside has not got them itself.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use tokio::signal::unix::{self, SignalKind};

/// The hidden argument of a process that ends by a signal.
pub(super) const DIE_ARGUMENT: &str = "__run-die";

/// What a terminal sends to the whole process group.
pub(super) const OF_TERMINALS: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::TSTP];
/// What else is passed on.
pub(super) const OF_OTHERS: [Signal; 4] = [Signal::HUP, Signal::TERM, Signal::USR1, Signal::USR2];
/// What is the program's alone: it reads or writes the terminal from the background.
const OF_THE_PROGRAM: [Signal; 2] = [Signal::TTIN, Signal::TTOU];

/// A signal that is caught, and its arrivals.
#[derive(Debug)]
pub(super) struct Caught {
    pub(super) signal: Signal,
    pub(super) arrivals: unix::Signal,
}

/// Catches all these signals from now on; programs that are started get their default again. What was ignored from the
/// start, as by nohup(1), stays so for the program, too.
///
/// # Errors
/// The system refuses.
pub(super) fn catch() -> io::Result<Vec<Caught>> {
    let ignored = ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default());
    let all = OF_TERMINALS.iter().chain(&OF_OTHERS).chain(&OF_THE_PROGRAM);
    let wanted = all.filter(|signal| ignored & (1 << (signal.as_raw() - 1)) == 0);
    let caught = wanted.map(|&signal| {
        let arrivals = unix::signal(SignalKind::from_raw(signal.as_raw()))?;
        Ok(Caught { signal, arrivals })
    });
    let caught: io::Result<Vec<_>> = caught.collect();
    let mut caught = caught?;
    caught.retain(|one| !OF_THE_PROGRAM.contains(&one.signal));
    Ok(caught)
}

/// `SigIgn` of proc(5): a bit a signal.
fn ignored(status: &str) -> u64 {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

/// Ends this process by `signal`, so that a shell sees what it would have seen of the program. By another program in
/// this process, in which nothing catches signals.
pub(super) fn die_of(signal: i32) -> ExitCode {
    let _failed = Command::new(super::EXECUTABLE)
        .arg0("portico")
        .args([DIE_ARGUMENT, &signal.to_string()])
        .exec();
    shown(signal)
}

/// The process of [`DIE_ARGUMENT`].
pub(super) fn die(signal: Option<String>) -> ExitCode {
    let signal = signal.and_then(|text| text.parse().ok());
    let signal = signal.unwrap_or_default();
    // The core to look at was the program's.
    let maximum = getrlimit(Resource::Core).maximum;
    let no_core = Rlimit {
        current: Some(0),
        maximum,
    };
    let _kept = setrlimit(Resource::Core, no_core);
    // Rust catches some for its own messages, and leaves them alone from the second on.
    for _ in 0..2 {
        if let Some(named) = Signal::from_named_raw(signal) {
            let _survived = kill_process(getpid(), named);
        }
    }
    shown(signal)
}

/// The exit status by which shells show a signal.
fn shown(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_is_a_bit_a_signal() {
        let status = "Name:\tportico\nSigIgn:\t0000000000000001\nSigCgt:\tffff\n";
        assert_eq!(ignored(status), 1);
        assert_eq!(ignored("Name:\tportico\n"), 0);
    }
}
