//! Who may connect to a frontend: `spec.loadBalancerSourceRanges` (Kubernetes API reference, `ServiceSpec`). Owns which
//! ranges guard which frontend; what becomes of a client that is turned away is the data path's.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{Frontend, FrontendKey, FrontendKind};
use crate::object::{
    Service,
    service::{IpFamily, ServiceType},
};

/// Which frontends `loadBalancerSourceRanges` guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceRangeReach {
    /// The load-balancer address, as in a cluster.
    #[default]
    LoadBalancer,
    /// Node ports and external addresses too (`--source-ranges-everywhere`).
    Everywhere,
}

/// The ranges that guard a frontend of `spec`. One family's ranges say nothing about the other's addresses: a family
/// without any admits nobody once there are some.
pub(super) fn sources_of(
    spec: &Service,
    (key, kind): (&FrontendKey, FrontendKind),
    reach: SourceRangeReach,
) -> Option<Arc<[IpNet]>> {
    let is_guarded = match kind {
        FrontendKind::LoadBalancer => true,
        FrontendKind::NodePort | FrontendKind::ExternalIP => reach == SourceRangeReach::Everywhere,
        FrontendKind::ClusterIP | FrontendKind::HealthCheck => false,
    };
    let ranges = &spec.load_balancer_source_ranges;
    if !is_guarded || ranges.is_empty() || spec.service_type != ServiceType::LoadBalancer {
        return None;
    }
    let family = IpFamily::of(key.addr);
    let of_family = ranges
        .iter()
        .filter(|range| IpFamily::of(range.addr()) == family);
    Some(of_family.copied().collect())
}

impl Frontend {
    /// Whether a client from `source` may connect. Where there are ranges, an unknown source is in none of them.
    pub fn admits(&self, source: Option<IpAddr>) -> bool {
        let Some(ranges) = &self.sources else {
            return true;
        };
        let source = source.map(|source| source.to_canonical());
        source.is_some_and(|source| ranges.iter().any(|range| range.contains(&source)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{object::Protocol, snapshot::Scope};

    fn spec(ranges: &[&str]) -> Service {
        Service {
            service_type: ServiceType::LoadBalancer,
            load_balancer_source_ranges: ranges
                .iter()
                .map(|range| range.parse().unwrap())
                .collect(),
            ..Service::default()
        }
    }

    fn check(
        ranges: &[&str],
        (addr, kind): (&str, FrontendKind),
        reach: SourceRangeReach,
        expected: Option<&[&str]>,
    ) {
        let key = FrontendKey {
            scope: Scope::HOST,
            addr: addr.parse().unwrap(),
            port: 80,
            protocol: Protocol::Tcp,
        };
        let got = sources_of(&spec(ranges), (&key, kind), reach);
        let got: Option<Vec<String>> =
            got.map(|ranges| ranges.iter().map(ToString::to_string).collect());
        let expected: Option<Vec<String>> =
            expected.map(|ranges| ranges.iter().map(|&range| range.to_owned()).collect());
        assert_eq!(got, expected, "{ranges:?} {addr} {kind:?} {reach:?}");
    }

    #[test]
    fn sources_of_ranges_guard_the_load_balancer_address_of_their_family() {
        use FrontendKind::{ClusterIP, ExternalIP, HealthCheck, LoadBalancer, NodePort};
        use SourceRangeReach::Everywhere;
        let usual = SourceRangeReach::LoadBalancer;
        let v4 = &["10.0.0.0/8"][..];
        check(&[], ("127.112.0.1", LoadBalancer), usual, None);
        check(v4, ("127.112.0.1", LoadBalancer), usual, Some(v4));
        check(v4, ("fd00::1", LoadBalancer), usual, Some(&[]));
        check(
            &["fd00::/8"],
            ("127.112.0.1", LoadBalancer),
            usual,
            Some(&[]),
        );
        for kind in [NodePort, ExternalIP] {
            check(v4, ("0.0.0.0", kind), usual, None);
            check(v4, ("0.0.0.0", kind), Everywhere, Some(v4));
        }
        for kind in [ClusterIP, HealthCheck] {
            check(v4, ("127.96.0.2", kind), Everywhere, None);
        }
    }
}
