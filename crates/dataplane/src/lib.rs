//! The data path of portico: sockets, workers and relays.
//!
//! Owns every socket that clients connect to and every connection to an endpoint. It reads one thing, the published
//! [`Snapshot`], and loads it anew for every attempt; it must not know manifests, files, or how a Snapshot came to be.
//!
//! Sockets are kept apart from meaning. A [listener](ListenerStatus) is a bound socket in one of few states; which
//! Service a connection is for is looked up by the connection's local address. So a change of the world that needs no
//! other sockets costs one pointer swap.
//!
//! The way through the crate follows a connection:
//! 1. `listen` binds, on the control thread. Sockets are bound exclusively and have one descriptor each, which every
//!    worker watches.
//! 2. `worker` is a thread with a single-threaded runtime. Whichever worker accepts a connection keeps it, unless it
//!    would be more than one ahead of the least loaded worker: then it hands the descriptor over. That keeps even a
//!    handful of long connections spread, which hashing by `SO_REUSEPORT` does not.
//! 3. `tcp` chooses an endpoint by the Snapshot, connects (another one if that fails, before a byte of the client is
//!    read), and [relays](relay()).
//!
//! UDP is simpler: a socket belongs to one worker, `udp` moves datagrams in batches, and which flow goes where is the
//! core's [`portico_core::flow`].
//!
//! No lock is shared by all connections, every wait on the network has a deadline, and whatever a client can fill has
//! a bound. An unmeant end of a connection is a reset on both sides, never a clean close.

mod affinity;
mod budget;
mod clock;
mod draining;
mod http;
mod inherit;
mod listen;
mod net;
mod observer;
mod plane;
mod settings;
mod tcp;
mod udp;
mod unkept;
mod worker;

pub use draining::{Connection, Draining};
pub use http::log::AccessLog;
pub use inherit::{Inherited, InheritedKind, Unused};
pub use listen::guard::Filtering;
pub use listen::opener::Opener;
pub use listen::status::{BindError, BindErrorKind, ListenerState, ListenerStatus};
pub use net::{
    datagrams::exchange::{Answers, Exchange, Exchanged},
    open_at, open_for_another,
};
pub use observer::Observer;
pub use plane::{Counters, DataPlane, DrainReport};
pub use settings::DataSettings;
pub use tcp::registry::Phase;
pub use tcp::relay::{
    FLUSH_AFTER, MaybeSocket, Meter, Outcome, Patience, Relayed, SCRATCH_BYTES, Side, relay,
};

use portico_core::snapshot::Snapshot;

/// The published Snapshot: the program swaps it, the data path loads it without waiting and without keeping it.
pub type Published = arc_swap::ArcSwap<Snapshot>;

#[cfg(test)]
mod tests;
