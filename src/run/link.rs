//! What the two processes around a program say to each other: the one that the user started, and its child in the
//! namespaces. Owns the words; how they travel belongs to `handover`.

use serde::{Deserialize, Serialize};

use super::namespaces::NoNamespaces;

/// To the process inside.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToInside {
    /// The outside world is connected, or there will be none. The program's standard input comes with it.
    Go,
    /// A signal for the program.
    Signal(i32),
    /// The program is to go on, if it was stopped.
    Continue,
}

/// From the process inside.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromInside {
    /// Whether there are namespaces; the first message.
    Entered(Result<(), NoNamespaces>),
    /// The program will not run.
    Failed(String),
    /// What the user may want to know.
    Note(String),
    /// The program was stopped, by the terminal most often.
    Stopped,
    /// The program has ended; the last message.
    Ended(Ending),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ending {
    /// With this exit status.
    Code(u8),
    /// By this signal.
    Signal(i32),
}
