//! Questions about the logs of simulated pods on their way to the child, and the answers on their way back. Owns who
//! waits for which answer; the logs themselves are the child's.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use crate::simulate::protocol::{LogError, LogPage, LogQuery};

/// Questions that may wait for the child; their askers wait beyond that.
const WAITING: usize = 64;

/// Questions without an answer yet; more are refused.
const ASKED: usize = 256;

type Answer = Result<LogPage, LogError>;
type Question = (LogQuery, oneshot::Sender<Answer>);

/// Reads the logs of simulated pods.
#[derive(Debug, Clone)]
pub struct LogReader(mpsc::Sender<Question>);

impl LogReader {
    /// The page that is asked for: at once if it has a line, else when the first is written or `query.wait` is over.
    ///
    /// # Errors
    /// When there is no such pod, container or former run, when too many ask, or when the child goes away meanwhile.
    ///
    /// # Cancel safety
    /// The answer to a question that nobody waits for any more is thrown away; no line is taken from anybody.
    pub async fn read(&self, query: LogQuery) -> Answer {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.send((query, reply)).await;
        sent.map_err(|_| LogError::Lost)?;
        answer.await.unwrap_or(Err(LogError::Lost))
    }
}

/// The keeper's end.
#[derive(Debug)]
pub(super) struct Questions {
    /// Locked by the one who passes them on, for as long as a child lives.
    coming: AsyncMutex<mpsc::Receiver<Question>>,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
}

/// Both ends.
pub(super) fn channel() -> (LogReader, Questions) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let questions = Questions {
        coming: AsyncMutex::new(receiver),
        asked: Mutex::default(),
    };
    (LogReader(sender), questions)
}

impl Questions {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        // Nothing panics while it is held, and each change is whole.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next question and the number of its answer; never ends.
    ///
    /// # Cancel safety
    /// A question is taken only when this returns.
    pub(super) async fn next(&self) -> (u64, LogQuery) {
        let mut coming = self.coming.lock().await;
        loop {
            let Some((query, reply)) = coming.recv().await else {
                // Nobody can ask any more.
                std::future::pending::<()>().await;
                continue;
            };
            if let Some(id) = self.enter(reply) {
                return (id, query);
            }
        }
    }

    /// Remembers who asked; refuses when too many wait.
    fn enter(&self, reply: oneshot::Sender<Answer>) -> Option<u64> {
        let mut asked = self.lock();
        asked.waiting.retain(|_, reply| !reply.is_closed());
        if asked.waiting.len() >= ASKED {
            drop(asked);
            let _gone = reply.send(Err(LogError::Busy));
            return None;
        }
        asked.last += 1;
        let id = asked.last;
        asked.waiting.insert(id, reply);
        Some(id)
    }

    /// Gives an answer to the one who asked.
    pub(super) fn answer(&self, id: u64, page: Answer) {
        let reply = self.lock().waiting.remove(&id);
        if let Some(reply) = reply {
            // Who asked may have gone.
            let _gone = reply.send(page);
        }
    }

    /// The child is gone: so are its answers.
    pub(super) fn forget(&self) {
        self.lock().waiting.clear();
    }
}
