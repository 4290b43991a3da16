//! Cluster IPs that were asked for. Owns the checks of one request; pools and phases are the round's.

use std::net::IpAddr;

use super::Round;
use crate::{
    object::{
        diagnostic::Severity,
        service::{ClusterIpRequest, IpFamily},
    },
    world::{
        addresses::{bands::mapped, draft::Draft, families::address_field, is_cluster_dns},
        allocate::{nth, size_of},
    },
};

impl Round<'_> {
    /// The addresses that were asked for, at most one a family; `None` when one is refused.
    pub(super) fn static_cluster_ips(&mut self, draft: &Draft, path: &str) -> Option<Vec<IpAddr>> {
        let ClusterIpRequest::Static(asked) = &draft.spec.cluster_ip else {
            return Some(Vec::new());
        };
        let mut granted = Vec::with_capacity(asked.len());
        for (index, addr) in asked.iter().enumerate() {
            let field = address_field(index);
            granted.extend(self.static_cluster_ip(draft, (*addr, &field), path)?);
        }
        Some(granted)
    }

    /// `Some(None)`: any other address will do. `None`: refused.
    #[expect(
        clippy::option_option,
        reason = "refused, none in particular, granted: three outcomes, used once above"
    )]
    fn static_cluster_ip(
        &mut self,
        draft: &Draft,
        (asked, field): (IpAddr, &str),
        path: &str,
    ) -> Option<Option<IpAddr>> {
        let family = IpFamily::of(asked);
        let range = self.rules.cluster.service_range(family)?;
        let addr = if range.contains(&asked) {
            asked
        } else {
            mapped(asked, range)
        };
        if addr != asked {
            let message = format!(
                "Invalid value: \"{asked}\": not in the service range {range}; mapped to {addr}"
            );
            self.report(self.rules.foreign, &draft.object, field, message);
            if self.rules.foreign == Severity::Error {
                return None;
            }
        }
        if addr == self.rules.cluster.dns_address && is_cluster_dns(path) {
            // An exported cluster brings its DNS Service along: it is ours.
            return Some(Some(addr));
        }
        // The last one is a broadcast address of IPv4 only.
        let is_last = addr == nth(range, size_of(range).saturating_sub(1));
        let unusable = addr == nth(range, 0) || (family == IpFamily::IPv4 && is_last);
        let reason = match self.cluster_ips.holder(addr) {
            None if !unusable => return Some(Some(addr)),
            Some(holder) if holder == path => return Some(Some(addr)),
            Some(holder) => format!("already allocated (to {holder})"),
            None => format!("not in the valid range. The range of valid IPs is {range}"),
        };
        let (severity, message) = if addr == asked {
            let message = format!(
                "Invalid value: \"{asked}\": failed to allocate IP {addr}: provided IP is {reason}"
            );
            (Severity::Error, message)
        } else {
            // Nobody asked for this very address: any other one will do.
            let message = format!(
                "{addr}, which {asked} is mapped to, is {reason}: another address is allocated"
            );
            (Severity::Warning, message)
        };
        self.report(severity, &draft.object, field, message);
        (addr != asked).then_some(None)
    }
}
