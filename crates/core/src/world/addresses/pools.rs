//! Pools of addresses by family, and the places of a Service that they fill. Owns who holds which address; in which
//! order Services come is the round's.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::bands::static_band;
use crate::{
    object::service::IpFamily,
    snapshot::Cluster,
    world::allocate::{AddressPool, nth},
};

/// Owner of the addresses that no Service may ask for.
pub(super) const RESERVED: &str = "reserved";

/// An address that a Service is to have in one family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) family: IpFamily,
    pub(super) addr: Option<IpAddr>,
    /// It was asked for, not chosen by us.
    pub(super) is_static: bool,
}

impl Slot {
    pub(super) const fn empty(family: IpFamily) -> Self {
        Self {
            family,
            addr: None,
            is_static: false,
        }
    }
}

/// A pool for each family that has a range.
pub(super) struct Pools {
    v4: Pool,
    v6: Option<Pool>,
}

struct Pool {
    /// What may be asked for; what is handed out may be a part of it.
    valid: IpNet,
    pool: AddressPool,
}

impl Pools {
    pub(super) fn of_cluster_ips(cluster: &Cluster) -> Self {
        let pool = |valid, range| Pool {
            valid,
            pool: AddressPool::with_static_band(range, static_band(range)),
        };
        let mut v4 = pool(cluster.service_cidr, cluster.dynamic_service_cidr);
        // The first address is the API server's in a cluster: only a Service of that name may have it.
        let _ = v4
            .pool
            .claim(nth(cluster.service_cidr, 1), "default/kubernetes");
        let _ = v4.pool.claim(cluster.dns_address, RESERVED);
        let v6 = cluster.service_cidr_v6.map(|range| pool(range, range));
        Self { v4, v6 }
    }

    pub(super) fn of_load_balancers(cluster: &Cluster) -> Self {
        let pool = |valid| Pool {
            valid,
            pool: AddressPool::new(valid),
        };
        Self {
            v4: pool(cluster.load_balancer_cidr),
            v6: cluster.load_balancer_cidr_v6.map(pool),
        }
    }

    const fn of(&self, family: IpFamily) -> Option<&Pool> {
        match family {
            IpFamily::IPv4 => Some(&self.v4),
            IpFamily::IPv6 => self.v6.as_ref(),
        }
    }

    const fn of_mut(&mut self, family: IpFamily) -> Option<&mut Pool> {
        match family {
            IpFamily::IPv4 => Some(&mut self.v4),
            IpFamily::IPv6 => self.v6.as_mut(),
        }
    }

    /// Whether `addr` is in the range of its family.
    pub(super) fn contain(&self, addr: IpAddr) -> bool {
        self.of(IpFamily::of(addr))
            .is_some_and(|pool| pool.valid.contains(&addr))
    }

    pub(super) fn holder(&self, addr: IpAddr) -> Option<&str> {
        self.of(IpFamily::of(addr))?.pool.holder(addr)
    }

    /// Enters the holder of an address, unless there is one.
    pub(super) fn claim(&mut self, addr: IpAddr, owner: &str) -> bool {
        self.of_mut(IpFamily::of(addr))
            .is_some_and(|pool| pool.pool.claim(addr, owner).is_ok())
    }

    /// Gives each empty place the address of its family that is known to be its owner's, while nobody else has it.
    pub(super) fn keep(
        &mut self,
        slots: &mut [Slot],
        owner: &str,
        known: impl Fn(IpFamily) -> Option<IpAddr>,
    ) {
        for slot in slots.iter_mut().filter(|slot| slot.addr.is_none()) {
            slot.addr =
                known(slot.family).filter(|addr| self.contain(*addr) && self.claim(*addr, owner));
        }
    }

    /// Fills what is still empty by the hash.
    ///
    /// # Errors
    /// The range that is full.
    pub(super) fn fill(&mut self, slots: &mut [Slot], owner: &str) -> Result<(), IpNet> {
        for slot in slots.iter_mut().filter(|slot| slot.addr.is_none()) {
            let Some(pool) = self.of_mut(slot.family) else {
                continue;
            };
            let taken = pool.pool.take(owner).ok_or_else(|| pool.pool.range())?;
            slot.addr = Some(taken);
        }
        Ok(())
    }

    /// Notes the addresses that the hash alone would not give again.
    pub(super) fn remember(
        &self,
        slots: &[Slot],
        path: &str,
        remembered: &mut BTreeMap<String, IpAddr>,
    ) {
        for slot in slots.iter().filter(|slot| !slot.is_static) {
            let natural = self.of(slot.family).map(|pool| pool.pool.natural(path));
            if let Some(addr) = slot.addr.filter(|addr| Some(*addr) != natural) {
                remembered.insert(owner_in(path, slot.family), addr);
            }
        }
    }
}

/// What the state file calls the address of a family.
fn owner_in(path: &str, family: IpFamily) -> String {
    match family {
        IpFamily::IPv4 => path.to_owned(),
        IpFamily::IPv6 => format!("{path}:IPv6"),
    }
}

/// What is remembered of a Service in a family.
pub(super) fn recall(
    remembered: &BTreeMap<String, IpAddr>,
    path: &str,
    family: IpFamily,
) -> Option<IpAddr> {
    if remembered.is_empty() {
        return None;
    }
    remembered.get(&owner_in(path, family)).copied()
}

/// The address of a family among several.
pub(super) fn of_family(addrs: &[IpAddr], family: IpFamily) -> Option<IpAddr> {
    let mut addrs = addrs.iter().copied();
    addrs.find(|addr| IpFamily::of(*addr) == family)
}
