//! External addresses that several Services may name: who came first keeps address and port. Owns the table of
//! claims; cluster IPs and node ports are unique by allocation and never appear here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::merge::Rank;
use crate::object::Protocol;

/// An address with its port and protocol.
pub type Claimed = (IpAddr, u16, Protocol);

/// Who claims what.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    by_address: BTreeMap<Claimed, BTreeSet<(Rank, Arc<str>)>>,
    by_service: BTreeMap<Arc<str>, (Rank, BTreeSet<Claimed>)>,
}

impl Claims {
    /// Replaces the claims of a Service; returns the other Services that the winner of some claim changed for.
    pub fn set(
        &mut self,
        path: &Arc<str>,
        rank: Option<&Rank>,
        wanted: BTreeSet<Claimed>,
    ) -> BTreeSet<Arc<str>> {
        let before = self.by_service.remove(path);
        if before.is_none() && wanted.is_empty() {
            return BTreeSet::new();
        }
        let touched: BTreeSet<Claimed> = before
            .iter()
            .flat_map(|(_, claimed)| claimed)
            .chain(&wanted)
            .copied()
            .collect();
        let winners: Vec<(Claimed, Option<Arc<str>>)> = touched
            .iter()
            .map(|claimed| (*claimed, self.winner(claimed).cloned()))
            .collect();
        if let Some((rank, claimed)) = before {
            for key in &claimed {
                if let Some(claimants) = self.by_address.get_mut(key) {
                    claimants.remove(&(rank.clone(), Arc::clone(path)));
                    if claimants.is_empty() {
                        self.by_address.remove(key);
                    }
                }
            }
        }
        if let Some(rank) = rank.filter(|_| !wanted.is_empty()) {
            for key in &wanted {
                self.by_address
                    .entry(*key)
                    .or_default()
                    .insert((rank.clone(), Arc::clone(path)));
            }
            self.by_service
                .insert(Arc::clone(path), (rank.clone(), wanted));
        }
        let moved = winners
            .into_iter()
            .filter(|(claimed, winner)| self.winner(claimed) != winner.as_ref());
        let losers =
            moved.flat_map(|(claimed, _)| self.by_address.get(&claimed).into_iter().flatten());
        losers
            .map(|(_, service)| Arc::clone(service))
            .filter(|service| service != path)
            .collect()
    }

    /// The Service that serves an address and port.
    pub fn winner(&self, claimed: &Claimed) -> Option<&Arc<str>> {
        self.by_address
            .get(claimed)?
            .first()
            .map(|(_, service)| service)
    }
}
