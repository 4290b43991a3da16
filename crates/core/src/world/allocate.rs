//! Addresses and ports that stay: hashed from the owner's name, with linear probing. Owns the arithmetic of bands
//! and pools; who asks in which order belongs to the world.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use xxhash_rust::xxh3::xxh3_64;

/// A range of addresses and who holds them.
#[derive(Debug, Clone)]
pub struct AddressPool {
    range: IpNet,
    /// Offset of the first address that is handed out dynamically.
    dynamic_from: u128,
    holders: BTreeMap<IpAddr, Arc<str>>,
}

impl AddressPool {
    /// A pool over the whole of `range` except its first (and, for IPv4, last) address.
    pub fn new(range: IpNet) -> Self {
        Self {
            range,
            dynamic_from: 1,
            holders: BTreeMap::new(),
        }
    }

    /// A pool in which the first `offset` addresses are only given on request.
    pub fn with_static_band(range: IpNet, offset: u128) -> Self {
        Self {
            range,
            dynamic_from: offset.max(1),
            holders: BTreeMap::new(),
        }
    }

    /// The address that `owner` would get in an empty pool.
    pub fn natural(&self, owner: &str) -> IpAddr {
        let (first, count) = self.dynamic_band();
        self.nth(first + u128::from(xxh3_64(owner.as_bytes())) % count)
    }

    /// Gives `owner` an address: its natural one, else the next free one after it. `None` when all are held.
    pub fn take(&mut self, owner: &str) -> Option<IpAddr> {
        let (first, count) = self.dynamic_band();
        let start = u128::from(xxh3_64(owner.as_bytes())) % count;
        let free = (0..count.min(1 << 24))
            .map(|step| self.nth(first + (start + step) % count))
            .find(|addr| !self.holders.contains_key(addr))
            .or_else(|| {
                (1..first)
                    .map(|offset| self.nth(offset))
                    .find(|addr| !self.holders.contains_key(addr))
            })?;
        self.holders.insert(free, owner.into());
        Some(free)
    }

    /// Gives `owner` this very address.
    ///
    /// # Errors
    /// Names the holder when somebody else has it.
    pub fn claim(&mut self, addr: IpAddr, owner: &str) -> Result<(), Arc<str>> {
        match self.holders.get(&addr) {
            Some(holder) if &**holder != owner => Err(Arc::clone(holder)),
            _ => {
                self.holders.insert(addr, owner.into());
                Ok(())
            }
        }
    }

    /// Takes the address back, if `owner` holds it.
    pub fn release(&mut self, addr: IpAddr, owner: &str) {
        if self.holder(addr) == Some(owner) {
            self.holders.remove(&addr);
        }
    }

    /// Who holds `addr`.
    pub fn holder(&self, addr: IpAddr) -> Option<&str> {
        self.holders.get(&addr).map(AsRef::as_ref)
    }

    /// The range.
    pub fn range(&self) -> IpNet {
        self.range
    }

    /// First offset and number of the addresses handed out dynamically.
    fn dynamic_band(&self) -> (u128, u128) {
        let size = size_of(self.range);
        let last = if self.range.addr().is_ipv4() {
            size.saturating_sub(2)
        } else {
            size.saturating_sub(1)
        };
        let first = if self.dynamic_from <= last {
            self.dynamic_from
        } else {
            1
        };
        (first, last.saturating_sub(first).saturating_add(1).max(1))
    }

    fn nth(&self, offset: u128) -> IpAddr {
        nth(self.range, offset)
    }
}

/// The address at `offset` in `range`.
pub fn nth(range: IpNet, offset: u128) -> IpAddr {
    match range {
        IpNet::V4(net) => {
            let base = u32::from(net.network());
            IpAddr::V4(
                base.wrapping_add(u32::try_from(offset & 0xffff_ffff).unwrap_or_default())
                    .into(),
            )
        }
        IpNet::V6(net) => IpAddr::V6(u128::from(net.network()).wrapping_add(offset).into()),
    }
}

/// Number of addresses in `range`, saturating.
pub fn size_of(range: IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    1_u128.checked_shl(bits).unwrap_or(u128::MAX)
}
