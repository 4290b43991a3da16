//! The entry point: hands the command line over and turns an error into a message and an exit code.

use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    // Before anything else: these children must not read the parent's settings.
    let mut words = std::env::args_os().skip(1);
    let first = words.next().unwrap_or_default();
    if first == portico::simulate::host::CHILD_ARGUMENT {
        return portico::simulate::child::child_main();
    }
    if let Some(code) = portico::run::child(&first, words) {
        return code;
    }
    match portico::cli::run(std::env::args_os().collect()) {
        Ok(code) => code,
        Err(error) => {
            // What kubectl would say is said in its words; a panic over a closed standard error would hide the exit
            // code.
            let _ = match error.downcast_ref::<portico::cli::Verbatim>() {
                Some(text) => writeln!(std::io::stderr(), "{text}"),
                None => writeln!(std::io::stderr(), "portico: {error:#}"),
            };
            ExitCode::FAILURE
        }
    }
}
