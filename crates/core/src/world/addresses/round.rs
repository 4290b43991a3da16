//! The phases of an allocation. Owns pools and claims; the order of the phases is [`super::allocate`]'s.

mod health_check;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    Addresses, Allocation, Applicant, Grant, Rules,
    bands::{claim_port, dynamic_ports, mapped, natural_offset, port_owner, static_band},
    draft::Draft,
    is_cluster_dns,
};
use crate::{
    object::{
        Object,
        diagnostic::{Diagnostic, Severity},
        service::{ClusterIpRequest, IpFamily},
    },
    world::allocate::{AddressPool, nth, size_of},
};

/// One allocation of everything: pools that fill as claims are honoured.
pub(super) struct Round<'a> {
    rules: &'a Rules<'a>,
    cluster_ips: AddressPool,
    load_balancer_ips: AddressPool,
    node_ports: BTreeMap<u16, Arc<str>>,
    pub(super) allocation: Allocation,
}

/// Owner of the addresses that no Service may ask for.
const RESERVED: &str = "reserved";

impl<'a> Round<'a> {
    pub(super) fn new(rules: &'a Rules<'a>) -> Self {
        let range = rules.cluster.dynamic_service_cidr;
        let mut cluster_ips = AddressPool::with_static_band(range, static_band(range));
        // The first address is the API server's in a cluster: only a Service of that name may have it.
        let _ = cluster_ips.claim(nth(rules.cluster.service_cidr, 1), "default/kubernetes");
        let _ = cluster_ips.claim(rules.cluster.dns_address, RESERVED);
        Self {
            rules,
            cluster_ips,
            load_balancer_ips: AddressPool::new(rules.cluster.load_balancer_cidr),
            node_ports: BTreeMap::new(),
            allocation: Allocation::default(),
        }
    }

    fn report(&mut self, severity: Severity, object: &Object, path: &str, message: String) {
        self.allocation.diagnostics.push(Diagnostic::about(
            severity,
            &object.key,
            &object.origin,
            (path, message),
        ));
    }

    /// The static claims of the newest version, or of the last good one when a claim of the newest is refused.
    pub(super) fn claim_static(&mut self, applicant: &Applicant) -> Option<Draft> {
        let newest = Draft::of(&applicant.object, &applicant.spec);
        if let Some(draft) = self.try_claims(newest, applicant) {
            return Some(draft);
        }
        let (object, spec, _) = applicant
            .holds
            .as_ref()
            .filter(|(object, _, _)| !Arc::ptr_eq(object, &applicant.object))?;
        let findings = self.allocation.diagnostics.len();
        let draft = self.try_claims(Draft::of(object, spec), applicant);
        // The reader is told about the newest text only.
        self.allocation.diagnostics.truncate(findings);
        draft
    }

    fn try_claims(&mut self, mut draft: Draft, applicant: &Applicant) -> Option<Draft> {
        let cluster_ip = self.static_cluster_ip(&draft, &applicant.path)?;
        let node_ports = self.check_node_ports(&draft, &applicant.path)?;
        let health_check = self.check_health_port(&draft, &node_ports)?;
        if let Some(addr) = cluster_ip {
            let _ = self.cluster_ips.claim(addr, &applicant.path);
        }
        draft.cluster_ip = cluster_ip;
        draft.cluster_ip_is_static = cluster_ip.is_some();
        for port in node_ports.iter().flatten() {
            self.node_ports.insert(*port, Arc::clone(&applicant.path));
        }
        draft.node_ports = node_ports;
        self.take_health_port(&applicant.path, &mut draft, health_check);
        draft.load_balancer_ip = self.static_load_balancer_ip(&draft);
        Some(draft)
    }

