//! What goes into the table of flows and comes out of it. Owns these words; what they lead to is the table's.

use std::net::SocketAddr;

/// What makes a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Number of the socket that heard it.
    pub socket: u64,
    /// Where it came from.
    pub client: SocketAddr,
    /// What was asked: answers leave from there.
    pub local: SocketAddr,
}

/// A flow on one endpoint. A flow that moves gets another one, so that what comes late from the old socket is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    /// A small number, used again after the flow was [closed](super::FlowTable::closed).
    pub slot: u32,
    /// Different for everything that ever had the slot.
    pub turn: u32,
}

/// What to do with a datagram from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send it through the flow's socket.
    Forward(FlowId),
    /// First open a socket connected to the endpoint, and say so if that [fails](super::FlowTable::unopened).
    Open(FlowId, SocketAddr),
    /// Forget it.
    Drop(Dropped),
}

/// Why a datagram goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dropped {
    /// The address that was asked is no Frontend.
    Unmatched,
    /// No endpoint may be used, or as many as allowed have refused.
    NoEndpoint,
    /// There are endpoints, but none that a traffic policy allows here.
    Policy,
    /// Its source is outside the ranges that may ask.
    SourceRange,
    /// The table drains: no flow begins any more.
    Draining,
}

/// Which way a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    ToEndpoint,
    /// From the endpoint.
    ToClient,
}

/// Sums since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowCounts {
    /// Flows begun.
    pub opened: u64,
    /// Flows ended to make room.
    pub shed: u64,
    /// Flows ended because they were idle.
    pub expired: u64,
    /// Times that an endpoint refused.
    pub refused: u64,
    /// Times that an endpoint lost its flow because it did not serve any more.
    pub lost: u64,
    /// Datagrams to an address that is no Frontend.
    pub unmatched: u64,
    /// Datagrams that no endpoint could get.
    pub no_endpoint: u64,
    /// Datagrams that a traffic policy or source ranges forbade.
    pub forbidden: u64,
}
