//! The sockets of a worker's flows in one epoll set. Owns them and their places; must not know what they are for.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use portico_core::{balance::Unkept, flow::FlowId};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
};

use crate::net::{SharedFd, datagrams};

/// Sockets looked at in one turn.
const EVENTS: usize = 64;

/// See the module's documentation.
pub(super) struct Sockets {
    set: SharedFd,
    /// By slot.
    open: Vec<Option<(u32, OwnedFd)>>,
    events: Vec<Event>,
    ready: Vec<FlowId>,
}

/// Flows with something to receive.
pub(super) struct Ready {
    /// Which; to be given back to [`Sockets::reuse`].
    pub(super) flows: Vec<FlowId>,
    /// Whether others were left out.
    pub(super) may_be_more: bool,
}

impl Sockets {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            set: SharedFd::new(epoll::create(CreateFlags::CLOEXEC)?),
            open: Vec::new(),
            events: Vec::with_capacity(EVENTS),
            ready: Vec::with_capacity(EVENTS),
        })
    }

    /// The set, which is readable while one of the sockets is.
    pub(super) fn set(&self) -> SharedFd {
        self.set.clone()
    }

    /// Opens a flow's socket; the slot has none. With `client` from that address, or why not.
    pub(super) fn open(
        &mut self,
        id: FlowId,
        endpoint: SocketAddr,
        client: Option<IpAddr>,
    ) -> io::Result<Option<Unkept>> {
        let (fd, unkept) = datagrams::connect(endpoint, client)?;
        let mark = (u64::from(id.slot) << 32) | u64::from(id.turn);
        epoll::add(&self.set, &fd, EventData::new_u64(mark), EventFlags::IN)?;
        let place = usize::try_from(id.slot).unwrap_or(usize::MAX);
        if place >= self.open.len() {
            self.open.resize_with(place + 1, || None);
        }
        if let Some(entry) = self.open.get_mut(place) {
            *entry = Some((id.turn, fd));
        }
        Ok(unkept)
    }

    /// The socket of a flow that is not over.
    pub(super) fn get(&self, id: FlowId) -> Option<&OwnedFd> {
        let place = usize::try_from(id.slot).ok()?;
        let (turn, fd) = self.open.get(place)?.as_ref()?;
        (*turn == id.turn).then_some(fd)
    }

    /// Closes a flow's socket, if it has one; the set forgets it by itself (epoll(7)).
    pub(super) fn close(&mut self, id: FlowId) {
        let place = usize::try_from(id.slot).unwrap_or(usize::MAX);
        if let Some(entry) = self.open.get_mut(place)
            && entry.as_ref().is_some_and(|(turn, _)| *turn == id.turn)
        {
            *entry = None;
        }
    }

    /// Flows with answers or errors, without waiting.
    pub(super) fn ready(&mut self) -> Ready {
        self.events.clear();
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // Fails only when a signal interrupts it, which without waiting it does not.
        let _ = epoll::wait(&self.set, spare_capacity(&mut self.events), Some(&now));
        let mut flows = std::mem::take(&mut self.ready);
        flows.extend(self.events.iter().map(|event| {
            let mark = event.data.u64();
            FlowId {
                slot: u32::try_from(mark >> 32).unwrap_or(u32::MAX),
                turn: u32::try_from(mark & u64::from(u32::MAX)).unwrap_or(u32::MAX),
            }
        }));
        Ready {
            may_be_more: flows.len() >= EVENTS,
            flows,
        }
    }

    pub(super) fn reuse(&mut self, mut flows: Vec<FlowId>) {
        flows.clear();
        self.ready = flows;
    }
}
