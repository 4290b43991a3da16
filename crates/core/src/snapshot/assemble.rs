//! The indexes of a Snapshot from finished `ServiceView`s: entering one and taking it out again. Owns which key leads
//! to what; what a `ServiceView` says (addresses, ports, slices) was decided before and is not questioned here.
//!
//! Entering and taking out cost the size of that Service. A changed Service is taken out before its successor is
//! entered; different Services may be exchanged in any order, since nothing is removed that another one owns.

use std::{net::IpAddr, sync::Arc};

use super::{
    AddressOwners, Cluster, Frontend, FrontendKind, Generation, HealthCheck, ServiceView, Snapshot,
    access::sources_of, service_path,
};
use crate::dns::fast::Prepared;

/// A synced snapshot, number 1, of these Services and of these further namespaces.
pub fn assemble(
    cluster: Arc<Cluster>,
    services: Vec<Arc<ServiceView>>,
    namespaces: &[&str],
) -> Snapshot {
    let mut snapshot = Snapshot {
        generation: Generation(1),
        synced: true,
        ..Snapshot::empty(cluster)
    };
    for namespace in namespaces {
        index_namespace(&mut snapshot, &Arc::from(*namespace));
    }
    for service in services {
        index_namespace(&mut snapshot, &service.namespace);
        index_service(&mut snapshot, &service);
    }
    snapshot
}

/// Enters `service`: its name, frontends and addresses. Namespaces are another's: only the world knows every object.
pub fn index_service(snapshot: &mut Snapshot, service: &Arc<ServiceView>) {
    snapshot
        .services
        .insert(Arc::from(service.path()), Arc::clone(service));
    if let Some(prepared) = Prepared::of(service) {
        snapshot
            .prepared
            .insert(Prepared::key(service), Arc::new(prepared));
    }
    index_frontends(snapshot, service);
    for addr in &service.cluster_ips {
        change_owners(snapshot, *addr, |owners| {
            owners.cluster_ip_of = Some(Arc::clone(service));
        });
    }
    for addr in endpoint_addresses(service) {
        change_owners(snapshot, addr, |owners| match owners.position_of(service) {
            Ok(at) => {
                owners.endpoint_of.remove(at);
                owners.endpoint_of.insert(at, Arc::clone(service));
            }
            Err(at) => owners.endpoint_of.insert(at, Arc::clone(service)),
        });
    }
}

/// Puts `prepared`, the answers of the predecessor of `service`, back in the place of equal ones.
pub(crate) fn keep_prepared(
    snapshot: &mut Snapshot,
    service: &ServiceView,
    prepared: Option<Arc<Prepared>>,
) {
    if let Some(prepared) = prepared
        && snapshot.prepared_of(service).as_ref() == Some(&prepared)
    {
        snapshot.prepared.insert(Prepared::key(service), prepared);
    }
}

fn index_frontends(snapshot: &mut Snapshot, service: &Arc<ServiceView>) {
    let reach = snapshot.cluster.source_range_reach;
    for (key, kind, port) in &service.frontends {
        let Some(port) = service.ports.get(*port) else {
            continue;
        };
        let health = (*kind == FrontendKind::HealthCheck)
            .then(|| Arc::new(HealthCheck::of(service, &snapshot.cluster)));
        let frontend = Frontend {
            kind: *kind,
            port: Arc::clone(port),
            sources: sources_of(&service.spec, (key, *kind), reach),
            health,
        };
        snapshot.frontends.insert(*key, frontend);
    }
}

/// Takes `service` out: undoes [`index_service`]. Frontends and cluster IPs that meanwhile belong to another Service
/// stay with it.
pub fn unindex_service(snapshot: &mut Snapshot, service: &Arc<ServiceView>) {
    if snapshot
        .services
        .remove(&*service_path(&service.namespace, &service.name))
        .is_none()
    {
        return;
    }
    snapshot.prepared.remove(&*Prepared::key(service));
    for (key, _, _) in &service.frontends {
        let name = snapshot
            .frontends
            .get(key)
            .map(|frontend| &frontend.port.name);
        if name
            .is_some_and(|name| name.namespace == service.namespace && name.service == service.name)
        {
            snapshot.frontends.remove(key);
        }
    }
    for addr in &service.cluster_ips {
        change_owners(snapshot, *addr, |owners| {
            owners
                .cluster_ip_of
                .take_if(|owner| is_same_service(owner, service));
        });
    }
    for addr in endpoint_addresses(service) {
        change_owners(snapshot, addr, |owners| {
            if let Ok(at) = owners.position_of(service) {
                owners.endpoint_of.remove(at);
            }
        });
    }
}

/// Counts one more object in `namespace`, which exists from the first one on.
fn index_namespace(snapshot: &mut Snapshot, namespace: &Arc<str>) {
    *Arc::make_mut(&mut snapshot.namespaces)
        .entry(Arc::clone(namespace))
        .or_default() += 1;
}

/// Every address that the slices of `service` name, ready or not, once each.
fn endpoint_addresses(service: &ServiceView) -> Vec<IpAddr> {
    let endpoints = service.slices.iter().flat_map(|slice| &slice.endpoints);
    let mut addresses: Vec<_> = endpoints.filter_map(|endpoint| endpoint.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Changes who uses `addr`; an address that nobody uses any more is forgotten.
fn change_owners(snapshot: &mut Snapshot, addr: IpAddr, change: impl FnOnce(&mut AddressOwners)) {
    let mut owners = snapshot.addresses.remove(&addr).unwrap_or_default();
    change(&mut owners);
    if owners.cluster_ip_of.is_some() || !owners.endpoint_of.is_empty() {
        snapshot.addresses.insert(addr, owners);
    }
}

fn is_same_service(a: &ServiceView, b: &ServiceView) -> bool {
    a.namespace == b.namespace && a.name == b.name
}

impl AddressOwners {
    /// Where `service` is among `endpoint_of`, else where it belongs.
    fn position_of(&self, service: &ServiceView) -> Result<usize, usize> {
        let wanted = (&service.namespace, &service.name);
        self.endpoint_of
            .binary_search_by(|other| (&other.namespace, &other.name).cmp(&wanted))
    }
}

#[cfg(test)]
mod tests;
