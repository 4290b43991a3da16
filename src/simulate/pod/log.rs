//! The log of one container: its newest lines, kept as values and made text only when somebody reads them, because a
//! pod answers far more requests than anybody reads about. Owns the bound and the words.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::Method;
use portico_core::{calendar::rfc3339_millis, time::Timestamp};
use tokio::{sync::Notify, time::Instant};

use crate::{
    clock,
    simulate::protocol::{LogError, LogLine, LogPage, LogQuery},
};

/// Lines kept of one run of a container.
const MOST_LINES: usize = 1000;

/// Most bytes of a request's path that are kept.
const MOST_PATH: usize = 256;

/// Longest wait for a line.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// What happened.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// A request was answered.
    Request {
        method: Method,
        path: Box<str>,
        client: SocketAddr,
        status: u16,
        took: Duration,
        probe: bool,
    },
    /// A datagram was answered.
    Datagram { bytes: usize, client: SocketAddr },
    /// Anything else.
    Said(Box<str>),
}

#[derive(Debug)]
struct Line {
    seq: u64,
    at_ms: u64,
    entry: Entry,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(in crate::simulate) struct ContainerLog {
    runs: Mutex<Runs>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Runs {
    current: Run,
    previous: Option<Run>,
    /// Number of the newest line.
    last: u64,
}

#[derive(Debug, Default)]
struct Run {
    lines: VecDeque<Line>,
    /// Number of the last line before this run.
    before: u64,
}

/// The logs of a pod's containers, by name in the order of the spec.
#[derive(Debug)]
pub(in crate::simulate) struct PodLogs(pub(super) Vec<(Arc<str>, Arc<ContainerLog>)>);

impl PodLogs {
    /// The page that is asked for, when there is a line or the wait is over.
    pub(in crate::simulate) async fn read(&self, query: &LogQuery) -> Result<LogPage, LogError> {
        let mut all = self.0.iter();
        let found = match &query.container {
            Some(name) => all.find(|(of, _)| of == name),
            None => all.next(),
        };
        let Some((name, log)) = found else {
            let asked = query.container.clone().unwrap_or_default();
            return Err(LogError::NoContainer(asked));
        };
        let wait = query.wait.min(LONGEST_WAIT);
        let page = log.page_within(query, Instant::now() + wait).await;
        page.ok_or_else(|| LogError::NoPrevious(Arc::clone(name)))
    }
}

impl ContainerLog {
    fn lock(&self) -> MutexGuard<'_, Runs> {
        // Nothing panics while it is held, and each change is whole.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line; the oldest goes when there are too many.
    pub(super) fn write(&self, entry: Entry) {
        let at_ms = clock::now().as_millis();
        let mut runs = self.lock();
        runs.last += 1;
        let seq = runs.last;
        let lines = &mut runs.current.lines;
        if lines.len() >= MOST_LINES {
            lines.pop_front();
        }
        lines.push_back(Line { seq, at_ms, entry });
        drop(runs);
        self.more.notify_waiters();
    }

    pub(super) fn say(&self, text: impl Into<Box<str>>) {
        self.write(Entry::Said(text.into()));
    }

    /// Another run begins.
    pub(super) fn turn(&self) {
        let mut runs = self.lock();
        let next = Run {
            before: runs.last,
            ..Run::default()
        };
        runs.previous = Some(std::mem::replace(&mut runs.current, next));
    }

    async fn page_within(&self, query: &LogQuery, deadline: Instant) -> Option<LogPage> {
        loop {
            let more = self.more.notified();
            tokio::pin!(more);
            // From here on no line is missed.
            more.as_mut().enable();
            let page = self.page(query)?;
            // A former run gets no more lines.
            if !page.lines.is_empty() || query.previous || Instant::now() >= deadline {
                return Some(page);
            }
            let _time_is_over = tokio::time::timeout_at(deadline, more).await;
        }
    }

    /// `None` when there is no such run.
    fn page(&self, query: &LogQuery) -> Option<LogPage> {
        let runs = self.lock();
        let run = if query.previous {
            runs.previous.as_ref()?
        } else {
            &runs.current
        };
        // A number from before this process began.
        let unknown = query.after > runs.last;
        let after = if unknown { 0 } else { query.after };
        let first = run.lines.partition_point(|line| line.seq <= after);
        let limit = query.limit.clamp(1, MOST_LINES);
        let wanted = run.lines.range(first..).take(limit);
        let page: Vec<LogLine> = wanted.map(Line::show).collect();
        let expected = after.max(run.before) + 1;
        Some(LogPage {
            next: page.last().map_or(after, |line| line.seq),
            lost: unknown || page.first().is_some_and(|line| line.seq > expected),
            lines: page,
        })
    }
}

/// A request's path as it is kept.
pub(super) fn kept_path(uri: &hyper::Uri) -> Box<str> {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    path.get(..MOST_PATH).unwrap_or(path).into()
}

impl Line {
    fn show(&self) -> LogLine {
        let mut text = rfc3339_millis(Timestamp::from_millis(self.at_ms));
        // Writing to a String cannot fail.
        let _ = match &self.entry {
            Entry::Request {
                method,
                path,
                client,
                status,
                took,
                probe,
            } => {
                let mark = if *probe { " probe" } else { "" };
                let tenths = took.as_micros() / 100;
                let (whole, tenth) = (tenths / 10, tenths % 10);
                write!(
                    text,
                    " received request {method} {path} from {client} {status} {whole}.{tenth}ms{mark}"
                )
            }
            Entry::Datagram { bytes, client } => {
                write!(text, " received datagram of {bytes} bytes from {client}")
            }
            Entry::Said(what) => write!(text, " {what}"),
        };
        LogLine {
            seq: self.seq,
            at_ms: self.at_ms,
            text,
        }
    }
}

#[cfg(test)]
mod tests {
    use portico_core::world::pods::PodUid;

    use super::*;

    fn query(after: u64, limit: usize) -> LogQuery {
        LogQuery {
            uid: PodUid(1),
            container: None,
            previous: false,
            after,
            limit,
            wait: Duration::ZERO,
        }
    }

    fn texts(page: &LogPage) -> Vec<&str> {
        let lines = page.lines.iter();
        lines
            .map(|line| line.text.split_once(' ').unwrap().1)
            .collect()
    }

    #[test]
    fn request_line_has_the_words_people_look_for() {
        let log = ContainerLog::default();
        let request = |probe, status| Entry::Request {
            method: Method::GET,
            path: "/path".into(),
            client: ([127, 0, 0, 1], 1234).into(),
            status,
            took: Duration::from_micros(345),
            probe,
        };
        log.write(request(false, 200));
        log.write(request(true, 503));
        log.write(Entry::Datagram {
            bytes: 7,
            client: ([127, 0, 0, 1], 53).into(),
        });
        let page = log.page(&query(0, 10)).unwrap();
        assert_eq!(
            texts(&page),
            [
                "received request GET /path from 127.0.0.1:1234 200 0.3ms",
                "received request GET /path from 127.0.0.1:1234 503 0.3ms probe",
                "received datagram of 7 bytes from 127.0.0.1:53",
            ]
        );
        assert_eq!(
            &page.lines[0].text[..23],
            &rfc3339_millis(Timestamp::from_millis(page.lines[0].at_ms))[..23]
        );
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended_and_say_what_was_lost() {
        let log = ContainerLog::default();
        for number in 1..=MOST_LINES + 5 {
            log.say(number.to_string());
        }
        let page = log.page(&query(0, 2)).unwrap();
        assert_eq!(
            (texts(&page), page.next, page.lost),
            (vec!["6", "7"], 7, true)
        );
        let page = log.page(&query(7, 1)).unwrap();
        assert_eq!((texts(&page), page.next, page.lost), (vec!["8"], 8, false));
        let page = log.page(&query(1005, 9)).unwrap();
        assert_eq!((texts(&page), page.next, page.lost), (vec![], 1005, false));
        let page = log.page(&query(5000, 1)).unwrap();
        assert_eq!((texts(&page), page.lost), (vec!["6"], true), "another life");
    }

    #[test]
    fn previous_run_stays_readable_and_a_follower_loses_nothing() {
        let log = ContainerLog::default();
        let previous = LogQuery {
            previous: true,
            ..query(0, 9)
        };
        log.say("a");
        assert_eq!(log.page(&previous), None);
        log.turn();
        log.say("b");
        assert_eq!(texts(&log.page(&previous).unwrap()), ["a"]);
        let page = log.page(&query(1, 9)).unwrap();
        assert_eq!((texts(&page), page.lost), (vec!["b"], false));
        let page = log.page(&query(0, 9)).unwrap();
        assert_eq!((texts(&page), page.lost), (vec!["b"], false));
    }

    #[tokio::test]
    async fn read_waits_for_a_line() {
        let log = Arc::new(ContainerLog::default());
        let logs = PodLogs(vec![("main".into(), Arc::clone(&log))]);
        let patient = LogQuery {
            wait: Duration::from_secs(20),
            ..query(0, 9)
        };
        let (page, ()) = tokio::join!(logs.read(&patient), async { log.say("late") });
        assert_eq!(texts(&page.unwrap()), ["late"]);
        let other = LogQuery {
            container: Some("side".into()),
            ..query(0, 9)
        };
        let missing = Err(LogError::NoContainer("side".into()));
        assert_eq!(logs.read(&other).await, missing);
    }
}