    /// `Some(None)`: nothing asked for. `None`: refused.
    #[expect(
        clippy::option_option,
        reason = "refused, nothing asked, granted: three outcomes, used twice below"
    )]
    fn static_cluster_ip(&mut self, draft: &Draft, path: &str) -> Option<Option<IpAddr>> {
        let ClusterIpRequest::Static(asked) = &draft.spec.cluster_ip else {
            return Some(None);
        };
        let Some(asked) = asked
            .iter()
            .find(|addr| IpFamily::of(**addr) == IpFamily::IPv4)
            .copied()
        else {
            let message =
                "IPv6 cluster IPs are not served: an IPv4 address is allocated".to_owned();
            self.report(Severity::Warning, &draft.object, "spec.clusterIP", message);
            return Some(None);
        };
        self.report_other_family(draft);
        let range = self.rules.cluster.service_cidr;
        let addr = if range.contains(&asked) {
            asked
        } else {
            mapped(asked, range)
        };
        if addr != asked {
            let message = format!(
                "Invalid value: \"{asked}\": not in the service range {range}; mapped to {addr}"
            );
            self.report(self.rules.foreign, &draft.object, "spec.clusterIP", message);
            if self.rules.foreign == Severity::Error {
                return None;
            }
        }
        if addr == self.rules.cluster.dns_address && is_cluster_dns(path) {
            // An exported cluster brings its DNS Service along: it is ours.
            return Some(Some(addr));
        }
        let unusable =
            addr == nth(range, 0) || addr == nth(range, size_of(range).saturating_sub(1));
        match self.cluster_ips.holder(addr) {
            None if !unusable => Some(Some(addr)),
            Some(holder) if holder == path => Some(Some(addr)),
            holder => {
                let reason = match holder {
                    Some(holder) => format!("already allocated (to {holder})"),
                    None => {
                        format!("not in the valid range. The range of valid IPs is {range}")
                    }
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
                self.report(severity, &draft.object, "spec.clusterIP", message);
                (addr != asked).then_some(None)
            }
        }
    }

    /// A second address of the family that nothing is allocated from.
    fn report_other_family(&mut self, draft: &Draft) {
        let ClusterIpRequest::Static(asked) = &draft.spec.cluster_ip else {
            return;
        };
        let other = asked
            .iter()
            .position(|addr| IpFamily::of(*addr) == IpFamily::IPv6);
        if let Some((index, addr)) = other.and_then(|index| Some((index, asked.get(index)?))) {
            let message = format!(
                "{addr} is not served: there is no IPv6 range, the IPv4 address is served alone"
            );
            let path = format!("spec.clusterIPs[{index}]");
            self.report(Severity::Warning, &draft.object, &path, message);
        }
    }

    /// The node ports asked for, if all of them can be had.
    fn check_node_ports(&mut self, draft: &Draft, path: &str) -> Option<Vec<Option<u16>>> {
        let mut asked = vec![None; draft.spec.ports.len()];
        if !draft.spec.takes_node_ports() {
            return Some(asked);
        }
        let (first, last) = (*self.rules.node_ports.start(), *self.rules.node_ports.end());
        let mut refused = false;
        for (index, (slot, port)) in asked.iter_mut().zip(&draft.spec.ports).enumerate() {
            let Some(number) = port.node_port else {
                continue;
            };
            let why = if !self.rules.node_ports.contains(&number) {
                format!(
                    "provided port is not in the valid range. The range of valid ports is {first}-{last}"
                )
            } else if let Some(holder) = self
                .node_ports
                .get(&number)
                .filter(|holder| &***holder != path)
            {
                format!("provided port is already allocated (to {holder})")
            } else if draft.asks_elsewhere(index, number) {
                format!("provided port is already allocated (to {path})")
            } else {
                *slot = Some(number);
                continue;
            };
            refused = true;
            let field = format!("spec.ports[{index}].nodePort");
            self.report(
                Severity::Error,
                &draft.object,
                &field,
                format!("Invalid value: {number}: {why}"),
            );
        }
        (!refused).then_some(asked)
    }

    /// A node port that nobody has: from where the hash points on, the static band last.
    fn free_port(&self, path: &str, port: u16) -> Option<u16> {
        let (first, count) = dynamic_ports(&self.rules.node_ports);
        let start = natural_offset(path, port, count);
        let dynamic = (0..count).map(|step| first + (start + step) % count);
        let banded = *self.rules.node_ports.start()..first;
        dynamic
            .chain(banded)
            .find(|number| !self.node_ports.contains_key(number))
    }

    /// The address that the manifest asks for, if it can be bound here. Several Services may share it.
    fn static_load_balancer_ip(&mut self, draft: &Draft) -> Option<IpAddr> {
        if !draft.wants_load_balancer_ip() {
            return None;
        }
        let addr = draft.spec.load_balancer_ip?;
        let ours = self.rules.cluster.load_balancer_cidr.contains(&addr);
        if ours {
            let _ = self.load_balancer_ips.claim(addr, RESERVED);
        }
        let bindable = ours || may_bind(addr, self.rules);
        if !bindable {
            let message = format!(
                "{addr} is not an address of this host: one from the pool is used, this one is only shown as desired"
            );
            self.report(
                Severity::Note,
                &draft.object,
                "spec.loadBalancerIP",
                message,
            );
        }
        bindable.then_some(addr)
    }

    /// A Service keeps what it has while nothing static claims it.
    pub(super) fn keep_held(&mut self, applicant: &Applicant, draft: &mut Draft) {
        let Some((_, held_spec, held)) = &applicant.holds else {
            return;
        };
        if draft.wants_cluster_ip() && draft.cluster_ip.is_none() {
            let addr = held.cluster_ips.first().copied();
            draft.cluster_ip = addr.filter(|addr| {
                self.rules.cluster.service_cidr.contains(addr)
                    && self.cluster_ips.claim(*addr, &applicant.path).is_ok()
            });
        }
        if draft.wants_load_balancer_ip() && draft.load_balancer_ip.is_none() {
            let addr = held.load_balancer_ips.first().copied();
            draft.load_balancer_ip = addr.filter(|addr| {
                self.rules.cluster.load_balancer_cidr.contains(addr)
                    && self.load_balancer_ips.claim(*addr, &applicant.path).is_ok()
            });
        }
        self.keep_health_port(&applicant.path, draft, held.health_check_node_port);
        // Also one that allocates no new ones: what it has is not taken away.
        if !draft.spec.takes_node_ports() {
            return;
        }
        let spec = Arc::clone(&draft.spec);
        for (index, port) in spec.ports.iter().enumerate() {
            // By name, as the API server does; one that was renamed is known by its number.
            let named = held_spec
                .ports
                .iter()
                .position(|held| held.name == port.name);
            let numbered = || {
                let mut ports = held_spec.ports.iter();
                ports.position(|held| held.port == port.port && held.protocol == port.protocol)
            };
            let before = named.or_else(numbered);
            let number = before.and_then(|index| held.node_ports.get(index).copied().flatten());
            self.keep_node_port(applicant, draft, (index, number));
        }
    }

    /// Gives a port the number that it had, unless it has one or another port has taken that.
    fn keep_node_port(
        &mut self,
        applicant: &Applicant,
        draft: &mut Draft,
        (index, number): (usize, Option<u16>),
    ) {
        let is_missing = draft.node_ports.get(index) == Some(&None);
        let kept = number.filter(|number| {
            is_missing
                && draft.may_use(index, *number)
                && self.rules.node_ports.contains(number)
                && claim_port(&mut self.node_ports, *number, &applicant.path)
        });
        if let (Some(number), Some(slot)) = (kept, draft.node_ports.get_mut(index)) {
            *slot = Some(number);
        }
    }

    /// What the state file remembers comes before the hash.
    pub(super) fn keep_remembered(&mut self, applicant: &Applicant, draft: &mut Draft) {
        let remembered = self.rules.remembered;
        let path = &*applicant.path;
        if draft.wants_cluster_ip() && draft.cluster_ip.is_none() {
            let addr = remembered.cluster_ips.get(path).copied();
            draft.cluster_ip = addr.filter(|addr| {
                self.rules.cluster.service_cidr.contains(addr)
                    && self.cluster_ips.claim(*addr, path).is_ok()
            });
        }
        if draft.wants_load_balancer_ip() && draft.load_balancer_ip.is_none() {
            let addr = remembered.load_balancer_ips.get(path).copied();
            draft.load_balancer_ip = addr.filter(|addr| {
                self.rules.cluster.load_balancer_cidr.contains(addr)
                    && self.load_balancer_ips.claim(*addr, path).is_ok()
            });
        }
        self.keep_remembered_health_port(path, draft);
        if draft.wants_node_ports() && !remembered.node_ports.is_empty() {
            let spec = Arc::clone(&draft.spec);
            for index in 0..spec.ports.len() {
                let number = remembered.node_ports.get(&port_owner(path, &spec, index));
                self.keep_node_port(applicant, draft, (index, number.copied()));
            }
        }
    }

    /// Fills what is still missing by the hash and writes the grant down.
    pub(super) fn grant(&mut self, applicant: &Applicant, mut draft: Draft) {
        let path = &*applicant.path;
        if draft.wants_cluster_ip() && draft.cluster_ip.is_none() {
            draft.cluster_ip = self.cluster_ips.take(path);
        }
        if draft.wants_cluster_ip() && draft.cluster_ip.is_none() {
            let message = format!("range {} is full", self.rules.cluster.dynamic_service_cidr);
            return self.report(Severity::Error, &draft.object, "spec.clusterIP", message);
        }
        if draft.wants_load_balancer_ip() && draft.load_balancer_ip.is_none() {
            draft.load_balancer_ip = self.load_balancer_ips.take(path);
            if draft.load_balancer_ip.is_none() {
                let message = format!("range {} is full", self.rules.cluster.load_balancer_cidr);
                let path = "spec.loadBalancerIP";
                self.report(Severity::Error, &draft.object, path, message);
            }
        }
        if draft.wants_node_ports() {
            self.fill_node_ports(applicant, &mut draft);
        }
        self.fill_health_port(path, &mut draft);
        self.remember(path, &draft);
        let addresses = Addresses {
            cluster_ips: draft.cluster_ip.into_iter().collect(),
            node_ports: draft.node_ports,
            load_balancer_ips: draft.load_balancer_ip.into_iter().collect(),
            health_check_node_port: draft.health_check,
        };
        let grant = Grant {
            object: draft.object,
            spec: draft.spec,
            addresses,
        };
        self.allocation
            .granted
            .insert(Arc::clone(&applicant.path), grant);
    }

    fn fill_node_ports(&mut self, applicant: &Applicant, draft: &mut Draft) {
        for index in 0..draft.spec.ports.len() {
            let Some(port) = draft.spec.ports.get(index) else {
                continue;
            };
            if draft.node_ports.get(index).copied().flatten().is_some() {
                continue;
            }
            // Entries with the same number and another protocol share one node port.
            let shared = draft
                .twin(index)
                .filter(|number| draft.may_use(index, *number));
            let number = shared.or_else(|| self.free_port(&applicant.path, port.port));
            if let Some(number) = number {
                self.node_ports.insert(number, Arc::clone(&applicant.path));
                if let Some(slot) = draft.node_ports.get_mut(index) {
                    *slot = Some(number);
                }
            } else {
                let field = format!("spec.ports[{index}].nodePort");
                self.report(
                    Severity::Error,
                    &draft.object,
                    &field,
                    "range is full".to_owned(),
                );
            }
        }
    }

    /// Notes what the hash alone would not give again.
    fn remember(&mut self, path: &str, draft: &Draft) {
        self.remember_health_port(path, draft);
        let deviations = &mut self.allocation.deviations;
        if let Some(addr) = draft.cluster_ip.filter(|_| !draft.cluster_ip_is_static)
            && addr != self.cluster_ips.natural(path)
        {
            deviations.cluster_ips.insert(path.to_owned(), addr);
        }
        if let Some(addr) = draft.load_balancer_ip
            && draft.spec.load_balancer_ip != Some(addr)
            && addr != self.load_balancer_ips.natural(path)
        {
            deviations.load_balancer_ips.insert(path.to_owned(), addr);
        }
        let (first, count) = dynamic_ports(&self.rules.node_ports);
        for (index, port) in draft.spec.ports.iter().enumerate() {
            let number = draft.node_ports.get(index).copied().flatten();
            let expected = draft
                .twin(index)
                .unwrap_or_else(|| first + natural_offset(path, port.port, count));
            if let Some(number) =
                number.filter(|number| port.node_port.is_none() && *number != expected)
            {
                let owner = port_owner(path, &draft.spec, index);
                deviations.node_ports.insert(owner, number);
            }
        }
    }
}

/// Whether a socket can be bound to `addr`: the host owns it or may be given it, or it is in 127/8 outside our own
/// ranges.
fn may_bind(addr: IpAddr, rules: &Rules<'_>) -> bool {
    let is_there = || addr.is_loopback() || rules.host_addresses.contains(&addr);
    let may_be_given = || {
        rules
            .external_ranges
            .iter()
            .any(|range| range.contains(&addr))
    };
    !rules.cluster.owns(addr) && (is_there() || may_be_given())
}
