//! From a question to its answer: what exists, under which names, in which form. Owns the meaning of cluster DNS and
//! its wire form; reads one Snapshot and nothing else. Must not know sockets, clocks or chance: the serial and the
//! seed of the order are arguments.
//!
//! The record semantics are those of the Kubernetes "DNS-Based Service Discovery" specification 1.1.0. Where DNS
//! itself decides (negative answers, aliases, sizes), the RFC is named at the place.
//!
//! - [`answer`]: finds the zone of a name, walks the search list for bare names, follows aliases
//! - `zone`: which zones are ours and how a name lies in one
//! - `tree`: what stands at a name of a cluster zone
//! - `endpoints`: the names and addresses of endpoints
//! - `elsewhere`: what clients on other machines are told instead of loopback addresses
//! - `reverse`: addresses back to names
//! - [`meant`]: what a name that does not exist may stand for
//! - [`fast`]: what most queries ask, from answers prepared with each Service
//! - `text`: what records of others hold, for people
//! - [`wire`]: parsing queries and writing responses; [`packet`]: one datagram in, at most one out

use std::net::IpAddr;

mod elsewhere;
mod endpoints;
pub mod fast;
mod lookup;
mod meant;
mod name;
pub(crate) mod order;
pub mod packet;
mod record;
mod reverse;
mod text;
mod tree;
pub mod wire;
mod zone;

pub use elsewhere::{Elsewhere, told_elsewhere};
pub use lookup::answer;
pub use meant::meant;
pub use name::{Name, NameError};
pub use record::{
    Answer, Class, Moment, Question, Rcode, Record, RecordData, RecordType, Soa, UnknownType,
};
pub(crate) use zone::soa;
pub use zone::{search_list, zones};

/// Time to live of every record of a cluster zone but one, in seconds: short, since endpoints come and go.
pub const TTL: u32 = 5;

/// What of cluster DNS can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsRules {
    /// `--dns-pods`.
    pub pods: PodNames,
    /// `--advertise`: addresses that lead clients elsewhere to node ports, at most one a family.
    pub advertised: Vec<IpAddr>,
    /// Addresses of `--dns-listen`, each once; none stand for the cluster's DNS address.
    pub listened: Vec<IpAddr>,
}

/// Which names Pods have, such as `10-1-0-21.shop.pod.cluster.local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodNames {
    /// None.
    Disabled,
    /// Every address in every namespace that exists.
    Insecure,
    /// The addresses of endpoints, each in its namespace.
    #[default]
    Verified,
}

#[cfg(test)]
mod tests;
