//! External addresses that Services name: which came and which went with a change. Owns the counting, since several
//! Services may name one; whether an address is made local to the host is the route host's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use portico_core::snapshot::{FrontendKind, ServiceView, compile::Transition};

/// What the reconciler needs of the host's routes.
pub trait RouteHost {
    /// Some Service names these addresses now, and none did before. They are bound after this.
    fn attach(&mut self, addrs: &[IpAddr]);
    /// No Service names these any more, and no socket is bound to them.
    fn detach(&mut self, addrs: &[IpAddr]);
}

/// By address, how many Services name it in `externalIPs` or have it for a load-balancer address.
#[derive(Debug, Default)]
pub(super) struct ExternalAddresses(BTreeMap<IpAddr, usize>);

impl ExternalAddresses {
    /// Enters the transitions of a new snapshot: addresses that nobody named before, and that nobody names any more.
    pub(super) fn apply(&mut self, transitions: &[Transition]) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let mut before: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for view in transitions.iter().filter_map(|of| of.before.as_ref()) {
            for addr in addresses(view) {
                let count = self.0.entry(addr).or_default();
                before.entry(addr).or_insert(*count > 0);
                *count = count.saturating_sub(1);
            }
        }
        for view in transitions.iter().filter_map(|of| of.after.as_ref()) {
            for addr in addresses(view) {
                let count = self.0.entry(addr).or_default();
                before.entry(addr).or_insert(*count > 0);
                *count += 1;
            }
        }
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for (addr, was_there) in before {
            let is_there = self.0.get(&addr).is_some_and(|count| *count > 0);
            match (was_there, is_there) {
                (false, true) => came.push(addr),
                (true, false) => went.push(addr),
                _ => {}
            }
            if !is_there {
                self.0.remove(&addr);
            }
        }
        (came, went)
    }
}

fn addresses(view: &ServiceView) -> BTreeSet<IpAddr> {
    let external = view.frontends.iter().filter(|(_, kind, _)| {
        matches!(kind, FrontendKind::ExternalIP | FrontendKind::LoadBalancer)
    });
    external.map(|(key, _, _)| key.addr).collect()
}
