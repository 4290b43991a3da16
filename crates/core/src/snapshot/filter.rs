//! What a listener must drop before anybody accepts it, as data: by destination, who may connect. Owns the rule that a
//! filter says what the Snapshot's verdict says; turning it into a program and putting that on a socket is the data
//! path's, which asks the Snapshot again for whatever gets through.
//!
//! Kubernetes drops where endpoints exist but a traffic policy leaves none here, and where a source is outside
//! `loadBalancerSourceRanges` (Kubernetes API reference, `ServiceSpec`). What has no endpoint anywhere is refused, which
//! is a listener's state and no filter's.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use super::{ClientPlace, Cluster, FrontendKind, PortView, Verdict};
use crate::object::service::IpFamily;

/// Sources that are admitted, all of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Sorted, disjoint and as few as possible.
    pub ranges: Arc<[IpNet]>,
    /// A source that is the destination itself, too: the host talks to itself.
    pub itself: bool,
}

impl Clause {
    fn new(ranges: &Vec<IpNet>, itself: bool) -> Self {
        let ranges = IpNet::aggregate(ranges).into();
        Self { ranges, itself }
    }

    /// Admits these ranges as well, unless it admits nobody at all.
    fn or(self, others: &[IpNet]) -> Self {
        if others.is_empty() || (self.ranges.is_empty() && !self.itself) {
            return self;
        }
        let all = [&self.ranges, others].concat();
        Self::new(&all, self.itself)
    }

    fn admits(&self, source: IpAddr, destination: IpAddr) -> bool {
        (self.itself && source == destination)
            || self.ranges.iter().any(|range| range.contains(&source))
    }

    fn admits_everybody(&self) -> bool {
        self.ranges.iter().any(|range| range.prefix_len() == 0)
    }
}

/// Who may connect to an address: whom every clause admits. Without one that is everybody; a clause without ranges is
/// nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guard {
    clauses: Vec<Clause>,
}

impl Guard {
    /// Everybody.
    pub const OPEN: Self = Self {
        clauses: Vec::new(),
    };

    /// The guard of a frontend of `kind` at `addr`: what would be [`Verdict::Drop`] for a source, or is outside
    /// `sources`, is not admitted. A trusted front end is, wherever some client might be: it is judged by the client that
    /// its header names.
    pub fn of(
        port: &PortView,
        (addr, kind): (IpAddr, FrontendKind),
        sources: Option<&[IpNet]>,
        cluster: &Cluster,
    ) -> Self {
        if kind == FrontendKind::HealthCheck {
            return Self::OPEN;
        }
        let is_dropped = |place| matches!(port.verdict(kind, place), Verdict::Drop);
        let by_policy = match (
            is_dropped(ClientPlace::OnNode),
            is_dropped(ClientPlace::Elsewhere),
        ) {
            (true, true) => Some(Clause::new(&Vec::new(), false)),
            (false, true) => Some(on_node(IpFamily::of(addr), cluster)),
            // Clients of the node reach at least what others reach; if not, the verdict behind the filter tells.
            (_, false) => None,
        };
        let by_source = sources.map(|sources| Clause::new(&sources.to_vec(), false));
        let trusted = trusted(port, IpFamily::of(addr));
        let clauses = by_source.into_iter().chain(by_policy);
        let clauses = clauses.map(|clause| clause.or(&trusted));
        Self {
            clauses: clauses
                .filter(|clause| !clause.admits_everybody())
                .collect(),
        }
    }

    /// What every source has to pass.
    pub fn clauses(&self) -> &[Clause] {
        &self.clauses
    }

    /// Whether everybody may connect.
    pub fn is_open(&self) -> bool {
        self.clauses.is_empty()
    }

    fn admits(&self, source: IpAddr, destination: IpAddr) -> bool {
        let mut clauses = self.clauses.iter();
        clauses.all(|clause| clause.admits(source, destination))
    }
}

/// Sources that [`Cluster::place_of`] takes for clients on this node.
fn on_node(family: IpFamily, cluster: &Cluster) -> Clause {
    let loopback = match family {
        IpFamily::IPv4 => IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
        IpFamily::IPv6 => IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    };
    let hosts = cluster.host_addresses.iter().map(|addr| IpNet::from(*addr));
    let all = [loopback].into_iter().chain(cluster.ranges()).chain(hosts);
    let of_family = all.filter(|range| IpFamily::of(range.addr()) == family);
    Clause::new(&of_family.collect(), true)
}

/// Front ends of this family whose headers name the client.
fn trusted(port: &PortView, family: IpFamily) -> Vec<IpNet> {
    let all = port.proxy.accept_from.iter();
    let of_family = all.filter(|range| IpFamily::of(range.addr()) == family);
    of_family.copied().collect()
}

/// Who may connect to the addresses of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The destinations.
    pub destination: IpNet,
    /// Who may connect to them.
    pub guard: Guard,
}

/// What a listener drops. Equal filters are equal values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    rules: Vec<Rule>,
}

impl Filter {
    /// The filter of a socket that hears these frontends; `None` if it drops nothing. The addresses ascend. An
    /// unspecified one stands for every address of its family that is in no range of ours and has no frontend of its
    /// own, as in [`super::Snapshot::frontend`].
    pub fn of<'g>(
        frontends: impl Iterator<Item = (IpAddr, &'g Guard)> + Clone,
        cluster: &Cluster,
    ) -> Option<Self> {
        let wildcards: Vec<_> = frontends
            .clone()
            .filter(|(addr, guard)| addr.is_unspecified() && !guard.is_open())
            .collect();
        let is_shadowed = |addr: IpAddr| {
            let mut wildcards = wildcards.iter();
            wildcards.any(|(any, _)| IpFamily::of(*any) == IpFamily::of(addr))
        };
        let exact = frontends.filter(|(addr, guard)| {
            !addr.is_unspecified()
                && (!guard.is_open() || (is_shadowed(*addr) && !cluster.owns(*addr)))
        });
        let rule = |destination, guard: &Guard| Rule {
            destination,
            guard: guard.clone(),
        };
        let mut rules: Vec<Rule> = exact
            .map(|(addr, guard)| rule(IpNet::from(addr), guard))
            .collect();
        let own = cluster
            .ranges()
            .filter(|range| is_shadowed(range.addr()))
            .map(|range| rule(range.trunc(), &Guard::OPEN));
        rules.extend(own);
        let everywhere = wildcards.iter().map(|(any, guard)| {
            let all = IpNet::new_assert(*any, 0);
            rule(all, guard)
        });
        rules.extend(everywhere);
        let drops = rules.iter().any(|rule| !rule.guard.is_open());
        drops.then_some(Self { rules })
    }

    /// The first rule with a packet's destination decides; a destination without one is open.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a packet gets through.
    pub fn admits(&self, source: IpAddr, destination: IpAddr) -> bool {
        let mut rules = self.rules.iter();
        rules
            .find(|rule| rule.destination.contains(&destination))
            .is_none_or(|rule| rule.guard.admits(source, destination))
    }
}

#[cfg(test)]
mod tests;
