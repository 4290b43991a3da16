//! From addresses back to names. Owns which reverse names are ours: those of the Service range, and those of endpoint
//! addresses that are present. All others belong to whoever runs the network.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Name, endpoints, tree, zone, zone::ReverseName};
use crate::snapshot::{AddressOwners, Snapshot};

/// What a reverse name is.
#[derive(Debug)]
pub(super) enum Reverse {
    /// Not ours.
    Foreign,
    /// In the zone of so many labels.
    Within(usize, ReverseNode),
}

/// What stands at a reverse name of ours.
#[derive(Debug)]
pub(super) enum ReverseNode {
    /// The zone's own name.
    Apex,
    /// A name only because others lie below it.
    Empty,
    /// An address with these names.
    Names(Vec<Name>),
    /// Nothing.
    Missing,
}

/// What stands at `reverse`.
pub(super) fn find(snapshot: &Snapshot, reverse: ReverseName) -> Reverse {
    let names = reverse
        .whole()
        .map(|addr| names_of(snapshot, addr))
        .unwrap_or_default();
    let range = snapshot.cluster.service_range(reverse.family());
    let Some(length) = range.and_then(|range| reverse.zone_within(&range)) else {
        // An address outside our range is a zone of its own, for nothing beside it is ours.
        return if names.is_empty() {
            Reverse::Foreign
        } else {
            Reverse::Within(reverse.depth + 2, ReverseNode::Names(names))
        };
    };
    let node = if !names.is_empty() {
        ReverseNode::Names(names)
    } else if reverse.is_clean && reverse.depth + 2 == length {
        ReverseNode::Apex
    } else if reverse.is_clean && reverse.whole().is_none() && has_names_below(snapshot, reverse) {
        ReverseNode::Empty
    } else {
        ReverseNode::Missing
    };
    Reverse::Within(length, node)
}

/// Walks all addresses: only names that give a part of an address are looked up so, which nobody does in a hurry.
fn has_names_below(snapshot: &Snapshot, reverse: ReverseName) -> bool {
    let Some(network) = reverse.network() else {
        return false;
    };
    let within = snapshot
        .addresses
        .iter()
        .filter(|(addr, _)| network.contains(*addr));
    within
        .into_iter()
        .any(|(addr, _)| !names_of(snapshot, *addr).is_empty())
}

/// The names of `addr`: of the Service whose cluster IP it is, else of endpoints.
fn names_of(snapshot: &Snapshot, addr: IpAddr) -> Vec<Name> {
    let Some(domain) = zone::primary(&snapshot.cluster) else {
        return Vec::new();
    };
    let Some(owners) = snapshot.address_owners(addr) else {
        return Vec::new();
    };
    if let Some(owner) = &owners.cluster_ip_of {
        return Name::under(&domain, &[&owner.name, &owner.namespace, "svc"])
            .into_iter()
            .collect();
    }
    endpoint_names(owners, addr, &domain)
}

/// Endpoints of headless Services and those with a hostname have names of their own. Only where there is no such
/// name do others count: a host with several names confuses what asks for its fully qualified one.
fn endpoint_names(owners: &AddressOwners, addr: IpAddr, domain: &Name) -> Vec<Name> {
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for service in &owners.endpoint_of {
        // One address may be in several slices, under one label or more.
        let mut seen = BTreeSet::new();
        for endpoint in endpoints::shown(service).filter(|endpoint| endpoint.addr == addr) {
            let label = endpoint.label().into_owned();
            let name = Name::under(domain, &[&label, &service.name, &service.namespace, "svc"]);
            let is_own = tree::is_headless(service) || endpoint.has_hostname();
            if seen.insert(label) {
                let names = if is_own { &mut own } else { &mut other };
                names.extend(name);
            }
        }
    }
    if own.is_empty() { other } else { own }
}
