//! A connection whose two sides go on in another protocol. Owns what is counted and logged of it, where its request is and in the list
//! of connections; must not decide when it ends.

use super::{Session, log::Entry, upstream::Upstream};
use crate::tcp::{
    account::Exchange,
    registry::Registered,
    relay::{Meter, Side},
};

/// Both sides go on in another protocol.
pub(super) struct Tunnel {
    pub(super) upstream: Box<Upstream>,
    pub(super) exchange: Exchange,
    pub(super) entry: Option<Box<Entry>>,
}

impl Tunnel {
    /// The endpoint's side, and what is counted and logged of it.
    pub(super) fn split(self, session: &Session) -> (Box<Upstream>, Tally<'_>) {
        let tally = Tally {
            live: &session.live,
            before: session.progress.bytes.get(),
            exchange: self.exchange,
            entry: self.entry,
        };
        (self.upstream, tally)
    }
}

/// What is counted and logged of a tunnel. Dropped: it is over, and if its connection was cut, for that reason.
pub(super) struct Tally<'s> {
    live: &'s Registered,
    /// Bytes of the connection that went before: from the client and to it.
    before: (u64, u64),
    pub(super) exchange: Exchange,
    pub(super) entry: Option<Box<Entry>>,
}

impl Meter for Tally<'_> {
    fn moved(&mut self, to_upstream: u64, to_downstream: u64) -> bool {
        let (from_client, to_client) = self.before;
        self.live
            .moved(from_client + to_upstream, to_client + to_downstream);
        if let Some(entry) = &mut self.entry {
            entry.bytes = (to_upstream, to_downstream);
        }
        self.exchange.moved(to_upstream, to_downstream)
    }

    fn flush(&mut self) {
        self.exchange.flush();
    }

    fn half_closed(&mut self, by: Side) {
        self.live.half_closed(by);
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        let Some(why) = self.live.cut_because() else {
            return;
        };
        self.live.ended(why);
        self.exchange.ends(why);
        if let Some(entry) = &mut self.entry {
            entry.broke(why);
        }
    }
}
