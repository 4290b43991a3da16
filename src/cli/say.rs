//! Writing to the terminal, or to whatever stands in for it. Owns one rule: a reader that has gone (`| head -1`) is
//! no reason to end or to panic, for the program goes on serving without its words.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use rustix::event::{PollFd, PollFlags, poll};

/// A line on standard output.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Text on standard output as it is, line breaks included.
pub(crate) fn text(text: impl Display) {
    let mut out = io::stdout().lock();
    let _ = write!(out, "{text}");
    let _ = out.flush();
}

/// A line on standard error.
pub(crate) fn error_line(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Text on standard error as it is.
pub(crate) fn error_text(text: impl Display) {
    let _ = write!(io::stderr().lock(), "{text}");
}

/// Ends the process, quietly, as soon as nobody reads its standard output any longer. For commands that may have
/// nothing to say for hours: a write would only tell them with the next word.
pub(crate) fn end_with_reader() {
    std::thread::spawn(|| {
        let stdout = io::stdout();
        // No events are asked for: what comes unasked is the end of the other side (poll(2), POLLERR and POLLHUP).
        let mut ends = [PollFd::new(&stdout, PollFlags::empty())];
        while poll(&mut ends, None).is_err() {}
        std::process::exit(0);
    });
}
