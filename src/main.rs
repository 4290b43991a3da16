//! The entry point: hands the command line over and turns an error into a message and an exit code.

use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    // Before anything else: the child must not read the parent's settings.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == portico::simulate::host::CHILD_ARGUMENT)
    {
        return portico::simulate::child::child_main();
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
