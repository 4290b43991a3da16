//! The phases of an allocation. Owns pools and claims; the order of the phases is [`super::allocate`]'s.

mod cluster_ip;
mod health_check;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    Addresses, Allocation, Applicant, Grant, Rules,
    bands::{claim_port, dynamic_ports, natural_offset, port_owner},
    draft::Draft,
    families,
    pools::{Pools, RESERVED, Slot, of_family, recall},
};
use crate::{
    object::{
        Object, Service,
        diagnostic::{Diagnostic, Severity},
        service::IpFamily,
    },
    world::immutable,
};

/// One allocation of everything: pools that fill as claims are honoured.
pub(super) struct Round<'a> {
    rules: &'a Rules<'a>,
    cluster_ips: Pools,
    load_balancer_ips: Pools,
    node_ports: BTreeMap<u16, Arc<str>>,
    pub(super) allocation: Allocation,
}

impl<'a> Round<'a> {
    pub(super) fn new(rules: &'a Rules<'a>) -> Self {
        Self {
            rules,
            cluster_ips: Pools::of_cluster_ips(rules.cluster),
            load_balancer_ips: Pools::of_load_balancers(rules.cluster),
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
        let newest = self.try_claims((&applicant.object, &applicant.spec), applicant);
        newest.or_else(|| self.claim_held(applicant))
    }

    /// The static claims of the last good version, if the newest is another one.
    pub(super) fn claim_held(&mut self, applicant: &Applicant) -> Option<Draft> {
        let (object, spec, _) = applicant
            .holds
            .as_ref()
            .filter(|(object, _, _)| !Arc::ptr_eq(object, &applicant.object))?;
        let findings = self.allocation.diagnostics.len();
        let draft = self.try_claims((object, spec), applicant);
        // The reader is told about the newest text only.
        self.allocation.diagnostics.truncate(findings);
        draft
    }

    /// Whether an API server would take the newest version as an edit of the one in force.
    pub(super) fn may_follow(&mut self, applicant: &Applicant) -> bool {
        let Some((_, before, held)) = &applicant.holds else {
            return true;
        };
        let cluster = self.rules.cluster;
        let findings = immutable::of_service((before, held), &applicant.spec, cluster);
        let may = findings.is_empty();
        for (path, message) in findings {
            let object = &applicant.object;
            self.report(Severity::Error, object, &path, message);
        }
        may
    }

    fn try_claims(
        &mut self,
        (object, spec): (&Arc<Object>, &Arc<Service>),
        applicant: &Applicant,
    ) -> Option<Draft> {
        let held = applicant.holds.as_ref();
        let primary = held.and_then(|(_, _, held)| held.families.first().copied());
        let families = match families::resolve(spec, primary, self.rules.cluster) {
            Ok(families) => families,
            Err(findings) => {
                for (path, message) in findings {
                    self.report(Severity::Error, object, &path, message);
                }
                return None;
            }
        };
        let mut draft = Draft::of(object, spec, families, self.rules.cluster);
        let cluster_ips = self.static_cluster_ips(&draft, &applicant.path)?;
        let node_ports = self.check_node_ports(&draft, &applicant.path)?;
        let health_check = self.check_health_port(&draft, &node_ports)?;
        for addr in cluster_ips {
            // One that the DNS has stays reserved.
            self.cluster_ips.claim(addr, &applicant.path);
            give(&mut draft.cluster_ips, addr);
        }
        for port in node_ports.iter().flatten() {
            self.node_ports.insert(*port, Arc::clone(&applicant.path));
        }
        draft.node_ports = node_ports;
        self.take_health_port(&applicant.path, &mut draft, health_check);
        if let Some(addr) = self.static_load_balancer_ip(&draft) {
            give(&mut draft.load_balancer_ips, addr);
        }
        Some(draft)
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
        if draft.load_balancer_ips.is_empty() {
            return None;
        }
        let addr = draft.spec.load_balancer_ip?;
        let family = IpFamily::of(addr);
        let has_family = draft.families.contains(&family);
        let ours = has_family && self.load_balancer_ips.contain(addr);
        if ours {
            self.load_balancer_ips.claim(addr, RESERVED);
        }
        let bindable = has_family && (ours || may_bind(addr, self.rules));
        if !bindable {
            let why = if has_family {
                "not an address of this host".to_owned()
            } else {
                format!("of {}, which the Service does not have", family.as_str())
            };
            let message = format!(
                "{addr} is {why}: one from the pool is used, this one is only shown as desired"
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
        self.cluster_ips
            .keep(&mut draft.cluster_ips, &applicant.path, |family| {
                of_family(&held.cluster_ips, family)
            });
        self.load_balancer_ips
            .keep(&mut draft.load_balancer_ips, &applicant.path, |family| {
                of_family(&held.load_balancer_ips, family)
            });
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
        self.cluster_ips
            .keep(&mut draft.cluster_ips, path, |family| {
                recall(&remembered.cluster_ips, path, family)
            });
        self.load_balancer_ips
            .keep(&mut draft.load_balancer_ips, path, |family| {
                recall(&remembered.load_balancer_ips, path, family)
            });
        self.keep_remembered_health_port(path, draft);
        if draft.spec.takes_node_ports() && !remembered.node_ports.is_empty() {
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
        if let Err(range) = self.cluster_ips.fill(&mut draft.cluster_ips, path) {
            let message = format!("range {range} is full");
            return self.report(Severity::Error, &draft.object, "spec.clusterIP", message);
        }
        let balanced = self
            .load_balancer_ips
            .fill(&mut draft.load_balancer_ips, path);
        if let Err(range) = balanced {
            let message = format!("range {range} is full");
            let path = "spec.loadBalancerIP";
            self.report(Severity::Error, &draft.object, path, message);
        }
        if draft.wants_node_ports() {
            self.fill_node_ports(applicant, &mut draft);
        }
        self.fill_health_port(path, &mut draft);
        self.remember(path, &draft);
        let addresses = Addresses {
            families: draft.families,
            cluster_ips: given(&draft.cluster_ips),
            node_ports: draft.node_ports,
            load_balancer_ips: given(&draft.load_balancer_ips),
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
        self.cluster_ips
            .remember(&draft.cluster_ips, path, &mut deviations.cluster_ips);
        self.load_balancer_ips.remember(
            &draft.load_balancer_ips,
            path,
            &mut deviations.load_balancer_ips,
        );
        let (first, count) = dynamic_ports(&self.rules.node_ports);
        for (index, port) in draft.spec.ports.iter().enumerate() {
            let number = draft.node_ports.get(index).copied().flatten();
            let expected = draft
                .twin(index)
                .unwrap_or_else(|| first + natural_offset(path, port.port, count));
            // The hash gives nothing to a balancer that allocates none: what it has kept is known from here alone.
            let is_expected = |number: u16| number == expected && draft.wants_node_ports();
            if let Some(number) =
                number.filter(|number| port.node_port.is_none() && !is_expected(*number))
            {
                let owner = port_owner(path, &draft.spec, index);
                deviations.node_ports.insert(owner, number);
            }
        }
    }
}

/// Puts an address that was asked for in the place of its family.
fn give(slots: &mut [Slot], addr: IpAddr) {
    for slot in slots
        .iter_mut()
        .filter(|slot| slot.family == IpFamily::of(addr))
    {
        slot.addr = Some(addr);
        slot.is_static = true;
    }
}

fn given(slots: &[Slot]) -> Vec<IpAddr> {
    slots.iter().filter_map(|slot| slot.addr).collect()
}

/// Whether a socket can be bound to `addr`: the host owns it, or it is in 127/8 outside our own ranges.
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
