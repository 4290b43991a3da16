//! Sockets in other network namespaces. Owns what is asked of whoever is in there; what they are for, and all that
//! becomes of them, is the same as for our own.

use std::{fmt, io, net::SocketAddr, os::fd::OwnedFd};

use portico_core::snapshot::plan::ListenerKey;

/// Opens sockets in the network namespaces of other scopes. Both methods are called on the control thread and must not
/// wait: an answer that takes its time is asked for again ([`crate::DataPlane::retry`]).
pub trait Opener: Send + fmt::Debug {
    /// The socket of a listener, bound to `addr` and not listening.
    ///
    /// # Errors
    /// `WouldBlock`: asked for, and not there yet. Anything else is the answer, and the next call asks anew.
    fn open(&mut self, key: ListenerKey, addr: SocketAddr) -> io::Result<OwnedFd>;

    /// Nobody wants this socket any more, if it was asked for and is not there yet.
    fn forget(&mut self, key: ListenerKey);
}

/// Where no other scope is served.
#[derive(Debug)]
pub(super) struct Nobody;

impl Opener for Nobody {
    fn open(&mut self, _: ListenerKey, _: SocketAddr) -> io::Result<OwnedFd> {
        Err(io::Error::other("its network namespace is not open"))
    }

    fn forget(&mut self, _: ListenerKey) {}
}
