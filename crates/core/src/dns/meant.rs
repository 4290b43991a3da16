//! What a name that does not exist was meant to be. Owns a guess for people; no answer depends on it.

use std::collections::BTreeSet;

use super::{
    Name,
    zone::{self, Place},
};
use crate::{
    object::decode::closest,
    snapshot::{Snapshot, service_path},
};

/// The name of the Service that `name`, which looks like one's and does not exist, is most likely to stand for: of the
/// same name in another namespace, else of one in the namespace that differs in a few letters. It walks all Services.
pub fn meant(snapshot: &Snapshot, name: &Name) -> Option<Name> {
    let Place::Forward(zone) = zone::place(&snapshot.cluster, name) else {
        return None;
    };
    let [service, namespace, svc] = zone.labels.as_slice() else {
        return None;
    };
    let is_there = snapshot
        .service(&service_path(namespace, service))
        .is_some();
    if svc != "svc" || is_there {
        return None;
    }
    let known = || {
        snapshot
            .services
            .iter()
            .map(|(_, view)| (&*view.name, &*view.namespace))
    };
    if let Some((service, namespace)) = known().filter(|(name, _)| name == service).min() {
        return zone.service_name(&[service, namespace]);
    }
    let beside = known().filter(|(_, of)| of == namespace);
    let beside: BTreeSet<&str> = beside.map(|(name, _)| name).collect();
    zone.service_name(&[closest(service, beside.into_iter())?, namespace])
}
