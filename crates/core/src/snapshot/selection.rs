//! Endpoint selection: which endpoints of a Service port may be chosen under its policies. Owns the rule, which is
//! that of Kubernetes' proxy (`CategorizeEndpoints` in its documentation of traffic policies and topology hints);
//! must not know sockets or tickets.

use std::{net::SocketAddr, sync::Arc};

use crate::object::{Conditions, Hints, TrafficPolicy};

/// One endpoint as selection sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Address and port.
    pub addr: SocketAddr,
    /// Conditions.
    pub conditions: Conditions,
    /// Whether it is on this node.
    pub place: Place,
    /// Topology hints.
    pub hints: Hints,
}

/// Where an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Another node.
    Elsewhere,
    /// This node.
    Here,
}

/// Which sets a Service port needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Some frontend has policy Cluster, or is external (clients on the node get Cluster semantics).
    pub cluster: bool,
    /// Some frontend has policy Local.
    pub local: bool,
}

impl Needs {
    /// What the policies of a Service port ask for. An external frontend needs the Cluster set whatever its policy,
    /// for clients on the node; without one, `externalTrafficPolicy` says nothing.
    pub fn of(internal: TrafficPolicy, external: TrafficPolicy, has_external: bool) -> Self {
        let is_local = |policy| policy == TrafficPolicy::Local;
        Self {
            cluster: !is_local(internal) || has_external,
            local: is_local(internal) || (is_local(external) && has_external),
        }
    }
}

/// This node.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// Its name.
    pub node: &'a str,
    /// Its zone.
    pub zone: Option<&'a str>,
}

/// The endpoints that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selected {
    /// Under policy Cluster; `None` when not needed.
    pub cluster: Option<Vec<SocketAddr>>,
    /// Under policy Local; `None` when not needed.
    pub local: Option<Vec<SocketAddr>>,
    /// Whether any endpoint is usable anywhere.
    pub any: bool,
}

/// Selects among `candidates`, which are sorted by address and unique.
pub fn select(candidates: &[Candidate], needs: Needs, here: Here<'_>) -> Selected {
    if candidates.is_empty() {
        return Selected {
            cluster: needs.cluster.then(Vec::new),
            local: needs.local.then(Vec::new),
            any: false,
        };
    }
    let falls_back =
        |candidate: &&Candidate| candidate.conditions.serving && candidate.conditions.terminating;
    let ready = |candidate: &&Candidate| candidate.conditions.ready;
    let cluster = needs.cluster.then(|| {
        let topology = topology(candidates, here);
        let preferred: Vec<SocketAddr> = candidates
            .iter()
            .filter(ready)
            .filter(|c| topology.allows(c, here))
            .map(|c| c.addr)
            .collect();
        // Hints are ignored once nothing is ready.
        if preferred.is_empty() {
            addrs(candidates.iter().filter(falls_back))
        } else {
            preferred
        }
    });
    let mut any = cluster.as_ref().is_some_and(|cluster| !cluster.is_empty());
    let local = needs.local.then(|| {
        any |= candidates
            .iter()
            .any(|candidate| ready(&candidate) || falls_back(&candidate));
        let here = |candidate: &&Candidate| candidate.place == Place::Here;
        let preferred = addrs(candidates.iter().filter(here).filter(ready));
        if preferred.is_empty() {
            addrs(candidates.iter().filter(here).filter(falls_back))
        } else {
            preferred
        }
    });
    Selected {
        cluster,
        local,
        any,
    }
}

fn addrs<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> Vec<SocketAddr> {
    candidates.map(|candidate| candidate.addr).collect()
}

/// Which hints are followed. All ready endpoints must carry hints of the kind, and one of them must name us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    All,
    Node,
    Zone,
}

impl Topology {
    fn allows(self, candidate: &Candidate, here: Here<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Node => names(&candidate.hints.nodes, Some(here.node)),
            Self::Zone => names(&candidate.hints.zones, here.zone),
        }
    }
}

fn topology(candidates: &[Candidate], here: Here<'_>) -> Topology {
    let ready = || {
        candidates
            .iter()
            .filter(|candidate| candidate.conditions.ready)
    };
    if ready().next().is_none() {
        return Topology::All;
    }
    let by = |hints: fn(&Hints) -> &Vec<Arc<str>>, own: Option<&str>| {
        ready().all(|candidate| !hints(&candidate.hints).is_empty())
            && ready().any(|candidate| names(hints(&candidate.hints), own))
    };
    if by(|hints| &hints.nodes, Some(here.node)) {
        Topology::Node
    } else if by(|hints| &hints.zones, here.zone) {
        Topology::Zone
    } else {
        Topology::All
    }
}

fn names(hints: &[Arc<str>], own: Option<&str>) -> bool {
    own.is_some_and(|own| hints.iter().any(|hint| &**hint == own))
}

#[cfg(test)]
mod tests;
