//! Limits on connections at a time: of a Service port, of an endpoint. Owns places: how one is taken, given back, and when
//! there is none. Who waits for one, and in which order, is [`super::line`]'s.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

use super::{EndpointState, PortState};

/// Most connections at a time; without limit unless it is told.
#[derive(Debug, Default)]
pub struct Limit(AtomicU32);

impl Limit {
    /// From now on.
    pub fn set(&self, most: Option<NonZeroU32>) {
        self.0.store(most.map_or(0, NonZeroU32::get), SeqCst);
    }

    /// `None` is no limit.
    pub fn get(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0.load(SeqCst))
    }
}

/// Whether a limit leaves room beside so many.
pub(super) fn leaves_room(limit: Option<NonZeroU32>, active: u64) -> bool {
    limit.is_none_or(|most| active < u64::from(most.get()))
}

/// Takes a place if there is one. Here and wherever a place is given back the order is that of all threads, so that
/// whoever gives one back sees who waits, or who begins to wait sees the place.
pub(super) fn claim(active: &AtomicU64, limit: Option<NonZeroU32>) -> bool {
    if limit.is_none() {
        active.fetch_add(1, SeqCst);
        return true;
    }
    let next = |active| leaves_room(limit, active).then_some(active + 1);
    active.fetch_update(SeqCst, SeqCst, next).is_ok()
}

/// Why a set gives no endpoint.
#[derive(Debug, Clone)]
pub enum Unpicked {
    /// There is none that may be used.
    Unusable,
    /// Those that may be used have as many connections as they may, or others wait for what is left of them.
    Full,
    /// So it is with the one that session affinity sends the client to.
    Awaited(Arc<EndpointState>),
}

impl PortState {
    /// Takes a place for a connection, if there is one; whose turn it is, the caller knows.
    pub fn enter(&self) -> bool {
        claim(&self.active, self.limit.get())
    }

    /// The same for one who has not stood in line: only if nobody waits. Without a limit nobody needs to.
    pub fn enter_as_newcomer(&self) -> bool {
        let limit = self.limit.get();
        (limit.is_none() || self.entrance.is_empty()) && claim(&self.active, limit)
    }

    /// Gives it back.
    pub fn leave(&self) {
        self.active.fetch_sub(1, SeqCst);
        self.entrance.call();
    }

    /// Whether there is a place for another connection.
    pub fn has_room(&self) -> bool {
        leaves_room(self.limit.get(), self.active.load(SeqCst))
    }

    /// Connections that wait for a place of either kind.
    pub fn waiting(&self) -> u64 {
        self.entrance.len() + self.line.len_of_all()
    }
}
