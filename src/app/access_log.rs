//! The access log's file. Owns the thread that writes lines and what is said when it cannot; what a line says, and that no request
//! waits for it, is the data path's.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{
        Arc, Weak,
        mpsc::{Receiver, TryRecvError},
    },
    thread,
};

use anyhow::Context as _;
use portico_core::http::log::LogFormat;
use portico_dataplane::AccessLog;

/// A log that is added to `file`, or goes to standard output where that is `-`.
///
/// # Errors
/// The file cannot be opened, or the system gives no thread.
pub(super) fn start(file: &Path, format: LogFormat) -> anyhow::Result<Arc<AccessLog>> {
    let out: Box<dyn Write + Send> = if file.as_os_str() == "-" {
        Box::new(io::stdout())
    } else {
        let mut options = OpenOptions::new();
        let opened = options.append(true).create(true).mode(0o600).open(file);
        let opened =
            opened.with_context(|| format!("cannot open {} for the access log", file.display()))?;
        Box::new(io::BufWriter::new(opened))
    };
    let (log, lines) = AccessLog::new(format);
    let told = Arc::downgrade(&log);
    thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || write(out, &lines, &told))
        .context("cannot start the access log's thread")?;
    Ok(log)
}

/// Writes lines until there can be no more, or one cannot be written; the rest is then dropped by the data path.
fn write(mut out: impl Write, lines: &Receiver<String>, log: &Weak<AccessLog>) {
    let mut dropped = 0;
    while let Ok(line) = next(&mut out, lines) {
        if let Err(error) = out.write_all(line.as_bytes()) {
            tracing::warn!(%error, "the access log cannot be written, and ends here");
            return;
        }
        let now = log.upgrade().map_or(dropped, |log| log.dropped());
        if now > dropped {
            tracing::warn!(
                lines = now - dropped,
                "lines of the access log were dropped: too many waited"
            );
            dropped = now;
        }
    }
}

/// The next line; what is written so far is to be seen by whoever reads along before it waits for one.
fn next(out: &mut impl Write, lines: &Receiver<String>) -> Result<String, TryRecvError> {
    match lines.try_recv() {
        Err(TryRecvError::Empty) => {
            // What fails here fails with the next line, too, which says so.
            let _ = out.flush();
            lines.recv().map_err(|_| TryRecvError::Disconnected)
        }
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_every_line_that_was_sent_is_written_in_order() {
        let (log, _) = AccessLog::new(LogFormat::Text);
        let (lines, received) = std::sync::mpsc::channel();
        for line in ["a\n", "b\n", "c\n"] {
            lines.send(line.to_owned()).unwrap();
        }
        drop(lines);
        let mut out = Vec::new();
        write(&mut out, &received, &Arc::downgrade(&log));
        assert_eq!(out, b"a\nb\nc\n");
    }

    #[test]
    fn start_where_no_file_can_be_says_which() {
        let error = start(Path::new("/proc/none/access.log"), LogFormat::Text).unwrap_err();
        assert!(
            error.to_string().contains("/proc/none/access.log"),
            "{error}"
        );
    }
}
