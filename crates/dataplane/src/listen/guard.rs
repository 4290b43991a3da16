//! The filter of one listening socket. Owns whether it has one, what stands in for it, and what it has dropped; which
//! one it is to have is [`super::Listeners`]', the program [`crate::net::filter`]'s.
//!
//! A filter on a listening socket sees what begins a connection: the SYN, and the ACK that ends the handshake. Whoever
//! got through with the SYN may find a stricter filter at the ACK; that client waits in vain, as it would with a packet
//! filter in between. The kernel copies the filter to the connection that it makes then, where it goes on passing
//! that client (its addresses are the same) until it is accepted and the copy taken off. So established connections
//! never meet a filter that was put on after them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use portico_core::snapshot::filter::Filter;

use crate::net::{self, SharedFd};

/// What becomes of clients that are to be dropped: those that a traffic policy or source ranges turn away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtering {
    /// There are none.
    Idle,
    /// A socket filter drops what they send.
    Dropping {
        /// Packets that the socket has dropped since it was bound, also repeated ones and those for want of room in its
        /// queue; `None` where the kernel does not count.
        dropped: Option<u32>,
    },
    /// They are accepted and reset.
    Resetting {
        /// Why there is no filter.
        reason: Arc<str>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum State {
    #[default]
    Open,
    Attached,
    /// Why it is not.
    Failed(Arc<str>),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Guarding {
    /// Connections of its queue may have a filter.
    inherited: AtomicBool,
    /// The control side's alone.
    state: Mutex<State>,
}

impl Guarding {
    /// Whether accepted sockets may have a filter: there has been one.
    pub(crate) fn is_inherited(&self) -> bool {
        self.inherited.load(Relaxed)
    }

    /// Puts `filter` on the socket, or takes off what it has.
    ///
    /// # Errors
    /// Why it has none now.
    pub(crate) fn set(&self, fd: &SharedFd, filter: Option<&Filter>) -> Result<(), Arc<str>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(filter) = filter else {
            if std::mem::take(&mut *state) == State::Attached {
                net::filter::detach(fd);
            }
            return Ok(());
        };
        // Before there is one that a connection could have.
        self.inherited.store(true, Relaxed);
        match net::filter::attach(fd, filter) {
            Ok(()) => {
                *state = State::Attached;
                Ok(())
            }
            Err(error) => {
                let reason: Arc<str> = error.to_string().into();
                *state = State::Failed(Arc::clone(&reason));
                Err(reason)
            }
        }
    }

    /// Takes off what the socket has.
    pub(crate) fn release(&self, fd: &SharedFd) {
        // Taking off cannot fail.
        let _ = self.set(fd, None);
    }

    pub(crate) fn state(&self, fd: &SharedFd) -> Filtering {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open => Filtering::Idle,
            State::Attached => Filtering::Dropping {
                dropped: net::drops(fd),
            },
            State::Failed(reason) => Filtering::Resetting {
                reason: Arc::clone(reason),
            },
        }
    }
}
