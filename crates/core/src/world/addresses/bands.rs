//! The arithmetic of ranges: which part is only given on request, where the hash points, how foreign addresses map.
//! Owns no state. Bands follow Kubernetes' allocators (KEP-3070, KEP-3668).

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive, sync::Arc};

use ipnet::IpNet;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    object::Service,
    world::allocate::{nth, size_of},
};

/// Size of the band that is only given on request: `min(max(16, size / 16), 256)`, none below 16 addresses
/// (Kubernetes documentation, "Service ClusterIP allocation").
pub fn static_band(range: IpNet) -> u128 {
    let size = size_of(range);
    if size < 16 {
        1
    } else {
        (size / 16).clamp(16, 256) + 1
    }
}

/// First number and count of the node ports handed out dynamically; the band below is
/// `min(max(16, size / 32), 128)` wide (KEP-3668).
pub(super) fn dynamic_ports(range: &RangeInclusive<u16>) -> (u16, u16) {
    let size = range.end().saturating_sub(*range.start()).saturating_add(1);
    let band = if size < 16 {
        0
    } else {
        (size / 32).clamp(16, 128)
    };
    (range.start() + band, (size - band).max(1))
}

pub(super) fn natural_offset(path: &str, port: u16, count: u16) -> u16 {
    u16::try_from(xxh3_64(format!("{path}:{port}").as_bytes()) % u64::from(count.max(1)))
        .unwrap_or_default()
}

/// What the state file calls an entry of a Service's ports: further protocols of one number are told apart.
pub(super) fn port_owner(path: &str, spec: &Service, index: usize) -> String {
    let Some(port) = spec.ports.get(index) else {
        return path.to_owned();
    };
    let first = spec.ports.iter().position(|other| other.port == port.port);
    if first == Some(index) {
        format!("{path}:{}", port.port)
    } else {
        format!("{path}:{}/{}", port.port, port.protocol)
    }
}

pub(super) fn claim_port(
    ports: &mut BTreeMap<u16, Arc<str>>,
    number: u16,
    owner: &Arc<str>,
) -> bool {
    ports.entry(number).or_insert_with(|| Arc::clone(owner)) == owner
}

/// An address of a foreign range in ours, at the same offset as far as the range reaches: 10.96.a.b in 127.96.0.0/12
/// is 127.96.a.b.
pub fn mapped(addr: IpAddr, range: IpNet) -> IpAddr {
    let offset = match addr {
        IpAddr::V4(addr) => u128::from(u32::from(addr)),
        IpAddr::V6(addr) => u128::from(addr),
    };
    nth(range, offset % size_of(range))
}
