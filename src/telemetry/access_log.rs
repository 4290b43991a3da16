//! The access log's writer: a thread that takes lines from the data path and writes them to a file or standard output. Owns the file,
//! its reopening, and what becomes of lines that cannot be written; what a line says is the core's.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use portico_core::http::log::LogFormat;
use portico_dataplane::AccessLog;

/// Bytes that are written at once, where so many wait.
const CHUNK: usize = 64 * 1024;
/// How long the end waits for the last lines: whoever reads them may have stopped.
const LAST_LINES: Duration = Duration::from_secs(1);

/// `--access-log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AccessLogFormat {
    /// For people: values in a fixed order.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<AccessLogFormat> for LogFormat {
    fn from(format: AccessLogFormat) -> Self {
        match format {
            AccessLogFormat::Text => Self::Text,
            AccessLogFormat::Json => Self::Json,
        }
    }
}

/// The thread, and what it is told.
#[derive(Debug)]
pub struct AccessLogWriter {
    log: Arc<AccessLog>,
    path: PathBuf,
    /// What it goes on with. Nobody else waits while it writes.
    next: Arc<Mutex<Option<File>>>,
    /// Disconnected once it has ended.
    ended: Mutex<Receiver<()>>,
}

impl AccessLogWriter {
    /// Opens `path` to append, `-` for standard output, and starts the thread.
    ///
    /// # Errors
    /// It cannot be opened; the system gives no thread.
    pub fn start(path: &Path, format: AccessLogFormat) -> io::Result<Self> {
        let output = open(path)?;
        let (log, lines) = AccessLog::new(format.into());
        let next = Arc::default();
        let (ends, ended) = sync_channel(0);
        let writing = Writing {
            log: Arc::clone(&log),
            output,
            next: Arc::clone(&next),
            is_failing: false,
            _ends: ends,
        };
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writing.run(&lines))?;
        Ok(Self {
            log,
            path: path.to_owned(),
            next,
            ended: Mutex::new(ended),
        })
    }

    /// Where the data path is to send lines.
    pub fn log(&self) -> Arc<AccessLog> {
        Arc::clone(&self.log)
    }

    /// Goes on in the file that has the path now: the other one was renamed (logrotate(8)). Where that cannot be opened, in the same
    /// as before.
    pub fn reopen(&self) {
        match open(&self.path) {
            Ok(output) => *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(output),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, "the access log goes on in the file it had: cannot open it: {error}");
            }
        }
    }

    /// Waits until the lines so far are written, or patience is over. Later ones are not.
    pub fn end(&self) {
        self.log.end();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: either outcome is the end of waiting.
        let _ = ended.recv_timeout(LAST_LINES);
    }
}

fn open(path: &Path) -> io::Result<File> {
    if path.as_os_str() == "-" {
        return Ok(io::stdout().as_fd().try_clone_to_owned()?.into());
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// What the thread has.
#[derive(Debug)]
struct Writing {
    log: Arc<AccessLog>,
    output: File,
    next: Arc<Mutex<Option<File>>>,
    is_failing: bool,
    /// Dropped with the thread.
    _ends: SyncSender<()>,
}

impl Writing {
    fn run(mut self, lines: &Receiver<String>) {
        while let Ok(mut chunk) = lines.recv() {
            let (mut count, mut is_end) = (1, chunk.is_empty());
            while !is_end
                && chunk.len() < CHUNK
                && let Ok(line) = lines.try_recv()
            {
                is_end = line.is_empty();
                chunk.push_str(&line);
                count += u64::from(!is_end);
            }
            self.write(&chunk, count);
            if is_end {
                return;
            }
        }
    }

    fn write(&mut self, chunk: &str, lines: u64) {
        let next = self
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(output) = next {
            self.output = output;
        }
        match self.output.write_all(chunk.as_bytes()) {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                self.log.lost(lines);
                // Once, not for every line of a disk that is full.
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!("lines of the access log are lost: cannot write them: {error}");
                }
            }
        }
    }
}
